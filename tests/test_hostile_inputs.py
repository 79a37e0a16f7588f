"""Hostile names, digests and sizes: refused by every command, in one line, and nothing is left behind.

Every value is tried on the library, and some of each sort on every command.
"""

import hashlib
import json
from pathlib import Path
from urllib.parse import quote

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
    file,
    image,
    layer,
    raw,
    some,
    write_layout,
    write_store,
)
from hostile_values import BARE_DIGESTS, DIGESTS, NAMES, NO_NUMBERS, NO_STRINGS, SIZES
from support.content import MANIFEST, digest_of

from epoch_oci.flows.convert import read, to_epoch, to_oci
from epoch_oci.oci.document import Document

EMITTED = [
    *["cidata.img", "config.json", "memory-ranges", "overlay.qcow2", "state.json", "cow.raw", "vmstate", "cocoon.json"],
    *["win11.qcow2.part.001", "0" * 64 + ".qcow2", "a" * 64 + ".raw", "memory", "_x", "9", "a+b", "A-b_c.D", "x" * 255],
    *["console.log", "conx.txt", "nully", "com10", "lpt", "x.con", "snapshot.json.bak", "snapshot", "a..b", "A"],
]
"""What Cocoon writes, and what only looks like a reserved name."""


@pytest.fixture
def box(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Sandbox(Here(capsys), tmp_path / "sandbox")


def code_of(name: str) -> str:
    """A NUL or half a surrogate pair is refused by the reader, before the name is looked at."""
    return "JSON" if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in name) else "NAME"


def shown(value: object) -> str:
    return quote(str(value)[:24].encode("utf-8", "surrogatepass"), safe="") + f"-{len(str(value))}"


def test_the_corpus_is_as_large_as_promised():
    assert len(NAMES) >= 150 and len(DIGESTS) >= 60 and len(SIZES) >= 25


def refused_all(wrongs) -> None:
    """`wrongs` are pairs of a value and what was wrong with its refusal, None for nothing."""
    assert [(value, wrong) for value, wrong in wrongs if wrong] == []


def test_every_name_is_refused_by_the_library():
    refused_all((name, core_refuses_artifact(encoded(image([layer(title=name)])), code_of(name))) for name in NAMES)
    for name in NAMES:
        document = epoch([file(filename=name)])
        manifest, config = artifact(document)
        wrong = core_refuses_artifact(manifest, [code_of(name), "SCHEMA"], config=config)
        refused_all([(name, wrong), (name, core_refuses_epoch(encoded(document), code_of(name)))])


def test_every_digest_is_refused_by_the_library():
    for digest in DIGESTS:
        config = {"mediaType": "x/y", "digest": digest, "size": 2}
        for value in (image([layer(digest=digest)]), image(config=config)):
            refused_all([(digest, core_refuses_artifact(encoded(value), ["DIGEST", "JSON"]))])
    refused_all(
        (digest, core_refuses_epoch(encoded(epoch([file(digest=digest)])), ["DIGEST", "JSON"]))
        for digest in BARE_DIGESTS
    )


def test_every_size_is_refused_by_the_library():
    for size in SIZES:
        config = {"mediaType": "x/y", "digest": digest_of(b"{}"), "size": size}
        for value in (image([layer(size=size)]), image(config=config)):
            refused_all([(size, core_refuses_artifact(encoded(value), "SIZE"))])
        if size is not None:  # to Go a null is no size, which is 0, and 0 bytes have another digest
            refused_all([(size, core_refuses_epoch(encoded(epoch([file(size=size)])), "SIZE"))])
    for text in NO_NUMBERS:
        refused_all([(text, core_refuses_artifact(encoded(image([layer(size=raw(text))])), "JSON"))])
        refused_all([(text, core_refuses_epoch(encoded(epoch([file(size=raw(text))])), "JSON"))])


@pytest.mark.parametrize("name", some(NAMES, 12), ids=shown)
def test_a_name_in_an_artifact_without_config(box, name):
    for ran in box.refuses_artifact(encoded(image([layer(title=name)])), code_of(name)):
        assert "canary" not in ran.err


@pytest.mark.parametrize("name", some(NAMES[7:], 12), ids=shown)
def test_a_name_in_an_epoch_manifest(box, name):
    document = epoch([file(filename=name)])
    manifest, config = artifact(document)
    box.refuses_artifact(manifest, [code_of(name), "SCHEMA"], config=config)
    box.refuses_store(encoded(document), code_of(name))


@pytest.mark.parametrize("name", some(NO_STRINGS, 4), ids=str)
def test_a_name_that_is_no_string(box, name):
    codes = ["JSON", "SCHEMA", "NAME"]
    box.refuses_artifact(encoded(image([layer(title=name)])), codes)
    box.refuses_store(encoded(epoch([file(filename=name)])), codes)


PAIRS = [
    *(
        (name, alike)
        for name in EMITTED
        for alike in dict.fromkeys((name, name.upper(), name.lower(), name.swapcase()))
    ),
]


