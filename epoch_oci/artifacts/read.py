"""Reading a snapshot's documents out of a source: small, and checked before one blob is asked for.

In a repository or layout that is an artifact. Under a key of an Epoch store it is Epoch's own manifest, or from Epoch
0.1.6 on an artifact as well (trap 40).
"""

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path

from epoch_oci import dialects, schemas
from epoch_oci.artifacts.decode import Choose, Decoding, carried_content, decoded, forgot, told
from epoch_oci.artifacts.decode import joined as joined
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedSnapshot, Snapshot, SnapshotFile
from epoch_oci.dialects.layers import is_chunked
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT, Manifest
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.location import repository_in
from epoch_oci.oci import media_types, verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageIndex, ImageManifest
from epoch_oci.stores.base import Content, Node, Source

_INDEX_NESTING = 2
_LISTED = 5
"""Manifests named in an error line."""


@dataclass(frozen=True, slots=True)
class FoundDocuments:
    """The two documents of an artifact, resolved once: by digest from here on."""

    image: ImageManifest
    config: Document | None

    def told(self) -> Snapshot | EncodedSnapshot:
        """As `decode.told`."""
        return told(self.image, self.config)


@dataclass(frozen=True, slots=True)
class FoundArtifact:
    """An artifact and what it says: resolved once, by digest from here on.

    `source` is where its files are had, those in chunks too.
    """

    image: ImageManifest
    config: Document | None
    snapshot: Snapshot
    source: Source

    def identified(self, key: SnapshotKey) -> "FoundArtifact":
        """The same, named `key` where nothing in the artifact says otherwise. Raises ContentError."""
        from epoch_oci.dialects.foreign import identified

        return replace(self, snapshot=identified(self.snapshot, key.name, key.tag))

    @property
    def artifact_type(self) -> str:
        """What kind of artifact it calls itself."""
        return self.image.kind


def read_documents(source: Source, name: str) -> FoundDocuments:
    """Resolve `name` and read manifest and config, never a blob.

    Raises ContentError for a document that is wrong or of a kind no dialect reads, NotFoundError.
    """
    return documents_of(source, source.resolve(name), name)


def documents_of(source: Source, document: Document, what: str) -> FoundDocuments:
    """As `read_documents`, of a manifest or index that was resolved."""
    image = _image(source, document, what, _INDEX_NESTING)
    # Refused by its type, before its config is asked for: what is no snapshot may have one of gigabytes.
    dialects.detect(image)
    return FoundDocuments(image, read_config(source, image))


def read_artifact(
    source: Source, name: str, how: Decoding | None = None, choose: Choose | None = None
) -> FoundArtifact:
    """The snapshot that an artifact is. Where its layers are encoded they are read and decoded, see `decode.decoded`.

    With `choose` no other files are decoded; then the snapshot may have these alone.

    Raises as `read_documents` and `decode.decoded`.
    """
    return artifact_of(source, read_documents(source, name), how, choose)


def artifact_of(
    source: Source, found: FoundDocuments, how: Decoding | None = None, choose: Choose | None = None
) -> FoundArtifact:
    """As `read_artifact`, of documents that were read."""
    snapshot = found.told()
    if isinstance(snapshot, EncodedSnapshot):
        snapshot = decoded(source, snapshot, how, choose)
    return FoundArtifact(found.image, found.config, snapshot, unchunked(source, found.image, snapshot, how))


def unchunked(source: Source, image: ImageManifest, snapshot: Snapshot, how: Decoding | None = None) -> Source:
    """`source`, and where files of the artifact are in chunks, those files as if they were its blobs.

    Raises ContentError when the index is wrong or does not fit the config, NotFoundError, and what reading raises.
    """
    if not is_chunked(image):
        return source
    from epoch_oci.artifacts.chunked import ChunkedSource, check_files, folds_of, index_of_image, kept_indexes

    # Kept for later pulls as well: by it they find chunks in the files that this one leaves on the disk.
    kept = kept_indexes(how.cache) if how is not None and how.cache is not None else None
    index = index_of_image(source, image, kept)
    check_files(index, snapshot)
    if kept is not None and index is not None:
        # The index alone does not say how packed files unfold.
        kept.note(image.layers[0].digest, snapshot.epoch.raw)
    return source if index is None else ChunkedSource(source, index, folds_of(snapshot.manifest))


