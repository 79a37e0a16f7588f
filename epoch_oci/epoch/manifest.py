"""Epoch's native manifest as a view over its exact bytes (epoch-formats 1)."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.epoch import sparse
from epoch_oci.epoch.extra_members import OF_MANIFESTS
from epoch_oci.epoch.gojson import Members, is_set_time
from epoch_oci.epoch.keys import hostile_problem
from epoch_oci.errors import ContentError, Finding, counted
from epoch_oci.oci import filename
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import LAYER_LIMIT, media_type_of
from epoch_oci.oci.media_types import OCTET_STREAM, is_media_type
from epoch_oci.oci.strict_json import member_path
from epoch_oci.oci.verifying import empty_problem

EPOCH_MANIFEST = "application/vnd.epoch.manifest.v1+json"
"""What an Epoch server calls its manifests; the media type of documents that hold one."""
MANIFEST_LIMIT = 16 << 20
MODE_LIMIT = 0o7777
DEFAULT_MODE = 0o640
"""What Epoch and vk-cocoon give a file whose mode is not known (epoch-formats 1.6)."""
_PERMISSIONS = 0o777

PREFIX = "application/vnd.cocoon."
"""What Epoch's media types begin with (Epoch manifest/media.go)."""
_QCOW2 = PREFIX + "disk.qcow2"
_BY_NAME = {
    "overlay.qcow2": _QCOW2,
    "cow.raw": PREFIX + "disk.raw",
    "memory-ranges": PREFIX + "memory",
    "cidata.img": PREFIX + "cidata",
    "config.json": PREFIX + "config+json",
    "state.json": PREFIX + "state+json",
}
_SNAPSHOT_FILES = frozenset({"config.json", "state.json", "memory-ranges", "cidata.img"})
_IMAGE_BLOB = re.compile(r"([0-9a-f]{64})(?:\.qcow2|\.raw)?\Z")

Writer = Literal["W1", "W2a", "W2b", "W3a", "W3b", "epoch-oci", "unknown"]

_LAYER_KEYS = frozenset({"digest", "size", "filename", "mediaType"})
_HEADER_KEYS = frozenset({"mode", "paxRecords"})
_KEYS = frozenset(
    {"schemaVersion", "name", "tag", "snapshotId", "snapshotID", "image", "imageBlobIDs", "cpu", "memory", "storage"}
    | {"nics", "layers", "baseImages", "totalSize", "createdAt", "pushedAt", "layerHeaders"}
)


def stored_document(raw: bytes) -> Document:
    """What lies under a manifest's key of a store: Epoch's own kind, or from Epoch 0.1.6 on an OCI document.

    Both generations share one layout, and the body alone tells them apart (traps 39 and 40).
    """
    return Document(media_type_of(raw) or EPOCH_MANIFEST, raw)


def media_type_for_file(name: str) -> str:
    """The media type that Epoch gives a file of this name (epoch-formats 1.7)."""
    if (known := _BY_NAME.get(name)) is not None:
        return known
    # *.raw but for cow.raw is octets to Epoch, and so are parts of either: by type alone a disk is not to be found
    # (epoch-formats 1.7).
    return _QCOW2 if name.endswith(".qcow2") else OCTET_STREAM


def is_disk(name: str) -> bool:
    """Whether a file of this name is a cloud image's disk, or a part of one."""
    return name.endswith((".qcow2", ".raw")) or ".qcow2.part." in name or ".raw.part." in name


