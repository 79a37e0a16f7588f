"""What real programs wrote (`tests/data/recorded`, whose README says which), made into stores as they left them."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from epoch_oci.oci.digest import Digest

DATA = Path(__file__).parent / "data/recorded"
BLOBS = DATA / "blobs"
LEGACY = ("legacy-bucket", "epoch-0.1.5", "untagged/88a1ade")
MODERN = ("epoch-0.1.7", "epoch-0.2.1/bucket")
LAYOUTS = {
    "epoch-0.2.1/layout-bot": "v1",
    "epoch-0.2.1/layout-win": "latest",
    "cocoon-common-0.3.0/layout-small-z": "z",
    "cocoon-common-0.3.0/layout-small-zc": "zc",
    "cocoon-common-0.3.0/layout-small-c": "c",
}
EXPORTS = tuple(sorted(path.name for path in (DATA / "exports").iterdir()))
_DIGEST_COPIES = frozenset({"untagged/88a1ade", *MODERN})


@dataclass(frozen=True)
class Recorded:
    """A document and the kind that it is; `name` is its path below the data."""

    name: str
    kind: str

    @property
    def raw(self) -> bytes:
        return (DATA / self.name).read_bytes()

    @property
    def value(self) -> Any:
        return json.loads(self.raw)

    def __str__(self) -> str:
        return self.name.removesuffix(".json")


@cache
def documents() -> tuple[Recorded, ...]:
    """Every document that stands in a file of its own, and the configs among the blobs."""
    found = [
        Recorded(str(path.relative_to(DATA)), _kind(path))
        for path in sorted(DATA.rglob("*.json"))
        if path.name != "files.json"
    ]
    return (*found, *_configs(found))


def snapshots() -> list[Recorded]:
    """The manifests of snapshots and cloud images, of every generation."""
    return [document for document in documents() if "manifest.v" in document.kind]


def config_of(manifest: Recorded) -> bytes | None:
    """The config that goes with a modern manifest, None for the empty one."""
    target = manifest.value["config"]
    if target["mediaType"] == "application/vnd.oci.empty.v1+json":
        return None
    beside = DATA / manifest.name.replace(".manifest.json", ".config.json")
    path = beside if ".manifest.json" in manifest.name else BLOBS / target["digest"].removeprefix("sha256:")
    return path.read_bytes()


def files() -> dict[str, dict[str, dict[str, Any]]]:
    """Size and SHA-256 of every file of each guest, as the hypervisor would have left it."""
    return json.loads((DATA / "files.json").read_text())


def make_bucket(name: str, path: Path) -> Path:
    """The store of an Epoch server. Large blobs of the legacy one were left out."""
    source = DATA / name
    for manifest in sorted(source.rglob("manifests/**/*.json")):
        target = path / str(manifest.relative_to(source)).replace("%3A", ":")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(manifest, target)
        raw = manifest.read_bytes()
        if name in _DIGEST_COPIES:
            copies = target.parent / "_digests"
            copies.mkdir(exist_ok=True)
            (copies / f"sha256-{Digest.of(raw).hex}.json").write_bytes(raw)
        _put_blobs(json.loads(raw), path)
    if (source / "catalog.json").exists():
        shutil.copyfile(source / "catalog.json", path / "catalog.json")
    return path


def make_layout(name: str, path: Path) -> Path:
    """The image layout that `skopeo copy` made."""
    packed = DATA / f"{name}.tar.gz"
    if packed.exists():
        with tarfile.open(packed) as archive:
            archive.extractall(path.parent / "unpacked", filter="data")
        (found,) = (path.parent / "unpacked").iterdir()
        found.rename(path)
        return path
    (path / "blobs/sha256").mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    shutil.copyfile(DATA / name / "index.json", path / "index.json")
    (entry,) = json.loads((path / "index.json").read_text())["manifests"]
    _put_blobs({"layers": [entry]}, path)
    _put_blobs(json.loads((BLOBS / entry["digest"].removeprefix("sha256:")).read_bytes()), path)
    return path


def make_root(path: Path) -> Path:
    """The root directory of Cocoon 0.3.8, with its holes and modes."""
    with tarfile.open(DATA / "cocoon/cocoon-root-0.3.8.tar.gz") as archive:
        archive.extractall(path.parent / "unpacked", filter="fully_trusted")
    (path.parent / "unpacked/cocoon").rename(path)
    return path


def export(name: str) -> bytes:
    return (DATA / "exports" / name).read_bytes()


def _put_blobs(manifest: Any, path: Path) -> None:
    folder = path / "blobs/sha256"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [*(manifest.get("layers") or []), *(manifest.get("baseImages") or []), manifest.get("config") or {}]
    for row in rows:
        source = BLOBS / row.get("digest", "-").removeprefix("sha256:")
        if source.is_file():
            shutil.copyfile(source, folder / source.name)


def _kind(path: Path) -> str:
    if path.name == "index.json":
        return "oci-image-index.v1"
    if path.name == "catalog.json":
        return "epoch-catalog.v1"
    if path.parent.name == "cocoon":
        return f"cocoon-{path.name.partition('-')[0]}.v1"
    version = "v1" if ".v1." in path.name or path.name.startswith(("bot.", "fc.")) else "v2"
    if path.name.endswith(".config.json"):
        return f"cocoonstack-snapshot-config.{version}"
    if path.name.endswith(".manifest.json"):
        return f"cocoonstack-snapshot-manifest.{version}"
    if "config" not in json.loads(path.read_bytes()):
        return "epoch-manifest.v1"
    return "cocoonstack-os-image-manifest.v1" if path.parent.name == "win" else "cocoonstack-snapshot-manifest.v1"


def _configs(found: list[Recorded]) -> Iterator[Recorded]:
    seen = set()
    for document in found:
        if document.kind != "cocoonstack-snapshot-manifest.v1" or ".manifest.json" in document.name:
            continue
        name = "blobs/" + document.value["config"]["digest"].removeprefix("sha256:")
        if name not in seen:
            seen.add(name)
            yield Recorded(name, "cocoonstack-snapshot-config.v1")
