"""An object written as a stream, in parts when it is large; never completed when its content fails.

`obstore` pulls the body from inside its own runtime, where nothing else of `obstore` may be called; so it is pulled in
a thread of its own, and the content is read in the caller's, be it another bucket or a registry.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from epoch_oci.oci.verifying import BLOCK, ByteReader
from epoch_oci.stores.backends.object_errors import foreign_errors

if TYPE_CHECKING:
    from obstore.store import ObjectStore

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
    return max(_PART, -(-least // BLOCK) * BLOCK)


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
