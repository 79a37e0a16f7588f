"""Hostile documents: JSON that two readers could read differently, or that is too much; and what must pass."""

import json
import time

import pytest
from cli_runner import Here
from hostile import (
    DISK,
    NOTHING,
    SNAPSHOT_CONFIG,
    Sandbox,
    core_refuses_artifact,
    core_refuses_epoch,
    encoded,
    epoch,
    file,
    image,
    layer,
    some,
    write_layout,
    write_store,
)
from support.content import MANIFEST, descriptor, digest_of

QUICK = 3.0
"""Seconds of work for a refusal, those of a machine that does other things beside not counted."""
GOOD = encoded(image())
EPOCH = encoded(epoch())


@pytest.fixture
def box(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Sandbox(Here(capsys), tmp_path / "sandbox")


def other_keys(document: bytes, *pairs: tuple[str, str]) -> list[bytes]:
    """`document` with the first `old` replaced by `new`, for each pair."""
    made = [document.replace(old.encode(), new.encode(), 1) for old, new in pairs]
    assert document not in made
    return made


ALIASES = [
    *[GOOD[:-1] + f', "{key}": null}}'.encode() for key in ("layers", "config", "schemaVersion", "mediaType", "x")],
    *[GOOD[:-1] + f', "{key}": []}}'.encode() for key in ("Layers", "LAYERS", "layer\u017f", "Manifests", "lAYERS")],
    *[GOOD[:-1] + f', "{key}": 2}}'.encode() for key in ("\u017fchemaVersion", "schemaversion", "Subject", "CONFIG")],
    *[GOOD[:-1] + f', "{key}": "x"}}'.encode() for key in ("MediaType", "mediatype", "artifacttype", "ArtifactType")],
]
ALIASES[4] = GOOD[:-1] + b', "x": 1, "x": 1}'
ALIASES += other_keys(
    GOOD,
    *(('"size": 1300', f'"size": 1300, "{key}": 1') for key in ("size", "Size", "SIZE", "\u017fize", "\\u0073ize")),
    *(('"size": 1300', f'"size": 1300, "{key}": "x"') for key in ("digest", "Digest", "dige\u017ft", "mediaType")),
    *(('"size": 1300', f'"size": 1300, "{key}": null') for key in ("Annotations", "Urls", "Data", "DATA", "url\u017f")),
    (
        '"org.opencontainers.image.title": "o',
        '"org.opencontainers.image.title": "x", "org.opencontainers.image.title": "o',
    ),
    ('"layers"', '"unknown": {"deep": [{"a": 1, "a": 2}]}, "layers"'),
    ('"layers"', '"unknown": {"": 1, "": 2}, "layers"'),
    ('"layers"', '"unknown": {"a": 1, "\\u0061": 2}, "layers"'),
)
EPOCH_ALIASES = other_keys(
    EPOCH,
    *(
        ('"name"', f'"{key}": "x", "name"')
        for key in ("name", "Name", "NAME", "Tag", "SnapshotId", "SNAPSHOTID", "image")
    ),
    *(
        ('"name"', f'"{key}": null, "name"')
        for key in ("Layers", "layers", "layer\u017f", "baseimages", "LayerHeaders")
    ),
    *(
        ('"name"', f'"{key}": 1, "name"')
        for key in ("SchemaVersion", "TotalSize", "CPU", "Memory", "NICs", "\u017ftorage")
    ),
    *(
        ('"filename"', f'"{key}": "x", "filename"')
        for key in ("filename", "Filename", "FileName", "Digest", "mediatype")
    ),
    ('"size"', '"\u017fize": 1, "size"'),
    ('"name"', '"snapshotID": "x", "name"'),
    ('"name"', '"layerHeaders": {"a": {"mode": 1, "mode": 2}}, "name"'),
    ('"name"', '"layerHeaders": {"a": {"Mode": 1}}, "name"'),
    ('"name"', '"layerHeaders": {"a": {}, "a": {}}, "name"'),
)
EPOCH_ALIASES = [document for document in EPOCH_ALIASES if b'"image": "x"' not in document]


def refused_all(wrongs) -> None:
    """`wrongs` are pairs of a document and what was wrong with its refusal, None for nothing."""
    assert [(document[:200], wrong) for document, wrong in wrongs if wrong] == []


def of_config(config: bytes) -> bytes:
    """An artifact of the profile with this config."""
    return encoded(json.loads(GOOD) | {"config": descriptor(config, SNAPSHOT_CONFIG)})


def test_keys_twice_and_keys_that_fold_are_refused_by_the_library():
    refused_all((manifest, core_refuses_artifact(manifest, "JSON")) for manifest in ALIASES)
    for manifest in EPOCH_ALIASES:
        refused_all([(manifest, core_refuses_epoch(manifest, "JSON"))])
        refused_all([(manifest, core_refuses_artifact(of_config(manifest), "JSON", config=manifest))])


@pytest.mark.parametrize("manifest", some(ALIASES, 4), ids=range(4))
def test_keys_twice_and_keys_that_fold_in_an_artifact(box, manifest):
    box.refuses_artifact(manifest, "JSON")


@pytest.mark.parametrize("manifest", some(EPOCH_ALIASES, 3), ids=range(3))
def test_keys_twice_and_keys_that_fold_in_an_epoch_manifest(box, manifest):
    box.refuses_store(manifest, "JSON")
    box.refuses_artifact(of_config(manifest), "JSON", config=manifest)


def encodings(document: bytes) -> dict[str, bytes]:
    """Other spellings and half spellings of `document`."""
    text = document.decode()
    inside = text.replace('"schemaVersion"', '"x": "HERE", "schemaVersion"', 1)
    assert "HERE" in inside

    def holding(content: bytes) -> bytes:
        return inside.encode().replace(b"HERE", content)

    return {
        "bom": b"\xef\xbb\xbf" + document,
        **{
            name: text.encode(name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
        },
        **{
            f"bytes {content.hex()}": holding(content)
            for content in (b"\xff", b"\xc0\xae", b"\xed\xa0\x80", b"\x80", b"\xe2")
        },
        **{f"control {content.hex()}": holding(content) for content in (b"\x00", b"\x1b", b"\n", b"\t", b"\x1f")},
        **{
            f"escape {content.decode()}": holding(content)
            for content in (b"\\u0000", b"\\ud800", b"\\udc00\\ud800", b"\\x41")
        },
        "bad escape": holding(b"\\u12"),
        "latin 1": holding(b"\xe9"),
        **{
            f"then {tail!r}": document + tail
            for tail in (b"x", b"{}", b",", b"\x00", b"]", b"//x", b"\n{}", b"\x1b[2J")
        },
        "twice": document + b"\n" + document,
        **{f"first {head!r}": head + document for head in (b"x", b")]}'\n", b"\x00", b"/**/", b"\x0b", b"\xc2\xa0")},
        "cut": document[:-1],
        "half": document[: len(document) // 2],
        "empty": b"",
        "blank": b" \n",
        "comma": document[:-1] + b",}",
        "quotes": document.replace(b'"', b"'"),
        **{
            word: document[:-1] + f', "y": {word}}}'.encode()
            for word in ("NaN", "Infinity", "-Infinity", "1e400", "01", "True")
        },
    }


def test_what_is_no_strict_json_is_refused_by_the_library():
    refused_all((document, core_refuses_artifact(document, "JSON")) for document in encodings(GOOD).values())
    refused_all((document, core_refuses_epoch(document, "JSON")) for document in encodings(EPOCH).values())


@pytest.mark.parametrize("name", some(list(encodings(GOOD)), 8))
def test_what_is_no_strict_json(box, name):
    box.refuses_artifact(encodings(GOOD)[name], "JSON")
    box.refuses_store(encodings(EPOCH)[name], "JSON")


@pytest.mark.parametrize("document", [b"null", b"[]", b"{}", b'[{"layers": []}]'])
def test_json_that_is_no_document(box, document):
    box.refuses_artifact(document, ["TYPE", "SCHEMA"])
    box.refuses_store(document, ["TYPE", "SCHEMA"])


BIG = {
    "65 levels": b"[" * 64 + b"]" * 64,
    "10^5 levels": b"[" * 100_000 + b"]" * 100_000,
    "10^5 unclosed": b"[" * 100_000,
    "10^5 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "mixed": b'[{"a":' * 40 + b"1" + b"}]" * 40,
    "10^5 + 1 members": b"{" + b",".join(b'"%d":1' % number for number in range(100_001)) + b"}",
    "members in pieces": b"[" + b",".join(b'{"a":1}' for _ in range(100_001)) + b"]",
    "elements": b"[" + b",".join([b"1"] * 250_001) + b"]",
    "empty arrays": b"[" + b",".join([b"[]"] * 250_001) + b"]",
    "5,000 digits": b"1" * 5_000,
    "10^6 digits": b"1" * 1_000_000,
    "10^6 digits below one": b"-1" + b"0" * 1_000_000,
    "exponent": b"1e" + b"9" * 5_000,
    "brackets and a quote": b"[" * 60 + b'"' + b"\\" * 1_000_000,
    "quote": b'"' + b"[{" * 500_000,
}


def test_too_much_is_refused_by_the_library():
    for name, what in BIG.items():
        for document in (GOOD, EPOCH):
            manifest = document[:-1] + b', "x": ' + what + b"}"
            refuse = core_refuses_artifact if document is GOOD else core_refuses_epoch
            assert refuse(manifest, "JSON") is None, name


@pytest.mark.parametrize("name", some(list(BIG), 4))
def test_too_much_is_refused_at_once(box, name):
    for document in (GOOD, EPOCH):
        manifest = document[:-1] + b', "x": ' + BIG[name] + b"}"
        write_layout(box.work / "layout", manifest)
        write_store(box.work / "store", manifest)
        for words in (
            ["pull", "oci:layout:v1", "--store", "second"],
            ["inspect", "oci:layout:v1"],
            ["push", "team/bot:v1", "oci:new", "--store", "store"],
            ["validate", "store/manifests/team/bot/v1.json"],
        ):
            started = time.process_time()
            box.refused(*words, code="JSON")
            assert time.process_time() - started < QUICK


def test_documents_that_are_too_large(box):
    large = GOOD + b" " * ((4 << 20) + 1 - len(GOOD))
    write_layout(box.work / "layout", large)
    for words in (
        ["pull", "oci:layout:v1", "--store", "second"],
        ["inspect", "oci:layout:v1"],
        ["verify", "oci:layout"],
    ):
        box.refused(*words, code="SIZE")
    write_layout(box.work / "layout", GOOD, media_type=MANIFEST, size=2**53 - 1)
    box.refused("pull", "oci:layout:v1", "-o", "out", code="SIZE")
    write_store(box.work / "store", EPOCH + b" " * ((16 << 20) + 1 - len(EPOCH)))
    box.refused("push", "team/bot:v1", "oci:new", "--store", "store", code="SIZE")
    box.refused("verify", "team/bot:v1", "--store", "store", code="SIZE")


def test_a_config_that_says_it_is_too_large(box):
    manifest = encoded(
        image(config=descriptor(EPOCH, "application/vnd.cocoon.snapshot.config.v1+json") | {"size": (16 << 20) + 1})
    )
    write_layout(box.work / "layout", manifest, (DISK, EPOCH))
    box.refused("pull", "oci:layout:v1", "--store", "second", code="SIZE")


@pytest.mark.parametrize("count", [2_001, 9_000])
def test_too_many_layers(box, count):
    write_layout(box.work / "layout", encoded(image([NOTHING] * count)))
    box.refused("pull", "oci:layout:v1", "-o", "out", code="SCHEMA")
    write_store(box.work / "store", encoded(epoch([file(filename=f"f{number}") for number in range(count)])))
    box.refused("push", "team/bot:v1", "oci:new", "--store", "store", code="SCHEMA")


# What has to be taken

UNKNOWN = {"x-future": {"a": [1, 2.50, 1e2, -0, "\u00e9\u202e", None]}, "zz": "", "X-Other": False}


@pytest.mark.parametrize("pretty", [None, 1, 7])
def test_unknown_members_travel_byte_for_byte(box, pretty):
    document = (
        json.dumps(epoch([file(**UNKNOWN)], **UNKNOWN), indent=pretty, ensure_ascii=pretty == 1).encode() + b"\n\r\t "
    )
    write_store(box.work / "store", document)
    box.accepted("push", "team/bot:v1", "oci:layout:v1", "--store", "store")
    box.accepted("pull", "oci:layout:v1", "--store", "second")
    assert (box.work / "second/manifests/team/bot/v1.json").read_bytes() == document
    assert box.accepted("convert", "oci:layout:v1", "--to", "epoch").out.encode() == document
    box.accepted("verify", "team/bot:v1", "--store", "second", "--round-trip")


@pytest.mark.parametrize("media_type", ["application/x-unknown", "text/plain", "application/vnd.cocoon.never.heard.of"])
def test_unknown_members_and_layer_types_of_an_artifact(box, media_type):
    strange = layer(b"strange", "strange.bin", mediaType=media_type, **UNKNOWN)
    manifest = json.dumps(image([layer(**UNKNOWN), strange], **UNKNOWN), indent=3).encode() + b" \n"
    write_layout(box.work / "layout", manifest, (DISK, b"{}", b"strange"))
    report = json.loads(box.accepted("pull", "oci:layout:v1", "-o", "out", "--format", "json").out)
    assert report["digest"] == digest_of(manifest)
    assert (box.work / "out/strange.bin").read_bytes() == b"strange"
    box.accepted("pull", "oci:layout:v1", "--store", "second")
    box.accepted("inspect", "oci:layout:v1")


def test_a_manifest_of_exactly_four_mebibytes(box):
    write_layout(box.work / "layout", GOOD + b" " * ((4 << 20) - len(GOOD)))
    box.accepted("pull", "oci:layout:v1", "-o", "out")
    write_store(box.work / "store", EPOCH[:-1] + b', "x": ' + b"[" * 63 + b"]" * 63 + b"}")
    box.accepted("push", "team/bot:v1", "oci:layout:v2", "--store", "store")
