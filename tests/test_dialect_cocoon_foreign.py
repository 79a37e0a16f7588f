"""Artifacts that others made with Cocoon's media types: an Epoch manifest is derived, the same for everybody."""

import hashlib
import json

import pytest
from cocoon_artifacts import decode, encode, findings
from epoch_strategies import EMPTY_HEX

from epoch_oci.dialects.base import EncodeOptions
from epoch_oci.dialects.foreign import identified
from epoch_oci.errors import ContentError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import EMPTY
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.parts import PartTable

TITLE = "org.opencontainers.image.title"
ROLE = "vnd.cocoon.layer.role"
CREATED = "org.opencontainers.image.created"
QCOW2 = "application/vnd.cocoon.disk.qcow2"
MEMORY = "application/vnd.cocoon.memory"


def hex_of(name):
    return hashlib.sha256(name.encode()).hexdigest()


def layer(name, media_type=QCOW2, size=5, **annotations):
    notes = {TITLE: name, **annotations} if name is not None else annotations
    return {"mediaType": media_type, "digest": f"sha256:{hex_of(str(name))}", "size": size, "annotations": notes}


def oras(*layers, annotations=None, **members):
    """What `oras push` writes."""
    return {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "artifactType": "application/vnd.unknown.artifact.v1",
        "config": {**EMPTY.to_json(), "data": "e30="},
        "layers": list(layers),
        "annotations": {CREATED: "2026-05-01T08:00:00Z", **(annotations or {})},
        **members,
    }


def test_a_plain_push_becomes_an_epoch_manifest():
    artifact = oras(
        layer("overlay.qcow2"),
        layer("memory-ranges", MEMORY, 7),
        layer("base.qcow2", size=11, **{ROLE: "base-image"}),
        layer("notes.txt", "text/plain", 2),
        annotations={TITLE: "bot", "org.opencontainers.image.version": "v<1>"},
    )
    snapshot = decode(artifact, None)
    assert snapshot.derived
    assert snapshot.dialect == "cocoon"
    assert snapshot.epoch.raw.decode() == (
        "{\n"
        '  "schemaVersion": 1,\n'
        '  "name": "bot",\n'
        '  "tag": "v\\u003c1\\u003e",\n'
        '  "snapshotId": "",\n'
        '  "layers": [\n'
        "    {\n"
        f'      "digest": "{hex_of("overlay.qcow2")}",\n'
        '      "size": 5,\n'
        '      "filename": "overlay.qcow2",\n'
        '      "mediaType": "application/vnd.cocoon.disk.qcow2"\n'
        "    },\n"
        "    {\n"
        f'      "digest": "{hex_of("memory-ranges")}",\n'
        '      "size": 7,\n'
        '      "filename": "memory-ranges",\n'
        '      "mediaType": "application/vnd.cocoon.memory"\n'
        "    },\n"
        "    {\n"
        f'      "digest": "{hex_of("notes.txt")}",\n'
        '      "size": 2,\n'
        '      "filename": "notes.txt",\n'
        '      "mediaType": "text/plain"\n'
        "    }\n"
        "  ],\n"
        '  "baseImages": [\n'
        "    {\n"
        f'      "digest": "{hex_of("base.qcow2")}",\n'
        '      "size": 11,\n'
        '      "filename": "base.qcow2",\n'
        '      "mediaType": "application/vnd.cocoon.disk.qcow2"\n'
        "    }\n"
        "  ],\n"
        '  "totalSize": 25,\n'
        '  "createdAt": "2026-05-01T08:00:00Z",\n'
        '  "pushedAt": "0001-01-01T00:00:00Z"\n'
        "}"
    )
    assert [(file.name, file.role) for file in snapshot.files] == [
        ("overlay.qcow2", "layer"),
        ("memory-ranges", "layer"),
        ("notes.txt", "layer"),
        ("base.qcow2", "base-image"),
    ]
    assert snapshot.warnings == ()
    assert snapshot.lost == ()


DEFAULTS = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
]


