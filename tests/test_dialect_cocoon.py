"""The `cocoon` profile: golden pairs, exact return, and refusal of whatever does not agree."""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cocoon_artifacts import GOLDEN, altered, decode, encode, findings, pair, pairs
from epoch_strategies import EMPTY_HEX, PROPERTY, raw_documents
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci import dialects
from epoch_oci.dialects.base import EncodeOptions
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Manifest
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import EMPTY
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest

EPOCH = Path(__file__).parent / "data" / "epoch"
TITLE = "org.opencontainers.image.title"
ROLE = "vnd.cocoon.layer.role"
ZERO = "0001-01-01T00:00:00Z"
OTHER = "sha256:" + hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair.name)
def test_golden_pairs_both_ways(pair):
    artifact = pair.artifact()
    assert artifact.manifest.raw == pair.oci
    assert artifact.config.raw == pair.epoch
    assert artifact.lost == ()
    snapshot = decode(pair.oci, artifact.config)
    assert snapshot.epoch.raw == pair.epoch
    assert snapshot.epoch.media_type == EPOCH_MANIFEST
    assert (snapshot.dialect, snapshot.derived, snapshot.warnings, snapshot.lost) == ("cocoon", False, (), ())
    assert snapshot.files == artifact.files


def test_every_golden_epoch_document_has_its_pair():
    for path in EPOCH.glob("*.json"):
        assert (GOLDEN / path.stem / "epoch-manifest.json").read_bytes() == path.read_bytes()


def test_the_artifact_of_a_snapshot():
    value = json.loads(encode((EPOCH / "w3b.json").read_bytes()).manifest.raw)
    assert value["artifactType"] == "application/vnd.cocoon.snapshot.v1+json"
    assert value["config"]["mediaType"] == "application/vnd.cocoon.snapshot.config.v1+json"
    assert value["config"]["size"] == 2323
    assert [item["annotations"].get(ROLE) for item in value["layers"]] == [None] * 5 + ["base-image"]
    assert value["annotations"] == {
        "org.opencontainers.image.created": "2026-04-04T21:07:33.418205113+08:00",
        "org.opencontainers.image.title": "sre-agent-bot",
        "org.opencontainers.image.version": "latest",
        "cocoonstack.snapshot.id": "9f3c1a7be20d4c55",
        "cocoonstack.snapshot.baseimage": (
            "https://cloud-images.ubuntu.com/noble/current/noble-server-cloudimg-amd64.img"
        ),
    }


def test_a_cloud_image_has_a_type_of_its_own():
    value = json.loads(pair("cloud-image").artifact().manifest.raw)
    assert value["artifactType"] == "application/vnd.cocoon.os-image.v1+json"
    assert value["config"]["mediaType"] == "application/vnd.cocoon.os-image.config.v1+json"


@pytest.mark.parametrize(("writer", "shown"), [("w3b", "SNAPSHOT"), ("cloud-image", "OS-IMAGE")])
def test_harbor_shows_what_it_is(writer, shown):
    """The type by the config's media type, and attributes by the config, which is an object (oci-registries 3.5)."""
    artifact = pair(writer).artifact()
    config = json.loads(artifact.manifest.raw)["config"]["mediaType"]
    assert re.fullmatch(r"application/vnd\.[^.]*\.(.*)\.config\.[^.]*\+json", config)[1].upper() == shown
    assert isinstance(json.loads(artifact.config.raw), dict)


def test_a_manifest_without_anything_to_list_has_the_empty_descriptor():
    artifact = pair("nothing-to-list").artifact()
    assert artifact.image.layers == (EMPTY,)
    (file,) = artifact.files
    assert (file.name, file.size, file.carriers) == ("marker", 0, ())
    assert decode(artifact.manifest.raw, artifact.config).files == artifact.files
    assert artifact.image.annotations == {TITLE: "only-empty-files", "org.opencontainers.image.version": "v1"}


