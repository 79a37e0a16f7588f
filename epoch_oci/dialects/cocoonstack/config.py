"""The config of a snapshot, Epoch's `SnapshotConfig`: as a view, and as Epoch would have made it of a manifest.

epoch-formats 4.4 and 4.10.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import WrittenFile
from epoch_oci.dialects.cocoonstack.vocabulary import SNAPSHOT_CONFIG
from epoch_oci.epoch import gojson, sparse
from epoch_oci.epoch.extra_members import EPOCH, FLAGS, MODERN, TEXTS
from epoch_oci.epoch.gojson import Members
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, MODE_LIMIT, LayerHeader, Manifest
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
        # Go reads null as an empty struct, and a snapshot of nothing follows.
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


def file_entries(epoch: Manifest) -> dict[str, FileEntry]:
    """One entry for each layer; without one a reader must suspect a packed file whose map was lost (trap 8)."""
    return {layer.filename: entry_of(epoch.layer_headers.get(layer.filename)) for layer in epoch.layers}


def entry_of(header: LayerHeader | None) -> FileEntry:
    """The entry of a file; an empty one when nothing is known of its mode and the blob is the file itself."""
    if header is None:
        return FileEntry()
    if not sparse.is_packed(header.pax_records):
        return FileEntry(mode=header.mode)
    size = int(header.pax_records[sparse.SIZE])
    return FileEntry(mode=header.mode, sparse_map=header.pax_records[sparse.MAP], sparse_size=size)


def mint_config(
    epoch: Manifest,
    others: Mapping[str, Any],
    embedded: Mapping[str, Any] | None,
    written: Mapping[str, WrittenFile] | None = None,
) -> Document:
    """The config of `epoch`, in compact form as Go writes it; `others` are members that `epoch` has no place for.

    `written` has the files that are cut or compressed, and makes it one of version 2.
    """
    entries = {name: _members(entry) for name, entry in file_entries(epoch).items()}
    for layer in epoch.layers if written is not None else ():
        # Of every file, also of those that are whole: a reader of version 2 goes by it.
        entries[layer.filename] |= _encoded(layer.size, (written or {}).get(layer.filename))
    members = {
        **{key: value for key, value in others.items() if key not in MINTED},
        "schemaVersion": "v1" if written is None else "v2",
        "snapshotId": epoch.snapshot_id,
        "image": epoch.image,
        "imageBlobIds": {blob: {} for blob in epoch.pinned_blobs},
        "cpu": epoch.cpu,
        "memory": epoch.memory,
        "storage": epoch.storage,
        "nics": epoch.nics,
        "files": gojson.sorted_map(entries),
        # The snapshot's own time and not that of the push, which modern Epoch writes: no two pushes would have one
        # digest (trap 6).
        "createdAt": epoch.made_at or gojson.ZERO_TIME,
        EPOCH: dict(embedded or {}),
    }
    # As Go's `omitempty`, which `snapshotId` lacks; members that nobody knows stay as they are.
    filled = {key: value for key, value in members.items() if value or key not in MINTED or key == "snapshotId"}
    return Document(SNAPSHOT_CONFIG, gojson.dumps(_ordered(filled), indent=None))


def check_config(config: Document) -> None:
    """Raise ContentError when Epoch's decoder would not take a minted config.

    What rode in the manifest may be anybody's invention, and Go refuses a config with a member of a wrong type.
    """
    try:
        SnapshotConfig.parse(config)
    except ContentError as error:
        found = [
            Finding(f"$.{MODERN}.config{item.path.removeprefix('$')}", item.code, item.problem)
            for item in error.findings
        ]
        raise ContentError.of("the Epoch manifest", found) from None


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
        if key != "imageDigest":
            members.text(key)
    for key in FLAGS:
        members.flag(key)
    members.check_digest("imageDigest")
    kept = {key: value for key, value in members.value.items() if key not in MINTED}
    return MappingProxyType({key: value for key, value in kept.items() if key not in HOMELESS or value})


def _encoded(size: int, written: WrittenFile | None) -> dict[str, Any]:
    """The size of every file, and the order of the layers of one that is cut (epoch-formats 4.10)."""
    chunks = [str(piece.digest) for piece in written.layers] if written is not None else []
    # A single layer is told by its title.
    return {"size": size, **({"chunks": chunks} if len(chunks) > 1 else {})}


def _members(entry: FileEntry) -> dict[str, Any]:
    members = {"mode": entry.mode, "sparseMap": entry.sparse_map, "sparseSize": entry.sparse_size}
    return {key: value for key, value in members.items() if value}


def _ordered(members: dict[str, Any]) -> dict[str, Any]:
    """Epoch's members in Epoch's order, then the unknown ones in theirs, the manifest that rides at the end."""
    known = {key: members[key] for key in ORDER if key in members}
    rest = {key: value for key, value in members.items() if key not in known and key != EPOCH}
    return {**known, **rest, **({EPOCH: members[EPOCH]} if EPOCH in members else {})}
