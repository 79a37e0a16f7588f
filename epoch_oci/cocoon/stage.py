"""What is on its way into a root, where nobody looks: a snapshot's directory in the making, and blobs that wait for it.

A directory is filled, then moved into its place. Whoever counts on a waiting blob holds a shared lock on the folder;
blobs are thrown away only by one who is alone with it. One who is not leaves a mark beside each blob that it is done
with, and the next one who is alone sees to those.
"""

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from epoch_oci.cocoon.tree import DIRECTORY_MODE, SNAPSHOTS, STAGE, Tree
from epoch_oci.disk import local
from epoch_oci.disk.holes import write_all, write_sparse
from epoch_oci.disk.lock import try_lock
from epoch_oci.epoch.keys import blob_key
from epoch_oci.epoch.sparse import Unpacking
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK, VerifyingReader
from epoch_oci.stores.backends.directory import DirectoryBackend

_NAME = re.compile(r"new-[0-9a-f]{32}\Z")
BLOBS = f"{STAGE}/blobs/sha256"
_DONE = ".done"
# Long enough for a pull that broke off before a holiday.
_KEPT_SECONDS = 14 * 24 * 3600
"""How long blobs wait for a snapshot that never comes."""


class NewDirectory:
    """A directory beside the snapshots, locked by its owner, gone when it is given up. Raises LocalIOError."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._name = f"new-{secrets.token_hex(16)}"
        self._descriptor = -1
        self._place = STAGE

    def __enter__(self) -> Self:
        with self._tree.own(STAGE) as stage, local.local_errors(self._what()):
            local.make_directory(self._name, stage, self._what())
            # From here on everything goes by this descriptor: what its name leads to may be exchanged (reliability N6).
            self._descriptor = os.open(self._name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=stage)
            try_lock(self._descriptor)  # where there are no locks, nobody takes it for an abandoned one either
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._place == STAGE:
            with contextlib.suppress(OSError), self._tree.existing(STAGE) as stage:
                _remove(self._name, self._descriptor, stage)
        os.close(self._descriptor)

    def take(self, name: str, mode: int, source: int, blob: str) -> bool:
        """Give the file `blob` of the directory `source` another name here. False when it cannot have one."""
        try:
            # A blob that is whole costs nothing to become the file; its own name goes when all is done.
            os.link(blob, name, src_dir_fd=source, dst_dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return False
        with local.local_errors(self._what(name)), local.where_supported():
            os.chmod(name, mode, dir_fd=self._descriptor)
        return True

    def write(self, name: str, mode: int, reader: VerifyingReader, packed: Unpacking | None) -> None:
        """Write a file: what `reader` has, unfolded where it is `packed`, with holes just where the map has them."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        what = self._what(name)
        with local.local_errors(what):
            descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptor)
        try:
            size = _copy(reader, descriptor, what) if packed is None else _unfold(reader, descriptor, packed, what)
            with local.local_errors(what):
                # A hole at the end is nothing that was written.
                os.ftruncate(descriptor, size)
                local.set_mode(descriptor, mode)
                local.sync_file(descriptor)
        finally:
            os.close(descriptor)

    def move(self, snapshot_id: str) -> None:
        """Make it the directory of a snapshot, safe on the disk and of the mode that Cocoon gives one."""
        with local.local_errors(self._what()):
            local.set_mode(self._descriptor, DIRECTORY_MODE)
            # Its names before its own name: after a power cut the record may lead to no half of a snapshot (reliability
            # F3).
            local.sync_directory(self._descriptor)
        self._rename(self._name, STAGE, snapshot_id, SNAPSHOTS)
        # From now on it is Cocoon's, and `__exit__` leaves it alone.
        self._place = SNAPSHOTS

    def move_back(self, snapshot_id: str) -> None:
        """Take it out of its place again."""
        self._rename(snapshot_id, SNAPSHOTS, self._name, STAGE)
        self._place = STAGE

    def _rename(self, old: str, old_place: str, new: str, new_place: str) -> None:
        moving = local.local_errors(self._tree.what(new_place, new))
        with self._tree.own(old_place) as source, self._tree.own(new_place) as target, moving:
            os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
            local.sync_directory(target)

    def _what(self, name: str = "") -> str:
        return self._tree.what(f"{STAGE}/{self._name}", name)