@pytest.mark.parametrize("default", DEFAULTS)
def test_files_pushed_without_media_types_get_those_of_their_names(default):
    """What the tools write then says nothing of the file; a type that somebody stated stays."""
    names = {
        "overlay.qcow2": QCOW2,
        "cow.raw": "application/vnd.cocoon.disk.raw",
        "memory-ranges": MEMORY,
        "cidata.img": "application/vnd.cocoon.cidata",
        "config.json": "application/vnd.cocoon.config+json",
        "state.json": "application/vnd.cocoon.state+json",
        "vmstate": "application/octet-stream",
    }
    value = oras(
        *(layer(name, default) for name in names),
        layer("notes.txt", "text/plain"),
        layer("base.qcow2", default, **{ROLE: "base-image"}),
        artifactType="application/vnd.cocoon.snapshot.v1+json",
    )
    snapshot = decode(value, None)
    expected = {**names, "notes.txt": "text/plain", "base.qcow2": QCOW2}
    assert {file.name: file.media_type for file in snapshot.files} == expected
    rows = (*snapshot.manifest.layers, *snapshot.manifest.base_images)
    assert {row.filename: row.media_type for row in rows} == expected
    assert [file.carriers[0].media_type for file in snapshot.files if file.name == "cow.raw"] == [default]
    assert decode(encode(snapshot.epoch.raw).manifest.raw, encode(snapshot.epoch.raw).config).files != ()


def test_what_is_derived_can_travel_like_any_snapshot():
    derived = decode(oras(layer("overlay.qcow2"), layer("b.qcow2", **{ROLE: "base-image"})), None)
    artifact = encode(derived.epoch.raw)
    assert decode(artifact.manifest.raw, artifact.config).files == derived.files


def test_snapshot_id_and_image_are_taken_over():
    notes = {"cocoonstack.snapshot.id": "9f3c1a7be20d4c55", "cocoonstack.snapshot.baseimage": "ubuntu:24.04"}
    manifest = decode(oras(layer("overlay.qcow2"), annotations=notes), None).manifest
    assert (manifest.snapshot_id, manifest.image) == ("9f3c1a7be20d4c55", "ubuntu:24.04")


def test_the_caller_may_name_it():
    nameless = decode(oras(layer("a.qcow2")), None)
    assert nameless.manifest.name == ""
    named = identified(nameless, "bot", "v1")
    assert (named.manifest.name, named.manifest.tag) == ("bot", "v1")
    assert named.derived and identified(named, "other", "v2") == named
    with pytest.raises(ContentError) as caught:
        identified(nameless, "../bot", "v1")
    assert caught.value.code == "NAME"


@pytest.mark.parametrize(
    ("annotations", "created", "warned"),
    [
        ({CREATED: "2026-05-01T08:00:00.123456789+08:00"}, "2026-05-01T08:00:00.123456789+08:00", False),
        ({CREATED: ""}, "0001-01-01T00:00:00Z", False),
        ({CREATED: "May"}, "0001-01-01T00:00:00Z", True),
    ],
)
def test_the_date_is_the_artifacts_or_none(annotations, created, warned):
    snapshot = decode(oras(layer("a.qcow2"), annotations=annotations), None)
    assert snapshot.manifest.created_at == created
    assert bool(snapshot.warnings) is warned


def test_what_has_no_place_in_epoch_is_said_to_be_lost():
    config = Document("application/vnd.acme.config+json", b'{"a":1}')
    value = oras(
        layer("a.qcow2", **{"com.example.x": "1"}),
        annotations={"com.example.team": "sre"},
        config=config.descriptor.to_json(),
    )
    assert decode(value, config).lost == (
        'annotation "com.example.team"',
        'config of type "application/vnd.acme.config+json"',
        'annotation "com.example.x" of "a.qcow2"',
    )


def test_an_artifact_type_that_epoch_would_not_agree_with_is_a_warning():
    value = oras(layer("a.qcow2"), artifactType="application/vnd.cocoon.snapshot.v1+json")
    (warning,) = decode(value, None).warnings
    assert (warning.path, warning.code, warning.severity) == ("$.artifactType", "TYPE", "warning")
    value = oras(layer("a.qcow2"), artifactType="application/vnd.cocoon.os-image.v1+json")
    assert decode(value, None).warnings == ()


