"""A sandbox for hostile input: layouts and stores that carry an attack, and the promise that nothing changes."""

import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cli_runner import Here, Ran
from support.content import INDEX, MANIFEST, descriptor, digest_of

from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError
from epoch_oci.flows.convert import read, to_oci
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import EMPTY, REF_NAME, TITLE

SNAPSHOT = "application/vnd.cocoon.snapshot.v1+json"
SNAPSHOT_CONFIG = "application/vnd.cocoon.snapshot.config.v1+json"
QCOW2 = "application/vnd.cocoon.disk.qcow2"
NOTHING = {"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 2}
DISK = b"the only disk" * 100
_TOKEN = re.compile(rb'"@@(.*?)@@"')


def raw(text: str) -> str:
    """A string that `encoded` writes as this JSON text instead."""
    return f"@@{text.encode().hex()}@@"


def encoded(value: object) -> bytes:
    """JSON, with what `raw` marked put in as it is."""
    return _TOKEN.sub(lambda found: bytes.fromhex(found[1].decode()), json.dumps(value).encode())


def layer(content: bytes = DISK, title: object = "overlay.qcow2", **members: object) -> dict[str, Any]:
    """A layer of the profile's disk type; no title when that is None."""
    notes = {} if title is None else {"annotations": {TITLE: title}}
    return descriptor(content, QCOW2, **notes) | members


def image(layers: object = None, **members: object) -> dict[str, Any]:
    """The manifest of an artifact that others made with Cocoon's media types: there is no config to read."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": SNAPSHOT,
        "config": NOTHING,
        "layers": [layer()] if layers is None else layers,
        "annotations": {TITLE: "team/bot", "org.opencontainers.image.version": "v1"},
    } | members


def file(content: bytes = DISK, filename: object = "overlay.qcow2", **members: object) -> dict[str, Any]:
    """A layer as Epoch writes it."""
    digest = hashlib.sha256(content).hexdigest()
    return {"digest": digest, "size": len(content), "filename": filename, "mediaType": QCOW2} | members


def epoch(files: object = None, **members: object) -> dict[str, Any]:
    """An Epoch manifest."""
    return {
        "schemaVersion": 1,
        "name": "team/bot",
        "tag": "v1",
        "snapshotId": "9f3c1a7be20d4c55",
        "layers": [file()] if files is None else files,
        "createdAt": "2026-04-02T10:00:00Z",
        "pushedAt": "2026-04-02T10:00:00Z",
    } | members


def artifact(document: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Manifest and config of the profile over an Epoch manifest, with its names as titles, whatever they are."""
    config = encoded(document)
    layers = [
        {
            "mediaType": QCOW2,
            "digest": f"sha256:{item['digest']}",
            "size": item["size"],
            "annotations": {TITLE: item["filename"]},
        }
        for item in document["layers"]
    ]
    return encoded(image(layers, config=descriptor(config, SNAPSHOT_CONFIG))), config


def write_layout(
    path: Path, manifest: bytes, blobs: Iterable[bytes] = (DISK, b"{}"), media_type: str = MANIFEST, **entry: object
) -> None:
    """An OCI image layout with `manifest` as `v1`, written without any code of ours."""
    folder = path / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    for blob in (manifest, *blobs):
        (folder / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    listed = descriptor(manifest, media_type, annotations={REF_NAME: "v1"}) | entry
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]}
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_bytes(encoded(index))


