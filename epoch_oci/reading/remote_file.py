"""One file of a snapshot as a seekable stream: what is read is fetched, kept for a while, and read ahead of."""

import io
import threading
from collections import OrderedDict

from epoch_oci.errors import ContentError
from epoch_oci.oci import verifying
from epoch_oci.oci.digest import Digest
from epoch_oci.reading.readable_files import ReadableFile

PAGE = 64 << 10
"""Bytes that are fetched and kept together: a chunk."""
CACHE = 64 << 20
"""Bytes of one file that are kept at most."""
_FURTHEST = 8 << 20
"""Bytes that are read ahead at most."""


class RemoteFile(io.RawIOBase):
    """A file of a snapshot, read where it is. Safe for threads; `pread` has no position of its own.

    Of a file in chunks every byte was verified before it is handed out. Of any other file only reading it from its
    start to its end verifies it, and raises ContentError at the end when it is not what it should be.
    """

    def __init__(self, file: ReadableFile, *, cache: int = CACHE) -> None:
        self.name = file.name
        self._file = file
        self._position = 0
        # Four at least: a reading that lies across two pages needs both while another one is under way.
        self._pages = max(4, cache // PAGE)
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._coming: dict[int, threading.Event] = {}
        self._lock = threading.Lock()
        self._moving = threading.Lock()
        self._expected, self._ahead = 0, PAGE
        self._hasher = file.whole.digest.hasher() if file.whole is not None and not file.checked else None
        self._hashed = 0

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._file.size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As `io.IOBase.seek`."""
        with self._moving:
            base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
            if base + offset < 0:
                raise ValueError("a position before the start of the file")
            self._position = base + offset
            return self._position

    def readinto(self, buffer: "bytearray | memoryview", /) -> int:  # type: ignore[override]
        """As `io.RawIOBase.readinto`. Raises ContentError, NetworkError and what else reading raises."""
        with self._moving:
            block = self.pread(len(memoryview(buffer).cast("B")), self._position)
            memoryview(buffer).cast("B")[: len(block)] = block
            self._position += len(block)
            return len(block)

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`, all of them but at the end of the file."""
        if self.closed:
            raise ValueError("the file is closed")
        end = min(self.size, offset + size)
        if offset >= end:
            return b""
        with self._lock:
            # Begins no later than the last reading ended: several readers of one stream overlap and still go forward.
            ordered = 0 < offset <= self._expected <= end
            self._expected = end
        pages = self._wanted(range(offset // PAGE, -(-end // PAGE)), ordered)
        block = b"".join(pages)
        first = offset - offset % PAGE
        block = block[offset - first : end - first]
        self._vouch(offset, block)
        return block

    def _wanted(self, numbers: range, ordered: bool) -> list[bytes]:
        found: dict[int, bytes] = {}
        while len(found) < len(numbers):
            fetch, wait = self._claim([number for number in numbers if number not in found], found, numbers, ordered)
            if fetch is not None:
                found |= self._fetch(fetch, numbers)
            elif wait is not None:
                wait.wait()
        return [found[number] for number in numbers]

    def _claim(
        self, missing: list[int], found: dict[int, bytes], numbers: range, ordered: bool
    ) -> tuple[range | None, threading.Event | None]:
        """Take what is held; else the run of pages that this thread has to fetch, or somebody to wait for."""
        with self._lock:
            for number in missing:
                if number in self._held:
                    self._held.move_to_end(number)
                    found[number] = self._held[number]
            left = [number for number in missing if number not in found]
            if not left:
                return None, None
            # Two threads that want one page fetch it once.
            if left[0] in self._coming:
                return None, self._coming[left[0]]
            last = max(numbers.stop, min(-(-self.size // PAGE), numbers.stop + self._further(ordered)))
            stop = left[0] + 1
            while stop < last and stop not in self._held and stop not in self._coming:
                stop += 1
            # One for the whole run of pages: whoever waits for any of them is woken by it.
            event = threading.Event()
            self._coming |= dict.fromkeys(range(left[0], stop), event)
            return range(left[0], stop), None

    def _further(self, ordered: bool) -> int:
        """How many pages to read ahead: twice as many each time when the file is read in order, else none."""
        # Doubled, as kernels do: who reads a little at random pays for no more than that.
        self._ahead = min(self._ahead * 2, _FURTHEST) if ordered else PAGE
        return self._ahead // PAGE - 1

    def _fetch(self, numbers: range, wanted: range) -> dict[int, bytes]:
        event = self._coming[numbers.start]
        try:
            pages = self._read(numbers)
            with self._lock:
                self._held |= pages
                while len(self._held) > self._pages:
                    # The page that was asked for the longest ago; who reads in order never comes back to it.
                    self._held.popitem(last=False)
            return {number: page for number, page in pages.items() if number in wanted}
        finally:
            with self._lock:
                for number in numbers:
                    self._coming.pop(number, None)
            # Also after an error: whoever waits looks again, and fetches for itself.
            event.set()

    def _read(self, numbers: range) -> dict[int, bytes]:
        start, end = numbers.start * PAGE, min(self.size, numbers.stop * PAGE)
        parts, left = [], end - start
        with self._file.content.open(start, left) as reader:
            while left and (part := reader.read(left)):
                parts.append(part)
                left -= len(part)
        if left:
            raise ContentError(f"{self.name} ended {left} bytes early", code="SIZE", object=self.name)
        block = b"".join(parts)
        return {number: block[at : at + PAGE] for number, at in zip(numbers, range(0, len(block), PAGE), strict=True)}

    def _vouch(self, offset: int, block: bytes) -> None:
        """Hash what is read in order; at the end it is known whether it was the file."""
        with self._lock:
            # Only what joins on can be hashed; who jumps about in a plain file is on their own, as the docstring says.
            if self._hasher is None or not offset <= self._hashed < offset + len(block):
                return
            self._hasher.update(block[self._hashed - offset :])
            self._hashed = offset + len(block)
            if self._hashed < self.size or self._file.whole is None:
                return
            hexdigits, self._hasher = self._hasher.hexdigest(), None
        verifying.check(self._file.whole.digest, Digest(self._file.whole.digest.algorithm, hexdigits), self.name)
