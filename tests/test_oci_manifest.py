"""Descriptors, manifests and indexes: one meaning, or none (reliability D2, D5, D6, M1 to M3)."""

import base64
import hashlib
import json

import pytest

from epoch_oci.errors import ContentError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import EMPTY, Descriptor, size_problem
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import EMPTY_CONTENT, MANIFEST_LIMIT, Document
from epoch_oci.oci.manifest import INDEX_LIMIT, LAYER_LIMIT, ImageIndex, ImageManifest

DIGEST = "sha256:" + hashlib.sha256(b"a").hexdigest()
OTHER = "sha256:" + hashlib.sha256(b"b").hexdigest()
LONG = "sha512:" + hashlib.sha512(b"a").hexdigest()


def descriptor(**changes):
    members = {"mediaType": "application/octet-stream", "digest": DIGEST, "size": 1, **changes}
    return {key: value for key, value in members.items() if value is not ...}


def manifest(**changes):
    members = {
        "schemaVersion": 2,
        "mediaType": media_types.MANIFEST,
        "config": EMPTY.to_json(),
        "layers": [descriptor()],
        **changes,
    }
    return {key: value for key, value in members.items() if value is not ...}


def index(**changes):
    members = {
        "schemaVersion": 2,
        "mediaType": media_types.INDEX,
        "manifests": [descriptor(mediaType=media_types.MANIFEST)],
        **changes,
    }
    return {key: value for key, value in members.items() if value is not ...}


def parse(value, media_type=media_types.MANIFEST):
    return ImageManifest.parse(Document(media_type, json.dumps(value).encode()))


def parse_index(value, media_type=media_types.INDEX):
    return ImageIndex.parse(Document(media_type, json.dumps(value).encode()))


def findings(read, *arguments):
    with pytest.raises(ContentError) as caught:
        read(*arguments)
    return [(finding.path, finding.code) for finding in caught.value.findings]


@pytest.mark.parametrize("size", [0, 1, 2**53 - 1])
def test_sizes(size):
    assert size_problem(size) is None


@pytest.mark.parametrize(
    "size",
    [-1, -0.0, 1.0, 1e3, "5", "", True, False, None, 2**53, 2**63, 2**64, 10**400, 1.5, [], {}, b"1"],
)
def test_what_is_no_size(size):
    assert len(size_problem(size)) < 200
    assert findings(Descriptor.parse, descriptor(size=size)) == [("$.size", "SIZE")]


@pytest.mark.parametrize("text", [b"-0", b"1.0", b"1e0", b"01", b"9" * 5000, b"1e400"])
def test_numbers_that_are_no_sizes_in_any_spelling(text):
    raw = json.dumps(manifest()).encode().replace(b'"size": 1}', b'"size": ' + text + b"}")
    assert text in raw
    with pytest.raises(ContentError) as caught:
        ImageManifest.parse(Document(media_types.MANIFEST, raw))
    assert caught.value.code in {"SIZE", "JSON"}


def test_a_descriptor_keeps_what_it_does_not_know():
    value = descriptor(
        digest=LONG,
        annotations={media_types.TITLE: "a", "x": ""},
        artifactType="a/b",
        urls=["https://x.example"],
        platform={"os": "linux", "architecture": "amd64"},
        other=[1],
    )
    found = Descriptor.parse(value)
    assert found.title == "a"
    assert found.artifact_type == "a/b"
    assert set(found.extra) == {"urls", "platform", "other"}
    assert found.to_json() == value


