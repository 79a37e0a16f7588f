"""From node to node: root, artifact, root; root, artifact, archive; and back to the same artifact."""

import io
import json
from pathlib import Path

import pytest
from cocoon_world import (
    BLOB_ID,
    ID,
    Item,
    Root,
    archive,
    base_image,
    bodies,
    config,
    entries,
    envelope,
    everything,
    fill_snapshot,
    make_root,
    read,
    record,
    written,
)

from epoch_oci.artifacts.read import joined, read_artifact
from epoch_oci.cocoon.envelope import Envelope
from epoch_oci.cocoon.epoch_manifest import envelope_of
from epoch_oci.cocoon.import_archive import write_import_archive
from epoch_oci.cocoon.root import CocoonRoot
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Layer, Manifest
from epoch_oci.flows.pull import PullOptions, pull_to_store
from epoch_oci.flows.push import PushOptions, push
from epoch_oci.stores.base import BytesContent, Content
from epoch_oci.stores.oci_layout import OciLayout


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = make_root(tmp_path / "root")
    fill_snapshot(made)
    base_image(made)
    members = {"image_blob_ids": {BLOB_ID: {}}, "description": "<d>", "network": "n", "queue_size": 7}
    made.write_index({ID: record(name="bot:v2", **members)})
    return made


@pytest.fixture
def layout(root: Root, tmp_path: Path) -> OciLayout:
    found = OciLayout(tmp_path / "layout")
    # Parts of 4 KiB and more, so that one of the files is cut.
    options = PushOptions(part_size=4096)
    report = push(CocoonRoot(root.path), SnapshotKey("bot", "v2"), found, None, options=options)
    assert (report.name, report.tag, report.reference) == ("bot", "v2", f"oci:{tmp_path}/layout:v2")
    assert report.warnings == ()
    return found


def test_to_another_node(root: Root, layout: OciLayout, tmp_path: Path) -> None:
    """The files, the base image, and all that Cocoon said of the snapshot but its ID."""
    other = make_root(tmp_path / "other")
    store = CocoonRoot(other.path)
    report = pull_to_store(layout, "v2", store, options=PullOptions(jobs=2))
    assert all(blob.action == "received" for blob in report.blobs if blob.size)
    [(snapshot_id, entry)] = other.index["snapshots"].items()
    assert {**entry, "id": ID, "data_dir": None} == {**root.index["snapshots"][ID], "data_dir": None}
    ours, theirs = other.data(snapshot_id), root.data(ID)
    assert sorted(path.name for path in ours.iterdir()) == sorted(path.name for path in theirs.iterdir())
    for path in ours.iterdir():
        assert path.stat().st_size == (theirs / path.name).stat().st_size
        if path.stat().st_size < 1 << 24:
            assert path.read_bytes() == (theirs / path.name).read_bytes()
    name = f"{BLOB_ID}.qcow2"
    assert (other.blobs / name).read_bytes() == (root.blobs / name).read_bytes()
    again = Manifest.parse(CocoonRoot(other.path).resolve("bot:v2"))
    first = Manifest.parse(CocoonRoot(root.path).resolve("bot:v2"))
    assert (again.layers, again.base_images, again.created_at) == (first.layers, first.base_images, first.created_at)


def test_to_an_archive_and_into_the_artifact_again(root: Root, layout: OciLayout, tmp_path: Path) -> None:
    """`pull -o -` into `push -`: the same blobs, and the envelope byte for byte."""
    found = read_artifact(layout, "v2")
    files = {file.name: file for file in found.snapshot.files if file.role == "layer"}

    def content(layer: Layer) -> Content:
        carriers = files[layer.filename].carriers
        return joined(layout, carriers) if carriers else BytesContent(b"")

    stream = io.BytesIO()
    write_import_archive(found.snapshot.manifest, content, stream.write)
    spool = tmp_path / "spool"
    spool.mkdir()
    again = read(stream.getvalue(), spool).manifest
    direct = Manifest.parse(CocoonRoot(root.path).resolve("bot:v2"))
    assert again.layers == direct.layers and again.layer_headers == direct.layer_headers
    assert (again.name, again.tag) == ("bot", "v2")
    assert envelope_of(again).raw == envelope_of(direct).raw == bodies(stream.getvalue())["snapshot.json"]
    assert list(entries(stream.getvalue())) == ["snapshot.json", *(layer.filename for layer in direct.layers)]


