"""Reading the snapshots of modern Epoch: what is kept, carried, lost, and refused."""

import json

import pytest
from cocoon_artifacts import findings
from cocoonstack_artifacts import (
    CONFIG,
    DATA,
    DIALECT,
    EMPTY_HEX,
    SNAPSHOT,
    SNAPSHOT_V2,
    TITLE,
    decode,
    documents,
    encode,
    epoch,
    file,
    hex_of,
    image,
    layer,
    manifest,
    returned,
    snapshot,
)

from epoch_oci import dialects
from epoch_oci.dialects.foreign import identified
from epoch_oci.epoch import sparse
from epoch_oci.errors import ContentError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import EMPTY
from epoch_oci.oci.document import Document

GIB = 1 << 30
ZERO = "0001-01-01T00:00:00Z"
MAP = '[{"o":0,"l":5},{"o":4096,"l":2}]'


def config_of(artifact):
    return json.loads(artifact.config.raw)


# Reading what Epoch wrote


def test_a_snapshot_of_epoch_0_2_1():
    snapshot = decode(*documents(DATA / "read" / "epoch-0.2.1"))
    assert snapshot.manifest.writer == "epoch-oci"
    assert snapshot.manifest.snapshot_id == "K7QZ4WJ2M5TB3XHLN6PVRDAYEC"
    assert [item.name for item in snapshot.files] == [
        *("cocoon.json", "config.json", "cow.raw", "memory-ranges", "state.json"),
    ]
    assert all(len(item.carriers) == 1 and item.encoding == "" for item in snapshot.files)
    assert set(snapshot.manifest.image_blob_ids.items()) == {(blob, blob) for blob in snapshot.manifest.image_blob_ids}
    assert (snapshot.manifest.created_at, snapshot.manifest.pushed_at) == (
        "2026-04-27T12:05:44.731904552Z",
        "2026-04-27T12:05:44Z",
    )
    assert snapshot.lost == ()
    assert len(snapshot.carried) == 4


@pytest.mark.parametrize("name", ["epoch-0.2.1", "cocoon-common-frozen", "caller-annotations"])
def test_what_rides_in_a_derived_manifest_is_restored_traps_29_and_30(name):
    """From modern Epoch to an Epoch store and back: every member of the config and every annotation."""
    manifest, config = documents(DATA / "read" / name)
    snapshot = decode(manifest, config)
    artifact = encode(snapshot.epoch.raw, allow_loss=False)
    before, after = json.loads(config.raw), config_of(artifact)
    del after["epochManifest"]
    for entry in before["files"].values():
        entry.pop("size", None)
    assert after == {**before, "createdAt": after["createdAt"]}
    assert after["createdAt"] == before.get("createdAt", ZERO)
    assert artifact.image.annotations.items() >= {
        (key, text) for key, text in manifest.annotations.items() if not key.endswith("created")
    }
    assert [item.digest for item in artifact.image.layers] == [item.digest for item in manifest.layers]
    back = returned(artifact)
    assert back.epoch.raw == snapshot.epoch.raw
    assert back.lost == ()
    assert back.carried == snapshot.carried


def test_a_manifest_of_a_stranger_rides_whatever_it_calls_cocoonstack():
    for value in (
        7,
        {"config": 7},
        {"annotations": {"a": 1}},
        {"titles": "x"},
        {"config": {}, "more": 1},
        {"titles": [1]},
    ):
        raw = epoch(cocoonstack=value)
        artifact = encode(raw)
        assert config_of(artifact).keys() == {"schemaVersion", "snapshotId", "createdAt", "epochManifest"}
        assert returned(artifact).epoch.raw == raw


ENVELOPE = {
    "version": 1,
    "config": {
        "id": "K7QZ4WJ2M5TB3XHLN6PVRDAYEC",
        "name": "bot",
        "description": "nach dem Aufwärmen",
        "image": "ghcr.io/acme/ubuntu:24.04",
        "image_digest": f"sha256:{hex_of('image')}",
        "image_type": "oci",
        "image_blob_ids": {},
        "hypervisor": "cloud-hypervisor",
        "cpu": 2,
        "queue_size": 256,
        "network": "pods",
        "no_direct_io": True,
        "windows": True,
    },
}


def with_envelope(envelope, **members):
    text = envelope if isinstance(envelope, str) else json.dumps(envelope, indent=2, ensure_ascii=False) + "\n"
    return epoch(file("config.json"), cocoonEnvelope=text, **members)


