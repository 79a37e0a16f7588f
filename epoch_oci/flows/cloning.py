"""What a Cocoon will not be able to make a VM of, told where a snapshot is looked at or fetched."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from epoch_oci.cocoon.compat import DEFAULT_ROOT, clone_warnings, config_layers
from epoch_oci.epoch.manifest import Layer, Manifest
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.oci.verify import VerifyingReader
from epoch_oci.stores.base import Content, Node

Contents = Callable[[Layer], Content | None]
"""Where the stored bytes of a file can be had; None when nothing carries them."""


def obstacles(
    manifest: Manifest, contents: Contents | None, *, node: object = None, with_base_images: bool = True
) -> tuple[str, ...]:
    """As `cocoon.compat.clone_warnings`; the VM's configuration is read from `contents`, where that is not None.

    `node` is the store the snapshot is in or goes to; when it is a Cocoon root, paths are held against it. A file that
    is missing or wrong is passed over, for whoever reads it for its own sake says so. Raises what else reading raises.
    """
    root = node.root if isinstance(node, Node) else DEFAULT_ROOT
    found = dict(_configs(manifest, contents)) if contents is not None else {}
    return tuple(clone_warnings(manifest, found, root=root, with_base_images=with_base_images))


def _configs(manifest: Manifest, contents: Contents) -> Iterator[tuple[str, bytes]]:
    for layer in config_layers(manifest):
        with suppress(ContentError, NotFoundError):
            content = contents(layer)
            if content is None:
                continue
            with content.open() as reader:
                blocks = list(VerifyingReader(reader, layer.descriptor, layer.filename).blocks())
            yield layer.filename, b"".join(blocks)
