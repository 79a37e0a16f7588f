"""What an Epoch store holds, snapshot by snapshot, and a repository or layout, tag by tag."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from epoch_oci import dialects
from epoch_oci.artifacts.read import epoch_of, is_epoch
from epoch_oci.dataclass import dataclass
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.oci import media_types
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageIndex, ImageManifest, is_index
from epoch_oci.stores.base import Node, SnapshotStore, Source

_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSnapshot:
    """One snapshot of a store. `size` is bytes of all files as stored; `kind` is as `ListedArtifact.kind`.

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


def list_snapshots(store: SnapshotStore, word: str | None = None) -> list[ListedSnapshot]:
    """Every snapshot, or those that `word` names: all of a name, or what `NAME:TAG` is. In the store's order.

    A wrong manifest is listed as such. Raises NotFoundError when there is no store, and what reading it raises.
    """
    keys = None if word is None else set(SnapshotKey.readings(word)) if ":" in word else set()

    def is_wanted(key: SnapshotKey) -> bool:
        return keys is None or key.name == word or key in keys

    # Resolving one of its snapshots means hashing all of its files.
    if isinstance(store, Node):
        rows = (ListedSnapshot(key=key, size=size, kind="snapshot") for key, size in store.sizes())
        return [row for row in rows if is_wanted(row.key)]
    found = (SnapshotKey(entry.name, entry.tag) for entry in store.snapshots())
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="list") as pool:
        return list(pool.map(lambda key: _listed(store, key), filter(is_wanted, found)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedArtifact:
    """One tag of a repository or layout. `size` is bytes of all blobs, of an index those of the manifests it lists.

    `kind` is `snapshot`, `cloud-image`, `index`, or the type that another artifact says it is; `created` the text of
    its annotation, "" for none. Where it cannot be read, `problem` says why.
    """

    tag: str
    digest: str | None = None
    size: int | None = None
    kind: str | None = None
    created: str = ""
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "tag": self.tag,
            "digest": self.digest,
            "size": self.size,
            "kind": self.kind,
            "createdAt": self.created or None,
        }


def list_artifacts(store: Source, tags: Sequence[str]) -> list[ListedArtifact]:
    """What each tag holds, by its manifest alone, several asked at a time."""
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="list") as pool:
        return list(pool.map(lambda tag: _artifact(store, tag), tags))


def _artifact(store: Source, tag: str) -> ListedArtifact:
    try:
        document = store.resolve(tag)
        if is_index(document):
            index = ImageIndex.parse(document, tag)
            return ListedArtifact(
                tag=tag,
                digest=str(document.digest),
                size=sum(item.size for item in index.manifests),
                kind="index",
                created=index.annotations.get(media_types.CREATED, ""),
            )
        image = ImageManifest.parse(document, tag)
    except (ContentError, NotFoundError) as error:
        return ListedArtifact(tag=tag, problem=error.message)
    return ListedArtifact(
        tag=tag,
        digest=str(document.digest),
        size=sum(blob.size for blob in image.successors),
        kind=kind_of(image),
        created=image.annotations.get(media_types.CREATED, ""),
    )


def kind_of(image: ImageManifest) -> str:
    """`snapshot` or `cloud-image` for what can be pulled, else what the artifact calls itself."""
    if dialects.accepting(image) is None:
        return image.kind
    # By the type alone: the config, which says it too, would be another request for each row.
    return "cloud-image" if "-image." in image.kind else "snapshot"


def _listed(store: Source, key: SnapshotKey) -> ListedSnapshot:
    try:
        document = store.resolve(str(key))
        if not is_epoch(document):
            return ListedSnapshot(key=key, digest=str(document.digest), **_sized(document, key))
        manifest = epoch_of(document, key)
    except (ContentError, NotFoundError) as error:
        return ListedSnapshot(key=key, problem=error.message)
    return ListedSnapshot(
        key=key,
        digest=str(manifest.document.digest),
        size=sum(layer.size for layer in (*manifest.layers, *manifest.base_images)),
        kind="cloud-image" if manifest.is_cloud_image else "snapshot",
    )


def _sized(document: Document, key: SnapshotKey) -> dict[str, Any]:
    """Size and kind of what modern Epoch keeps; the layers are the files."""
    if is_index(document):
        return {"size": sum(item.size for item in ImageIndex.parse(document, str(key)).manifests), "kind": "index"}
    image = ImageManifest.parse(document, str(key))
    return {"size": sum({layer.digest: layer.size for layer in image.layers}.values()), "kind": kind_of(image)}
