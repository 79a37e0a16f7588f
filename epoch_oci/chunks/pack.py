"""Packs: frames of chunks one after another, closed by a table of them in a skippable frame (docs/format.md, 7.3)."""

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from mmap import mmap

from epoch_oci.chunks.chunk import (
    BLAKE3,
    DIGEST_SIZE,
    EXTENSIONS_LIMIT,
    FRAME_OVERHEAD,
    LARGEST_CHUNK_LOG,
    VERSION,
    ChunkEncoding,
    Extension,
    broken,
    check_encodings,
    check_version,
    decode,
    raw_overhead,
    read_extensions,
    write_extensions,
)
from epoch_oci.dataclass import dataclass

PACK_LIMIT = (1 << 32) - 1
"""Largest pack in bytes: an offset in it has four."""
ROWS_LIMIT = 1 << 20
# 16 MiB fills a line well enough; above 64 MiB too much is laid anew when half of a pack is dead (docs/format.md, 7.6).
SMALLEST_TARGET, LARGEST_TARGET = 16 << 20, 64 << 20
# How many packs a snapshot of any size is to have, as far as those bounds allow.
_PACKS_WANTED = 1_024
_GROWS_AFTER = 600
PACKS_LIMIT = 1_500
"""Most packs of one artifact; of the layers that a manifest may have, they leave a quarter to others."""
# One of the sixteen that RFC 8878 leaves to others: `zstd -d` passes over it.
_SKIPPABLE = 0x184D2A5C
_MAGIC = b"COCNPACK"
_FRAME = struct.Struct("<II")
_HEADER = struct.Struct("<8sHBBII")
_ROW = struct.Struct(f"<{DIGEST_SIZE}sIIB")
_TRAILER = struct.Struct("<I8s")
TRAILER_SIZE = _TRAILER.size
_TABLE_LIMIT = _HEADER.size + EXTENSIONS_LIMIT + ROWS_LIMIT * _ROW.size + _TRAILER.size


@dataclass(frozen=True, slots=True)
class PackRow:
    """A chunk of a pack: its digest, the length of its frame, its own length (both in bytes), its encoding."""

    digest: bytes
    frame: int
    length: int
    encoding: int

    def stored(self, start: int) -> tuple[int, int]:
        """Where its stored bytes lie, (offset, length), when its frame begins at `start`: a raw chunk's are itself."""
        if self.encoding == ChunkEncoding.RAW:
            # Behind the header of its frame, so that a range of the pack is a range of the file.
            return start + raw_overhead(self.length), self.length
        return start, self.frame


@dataclass(frozen=True, slots=True)
class Table:
    """What a pack says of itself."""

    rows: tuple[PackRow, ...]
    extensions: tuple[Extension, ...] = ()

    @property
    def starts(self) -> list[int]:
        """Where each row's frame begins, and where the last one ends."""
        return list(accumulate((row.frame for row in self.rows), initial=0))


def target_size(size: int, laid: int = 0) -> int:
    """How large the next pack is made, of a snapshot of `size` bytes of which `laid` new packs are there already.

    16 to 64 MiB by size; more only for what hardly compresses, so that the number of layers stays in bounds.
    """
    target = SMALLEST_TARGET
    while target < LARGEST_TARGET and size > target * _PACKS_WANTED:
        target *= 2
    # Only a snapshot that hardly compresses gets so far: its packs double, so that 1,500 layers are hardly ever
    # reached.
    return min(target << laid // _GROWS_AFTER, PACK_LIMIT // 2)


def closing(rows: Sequence[PackRow], extensions: Sequence[Extension] = ()) -> bytes:
    """The skippable frame that closes a pack of these rows."""
    extra = write_extensions(extensions)
    header = _HEADER.pack(_MAGIC, VERSION, BLAKE3, 0, len(rows), len(extra))
    body = b"".join(_ROW.pack(row.digest, row.frame, row.length, row.encoding) for row in rows)
    size = len(header) + len(extra) + len(body) + _TRAILER.size
    return _FRAME.pack(_SKIPPABLE, size) + header + extra + body + _TRAILER.pack(size, _MAGIC)


def closing_size(trailer: bytes, pack_size: int, what: str) -> int:
    """Length of the closing frame, told by the last TRAILER_SIZE bytes of a pack. Raises ContentError."""
    if len(trailer) != _TRAILER.size or pack_size > PACK_LIMIT:
        raise broken(what, "is no pack of chunks", "TYPE")
    size, magic = _TRAILER.unpack(trailer)
    if magic != _MAGIC:
        raise broken(what, "is no pack of chunks", "TYPE")
    if not _HEADER.size + _TRAILER.size <= size <= min(_TABLE_LIMIT, pack_size - _FRAME.size):
        raise broken(what, "has a table of an impossible size")
    return int(size) + _FRAME.size


def read_closing(raw: bytes, pack_size: int, what: str) -> Table:
    """The table in a pack's closing frame; its rows fill the pack exactly. Raises ContentError with the reason."""
    # The length stands at both ends; two that differ are no frame of ours.
    if closing_size(raw[-_TRAILER.size :], pack_size, what) != len(raw):
        raise broken(what, "has a table of another size than it says")
    if _FRAME.unpack_from(raw) != (_SKIPPABLE, len(raw) - _FRAME.size):
        raise broken(what, "does not end in a skippable frame", "TYPE")
    magic, version, digest, reserved, count, extra = _HEADER.unpack_from(raw, _FRAME.size)
    if magic != _MAGIC:
        raise broken(what, "is no pack of chunks", "TYPE")
    check_version(version, digest, what)
    start = _FRAME.size + _HEADER.size + extra
    if reserved or count > ROWS_LIMIT or start + count * _ROW.size + _TRAILER.size != len(raw):
        raise broken(what, "has a table whose rows do not fill it")
    extensions = read_extensions(raw[start - extra : start], what)
    rows = tuple(PackRow(*fields) for fields in _ROW.iter_unpack(raw[start : -_TRAILER.size]))
    _check_rows(rows, pack_size - len(raw), what)
    return Table(rows, extensions)


def checked_chunks(frames: "bytes | mmap | memoryview", table: Table, what: str) -> Iterator[tuple[PackRow, bytes]]:
    """Every chunk of a pack, decoded and held against the table. Raises ContentError."""
    view = memoryview(frames)
    for row, start in zip(table.rows, table.starts, strict=False):
        offset, length = row.stored(start)
        yield row, decode(view[offset : offset + length], row.encoding, row.length, row.digest, what)


def _check_rows(rows: Sequence[PackRow], space: int, what: str) -> None:
    check_encodings((row.encoding for row in rows), what)
    for row in rows:
        if not 0 < row.length <= 1 << LARGEST_CHUNK_LOG or row.encoding == ChunkEncoding.ZERO:
            raise broken(what, f"lists a chunk of {row.length} bytes")
        # zstd falls back to raw blocks, so that no frame is longer than this.
        if not 0 < row.frame <= row.length + FRAME_OVERHEAD:
            raise broken(what, f"lists a frame of {row.frame} bytes for a chunk of {row.length}")
        if row.encoding == ChunkEncoding.RAW and row.frame != row.length + raw_overhead(row.length):
            raise broken(what, f"lists a raw frame of {row.frame} bytes for a chunk of {row.length}")
    if sum(row.frame for row in rows) != space:
        raise broken(what, "has a table that does not fill the pack")
