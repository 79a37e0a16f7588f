"""A chunk: its digest and its zstd frame (RFC 8878); what packs and indexes have in common (docs/format.md, 7.2).

A frame is decoded within the bounds that the chunk's own length sets.
"""

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import cache
from typing import Any

from blake3 import blake3

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, UsageError

CHUNK_SIZE = 64 << 10
"""What this program cuts files into, in bytes."""
SMALLEST_CHUNK_LOG, LARGEST_CHUNK_LOG = 12, 17
"""Chunks of 4 KiB to 128 KiB: no longer than the one block that a zstd frame of them has."""
DIGEST_SIZE = 32
BLAKE3 = 1
VERSION = 1
EXTENSIONS_LIMIT = 64 << 10
_CRITICAL = 0x8000
_DIGESTS = {2: "SHA-256"}
_ENCODINGS = {3: "sealed", 4: "zstd with a dictionary", 5: "lz4"}
_EXTENSION = struct.Struct("<HHI")
FRAME_OVERHEAD = 12
"""Bytes that a frame of raw blocks has around the chunk, at most."""
_MAGIC = b"\x28\xb5\x2f\xfd"
_WORTH = 32
"""A frame that saves less than one part in so many is not worth decoding: the chunk is stored raw."""


class ChunkEncoding(IntEnum):
    """How a chunk is stored. Other numbers are reserved, some of them with a name already."""

    ZERO = 0
    RAW = 1
    ZSTD = 2


@dataclass(frozen=True, slots=True)
class Extension:
    """Something a later version adds; who does not know a `critical` one must refuse the whole."""

    kind: int
    data: bytes
    critical: bool = False


def chunk_digest(chunk: "bytes | memoryview") -> bytes:
    """The 32 bytes that name a chunk: BLAKE3 of its content before it is encoded."""
    return blake3(chunk).digest()


@cache
def zstd() -> Any:
    """The zstd of Python 3.14, or its backport for those before. Raises UsageError where there is none."""
    # Kept: an import that fails is looked for anew each time, under a lock that every decoding thread would wait for.
    try:
        from compression import zstd as module  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from backports import zstd as module  # type: ignore[import-untyped,unused-ignore,no-redef]
        except ImportError:
            raise UsageError(
                "chunks are compressed with zstd, and no decoder is installed",
                hint="install the package backports.zstd",
            ) from None
    return module


def write_extensions(extensions: Iterable[Extension]) -> bytes:
    """Extensions as they stand in a header."""
    rows = [
        _EXTENSION.pack(item.kind | (_CRITICAL if item.critical else 0), 0, len(item.data)) + item.data
        for item in extensions
    ]
    return b"".join(rows)


def read_extensions(raw: bytes, what: str) -> tuple[Extension, ...]:
    """Extensions out of a header; those that are not known and not critical are kept. Raises ContentError."""
    found, at = [], 0
    while at < len(raw):
        if len(raw) - at < _EXTENSION.size:
            raise broken(what, "ends in the middle of an extension")
        kind, reserved, length = _EXTENSION.unpack_from(raw, at)
        at += _EXTENSION.size
        if reserved or length > len(raw) - at:
            raise broken(what, "has an extension that does not fit")
        # The bit says that whoever passes over it would read something wrong.
        if kind & _CRITICAL:
            raise unknown(what, f"extension {kind & ~_CRITICAL}, which must be understood")
        found.append(Extension(kind, raw[at : at + length]))
        at += length
    return tuple(found)


def check_version(version: int, digest: int, what: str) -> None:
    """Refuse another version or digest, by name. Raises ContentError (TYPE)."""
    if version != VERSION:
        raise unknown(what, f"version {version}")
    if digest != BLAKE3:
        raise unknown(what, f"chunk digest {_named(digest, _DIGESTS)}")


def check_encodings(encodings: Iterable[int], what: str) -> None:
    """Refuse chunks of an encoding that is not known, by name. Raises ContentError (TYPE)."""
    # Of a set, for a pack has a million of them and at most a few kinds.
    for encoding in set(encodings) - {ChunkEncoding.ZERO, ChunkEncoding.RAW, ChunkEncoding.ZSTD}:
        raise unknown(what, f"chunk encoding {_named(encoding, _ENCODINGS)}")


