"""Epoch's manifest: every writer is read, everything else is refused with all that is wrong."""

import hashlib
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from epoch_strategies import EMPTY_HEX, PROPERTY, documents, raw_documents, spellings
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.epoch.manifest import (
    EPOCH_MANIFEST,
    MANIFEST_LIMIT,
    Layer,
    LayerHeader,
    Manifest,
    media_type_for_file,
)
from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document

DATA = Path(__file__).parent / "data"
EXAMPLES = DATA / "schemas" / "epoch-manifest.v1"
HEX = hashlib.sha256(b"a").hexdigest()
OTHER = hashlib.sha256(b"b").hexdigest()


def golden(name):
    return (DATA / "epoch" / f"{name}.json").read_bytes()


def layer(name="config.json", size=1, digest=HEX, **more):
    return {"digest": digest, "size": size, "filename": name, **more}


def document(**changes):
    """A small valid document with members changed; a value of ... leaves one out."""
    members = {
        "schemaVersion": 1,
        "name": "bot",
        "tag": "v1",
        "snapshotId": "9f3c1a7be20d4c55",
        "layers": [layer()],
        "totalSize": 1,
        "createdAt": "2026-04-04T21:07:33Z",
        "pushedAt": "2026-04-04T21:07:34Z",
        **changes,
    }
    return json.dumps({key: value for key, value in members.items() if value is not ...}).encode()


def findings(raw):
    with pytest.raises(ContentError) as caught:
        Manifest.parse(raw)
    return [(finding.path, finding.code) for finding in caught.value.findings]


@pytest.mark.parametrize(
    ("name", "writer", "cloud_image"),
    [
        ("w1", "W1", False),
        ("w2a", "W2a", False),
        ("w2b", "W2b", False),
        ("w3a", "W3a", False),
        ("w3b", "W3b", False),
        ("w4", "W1", False),
        ("layers-null", "W2b", False),
        ("zero-times", "unknown", False),
        ("unknown-members", "W3b", False),
        ("escapes", "W2b", False),
        ("cloud-image", "unknown", True),
    ],
)
def test_documents_of_every_writer(name, writer, cloud_image):
    manifest = Manifest.parse(golden(name), name)
    assert manifest.document.raw == golden(name)
    assert manifest.document.media_type == EPOCH_MANIFEST
    assert manifest.writer == writer
    assert manifest.is_cloud_image is cloud_image
    assert manifest.warnings == ()


def test_every_member_of_a_document():
    manifest = Manifest.parse(golden("w3b"))
    assert manifest.schema_version == 1
    assert (manifest.name, manifest.tag, manifest.snapshot_id) == ("sre-agent-bot", "latest", "9f3c1a7be20d4c55")
    assert manifest.image == "https://cloud-images.ubuntu.com/noble/current/noble-server-cloudimg-amd64.img"
    blob = "f1f23e746aa5635221fb5422d331102a786e0c6b35653b78f1582c035c160da0"
    assert manifest.image_blob_ids == {blob: f"{blob}.qcow2"}
    assert (manifest.cpu, manifest.memory, manifest.storage, manifest.nics) == (2, 1 << 30, 10 << 30, 1)
    assert [item.filename for item in manifest.layers] == [
        "cidata.img",
        "config.json",
        "memory-ranges",
        "overlay.qcow2",
        "state.json",
    ]
    assert manifest.layers[2] == Layer(
        Digest.from_hex("4f4143e2e05ab0b672e29f549862f08e91ee111d2c4837d48aa64b10707812dd"),
        412090368,
        "memory-ranges",
        "application/vnd.cocoon.memory",
    )
    assert [item.filename for item in manifest.base_images] == [f"{blob}.qcow2"]
    assert manifest.total_size == 1056015315
    assert manifest.created_at == "0001-01-01T00:00:00Z"
    assert manifest.pushed_at == "2026-04-04T21:07:33.418205113+08:00"
    assert manifest.layer_headers["state.json"] == LayerHeader(420, {})
    assert manifest.layer_headers["memory-ranges"].pax_records["COCOON.sparse.size"] == "1073741824"


def test_the_first_form_of_epoch_push():
    manifest = Manifest.parse(golden("w2a"))
    assert manifest.schema_version is None
    assert manifest.snapshot_id == "9f3c1a7be20d4c55"
    assert manifest.pushed_at == ""
    assert {item.media_type for item in manifest.layers} == {""}
    assert manifest.descriptors[1].media_type == "application/vnd.cocoon.config+json"


