"""OCI image layouts as other programs write them, byte by byte: nothing of ours made them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
SNAPSHOT = "application/vnd.cocoon.snapshot.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"

FILES = {
    "config.json": ("application/vnd.cocoon.config+json", b'{"cpus":{"boot_vcpus":2}}'),
    "memory-ranges": ("application/vnd.cocoon.memory", b"\1" * 4096),
    "overlay.qcow2": ("application/vnd.cocoon.disk.qcow2", b"QFI\xfb" + b"\2" * 2000),
}
"""A small snapshot: media type and bytes by name."""


def write_tar(archive: Path, members: Mapping[str, bytes], **how: Any) -> Path:
    """A tar of regular files; `how` goes to `tarfile.open`."""
    draft = archive.with_suffix(".new")
    with tarfile.open(draft, how.pop("mode", "w"), **how) as made:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            made.addfile(info, io.BytesIO(raw))
    return draft.replace(archive)


class Layout:
    """The parts of a layout, `blobs` by hex digest; `write` puts it into a directory, `members` list it for a tar."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.entries: list[dict[str, Any]] = []

    def blob(self, raw: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Keep a blob; its descriptor."""
        digest = hashlib.sha256(raw).hexdigest()
        self.blobs[digest] = raw
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(raw), **more}

    def artifact(
        self, files: Mapping[str, tuple[str, bytes]] = FILES, tag: str | None = None, **members: Any
    ) -> dict[str, Any]:
        """An artifact as `oras push` makes it, listed in the index under `tag` or without one; its descriptor."""
        layers = [self.blob(raw, kind, annotations={TITLE: name}) for name, (kind, raw) in files.items()]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": SNAPSHOT,
            "config": self.blob(b"{}", EMPTY),
            "layers": layers,
            **members,
        }
        entry = self.blob(json.dumps(manifest).encode(), MANIFEST)
        self.entries.append({**entry, **({"annotations": {REF_NAME: tag}} if tag is not None else {})})
        return entry

    def members(self) -> dict[str, bytes]:
        """Every file of the layout by its path."""
        index = json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode()
        blobs = {f"blobs/sha256/{digest}": raw for digest, raw in self.blobs.items()}
        return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs}

    def write(self, directory: Path) -> Path:
        for name, raw in self.members().items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        return directory
