"""Putting a blob together out of parts that come in an order of their own (the packs of a chunked artifact)."""

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field

from epoch_oci.disk.assembly import Assembly
from epoch_oci.stores.base import Part, Scattered
from epoch_oci.transfer.content import CancelledError, WatchedContent

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
    waiting: Iterator[Part]
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

    def _next(self) -> Part | None:
        with self.lock:
            if self.content.cancelled.is_set():
                raise CancelledError
            return None if self.error is not None else next(self.waiting, None)

    def _run(self, part: Part) -> None:
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
    work = _Scatter(watched, assembly, iter(content.parts(assembly.missing())))
    helpers: list[Future[None]] = []
    if executor is not None:
        helpers = [executor.submit(work.drain) for _ in range(jobs - 1)]
    work.drain()
    wait([helper for helper in helpers if not helper.cancel()])
    if work.error is not None:
        raise work.error
    return assembly.finish()
