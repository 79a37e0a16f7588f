"""Snapshots of modern Epoch: golden artifacts both ways, what is written, and its exact return."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cocoonstack_artifacts import (
    CONFIG,
    DATA,
    DIALECT,
    SNAPSHOT,
    TITLE,
    altered,
    decode,
    documents,
    encode,
    epoch,
    file,
    folders,
    hex_of,
    layer,
    part_digests,
    returned,
)
from epoch_strategies import PROPERTY, raw_documents
from hypothesis import assume, given
from hypothesis import strategies as st

from epoch_oci import schemas
from epoch_oci.dialects.base import EncodeOptions
from epoch_oci.dialects.foreign import identified
from epoch_oci.epoch import sparse
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Manifest
from epoch_oci.errors import ContentError, PolicyError, UsageError
from epoch_oci.oci import media_types
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import MANIFEST
from epoch_oci.oci.parts import PartTable

EPOCH = Path(__file__).parent / "data" / "epoch"
GIB = 1 << 30
ZERO = "0001-01-01T00:00:00Z"
TAGS = ("w1", "w2a", "w2b", "w3a", "w3b", "w4", "escapes", "layers-null", "unknown-members", "zero-times")


def config_of(artifact):
    return json.loads(artifact.config.raw)


def facts(snapshot):
    """All that a reader of Epoch makes of a snapshot."""
    epoch = snapshot.manifest
    records = {name: header.pax_records for name, header in epoch.layer_headers.items()}
    return (
        [(item.filename, item.digest, item.size) for item in epoch.layers],
        {name: header.mode for name, header in epoch.layer_headers.items() if header.mode},
        {name: (item[sparse.MAP], item[sparse.SIZE]) for name, item in records.items() if sparse.is_packed(item)},
        (epoch.snapshot_id, epoch.image, epoch.cpu, epoch.memory, epoch.storage, epoch.nics, epoch.name, epoch.tag),
    )


# Golden artifacts


@pytest.mark.parametrize("folder", folders("written"), ids=lambda folder: folder.name)
def test_written_artifacts_both_ways(folder):
    raw = (folder / "epoch-manifest.json").read_bytes()
    artifact = encode(raw)
    assert artifact.manifest.raw == (folder / "oci-manifest.json").read_bytes()
    assert artifact.config.raw == (folder / "config.json").read_bytes()
    snapshot = returned(artifact)
    assert snapshot.epoch.raw == raw
    assert (snapshot.dialect, snapshot.derived, snapshot.epoch.media_type) == ("cocoonstack", False, EPOCH_MANIFEST)
    assert [(item.name, item.digest, item.size, item.media_type) for item in snapshot.files] == [
        (item.name, item.digest, item.size, item.media_type) for item in artifact.files
    ]


@pytest.mark.parametrize("folder", folders("read"), ids=lambda folder: folder.name)
def test_artifacts_of_others(folder):
    snapshot = decode(*documents(folder))
    assert snapshot.epoch.raw == (folder / "epoch-manifest.json").read_bytes()
    assert (snapshot.dialect, snapshot.derived) == ("cocoonstack", True)


@pytest.mark.parametrize("name", TAGS)
def test_every_epoch_document_has_been_written(name):
    assert (DATA / "written" / name / "epoch-manifest.json").read_bytes() == (EPOCH / f"{name}.json").read_bytes()


@pytest.mark.parametrize("folder", folders("written") + folders("read"), ids=lambda folder: folder.name)
def test_documents_fit_their_schemas(folder):
    manifest = Document(MANIFEST, (folder / "oci-manifest.json").read_bytes())
    kind = schemas.kind_of(manifest.json())
    assert kind in ("cocoonstack-snapshot-manifest.v1", "cocoonstack-os-image-manifest.v1")
    schemas.check(manifest, kind, "the manifest")
    if manifest.json()["config"]["mediaType"] == CONFIG:
        config = Document(CONFIG, (folder / "config.json").read_bytes())
        schemas.check(config, "cocoonstack-snapshot-config.v1", "the config")
    epoch = identified(decode(*documents(folder)), "bot", "v1").epoch
    schemas.check(epoch, "epoch-manifest.v1", "the Epoch manifest")


# Writing


def test_the_artifact_of_a_snapshot():
    artifact = encode((EPOCH / "w3b.json").read_bytes())
    value, config = json.loads(artifact.manifest.raw), config_of(artifact)
    assert artifact.manifest == Document.encode(media_types.MANIFEST, value)
    assert value["artifactType"] == SNAPSHOT
    assert value["config"]["mediaType"] == CONFIG
    assert value["annotations"]["org.opencontainers.image.created"] == "2026-04-04T21:07:33.418205113+08:00"
    assert list(config) == [
        *("schemaVersion", "snapshotId", "image", "imageBlobIds", "cpu", "memory", "storage", "nics", "files"),
        *("createdAt", "epochManifest"),
    ]
    assert config["files"]["memory-ranges"] == {
        "mode": 420,
        "sparseMap": '[{"o":0,"l":655360},{"o":1048576,"l":411435008}]',
        "sparseSize": GIB,
    }


def test_media_types_are_those_of_the_names():
    types = {item["annotations"][TITLE]: item["mediaType"] for item in json.loads(ALL_NAMES.manifest.raw)["layers"]}
    own = "application/vnd.cocoonstack."
    assert types == {
        "config.json": own + "vm.config+json",
        "state.json": own + "vm.state+json",
        "memory-ranges": own + "vm.memory",
        "memory-range-0": "application/octet-stream",
        "cidata.img": own + "vm.cidata",
        "overlay.qcow2": own + "disk.qcow2",
        "cow.raw": own + "disk.raw",
        "data-x.raw": own + "disk.raw",
        "a.qcow2.part.001": "application/octet-stream",
        "raw": "application/octet-stream",
        "mem": "application/octet-stream",
        "cocoon.json": "application/octet-stream",
    }


ALL_NAMES = encode(
    epoch(
        *(file(name) for name in ("config.json", "state.json", "memory-ranges", "memory-range-0", "cidata.img")),
        *(file(name) for name in ("overlay.qcow2", "cow.raw", "data-x.raw", "a.qcow2.part.001", "raw", "mem")),
        file("cocoon.json"),
    )
)


def test_whole_files_have_an_entry_without_a_map_trap_9():
    artifact = encode(epoch(file("cow.raw", GIB), file("config.json"), storage=GIB))
    assert config_of(artifact)["files"] == {"config.json": {}, "cow.raw": {}}


def test_every_layer_becomes_a_file_and_so_an_empty_file_is_a_layer_trap_13():
    headers = {"hole.raw": {"paxRecords": {sparse.MAP: "null", sparse.SIZE: "4096"}}}
    artifact = encode(epoch(file("hole.raw", 0), file("b", 0), layerHeaders=headers))
    assert [(item.title, item.size) for item in artifact.image.layers] == [("hole.raw", 0), ("b", 0)]
    assert config_of(artifact)["files"] == {"b": {}, "hole.raw": {"sparseMap": "null", "sparseSize": 4096}}
    assert [item.carriers for item in artifact.files] == [(item,) for item in artifact.image.layers]
    assert [item.carriers for item in returned(artifact).files] == [(), ()]


def test_no_files_are_no_layers():
    artifact = encode((EPOCH / "layers-null.json").read_bytes())
    assert json.loads(artifact.manifest.raw)["layers"] == []


@pytest.mark.parametrize(
    ("members", "created"),
    [
        ({"createdAt": "2026-04-02T13:07:33Z", "pushedAt": "2026-04-03T00:00:00Z"}, "2026-04-02T13:07:33Z"),
        ({"createdAt": ZERO, "pushedAt": "2026-04-03T00:00:00.5+02:00"}, "2026-04-03T00:00:00.5+02:00"),
        ({"createdAt": ZERO, "pushedAt": ZERO}, None),
        ({}, None),
    ],
)
def test_the_date_is_never_invented_traps_4_and_6(members, created):
    artifact = encode(epoch(**members))
    assert config_of(artifact)["createdAt"] == (created or ZERO)
    assert artifact.image.annotations.get("org.opencontainers.image.created") == created


def test_blobs_are_those_named_and_those_of_base_images_trap_16():
    one, two = hex_of("one"), hex_of("two")
    bases = [file(f"{two}.qcow2"), file("firmware.fd"), file(f"{hex_of('three')}")]
    artifact = encode(epoch(imageBlobIDs={one: f"{one}.qcow2"}, baseImages=bases))
    assert config_of(artifact)["imageBlobIds"] == {blob: {} for blob in sorted([one, two, hex_of("three")])}
    assert returned(artifact).manifest.image_blob_ids == {one: f"{one}.qcow2"}


def test_absent_numbers_stay_absent_trap_34():
    assert config_of(encode(epoch())).keys() == {"schemaVersion", "snapshotId", "createdAt", "epochManifest"}


def test_a_firecracker_snapshot_is_no_cloud_image_trap_20():
    names = ("cocoon.json", "cow.raw", "mem", "vmstate")
    artifact = encode(epoch(*map(file, names)))
    assert artifact.image.artifact_type == SNAPSHOT
    assert [item.title for item in artifact.image.layers] == list(names)


def test_base_images_have_no_place_traps_14_and_15():
    raw = (EPOCH / "w3b.json").read_bytes()
    with pytest.raises(PolicyError) as caught:
        encode(raw, allow_loss=False)
    assert "f1f23e746aa5635221fb5422d331102a786e0c6b35653b78f1582c035c160da0.qcow2" in caught.value.message
    assert "--allow-loss" in caught.value.hint
    artifact = encode(raw)
    assert len(artifact.lost) == 1
    assert [item.title for item in artifact.image.layers] == [item.filename for item in Manifest.parse(raw).layers]
    snapshot = returned(artifact)
    assert snapshot.lost == artifact.lost
    assert [blob.digest for blob in snapshot.absent] == [item.digest for item in snapshot.manifest.base_images]


def test_nothing_is_lost_without_base_images():
    artifact = encode((EPOCH / "w2b.json").read_bytes(), allow_loss=False)
    assert artifact.lost == ()
    snapshot = returned(artifact)
    assert (snapshot.lost, snapshot.absent, snapshot.carried, snapshot.warnings) == ((), (), (), ())


def test_files_cannot_be_cut_trap_41():
    raw = epoch(file("cow.raw", 10 * GIB))
    table = PartTable(size=GIB, digests=part_digests(10))
    with pytest.raises(UsageError) as caught:
        encode(raw, parts={Digest.from_hex(file("cow.raw", 10 * GIB)["digest"]): table})
    assert "cow.raw" in caught.value.message
    larger = PartTable(size=20 * GIB, digests=part_digests(1))
    encode(raw, parts={Digest.from_hex(file("cow.raw", 10 * GIB)["digest"]): larger})


def test_annotations_of_the_user():
    artifact = encode(epoch(), annotations={"com.example.team": "sre", "com.example.none": ""})
    assert artifact.image.annotations["com.example.team"] == "sre"
    assert "com.example.none" not in artifact.image.annotations
    assert returned(artifact).lost == ('annotation "com.example.team"',)
    with pytest.raises(UsageError):
        encode(epoch(), annotations={TITLE: "x"})


def test_a_manifest_that_no_registry_would_take_is_not_made():
    with pytest.raises(ContentError) as caught:
        encode(epoch(), annotations={"com.example.a": "x" * (5 << 20)})
    assert caught.value.code == "SIZE"


# The Epoch manifest that rides in the config


def with_map(segments, **members):
    text = json.dumps([{"o": 8 * index, "l": 1} for index in range(segments)], separators=(",", ":"))
    headers = {"cow.raw": {"paxRecords": {sparse.MAP: text, sparse.SIZE: str(GIB)}}}
    return epoch(file("cow.raw", segments), layerHeaders=headers, **members), text


def test_a_map_is_not_written_twice_trap_12():
    raw, text = with_map(1000)
    artifact = encode(raw)
    config = config_of(artifact)
    assert artifact.config.raw.count(b"7992") == 1
    assert {"sparseMap": "cow.raw"} in config["epochManifest"]["pieces"]
    assert config["files"]["cow.raw"]["sparseMap"] == text
    assert returned(artifact).epoch.raw == raw


def test_maps_in_another_spelling_ride_as_they_are():
    raw, _ = with_map(10)
    escaped = raw.replace(rb"\"o\"", rb"\u0022o\u0022")
    assert escaped != raw
    assert returned(encode(escaped)).epoch.raw == escaped


def test_where_epoch_could_not_read_the_config_the_manifest_does_not_ride_trap_12():
    raw = epoch(**{"x-note": "x" * (1 << 20)})
    artifact = encode(raw)
    assert artifact.config.size < 1000
    assert artifact.lost[0].startswith("the Epoch manifest's own bytes")
    with pytest.raises(PolicyError):
        encode(raw, allow_loss=False)
    snapshot = returned(artifact)
    assert snapshot.derived
    assert facts(snapshot) == facts(returned(encode(snapshot.epoch.raw)))


def test_a_config_too_large_for_epoch_anyway_is_told_of_and_still_carries_it_trap_12():
    raw, _ = with_map(30_000, memory=GIB)
    raw = raw.replace(b"cow.raw", b"b.raw")
    both = json.loads(raw)
    both["layers"].append({**both["layers"][0], "filename": "c.raw"})
    both["layerHeaders"]["c.raw"] = both["layerHeaders"]["b.raw"]
    artifact = encode(json.dumps(both).encode())
    assert artifact.config.size > 1 << 20
    assert artifact.lost[0].startswith("Epoch up to 0.2.1")
    assert returned(artifact).epoch.raw == json.dumps(both).encode()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda riding: riding["pieces"].append(" "), "DIGEST"),
        (lambda riding: riding["pieces"].pop(), "DIGEST"),
        (lambda riding: riding.update(digest="sha256:" + "0" * 64), "DIGEST"),
        (lambda riding: riding.pop("digest"), "DIGEST"),
        (lambda riding: riding.pop("pieces"), "SCHEMA"),
        (lambda riding: riding.update(pieces="text"), "SCHEMA"),
        (lambda riding: riding["pieces"].append(7), "SCHEMA"),
        (lambda riding: riding["pieces"].append({"sparseMap": "other.raw"}), "SCHEMA"),
        (lambda riding: riding["pieces"].append({"sparseMap": ["cow.raw"]}), "SCHEMA"),
        (lambda riding: riding["pieces"].extend([{"sparseMap": "cow.raw"}] * 30_000), "SIZE"),
    ],
)
def test_a_manifest_that_does_not_ride_well(change, code):
    raw, _ = with_map(100)
    manifest, config = altered(encode(raw), lambda _, value: change(value["epochManifest"]))
    with pytest.raises(ContentError) as caught:
        decode(manifest, config)
    assert caught.value.code == code


@pytest.mark.parametrize("value", [7, "text", [], {}])
def test_a_member_of_that_name_with_another_shape(value):
    manifest, config = altered(encode(epoch()), lambda _, members: members.update(epochManifest=value))
    with pytest.raises(ContentError):
        decode(manifest, config)


@pytest.mark.parametrize(
    "change",
    [
        lambda value, config: value["layers"].pop(),
        lambda value, config: value["layers"].append(layer("extra.bin")),
        lambda value, config: value["layers"].reverse(),
        lambda value, config: value["layers"][0].update(size=8),
        lambda value, config: value["layers"][0].update(digest="sha256:" + hex_of("other")),
        lambda value, config: value["layers"][0]["annotations"].update({TITLE: "other.json"}),
        lambda value, config: config.update(snapshotId="other"),
        lambda value, config: config.update(image="other"),
        lambda value, config: config.update(cpu=3),
        lambda value, config: config.pop("memory"),
        lambda value, config: config.update(storage=7),
        lambda value, config: config.update(nics=7),
        lambda value, config: config.update(imageBlobIds={}),
        lambda value, config: config["imageBlobIds"].update({hex_of("more"): {}}),
        lambda value, config: config["files"]["config.json"].update(mode=384),
        lambda value, config: config["files"].pop("config.json"),
        lambda value, config: config["files"]["memory-ranges"].update(sparseSize=2 * GIB),
        lambda value, config: config["files"]["memory-ranges"].update(
            sparseMap='[{"o":0,"l":655360},{"o":1048577,"l":411435008}]'
        ),
        lambda value, config: [config["files"]["memory-ranges"].pop(key) for key in ("sparseMap", "sparseSize")],
    ],
)
def test_a_manifest_that_does_not_agree_with_what_is_around_it(change):
    artifact = encode((EPOCH / "w3b.json").read_bytes())
    with pytest.raises(ContentError):
        decode(*altered(artifact, change))


def test_what_was_added_to_a_written_artifact_is_lost_and_the_bytes_come_back():
    def change(value, config):
        value["annotations"]["com.example.team"] = "sre"
        value["annotations"]["cocoonstack.snapshot.baseimage"] = "other:1"
        value["layers"][0]["annotations"]["com.example.x"] = "y"
        config["description"] = "later"
        config["x-note"] = None

    raw = (EPOCH / "w2b.json").read_bytes()
    snapshot = decode(*altered(encode(raw), change))
    assert snapshot.epoch.raw == raw
    assert set(snapshot.lost) == {
        'annotation "com.example.team"',
        'annotation "com.example.x" of "cidata.img"',
        'config member "description"',
        'config member "x-note"',
    }
    assert ["baseimage" in finding.problem for finding in snapshot.warnings] == [True]


# Properties


@PROPERTY
@given(raw_documents())
def test_any_epoch_document_comes_back_exactly(raw):
    artifact = encode(raw)
    snapshot = returned(artifact)
    assert snapshot.epoch.raw == raw
    assert not snapshot.derived
    assert encode(raw).manifest == artifact.manifest
    assert all(item.size <= 1 << 20 for item in [artifact.config])


@PROPERTY
@given(raw_documents())
def test_files_modes_and_maps_survive_readers_that_drop_what_they_do_not_know(raw):
    """As if `epoch pull` and `epoch push` had been in between: only what Epoch knows is left of the config."""
    artifact = encode(raw)
    assume(artifact.image.artifact_type == SNAPSHOT)
    once = decode(*altered(artifact, lambda _, config: config.pop("epochManifest")))
    assert once.derived
    assert facts(once) == facts(returned(artifact))
    # A snapshot without an ID and with nothing but disks is a cloud image to Epoch; of that there is a warning.
    assume(not once.manifest.is_cloud_image)
    twice = decode(*altered(encode(once.epoch.raw), lambda _, config: config.pop("epochManifest")))
    assert twice.epoch.raw == once.epoch.raw


@PROPERTY
@given(st.data())
def test_any_one_change_to_files_is_refused(data):
    artifact = encode(data.draw(raw_documents()))
    assume(artifact.image.artifact_type == SNAPSHOT and artifact.image.layers)
    index = data.draw(st.integers(0, len(artifact.image.layers) - 1))
    what = data.draw(st.sampled_from(["drop", "add", "digest", "size", "title", "mode", "map"]))

    def change(value, config):
        layers, name = value["layers"], value["layers"][index]["annotations"][TITLE]
        entry = config["files"][name]
        if what == "drop":
            del layers[index]
        elif what == "add":
            layers.append(layer("zz-not-there"))
        elif what == "digest":
            layers[index]["digest"] = "sha256:" + hashlib.sha256(b"other").hexdigest()
        elif what == "size":
            layers[index]["size"] += 1
        elif what == "title":
            layers[index]["annotations"][TITLE] += "x"
        elif what == "mode":
            entry["mode"] = entry.get("mode", 0) ^ 1
        else:
            entry.update(sparseMap='[{"o":1,"l":1}]', sparseSize=3)

    with pytest.raises(ContentError):
        decode(*altered(artifact, change))


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from cocoonstack_artifacts import decode, documents, encode, folders
print(*(encode((folder / "epoch-manifest.json").read_bytes()).manifest.digest for folder in folders("written")))
print(*(decode(*documents(folder)).epoch.digest for folder in folders("read")))
"""


def test_one_digest_in_every_process(tmp_path):
    """Whatever the hash seed, the zone and the locale are."""
    told = set()
    for seed in range(6):
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": str(seed * 7919),
            "TZ": "Asia/Shanghai",
            "LC_ALL": "C",
        }
        command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent)]
        result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True, timeout=60)
        told.add(result.stdout)
    written = [Document(media_types.MANIFEST, (item / "oci-manifest.json").read_bytes()) for item in folders("written")]
    assert len(told) == 1
    assert " ".join(str(item.digest) for item in written) == told.pop().decode().splitlines()[0]


def test_nothing_else_is_needed_to_encode():
    """The translation is a function of the bytes: no option but annotations changes it."""
    raw = (EPOCH / "w2b.json").read_bytes()
    document = Document(EPOCH_MANIFEST, raw)
    assert DIALECT.encode(document, EncodeOptions()).manifest == encode(raw).manifest
