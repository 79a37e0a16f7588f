"""What differs between two snapshots: file by file, and chunk by chunk where chunks are known."""

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, Literal

from epoch_oci.artifacts.chunked import ChunkedSource, UnfoldedContent, folds_of
from epoch_oci.artifacts.decode import carried_content
from epoch_oci.artifacts.read import ArtifactsOf, FoundDocuments, read_documents, read_stored, unchunked
from epoch_oci.chunks.chunk import CHUNK_SIZE, DIGEST_SIZE, ChunkEncoding, chunk_digest
from epoch_oci.chunks.encode import full_blocks
from epoch_oci.chunks.index import Index
from epoch_oci.chunks.known import KNOWN_LIMIT, Known
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedSnapshot
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.base import BytesContent, Content, Source
from epoch_oci.transfer.content import told_of

State = Literal["same", "changed", "only in A", "only in B"]
_ZERO = bytes(DIGEST_SIZE)
_ZEROS = bytes(BLOCK)


class Change(IntEnum):
    """What became of a chunk: the same, written anew, there before at another place, all zeros now, no more there."""

    SAME = 0
    WRITTEN = 1
    MOVED = 2
    ZEROED = 3
    REMOVED = 4


@dataclass(frozen=True, slots=True)
class Version:
    """One side, as it was `asked` for: its files by name.

    `chunks` gives the digests of a file's chunks joined, None where nobody knows.
    """

    asked: str
    files: dict[str, tuple[Digest, int]]
    chunks: Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class FileDiff:
    """One file on both sides; sizes in bytes of the blobs, None where it is not there.

    `changes` has one Change for each chunk; None where the file is the same, or its chunks are not known.
    """

    name: str
    state: State
    before: int | None
    after: int | None
    changes: bytes | None = None

    def count(self, change: Change) -> int:
        """How many chunks this became of."""
        return self.changes.count(change) if self.changes is not None else 0

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it; `chunks` where they are known."""
        value: dict[str, Any] = {"name": self.name, "state": self.state, "sizeA": self.before, "sizeB": self.after}
        if self.changes is not None:
            counts = {change.name.lower(): self.count(change) for change in Change}
            value["chunks"] = {"total": len(self.changes), "size": CHUNK_SIZE, **counts}
            value["bytesWritten"] = self.count(Change.WRITTEN) * CHUNK_SIZE
        return value


@dataclass(frozen=True, slots=True)
class SnapshotDiff:
    """Two snapshots, held against each other."""

    a: str
    b: str
    files: tuple[FileDiff, ...]

    @property
    def same(self) -> bool:
        """Whether all files are the same."""
        return all(file.state == "same" for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {"a": self.a, "b": self.b, "same": self.same, "files": [file.to_json() for file in self.files]}


def version_of_artifact(source: Source, name: str, asked: str, *, deep: bool, on_event: OnEvent = ignore) -> Version:
    """A side that is an artifact; its chunks are told by its index, or, when `deep`, by reading its files.

    Raises ContentError (TYPE) for one whose digests are only known after decoding, and what reading raises.
    """
    return _of_documents(source, read_documents(source, name), asked, deep=deep, on_event=on_event)


def _of_documents(source: Source, found: FoundDocuments, asked: str, *, deep: bool, on_event: OnEvent) -> Version:
    snapshot = found.told()
    if isinstance(snapshot, EncodedSnapshot) and snapshot.undigested:
        raise ContentError(
            f"{asked} is compressed, so that only a pull tells what its files are", code="TYPE", object=asked
        )
    if isinstance(snapshot, EncodedSnapshot):
        snapshot = snapshot.finish({})
    inner = unchunked(source, found.image, snapshot)
    files = {file.name: file for file in snapshot.files}
    index = inner.index if isinstance(inner, ChunkedSource) else None

    def content(file: str) -> Content:
        found = carried_content(inner, files[file]) if files[file].size else BytesContent(b"")
        return told_of(found, on_event, files[file].digest, file)

    named = {name: (file.digest, file.size) for name, file in files.items()}
    return Version(asked, named, _chunks(index, named, content, snapshot.manifest, deep=deep))


def version_of_snapshot(source: Source, name: str, asked: str, *, deep: bool, on_event: OnEvent = ignore) -> Version:
    """A side that is a snapshot in an Epoch store; its chunks are told by reading it, when `deep`."""
    key = SnapshotKey.parse(name)
    manifest = read_stored(source, key)
    if isinstance(manifest, FoundDocuments):
        return _of_documents(ArtifactsOf(source, key.name), manifest, asked, deep=deep, on_event=on_event)
    layers = {layer.filename: layer for layer in (*manifest.layers, *manifest.base_images)}
    named = {name: (layer.digest, layer.size) for name, layer in layers.items()}

    def content(file: str) -> Content:
        return told_of(source.content(layers[file].descriptor), on_event, layers[file].digest, file)

    return Version(asked, named, _chunks(None, named, content, manifest, deep=deep))


def diff(a: Version, b: Version) -> SnapshotDiff:
    """Hold two versions against each other, in the order of B's files, then those that only A has."""
    names = [*b.files, *(name for name in a.files if name not in b.files)]
    return SnapshotDiff(a.asked, b.asked, tuple(_file(name, a, b) for name in names))


