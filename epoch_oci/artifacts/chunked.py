"""Artifacts of the chunked form: a source that hands out their files as if each were a blob of its own."""

import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import field
from pathlib import Path

from epoch_oci.chunks.chunked_file import AtHand, ChunkedFile, Keep, Part
from epoch_oci.chunks.fold import Fold, FoldedPart, near
from epoch_oci.chunks.index import Fetch, Index, StoredBlob, header_of
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Snapshot
from epoch_oci.dialects.layers import is_chunked, packs_of
from epoch_oci.dialects.profile import CHUNK_INDEX, CHUNK_PACK
from epoch_oci.disk.kept import KeptBlobs
from epoch_oci.disk.spool import Spool
from epoch_oci.epoch.manifest import Manifest, unpacking_of
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.verifying import BLOCK, ByteReader, VerifyingReader
from epoch_oci.stores.base import Content, Ranged, Source

# An index has 45 bytes for a chunk of 64 KiB (docs/format.md, 7.4): of a snapshot of 100 GB that is 70 MB.
_KEPT_COUNT, _KEPT_SIZE = 24, 2 << 30
_SPOOL = "/var/tmp"  # noqa: S108 (files there have no name)
_ZEROS = bytes(BLOCK)


def kept_indexes(cache: Path) -> KeptBlobs:
    """The indexes that are kept below a cache directory: they say where chunks lie in files that were pulled."""
    return KeptBlobs(cache / "chunk-indexes", count=_KEPT_COUNT, size=_KEPT_SIZE)


def open_index(source: Source, layer: Descriptor, kept: KeptBlobs | None = None) -> Index:
    """The index that `layer` is: kept whole where `kept` is given, else read as far as it is asked for.

    Raises ContentError, NotFoundError, and what reading raises.
    """
    # What its annotations promise is looked at first: nothing is fetched of an index of another version.
    header_of(layer, "the chunk index")
    content = source.content(layer)
    # Whole and verified on this disk it is read in microseconds, again and again; by ranges each look is a round trip.
    if kept is not None and kept.keep(layer, content.open):
        return Index(layer, lambda offset, length: kept.read(layer.digest, offset, length))
    if not isinstance(content, Ranged) or not content.ranged():
        return Index(layer, _whole(content, layer))
    return Index(layer, lambda offset, length: _read(content, offset, length))


def _whole(content: Content, layer: Descriptor) -> Fetch:
    """An index that is only to be had whole, in a file without a name: it may have gigabytes."""
    spool = spooled(content, layer, "the chunk index")

    def fetch(offset: int, length: int) -> bytes:
        return _read(spool.content, offset, length)

    # Nobody owns an index and nobody closes it: the file goes when the last one who reads by it does.
    weakref.finalize(fetch, spool.close)
    return fetch


def spooled(content: Content, target: Descriptor, what: str) -> Spool:
    """A blob, verified, in a file without a name. Raises LocalIOError, and what reading raises."""
    spool = Spool(Path(_SPOOL), what)
    try:
        with content.open() as reader:
            spool.fill(VerifyingReader(reader, target, what))
    # Ctrl-C in the middle of a gigabyte shall leave no gigabyte behind.
    except BaseException:
        spool.close()
        raise
    return spool


def index_of_image(source: Source, image: ImageManifest, kept: KeptBlobs | None = None) -> Index | None:
    """The index of an artifact, held against its packs; None when no file is in chunks. Raises as `open_index`."""
    layer = image.layers[0] if image.layers else None
    if not is_chunked(image) or layer is None or layer.media_type != CHUNK_INDEX:
        return None
    index = open_index(source, layer, kept)
    listed = [StoredBlob(item.digest, item.size) for item in packs_of(image)]
    # Before anything is read by it: chunks are named by the number of their pack, and a pack more or less would shift
    # them all.
    if listed != list(index.header.packs):
        raise ContentError(
            f"the layers are {len(listed)} packs, and the index tells of {len(index.header.packs)}, or of others",
            code="MISMATCH",
            object=str(image.document.digest),
        )
    return index


def check_files(index: Index | None, snapshot: Snapshot) -> None:
    """Hold the index against the config: the same files with the same sizes. Raises ContentError with every finding."""
    wanted = {file.digest: file for file in snapshot.files if file.encoding == "chunks"}
    told = {file.digest: (file.size, file.span) for file in index.header.files} if index else {}
    folds = folds_of(snapshot.manifest)
    found = [
        Finding("$.layers[0]", "MISMATCH", f"{file.name} of {file.size} bytes is not what the chunk index describes")
        for digest, file in wanted.items()
        if told.get(digest) != (file.size, folds[digest].span if digest in folds else file.size)
    ]
    found += [
        Finding("$.layers[0]", "MISMATCH", f"the chunk index describes {digest}, which is not in the config")
        # A file too many is as wrong as one too few: a config that hides what the layers carry is two documents in one
        # (reliability M2).
        for digest in told.keys() - wanted.keys()
    ]
    if found:
        raise ContentError.of("the artifact", found)


def folds_of(manifest: Manifest) -> dict[Digest, Fold]:
    """How the packed files of a snapshot unfold, each by the header of the first layer that is it."""
    found: dict[Digest, Fold] = {}
    for layer in manifest.layers:
        packed = unpacking_of(manifest, layer) if layer.size else None
        # One blob under two names may have two headers; writer and reader take the first, so that both cut it alike
        # (docs/format.md, chapter 7).
        if packed is not None and layer.digest not in found:
            found[layer.digest] = Fold(packed.segments, packed.logical_size)
    return found