def test_pushed_twice_it_is_one_artifact(root: Root, layout: OciLayout) -> None:
    before = layout.resolve("v2")
    options = PushOptions(part_size=4096)
    report = push(CocoonRoot(root.path), SnapshotKey("bot", "v2"), layout, None, options=options)
    assert {blob.action for blob in report.blobs} == {"skipped"}
    assert layout.resolve("v2") == before


def test_the_artifact_carries_the_envelope(layout: OciLayout) -> None:
    found = read_artifact(layout, "v2")
    assert found.config is not None
    value = json.loads(found.config.raw)
    config = json.loads(value["cocoonEnvelope"])["config"]
    assert (config["description"], config["network"], config["queue_size"]) == ("<d>", "n", 7)
    base = next(file for file in found.snapshot.files if file.role == "base-image")
    assert everything(joined(layout, base.carriers))


SETTINGS = {
    "shared_memory": True,
    "no_watchdog": True,
    "hugepages": True,
    "mergeable": True,
    "cpu_weight": 200,
    "cpu_quota_us": 150_000,
    "cpu_burst_us": -1,
    "cpuset_cpus": "0-3,8",
    "of_next_year": {"deep": [1, 2.5, None, "x"], "0": {}},
}
"""What later versions of Cocoon know of a VM, and one that none knows."""


def test_settings_of_later_versions_go_from_root_to_root(root: Root, tmp_path: Path) -> None:
    """Known here or not, in the order in which they stood."""
    members = {**record(name="bot:v2"), **SETTINGS}
    root.write_index({ID: {**members, "size_bytes": 5, "last_accessed_at": "2026-07-01T10:00:00Z"}})
    found = OciLayout(tmp_path / "carried")
    push(CocoonRoot(root.path), SnapshotKey("bot", "v2"), found, None)
    other = make_root(tmp_path / "other")
    pull_to_store(found, "v2", CocoonRoot(other.path))
    [(snapshot_id, entry)] = other.index["snapshots"].items()
    assert {**entry, "id": ID, "data_dir": members["data_dir"]} == members
    once, twice = (CocoonRoot(node.path).resolve("bot:v2") for node in (root, other))
    assert envelope_of(Manifest.parse(twice)).config == {
        **envelope_of(Manifest.parse(once)).config,
        "id": snapshot_id,
    }


@pytest.mark.parametrize("config_first", [False, True])
def test_settings_of_later_versions_go_from_archive_to_root_to_archive(config_first: bool, tmp_path: Path) -> None:
    members = {**SETTINGS, **config()} if config_first else {**config(), **SETTINGS}
    head = Envelope.mint(members, config_first=config_first).raw
    spool = tmp_path / "spool"
    spool.mkdir()
    found = read(archive(Item("config.json", b"{}"), head=head), spool)
    assert bodies(written(found.manifest, found.blobs))["snapshot.json"] == head
    node = make_root(tmp_path / "node")
    store = CocoonRoot(node.path)
    store.put(found.files[0].descriptor, BytesContent(b"{}"))
    store.publish("warm", found.document)
    [entry] = node.index["snapshots"].values()
    assert {key: entry[key] for key in SETTINGS} == SETTINGS
    again = Manifest.parse(CocoonRoot(node.path).resolve("warm"))
    back = bodies(written(again, {"config.json": b"{}"}))["snapshot.json"]
    assert {**json.loads(back)["config"], "id": members["id"]} == members
    assert list(json.loads(back)["config"]) == list(members)


def test_what_is_said_of_an_image_blob_comes_back(tmp_path: Path) -> None:
    said = {"ab" * 32: {"of_next_year": [1, {"deep": None}]}}
    head = Envelope.mint(config(image_blob_ids=said)).raw
    spool = tmp_path / "spool"
    spool.mkdir()
    found = read(archive(Item("config.json", b"{}"), head=head), spool)
    node = make_root(tmp_path / "node")
    store = CocoonRoot(node.path)
    store.put(found.files[0].descriptor, BytesContent(b"{}"))
    store.publish("warm", found.document)
    [entry] = node.index["snapshots"].values()
    assert entry["image_blob_ids"] == said


def test_what_stands_beside_the_config_of_an_envelope_comes_back(tmp_path: Path) -> None:
    raw = envelope(config(), compat={"cpu": ["avx2"]}, files=["a"])
    spool = tmp_path / "spool"
    spool.mkdir()
    found = read(archive(Item("a", b"x"), head=raw), spool)
    assert bodies(written(found.manifest, found.blobs))["snapshot.json"] == raw
