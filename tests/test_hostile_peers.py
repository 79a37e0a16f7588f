"""Hostile surroundings: indexes, bodies and tags of a registry that lies, and what lies in the way on a disk."""

import json
import os
import socket
from pathlib import Path

import pytest
from cli_runner import Here
from hostile import (
    DISK,
    Sandbox,
    artifact,
    encoded,
    epoch,
    file,
    image,
    layer,
    snapshot_of,
    write_layout,
    write_store,
)
from support.content import DOCKER_LIST, INDEX, MANIFEST, descriptor, digest_of, index
from support.faults import Flip, MoveTag, ReplaceBody, Trailing, WrongDigest

GOOD = encoded(image())
OTHER = encoded(image([layer(b"another", "cow.raw")]))
FOREIGN = encoded(
    image([descriptor(b"x")], artifactType="application/vnd.example.thing", config=descriptor(b"{}", "application/x.y"))
)


@pytest.fixture
def box(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Sandbox(Here(capsys), tmp_path / "sandbox")


def listed(document: bytes, media_type: str = MANIFEST, **members: object) -> dict[str, object]:
    return descriptor(document, media_type) | members


# Indexes

ONE, TWO = index([listed(GOOD)]), index([listed(GOOD), listed(OTHER)])
DEEP = index([listed(index([listed(ONE, INDEX)]), INDEX)])
INDEXES: dict[str, tuple[bytes, list[str]]] = {
    "none": (index([]), ["TYPE"]),
    "null": (encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": None}), ["TYPE"]),
    "no fitting one": (index([listed(FOREIGN)]), ["TYPE"]),
    "none of two": (index([listed(FOREIGN), listed(b"x", "application/x.y")]), ["TYPE"]),
    "only what is absent": (index([listed(b"absent")]), ["TYPE"]),
    "two": (TWO, ["TYPE"]),
    "two, other platforms": (
        index([listed(GOOD, platform={"os": "linux"}), listed(OTHER, platform={"os": "windows"})]),
        ["TYPE"],
    ),
    "two, one nested": (index([listed(ONE, INDEX), listed(OTHER)]), ["TYPE"]),
    "two in a nested one": (index([listed(TWO, INDEX)]), ["TYPE"]),
    "three deep": (DEEP, ["TYPE"]),
    "four deep": (index([listed(DEEP, INDEX)]), ["TYPE"]),
    "a child of another size": (index([listed(GOOD, size=len(GOOD) + 1)]), ["SIZE"]),
    "a child that is too large": (index([listed(GOOD, size=(4 << 20) + 1)]), ["SIZE"]),
    "a child of another type": (index([listed(GOOD, INDEX)]), ["TYPE"]),
    "an index as a manifest": (index([listed(ONE, MANIFEST)]), ["TYPE"]),
    "a child that is no JSON": (index([listed(b"<html>")]), ["JSON"]),
    "a child with a hostile name": (index([listed(encoded(image([layer(title="../x")])))]), ["NAME"]),
    "a child without digest": (index([{"mediaType": MANIFEST, "size": 2}]), ["DIGEST"]),
    "layers as well": (index([listed(GOOD)], layers=[]), ["TYPE"]),
    "a config as well": (index([listed(GOOD)], Layers=[]), ["JSON"]),
    "one digest with two sizes": (index([listed(GOOD), listed(GOOD, size=3)]), ["SIZE"]),
    "too many": (index([listed(b"x", "a/b")] * 10_001), ["SCHEMA"]),
    "another version": (index([listed(GOOD)], schemaVersion=1), ["TYPE"]),
    "no media type of its own and layers": (encoded({"schemaVersion": 2, "manifests": [], "layers": []}), ["TYPE"]),
    "no object": (b"[]", ["TYPE"]),
    "children that are none": (index([1, None, "x"]), ["SCHEMA"]),
}
CHILDREN = (GOOD, OTHER, FOREIGN, ONE, TWO, DEEP, index([listed(ONE, INDEX)]), b"<html>")
CHILDREN += (encoded(image([layer(title="../x")])), DISK, b"{}", b"another", b"x")


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_names_no_one_snapshot(box, name):
    document, codes = INDEXES[name]
    write_layout(box.work / "layout", document, CHILDREN, INDEX)
    for words in (
        ["pull", "oci:layout:v1", "--store", "second"],
        ["pull", "oci:layout:v1", "-o", "out"],
        ["inspect", "oci:layout:v1"],
        ["convert", "oci:layout:v1", "--to", "epoch"],
    ):
        ran = box.refused(*words, code=codes)
    if name.startswith("two"):
        assert "name one of them by its digest" in ran.err and "2 snapshots" in ran.err


@pytest.mark.parametrize("media_type", [INDEX, DOCKER_LIST])
def test_an_index_with_one_snapshot_is_followed(box, media_type):
    around = [listed(FOREIGN), listed(b"x", "application/x.y"), listed(b"absent"), listed(ONE, INDEX)]
    document = index(around, mediaType=media_type)
    write_layout(box.work / "layout", document, CHILDREN, media_type)
    report = json.loads(box.accepted("pull", "oci:layout:v1", "-o", "out", "--format", "json").out)
    assert report["digest"] == digest_of(GOOD)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_indexes_that_name_each_other(box, fake_registry, where):
    """No honest digest closes a circle, so a registry has to lie about one."""
    registry = fake_registry()
    lie = digest_of(b"the one that lies")
    chain = [index([{"mediaType": INDEX, "digest": lie, "size": 999}])]
    for _ in range(where):
        chain.insert(0, index([listed(chain[0], INDEX)]))
    for document in chain:
        registry.put_manifest("acme/bot", None, document, INDEX)
    registry.put_manifest("acme/bot", "v1", chain[0], INDEX)
    registry.put_manifest("acme/bot", lie, chain[0], INDEX)
    box.refused("pull", f"{registry.address}/acme/bot:v1", "--store", "second", code=["DIGEST", "SIZE", "TYPE"])
    assert registry.recording.count("GET", "/manifests/") < 10


@pytest.mark.parametrize(
    "change", [{"mediaType": 1}, {"mediaType": []}, {"mediaType": {}}, {"mediaType": MANIFEST}], ids=str
)
def test_an_index_of_a_layout_of_another_type(box, change):
    write_layout(box.work / "layout", GOOD)
    place = box.work / "layout/index.json"
    place.write_bytes(encoded(json.loads(place.read_bytes()) | change))
    box.refused("pull", "oci:layout:v1", "--store", "second", code="TYPE")
    box.refused("ls", "oci:layout", code="TYPE")


@pytest.mark.parametrize("name", ["../x", "..", "/x", "a\x1b[2J", "\u202ex", "x y", "", "-x", "x" * 129])
def test_hostile_tags_of_a_layout_are_shown_escaped(box, name):
    write_layout(box.work / "layout", GOOD, annotations={"org.opencontainers.image.ref.name": name})
    ran = box.cli("pull", "oci:layout:v2", "--store", "second")
    assert ran.code == 5 and "\x1b" not in ran.err and "\u202e" not in ran.err
    ran = box.cli("pull", "oci:layout", "--store", "second", "--as", "x:y")
    assert ran.code in (0, 3, 5) and "\x1b" not in ran.err + ran.out and "\u202e" not in ran.err + ran.out
    assert not (box.path / "x").exists() and not (box.work / "x").exists()


# Bodies


@pytest.fixture
def lying(fake_registry):
    """A registry with acme/bot:v1."""
    registry = fake_registry()
    for blob in (DISK, b"{}"):
        registry.put_blob("acme/bot", blob)
    registry.put_manifest("acme/bot", "v1", GOOD)
    return registry


def test_a_body_of_other_bytes(box, lying):
    lying.fault("GET", digest_of(DISK), Flip(len(DISK) - 1))
    for words in (["--store", "second"], ["-o", "kept"]):
        before = snapshot_of(box.work / "kept")
        ran = box.cli("pull", f"{lying.address}/acme/bot:v1", *words, "--progress", "none")
        assert ran.code == 3 and "DIGEST" in ran.error
        assert snapshot_of(box.work / "kept") == before
        assert not list(box.work.glob("second/manifests/**/*.json")) and not list(box.work.glob("second/blobs/*/*"))
    assert box.refused("verify", f"{lying.address}/acme/bot:v1", code="DIGEST")


@pytest.mark.parametrize("tail", [b"x", b"\x00" * 100_000])
def test_a_body_that_is_too_long(box, lying, tail):
    lying.fault("GET", digest_of(DISK), Trailing(tail), optional=True)  # we may hang up before it is counted
    ran = box.cli("pull", f"{lying.address}/acme/bot:v1", "-o", "out", "--progress", "none")
    assert ran.code == 3 and "SIZE" in ran.error and not (box.work / "out/overlay.qcow2").exists()


def test_a_body_of_another_blob(box, lying):
    lying.fault("GET", digest_of(DISK), ReplaceBody(b"y" * len(DISK)))
    ran = box.cli("pull", f"{lying.address}/acme/bot:v1", "-o", "out", "--progress", "none")
    assert ran.code == 3 and "DIGEST" in ran.error and not (box.work / "out/overlay.qcow2").exists()


def test_a_manifest_that_is_not_the_one_asked_for(box, lying):
    lying.put_manifest("acme/bot", digest_of(b"wanted"), OTHER)
    box.refused("pull", f"{lying.address}/acme/bot@{digest_of(b'wanted')}", "--store", "second", code="DIGEST")
    assert not lying.recording.count("*", "/blobs/")


def test_a_config_that_is_not_the_one_named(box, fake_registry):
    registry = fake_registry()
    manifest, config = artifact(epoch())
    registry.put_blob("acme/bot", b"[" * len(config), digest_of(config))
    registry.put_blob("acme/bot", DISK)
    registry.put_manifest("acme/bot", "v1", manifest)
    box.refused("pull", f"{registry.address}/acme/bot:v1", "--store", "second", code="DIGEST")
    assert not registry.recording.count("GET", digest_of(DISK))


def test_the_body_counts_and_not_its_header(box, lying):
    lying.fault("GET", "/blobs/", WrongDigest(), first=1)
    box.accepted("pull", f"{lying.address}/acme/bot:v1", "-o", "out")
    assert (box.work / "out/overlay.qcow2").read_bytes() == DISK


def test_urls_of_descriptors_are_never_asked(box, lying, recorder):
    urls = [f"{recorder.url}/x", "file:///etc/passwd", "http://169.254.169.254/"]
    elsewhere = [layer(urls=urls), layer(b"only elsewhere", "second.bin", urls=urls)]
    lying.put_manifest("acme/bot", "v2", encoded(image(elsewhere[:1])))
    lying.put_manifest("acme/bot", "v3", encoded(image(elsewhere)))
    ran = box.cli("pull", f"{lying.address}/acme/bot:v2", "-o", "out")
    assert ran.code == 0 and ran.err.count("urls of descriptors") == 1
    assert box.cli("pull", f"{lying.address}/acme/bot:v3", "-o", "out2").code == 5
    recorder.assert_untouched()


def test_a_tag_that_moves_on_every_request(box, fake_registry):
    registry = fake_registry()
    versions = {}
    for number in range(3):
        files = [(f"f{item}", f"version {number} of {item}".encode()) for item in range(3)]
        document = epoch([file(content, name) for name, content in files], tag=f"v{number}")
        manifest, config = artifact(document)
        for blob in (config, *(content for _, content in files)):
            registry.put_blob("acme/bot", blob)
        versions[registry.put_manifest("acme/bot", None, manifest)] = (config, dict(files))
    registry.tag("acme/bot", "v1", next(iter(versions)))
    registry.fault("*", "/v2/acme/bot/", MoveTag("acme/bot", "v1", list(versions)))
    for turn in range(8):
        report = json.loads(
            box.accepted("pull", f"{registry.address}/acme/bot:v1", "-o", f"out{turn}", "--format", "json").out
        )
        files = versions[report["digest"]][1]
        assert {item.name: item.read_bytes() for item in Path(f"out{turn}").iterdir()} == files
        report = json.loads(
            box.accepted("pull", f"{registry.address}/acme/bot:v1", "--store", f"s{turn}", "--format", "json").out
        )
        assert Path(f"s{turn}/manifests/team/bot/v1.json").read_bytes() == versions[report["digest"]][0]


# What lies in the way

KINDS = [
    "live link",
    "dead link",
    "link to itself",
    "fifo",
    "directory",
    "full directory",
    "socket",
    "file",
    "hard link",
]


def put(kind: str, place: Path, canary: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            at = Path.cwd()
            os.chdir(place.parent)
            server.bind(place.name)
            os.chdir(at)
        return
    {
        "live link": lambda: place.symlink_to(canary),
        "dead link": lambda: place.symlink_to(canary.with_name("nowhere")),
        "link to itself": lambda: place.symlink_to(place.name),
        "fifo": lambda: os.mkfifo(place),
        "directory": place.mkdir,
        "full directory": lambda: (place / "inside").mkdir(parents=True),
        "file": lambda: place.write_bytes(b"mine"),
        "hard link": lambda: place.hardlink_to(canary),
    }[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_something_in_the_place_of_a_file(box, kind):
    write_layout(box.work / "layout", GOOD)
    target, canary = box.work / "out/overlay.qcow2", box.path / "canary"
    put(kind, target, canary)
    box.refused("pull", "oci:layout:v1", "-o", "out", code="CONFLICT", exit_code=9)
    force = ["pull", "oci:layout:v1", "-o", "out", "--force"]
    if "link" in kind or kind == "file":
        box.accepted(*force)
        assert not target.is_symlink() and target.read_bytes() == DISK
        assert canary.read_text() == "canary of sandbox" and not canary.with_name("nowhere").exists()
    else:
        box.refused(*force, code="CONFLICT", exit_code=9)


@pytest.mark.parametrize("kind", ["live link", "link to itself", "fifo", "socket", "file", "hard link"])
def test_something_in_the_place_of_the_directory(box, kind):
    write_layout(box.work / "layout", GOOD)
    put(kind, box.work / "out", box.path / "canary")
    code, exit_code = ("IO", 7) if kind == "link to itself" else ("USAGE", 2)
    for words in (["-o", "out"], ["-o", "out", "--force"]):
        assert "out" in box.refused("pull", "oci:layout:v1", *words, code=code, exit_code=exit_code).err
    box.refused("pull", "oci:layout:v1", "-o", "out/below", code="IO", exit_code=7)
    box.refused("pull", "oci:layout:v1", "--store", "./out", code=code, exit_code=exit_code)


@pytest.mark.parametrize("kind", KINDS)
def test_something_in_the_place_of_a_blob_of_a_store(box, kind):
    write_layout(box.work / "layout", GOOD)
    blob = box.work / "second/blobs/sha256" / digest_of(DISK).removeprefix("sha256:")
    canary = box.path / "canary"
    put(kind, blob, canary)
    if kind in ("file", "hard link"):
        box.accepted("pull", "oci:layout:v1", "--store", "second")
        assert blob.read_bytes() == DISK and canary.read_text() == "canary of sandbox"
    else:
        box.refused("pull", "oci:layout:v1", "--store", "second", code="TYPE")
        box.refused("pull", "oci:layout:v1", "--store", "second", "--force", code="TYPE")


@pytest.mark.parametrize("part", ["blobs", "blobs/sha256", "manifests", "manifests/team", "manifests/team/bot"])
def test_a_link_among_the_directories_of_a_store(box, part):
    write_layout(box.work / "layout", GOOD)
    outside = box.path / "outside"
    outside.mkdir()
    place = box.work / "second" / part
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    box.refused("pull", "oci:layout:v1", "--store", "second", code="TYPE")
    ran = box.cli("pull", "oci:layout:v1", "--store", "second", "--force", "--progress", "none")
    assert ran.code == 3 and "symbolic link" in ran.error  # blobs may have been kept, under their digests
    assert not list(outside.iterdir())


def test_a_snapshot_whose_blobs_are_links(box):
    write_store(box.work / "store", encoded(epoch()))
    blob = box.work / "store/blobs/sha256" / digest_of(DISK).removeprefix("sha256:")
    blob.rename(box.path / "elsewhere")
    for kind in ("fifo", "directory", "socket", "dead link"):
        put(kind, blob, box.path / "canary")
        ran = box.cli("push", "team/bot:v1", "oci:new:v1", "--store", "store", "--progress", "none")
        assert ran.code in (3, 5, 7) and ran.error, (kind, ran.code, ran.err)
        assert not (box.work / "new/index.json").exists()
        blob.rmdir() if kind == "directory" else blob.unlink()
