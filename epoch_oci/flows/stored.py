"""What a store holds under a key: Epoch's own manifest, or from Epoch 0.1.6 on an artifact's documents (trap 40)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epoch_oci import schemas
from epoch_oci.dialects.base import EncodedSnapshot, SnapshotFile
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Manifest
from epoch_oci.flows.artifact import FoundArtifact, FoundDocuments, artifact_of, documents_of
from epoch_oci.flows.encoded import Decoding, carried_content, forgot
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import Content, Remembering, Source


@dataclass(frozen=True, slots=True)
class ArtifactsOf:
    """A store as a source of the artifacts of one repository: tags and digests are those under `name`."""

    store: Source
    name: str

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return self.name

    def resolve(self, name: str) -> Document:
        """As `Source.resolve`."""
        return self.store.resolve(str(SnapshotKey(self.name, name)))

    def has(self, target: Descriptor) -> bool:
        """As `Source.has`."""
        return self.store.has(target)

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`."""
        return self.store.content(target)


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot as Epoch's manifest tells it, `derived` where the store keeps it as an artifact.

    `source` has every blob that the manifest names. `lost` is what the artifact says and the manifest does not.
    """

    manifest: Manifest
    source: Source
    derived: bool = False
    warnings: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def read_stored(store: Source, key: SnapshotKey) -> Manifest | FoundDocuments:
    """An Epoch manifest, checked against its schema and its meaning, or the documents of a modern snapshot.

    Raises ContentError for what is wrong or no snapshot, NotFoundError.
    """
    document = store.resolve(str(key))
    if is_epoch(document):
        return epoch_of(document, key)
    return documents_of(ArtifactsOf(store, key.name), document, f"the manifest of {key}")


def epoch_of(document: Document, key: SnapshotKey) -> Manifest:
    """An Epoch manifest that was resolved, checked. Raises ContentError."""
    what = f"the manifest of {key}"
    schemas.check(document, "epoch-manifest.v1", what)
    return Manifest.parse(document, what)


def is_epoch(document: Document) -> bool:
    """Whether a store handed out Epoch's own manifest rather than an OCI document."""
    return document.media_type == EPOCH_MANIFEST


def as_snapshot(store: Source, key: SnapshotKey, stored: Manifest | FoundDocuments, how: Decoding) -> StoredSnapshot:
    """What `read_stored` found, as a snapshot; where its layers are encoded, they are read to learn their digests.

    Raises as `encoded.decoded`.
    """
    if isinstance(stored, Manifest):
        return StoredSnapshot(stored, store, warnings=tuple(map(str, stored.warnings)))
    return stored_artifact(artifact_of(store, stored, how), key)


def stored_artifact(artifact: FoundArtifact, key: SnapshotKey) -> StoredSnapshot:
    """An artifact as if a store had it under `key`. Raises ContentError."""
    found = artifact.identified(key)
    snapshot = found.snapshot
    encoded = {file.digest: file for file in snapshot.files if file.encoding or len(file.carriers) > 1}
    return StoredSnapshot(
        snapshot.manifest,
        _Decoded(found.source, encoded) if encoded else found.source,
        snapshot.derived,
        tuple(map(str, snapshot.warnings)),
        snapshot.lost,
    )


def forgets(store: Source, key: SnapshotKey, cache: Path | None) -> bool:
    """Forget what was remembered of a snapshot, be it what was wrong. False when there was nothing to forget.

    That is digests of a store's own files, or in `cache` what layers decode to.
    """
    if isinstance(store, Remembering):
        return store.forget()
    if cache is None or isinstance(stored := read_stored(store, key), Manifest):
        return False
    told = stored.told()
    return isinstance(told, EncodedSnapshot) and forgot(told.undigested, cache)


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A store that also has the blobs which its layers decode to or are joined to."""

    store: Source
    files: Mapping[Digest, SnapshotFile] = field(repr=False)

    @property
    def where(self) -> str:
        return self.store.where

    def resolve(self, name: str) -> Document:
        return self.store.resolve(name)

    def has(self, target: Descriptor) -> bool:
        file = self.files.get(target.digest)
        return self.store.has(target) if file is None else all(map(self.store.has, file.carriers))

    def content(self, target: Descriptor) -> Content:
        file = self.files.get(target.digest)
        return self.store.content(target) if file is None else carried_content(self.store, file)
