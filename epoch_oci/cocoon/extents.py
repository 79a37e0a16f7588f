"""A sparse file of this machine in Cocoon's packed form: where its data is, and only that (epoch-formats 5.6)."""

import errno
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from epoch_oci.disk.local import FileReader, local_errors
from epoch_oci.epoch import gojson, sparse
from epoch_oci.epoch.sparse import Segment
from epoch_oci.oci.verify import BLOCK, ByteReader

MAP_LIMIT = 800 << 10
"""Longest map in bytes; Cocoon carries a file whole whose map is longer."""
_ZEROS = bytes(BLOCK)


def data_segments(descriptor: int, size: int, what: str) -> tuple[Segment, ...]:
    """The runs of data in a file, by what its file system says; all of it where that knows no holes."""
    found: list[Segment] = []
    at = 0
    with local_errors(what):
        while at < size and (start := _seek(descriptor, at, os.SEEK_DATA, size)) < size:
            at = min(_seek(descriptor, start, os.SEEK_HOLE, size), size)
            found.append(Segment(start, at - start))
    return tuple(found)


def pax_records(segments: Sequence[Segment], size: int) -> Mapping[str, str]:
    """The records of a packed file; none for one that Cocoon would carry whole.

    That is a file without holes or with nothing in it, and one in so many pieces that the map would be too long.
    """
    # As Cocoon: any hole makes a file packed, none leaves it whole (epoch-formats 5.6).
    if sum(segment.length for segment in segments) == size:
        return MappingProxyType({})
    pieces = [{"o": segment.offset, "l": segment.length} for segment in segments]
    text = gojson.dumps(pieces or None, indent=None).decode("ascii")
    if len(text) > MAP_LIMIT:
        return MappingProxyType({})
    return MappingProxyType({sparse.MAP: text, sparse.SIZE: str(size)})


class SegmentReader:
    """Reads the segments of an open file one after another, `length` bytes (None: all) from `start` of them on."""

    def __init__(
        self, descriptor: int, what: str, segments: Sequence[Segment], start: int = 0, length: int | None = None
    ) -> None:
        end = None if length is None else start + length
        self._readers = (FileReader(descriptor, what, offset, count) for offset, count in _spans(segments, start, end))
        self._reader: ByteReader | None = next(self._readers, None)

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, and never more than a block. Raises LocalIOError."""
        while self._reader is not None and size:
            if block := self._reader.read(size):
                return block
            self._reader = next(self._readers, None)
        return b""


def is_zero_outside(descriptor: int, what: str, segments: Sequence[Segment], size: int) -> bool:
    """Whether a file holds nothing but zeros where `segments` are not."""
    data = data_segments(descriptor, size, what)
    for start, end in _gaps(segments, size):
        for run in data:
            low, high = max(start, run.offset), min(end, run.offset + run.length)
            if low < high and not _is_zero(FileReader(descriptor, what, low, high - low)):
                return False
    return True


def _is_zero(reader: ByteReader) -> bool:
    while block := reader.read(BLOCK):
        if not _ZEROS.startswith(block):
            return False
    return True


def _gaps(segments: Sequence[Segment], size: int) -> list[tuple[int, int]]:
    """Start and end of what lies before, between and behind the segments of a file."""
    edges = [0, *(edge for item in segments for edge in (item.offset, item.offset + item.length)), size]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _spans(segments: Sequence[Segment], start: int, end: int | None) -> list[tuple[int, int]]:
    """The (offset in the file, length) pairs that bytes `start` to `end` of the packed form are."""
    spans, at = [], 0
    for segment in segments:
        low, high = max(start, at), at + segment.length if end is None else min(end, at + segment.length)
        if low < high:
            spans.append((segment.offset + low - at, high - low))
        at += segment.length
    return spans


def _seek(descriptor: int, offset: int, whence: int, size: int) -> int:
    try:
        return os.lseek(descriptor, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing of that kind any more
            return size
        if error.errno != errno.EINVAL:
            raise
        return offset if whence == os.SEEK_DATA else size  # a file system that knows no holes