def chunk_lengths(size: int, chunk_size: int, first: int, count: int) -> Sequence[int]:
    """Lengths of `count` chunks of a file of `size` bytes, from number `first` on: the last one may be short."""
    last = -(-size // chunk_size) - 1
    tail = size - last * chunk_size
    return [tail if number == last else chunk_size for number in range(first, first + count)]


def unknown(what: str, feature: str) -> ContentError:
    """The refusal of what a later version may bring."""
    return ContentError(
        f"{what} has {feature}, which is not understood", code="TYPE", object=what, hint="a newer epoch-oci may read it"
    )


def broken(what: str, problem: str, code: str = "SIZE") -> ContentError:
    """The refusal of what no version may bring."""
    return ContentError(f"{what} {problem}", code=code, object=what)


def _named(number: int, names: dict[int, str]) -> str:
    return f"{number} ({names[number]})" if number in names else str(number)


class Compressor:
    """Chunks to frames: the same chunk, level and zstd give the same frame. For one thread."""

    def __init__(self, level: int) -> None:
        self._zstd = zstd()
        self._compressor = self._zstd.ZstdCompressor(level=level)

    def frame(self, chunk: "bytes | memoryview") -> tuple[ChunkEncoding, bytes]:
        """The chunk as a complete frame: compressed where that pays, else in a raw block."""
        # A whole chunk given with the end of its frame: zstd knows the size, and states it in the header.
        frame: bytes = self._compressor.compress(chunk, self._zstd.ZstdCompressor.FLUSH_FRAME)
        # Raw chunks are read without a decoder, and a part of one without the rest.
        if len(frame) + len(chunk) // _WORTH < len(chunk):
            return ChunkEncoding.ZSTD, frame
        return ChunkEncoding.RAW, raw_frame(chunk)


def raw_frame(chunk: "bytes | memoryview") -> bytes:
    """A frame of one raw block: the chunk as it is, behind a header that any zstd tool reads."""
    size = len(chunk)
    return _raw_header(size) + (size << 3 | 1).to_bytes(3, "little") + bytes(chunk)


def raw_overhead(size: int) -> int:
    """How many bytes stand before a chunk of `size` bytes in its raw frame."""
    return len(_raw_header(size)) + 3


def decode(stored: "bytes | memoryview", encoding: int, length: int, digest: bytes, what: str) -> bytes:
    """The chunk of `length` bytes called `digest`. Raises ContentError (DIGEST, SIZE, TYPE) for anything else."""
    # Length and digest are looked at whatever the encoding is: nothing of a pack is believed (docs/format.md, 7.6).
    chunk = bytes(stored) if encoding == ChunkEncoding.RAW else _decompressed(stored, length, what)
    if len(chunk) != length:
        raise broken(what, f"has a chunk of {len(chunk)} bytes, expected {length}")
    if chunk_digest(chunk) != digest:
        raise ContentError(f"{what} has a chunk that is not {digest.hex()[:12]}", code="DIGEST", object=what)
    return chunk


def inflate(frame: bytes, limit: int, what: str) -> bytes:
    """The content of one zstd frame, at most `limit` bytes. Raises ContentError (SIZE, TYPE)."""
    module = zstd()
    # A frame may ask for a window of gigabytes; one larger than its content has no use (reliability Z2).
    window = max(limit, 1 << LARGEST_CHUNK_LOG).bit_length()
    decoder = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: min(window, 27)})
    try:
        raw: bytes = decoder.decompress(frame, limit + 1)
    except module.ZstdError as error:
        raise broken(what, f"cannot be decoded as zstd: {error}", "TYPE") from None
    if len(raw) > limit or not decoder.eof or decoder.unused_data:
        raise broken(what, f"does not decode to one frame of at most {limit} bytes")
    return raw


def _decompressed(frame: "bytes | memoryview", length: int, what: str) -> bytes:
    """What one frame holds; it never gets more than one byte beyond `length`, nor a window beyond a chunk."""
    module = zstd()
    decoder = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: LARGEST_CHUNK_LOG})
    try:
        # One byte more than is right: a frame that decodes to more than it should is told from one that fits, and goes
        # no further.
        chunk: bytes = decoder.decompress(frame, length + 1)
    except module.ZstdError as error:
        raise broken(what, f"has a chunk that is no zstd frame: {error}", "TYPE") from None
    if not decoder.eof or decoder.unused_data:
        raise broken(what, f"has a chunk whose frame does not end with its {length} bytes")
    return chunk


def _raw_header(size: int) -> bytes:
    """Frame header with the content's size, "single segment" (RFC 8878, 3.1.1.1)."""
    if size < 256:
        return _MAGIC + b"\x20" + size.to_bytes(1, "little")
    # RFC 8878, 3.1.1.1.4: the two bytes of this form count from 256.
    if size < 65536 + 256:
        return _MAGIC + b"\x60" + (size - 256).to_bytes(2, "little")
    return _MAGIC + b"\xa0" + size.to_bytes(4, "little")
