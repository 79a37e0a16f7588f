"""A Cocoon root as a target: all at once, under Cocoon's lock, and nobody else's record loses a key."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cocoon_world import (
    BLOB_ID,
    CREATED,
    DATA,
    ID,
    NOW,
    OTHER_BLOB_ID,
    Item,
    Root,
    archive,
    base_image,
    config,
    envelope,
    everything,
    fill_snapshot,
    make_root,
    noise,
    packed,
    read,
    record,
)
from contract.contents import Raw
from disks import FailingCall
from snapshots import WRITERS, Made, make_snapshot
from support.waiting import at_once

from epoch_oci.cocoon.epoch_manifest import envelope_of
from epoch_oci.cocoon.root import CocoonRoot
from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.epoch.sparse import unpacking
from epoch_oci.errors import (
    ConflictError,
    ContentError,
    EpochOciError,
    LocalIOError,
    NotFoundError,
    UsageError,
)
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.base import BytesContent

SNAPSHOT_KINDS = [kind for kind in WRITERS if kind not in ("cloud-image",)]
MODERN_ID = r"[A-Z2-7]{26}"


def opened(root: Root, **options: Any) -> CocoonRoot:
    return CocoonRoot(root.path, clock=lambda: NOW, **options)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return make_root(tmp_path / "root")


def put_all(store: CocoonRoot, made: Made) -> None:
    for blob in Manifest.parse(made.document).descriptors:
        store.put(blob, BytesContent(made.blobs[blob.digest.hex]))
        assert store.has(blob)


def land(root: Root, made: Made, name: str = "team/bot:v1", **options: Any) -> str:
    """Publish a snapshot; returns its ID."""
    store = opened(root)
    put_all(store, made)
    store.publish(name, made.document, **options)
    return root.index["names"][name.removesuffix(":latest")]


def unfolded(manifest: Manifest, made: Made, name: str) -> bytes:
    """The content of a file, holes and all."""
    layer = next(layer for layer in manifest.layers if layer.filename == name)
    raw, header = made.blobs[layer.digest.hex], manifest.layer_headers.get(name)
    shape = unpacking(header.pax_records, layer.size) if header else None
    if shape is None:
        return raw
    file, used = bytearray(shape.logical_size), 0
    for segment in shape.segments:
        file[segment.offset : segment.offset + segment.length] = raw[used : used + segment.length]
        used += segment.length
    return bytes(file)


@pytest.mark.parametrize("kind", SNAPSHOT_KINDS)
def test_from_every_writer(kind: str, root: Root) -> None:
    made = make_snapshot(kind)
    manifest = Manifest.parse(made.document)
    snapshot_id = land(root, made)
    names = sorted(layer.filename for layer in manifest.layers)
    assert sorted(os.listdir(root.data(snapshot_id))) == names
    for name in names:
        path = root.data(snapshot_id) / name
        assert path.read_bytes() == unfolded(manifest, made, name)
    for layer in manifest.base_images:
        path = root.blobs / layer.filename
        assert path.read_bytes() == made.blobs[layer.digest.hex]
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
    entry = root.index["snapshots"][snapshot_id]
    assert entry["name"] == "team/bot:v1" and entry["id"] == snapshot_id
    assert entry["data_dir"] == str(root.data(snapshot_id))
    assert entry["created_at"] == (NOW if manifest.created_at.startswith("0001") else manifest.created_at)
    assert entry.get("image_blob_ids", {}) == ({BLOB_ID: {}} if kind in ("W1", "W2b", "W3a", "W3b") else {})
    assert not {"pending", "windows", "network"} & set(entry)
    assert root.index["names"] == {"team/bot:v1": snapshot_id}
    assert oct(root.index_path.stat().st_mode & 0o777) == "0o644"


def test_holes_stay_holes_and_runs_stay_runs(root: Root, tmp_path: Path) -> None:
    """What was packed is packed again to the very same blob, also where a run has pages of zeros."""
    spool = tmp_path / "spool"
    spool.mkdir()
    raw = noise("a", 4096) + bytes(8192) + noise("b", 4096)
    size = 1 << 34
    found = read(archive(Item("cow.raw", raw, 0o600, packed([(1 << 20, len(raw))], size))), spool)
    store = opened(root)
    for blob in found.manifest.descriptors:
        store.put(blob, BytesContent(raw))
    store.publish("warm", found.document)
    path = root.data(root.index["names"]["warm"]) / "cow.raw"
    assert path.stat().st_size == size and path.stat().st_blocks * 512 < 1 << 20
    again = Manifest.parse(opened(root).resolve("warm"))
    assert again.layers == found.manifest.layers
    assert again.layer_headers == found.manifest.layer_headers


def test_a_recorded_export_lands_and_leaves(root: Root, tmp_path: Path) -> None:
    """Archive, root, manifest: the same blobs, and Cocoon's own words of it but for ID and name."""
    spool = tmp_path / "spool"
    spool.mkdir()
    found = read((DATA / "export-0.3.8.tar").read_bytes(), spool)
    store = opened(root)
    for layer in found.manifest.layers:
        store.put(layer.descriptor, found.content(layer))
    store.publish("warm:v2", found.document)
    again = Manifest.parse(opened(root).resolve("warm:v2"))
    assert again.layers == found.manifest.layers
    for name, header in found.manifest.layer_headers.items():
        assert again.layer_headers[name].pax_records == header.pax_records
    before, after = envelope_of(found.manifest), envelope_of(again)
    assert list(after.config) == list(before.config)
    assert {**after.config, "id": before.id, "name": before.name} == before.config


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777], ids=oct)
def test_modes_are_those_that_cocoon_gives_whatever_the_umask(umask: int, root: Root) -> None:
    """L2 and R36: nobody else may write, no set-user-ID; a file is 0640 where nothing is known of its mode."""
    made = make_snapshot("W3b")
    value = json.loads(made.raw)
    modes = {"config.json": 0o6777, "cidata.img": 0o400, "state.json": 0o600, "overlay.qcow2": 0o664}
    value["layerHeaders"] = {
        "memory-ranges": {"paxRecords": value["layerHeaders"]["memory-ranges"]["paxRecords"]},
        **{name: {"mode": mode} for name, mode in modes.items()},
    }
    made = replace(made, raw=gojson.dumps(value))
    before = os.umask(umask)
    try:
        snapshot_id = land(root, made)
    finally:
        os.umask(before)
    folder = root.data(snapshot_id)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()} == {
        "config.json": "0o755",
        "cidata.img": "0o400",
        "state.json": "0o600",
        "overlay.qcow2": "0o644",
        "memory-ranges": "0o640",
    }
    stage = root.path / "snapshot/.epoch-oci"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in [stage, *stage.rglob("*")] if path.is_dir())