def blob_id(filename: str) -> str | None:
    """The ID of the image blob that Cocoon keeps under this name, None when it is no such name."""
    match = _IMAGE_BLOB.match(filename)
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a snapshot. `size` is that of the stored blob in bytes, `media_type` "" when the writer gave none."""

    digest: Digest
    size: int
    filename: str
    media_type: str = ""

    @property
    def descriptor(self) -> Descriptor:
        """The stored blob, with the media type that Epoch would give it where the writer gave none."""
        media_type = self.media_type or media_type_for_file(self.filename)
        return Descriptor(media_type=media_type, digest=self.digest, size=self.size)


@dataclass(frozen=True, slots=True)
class LayerHeader:
    """What vk-cocoon kept of a file's archive entry: permission bits (0: not known) and the PAX records."""

    mode: int
    pax_records: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A view of an Epoch manifest; `document` has the bytes that count.

    `memory`, `storage` and `total_size` are bytes; 0 means absent. Times are the text as written, "" when absent.
    `warnings` are what is odd and yet no reason to refuse the document.
    """

    document: Document
    writer: Writer
    schema_version: int | None
    name: str
    tag: str
    snapshot_id: str
    image: str
    image_blob_ids: Mapping[str, str]
    cpu: int
    memory: int
    storage: int
    nics: int
    layers: tuple[Layer, ...]
    base_images: tuple[Layer, ...]
    total_size: int
    created_at: str
    pushed_at: str
    layer_headers: Mapping[str, LayerHeader]
    warnings: tuple[Finding, ...] = ()

    @classmethod
    def parse(cls, document: Document | bytes, what: str = "the Epoch manifest") -> Self:
        """Read a manifest of any writer. Raises ContentError with every finding; it needs no schema before it."""
        if isinstance(document, bytes):
            document = Document(EPOCH_MANIFEST, document)
        found: list[Finding] = []
        value = document.json(what, limit=MANIFEST_LIMIT)
        members = Members(value, "$", found, _KEYS)
        schema_version = _schema_version(members)
        files = _Files(found)
        layers, base_images = files.read(members, "layers"), files.read(members, "baseImages")
        headers = _headers(members, {layer.filename: layer for layer in layers})
        result = cls(
            document=document,
            writer=_writer(members.value, layers),
            schema_version=schema_version,
            name=_name(members, "name"),
            tag=_name(members, "tag"),
            snapshot_id=members.text("snapshotId") or members.text("snapshotID"),
            image=members.text("image"),
            image_blob_ids=_image_blob_ids(members),
            cpu=members.number("cpu"),
            memory=members.number("memory"),
            storage=members.number("storage"),
            nics=members.number("nics"),
            layers=layers,
            base_images=base_images,
            total_size=members.number("totalSize", "SIZE"),
            created_at=members.time("createdAt"),
            pushed_at=members.time("pushedAt"),
            layer_headers=headers,
            warnings=tuple(_warnings(members, layers, base_images, headers)),
        )
        # The names are held against each other at the end, for two of them may be one file in either list.
        files.finish()
        _refuse_other_kind(value, members)
        if found:
            raise ContentError.of(what, found)
        return result

    @property
    def is_cloud_image(self) -> bool:
        """Epoch's rule, and no snapshot ID: a Firecracker snapshot meets the rule alone (trap 20)."""
        return not self.snapshot_id and self.looks_like_cloud_image

    @property
    def looks_like_cloud_image(self) -> bool:
        """Epoch's own rule (epoch-formats 1.8)."""
        # Whatever rests on another image is no image itself.
        if self.base_images or self.image_blob_ids:
            return False
        names = [layer.filename for layer in self.layers]
        return _SNAPSHOT_FILES.isdisjoint(names) and any(is_disk(name) for name in names)

    @property
    def pinned_blobs(self) -> list[str]:
        """Cocoon's image blobs that the snapshot needs: those it names, and those its base images are (trap 16)."""
        return sorted({*self.image_blob_ids, *filter(None, (blob_id(layer.filename) for layer in self.base_images))})

    @property
    def made_at(self) -> str:
        """When the snapshot was made, else when it was pushed; "" where nobody said."""
        return next((text for text in (self.created_at, self.pushed_at) if is_set_time(text)), "")

    def mode_of(self, filename: str) -> int:
        """Permission bits of a file, 0 where they are not known; set-user-ID and the like are never handed on."""
        header = self.layer_headers.get(filename)
        return header.mode & _PERMISSIONS if header else 0

    @property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """The blobs of layers, then of base images, each digest once; empty ones too."""
        files: dict[Digest, Layer] = {}
        for layer in (*self.layers, *self.base_images):
            files.setdefault(layer.digest, layer)
        return tuple(layer.descriptor for layer in files.values())


