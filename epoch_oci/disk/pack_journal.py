"""Which packs of chunks were sent to a place by a push that has not ended yet: one file for each place.

Nothing in it is worth a failure. A record names a pack and has its table; whoever uses it asks the place whether it is
still there. One process at a time writes it, the others do without.
"""

import contextlib
import hashlib
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from epoch_oci.disk.local import open_private
from epoch_oci.disk.lock import open_locked

_LIFE = 7 * 86400.0
"""Seconds after which what was sent and never named by a manifest is likely to be collected."""
_LIMIT = 256 << 20
_RECORD = struct.Struct("<II32sQ")


class PackJournal:
    """The journal of the place called `where`, in `directory`, which is made when it is needed."""

    def __init__(self, directory: Path, where: str) -> None:
        self._path = directory / f"{hashlib.sha256(where.encode()).hexdigest()}.packs"
        self._lock = threading.Lock()
        self._descriptor = self._open()

    def records(self) -> Iterator[tuple[str, int, bytes]]:
        """SHA-256 in hex, size in bytes, and closing frame of each pack; it ends at what is torn or foreign."""
        raw = b""
        with contextlib.suppress(OSError):
            if self._descriptor >= 0:
                raw = os.pread(self._descriptor, _LIMIT, 0)
        at = 0
        while len(raw) - at >= _RECORD.size:
            length, check, digest, size = _RECORD.unpack_from(raw, at)
            table = raw[at + _RECORD.size : at + _RECORD.size + length]
            if len(table) != length or zlib.crc32(raw[at + 8 : at + _RECORD.size] + table) != check:
                return
            yield digest.hex(), size, table
            at += _RECORD.size + length

    def note(self, digest: str, size: int, table: bytes) -> None:
        """One more pack was sent. Safe for threads."""
        rest = _RECORD.pack(0, 0, bytes.fromhex(digest), size)[8:] + table
        record = struct.pack("<II", len(table), zlib.crc32(rest)) + rest
        with self._lock, contextlib.suppress(OSError):
            if self._descriptor >= 0:
                os.write(self._descriptor, record)

    def forget(self) -> None:
        """The push has ended well: its manifest says all this."""
        with self._lock, contextlib.suppress(OSError):
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
        with contextlib.suppress(OSError), contextlib.ExitStack() as undo:
            directory = open_private(self._path.parent)
            undo.callback(os.close, directory)
            if (opened := open_locked(self._path.name, directory, os.O_APPEND)) is None:
                return -1
            descriptor, held = opened
            undo.callback(os.close, descriptor)
            found = os.fstat(descriptor)
            if not held or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                return -1
            if not -60 <= time.time() - found.st_mtime <= _LIFE:
                os.ftruncate(descriptor, 0)
            undo.pop_all()
            os.close(directory)
            return descriptor
        return -1