def test_what_cocoons_envelope_says_fills_the_config_as_epoch_would():
    raw = with_envelope(ENVELOPE)
    artifact = encode(raw, allow_loss=False)
    said = ENVELOPE["config"]
    config = config_of(artifact)
    assert {key: config[key] for key in ("imageDigest", "imageType", "hypervisor", "network", "windows")} == {
        "imageDigest": said["image_digest"],
        "imageType": "oci",
        "hypervisor": "cloud-hypervisor",
        "network": "pods",
        "windows": True,
    }
    assert config["description"] == said["description"]
    known = [
        "schemaVersion",
        "snapshotId",
        "description",
        "imageDigest",
        "imageType",
        "hypervisor",
        "network",
        "windows",
    ]
    assert list(config) == [*known, "files", "createdAt", "epochManifest"]
    back = returned(artifact)
    assert back.epoch.raw == raw
    assert (back.derived, back.lost) == (False, ())
    assert set(back.carried) == {f'config member "{key}"' for key in known[2:]}


def test_the_envelope_of_a_later_cocoon_is_the_same_in_another_order():
    config = dict(reversed(ENVELOPE["config"].items()))
    later = {"config": config, "version": 1, "files": ["config.json"]}
    assert config_of(encode(with_envelope(later)))["network"] == "pods"


@pytest.mark.parametrize(
    "envelope",
    [
        "",
        "no JSON",
        "[]",
        "7",
        "{}",
        '{"config":[]}',
        '{"config":{"network":"a","network":"b"}}',
        '{"config":{"network":"\\u0000"}}',
        {"config": {"windows": "yes", "network": 7, "description": ["x"], "hypervisor": None, "image_type": {}}},
        {"config": {"windows": False, "network": "", "description": ""}},
        {"config": {"image_digest": "ab" * 32}},
        {"config": {"image_digest": "sha256:no"}},
        {"config": {"snapshotId": "other", "files": {}, "epochManifest": {}}},
    ],
)
def test_an_envelope_that_says_nothing_of_use_stops_nothing(envelope):
    raw = with_envelope(envelope)
    artifact = encode(raw, allow_loss=False)
    assert config_of(artifact).keys() == {"schemaVersion", "snapshotId", "files", "createdAt", "epochManifest"}
    assert returned(artifact).epoch.raw == raw


def test_a_member_that_is_no_text_is_no_envelope():
    raw = epoch(file("config.json"), cocoonEnvelope=ENVELOPE)
    assert "network" not in config_of(encode(raw))


def test_what_rode_in_from_modern_epoch_outweighs_the_envelope():
    raw = with_envelope(ENVELOPE, cocoonstack={"config": {"network": "mesh"}})
    artifact = encode(raw)
    assert {"network": "mesh"}.items() <= config_of(artifact).items() and "windows" not in config_of(artifact)
    assert returned(artifact).epoch.raw == raw


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"windows": "yes"}, "$.cocoonstack.config.windows"),
        ({"description": 7}, "$.cocoonstack.config.description"),
        ({"imageDigest": "sha256:12"}, "$.cocoonstack.config.imageDigest"),
        ({"Files": {}}, "$.cocoonstack.config.Files"),
    ],
)
def test_a_config_that_go_would_refuse_is_not_written(members, path):
    assert [item[0] for item in findings(lambda: encode(epoch(cocoonstack={"config": members})))] == [path]


def test_what_rides_cannot_replace_what_is_minted():
    members = {"snapshotId": "other", "files": {}, "schemaVersion": "v2", "epochManifest": 1, "network": "br0"}
    raw = epoch(file("a"), cocoonstack={"config": members})
    config = config_of(encode(raw))
    assert (config["snapshotId"], config["schemaVersion"], config["files"]) == ("9f3c1a7be20d4c55", "v1", {"a": {}})
    assert config["network"] == "br0"


def test_packed_bodies_without_a_map_are_refused_trap_8():
    """Epoch 0.1.6 and 0.1.7: the config has no `files`."""
    layers = [layer("cow.raw", 26214400), layer("memory-ranges", 302645248)]
    found = findings(lambda: decode(*snapshot(layers, memory=GIB, storage=10 * GIB)))
    assert found == [("$.layers[0].size", "SIZE"), ("$.layers[1].size", "SIZE")]
    with pytest.raises(ContentError) as caught:
        decode(*snapshot(layers, memory=GIB, storage=10 * GIB))
    assert "Epoch 0.1.6 and 0.1.7 packed" in str(caught.value)


