"""Artifacts of the `cocoon` profile to take apart: golden pairs, and ways to alter one."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epoch_oci import dialects
from epoch_oci.dialects.base import Artifact, EncodeOptions, Snapshot
from epoch_oci.epoch.manifest import EPOCH_MANIFEST
from epoch_oci.errors import ContentError
from epoch_oci.oci import media_types
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.parts import PartTable

GOLDEN = Path(__file__).parent / "data" / "golden"


@dataclass(frozen=True, slots=True)
class Pair:
    """A golden pair: an Epoch manifest, how it is to be cut, and the OCI manifest that it becomes."""

    name: str
    epoch: bytes
    oci: bytes
    options: EncodeOptions

    def artifact(self) -> Artifact:
        return encode(self.epoch, self.options)


def pairs() -> list[Pair]:
    return [pair(folder.name) for folder in sorted(GOLDEN.iterdir())]


def pair(name: str) -> Pair:
    folder = GOLDEN / name
    cuts = folder / "parts.json"
    tables = json.loads(cuts.read_text()) if cuts.exists() else {}
    parts = {Digest.from_hex(key): _table(value) for key, value in tables.items()}
    return Pair(
        name,
        (folder / "epoch-manifest.json").read_bytes(),
        (folder / "oci-manifest.json").read_bytes(),
        EncodeOptions(parts=parts or None),
    )


def _table(value: dict[str, Any]) -> PartTable:
    return PartTable(size=value["size"], digests=tuple(Digest.from_hex(item) for item in value["digests"]))


def encode(raw: bytes, options: EncodeOptions | None = None) -> Artifact:
    return dialects.named("cocoon").encode(Document(EPOCH_MANIFEST, raw), options or EncodeOptions())


def decode(oci: dict[str, Any] | bytes, config: Document | None) -> Snapshot:
    """Read an artifact from its manifest, parsed or as bytes, the way a program would that was handed both."""
    raw = oci if isinstance(oci, bytes) else json.dumps(oci).encode()
    image = ImageManifest.parse(Document(media_types.MANIFEST, raw))
    return dialects.detect(image).decode(image, config)


def altered(artifact: Artifact, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The artifact's manifest, parsed, after `change` had its way with it."""
    value = copy.deepcopy(json.loads(artifact.manifest.raw))
    change(value)
    return value


def findings(read: Callable[[], object]) -> list[tuple[str, str]]:
    """Path and code of everything that `read` finds wrong."""
    try:
        read()
    except ContentError as error:
        return [(finding.path, finding.code) for finding in error.findings]
    raise AssertionError("nothing was found wrong")