def test_one_blob_under_two_names_is_two_layers():
    artifact = pair("zero-length").artifact()
    assert [(layer.title, layer.digest.short()) for layer in artifact.image.layers[1:]] == [
        ("data-a.raw", artifact.image.layers[1].digest.short()),
        ("data-b.raw", artifact.image.layers[1].digest.short()),
    ]


@pytest.mark.parametrize(
    ("changes", "created"),
    [
        ({"createdAt": "2026-04-02T13:07:33Z", "pushedAt": "2026-04-03T00:00:00Z"}, "2026-04-02T13:07:33Z"),
        (
            {"createdAt": "0001-01-01T00:00:00Z", "pushedAt": "2026-04-03T00:00:00.5+02:00"},
            "2026-04-03T00:00:00.5+02:00",
        ),
        ({"pushedAt": "2026-04-03T00:00:00Z"}, "2026-04-03T00:00:00Z"),
        ({"createdAt": ZERO, "pushedAt": ZERO}, None),
        ({}, None),
    ],
)
def test_the_date_is_what_epoch_wrote_or_is_left_out(changes, created):
    artifact = encode(json.dumps({"layers": [], **changes}).encode())
    assert artifact.image.annotations.get("org.opencontainers.image.created") == created


def test_annotations_of_the_user():
    raw = pair("w1").epoch
    artifact = encode(raw, EncodeOptions(annotations={"com.example.team": "sre", "com.example.none": ""}))
    assert artifact.image.annotations["com.example.team"] == "sre"
    assert "com.example.none" not in artifact.image.annotations
    snapshot = decode(artifact.manifest.raw, artifact.config)
    assert snapshot.lost == ('annotation "com.example.team"',)
    assert snapshot.epoch.raw == raw


@pytest.mark.parametrize(
    "annotations",
    [
        {TITLE: "x"},
        {TITLE: ""},
        {"org.opencontainers.image.created": "2026-04-02T13:07:33Z"},
        {"org.opencontainers.image.version": "v2"},
        {"cocoonstack.snapshot.id": "x"},
        {"cocoonstack.snapshot.baseimage": "x"},
        {"vnd.cocoon.layer.role": "base-image"},
        {"": "x"},
        {"com.example.a": "\udc80"},
        {"com.example.\0": "x"},
    ],
)
def test_annotations_that_the_user_may_not_set(annotations):
    with pytest.raises(UsageError):
        encode(pair("w1").epoch, EncodeOptions(annotations=annotations))


def test_what_is_wrong_with_the_epoch_manifest_is_told():
    with pytest.raises(ContentError) as caught:
        encode(b'{"layers":[{}]}')
    assert {finding.code for finding in caught.value.findings} == {"NAME", "DIGEST"}


def test_a_manifest_that_no_registry_would_take_is_not_made():
    raw = json.dumps({"image": "x" * (5 << 20), "layers": []}).encode()
    with pytest.raises(ContentError) as caught:
        encode(raw)
    assert caught.value.code == "SIZE"


def drop(value):
    del value["layers"][2]


def add(value):
    value["layers"].append({**value["layers"][0], "annotations": {TITLE: "extra.bin"}})


def repeat(value):
    value["layers"].append(value["layers"][0])


def swap(value):
    value["layers"][1], value["layers"][3] = value["layers"][3], value["layers"][1]


def change(index, **members):
    return lambda value: value["layers"][index].update(members)


def annotate(index, **members):
    def apply(value):
        notes = value["layers"][index]["annotations"]
        notes.update({key.replace("_", "."): item for key, item in members.items() if item is not None})

    return apply


def retitle(index, title):
    return lambda value: value["layers"][index]["annotations"].update({TITLE: title})


