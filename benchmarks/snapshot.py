"""What is moved: an Epoch store made from a fixed seed, and each of its snapshots as an OCI image layout as well.

The documents are written here, from `docs/format.md`, so that the inputs do not depend on the program under test.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contents import Piece, json_document, marked, memory, qcow2, raw_disk
from benchmarks.measure import GIB, MIB

FORMAT = "1"  # part of the name of the cached inputs: raise it when what is made changes
CREATED = "2026-01-15T09:30:00Z"

MEDIA_TYPES = {
    "config.json": "application/vnd.cocoon.config+json",
    "cow.raw": "application/vnd.cocoon.disk.raw",
    "memory-ranges": "application/vnd.cocoon.memory",
    "overlay.qcow2": "application/vnd.cocoon.disk.qcow2",
    "state.json": "application/vnd.cocoon.state+json",
}
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.cocoon.snapshot.v1+json"
CONFIG_TYPE = "application/vnd.cocoon.snapshot.config.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes in bytes."""

    name: str
    memory: int
    qcow2: int
    disk: int
    disk_data: int
    scaling: tuple[int, ...]
    manifests: int
    far: int
    """Each of the two files that go over the long line."""


SCALES = {
    "full": Scale(
        name="full",
        memory=GIB,
        qcow2=GIB,
        disk=10 * GIB,
        disk_data=256 * MIB,
        scaling=(GIB, 20 * GIB),
        manifests=10_000,
        far=2 * GIB,
    ),
    "quick": Scale(
        name="quick",
        memory=GIB,
        qcow2=64 * MIB,
        disk=512 * MIB,
        disk_data=16 * MIB,
        scaling=(256 * MIB, GIB),
        manifests=2_000,
        far=320 * MIB,
    ),
    "small": Scale(
        name="small",
        memory=64 * MIB,
        qcow2=64 * MIB,
        disk=512 * MIB,
        disk_data=16 * MIB,
        scaling=(64 * MIB, 256 * MIB),
        manifests=2_000,
        far=24 * MIB,
    ),
}


@dataclass(frozen=True, slots=True)
class File:
    """A file of a snapshot; `digest` is bare hexadecimal."""

    name: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One snapshot: in the store under `name` and `tag`, in `layout` under `tag`, with the same blobs."""

    name: str
    tag: str
    store: Path
    layout: Path
    files: tuple[File, ...]
    config: bytes = field(repr=False)
    manifest: bytes = field(repr=False)

    @property
    def repository(self) -> str:
        return f"bench/{self.name}"

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    def file(self, name: str) -> File:
        """Raises StopIteration when it has none of this name."""
        return next(file for file in self.files if file.name == name)


def blob_path(root: Path, digest: str) -> Path:
    """Where a blob lies; stores and layouts agree."""
    return root / "blobs" / "sha256" / digest


def write_file(path: Path, pieces: Iterable[Piece]) -> tuple[str, int]:
    """Write `pieces` with their holes; the bare digest and the size. The blocks of a hole take no disk."""
    sha256 = hashlib.sha256()
    zeros = bytes(MIB)
    size = 0
    with path.open("wb") as file:
        for piece in pieces:
            if isinstance(piece, int):
                for offset in range(0, piece, MIB):
                    sha256.update(memoryview(zeros)[: piece - offset])
                size += piece
                file.seek(size)
            else:
                sha256.update(piece)
                size += file.write(piece)
        file.truncate(size)
    return sha256.hexdigest(), size


class StoreBuilder:
    """Puts snapshots into an Epoch store below `root`, and beside it the layouts `root/../layout-NAME-TAG`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tags: dict[str, list[str]] = {}
        (root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)

    def blob(self, name: str, pieces: Iterable[Piece]) -> File:
        """Write one blob."""
        draft = self.root / f".{name}.draft"
        digest, size = write_file(draft, pieces)
        draft.rename(blob_path(self.root, digest))
        return File(name, digest, size)

    def snapshot(self, name: str, tag: str, files: Iterable[File]) -> Artifact:
        """Write the snapshot's documents; its blobs are there already."""
        ordered = tuple(sorted(files, key=lambda file: file.name))
        config = _epoch_manifest(name, tag, ordered)
        manifest = _oci_manifest(name, tag, ordered, config)
        document = self.root / "manifests" / name / f"{tag}.json"
        document.parent.mkdir(parents=True, exist_ok=True)
        document.write_bytes(config)
        self.tags.setdefault(name, []).append(tag)
        self._catalog()
        layout = self.root.parent / f"layout-{name}-{tag}"
        artifact = Artifact(
            name=name, tag=tag, store=self.root, layout=layout, files=ordered, config=config, manifest=manifest
        )
        write_layout(artifact)
        return artifact

    def _catalog(self) -> None:
        repositories = {
            name: {"tags": {tag: f"manifests/{name}/{tag}.json" for tag in sorted(tags)}, "updatedAt": CREATED}
            for name, tags in sorted(self.tags.items())
        }
        text = json.dumps({"repositories": repositories, "updatedAt": CREATED}, indent=2)
        (self.root / "catalog.json").write_text(text)


