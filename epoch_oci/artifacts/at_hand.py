"""Chunks that are on this machine already: in files of earlier versions, whose kept index says where they lie."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path

from epoch_oci.artifacts.chunked import ChunkedSource, UnfoldedContent, folds_of, kept_indexes
from epoch_oci.chunks.chunk import ChunkEncoding, chunk_digest, zstd
from epoch_oci.chunks.chunked_file import Keep
from epoch_oci.chunks.fold import Fold
from epoch_oci.chunks.index import HEADER_DIGEST_KEY, HEADER_LIMIT, HEADER_SIZE_KEY, Index
from epoch_oci.chunks.known import KNOWN_LIMIT, Known
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.profile import CHUNK_INDEX
from epoch_oci.disk.kept import KeptBlobs, KeptPart, KeptParts
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT, Manifest
from epoch_oci.errors import EpochOciError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import Content, Source

_INDEXES = 6
"""So many of the kept indexes are looked at: versions that are further apart share less."""
_JOINED = 32
"""Neighbouring chunks that are read at one go."""


@dataclass(slots=True)
class ChunksAtHand:
    """Chunks of the files in `contents`, by number. Nothing is believed: each chunk is checked when it is read."""

    known: Known = field(default_factory=Known)
    contents: list[tuple[Content, int, int]] = field(default_factory=list)
    _failed: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, index: Index, file: int, content: Content) -> int:
        """One more file, which is what `index` says of its file number `file`; returns its number here.

        Of a file of which only parts are kept, these alone.
        """
        number, size = self.known.add_pack(), index.header.chunk_size
        self.contents.append((content, size, index.header.files[file].span))
        # What is not kept of it would be read as zeros, be wrong, and count as a failure of all of the file.
        runs = content.runs() if isinstance(content, KeptPart) else [(0, index.header.files[file].span)]
        for start, end in runs:
            for at, chunk in index.chunks(file, -(-start // size), -(-end // size)):
                # The bound of memory; what is beyond it is fetched, which is never wrong.
                if len(self.known) >= KNOWN_LIMIT:
                    return number
                # Zeros are never fetched, so there is nothing to save.
                if chunk.encoding != ChunkEncoding.ZERO:
                    self._note(chunk.digest, number, at)
        return number

    def keeper(self, number: int) -> Keep | None:
        """What keeps more of file `number` here; None where that is not one of which parts are kept."""
        part, size, _ = self.contents[number]
        if not isinstance(part, KeptPart):
            return None

        def keep(place: int, digest: bytes, chunk: bytes) -> None:
            if part.write(place, chunk):
                self._note(digest, number, place // size)

        return keep

    def _note(self, digest: bytes, number: int, at: int) -> None:
        with self._lock:
            # The first place is as good as any other, and finding it again is what costs.
            if not self.known.find(digest) and len(self.known) < KNOWN_LIMIT:
                self.known.add(digest, number, at, 1, ChunkEncoding.ZSTD)

    def has(self, digest: bytes) -> bool:
        """As `chunks.chunked_file.AtHand.has`."""
        return self.known.find(digest) > 0

    def read(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """As `chunks.chunked_file.AtHand.read`; what cannot be read is passed over."""
        # By file and place: neighbours are read at one go, and a disk goes forward.
        places = sorted((self.known.place(row)[:2], digest) for digest in digests if (row := self.known.find(digest)))
        for run in _runs(places):
            number, first = run[0][0]
            if number in self._failed:
                continue
            try:
                yield from self._checked(number, first, [digest for _, digest in run])
            except EpochOciError:
                with self._lock:
                    # A file that was changed or taken away: its other chunks would fail one by one, each after a look
                    # at the disk.
                    self._failed.add(number)

    def _checked(self, number: int, first: int, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        content, size, end = self.contents[number]
        start = first * size
        with content.open(start, min(len(digests) * size, end - start)) as reader:
            for at, digest in enumerate(digests):
                wanted, parts = min(size, end - start - at * size), []
                while wanted > 0 and (part := reader.read(wanted)):
                    parts.append(part)
                    wanted -= len(part)
                chunk = b"".join(parts)
                # Whoever can write to the file can make it say anything; its kept index only says where to look.
                if chunk_digest(chunk) == digest:
                    yield digest, chunk


def with_chunks_at_hand(
    source: Source, places: Iterable[object], kept: KeptBlobs | None, cache: Path | None = None
) -> Source:
    """`source`, which does not fetch chunks of its files that `places` have in files of other versions.

    Only for artifacts in chunks; `kept` has the indexes of what was pulled or pushed here before, and `cache` is a
    directory with what was read of others (`with_reading_kept`).
    """
    if not isinstance(source, ChunkedSource):
        return source
    hand = ChunksAtHand()
    if cache is not None:
        _add_parts(hand, cache)
    if kept is not None:
        _add_files(hand, places, kept)
    return replace(source, at_hand=hand) if hand.contents else source


def with_reading_kept(source: Source, cache: Path, size: int | None = None) -> Source:
    """`source`, which keeps in `cache` the chunks that are fetched, and does not fetch those that are there.

    At most about `size` bytes of them are kept (None: all); what was used longest ago goes first.

    Only for artifacts in chunks, whose index is in `kept_indexes(cache)`. Raises LocalIOError when nothing can be kept.
    """
    if not isinstance(source, ChunkedSource):
        return source
    hand, parts = ChunksAtHand(), kept_parts(cache, size)
    _add_parts(hand, cache)
    files = source.index.header.files
    # This snapshot's own parts too: what an earlier reading fetched of it is not fetched again.
    numbers = [hand.add(source.index, number, parts.make(file.digest, file.span)) for number, file in enumerate(files)]
    return replace(source, at_hand=hand, keep=lambda number: hand.keeper(numbers[number]))


def kept_parts(cache: Path, size: int | None = None) -> KeptParts:
    """What was read of files in chunks, below a cache directory; at most about `size` bytes of it."""
    return KeptParts(cache / "chunks", size)


def _add_parts(hand: ChunksAtHand, cache: Path) -> None:
    """What was read before of the snapshots that were read last."""
    parts = kept_parts(cache)
    for index, _ in _indexes(kept_indexes(cache)):
        for number, file in enumerate(index.header.files):
            if (part := parts.find(file.digest, file.span)) is not None:
                with suppress(EpochOciError):
                    hand.add(index, number, part)


def _add_files(hand: ChunksAtHand, places: Iterable[object], kept: KeptBlobs) -> None:
    """What whole files of other versions have."""
    readable = [place for place in places if isinstance(place, Source)]
    for index, folds in _indexes(kept) if readable else ():
        for number, file in enumerate(index.header.files):
            fold = folds.get(file.digest)
            # The index and the manifest beside it are not of one snapshot; by them nothing would be found where it is
            # looked for.
            if file.span != (fold.span if fold else file.size):
                continue
            target = Descriptor(media_type=media_types.OCTET_STREAM, digest=file.digest, size=file.size)
            content = next(filter(None, (_content(place, target) for place in readable)), None)
            if content is not None:
                with suppress(EpochOciError):
                    hand.add(index, number, UnfoldedContent(content, fold) if fold else content)


def _content(place: Source, target: Descriptor) -> Content | None:
    with suppress(EpochOciError):
        # Chunks at hand only save time: a place that cannot be asked is a place without them.
        if place.has(target):
            return place.content(target)
    return None


def _indexes(kept: KeptBlobs) -> Iterator[tuple[Index, dict[Digest, Fold]]]:
    """The indexes that were used last, with how the packed files of their snapshots unfold.

    Read from this machine; what is wrong with one is its own affair.
    """
    for number, (digest, size) in enumerate(kept.newest()):
        if number >= _INDEXES:
            return
        with suppress(EpochOciError):
            raw = kept.noted(digest, MANIFEST_LIMIT)
            # The manifest was noted beside the index, for only it says how packed files unfold.
            folds = folds_of(Manifest.parse(Document(EPOCH_MANIFEST, raw))) if raw else {}
            yield _kept_index(kept, digest, size), folds


def _kept_index(kept: KeptBlobs, digest: Digest, size: int) -> Index:
    """A kept index without its layer, so that its header's frame is found by decoding it.

    Chunks found by it are checked one by one, so its own digest need not be.
    """
    frame = _first_frame(kept.read(digest, 0, min(size, HEADER_LIMIT)))
    notes = {HEADER_SIZE_KEY: str(len(frame)), HEADER_DIGEST_KEY: str(Digest.of(frame))}
    layer = Descriptor(media_type=CHUNK_INDEX, digest=digest, size=size, annotations=notes)
    return Index(layer, lambda offset, length: kept.read(digest, offset, length), "a kept chunk index")


def _first_frame(raw: bytes) -> bytes:
    module = zstd()
    decoder = module.ZstdDecompressor()
    try:
        decoder.decompress(raw, HEADER_LIMIT)
    except module.ZstdError:
        return b""
    return raw[: len(raw) - len(decoder.unused_data)]


def _runs(places: Sequence[tuple[tuple[int, int], bytes]]) -> Iterator[list[tuple[tuple[int, int], bytes]]]:
    """Neighbouring chunks of one file together."""
    run: list[tuple[tuple[int, int], bytes]] = []
    for place, digest in places:
        number, at = place
        if run and (run[-1][0] != (number, at - 1) or len(run) >= _JOINED):
            yield run
            run = []
        run.append((place, digest))
    if run:
        yield run