def untitle(value):
    del value["layers"][1]["annotations"]


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (drop, {("$.layers", "MISMATCH")}),
        (add, {('$.layers[6].annotations["org.opencontainers.image.title"]', "MISMATCH")}),
        (repeat, {('$.layers[6].annotations["org.opencontainers.image.title"]', "MISMATCH")}),
        (swap, {("$.layers[1]", "MISMATCH")}),
        (change(0, digest=OTHER), {("$.layers[0].digest", "MISMATCH")}),
        (change(0, size=7), {("$.layers[0].size", "MISMATCH")}),
        (change(0, mediaType="application/octet-stream"), {("$.layers[0].mediaType", "MISMATCH")}),
        (change(2, mediaType="application/vnd.cocoon.memory.part"), {("$.layers[2].mediaType", "MISMATCH")}),
        (annotate(0, **{ROLE: "base-image"}), {(f'$.layers[0].annotations["{ROLE}"]', "MISMATCH")}),
        (change(5, annotations={TITLE: "f1f23e746aa5635221fb5422d331102a786e0c6b35653b78f1582c035c160da0.qcow2"}),
         {(f'$.layers[5].annotations["{ROLE}"]', "MISMATCH")}),
        (annotate(0, **{ROLE: "firmware"}),
         {(f'$.layers[0].annotations["{ROLE}"]', "SCHEMA"), (f'$.layers[0].annotations["{ROLE}"]', "MISMATCH")}),
        (retitle(1, "config.jsonx"),
         {('$.layers[1].annotations["org.opencontainers.image.title"]', "MISMATCH"), ("$.layers", "MISMATCH")}),
        (retitle(1, "../../etc/passwd"),
         {('$.layers[1].annotations["org.opencontainers.image.title"]', "NAME"), ("$.layers", "MISMATCH")}),
        (untitle, {("$.layers[1]", "NAME"), ("$.layers", "MISMATCH")}),
        (lambda value: value["layers"].append(EMPTY.to_json()), {("$.layers[6]", "MISMATCH")}),
        (lambda value: value.update(layers=[]), {("$.layers", "MISMATCH")}),
        (lambda value: value.update(layers=[EMPTY.to_json()]), {("$.layers", "MISMATCH")}),
        (lambda value: value.update(artifactType="application/vnd.cocoon.os-image.v1+json"),
         {("$.artifactType", "TYPE")}),
        (lambda value: value.update(artifactType="application/vnd.cocoonstack.snapshot.v1+json"),
         {("$.artifactType", "TYPE")}),
        (lambda value: value["config"].update(mediaType="application/vnd.cocoon.os-image.config.v1+json"),
         {("$.artifactType", "TYPE"), ("$.config.mediaType", "TYPE")}),
    ],
)  # fmt: skip
def test_layers_that_do_not_agree_with_the_config(alter, expected):
    artifact = pair("w3b").artifact()
    value = altered(artifact, alter)
    assert set(findings(lambda: decode(value, artifact.config))) == expected


def test_every_disagreement_is_told_at_once():
    artifact = pair("w3b").artifact()

    def spoil(value):
        value["artifactType"] = "application/vnd.cocoon.os-image.v1+json"
        change(0, digest=OTHER, size=7)(value)
        retitle(1, "other")(value)
        value["layers"][2], value["layers"][3] = value["layers"][3], value["layers"][2]

    assert {path for path, _ in findings(lambda: decode(altered(artifact, spoil), artifact.config))} == {
        "$.artifactType",
        "$.layers[0].digest",
        "$.layers[0].size",
        '$.layers[1].annotations["org.opencontainers.image.title"]',
        "$.layers[2]",
        "$.layers",
    }


def test_an_empty_file_must_not_be_listed():
    artifact = pair("zero-length").artifact()
    listed = {"mediaType": "application/vnd.cocoon.disk.raw", "digest": f"sha256:{EMPTY_HEX}", "size": 0}
    value = altered(artifact, lambda value: value["layers"].append({**listed, "annotations": {TITLE: "cow.raw"}}))
    assert findings(lambda: decode(value, artifact.config)) == [
        ('$.layers[3].annotations["org.opencontainers.image.title"]', "MISMATCH")
    ]


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (None, "MISMATCH"),
        (b"{}", "SIZE"),
        (pair("w3b").epoch.replace(b'"cpu": 2', b'"cpu": 4'), "DIGEST"),
    ],
)
def test_another_config_than_the_one_named_is_refused(config, code):
    artifact = pair("w3b").artifact()
    document = None if config is None else Document(artifact.config.media_type, config)
    with pytest.raises(ContentError) as caught:
        decode(artifact.manifest.raw, document)
    assert caught.value.code == code


