"""Translating one manifest, without reading a blob."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from epoch_oci import dialects, schemas
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Artifact, EncodeOptions, Snapshot
from epoch_oci.dialects.foreign import identified
from epoch_oci.epoch.manifest import EPOCH_MANIFEST
from epoch_oci.errors import UsageError
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Both sides of a translation. `result` is the document that was asked for.

    `config` goes with `oci`, None for the empty one. `carried` are the files that have a place in the result, `riding`
    is what rides in it although the format has no member for it, `lost` what neither holds. When `derived`, no Epoch
    manifest travelled with the artifact that was read.
    """

    result: Document
    oci: Document
    config: Document | None
    epoch: Document
    artifact_type: str
    derived: bool = False
    carried: tuple[str, ...]
    riding: tuple[str, ...] = ()
    lost: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "digest": str(self.result.digest),
            "mediaType": self.result.media_type,
            "artifactType": self.artifact_type,
            "derived": self.derived,
            "carried": [*self.carried, *self.riding],
            "lost": list(self.lost),
        }


def to_oci(
    raw: bytes,
    *,
    dialect: str = "cocoon",
    annotations: Mapping[str, str] | None = None,
    allow_loss: bool = False,
) -> Artifact:
    """Translate an Epoch manifest's bytes: the same bytes give the same digest, everywhere and always.

    Raises ContentError with every finding, UsageError for an unknown dialect or a reserved annotation, and PolicyError
    when the dialect has no place for something, unless `allow_loss`.
    """
    options = EncodeOptions(annotations=annotations, allow_loss=allow_loss)
    return _encoded(Document(EPOCH_MANIFEST, raw), dialect, options)


def _encoded(epoch: Document, dialect: str, options: EncodeOptions) -> Artifact:
    # Before the dialect sees it, for it may come from a file of anybody (decision D10).
    schemas.check(epoch, "epoch-manifest.v1", "the Epoch manifest")
    return dialects.named(dialect).encode(epoch, options)


def read(manifest: Document, config: Document | None) -> Snapshot:
    """Read an artifact's two documents, in whatever dialect they are. Raises ContentError with every finding."""
    image = ImageManifest.parse(manifest)
    return dialects.detect(image).decode(image, config)


def to_epoch(artifact: Artifact) -> Document:
    """The Epoch manifest that `artifact` carries: exactly the bytes it was made from. Raises ContentError."""
    return read(artifact.manifest, artifact.config).epoch


def converted_to_oci(epoch: Document, dialect: str, options: EncodeOptions) -> Conversion:
    """An Epoch manifest as OCI. Raises as `to_oci`."""
    artifact = _encoded(epoch, dialect, options)
    return Conversion(
        result=artifact.manifest,
        oci=artifact.manifest,
        config=artifact.config,
        epoch=epoch,
        artifact_type=artifact.image.kind,
        carried=tuple(file.name for file in artifact.files),
        lost=artifact.lost,
    )


@dataclass(frozen=True, slots=True)
class Called:
    """What a snapshot is called where its artifact does not say it; "" for not known."""

    name: str = ""
    tag: str = ""


_UNKNOWN = Called()


def converted_to_epoch(manifest: Document, config: Document | None, called: Called = _UNKNOWN) -> Conversion:
    """An artifact's Epoch manifest. Raises as `read`."""
    snapshot = identified(read(manifest, config), called.name, called.tag)
    return Conversion(
        result=snapshot.epoch,
        oci=manifest,
        config=config,
        epoch=snapshot.epoch,
        artifact_type=ImageManifest.parse(manifest).kind,
        derived=snapshot.derived,
        carried=tuple(file.name for file in snapshot.files),
        riding=snapshot.carried,
        lost=snapshot.lost,
    )


def converted_artifact(
    manifest: Document, config: Document | None, dialect: str, options: EncodeOptions, called: Called = _UNKNOWN
) -> Conversion:
    """An artifact in another dialect, by way of its Epoch manifest. Raises as `read` and `to_oci`.

    UsageError when neither the artifact nor `called` has name and tag, for Epoch's manifest must. What was lost on the
    way in is told of as well; only a loss on the way out must be allowed.
    """
    snapshot = identified(read(manifest, config), called.name, called.tag)
    # Epoch's readers find a snapshot by both, and a manifest without them is found by nobody (epoch-formats 1.2).
    if not snapshot.manifest.name or not snapshot.manifest.tag:
        raise UsageError("the artifact does not say what the snapshot is called", hint="name it with --as NAME:TAG")
    written = converted_to_oci(snapshot.epoch, dialect, options)
    return replace(
        written,
        derived=snapshot.derived,
        riding=snapshot.carried,
        lost=tuple(dict.fromkeys((*snapshot.lost, *written.lost))),
    )
