"""Epoch manifests made here, of what is known about a snapshot: the W3b form (epoch-formats 1.2 and 1.6).

Pure, and without a clock: the same facts give the same bytes, whoever reads them when, so that an artifact or an
archive that brings no manifest has one all the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from epoch_oci.dataclass import dataclass
from epoch_oci.epoch import gojson
from epoch_oci.epoch.extra_members import OF_MANIFESTS
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT, LayerHeader, Manifest, media_type_for_file
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document

_OMITTED = OF_MANIFESTS | {
    *("image", "imageBlobIDs", "cpu", "memory", "storage", "nics", "baseImages", "layerHeaders"),
}
"""What is left out when it is empty: the members whose tags in Epoch's struct say so, and ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """What a manifest says beside its files. Sizes are bytes; times are text, "" for the zero time that Go writes."""

    name: str = ""
    tag: str = ""
    snapshot_id: str = ""
    image: str = ""
    image_blob_ids: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cpu: int = 0
    memory: int = 0
    storage: int = 0
    nics: int = 0
    created_at: str = ""
    pushed_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file as it is stored: `digest` and `size` (bytes) are of the packed form where there is one.

    `media_type` is by default what Epoch gives a file of this name. `header` None: nothing is known of its form.
    """

    name: str
    digest: Digest
    size: int
    media_type: str = ""
    header: LayerHeader | None = None

    @property
    def descriptor(self) -> Descriptor:
        """The blob."""
        media_type = self.media_type or media_type_for_file(self.name)
        return Descriptor(media_type=media_type, digest=self.digest, size=self.size)

    @property
    def pax_records(self) -> Mapping[str, str]:
        """Those of its archive entry, which hold the map of a packed file (`epoch.sparse`)."""
        return self.header.pax_records if self.header is not None else MappingProxyType({})


def mint(
    facts: SnapshotFacts,
    files: Iterable[StoredFile],
    *,
    base_images: Iterable[StoredFile] = (),
    extra: Mapping[str, Any] | None = None,
    what: str,
) -> Manifest:
    """The manifest of `files` in their order; `extra` are members of `extra_members`.

    Raises ContentError, about `what`, where they make none that could be.
    """
    rows, bases = list(files), list(base_images)
    members: dict[str, Any] = {  # in the order of Epoch's struct
        "schemaVersion": 1,
        "name": facts.name,
        "tag": facts.tag,
        "snapshotId": facts.snapshot_id,
        "image": facts.image,
        "imageBlobIDs": gojson.sorted_map(facts.image_blob_ids),
        "cpu": facts.cpu,
        "memory": facts.memory,
        "storage": facts.storage,
        "nics": facts.nics,
        "layers": [_layer(file) for file in rows],
        "baseImages": [_layer(file) for file in bases],
        "totalSize": sum(file.size for file in (*rows, *bases)),
        # Epoch's reader wants a time in both: Go's zero time stands for none.
        "createdAt": facts.created_at or gojson.ZERO_TIME,
        "pushedAt": facts.pushed_at or gojson.ZERO_TIME,
        "layerHeaders": gojson.sorted_map(
            {file.name: _header(file.header) for file in rows if file.header is not None}
        ),
        **(extra or {}),
    }
    written = {key: item for key, item in members.items() if item or key not in _OMITTED}
    return Manifest.parse(Document(EPOCH_MANIFEST, gojson.dumps(written)), what)


def renamed(manifest: Manifest, name: str, tag: str, what: str) -> Manifest:
    """A minted manifest with another name and tag. Raises ContentError for hostile ones."""
    value = {**manifest.document.json(limit=MANIFEST_LIMIT), "name": name, "tag": tag}
    return Manifest.parse(Document(EPOCH_MANIFEST, gojson.dumps(value)), what)


def _layer(file: StoredFile) -> dict[str, Any]:
    media_type = file.descriptor.media_type
    return {"digest": file.digest.hex, "size": file.size, "filename": file.name, "mediaType": media_type}


def _header(header: LayerHeader) -> dict[str, Any]:
    members: dict[str, Any] = {"mode": header.mode, "paxRecords": gojson.sorted_map(header.pax_records)}
    return {key: value for key, value in members.items() if value}
