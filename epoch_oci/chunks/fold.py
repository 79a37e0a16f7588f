"""Packed files: a blob that is the data runs of a sparse file, whose chunks are cut where they lie in that file.

Between two versions the runs of a guest's memory grow, and everything behind moves in the blob, by no multiple of a
chunk; in the file it stays where it was. So chunks are those of the file, and the blob is put together of them.
"""

import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate

from epoch_oci.chunks.chunked_file import Part, Watch, Write
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError
from epoch_oci.oci.verifying import BLOCK, ByteReader

_ZEROS = bytes(BLOCK)
_FAR = 16 << 20
"""A hole that is longer is not read through."""


class Fold:
    """How the bytes of a blob lie in a file of `span` bytes: `runs` of (offset, length), ascending and disjoint."""

    def __init__(self, runs: Sequence[tuple[int, int]], span: int) -> None:
        self.span = span
        # A run of nothing is allowed in a map, and would stop the search by offsets.
        self._runs = [run for run in runs if run[1]]
        self._starts = [0, *accumulate(length for _, length in self._runs)]
        self._offsets = [offset for offset, _ in self._runs]

    @property
    def size(self) -> int:
        """Length of the blob in bytes."""
        return self._starts[-1]

    def in_file(self, start: int, length: int) -> Iterator[tuple[int, int]]:
        """The (offset, length) in the file of `length` bytes of the blob from `start` on."""
        number = bisect.bisect_right(self._starts, start) - 1
        while length > 0 and number < len(self._runs):
            inside = start - self._starts[number]
            count = min(length, self._runs[number][1] - inside)
            yield self._runs[number][0] + inside, count
            start, length, number = start + count, length - count, number + 1

    def in_blob(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The (offset in the blob, start, end) of what bytes `start` to `end` of the file are in the blob."""
        # The run before it may reach into it.
        number = max(0, bisect.bisect_right(self._offsets, start) - 1)
        for at in range(number, len(self._runs)):
            offset, length = self._runs[at]
            if offset >= end:
                return
            first, last = max(start, offset), min(end, offset + length)
            if first < last:
                yield self._starts[at] + first - offset, first, last


class Unfolding:
    """The file, read out of its blob: zeros where the blob has nothing."""

    def __init__(self, blob: ByteReader, fold: Fold) -> None:
        self._blob, self._fold = blob, fold
        self._at = self._next = 0
        self._runs = fold.in_file(0, fold.size)
        self._run = next(self._runs, None)

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes of the file, a block at most; b"" at its end, when the blob is at its end too."""
        wanted = min(BLOCK if size < 0 else size, BLOCK, self._fold.span - self._at)
        if self._run is None:
            if not wanted:
                self._blob.read(1)  # so that whoever verifies the blob sees its end
                return b""
            block = _ZEROS[:wanted]
        elif self._at < self._run[0]:
            # A block at a time, however long the hole is.
            block = _ZEROS[: min(wanted, self._run[0] - self._at)]
        else:
            block = self._data(wanted)
        self._at += len(block)
        return block

    def _data(self, wanted: int) -> bytes:
        assert self._run is not None
        end = self._run[0] + self._run[1]
        block = self._blob.read(min(wanted, end - self._at))
        if not block:
            raise ContentError("a packed file ended before its last run", code="SIZE")
        if self._at + len(block) == end:
            self._run = next(self._runs, None)
        return block


@dataclass(frozen=True, slots=True)
class FoldedPart:
    """A part of the file, as a part of the blob."""

    part: Part
    fold: Fold

    @property
    def spans(self) -> list[tuple[int, int]]:
        """As `Part.spans`, of the blob."""
        found = (item for start, end in self.part.spans for item in self.fold.in_blob(start, end))
        return [(offset, offset + last - first) for offset, first, last in found]

    def run(self, write: Write, watch: Watch) -> None:
        """As `Part.run`, of the blob."""

        def folded(offset: int, block: bytes) -> None:
            for place, first, last in self.fold.in_blob(offset, offset + len(block)):
                write(place, block[first - offset : last - offset])

        self.part.run(folded, watch)


def near(runs: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Runs of a file in groups with no long hole inside, each to be read at one go."""
    group: list[tuple[int, int]] = []
    for offset, length in runs:
        if group and offset - sum(group[-1]) > _FAR:
            yield group
            group = []
        group.append((offset, length))
    if group:
        yield group
