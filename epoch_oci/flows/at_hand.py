"""Chunks that are on this machine already: in files of earlier versions, whose kept index says where they lie."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from epoch_oci.chunks.fold import Fold
from epoch_oci.chunks.index import HEADER_DIGEST_KEY, HEADER_LIMIT, HEADER_SIZE_KEY, Index
from epoch_oci.chunks.known import KNOWN_LIMIT, Known
from epoch_oci.chunks.layout import Encoding, chunk_digest, zstd
from epoch_oci.dialects.profile import CHUNK_INDEX
from epoch_oci.disk.kept import KeptBlobs
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT, Manifest
from epoch_oci.errors import EpochOciError
from epoch_oci.flows.chunked import ChunkedSource, UnfoldedContent, folds_of
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import Content, Readable, Source

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

    def add(self, index: Index, file: int, content: Content) -> None:
        """One more file, which is what `index` says of its file number `file`."""
        number = self.known.add_pack()
        self.contents.append((content, index.header.chunk_size, index.header.files[file].span))
        at = 0
        for piece in index.pieces(file):
            if len(self.known) >= KNOWN_LIMIT:
                return
            for place, encoding in enumerate(piece.encodings):
                if encoding != Encoding.ZERO and not self.known.find(digest := piece.digest(place)):
                    self.known.add(digest, number, at + place, 1, Encoding.ZSTD)
            at += len(piece)

    def has(self, digest: bytes) -> bool:
        """As `chunks.read.AtHand.has`."""
        return self.known.find(digest) > 0

    def read(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """As `chunks.read.AtHand.read`; what cannot be read is passed over."""
        places = sorted((self.known.place(row)[:2], digest) for digest in digests if (row := self.known.find(digest)))
        for run in _runs(places):
            number, first = run[0][0]
            if number in self._failed:
                continue
            try:
                yield from self._checked(number, first, [digest for _, digest in run])
            except EpochOciError:
                with self._lock:
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
                if chunk_digest(chunk) == digest:
                    yield digest, chunk


def with_chunks_at_hand(source: Source, places: Iterable[object], kept: KeptBlobs | None) -> Source:
    """`source`, which does not fetch chunks of its files that `places` have in files of other versions.

    Only for artifacts in chunks; `kept` has the indexes of what was pulled or pushed here before.
    """
    if not isinstance(source, ChunkedSource) or kept is None:
        return source
    hand = ChunksAtHand()
    readable = [place for place in places if isinstance(place, Readable)]
    for index, folds in _indexes(kept) if readable else ():
        for number, file in enumerate(index.header.files):
            fold = folds.get(file.digest)
            if file.span != (fold.span if fold else file.size):
                continue
            target = Descriptor(media_type=media_types.OCTET_STREAM, digest=file.digest, size=file.size)
            content = next(filter(None, (_content(place, target) for place in readable)), None)
            if content is not None:
                with suppress(EpochOciError):
                    hand.add(index, number, UnfoldedContent(content, fold) if fold else content)
    return replace(source, at_hand=hand) if hand.contents else source


def _content(place: Readable, target: Descriptor) -> Content | None:
    has: Callable[[Descriptor], bool] | None = getattr(place, "has", None)
    with suppress(EpochOciError):
        if has is not None and has(target):
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