def test_modes_go_from_root_to_root(root: Root, tmp_path: Path) -> None:
    made = make_snapshot("W3b")
    known = root.data(land(root, made, "bot"))
    (known / "cidata.img").chmod(0o400)
    (known / "state.json").chmod(0o644)
    document = opened(root).resolve("bot")
    other = make_root(tmp_path / "other")
    store = opened(other)
    source = opened(root)
    for blob in Manifest.parse(document).descriptors:
        store.put(blob, source.content(blob))
    store.publish("bot", document)
    there = other.data(other.index["names"]["bot"])
    assert {path.name: path.stat().st_mode for path in there.iterdir()} == {
        path.name: path.stat().st_mode for path in known.iterdir()
    }


@pytest.mark.parametrize("folders", ["snapshot/db", "snapshot", "cloudimg/db", "oci/db", "firecracker/db"])
def test_a_root_in_which_no_snapshot_was_ever_made(folders: str, tmp_path: Path) -> None:
    """Cocoon makes its folders when it first needs them; so do we, with its modes."""
    fresh = Root(tmp_path / "root")
    (fresh.path / folders).mkdir(parents=True)
    store = opened(fresh)
    assert list(store.snapshots()) == list(store.sizes()) == list(store.audit()) == []
    before = fresh.tree()
    with pytest.raises(NotFoundError, match="holds no snapshot"):
        store.resolve("bot")
    assert fresh.tree() == before
    snapshot_id = land(fresh, make_snapshot("W3b"), "bot")
    assert Manifest.parse(opened(fresh).resolve("bot")).snapshot_id == snapshot_id
    for folder in ("snapshot/db", "snapshot/localfile", "cloudimg/blobs"):
        if folder not in before:
            assert stat.S_IMODE((fresh.path / folder).stat().st_mode) == 0o750, folder


def test_cocoons_directories_are_untouched_until_the_end(root: Root) -> None:
    """Its collector removes directories without a record, and images that nobody needs."""
    made = make_snapshot("W3b")
    store = opened(root)
    put_all(store, made)
    assert os.listdir(root.path / "snapshot/localfile") == [] and os.listdir(root.blobs) == []
    assert os.listdir(root.path / "snapshot/db") == []
    store.publish("bot", made.document)
    assert [path for path in (root.path / "snapshot/.epoch-oci").rglob("*") if path.is_file()] == []


