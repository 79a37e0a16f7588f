"""What snapshots and cloud images have in common: the config's check, the manifest's form, its annotations."""

from collections.abc import Mapping, Sequence
from typing import Any

from epoch_oci.dialects.base import EncodeOptions
from epoch_oci.dialects.cocoon import _bounded, _profile_annotations, _user_annotations
from epoch_oci.dialects.cocoonstack.carried import Carried
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError
from epoch_oci.oci import media_types, verify
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest


def checked_config(manifest: ImageManifest, document: Document | None, media_type: str) -> Document:
    """The config, when it is there, of this type, and what the manifest names. Raises ContentError."""
    target = manifest.config
    if target.media_type != media_type:
        raise ContentError(
            f"the config of {shown(manifest.kind)} is of type {shown(target.media_type)}, not {shown(media_type)}",
            code="TYPE",
            object=str(target.digest),
        )
    if document is None:
        raise ContentError("the artifact's config was not read", code="MISMATCH", object=str(target.digest))
    verify.check_bytes(document.raw, target, "the config")
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


def annotations(epoch: Manifest, carried: Carried, options: EncodeOptions) -> dict[str, str]:
    """Those of the Epoch manifest, those that rode in it, and the user's. Raises UsageError."""
    user = _user_annotations(options.annotations or {})
    return {**_profile_annotations(epoch), **carried.annotations, **user}