def test_what_is_wrong_with_a_descriptor(subtests):
    for changes, expected in [
        ({"mediaType": ...}, ("$.mediaType", "SCHEMA")),
        ({"mediaType": ""}, ("$.mediaType", "SCHEMA")),
        ({"mediaType": "disk"}, ("$.mediaType", "SCHEMA")),
        ({"mediaType": "a/b; c=d"}, ("$.mediaType", "SCHEMA")),
        ({"mediaType": "a/b\n"}, ("$.mediaType", "SCHEMA")),
        ({"mediaType": "a/\x1b"}, ("$.mediaType", "SCHEMA")),
        ({"mediaType": None}, ("$.mediaType", "SCHEMA")),
        ({"mediaType": ["a/b"]}, ("$.mediaType", "SCHEMA")),
        ({"digest": ...}, ("$.digest", "DIGEST")),
        ({"digest": DIGEST[7:]}, ("$.digest", "DIGEST")),
        ({"digest": "sha256:../x"}, ("$.digest", "DIGEST")),
        ({"digest": None}, ("$.digest", "DIGEST")),
        ({"size": ...}, ("$.size", "SIZE")),
        ({"annotations": []}, ("$.annotations", "SCHEMA")),
        ({"annotations": {"a": 7}}, ("$.annotations.a", "SCHEMA")),
        ({"annotations": {"b.c": 7}}, ('$.annotations["b.c"]', "SCHEMA")),
        ({"artifactType": 7}, ("$.artifactType", "SCHEMA")),
        ({"urls": "https://x.example"}, ("$.urls", "SCHEMA")),
        ({"urls": [7]}, ("$.urls", "SCHEMA")),
        ({"data": 7}, ("$.data", "SCHEMA")),
        ({"Digest": OTHER}, ("$.Digest", "JSON")),
        ({"\u017fize": 1}, ('$["\\u017fize"]', "JSON")),
    ]:
        with subtests.test(changes=changes):
            assert findings(Descriptor.parse, descriptor(**changes)) == [expected]


OPTIONAL = ("annotations", "artifactType", "subject", "mediaType", "manifests", "unknown")


@pytest.mark.parametrize("key", OPTIONAL)
def test_null_is_absence_in_a_manifest(key):
    """As Go reads it. An empty media type is none either, and neither is an empty artifact type."""
    absent = parse(manifest(**{key: ...}))
    for nothing in (None, *([""] if key in ("mediaType", "artifactType") else [])):
        found = parse(manifest(**{key: nothing}))
        assert (found.config, found.layers, found.annotations, found.artifact_type, found.subject, found.kind) == (
            absent.config,
            absent.layers,
            absent.annotations,
            absent.artifact_type,
            absent.subject,
            absent.kind,
        )


@pytest.mark.parametrize("key", ["annotations", "artifactType", "subject", "mediaType", "layers"])
def test_null_is_absence_in_an_index(key):
    absent = parse_index(index(**{key: ...}))
    for nothing in (None, *([""] if key == "mediaType" else [])):
        found = parse_index(index(**{key: nothing}))
        assert (found.manifests, found.annotations) == (absent.manifests, absent.annotations)


@pytest.mark.parametrize("key", ["annotations", "artifactType", "urls", "data", "platform"])
def test_null_is_absence_in_a_descriptor(key):
    found, absent = Descriptor.parse(descriptor(**{key: None})), Descriptor.parse(descriptor())
    assert (found, found.annotations, found.title) == (absent, {}, None)
    assert parse(manifest(layers=[descriptor(**{key: None})])).layers == (absent,)


def test_an_annotation_that_is_null_is_none():
    notes = {media_types.TITLE: None, "a": "b"}
    assert Descriptor.parse(descriptor(annotations=notes)).annotations == {"a": "b"}
    assert parse(manifest(annotations=notes)).annotations == {"a": "b"}


@pytest.mark.parametrize("value", [None, [], "x", 7, True])
def test_what_is_no_descriptor(value):
    assert findings(Descriptor.parse, value, "$.config") == [("$.config", "SCHEMA")]


def test_a_manifest():
    found = parse(manifest(artifactType="a/b", annotations={"x": "1"}, subject=descriptor(digest=OTHER), unknown={}))
    assert found.config == EMPTY
    assert [layer.digest for layer in found.layers] == [Digest.parse(DIGEST)]
    assert (found.artifact_type, found.kind, dict(found.annotations)) == ("a/b", "a/b", {"x": "1"})
    assert found.subject.digest == Digest.parse(OTHER)
    assert [item.digest for item in found.successors] == [EMPTY.digest, Digest.parse(DIGEST)]


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaType": ...},
        {"layers": []},
        {"layers": None},
        {"annotations": None},
        {"layers": [descriptor(), descriptor()]},
        {"layers": [descriptor(digest=LONG)]},
        {"layers": [descriptor(mediaType="application/vnd.example.unknown+x")]},
        {"layers": [descriptor(size=20 << 30)]},
        {"config": descriptor(mediaType="application/vnd.oci.image.config.v1+json")},
        {"config": {**EMPTY.to_json(), "data": "e30="}},
        {"subject": None},
    ],
)
def test_manifests_that_must_be_accepted(changes):
    assert parse(manifest(**changes)).kind


