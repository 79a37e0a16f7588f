"""What was costly to find out, remembered between runs: one file of small texts in the cache directory.

Nothing here is relied upon: whatever cannot be read, or is not what was written, is as if it had never been found out,
and what cannot be written is not. The file is only ever appended to, a whole record at a time, so that processes need
no lock; each record has its own checksum. When it has grown to LIMIT the newer half of it takes its place.

`Marks` binds such facts to files: what one was found to hold, for as long as it is the file that was read. Device,
inode, size and both times say whether it is. A file that was changed a moment before it was looked at may be changed
again without a new time; what was read of it then is remembered in this process alone.
"""

import contextlib
import hashlib
import os
import stat
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from epoch_oci.disk.draft import Draft, sweep
from epoch_oci.disk.local import private
from epoch_oci.errors import ContentError, LocalIOError
from epoch_oci.oci.digest import Digest

LIMIT = 8 << 20
"""Bytes: some 40,000 digests, which are read in a twentieth of a second."""
# One text may not push all the others out.
_LONGEST = LIMIT // 16
# Once more, for somebody may have replaced the file between opening and writing.
_TRIES = 2
# Of what cannot be written; a few megabytes of memory.
_MOST_HERE = 10_000
_FILE = "facts"
_HEAD = b"epoch-oci facts 1\n"
_SETTLED_NS = 2_000_000_000
"""The coarsest clock of a file system is FAT's, which counts two seconds."""
_SECOND_NS = 1_000_000_000


class Facts:
    """Texts by kind and key. With `directory` None they are remembered in this process alone. Safe for threads.

    A text is printable ASCII. The directory is made when there is something to write.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._known: dict[bytes, bytes] = {}
        self._here: dict[bytes, bytes] = {}
        self._read = (0, 0, 0)

    def __reduce__(self) -> tuple[type[Self], tuple[Path | None]]:
        return type(self), (self._directory,)

    def recall(self, kind: str, key: str) -> str | None:
        """What was remembered last, by this process or another one; None when nothing was, or it was forgotten."""
        name = _name(kind, key)
        with self._lock:
            if name not in self._here:
                self._catch_up()
            # What this process alone knows is newer than what is written.
            line = self._here.get(name) or self._known.get(name, b"")
        return _text(name, line) or None

    def keep(self, kind: str, key: str, text: str, *, briefly: bool = False) -> None:
        """Remember a text; `briefly`, and where it cannot be written, in this process alone."""
        name = _name(kind, key)
        record = _record(name, text)
        with self._lock:
            # O_APPEND and a single write: records of several processes do not mix on a local file system, and where
            # they do the checksum tells.
            if not briefly and self._append(record):
                self._here.pop(name, None)
                self._known[name] = record.strip()
                return
            self._here[name] = record.strip()
            if len(self._here) > _MOST_HERE:
                del self._here[next(iter(self._here))]

    def forget(self, kind: str, key: str) -> None:
        """It turned out wrong."""
        self.keep(kind, key, "")

    def _catch_up(self) -> None:
        """Read what was written since the last time, by whomever; all of it where that is another file by now."""
        with contextlib.suppress(OSError, ValueError), self._opened(os.O_RDONLY) as file:
            found = os.fstat(file)
            device, inode, offset = self._read
            # Another process has put a shorter file in its place.
            if (found.st_dev, found.st_ino) != (device, inode) or found.st_size < offset:
                self._known, offset = {}, 0
            raw = os.pread(file, found.st_size - offset, offset)
            whole = raw.rfind(b"\n") + 1  # somebody may be writing the last record just now
            self._known.update(_records(raw[:whole]))
            self._read = (found.st_dev, found.st_ino, offset + whole)

    def _append(self, record: bytes) -> bool:
        """Whether it could be written."""
        if self._directory is None or len(record) > _LONGEST:
            return False
        # For the case that there is no file to append to, or none to be believed.
        raw, replace = _HEAD + record, True
        for _ in range(_TRIES):
            try:
                with self._opened(os.O_RDWR | os.O_APPEND) as file:
                    size = os.fstat(file).st_size
                    if size + len(record) <= LIMIT:
                        return os.write(file, record) == len(record)
                    raw = _HEAD + _newer(os.pread(file, size, 0)) + record
            except FileNotFoundError:
                replace = False
            except (OSError, ValueError):
                replace = True
            with contextlib.suppress(OSError, LocalIOError):
                if self._write(raw, replace):
                    return True
        return False

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        """The file. Raises OSError, and ValueError for one that is not to be believed: not ours alone, or damaged."""
        if self._directory is None:
            raise ValueError
        file = os.open(self._directory / _FILE, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(file)
            # What others could write is not believed: a wrong digest would be sent as a claim (reliability L1).
            ours = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not stat.S_ISREG(found.st_mode) or not ours or found.st_size > 2 * LIMIT:
                raise ValueError
            if os.pread(file, len(_HEAD), 0) != _HEAD:
                raise ValueError
            yield file
        finally:
            os.close(file)

    def _write(self, raw: bytes, replace: bool) -> bool:
        """A new file, in the place of one that is full or damaged; False when somebody else was quicker to make one.

        What others append to one that is replaced meanwhile is lost.
        """
        assert self._directory is not None
        with private(self._directory, follow=True) as directory:
            sweep(directory)
            with Draft(directory, str(self._directory)) as draft:
                draft.write(raw)
                return draft.commit(_FILE, replace=replace)


def _name(kind: str, key: str) -> bytes:
    # A hash, so that no path and no name of a snapshot stands in the file.
    return hashlib.sha256(f"{kind}\n{key}".encode("utf-8", "surrogateescape")).hexdigest()[:40].encode()


def _record(name: bytes, text: str) -> bytes:
    """A line, with its own line break before it: a record that was cut short by a kill spoils no other one."""
    line = b"%s %s" % (name, text.encode("ascii", "replace"))
    return b"\n%s %08x\n" % (line, zlib.crc32(line))


def _records(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and line of each record, right or wrong."""
    for line in raw.split(b"\n"):
        name, space, _ = line.partition(b" ")
        if space:
            yield name, line


