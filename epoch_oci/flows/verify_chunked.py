"""Whether an artifact in chunks is what it says: every pack, its table, the index against it, and every file."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from functools import partial
from mmap import mmap

from epoch_oci.artifacts.chunked import (
    ChunkedSource,
    check_files,
    folds_of,
    index_of_image,
    pack_layer,
)
from epoch_oci.artifacts.pack_tables import HELD, read_table, whole_pack
from epoch_oci.chunks.chunk import ChunkEncoding, chunk_digest
from epoch_oci.chunks.index import Index, StoredBlob
from epoch_oci.chunks.known import Known
from epoch_oci.chunks.pack import Table, checked_chunks
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Snapshot, SnapshotFile
from epoch_oci.errors import ContentError, EpochOciError, NotFoundError
from epoch_oci.events import Event, OnEvent
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.verifying import ByteReader, VerifyingReader
from epoch_oci.stores.base import Source
from epoch_oci.transfer.content import told_of

Report = Callable[[EpochOciError, str], None]
Raw = bytes | mmap


@dataclass(slots=True)
class ChunkedCheck:
    """Checks one artifact in chunks, called `name`. `wrong` gets each error and what it is about.

    Each pack is read once, as long as a file needs few of them at a time. `sound` has those that were right, with
    their sizes. `rebuild` has every chunk decoded, and the index held against what the packs say of themselves.
    """

    source: Source
    name: str
    wrong: Report
    on_event: OnEvent
    rebuild: bool = False
    sound: dict[Digest, int] = field(default_factory=dict)
    _places: Known = field(default_factory=Known)
    _bad: set[Digest] = field(default_factory=set)

    def run(self, image: ImageManifest, snapshot: Snapshot) -> None:
        """All of it; what is wrong never stops what can still be looked at."""
        try:
            index = index_of_image(self.source, image)
            check_files(index, snapshot)
        except (ContentError, NotFoundError) as error:
            self.wrong(error, self.name)
            return
        if index is None:
            return
        # Whole packs, and not by ranges: every byte is to be hashed, and what no file needs as well.
        packs = _Packs(self._pack)
        source = ChunkedSource(self.source, index, folds_of(snapshot.manifest), open_pack=packs.open)
        for file in _in_chunks(snapshot):
            self._check_file(source, file)
        # The files have had most of them read; these are the ones that nothing lives in any more.
        for pack in index.header.packs:
            if pack.digest not in self.sound and pack.digest not in self._bad:  # no file needs it
                self._attempt(f"pack {pack.digest.short()}", partial(packs.bytes, pack))
        if self.rebuild:
            self._attempt("the chunk index", lambda: self._check_places(index))

    def _check_file(self, source: ChunkedSource, file: SnapshotFile) -> None:
        def check() -> None:
            content = told_of(source.content(file.blob), self.on_event, file.digest, file.name)
            with content.open() as reader:
                VerifyingReader(reader, file.blob, file.name).exhaust()
            self.on_event(
                Event(event="blob-done", digest=file.digest, title=file.name, bytes=file.size, total=file.size)
            )

        self._attempt(file.name, check)

    def _attempt(self, what: str, check: Callable[[], object]) -> None:
        try:
            check()
        except (ContentError, NotFoundError) as error:
            # A wrong pack is told of once, and not again for every file that needs it.
            if error.object is None or error.object not in map(str, self._bad):
                self.wrong(error, f"{self.name}: {what}")

    def _pack(self, pack: StoredBlob) -> Raw:
        """All of a pack, verified: its digest, and its table against every chunk where that was asked for."""
        layer, what = pack_layer(pack), f"the pack {pack.digest.short()}"
        # Not read again: it is wrong for every file that needs it, and was told of once.
        if pack.digest in self._bad:
            raise ContentError(f"{what} is wrong", code="DIGEST", object=str(pack.digest))
        try:
            raw = whole_pack(self.source.content(layer), layer, what)
            if pack.digest not in self.sound:
                table = read_table(raw, what)
                if self.rebuild:
                    self._learn(pack, raw, table, what)
        except (ContentError, NotFoundError) as error:
            self._bad.add(pack.digest)
            self.wrong(error, f"{self.name}: {what}")
            raise ContentError(f"{what} is wrong", code=error.code, object=str(pack.digest)) from None
        self.sound[pack.digest] = pack.size
        return raw

    def _learn(self, pack: StoredBlob, raw: Raw, table: Table, what: str) -> None:
        """Decode every chunk of a pack, and remember where the pack says it is."""
        number = self._places.add_pack(pack)
        for (row, _), start in zip(checked_chunks(raw, table, what), table.starts, strict=False):
            offset, stored = row.stored(start)
            key = _place_key(row.digest, pack, offset, stored, row.encoding)
            if not self._places.find(key):
                self._places.add(key, number, offset, stored, row.encoding)

    def _check_places(self, index: Index) -> None:
        """The index as the packs themselves tell it, against the one that travels with them."""
        packs = index.header.packs
        for number, file in enumerate(index.header.files):
            for _, chunk in index.chunks(number, 0, index.header.chunks_of(number)):
                if chunk.encoding == ChunkEncoding.ZERO:
                    continue
                key = _place_key(chunk.digest, packs[chunk.pack], chunk.offset, chunk.stored, chunk.encoding)
                if not self._places.find(key):
                    raise ContentError(
                        f"the index has a chunk of {file.digest} where no pack tells of it",
                        code="MISMATCH",
                        object=str(file.digest),
                    )


def _place_key(digest: bytes, pack: StoredBlob, offset: int, stored: int, encoding: int) -> bytes:
    """A chunk and where it is stored, as what `Known` can remember by the million."""
    place = f"{pack.digest} {offset} {stored} {encoding}"
    return chunk_digest(digest + place.encode())


class _Packs:
    """Packs as whole blobs, the last ones held."""

    def __init__(self, load: Callable[[StoredBlob], Raw]) -> None:
        self._load = load
        self._held: OrderedDict[Digest, Raw] = OrderedDict()
        self._lock = threading.Lock()

    def bytes(self, pack: StoredBlob) -> Raw:
        with self._lock:
            if (raw := self._held.get(pack.digest)) is not None:
                self._held.move_to_end(pack.digest)
                return raw
            raw = self._load(pack)
            self._held[pack.digest] = raw
            # At least one stays, however large: it is being read from.
            while len(self._held) > 1 and sum(map(len, self._held.values())) > HELD:
                self._held.popitem(last=False)
            return raw

    @contextmanager
    def open(self, pack: StoredBlob, offset: int, length: int) -> Iterator[ByteReader]:
        yield io.BytesIO(self.bytes(pack)[offset : offset + length])


def _in_chunks(snapshot: Snapshot) -> Iterator[SnapshotFile]:
    seen: set[Digest] = set()
    for file in snapshot.files:
        if file.encoding == "chunks" and file.digest not in seen:
            seen.add(file.digest)
            yield file