def test_again_changes_nothing(root: Root) -> None:
    """I10: in whatever form the files are there, and without the blobs being sent again."""
    for kind in SNAPSHOT_KINDS:
        made = make_snapshot(kind, name=kind)
        land(root, made, kind)
    for kind in SNAPSHOT_KINDS:
        made = make_snapshot(kind, name=kind)
        before = root.tree()
        store = opened(root)
        store.expect(kind, made.document)
        assert all(store.has(blob) for blob in Manifest.parse(made.document).descriptors)
        store.publish(kind, made.document)
        land(root, made, kind)
        after = root.tree()
        staging = [name for name in after if ".epoch-oci" in name]
        assert {name: after[name] for name in after if name not in staging} == {
            name: before[name] for name in before if name not in staging
        }


def test_what_is_not_the_same(root: Root) -> None:
    """One bit of content, one word of metadata, one file more: a conflict each."""
    made = make_snapshot("W3b")
    snapshot_id = land(root, made)
    other = json.loads(made.raw)
    for change in ({"cpu": 3}, {"image": "x"}, {"layers": other["layers"][:-1]}):
        value = {**other, **change}
        with pytest.raises(ConflictError):
            opened(root).expect("team/bot:v1", replace(made, raw=gojson.dumps(value)).document)
    for name, raw in (("config.json", b"x"), ("memory-ranges", None)):
        path = root.data(snapshot_id) / name
        saved = path.read_bytes()
        with path.open("r+b") as file:
            if raw is None:  # a byte where the map has a hole
                file.seek(700_000)
                file.write(b"x")
            else:
                file.write(raw)
        with pytest.raises(ConflictError):
            opened(root).expect("team/bot:v1", made.document)
        path.write_bytes(saved)
    opened(root).expect("team/bot:v1", made.document)
    (root.data(snapshot_id) / "more").touch()
    with pytest.raises(ConflictError):
        opened(root).expect("team/bot:v1", made.document)


def test_a_name_that_is_taken(root: Root) -> None:
    """With `replace` the other snapshot stays whole, and only loses the name: somebody may be cloning it."""
    fill_snapshot(root)
    root.write_index({ID: record(name="bot", x=[1])})
    made = make_snapshot("W3b")
    before = root.tree()
    with pytest.raises(ConflictError):
        opened(root).expect("bot", made.document)
    store = opened(root)
    put_all(store, made)
    with pytest.raises(ConflictError) as caught:
        store.publish("bot", made.document)
    assert "--force" in str(caught.value)
    assert {name: root.tree()[name] for name in before} | {"snapshot": None} == {**before, "snapshot": None}
    store.publish("bot", made.document, replace=True)
    index = root.index
    assert index["snapshots"][ID] == {**record(name="bot", x=[1]), "name": ""}
    assert index["names"] == {"bot": next(known for known in index["snapshots"] if known != ID)}
    assert sorted(os.listdir(root.data(ID)))
    assert Manifest.parse(opened(root).resolve(ID)).snapshot_id == ID


COUNTED = {"size_bytes": 9, "last_accessed_at": NOW}


@pytest.mark.parametrize(
    ("records", "name"),
    [
        ([], "team/bot:v1"),
        ([record()], "Größe, groß:v1"),
        ([record(**COUNTED)], "Bot_1.x:latest"),
        ([record(name="team/warm:v7", **COUNTED)], "team/bot:v1"),
        ([record(name="bot:v1", **COUNTED)], "bot:v1"),
    ],
)
def test_a_record_has_a_name_that_its_cocoon_takes(records, name, root):
    root.write_index(dict(zip([ID], records, strict=False)))
    assert land(root, make_snapshot("W2b"), name, replace=True)


@pytest.mark.parametrize(
    ("records", "name", "better"),
    [
        ([], "größe:v1", "gr-e:v1"),
        ([], "b" * 70, "b" * 63),
        ([record(**COUNTED)], "bot:v1", "bot-v1"),
        ([record(**COUNTED)], "team/bot:latest", "team-bot"),
        ([record(name="", **COUNTED)], ".x:v1", "x-v1"),
        ([record(name="team/warm:v7", **COUNTED)], "a b:v1", "a-b:v1"),
    ],
)
def test_another_name_is_refused_before_anything_comes_and_one_that_would_do_is_named(records, name, better, root):
    root.write_index(dict(zip([ID], records, strict=False)))
    with pytest.raises(UsageError) as caught:
        opened(root).expect(name, make_snapshot("W2b").document)
    assert caught.value.hint == f"name it with --as {better}"
    assert land(root, make_snapshot("W2b"), better)


