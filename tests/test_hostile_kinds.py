"""Documents of another kind or version than they say, and descriptors that embed content or point elsewhere."""

import base64
import json

import pytest
from cli_runner import Here
from hostile import (
    DISK,
    Sandbox,
    artifact,
    core_refuses_artifact,
    core_refuses_epoch,
    encoded,
    epoch,
    image,
    layer,
    raw,
    some,
    write_layout,
    write_store,
)
from support.content import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, descriptor
from support.faults import Respond, SetHeader

GOOD = encoded(image())
EPOCH = encoded(epoch())


@pytest.fixture
def box(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Sandbox(Here(capsys), tmp_path / "sandbox")


TYPES = [
    image(manifests=[]),
    image(manifests=[descriptor(GOOD, MANIFEST)]),
    *[image(mediaType=text) for text in (INDEX, DOCKER_LIST, DOCKER_MANIFEST, "application/json", "text/html", 1)],
    *[image(mediaType=text) for text in ([], {}, MANIFEST + " ", MANIFEST.upper(), MANIFEST + "; charset=utf-8")],
    {"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "layers": []},
    {"schemaVersion": 2, "mediaType": MANIFEST, "manifests": []},
    {
        "schemaVersion": 1,
        "name": "x",
        "tag": "y",
        "architecture": "amd64",
        "fsLayers": [],
        "history": [],
        "signatures": [],
    },
    {"errors": [{"code": "DENIED"}]},
    *[{key: value for key, value in image().items() if key != gone} for gone in ("layers", "schemaVersion")],
]
CONTRADICTIONS = [
    *[
        "application/vnd.cocoon.os-image.v1+json",
        "application/vnd.cocoonstack.snapshot.v1+json",
        "text/html",
        "x/y",
    ],
]


def test_documents_of_other_kinds_and_versions_are_refused_by_the_library():
    wrong = [(value, core_refuses_artifact(encoded(value), "TYPE")) for value in TYPES]
    wrong += [(value, core_refuses_artifact(encoded(image(schemaVersion=value)), "TYPE")) for value in VERSIONS]
    for value in EPOCH_VERSIONS:
        document = epoch(schemaVersion=value)
        manifest, config = artifact(document)
        wrong.append((value, core_refuses_artifact(manifest, "TYPE", config=config)))
        wrong.append((value, core_refuses_epoch(encoded(document), "TYPE")))
    for media_type in CONTRADICTIONS:
        manifest, config = artifact(epoch())
        manifest = encoded(json.loads(manifest) | {"artifactType": media_type})
        wrong.append((media_type, core_refuses_artifact(manifest, "TYPE", config=config)))
    assert [pair for pair in wrong if pair[1]] == []


@pytest.mark.parametrize("document", some(TYPES, 5), ids=range(5))
def test_a_document_of_another_kind(box, document):
    box.refuses_artifact(encoded(document), ["TYPE"])


@pytest.mark.parametrize("media_type", some(CONTRADICTIONS, 2))
def test_an_artifact_type_that_contradicts_the_config(box, media_type):
    manifest, config = artifact(epoch())
    manifest = encoded(json.loads(manifest) | {"artifactType": media_type})
    box.refuses_artifact(manifest, "TYPE", config=config)


@pytest.mark.parametrize("body", [b"<!doctype html><html>", b"404 page not found", b"\x1f\x8b\x08\x00"])
def test_something_else_with_a_status_of_200(box, fake_registry, body):
    for media_type in (MANIFEST, "text/html"):
        registry = fake_registry()
        registry.fault("GET|HEAD", "/manifests/", Respond(200, body, ("Content-Type", media_type)))
        box.refused("pull", f"{registry.address}/acme/bot:v1", "--store", "second", code=["JSON", "TYPE"])
        box.refused("inspect", f"{registry.address}/acme/bot:v1", code=["JSON", "TYPE"])


@pytest.mark.parametrize("served", [INDEX, DOCKER_LIST, DOCKER_MANIFEST, "text/html", "application/json"])
def test_what_a_manifest_is_said_to_be_counts_in_a_layout_and_is_a_hint_in_a_registry(box, fake_registry, served):
    registry = fake_registry()
    registry.put_manifest("acme/bot", "v1", GOOD)
    registry.fault("GET|HEAD", "/manifests/", SetHeader("Content-Type", served))
    assert box.cli("inspect", f"{registry.address}/acme/bot:v1").code == 0
    write_layout(box.work / "layout", GOOD, media_type=served)
    box.refused("pull", "oci:layout:v1", "--store", "second", code="TYPE")


VERSIONS = [
    None,
    0,
    1,
    3,
    -2,
    "2",
    "",
    True,
    False,
    [],
    {},
    [2],
    2**53,
    raw("2.0"),
    raw("2e0"),
    raw("-0"),
    raw("20e-1"),
]


@pytest.mark.parametrize("version", some(VERSIONS, 4), ids=str)
def test_a_version_of_the_oci_manifest(box, version):
    ran = box.refuses_artifact(encoded(image(schemaVersion=version)), "TYPE")[0]
    assert "only 2 is understood" in ran.err
    write_layout(box.work / "layout", GOOD)
    index = json.loads((box.work / "layout/index.json").read_bytes()) | {"schemaVersion": version}
    (box.work / "layout/index.json").write_bytes(encoded(index))
    box.refused("pull", "oci:layout:v1", "--store", "second", code="TYPE")


EPOCH_VERSIONS = [0, 2, -1, "1", "", True, False, [], {}, 2**53, raw("1.0"), raw("1e0")]


@pytest.mark.parametrize("version", some(EPOCH_VERSIONS, 3), ids=str)
def test_a_version_of_the_epoch_manifest(box, version):
    document = epoch(schemaVersion=version)
    box.refuses_store(encoded(document), "TYPE")
    manifest, config = artifact(document)
    ran = box.refuses_artifact(manifest, "TYPE", config=config)[0]
    assert "1" in ran.err


@pytest.mark.parametrize("version", [None, "2.0.0", "1.0.0 ", raw("1.0")], ids=str)
def test_a_version_of_the_layout(box, version):
    write_layout(box.work / "layout", GOOD)
    (box.work / "layout/oci-layout").write_bytes(encoded({"imageLayoutVersion": version}))
    box.refused("pull", "oci:layout:v1", "--store", "second", code="TYPE")
    write_store(box.work / "store", EPOCH)
    box.refused("push", "team/bot:v1", "oci:layout:v2", "--store", "store", code="TYPE")


# Embedded content

DATA = [base64.b64encode(text).decode() for text in (b"", b"{", b"{ }", b"[]", b"{}{}", b"\x00" * 5_000)]


OTHER_DATA = [*DATA, "e30", "e30=\n", "!", "e30==", " e30=", "\u0661", 1, [], {}, True]


def test_embedded_content_that_does_not_fit_is_refused_by_the_library():
    wrong = []
    for data in OTHER_DATA:
        for value in (image(config=image()["config"] | {"data": data}), image([layer(data=data)])):
            wrong.append((data, core_refuses_artifact(encoded(value), ["SIZE", "DIGEST", "SCHEMA"])))
    assert [pair for pair in wrong if pair[1]] == []


@pytest.mark.parametrize("data", some(OTHER_DATA, 4), ids=str)
def test_embedded_content_that_is_not_what_its_descriptor_names(box, data):
    box.refuses_artifact(encoded(image(config=image()["config"] | {"data": data})), ["SIZE", "DIGEST", "SCHEMA"])
    box.refuses_artifact(encoded(image([layer(data=data)])), ["SIZE", "DIGEST", "SCHEMA"])


def test_embedded_content_that_is(box):
    config = image()["config"] | {"data": "e30="}
    write_layout(box.work / "layout", encoded(image([layer(data=base64.b64encode(DISK).decode())], config=config)))
    box.accepted("pull", "oci:layout:v1", "-o", "out")


@pytest.mark.parametrize("urls", ["http://x/", [1], {}], ids=str)
def test_urls_of_a_wrong_shape(box, urls):
    box.refuses_artifact(encoded(image([layer(urls=urls)])), "SCHEMA")
