"""What a transfer notes of itself, so that the next one goes on where it broke off: small private files, each locked.

What is read is ours, what is written is whole, and one process at a time is at a file. None of them is relied upon:
where one cannot be had, work is done again.
"""

import hashlib
import os
import re
import stat
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from epoch_oci.disk.local import make_usable, open_private
from epoch_oci.disk.lock import open_locked

ENTRY_LIMIT = 32 << 10
"""The most bytes that are read of a file; a larger one is none of ours."""
# The file, its next version until that is whole, and its lock.
_KINDS = ("json", "new", "lock")
_FILE = re.compile(r"([0-9a-f]{64})\.(?:json|new|lock)\Z")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LIFE = 7 * 86400.0
"""Seconds after which what was sent and never named by a manifest is likely to be collected."""
# Six million chunks, or 400 GiB; what is beyond is sent again.
_PACKS_LIMIT = 256 << 20
_RECORD = struct.Struct("<II32sQ")


class PrivateDirectory:
    """A directory for its owner alone, open until `close`. Names are 64 hexadecimal digits."""

    def __init__(self, path: Path) -> None:
        """Make and open it. Raises OSError where that cannot be, or somebody else owns it."""
        self._directory = open_private(path)

    def close(self) -> None:
        """Be done with it."""
        os.close(self._directory)

    def names(self) -> Iterable[str]:
        """Every name of which there is anything. Raises OSError."""
        with os.scandir(self._directory) as entries:
            return {found[1] for found in (_FILE.match(entry.name) for entry in entries) if found}

    def age(self, name: str, now: float) -> float:
        """Seconds since anything of a name was written."""
        times = [0.0]
        for kind in _KINDS:
            with suppress(OSError):
                times.append(os.stat(f"{name}.{kind}", dir_fd=self._directory, follow_symlinks=False).st_mtime)
        return now - max(times)

    def lock(self, name: str) -> int | None:
        """Lock a name; None when somebody else has it locked, and where nothing can be locked."""
        try:
            opened = open_locked(f"{name}.lock", self._directory)
        except OSError:
            return None
        if opened is None:
            return None
        lock, held = opened
        # Without a lock two processes could go on with one upload, and each would spoil it for the other.
        if not held:
            os.close(lock)
            return None
        return lock

    def unlock(self, name: str, lock: int) -> None:
        """Let others lock it."""
        with suppress(OSError):
            # Before it is let go: whoever opened it meanwhile finds that it has no name any more, and opens it anew.
            os.unlink(f"{name}.lock", dir_fd=self._directory)
        os.close(lock)

    def read(self, name: str) -> bytes | None:
        """What was written, None when nothing was; what is not a private file of ours is read as nothing at all."""
        try:
            descriptor = os.open(f"{name}.json", _READ, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except OSError:
            return b""
        try:
            found = os.fstat(descriptor)
            private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
            # A location may hold signed state: one that others could have put there is not followed (reliability C3).
            if not stat.S_ISREG(found.st_mode) or not private or found.st_size > ENTRY_LIMIT:
                return b""
            return os.read(descriptor, ENTRY_LIMIT)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def write(self, name: str, raw: bytes) -> None:
        """Replace what is there as a whole: a reader sees the old or the new. Raises OSError. Under the lock only."""
        with suppress(FileNotFoundError):
            os.unlink(f"{name}.new", dir_fd=self._directory)
        descriptor = os.open(f"{name}.new", _CREATE, 0o600, dir_fd=self._directory)
        try:
            make_usable(descriptor)
            whole = os.write(descriptor, raw) == len(raw)
        finally:
            os.close(descriptor)
        # Half of it, on a full disk, takes no name: the old one is better than that.
        if whole:
            os.replace(f"{name}.new", f"{name}.json", src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def remove(self, name: str) -> None:
        """Take away what was written. Under the lock only."""
        for kind in ("json", "new"):
            with suppress(OSError):
                os.unlink(f"{name}.{kind}", dir_fd=self._directory)


class PackJournal:
    """Which packs of chunks a push that has not ended yet has sent to the place called `where`.

    A record names a pack and has its table; whoever uses it asks the place whether it is still there. `directory` is
    made when it is needed.
    """

    def __init__(self, directory: Path, where: str) -> None:
        self._path = directory / f"{hashlib.sha256(where.encode()).hexdigest()}.packs"
        self._lock = threading.Lock()
        self._descriptor = self._open()

    def records(self) -> Iterator[tuple[str, int, bytes]]:
        """SHA-256 in hex, size in bytes, and closing frame of each pack; it ends at what is torn or foreign."""
        raw = b""
        with suppress(OSError):
            if self._descriptor >= 0:
                raw = os.pread(self._descriptor, _PACKS_LIMIT, 0)
        at = 0
        while len(raw) - at >= _RECORD.size:
            length, check, digest, size = _RECORD.unpack_from(raw, at)
            table = raw[at + _RECORD.size : at + _RECORD.size + length]
            # Killed while it wrote, or written by a version that lays it out otherwise.
            if len(table) != length or zlib.crc32(raw[at + 8 : at + _RECORD.size] + table) != check:
                return
            yield digest.hex(), size, table
            at += _RECORD.size + length

    def note(self, digest: str, size: int, table: bytes) -> None:
        """One more pack was sent. Safe for threads."""
        rest = _RECORD.pack(0, 0, bytes.fromhex(digest), size)[8:] + table
        # In one write, so that a kill cuts only the last record.
        record = struct.pack("<II", len(table), zlib.crc32(rest)) + rest
        with self._lock, suppress(OSError):
            if self._descriptor >= 0:
                os.write(self._descriptor, record)

    def forget(self) -> None:
        """The push has ended well: its manifest says all this."""
        with self._lock, suppress(OSError):
            if self._descriptor >= 0:
                os.ftruncate(self._descriptor, 0)
                self._path.unlink()

    def close(self) -> None:
        """Let others have it; what was noted stays."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open(self) -> int:
        """The file, locked; -1 where it cannot be had."""
        with suppress(OSError), ExitStack() as undo:
            directory = open_private(self._path.parent)
            undo.callback(os.close, directory)
            if (opened := open_locked(self._path.name, directory, os.O_APPEND)) is None:
                return -1
            descriptor, held = opened
            undo.callback(os.close, descriptor)
            found = os.fstat(descriptor)
            # Without a lock, and where others could write it, the push does without.
            if not held or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                return -1
            # A minute of grace for a server's clock that is ahead; more than that is a clock nobody can judge by.
            if not -60 <= time.time() - found.st_mtime <= _LIFE:
                os.ftruncate(descriptor, 0)
            undo.pop_all()
            os.close(directory)
            return descriptor
        return -1