def test_a_snapshot_in_the_making_is_never_replaced(root: Root) -> None:
    root.write_index({ID: {**record(name="bot"), "pending": True}})
    made = make_snapshot("W3b")
    for replacing in (False, True):
        with pytest.raises(ConflictError, match="making"):
            opened(root).expect("bot", made.document, replace=replacing)
        store = opened(root)
        put_all(store, made)
        with pytest.raises(ConflictError, match="making"):
            store.publish("bot", made.document, replace=replacing)
    assert root.index["snapshots"] == {ID: {**record(name="bot"), "pending": True}}


FORMS: dict[str, Callable[[Any], bytes]] = {
    "compact": lambda value: gojson.dumps(value, indent=None) + b"\n",
    "indented": lambda value: gojson.dumps(value) + b"\n",
    "indented-without-newline": gojson.dumps,
    "plain": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n",
    "plain-indented": lambda value: json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n",
    "by-hand": lambda value: json.dumps(value, indent=7).encode() + b"\n\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_key_of_every_other_record_stays(form: str, root: Root) -> None:
    """Known or not, at every level, in the file's own form."""
    others = {
        "AAAA": {"id": "AAAA", "name": "a<b>&\u2028ü", "created_at": CREATED, "unknown": {"deep": [1, None, 1.5, "x"]}},
        "CCCC": {**record("CCCC", "c"), "pending": True, "size_bytes": 7},
        "dddd": None,
    }
    value = {"snapshots": others, "names": {"a<b>&\u2028ü": "AAAA", "c": "CCCC"}, "tombstones": {"t": {"k": 1}}}
    raw = FORMS[form](value)
    root.index_path.write_bytes(raw)
    snapshot_id = land(root, make_snapshot("W3b"))
    written = root.index_path.read_bytes()
    index = json.loads(written)
    fresh = index["snapshots"].pop(snapshot_id)
    del index["names"]["team/bot:v1"]
    assert index == value
    assert list(json.loads(written)["snapshots"]) == sorted([*others, snapshot_id])
    assert list(index["snapshots"]["AAAA"]) == list(others["AAAA"])
    if form != "by-hand":
        full = {**value, "snapshots": dict(sorted({**others, snapshot_id: fresh}.items()))}
        full["names"] = dict(sorted({**value["names"], "team/bot:v1": snapshot_id}.items()))
        assert written == FORMS[form](full)
    assert fresh["size_bytes"] > 0 and fresh["last_accessed_at"] == NOW


def test_the_files_mode_is_kept(root: Root) -> None:
    """0600 is what an old `epoch pull` leaves."""
    root.write_index({})
    root.index_path.chmod(0o600)
    land(root, make_snapshot("W3b"))
    assert stat.S_IMODE(root.index_path.stat().st_mode) == 0o600


def test_ids_like_those_that_are_there(root: Root) -> None:
    import re

    made = make_snapshot("W3b")
    assert re.fullmatch(MODERN_ID, land(root, made, "a"))
    root.write_index({"9f3c1a7be20d4c55": record("9f3c1a7be20d4c55")})
    assert re.fullmatch(r"[0-9a-f]{16}", land(root, made, "b"))
    root.write_index({ID: record(), "9f3c1a7be20d4c55": record("9f3c1a7be20d4c55", "x")})
    assert re.fullmatch(MODERN_ID, land(root, made, "c"))


def test_an_id_is_never_given_twice(root: Root) -> None:
    taken = "00" * 8
    root.write_index({taken: record(taken)})
    numbers = iter([bytes(8), bytes(8), b"\x01" * 8])
    made = make_snapshot("W3b")
    store = opened(root, random=lambda size: next(numbers)[:size])
    put_all(store, made)
    store.publish("bot", made.document)
    assert set(root.index["snapshots"]) == {taken, "01" * 8}


def test_where_cocoon_says_that_files_are(root: Root) -> None:
    """A root that is seen here under another path: the others' records tell Cocoon's own."""
    root.write_index({ID: record()})
    snapshot_id = land(root, make_snapshot("W3b"))
    assert root.index["snapshots"][snapshot_id]["data_dir"] == f"/var/lib/cocoon/snapshot/localfile/{snapshot_id}"
    root.write_index({ID: record(), "x": {**record("x", "y"), "data_dir": "/data01/cocoon/snapshot/localfile/x"}})
    snapshot_id = land(root, make_snapshot("W3b"))
    assert root.index["snapshots"][snapshot_id]["data_dir"] == str(root.data(snapshot_id))


def test_an_envelope_cannot_say_what_a_record_must_not(root: Root, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    of_a_record = {"data_dir": "/etc", "pending": True, "created_at": "x", "size_bytes": 1, "last_accessed_at": "x"}
    members = config(**of_a_record, queue_size=3)
    found = read(archive(Item("a", b"x"), head=envelope(members)), spool)
    store = opened(root)
    store.put(found.files[0].descriptor, BytesContent(b"x"))
    store.publish("warm", found.document)
    [entry] = root.index["snapshots"].values()
    assert set(entry) == {*config(), "queue_size", "created_at", "data_dir"}
    assert entry["created_at"] == NOW and entry["data_dir"].startswith(str(root.path))


@pytest.mark.parametrize("key", ["Pending", "DATA_DIR", "Shared_Memory", "\u017fize_bytes"])
def test_an_envelope_cannot_say_it_in_another_letter_case_either(key: str, root: Root, tmp_path: Path) -> None:
    """Go's decoder would read it all the same."""
    value = json.loads(make_snapshot("W3b").raw)
    value["cocoonEnvelope"] = envelope(config(**{key: True})).decode()
    with pytest.raises(ContentError, match="in case only"):
        opened(root).expect("bot", Made(SnapshotKey("bot", "v1"), gojson.dumps(value)).document)


def test_a_base_image_that_is_there_stays(root: Root) -> None:
    """The very file; and it counts as a blob that need not be sent."""
    made = make_snapshot("W3b")
    manifest = Manifest.parse(made.document)
    base_image(root, raw=noise("base", 100_000))
    path = root.blobs / f"{BLOB_ID}.qcow2"
    before = path.stat()
    store = opened(root)
    assert store.has(manifest.base_images[0].descriptor)
    for layer in manifest.layers:
        store.put(layer.descriptor, BytesContent(made.blobs[layer.digest.hex]))
    store.publish("bot", made.document)
    assert (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_nlink) == (before.st_ino, before.st_mtime_ns, 1)


def test_another_base_image_of_the_name(root: Root) -> None:
    """Never replaced, with `replace` neither: other VMs build on it."""
    made = make_snapshot("W3b")
    base_image(root, raw=noise("other", 100_000))
    before = root.tree()
    for replacing in (False, True):
        with pytest.raises(ConflictError, match="another image"):
            opened(root).expect("bot", made.document, replace=replacing)
        store = opened(root)
        put_all(store, made)
        with pytest.raises(ConflictError, match="another image"):
            store.publish("bot", made.document, replace=replacing)
    assert all(root.tree()[name] == before[name] for name in before if name != "snapshot")


def test_a_base_image_that_cocoon_would_not_find(root: Root) -> None:
    made = make_snapshot("W3b")
    value = json.loads(made.raw)
    value["baseImages"][0]["filename"] = "ubuntu.qcow2"
    with pytest.raises(ContentError) as caught:
        opened(root).expect("bot", replace(made, raw=gojson.dumps(value)).document)
    assert caught.value.code == "NAME"


def test_one_blob_in_several_places(root: Root) -> None:
    """Two files and a base image of one content are three files: Cocoon may write to one of them."""
    raw = noise("same", 9000)
    layer = {"digest": Digest.of(raw).hex, "size": len(raw)}
    value = json.loads(make_snapshot("W3a").raw)
    value["layers"] = [{**layer, "filename": "a"}, {**layer, "filename": "b"}]
    value["baseImages"] = [{**layer, "filename": f"{BLOB_ID}.qcow2"}]
    made = Made(SnapshotKey("x", "y"), gojson.dumps(value), {layer["digest"]: raw})
    folder = root.data(land(root, made))
    paths = [folder / "a", folder / "b", root.blobs / f"{BLOB_ID}.qcow2"]
    assert [path.read_bytes() for path in paths] == [raw] * 3
    assert len({path.stat().st_ino for path in paths}) == 3
    assert [oct(path.stat().st_mode & 0o777) for path in paths] == ["0o640", "0o640", "0o444"]


def test_blobs_of_another_snapshot_are_copied(root: Root) -> None:
    first = land(root, make_snapshot("W3b"), "first")
    made = make_snapshot("W3b")
    store = opened(root)
    found = [blob for blob in Manifest.parse(made.document).descriptors if store.has(blob)]
    assert len(found) == 5  # the memory's runs do not end with a page, so that it packs to another blob
    put_all(store, made)
    store.publish("second", made.document)
    second = root.index["names"]["second"]
    for name in os.listdir(root.data(first)):
        ours, theirs = root.data(second) / name, root.data(first) / name
        assert ours.read_bytes() == theirs.read_bytes() and not ours.samefile(theirs)


def test_the_directory_of_images_is_made(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", blobs=False)
    land(root, make_snapshot("W3b"))
    assert [path.name for path in root.blobs.iterdir()] == [f"{BLOB_ID}.qcow2"]


def test_blobs_that_are_missing(root: Root) -> None:
    made = make_snapshot("W3b")
    manifest = Manifest.parse(made.document)
    for absent in (manifest.layers[0], manifest.base_images[0]):
        store = opened(root)
        for layer in (*manifest.layers, *manifest.base_images):
            if layer is not absent:
                store.put(layer.descriptor, BytesContent(made.blobs[layer.digest.hex]))
        with pytest.raises(NotFoundError) as caught:
            store.publish("bot", made.document)
        assert str(absent.digest) in str(caught.value)
        assert not root.index_path.exists() and os.listdir(root.path / "snapshot/localfile") == []
        for layer in (*manifest.layers, *manifest.base_images):
            (root.path / f"snapshot/.epoch-oci/blobs/sha256/{layer.digest.hex}").unlink(missing_ok=True)


def test_wrong_blobs_are_not_taken(root: Root) -> None:
    raw = noise("x", 5000)
    blob = Descriptor(media_type="a/b", digest=Digest.of(raw), size=len(raw))
    store = opened(root)
    for wrong in (raw[:-1], raw + b"x", raw[:-1] + b"\x00"):
        with pytest.raises(ContentError):
            store.put(blob, Raw(wrong, 1000))
        assert not store.has(blob)
    with store.assemble(blob) as assembly:
        assembly.write(2500, raw[2500:], 2500)
    with store.assemble(blob) as assembly:
        assert assembly.missing() == [(0, 2500)]
        assembly.write(0, raw[:2500], 0)
        assembly.finish()
    assert store.has(blob) and everything(store.content(blob)) == raw


def test_a_cloud_image_is_not_for_here(root: Root) -> None:
    made = make_snapshot("cloud-image")
    for step in (opened(root).expect, opened(root).publish):
        with pytest.raises(UsageError, match="cloud image"):
            step("bot", made.document)


def test_no_root_to_write_to(tmp_path: Path, root: Root) -> None:
    made = make_snapshot("W3b")
    with pytest.raises(NotFoundError):
        opened(Root(tmp_path / "none")).expect("bot", made.document)
    assert not (tmp_path / "none").exists()
    (root.path / "meta").mkdir()
    (root.path / "meta/meta.db").touch()
    with pytest.raises(ContentError):
        opened(root).put(Manifest.parse(made.document).descriptors[0], BytesContent(b""))
    assert not (root.path / "snapshot/.epoch-oci").exists()


@pytest.mark.parametrize("place", ["snapshot", "snapshot/localfile", "snapshot/db", "cloudimg/blobs"])
def test_a_place_that_others_write_to_is_told_of_once(place: str, root: Root) -> None:
    (root.path / place).chmod(0o777)
    told: list[str] = []
    made = make_snapshot("W3b")
    store = opened(root, warn=told.append)
    put_all(store, made)
    store.publish("bot", made.document)
    assert len(told) == 1 and "everybody" in told[0]
    assert root.index["names"]["bot"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of_once(number: int, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    told: list[str] = []
    made = make_snapshot("W3b")
    store = opened(root, warn=told.append, lock_seconds=0.0)
    put_all(store, made)
    store.publish("bot", made.document)
    assert len(told) == 1 and "no locks" in told[0]
    assert opened(root).resolve("bot").raw


def test_an_index_that_cannot_be_read_is_left_alone(root: Root) -> None:
    root.index_path.write_bytes(b"{broken")
    with pytest.raises(ContentError):
        opened(root).expect("bot", make_snapshot("W3b").document)
    assert root.index_path.read_bytes() == b"{broken"


def test_cocoons_lock_is_waited_for_and_not_for_ever(root: Root) -> None:
    made = make_snapshot("W3b")
    store = opened(root, lock_seconds=0.2)
    put_all(store, made)
    lock = root.path / "snapshot/db/snapshots.lock"
    lock.touch()
    inode = lock.stat().st_ino
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with at_once(), pytest.raises(LocalIOError, match=r"snapshots\.lock"):
            store.publish("bot", made.document)
        assert not root.index_path.exists() and os.listdir(root.path / "snapshot/localfile") == []
        assert os.listdir(root.blobs) == []
    store.publish("bot", made.document)
    assert lock.stat().st_ino == inode


def test_the_lock_is_held_while_it_shows(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the directory, nor the image, nor the index appears without it."""
    seen = []
    for call in ("rename", "link"):
        real = getattr(os, call)

        def watched(source: object, target: str, *, real: Any = real, **more: object) -> None:
            with (root.path / "snapshot/db/snapshots.lock").open("a") as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    seen.append((target, False))
                except BlockingIOError:
                    seen.append((target, True))
            real(source, target, **more)

        monkeypatch.setattr(os, call, watched)
    made = make_snapshot("W3b")
    snapshot_id = land(root, made)
    held = dict(seen)
    assert held[snapshot_id] and held["snapshots.json"] and held[f"{BLOB_ID}.qcow2"]


def publish_in_child(path: str, name: str, barrier: Any) -> None:
    store = CocoonRoot(Path(path))
    made = make_snapshot("W3b", name=name)
    put_all(store, made)
    barrier.wait(60)
    store.publish(name, made.document)


def test_many_writers(root: Root) -> None:
    """I3: no snapshot is lost, and the common base image is put there once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    names = [f"bot-{number}" for number in range(3)] + ["bot-0"]
    workers = [context.Process(target=publish_in_child, args=(str(root.path), name, barrier)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert sorted(root.index["names"]) == ["bot-0", "bot-1", "bot-2"]
    assert_sound(root)
    assert len(root.index["snapshots"]) == 3
    assert os.listdir(root.blobs) == [f"{BLOB_ID}.qcow2"]


def assert_sound(root: Root) -> None:
    """Whatever the index lists is there, whole; nothing has a name that it should not have."""
    if not root.index_path.exists():
        return
    index = root.index
    for name, snapshot_id in index["names"].items():
        assert index["snapshots"][snapshot_id]["name"] == name
    for snapshot_id, entry in index["snapshots"].items():
        made = make_snapshot("W3b", name=entry["name"])
        manifest = Manifest.parse(made.document)
        for layer in manifest.layers:
            content = (root.data(snapshot_id) / layer.filename).read_bytes()
            assert content == unfolded(manifest, made, layer.filename)
        for layer in manifest.base_images:
            assert (root.blobs / layer.filename).read_bytes() == made.blobs[layer.digest.hex]


def failures() -> Iterator[tuple[str, int]]:
    for function, most in (("rename", 3), ("link", 7), ("fsync", 9), ("open", 30), ("mkdir", 3), ("fchmod", 5)):
        yield from ((function, number) for number in range(1, most + 1))


@pytest.mark.parametrize(("function", "number"), list(failures()))
def test_when_a_call_fails(function: str, number: int, root: Root) -> None:
    """Old or new, and the same command again gets there."""
    fill_snapshot(root)
    old = root.write_index({ID: record(name="old")})
    made = make_snapshot("W3b", name="bot")
    store = opened(root)
    put_all(store, made)
    failing = FailingCall(function, number)
    failed = False
    with failing.armed():
        try:
            store.publish("bot", made.document)
        except EpochOciError as error:
            failed = True
            assert isinstance(error, LocalIOError)
    others = {name for name in os.listdir(root.path / "snapshot/localfile") if name != ID}
    listed = set(root.index["snapshots"]) - {ID}
    assert listed <= others
    if failed and not listed:
        assert root.index_path.read_bytes() == old
        assert os.listdir(root.blobs) == []
        assert all(not os.listdir(root.data(name)) for name in others)  # at most an empty one, which Cocoon collects
    again = opened(root)
    put_all(again, made)
    again.publish("bot", made.document)
    assert set(root.index["names"]) == {"old", "bot"}
    assert root.index["snapshots"][ID] == record(name="old")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from snapshots import make_snapshot
    from epoch_oci.cocoon.root import CocoonRoot
    from epoch_oci.epoch.manifest import Manifest
    from epoch_oci.stores.base import BytesContent
    left = int(sys.argv[3])
    def counted(real):
        def call(*arguments, **more):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)
        return call
    for name in ("rename", "link", "fsync", "unlink", "rmdir", "mkdir", "fchmod"):
        setattr(os, name, counted(getattr(os, name)))
    made = make_snapshot("W3b", name="bot")
    store = CocoonRoot(Path(sys.argv[2]))
    for blob in Manifest.parse(made.document).descriptors:
        if not store.has(blob):
            store.put(blob, BytesContent(made.blobs[blob.digest.hex]))
    store.publish("bot", made.document)
"""


def test_killed_anywhere(root: Root) -> None:
    """After SIGKILL at every step in turn: sound, tidy when it is through, and it gets there in the end."""
    script = textwrap.dedent(KILLED)
    tests = str(Path(__file__).parent)
    for step in range(1, 200):
        done = subprocess.run(
            [sys.executable, "-c", script, tests, str(root.path), str(step)], capture_output=True, check=False
        )
        assert_sound(root)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert step > 3 and set(root.index["names"]) == {"bot"}
    land(root, make_snapshot("W3b", name="bot"), "bot")
    leftovers = [path for path in (root.path / "snapshot/.epoch-oci").rglob("*") if path.is_file()]
    assert leftovers == [] and len(root.index["snapshots"]) == 1


def test_forgotten_blobs_are_thrown_away(root: Root) -> None:
    raw = noise("x", 5000)
    blob = Descriptor(media_type="a/b", digest=Digest.of(raw), size=len(raw))
    other = BytesContent(b"other")
    another = Descriptor(media_type="a/b", digest=Digest.of(b"other"), size=5)
    with closing(opened(root)) as store:
        store.put(blob, BytesContent(raw))
        store.put(another, other)
        assert store.has(blob)
    path = root.path / f"snapshot/.epoch-oci/blobs/sha256/{blob.digest.hex}"
    os.utime(path, (1, 1))
    before = root.tree()
    with closing(opened(root)) as store:
        store.expect("bot", make_snapshot("W3b").document)
        assert root.tree() == before, "a look before the leap writes nothing"
        with closing(opened(root)) as quick:
            quick.put(another, other)
        assert path.exists(), "somebody else may count on it"
    opened(root).put(another, other)
    assert not path.exists()


def test_what_others_count_on_stays_until_they_are_done(root: Root) -> None:
    """Two pulls with blobs in common: the one that is through first leaves the other what it has seen waiting."""
    made, again = (make_snapshot("W3b", name=name) for name in ("bot", "twin"))
    with closing(opened(root)) as slow, closing(opened(root)) as quick:
        put_all(slow, again)
        put_all(quick, made)
        quick.publish("bot", made.document)
        slow.publish("twin", again.document)
    assert_sound(root)
    assert [path for path in (root.path / "snapshot/.epoch-oci").rglob("*") if path.is_file()] == []


def test_the_image_ids_of_the_envelope_are_pinned_too(root: Root, tmp_path: Path) -> None:
    """Trap 16."""
    spool = tmp_path / "spool"
    spool.mkdir()
    found = read(archive(Item("a", b"x"), head=envelope(config(image_blob_ids={OTHER_BLOB_ID: {}}))), spool)
    store = opened(root)
    store.put(found.files[0].descriptor, BytesContent(b"x"))
    store.publish("warm", found.document)
    [entry] = root.index["snapshots"].values()
    assert entry["image_blob_ids"] == {OTHER_BLOB_ID: {}}


def test_blobs_come_in_several_threads(root: Root) -> None:
    """As a pull brings them: afterwards nobody holds what waits, and nothing of it is left."""
    made = make_snapshot("W3b", name="bot")
    blobs = Manifest.parse(made.document).descriptors
    for _ in range(5):
        with closing(opened(root)) as store, ThreadPoolExecutor(len(blobs)) as pool:
            ready = threading.Barrier(len(blobs))

            def put(blob: Descriptor, store: CocoonRoot = store, ready: threading.Barrier = ready) -> None:
                ready.wait(60)
                store.put(blob, BytesContent(made.blobs[blob.digest.hex]))

            list(pool.map(put, blobs))
            store.publish("bot", made.document, replace=True)
        assert [path for path in (root.path / "snapshot/.epoch-oci").rglob("*") if path.is_file()] == []
