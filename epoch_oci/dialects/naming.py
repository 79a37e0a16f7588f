"""Names for snapshots whose artifact has none: modern Epoch and `oras push` leave them to repository and tag."""

from dataclasses import replace

from epoch_oci.dialects.base import Snapshot
from epoch_oci.epoch.mint import named


def identified(snapshot: Snapshot, name: str, tag: str) -> Snapshot:
    """`snapshot` with `name` and `tag` where its derived manifest has none; any other stays as it is.

    A manifest without them is nothing that a store could hold: Epoch's own always have both. Raises ContentError for a
    hostile name.
    """
    manifest = snapshot.manifest
    if not snapshot.derived or (manifest.name and manifest.tag):
        return snapshot
    called = named(manifest, manifest.name or name, manifest.tag or tag, "the derived Epoch manifest")
    return replace(snapshot, epoch=called.document, manifest=called)
