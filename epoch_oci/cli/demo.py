"""`demo`: the main job from end to end on a made-up snapshot, and an independent look at the result.

The snapshot is small, has everything a real one has, and is the same bytes wherever it is made.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from epoch_oci.cli.render import size_text
from epoch_oci.dataclass import dataclass
from epoch_oci.epoch import gojson
from epoch_oci.epoch.catalog import Catalog
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, media_type_for_file
from epoch_oci.errors import ContentError
from epoch_oci.events import OnEvent
from epoch_oci.flows.pull import pull_to_files, pull_to_store
from epoch_oci.flows.push import push
from epoch_oci.locate import ArtifactPlace, Connection, locate_artifact, open_files, open_store
from epoch_oci.oci import verifying
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import BytesContent, SnapshotStore
from epoch_oci.transfer.report import TransferReport

Tell = Callable[[str], None]
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
            # Go's zero time, which is no date (trap 4).
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


@dataclass(frozen=True, slots=True)
class Demo:
    """One demonstration below `root`; `tell` gets a line at a time, `steps` what was done."""

    root: Path
    tell: Tell
    on_event: OnEvent
    steps: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> Digest | None:
        """Go through it all; the artifact's digest. Raises ContentError (MISMATCH, DIGEST) when the ends differ."""
        sample = Sample()
        first, second, layout, files = (self.root / name for name in ("store-a", "store-b", "layout", "files"))
        self.tell(f"1. A sample snapshot in an Epoch store: {len(sample.files)} files, {size_text(sample.size)}")
        sample.store(open_store(str(first)))
        self._step("make", location=str(first), size=sample.size)

        target = f"oci:{layout}:{KEY.tag}"
        self._command(f"push {KEY} {target} --store {first}", "2. Push it to an OCI image layout:")
        pushed = self._push(first, target)
        self.tell(f"   {pushed.digest}")
        self.tell("3. Push it again: what is there is not sent")
        if self._push(first, target).transferred:
            raise ContentError("the second push moved bytes", code="MISMATCH", object=target)

        self._command(f"pull {target} --store {second}", "4. Pull it into another, empty store:")
        self._pull(target, second)
        self._compare(first, second)

        self._command(f"pull {target} -o {files}", "6. Pull its files as a hypervisor wants them:")
        self._unpack(target, files, sample)
        return pushed.digest

    def _push(self, store: Path, target: str) -> TransferReport:
        place = _layout(target)
        report = push(open_store(str(store)), KEY, place.store, place.tag, on_event=self.on_event)
        self.tell(f"   sent {size_text(report.transferred)}, there already {size_text(report.reused)}")
        self._step("push", digest=str(report.digest), bytes=report.transferred)
        return report

    def _pull(self, target: str, store: Path) -> None:
        place = _layout(target)
        report = pull_to_store(place.store, KEY.tag, open_store(str(store)), on_event=self.on_event)
        self.tell(f"   received {size_text(report.transferred)} in {len(report.blobs)} blobs")
        self._step("pull", location=str(store), bytes=report.transferred)

    def _compare(self, first: Path, second: Path) -> None:
        """Hold the two stores against each other, file by file, past our own stores."""
        self.tell("5. Compare the two stores:")
        names = _names(first)
        if names != _names(second):
            raise ContentError("the stores hold different objects", code="MISMATCH", object=str(second))
        for name in names:
            verifying.check(Digest.of((first / name).read_bytes()), Digest.of((second / name).read_bytes()), name)
        catalogs = [Catalog.parse((store / "catalog.json").read_bytes()) for store in (first, second)]
        if not all(catalog.lists(KEY) for catalog in catalogs):
            raise ContentError("a catalog lacks the snapshot", code="MISMATCH", object=str(second))
        self.tell(f"   {len(names)} objects, byte for byte the same; both catalogs list {KEY}")
        self._step("compare", objects=len(names), equal=True)

    def _unpack(self, target: str, directory: Path, sample: Sample) -> None:
        place = _layout(target)
        pull_to_files(place.store, KEY.tag, open_files(directory), on_event=self.on_event)
        for file in sample.files:
            _check_file(directory / file.name, file)
        found = [(directory / file.name).stat() for file in sample.files]
        # `st_blocks` counts 512 bytes each, whatever the blocks of the file system are.
        size, used = sum(item.st_size for item in found), sum(item.st_blocks * 512 for item in found)
        self.tell(f"   {len(found)} files of {size_text(size)}, which take {size_text(used)} of disk: holes stay holes")
        self._step("files", location=str(directory), size=size, disk=used)

    def _command(self, words: str, title: str) -> None:
        self.tell(title)
        self.tell(f"   $ epoch-oci {words}")

    def _step(self, name: str, **facts: Any) -> None:
        self.steps.append({"step": name, **facts})


@contextmanager
def root_directory(keep: str | None) -> Iterator[Path]:
    """Where the demonstration takes place: the directory to keep, else one that is removed at the end."""
    if keep is not None:
        yield Path(keep).absolute()
        return
    with TemporaryDirectory(prefix="epoch-oci-demo-") as directory:
        yield Path(directory)


def _layout(target: str) -> ArtifactPlace:
    return locate_artifact(target, connection=Connection(), create=True)


def _names(store: Path) -> list[str]:
    """Manifests and blobs by their keys; catalogs differ in their times, and a lock file is no content."""
    found = (path for top in ("manifests", "blobs") for path in (store / top).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(store)) for path in found if not path.name.startswith("."))


def _check_file(path: Path, file: SampleFile) -> None:
    """The file as it lies on the disk against what it should have been unfolded to."""
    expected, found = hashlib.sha256(), hashlib.sha256()
    for piece in file.unfolded():
        expected.update(piece)
    with path.open("rb") as reader:
        while block := reader.read(verifying.BLOCK):
            found.update(block)
    verifying.check(Digest("sha256", expected.hexdigest()), Digest("sha256", found.hexdigest()), path.name)


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
