"""Names for snapshots whose artifact has none: modern Epoch and `oras push` leave them to repository and tag."""

from dataclasses import replace

from epoch_oci.dialects.base import Snapshot
from epoch_oci.epoch import gojson
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT, Manifest
from epoch_oci.oci.document import Document


def identified(snapshot: Snapshot, name: str, tag: str) -> Snapshot:
    """`snapshot` with `name` and `tag` where its derived manifest has none; any other stays as it is.

    A manifest without them is nothing that a store could hold: Epoch's own always have both. Raises ContentError for a
    hostile name.
    """
    manifest = snapshot.manifest
    if not snapshot.derived or (manifest.name and manifest.tag):
        return snapshot
    value = {
        **snapshot.epoch.json(limit=MANIFEST_LIMIT),
        "name": manifest.name or name,
        "tag": manifest.tag or tag,
    }
    document = Document(EPOCH_MANIFEST, gojson.dumps(value))
    return replace(snapshot, epoch=document, manifest=Manifest.parse(document, "the derived Epoch manifest"))