def _epoch_manifest(name: str, tag: str, files: tuple[File, ...]) -> bytes:
    """In the member order and indentation of Epoch's own writer."""
    layers = [
        {"digest": file.digest, "size": file.size, "filename": file.name, "mediaType": MEDIA_TYPES[file.name]}
        for file in files
    ]
    total = sum(file.size for file in files)
    document: dict[str, Any] = {
        "schemaVersion": 1,
        "name": name,
        "tag": tag,
        "snapshotId": hashlib.sha256(f"{name}:{tag}".encode()).hexdigest()[:16],
        "image": "ubuntu-24.04",
        "cpu": 2,
        "memory": GIB,
        "storage": 10 * GIB,
        "nics": 1,
        "layers": layers,
        "totalSize": total,
        "createdAt": CREATED,
        "pushedAt": CREATED,
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def _oci_manifest(name: str, tag: str, files: tuple[File, ...], config: bytes) -> bytes:
    """The `cocoon` profile, section 2 of docs/format.md."""
    epoch = json.loads(config)
    layers = [
        {
            "mediaType": MEDIA_TYPES[file.name],
            "digest": f"sha256:{file.digest}",
            "size": file.size,
            "annotations": {"org.opencontainers.image.title": file.name},
        }
        for file in files
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": f"sha256:{_sha256(config)}", "size": len(config)},
        "layers": layers,
        "annotations": {
            "org.opencontainers.image.created": epoch["createdAt"],
            "org.opencontainers.image.title": name,
            "org.opencontainers.image.version": tag,
            "cocoonstack.snapshot.id": epoch["snapshotId"],
            "cocoonstack.snapshot.baseimage": epoch["image"],
        },
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_layout(artifact: Artifact) -> None:
    """The snapshot as an OCI image layout; the store's blobs are hard links there."""
    shutil.rmtree(artifact.layout, ignore_errors=True)
    blob_path(artifact.layout, "").mkdir(parents=True)
    for file in artifact.files:
        os.link(blob_path(artifact.store, file.digest), blob_path(artifact.layout, file.digest))
    for data in (artifact.config, artifact.manifest):
        blob_path(artifact.layout, _sha256(data)).write_bytes(data)
    entry = {
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "digest": f"sha256:{_sha256(artifact.manifest)}",
        "size": len(artifact.manifest),
        "annotations": {"org.opencontainers.image.ref.name": artifact.tag},
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    (artifact.layout / "index.json").write_text(json.dumps(index))
    (artifact.layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


@dataclass(frozen=True, slots=True)
class Inputs:
    """`memory` is one large file and two small ones, `snapshot` all of them, `second` its next version."""

    memory: Artifact
    snapshot: Artifact
    second: Artifact


def make_inputs(directory: Path, scale: Scale, progress: Callable[[str], None]) -> Inputs:
    """The inputs below `directory`; made once, then found again."""
    root = directory / f"inputs-{scale.name}-{FORMAT}" / "store"
    record = root.parent / "files.json"
    builder = StoreBuilder(root)
    if not record.exists():
        progress(f"making the {scale.name} inputs")
        made = [_files(builder, scale, version) for version in (1, 2)]
        record.write_text(json.dumps([[(f.name, f.digest, f.size) for f in files] for files in made]))
    first, second = ([File(*entry) for entry in files] for files in json.loads(record.read_text()))
    small = [file for file in first if file.name.endswith(".json") or file.name == "memory-ranges"]
    return Inputs(
        builder.snapshot("memory", "v1", small),
        builder.snapshot("snapshot", "v1", first),
        builder.snapshot("snapshot", "v2", second),
    )


def _files(builder: StoreBuilder, scale: Scale, version: int) -> list[File]:
    return [
        builder.blob("config.json", json_document("config", version, 20)),
        builder.blob("cow.raw", raw_disk(scale.disk, scale.disk_data, version)),
        builder.blob("memory-ranges", memory(scale.memory, version)),
        builder.blob("overlay.qcow2", qcow2(scale.qcow2, version)),
        builder.blob("state.json", json_document("state", version, 800)),
    ]


def make_far(directory: Path, size: int) -> Artifact:
    """A snapshot of two files of `size` bytes each that take next to no disk."""
    builder = StoreBuilder(directory / f"far-{size}" / "store")
    names = ("cow.raw", "memory-ranges")
    return builder.snapshot("far", "v1", [builder.blob(name, marked(size, name)) for name in names])


def make_marked(directory: Path, size: int) -> Artifact:
    """A snapshot of one file of `size` bytes that takes next to no disk; see `marked`."""
    builder = StoreBuilder(directory / f"marked-{size}" / "store")
    return builder.snapshot("marked", "v1", [builder.blob("memory-ranges", marked(size))])