def remove_abandoned(tree: Tree) -> None:
    """Remove the directories of owners that are gone; what cannot be removed is left."""
    with tree.folder(STAGE) as stage:
        for name, mode in tree.names(STAGE) if stage is not None else ():
            if stage is None or not (_NAME.match(name) and stat.S_ISDIR(mode)):
                continue
            with contextlib.suppress(OSError):
                descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=stage)
                try:
                    # None, where there are no locks: it may be somebody's at this moment, and Cocoon never looks here.
                    if try_lock(descriptor):
                        _remove(name, descriptor, stage)
                finally:
                    os.close(descriptor)


def _remove(name: str, descriptor: int, parent: int) -> None:
    """Remove a flat directory."""
    for file in os.listdir(descriptor):
        os.unlink(file, dir_fd=descriptor)
    os.rmdir(name, dir_fd=parent)


def _copy(reader: VerifyingReader, descriptor: int, what: str) -> int:
    offset = 0
    for block in reader.blocks():
        with local.local_errors(what):
            write_sparse(descriptor, block, offset)
        offset += len(block)
    return offset


def _unfold(reader: VerifyingReader, descriptor: int, packed: Unpacking, what: str) -> int:
    """Zeros inside a segment are written: the file packs again to the very same bytes."""
    for offset, length in packed.segments:
        end = offset + length
        while offset < end:
            block = reader.read(min(BLOCK, end - offset))
            with local.local_errors(what):
                write_all(descriptor, memoryview(block), offset)
            offset += len(block)
    return packed.logical_size


class WaitingBlobs:
    """The blobs in `stage`, as one process sees them; `hold` before looking for one, `done` when all are used."""

    def __init__(self, tree: Tree, stage: DirectoryBackend) -> None:
        self._tree, self._stage = tree, stage
        self._lock: int | None = None

    def __del__(self) -> None:
        self.release()

    def hold(self) -> None:
        """From now on nothing that waits is thrown away. Writes nothing; where nothing waits nothing is held."""
        if self._lock is None:
            with self._tree.folder(STAGE) as folder:
                # The folder is closed behind us, and a lock lives as long as a descriptor of its open file.
                self._lock = None if folder is None else os.dup(folder)
            self._locked(shared=True)

    def release(self) -> None:
        """What waits may be thrown away again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def tidy(self) -> None:
        """Throw away what is forgotten, unless somebody holds what waits. Afterwards it is held as by `hold`."""
        if self._lock is None:
            self.hold()
            # Alone for this moment: whoever counts on a blob has a shared lock.
            if self._locked():
                # Nothing was given up now, but those before us may have left something.
                self._throw_away(())
            self._locked(shared=True)

    def done(self, digests: Iterable[Digest]) -> None:
        """The snapshot of these blobs is there: they need not wait any more. Nothing is held afterwards."""
        self.hold()
        if self._locked():
            self._throw_away(digests)
        else:
            self._mark(digests)
        self.release()

    def _locked(self, *, shared: bool = False) -> bool:
        """False where others hold it, and where there are no locks: then nothing is thrown away."""
        return self._lock is not None and try_lock(self._lock, shared=shared) is True

    def _throw_away(self, digests: Iterable[Digest]) -> None:
        for digest in digests:
            self._stage.delete(blob_key(digest))
        old = time.time() - _KEPT_SECONDS
        entries = self._tree.names(BLOBS)
        done = {name for name, _ in entries if name.endswith(_DONE)}
        with self._tree.folder(BLOBS) as folder:
            for name, mode in entries if folder is not None else ():
                with contextlib.suppress(OSError):
                    if not stat.S_ISREG(mode):
                        continue
                    changed = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                    # The mark goes with its blob, and one without a blob goes as well.
                    if name in done or f"{name}{_DONE}" in done or changed < old:
                        os.unlink(name, dir_fd=folder)

    def _mark(self, digests: Iterable[Digest]) -> None:
        with self._tree.folder(BLOBS) as folder, local.local_errors(self._tree.what(BLOBS)):
            for digest in digests if folder is not None else ():
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(f"{digest.hex}{_DONE}", flags, 0o600, dir_fd=folder))
