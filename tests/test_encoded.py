"""Snapshots of version 2 end to end: decoded, verified, stored as Epoch would have them, and pushed again."""

import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from backports import zstd
from cli_runner import run_cli, start_cli
from cocoonstack_artifacts import DATA, EncodedArtifact, Packed, documents, encoded_artifact
from snapshots import noise, open_store, tree
from test_live_kills import finish, kill_at

from epoch_oci.artifacts import decode
from epoch_oci.artifacts.decode import Decoding, carried_content
from epoch_oci.artifacts.read import read_artifact, read_documents
from epoch_oci.dialects.base import EncodedSnapshot
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.flows.inspect import inspect_artifact
from epoch_oci.flows.pull import PullOptions, pull_to_files, pull_to_store
from epoch_oci.flows.push import PushOptions, push
from epoch_oci.flows.verify import VerifyOptions, verify_artifacts
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import BytesContent, Ranged
from epoch_oci.stores.files import FilesDirectory
from epoch_oci.stores.oci_layout import OciLayout

MIB = 1 << 20
KEY = SnapshotKey("bot", "v1")
SKIPPABLE = struct.pack("<II", 0x184D2A50, 9) + b"aside, so"


def chunks(plain: bytes, size: int) -> list[bytes]:
    return [plain[start : start + size] for start in range(0, len(plain), size)]


def compressed(plain: bytes, **more) -> Packed:
    return Packed(plain, (zstd.compress(plain),), **more)


COW = noise("cow", 700_000) + bytes(3 * MIB) + noise("cow", 700_000)


def real_files() -> dict[str, Packed]:
    """One frame, several, skippable ones, chunks with a repeated one, chunks that are not compressed, plain, empty."""
    memory = noise("memory", 2 * MIB + 5)
    runs = f'[{{"o":4096,"l":{MIB}}},{{"o":{8 * MIB},"l":{MIB + 5}}}]'
    state = b'{"state":1}' * 200_000
    frames = SKIPPABLE + b"".join(map(zstd.compress, chunks(state, 500_000))) + SKIPPABLE
    repeated = noise("data", MIB) * 2 + bytes(77)
    loose = noise("loose", 300_000)
    return {
        "config.json": Packed(b'{"cpus":{"boot_vcpus":2}}', (b'{"cpus":{"boot_vcpus":2}}',), compressed=False),
        "cow.raw": Packed(COW, tuple(map(zstd.compress, chunks(COW, MIB)))),
        "memory-ranges": compressed(memory, entry={"sparseMap": runs, "sparseSize": 16 * MIB}),
        "state.json": Packed(state, (frames,)),
        "data-a.raw": Packed(repeated, tuple(map(zstd.compress, chunks(repeated, MIB)))),
        "loose.bin": Packed(loose, tuple(chunks(loose, 131_072)), compressed=False),
        "empty.bin": Packed(b"", (b"",), compressed=False),
    }


FILES = real_files()
ENCODED = [name for name in FILES if name not in ("config.json", "empty.bin")]


def real_artifact() -> EncodedArtifact:
    return encoded_artifact(
        FILES, image="ubuntu:24.04", cpu=2, memory=16 * MIB, description="warm", createdAt="2026-07-20T08:30:00Z"
    )


@pytest.fixture
def layout(tmp_path) -> OciLayout:
    made = OciLayout(tmp_path / "layout")
    real_artifact().publish(made)
    return made


def stored(path: Path, digest: object) -> Path:
    return path / "blobs/sha256" / str(digest).removeprefix("sha256:")


def pulled(source: OciLayout, path: Path, **options):
    return pull_to_store(source, "v1", open_store(path), options=PullOptions(key=KEY, **options))


def holds_it_all(store: Path, name: str = "bot") -> None:
    """The store has the decoded files, and nothing else but the manifest that lists them."""
    files = tree(store)
    manifest = json.loads(files.pop(f"manifests/{name}/v1.json"))
    files.pop("catalog.json")
    assert [row["filename"] for row in manifest["layers"]] == list(FILES)
    for row in manifest["layers"]:
        assert files[f"blobs/sha256/{row['digest']}"] == FILES[row["filename"]].plain
        assert row["size"] == len(FILES[row["filename"]].plain)
    assert len(files) == len({file.plain for file in FILES.values()})


