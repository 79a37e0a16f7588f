"""Archives and root directories of Cocoon, made without the code under test."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epoch_oci.cocoon.export_archive import ExportArchive
from epoch_oci.cocoon.import_archive import write_import_archive
from epoch_oci.epoch.manifest import Layer, Manifest
from epoch_oci.epoch.mint import StoredFile
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import BytesContent, Content

DATA = Path(__file__).parent / "data" / "cocoon"
ID = "K7QZ4WJ2M5TB3XHLN6PVRDAYEC"
BLOB_ID = hashlib.sha256(b"source of the base image").hexdigest()
OTHER_BLOB_ID = hashlib.sha256(b"source of another image").hexdigest()
CREATED = "2026-04-02T10:00:00.123456789+08:00"
NOW = "2026-08-01T12:00:00.5Z"


def noise(label: str, size: int) -> bytes:
    blocks = (hashlib.sha256(f"{label}/{index}".encode()).digest() for index in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def config(**members: Any) -> dict[str, Any]:
    """An envelope's config as Cocoon 0.2.8 writes it."""
    base = {"id": "9f3c1a7be20d4c55", "name": "warm", "image": "ubuntu:24.04", "cpu": 2, "memory": 1 << 30, "nics": 1}
    return {**base, **members}


def envelope(members: Mapping[str, Any] | None = None, **outer: Any) -> bytes:
    value = {"version": 1, "config": config() if members is None else members, **outer}
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


@dataclass
class Item:
    """An entry of a hand-made archive; ``kind`` is a type of ``tarfile``."""

    name: str
    raw: bytes = b""
    mode: int = 0o644
    pax: dict[str, str] = field(default_factory=dict)
    kind: bytes = tarfile.REGTYPE


def archive(*items: Item, head: bytes | None = b"", end: bool = True) -> bytes:
    """An archive by Python's own writer. ``head`` is the envelope (b"": a usual one, None: none)."""
    if head is not None:
        items = (Item("snapshot.json", head or envelope()), *items)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as made:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.size, info.mode, info.type, info.pax_headers = len(item.raw), item.mode, item.kind, dict(item.pax)
            info.linkname = "elsewhere" if item.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            made.addfile(info, io.BytesIO(item.raw))
        length = made.offset
    return stream.getvalue() if end else stream.getvalue()[:length]


def packed(runs: list[tuple[int, int]] | None, size: int) -> dict[str, str]:
    """The PAX records of a sparse file."""
    pieces = None if runs is None else [{"o": offset, "l": length} for offset, length in runs]
    return {"COCOON.sparse.map": json.dumps(pieces, separators=(",", ":")), "COCOON.sparse.size": str(size)}


@dataclass
class Read:
    """What was read of an archive."""

    document: Document
    files: tuple[StoredFile, ...]
    blobs: dict[str, bytes]

    @property
    def manifest(self) -> Manifest:
        return Manifest.parse(self.document)

    def content(self, layer: Layer) -> Content:
        return BytesContent(self.blobs[layer.filename])


def everything(content: Content) -> bytes:
    with content.open() as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


def read(raw: bytes, spool_dir: Path, name: str | None = None, tag: str | None = None) -> Read:
    blobs = {}
    with ExportArchive(io.BytesIO(raw), spool_dir) as found:
        for item in found:
            blobs[item.file.name] = everything(item.content)
        return Read(found.document(name, tag), found.files, blobs)


def written(manifest: Manifest, blobs: Mapping[str, bytes], **options: Any) -> bytes:
    """The import archive of a snapshot."""
    stream = io.BytesIO()
    length = write_import_archive(manifest, lambda layer: BytesContent(blobs[layer.filename]), stream.write, **options)
    assert length == len(stream.getvalue())
    return stream.getvalue()


def entries(raw: bytes) -> dict[str, tarfile.TarInfo]:
    """The entries of an archive as Python's tarfile sees them."""
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as opened:
        return {member.name: member for member in opened.getmembers()}


