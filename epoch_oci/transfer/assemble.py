"""Fetching one blob in several spans at a time, and only what an earlier run did not leave."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from itertools import pairwise

from epoch_oci.disk.assembly import Assembly
from epoch_oci.errors import ContentError
from epoch_oci.oci.verify import BLOCK
from epoch_oci.transfer.content import WatchedContent

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
                self.assembly.write(offset, block, start)
                offset += len(block)
                self._measure(len(block))

    def _measure(self, count: int) -> None:
        """Only one thread is here until it has invited others."""
        if (invite := self.invite) is None:
            return
        self.pace += count
        elapsed = time.monotonic() - self.since
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
    count = max(1, min(jobs, length // SMALLEST_SPAN))
    size = -(-length // count)
    for start in range(offset, offset + length, size):
        yield start, min(size, offset + length - start)
