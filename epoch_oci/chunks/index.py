"""The chunk index: where every chunk of every file is stored (docs/format.md, 7.4).

A zstd frame with the header, then one for every 4,096 chunks. The header's digest is in the manifest and the pieces'
digests are in the header, so that a reader of a few chunks fetches, verifies and holds only what it needs.
"""

import struct
import sys
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import accumulate

from epoch_oci.chunks.chunk import (
    BLAKE3,
    CHUNK_SIZE,
    DIGEST_SIZE,
    EXTENSIONS_LIMIT,
    FRAME_OVERHEAD,
    LARGEST_CHUNK_LOG,
    SMALLEST_CHUNK_LOG,
    VERSION,
    ChunkEncoding,
    Extension,
    broken,
    check_encodings,
    check_version,
    chunk_digest,
    chunk_lengths,
    inflate,
    read_extensions,
    write_extensions,
    zstd,
)
from epoch_oci.chunks.pack import PACK_LIMIT
from epoch_oci.dataclass import dataclass
from epoch_oci.oci import verifying
from epoch_oci.oci.descriptor import Descriptor, size_of
from epoch_oci.oci.digest import Digest

PIECE_LOG = 12
"""A piece of the index has 2^12 chunks: 256 MiB of a file."""
# 2^26 chunks of 45 bytes are three gigabytes (docs/format.md, 7.6).
INDEX_LIMIT = 4 << 30
HEADER_LIMIT = 16 << 20
"""Largest header in bytes, compressed or not."""
CHUNKS_LIMIT = 1 << 26
"""Most chunks of one index: 4 TiB in chunks of 64 KiB."""
BLOBS_LIMIT = 2_000
"""Most packs, and most files: as many as a manifest may have layers."""
HEADER_SIZE_KEY = "vnd.cocoon.chunks.header.size"
HEADER_DIGEST_KEY = "vnd.cocoon.chunks.header.digest"
_MAGIC = b"COCNINDX"
_HEADER = struct.Struct("<8sHBBBxxxIIII")
_BLOB = struct.Struct("<32sQ")
_FILE = struct.Struct("<32sQQ")
_PIECE = struct.Struct(f"<I{DIGEST_SIZE}s")
_LEVEL = 3
"""Of the index's own frames, whatever the level of the chunks: the same index has the same digest."""
_NOTHING = bytes(DIGEST_SIZE)
_CHUNKS_HELD = 32 << PIECE_LOG
"""Chunks whose rows are held of one index, in some 6 MB."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that an index names by SHA-256 and size in bytes: a pack, or a file."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class CutFile:
    """A file that an index describes: SHA-256 and size of its blob, and how many bytes its chunks cover.

    `span` is the size, but for a packed file, whose chunks are those of the file that it unfolds to (chunks.fold).
    """

    digest: Digest
    size: int
    span: int

    @classmethod
    def plain(cls, digest: Digest, size: int) -> "CutFile":
        """A file whose blob is what is cut."""
        return cls(digest, size, size)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where one chunk is stored: `stored` bytes at `offset` of pack number `pack`; `length` is its own, in bytes."""

    digest: bytes
    pack: int
    offset: int
    stored: int
    encoding: int
    length: int


@dataclass(slots=True)
class Piece:
    """Up to 4,096 neighbouring chunks of a file, as columns. Chunks of zeros have nothing but their encoding."""

    packs: "array[int]" = field(default_factory=lambda: array("I"))
    offsets: "array[int]" = field(default_factory=lambda: array("I"))
    stored: "array[int]" = field(default_factory=lambda: array("I"))
    encodings: bytearray = field(default_factory=bytearray)
    digests: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self.encodings)

    def add(self, digest: bytes, pack: int, offset: int, stored: int, encoding: int) -> None:
        """One more chunk."""
        self.packs.append(pack)
        self.offsets.append(offset)
        self.stored.append(stored)
        self.encodings.append(encoding)
        self.digests += digest

    def add_zero(self) -> None:
        """One more chunk of zeros."""
        self.add(_NOTHING, 0, 0, 0, ChunkEncoding.ZERO)

    def digest(self, number: int) -> bytes:
        """The digest of a chunk."""
        return bytes(self.digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE])

    def raw(self) -> bytes:
        """The columns one after another, little-endian."""
        columns = (_little(self.packs), _little(self.offsets), _little(self.stored))
        return b"".join((*columns, self.encodings, self.digests))

    @classmethod
    def parse(cls, raw: bytes, count: int) -> "Piece":
        """`raw` has `count` chunks, of ROW_SIZE bytes each."""
        piece = cls()
        for at, column in enumerate((piece.packs, piece.offsets, piece.stored)):
            column.frombytes(raw[at * 4 * count : (at + 1) * 4 * count])
            # The format is little-endian, and `array` has the machine's order.
            if sys.byteorder == "big":
                column.byteswap()
        piece.encodings += raw[12 * count : 13 * count]
        piece.digests += raw[13 * count :]
        return piece