def unfolded(name: str) -> bytes:
    """A file as a hypervisor needs it."""
    file = FILES[name]
    if "sparseMap" not in file.entry:
        return file.plain
    whole, at = bytearray(file.entry["sparseSize"]), 0
    for run in json.loads(file.entry["sparseMap"]):
        whole[run["o"] : run["o"] + run["l"]] = file.plain[at : at + run["l"]]
        at += run["l"]
    return bytes(whole)


def test_pull_into_a_store_and_again(layout, tmp_path):
    report = pulled(layout, tmp_path / "store")
    moved = {blob.title: blob.moved for blob in report.blobs if blob.title in FILES}
    assert report.derived and moved == {name: len(file.plain) for name, file in FILES.items()}
    holds_it_all(tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if path.is_file()}
    again = pulled(layout, tmp_path / "store")
    assert again.transferred == 0 and {blob.action for blob in again.blobs} == {"skipped"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if path.is_file()} == before


def test_what_cocoon_common_wrote(tmp_path):
    """`data/cocoonstack/v2` was written by a Go program with the structs of cocoon-common."""
    image, config = documents(DATA / "v2")
    blobs = {Digest.from_hex(path.name): path.read_bytes() for path in (DATA / "v2/blobs").iterdir()}
    layout = OciLayout(tmp_path / "layout")
    EncodedArtifact(image.document, config, blobs).publish(layout)
    pulled(layout, tmp_path / "store")
    manifest = json.loads((tmp_path / "store/manifests/bot/v1.json").read_bytes())
    expected = dict(row.split("  ")[::-1] for row in (DATA / "v2/decoded.sha256").read_text().splitlines())
    assert {row["filename"]: row["digest"] for row in manifest["layers"] if row["filename"] in expected} == expected
    for row in manifest["layers"]:
        assert Digest.of(stored(tmp_path / "store", row["digest"]).read_bytes()).hex == row["digest"]


def test_a_dry_run_changes_nothing(layout, tmp_path):
    report = pulled(layout, tmp_path / "store", dry_run=True)
    assert {blob.action for blob in report.blobs} == {"fetch"}
    assert not (tmp_path / "store").exists() or tree(tmp_path / "store") == {}


def test_files_under_their_own_names_unfolded(layout, tmp_path):
    pull_to_files(layout, "v1", FilesDirectory(tmp_path / "files"))
    assert tree(tmp_path / "files") == {name: unfolded(name) for name in FILES}
    again = pull_to_files(layout, "v1", FilesDirectory(tmp_path / "files"))
    assert again.transferred == 0


def test_only_some_files(layout, tmp_path):
    options = PullOptions(only=("*.raw",))
    pull_to_files(layout, "v1", FilesDirectory(tmp_path / "files"), options=options)
    assert sorted(tree(tmp_path / "files")) == ["cow.raw", "data-a.raw"]


@pytest.mark.parametrize("form", ["foreign", "ours"])
def test_only_what_is_wanted_is_decoded(tmp_path, form):
    """A layer of any other file may be gone: nobody asks for it."""
    layout = OciLayout(tmp_path / "layout")
    real_artifact().publish(layout)
    if form == "ours":  # with the Epoch manifest in its config
        pulled(layout, tmp_path / "store")
        words = ("--store", tmp_path / "store", "--dialect", "cocoonstack", "--zstd", "3", "--chunk-size", "1MiB")
        assert run_cli("push", "bot:v1", f"oci:{tmp_path}/layout:v1", *words, "--force").code == 0
    found = read_documents(layout, "v1").told()
    wanted = next(file for file in found.files if file.name == "cow.raw")
    for file in found.files:
        for carrier in file.carriers if file.name != "cow.raw" else ():
            stored(tmp_path / "layout", carrier.digest).unlink(missing_ok=True)
    done = run_cli("pull", f"oci:{tmp_path}/layout:v1", "-o", tmp_path / "files", "--only", "cow*")
    assert done.code == 0, done.err
    assert tree(tmp_path / "files") == {"cow.raw": COW}
    path = stored(tmp_path / "layout", wanted.carriers[0].digest)
    path.chmod(0o600)
    path.write_bytes(zstd.compress(noise("other", MIB)))
    assert run_cli("pull", f"oci:{tmp_path}/layout:v1", "-o", tmp_path / "again", "--only", "cow*").code == 3
    assert not (tmp_path / "again" / "cow.raw").exists()


