"""A blob put together on the disk, span by span in any order, and kept when the process dies.

Beside the place where the blob will appear lie a hidden file with the bytes and a small record: the name of what it is
to be, and the spans that are complete. These are written after the bytes; after a power cut they may claim too much,
which the hash over the whole blob finds out, and then both files are thrown away. A lock on the file lets one process
work on a blob at a time; the others are told, and may try again.
"""

import bisect
import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from types import TracebackType
from typing import Self

from epoch_oci.disk.draft import RECORD_HEAD, Shown, clone, link, may_link, reveal
from epoch_oci.disk.holes import Run, write_sparse
from epoch_oci.disk.local import OUR_PREFIX, local_errors, make_usable, sync_file
from epoch_oci.disk.lock import open_locked
from epoch_oci.errors import ConflictError, ContentError
from epoch_oci.oci import verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK

_RECORD_EVERY = 8 << 20
"""A span's progress is recorded this often; so much at most is fetched again for each span after a kill."""
_HASHED = 2 * BLOCK
"""Bytes that the hash waits for: threads that wake each other for every block cost more than what they do."""
_LINE = re.compile(rb"([0-9]{1,16}) ([0-9]{1,16})")
# A line for every eight mebibytes: room for a blob of a terabyte; what is beyond is fetched again.
_RECORD_LIMIT = 4 << 20
# Appended to: lines of several threads may come in any order, and none may land in another one.
_RECORD_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class BusyError(ConflictError):
    """Another process, or another transfer of this one, is at the same blob; try again in a moment."""


class Spans:
    """Which bytes of a blob are there: sorted, disjoint, merged half-open intervals."""

    def __init__(self) -> None:
        self._intervals: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        """Count `start` to `end` as there."""
        if start >= end:
            return
        # Intervals that only touch count as well, so that neighbours become one.
        first = bisect.bisect_left(self._intervals, start, key=lambda item: item[1])
        last = bisect.bisect_right(self._intervals, end, key=lambda item: item[0])
        if first < last:
            start, end = min(start, self._intervals[first][0]), max(end, self._intervals[last - 1][1])
        self._intervals[first:last] = [(start, end)]

    def prefix(self) -> int:
        """How much is there from the start without a gap."""
        return self._intervals[0][1] if self._intervals and self._intervals[0][0] == 0 else 0

    def total(self) -> int:
        """How many bytes are there."""
        return sum(end - start for start, end in self._intervals)

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """The (offset, length) of what is not there, in order."""
        found, offset = [], 0
        for start, end in (*self._intervals, (size, size)):
            if offset < start:
                found.append((offset, start - offset))
            offset = max(offset, end)
        return found


class Placement:
    """Where a blob's bytes lie in the file: as they are, or each segment of a packed file at its offset."""

    def __init__(self, segments: Sequence[Run] | None) -> None:
        self._segments = [(offset, length) for offset, length in segments or () if length]
        self._starts = [0, *accumulate(length for _, length in self._segments)]
        self.is_plain = segments is None

    def runs(self, offset: int, length: int) -> list[tuple[int, int]]:
        """The (file offset, length) of each run that bytes `offset` to `offset + length` of the blob occupy."""
        if self.is_plain:
            return [(offset, length)]
        found = []
        index = bisect.bisect_right(self._starts, offset) - 1
        while length:
            inside = offset - self._starts[index]
            count = min(length, self._segments[index][1] - inside)
            found.append((self._segments[index][0] + inside, count))
            offset, length, index = offset + count, length - count, index + 1
        return found


def _hidden_names(name: str, target: Descriptor, segments: Sequence[Run] | None) -> tuple[str, str]:
    """Of the bytes and of their record, by all that these follow from: what was begun for another digest is another."""
    identity = hashlib.sha256(f"{name}\0{target.digest}\0{target.size}\0{segments}".encode()).hexdigest()[:32]
    return f"{OUR_PREFIX}-{identity}.part", f"{OUR_PREFIX}-{identity}.done"


