"""What an Epoch store holds, snapshot by snapshot."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.flows.artifact import read_epoch
from epoch_oci.stores.base import QuickLister, SnapshotEntry, Source

_READERS = 8


class ListableStore(Source, Protocol):
    """A source of snapshots that can enumerate them."""

    def snapshots(self) -> Iterator[SnapshotEntry]:
        """As `stores.base.SnapshotLister`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSnapshot:
    """One snapshot of a store. `size` is bytes of all files as stored.

    Where the manifest cannot be read, `problem` says why. What is not known is None: also the digest where only reading
    every file would tell it.
    """

    key: SnapshotKey
    digest: str | None = None
    size: int | None = None
    kind: str | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "name": self.key.name,
            "tag": self.key.tag,
            "digest": self.digest,
            "size": self.size,
            "kind": self.kind,
        }


def list_snapshots(store: ListableStore, *, name: str | None = None, tag: str | None = None) -> list[ListedSnapshot]:
    """Every snapshot, or those of this name and tag, in the store's order. A wrong manifest is listed as such.

    Raises NotFoundError when there is no store, and what reading it raises.
    """
    if isinstance(store, QuickLister):
        return [
            ListedSnapshot(key=row.key, size=row.size, kind="snapshot")
            for row in store.listing()
            if name in (None, row.key.name) and tag in (None, row.key.tag)
        ]
    entries = [entry for entry in store.snapshots() if name in (None, entry.name) and tag in (None, entry.tag)]
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="list") as pool:
        return list(pool.map(lambda entry: _listed(store, SnapshotKey(entry.name, entry.tag)), entries))


def _listed(store: Source, key: SnapshotKey) -> ListedSnapshot:
    try:
        manifest = read_epoch(store, str(key))
    except (ContentError, NotFoundError) as error:
        return ListedSnapshot(key=key, problem=error.message)
    return ListedSnapshot(
        key=key,
        digest=str(manifest.document.digest),
        size=sum(layer.size for layer in (*manifest.layers, *manifest.base_images)),
        kind="cloud-image" if manifest.is_cloud_image else "snapshot",
    )