def test_only_what_is_wanted_unfolds_as_ever(layout, tmp_path):
    options = PullOptions(only=("memory*",))
    pull_to_files(layout, "v1", FilesDirectory(tmp_path / "files"), options=options)
    assert tree(tmp_path / "files") == {"memory-ranges": unfolded("memory-ranges")}


def test_inspect_reads_no_layer(layout, tmp_path):
    for name in ENCODED:
        for raw in FILES[name].layers:
            stored(tmp_path / "layout", Digest.of(raw)).unlink(missing_ok=True)
    found = inspect_artifact(layout, "v1")
    rows = {file.name: file.to_json() for file in found.files}
    assert list(rows) == list(FILES)
    assert {name for name, row in rows.items() if row["digest"] is None} == set(ENCODED)
    assert rows["cow.raw"]["encoding"] == "zstd" and rows["cow.raw"]["parts"] == 5
    assert rows["loose.bin"]["encoding"] is None and rows["loose.bin"]["size"] == 300_000
    assert found.derived and found.kind == "snapshot" and found.manifest.cpu == 2
    assert any("cow.raw" in text for text in found.missing)
    assert any("only a pull tells the digest" in text and '"cow.raw"' in text for text in found.warnings)
    assert not any("config.json" in text for text in found.missing)


def test_inspect_on_the_command_line(layout, tmp_path):
    text = run_cli("inspect", f"oci:{tmp_path / 'layout'}:v1")
    assert text.code == 0 and "cow.raw" in text.out and "000000000000" not in text.out


def test_verify_hashes_and_decodes(layout):
    good = verify_artifacts(layout, ["v1"], options=VerifyOptions())
    layers = real_artifact().layers
    assert good.ok and good.blobs == len({layer.digest for layer in layers})
    assert good.bytes == sum({layer.digest: layer.size for layer in layers}.values())
    fast = verify_artifacts(layout, ["v1"], options=VerifyOptions(fast=True))
    assert fast.ok and fast.blobs == good.blobs and fast.bytes == 0


def test_verify_names_every_layer_that_is_wrong(layout, tmp_path):
    first, second = (Digest.of(FILES["cow.raw"].layers[index]) for index in (0, 4))
    raw = stored(tmp_path / "layout", first).read_bytes()
    stored(tmp_path / "layout", first).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    stored(tmp_path / "layout", second).unlink()
    bad = verify_artifacts(layout, ["v1"], options=VerifyOptions())
    assert [(item.object, item.code) for item in bad.findings] == [
        ("v1: cow.raw", "DIGEST"),
        ("v1: cow.raw", "NOT_FOUND"),
    ]
    assert str(first) in bad.findings[0].problem


@pytest.mark.parametrize("dialect", ["cocoon", "cocoonstack"])
def test_what_was_pulled_can_be_pushed_and_comes_back(layout, tmp_path, dialect):
    pulled(layout, tmp_path / "store")
    again = OciLayout(tmp_path / "again")
    push(open_store(tmp_path / "store"), KEY, again, None, options=PushOptions(dialect=dialect))
    pull_to_store(again, "v1", open_store(tmp_path / "back"), options=PullOptions(key=KEY))
    first, second = tree(tmp_path / "store"), tree(tmp_path / "back")
    assert first.pop("catalog.json") and second.pop("catalog.json")
    assert first == second
    if dialect == "cocoonstack":
        config = json.loads(read_artifact(again, "v1").config.raw)
        assert (config["schemaVersion"], config["description"]) == ("v1", "warm")
        assert config["files"]["memory-ranges"]["sparseSize"] == 16 * MIB


