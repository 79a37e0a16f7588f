"""A Cocoon root as a source: every version's index, packed files, base images, and nothing followed that is a link."""

import fcntl
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cocoon_world import (
    BLOB_ID,
    COW,
    COW_SIZE,
    CREATED,
    FILES,
    ID,
    MEMORY,
    OTHER_BLOB_ID,
    Item,
    Root,
    archive,
    base_image,
    bodies,
    config,
    envelope,
    everything,
    fill_snapshot,
    make_root,
    noise,
    packed,
    read,
    record,
    write_sparse,
    written,
)
from contract import test_source_contract as contract
from contract.cases import EPOCH
from contract.source_cases import Reading
from disks import OBSTACLES

from epoch_oci import schemas
from epoch_oci.cocoon.epoch_manifest import envelope_of
from epoch_oci.cocoon.root import CocoonRoot
from epoch_oci.cocoon.root_file import MAP_LIMIT, pax_records
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, Manifest
from epoch_oci.epoch.sparse import Segment
from epoch_oci.errors import ConflictError, ContentError, EpochOciError, NotFoundError, UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.base import Auditor, SnapshotEntry, SnapshotStore


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = make_root(tmp_path / "root")
    fill_snapshot(made)
    base_image(made)
    made.write_index({ID: record(image_blob_ids={BLOB_ID: {}}, storage=1 << 30)})
    return made


def blob_of(root: Root, name: str) -> bytes:
    """What a file is stored as: its runs of data, or all of it."""
    packed_files = {"memory-ranges": MEMORY, "cow.raw": COW}
    if name in packed_files:
        return b"".join(packed_files[name].values())
    return (root.data(ID) / name).read_bytes()


def manifest_in(root: Root, name: str = "warm", **options: Any) -> Manifest:
    return Manifest.parse(CocoonRoot(root.path, **options).resolve(name))


def test_a_snapshot(root: Root) -> None:
    """Traps 15 and 33: the base image keeps its name, which is not its digest; the ID and the time are the record's."""
    manifest = manifest_in(root)
    assert (manifest.writer, manifest.name, manifest.tag, manifest.snapshot_id) == ("epoch-oci", "warm", "latest", ID)
    assert (manifest.created_at, manifest.pushed_at) == (CREATED, "0001-01-01T00:00:00Z")
    assert (manifest.cpu, manifest.memory, manifest.storage, manifest.nics) == (2, 1 << 20, 1 << 30, 1)
    assert manifest.image_blob_ids == {BLOB_ID: f"{BLOB_ID}.qcow2"}
    assert [layer.filename for layer in manifest.layers] == list(FILES)
    for layer in manifest.layers:
        assert (layer.size, layer.digest) == (
            len(blob_of(root, layer.filename)),
            Digest.of(blob_of(root, layer.filename)),
        )
    [base] = manifest.base_images
    assert (base.filename, base.digest) == (f"{BLOB_ID}.qcow2", Digest.of(noise("base", 70_000)))
    assert manifest.layer_headers["cow.raw"].pax_records == packed([(1 << 20, 4096)], COW_SIZE)
    assert manifest.layer_headers["memory-ranges"].pax_records == packed([(0, 8192), (1 << 16, 4096)], 1 << 20)
    assert manifest.layer_headers["config.json"].mode == 0o600
    assert manifest.warnings == ()
    assert schemas.findings(manifest.document.json(limit=MANIFEST_LIMIT), "epoch-manifest.v1") == []


def test_a_hole_of_a_disk_is_not_read(root: Root) -> None:
    """A disk of a terabyte with one page in it is a blob of one page."""
    write_sparse(root.data(ID) / "cow.raw", 1 << 40, {1 << 39: noise("far", 4096)})
    layer = next(layer for layer in manifest_in(root).layers if layer.filename == "cow.raw")
    assert layer.size == 4096


