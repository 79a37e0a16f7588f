"""An object's bytes as streams: read, and taken up again where it broke off; written, in parts when it is large.

What is written is never completed when its content fails. `obstore` pulls the body from inside its own runtime, where
nothing else of `obstore` may be called; so it is pulled in a thread of its own, and the content is read in the
caller's, be it another bucket or a registry.
"""

import random
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, NetworkError, NotFoundError
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.backends.object_errors import foreign_errors, status_of

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

import contextlib
import queue
import threading
from itertools import chain
from typing import TYPE_CHECKING

from epoch_oci.oci.verifying import ByteReader

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# What a store says to a range behind the end of an object: for a reader that is the end.
_UNSATISFIABLE = 416


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often to try, and how long to wait in between: `first` seconds, twice as long each time up to `longest`.

    `jitter` gives 0 to 1. What `obstore` itself tries again it does so often too, and for two minutes at most.
    `settle` is how long a write that could not be made on condition is left alone before it is looked at again.
    """

    attempts: int = 8
    first: float = 0.2
    longest: float = 20.0
    settle: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def wait(self, failed: int) -> None:
        """Sleep before the next attempt, after `failed` ones."""
        self.sleep(min(self.longest, self.first * 2.0 ** min(failed, 16)) * self.jitter())


class ObjectReader:
    """Bytes of an object from `start` on, `length` of them (None: to its end). Nothing is asked before `begin`."""

    def __init__(
        self, store: "ObjectStore", path: str, what: str, start: int, length: int | None, patience: Patience
    ) -> None:
        self._store, self._path, self._what = store, path, what
        self._offset = start
        self._end = None if length is None else start + length
        self._patience = patience
        self._failed = 0
        self._blocks: Iterator[memoryview] | None = None
        self._block = memoryview(b"")

    def begin(self) -> None:
        """Ask for the object. Raises NotFoundError, AccessError, NetworkError."""
        with foreign_errors(self._what):
            self._blocks = self._ask()

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes and never more than a block; b"" at the end."""
        wanted = BLOCK if size < 0 else min(size, BLOCK)
        if not self._block and wanted:
            self._block = self._next()
        taken = bytes(self._block[:wanted])
        self._block = self._block[wanted:]
        self._offset += len(taken)
        return taken

    def close(self) -> None:
        """Give the connection up."""
        self._blocks, self._block = iter(()), memoryview(b"")

    def _next(self) -> memoryview:
        """The next bytes from the store. Only what has been handed out counts, so nothing comes twice."""
        while True:
            try:
                with foreign_errors(self._what):
                    if self._blocks is None:
                        self._blocks = self._ask()
                    block = next(self._blocks, memoryview(b""))
            except NetworkError as error:
                self._blocks = None
                self._failed += 1
                # Counted without progress: a line that breaks every gigabyte still gets there.
                if not error.retryable or self._failed >= self._patience.attempts:
                    raise
            else:
                self._failed = 0
                return block
            self._patience.wait(self._failed)

    def _ask(self) -> Iterator[memoryview]:
        import obstore
        from obstore.exceptions import GenericError

        if self._end is not None and self._offset >= self._end:
            return iter(())
        try:
            if self._end is not None:
                result = obstore.get(self._store, self._path, options={"range": (self._offset, self._end)})
            elif self._offset:
                result = obstore.get(self._store, self._path, options={"range": {"offset": self._offset}})
            else:
                result = obstore.get(self._store, self._path)
        except GenericError as error:
            if status_of(error) == _UNSATISFIABLE:
                return iter(())
            raise
        return (memoryview(block) for block in result.stream(min_chunk_size=BLOCK))