def test_ranges_are_not_taken_for_cheap(layout):
    told = read_documents(layout, "v1").told()
    assert isinstance(told, EncodedSnapshot)
    contents = {file.name: carried_content(layout, file) for file in told.files}
    assert not any(isinstance(contents[name], Ranged) for name in ("cow.raw", "memory-ranges", "data-a.raw"))
    assert {name: content.size for name, content in contents.items()} == {
        name: len(file.plain) for name, file in FILES.items()
    }


class TestMemory:
    """What files decode to is remembered."""

    def gone(self, path: Path) -> None:
        for name in ENCODED:
            for raw in FILES[name].layers:
                stored(path, Digest.of(raw)).unlink(missing_ok=True)

    def test_a_second_reading_needs_no_layer(self, layout, tmp_path):
        how = Decoding(cache=tmp_path / "cache")
        first = read_artifact(layout, "v1", how)
        self.gone(tmp_path / "layout")
        assert read_artifact(layout, "v1", how) == first
        with pytest.raises(NotFoundError):
            read_artifact(layout, "v1")

    def test_what_is_broken_is_learnt_anew(self, layout, tmp_path):
        how = Decoding(cache=tmp_path / "cache")
        first = read_artifact(layout, "v1", how)
        (kept,) = (tmp_path / "cache").iterdir()
        kept.write_bytes(re.sub(rb" [0-9a-f]", b" x", kept.read_bytes()))
        assert read_artifact(layout, "v1", how) == first
        self.gone(tmp_path / "layout")
        assert read_artifact(layout, "v1", how) == first

    def forge(self, layout, cache: Path) -> None:
        """Something wrong is remembered of every file."""
        memory = decode._Memory(cache)
        for index, file in enumerate(read_documents(layout, "v1").told().undigested):
            assert memory.recall(file) is not None
            memory.keep(file, Digest("sha256", f"{index:064x}"))

    def test_a_wrong_memory_stores_nothing(self, layout, tmp_path):
        """Not even a forged digest gets wrong bytes into a store."""
        read_artifact(layout, "v1", Decoding(cache=tmp_path / "cache"))
        self.forge(layout, tmp_path / "cache")
        snapshot = read_artifact(layout, "v1", Decoding(cache=tmp_path / "cache")).snapshot
        file = next(file for file in snapshot.files if file.name == "state.json")
        with pytest.raises(ContentError):
            open_store(tmp_path / "store").put(file.blob, carried_content(layout, file))
        assert not any(stored(tmp_path / "store", "").iterdir())

    def test_a_wrong_memory_is_made_anew_within_the_run(self, layout, tmp_path):
        options = PullOptions(key=SnapshotKey("bot", "v1"), decode_cache=tmp_path / "cache")
        for name in ("first", "second", "third"):
            pull_to_store(layout, "v1", open_store(tmp_path / name), options=options)
            assert open_store(tmp_path / name).resolve("bot:v1") == open_store(tmp_path / "first").resolve("bot:v1")
            if name == "first":
                self.forge(layout, tmp_path / "cache")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
    def test_a_directory_that_cannot_be_written_does_no_harm(self, layout, tmp_path):
        (tmp_path / "closed").mkdir(mode=0o500)
        read_artifact(layout, "v1", Decoding(cache=tmp_path / "closed/cache"))

    def test_a_file_in_its_place_does_no_harm(self, layout, tmp_path):
        (tmp_path / "cache").write_bytes(b"")
        read_artifact(layout, "v1", Decoding(cache=tmp_path / "cache"))

    def test_the_size_declared_is_part_of_what_is_remembered(self, tmp_path):
        plain = noise("x", 5000)
        for size, name in ((5000, "right"), (4999, "wrong")):
            encoded_artifact({"a.raw": compressed(plain, size=size)}).publish(OciLayout(tmp_path / name))
        how = Decoding(cache=tmp_path / "cache")
        read_artifact(OciLayout(tmp_path / "right"), "v1", how)
        with pytest.raises(ContentError) as caught:
            read_artifact(OciLayout(tmp_path / "wrong"), "v1", how)
        assert caught.value.code == "SIZE"


