"""The profile (docs/format.md): its words, and what manifest, config and annotations of all dialects have in common."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import hostile_problem
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError, Finding, UsageError
from epoch_oci.oci import media_types, verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import MANIFEST_LIMIT, Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.strict_json import member_path

SNAPSHOT = "application/vnd.cocoon.snapshot.v1+json"
SNAPSHOT_CONFIG = "application/vnd.cocoon.snapshot.config.v1+json"
OS_IMAGE = "application/vnd.cocoon.os-image.v1+json"
OS_IMAGE_CONFIG = "application/vnd.cocoon.os-image.config.v1+json"
ARTIFACT_TYPES = {SNAPSHOT_CONFIG: SNAPSHOT, OS_IMAGE_CONFIG: OS_IMAGE}
"""The artifact type that goes with each config type."""
CHUNKED_TYPES = {
    SNAPSHOT_CONFIG: "application/vnd.cocoon.snapshot.chunked.v1+json",
    OS_IMAGE_CONFIG: "application/vnd.cocoon.os-image.chunked.v1+json",
}
"""The same of the chunked form."""
CHUNK_INDEX = "application/vnd.cocoon.chunks.index.v1"
CHUNK_PACK = "application/vnd.cocoon.chunks.pack.v1"
COCOONSTACK = "application/vnd.cocoonstack."
"""What the media types of Epoch 0.1.6 and later begin with; they are another dialect."""

SNAPSHOT_ID = "cocoonstack.snapshot.id"
IMAGE = "cocoonstack.snapshot.baseimage"
MANIFEST_KEYS = frozenset({media_types.CREATED, media_types.TITLE, media_types.VERSION, SNAPSHOT_ID, IMAGE})
NAMESPACE = "vnd.cocoon."
"""What the profile's own annotation keys begin with."""

ROLE = "vnd.cocoon.layer.role"
PART_FILE = "vnd.cocoon.part.file"
PART_INDEX = "vnd.cocoon.part.index"
PART_COUNT = "vnd.cocoon.part.count"
PART_OFFSET = "vnd.cocoon.part.offset"
PART_SIZE = "vnd.cocoon.part.size"
PART_DIGEST = "vnd.cocoon.part.digest"
PART_KEYS = (PART_FILE, PART_INDEX, PART_COUNT, PART_OFFSET, PART_SIZE, PART_DIGEST)
PART_SUFFIX = ".part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """`created` is a time as text, "" when there is none; `rest` are the annotations that are nothing of these.

    An artifact of Epoch has neither name nor tag in it: these are its repository's, and its tag's.
    """

    name: str
    tag: str
    snapshot_id: str
    image: str
    created: str
    rest: Mapping[str, str]
    warnings: tuple[Finding, ...]

    @classmethod
    def read(cls, manifest: ImageManifest, found: list[Finding]) -> Self:
        """Those of `manifest`; what is hostile is added to `found`."""
        notes = manifest.annotations
        for key in (media_types.TITLE, media_types.VERSION):
            text = notes.get(key)
            # Name and tag become keys of a store (reliability N1); an empty one is none, as Go has it.
            if text and (why := hostile_problem(text)) is not None:
                found.append(Finding(member_path("$.annotations", key), "NAME", f"{shown(text)} {why}"))
        created, warnings = notes.get(media_types.CREATED, ""), []
        # People write dates by hand, and nothing rests on this one: no reason to refuse gigabytes.
        if created and not gojson.is_time(created):
            path = member_path("$.annotations", media_types.CREATED)
            problem = f"{shown(created)} is not a time (RFC 3339) and is left out"
            warnings.append(Finding(path, "SCHEMA", problem, "warning"))
            created = ""
        return cls(
            name=notes.get(media_types.TITLE, ""),
            tag=notes.get(media_types.VERSION, ""),
            snapshot_id=notes.get(SNAPSHOT_ID, ""),
            image=notes.get(IMAGE, ""),
            created=created,
            rest=MappingProxyType({key: text for key, text in notes.items() if key not in MANIFEST_KEYS}),
            warnings=tuple(warnings),
        )

    def unlike(self, *, snapshot_id: str, image: str) -> dict[str, str]:
        """The annotations to keep beside members of these values: `rest`, and what differs from them."""
        # What annotation and member say alike is made again from the member.
        rows = ((SNAPSHOT_ID, self.snapshot_id, snapshot_id), (IMAGE, self.image, image))
        return {**self.rest, **{key: text for key, text, known in rows if text not in ("", known)}}


def annotations_of(manifest: Manifest) -> dict[str, str]:
    """What an Epoch manifest says of the snapshot, as annotations."""
    values = {
        media_types.CREATED: manifest.made_at,
        media_types.TITLE: manifest.name,
        media_types.VERSION: manifest.tag,
        SNAPSHOT_ID: manifest.snapshot_id,
        IMAGE: manifest.image,
    }
    return {key: value for key, value in values.items() if value}


def annotations(
    epoch: Manifest, user: Mapping[str, str] | None, kept: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Those of the Epoch manifest, those that were `kept` beside it, and the user's. Raises UsageError."""
    # The user's last; those that the config decides cannot be among them.
    return {**annotations_of(epoch), **kept, **_user_annotations(user or {})}


def _user_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    for key, value in annotations.items():
        # The annotations are a view of the config: one that says something else would mislead whoever looks at them
        # alone.
        if key in MANIFEST_KEYS or key.startswith(NAMESPACE):
            raise UsageError(
                f"the annotation {shown(key)} belongs to the profile", hint="choose a key in a namespace of your own"
            )
        if not key or not _encodable(key) or not _encodable(value):
            raise UsageError(f"the annotation {shown(key)} is not text that JSON can hold")
    return {key: value for key, value in annotations.items() if value}


def _encodable(text: str) -> bool:
    # NUL and lone surrogates: our own reader would refuse the manifest (reliability J2).
    return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text)


def checked_config(manifest: ImageManifest, document: Document | None, media_type: str) -> Document:
    """The config, when it is there, of this type, and what the manifest names. Raises ContentError."""
    # The type first: bytes of another type may match their digest, and are no config of ours all the same.
    target = manifest.config
    if target.media_type != media_type:
        raise ContentError(
            f"the config of {shown(manifest.kind)} is of type {shown(target.media_type)}, not {shown(media_type)}",
            code="TYPE",
            object=str(target.digest),
        )
    if document is None:
        raise ContentError("the artifact's config was not read", code="MISMATCH", object=str(target.digest))
    verifying.check_bytes(document.raw, target, "the config")
    return document


def image_manifest(
    artifact_type: str, config: Document, layers: Sequence[Descriptor], annotations: Mapping[str, str]
) -> Document:
    """The manifest, in the form of the one encoder. Raises ContentError (SIZE)."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "artifactType": artifact_type,
        "config": config.descriptor.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        value["annotations"] = dict(annotations)
    return _bounded(Document.encode(media_types.MANIFEST, value))


def _bounded(document: Document) -> Document:
    if document.size > MANIFEST_LIMIT:
        raise ContentError(
            f"the OCI manifest would be {document.size} bytes, more than the {MANIFEST_LIMIT} that registries take",
            code="SIZE",
            hint="give fewer annotations, or a larger part size",
        )
    return document