def read_config(source: Source, image: ImageManifest) -> Document | None:
    """The config document, None when it is the empty one. Raises ContentError (SIZE, DIGEST), NotFoundError."""
    target = image.config
    if target.media_type == media_types.EMPTY:
        return None
    # Held in memory, so by its declared size first; one that is longer than it declares ends below (reliability D3).
    if target.size > MANIFEST_LIMIT:
        raise ContentError(
            f"the config is {target.size} bytes, more than the {MANIFEST_LIMIT} allowed",
            code="SIZE",
            object=str(target.digest),
        )
    with source.content(target).open() as reader:
        blocks = list(verifying.VerifyingReader(reader, target, "the config").blocks())
    return Document(target.media_type, b"".join(blocks))


def reference_key(source: Source, name: str) -> SnapshotKey:
    """What a snapshot is called by the reference to it alone: repository and tag, "" where it has none."""
    # A digest is no name that anybody would give a snapshot.
    return SnapshotKey(repository_in(source.where), "" if name.startswith("sha256:") else name)


def _image(source: Source, document: Document, what: str, nesting: int) -> ImageManifest:
    if not _is_index(document):
        return ImageManifest.parse(document, what)
    # Every child is asked for, so that a ring or a deep tree would be requests without end (reliability M4).
    if nesting == 0:
        raise ContentError(f"{what}: indexes nest too deep", code="TYPE", object=what)
    index = ImageIndex.parse(document, what)
    fitting = [image for image in _children(source, index, what, nesting) if dialects.accepting(image) is not None]
    # An image beside its snapshot is passed over; of two snapshots no choice is made (reliability M1).
    if len(fitting) == 1:
        return fitting[0]
    # The same manifest may be listed once for each platform.
    items = list({item.digest: item for item in index.manifests}.values())
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    listed = ", ".join(f"{item.digest} ({shown(item.media_type)})" for item in items[:_LISTED]) + more or "none"
    raise ContentError(
        f"{what} is an index with {len(fitting)} snapshots among its manifests: {listed}",
        code="TYPE",
        object=what,
        hint="name one of them by its digest",
    )


def _is_index(document: Document) -> bool:
    if document.media_type in media_types.INDEXES:
        return True
    value = document.json()
    # A store without media types of its own calls everything a manifest; what the document says of itself decides then.
    stated = value.get("mediaType") if isinstance(value, dict) else None
    return isinstance(stated, str) and stated in media_types.INDEXES


def _children(source: Source, index: ImageIndex, what: str, nesting: int) -> list[ImageManifest]:
    found = []
    for item in {item.digest: item for item in index.manifests}.values():
        # A blob may be listed as well, and would be asked for where no blobs are.
        if item.media_type not in media_types.MANIFESTS | media_types.INDEXES:
            continue
        try:
            # Some tools copy an index without the children that nobody wanted; the snapshot may be one that is there.
            document = source.resolve(str(item.digest))
        except NotFoundError:
            continue
        child = f"{what}, child {item.digest}"
        verifying.check_bytes(document.raw, item, child)
        # Two words about one document: whichever is believed, somebody else believes the other (reliability M2).
        if document.media_type != item.media_type:
            raise ContentError(
                f"{child}: listed as {shown(item.media_type)}, but it is {shown(document.media_type)}",
                code="TYPE",
                object=str(item.digest),
            )
        found.append(_image(source, document, child, nesting - 1))
    return found


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

    Raises as `decode.decoded`.
    """
    if isinstance(stored, Manifest):
        return StoredSnapshot(stored, store, warnings=tuple(map(str, stored.warnings)))
    return stored_artifact(artifact_of(store, stored, how), key)


def stored_artifact(artifact: FoundArtifact, key: SnapshotKey) -> StoredSnapshot:
    """An artifact as if a store had it under `key`. Raises ContentError."""
    found = artifact.identified(key)
    snapshot = found.snapshot
    # A file that is one plain layer is the blob already, under its own digest (decision D2).
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
    # A node tells digests of files from memory, by their times; a file that was changed without them made it wrong.
    if isinstance(store, Node):
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
        # Asked of every layer, and still a look: nothing is decoded to know.
        return self.store.has(target) if file is None else all(map(self.store.has, file.carriers))

    def content(self, target: Descriptor) -> Content:
        file = self.files.get(target.digest)
        return self.store.content(target) if file is None else carried_content(self.store, file)