def test_missing_and_null_members_are_the_zero_value():
    absent = Manifest.parse(b'{"layers":null}')
    nulls = dict.fromkeys(["schemaVersion", "name", "tag", "snapshotId", "image", "imageBlobIDs", "cpu", "memory"])
    nulls |= dict.fromkeys(["storage", "nics", "layers", "baseImages", "totalSize", "createdAt", "pushedAt"])
    null = Manifest.parse(json.dumps({**nulls, "layerHeaders": None}).encode())
    for manifest in (absent, null):
        assert (manifest.name, manifest.tag, manifest.image, manifest.created_at) == ("", "", "", "")
        assert (manifest.cpu, manifest.total_size, manifest.layers, manifest.base_images) == (0, 0, (), ())
        assert (manifest.image_blob_ids, manifest.layer_headers, manifest.warnings) == ({}, {}, ())


MEMORY = "application/vnd.cocoon.memory"


@pytest.mark.parametrize(
    ("changes", "writer"),
    [
        ({"layerHeaders": {}, "schemaVersion": ..., "snapshotId": ..., "snapshotID": "x"}, "W3b"),
        ({"snapshotId": ..., "snapshotID": "x", "layers": [layer(mediaType=MEMORY)]}, "W2a"),
        ({"schemaVersion": ..., "layers": [layer(mediaType=MEMORY)]}, "W2a"),
        ({"imageBlobIDs": {"a": "a.qcow2"}, "layers": [layer(mediaType=MEMORY)]}, "W3a"),
        ({"imageBlobIDs": {"a": "a.raw"}, "pushedAt": "0001-01-01T00:00:00Z"}, "W3a"),
        ({"layers": [layer()]}, "W3a"),
        ({"layers": [layer()], "pushedAt": "0001-01-01T00:00:00Z"}, "W3a"),
        ({"layers": [layer(mediaType=MEMORY)], "pushedAt": "0001-01-01T00:00:00Z"}, "W2b"),
        ({"layers": [layer(mediaType=MEMORY)], "pushedAt": ...}, "W2b"),
        ({"layers": [layer(mediaType=MEMORY)]}, "W1"),
        ({"layers": [layer(mediaType=MEMORY)], "snapshotId": ""}, "unknown"),
        ({"layers": [layer(mediaType=MEMORY)], "imageBlobIDs": {"a": "a"}}, "unknown"),
        ({"layers": [layer(mediaType=MEMORY), layer("b", digest=OTHER)]}, "unknown"),
    ],
)
def test_the_marks_of_the_writers_are_looked_at_in_order(changes, writer):
    assert Manifest.parse(document(**changes)).writer == writer


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("overlay.qcow2", "application/vnd.cocoon.disk.qcow2"),
        ("f1f2.qcow2", "application/vnd.cocoon.disk.qcow2"),
        ("cow.raw", "application/vnd.cocoon.disk.raw"),
        ("memory-ranges", "application/vnd.cocoon.memory"),
        ("cidata.img", "application/vnd.cocoon.cidata"),
        ("config.json", "application/vnd.cocoon.config+json"),
        ("state.json", "application/vnd.cocoon.state+json"),
        ("data-x.raw", "application/octet-stream"),
        ("disk.qcow2.part.001", "application/octet-stream"),
        ("memory-range-0", "application/octet-stream"),
        ("mem", "application/octet-stream"),
        ("cocoon.json", "application/octet-stream"),
        ("OVERLAY.QCOW2", "application/octet-stream"),
    ],
)
def test_media_types_by_file_name(name, media_type):
    assert media_type_for_file(name) == media_type