def test_the_kind_without_an_artifact_type_is_that_of_the_config():
    assert parse(manifest()).kind == media_types.EMPTY


def test_docker_manifests_are_read_under_their_own_type():
    assert parse(manifest(mediaType=media_types.DOCKER_MANIFEST), media_types.DOCKER_MANIFEST)


@pytest.mark.parametrize(
    ("value", "media_type", "expected"),
    [
        (manifest(schemaVersion=...), media_types.MANIFEST, [("$.schemaVersion", "TYPE")]),
        (manifest(schemaVersion=1), media_types.MANIFEST, [("$.schemaVersion", "TYPE")]),
        (manifest(schemaVersion=3), media_types.MANIFEST, [("$.schemaVersion", "TYPE")]),
        (manifest(schemaVersion="2"), media_types.MANIFEST, [("$.schemaVersion", "TYPE")]),
        (manifest(schemaVersion=2.0), media_types.MANIFEST, [("$.schemaVersion", "TYPE")]),
        (manifest(schemaVersion=True), media_types.MANIFEST, [("$.schemaVersion", "TYPE")]),
        (manifest(manifests=[]), media_types.MANIFEST, [("$.manifests", "TYPE")]),
        (manifest(layers=...), media_types.MANIFEST, [("$", "TYPE")]),
        (manifest(mediaType=media_types.INDEX), media_types.MANIFEST, [("$.mediaType", "TYPE")]),
        (manifest(mediaType="text/html"), media_types.MANIFEST, [("$.mediaType", "TYPE")]),
        (manifest(mediaType=0), media_types.MANIFEST, [("$.mediaType", "TYPE")]),
        (manifest(mediaType=False), media_types.MANIFEST, [("$.mediaType", "TYPE")]),
        (manifest(mediaType=[]), media_types.MANIFEST, [("$.mediaType", "TYPE")]),
        (manifest(mediaType={}), media_types.MANIFEST, [("$.mediaType", "TYPE")]),
        (manifest(), media_types.INDEX, [("$.mediaType", "TYPE")]),
        (manifest(), "text/html", [("$.mediaType", "TYPE")]),
        (manifest(), media_types.DOCKER_MANIFEST, [("$.mediaType", "TYPE")]),
        (manifest(mediaType=...), media_types.INDEX, [("$.mediaType", "TYPE")]),
        (index(), media_types.MANIFEST, [("$.manifests", "TYPE"), ("$", "TYPE"), ("$.mediaType", "TYPE")]),
    ],
)
def test_documents_of_another_kind(value, media_type, expected):
    assert findings(parse, value, media_type) == expected


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"null", b"7"])
def test_what_is_no_object(raw):
    with pytest.raises(ContentError) as caught:
        ImageManifest.parse(Document(media_types.MANIFEST, raw))
    assert caught.value.code == "TYPE"


@pytest.mark.parametrize("raw", [b"", b"<html></html>", b"{"])
def test_what_is_no_json(raw):
    with pytest.raises(ContentError) as caught:
        ImageManifest.parse(Document(media_types.MANIFEST, raw))
    assert caught.value.code == "JSON"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config": ...}, [("$.config", "SCHEMA")]),
        ({"config": None}, [("$.config", "SCHEMA")]),
        ({"layers": {}}, [("$.layers", "SCHEMA")]),
        ({"layers": [7]}, [("$.layers[0]", "SCHEMA")]),
        ({"Layers": []}, [("$.Layers", "JSON")]),
        ({"annotations": {"a": 7}}, [("$.annotations.a", "SCHEMA")]),
        ({"artifactType": 7}, [("$.artifactType", "SCHEMA")]),
        ({"subject": 7}, [("$.subject", "SCHEMA")]),
        ({"layers": [descriptor(), descriptor(size=2)]}, [("$.layers[1].size", "SIZE")]),
        ({"layers": [descriptor(digest=OTHER), descriptor(), descriptor(size=2)]}, [("$.layers[2].size", "SIZE")]),
        ({"config": descriptor(size=9)}, [("$.layers[0].size", "SIZE")]),
        ({"layers": [descriptor(data="YQ==")]}, None),
        ({"layers": [descriptor(data="Yg==")]}, [("$.layers[0].data", "DIGEST")]),
        ({"layers": [descriptor(data="YWE=")]}, [("$.layers[0].data", "SIZE")]),
        ({"layers": [descriptor(data="!")]}, [("$.layers[0].data", "SCHEMA")]),
        ({"layers": [descriptor(data="é")]}, [("$.layers[0].data", "SCHEMA")]),
        ({"config": {**EMPTY.to_json(), "data": "e38="}}, [("$.config.data", "DIGEST")]),
        (
            {"config": descriptor(digest="x"), "layers": [descriptor(size=-1), descriptor(mediaType="x")]},
            [("$.config.digest", "DIGEST"), ("$.layers[0].size", "SIZE"), ("$.layers[1].mediaType", "SCHEMA")],
        ),
    ],
)
def test_what_is_wrong_with_a_manifest(changes, expected):
    if expected is None:
        assert parse(manifest(**changes))
    else:
        assert findings(parse, manifest(**changes)) == expected