PLAIN = noise("plain", 2 * MIB)
BOMB = struct.pack("<IBB", 0xFD2FB528, 0, (20 - 10) << 3) + b"".join(
    (last | 1 << 1 | (128 << 10) << 3).to_bytes(3, "little") + b"\0" for last in [0] * 65_535 + [1]
)
"""8 GiB of zeros in 256 KiB."""


def small(file: Packed) -> EncodedArtifact:
    return encoded_artifact({"config.json": FILES["config.json"], "disk.raw": file})


def two(plain: bytes, **more) -> Packed:
    return Packed(plain, tuple(map(zstd.compress, chunks(plain, MIB))), **more)


PLAIN_CHUNKS = Packed(PLAIN, tuple(chunks(PLAIN, MIB)), compressed=False)
ATTACKS = {
    "declared too small": (small(compressed(PLAIN, size=2 * MIB - 1)), "SIZE"),
    "declared too large": (small(compressed(PLAIN, size=2 * MIB + 1)), "SIZE"),
    "declared far too large": (small(compressed(PLAIN, size=2**53 - 1)), "SIZE"),
    "chunks of another size": (small(two(PLAIN, size=2 * MIB + 1)), "SIZE"),
    "a bomb": (small(Packed(PLAIN, (BOMB,))), "SIZE"),
    "a bomb among chunks": (small(Packed(PLAIN, (zstd.compress(PLAIN[:MIB]), BOMB))), "SIZE"),
    "cut short": (small(Packed(PLAIN, (zstd.compress(PLAIN)[:-9],))), "TYPE"),
    "no zstd": (small(Packed(PLAIN, (PLAIN,))), "TYPE"),
    "something after the frame": (small(Packed(PLAIN, (zstd.compress(PLAIN) + b"more",))), "TYPE"),
    "no size": (small(compressed(PLAIN, size=0)), "SIZE"),
    "plain chunks of another size": (small(Packed(PLAIN, tuple(chunks(PLAIN, MIB)), False, 2 * MIB + 1)), "SIZE"),
    "version 1": (None, "TYPE"),
}


def mislabelled() -> EncodedArtifact:
    """A compressed layer under the artifact type of version 1."""
    made = small(compressed(PLAIN))
    value = json.loads(made.manifest.raw)
    config = Document(made.config.media_type, made.config.raw.replace(b'"v2"', b'"v1"'))
    value["artifactType"] = value["artifactType"].replace("v2", "v1")
    value["config"].update(digest=str(config.digest), size=config.size)
    return EncodedArtifact(Document(made.manifest.media_type, json.dumps(value).encode()), config, made.blobs)


@pytest.mark.parametrize("file", [compressed(PLAIN), two(PLAIN)], ids=["one", "chunks"])
def test_a_compressed_layer_that_is_too_long_leaves_nothing(tmp_path, file):
    layout = OciLayout(tmp_path / "layout")
    small(file).publish(layout)
    with stored(tmp_path / "layout", Digest.of(file.layers[-1])).open("ab") as stream:
        stream.write(b"\0")
    nothing_comes_of_it(layout, tmp_path, "SIZE")


