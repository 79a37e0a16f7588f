"""Which chunks are known, and where they are stored: those of earlier versions, then those laid for this one."""

from array import array
from collections.abc import Iterable

from epoch_oci.chunks.chunk import DIGEST_SIZE, FRAME_OVERHEAD, ChunkEncoding
from epoch_oci.chunks.index import Chunk, Index, StoredBlob
from epoch_oci.dataclass import dataclass
from epoch_oci.oci.digest import Digest

ZERO_ROW = 0
"""What stands for a chunk of zeros where rows are listed."""
KNOWN_LIMIT = 1 << 22
"""Most chunks that are learnt from others: 256 GiB of them, in some 230 MiB of memory."""
# A power of two, as every size after it: the mask below needs one.
_FIRST_SLOTS = 1 << 12


@dataclass(slots=True)
class KnownPack:
    """A pack: `stored` is None until it is complete. `live` is how many of its bytes this version uses.

    `rows` are how many chunks are known to lie in it; `doubtful`, when somebody else says so of one of them.
    """

    stored: StoredBlob | None
    earlier: bool
    live: int = 0
    rows: int = 0
    doubtful: bool = False


class Known:
    """Chunks by digest, as rows numbered from 1. About 55 bytes each, whatever their number.

    Looking up is safe for other threads while one adds: they may miss what was added meanwhile, never find a wrong row.
    """

    def __init__(self) -> None:
        self.packs: list[KnownPack] = []
        self._numbers: dict[Digest, int] = {}
        self._digests = bytearray(DIGEST_SIZE)
        self._pack, self._offset, self._stored = array("I", [0]), array("I", [0]), array("I", [0])
        self._encoding = bytearray(1)
        self._slots = array("I", bytes(4 * _FIRST_SLOTS))

    def __len__(self) -> int:
        return len(self._encoding) - 1

    def find(self, digest: bytes) -> int:
        """The row of a chunk, ZERO_ROW when it is not known."""
        slots = self._slots
        mask = len(slots) - 1
        # Python's own hash is keyed by process: nobody can craft digests that all meet in one slot.
        at = hash(digest) & mask
        while row := slots[at]:
            if self._digests[row * DIGEST_SIZE : (row + 1) * DIGEST_SIZE] == digest:
                return row
            at = (at + 1) & mask
        return ZERO_ROW

    def add_pack(self, stored: StoredBlob | None = None) -> int:
        """The number of a pack; of one that is being laid where it is not `stored` yet. A pack is listed once."""
        if stored is not None and (number := self._numbers.get(stored.digest)) is not None:
            return number
        # A pack of an earlier version is one layer of the new one, whichever index told of it.
        self.packs.append(KnownPack(stored, earlier=stored is not None))
        if stored is not None:
            self._numbers[stored.digest] = len(self.packs) - 1
        return len(self.packs) - 1

    def add(self, digest: bytes, pack: int, offset: int, stored: int, encoding: int) -> int:
        """One more chunk, which must not be known yet; returns its row."""
        self._digests += digest
        self._pack.append(pack)
        self._offset.append(offset)
        self._stored.append(stored)
        self._encoding.append(encoding)
        self.packs[pack].rows += 1
        row = len(self._encoding) - 1
        # Open addressing gets slow when it is fuller than two thirds.
        if row * 3 > len(self._slots) * 2:
            self._grow()
        else:
            _enter(self._slots, digest, row)
        return row

    def move(self, row: int, pack: int, offset: int, stored: int, encoding: int) -> None:
        """The chunk is stored elsewhere now."""
        self.packs[self._pack[row]].rows -= 1
        self.packs[pack].rows += 1
        self._pack[row], self._offset[row], self._stored[row], self._encoding[row] = pack, offset, stored, encoding

    def digest(self, row: int) -> bytes:
        """The digest of a row."""
        return bytes(self._digests[row * DIGEST_SIZE : (row + 1) * DIGEST_SIZE])

    def place(self, row: int) -> tuple[int, int, int, int]:
        """Pack number, offset, stored length and encoding of a row."""
        return self._pack[row], self._offset[row], self._stored[row], self._encoding[row]

    def fits(self, row: int, length: int) -> bool:
        """Whether a chunk of `length` bytes can be what the row tells of; an index of others may say anything."""
        stored = self._stored[row]
        return stored == length if self._encoding[row] == ChunkEncoding.RAW else stored <= length + FRAME_OVERHEAD

    def learn(self, index: Index, limit: int = KNOWN_LIMIT, *, proven: bool = False) -> None:
        """Take over the chunks of an index that is verified; what is known already stays where it is.

        Unless it is `proven` that packs are as it says, those that it tells of are doubtful.

        Raises ContentError when the index is wrong; what was taken over until then is sound. Beyond `limit` chunks
        nothing more is learnt: an index can promise more of them than memory has room for.
        """
        numbers = [self.add_pack(pack) for pack in index.header.packs]
        for file in range(len(index.header.files)):
            # Looked at for each piece: a piece more than the limit is a few thousand rows.
            for piece in index.pieces(file):
                if len(self) >= limit:
                    return
                for at, encoding in enumerate(piece.encodings):
                    if encoding != ChunkEncoding.ZERO and not self.find(digest := piece.digest(at)):
                        number = numbers[piece.packs[at]]
                        self.add(digest, number, piece.offsets[at], piece.stored[at], encoding)
                        if not proven:
                            self.packs[number].doubtful = True

    def count_live(self, files: Iterable["array[int]"]) -> None:
        """Find out how much of each pack the rows of `files` use."""
        # A byte for each row: a chunk that many files have counts once.
        used = bytearray(len(self) + 1)
        for rows in files:
            for row in rows:
                used[row] = 1
        for pack in self.packs:
            pack.live = 0
        row = used.find(1, 1)
        while row >= 0:
            self.packs[self._pack[row]].live += self._stored[row]
            row = used.find(1, row + 1)

    def chunk(self, row: int, length: int) -> Chunk:
        """A row as a reader wants it."""
        return Chunk(self.digest(row), *self.place(row), length)

    def _grow(self) -> None:
        slots = array("I", bytes(2 * 4 * len(self._slots)))
        for row in range(1, len(self._encoding)):
            _enter(slots, self.digest(row), row)
        # At once, when it is whole: other threads look into the old one until then.
        self._slots = slots


def _enter(slots: "array[int]", digest: bytes, row: int) -> None:
    mask = len(slots) - 1
    at = hash(digest) & mask
    while slots[at]:
        at = (at + 1) & mask
    slots[at] = row