def test_an_entry_for_the_one_file_does_not_excuse_the_other_trap_8():
    layers = [layer("cow.raw", 26214400), layer("memory-ranges", GIB)]
    files = {"memory-ranges": {"mode": 420}}
    assert findings(lambda: decode(*snapshot(layers, memory=GIB, storage=10 * GIB, files=files))) == [
        ("$.layers[0].size", "SIZE")
    ]
    assert decode(*snapshot(layers, memory=GIB, storage=26214400)).warnings == ()


@pytest.mark.parametrize(
    ("layers", "members", "doubtful"),
    [
        ([layer("overlay.qcow2"), layer("cow.raw", 9)], {"storage": 9}, "overlay.qcow2"),
        ([layer("cow.raw", 9)], {}, "cow.raw"),
        ([layer("hole.raw", 0)], {}, "hole.raw"),
        ([layer(f"{name}.raw") for name in "abcdefg"], {}, "and 2 more"),
    ],
)
def test_where_nothing_proves_it_there_is_a_warning_trap_8(layers, members, doubtful):
    problems = [finding.problem for finding in decode(*snapshot(layers, **members)).warnings]
    assert any(doubtful in problem and "0.1.6" in problem for problem in problems)


def test_a_file_with_an_entry_is_what_it_is_trap_9():
    layers = [layer("cow.raw", 26214400)]
    snapshot_ = decode(*snapshot(layers, storage=10 * GIB, files={"cow.raw": {"mode": 420}}))
    assert snapshot_.manifest.layer_headers["cow.raw"].pax_records == {}


@pytest.mark.parametrize(
    "entry",
    [
        {"sparseMap": MAP},
        {"sparseMap": MAP, "sparseSize": 0},
        {"sparseMap": MAP, "sparseSize": 4097},
        {"sparseMap": MAP, "sparseSize": -1},
        {"sparseMap": MAP, "sparseSize": 2**62},
        {"sparseMap": MAP, "sparseSize": "8192"},
        {"sparseMap": '[{"o":0,"l":6}]', "sparseSize": 8192},
        {"sparseMap": '[{"o":0,"l":8}]', "sparseSize": 8192},
        {"sparseMap": '[{"o":0,"l":5},{"o":4,"l":2}]', "sparseSize": 8192},
        {"sparseMap": '[{"o":4096,"l":5},{"o":0,"l":2}]', "sparseSize": 8192},
        {"sparseMap": '[{"o":-1,"l":7}]', "sparseSize": 8192},
        {"sparseMap": '[{"o":0,"l":7,"x":1}]', "sparseSize": 8192},
        {"sparseMap": '[{"o":0.5,"l":7}]', "sparseSize": 8192},
        {"sparseMap": "null", "sparseSize": 8192},
        {"sparseMap": "{}", "sparseSize": 8192},
        {"sparseMap": "[", "sparseSize": 8192},
        {"sparseMap": [], "sparseSize": 8192},
        {"sparseSize": 8192},
    ],
)
def test_sparse_maps_that_do_not_fit_trap_11(entry):
    """Reliability Z3."""
    with pytest.raises(ContentError):
        decode(*snapshot([layer("a.raw", 7)], files={"a.raw": entry}))


def test_maps_and_modes_become_layer_headers_trap_10():
    files = {"a.raw": {"mode": 384, "sparseMap": MAP, "sparseSize": 8192}, "b": {"mode": 420}, "c": {}}
    snapshot_ = decode(*snapshot([layer("a.raw", 7), layer("b"), layer("c")], files=files))
    value = json.loads(snapshot_.epoch.raw)
    assert value["layerHeaders"] == {
        "a.raw": {"mode": 384, "paxRecords": {sparse.MAP: MAP, sparse.SIZE: "8192"}},
        "b": {"mode": 420},
    }
    assert [finding.problem for finding in snapshot_.warnings if "unfold" in finding.problem]


def test_names_come_from_annotations_where_there_are_any_and_else_from_the_caller():
    notes = {TITLE: "team/bot", "org.opencontainers.image.version": "v3"}
    known = decode(*snapshot([], annotations=notes))
    assert (known.manifest.name, known.manifest.tag) == ("team/bot", "v3")
    assert identified(known, "other", "v4") is known
    unknown = decode(*snapshot([layer("a")], files={"a": {}}, description="<x>", engine={"a": [1.5, -0.0, 2**60]}))
    assert (unknown.manifest.name, unknown.manifest.tag) == ("", "")
    again = identified(unknown, "team/bot", "v3")
    assert again.epoch.raw == unknown.epoch.raw.replace(b'"name": ""', b'"name": "team/bot"').replace(
        b'"tag": ""', b'"tag": "v3"'
    )
    assert (again.manifest.name, again.manifest.tag, again.files) == ("team/bot", "v3", unknown.files)
    with pytest.raises(ContentError):
        identified(unknown, "../x", "v3")