def test_the_blobs_can_be_read(root: Root) -> None:
    store = CocoonRoot(root.path)
    manifest = Manifest.parse(store.resolve("warm"))
    for layer in (*manifest.layers, *manifest.base_images):
        assert store.has(layer.descriptor)
        content = store.content(layer.descriptor)
        raw = everything(content)
        assert Digest.of(raw) == layer.digest
        for start, length in ((0, 1), (5, 10), (len(raw) // 2, None), (max(len(raw) - 3, 0), 99)):
            with content.open(start, length) as reader:
                got = b"".join(iter(lambda reader=reader: reader.read(7), b""))
            assert got == raw[start : None if length is None else start + length]


def test_the_same_state_gives_the_same_manifest(root: Root) -> None:
    first = CocoonRoot(root.path).resolve("warm")
    assert CocoonRoot(root.path).resolve("warm") == first
    script = textwrap.dedent("""
        import pathlib, sys
        from epoch_oci.cocoon.root import CocoonRoot
        print(CocoonRoot(pathlib.Path(sys.argv[1])).resolve("warm").digest)
    """)
    for zone in ("UTC", "Asia/Shanghai"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(root.path)],
            capture_output=True,
            env={**os.environ, "TZ": zone, "PYTHONHASHSEED": "3"},
            check=True,
        )
        assert done.stdout.decode().strip() == str(first.digest)


def test_an_export_of_it_is_the_same_blobs(root: Root, tmp_path: Path) -> None:
    """Through `cocoon snapshot export` or directly: what was pushed once is there for the other way too."""
    items = []
    for name in FILES:
        pax = {
            "cow.raw": packed([(1 << 20, 4096)], COW_SIZE),
            "memory-ranges": packed([(0, 8192), (1 << 16, 4096)], 1 << 20),
        }
        items.append(Item(name, blob_of(root, name), 0o644, pax.get(name, {})))
    spool = tmp_path / "spool"
    spool.mkdir()
    members = record(image_blob_ids={BLOB_ID: {}}, storage=1 << 30)
    for key in ("created_at", "data_dir"):
        members.pop(key)
    exported = read(archive(*items, head=envelope(members)), spool).manifest
    direct = manifest_in(root)
    assert exported.layers == direct.layers
    assert envelope_of(exported).config == envelope_of(direct).config


def test_nothing_is_written(root: Root) -> None:
    before = root.tree()
    store = CocoonRoot(root.path)
    manifest = Manifest.parse(store.resolve("warm"))
    assert list(store.snapshots()) and list(store.sizes()) and list(store.audit()) == []
    for blob in manifest.descriptors:
        everything(store.content(blob))
    assert root.tree() == before


RECORDS = {
    "0.2.2": '"id":"{id}","name":"warm","image":"u","cpu":2,"memory":5,"storage":6,"nics":1',
    "0.2.4": '"id":"{id}","name":"warm","cpu":2,"memory":5,"storage":6,"nics":1,"network":"br","windows":true',
    "0.3.5": (
        '"id":"{id}","name":"warm","hypervisor":"firecracker","cpu":2,"memory":5,"storage":6,"nics":1,"queue_size":7,'
        '"disk_queue_size":8,"no_direct_io":true'
    ),
    "0.3.8": (
        '"cpu":2,"memory":5,"storage":6,"queue_size":7,"image":"u","image_digest":"sha256:{digest}","image_type":"oci",'
        '"id":"{id}","name":"warm","hypervisor":"cloud-hypervisor","nics":1'
    ),
    "later": (
        '"cpu":2,"memory":5,"storage":6,"id":"{id}","name":"warm","nics":1,"size_bytes":9,'
        '"last_accessed_at":"2026-07-02T11:30:00Z","newest":{{"k":[1]}}'
    ),
}


@pytest.mark.parametrize("version", RECORDS)
@pytest.mark.parametrize("indented", [False, True])
def test_every_versions_record(version: str, indented: bool, root: Root) -> None:
    text = "{" + RECORDS[version].format(id=ID, digest="0" * 64) + f',"created_at":"{CREATED}","data_dir":"/x"' + "}"
    index = {"snapshots": {ID: json.loads(text)}, "names": {"warm": ID}}
    root.index_path.write_text(json.dumps(index, indent=2 if indented else None) + "\n")
    manifest = manifest_in(root)
    assert (manifest.cpu, manifest.memory, manifest.storage, manifest.nics) == (2, 5, 6, 1)
    value = json.loads(envelope_of(manifest).raw)
    assert list(value) == (["config", "version"] if version in ("0.3.8", "later") else ["version", "config"])
    record_keys = [key for key in json.loads(text) if key not in ("created_at", "data_dir")]
    assert list(value["config"]) == [key for key in record_keys if key not in ("size_bytes", "last_accessed_at")]
    assert schemas.findings(value, "cocoon-export-envelope.v1") == []


def test_by_name_id_and_prefix(root: Root) -> None:
    other = "K7QZ4WJ2M5AAAAAAAAAAAAAAAA"
    fill_snapshot(root, other)
    root.write_index({ID: record(), other: record(other, "bot:v2"), "abc": None})
    store = CocoonRoot(root.path)
    for name, found in {
        "warm": ID,
        "warm:latest": ID,
        ID: ID,
        f"{ID}:latest": ID,
        "K7QZ4WJ2M5T": ID,
        "K7QZ4WJ2M5A": other,
        "bot:v2": other,
        "bot%3Av2": other,
        "bot%3Av2:latest": other,
    }.items():
        assert Manifest.parse(store.resolve(name)).snapshot_id == found, name
    for name in ("K7", "none", "bot", "warm:v1", "v2", "K7QZ4WJ2M5T:v1"):
        with pytest.raises(NotFoundError):
            store.resolve(name)
    with pytest.raises(UsageError, match="more than one ID"):
        store.resolve("K7Q")
    assert list(store.snapshots()) == [SnapshotEntry("bot", "v2"), SnapshotEntry("warm", "latest")]
    assert Manifest.parse(store.resolve("bot:v2")).tag == "v2"


def test_an_id_outweighs_a_name(root: Root) -> None:
    """As in Cocoon."""
    other = "9f3c1a7be20d4c55"
    fill_snapshot(root, other)
    root.write_index({ID: record(name=other), other: record(other, "x")})
    assert manifest_in(root, other).snapshot_id == other


def test_odd_names_are_reached_by_id(root: Root) -> None:
    for name in ("", "../x", "a\x1b[31m"):
        root.write_index({ID: record(name=name)})
        store = CocoonRoot(root.path)
        assert list(store.snapshots()) == [SnapshotEntry(ID, "latest")]
        if name:
            with pytest.raises(ContentError):  # the envelope would carry the name
                store.resolve(ID)
        else:
            manifest = Manifest.parse(store.resolve(ID))
            assert manifest.name == ID and envelope_of(manifest).name == ""


def test_what_is_in_the_making_is_not_there(root: Root) -> None:
    root.write_index({ID: {**record(), "pending": True}})
    store = CocoonRoot(root.path)
    assert list(store.snapshots()) == []
    with pytest.raises(NotFoundError, match="still being made"):
        store.resolve("warm")


@pytest.mark.parametrize("extension", [".qcow2", ".raw", ""])
def test_base_images_under_every_name(extension: str, root: Root) -> None:
    """Traps 16, 17 and 19: the first name wins; what is not found stays named and is not silently left out."""
    (root.blobs / f"{BLOB_ID}.qcow2").unlink()
    base_image(root, extension=extension)
    if extension == ".qcow2":
        base_image(root, extension=".raw", raw=b"other")
    root.write_index({ID: record(image_blob_ids={BLOB_ID: {}, OTHER_BLOB_ID: {}})})
    manifest = manifest_in(root)
    assert [layer.filename for layer in manifest.base_images] == [f"{BLOB_ID}{extension}"]
    assert manifest.image_blob_ids == {BLOB_ID: f"{BLOB_ID}{extension}", OTHER_BLOB_ID: OTHER_BLOB_ID}


def test_a_base_image_goes_whole(root: Root) -> None:
    """Only a snapshot's own files can be packed in a manifest."""
    write_sparse(root.blobs / f"{BLOB_ID}.raw", 1 << 20, {0: b"x" * 4096})
    (root.blobs / f"{BLOB_ID}.qcow2").unlink()
    [base] = manifest_in(root).base_images
    assert base.size == 1 << 20


def test_a_map_that_is_too_long_makes_a_whole_file() -> None:
    segments = [Segment(offset << 13, 4096) for offset in range(40_000)]
    size = 40_000 << 13
    assert (
        len(json.dumps([{"o": item.offset, "l": item.length} for item in segments], separators=(",", ":"))) > MAP_LIMIT
    )
    assert pax_records(segments, size) == {}
    assert pax_records(segments[:10], size) == packed([(item.offset, item.length) for item in segments[:10]], size)
    assert pax_records([], 5) == packed(None, 5)
    assert pax_records([], 0) == {} and pax_records([Segment(0, 5)], 5) == {}


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_is_no_file_is_refused(kind: str, root: Root) -> None:
    """L3: never followed, never opened."""
    OBSTACLES[kind](root.data(ID) / "extra.bin")
    with pytest.raises(ContentError) as caught:
        CocoonRoot(root.path).resolve("warm")
    assert caught.value.code in ("TYPE", "NAME")


@pytest.mark.parametrize("place", ["snapshot", "snapshot/localfile", f"snapshot/localfile/{ID}", "cloudimg"])
def test_a_link_on_the_way_is_not_followed(place: str, root: Root, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    (root.path / place).rename(moved)
    (root.path / place).symlink_to(moved)
    with pytest.raises(ContentError) as caught:
        CocoonRoot(root.path).resolve("warm")
    assert caught.value.code == "TYPE"


def test_the_root_itself_may_be_a_link(root: Root, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root.path)
    assert CocoonRoot(tmp_path / "link").resolve("warm") == CocoonRoot(root.path).resolve("warm")


def test_where_the_record_points_does_not_matter(root: Root) -> None:
    """A record is data: its `data_dir` is never opened."""
    root.write_index({ID: {**record(), "data_dir": "/etc"}})
    assert [layer.filename for layer in manifest_in(root).layers] == list(FILES)


@pytest.mark.parametrize("snapshot_id", ["../../etc", "a/b", "", ".", "..", "x\x00", "/etc"])
def test_ids_become_directories_and_are_checked(snapshot_id: str, root: Root) -> None:
    root.write_index({snapshot_id: {**record(), "id": snapshot_id}})
    with pytest.raises(ContentError):
        CocoonRoot(root.path).resolve("warm")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"snapshots":[]}',
        b'{"snapshots":{"a":5}}',
        b'{"snapshots":{"a":{"id":"b"}}}',
        b'{"snapshots":{"a":{"pending":"yes"}}}',
        b'{"snapshots":{"a":{"pending":0}}}',
        b'{"snapshots":{"a":{"name":5}}}',
        b'{"snapshots":{},"names":{"x":5}}',
        b'{"snapshots":{},"Snapshots":{}}',
        b'{"snapshots":{},"snapshots":{}}',
    ],
)
def test_an_index_that_is_damaged(raw: bytes, root: Root) -> None:
    root.index_path.write_bytes(raw)
    with pytest.raises(ContentError):
        list(CocoonRoot(root.path).snapshots())


