"""Request bodies: a known number of bytes of a reader, block by block."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from epoch_oci.oci.verify import BLOCK, ByteReader

_AHEAD = 2
"""Blocks read before the socket asks for them; each costs its size in memory, for every transfer."""
_WORTH_A_THREAD = 4 * BLOCK


class Body:
    """Bytes of one request, `length` of them, block by block as requests sends what has a length.

    `left` are those that were not handed to the socket: an answer may come first.
    """

    def __init__(self, reader: ByteReader, length: int) -> None:
        self._reader, self._length = reader, length
        self.left = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        while self.left and (block := self._reader.read(min(BLOCK, self.left))):
            yield block
            self.left -= len(block)


@contextmanager
def read_ahead(reader: ByteReader, size: int) -> Iterator[ByteReader]:
    """`reader`, read (and so hashed, where it verifies) by a thread of its own while what came before is being sent.

    What `reader` raises is raised in place of the block it was asked for, so no later block is ever handed out.
    """
    if size < _WORTH_A_THREAD:
        yield reader
        return
    ahead = _Ahead(reader)
    try:
        yield ahead
    finally:
        ahead.stop()


class _Ahead:
    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._blocks: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._stopped = self._ended = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def read(self, size: int = -1, /) -> bytes:
        """The next block, whatever its length; `size` is at least BLOCK, or bounds the last one."""
        if self._ended:
            return b""
        block = self._blocks.get()
        if isinstance(block, BaseException):
            raise block
        self._ended = not block
        return block

    def stop(self) -> None:
        """Let the thread end, and wait for it: it must not read from what its owner is about to close."""
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._blocks.get(timeout=0.05)
            except queue.Empty:
                self._thread.join(0)

    def _run(self) -> None:
        try:
            block = b"-"
            while block and not self._stopped:
                block = self._reader.read(BLOCK)
                self._blocks.put(block)
        except BaseException as error:  # raised again by whoever reads
            self._blocks.put(error)


class _Empty:
    def read(self, size: int = -1, /) -> bytes:
        return b""


NOTHING = Body(_Empty(), 0)