def test_an_original_manifest_keeps_its_name():
    original = returned(encode(epoch(name="", tag="")))
    assert identified(original, "bot", "v1") is original


def test_a_date_that_is_none_is_left_out():
    snapshot_ = decode(*snapshot([], annotations={"org.opencontainers.image.created": "yesterday"}))
    assert snapshot_.manifest.pushed_at == ZERO
    assert [finding.code for finding in snapshot_.warnings] == ["SCHEMA"]


def test_a_snapshot_that_epoch_would_take_for_a_cloud_image_traps_20_and_21():
    snapshot_ = decode(*snapshot([layer("overlay.qcow2")], files={"overlay.qcow2": {}}))
    assert any("cloud image" in finding.problem for finding in snapshot_.warnings)


def test_types_that_others_gave_their_layers():
    """Epoch pulls by title alone; cocoon-common refuses types that it does not know (epoch-formats 4.10)."""
    layers = [layer("a.bin", media_type="text/plain"), layer("b.qcow2"), layer("c.part", media_type=PART)]
    snapshot_ = decode(*snapshot([*layers, layer("config.json")], files={item: {} for item in NAMES}))
    assert [finding.path for finding in snapshot_.warnings] == ["$.layers[0].mediaType", "$.layers[2].mediaType"]
    assert len(snapshot_.lost) == 4
    assert [item.media_type for item in snapshot_.files] == [
        "application/octet-stream",
        "application/vnd.cocoon.disk.qcow2",
        "application/octet-stream",
        "application/vnd.cocoon.config+json",
    ]


NAMES = ("a.bin", "b.qcow2", "c.part", "config.json")
PART = "application/vnd.cocoonstack.disk.qcow2.part"


def test_what_else_has_no_place():
    value = json.loads(snapshot([layer("a", note="x")], files={"a": {}})[0].document.raw)
    value["subject"] = {**EMPTY.to_json(), "mediaType": media_types.MANIFEST}
    config = snapshot([layer("a")], files={"a": {}})[1]
    lost = decode(image(json.dumps(value).encode()), config).lost
    assert lost == ('annotation "note" of "a"', f"subject {EMPTY.digest}")


def test_an_entry_without_a_layer_is_odd():
    snapshot_ = decode(*snapshot([layer("a")], files={"a": {}, "b": {}, "c": {}}))
    assert [finding.path for finding in snapshot_.warnings] == ["$.config", "$.config"]


def test_the_placeholder_for_no_layers_is_no_file():
    assert decode(*snapshot([EMPTY.to_json()])).files == ()
    assert decode(*snapshot([])).files == ()


# What is refused


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([layer(None)], [("$.layers[0]", "NAME")]),
        ([layer("")], [("$.layers[0]", "NAME")]),
        ([layer("snapshot.json")], [("$.layers[0]", "NAME")]),
        ([layer("Snapshot.JSON")], [("$.layers[0]", "NAME")]),
        ([layer("a/b")], [("$.layers[0]", "NAME")]),
        ([layer("../etc/passwd")], [("$.layers[0]", "NAME")]),
        ([layer("..")], [("$.layers[0]", "NAME")]),
        ([layer("a"), layer("a")], [("$.layers[0]", "NAME")]),
        ([layer("a"), layer("A")], [("$.layers[1]", "NAME")]),
        ([layer("a"), EMPTY.to_json()], [("$.layers[1]", "NAME")]),
        ([{**layer("a"), "digest": "sha512:" + "0" * 128}], [("$.layers[0].digest", "DIGEST")]),
        ([{**layer("a"), "digest": f"sha256:{EMPTY_HEX}"}], [("$.layers[0].digest", "DIGEST")]),
        ([layer("a", media_type="application/octet-stream+zstd")], [("$.layers[0].mediaType", "TYPE")]),
    ],
)
def test_layers_that_are_refused_traps_26_and_27(layers, expected):
    found = findings(lambda: decode(*snapshot(layers)))
    assert [(path.split(".annotations")[0], code) for path, code in found][: len(expected)] == expected


