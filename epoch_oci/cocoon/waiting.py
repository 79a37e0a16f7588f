"""The blobs that wait for their snapshot, and who may still need them.

Whoever counts on a waiting blob holds a shared lock on the folder; blobs are thrown away only by one who is alone with
it. One who is not leaves a mark beside each blob that it is done with, and the next one who is alone sees to those.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterable

from epoch_oci.cocoon.tree import STAGE, Tree
from epoch_oci.disk import local
from epoch_oci.disk.lock import try_lock
from epoch_oci.epoch.keys import blob_key
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.backends.directory import DirectoryBackend

BLOBS = f"{STAGE}/blobs/sha256"
_DONE = ".done"
_KEPT_SECONDS = 14 * 24 * 3600
"""How long blobs wait for a snapshot that never comes."""


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
            if self._locked():
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
                    if name in done or f"{name}{_DONE}" in done or changed < old:
                        os.unlink(name, dir_fd=folder)

    def _mark(self, digests: Iterable[Digest]) -> None:
        with self._tree.folder(BLOBS) as folder, local.local_errors(self._tree.what(BLOBS)):
            for digest in digests if folder is not None else ():
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(f"{digest.hex}{_DONE}", flags, 0o600, dir_fd=folder))