def _text(name: bytes, line: bytes) -> str:
    """The text in a record, "" for one that is not as it was written."""
    body, _, check = line.rpartition(b" ")
    if check != b"%08x" % zlib.crc32(body):
        return ""
    return body[len(name) + 1 :].decode("ascii", "replace")


def _newer(raw: bytes) -> bytes:
    """The newest records of a file, each name once, half as much as may be in it at most."""
    kept: dict[bytes, bytes] = {}
    size = 0
    # From the end: of several records of a name the last one counts.
    for name, line in reversed(list(_records(raw[len(_HEAD) :]))):
        if name in kept:
            continue
        size += len(line) + 2
        if size > LIMIT // 2:
            break
        kept[name] = line
    return b"".join(b"\n%s\n" % line for line in reversed(kept.values()) if _text(line.partition(b" ")[0], line))


class Marks:
    """Digests of files. `form` names in which of several forms a file's bytes were hashed. Safe for threads."""

    def __init__(self, facts: Facts | None = None) -> None:
        self._facts = facts or Facts(None)

    def digest(self, found: os.stat_result, form: str = "") -> Digest | None:
        """What the file was found to hold; None when that is not known, or it is no longer the same file."""
        text = self._facts.recall("mark", _key(found, form)) or ""
        digest, _, state = text.partition(" ")
        try:
            return Digest.parse(digest) if state == _state(found) else None
        except ContentError:
            return None

    def was_read(self, found: os.stat_result, digest: Digest, form: str = "") -> None:
        """The file was as `found` before all of it was read, and after that."""
        age = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns)
        self._keep(found, digest, form, briefly=age < _SETTLED_NS)

    def was_written(self, found: os.stat_result, digest: Digest, form: str = "") -> None:
        """This process wrote the file, gave it its name, and then it was as `found`."""
        self._keep(found, digest, form, briefly=found.st_ctime_ns % _SECOND_NS == 0)

    def forget(self, found: os.stat_result, form: str = "") -> None:
        """What is remembered of the file turned out wrong."""
        self._facts.forget("mark", _key(found, form))

    def _keep(self, found: os.stat_result, digest: Digest, form: str, *, briefly: bool) -> None:
        self._facts.keep("mark", _key(found, form), f"{digest} {_state(found)}", briefly=briefly)


def is_same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file is what it was, as far as anybody can tell without reading it."""
    return _key(before, "") == _key(after, "") and _state(before) == _state(after)


def _key(found: os.stat_result, form: str) -> str:
    # Not by its path: a file that is moved is the same file, and one that takes its path is another.
    return f"{found.st_dev} {found.st_ino} {form}"


def _state(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