def bodies(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as opened:
        return {member.name: opened.extractfile(member).read() for member in opened.getmembers()}


def ends_cleanly(raw: bytes) -> bool:
    """Whether Go's archive/tar takes ``raw`` for a whole archive, so that Cocoon would import it.

    It does wherever it looks for a header and finds the end: behind an entry, within the padding of one, and behind
    PAX records as well. (Held against Go's own reader, at every block of an archive.)
    """
    at, size = 0, None
    while at < len(raw):
        block = raw[at : at + 512]
        if len(block) < 512:
            return False
        at += 512
        if block == bytes(512):
            return len(raw) == at or len(raw) >= at + 512
        body = int(block[124:135], 8) if size is None else size
        size = None
        if block[156:157] == b"x":
            lines = raw[at : at + body].split(b"\n")
            size = next((int(line.split(b"=")[1]) for line in lines if b" size=" in line), None)
        if at + body <= len(raw) <= at + body + -body % 512:
            return True
        at += body + -body % 512
    return False


def write_sparse(path: Path, size: int, runs: dict[int, bytes]) -> None:
    """A file of ``size`` bytes with data at offsets, and holes between."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, raw in runs.items():
            file.seek(offset)
            file.write(raw)


@dataclass
class Root:
    """A Cocoon root directory."""

    path: Path

    @property
    def index_path(self) -> Path:
        return self.path / "snapshot/db/snapshots.json"

    @property
    def index(self) -> dict[str, Any]:
        return json.loads(self.index_path.read_bytes())

    def data(self, snapshot_id: str) -> Path:
        return self.path / "snapshot/localfile" / snapshot_id

    @property
    def blobs(self) -> Path:
        return self.path / "cloudimg/blobs"

    def write_index(self, records: dict[str, dict[str, Any] | None], **form: Any) -> bytes:
        names = {record["name"]: known for known, record in records.items() if record and record["name"]}
        value = {"snapshots": records, "names": names}
        raw = json.dumps(value, **(form or {"separators": (",", ":")})).encode() + b"\n"
        self.index_path.write_bytes(raw)
        self.index_path.chmod(0o644)
        return raw

    def tree(self) -> dict[str, tuple[object, ...]]:
        """Every file and folder with mode, size, inode and time; what makes two states of the root equal."""
        found = {}
        for path in sorted(self.path.rglob("*")):
            state = path.lstat()
            found[str(path.relative_to(self.path))] = (state.st_mode, state.st_size, state.st_ino, state.st_mtime_ns)
        return found


def make_root(path: Path, *, blobs: bool = True) -> Root:
    for folder in ("snapshot/db", "snapshot/localfile", *(["cloudimg/blobs"] if blobs else [])):
        (path / folder).mkdir(parents=True)
    return Root(path)


def record(snapshot_id: str = ID, name: str = "warm", **members: Any) -> dict[str, Any]:
    """A record as Cocoon 0.2.8 writes it."""
    base = {"id": snapshot_id, "name": name, "image": "ubuntu:24.04", "cpu": 2, "memory": 1 << 20, "nics": 1}
    where = f"/var/lib/cocoon/snapshot/localfile/{snapshot_id}"
    return {**base, **members, "created_at": CREATED, "data_dir": where}


FILES = ("cidata.img", "config.json", "cow.raw", "empty.bin", "memory-ranges", "state.json")
MEMORY = {0: noise("m0", 8192), 1 << 16: noise("m1", 4096)}
COW, COW_SIZE = {1 << 20: noise("c", 4096)}, 16 << 20


def fill_snapshot(root: Root, snapshot_id: str = ID) -> None:
    """The files of a snapshot, some of them sparse."""
    folder = root.data(snapshot_id)
    folder.mkdir(mode=0o750)
    (folder / "config.json").write_bytes(b'{"cpus":{"boot_vcpus":2}}')
    (folder / "state.json").write_bytes(b'{"s":1}' * 100)
    (folder / "cidata.img").write_bytes(noise("cidata", 5000))
    (folder / "empty.bin").write_bytes(b"")
    write_sparse(folder / "memory-ranges", 1 << 20, MEMORY)
    write_sparse(folder / "cow.raw", COW_SIZE, COW)
    os.chmod(folder / "config.json", 0o600)


def base_image(root: Root, blob_id: str = BLOB_ID, extension: str = ".qcow2", raw: bytes = b"") -> bytes:
    raw = raw or noise("base", 70_000)
    path = root.blobs / f"{blob_id}{extension}"
    path.write_bytes(raw)
    path.chmod(0o444)
    return raw


def cuts(raw: bytes, step: int) -> Iterator[bytes]:
    """Beginnings of ``raw``."""
    for end in range(0, len(raw), step):
        yield raw[:end]
