"""One chunk as one zstd frame, and back, within the bounds that the chunk's own length sets (RFC 8878)."""

from epoch_oci.chunks.layout import LARGEST_CHUNK_LOG, Encoding, broken, chunk_digest, zstd
from epoch_oci.errors import ContentError

FRAME_OVERHEAD = 12
"""Bytes that a frame of raw blocks has around the chunk, at most."""
_MAGIC = b"\x28\xb5\x2f\xfd"
_WORTH = 32
"""A frame that saves less than one part in so many is not worth decoding: the chunk is stored raw."""


class Compressor:
    """Chunks to frames: the same chunk, level and zstd give the same frame. For one thread."""

    def __init__(self, level: int) -> None:
        self._zstd = zstd()
        self._compressor = self._zstd.ZstdCompressor(level=level)

    def frame(self, chunk: "bytes | memoryview") -> tuple[Encoding, bytes]:
        """The chunk as a complete frame: compressed where that pays, else in a raw block."""
        # A whole chunk given with the end of its frame: zstd knows the size, and states it in the header.
        frame: bytes = self._compressor.compress(chunk, self._zstd.ZstdCompressor.FLUSH_FRAME)
        if len(frame) + len(chunk) // _WORTH < len(chunk):
            return Encoding.ZSTD, frame
        return Encoding.RAW, raw_frame(chunk)


def raw_frame(chunk: "bytes | memoryview") -> bytes:
    """A frame of one raw block: the chunk as it is, behind a header that any zstd tool reads."""
    size = len(chunk)
    return _raw_header(size) + (size << 3 | 1).to_bytes(3, "little") + bytes(chunk)


def raw_overhead(size: int) -> int:
    """How many bytes stand before a chunk of `size` bytes in its raw frame."""
    return len(_raw_header(size)) + 3


def decode(stored: "bytes | memoryview", encoding: int, length: int, digest: bytes, what: str) -> bytes:
    """The chunk of `length` bytes called `digest`. Raises ContentError (DIGEST, SIZE, TYPE) for anything else."""
    chunk = bytes(stored) if encoding == Encoding.RAW else _decompressed(stored, length, what)
    if len(chunk) != length:
        raise broken(what, f"has a chunk of {len(chunk)} bytes, expected {length}")
    if chunk_digest(chunk) != digest:
        raise ContentError(f"{what} has a chunk that is not {digest.hex()[:12]}", code="DIGEST", object=what)
    return chunk


def _decompressed(frame: "bytes | memoryview", length: int, what: str) -> bytes:
    """What one frame holds; it never gets more than one byte beyond `length`, nor a window beyond a chunk."""
    module = zstd()
    decoder = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: LARGEST_CHUNK_LOG})
    try:
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
    if size < 65536 + 256:
        return _MAGIC + b"\x60" + (size - 256).to_bytes(2, "little")
    return _MAGIC + b"\xa0" + size.to_bytes(4, "little")