def test_empty_indexes(root: Root) -> None:
    for raw in (b"{}", b'{"snapshots":null,"names":null}', b'{"snapshots":{},"names":{},"tombstones":{"x":{}}}'):
        root.index_path.write_bytes(raw)
        assert list(CocoonRoot(root.path).snapshots()) == []
    root.index_path.unlink()
    assert list(CocoonRoot(root.path).snapshots()) == []


def test_no_root_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFoundError):
            list(CocoonRoot(path).snapshots())


@pytest.mark.parametrize("name", ["meta.db", "meta-convert.manifest"])
def test_a_cocoon_that_keeps_a_database(name: str, root: Root) -> None:
    """The index beside it is a thing of the past."""
    (root.path / "meta").mkdir()
    assert list(CocoonRoot(root.path).snapshots())
    (root.path / "meta" / name).write_bytes(b"")
    with pytest.raises(ContentError, match="snapshot export"):
        list(CocoonRoot(root.path).snapshots())


def test_a_snapshot_without_its_files(root: Root) -> None:
    root.data(ID).rename(root.data("elsewhere"))
    store = CocoonRoot(root.path)
    with pytest.raises(NotFoundError):
        store.resolve("warm")
    findings = list(store.audit())
    assert {finding.code for finding in findings} == {"NOT_FOUND", "MISMATCH"}
    assert {finding.severity for finding in findings} == {"error", "warning"}


