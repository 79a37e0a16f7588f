"""Cutting a file into chunks in one reading, on several threads, with the same result whatever they do."""

import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import field

from epoch_oci.chunks.chunk import CHUNK_SIZE, ChunkEncoding, Compressor, chunk_digest
from epoch_oci.chunks.index import CutFile, Piece, StoredBlob, write_index
from epoch_oci.chunks.known import ZERO_ROW, Known
from epoch_oci.chunks.pack import ROWS_LIMIT, PackRow, closing, target_size
from epoch_oci.dataclass import dataclass
from epoch_oci.oci.verifying import BLOCK, ByteReader

_ZEROS = bytes(BLOCK)
_AHEAD = 3
"""Blocks that are read ahead for each worker."""
# As many chunks as a piece of the index has (docs/format.md, 7.4).
_PIECE = 1 << 12

Encoded = tuple[bytes, int, "tuple[ChunkEncoding, bytes] | None"]
"""A chunk's digest and length, and its frame where it was not known; length 0 stands for a chunk of zeros."""


@dataclass(frozen=True, slots=True)
class LaidPack:
    """A pack that is complete: its number, its bytes in pieces, and its rows."""

    number: int
    pieces: tuple[bytes, ...]
    size: int
    rows: tuple[PackRow, ...]


@dataclass(slots=True)
class Packer:
    """Lays chunks into packs, in the order in which they come; a pack that is full goes to `done`.

    `size` is that of the snapshot in bytes, which says how large packs get.
    """

    known: Known
    size: int
    done: Callable[[LaidPack], None]
    laid: int = 0
    _number: int = -1
    _frames: list[bytes] = field(default_factory=list)
    _rows: list[PackRow] = field(default_factory=list)
    _length: int = 0

    def lay(self, digest: bytes, length: int, encoding: ChunkEncoding, frame: bytes) -> tuple[int, int, int, int]:
        """One more chunk; returns pack number, offset, stored length and encoding."""
        if self._number < 0:
            self._number = self.known.add_pack()
        row = PackRow(digest, len(frame), length, encoding)
        offset, stored = row.stored(self._length)
        number = self._number
        self._frames.append(frame)
        self._rows.append(row)
        self._length += len(frame)
        # After the chunk that fills it: where packs end follows from their chunks alone, and no clock or thread.
        if self._length >= target_size(self.size, self.laid) or len(self._rows) >= ROWS_LIMIT:
            self.flush()
        return number, offset, stored, encoding

    def flush(self) -> None:
        """Complete the pack that is being laid, if there is one."""
        if self._number < 0:
            return
        end = closing(self._rows)
        pack = LaidPack(self._number, (*self._frames, end), self._length + len(end), tuple(self._rows))
        self._number, self._frames, self._rows, self._length = -1, [], [], 0
        self.laid += 1
        self.done(pack)