@pytest.mark.parametrize("what", ATTACKS)
def test_an_attack_leaves_nothing(tmp_path, what):
    made, code = ATTACKS[what]
    layout = OciLayout(tmp_path / "layout")
    (made or mislabelled()).publish(layout)
    nothing_comes_of_it(layout, tmp_path, code)


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), {"DIGEST", "TYPE"}),
        (lambda raw: zstd.compress(bytes(2 * MIB)), {"SIZE", "DIGEST"}),
        (lambda raw: raw[:-1], {"SIZE"}),
        (lambda raw: b"", {"SIZE"}),
    ],
    ids=["a bit", "another frame", "shorter", "empty"],
)
@pytest.mark.parametrize("file", [compressed(PLAIN), two(PLAIN), PLAIN_CHUNKS], ids=["one", "chunks", "plain"])
def test_a_layer_that_is_not_the_one_named_leaves_nothing(tmp_path, change, codes, file):
    layout = OciLayout(tmp_path / "layout")
    small(file).publish(layout)
    path = stored(tmp_path / "layout", Digest.of(file.layers[-1]))
    path.write_bytes(change(path.read_bytes()))
    nothing_comes_of_it(layout, tmp_path, *codes)


def test_bytes_after_a_plain_chunk_are_never_read_and_verify_sees_them(tmp_path):
    layout = OciLayout(tmp_path / "layout")
    small(PLAIN_CHUNKS).publish(layout)
    with stored(tmp_path / "layout", Digest.of(PLAIN_CHUNKS.layers[-1])).open("ab") as file:
        file.write(b"\0")
    pulled(layout, tmp_path / "store")
    assert stored(tmp_path / "store", Digest.of(PLAIN)).read_bytes() == PLAIN
    assert [item.code for item in verify_artifacts(layout, ["v1"], options=VerifyOptions()).findings] == ["SIZE"]


def nothing_comes_of_it(layout: OciLayout, tmp_path: Path, *codes: str) -> None:
    for pull in (
        lambda: pulled(layout, tmp_path / "store"),
        lambda: pull_to_files(layout, "v1", FilesDirectory(tmp_path / "files")),
    ):
        with pytest.raises(ContentError) as caught:
            pull()
        assert caught.value.code in codes, str(caught.value)
    for place in (tmp_path / "store", tmp_path / "files"):
        assert not place.exists() or tree(place) == {}
    checked = verify_artifacts(layout, ["v1"], options=VerifyOptions())
    assert not checked.ok and {item.code for item in checked.findings} <= set(codes)
    ran = run_cli("pull", f"oci:{tmp_path / 'layout'}:v1", "--store", tmp_path / "third", "--as", "bot:v1")
    assert ran.code == 3 and ran.out == ""
    assert not (tmp_path / "third").exists() or tree(tmp_path / "third") == {}


def test_layers_that_change_between_the_passes_leave_nothing(tmp_path):
    """The digest learnt is what is stored, or nothing."""
    layout = OciLayout(tmp_path / "layout")
    small(compressed(PLAIN)).publish(layout)
    snapshot = read_artifact(layout, "v1").snapshot
    file = snapshot.files[1]
    path = stored(tmp_path / "layout", file.carriers[0].digest)
    path.write_bytes(zstd.compress(noise("other", 2 * MIB)))
    with pytest.raises(ContentError):
        open_store(tmp_path / "store").put(file.blob, carried_content(layout, file))
    assert not stored(tmp_path / "store", file.digest).exists()


def test_a_live_registry_through_the_command_line(live_registry, repo_name, tmp_path):
    from epoch_oci.locate import Connection, locate_artifact

    target = f"{live_registry.address}/{repo_name}:v1"
    real_artifact().publish(locate_artifact(target, connection=Connection()).store)
    words = ("pull", target, "--store", tmp_path / "store", "--as", "bot:v1", "--format", "json")
    first = run_cli(*words)
    assert first.code == 0, first.err
    holds_it_all(tmp_path / "store")
    again = run_cli(*words)
    assert again.code == 0 and again.json["bytesTransferred"] == 0
    files = run_cli("pull", target, "-o", tmp_path / "files")
    assert files.code == 0 and tree(tmp_path / "files") == {name: unfolded(name) for name in FILES}
    seen = run_cli("inspect", target, "--format", "json")
    assert seen.code == 0 and [row["name"] for row in seen.json["files"]] == list(FILES)
    checked = run_cli("verify", target, "--format", "json")
    assert checked.code == 0 and checked.json["checked"]["bytes"] > 0
    for dialect in ("cocoon", "cocoonstack"):
        other = f"{live_registry.address}/{repo_name}-{dialect}:v1"
        pushed = run_cli("push", "bot:v1", other, "--store", tmp_path / "store", "--dialect", dialect)
        assert pushed.code == 0, pushed.err
        back = run_cli("pull", other, "--store", tmp_path / dialect, "--as", "bot:v1")
        assert back.code == 0, back.err
        holds_it_all(tmp_path / dialect)


