"""What something is: kind, dialect, files, sizes, resources, who wrote it, and what is missing."""

from typing import TYPE_CHECKING, Any

from epoch_oci.artifacts.decode import layer_contents
from epoch_oci.artifacts.read import FoundDocuments, read_documents, read_stored, reference_key, unchunked
from epoch_oci.cocoon.compat import obstacles
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedSnapshot, Encoding, Role, Snapshot, SnapshotFile
from epoch_oci.dialects.foreign import identified
from epoch_oci.dialects.layers import is_chunked
from epoch_oci.dialects.profile import CHUNK_INDEX, CHUNK_PACK
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest, Writer
from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.stores.base import Node, Source, full_name

if TYPE_CHECKING:
    from epoch_oci.chunks.figures import Figures, FileFigures, PackFigures

_ZERO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class InspectedFile:
    """One file of a snapshot; `parts` is how many layers carry it (an Epoch store always keeps one blob).

    `encoding` is how each of them is encoded, "" for not at all. `digest` is "" where only decoding them tells it.
    """

    name: str
    role: Role
    media_type: str
    digest: str
    size: int
    parts: int = 1
    encoding: Encoding = ""
    chunks: "FileFigures | None" = None

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it; of a file in chunks, also what its bytes are."""
        value: dict[str, Any] = {
            "name": self.name,
            "role": self.role,
            "mediaType": self.media_type,
            "digest": self.digest or None,
            "size": self.size,
            "parts": self.parts,
            "encoding": self.encoding or None,
        }
        if (chunks := self.chunks) is not None:
            value["chunks"] = {"zeros": chunks.zeros, "repeated": chunks.repeated, "stored": chunks.stored}
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything worth knowing before a snapshot is moved or started. Sizes, memory and storage in bytes.

    In `manifest` the digests of files that have none yet are stand-ins, small numbers. It is `derived` where no Epoch
    manifest was found, and then nobody wrote it.
    """

    location: str
    dialect: str
    document: Document
    manifest: Manifest
    files: tuple[InspectedFile, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...]
    derived: bool = False
    packs: "tuple[PackFigures, ...]" = ()

    @property
    def stored(self) -> int:
        """Bytes that the artifact's layers take where files are in chunks; 0 where none is."""
        plain = sum(file.size for file in self.files if file.chunks is None and file.encoding != "chunks")
        return plain + sum(item.pack.size for item in self.packs) if self.packs else 0

    @property
    def kind(self) -> str:
        """`snapshot` or `cloud-image`."""
        return "cloud-image" if self.manifest.is_cloud_image else "snapshot"

    @property
    def writer(self) -> Writer | None:
        """Who wrote the Epoch manifest, by its marks; None when there is none."""
        return None if self.derived else self.manifest.writer

    @property
    def size(self) -> int:
        """Bytes of all files as stored."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        manifest = self.manifest
        return {
            "location": self.location,
            "kind": self.kind,
            "dialect": self.dialect,
            "writer": self.writer,
            "derived": self.derived,
            "name": manifest.name,
            "tag": manifest.tag,
            "digest": str(self.document.digest),
            "mediaType": self.document.media_type,
            "snapshotId": manifest.snapshot_id,
            "image": manifest.image,
            "cpu": manifest.cpu,
            "memory": manifest.memory,
            "storage": manifest.storage,
            "nics": manifest.nics,
            "createdAt": known_time(manifest.created_at),
            "pushedAt": known_time(manifest.pushed_at),
            "size": self.size,
            "files": [file.to_json() for file in self.files],
            **self._packs_json(),
            "missing": list(self.missing),
            "warnings": list(self.warnings),
        }

    def _packs_json(self) -> dict[str, Any]:
        """Nothing where no file is in chunks."""
        rows = [{"digest": str(item.pack.digest), "size": item.pack.size, "live": item.live} for item in self.packs]
        return {"stored": self.stored, "packs": rows} if rows else {}


def known_time(text: str) -> str | None:
    """A time as it was written; None for none, and for Go's zero time, which means none."""
    return text if text and text != _ZERO_TIME else None


def inspect_snapshot(source: Source, key: SnapshotKey | str) -> Inspection:
    """Look at a snapshot of an Epoch store, of whichever generation. Raises ContentError, NotFoundError."""
    key = SnapshotKey.parse(key) if isinstance(key, str) else key
    stored = read_stored(source, key)
    if isinstance(stored, Manifest):
        return _of_epoch(source, stored, str(key))
    return _of_artifact(source, stored, key, str(key))


def _of_epoch(source: Source, manifest: Manifest, location: str) -> Inspection:
    rows: list[tuple[str, Role, Descriptor]] = [
        *((layer.filename, "layer", _blob(layer)) for layer in manifest.layers),
        *((layer.filename, "base-image", _blob(layer)) for layer in manifest.base_images),
    ]
    files = tuple(
        InspectedFile(title, role, blob.media_type, str(blob.digest), blob.size) for title, role, blob in rows
    )
    absent = tuple(_absence(source, blob, title, "in the store") for title, _, blob in rows if not source.has(blob))
    return Inspection(
        location=location,
        dialect="epoch",
        document=manifest.document,
        manifest=manifest,
        files=files,
        missing=(*absent, *missing_images(manifest)),
        warnings=(
            *map(str, manifest.warnings),
            *obstacles(manifest, lambda layer: source.content(layer.descriptor), node=source),
        ),
        derived=isinstance(source, Node),
    )