def room_taken(directory: int, name: str, target: Descriptor, segments: Sequence[Run] | None = None) -> int:
    """How many bytes of the disk an unfinished assembly has already."""
    with contextlib.suppress(OSError):
        found = os.stat(_hidden_names(name, target, segments)[0], dir_fd=directory, follow_symlinks=False)
        return min(found.st_blocks * 512, target.size)
    return 0


class Assembly:
    """A blob being put together in any order. What is there outlives the process; nothing of it is visible.

    `directory` is an open descriptor that outlives this; `name` the final file's, `size` its length and `mode` its
    permission bits. With `links` the finished file may be one with the file it was adopted from. Entering raises
    BusyError while somebody else is at it; where there are no locks, which would tell, it calls `unlocked`. `shown` is
    told what the verified file is, as `draft.reveal` tells it.
    """

    def __init__(
        self,
        directory: int,
        name: str,
        target: Descriptor,
        what: str,
        *,
        segments: Sequence[Run] | None = None,
        size: int | None = None,
        mode: int = 0o600,
        replace: bool = True,
        links: bool = False,
        unlocked: Callable[[], None] = lambda: None,
        shown: Shown = lambda found: None,
    ) -> None:
        self._directory, self._name, self._target, self._what = directory, name, target, what
        self._size = target.size if size is None else size
        self._mode, self._replace, self._links = mode, replace, links
        self._unlocked, self._shown = unlocked, shown
        self._placement = Placement(segments)
        self._linked = False
        self._segments = segments
        self._part, self._record = _hidden_names(name, target, segments)
        self._spans = Spans()
        self._settled: dict[int, int] = {}
        self._marked: dict[int, int] = {}
        self._state = threading.Condition()
        self._closing = False
        self._wanted = 0  # how much is to be there before the hash goes on
        self._hasher: threading.Thread | None = None
        self._digest: Digest | None = None
        self._failure: BaseException | None = None
        self.on_hashed: Callable[[int, int], None] = lambda offset, left: None
        """Told, by another thread, how far what an earlier run left at the start is hashed, and how much that is."""

    def __enter__(self) -> Self:
        with local_errors(self._what), contextlib.ExitStack() as undo:
            self._descriptor = self._open_part()
            undo.callback(os.close, self._descriptor)
            # After the lock: whoever does not hold the part has no business with its record.
            self._log = os.open(self._record, _RECORD_FLAGS, 0o600, dir_fd=self._directory)
            undo.callback(os.close, self._log)
            make_usable(self._log)
            self._load()
            undo.pop_all()
        self.resumed = self._spans.total()
        # Beside the fetching: hashing afterwards would read gigabytes again that were in memory just now.
        self._hasher = threading.Thread(target=self._follow, name="hash", daemon=True)
        self._hasher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._state:
            self._closing = True
            self._state.notify_all()
        if self._hasher is not None:
            self._hasher.join()
        if self._spans.total() == 0:
            self._remove()
        os.close(self._log)
        os.close(self._descriptor)

    @property
    def covered(self) -> int:
        """Bytes that are there now."""
        with self._state:
            return self._spans.total()

    def missing(self) -> list[tuple[int, int]]:
        """The (offset, length) of what has to be fetched, in order."""
        with self._state:
            return self._spans.gaps(self._target.size)

    def write(self, offset: int, block: bytes, start: int | None) -> None:
        """Put `block` at `offset` of the blob. Safe for threads.

        `start` is where the span began that it belongs to; None: a kill costs it unless it is settled.
        """
        view, at = memoryview(block), 0
        with local_errors(self._what):
            for place, length in self._placement.runs(offset, len(block)):
                write_sparse(self._descriptor, bytes(view[at : at + length]) if length != len(block) else block, place)
                at += length
        self._count(start, offset + len(block), len(block))

    def adopt(self, file: int, check: Callable[[], None]) -> bool:
        """Take over the open file without reading it; False when it cannot be, and then nothing was done.

        A clone where the file system has such, else a link where `links` allows; before file and blob become one,
        `check` is called, and whatever it raises is passed on. `finish` checks as ever. Only for an assembly of which
        nothing is there yet.
        """
        # A packed file has its bytes elsewhere, and of an empty one there is nothing to share.
        if not self._placement.is_plain or self._size != self._target.size or self._size == 0:
            return False
        with local_errors(self._what):
            # A file of another length cannot be the blob, and a clone would have taken the bytes of a part that is
            # fetched.
            if os.fstat(file).st_size != self._size:
                return False
        if clone(file, self._descriptor):
            self._count(0, self._size)
            return True
        # One file with two names: whoever may write to the one writes to the other.
        if not self._links or not may_link(file, self._mode):
            return False
        with local_errors(self._what):
            before = os.fstat(file)
            check()
            self._linked = link(file, self._name, self._directory)
            after = os.fstat(file)
        # A file that somebody wrote to meanwhile is not the one that was verified.
        if self._linked and (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            self._shown(after)
        return self._linked

    def finish(self) -> bool:
        """Show the blob under its name. False when it may not replace what is there.

        Raises ContentError when the bytes are not the target; they are thrown away then.
        """
        if self._linked:
            self._remove()
            return True
        digest = self.digest()
        try:
            verifying.check(self._target.digest, digest, self._target.title or str(self._target.digest))
        except ContentError:
            self.discard()
            raise
        with local_errors(self._what):
            done = reveal(
                self._descriptor,
                self._part,
                self._directory,
                self._name,
                self._size,
                self._mode,
                replace=self._replace,
                shown=self._shown,
                record=self._record,
            )
        # What has the name stays, and nobody will ask for these bytes again.
        if not done:
            self.discard()
        return done

    def _refuse_gaps(self) -> None:
        if gaps := self.missing():
            raise ContentError(
                f"{self._what} lacks {sum(length for _, length in gaps)} bytes",
                code="SIZE",
                object=str(self._target.digest),
            )

    def _hashed(self) -> Digest:
        """The digest of all of it, once the hash has caught up: it needs the bytes in order, and they came in any."""
        with self._state:
            self._state.wait_for(lambda: self._digest is not None or self._failure is not None)
        if self._failure is not None:
            raise self._failure
        assert self._digest is not None
        return self._digest

    def discard(self) -> None:
        """Throw away what is there."""
        with self._state:
            self._spans = Spans()
        self._remove()

    def _remove(self) -> None:
        for name in (self._part, self._record):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._directory)

    def _count(self, start: int | None, end: int, length: int = 0) -> None:
        with self._state:
            self._spans.add(end - length if start is None else start, end)
            if self._spans.prefix() >= self._wanted:
                self._state.notify_all()
            if start is None:
                return
            # Not for each block: a kill costs so much of each span, and a record costs a write.
            if end - self._marked.get(start, start) < _RECORD_EVERY and end != self._target.size:
                return
            self._marked[start] = end
        with local_errors(self._what):
            os.write(self._log, f"{start} {end}\n".encode())

    def settle(self, start: int, end: int) -> None:
        """Record that the span from `start` is there up to `end`."""
        with local_errors(self._what):
            os.write(self._log, f"{start} {end}\n".encode())

    def settle_safely(self, spans: Sequence[tuple[int, int]]) -> None:
        """Record spans of which nothing will tell later whether they are right: they reach the disk first."""
        with local_errors(self._what):
            if sync_file(self._descriptor):
                os.write(self._log, b"".join(b"%d %d\n" % span for span in spans))
                self._settled.update(spans)

    def settled(self) -> list[int]:
        """Where the spans end, one behind the other from the start, that were settled in this run or an earlier one."""
        ends, offset = [], 0
        while (end := self._settled.get(offset, 0)) > offset:
            ends.append(end)
            offset = end
        return ends

    def digest(self) -> Digest:
        """The digest of all of it. Raises ContentError when something is missing."""
        self._refuse_gaps()
        return self._hashed()

    def rename(self, digest: Digest) -> bool:
        """From now on it is what was begun for `digest`, which is what its bytes have; whoever begins that finds it.

        False when somebody else is at that. Where the file was to be called by its digest, it is by the new one.
        """
        target = replace(self._target, digest=digest)
        name = digest.hex if self._name == self._target.digest.hex else self._name
        part, record = _hidden_names(name, target, self._segments)
        with local_errors(self._what):
            # What somebody left of it is replaced, and nobody may be at work on that.
            opened = open_locked(part, self._directory)
            if opened is None:
                return False
            try:
                os.rename(self._part, part, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                # Behind the bytes, as ever: without it they are fetched again.
                log = os.open(record, _RECORD_FLAGS | os.O_TRUNC, 0o600, dir_fd=self._directory)
                try:
                    make_usable(log)
                    os.write(log, b"%s%s\n0 %d\n" % (RECORD_HEAD, os.fsencode(name), target.size))
                finally:
                    os.close(log)
                # A sweep that comes by now has taken it already: the part that it is of is gone.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._record, dir_fd=self._directory)
            finally:
                os.close(opened[0])
        self._name, self._target, self._part, self._record = name, target, part, record
        return True

    def _open_part(self) -> int:
        # Two transfers of one blob would take turns at the same bytes (reliability F19).
        opened = open_locked(self._part, self._directory)
        if opened is None:
            raise BusyError(f"{self._what}: somebody else is fetching it", object=self._what)
        descriptor, held = opened
        if not held:
            self._unlocked()
        return descriptor

    def _load(self) -> None:
        """What an earlier run left. Without it the file starts empty, whatever it holds."""
        with local_errors(self._what):
            length = os.fstat(self._descriptor).st_size
            raw = os.pread(self._log, _RECORD_LIMIT, 0) if length else b""
            # Without the last one: a kill may have left half of it.
            for line in raw.split(b"\n")[:-1]:
                found = _LINE.fullmatch(line)
                # A record of another version, or of a file that was cut, claims nothing.
                if found and int(found[1]) < int(found[2]) <= self._target.size:
                    self._spans.add(int(found[1]), int(found[2]))
                    self._settled[int(found[1])] = int(found[2])
            if self._spans.total() == 0:
                os.ftruncate(self._descriptor, 0)
                os.ftruncate(self._log, 0)
                os.write(self._log, b"%s%s\n" % (RECORD_HEAD, os.fsencode(self._name)))
            # Its full length from the start: spans are written in any order, and a full disk is told now.
            if self._size:
                os.ftruncate(self._descriptor, self._size)

    def _follow(self) -> None:
        """Hash the blob from its start as far as it is there, while the rest arrives."""
        hasher, offset = self._target.digest.hasher(), 0
        left = self._spans.prefix()
        buffer = memoryview(bytearray(min(_HASHED, self._target.size)))
        try:
            while offset < self._target.size:
                with self._state:
                    self._wanted = min(offset + _HASHED, self._target.size)
                    # The hash needs the bytes in order, and spans come in any.
                    self._state.wait_for(lambda: self._closing or self._spans.prefix() >= self._wanted)
                    ready = self._spans.prefix()
                    if self._closing:
                        return
                while offset < ready and not self._closing:
                    offset += self._hash(hasher, offset, buffer[: ready - offset])
                    if offset <= left:
                        self.on_hashed(offset, left)
            self._digest = Digest(self._target.digest.algorithm, hasher.hexdigest())
        except BaseException as error:  # handed to whoever waits in `finish`
            self._failure = error
        with self._state:
            self._state.notify_all()

    def _hash(self, hasher: "hashlib._Hash", offset: int, buffer: memoryview) -> int:
        with local_errors(self._what):
            for place, count in self._placement.runs(offset, len(buffer)):
                # Out of the page cache, where the bytes were put a moment ago.
                hasher.update(buffer[: os.preadv(self._descriptor, [buffer[:count]], place)])
        return len(buffer)
