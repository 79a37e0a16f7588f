"""Content kept on this machine, for it will be asked for again: whole blobs, and files of which only parts are here.

Both are called by the digest of the whole. Blobs were verified when they were put there, and the oldest go first. Of a
file in parts, what is not here is a hole, and nobody vouches for what is: whoever reads one has to check it.
"""

import errno
import os
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from epoch_oci.disk.draft import Draft, sweep
from epoch_oci.disk.holes import data_runs
from epoch_oci.disk.kept_bound import KeptBound
from epoch_oci.disk.local import FileReader, local_errors, make_usable, open_private, private
from epoch_oci.disk.lock import try_lock
from epoch_oci.errors import LocalIOError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import ByteReader, VerifyingReader

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOTE = ".note"
_NAME = re.compile(r"[0-9a-f]{64}\Z")
_READ_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class KeptBlobs:
    """At most `count` blobs and `size` bytes of them in a directory for its owner alone.

    What was put there was verified then. Nobody else can write it, yet whoever reads a part has to check what it reads.
    """

    def __init__(self, directory: Path, *, count: int, size: int) -> None:
        self._path = directory
        self._count, self._size = count, size

    def keep(self, target: Descriptor, content: Callable[[], AbstractContextManager[ByteReader]]) -> bool:
        """Have the blob here, from `content` unless it is. False where this machine cannot keep it.

        Raises ContentError when the content is not the blob, and what reading raises.
        """
        try:
            directory = open_private(self._path)
        except OSError:
            return False
        try:
            # By size alone: it was verified when it was put here, and whoever reads it checks what is read.
            if _size_of(target.digest.hex, directory) == target.size:
                with suppress(OSError):
                    # The oldest go first, and this one is in use.
                    os.utime(target.digest.hex, dir_fd=directory)
                return True
            sweep(directory)
            with content() as reader:
                return self._write(target, VerifyingReader(reader, target), directory)
        finally:
            os.close(directory)

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """That much of a blob that is kept. Raises LocalIOError."""
        what = str(self._path / digest.hex)
        with local_errors(what):
            descriptor = self._open(digest.hex)
        return _read(descriptor, what, offset, length)

    def note(self, digest: Digest, raw: bytes) -> None:
        """Keep something small beside a blob that is kept: nobody vouches for it later. Never a reason to fail."""
        with (
            suppress(OSError, LocalIOError),
            private(self._path) as directory,
            Draft(directory, str(self._path)) as draft,
        ):
            draft.write(raw)
            draft.commit(digest.hex + _NOTE)

    def noted(self, digest: Digest, limit: int) -> bytes | None:
        """What was kept beside a blob, None for nothing and for more than `limit` bytes."""
        with suppress(OSError, LocalIOError):
            raw = _read(self._open(digest.hex + _NOTE), str(self._path), 0, limit + 1)
            return raw if len(raw) <= limit else None
        return None

    def newest(self) -> Iterator[tuple[Digest, int]]:
        """Digest and size in bytes of each, those that were asked for last before the others."""
        entries: list[tuple[float, str, int]] = []
        with suppress(OSError), private(self._path) as directory:
            entries = _entries(directory)
        for _, name, size in sorted(entries, reverse=True):
            yield Digest("sha256", name), size

    def _open(self, name: str) -> int:
        with private(self._path) as directory:
            return os.open(name, _READ, dir_fd=directory)

    def _write(self, target: Descriptor, reader: VerifyingReader, directory: int) -> bool:
        what = str(self._path / target.digest.hex)
        try:
            with Draft(directory, what) as draft:
                for block in reader.blocks():
                    draft.write(block)
                draft.commit(target.digest.hex)
        except LocalIOError:
            return False
        self._prune(directory)
        return True

    def _prune(self, directory: int) -> None:
        total = 0
        for number, (_, name, size) in enumerate(sorted(_entries(directory), reverse=True)):
            total += size
            # The newest stays whatever its size is: it is about to be read.
            if number and (number >= self._count or total > self._size):
                for kept in (name, name + _NOTE):
                    with suppress(OSError):
                        os.unlink(kept, dir_fd=directory)


