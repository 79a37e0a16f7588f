"""Artifacts of modern Epoch to take apart: golden ones, and ways to make and alter others."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epoch_oci import dialects
from epoch_oci.dialects.base import Artifact, EncodeOptions, Snapshot
from epoch_oci.dialects.cocoonstack.vocabulary import layer_type_for_file
from epoch_oci.epoch.manifest import EPOCH_MANIFEST
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.stores.base import BytesContent

DATA = Path(__file__).parent / "data" / "cocoonstack"
DIALECT = dialects.named("cocoonstack")
SNAPSHOT = "application/vnd.cocoonstack.snapshot.v1+json"
SNAPSHOT_V2 = "application/vnd.cocoonstack.snapshot.v2+json"
CONFIG = "application/vnd.cocoonstack.snapshot.config.v1+json"
OS_IMAGE = "application/vnd.cocoonstack.os-image.v1+json"
TITLE = "org.opencontainers.image.title"
EMPTY_HEX = hashlib.sha256(b"").hexdigest()


def folders(kind: str) -> list[Path]:
    """The golden artifacts that were `written` here, or are to be `read`."""
    return sorted((DATA / kind).iterdir())


def documents(folder: Path) -> tuple[ImageManifest, Document | None]:
    """The manifest and the config of a golden artifact; None where it has the empty one."""
    return image((folder / "oci-manifest.json").read_bytes()), document(folder / "config.json")


def document(path: Path) -> Document | None:
    return Document(CONFIG, path.read_bytes()) if path.exists() else None


def image(raw: bytes) -> ImageManifest:
    return ImageManifest.parse(Document(media_types.MANIFEST, raw))


def encode(raw: bytes, **options: Any) -> Artifact:
    return DIALECT.encode(Document(EPOCH_MANIFEST, raw), EncodeOptions(**{"allow_loss": True, **options}))


def decode(manifest: ImageManifest, config: Document | None) -> Snapshot:
    return dialects.detect(manifest).decode(manifest, config)


def returned(artifact: Artifact) -> Snapshot:
    """What a reader makes of an artifact that was just written."""
    return decode(artifact.image, artifact.config)


def hex_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def layer(title: str | None, size: int = 7, media_type: str = "application/octet-stream", **annotations: str) -> dict:
    """A descriptor; its digest is that of nothing where it is empty, else a stand-in."""
    digest = hex_of(f"{title}/{size}") if size else EMPTY_HEX
    notes = {**({} if title is None else {TITLE: title}), **annotations}
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size, "annotations": notes}


def snapshot(
    layers: list[dict], artifact_type: str = SNAPSHOT, annotations: dict[str, str] | None = None, **config: Any
) -> tuple[ImageManifest, Document]:
    """An artifact of these layers, with a config of these members."""
    members = {"schemaVersion": "v1", "snapshotId": "9f3c1a7be20d4c55", **config}
    stored = Document(CONFIG, json.dumps({key: value for key, value in members.items() if value is not ...}).encode())
    return manifest(layers, stored.descriptor.to_json(), artifact_type, annotations), stored


def manifest(
    layers: list[dict], config: dict, artifact_type: str, annotations: dict[str, str] | None = None
) -> ImageManifest:
    value = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "artifactType": artifact_type,
        "config": config,
        "layers": layers,
    }
    return image(json.dumps({**value, **({"annotations": annotations} if annotations else {})}).encode())


def altered(
    artifact: Artifact, change: Callable[[dict[str, Any], dict[str, Any]], object]
) -> tuple[ImageManifest, Document]:
    """A written artifact after `change` had its way with manifest and config; the config's digest is right again."""
    value, config = json.loads(artifact.manifest.raw), json.loads(artifact.config.raw)
    change(value, config)
    stored = Document(artifact.config.media_type, json.dumps(config).encode())
    value["config"].update(digest=str(stored.digest), size=stored.size)
    return image(json.dumps(value).encode()), stored


def epoch(*layers: dict, **members: Any) -> bytes:
    """An Epoch manifest of these layers."""
    value = {"schemaVersion": 1, "name": "bot", "tag": "v1", "snapshotId": "9f3c1a7be20d4c55", "layers": list(layers)}
    return json.dumps(copy.deepcopy({**value, **members})).encode()


def file(name: str, size: int = 7) -> dict:
    """A layer of an Epoch manifest."""
    return {"digest": hex_of(f"{name}/{size}") if size else EMPTY_HEX, "size": size, "filename": name}


def part_digests(count: int) -> tuple[Digest, ...]:
    return tuple(Digest.from_hex(hex_of(f"part {index}")) for index in range(count))


@dataclass(frozen=True)
class Packed:
    """A file of a snapshot of version 2: what it decodes to, the layers as stored, and what the config says of it.

    `size` is the size that the config declares, None for the right one; `entry` are further members.
    """

    plain: bytes
    layers: tuple[bytes, ...]
    compressed: bool = True
    size: int | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedArtifact:
    """A snapshot of version 2 as its writer would publish it; `blobs` by the digests that its documents name."""

    manifest: Document
    config: Document
    blobs: Mapping[Digest, bytes]

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return ImageManifest.parse(self.manifest).layers

    def publish(self, store: Any, tag: str = "v1") -> None:
        """Put it into a repository or layout, through the front door."""
        store.put(self.config.descriptor, BytesContent(self.config.raw))
        for item in self.layers:
            store.put(item, BytesContent(self.blobs[item.digest]))
        store.publish(tag, self.manifest)


def encoded_artifact(files: Mapping[str, Packed], **config: Any) -> EncodedArtifact:
    """The artifact of these files, and a config of these further members."""
    layers, entries, blobs = [], {}, {}
    for name, file in files.items():
        entry = {"mode": 0o640, "size": len(file.plain) if file.size is None else file.size, **file.entry}
        digests = [Digest.of(raw) for raw in file.layers]
        if len(digests) > 1:
            entry["chunks"] = list(map(str, digests))
        entries[name] = {key: value for key, value in entry.items() if value}
        media_type = layer_type_for_file(name) + ("+zstd" if file.compressed else "")
        for raw, digest in zip(file.layers, digests, strict=True):
            blobs[digest] = raw
            notes = {TITLE: name}
            layers.append({"mediaType": media_type, "digest": str(digest), "size": len(raw), "annotations": notes})
    made, stored = snapshot(layers, SNAPSHOT_V2, schemaVersion="v2", files=entries, **config)
    return EncodedArtifact(made.document, stored, blobs)
