"""What a Cocoon will not be able to make a VM of, told before somebody tries. Nothing is mended."""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from epoch_oci.cocoon.epoch_manifest import envelope_of, has_envelope, is_firecracker
from epoch_oci.epoch.manifest import Layer, Manifest, blob_id, unpacking_of
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.oci import strict_json
from epoch_oci.oci.digest import shown
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.base import Content, Node

DEFAULT_ROOT = "/var/lib/cocoon"
CONFIG_LIMIT = 4 << 20
"""Largest configuration of a VM that is looked into, in bytes."""

_CONFIGS = ("cocoon.json", "config.json", "state.json")
# What each kind of VM always has (epoch-formats 5.4).
_CLOUD_HYPERVISOR = frozenset({"config.json", "state.json"})
# Devices and the like are on every node, whatever its root is.
_SYSTEM = re.compile(r"/(?:dev|proc|sys|run)(?:/|\Z)")
# A warning is one line: the first few tell what kind of thing it is.
_MOST = 5


def clone_warnings(
    manifest: Manifest,
    contents: Mapping[str, bytes] | None = None,
    *,
    root: str = DEFAULT_ROOT,
    with_base_images: bool = True,
) -> list[str]:
    """What stands in the way of `cocoon vm clone`, one sentence each.

    `contents` has the bytes of `config_layers`, as far as they could be had; without them paths are not looked at.
    `root` is the root directory of the Cocoon that is to have the snapshot. `with_base_images` is false where only the
    snapshot's own files go, as in an archive.
    """
    if manifest.is_cloud_image:
        return list(_image_warnings(manifest))
    return [
        *_sidecar_warnings(manifest),
        *_base_warnings(manifest, with_base_images),
        *_lost_map_warnings(manifest),
        *_path_warnings(contents or {}, root.rstrip("/") or "/"),
        *_windows_warnings(manifest, contents or {}),
    ]


def config_layers(manifest: Manifest) -> tuple[Layer, ...]:
    """The files in which a VM's paths stand, as far as they are small and stored as they are."""
    return tuple(
        layer
        for layer in manifest.layers
        if layer.filename in _CONFIGS and layer.size <= CONFIG_LIMIT and unpacking_of(manifest, layer) is None
    )


def outside_paths(content: bytes, root: str, what: str) -> list[str]:
    """The absolute paths in a VM's configuration that lead out of `root`, sorted.

    Device and run-time directories do not count. Raises ContentError for what is not JSON.
    """
    # A VM has as many members as it has devices, and nothing is kept of them: the size is bound enough.
    value = strict_json.loads(content, what, limit=CONFIG_LIMIT, members=None)
    inside = root.rstrip("/") + "/"
    return sorted({path for path in _paths(value) if _leads_out(posixpath.normpath(path), inside)})


def _sidecar_warnings(manifest: Manifest) -> Iterator[str]:
    names = {layer.filename for layer in manifest.layers}
    if "cocoon.json" in names:
        return
    # Firecracker's snapshots have had the sidecar from their first version on; those of Cloud Hypervisor got it with
    # 0.3.8, and every version before clones without (epoch-formats 5.4, trap 43).
    if names >= _CLOUD_HYPERVISOR:
        yield "a Cloud Hypervisor snapshot without cocoon.json: Cocoon 0.3.8 and later cannot clone it"
    elif is_firecracker(manifest):
        yield "a Firecracker snapshot without cocoon.json: no Cocoon can clone it"


def _base_warnings(manifest: Manifest, with_base_images: bool) -> Iterator[str]:
    carried = {blob for layer in manifest.base_images if (blob := blob_id(layer.filename))}
    if carried and not with_base_images:
        listed = ", ".join(layer.filename for layer in manifest.base_images)
        yield f"the base image is not part of the archive, and must be in Cocoon's cloudimg/blobs: {listed}"
    absent = sorted({*manifest.image_blob_ids, *envelope_of(manifest).image_blob_ids} - carried)
    overlay = any(layer.filename == "overlay.qcow2" for layer in manifest.layers)
    # IDs of cloud images and of layers of an OCI image look alike: only the disk tells which they are (trap 17).
    if absent and overlay:
        yield f"its disk builds on base images that the snapshot does not carry: {_some(absent)}"
    elif absent:
        yield f"the node must have the layers of its OCI image: {_some(absent)}"
    elif overlay and not carried:
        yield "its disk builds on a base image, and the snapshot neither carries nor names one"


def _lost_map_warnings(manifest: Manifest) -> Iterator[str]:
    for layer in manifest.layers:
        # Of this file alone the length is known: it is the disk itself (trap 8).
        if layer.filename == "cow.raw" and layer.size < manifest.storage and unpacking_of(manifest, layer) is None:
            yield f"cow.raw has {layer.size} of the disk's {manifest.storage} bytes: its sparse map was lost"


def _path_warnings(contents: Mapping[str, bytes], root: str) -> Iterator[str]:
    for name in _CONFIGS:
        if name not in contents:
            continue
        try:
            outside = outside_paths(contents[name], root, name)
        except ContentError as error:
            yield f"{error.message}; its paths were not looked at"
            continue
        if outside:
            yield f"{name} names files outside {root}: {_some(outside)}; Cocoon must have the same root directory"


def _windows_warnings(manifest: Manifest, contents: Mapping[str, bytes]) -> Iterator[str]:
    """The one sign of a Windows guest that is in the files (trap 30)."""
    try:
        value = strict_json.loads(contents.get("config.json", b"{}"), "config.json", limit=CONFIG_LIMIT, members=None)
    except ContentError:
        return
    cpus = value.get("cpus") if isinstance(value, dict) else None
    if isinstance(cpus, dict) and cpus.get("kvm_hyperv") is True and not envelope_of(manifest).windows:
        said = "says it is not" if has_envelope(manifest) else "does not say so"
        yield f"config.json is that of a Windows guest, and the snapshot {said}: a clone may not boot"


def _image_warnings(manifest: Manifest) -> Iterator[str]:
    names = [layer.filename for layer in manifest.layers]
    if any(name.endswith(".raw") or ".raw.part." in name for name in names):
        yield "a raw disk: `cocoon image import` reads qcow2 only"
    parts = [name for name in names if ".part." in name]
    if parts != sorted(parts):
        yield "the disk's parts are not in the order of their names; they are joined in the order of the manifest"


def _paths(value: Any) -> Iterator[str]:
    """Every string that is an absolute path, wherever it stands."""
    if isinstance(value, str):
        # With a blank in it, it is the command line of a kernel or of an init.
        if value.startswith("/") and " " not in value:
            yield value
        return
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _paths(item)


def _leads_out(path: str, inside: str) -> bool:
    return not path.startswith(inside) and _SYSTEM.match(path) is None


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _MOST} more" if len(items) > _MOST else ""
    return ", ".join(shown(item).strip('"') for item in items[:_MOST]) + more


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