def test_a_config_that_is_no_epoch_manifest_is_refused():
    artifact = pair("w3b").artifact()
    config = Document(artifact.config.media_type, b'{"schemaVersion":2,"layers":[{"digest":"x"}]}')
    value = altered(artifact, lambda value: value.update(config=config.descriptor.to_json()))
    assert {code for _, code in findings(lambda: decode(value, config))} == {"TYPE", "NAME", "DIGEST"}


def test_annotations_that_do_not_agree_are_a_warning():
    artifact = pair("w3b").artifact()

    def spoil(value):
        value["annotations"][TITLE] = "other\x1b[2J"
        del value["annotations"]["cocoonstack.snapshot.id"]

    snapshot = decode(altered(artifact, spoil), artifact.config)
    assert [(item.path, item.severity) for item in snapshot.warnings] == [
        ('$.annotations["cocoonstack.snapshot.id"]', "warning"),
        ('$.annotations["org.opencontainers.image.title"]', "warning"),
    ]
    assert not any("\x1b" in str(item) for item in snapshot.warnings)
    assert snapshot.manifest.name == "sre-agent-bot"


def test_unknown_members_and_annotations_are_no_reason_to_refuse():
    artifact = pair("w3b").artifact()

    def enrich(value):
        del value["artifactType"]
        value["x-unknown"] = [1]
        value["subject"] = EMPTY.to_json()
        value["layers"][0]["annotations"]["com.example.a"] = ""
        value["layers"][0]["x-unknown"] = {}

    snapshot = decode(altered(artifact, enrich), artifact.config)
    assert snapshot.epoch.raw == artifact.config.raw


def test_urls_are_not_used_and_one_warning_says_so():
    artifact = pair("w3b").artifact()

    def point_elsewhere(value):
        for layer in value["layers"]:
            layer["urls"] = ["http://192.0.2.1/blob"]

    (warning,) = decode(altered(artifact, point_elsewhere), artifact.config).warnings
    assert (warning.path, warning.severity) == ("$.layers[0].urls", "warning")


def image(**members):
    value = {"schemaVersion": 2, "mediaType": media_types.MANIFEST, "config": EMPTY.to_json(), "layers": [], **members}
    return ImageManifest.parse(Document(media_types.MANIFEST, json.dumps(value).encode()))


COCOON_LAYER = {"mediaType": "application/vnd.cocoon.memory", "digest": OTHER, "size": 1}
PLAIN_LAYER = {**COCOON_LAYER, "mediaType": "application/octet-stream"}


def typed(media_type):
    return {"mediaType": media_type, "digest": OTHER, "size": 1}


@pytest.mark.parametrize(
    ("members", "accepted"),
    [
        ({"artifactType": "application/vnd.cocoon.snapshot.v1+json"}, True),
        ({"artifactType": "application/vnd.cocoon.os-image.v1+json"}, True),
        ({"config": typed("application/vnd.cocoon.snapshot.config.v1+json")}, True),
        ({"config": typed("application/vnd.cocoon.os-image.config.v1+json")}, True),
        ({"layers": [PLAIN_LAYER, COCOON_LAYER]}, True),
        ({"layers": [COCOON_LAYER], "artifactType": "application/vnd.unknown.artifact.v1"}, True),
        ({"layers": [COCOON_LAYER], "config": typed("application/vnd.oci.image.config.v1+json")}, True),
        ({"layers": [COCOON_LAYER], "artifactType": "application/vnd.cocoonstack.snapshot.v1+json"}, False),
        ({"layers": [PLAIN_LAYER]}, False),
        ({"layers": [typed("application/vnd.cocoonstack.disk.raw")]}, False),
        ({}, False),
        ({"config": typed("application/vnd.oci.image.config.v1+json")}, False),
    ],
)
def test_which_artifacts_are_of_this_dialect(members, accepted):
    assert dialects.named("cocoon").accepts(image(**members)) is accepted


