"""Request bodies: a known number of bytes of a reader, block by block."""

from collections.abc import Iterator

from epoch_oci.oci.verify import BLOCK, ByteReader

_SENT = 128 << 10
"""Bytes handed to a socket at a time: its time limit is for all of them, and a slow line is not a dead one."""


class Body:
    """Bytes of one request, `length` of them, block by block as requests sends what has a length."""

    def __init__(self, reader: ByteReader, length: int) -> None:
        self._reader, self._length = reader, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        left = self._length
        while left:
            block = self._reader.read(min(BLOCK, left))
            if not block:
                return
            left -= len(block)
            view = memoryview(block)
            for start in range(0, len(view), _SENT):
                yield view[start : start + _SENT]


class _Empty:
    def read(self, size: int = -1, /) -> bytes:
        return b""


NOTHING = Body(_Empty(), 0)