def test_an_empty_file_needs_no_layer_to_be_fetched():
    empty = {"mediaType": QCOW2, "digest": f"sha256:{EMPTY_HEX}", "size": 0, "annotations": {TITLE: "e.qcow2"}}
    snapshot = decode(oras(layer("a.qcow2"), empty), None)
    assert [(file.name, len(file.carriers)) for file in snapshot.files] == [("a.qcow2", 1), ("e.qcow2", 0)]


def test_parts_with_all_their_annotations_are_joined():
    whole = json.dumps(
        {"name": "n", "tag": "t", "layers": [{"digest": hex_of("d"), "size": 30, "filename": "d.qcow2"}]}
    )
    cut = PartTable(size=10, digests=tuple(Digest.of(b"%d" % index) for index in range(3)))
    minted = encode(whole.encode(), EncodeOptions(parts={Digest.from_hex(hex_of("d")): cut}))
    snapshot = decode(oras(*json.loads(minted.manifest.raw)["layers"]), None)
    assert snapshot.derived
    assert snapshot.files == minted.files
    assert snapshot.manifest.layers[0].media_type == QCOW2


def test_parts_must_have_the_media_type_of_parts():
    whole = json.dumps({"layers": [{"digest": hex_of("d"), "size": 20, "filename": "d.qcow2"}]})
    cut = PartTable(size=10, digests=(Digest.of(b"0"), Digest.of(b"1")))
    minted = encode(whole.encode(), EncodeOptions(parts={Digest.from_hex(hex_of("d")): cut}))
    layers = [{**item, "mediaType": QCOW2} for item in json.loads(minted.manifest.raw)["layers"]]
    assert findings(lambda: decode(oras(*layers), None)) == [("$.layers[0].mediaType", "TYPE")]


TITLE_OF = '$.layers[{}].annotations["org.opencontainers.image.title"]'


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([layer(None)], [(TITLE_OF.format(0), "NAME")]),
        ([layer("../x")], [(TITLE_OF.format(0), "NAME")]),
        ([layer("snapshot.json")], [(TITLE_OF.format(0), "NAME")]),
        ([layer("a"), layer("A")], [(TITLE_OF.format(1), "NAME")]),
        ([layer("a"), layer("b", "application/vnd.cocoon.disk.qcow2.part")], [("$.layers[1].mediaType", "TYPE")]),
        ([layer("dir", **{"io.deis.oras.content.unpack": "true"})],
         [('$.layers[0].annotations["io.deis.oras.content.unpack"]', "TYPE")]),
        ([layer("a", **{ROLE: "other"})], [(f'$.layers[0].annotations["{ROLE}"]', "SCHEMA")]),
        ([layer("a"), {**layer("b", **{ROLE: "base-image"}), "digest": "sha512:" + "a" * 128}],
         [("$.layers[1].digest", "DIGEST")]),
        ([layer("a"), layer(None), layer("b/c")], [(TITLE_OF.format(1), "NAME"), (TITLE_OF.format(2), "NAME")]),
    ],
)  # fmt: skip
def test_layers_that_are_no_files_of_a_snapshot(layers, expected):
    assert findings(lambda: decode(oras(*layers), None)) == expected


def test_an_empty_name_of_another_digest_is_refused():
    with pytest.raises(ContentError) as caught:
        decode(oras({**layer("a.qcow2"), "size": 0}), None)
    assert caught.value.code == "DIGEST"


@pytest.mark.parametrize("key", [TITLE, "org.opencontainers.image.version"])
def test_hostile_names_of_the_snapshot_are_refused(key):
    assert findings(lambda: decode(oras(layer("a.qcow2"), annotations={key: "../../x"}), None)) == [
        (f'$.annotations["{key}"]', "NAME")
    ]


def test_an_artifact_without_files_is_refused():
    value = oras(EMPTY.to_json(), artifactType="application/vnd.cocoon.snapshot.v1+json")
    assert findings(lambda: decode(value, None)) == [("$.layers", "SCHEMA")]


def test_a_config_of_the_other_dialect_contradicts_the_layers():
    config = {
        "mediaType": "application/vnd.cocoonstack.snapshot.config.v1+json",
        "digest": f"sha256:{hex_of('c')}",
        "size": 9,
    }
    assert findings(lambda: decode(oras(layer("a.qcow2"), config=config), None)) == [("$.config.mediaType", "TYPE")]
