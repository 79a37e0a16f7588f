"""The config of a snapshot, Epoch's `SnapshotConfig`, as a view (epoch-formats 4.4 and 4.10)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.epoch import sparse
from epoch_oci.epoch.extra_members import EPOCH, FLAGS, TEXTS
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, MODE_LIMIT
from epoch_oci.epoch.members import Members
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import filename
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import LAYER_LIMIT

ORDER = (
    *("schemaVersion", "snapshotId", "description", "image", "imageDigest", "imageType", "imageBlobIds"),
    *("hypervisor", "cpu", "memory", "storage", "nics", "network", "windows", "files", "createdAt"),
)
"""The members in the order of Epoch's struct."""
HOMELESS = frozenset(TEXTS | FLAGS)
"""Those that an Epoch manifest has no member for."""
MINTED = frozenset(ORDER) - HOMELESS | {EPOCH}
"""Those that are made out of an Epoch manifest."""
VERSIONS = ("v1", "v2")

_FILE_KEYS = frozenset({"mode", "sparseMap", "sparseSize", "size", "chunks"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What the config says of one file: permission bits (0: not known), sparse map and file size ("" and 0: none).

    `size` in bytes and `chunks` are of version 2: the size of the decoded blob, and its layers in order.
    """

    mode: int = 0
    sparse_map: str = ""
    sparse_size: int = 0
    size: int = 0
    chunks: tuple[Digest, ...] = ()

    @property
    def pax_records(self) -> dict[str, str]:
        """The archive records of a packed file, none for any other."""
        if not self.sparse_map:
            return {}
        return {sparse.MAP: self.sparse_map, sparse.SIZE: str(self.sparse_size)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotConfig:
    """A view of a config. `memory` and `storage` are bytes; 0 means absent. `created_at` is text, "" when absent.

    `embedded` is the raw value of EPOCH. `others` are the members that an Epoch manifest has no place for.
    """

    version: str
    snapshot_id: str
    image: str
    image_blob_ids: tuple[str, ...]
    cpu: int
    memory: int
    storage: int
    nics: int
    files: Mapping[str, FileEntry]
    created_at: str
    embedded: Any
    others: Mapping[str, Any]

    @classmethod
    def parse(cls, document: Document, what: str = "the config") -> Self:
        """Read a config of either version. Raises ContentError with every finding."""
        found: list[Finding] = []
        value = document.json(what, limit=MANIFEST_LIMIT)
        members = Members(value, "$", found, {*ORDER, EPOCH})
        if value is None:
            found.append(Finding("$", "SCHEMA", "null is not an object"))
        result = cls(
            version=_version(members),
            snapshot_id=members.text("snapshotId"),
            image=members.text("image"),
            image_blob_ids=_blob_ids(members),
            cpu=members.number("cpu"),
            memory=members.number("memory"),
            storage=members.number("storage"),
            nics=members.number("nics"),
            files=_files(members),
            created_at=members.time("createdAt"),
            embedded=members.value.get(EPOCH),
            others=_others(members),
        )
        if found:
            raise ContentError.of(what, found)
        return result


def _version(members: Members) -> str:
    value = members.value.get("schemaVersion")
    # Two versions under one media type: only this member tells (epoch-formats 4.10).
    if value in VERSIONS:
        return str(value)
    members.refuse("schemaVersion", "TYPE", f"schemaVersion is {shown(value)}, only v1 and v2 are understood")
    return ""


def _blob_ids(members: Members) -> tuple[str, ...]:
    """Blob IDs become file names in Cocoon's blob directory, so they must be fit to be some."""
    ids = Members(members.map("imageBlobIds"), members.below("imageBlobIds"), members.found)
    for name, value in ids.value.items():
        if (why := filename.problem(name)) is not None:
            members.refuse("imageBlobIds", "NAME", why)
        if not isinstance(value, dict | None):
            ids.refuse(name, "SCHEMA", f"{shown(value)} is not an object")
    return tuple(ids.value)


def _files(members: Members) -> Mapping[str, FileEntry]:
    files = Members(members.map("files"), members.below("files"), members.found)
    return MappingProxyType({name: _entry(files.value[name], files.below(name), members.found) for name in files.value})


def _entry(value: Any, path: str, found: list[Finding]) -> FileEntry:
    members = Members(value, path, found, _FILE_KEYS)
    mode = members.number("mode")
    # Cocoon's import honours whatever stands here, type bits and all (reliability E5).
    if mode > MODE_LIMIT:
        members.refuse("mode", "SCHEMA", f"{mode} is more than permission bits ({MODE_LIMIT})")
    sparse_map, sparse_size = members.text("sparseMap"), members.number("sparseSize", "SIZE")
    if sparse_map and not sparse_size:
        members.refuse("sparseSize", "SIZE", "there is a sparse map and no size of the file")
    if sparse_size and not sparse_map:
        # Readers take such a file for a whole one, but somebody meant it to be packed.
        members.refuse("sparseMap", "SCHEMA", "there is the size of a sparse file and no map of it")
    return FileEntry(
        mode=mode,
        sparse_map=sparse_map,
        sparse_size=sparse_size,
        size=members.number("size", "SIZE"),
        chunks=_chunks(members),
    )


def _chunks(members: Members) -> tuple[Digest, ...]:
    digests = []
    for index, text in enumerate(members.array("chunks", LAYER_LIMIT)):
        try:
            digests.append(Digest.parse(text))
        except ContentError as error:
            members.found.append(Finding(f"{members.below('chunks')}[{index}]", "DIGEST", error.message))
    return tuple(digests)


def _others(members: Members) -> Mapping[str, Any]:
    """The homeless members that say something, and the unknown ones."""
    for key in TEXTS:
        members.text(key)
    for key in FLAGS:
        if not isinstance(flag := members.value.get(key), bool | None):
            members.refuse(key, "SCHEMA", f"{shown(flag)} is neither true nor false")
    digest = members.value.get("imageDigest")
    if digest and isinstance(digest, str):
        try:
            Digest.parse(digest)
        except ContentError as error:
            members.refuse("imageDigest", "DIGEST", error.message)
    kept = {key: value for key, value in members.value.items() if key not in MINTED}
    return MappingProxyType({key: value for key, value in kept.items() if key not in HOMELESS or value})
