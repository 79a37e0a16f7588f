"""Reading a file that is in chunks: all of it in the order of the packs, or a part of it, from any offset.

Only chunks whose digest was checked come out. What is read of the packs is put together to few long ranges.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import field
from itertools import groupby, pairwise
from typing import Protocol

from epoch_oci.chunks.chunk import ChunkEncoding, broken, decode
from epoch_oci.chunks.index import Chunk, Index, StoredBlob
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError
from epoch_oci.oci.verifying import BLOCK, ByteReader

# A request costs about as long as so many bytes take on a line of 10 Mbit/s and 100 ms.
GAP = 128 << 10
"""Bytes that are read and thrown away rather than asked around."""
_DENSE = 4
"""Where no more than one part in so many is not wanted, a pack is read in one piece."""
_WINDOW = 16 << 20
"""Bytes of the file that a reader of it as a stream holds, and as many again that come meanwhile."""
_ZEROS = bytes(BLOCK)

Watch = Callable[[ByteReader], ByteReader]
"""Put around every reader of a pack, to count or to pace."""
ReadPack = Callable[[StoredBlob, int, int], AbstractContextManager[ByteReader]]
"""Opens (pack, offset, length); nothing that it reads is believed."""
Keep = Callable[[int, bytes, bytes], None]
"""Takes (offset in the file, digest, chunk), of a chunk that was fetched and checked."""
Write = Callable[[int, bytes], None]
"""Takes (offset in the file, bytes)."""


def _ignored(count: int) -> None:
    """For whoever does not count."""


class AtHand(Protocol):
    """Chunks that need not be fetched."""

    def has(self, digest: bytes) -> bool:
        """Whether a chunk is said to be here."""

    def read(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Those of the chunks that really are here, each with its digest, which was checked."""


class Part(Protocol):
    """A part of a file that can be had by itself."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The (start, end) of what it brings, in bytes of the file, neighbours joined."""

    def run(self, write: Write, watch: Watch) -> None:
        """Fetch it, check it, and write it. Raises ContentError, and what reading and writing raise."""


@dataclass(slots=True)
class WantedChunk:
    """A chunk and every offset of the file where it belongs."""

    chunk: Chunk
    places: list[int]


@dataclass(frozen=True, slots=True)
class Zeros:
    """Zeros from `start` to `end`, which nobody has to fetch."""

    start: int
    end: int

    @property
    def spans(self) -> list[tuple[int, int]]:
        """As `Part.spans`."""
        return [(self.start, self.end)]

    def run(self, write: Write, watch: Watch = lambda reader: reader) -> None:
        """As `Part.run`."""
        for offset in range(self.start, self.end, BLOCK):
            write(offset, _ZEROS[: min(BLOCK, self.end - offset)])


@dataclass(frozen=True, slots=True)
class Task:
    """What lies in one pack, in one window of the file. `counted` gets the number of bytes that were fetched."""

    file: "ChunkedFile"
    pack: int
    wanted: tuple[WantedChunk, ...]
    counted: Callable[[int], None]

    def run(self, write: Write, watch: Watch = lambda reader: reader) -> None:
        """As `Part.run`."""
        writer = _Joining(write)
        # Disks before lines: what this machine has need not be fetched.
        left = self._from_hand(writer)
        pack = self.file.index.header.packs[self.pack]
        # A registry without ranges sends the pack from its start, so that it is read but once.
        for run in runs_of(left, self.file.what, whole=bool(left) and not self.file.ranged()):
            start, end = run.start, run.end
            with self.file.read(pack, start, end - start) as reader:
                _read_run(run, _Buffered(watch(reader), self.file.what), writer, self.file)
            self.counted(end - start)
        writer.flush()

    @property
    def spans(self) -> list[tuple[int, int]]:
        """As `Part.spans`."""
        return _joined((place, place + item.chunk.length) for item in self.wanted for place in item.places)

    def _from_hand(self, writer: "_Joining") -> list[WantedChunk]:
        """Write what is at hand; returns what has to be fetched."""
        hand = self.file.at_hand
        if hand is None:
            return list(self.wanted)
        # By digest: one chunk may stand at several places of a pack that somebody else wrote.
        there: dict[bytes, list[WantedChunk]] = {}
        for item in self.wanted:
            if hand.has(item.chunk.digest):
                there.setdefault(item.chunk.digest, []).append(item)
        done = set()
        for digest, chunk in hand.read(list(there)) if there else ():
            for item in there[digest]:
                if len(chunk) == item.chunk.length:  # an index may call a chunk longer than it is
                    writer.place(item, chunk)
                    done.add(item.chunk.offset)
        return [item for item in self.wanted if item.chunk.offset not in done]


