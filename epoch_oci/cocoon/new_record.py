"""The record of a snapshot that comes into Cocoon's index; as Cocoon's import makes it (epoch-formats 5.2 and 5.7)."""

from collections.abc import Mapping
from typing import Any

from epoch_oci.cocoon.carried import envelope_of
from epoch_oci.cocoon.envelope import RECORD_KEYS
from epoch_oci.cocoon.records import COUNTS, Record, SnapshotIndex
from epoch_oci.epoch import times
from epoch_oci.epoch.manifest import Manifest


def config_of(manifest: Manifest, name: str) -> dict[str, Any]:
    """What the snapshot is, in Cocoon's words: its envelope, with every base image pinned. Raises ContentError.

    Settings that are not known here stay, for a later Cocoon knows them. What only a record may say does not: somebody
    else's `pending` or `data_dir` would be taken for the node's own.
    """
    envelope = envelope_of(manifest)
    known = {key: value for key, value in envelope.config.items() if key not in RECORD_KEYS}
    blobs = sorted({*envelope.image_blob_ids, *manifest.pinned_blobs})
    config = {**({} if "id" in known else {"id": ""}), **known, "name": name}
    if blobs:
        said = known.get("image_blob_ids") or {}
        config["image_blob_ids"] = {blob: said.get(blob) or {} for blob in blobs}
    return config


def new_record(
    index: SnapshotIndex,
    snapshot_id: str,
    config: Mapping[str, Any],
    *,
    created_at: str,
    root: str,
    size: int,
    now: str,
) -> dict[str, Any]:
    """A record for `index`, that of a Cocoon in the directory `root`; `size` is that of the files in bytes.

    Later Cocoon versions evict what was not used for long, and so need to know when a snapshot was; where the others'
    records say so, this one does.
    """
    place = {"created_at": created_at, "data_dir": index.data_dir(snapshot_id, root)}
    counts = dict(zip(COUNTS, (size, now), strict=True)) if index.is_counted else {}
    return {**config, "id": snapshot_id, **place, **counts}


def is_meant(record: Record, config: Mapping[str, Any]) -> bool:
    """Whether a record says of its snapshot what `config` says, whichever ID it has."""
    return _essence(record.members) == _essence(config)


def created_at(manifest: Manifest, now: str) -> str:
    """When the snapshot was made, as it says; where it does not say, it is taken for made now, as an import does."""
    return manifest.created_at if times.is_set(manifest.created_at) else now


def _essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without the ID and without what Go would not write."""
    return {key: value for key, value in config.items() if key not in RECORD_KEYS and key != "id" and value}
