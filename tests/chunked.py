"""Files in chunks as tests want them: versions encoded in memory, packs in a dictionary, and what reads them back."""

import io
from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from epoch_oci.chunks.chunked_file import ChunkedFile
from epoch_oci.chunks.encode import Encoder, LaidPack, Packer, index_of
from epoch_oci.chunks.index import CutFile, Index, StoredBlob, annotations
from epoch_oci.chunks.known import Known
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest

INDEX = "application/vnd.cocoon.chunks.index.v1"
CHUNK = 64 << 10


@dataclass
class Version:
    """One version as it was encoded: its index as a layer, the packs it laid, and all packs there are."""

    layer: Descriptor
    blob: bytes
    files: Mapping[str, bytes]
    laid: list[bytes]
    packs: dict[Digest, bytes] = field(repr=False)

    def index(self) -> Index:
        return Index(self.layer, lambda offset, length: self.blob[offset : offset + length])

    def file(self, name: str, **more: object) -> ChunkedFile:
        index = self.index()
        number = index.number_of(Digest.of(self.files[name]))
        assert number is not None
        return ChunkedFile(index, number, self.read, name, **more)  # type: ignore[arg-type]

    @contextmanager
    def read(self, pack: StoredBlob, offset: int, length: int):
        yield io.BytesIO(self.packs[pack.digest][offset : offset + length])

    def content(self, name: str) -> bytes:
        file = self.file(name)
        return b"".join(file.blocks(0, file.size))


def encode(files: Mapping[str, bytes], bases: Sequence[Version] = (), *, level: int = 1, workers: int = 2) -> Version:
    known = Known()
    for base in bases:
        known.learn(base.index())
    packs: dict[Digest, bytes] = {digest: raw for base in bases for digest, raw in base.packs.items()}
    laid: list[bytes] = []

    def done(pack: LaidPack) -> None:
        raw = b"".join(pack.pieces)
        assert len(raw) == pack.size
        stored = StoredBlob(Digest.of(raw), len(raw))
        known.packs[pack.number].stored = stored
        packs[stored.digest] = raw
        laid.append(raw)

    rows: list[tuple[CutFile, array[int]]] = []
    with ThreadPoolExecutor(workers) as pool:
        layer = Packer(known, sum(map(len, files.values())), done)
        encoder = Encoder(known, layer, level, pool, workers)
        for content in dict.fromkeys(files.values()):
            if content:
                rows.append((CutFile.plain(Digest.of(content), len(content)), encoder.encode(io.BytesIO(content))))
        layer.flush()
    blob, header, _ = index_of(known, rows)
    return Version(described(blob, header), blob, files, laid, packs)


def described(blob: bytes, header: int) -> Descriptor:
    return Descriptor(media_type=INDEX, digest=Digest.of(blob), size=len(blob), annotations=annotations(blob, header))