@pytest.mark.parametrize(
    ("names", "changes", "epochs", "ours"),
    [
        (["disk.qcow2"], {"snapshotId": ""}, True, True),
        (["disk.raw"], {"snapshotId": ""}, True, True),
        (["disk.qcow2.part.001", "disk.qcow2.part.002"], {"snapshotId": ""}, True, True),
        (["disk.raw.part.9", "SHA256SUMS"], {"snapshotId": ""}, True, True),
        (["disk.qcow2.00.qcow2.part"], {"snapshotId": ""}, False, False),
        (["SHA256SUMS"], {"snapshotId": ""}, False, False),
        ([], {"snapshotId": ""}, False, False),
        (["disk.qcow2", "config.json"], {"snapshotId": ""}, False, False),
        (["disk.qcow2", "cidata.img"], {"snapshotId": ""}, False, False),
        (["disk.qcow2"], {"snapshotId": "", "imageBlobIDs": {"a": "a"}}, False, False),
        (["disk.qcow2"], {"snapshotId": "", "baseImages": [layer("b.qcow2", digest=OTHER)]}, False, False),
        (["cow.raw", "mem", "vmstate", "cocoon.json"], {}, True, False),
    ],
)
def test_cloud_images(names, changes, epochs, ours):
    layers = [layer(name, digest=hashlib.sha256(name.encode()).hexdigest()) for name in names]
    manifest = Manifest.parse(document(layers=layers, totalSize=..., **changes))
    assert manifest.looks_like_cloud_image is epochs
    assert manifest.is_cloud_image is ours


def test_descriptors_are_layers_then_bases_each_digest_once():
    layers = [layer("a", 5), layer("config.json", 0, EMPTY_HEX), layer("b", 5)]
    manifest = Manifest.parse(document(layers=layers, baseImages=[layer("x.qcow2", 7, OTHER)], totalSize=...))
    assert [(item.digest.hex, item.size, item.media_type) for item in manifest.descriptors] == [
        (HEX, 5, "application/octet-stream"),
        (EMPTY_HEX, 0, "application/vnd.cocoon.config+json"),
        (OTHER, 7, "application/vnd.cocoon.disk.qcow2"),
    ]


def packed(name, sparse_map, size="100", **more):
    return {name: {"mode": 420, "paxRecords": {"COCOON.sparse.map": sparse_map, "COCOON.sparse.size": size}, **more}}


SPARSE = '$.layerHeaders["config.json"].paxRecords["COCOON.sparse.map"]'


