"""Real snapshots for tests: a store with every writer's manifest, and blobs that match it."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from epoch_oci.epoch import gojson
from epoch_oci.epoch.catalog import with_tags
from epoch_oci.epoch.keys import SnapshotKey, blob_key, manifest_key
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, media_type_for_file
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.epoch_store import EpochStore

ZERO_TIME = "0001-01-01T00:00:00Z"
WRITERS = ("W1", "W2a", "W2b", "W3a", "W3b", "cloud-image", "empty-file", "null-layers")
CLOCK = "2026-04-04T13:07:33.418205113Z"


def noise(label: str, size: int) -> bytes:
    """`size` bytes that do not compress, the same for the same label."""
    blocks = (hashlib.sha256(f"{label}/{index}".encode()).digest() for index in range(size // 32 + 1))
    return b"".join(blocks)[:size]


@dataclass
class Made:
    """A snapshot as it was put into a store."""

    key: SnapshotKey
    raw: bytes
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def document(self) -> Document:
        return Document(EPOCH_MANIFEST, self.raw)


def files_of(kind: str) -> dict[str, bytes]:
    if kind == "cloud-image":
        return {"win11.qcow2.part.001": noise("p1", 300_000), "win11.qcow2.part.002": noise("p2", 70_001)}
    if kind == "null-layers":
        return {}
    files = {
        "cidata.img": noise("cidata", 4096),
        "config.json": json.dumps({"cpus": {"boot_vcpus": 2}}).encode(),
        "memory-ranges": noise("memory", 1_500_000),
        "overlay.qcow2": noise("overlay", 200_000),
        "state.json": b'{"state":1}' * 50,
    }
    if kind == "empty-file":
        files["empty.bin"] = b""
    return files


def make_snapshot(kind: str = "W3b", name: str = "team/bot", tag: str = "v1") -> Made:
    """A snapshot as writer `kind` writes it."""
    files, base = files_of(kind), noise("base", 100_000)
    blob_id = hashlib.sha256(b"source of the base image").hexdigest()
    made = Made(SnapshotKey(name, tag), b"")
    typed = kind not in ("W2a", "W3a")

    def layer(filename: str, raw: bytes) -> dict:
        made.blobs[Digest.of(raw).hex] = raw
        members = {"digest": Digest.of(raw).hex, "size": len(raw), "filename": filename}
        return {**members, "mediaType": media_type_for_file(filename)} if typed else members

    layers = [layer(filename, raw) for filename, raw in files.items()]
    total = sum(map(len, files.values()))
    if kind == "W2a":
        members = {
            "createdAt": "2026-04-02T10:00:00Z",
            "layers": layers,
            "name": name,
            "snapshotID": "9f3c1a7be20d4c55",
        }
        made.raw = gojson.dumps({**members, "tag": tag, "totalSize": total})
        return made
    value: dict = {
        "schemaVersion": 1,
        "name": name,
        "tag": tag,
        "snapshotId": "" if kind == "cloud-image" else "9f3c1a7be20d4c55",
    }
    if kind not in ("cloud-image", "null-layers"):
        value["image"] = "https://cloud-images.example/noble.img?a=1&b=<2>"
        if kind in ("W3a", "W3b"):
            value["imageBlobIDs"] = {blob_id: f"{blob_id}.qcow2"}
        if kind == "W2b":
            value["imageBlobIDs"] = {blob_id: blob_id}
        value.update(cpu=2, memory=1 << 30, storage=10 << 30, nics=1)
    value["layers"] = layers if kind != "null-layers" else None
    if kind in ("W1", "W3a", "W3b"):
        value["baseImages"] = [layer(f"{blob_id}.qcow2", base)]
        total += len(base)
    value["totalSize"] = total
    value["createdAt"] = ZERO_TIME if kind == "W3b" else "2026-04-02T10:00:00.123456789+08:00"
    value["pushedAt"] = ZERO_TIME if kind == "W2b" else CLOCK
    if kind == "W3b":
        value["layerHeaders"] = _headers(files)
    made.raw = gojson.dumps(value)
    return made


def _headers(files: dict[str, bytes]) -> dict:
    headers: dict = {name: {"mode": 420} for name in files}
    stored = len(files["memory-ranges"])
    runs = [{"o": 0, "l": 655_360}, {"o": 1_048_576, "l": stored - 655_360}]
    headers["memory-ranges"]["paxRecords"] = {
        "COCOON.sparse.map": json.dumps(runs, separators=(",", ":")),
        "COCOON.sparse.size": str(1 << 23),
    }
    return headers


def open_store(path: Path) -> EpochStore:
    return EpochStore(DirectoryBackend(path), str(path), clock=lambda: CLOCK)


def put_snapshot(path: Path, made: Made) -> None:
    """Write it as Epoch's server would have: objects by key, nothing else."""
    for hexdigits, raw in made.blobs.items():
        target = path / blob_key(Digest("sha256", hexdigits))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw)
    target = path / manifest_key(made.key)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(made.raw)


def with_tag(raw: bytes | None, name: str, tag: str, now: str) -> bytes:
    """The catalog with one tag more."""
    return with_tags(raw, [SnapshotKey(name, tag)], now)


def tree(path: Path) -> dict[str, bytes]:
    """Every file below `path` by its relative name."""
    return {str(item.relative_to(path)): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}
