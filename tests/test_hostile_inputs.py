"""Hostile names, digests and sizes: refused by every command, in one line, and nothing is left behind."""

import hashlib
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from cli_runner import Here
from hostile import DISK, Sandbox, artifact, encoded, epoch, file, image, layer, raw, write_layout, write_store
from hostile_values import BARE_DIGESTS, DIGESTS, NAMES, NO_NUMBERS, NO_STRINGS, SIZES
from support.content import digest_of

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


@pytest.mark.parametrize("name", NAMES, ids=shown)
def test_a_name_in_an_artifact_without_config(box, name):
    for ran in box.refuses_artifact(encoded(image([layer(title=name)])), code_of(name)):
        assert "canary" not in ran.err


@pytest.mark.parametrize("name", NAMES, ids=shown)
def test_a_name_in_an_epoch_manifest(box, name):
    document = epoch([file(filename=name)])
    manifest, config = artifact(document)
    box.refuses_artifact(manifest, [code_of(name), "SCHEMA"], config=config)
    box.refuses_store(encoded(document), code_of(name))


@pytest.mark.parametrize("name", NO_STRINGS, ids=str)
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


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda name: name[:20])
def test_two_files_of_one_name(box, first, second):
    assert len(PAIRS) >= 40
    ran = box.refuses_artifact(encoded(image([layer(title=first), layer(b"other", second)])), "NAME")[0]
    assert "$.layers[1]" in ran.err and "$.layers[0]" in ran.err
    document = epoch([file(filename=first)], baseImages=[file(b"other", second)])
    ran = box.refuses_store(encoded(document), "NAME", (DISK, b"other"))[0]
    assert "$.baseImages[0]" in ran.err and "$.layers[0]" in ran.err


@pytest.mark.parametrize(
    "text", ["..", "../x", "a/../b", "/x", "a//b", "x/", "x\n", "\x1b[2J", "\x9b", "\x00", "\ud800"]
)
@pytest.mark.parametrize("key", ["name", "tag"])
def test_what_a_snapshot_is_called(box, key, text):
    box.refuses_store(encoded(epoch(**{key: text})), code_of(text))
    manifest, config = artifact(epoch(**{key: text}))
    box.refuses_artifact(manifest, [code_of(text), "SCHEMA"], config=config)
    title = "org.opencontainers.image.title" if key == "name" else "org.opencontainers.image.version"
    box.refuses_artifact(encoded(image(annotations={title: text})), code_of(text))


@pytest.mark.parametrize("digest", DIGESTS, ids=shown)
def test_a_digest_in_an_oci_manifest(box, digest):
    codes = ["DIGEST", "JSON"]
    box.refuses_artifact(encoded(image([layer(digest=digest)])), codes)
    box.refuses_artifact(encoded(image(config={"mediaType": "x/y", "digest": digest, "size": 2})), codes)


@pytest.mark.parametrize("digest", BARE_DIGESTS, ids=shown)
def test_a_digest_in_an_epoch_manifest(box, digest):
    box.refuses_store(encoded(epoch([file(digest=digest)])), ["DIGEST", "JSON"])


@pytest.mark.parametrize("size", SIZES, ids=shown)
def test_a_size(box, size):
    box.refuses_artifact(encoded(image([layer(size=size)])), "SIZE")
    box.refuses_artifact(encoded(image(config={"mediaType": "x/y", "digest": digest_of(b"{}"), "size": size})), "SIZE")
    if size is not None:  # to Go a null is no size, which is 0, and 0 bytes have another digest
        box.refuses_store(encoded(epoch([file(size=size)])), "SIZE")


@pytest.mark.parametrize("text", NO_NUMBERS, ids=shown)
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


@pytest.mark.parametrize("value", [-1, 2**40, 0o10000, True, "420", 1.5, [], {}, raw("-0"), raw("1e2")], ids=str)
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


@pytest.mark.parametrize("name", EMITTED, ids=lambda name: name[:20])
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


@pytest.mark.parametrize("name", NAMES[::6], ids=shown)
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


@pytest.mark.parametrize("value", [*DIGESTS[::4], *SIZES[::4]], ids=shown)
def test_a_registry_is_asked_for_no_blob_by_a_wrong_descriptor(box, fake_registry, value):
    registry = fake_registry()
    member = "digest" if value in DIGESTS[::4] else "size"
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
