"""What a dialect turns into what."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import field
from typing import Literal, Protocol, runtime_checkable

from epoch_oci.dataclass import dataclass
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import Finding
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.parts import PartTable

Role = Literal["layer", "base-image"]
Encoding = Literal["", "zstd", "chunks"]
"""How a layer's content is encoded; "" is not at all. "chunks": the layers are an index and packs (chunks.index)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFile:
    """One file of a snapshot and how an artifact carries it.

    `digest` and `size` (bytes) are those of the stored blob as Epoch names it. `carriers` are the OCI layers whose
    contents joined in order are that blob: one for a whole file, several for parts, none for an empty file. Where there
    is an `encoding`, each of them is decoded before it is joined; of a file in chunks they are the index and all packs.
    """

    name: str
    role: Role
    media_type: str
    digest: Digest
    size: int
    carriers: tuple[Descriptor, ...]
    encoding: Encoding = ""

    @property
    def blob(self) -> Descriptor:
        """The stored blob as one descriptor, whatever carries it."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as read out of an artifact, with its Epoch manifest.

    When `derived`, no such document travelled with the artifact and it was made from the layers; `carried` then names
    what rides in it although Epoch has no member for it, and `lost` what does not.
    """

    dialect: str
    manifest: Manifest
    files: tuple[SnapshotFile, ...]
    derived: bool = False
    warnings: tuple[Finding, ...] = ()
    lost: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()

    @property
    def epoch(self) -> Document:
        """The exact bytes of the Epoch manifest."""
        return self.manifest.document

    @property
    def absent(self) -> tuple[Descriptor, ...]:
        """The blobs that the Epoch manifest lists and no layer carries, for the dialect has no place for them."""
        there = {file.digest for file in self.files}
        return tuple(blob for blob in self.manifest.descriptors if blob.digest not in there)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFile:
    """A file of a snapshot whose layers are encoded or cut. `media_type` and `size` (bytes) are of the decoded blob.

    `digest` is None where nothing but decoding the `carriers` tells it.
    """

    name: str
    media_type: str
    size: int
    digest: Digest | None
    carriers: tuple[Descriptor, ...]
    encoding: Encoding = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSnapshot:
    """What two documents tell of a snapshot whose blobs are known only after its layers were decoded.

    `memory` and `storage` are bytes; times are the text as written, "" when absent. `complete` makes the snapshot of
    the files, all with their digests, and `complete_part` one of some of them. `claimed` has by name what a document
    says that files decode to: true or not, whoever decodes them finds out.
    """

    dialect: str
    files: tuple[EncodedFile, ...]
    complete: Callable[[tuple[SnapshotFile, ...]], Snapshot] = field(repr=False, compare=False)
    complete_part: Callable[[tuple[SnapshotFile, ...]], Snapshot] = field(repr=False, compare=False)
    name: str = ""
    tag: str = ""
    snapshot_id: str = ""
    image: str = ""
    cpu: int = 0
    memory: int = 0
    storage: int = 0
    nics: int = 0
    created_at: str = ""
    pushed_at: str = ""
    warnings: tuple[Finding, ...] = ()
    claimed: Mapping[str, Digest] = field(default_factory=dict)

    @property
    def undigested(self) -> tuple[EncodedFile, ...]:
        """The files that have to be decoded before `finish`."""
        return tuple(file for file in self.files if file.digest is None)

    def finish(self, digests: Mapping[str, Digest]) -> Snapshot:
        """The snapshot; `digests` has by name those of the decoded `undigested` files. Raises ContentError."""
        return self.complete(tuple(_digested(file, digests) for file in self.files))

    def finish_part(self, digests: Mapping[str, Digest], chosen: Collection[str]) -> Snapshot:
        """As `finish`, with the `chosen` files alone: enough to write them, and no snapshot to be stored."""
        return self.complete_part(tuple(_digested(file, digests) for file in self.files if file.name in chosen))


def _digested(file: EncodedFile, digests: Mapping[str, Digest]) -> SnapshotFile:
    return SnapshotFile(
        name=file.name,
        role="layer",
        media_type=file.media_type,
        digest=file.digest or digests[file.name],
        size=file.size,
        # An empty file is nothing to fetch; some registries have no empty blob (trap 13).
        carriers=file.carriers if file.size else (),
        encoding=file.encoding,
    )


@dataclass(frozen=True, slots=True)
class Artifact:
    """A snapshot as an OCI artifact: two documents, and the files that its layers carry.

    `lost` names what the dialect has no place for.
    """

    manifest: Document
    config: Document
    files: tuple[SnapshotFile, ...]
    lost: tuple[str, ...] = ()

    @property
    def image(self) -> ImageManifest:
        """The manifest, parsed."""
        return ImageManifest.parse(self.manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLayers:
    """The layers that carry files in chunks: an index (None when it has no file), the packs in its order.

    `files` are those that the index describes.
    """

    index: Descriptor | None
    packs: tuple[Descriptor, ...]
    files: frozenset[Digest]

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """As the manifest lists them."""
        return (self.index, *self.packs) if self.index is not None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file as layers that are cut or compressed, in order; `encoding` is that of each of them."""

    layers: tuple[Descriptor, ...]
    encoding: Encoding = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """What the user may add to a minted artifact.

    `annotations`: an empty value omits its key. `parts`: the blobs to be carried in parts.
    `chunks`: where given, the artifact is of the chunked form. `written`: where given, a snapshot of version 2 of the
    `cocoonstack` dialect, with these files, by name, cut or compressed.
    `allow_loss`: go on when the dialect has no home for something.
    """

    annotations: Mapping[str, str] | None = None
    parts: Mapping[Digest, PartTable] | None = None
    chunks: ChunkLayers | None = None
    written: Mapping[str, WrittenFile] | None = None
    allow_loss: bool = False


@runtime_checkable
class Dialect(Protocol):
    """One way to write a snapshot as an OCI artifact."""

    @property
    def name(self) -> str:
        """The word that `--dialect` takes."""

    def cuts(self, *, cloud_image: bool) -> bool:
        """Whether a file of such an artifact may travel in parts."""

    def accepts(self, manifest: ImageManifest) -> bool:
        """Whether this dialect can read the artifact."""

    def encode(self, epoch: Document, options: EncodeOptions) -> Artifact:
        """Translate an Epoch manifest. Raises ContentError for what is wrong with it, UsageError for the options."""

    def decode(self, manifest: ImageManifest, config: Document | None) -> Snapshot:
        """Read an artifact back; `config` is None when it has the empty one. Raises ContentError with every finding."""

    def read_encoded(self, manifest: ImageManifest, config: Document | None) -> EncodedSnapshot | None:
        """What the documents tell of an artifact whose layers must be decoded first; None for one that `decode` reads.

        Raises ContentError with every finding.
        """