def unpacking_of(manifest: Manifest, layer: Layer) -> sparse.Unpacking | None:
    """How the blob of one of the layers unfolds, None where it is the file itself."""
    header = manifest.layer_headers.get(layer.filename)
    return sparse.unpacking(header.pax_records, layer.size) if header else None


class _Files:
    """Reads layers and base images, and holds them against each other."""

    def __init__(self, found: list[Finding]) -> None:
        self._found = found
        self._names: list[tuple[str, str]] = []
        self._sizes: dict[Digest, int] = {}

    def read(self, members: Members, key: str) -> tuple[Layer, ...]:
        """The files under `key`; together with those read before they may be LAYER_LIMIT."""
        items = members.array(key, LAYER_LIMIT)
        if len(items) + len(self._names) > LAYER_LIMIT:
            members.refuse(key, "SCHEMA", f"more than {LAYER_LIMIT} files in all")
            return ()
        layers = [self._layer(item, f"$.{key}[{index}]") for index, item in enumerate(items)]
        return tuple(layer for layer in layers if layer is not None)

    def _layer(self, value: Any, path: str) -> Layer | None:
        found, before = self._found, len(self._found)
        members = Members(value, path, found, _LAYER_KEYS)
        name = members.value.get("filename")
        if (why := filename.problem(name)) is not None:
            found.append(Finding(f"{path}.filename", "NAME", why))
        self._names.append((f"{path}.filename", name if isinstance(name, str) else ""))
        media_type = members.text("mediaType")
        if media_type and not is_media_type(media_type):
            found.append(Finding(f"{path}.mediaType", "TYPE", f"{shown(media_type)} is not a media type"))
        size = members.number("size", "SIZE")
        digest = _digest(members, path)
        if digest is None or len(found) > before:
            return None
        self._check_size(digest, size, path)
        return Layer(digest, size, name, media_type) if isinstance(name, str) else None

    def _check_size(self, digest: Digest, size: int, path: str) -> None:
        if (why := empty_problem(digest, size)) is not None:
            self._found.append(Finding(f"{path}.digest", "DIGEST", why))
        # One digest with two sizes: one of them is a lie, and a reader would believe the first (reliability D5).
        known = self._sizes.setdefault(digest, size)
        if known != size:
            self._found.append(
                Finding(f"{path}.size", "SIZE", f"{digest} is {counted(size, 'byte')} here and {known} before")
            )

    def finish(self) -> None:
        """Look for names that would be one file."""
        # The thorough look, which normalises each name, only where there may be something to find: names are ASCII
        # else.
        if self._found or len({name.lower() for _, name in self._names}) != len(self._names):
            self._found.extend(filename.clash_findings((path, name) for path, name in self._names if name))


def _digest(members: Members, path: str) -> Digest | None:
    try:
        return Digest.from_hex(members.value.get("digest"))
    except ContentError as error:
        members.found.append(Finding(f"{path}.digest", "DIGEST", error.message))
        return None


def _schema_version(members: Members) -> int | None:
    value = members.value.get("schemaVersion")
    if value is None:
        return None
    # Writer W2a has none, and every other one writes 1 (epoch-formats 1.5). A 2 is an OCI manifest's.
    if type(value) is not int or value != 1:
        members.refuse("schemaVersion", "TYPE", f"schemaVersion is {shown(value)}, only 1 or none is understood")
        return None
    return value


