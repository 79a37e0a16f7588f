"""What a dialect turns into what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import Finding
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.parts import PartTable

Role = Literal["layer", "base-image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFile:
    """One file of a snapshot and how an artifact carries it.

    `digest` and `size` (bytes) are those of the stored blob as Epoch names it. `carriers` are the OCI layers whose
    contents joined in order are that blob: one for a whole file, several for parts, none for an empty file.
    """

    name: str
    role: Role
    media_type: str
    digest: Digest
    size: int
    carriers: tuple[Descriptor, ...]

    @property
    def blob(self) -> Descriptor:
        """The stored blob as one descriptor, whatever carries it."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as read out of an artifact.

    `epoch` has the exact bytes of the Epoch manifest. When `derived`, no such document travelled with the artifact and
    it was made from the layers.
    """

    dialect: str
    epoch: Document
    manifest: Manifest
    files: tuple[SnapshotFile, ...]
    derived: bool = False
    warnings: tuple[Finding, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A snapshot as an OCI artifact: two documents, and the files that its layers carry."""

    manifest: Document
    config: Document
    files: tuple[SnapshotFile, ...]
    lost: tuple[str, ...] = ()

    @property
    def image(self) -> ImageManifest:
        """The manifest, parsed."""
        return ImageManifest.parse(self.manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """What the user may add to a minted artifact.

    `annotations`: an empty value omits its key. `parts`: the blobs to be carried in parts.
    `allow_loss`: go on when the dialect has no home for something.
    """

    annotations: Mapping[str, str] | None = None
    parts: Mapping[Digest, PartTable] | None = None
    allow_loss: bool = False


class Dialect(Protocol):
    """One way to write a snapshot as an OCI artifact."""

    @property
    def name(self) -> str:
        """The word that `--dialect` takes."""

    def accepts(self, manifest: ImageManifest) -> bool:
        """Whether this dialect can read the artifact."""

    def encode(self, epoch: Document, options: EncodeOptions) -> Artifact:
        """Translate an Epoch manifest. Raises ContentError for what is wrong with it, UsageError for the options."""

    def decode(self, manifest: ImageManifest, config: Document | None) -> Snapshot:
        """Read an artifact back. `config` is None when the artifact has the empty one. Raises ContentError with every finding."""
