"""What packs of earlier versions say of themselves, held against what was learnt of them from indexes.

An index is verified by its digest, and yet whoever wrote it may have written anything about packs of others. A pack has
its own table (docs/format.md, 7.3), which is a small range at its end. Where the two differ the pack is not reused.

The table may lie as well, by whoever may write to the repository. Who wants to know reads all of a pack, once.
"""

from collections.abc import Callable, Sequence
from contextlib import closing as closed
from dataclasses import field
from mmap import ACCESS_READ, mmap

from epoch_oci.artifacts.bases import as_source
from epoch_oci.artifacts.chunked import pack_layer, spooled
from epoch_oci.chunks.known import Known
from epoch_oci.chunks.pack import TRAILER_SIZE, PackRow, Table, checked_chunks, closing, closing_size, read_closing
from epoch_oci.dataclass import dataclass
from epoch_oci.disk.facts import Facts
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.base import Content, Ranged, Sink
from epoch_oci.transfer.plan import in_parallel

_QUESTIONS = 8
# Whole packs are held, and beside them those that are on their way.
_WHOLE_AT_ONCE = 2
HELD = 160 << 20
"""Bytes of packs that are held in memory; a larger one, which is no writer's usual pack, is spooled."""
_SOUND = "pack"
_BARE = len(closing(()))
_ROW = len(closing((PackRow(bytes(32), 1, 1, 2),))) - _BARE


@dataclass(slots=True)
class PackTables:
    """Tables of packs that are in `sink`. Where it refuses ranges, packs are `believed` to be as indexes say.

    With `whole` each pack is read once, and every chunk held against its digest; `facts` remember which were sound.
    """

    known: Known
    sink: Sink
    warn: Callable[[str], None]
    facts: Facts = field(default_factory=lambda: Facts(None))
    whole: bool = False
    believed: bool = False
    _found: dict[Digest, bool] = field(default_factory=dict)

    def lying(self, numbers: Sequence[int]) -> set[int]:
        """Which of these packs are not what an index of an earlier version says. Several are asked at once, each once.

        Raises what reading raises.
        """
        asked: dict[Digest, tuple[int, Descriptor]] = {}
        for number in numbers:
            pack = self.known.packs[number]
            if pack.stored is not None and (pack.doubtful or self._is_unread(pack.stored.digest)):
                asked[pack.stored.digest] = number, pack_layer(pack.stored)
        fresh = [layer for _, layer in asked.values() if layer.digest not in self._found]
        at_once = _WHOLE_AT_ONCE if self.whole else _QUESTIONS
        right = in_parallel(lambda layer: self._is_right(layer, asked[layer.digest][0]), fresh, at_once)
        self._found.update(zip((layer.digest for layer in fresh), right, strict=True))
        return {number for digest, (number, _) in asked.items() if not self._found[digest]}

    def trust(self, pack: Digest) -> None:
        """Remember that a pack is sound: it was laid here, or read."""
        self.facts.keep(_SOUND, pack.hex, "1")

    def _is_unread(self, pack: Digest) -> bool:
        return self.whole and self.facts.recall(_SOUND, pack.hex) is None

    def _is_right(self, layer: Descriptor, number: int) -> bool:
        source, unread = as_source(self.sink), self._is_unread(layer.digest)
        if source is None or not (unread or _has_ranges(source.content(layer))):
            # All of a pack would have to be read: then an index of the repository is taken at its word.
            self.believed = True
            return True
        what, pack, content = f"the pack {layer.digest.short()}", self.known.packs[number], source.content(layer)
        try:
            table = _checked(content, layer, what) if unread else table_of(content, layer.size, pack.rows, what)
            if unread:
                self.trust(layer.digest)
            if self._fitting(table, number) == pack.rows:
                return True
            problem = "it is not what an index of an earlier version says"
        except (ContentError, NotFoundError) as error:
            problem = error.message
        self.warn(f"{what} is not reused, and what it should have is sent again: {problem}")
        return False

    def _fitting(self, table: Table, number: int) -> int:
        """How many of the pack's chunks, as they were learnt, its table has just there."""
        known, count = self.known, 0
        for row, start in zip(table.rows, table.starts, strict=False):
            found = known.find(row.digest)
            count += found > 0 and known.place(found) == (number, *row.stored(start), row.encoding)
        return count


def _checked(content: Content, layer: Descriptor, what: str) -> Table:
    """The table of a pack all of whose chunks are what it says. Raises ContentError, and what reading raises."""
    raw = whole_pack(content, layer, what)
    table = read_table(raw, what)
    for _ in checked_chunks(raw, table, what):
        pass
    return table


def whole_pack(content: Content, layer: Descriptor, what: str) -> bytes | mmap:
    """All of a pack, verified by its digest. Raises ContentError, LocalIOError, and what reading raises."""
    if layer.size > HELD:
        with closed(spooled(content, layer, what)) as spool:
            return mmap(spool.content.descriptor, 0, access=ACCESS_READ)
    with content.open() as opened:
        return b"".join(VerifyingReader(opened, layer, what).blocks())


def read_table(raw: bytes | mmap, what: str) -> Table:
    """The table of a whole pack. Raises ContentError."""
    size = closing_size(raw[-TRAILER_SIZE:], len(raw), what)
    return read_closing(raw[-size:], len(raw), what)


def table_of(content: Content, size: int, rows: int, what: str) -> Table:
    """The table of a pack of `size` bytes that has at least `rows` rows: one range of its end, or two.

    Raises ContentError, and what reading raises.
    """
    # A quarter more: a version that was learnt from seldom uses all of a pack.
    tail = _tail(content, size, _BARE + rows * _ROW * 5 // 4 + 4096)
    length = closing_size(tail[-TRAILER_SIZE:], size, what)
    if length > len(tail):
        tail = _tail(content, size, length)
    return read_closing(tail[-length:], size, what)


def _has_ranges(content: Content) -> bool:
    return isinstance(content, Ranged) and content.ranged()


def _tail(content: Content, size: int, length: int) -> bytes:
    length, parts = min(length, size), []
    with content.open(size - length, length) as reader:
        while length and (part := reader.read(length)):
            parts.append(part)
            length -= len(part)
    return b"".join(parts)
