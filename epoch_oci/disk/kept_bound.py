"""A bound on files of which parts are kept: what was used longest ago becomes a hole again.

Readers check whatever they read there, so that a part may go at any time, also from under another process.
"""

import ctypes
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from epoch_oci.disk.local import private
from epoch_oci.disk.lock import try_lock

SEGMENT = 4 << 20
"""Bytes that go together: small enough to keep what is used, large enough to be counted by the thousand."""
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# <linux/falloc.h>: keep the length, and give the room back.
_PUNCH = 0x01 | 0x02
_BLOCK = 512


class KeptBound:
    """At most about `size` bytes of disk for the files in `directory` whose names `is_kept`. Safe for threads.

    Files that nobody has open go first, the oldest of them first of all, then segments of those that are open here.
    """

    def __init__(self, directory: Path, size: int, is_kept: Callable[[str], object]) -> None:
        self._path, self._size, self._is_kept = directory, size, is_kept
        self._descriptors: dict[str, int] = {}
        self._segments: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._lock = threading.Lock()
        self._room = 0

    def watch(self, name: str, descriptor: int, runs: Iterator[tuple[int, int]]) -> None:
        """A file is open here: what it has, `runs` of (start, end), counts as used before all that follows."""
        with self._lock:
            self._descriptors[name] = descriptor
            for start, end in runs:
                for number in range(start // SEGMENT, -(-end // SEGMENT)):
                    self._segments.setdefault((name, number))
            self._make_room()

    def forget(self, name: str) -> None:
        """The file is about to be closed."""
        with self._lock:
            self._descriptors.pop(name, None)
            for key in [key for key in self._segments if key[0] == name]:
                del self._segments[key]

    def used(self, name: str, offset: int) -> None:
        """The part at `offset` is in use."""
        with self._lock:
            key = (name, offset // SEGMENT)
            if key in self._segments:
                self._segments.move_to_end(key)

    def wrote(self, name: str, offset: int, count: int) -> None:
        """So many bytes were written at `offset`."""
        with self._lock:
            key = (name, offset // SEGMENT)
            self._segments[key] = None
            self._segments.move_to_end(key)
            self._room -= count
            if self._room < 0:
                self._make_room()

    def surplus(self) -> dict[str, int]:
        """The files that would go now, all others being closed, each with its bytes on the disk. Raises OSError."""
        with private(self._path, make=False) as directory:
            found = sorted(self._entries(directory))
        return self._surplus(found)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that another process has open lose what they hold. Raises OSError."""
        with private(self._path, make=False) as directory:
            for name in names:
                _empty(name, directory)

    def _surplus(self, found: Sequence[tuple[float, str, int]]) -> dict[str, int]:
        total, gone = sum(used for _, _, used in found), {}
        for _, name, used in found if total > self._size else ():
            if total > self._goal and name not in self._descriptors:
                gone[name] = used
                total -= used
        return gone

    @property
    def _goal(self) -> int:
        """Once there is too much an eighth goes, so that it is not counted anew for each chunk."""
        return self._size - self._size // 8

    def _make_room(self) -> None:
        """Count anew, for others may write here too, and free what is too much."""
        with suppress(OSError), private(self._path, make=False) as directory:
            found = sorted(self._entries(directory))
            gone = self._surplus(found)
            for name in gone:
                _empty(name, directory)
            total = sum(used for _, _, used in found) - sum(gone.values())
            goal = self._goal if gone or total > self._size else total
            while total > goal and len(self._segments) > 1:
                (name, number), _ = self._segments.popitem(last=False)
                total -= _punch(self._descriptors[name], number * SEGMENT, SEGMENT)
            self._room = max(self._size - total, self._size // 16)

    def _entries(self, directory: int) -> Iterator[tuple[float, str, int]]:
        """When each file was last opened or written, its name, and its bytes on the disk."""
        with os.scandir(directory) as entries:
            for entry in entries:
                if self._is_kept(entry.name):
                    with suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        yield found.st_mtime, entry.name, found.st_blocks * _BLOCK


def _empty(name: str, directory: int) -> None:
    """Remove a file; where another process has it open, what it holds."""
    with suppress(OSError):
        descriptor = os.open(name, _OPEN, dir_fd=directory)
        try:
            if try_lock(descriptor) is False:
                _punch(descriptor, 0, os.fstat(descriptor).st_size)
            else:
                os.unlink(name, dir_fd=directory)
        finally:
            os.close(descriptor)


def _punch(descriptor: int, offset: int, length: int) -> int:
    """Make a part of a file a hole, all of it where the file system can do no less; how many bytes that freed."""
    with suppress(OSError):
        found = os.fstat(descriptor)
        length = min(length, found.st_size - offset)
        if length <= 0:
            return 0
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.fallocate(descriptor, _PUNCH, ctypes.c_longlong(offset), ctypes.c_longlong(length)):
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, found.st_size)
        return (found.st_blocks - os.fstat(descriptor).st_blocks) * _BLOCK
    return 0