def test_every_two_files_of_one_name_are_refused_by_the_library():
    assert len(PAIRS) >= 40
    for pair in PAIRS:
        first, second = pair
        value = image([layer(title=first), layer(b"other", second)])
        document = epoch([file(filename=first)], baseImages=[file(b"other", second)])
        refused_all([(pair, core_refuses_artifact(encoded(value), "NAME"))])
        refused_all([(pair, core_refuses_epoch(encoded(document), "NAME"))])


@pytest.mark.parametrize(("first", "second"), some(PAIRS, 4), ids=lambda name: name[:20])
def test_two_files_of_one_name(box, first, second):
    ran = box.refuses_artifact(encoded(image([layer(title=first), layer(b"other", second)])), "NAME")[0]
    assert "$.layers[1]" in ran.err and "$.layers[0]" in ran.err
    document = epoch([file(filename=first)], baseImages=[file(b"other", second)])
    ran = box.refuses_store(encoded(document), "NAME", (DISK, b"other"))[0]
    assert "$.baseImages[0]" in ran.err and "$.layers[0]" in ran.err


CALLED = ["..", "../x", "a/../b", "/x", "a//b", "x/", "x\n", "\x1b[2J", "\x9b", "\x00", "\ud800"]


def called(key: str, text: str) -> bytes:
    title = "org.opencontainers.image.title" if key == "name" else "org.opencontainers.image.version"
    return encoded(image(annotations={title: text}))


@pytest.mark.parametrize("key", ["name", "tag"])
def test_whatever_a_snapshot_is_called_the_library_refuses_it(key):
    for text in CALLED:
        manifest, config = artifact(epoch(**{key: text}))
        wrong = core_refuses_artifact(manifest, [code_of(text), "SCHEMA"], config=config)
        refused_all([(text, wrong), (text, core_refuses_artifact(called(key, text), code_of(text)))])
        refused_all([(text, core_refuses_epoch(encoded(epoch(**{key: text})), code_of(text)))])


@pytest.mark.parametrize("text", some(CALLED, 3))
@pytest.mark.parametrize("key", ["name", "tag"])
def test_what_a_snapshot_is_called(box, key, text):
    box.refuses_store(encoded(epoch(**{key: text})), code_of(text))
    manifest, config = artifact(epoch(**{key: text}))
    box.refuses_artifact(manifest, [code_of(text), "SCHEMA"], config=config)
    box.refuses_artifact(called(key, text), code_of(text))


@pytest.mark.parametrize("digest", some(DIGESTS), ids=shown)
def test_a_digest_in_an_oci_manifest(box, digest):
    codes = ["DIGEST", "JSON"]
    box.refuses_artifact(encoded(image([layer(digest=digest)])), codes)
    box.refuses_artifact(encoded(image(config={"mediaType": "x/y", "digest": digest, "size": 2})), codes)


@pytest.mark.parametrize("digest", some(BARE_DIGESTS, 4), ids=shown)
def test_a_digest_in_an_epoch_manifest(box, digest):
    box.refuses_store(encoded(epoch([file(digest=digest)])), ["DIGEST", "JSON"])


@pytest.mark.parametrize("size", some(SIZES), ids=shown)
def test_a_size(box, size):
    box.refuses_artifact(encoded(image([layer(size=size)])), "SIZE")
    box.refuses_artifact(encoded(image(config={"mediaType": "x/y", "digest": digest_of(b"{}"), "size": size})), "SIZE")
    if size is not None:  # to Go a null is no size, which is 0, and 0 bytes have another digest
        box.refuses_store(encoded(epoch([file(size=size)])), "SIZE")


@pytest.mark.parametrize("text", some(NO_NUMBERS, 4), ids=shown)
def test_a_size_that_is_no_number_of_json(box, text):
    box.refuses_artifact(encoded(image([layer(size=raw(text))])), "JSON")
    box.refuses_store(encoded(epoch([file(size=raw(text))])), "JSON")


def test_a_size_that_is_absent(box):
    bare = layer()
    del bare["size"]
    box.refuses_artifact(encoded(image([bare])), "SIZE")
    bare = file()
    del bare["size"]
    box.refuses_store(encoded(epoch([bare])), ["SIZE", "DIGEST"])


@pytest.mark.parametrize("first", [0, 1, len(DISK) - 1, len(DISK) + 1, 2**53 - 1])
def test_one_digest_with_two_sizes(box, first):
    # 0 bytes have one digest, so the size alone is wrong there
    codes = ["SIZE", "DIGEST"]
    box.refuses_artifact(encoded(image([layer(), layer(title="second.qcow2", size=first)])), codes)
    box.refuses_store(encoded(epoch([file(), file(filename="second.qcow2", size=first)])), codes)


NO_MODES = [-1, 2**40, 0o10000, True, "420", 1.5, [], {}, raw("-0"), raw("1e2")]


def test_every_mode_that_is_none_is_refused_by_the_library():
    for value in NO_MODES:
        document = epoch(layerHeaders={"overlay.qcow2": {"mode": value}})
        manifest, config = artifact(document)
        refused_all([(value, core_refuses_artifact(manifest, "SCHEMA", config=config))])
        refused_all([(value, core_refuses_epoch(encoded(document), "SCHEMA"))])