def _refuse_other_kind(value: Any, members: Members) -> None:
    """An object without layers is some other document: every writer sets them, be it to null."""
    if value is None:
        members.found.append(Finding("$", "SCHEMA", "null is not an object"))
    elif isinstance(value, dict) and "layers" not in value:
        members.refuse("layers", "SCHEMA", "is missing")
    if None not in (members.value.get("snapshotId"), members.value.get("snapshotID")):
        members.refuse("snapshotID", "JSON", '"snapshotId" and "snapshotID" are one member to a reader of Go')


def _name(members: Members, key: str) -> str:
    text = members.text(key)
    if text and (why := hostile_problem(text)) is not None:
        members.refuse(key, "NAME", f"{shown(text)} {why}")
    return text


def _image_blob_ids(members: Members) -> Mapping[str, str]:
    """Blob IDs become file names in Cocoon's blob directory, so they must be fit to be some."""
    blobs = members.text_map("imageBlobIDs")
    for blob in blobs:
        if (why := filename.problem(blob)) is not None:
            members.refuse("imageBlobIDs", "NAME", why)
    return MappingProxyType(blobs)


def _headers(members: Members, layers: Mapping[str, Layer]) -> Mapping[str, LayerHeader]:
    headers = {}
    for name, value in members.map("layerHeaders").items():
        header = Members(value, member_path("$.layerHeaders", name), members.found, _HEADER_KEYS)
        mode = header.number("mode")
        if mode > MODE_LIMIT:
            header.refuse("mode", "SCHEMA", f"{mode} is more than permission bits ({MODE_LIMIT})")
        records = header.text_map("paxRecords")
        # Only with the blob's size does a map mean anything (reliability Z3).
        if name in layers and sparse.is_packed(records):
            sparse.read_unpacking(records, layers[name].size, header.below("paxRecords"), members.found)
        headers[name] = LayerHeader(mode, MappingProxyType(records))
    return MappingProxyType(headers)


def _warnings(
    members: Members,
    layers: tuple[Layer, ...],
    base_images: tuple[Layer, ...],
    headers: Mapping[str, LayerHeader],
) -> list[Finding]:
    found = []
    total, own = members.value.get("totalSize"), sum(layer.size for layer in layers)
    with_bases = own + sum(layer.size for layer in base_images)
    # Three writers count base images and three do not; who re-tagged counted nothing (epoch-formats 1.5). No reader
    # uses it.
    if total is not None and total not in (own, with_bases):
        problem = f"totalSize is {shown(total)}, the files add up to {with_bases}"
        found.append(Finding("$.totalSize", "SIZE", problem, "warning"))
    # A map that belongs to no file here may have belonged to one: said, and kept.
    for name in headers.keys() - {layer.filename for layer in layers}:
        path = member_path("$.layerHeaders", name)
        found.append(Finding(path, "MISMATCH", f"there is no layer {shown(name)}", "warning"))
    return sorted(found, key=lambda finding: finding.path)


def _writer(value: Mapping[str, Any], layers: tuple[Layer, ...]) -> Writer:
    """Who wrote the document, by the marks of epoch-formats 1.5, in that order.

    What was derived somewhere else and stored since has the marks of none: it was never pushed, or never made.
    """
    if not OF_MANIFESTS.isdisjoint(value):
        return "epoch-oci"
    pushed, created = (is_set_time(value.get(key) or "") for key in ("pushedAt", "createdAt"))
    if value.get("layerHeaders") is not None:
        return "W3b" if pushed else "unknown"
    if "snapshotID" in value or value.get("schemaVersion") is None:
        return "W2a"
    blobs = value.get("imageBlobIDs") or {}
    typed = [bool(layer.media_type) for layer in layers]
    if _has_extensions(blobs) or (typed and not any(typed)):
        return "W3a"
    if not pushed:
        return "W2b" if created and value.get("snapshotId") else "unknown"
    if all(typed) and not blobs and value.get("snapshotId"):
        return "W1"
    return "unknown"


def _has_extensions(blobs: Any) -> bool:
    return isinstance(blobs, dict) and any(str(name).endswith((".qcow2", ".raw")) for name in blobs.values())