def _file(name: str, a: Version, b: Version) -> FileDiff:
    before, after = a.files.get(name), b.files.get(name)
    if before is None or after is None:
        state: State = "only in B" if before is None else "only in A"
        return FileDiff(name, state, before[1] if before else None, after[1] if after else None)
    if before == after:
        return FileDiff(name, "same", before[1], after[1])
    old, new = a.chunks(name), b.chunks(name)
    changes = None if old is None or new is None else _changes(old, new)
    return FileDiff(name, "changed", before[1], after[1], changes)


def _changes(old: bytes, new: bytes) -> bytes:
    known = Known()
    # No pack at all: only the digests matter, and the table is the one that holds millions of them in little memory.
    pack = known.add_pack()
    for digest in _digests(old):
        if digest != _ZERO and not known.find(digest):
            known.add(digest, pack, 0, 1, ChunkEncoding.ZSTD)
    found = bytearray()
    for at, digest in enumerate(_digests(new)):
        if old[at * DIGEST_SIZE : (at + 1) * DIGEST_SIZE] == digest:
            found.append(Change.SAME)
        elif digest == _ZERO:
            found.append(Change.ZEROED)
        else:
            found.append(Change.MOVED if known.find(digest) else Change.WRITTEN)
    # A file that became shorter: what it lost has no place in the new one.
    found += bytes([Change.REMOVED]) * max(0, (len(old) - len(new)) // DIGEST_SIZE)
    return bytes(found)


def _digests(joined: bytes) -> Iterator[bytes]:
    for at in range(0, len(joined), DIGEST_SIZE):
        yield joined[at : at + DIGEST_SIZE]


def _chunks(
    index: Index | None,
    files: dict[str, tuple[Digest, int]],
    content: Callable[[str], Content],
    manifest: Manifest,
    *,
    deep: bool,
) -> Callable[[str], bytes | None]:
    """Digests by the index, where it describes the file in chunks of our size; else by reading, if that is wanted."""
    folds = folds_of(manifest)

    def chunks(name: str) -> bytes | None:
        digest, size = files[name]
        # By digest and not by name: a file that was renamed has its chunks in the index all the same.
        number = index.number_of(digest) if index else None
        span = folds[digest].span if digest in folds else size
        if span > KNOWN_LIMIT * CHUNK_SIZE:  # more than memory shall hold
            return None
        if index is not None and number is not None and index.header.chunk_size == CHUNK_SIZE:
            return b"".join(bytes(piece.digests) for piece in index.pieces(number))
        # Reading both sides may take hours, so that it is done only for whoever asks.
        if not deep or not size:
            return b"" if not size else None
        fold = folds.get(digest)
        return _read(UnfoldedContent(content(name), fold) if fold else content(name))

    return chunks


def _read(content: Content) -> bytes:
    found = bytearray()
    with content.open() as reader:
        for block in full_blocks(reader):
            view = memoryview(block)
            for at in range(0, len(block), CHUNK_SIZE):
                chunk = view[at : at + CHUNK_SIZE]
                # Zeros are told apart by looking, which is ten times faster than hashing them.
                found += _ZERO if block.startswith(_ZEROS[: len(chunk)], at) else chunk_digest(chunk)
    return bytes(found)