def test_the_limits_of_a_manifest():
    layers = [descriptor()] * LAYER_LIMIT
    assert len(parse(manifest(layers=layers)).layers) == LAYER_LIMIT
    assert findings(parse, manifest(layers=[*layers, descriptor()])) == [("$.layers", "SCHEMA")]
    raw = json.dumps(manifest()).encode()
    exact = raw[:-1] + b" " * (MANIFEST_LIMIT - len(raw)) + b"}"
    assert ImageManifest.parse(Document(media_types.MANIFEST, exact)).document.size == MANIFEST_LIMIT
    with pytest.raises(ContentError) as caught:
        ImageManifest.parse(Document(media_types.MANIFEST, exact + b" "))
    assert caught.value.code == "SIZE"


def test_an_index():
    children = [
        descriptor(mediaType=media_types.MANIFEST, platform={"os": "linux"}),
        descriptor(mediaType=media_types.INDEX, digest=OTHER),
    ]
    found = parse_index(index(manifests=children, annotations={"a": "b"}))
    assert [item.digest for item in found.manifests] == [Digest.parse(DIGEST), Digest.parse(OTHER)]
    assert found.manifests[0].extra["platform"] == {"os": "linux"}
    assert parse_index(index(mediaType=media_types.DOCKER_INDEX), media_types.DOCKER_INDEX)
    assert parse_index(index(manifests=[])).manifests == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (index(layers=[]), [("$.layers", "TYPE")]),
        (index(manifests=...), [("$", "TYPE")]),
        (index(schemaVersion=1), [("$.schemaVersion", "TYPE")]),
        (index(mediaType=media_types.MANIFEST), [("$.mediaType", "TYPE")]),
        (index(manifests=[descriptor(digest="x")]), [("$.manifests[0].digest", "DIGEST")]),
        (index(manifests=[descriptor(), descriptor(size=2)]), [("$.manifests[1].size", "SIZE")]),
        (index(manifests=[descriptor()] * (INDEX_LIMIT + 1)), [("$.manifests", "SCHEMA")]),
        (index(Manifests=[]), [("$.Manifests", "JSON")]),
    ],
)
def test_what_is_wrong_with_an_index(value, expected):
    assert findings(parse_index, value) == expected


def test_a_document_is_its_bytes():
    document = Document(media_types.MANIFEST, b'{ "b":1, "a":2 }')
    assert document.digest == Digest.of(document.raw)
    assert document.descriptor.size == document.size == 16
    assert document.json() == {"b": 1, "a": 2}


def test_one_value_is_minted_to_one_string_of_bytes():
    value = {"z": [{"b": 1, "a": "é<"}], "a": None}
    document = Document.encode("a/b", value)
    assert document.raw == '{"a":null,"z":[{"a":"é<","b":1}]}'.encode()
    assert Document.encode("a/b", dict(reversed(value.items()))) == document
    with pytest.raises(ValueError):
        Document.encode("a/b", {"a": float("nan")})


def test_the_empty_descriptor():
    assert EMPTY.to_json() == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    assert Digest.of(EMPTY_CONTENT) == EMPTY.digest
    assert base64.b64decode("e30=") == EMPTY_CONTENT