def inspect_artifact(source: Source, name: str) -> Inspection:
    """Look at an artifact in a repository or layout, at its documents alone. Raises ContentError, NotFoundError."""
    found = read_documents(source, name)
    return _of_artifact(source, found, reference_key(source, name), full_name(source, name))


def _of_artifact(source: Source, found: FoundDocuments, key: SnapshotKey, location: str) -> Inspection:
    # By the documents alone: no layer is decoded, and a compressed file's digest stays unknown.
    told = found.told()
    unknown = {file.name for file in told.undigested} if isinstance(told, EncodedSnapshot) else set()
    snapshot = identified(_sketched(told) if isinstance(told, EncodedSnapshot) else told, key.name, key.tag)
    absent = _absent(source, snapshot)
    # With a layer missing the index may be the one: then what is missing is said, and no figures.
    chunked = unchunked(source, found.image, snapshot) if not absent else source
    figures, of_file = _figures(found.image, chunked)
    return Inspection(
        location=location,
        dialect=snapshot.dialect,
        document=found.image.document,
        manifest=snapshot.manifest,
        files=tuple(
            _inspected(file, of_file.get(file.digest), known=file.name not in unknown) for file in snapshot.files
        ),
        packs=tuple(figures.packs) if figures else (),
        missing=(*absent, *missing_images(snapshot.manifest)),
        warnings=(
            *map(str, snapshot.warnings),
            *_undigested(sorted(unknown)),
            *obstacles(snapshot.manifest, layer_contents(chunked, snapshot)),
        ),
        derived=snapshot.derived,
    )


def _figures(image: ImageManifest, source: Source) -> "tuple[Figures | None, dict[Digest, FileFigures]]":
    """What the chunk index tells, all together and by file; nothing where there is none."""
    if not is_chunked(image):
        return None, {}
    from epoch_oci.artifacts.chunked import ChunkedSource
    from epoch_oci.chunks.figures import figures_of

    if not isinstance(source, ChunkedSource):
        return None, {}
    figures = figures_of(source.index)
    return figures, {file.digest: item for file, item in zip(source.index.header.files, figures.files, strict=True)}


def _absent(source: Source, snapshot: Snapshot) -> tuple[str, ...]:
    """What carries the files and is not there; of files in chunks each layer is asked for once."""
    # From the last to the first and back: of several files that a layer carries, the first in order gives it its name.
    names = {carrier: file.name for file in reversed(snapshot.files) for carrier in file.carriers}
    found = {
        carrier: "a layer of files in chunks" if carrier.media_type in (CHUNK_INDEX, CHUNK_PACK) else name
        for carrier, name in reversed(names.items())
    }
    return tuple(_absence(source, carrier, name, "there") for carrier, name in found.items() if not source.has(carrier))


def _absence(source: Source, blob: Descriptor, name: str, place: str) -> str:
    """What to say of a blob that `has` denies: it is not there, or one of another size is."""
    from epoch_oci.transfer.plan import refuse_other_size

    try:
        refuse_other_size(source, blob, f"{name} ({blob.digest})")
    except ContentError as error:
        return error.message
    return f"{name} ({blob.digest}) is not {place}"


def _sketched(encoded: EncodedSnapshot) -> Snapshot:
    """The snapshot as far as it is known; a number stands in for each digest that is not."""
    # Made up, and never shown: the dialect wants digests that differ.
    rows = enumerate(encoded.undigested, start=1)
    return encoded.finish({file.name: Digest("sha256", f"{index:064x}") for index, file in rows})


def _inspected(file: SnapshotFile, chunks: "FileFigures | None", *, known: bool) -> InspectedFile:
    digest = str(file.digest) if known else ""
    # Every pack carries every file in chunks, so that their number says nothing of one.
    parts = 1 if file.encoding == "chunks" else len(file.carriers)
    return InspectedFile(file.name, file.role, file.media_type, digest, file.size, parts, file.encoding, chunks)


def _undigested(names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"compressed or in chunks, so that only a pull tells the digest: {', '.join(map(shown, names))}",)


def missing_images(manifest: Manifest) -> tuple[str, ...]:
    """Image blobs the snapshot pins and no base image of the manifest provides (traps 16 and 19)."""
    # Base images are named by the ID of the blob that Cocoon keeps, which is not their digest (trap 15).
    # Without their endings, for a blob's ID has none.
    provided = {layer.filename.removesuffix(".qcow2").removesuffix(".raw") for layer in manifest.base_images}
    return tuple(
        f"image blob {blob} is needed, and the manifest does not carry it"
        for blob in manifest.image_blob_ids
        if blob not in provided
    )


def _blob(layer: Any) -> Descriptor:
    return Descriptor(media_type=layer.media_type or "application/octet-stream", digest=layer.digest, size=layer.size)
