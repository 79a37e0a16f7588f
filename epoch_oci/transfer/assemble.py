"""Putting one blob together on a disk, and fetching only what an earlier run did not leave of it.

That is in several spans at a time (`assemble`), or where its content is cheaper to have in an order of its own, as that
of files in chunks is, in parts (`scatter`).
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import closing
from dataclasses import field
from itertools import pairwise
from typing import TYPE_CHECKING

from epoch_oci.dataclass import dataclass
from epoch_oci.disk.assembly import Assembly
from epoch_oci.errors import ContentError
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.base import Scattered
from epoch_oci.transfer.content import CancelledError, WatchedContent
from epoch_oci.transfer.zstd import UnpackedContent

if TYPE_CHECKING:
    from epoch_oci.chunks.chunked_file import Part

SMALLEST_SPAN = 32 << 20
"""Spans get no smaller, in bytes: a request for less costs more than it wins."""
FAST = 200 << 20
"""Bytes a second of one stream from which on more streams win nothing: what follows is hashed hardly faster."""
# Long enough to be past the first window of a connection, short enough to cost a slow transfer nothing.
_PROBE_SECONDS = 0.2


@dataclass(slots=True)
class Fetch:
    """The spans of one blob that are still to be fetched; several threads take from it until it is empty.

    `invite` calls further threads, as soon as one stream turns out slow.
    """

    content: WatchedContent
    assembly: Assembly
    waiting: deque[tuple[int, int]]
    invite: Callable[[], None] | None = None
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    pace: int = 0
    since: float = field(default_factory=time.monotonic)

    def drain(self) -> None:
        """Fetch spans until none is left or one failed; the first error is kept for whoever waits."""
        while (span := self._next()) is not None:
            try:
                self._span(*span)
            except BaseException as error:
                with self.lock:
                    # The first one is the cause; what the others say follows from it.
                    self.error = self.error or error
                return

    def _next(self) -> tuple[int, int] | None:
        with self.lock:
            return self.waiting.popleft() if self.waiting and self.error is None else None

    def _span(self, start: int, length: int) -> None:
        offset, end = start, start + length
        with self.content.open(start, length) as reader:
            while offset < end:
                block = reader.read(min(BLOCK, end - offset))
                if not block:
                    raise ContentError(f"the content ended after {offset} bytes", code="SIZE")
                # With the start of its span: what is recorded as there is always a whole stretch from such a start.
                self.assembly.write(offset, block, start)
                offset += len(block)
                self._measure(len(block))
                # Before the next one is asked for: with two at a time each thread's heap grows to twice as much.
                del block

    def _measure(self, count: int) -> None:
        """Only one thread is here until it has invited others."""
        if (invite := self.invite) is None:
            return
        self.pace += count
        elapsed = time.monotonic() - self.since
        # A shorter look would measure the beginning of a connection, which is slow on every line.
        if elapsed < _PROBE_SECONDS:
            return
        # One stream that is fast is left alone: more of them would only take turns at the disk and at the hash.
        if self.pace < FAST * elapsed:
            self.invite = None
            invite()
        self.pace, self.since = 0, time.monotonic()


def assemble(content: WatchedContent, assembly: Assembly, jobs: int, executor: Executor | None) -> bool:
    """Fetch what is missing, with idle workers of `executor` helping out where one is slow, and finish the blob.

    False when it may not replace what is there. Raises what reading raises, ContentError when the bytes are wrong.
    """
    fetch = Fetch(content, assembly, deque(_cut(content, assembly.missing(), jobs)))
    helpers: list[Future[None]] = []

    def invite() -> None:
        if executor is not None:
            # No more helpers than spans: one that finds nothing to do would have kept a place from another blob.
            helpers.extend(executor.submit(fetch.drain) for _ in range(min(jobs - 1, len(fetch.waiting))))

    fetch.invite = invite
    fetch.drain()
    # Those that never began are called off, or a full pool would wait for itself.
    wait([helper for helper in helpers if not helper.cancel()])
    if fetch.error is not None:
        raise fetch.error
    return assembly.finish()


def _cut(content: WatchedContent, missing: list[tuple[int, int]], jobs: int) -> Iterator[tuple[int, int]]:
    """Spans worth a request each. Joined pieces are never cut across; other content only where ranges are cheap."""
    edges = content.edges()
    for offset, length in missing:
        for low, high in pairwise(edges):
            start, end = max(offset, low), min(offset + length, high)
            if start >= end:
                continue
            # A part is a blob of its own: a span across two of them would be two requests, and the first of them
            # verified by nobody.
            if len(edges) == 2 and content.ranged():
                yield from _pieces(start, end - start, jobs)
            else:
                yield start, end - start


def _pieces(offset: int, length: int, jobs: int) -> Iterator[tuple[int, int]]:
    # No more spans than there can be helpers: each costs a request.
    count = max(1, min(jobs, length // SMALLEST_SPAN))
    size = -(-length // count)
    for start in range(offset, offset + length, size):
        yield start, min(size, offset + length - start)


_RECORD_EVERY = 8 << 20
"""So many bytes at most of each thread are fetched again after a kill."""


class _Unsettled:
    """Bytes that were written, and are not recorded yet."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._spans: list[tuple[int, int]] = []
        self._size = 0

    def write(self, offset: int, block: bytes) -> None:
        """Write a block, and count it."""
        self._assembly.write(offset, block, offset)
        end = offset + len(block)
        if self._spans and self._spans[-1][1] == offset:
            self._spans[-1] = (self._spans[-1][0], end)
        else:
            self._spans.append((offset, end))
        self._size += len(block)
        # A record is a write and a sync of its own: one for each chunk would cost more than the chunks.
        if self._size >= _RECORD_EVERY:
            self.settle()

    def settle(self) -> None:
        """Record them."""
        for start, end in self._spans:
            self._assembly.settle(start, end)
        self._spans, self._size = [], 0