def read_small(
    store: "ObjectStore", path: str, what: str, limit: int
) -> "tuple[bytes | None, UpdateVersion | Literal['create'] | None]":
    """An object whole with its version, or None and "create" when it is not there.

    The version is None where the store names none. Raises ContentError (SIZE) for more than `limit` bytes.
    """
    import obstore

    try:
        with foreign_errors(what):
            result = obstore.get(store, path)
            blocks, size = [], 0
            for block in result.stream(min_chunk_size=BLOCK):
                blocks.append(bytes(block))
                size += len(block)
                if size > limit:
                    raise ContentError(f"{what} is larger than the {limit} bytes allowed", code="SIZE", object=what)
            meta = result.meta
    except NotFoundError:
        return None, "create"
    version: UpdateVersion = {}
    if tag := meta["e_tag"]:
        version["e_tag"] = tag
    if generation := meta["version"]:
        version["version"] = generation
    return b"".join(blocks), version or None


SINGLE = 8 << 20
"""Up to this many bytes go in one request."""
_PART = 8 << 20
_MOST_PARTS = 9_000
"""S3 takes 10,000 parts; some room is left."""
# Parts under way at a time, each in memory: four of 8 MiB keep a line busy and memory flat.
_CONCURRENCY = 4
# Blocks that reading may be ahead of sending.
_AHEAD = 4


def upload(store: "ObjectStore", path: str, what: str, reader: ByteReader, size: int) -> None:
    """Store all that `reader` has, about `size` bytes. What reading raises is passed on, and then nothing is stored."""
    # What is announced is not believed: only reading tells whether one request is enough.
    blocks = iter(lambda: reader.read(BLOCK), b"")
    head, whole = _take(blocks, SINGLE)
    if whole:
        put(store, path, what, b"".join(head))
    else:
        _upload_parts(store, path, what, chain(head, blocks), part_size(size))


def put(store: "ObjectStore", path: str, what: str, content: bytes) -> None:
    """Store a small object in one request."""
    import obstore

    with foreign_errors(what):
        obstore.put(store, path, content, use_multipart=False)


def part_size(size: int) -> int:
    """Bytes of a part: as few parts as the stores allow, whole MiB, the same for all but the last."""
    least = -(-size // _MOST_PARTS)
    return max(_PART, -(-least >> 20) << 20)


def _take(blocks: Iterator[bytes], limit: int) -> tuple[list[bytes], bool]:
    """Blocks up to just beyond `limit` bytes, and whether these are all."""
    taken: list[bytes] = []
    size = 0
    for block in blocks:
        taken.append(block)
        size += len(block)
        if size > limit:
            return taken, False
    return taken, True


def _upload_parts(store: "ObjectStore", path: str, what: str, blocks: Iterator[bytes], chunk: int) -> None:
    feed = _Feed()
    thread = threading.Thread(target=feed.upload, args=(store, path, chunk), name="upload", daemon=True)
    thread.start()
    try:
        for block in blocks:
            if feed.failure is not None:
                break
            feed.send(block)
    except BaseException as error:
        # To the uploading thread too: obstore aborts an upload whose body raises, and leaves nothing (decision D9).
        feed.send(error)
        thread.join()
        raise
    feed.send(None)
    thread.join()
    if feed.failure is not None:
        with foreign_errors(what):
            raise feed.failure


class _Feed:
    """Blocks on their way from the thread that reads to the one that uploads; an exception makes the upload stop."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self.failure: BaseException | None = None

    def send(self, item: bytes | BaseException | None) -> None:
        """Pass a block on; None ends the content."""
        self._queue.put(item)

    def upload(self, store: "ObjectStore", path: str, chunk: int) -> None:
        """Run the upload to its end. After a failure the feed is emptied, so that the sender does not wait for ever."""
        import obstore

        items = self._items()
        try:
            # Every part but the last has to be of one size for R2 and some others.
            obstore.put(store, path, items, use_multipart=True, chunk_size=chunk, max_concurrency=_CONCURRENCY)
        except BaseException as error:
            self.failure = error
        with contextlib.suppress(BaseException):  # what is read from the feed now belongs to the sender
            for _ in items:
                pass

    def _items(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