@dataclass(slots=True)
class Encoder:
    """Turns files into rows of `known`, laying what is not known. `pool` has `workers` threads."""

    known: Known
    packer: Packer
    level: int
    pool: Executor
    workers: int
    _local: threading.local = field(default_factory=threading.local)

    def encode(self, reader: ByteReader) -> "array[int]":
        """The rows of all that `reader` has, ZERO_ROW for zeros. Raises what reading and laying raise."""
        rows = array("I")
        waiting: deque[Future[list[Encoded]]] = deque()
        try:
            for block in full_blocks(reader):
                waiting.append(self.pool.submit(self._encoded, block))
                # Blocks wait in memory: so many that no worker is idle, and no more.
                while len(waiting) > self.workers * _AHEAD or (waiting and waiting[0].done()):
                    self._take(waiting.popleft().result(), rows)
            while waiting:
                self._take(waiting.popleft().result(), rows)
        finally:
            for future in waiting:
                future.cancel()
        return rows

    def lay_anew(self, row: int, chunk: bytes) -> None:
        """Lay a known chunk again, because the pack that has it is not to be used."""
        # Compressed anew, for its frame is in a pack that is not here.
        encoding, frame = self._compressor().frame(chunk)
        self.known.move(row, *self.packer.lay(self.known.digest(row), len(chunk), encoding, frame))

    def _take(self, encoded: list[Encoded], rows: "array[int]") -> None:
        """In the order of the file, so that packs do not depend on which thread was quicker."""
        known = self.known
        for digest, length, framed in encoded:
            if not length:
                rows.append(ZERO_ROW)
                continue
            row = known.find(digest)
            if not row:
                assert framed is not None
                row = known.add(digest, *self.packer.lay(digest, length, *framed))
            # Learnt from an index that says what cannot be: laid again, as if it were not known.
            elif framed is not None and not known.fits(row, length):
                known.move(row, *self.packer.lay(digest, length, *framed))
            rows.append(row)

    def _encoded(self, block: bytes) -> list[Encoded]:
        """The work of a thread: zeros found, digests made, and what seems new compressed."""
        if _ZEROS.startswith(block):
            # One comparison for a megabyte: most of a guest's memory is zeros.
            return [(b"", 0, None)] * -(-len(block) // CHUNK_SIZE)
        known = self.known
        found: list[Encoded] = []
        view = memoryview(block)
        for at in range(0, len(block), CHUNK_SIZE):
            length = min(CHUNK_SIZE, len(block) - at)
            # A chunk of zeros has no digest and is nowhere stored (docs/format.md, 7.2).
            if block.startswith(_ZERO_CHUNK[:length] if length < CHUNK_SIZE else _ZERO_CHUNK, at):
                found.append((b"", 0, None))
                continue
            chunk = view[at : at + length]
            digest = chunk_digest(chunk)
            row = known.find(digest)
            # Before the order is known: two threads may compress one chunk at once, and one of the two is thrown away.
            framed = None if row and known.fits(row, length) else self._compressor().frame(chunk)
            found.append((digest, length, framed))
        return found

    def _compressor(self) -> Compressor:
        """One for each thread: they keep tables, and are not shared."""
        if (compressor := getattr(self._local, "compressor", None)) is None:
            compressor = self._local.compressor = Compressor(self.level)
        return compressor


_ZERO_CHUNK = bytes(CHUNK_SIZE)


def full_blocks(reader: ByteReader) -> Iterator[bytes]:
    """All of `reader` in blocks that are full but for the last one, however little it gives at a time."""
    while True:
        # A pipe gives what it has; chunks of another length would be other chunks.
        parts, size = [], 0
        while size < BLOCK and (part := reader.read(BLOCK - size)):
            parts.append(part)
            size += len(part)
        if size:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        if size < BLOCK:
            return


def index_of(known: Known, files: "list[tuple[CutFile, array[int]]]") -> tuple[bytes, int, list[StoredBlob]]:
    """The index of files given as rows, the length of its header, and the packs in the order of their first use."""
    numbers: dict[int, int] = {}
    packs: list[StoredBlob] = []
    for _, rows in files:
        for row in rows:
            pack = known.place(row)[0]
            if row != ZERO_ROW and pack not in numbers:
                # Every pack is complete by now, and so has a digest.
                stored = known.packs[pack].stored
                assert stored is not None
                numbers[pack] = len(packs)
                packs.append(stored)
    blob, header = write_index(packs, [(file, _pieces(known, rows, numbers)) for file, rows in files])
    return blob, header, packs


def _pieces(known: Known, rows: "array[int]", numbers: dict[int, int]) -> Iterator[Piece]:
    for first in range(0, len(rows), _PIECE):
        piece = Piece()
        for row in rows[first : first + _PIECE]:
            if row == ZERO_ROW:
                piece.add_zero()
                continue
            pack, offset, stored, encoding = known.place(row)
            piece.add(known.digest(row), numbers[pack], offset, stored, encoding)
        yield piece
