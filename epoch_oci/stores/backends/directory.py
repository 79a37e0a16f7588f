"""A key space in a directory: one file an object.

Nothing below the directory is followed or opened but directories and regular files: a symbolic link, a FIFO or a
device in place of an object is refused (ContentError, TYPE). New files have mode 0600 and new directories 0700.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.disk import local
from epoch_oci.disk.draft import Draft, Shown, is_ours, is_reserved, stale, sweep
from epoch_oci.disk.facts import Marks, is_same
from epoch_oci.disk.lock import locked
from epoch_oci.errors import ContentError, LocalIOError, NotFoundError
from epoch_oci.oci import verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK, ByteReader
from epoch_oci.stores.backends.base import Change, Opener, Stored, check_key, read_if_there

if TYPE_CHECKING:
    from epoch_oci.disk.assembly import Assembly

_LOOKS = 5
"""A file that changes every time it is read counts as absent."""


class DirectoryBackend:
    """Objects below `path`, which is made when the first one is written. Safe for threads and processes.

    `immutable` says that nobody ever writes into a file that is there: then an object may be one file with an object
    of another such place on the same disk. `warnings` are told where the file system has no locks, where others may
    write, and of objects that turn out wrong; `marks` remember which were found right.
    """

    def __init__(
        self,
        path: Path,
        *,
        immutable: bool = False,
        warnings: local.Warnings | None = None,
        marks: Marks | None = None,
    ) -> None:
        self.path = path.absolute()
        self._immutable = immutable
        self._marks = marks or Marks()
        self._warnings = warnings or local.Warnings(str(self.path))
        self._settled: set[str] = set()

    def check(self) -> None:
        """As `Backend.check`."""
        with self._opened("") as root:
            if root is None:
                raise NotFoundError(f"{self.path} is not there", object=str(self.path))

    def head(self, key: str) -> int | None:
        """As `Backend.head`."""
        folder, name = _split(key)
        with self._opened(folder) as directory:
            found = None if directory is None else local.look_for_file(name, directory, self._what(key))
            return None if found is None else found.st_size

    def holds(self, key: str, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Backend.holds`."""
        for _ in range(_LOOKS):
            # The size first: it costs a look, and a file of another one need not be read.
            if self.head(key) != target.size:
                return False
            with contextlib.suppress(NotFoundError), self.file(key) as descriptor:
                digest = self._digest(descriptor, target, self._what(key), anew)
                if digest is not None:
                    return digest == target.digest
            # Another process has put the blob as well, as a rule: its file has taken the place of the one that was
            # read, which lost its name meanwhile, and is as good.
        return False

    def _digest(self, descriptor: int, target: Descriptor, what: str, anew: bool) -> Digest | None:
        """What a file holds, read unless that is known; None when it is being changed."""
        form = target.digest.algorithm
        with local.local_errors(what):
            # By the descriptor and not by the name, before and after: what is measured is what was read.
            before = os.fstat(descriptor)
        digest = None if anew else self._marks.digest(before, form)
        if digest is None:
            digest = verifying.read_digest(local.FileReader(descriptor, what), form)
            with local.local_errors(what):
                after = os.fstat(descriptor)
            # Written to while it was read: the digest is of no one moment, and nothing is remembered of it.
            if not is_same(before, after):
                return None
            self._marks.was_read(after, digest, form)
        if digest != target.digest:
            # Counted as absent and not as an error: whoever puts the blob again mends it.
            self._warnings(f"{what} does not hold what its name says, and counts as absent")
        return digest

    @contextmanager
    def open(self, key: str, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Backend.open`."""
        with self.file(key) as descriptor:
            yield local.FileReader(descriptor, self._what(key), start, length)

    @contextmanager
    def file(self, key: str) -> Iterator[int]:
        """As `Backend.file`."""
        folder, name = _split(key)
        with self._opened(folder) as directory:
            descriptor = None if directory is None else local.open_file(name, directory, self._what(key))
        if descriptor is None:
            raise NotFoundError(f"{self._what(key)} is not there", object=self._what(key))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def write(self, key: str, content: Opener, size: int, *, digest: Digest | None = None) -> None:
        """As `Backend.write`. A disk that has no room for `size` bytes is an error before the first one."""
        folder, name = _split(key)
        what = self._what(key)
        with self._made(folder) as directory:
            local.look_for_file(name, directory, what)
            self._require_room(directory, size, what)
            # In the very directory, for a rename is atomic within one file system alone (decision D8).
            with Draft(directory, what) as draft:
                with content() as reader:
                    while block := reader.read(BLOCK):
                        draft.write(block)
                draft.commit(name, shown=self._marking(digest))

    @contextmanager
    def assemble(self, key: str, target: Descriptor) -> "Iterator[Assembly]":
        """As `stores.base.Assembler.assemble`, for the object `key`. The disk must have room for what is missing."""
        from epoch_oci.disk.assembly import Assembly

        folder, name = _split(key)
        what = self._what(key)
        with (
            self._made(folder) as directory,
            Assembly(
                directory,
                name,
                target,
                what,
                links=self._immutable,
                unlocked=self._warnings.no_locks,
                shown=self._marking(target.digest),
            ) as assembly,
        ):
            local.look_for_file(name, directory, what)
            self._require_room(directory, target.size - assembly.resumed, what)
            yield assembly

    def update(self, key: str, change: Change, *, limit: int) -> bool:
        """As `Backend.update`, under a lock on the directory."""
        with self._made("") as root, locked(root, str(self.path), self._warnings.no_locks):
            # Read under the lock: what was read before it may be what another process has replaced.
            old = read_if_there(self, key, limit=limit, what=self._what(key))
            new = change(old)
            if new is None or new == old:
                return False
            self.write(key, lambda: io.BytesIO(new), len(new))
            return True

    def keys(self, prefix: str) -> Iterator[str]:
        """As `Backend.keys`. A file whose name is not UTF-8 has no key; what is not a regular file has one."""
        # A list and no recursion: a store of strangers may be as deep as its file system lets it.
        folders = [prefix.rpartition("/")[0]]
        while folders:
            folder = folders.pop()
            for name, is_directory in self._entries(folder):
                key = f"{folder}/{name}" if folder else name
                if not key.startswith(prefix):
                    continue
                # A link to a directory is none: it is listed as a key, and refused when it is opened (reliability L3).
                if is_directory:
                    folders.append(key)
                else:
                    yield key

    @property
    def is_shared(self) -> bool:
        """As `DatedBackend.is_shared`: Epoch's servers keep their content in buckets alone."""
        return False

    def dated(self, prefix: str) -> Iterator[Stored]:
        """As `DatedBackend.dated`."""
        for key in self.keys(prefix):
            folder, name = _split(key)
            with self._opened(folder) as directory:
                found = None if directory is None else local.look(name, directory, self._what(key))
            if found is not None and stat.S_ISREG(found.st_mode):
                yield Stored(key, found.st_size, found.st_mtime)

    def leftovers(self, prefix: str, older: float, *, remove: bool) -> list[Stored]:
        """As `DatedBackend.leftovers`: drafts whose writers are gone, and blobs that were never fetched whole."""
        folder = prefix.rpartition("/")[0]
        with self._opened(folder) as directory:
            if directory is None:
                return []
            before = stale(directory, older)
            if not remove:
                found = before
            else:
                # By the lock of each draft: one that is held is somebody's work, however old it is.
                sweep(directory, older)
                left = {name for name, _, _ in stale(directory, older)}
                found = [row for row in before if row[0] not in left]
        return [Stored(f"{folder}/{name}" if folder else name, size, modified) for name, size, modified in found]

    def delete(self, key: str) -> None:
        """As `Backend.delete`."""
        folder, name = _split(key)
        what = self._what(key)
        with self._opened(folder) as directory:
            # Only a regular file is unlinked; what stands in its place is nobody's content, and stays.
            if directory is None or local.look_for_file(name, directory, what) is None:
                return
            with local.local_errors(what):
                with contextlib.suppress(FileNotFoundError):  # somebody else was quicker to delete it
                    os.unlink(name, dir_fd=directory)
                local.sync_directory(directory)

    def flush(self, prefix: str) -> None:
        """As `Backend.flush`: files are synced before they get their names, so their directories are what is left."""
        with self._opened(prefix.rpartition("/")[0], sync=True):
            pass

    def _what(self, key: str) -> str:
        return f"{self.path}/{key}" if key else str(self.path)

    def _marking(self, digest: Digest | None) -> Shown:
        """Remembers of a file that was written that it has this digest."""
        if digest is None:
            return lambda found: None
        return lambda found: self._marks.was_written(found, digest, digest.algorithm)

    def _require_room(self, directory: int, size: int, what: str) -> None:
        free = local.free_space(directory, what)
        # Before the first byte: a disk that runs full after an hour is an hour lost (reliability F4).
        if free is not None and size > free:
            raise LocalIOError(
                f"{what}: it has {size} bytes, and the disk has room for {free}",
                object=what,
                hint="make room and run the same command again",
            )

    @contextmanager
    def _made(self, folder: str) -> Iterator[int]:
        """A directory to write in. The first time it is tidied, and made durable with all above it."""
        local.make_directories(self.path)
        with self._opened(folder, create=True) as directory:
            if directory is None:
                raise LocalIOError(f"{self._what(folder)} was removed meanwhile", object=self._what(folder))
            # Once for each folder of a run: syncing it costs milliseconds, and there are thousands of blobs.
            if folder not in self._settled:
                self._warnings.look_at(directory)
                # Folders that an earlier run made and was killed in may not be durable; what is published now counts on
                # them.
                self.flush(f"{folder}/")
                sweep(directory)
                self._settled.add(folder)
            yield directory

    @contextmanager
    def _opened(self, folder: str, *, create: bool = False, sync: bool = False) -> Iterator[int | None]:
        """A directory below the root, None when it or one above it is not there; `sync` makes all of them durable."""
        directory = local.open_below(self.path, folder, create=create, sync=sync)
        try:
            yield directory
        finally:
            if directory is not None:
                os.close(directory)

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """What is in a directory, with whether it is one itself."""
        with self._opened(folder) as directory, local.local_errors(self._what(folder)):
            if directory is None:
                return []
            with os.scandir(directory) as entries:
                # All of it before anything is handed on: whoever lists may delete, and a descriptor is not held
                # meanwhile.
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        return [(name, is_directory) for name, is_directory in found if _is_key(name)]


def _split(key: str) -> tuple[str, str]:
    """The folder of a key ("" at the root) and the name in it. Raises ContentError (NAME)."""
    check_key(key)
    folder, _, name = key.rpartition("/")
    if is_reserved(key):
        raise ContentError(f"the key {key} is reserved for drafts and locks", code="NAME", object=key)
    return folder, name


def _is_key(name: str) -> bool:
    return not is_ours(name) and not any("\ud800" <= char <= "\udfff" for char in name)