def test_what_is_wrong_is_found_at_its_place(subtests):
    for changes, expected in [
        ({"schemaVersion": 2}, [("$.schemaVersion", "TYPE")]),
        ({"schemaVersion": 0}, [("$.schemaVersion", "TYPE")]),
        ({"schemaVersion": "1"}, [("$.schemaVersion", "TYPE")]),
        ({"schemaVersion": 1.0}, [("$.schemaVersion", "TYPE")]),
        ({"schemaVersion": True}, [("$.schemaVersion", "TYPE")]),
        ({"layers": ...}, [("$.layers", "SCHEMA")]),
        ({"layers": {}}, [("$.layers", "SCHEMA")]),
        (
            {"layers": [7]},
            [("$.layers[0]", "SCHEMA"), ("$.layers[0].filename", "NAME"), ("$.layers[0].digest", "DIGEST")],
        ),
        ({"name": 7}, [("$.name", "SCHEMA")]),
        ({"name": "../x"}, [("$.name", "NAME")]),
        ({"tag": "/x"}, [("$.tag", "NAME")]),
        ({"tag": "x\n"}, [("$.tag", "NAME")]),
        ({"snapshotId": 7}, [("$.snapshotId", "SCHEMA")]),
        ({"snapshotID": "x"}, [("$.snapshotID", "JSON")]),
        ({"SnapshotId": "x"}, [("$.SnapshotId", "JSON")]),
        ({"Layers": []}, [("$.Layers", "JSON")]),
        ({"baseimages": []}, [("$.baseimages", "JSON")]),
        ({"\u017fchemaVersion": 1}, [('$["\\u017fchemaVersion"]', "JSON")]),
        ({"image": []}, [("$.image", "SCHEMA")]),
        ({"imageBlobIDs": []}, [("$.imageBlobIDs", "SCHEMA")]),
        ({"imageBlobIDs": {"a": 7}}, [("$.imageBlobIDs.a", "SCHEMA")]),
        ({"imageBlobIDs": {"../a": "a"}}, [("$.imageBlobIDs", "NAME")]),
        ({"cpu": -1}, [("$.cpu", "SCHEMA")]),
        ({"memory": 2**53}, [("$.memory", "SCHEMA")]),
        ({"storage": 1.5}, [("$.storage", "SCHEMA")]),
        ({"nics": True}, [("$.nics", "SCHEMA")]),
        ({"totalSize": -1}, [("$.totalSize", "SIZE")]),
        ({"createdAt": ""}, [("$.createdAt", "SCHEMA")]),
        ({"createdAt": 7}, [("$.createdAt", "SCHEMA")]),
        ({"pushedAt": "yesterday"}, [("$.pushedAt", "SCHEMA")]),
        ({"layers": [layer(digest="sha256:" + HEX)]}, [("$.layers[0].digest", "DIGEST")]),
        ({"layers": [layer(digest=HEX.upper())]}, [("$.layers[0].digest", "DIGEST")]),
        ({"layers": [layer(digest=HEX[:-1])]}, [("$.layers[0].digest", "DIGEST")]),
        ({"layers": [layer(digest=HEX + "\n")]}, [("$.layers[0].digest", "DIGEST")]),
        ({"layers": [layer(size=-1)]}, [("$.layers[0].size", "SIZE")]),
        ({"layers": [layer(size="5")]}, [("$.layers[0].size", "SIZE")]),
        ({"layers": [layer(size=1.0)]}, [("$.layers[0].size", "SIZE")]),
        ({"layers": [layer(size=True)]}, [("$.layers[0].size", "SIZE")]),
        ({"layers": [layer(size=2**53)]}, [("$.layers[0].size", "SIZE")]),
        ({"layers": [layer(size=0)]}, [("$.layers[0].digest", "DIGEST")]),
        ({"layers": [layer(size=None)]}, [("$.layers[0].digest", "DIGEST")]),
        ({"layers": [layer(size=1, digest=EMPTY_HEX)]}, [("$.layers[0].digest", "DIGEST")]),
        ({"layers": [layer("../x")]}, [("$.layers[0].filename", "NAME")]),
        ({"layers": [layer("snapshot.json")]}, [("$.layers[0].filename", "NAME")]),
        ({"layers": [layer(7)]}, [("$.layers[0].filename", "NAME")]),
        ({"layers": [layer(None)]}, [("$.layers[0].filename", "NAME")]),
        ({"layers": [layer(mediaType="disk")]}, [("$.layers[0].mediaType", "TYPE")]),
        ({"layers": [layer(mediaType="a/b; c=d")]}, [("$.layers[0].mediaType", "TYPE")]),
        ({"layers": [layer(mediaType=7)]}, [("$.layers[0].mediaType", "SCHEMA")]),
        ({"layers": [layer(Size=1)]}, [("$.layers[0].Size", "JSON")]),
        ({"layers": [layer(), layer()]}, [("$.layers[1].filename", "NAME")]),
        ({"layers": [layer(), layer("CONFIG.json")]}, [("$.layers[1].filename", "NAME")]),
        ({"baseImages": [layer("Config.JSON")]}, [("$.baseImages[0].filename", "NAME")]),
        ({"baseImages": [layer("x", 2)]}, [("$.baseImages[0].size", "SIZE")]),
        ({"layers": [layer(), layer("b", 2)]}, [("$.layers[1].size", "SIZE")]),
        ({"layerHeaders": []}, [("$.layerHeaders", "SCHEMA")]),
        ({"layerHeaders": {"a": 7}}, [("$.layerHeaders.a", "SCHEMA")]),
        ({"layerHeaders": {"a": {"mode": True}}}, [("$.layerHeaders.a.mode", "SCHEMA")]),
        ({"layerHeaders": {"a": {"mode": -1}}}, [("$.layerHeaders.a.mode", "SCHEMA")]),
        ({"layerHeaders": {"a": {"mode": 0o10000}}}, [("$.layerHeaders.a.mode", "SCHEMA")]),
        ({"layerHeaders": {"a": {"mode": 2**40}}}, [("$.layerHeaders.a.mode", "SCHEMA")]),
        ({"layerHeaders": {"a": {"Mode": 1}}}, [("$.layerHeaders.a.Mode", "JSON")]),
        ({"layerHeaders": {"a": {"paxRecords": []}}}, [("$.layerHeaders.a.paxRecords", "SCHEMA")]),
        ({"layerHeaders": {"a": {"paxRecords": {"k": 7}}}}, [("$.layerHeaders.a.paxRecords.k", "SCHEMA")]),
        ({"layerHeaders": packed("config.json", '[{"o":0,"l":2}]')}, [(SPARSE, "SIZE")]),
        ({"layerHeaders": packed("config.json", '[{"o":100,"l":1}]')}, [(SPARSE, "SIZE")]),
        ({"layerHeaders": packed("config.json", "null")}, [(SPARSE, "SIZE")]),
        ({"layerHeaders": packed("config.json", "?")}, [(SPARSE, "JSON")]),
    ]:
        with subtests.test(changes=changes):
            assert findings(document(**changes)) == expected


