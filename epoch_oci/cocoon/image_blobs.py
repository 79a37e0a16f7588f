"""Base images on their way into `cloudimg/blobs`, where Cocoon looks for them by name (trap 15)."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from epoch_oci.cocoon.root_file import Digests, RootFile
from epoch_oci.cocoon.tree import IMAGE_BLOBS, Tree
from epoch_oci.disk import local
from epoch_oci.disk.draft import Draft, sweep
from epoch_oci.epoch.manifest import Layer, blob_id
from epoch_oci.errors import ConflictError, ContentError
from epoch_oci.oci.digest import shown
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.base import Content

# As Cocoon's own commit leaves them (epoch-formats 5.1).
_MODE = 0o444


class ImageBlobs:
    """The image blobs of a root: those that are there stay, whatever is said; new ones are read-only, as Cocoon's."""

    def __init__(self, tree: Tree, digests: Digests) -> None:
        self._tree = tree
        self._digests = digests

    def holds(self, layer: Layer) -> bool:
        """Whether a base image is there. Raises ConflictError when another one has its name, ContentError."""
        if blob_id(layer.filename) is None:
            raise ContentError(
                f"{shown(layer.filename)} is not how Cocoon calls a base image (64 hex digits, .qcow2 or .raw)",
                code="NAME",
                object=layer.filename,
            )
        # Whole, whatever its holes: the digest in a manifest is that of the image file.
        file = RootFile.find(self._tree, IMAGE_BLOBS, layer.filename, packed=False)
        if file is None:
            return False
        # Its name is not its hash (trap 15), so that only the bytes tell whether it is the same one.
        if file.size == layer.size and self._digests.fits(file, layer.digest):
            return True
        raise ConflictError(
            f"{file.what} is another image, on which other VMs may build",
            object=file.what,
            hint="a base image is never replaced; find out which of the two Cocoon should have",
        )

    def add(self, layer: Layer, content: Content, waiting: tuple[int, str] | None) -> bool:
        """Show a verified base image under its name; False when it is there already.

        `waiting` is the directory and the name of a file that has the content and may become it. Raises LocalIOError,
        ConflictError, and what reading `content` raises.
        """
        if self.holds(layer):
            return False
        what = self._tree.what(IMAGE_BLOBS, layer.filename)
        with self._made() as directory:
            if waiting is not None and _linked(*waiting, directory, layer.filename, what):
                return True
            with Draft(directory, what) as draft, content.open() as reader:
                for block in VerifyingReader(reader, layer.descriptor, layer.filename).blocks():
                    draft.write(block)
                # Never over another one: VMs of this node build on what is there.
                shown_now = draft.commit(layer.filename, mode=_MODE, replace=False)
        # A Cocoon that imported the very same image meanwhile is as good as ourselves.
        return shown_now or not self.holds(layer)

    def remove(self, layer: Layer) -> None:
        """Take back what `add` showed."""
        with self._tree.own(IMAGE_BLOBS) as directory, contextlib.suppress(FileNotFoundError):
            os.unlink(layer.filename, dir_fd=directory)

    @contextmanager
    def _made(self) -> Iterator[int]:
        """The directory, which a node that never had a cloud image may lack."""
        self._tree.make(IMAGE_BLOBS)
        with self._tree.own(IMAGE_BLOBS) as directory:
            sweep(directory)
            yield directory


def _linked(source: int, blob: str, directory: int, name: str, what: str) -> bool:
    """Give a file a second name, read-only and durable; False where it cannot have one, or the name is taken."""
    try:
        with local.where_supported():
            # Before it has its name: nobody is to see it writable there.
            os.chmod(blob, _MODE, dir_fd=source)
        os.link(blob, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    try:
        with local.local_errors(what):
            local.sync_directory(directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
    return True