@pytest.mark.parametrize("value", some(NO_MODES, 2), ids=str)
def test_a_mode_that_is_none(box, value):
    document = epoch(layerHeaders={"overlay.qcow2": {"mode": value}})
    box.refuses_store(encoded(document), "SCHEMA")
    manifest, config = artifact(document)
    box.refuses_artifact(manifest, "SCHEMA", config=config)


@pytest.mark.parametrize(
    ("mode", "local"),
    [
        *[(0, 0o600), (0o400, 0o400), (0o644, 0o600), (0o755, 0o700), (0o777, 0o700), (0o4755, 0o700)],
        *[(0o2644, 0o600), (0o1777, 0o700), (0o7777, 0o700), (0o077, 0o600), (0o4000, 0o600)],
    ],
)
def test_only_the_owner_gets_anything_from_a_mode(box, mode, local):
    manifest, config = artifact(epoch(layerHeaders={"overlay.qcow2": {"mode": mode}}))
    write_layout(box.work / "layout", manifest, (DISK, config))
    box.accepted("pull", "oci:layout:v1", "-o", "out")
    written = box.work / "out" / "overlay.qcow2"
    assert written.stat().st_mode & 0o7777 == local
    box.accepted("pull", "oci:layout:v1", "--store", "second")
    assert (box.work / "second/manifests/team/bot/v1.json").read_bytes() == config


def test_every_honest_name_is_taken_by_the_library():
    for name in EMITTED:
        document = encoded(epoch([file(filename=name)]))
        assert to_epoch(to_oci(document)).raw == document
        assert [item.name for item in read(Document(MANIFEST, encoded(image([layer(title=name)]))), None).files] == [
            name
        ]


@pytest.mark.parametrize("name", some(EMITTED, 5), ids=lambda name: name[:20])
def test_honest_names_are_taken(box, name):
    document = encoded(epoch([file(filename=name)]))
    write_store(box.work / "store", document)
    box.accepted("push", "team/bot:v1", "oci:layout:v1", "--store", "store")
    box.accepted("pull", "oci:layout:v1", "--store", "second")
    box.accepted("pull", "oci:layout:v1", "-o", "out")
    assert (box.work / "second/manifests/team/bot/v1.json").read_bytes() == document
    assert [item.name for item in (box.work / "out").iterdir()] == [name]
    write_layout(box.work / "foreign", encoded(image([layer(title=name)])))
    box.accepted("pull", "oci:foreign:v1", "-o", "out2")
    assert (box.work / "out2" / name).read_bytes() == DISK


def test_an_empty_file_is_taken(box):
    write_store(box.work / "store", encoded(epoch([file(), file(b"", "empty.bin")])), (DISK, b""))
    box.accepted("push", "team/bot:v1", "oci:layout:v1", "--store", "store")
    box.accepted("pull", "oci:layout:v1", "--store", "second")
    box.accepted("pull", "oci:layout:v1", "-o", "out")
    assert Path("out/empty.bin").read_bytes() == b""
    assert Path("second/blobs/sha256", hashlib.sha256(b"").hexdigest()).read_bytes() == b""


@pytest.mark.parametrize("name", some(NAMES, 4), ids=shown)
def test_a_registry_is_asked_for_no_blob(box, fake_registry, name):
    registry = fake_registry()
    registry.put_blob("acme/bot", DISK)
    registry.put_blob("acme/bot", b"{}")
    registry.put_manifest("acme/bot", "v1", encoded(image([layer(title=name)])))
    where = f"{registry.address}/acme/bot:v1"
    for words in (
        ["pull", where, "--store", "second"],
        ["pull", where, "-o", "out"],
        ["inspect", where],
        ["convert", where, "--to", "epoch"],
    ):
        box.refused(*words, code=code_of(name))
    assert registry.recording.count("*", "/manifests/") and not registry.recording.count("*", "/blobs/")


@pytest.mark.parametrize("value", [*some(DIGESTS, 3), *some(SIZES, 3)], ids=shown)
def test_a_registry_is_asked_for_no_blob_by_a_wrong_descriptor(box, fake_registry, value):
    registry = fake_registry()
    member = "digest" if value in some(DIGESTS, 3) else "size"
    registry.put_manifest("acme/bot", "v1", encoded(image([layer(**{member: value})])))
    where = f"{registry.address}/acme/bot:v1"
    box.refused("pull", where, "--store", "second", code=["DIGEST", "SIZE", "JSON"])
    box.refused("verify", where, code=["DIGEST", "SIZE", "JSON"])
    assert not registry.recording.count("*", "/blobs/")


@pytest.mark.parametrize("path", ["$.layers[0].digest", "$.layers[0].size", "$.layers[0].filename"])
def test_validate_says_where(box, path):
    value = json.loads(encoded(epoch()))
    value["layers"][0][path.rpartition(".")[2]] = ".."
    Path("epoch.json").write_text(json.dumps(value))
    ran = box.refused("validate", "epoch.json", code=["DIGEST", "SIZE", "NAME", "SCHEMA"])
    assert path in ran.out