def test_two_documents_cannot_be_converted(layout, tmp_path):
    ran = run_cli("convert", f"oci:{tmp_path / 'layout'}:v1")
    assert ran.code == 3 and "only after their layers were decoded" in ran.error and ran.out == ""


def test_a_pull_that_is_killed_shows_nothing_half_and_goes_on(tmp_path):
    plain = noise("big", MIB) * 40
    layout = OciLayout(tmp_path / "layout")
    parts = tuple(zstd.compress(piece, level=1) for piece in chunks(plain, 8 * MIB))
    made = encoded_artifact({"a.raw": Packed(plain, parts), "b.raw": compressed(plain[7:])})
    made.publish(layout)
    words = ("pull", f"oci:{tmp_path / 'layout'}:v1", "--store", tmp_path / "store", "--as", "bot:v1", "-q")
    rng = random.Random(9)
    for _ in range(4):
        kill_at(rng.uniform(0.1, 0.7), *words)
        for name, raw in tree(tmp_path / "store").items() if (tmp_path / "store").exists() else ():
            if name.startswith("blobs/sha256/") and "/.epoch-oci" not in name:
                assert Digest.of(raw).hex == Path(name).name
    assert finish(start_cli(*words))[0] == 0
    for raw in (plain, plain[7:]):
        assert stored(tmp_path / "store", Digest.of(raw)).read_bytes() == raw
    report = pulled(layout, tmp_path / "store")
    assert report.transferred == 0


@pytest.mark.parametrize(("gib", "dry"), [(6, ()), (60, ("--dry-run",))], ids=["drafted", "read only"])
def test_an_interrupted_first_pass_ends_soon(tmp_path, gib, dry):
    """Decoding goes on for gigabytes; a signal ends it, and says so."""
    layout = OciLayout(tmp_path / "layout")
    frame = zstd.compress(bytes(256 * MIB))
    made = encoded_artifact({"a.raw": Packed(b"", (frame * 4 * gib,), size=gib << 30)})
    made.publish(layout)
    words = ("pull", f"oci:{tmp_path / 'layout'}:v1", "--store", tmp_path / "store", "--as", "bot:v1")
    process = start_cli(*words, "--progress", "json", *dry)
    next(line for line in process.stderr if json.loads(line)["event"] == "blob-progress")
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 130 and said.splitlines()[-1].startswith("epoch-oci: INTERRUPTED: ")
    assert '"blob-done"' not in said
    files = [str(path) for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert not [path for path in files if "/.epoch-oci-" not in path]


def test_onto_standard_output_as_an_archive_of_cocoons(layout, tmp_path):
    with (tmp_path / "out.tar").open("wb") as out:
        command = [sys.executable, "-m", "epoch_oci", "pull", f"oci:{tmp_path / 'layout'}:v1", "-o", "-", "-q"]
        subprocess.run([*command, "--as", "bot:v1"], stdout=out, check=True, timeout=60)
    with tarfile.open(tmp_path / "out.tar") as archive:
        found = {item.name: archive.extractfile(item).read() for item in archive}
    del found["snapshot.json"]
    assert found == {name: file.plain for name, file in FILES.items()}


def test_bytes_content_is_what_an_empty_file_is(layout):
    snapshot = read_artifact(layout, "v1").snapshot
    file = next(file for file in snapshot.files if file.name == "empty.bin")
    assert carried_content(layout, file) == BytesContent(b"")