def test_all_layers_are_looked_at():
    layers = [layer("a/b"), layer("cow.raw", 5), layer("snapshot.json"), layer("ok")]
    found = findings(lambda: decode(*snapshot(layers, storage=GIB, annotations={TITLE: "../x"})))
    assert [code for _, code in found] == ["NAME", "NAME", "SIZE", "NAME"]


def test_configs_that_are_refused(subtests):
    for members, path in [
        ({"schemaVersion": ...}, "$.schemaVersion"),
        ({"schemaVersion": "v3"}, "$.schemaVersion"),
        ({"schemaVersion": 1}, "$.schemaVersion"),
        ({"schemaVersion": None}, "$.schemaVersion"),
        ({"snapshotId": 7}, "$.snapshotId"),
        ({"image": []}, "$.image"),
        ({"description": {}}, "$.description"),
        ({"network": 1}, "$.network"),
        ({"hypervisor": True}, "$.hypervisor"),
        ({"imageType": 1}, "$.imageType"),
        ({"imageDigest": hex_of("x")}, "$.imageDigest"),
        ({"windows": 1}, "$.windows"),
        ({"cpu": -1}, "$.cpu"),
        ({"memory": 1.5}, "$.memory"),
        ({"storage": 2**63}, "$.storage"),
        ({"nics": "1"}, "$.nics"),
        ({"imageBlobIds": []}, "$.imageBlobIds"),
        ({"imageBlobIds": {"../x": {}}}, "$.imageBlobIds"),
        ({"imageBlobIds": {"a": "a"}}, "$.imageBlobIds.a"),
        ({"files": []}, "$.files"),
        ({"files": {"a": 7}}, "$.files.a"),
        ({"files": {"a": {"mode": 0o10000}}}, "$.files.a.mode"),
        ({"files": {"a": {"Mode": 1}}}, "$.files.a.Mode"),
        ({"files": {"a": {"chunks": ["x"]}}}, "$.files.a.chunks[0]"),
        ({"createdAt": ""}, "$.createdAt"),
        ({"createdAt": "2026-04-10"}, "$.createdAt"),
        ({"SnapshotID": "x"}, "$.SnapshotID"),
        ({"epochmanifest": {}}, "$.epochmanifest"),
    ]:
        with subtests.test(members=members):
            assert [
                item[0] for item in findings(lambda members=members: decode(*snapshot([layer("a")], **members)))
            ] == [path]


@pytest.mark.parametrize("raw", [b"null", b"[]", b"7", b"{}", b'{"schemaVersion":"v1","schemaVersion":"v1"}', b"\xff"])
def test_what_is_no_config(raw):
    config = Document(CONFIG, raw)
    with pytest.raises(ContentError):
        decode(manifest([], config.descriptor.to_json(), SNAPSHOT), config)


def test_a_config_of_another_type_contradicts_the_artifact():
    with pytest.raises(ContentError) as caught:
        decode(manifest([layer("a")], EMPTY.to_json(), SNAPSHOT), None)
    assert caught.value.code == "TYPE"


def test_a_config_that_was_not_read_or_is_another():
    found, config = snapshot([layer("a")], files={"a": {}})
    for other in (None, Document(CONFIG, config.raw + b" "), Document(CONFIG, config.raw.replace(b"v1", b"v9"))):
        with pytest.raises(ContentError):
            decode(found, other)


def test_a_version_that_contradicts_the_artifact():
    assert findings(lambda: decode(*snapshot([layer("a")], schemaVersion="v2"))) == [("$.artifactType", "TYPE")]
    assert findings(lambda: decode(*snapshot([layer("a")], SNAPSHOT_V2))) == [("$.artifactType", "TYPE")]


@pytest.mark.parametrize(
    ("artifact_type", "dialect"),
    [
        (SNAPSHOT, "cocoonstack"),
        (SNAPSHOT_V2, "cocoonstack"),
        ("application/vnd.cocoonstack.os-image.v1+json", "cocoonstack"),
        ("application/vnd.cocoonstack.windows-image.v1+json", "cocoonstack"),
        ("application/vnd.cocoonstack.snapshot.v3+json", None),
        ("application/vnd.oci.image.config.v1+json", None),
    ],
)
def test_the_artifact_type_alone_tells_the_dialect(artifact_type, dialect):
    found = dialects.accepting(snapshot([layer("a")], artifact_type)[0])
    assert (found.name if found else None) == dialect


def test_the_dialect_is_known_by_its_name():
    assert dialects.named("cocoonstack") is DIALECT
