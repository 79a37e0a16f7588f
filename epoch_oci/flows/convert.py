"""Translating one manifest, without reading a blob."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epoch_oci import dialects, schemas
from epoch_oci.dialects.base import Artifact, EncodeOptions, Snapshot
from epoch_oci.epoch.manifest import EPOCH_MANIFEST
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Both sides of a translation. `result` is the document that was asked for."""

    result: Document
    oci: Document
    epoch: Document
    artifact_type: str
    derived: bool
    carried: tuple[str, ...]
    lost: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "digest": str(self.result.digest),
            "mediaType": self.result.media_type,
            "artifactType": self.artifact_type,
            "derived": self.derived,
            "carried": list(self.carried),
            "lost": list(self.lost),
        }


def to_oci(raw: bytes, *, dialect: str = "cocoon", annotations: Mapping[str, str] | None = None) -> Artifact:
    """Translate an Epoch manifest's bytes: the same bytes give the same digest, everywhere and always.

    Raises ContentError with every finding, UsageError for an unknown dialect or a reserved annotation.
    """
    schemas.check(raw, "epoch-manifest.v1", "the Epoch manifest")
    options = EncodeOptions(annotations=annotations)
    return dialects.named(dialect).encode(Document(EPOCH_MANIFEST, raw), options)


def read(manifest: Document, config: Document | None) -> Snapshot:
    """Read an artifact's two documents, in whatever dialect they are. Raises ContentError with every finding."""
    image = ImageManifest.parse(manifest)
    return dialects.detect(image).decode(image, config)


def to_epoch(artifact: Artifact) -> Document:
    """The Epoch manifest that `artifact` carries: exactly the bytes it was made from. Raises ContentError."""
    return read(artifact.manifest, artifact.config).epoch


def converted_to_oci(raw: bytes, *, dialect: str, annotations: Mapping[str, str]) -> Conversion:
    """An Epoch manifest as OCI. Raises as `to_oci`."""
    artifact = to_oci(raw, dialect=dialect, annotations=annotations)
    return Conversion(
        result=artifact.manifest,
        oci=artifact.manifest,
        epoch=Document(EPOCH_MANIFEST, raw),
        artifact_type=artifact.image.kind,
        derived=False,
        carried=tuple(file.name for file in artifact.files),
        lost=artifact.lost,
    )


def converted_to_epoch(manifest: Document, config: Document | None) -> Conversion:
    """An artifact's Epoch manifest. Raises as `read`."""
    snapshot = read(manifest, config)
    return Conversion(
        result=snapshot.epoch,
        oci=manifest,
        epoch=snapshot.epoch,
        artifact_type=ImageManifest.parse(manifest).kind,
        derived=snapshot.derived,
        carried=tuple(file.name for file in snapshot.files),
        lost=snapshot.lost,
    )