@dataclass(slots=True)
class PackRun:
    """Neighbouring chunks of a pack that are read at one go, from `start` to `end` of the pack."""

    start: int
    end: int
    wanted: list[WantedChunk] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChunkedFile:
    """File number `number` of `index`. `ranged` says whether reading the middle of a pack costs only that.

    What is `at_hand` is not fetched, and what is fetched is given to `keep`.
    """

    index: Index
    number: int
    read: ReadPack
    what: str
    ranged: Callable[[], bool] = lambda: True
    at_hand: AtHand | None = None
    keep: Keep | None = None

    @property
    def size(self) -> int:
        """Length in bytes of what the chunks cover."""
        return self.index.header.files[self.number].span

    def tasks(self, missing: Iterable[tuple[int, int]], counted: Callable[[int], None] = _ignored) -> Iterator[Part]:
        """What brings the (offset, length) spans that are missing.

        In the order of the file, window by window, so that its start is complete first.
        """
        # Windows of one piece of the index: so much of it is held at a time, whatever the file's size is.
        wide = self.index.header.piece_chunks * self.index.header.chunk_size
        for _, spans in groupby(_divided(missing, wide), key=lambda span: span[0] // wide):
            # What is missing may be a thousand holes that a kill has left: they are asked for together.
            yield from self.window(list(spans), counted)

    def window(self, spans: Sequence[tuple[int, int]], counted: Callable[[int], None]) -> Iterator[Part]:
        """As `tasks` for the chunks that the (start, end) `spans`, which are in order, touch."""
        size = self.index.header.chunk_size
        packs: dict[int, dict[int, WantedChunk]] = {}
        zeros: list[tuple[int, int]] = []
        wide = self.index.header.piece_chunks * size
        pieces = range(spans[0][0] // wide, -(-spans[-1][1] // wide))
        if all(self.index.is_zeros(self.number, piece) for piece in pieces):
            # Terabytes of zeros are a few bytes in the header, and take no longer than that.
            for start, end in spans:
                yield Zeros(start - start % size, min(-(-end // size) * size, self.size))
            return
        for number, chunk in self._touched(spans):
            place = number * size
            if chunk.encoding == ChunkEncoding.ZERO:
                zeros.append((place, place + chunk.length))
                continue
            # A chunk that the file has more than once is fetched once in a window.
            known = packs.setdefault(chunk.pack, {}).setdefault(chunk.offset, WantedChunk(chunk, []))
            # An index may say two things of one place; whatever is there can be only one of them.
            if known.chunk != chunk:
                raise broken(self.what, f"has two chunks at one place of pack {chunk.pack}", "MISMATCH")
            known.places.append(place)
        for first, last in _joined(zeros):
            yield Zeros(first, last)
        for pack, wanted in packs.items():
            # A task for each pack: whoever runs them reads from several packs at once, and each of them front to back.
            yield Task(self, pack, tuple(wanted.values()), counted)

    def _touched(self, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, Chunk]]:
        """Every chunk that they touch, once, with its number."""
        size, known = self.index.header.chunk_size, 0
        for start, end in spans:
            first, stop = max(known, start // size), -(-end // size)
            if first < stop:
                yield from self.index.chunks(self.number, first, stop)
                known = stop

    def cost(self) -> int:
        """How many stored bytes all of it takes to fetch, each chunk counted once in a window, none that is at hand."""
        total = 0
        for part in self.tasks([(0, self.size)]):
            for item in part.wanted if isinstance(part, Task) else ():
                if self.at_hand is None or not self.at_hand.has(item.chunk.digest):
                    total += item.chunk.stored
        return total

    def blocks(self, start: int, end: int, counted: Callable[[int], None] = _ignored) -> Generator[bytes, None, None]:
        """The bytes from `start` to `end`, checked, a block at a time; the next window comes while one is read."""
        # At multiples of the window, so that the chunks at an edge are fetched by one side alone.
        edges = [start, *range((start // _WINDOW + 1) * _WINDOW, end, _WINDOW), max(start, end)]
        if len(edges) < 3:
            yield from _cut(self._filled(start, end, counted)) if start < end else ()
            return
        # One window ahead and no more: two of them are what a reader may hold.
        pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        try:
            coming = pool.submit(self._filled, edges[0], edges[1], counted)
            for at, stop in (*pairwise(edges[1:]), (end, end)):
                window = coming.result()
                if at < stop:
                    coming = pool.submit(self._filled, at, stop, counted)
                yield from _cut(window)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _filled(self, start: int, end: int, counted: Callable[[int], None]) -> memoryview:
        size = self.index.header.chunk_size
        first = start - start % size
        buffer = bytearray(min(-(-end // size) * size, self.size) - first)

        def write(offset: int, block: bytes) -> None:
            buffer[offset - first : offset - first + len(block)] = block

        for part in self.window([(start, end)], counted):
            # A new buffer has zeros in it already.
            if not isinstance(part, Zeros):
                part.run(write, lambda reader: reader)
        return memoryview(buffer)[start - first : end - first]


def runs_of(wanted: Sequence[WantedChunk], what: str, *, whole: bool = False) -> list[PackRun]:
    """The chunks of one pack in as few readings as is sensible. Raises ContentError where chunks overlap.

    `whole`: the pack can only be read from its start.
    """
    ordered = sorted(wanted, key=lambda item: item.chunk.offset)
    if not ordered:
        return []
    start, end = ordered[0].chunk.offset, ordered[-1].chunk.offset + ordered[-1].chunk.stored
    needed = sum(item.chunk.stored for item in ordered)
    # A pack that is nearly all wanted in one request: registries count requests (oci-registries 3.3).
    gap = end if whole or (end - start - needed) * _DENSE <= end - start else GAP
    runs = [PackRun(0 if whole else start, start)]
    for item in ordered:
        chunk = item.chunk
        if chunk.offset < runs[-1].end and runs[-1].wanted:
            raise broken(what, f"has chunks that overlap in pack {chunk.pack} at {chunk.offset}", "MISMATCH")
        if chunk.offset - runs[-1].end > gap:
            runs.append(PackRun(chunk.offset, chunk.offset))
        runs[-1].wanted.append(item)
        runs[-1].end = chunk.offset + chunk.stored
    return runs


def _read_run(run: PackRun, reader: "_Buffered", writer: "_Joining", file: ChunkedFile) -> None:
    at = run.start
    for item in run.wanted:
        chunk = item.chunk
        reader.skip(chunk.offset - at)
        stored = reader.take(chunk.stored)
        # Before it is kept or written: what is wrong gets no further.
        raw = decode(stored, chunk.encoding, chunk.length, chunk.digest, file.what)
        if file.keep is not None:
            file.keep(item.places[0], chunk.digest, raw)
        writer.place(item, raw)
        at = chunk.offset + chunk.stored


class _Buffered:
    """Exact counts out of a reader that gives what it has."""

    def __init__(self, reader: ByteReader, what: str) -> None:
        self._reader, self._what = reader, what
        self._block = memoryview(b"")

    def take(self, count: int) -> "bytes | memoryview":
        if len(self._block) >= count:
            taken, self._block = self._block[:count], self._block[count:]
            return taken
        parts, have = [self._block], len(self._block)
        while have < count:
            block = memoryview(self._next())
            parts.append(block)
            have += len(block)
        joined = memoryview(b"".join(parts))
        self._block = joined[count:]
        return joined[:count]

    def skip(self, count: int) -> None:
        while count > len(self._block):
            count -= len(self._block)
            self._block = memoryview(self._next())
        self._block = self._block[count:]

    def _next(self) -> bytes:
        block = self._reader.read(BLOCK)
        if not block:
            raise ContentError(f"{self._what}: a pack ended early", code="SIZE", object=self._what)
        return block


class _Joining:
    """Neighbouring chunks as one write, up to a block."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._start = self._end = 0
        self._parts: list[bytes] = []

    def place(self, item: WantedChunk, chunk: bytes) -> None:
        for place in item.places:
            # A write for each chunk of 64 KiB would cost more than the copying.
            if place != self._end or self._end - self._start >= BLOCK:
                self.flush()
                self._start = self._end = place
            self._parts.append(chunk)
            self._end += len(chunk)

    def flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._write(self._start, b"".join(parts) if len(parts) > 1 else parts[0])


def _divided(spans: Iterable[tuple[int, int]], wide: int) -> Iterator[tuple[int, int]]:
    """The (offset, length) spans as (start, end), cut at multiples of `wide`."""
    for offset, length in spans:
        end = offset + length
        while offset < end:
            stop = min(end, (offset // wide + 1) * wide)
            yield offset, stop
            offset = stop


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _cut(view: memoryview) -> Iterator[bytes]:
    for at in range(0, len(view), BLOCK):
        yield bytes(view[at : at + BLOCK])
