"""Contents made of other contents: slices, joins, pieces, and one that counts what is read from it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import accumulate

from epoch_oci.dataclass import dataclass
from epoch_oci.events import Event, OnEvent
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK, ByteReader, VerifyingReader
from epoch_oci.stores.base import Content, FileContent, Ranged, Sealed
from epoch_oci.transfer.throttle import Throttle


@dataclass(frozen=True, slots=True)
class SliceContent:
    """`size` bytes of `whole`, from `offset` on."""

    whole: Content
    offset: int
    size: int
    seal: bytes | None = None

    def open(self, start: int = 0, length: int | None = None) -> AbstractContextManager[ByteReader]:
        """As `Content.open`."""
        left = self.size - start
        return self.whole.open(self.offset + start, left if length is None else min(length, left))


@dataclass(frozen=True, slots=True)
class JoinedContent:
    """Several contents one after another; each is opened only when the one before it is through."""

    pieces: Sequence[Content]

    @property
    def size(self) -> int:
        """The sum of the pieces, in bytes."""
        return sum(piece.size for piece in self.pieces)

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`."""
        end = self.size if length is None else min(self.size, start + length)
        with ExitStack() as stack:
            yield _JoinedReader(self._spans(start, end), stack)

    def _spans(self, start: int, end: int) -> Iterator[tuple[Content, int, int]]:
        """The (piece, start, length) triples that cover start to end."""
        offset = 0
        for piece in self.pieces:
            first, last = max(start, offset), min(end, offset + piece.size)
            if first < last:
                yield piece, first - offset, last - first
            offset += piece.size


class _JoinedReader:
    def __init__(self, spans: Iterator[tuple[Content, int, int]], stack: ExitStack) -> None:
        self._spans = spans
        self._stack = stack
        self._reader: ByteReader | None = None

    def read(self, size: int = -1, /) -> bytes:
        while True:
            if self._reader is not None and (block := self._reader.read(size)):
                return block
            # The piece that is through, before the next one is opened: each may hold a connection.
            self._stack.close()
            span = next(self._spans, None)
            if span is None:
                return b""
            piece, start, length = span
            self._reader = self._stack.enter_context(piece.open(start, length))


@dataclass(frozen=True, slots=True)
class PiecesContent:
    """Content in memory, `size` bytes in several pieces (a pack, as it was laid)."""

    pieces: tuple[bytes, ...]
    size: int

    def open(self, start: int = 0, length: int | None = None) -> AbstractContextManager[ByteReader]:
        """As `Content.open`."""
        end = self.size if length is None else min(self.size, start + length)
        return nullcontext(_PieceReader(self.pieces, start, end))


