"""Sparse files: where one has data and where holes, read and written.

The file system says which; where it knows no holes, all of a file is data.
"""

import errno
import os
from collections.abc import Iterator, Sequence

from epoch_oci.disk.local import FileReader, local_errors, where_supported
from epoch_oci.oci.verifying import BLOCK, ByteReader

# What file systems on Linux give room in; a hole that is smaller costs as much as data.
_PAGE = 4096
_ZERO_PAGE = bytes(_PAGE)
_ZEROS = bytes(BLOCK)


Run = tuple[int, int]
"""Offset and length, in bytes, of a run of data inside a sparse file."""


def data_runs(descriptor: int, size: int, what: str) -> Iterator[Run]:
    """The runs of data in a file of `size` bytes. Raises LocalIOError."""
    at = 0
    while at < size and (start := _seek(descriptor, at, os.SEEK_DATA, size, what)) < size:
        at = min(_seek(descriptor, start, os.SEEK_HOLE, size, what), size)
        yield start, at - start


class RunReader:
    """Reads the runs of an open file one after another, `length` bytes (None: all) from `start` of them on."""

    def __init__(
        self, descriptor: int, what: str, runs: Sequence[Run], start: int = 0, length: int | None = None
    ) -> None:
        end = None if length is None else start + length
        self._readers = (FileReader(descriptor, what, offset, count) for offset, count in _spans(runs, start, end))
        self._reader: ByteReader | None = next(self._readers, None)

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, and never more than a block. Raises LocalIOError."""
        while self._reader is not None and size:
            if block := self._reader.read(size):
                return block
            self._reader = next(self._readers, None)
        return b""


def is_zero_outside(descriptor: int, what: str, runs: Sequence[Run], size: int) -> bool:
    """Whether a file of `size` bytes holds nothing but zeros where `runs` are not. Raises LocalIOError."""
    end = 0
    for offset, length in runs:
        if not _is_zero(descriptor, what, end, offset):
            return False
        end = offset + length
    return _is_zero(descriptor, what, end, size)


def write_sparse(descriptor: int, block: bytes, offset: int) -> None:
    """Write `block` at `offset` of a new file, and leave out the pages that hold nothing but zeros. Raises OSError."""
    # Most blocks of a guest's memory that was never used: one comparison for all of it.
    if _ZEROS.startswith(block):
        return
    view, start = memoryview(block), 0
    # By pages of the file and not of the block: a hole that is not aligned costs as much as data.
    for page in range(-offset % _PAGE, len(block) - _PAGE + 1, _PAGE):
        if block.startswith(_ZERO_PAGE, page):
            write_all(descriptor, view[start:page], offset + start)
            start = page + _PAGE
    write_all(descriptor, view[start:], offset + start)


def write_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Write all of it, at `offset`. Raises OSError."""
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _is_zero(descriptor: int, what: str, start: int, end: int) -> bool:
    while (start := _seek(descriptor, start, os.SEEK_DATA, end, what)) < end:
        with local_errors(what):
            block = os.pread(descriptor, min(BLOCK, end - start), start)
        if not block or not _ZEROS.startswith(block):
            return False
        start += len(block)
    return True


def _spans(runs: Sequence[Run], start: int, end: int | None) -> list[Run]:
    """The (offset in the file, length) pairs that bytes `start` to `end` of all runs together are."""
    spans, at = [], 0
    for offset, length in runs:
        low, high = max(start, at), at + length if end is None else min(end, at + length)
        if low < high:
            spans.append((offset + low - at, high - low))
        at += length
    return spans


def _seek(descriptor: int, offset: int, whence: int, end: int, what: str) -> int:
    """Where the next data or hole is at or behind `offset`, `end` where there is none before it."""
    if offset >= end:
        return end
    with local_errors(what), where_supported():
        try:
            return min(os.lseek(descriptor, offset, whence), end)
        except OSError as error:
            # Linux says so where there is no data up to the end.
            if error.errno != errno.ENXIO:
                raise
            return end
    # A file system that knows no holes: data from here to the end.
    return offset if whence == os.SEEK_DATA else end