def test_an_artifact_of_no_dialect_is_of_the_wrong_type():
    with pytest.raises(ContentError) as caught:
        dialects.detect(image(config=typed("application/vnd.oci.image.config.v1+json")))
    assert caught.value.code == "TYPE"
    assert "application/vnd.oci.image.config.v1+json" in str(caught.value)


def test_an_unknown_dialect_is_wrong_usage():
    with pytest.raises(UsageError) as caught:
        dialects.named("docker")
    assert "cocoon" in str(caught.value)


@PROPERTY
@given(
    raw_documents(),
    st.dictionaries(st.from_regex(r"com\.example\.[a-z]{1,5}", fullmatch=True), st.text("aé<\n"), max_size=2),
)
def test_any_document_comes_back_with_its_bytes(raw, annotations):
    artifact = encode(raw, EncodeOptions(annotations=annotations))
    assert artifact.manifest.raw == encode(raw, EncodeOptions(annotations=annotations)).manifest.raw
    snapshot = decode(artifact.manifest.raw, artifact.config)
    assert snapshot.epoch.raw == raw
    assert snapshot.files == artifact.files
    manifest = Manifest.parse(raw)
    assert [file.digest for file in snapshot.files] == [
        item.digest for item in (*manifest.layers, *manifest.base_images)
    ]
    assert {layer.digest for layer in artifact.image.layers} - {EMPTY.digest} == {
        item.digest for item in manifest.descriptors if item.size
    }


@PROPERTY
@given(st.data())
def test_an_altered_artifact_is_always_refused(data):
    artifact = encode(
        data.draw(raw_documents().filter(lambda raw: any(item.size for item in Manifest.parse(raw).layers)))
    )
    value = json.loads(artifact.manifest.raw)
    layers = value["layers"]
    index = data.draw(st.integers(0, len(layers) - 1))
    what = data.draw(st.sampled_from(["drop", "repeat", "swap", "digest", "size", "title", "mediaType", "role"]))
    if what == "drop":
        del layers[index]
    elif what == "repeat":
        layers.insert(data.draw(st.integers(0, len(layers))), dict(layers[index]))
    elif what == "swap":
        other = data.draw(st.integers(0, len(layers) - 1))
        if other == index:
            return
        layers[index], layers[other] = layers[other], layers[index]
    elif what == "digest":
        layers[index]["digest"] = OTHER
    elif what == "size":
        layers[index]["size"] += 1
    elif what == "title":
        layers[index]["annotations"][TITLE] += "x"
    elif what == "mediaType":
        layers[index]["mediaType"] += "x"
    elif ROLE in layers[index]["annotations"]:
        del layers[index]["annotations"][ROLE]
    else:
        layers[index]["annotations"][ROLE] = "base-image"
    with pytest.raises(ContentError):
        decode(value, artifact.config)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from cocoon_artifacts import pairs
print(*(pair.artifact().manifest.digest for pair in pairs()))
"""


def test_one_digest_in_every_process(tmp_path):
    """R33: whatever the hash seed, zone, locale and working directory are."""
    expected = " ".join(str(Digest.of(pair.oci)) for pair in pairs())
    zones, locales = ("UTC", "Asia/Shanghai", "America/St_Johns", ""), ("C", "C.UTF-8", "tr_TR.UTF-8", "de_DE", "")
    places = (tmp_path, Path("/"), Path(__file__).parent)

    def run(number):
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": str(number * 7919 % 4294967296),
            "TZ": zones[number % 4],
            "LC_ALL": locales[number % 5],
            "PYTHONUTF8": str(number % 2),
        }
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, str(Path(__file__).parent)],
            env=environment,
            cwd=places[number % 3],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(run, range(10))) == {expected}