ROW_SIZE = 13 + DIGEST_SIZE


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """What an index begins with: packs and files by number, and the pieces of each file in order.

    `pieces` are (length in the blob, digest); a length of 0 stands for chunks of zeros only. `size` is the length of
    the header's own frame, so that the first piece begins there.
    """

    packs: tuple[StoredBlob, ...]
    files: tuple[CutFile, ...]
    pieces: tuple[tuple[int, bytes], ...]
    size: int
    chunk_size: int = CHUNK_SIZE
    piece_chunks: int = 1 << PIECE_LOG
    extensions: tuple[Extension, ...] = ()

    def chunks_of(self, file: int) -> int:
        """How many chunks a file has."""
        return -(-self.files[file].span // self.chunk_size)

    def pieces_of(self, file: int) -> int:
        """How many pieces a file has."""
        return -(-self.chunks_of(file) // self.piece_chunks)

    @classmethod
    def parse(cls, frame: bytes, what: str) -> "IndexHeader":
        """Read the header's frame, whose digest was checked. Raises ContentError with the first thing wrong."""
        raw = inflate(frame, HEADER_LIMIT, what)
        # Told apart from a header that is damaged: this is something else.
        if len(raw) < _HEADER.size or raw[:8] != _MAGIC:
            raise broken(what, "is no index of chunks", "TYPE")
        _, version, digest, chunk_log, piece_log, files, packs, pieces, extra = _HEADER.unpack_from(raw)
        check_version(version, digest, what)
        if not SMALLEST_CHUNK_LOG <= chunk_log <= LARGEST_CHUNK_LOG or not 0 < piece_log <= 16:
            raise broken(what, f"has chunks of 2^{chunk_log} bytes in pieces of 2^{piece_log}")
        sizes = (extra, packs * _BLOB.size, files * _FILE.size, pieces * _PIECE.size)
        # Before the tables are built: each row becomes an object.
        if max(files, packs) > BLOBS_LIMIT:
            raise broken(what, f"lists more than {BLOBS_LIMIT} packs or files")
        if extra > EXTENSIONS_LIMIT or _HEADER.size + sum(sizes) != len(raw):
            raise broken(what, "has a header whose tables do not fill it")
        starts = list(accumulate(sizes, initial=_HEADER.size))
        tables = [raw[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        header = cls(
            packs=tuple(StoredBlob(_sha256(digest), size) for digest, size in _BLOB.iter_unpack(tables[1])),
            files=tuple(CutFile(_sha256(digest), size, span) for digest, size, span in _FILE.iter_unpack(tables[2])),
            pieces=tuple(_PIECE.iter_unpack(tables[3])),
            size=len(frame),
            chunk_size=1 << chunk_log,
            piece_chunks=1 << piece_log,
            extensions=read_extensions(tables[0], what),
        )
        header._check(what)
        return header

    def _check(self, what: str) -> None:
        total = sum(self.chunks_of(number) for number in range(len(self.files)))
        if total > CHUNKS_LIMIT or any(not 0 < file.size <= file.span for file in self.files):
            raise broken(
                what, f"tells of {total} chunks, of which {CHUNKS_LIMIT} are allowed, or of a file that cannot be"
            )
        needed = sum(map(self.pieces_of, range(len(self.files))))
        if len(self.pieces) != needed:
            raise broken(what, f"has {len(self.pieces)} pieces, its files need {needed}")
        # Two rows of one file could say different things of it.
        if len({file.digest for file in self.files}) < len(self.files):
            raise broken(what, "lists a file twice", "MISMATCH")
        if len({pack.digest for pack in self.packs}) < len(self.packs):
            raise broken(what, "lists a pack twice", "MISMATCH")
        if any(not 0 < pack.size <= PACK_LIMIT for pack in self.packs):
            raise broken(what, "lists a pack of an impossible size")
        # A piece is read whole before it can be verified.
        if any(length > _longest(self.piece_chunks) for length, _ in self.pieces):
            raise broken(what, "lists a piece of an impossible length")


def write_index(
    packs: Sequence[StoredBlob],
    files: Sequence[tuple[CutFile, Iterable[Piece]]],
    extensions: Sequence[Extension] = (),
) -> tuple[bytes, int]:
    """An index as a blob, and the length of its header's frame. Each file comes with its pieces, in order."""
    # Frames and not pieces are held: a hundred bytes of memory for a chunk would be gigabytes for a terabyte.
    frames = [_deflated(piece) for _, pieces in files for piece in pieces]
    extra = write_extensions(extensions)
    numbers = (len(files), len(packs), len(frames), len(extra))
    chunk_log = CHUNK_SIZE.bit_length() - 1
    raw = b"".join(
        (
            _HEADER.pack(_MAGIC, VERSION, BLAKE3, chunk_log, PIECE_LOG, *numbers),
            extra,
            *(_BLOB.pack(bytes.fromhex(pack.digest.hex), pack.size) for pack in packs),
            *(_FILE.pack(bytes.fromhex(file.digest.hex), file.size, file.span) for file, _ in files),
            *(_PIECE.pack(len(frame), chunk_digest(frame) if frame else _NOTHING) for frame in frames),
        )
    )
    header = zstd().compress(raw, _LEVEL)
    return b"".join((header, *frames)), len(header)


def annotations(blob: bytes, header: int) -> Mapping[str, str]:
    """What the index's layer says, so that its header can be read and trusted without the rest."""
    return {HEADER_SIZE_KEY: str(header), HEADER_DIGEST_KEY: str(Digest.of(blob[:header]))}


def header_of(layer: Descriptor, what: str) -> Descriptor:
    """The header's frame as a blob of its own, as the index's layer tells it. Raises ContentError."""
    size, digest = size_of(layer.annotations.get(HEADER_SIZE_KEY)), layer.annotations.get(HEADER_DIGEST_KEY, "")
    if size is None or not 0 < size <= min(HEADER_LIMIT, layer.size):
        raise broken(what, f"has no {HEADER_SIZE_KEY} that fits", "SCHEMA")
    if layer.size > INDEX_LIMIT:
        raise broken(what, f"is {layer.size} bytes, more than the {INDEX_LIMIT} allowed")
    return Descriptor(media_type=layer.media_type, digest=Digest.parse(digest), size=size)


Fetch = Callable[[int, int], bytes]
"""Reads (offset, length) of the index's blob."""


class Index:
    """An index that is read as far as it is asked for. Safe for threads; holds a few dozen pieces at most.

    `fetch` reads the blob of the layer; nothing of it is believed. Raises ContentError for whatever is wrong.
    """

    def __init__(self, layer: Descriptor, fetch: Fetch, what: str = "the chunk index") -> None:
        target = header_of(layer, what)
        # The manifest vouches for the header, and the header for every piece: no byte is used that nobody vouched for.
        raw = verifying.check_bytes(fetch(0, target.size), target, f"the header of {what}")
        self.header = IndexHeader.parse(raw, what)
        self._fetch, self._what = fetch, what
        self._ends = list(accumulate((length for length, _ in self.header.pieces), initial=self.header.size))
        if self._ends[-1] != layer.size:
            raise broken(what, f"is {layer.size} bytes, its pieces make {self._ends[-1]}")
        self._held: OrderedDict[int, Piece] = OrderedDict()
        self._lock = threading.Lock()
        self._firsts = list(accumulate(map(self.header.pieces_of, range(len(self.header.files))), initial=0))
        self._numbers = {file.digest: number for number, file in enumerate(self.header.files)}

    def number_of(self, digest: Digest) -> int | None:
        """The number of a file, None when the index does not describe it."""
        return self._numbers.get(digest)

    def pieces(self, file: int) -> Iterator[Piece]:
        """All pieces of a file, in order."""
        for number in range(self.header.pieces_of(file)):
            yield self.piece(file, number)

    def piece(self, file: int, number: int) -> Piece:
        """Piece `number` of a file: fetched, verified, held against the sizes of packs and chunks."""
        key = self._firsts[file] + number
        with self._lock:
            # Fetched outside of the lock: two threads may read the same piece, and neither waits for the other's line.
            if (piece := self._held.get(key)) is not None:
                self._held.move_to_end(key)
                return piece
        piece = self._read(file, number, key)
        with self._lock:
            self._held[key] = piece
            if len(self._held) > max(1, _CHUNKS_HELD // self.header.piece_chunks):
                self._held.popitem(last=False)
        return piece

    def is_zeros(self, file: int, number: int) -> bool:
        """Whether the header itself says that piece `number` of a file has chunks of zeros only."""
        return not self.header.pieces[self._firsts[file] + number][0]

    def chunks(self, file: int, first: int, last: int) -> Iterator[tuple[int, Chunk]]:
        """The chunks `first` to `last` (not included) of a file, with their numbers. Zeros are told as such."""
        wide = self.header.piece_chunks
        for number in range(first // wide, -(-last // wide)):
            start = max(first, number * wide)
            count = min(last, (number + 1) * wide) - start
            piece = self.piece(file, number)
            lengths = chunk_lengths(self.header.files[file].span, self.header.chunk_size, start, count)
            for at, length in enumerate(lengths, start - number * wide):
                yield (
                    number * wide + at,
                    Chunk(
                        piece.digest(at),
                        piece.packs[at],
                        piece.offsets[at],
                        piece.stored[at],
                        piece.encodings[at],
                        length,
                    ),
                )

    def _read(self, file: int, number: int, key: int) -> Piece:
        wide = self.header.piece_chunks
        count = min(wide, self.header.chunks_of(file) - number * wide)
        length, digest = self.header.pieces[key]
        if not length:
            return Piece.parse(bytes(count * ROW_SIZE), count)
        frame = self._fetch(self._ends[key], length)
        # Before it is decoded: a decoder is no place for bytes that nobody vouched for.
        if len(frame) != length or chunk_digest(frame) != digest:
            raise broken(self._what, f"has a piece that is not {digest.hex()[:12]}", "DIGEST")
        raw = inflate(frame, count * ROW_SIZE, self._what)
        if len(raw) != count * ROW_SIZE:
            raise broken(self._what, f"has a piece of {len(raw)} bytes for {count} chunks")
        piece = Piece.parse(raw, count)
        self._check(piece, chunk_lengths(self.header.files[file].span, self.header.chunk_size, number * wide, count))
        return piece

    def _check(self, piece: Piece, lengths: Sequence[int]) -> None:
        """Nothing in the piece may lie outside of its pack, or be longer than its chunk can be."""
        check_encodings(piece.encodings, self._what)
        # Held against the packs here, once, so that no reader has to.
        sizes = [pack.size for pack in self.header.packs]
        rows = zip(piece.packs, piece.offsets, piece.stored, piece.encodings, lengths, strict=True)
        for at, (pack, offset, stored, encoding, length) in enumerate(rows):
            if encoding == ChunkEncoding.ZERO:
                if pack or offset or stored or piece.digest(at) != _NOTHING:
                    raise broken(self._what, "has a chunk of zeros that is stored")
            elif pack >= len(sizes) or offset + stored > sizes[pack]:
                raise broken(self._what, f"has a chunk outside of its pack, number {pack} at {offset}")
            elif not 0 < stored <= length + FRAME_OVERHEAD or (encoding == ChunkEncoding.RAW and stored != length):
                raise broken(self._what, f"has a chunk of {length} bytes stored in {stored}")


def _longest(count: int) -> int:
    """The longest that zstd makes a piece of `count` chunks, in bytes."""
    size = count * ROW_SIZE
    return size + (size >> 8) + 1024


def _deflated(piece: Piece) -> bytes:
    # All of it zeros, which a length of 0 says.
    if not any(piece.encodings):
        return b""
    frame: bytes = zstd().compress(piece.raw(), _LEVEL)
    return frame


def _sha256(raw: bytes) -> Digest:
    return Digest("sha256", raw.hex())


def _little(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        column = array("I", column)
        column.byteswap()
    return column.tobytes()