def _read(descriptor: int, what: str, offset: int, length: int) -> bytes:
    """That much of an open file, which is closed then. Raises LocalIOError."""
    try:
        return b"".join(iter(FileReader(descriptor, what, offset, length).read, b""))
    finally:
        os.close(descriptor)


def _entries(directory: int) -> list[tuple[float, str, int]]:
    with os.scandir(directory) as found:
        return [
            (status.st_mtime, entry.name, status.st_size)
            for entry in found
            if _NAME.match(entry.name) and (status := entry.stat(follow_symlinks=False))
        ]


def _size_of(name: str, directory: int) -> int | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except OSError:
        return None


class KeptPart:
    """A file of `size` bytes of which some parts are here, as `stores.base.Content`."""

    def __init__(self, descriptor: int, what: str, size: int, bound: KeptBound | None = None) -> None:
        self.size = size
        self._name, self._bound = what.rpartition("/")[2], bound
        self._descriptor = descriptor
        weakref.finalize(self, _let_go, descriptor, self._name, bound)  # whoever reads last does not know it
        self._what = what
        self._full = False

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`; holes read as zeros."""
        if self._bound is not None:
            self._bound.used(self._name, start)
        yield FileReader(self._descriptor, self._what, start, length)

    def write(self, offset: int, block: bytes) -> bool:
        """Keep a part; False when it was not kept, and nothing is any more: what is missing is only slower."""
        if not self._full:
            try:
                # A full disk is no reason to fail here, and not to be asked for each chunk again.
                self._full = os.pwrite(self._descriptor, block, offset) != len(block)
            except OSError:
                self._full = True
            if self._bound is not None and not self._full:
                self._bound.wrote(self._name, offset, len(block))
        return not self._full

    def runs(self) -> Iterator[tuple[int, int]]:
        """The (start, end) of what is here; all of it where the file system knows no holes. Raises LocalIOError."""
        for start, length in data_runs(self._descriptor, self.size, self._what):
            yield start, start + length


def _let_go(descriptor: int, name: str, bound: KeptBound | None) -> None:
    if bound is not None:
        bound.forget(name)
    os.close(descriptor)


class KeptParts:
    """Files of which only parts are here, in `directory`, which is its owner's alone and is made when it is needed.

    Several processes may write the same file, for they all write the same bytes. With a `size` in bytes, what was used
    longest ago goes when all of them have more.
    """

    def __init__(self, directory: Path, size: int | None = None) -> None:
        self._path = directory
        self._bound = None if size is None else KeptBound(directory, size, _NAME.match)

    @property
    def bound(self) -> KeptBound | None:
        """What keeps them below their size."""
        return self._bound

    def find(self, digest: Digest, size: int) -> KeptPart | None:
        """The file as it is here; None when nothing is, or something else."""
        with suppress(OSError):
            return self._opened(digest, size, 0)
        return None

    def make(self, digest: Digest, size: int) -> KeptPart:
        """The file, made where it is not here. Raises LocalIOError."""
        with local_errors(str(self._path)):
            return self._opened(digest, size, os.O_CREAT)

    def _opened(self, digest: Digest, size: int, flags: int) -> KeptPart:
        with private(self._path, make=bool(flags)) as directory:
            descriptor = os.open(digest.hex, _READ_WRITE | flags, 0o600, dir_fd=directory)
        try:
            # Empty is one that was made a moment ago; any other length is another file's.
            there = os.fstat(descriptor).st_size
            if there not in ((0, size) if flags else (size,)):
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            make_usable(descriptor)
            os.ftruncate(descriptor, size)
            # So that nobody removes it: what is written to it would count for nobody.
            try_lock(descriptor, shared=True)
        except OSError:
            os.close(descriptor)
            raise
        part = KeptPart(descriptor, str(self._path / digest.hex), size, self._bound)
        if self._bound is not None:
            with suppress(OSError):
                os.utime(descriptor)
            self._bound.watch(digest.hex, descriptor, part.runs())
        return part