@dataclass(slots=True)
class ChunkedSource:
    """`source`, and the files of `index` as blobs; `folds` are those that are packed. What is `at_hand` is not fetched.

    `open_pack` reads packs in another way than by ranges. `keep` says for a file's number who keeps what is fetched.
    """

    source: Source
    index: Index
    folds: Mapping[Digest, Fold]
    at_hand: AtHand | None = None
    open_pack: Callable[[StoredBlob, int, int], AbstractContextManager[ByteReader]] | None = None
    keep: Callable[[int], Keep | None] | None = None

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return self.source.where

    def resolve(self, name: str) -> Document:
        """As `Source.resolve`."""
        return self.source.resolve(name)

    def has(self, target: Descriptor) -> bool:
        """As `Source.has`; a file in chunks is here when all packs are, which is another question."""
        return self._number(target) is not None or self.source.has(target)

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`."""
        number = self._number(target)
        if number is None:
            return self.source.content(target)
        what = target.title or str(target.digest)
        keep = self.keep(number) if self.keep is not None else None
        file = ChunkedFile(self.index, number, self.open_pack or self._open, what, self._ranged, self.at_hand, keep)
        return ChunkedContent(file, target.size, self.folds.get(target.digest))

    def _number(self, target: Descriptor) -> int | None:
        number = self.index.number_of(target.digest)
        # One digest with another size is another blob, and none that is here (reliability D5).
        return number if number is not None and self.index.header.files[number].size == target.size else None

    @contextmanager
    def _open(self, pack: StoredBlob, offset: int, length: int) -> Iterator[ByteReader]:
        with self.source.content(pack_layer(pack)).open(offset, length) as reader:
            yield reader

    def _ranged(self) -> bool:
        # Packs lie side by side, so one of them speaks for all; each asked for itself would cost a round trip.
        content = self.source.content(pack_layer(self.index.header.packs[0]))
        return isinstance(content, Ranged) and content.ranged()


@dataclass(slots=True)
class ChunkedContent:
    """A file in chunks as content, every chunk of which is verified; `fetched` counts the bytes read of packs."""

    chunks: ChunkedFile
    size: int
    fold: Fold | None = None
    fetched: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`."""
        end = self.size if length is None else min(self.size, start + length)
        blocks = self._blocks(start, max(start, end))
        try:
            yield _BlockReader(blocks)
        finally:
            # The generator holds connections to packs: whoever stops in the middle lets go of them now and not when it
            # is collected.
            blocks.close()

    def ranged(self) -> bool:
        """As `stores.base.Ranged`."""
        return True

    def parts(self, missing: Sequence[tuple[int, int]]) -> Iterator[Part]:
        """As `stores.base.Scattered`."""
        fold = self.fold
        if fold is None:
            yield from self.chunks.tasks(missing, self._count)
            return
        # Chunks are cut of the unfolded file, and what is missing is told of the packed one; runs that share chunks go
        # together, or they would be fetched twice.
        groups = near(run for start, length in missing for run in fold.in_file(start, length))
        spans = ((group[0][0], sum(group[-1]) - group[0][0]) for group in groups)
        for part in self.chunks.tasks(spans, self._count):
            yield FoldedPart(part, fold)

    def cost(self) -> int:
        """As `stores.base.Scattered`."""
        return self.chunks.cost()

    def _blocks(self, start: int, end: int) -> Generator[bytes, None, None]:
        if self.fold is None:
            yield from self.chunks.blocks(start, end, self._count)
            return
        for group in near(self.fold.in_file(start, end - start)):
            first, last = group[0][0], sum(group[-1])
            at = first
            for block in self.chunks.blocks(first, last, self._count):
                for _, low, high in self.fold.in_blob(at, at + len(block)):
                    yield block[low - at : high - at]
                at += len(block)

    def _count(self, count: int) -> None:
        with self._lock:
            self.fetched += count


@dataclass(frozen=True, slots=True)
class UnfoldedContent:
    """A packed blob as the file that it unfolds to."""

    blob: Content
    fold: Fold

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.fold.span

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`."""
        end = self.size if length is None else min(self.size, start + length)
        pieces = list(self.fold.in_blob(start, end))
        first = pieces[0][0] if pieces else 0
        count = sum(high - low for _, low, high in pieces)
        with self.blob.open(first, count) as reader:
            yield _Spread(reader, [(low, high) for _, low, high in pieces], start, end)


class _Spread:
    def __init__(self, reader: ByteReader, runs: list[tuple[int, int]], at: int, end: int) -> None:
        self._reader, self._runs, self._at, self._end = reader, runs, at, end

    def read(self, size: int = -1, /) -> bytes:
        # A hole of terabytes is handed out by the block.
        wanted = min(BLOCK if size < 0 else size, BLOCK, self._end - self._at)
        if not wanted:
            return b""
        low, high = self._runs[0] if self._runs else (self._end, self._end)
        block = (
            _ZEROS[: min(wanted, low - self._at)] if self._at < low else self._reader.read(min(wanted, high - self._at))
        )
        self._at += len(block)
        if self._runs and self._at >= high:
            self._runs.pop(0)
        return block


class _BlockReader:
    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        if not self._block:
            self._block = memoryview(next(self._blocks, b""))
        end = len(self._block) if size < 0 else size
        taken, self._block = self._block[:end], self._block[end:]
        return bytes(taken)


def pack_layer(pack: StoredBlob) -> Descriptor:
    """The layer that a pack is."""
    return Descriptor(media_type=CHUNK_PACK, digest=pack.digest, size=pack.size)


def _read(content: Content, offset: int, length: int) -> bytes:
    parts: list[bytes] = []
    with content.open(offset, length) as reader:
        while length and (block := reader.read(length)):
            parts.append(block)
            length -= len(block)
    return b"".join(parts)