class _PieceReader:
    def __init__(self, pieces: Sequence[bytes], start: int, end: int) -> None:
        self._left = end - start
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")
        while start > 0:
            self._piece = memoryview(next(self._pieces))
            start -= len(self._piece)
        self._piece = self._piece[len(self._piece) + start :] if start < 0 else memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        wanted = min(self._left, BLOCK if size < 0 else min(size, BLOCK))
        parts: list[memoryview] = []
        self._left -= wanted
        while wanted:
            if not self._piece:
                self._piece = memoryview(next(self._pieces))
            parts.append(self._piece[:wanted])
            self._piece = self._piece[wanted:]
            wanted -= len(parts[-1])
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class CheckedContent:
    """A piece that knows what it has to be: read from its start to its end, it is verified on the way."""

    content: Content
    target: Descriptor

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.target.size

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`; raises ContentError for a whole piece that is not `target`."""
        # Of a middle part nobody can say whether it is right; whoever reads one verifies the whole by another way.
        whole = start == 0 and length in (None, self.target.size)
        with self.content.open(start, length) as reader:
            yield VerifyingReader(reader, self.target) if whole else reader


def unheard(offset: int, count: int) -> None:
    """Of what is read to be hashed, or from a seed, no byte is one that had to be moved."""


_TOLD_SECONDS = 0.1


def hashing(on_event: OnEvent, digest: Digest, title: str | None) -> Callable[[int, int], None]:
    """What tells how far a blob has been read for its hash alone, and how much of it is to be."""
    last = [0.0]

    def heard(offset: int, size: int) -> None:
        now = time.monotonic()
        # The end in any case: it takes the line away again.
        if now - last[0] >= _TOLD_SECONDS or offset >= size:
            last[0] = now
            on_event(
                Event(event="blob-progress", digest=digest, title=title, bytes=offset, total=size, phase="hashing")
            )

    return heard


def told_of(content: Content, on_event: OnEvent, digest: Digest, title: str | None) -> Content:
    """The same content, of whose reading is told as of hashing: it is read, and does not move."""
    told, size = hashing(on_event, digest, title), content.size
    return WatchedContent(content, lambda at, count: told(at, size) if count else None, threading.Event())


class CancelledError(Exception):
    """Raised inside a transfer when another one failed or the user gave up; never leaves `execute`."""


@dataclass(frozen=True, slots=True)
class WatchedContent:
    """Passes bytes on, tells `moved` of each block, and stops as soon as `cancelled` is set.

    `moved` gets the offset reached, in bytes from the blob's start, and the length of the block: a second `open` may
    report less than the first. With a `throttle` no byte is passed on before it may be, which paces a sender and a
    receiver alike. `resumed` gets what `kept` is told, and `hashed` how far what is read `aside` has come, and how much
    that is.
    """

    content: Content
    moved: Callable[[int, int], None]
    cancelled: threading.Event
    throttle: Throttle | None = None
    resumed: Callable[[int], None] | None = None
    hashed: Callable[[int, int], None] = unheard

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.content.size

    @property
    def seal(self) -> bytes | None:
        """As `stores.base.Sealed`."""
        return self.content.seal if isinstance(self.content, Sealed) else None

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`. Raises CancelledError."""
        with self.content.open(start, length) as reader:
            yield _WatchedReader(reader, start, self)

    def aside(self, count: int) -> Content:
        """As `stores.base.Moving`. What comes over a network to be hashed is within its limit all the same."""
        return WatchedContent(
            self.content,
            lambda offset, length: self.hashed(offset, count) if length else None,
            self.cancelled,
            None if _is_at_hand(self.content) else self.throttle,
        )

    def kept(self, count: int) -> None:
        """As `stores.base.Moving`."""
        if self.resumed is not None:
            self.resumed(count)

    def watched(self, reader: ByteReader) -> ByteReader:
        """A reader of this content from its start, watched as `open` does."""
        return _WatchedReader(reader, 0, self)

    def ranged(self) -> bool:
        """As `stores.base.Ranged`."""
        return isinstance(self.content, Ranged) and self.content.ranged()

    def watch(self, reader: ByteReader) -> ByteReader:
        """A reader of something that the content is made of, watched as the content itself."""
        return _WatchedReader(reader, 0, self)

    def edges(self) -> list[int]:
        """Where the pieces begin that it is joined from, and where the last one ends."""
        pieces = self.content.pieces if isinstance(self.content, JoinedContent) else (self.content,)
        return [0, *accumulate(piece.size for piece in pieces)]


def _is_at_hand(content: Content) -> bool:
    """Whether its bytes are known to be in files of this machine."""
    if isinstance(content, SliceContent):
        return _is_at_hand(content.whole)
    if isinstance(content, JoinedContent):
        return all(map(_is_at_hand, content.pieces))
    return isinstance(content, FileContent) and content.file() is not None


class _WatchedReader:
    def __init__(self, reader: ByteReader, start: int, watched: WatchedContent) -> None:
        self._reader = reader
        self._offset = start
        self._watched = watched

    def read(self, size: int = -1, /) -> bytes:
        cancelled, throttle = self._watched.cancelled, self._watched.throttle
        # At each block, so that a transfer ends within a block of the first failure anywhere.
        if cancelled.is_set():
            raise CancelledError
        if throttle is not None:
            # Small bites, or who asks for a whole block would hold the rate for all others that long.
            size = min(size, throttle.grain) if size >= 0 else throttle.grain
        block = self._reader.read(size)
        # After reading: how much comes is not known before, and what has come waits here rather than in the socket.
        if throttle is not None and block and not throttle.take(len(block), cancelled):
            raise CancelledError
        self._offset += len(block)
        self._watched.moved(self._offset, len(block))
        return block