@dataclass(slots=True)
class _Scatter:
    """Parts that are still to be fetched; several threads take from it until it is empty or one of them failed."""

    content: WatchedContent
    assembly: Assembly
    waiting: "Iterator[Part]"
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def drain(self) -> None:
        """Fetch parts until none is left; the first error is kept for whoever waits."""
        try:
            while (part := self._next()) is not None:
                self._run(part)
        except BaseException as error:
            with self.lock:
                self.error = self.error or error

    def _next(self) -> "Part | None":
        with self.lock:
            # Looked at between parts as well: one of zeros is read from nowhere, and would never notice.
            if self.content.cancelled.is_set():
                raise CancelledError
            return None if self.error is not None else next(self.waiting, None)

    def _run(self, part: "Part") -> None:
        """Fetch a part; what it brought is recorded now and then, and also when it fails halfway."""
        written = _Unsettled(self.assembly)
        try:
            part.run(written.write, self.content.watch)
        finally:
            written.settle()


def scatter(
    content: Scattered, watched: WatchedContent, assembly: Assembly, jobs: int, executor: Executor | None
) -> bool:
    """Fetch what is missing, with idle workers of `executor` helping out, and finish the blob.

    False when it may not replace what is there. Raises what the parts raise, ContentError when the bytes are wrong.
    """
    # Parts are made as they are taken: a file of 100 GB has some hundred thousand of them.
    work = _Scatter(watched, assembly, iter(content.parts(assembly.missing())))
    helpers: list[Future[None]] = []
    if executor is not None:
        helpers = [executor.submit(work.drain) for _ in range(jobs - 1)]
    work.drain()
    wait([helper for helper in helpers if not helper.cancel()])
    if work.error is not None:
        raise work.error
    return assembly.finish()


_SETTLE_EVERY = 64 << 20
"""Layers are settled by so many bytes: each time the disk is waited for."""


def fill(unpacked: UnpackedContent, content: WatchedContent, assembly: Assembly) -> None:
    """Decode the layers of `unpacked`, watched as `content`, into the assembly, and go on behind those that it has.

    Nothing tells what the bytes have to be but the layers, so that after a kill only whole ones count. Raises as
    reading `unpacked` does; what was settled stays then.
    """
    ends = assembly.settled()
    try:
        with closing(unpacked.decoded(len(ends), ends[-1] if ends else 0)) as blocks:
            _fill(_LayerReader(blocks), content, assembly)
    except ContentError:
        if not assembly.settled():
            assembly.discard()
        raise


def _fill(layers: "_LayerReader", content: WatchedContent, assembly: Assembly) -> None:
    start = offset = (assembly.settled() or [0])[-1]
    reader, whole, countable = content.watch(layers), [], True
    while not layers.ended:
        if block := reader.read(BLOCK):
            assembly.write(offset, block, None)
            offset += len(block)
        elif not layers.ended:
            # Layers are counted by where they end, so that behind one without bytes no more can be.
            countable = countable and offset > start
            whole.append((start, offset))
            start = offset
            if countable and offset - whole[0][0] >= _SETTLE_EVERY:
                assembly.settle_safely(whole)
                whole = []


class _LayerReader:
    """Blocks as a reader that gives nothing once behind each layer; at the end it has `ended`."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")
        self.ended = False

    def read(self, size: int = -1, /) -> bytes:
        if not self._block:
            block = next(self._blocks, None)
            self.ended = block is None
            self._block = memoryview(block or b"")
        taken = self._block if size < 0 else self._block[:size]
        self._block = self._block[len(taken) :]
        return bytes(taken)