def write_store(path: Path, manifest: bytes, blobs: Iterable[bytes] = (DISK,)) -> None:
    """An Epoch store with `manifest` as team/bot:v1."""
    (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (path / "manifests" / "team" / "bot").mkdir(parents=True, exist_ok=True)
    for blob in blobs:
        (path / "blobs" / "sha256" / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    (path / "manifests" / "team" / "bot" / "v1.json").write_bytes(manifest)


def snapshot_of(path: Path) -> dict[str, tuple[object, ...]]:
    """Everything below `path`, links unfollowed: type, mode, link target, and the digest of a regular file."""
    found: dict[str, tuple[object, ...]] = {}
    for item in sorted(path.rglob("*")):
        about = item.lstat()
        link = os.readlink(item) if item.is_symlink() else ""
        content = hashlib.sha256(item.read_bytes()).hexdigest() if stat.S_ISREG(about.st_mode) else ""
        found[str(item.relative_to(path))] = (about.st_mode, link, content)
    return found


def is_printable(text: str) -> bool:
    """Whether no character of `text` but line ends could steer a terminal or turn its text around."""
    hostile = {"R", "AL", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "FSI", "PDF", "PDI"}
    return all(char == "\n" or (char.isprintable() and unicodedata.bidirectional(char) not in hostile) for char in text)


def some(values: Sequence[Any], count: int = 6) -> list[Any]:
    """`count` of the values, evenly spread: those that are tried through the command line. The core tries them all."""
    return list(values[:: max(1, -(-len(values) // count))])


def core_refuses_artifact(manifest: bytes, code: str | Sequence[str], *, config: bytes = b"{}") -> str | None:
    """What is wrong with how the library refuses an artifact, None when it does as it should."""
    media_type = SNAPSHOT_CONFIG if config != b"{}" else EMPTY
    return _core(lambda: read(Document(MANIFEST, manifest), Document(media_type, config)), code)


def core_refuses_epoch(manifest: bytes, code: str | Sequence[str]) -> str | None:
    """What is wrong with how the library refuses an Epoch manifest, None when it does as it should."""
    # the schema, which is asked first, sees many an attack as a wrong shape
    by_schema = _core(lambda: to_oci(manifest), [*_list(code), "SCHEMA"])
    return by_schema or _core(lambda: Manifest.parse(manifest), [*_list(code), "SCHEMA"])


def _core(attempt: Callable[[], object], code: str | Sequence[str]) -> str | None:
    try:
        attempt()
    except ContentError as error:
        if error.code not in _list(code):
            return f"code {error.code}: {error.message}"
        told = [error.message, *map(str, error.findings)]
        return None if all(is_printable(text) and len(text) < 2_000 for text in told) else f"shown as {told}"
    return "accepted"


class Sandbox:
    """`work` with canaries around and inside; `refused` runs a command in it, and nothing may change."""

    def __init__(self, cli: Here, path: Path) -> None:
        self.cli, self.path, self.work = cli, path, path / "work"
        (self.work / "kept").mkdir(parents=True)
        for place in (path, self.work, self.work / "kept"):
            (place / "canary").write_text(f"canary of {place.name}")
            (place / "overlay.qcow2.canary").write_text("x")
        os.chdir(self.work)

    def refused(self, *words: str, code: str | Sequence[str], exit_code: int = 3) -> Ran:
        """The command ends with `exit_code` and one line of `code`, and leaves everything as it was."""
        before = snapshot_of(self.path)
        ran = self.cli(*words, "--progress", "none")
        told = f"{' '.join(words)}: exit {ran.code}\nout: {ran.out!r}\nerr: {ran.err!r}"
        assert ran.code == exit_code, told
        lines = ran.err.split("\n")
        assert len(lines) == 2 and lines[1] == "", told
        codes = [code] if isinstance(code, str) else code
        assert re.match(rf"epoch-oci: (?:{'|'.join(codes)}): \S", lines[0]), told
        assert is_printable(ran.out) and is_printable(ran.err), told
        assert "Traceback" not in ran.err and len(lines[0]) < 2_000, told
        assert snapshot_of(self.path) == before, f"{told}\nsomething changed: {_difference(before, self.path)}"
        return ran

    def accepted(self, *words: str) -> Ran:
        ran = self.cli(*words, "--progress", "none")
        assert ran.code == 0, f"{' '.join(words)}: exit {ran.code}\n{ran.err}"
        return ran

    def refuses_artifact(self, manifest: bytes, code: str | Sequence[str], *, config: bytes = b"{}") -> list[Ran]:
        """Every command that reads an artifact refuses this one. Returns what they said."""
        write_layout(self.work / "layout", manifest, (DISK, b"{}", config))
        (self.work / "manifest.json").write_bytes(manifest)
        (self.work / "epoch-manifest.json").write_bytes(config)
        alone = (
            ["validate"] if config == b"{}" else ["convert", "--to", "epoch", "-o", "out"]
        )  # else it may be fine alone
        return [
            self.refused("pull", "oci:layout:v1", "--store", "second", code=code),
            self.refused("pull", "oci:layout:v1", "-o", "out", code=code),
            self.refused("pull", "oci:layout:v1", "-o", "kept", "--force", code=code),
            self.refused("verify", "oci:layout:v1", code=code),
            self.refused("convert", "oci:layout:v1", "--to", "epoch", code=code),
            self.refused(*alone, "manifest.json", code=[*_list(code), "SCHEMA", "TYPE"]),
            self.refused("inspect", "oci:layout:v1", code=code),
        ]

    def refuses_store(self, manifest: bytes, code: str | Sequence[str], blobs: Iterable[bytes] = (DISK,)) -> list[Ran]:
        """Every command that reads an Epoch manifest refuses this one."""
        write_store(self.work / "store", manifest, blobs)
        (self.work / "epoch.json").write_bytes(manifest)
        codes = [*_list(code), "SCHEMA"]  # the schema, which is asked first, sees many an attack as a wrong shape
        place = ("--store", "store")
        return [
            self.refused("push", "team/bot:v1", "oci:new:v1", *place, code=codes),
            self.refused("push", "team/bot:v1", "oci:new:v1", *place, "--dry-run", code=codes),
            self.refused("verify", "team/bot:v1", *place, code=codes),
            self.refused("inspect", "team/bot:v1", *place, code=codes),
            self.refused("validate", "epoch.json", code=codes),
            self.refused("convert", "epoch.json", "--to", "oci", "-o", "out", code=codes),
        ]


def _list(code: str | Sequence[str]) -> list[str]:
    return [code] if isinstance(code, str) else list(code)


def _difference(before: Mapping[str, object], path: Path) -> list[str]:
    after = snapshot_of(path)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
