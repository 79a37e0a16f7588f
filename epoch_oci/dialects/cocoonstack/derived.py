"""The Epoch manifest that Epoch itself would have written of an artifact: the W3b form (epoch-formats 1.2 and 1.6)."""

from collections.abc import Iterable, Mapping
from typing import Any

from epoch_oci.dialects.base import SnapshotFile
from epoch_oci.dialects.cocoonstack.carried import MEMBER, Carried
from epoch_oci.dialects.cocoonstack.config import FileEntry
from epoch_oci.epoch import gojson, times
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Manifest
from epoch_oci.oci.document import Document

_NOTHING: Mapping[str, Any] = {
    "schemaVersion": 1,
    "name": "",
    "tag": "",
    "snapshotId": "",
    "image": "",
    "imageBlobIDs": {},
    "cpu": 0,
    "memory": 0,
    "storage": 0,
    "nics": 0,
    "layers": [],
    "totalSize": 0,
    "createdAt": times.ZERO_TIME,
    "pushedAt": times.ZERO_TIME,
    "layerHeaders": {},
    MEMBER: {},
}
"""Every member in the order of Epoch's struct, empty."""
_OMITTED = frozenset({"image", "imageBlobIDs", "cpu", "memory", "storage", "nics", "layerHeaders", MEMBER})
"""Those that are left out when they are empty."""


def derive(
    facts: Mapping[str, Any],
    files: Iterable[SnapshotFile],
    *,
    entries: Mapping[str, FileEntry],
    carried: Carried,
) -> Manifest:
    """The manifest of `files` with the members `facts`: the same artifact gives the same bytes.

    Modes and maps of `entries` become `layerHeaders`. Raises ContentError.
    """
    rows = list(files)
    value = {
        **_NOTHING,
        **facts,
        "layers": [_layer(file) for file in rows],
        "totalSize": sum(file.size for file in rows),
        "layerHeaders": gojson.sorted_map(
            {file.name: header for file in rows if (header := _header(entries.get(file.name, FileEntry())))}
        ),
        MEMBER: carried.to_json(),
    }
    # Go's omitempty: the members whose tags have it, and no others (epoch-formats 1.2).
    members = {key: item for key, item in value.items() if item or key not in _OMITTED}
    document = Document(EPOCH_MANIFEST, gojson.dumps(members))
    return Manifest.parse(document, "the Epoch manifest derived from the artifact")


def _layer(file: SnapshotFile) -> dict[str, Any]:
    return {"digest": file.digest.hex, "size": file.size, "filename": file.name, "mediaType": file.media_type}


def _header(entry: FileEntry) -> dict[str, Any]:
    header: dict[str, Any] = {"mode": entry.mode, "paxRecords": gojson.sorted_map(entry.pax_records)}
    return {key: value for key, value in header.items() if value}