def test_a_record_that_cannot_be_meant(root: Root) -> None:
    root.write_index({ID: {**record(), "cpu": -1}})
    store = CocoonRoot(root.path)
    assert list(store.snapshots()) == [SnapshotEntry("warm", "latest")]
    with pytest.raises(ContentError):
        store.resolve("warm")


def test_a_file_that_changes_is_noticed(root: Root) -> None:
    """L6: its time or its size, before a byte of it is sent; its content in any case, by whoever hashes."""
    store = CocoonRoot(root.path)
    manifest = Manifest.parse(store.resolve("warm"))
    state = next(layer for layer in manifest.layers if layer.filename == "state.json")
    path = root.data(ID) / "state.json"
    before = path.stat()
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + b"X")
    with pytest.raises(ContentError) as caught, store.content(state.descriptor).open():
        pass
    assert caught.value.code == "MISMATCH"
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ContentError) as caught, store.content(state.descriptor).open() as reader:
        for _ in VerifyingReader(reader, state.descriptor).blocks():
            pass
    assert caught.value.code == "DIGEST"
    path.unlink()
    with pytest.raises(NotFoundError), store.content(state.descriptor).open():
        pass


def test_digests_are_remembered(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By device, inode, size and times; a file that was just written is hashed again all the same."""
    cache = tmp_path / "cache"
    first = CocoonRoot(root.path, cache_dir=cache).resolve("warm")
    assert not cache.exists()
    monkeypatch.setattr("epoch_oci.disk.facts.time.time_ns", lambda: 4 * 10**18)
    assert CocoonRoot(root.path, cache_dir=cache).resolve("warm") == first
    assert {oct(path.stat().st_mode & 0o777) for path in [cache, *cache.iterdir()]} == {"0o700", "0o600"}

    def unread(*_: object) -> Digest:
        raise AssertionError("was read again")

    with monkeypatch.context() as patch:
        patch.setattr("epoch_oci.cocoon.root_file.RootFile.hashed", unread)
        assert CocoonRoot(root.path, cache_dir=cache).resolve("warm") == first
    for path in cache.iterdir():
        path.write_text("not a digest")
    assert CocoonRoot(root.path, cache_dir=cache).resolve("warm") == first
    (root.data(ID) / "state.json").write_bytes(b"other")
    assert CocoonRoot(root.path, cache_dir=cache).resolve("warm") != first
    cache.chmod(0o000)
    CocoonRoot(root.path, cache_dir=tmp_path / "cache" / "deeper").resolve("warm")
    cache.chmod(0o700)


def test_leases_of_later_versions(root: Root) -> None:
    """A reader keeps the snapshot from being deleted; what is being deleted is not read."""
    lease = root.path / f"snapshot/localfile/{ID}.lease"
    lease.touch()
    store = CocoonRoot(root.path)
    store.resolve("warm")
    with lease.open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        store.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(ConflictError):
            CocoonRoot(root.path).resolve("warm")


def test_listing_reads_no_file(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epoch_oci.cocoon.root_file.RootFile.hashed", None)
    [(key, size)] = CocoonRoot(root.path).sizes()
    assert str(key) == "warm:latest"
    assert size == sum(len(blob_of(root, name)) for name in FILES)


def test_powers(root: Root) -> None:
    store = CocoonRoot(root.path)
    assert isinstance(store, SnapshotStore) and isinstance(store, Auditor)


def test_into_an_archive(root: Root) -> None:
    """From a root to what `cocoon snapshot import` reads on another node."""
    store = CocoonRoot(root.path)
    manifest = Manifest.parse(store.resolve("warm"))
    blobs = {layer.filename: everything(store.content(layer.descriptor)) for layer in manifest.layers}
    raw = written(manifest, blobs)
    value = json.loads(bodies(raw)["snapshot.json"])
    assert value["config"] == config(id=ID, memory=1 << 20, image_blob_ids={BLOB_ID: {}}, storage=1 << 30)


def reading(root: Root) -> Reading:
    """The root as a store of the contract suite: blobs get in as files of one snapshot."""
    count = iter(range(1000))

    def put(raw: bytes) -> None:
        (root.data(ID) / f"blob-{next(count)}").write_bytes(raw)

    return Reading(kind=EPOCH, store=CocoonRoot(root.path), put=put, publish=lambda tag, document: None)


@pytest.mark.parametrize(
    "promise",
    [
        contract.test_what_is_not_there,
        contract.test_blobs,
        contract.test_another_size_is_another_blob,
        contract.test_from_any_offset,
        contract.test_several_readers_at_once,
        contract.test_errors_are_all_ours,
    ],
    ids=lambda promise: promise.__name__,
)
def test_the_contract_of_sources(promise: Callable[[Reading], None], root: Root) -> None:
    promise(reading(root))


def test_blobs_are_found_without_a_name(root: Root) -> None:
    """By their digest, among the files of that size; links and what is being made are not looked into."""
    store = CocoonRoot(root.path)
    raw = noise("cidata", 5000)
    blob = Descriptor(media_type="a/b", digest=Digest.of(raw), size=len(raw))
    assert store.has(blob) and everything(store.content(blob)) == raw
    (root.data(ID) / "cidata.img").unlink()
    (root.data(ID) / "cidata.img").symlink_to(root.data(ID) / "config.json")
    assert not CocoonRoot(root.path).has(blob)
    with pytest.raises(EpochOciError):
        everything(store.content(blob))