def test_everything_wrong_is_told_at_once():
    raw = document(
        name="..",
        cpu=-1,
        createdAt="",
        layers=[layer("a/b", -1, "x"), layer("ok", mediaType="no"), layer("OK")],
        layerHeaders={"ok": {"mode": 2**40}},
        Tag="x",
    )
    assert set(findings(raw)) == {
        ("$.name", "NAME"),
        ("$.cpu", "SCHEMA"),
        ("$.createdAt", "SCHEMA"),
        ("$.layers[0].filename", "NAME"),
        ("$.layers[0].size", "SIZE"),
        ("$.layers[0].digest", "DIGEST"),
        ("$.layers[1].mediaType", "TYPE"),
        ("$.layers[2].filename", "NAME"),
        ("$.layerHeaders.ok.mode", "SCHEMA"),
        ("$.Tag", "JSON"),
    }


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "JSON"),
        (b"null", "SCHEMA"),
        (b"[]", "SCHEMA"),
        (b"7", "SCHEMA"),
        (b"{}", "SCHEMA"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b'{"layers":[],"layers":[]}', "JSON"),
        (b'{"layers":[],"x":NaN}', "JSON"),
        (b'{"layers":[]} {}', "JSON"),
        (b'{"layers":[],"x":' + b"[" * 70 + b"]" * 70 + b"}", "JSON"),
        (b'{"layers":[]' + b" " * MANIFEST_LIMIT + b"}", "SIZE"),
    ],
)
def test_what_is_no_manifest(raw, code):
    with pytest.raises(ContentError) as caught:
        Manifest.parse(raw)
    assert caught.value.code == code


def test_an_oci_manifest_is_called_by_its_version_first():
    raw = (DATA / "cocoonstack" / "snapshot-manifest.json").read_bytes()
    assert findings(raw)[0] == ("$.schemaVersion", "TYPE")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "UPPER/Case .x", "tag": "sha256:abc"},
        {"name": "a\u2028b <&> 😀"},
        {"layers": [layer("a", 2**53 - 1)], "totalSize": 2**53 - 1},
        {"layers": [layer(size=0, digest=EMPTY_HEX), layer("b", 0, EMPTY_HEX)], "totalSize": 0},
        {"layers": [layer(), layer("b")], "totalSize": 2},
        {"layers": [layer(mediaType="")]},
        {"layers": [layer(mediaType=None)]},
        {"layers": [layer(mediaType="application/vnd.cocoonstack.disk.raw+zstd")]},
        {"layers": [layer("_a+b-c.d")]},
        {"layers": [layer("x" * 255)]},
        {"baseImages": []},
        {"layerHeaders": {"config.json": None}},
        {"layerHeaders": {"config.json": {"mode": None, "paxRecords": {"k": None}}}},
        {"layerHeaders": packed("config.json", '[{"o":99,"l":1}]')},
        {"config": {"mediaType": "x"}, "mediaType": "y", "labels": [1.5, -1, None]},
    ],
)
def test_what_must_be_accepted(changes):
    assert Manifest.parse(document(**changes)).warnings == ()


def test_an_all_hole_file_is_legal():
    changes = {"layers": [layer(size=0, digest=EMPTY_HEX)], "layerHeaders": packed("config.json", "null")}
    assert Manifest.parse(document(totalSize=0, **changes)).writer == "W3b"


def test_two_thousand_files_are_the_most():
    layers = [layer(f"f{index}", 1, hashlib.sha256(b"%d" % index).hexdigest()) for index in range(2001)]
    assert len(Manifest.parse(document(layers=layers[:2000], totalSize=2000)).layers) == 2000
    assert findings(document(layers=layers)) == [("$.layers", "SCHEMA")]
    assert findings(document(layers=layers[:1500], baseImages=layers[1500:])) == [("$.baseImages", "SCHEMA")]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"totalSize": 7}, "$.totalSize"),
        ({"baseImages": [layer("x", 5, OTHER)], "totalSize": 5}, "$.totalSize"),
        ({"layerHeaders": {"gone": {"mode": 420}}}, "$.layerHeaders.gone"),
    ],
)
def test_what_is_odd_is_a_warning(changes, path):
    (warning,) = Manifest.parse(document(**changes)).warnings
    assert (warning.path, warning.severity) == (path, "warning")


