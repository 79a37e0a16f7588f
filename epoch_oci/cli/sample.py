"""A made-up snapshot for `demo`: small, and with everything a real one has. The same bytes wherever it is made."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, media_type_for_file
from epoch_oci.locate import SnapshotStore
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import BytesContent

KEY = SnapshotKey("demo-bot", "v1")
_KIB, _MIB = 1 << 10, 1 << 20
_MODE = 0o644


@dataclass(frozen=True, slots=True)
class SampleFile:
    """A file as Epoch keeps it: where `segments` (offset, length) are given, `content` is those runs, packed."""

    name: str
    content: bytes
    segments: tuple[tuple[int, int], ...] = ()
    logical_size: int = 0
    base_image: bool = False

    @property
    def digest(self) -> Digest:
        """Of the stored bytes."""
        return Digest.of(self.content)

    def layer(self) -> dict[str, Any]:
        """Its entry in the manifest."""
        return {
            "digest": self.digest.hex,
            "size": len(self.content),
            "filename": self.name,
            "mediaType": media_type_for_file(self.name),
        }

    def header(self) -> dict[str, Any]:
        """Its entry in `layerHeaders` (epoch-formats 1.6)."""
        if not self.segments:
            return {"mode": _MODE}
        runs = json.dumps([{"o": offset, "l": length} for offset, length in self.segments], separators=(",", ":"))
        return {
            "mode": _MODE,
            "paxRecords": {"COCOON.sparse.map": runs, "COCOON.sparse.size": str(self.logical_size)},
        }

    def unfolded(self) -> Iterator[bytes]:
        """The file that the stored bytes stand for, piece by piece."""
        if not self.segments:
            yield self.content
            return
        done, end = 0, 0
        for offset, length in (*self.segments, (self.logical_size, 0)):
            yield from _zeros(offset - end)
            yield self.content[done : done + length]
            done, end = done + length, offset + length


@dataclass(frozen=True, slots=True)
class Sample:
    """The snapshot: its files and its manifest, as vk-cocoon would have written them."""

    files: tuple[SampleFile, ...] = field(default_factory=lambda: tuple(_files()))

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(len(file.content) for file in self.files)

    def manifest(self) -> bytes:
        """The Epoch manifest in Go's form."""
        layers = [file for file in self.files if not file.base_image]
        bases = [file for file in self.files if file.base_image]
        value = {
            "schemaVersion": 1,
            "name": KEY.name,
            "tag": KEY.tag,
            "snapshotId": "5d3a9c0be1f27488",
            "image": "https://cloud-images.example/noble/noble-server.img",
            "imageBlobIDs": {file.name.partition(".")[0]: file.name for file in bases},
            "cpu": 2,
            "memory": 64 * _MIB,
            "storage": 256 * _MIB,
            "nics": 1,
            "layers": [file.layer() for file in layers],
            "baseImages": [file.layer() for file in bases],
            "totalSize": self.size,
            "createdAt": "0001-01-01T00:00:00Z",
            "pushedAt": "2026-04-04T21:07:33.418205113+08:00",
            "layerHeaders": {file.name: file.header() for file in layers},
        }
        return gojson.dumps(value)

    def store(self, store: SnapshotStore) -> None:
        """Put it into an Epoch store: blobs, manifest, catalog."""
        for file in self.files:
            document = Document(media_type_for_file(file.name), file.content)
            store.put(document.descriptor, BytesContent(file.content))
        store.publish(str(KEY), Document(EPOCH_MANIFEST, self.manifest()))


def _files() -> list[SampleFile]:
    noise = random.Random(20260404)  # noqa: S311 (made-up content, the same everywhere)
    base = noise.randbytes(2 * _MIB)
    return [
        SampleFile("cidata.img", noise.randbytes(256 * _KIB)),
        SampleFile("cocoon.json", _document({"version": 1, "kernel": "", "disks": ["cow.raw"]})),
        SampleFile("config.json", _document({"cpus": {"boot_vcpus": 2}, "memory": {"size": 64 * _MIB}})),
        _packed("cow.raw", noise, [(0, 512 * _KIB), (128 * _MIB, 256 * _KIB)], 256 * _MIB),
        _packed("memory-ranges", noise, [(0, 640 * _KIB), (1 * _MIB, 1 * _MIB), (48 * _MIB, 512 * _KIB)], 64 * _MIB),
        SampleFile(
            "state.json", _document({"devices": [{"id": n, "state": noise.randbytes(96).hex()} for n in range(400)]})
        ),
        SampleFile(f"{Digest.of(base).hex}.qcow2", base, base_image=True),
    ]


def _packed(name: str, noise: random.Random, segments: list[tuple[int, int]], logical_size: int) -> SampleFile:
    content = noise.randbytes(sum(length for _, length in segments))
    return SampleFile(name, content, tuple(segments), logical_size)


def _zeros(count: int) -> Iterator[bytes]:
    while count:
        length = min(count, _MIB)
        yield bytes(length)
        count -= length


def _document(value: Any) -> bytes:
    return gojson.dumps(value, indent=None)