@pytest.mark.parametrize("total", [1, 6])
def test_total_size_may_count_base_images_or_not(total):
    raw = document(baseImages=[layer("x", 5, OTHER)], totalSize=total)
    assert Manifest.parse(raw).warnings == ()


@pytest.mark.parametrize("path", sorted((EXAMPLES / "valid").glob("*.json")), ids=lambda path: path.stem)
def test_valid_examples_of_the_schema_are_read(path):
    assert Manifest.parse(path.read_bytes()).document.raw == path.read_bytes()


# What the schema refuses and Go reads as a zero value.
LENIENT = {"name-missing.json", "tag-missing.json"}


def test_invalid_examples_of_the_schema_are_refused_without_it(subtests):
    for path in sorted((EXAMPLES / "invalid").glob("*.json")):
        with subtests.test(path=path):
            if path.name in LENIENT:
                Manifest.parse(path.read_bytes())
                return
            with pytest.raises(ContentError):
                Manifest.parse(path.read_bytes())


@pytest.mark.parametrize("path", sorted((EXAMPLES / "valid").glob("w*.json")), ids=lambda path: path.stem)
def test_null_is_absence_at_every_level(path):
    value = json.loads(path.read_bytes())
    holders = [value, *(value["layers"] or []), *(value.get("baseImages") or [])]
    holders += (value.get("layerHeaders") or {}).values()
    for holder in holders:
        for key in holder.keys() - {"layers"}:  # the one member that tells a manifest from other documents
            kept = dict(holder)
            del holder[key]
            absent = viewed(value)
            for nothing in (None, *([""] if key == "mediaType" else [])):
                holder[key] = nothing
                assert viewed(value) == absent, key
            holder.clear()
            holder.update(kept)


def viewed(value):
    """All that a manifest says, or what is wrong with it."""
    try:
        found = Manifest.parse(json.dumps(value).encode())
    except ContentError as error:
        return [finding.path for finding in error.findings]
    return replace(found, document=Document("a/b", b""))


def test_a_document_keeps_its_media_type():
    config = Document("application/vnd.cocoon.snapshot.config.v1+json", golden("w1"))
    assert Manifest.parse(config).document is config


@PROPERTY
@given(raw_documents())
def test_any_document_of_a_writer_is_read_as_it_stands(raw):
    manifest, value = Manifest.parse(raw), json.loads(raw)
    assert manifest.document.raw == raw
    assert [(item.digest.hex, item.size, item.filename) for item in (*manifest.layers, *manifest.base_images)] == [
        (item["digest"], item["size"], item["filename"])
        for item in [*(value["layers"] or []), *value.get("baseImages", [])]
    ]
    assert (manifest.name, manifest.tag) == (value["name"], value["tag"])
    assert (manifest.created_at, manifest.pushed_at) == (value.get("createdAt", ""), value.get("pushedAt", ""))
    assert manifest.image_blob_ids == value.get("imageBlobIDs", {})


damage = st.sampled_from(
    [None, True, -1, 1.5, 2**60, "", "x", "../x", "\x1b[0m", [], {}, [[]], {"a": 1}, "9" * 64]
).map(deepcopy)


@PROPERTY
@given(st.data())
def test_a_damaged_document_gives_findings_and_nothing_else(data):
    value = data.draw(documents(max_files=3))
    target = value
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if isinstance(target[key], dict | list) and target[key] and data.draw(st.booleans()):
            target = target[key]
            continue
        target[key] = data.draw(damage)
    raw = data.draw(spellings(value))
    try:
        assert Manifest.parse(raw).document.raw == raw
    except ContentError as error:
        assert error.findings
        assert all(finding.path.startswith("$") and finding.code for finding in error.findings)
        assert not any(ord(char) < 32 for char in str(error))


@PROPERTY
@given(raw_documents(max_files=2), st.integers(0, 10**6), st.binary(max_size=3))
def test_damaged_bytes_give_findings_and_nothing_else(raw, where, junk):
    at = where % (len(raw) + 1)
    try:
        Manifest.parse(raw[:at] + junk + raw[at + len(junk) :])
    except ContentError as error:
        assert error.findings
