"""Snapshots in the chunked form: pushed, pulled, told about, and never less than the plain form promises."""

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli_runner import Here, Ran, command, environment, run_cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapshots import Made, make_snapshot, noise, put_snapshot, tree
from support.faults import IgnoreRange, Respond
from support.registry_auth import PASSWORD, USER, BearerAuth

import epoch_oci
from epoch_oci.artifacts.pack_tables import read_table, table_of
from epoch_oci.chunks.index import Index, Piece, StoredBlob, annotations, write_index
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import media_type_for_file
from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.stores.base import BytesContent
from epoch_oci.stores.oci_layout import OciLayout

CHUNK = 64 << 10
INDEX = "application/vnd.cocoon.chunks.index.v1"
PACK = "application/vnd.cocoon.chunks.pack.v1"
ARTIFACT = "application/vnd.cocoon.snapshot.chunked.v1+json"


def guest(seed: int, size: int) -> bytes:
    """Memory-like: a third of it zeros, text, and pages that do not compress."""
    chosen, parts = random.Random(seed), []
    for number in range(size // CHUNK):
        kind = chosen.randrange(3)
        text = (b"%d kernel: page %d of the guest " % (seed, number)) * 2200
        parts.append(bytes(CHUNK) if kind == 0 else text[:CHUNK] if kind == 1 else noise(f"{seed}/{number}", CHUNK))
    return b"".join(parts)


def changed(content: bytes, *numbers: int, seed: int = 1) -> bytes:
    """The same with a page written in each of these chunks."""
    raw = bytearray(content)
    for number in numbers:
        raw[number * CHUNK + 4096 : number * CHUNK + 8192] = noise(f"{seed}/{number}", 4096)
    return bytes(raw)


def snapshot(tag: str, memory: bytes, disk: bytes, *, headers: dict | None = None) -> Made:
    files = {"config.json": b'{"cpus":{"boot_vcpus":2}}', "memory-ranges": memory, "overlay.qcow2": disk}
    types = {name: media_type_for_file(name) for name in files}
    made = Made(SnapshotKey("bot", tag), b"", {Digest.of(raw).hex: raw for raw in files.values()})
    layers = [
        {"digest": Digest.of(raw).hex, "size": len(raw), "filename": name, "mediaType": types[name]}
        for name, raw in files.items()
    ]
    value = {"schemaVersion": 1, "name": "bot", "tag": tag, "snapshotId": f"id-{tag}", "layers": layers}
    value["totalSize"] = sum(map(len, files.values()))
    value |= {"createdAt": f"2026-04-0{tag[-1]}T10:00:00Z", "pushedAt": "2026-04-09T10:00:00Z"}
    if headers is not None:
        value["layerHeaders"] = headers
    made.raw = json.dumps(value).encode()
    return made


MEMORY, DISK = guest(1, 6 << 20), guest(2, 3 << 20)


@dataclass
class Place:
    """A target, and the stores beside it, all driven by the command line."""

    path: Path
    target: str
    here: Here
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *words: object, input: bytes | None = None) -> Ran:
        if input is None:
            return self.here(*words, env=self.env)
        return run_cli(*words, env=self.env, cwd=self.path, input=input)

    def ok(self, *words: object, **more: object) -> dict:
        done = self.run(*words, "--format", "json", **more)
        assert done.code == 0, done.err
        return done.json

    def push(self, made: Made, *words: object) -> dict:
        put_snapshot(self.path / "store", made)
        return self.ok("push", made.key, f"{self.target}:{made.key.tag}", "--store", "store", "--chunked", *words)

    def pull(self, tag: str, *words: object) -> dict:
        return self.ok("pull", f"{self.target}:{tag}", *words)

    def blob(self, digest: str) -> Path:
        """A layer of a layout."""
        return self.path / "layout" / "blobs" / "sha256" / digest.removeprefix("sha256:")


@pytest.fixture
def place_at(tmp_path, capsys, monkeypatch):
    """Makes a place of a target's name."""
    monkeypatch.chdir(tmp_path)
    return lambda target, **env: Place(tmp_path, target, Here(capsys), env)


@pytest.fixture
def layout(place_at) -> Place:
    return place_at("oci:layout")


@pytest.fixture
def repository(place_at, fake_registry) -> Place:
    return place_at(f"{fake_registry().address}/acme/bot")


@pytest.fixture(params=["layout", "repository"])
def place(request) -> Place:
    return request.getfixturevalue(request.param)


def sent(report: dict) -> int:
    return sum(blob["bytes"] for blob in report["blobs"])


def of_type(report: dict, media_type: str) -> list[dict]:
    return [blob for blob in report["blobs"] if blob["mediaType"] == media_type]


def comes_back(path: Path, made: Made) -> bool:
    files = tree(path)
    stored = {name.rpartition("/")[2]: raw for name, raw in files.items() if name.startswith("blobs/")}
    return (
        files[f"manifests/{made.key.name}/{made.key.tag}.json"] == made.raw
        and {hexdigits: stored.get(hexdigits) for hexdigits in made.blobs} == made.blobs
    )


# Versions


def test_the_next_version_costs_what_changed_and_both_come_back(place):
    first, second = snapshot("v1", MEMORY, DISK), snapshot("v2", changed(MEMORY, 3, 40, 41), DISK)
    report = place.push(first)
    assert report["artifactType"] == ARTIFACT
    assert sent(report) < 0.6 * len(MEMORY + DISK)
    again = place.push(second)
    assert sent(again) < 4 * CHUNK + 20_000
    assert [blob["action"] for blob in of_type(again, PACK)] == ["sent", "skipped"] or [
        blob["action"] for blob in of_type(again, PACK)
    ] == ["skipped", "sent"]
    for made in (first, second):
        place.pull(made.key.tag, "--store", "back")
        assert comes_back(place.path / "back", made)


@pytest.mark.parametrize("kind", ["W1", "W2a", "W3b", "cloud-image", "empty-file", "null-layers"])
def test_every_writer_comes_back_byte_for_byte(layout, kind):
    made = make_snapshot(kind)
    report = layout.push(made)
    assert report["artifactType"].endswith(".chunked.v1+json")
    layout.pull("v1", "--store", "back")
    assert comes_back(layout.path / "back", made)


def test_a_push_of_what_is_there_reads_nothing_sends_nothing_and_makes_no_new_tag(layout):
    made = snapshot("v1", MEMORY, DISK)
    first = layout.push(made)
    before = tree(layout.path / "layout")
    for hexdigits in made.blobs:
        if len(made.blobs[hexdigits]) > CHUNK:
            (layout.path / "store" / "blobs" / "sha256" / hexdigits).unlink()
    done = layout.ok("push", "bot:v1", "oci:layout:v1", "--store", "store", "--chunked")
    assert done["digest"] == first["digest"] and sent(done) == 0
    assert {blob["action"] for blob in done["blobs"]} == {"skipped"}
    assert tree(layout.path / "layout") == before


def test_a_layer_that_went_missing_is_sent_again(layout):
    made = snapshot("v1", MEMORY, DISK)
    first = layout.push(made)
    layout.blob(of_type(first, PACK)[0]["digest"]).unlink()
    again = layout.push(made, "--force")
    assert again["digest"] == first["digest"]
    layout.pull("v1", "--store", "back")
    assert comes_back(layout.path / "back", made)


def test_the_same_snapshot_gives_the_same_artifact_wherever_it_is_pushed(layout, repository):
    made = snapshot("v1", MEMORY, DISK)
    assert layout.push(made)["digest"] == repository.push(made, "--jobs", 1)["digest"]


def test_a_tag_that_holds_something_else_is_a_conflict_before_anything_is_read(layout):
    layout.push(snapshot("v1", MEMORY, DISK))
    other = snapshot("v2", changed(MEMORY, 1), DISK)
    put_snapshot(layout.path / "store", other)
    before = tree(layout.path / "layout")
    done = layout.run("push", "bot:v2", "oci:layout:v1", "--store", "store", "--chunked")
    assert (done.code, done.error[:20]) == (9, "epoch-oci: CONFLICT:")
    assert tree(layout.path / "layout") == before
    report = layout.ok("push", "bot:v2", "oci:layout:v1", "--store", "store", "--chunked", "--force")
    assert sent(report) < 3 * CHUNK + 20_000


def test_a_dry_run_says_what_would_be_sent_after_dedupe_and_changes_nothing(place):
    first, second = snapshot("v1", MEMORY, DISK), snapshot("v2", changed(MEMORY, 9), DISK)
    place.push(first)
    put_snapshot(place.path / "store", second)
    words = ("push", "bot:v2", f"{place.target}:v2", "--store", "store", "--chunked")
    told = place.ok(*words, "--dry-run")
    assert {blob["action"] for blob in told["blobs"]} == {"send", "skip"}
    text = place.run(*words, "--dry-run").out
    assert text.count("(pack of chunks)") == 2 and text.count("(chunk index)") == text.count("(config)") == 1
    real = place.ok(*words)
    assert real["digest"] == told["digest"] and sent(real) == sent(told)


def test_a_pack_that_is_mostly_dead_is_not_dragged_along(layout):
    first = snapshot("v1", noise("m", 40 * CHUNK), noise("d", 20 * CHUNK))
    old = of_type(layout.push(first), PACK)
    kept = noise("m", 40 * CHUNK)[: 10 * CHUNK] + noise("n", 30 * CHUNK)
    second = snapshot("v2", kept, noise("e", 20 * CHUNK))
    new = layout.push(second)
    assert not {blob["digest"] for blob in of_type(new, PACK)} & {blob["digest"] for blob in old}
    assert sent(new) > 60 * CHUNK
    layout.pull("v2", "--store", "back")
    assert comes_back(layout.path / "back", second)


def test_packed_memory_shares_chunks_although_everything_moves_in_the_blob(layout):
    runs = [(0, 10 * CHUNK), (20 * CHUNK, 60 * CHUNK)]
    image = guest(5, 100 * CHUNK)

    def made(tag: str, runs: list[tuple[int, int]]) -> Made:
        packed = b"".join(image[offset : offset + length] for offset, length in runs)
        told = json.dumps([{"o": offset, "l": length} for offset, length in runs])
        records = {"COCOON.sparse.map": told, "COCOON.sparse.size": str(100 * CHUNK)}
        return snapshot(tag, packed, DISK, headers={"memory-ranges": {"mode": 420, "paxRecords": records}})

    first, second = made("v1", runs), made("v2", [(0, 10 * CHUNK + 4096), (20 * CHUNK, 60 * CHUNK)])
    layout.push(first)
    assert sent(layout.push(second)) < 2 * CHUNK + 20_000
    for version in (first, second):
        layout.pull(version.key.tag, "--store", f"back-{version.key.tag}")
        assert comes_back(layout.path / f"back-{version.key.tag}", version)
    layout.pull("v1", "--store", "back")
    report = layout.pull("v2", "--store", "back")
    assert sum(blob["bytes"] for blob in report["blobs"] if blob["title"]) < 2 * CHUNK
    layout.pull("v2", "-o", "files")
    unfolded = (layout.path / "files" / "memory-ranges").read_bytes()
    assert len(unfolded) == 100 * CHUNK and unfolded[20 * CHUNK : 80 * CHUNK] == image[20 * CHUNK : 80 * CHUNK]
    assert not any(unfolded[10 * CHUNK + 4096 : 20 * CHUNK])


def test_small_files_and_those_that_are_there_stay_plain(layout):
    made = snapshot("v1", MEMORY, DISK)
    put_snapshot(layout.path / "store", made)
    layout.ok("push", "bot:v1", "oci:layout:plain", "--store", "store")
    report = layout.push(made)
    assert not of_type(report, PACK) and sent(report) == 0
    image = ImageManifest.parse(Document("", layout.blob(report["digest"]).read_bytes()))
    assert [layer.title for layer in image.layers] == ["config.json", "memory-ranges", "overlay.qcow2"]
    layout.pull("v1", "--store", "back")
    assert comes_back(layout.path / "back", made)


@pytest.mark.parametrize("disk", [DISK, bytes(2 << 20)], ids=["beside others", "nothing else"])
def test_a_file_of_nothing_but_zeros_takes_no_pack(layout, disk):
    made = snapshot("v1", bytes((3 << 20) + 17), disk)
    report = layout.push(made)
    assert len(of_type(report, PACK)) == (1 if any(disk) else 0)
    layout.pull("v1", "--store", "back")
    assert comes_back(layout.path / "back", made)
    assert layout.ok("verify", "oci:layout:v1", "--rebuild")["ok"]
    assert layout.ok("inspect", "oci:layout:v1")["files"][1]["chunks"]["zeros"] == (3 << 20) + 17


def test_what_is_typed_outweighs_the_environment(layout):
    layout.env["EPOCH_OCI_CHUNKED"] = "1"
    put_snapshot(layout.path / "store", snapshot("v1", MEMORY, DISK))
    words = ("push", "bot:v1", "oci:layout", "--store", "store", "--dialect", "cocoonstack")
    assert layout.ok(*words)["artifactType"] == "application/vnd.cocoonstack.snapshot.v1+json"
    assert layout.run(*words, "--chunked").code == 2


# Bases


def test_a_base_can_be_named(layout):
    layout.push(snapshot("v1", MEMORY, DISK))
    second = snapshot("v2", changed(MEMORY, 7), DISK)
    assert sent(layout.push(second, "--base", "v1")) < 2 * CHUNK + 20_000


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_base_that_is_damaged_is_a_warning_and_costs_bytes(layout, damage):
    first = layout.push(snapshot("v1", MEMORY, DISK))
    index = layout.blob(of_type(first, INDEX)[0]["digest"])
    raw = index.read_bytes()
    index.unlink()
    for kept in (layout.path).rglob("chunk-indexes/*"):
        kept.unlink()
    if damage != "gone":
        index.write_bytes(raw[:-1] if damage == "cut" else raw[:-1] + bytes([raw[-1] ^ 1]))
    layout.env["XDG_CACHE_HOME"] = str(layout.path / "another")
    second = snapshot("v2", changed(MEMORY, 7), DISK)
    report = layout.push(second)
    assert any("is of no use as a base" in text for text in report["warnings"])
    assert sent(report) > 20 * CHUNK
    layout.pull("v2", "--store", "back")
    assert comes_back(layout.path / "back", second)


def test_a_base_whose_pack_is_gone_costs_bytes_and_not_the_snapshot(layout):
    first = layout.push(snapshot("v1", MEMORY, DISK))
    layout.blob(of_type(first, PACK)[0]["digest"]).unlink()
    second = snapshot("v2", changed(MEMORY, 7), DISK)
    assert sent(layout.push(second)) > 20 * CHUNK
    layout.pull("v2", "--store", "back")
    assert comes_back(layout.path / "back", second)


def test_a_base_in_another_place_is_a_warning(layout):
    layout.push(snapshot("v1", MEMORY, DISK))
    (layout.path / "layout").rename(layout.path / "elsewhere")
    report = layout.push(snapshot("v2", MEMORY, DISK), "--base", "oci:elsewhere:v1")
    assert any("is in another registry or layout" in text for text in report["warnings"])
    assert sent(report) > 20 * CHUNK


def test_base_and_level_want_chunks(layout):
    put_snapshot(layout.path / "store", snapshot("v1", MEMORY, DISK))
    for words in (("--base", "v1"), ("--level", "3")):
        done = layout.run("push", "bot:v1", "oci:layout", "--store", "store", *words)
        assert (done.code, "goes with --chunked" in done.error) == (2, True)


def test_the_environment_can_ask_for_chunks(layout):
    put_snapshot(layout.path / "store", snapshot("v1", MEMORY, DISK))
    layout.env["EPOCH_OCI_CHUNKED"] = "1"
    assert layout.ok("push", "bot:v1", "oci:layout", "--store", "store")["artifactType"] == ARTIFACT


# Pulling


def test_what_is_at_hand_is_not_fetched(place):
    first, second = snapshot("v1", MEMORY, DISK), snapshot("v2", changed(MEMORY, 3), DISK)
    place.push(first), place.push(second)
    place.pull("v1", "--store", "back")
    report = place.pull("v2", "--store", "back")
    assert 0 < sum(blob["bytes"] for blob in report["blobs"] if blob["title"]) < 2 * CHUNK
    assert comes_back(place.path / "back", second)
    report = place.pull("v2", "-o", "files", "--seed", "back")
    assert sum(blob["bytes"] for blob in report["blobs"] if blob["title"]) == 0


def test_a_damaged_chunk_at_hand_is_fetched_instead(layout):
    first, second = snapshot("v1", MEMORY, DISK), snapshot("v2", changed(MEMORY, 3), DISK)
    layout.push(first), layout.push(second)
    layout.pull("v1", "--store", "back")
    held = layout.path / "back" / "blobs" / "sha256" / Digest.of(MEMORY).hex
    os.chmod(held, 0o600)
    raw = bytearray(held.read_bytes())
    raw[20 * CHUNK : 60 * CHUNK] = noise("spoilt", 40 * CHUNK)
    held.write_bytes(raw)
    layout.pull("v2", "--store", "back")
    assert (layout.path / "back" / "blobs" / "sha256" / Digest.of(changed(MEMORY, 3)).hex).read_bytes() == changed(
        MEMORY, 3
    )


def test_files_land_sparse_and_a_pipe_gets_an_archive(place):
    made = snapshot("v1", bytes(20 << 20) + MEMORY, DISK)
    place.push(made)
    place.pull("v1", "-o", "files")
    files = {path.name: path for path in (place.path / "files").iterdir()}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == {
        layer["filename"]: layer["digest"] for layer in json.loads(made.raw)["layers"]
    }
    assert files["memory-ranges"].stat().st_blocks * 512 < len(MEMORY) + (1 << 20)
    assert place.pull("v1", "-o", "files")["bytesTransferred"] == 0


def test_an_archive_goes_in_and_out_in_chunks(layout):
    put_snapshot(layout.path / "store", snapshot("v1", MEMORY, DISK))
    layout.ok("push", "bot:v1", "oci:plain", "--store", "store")
    code, archive = _archive(layout, "oci:plain:v1")
    assert code == 0
    report = layout.ok("push", "-", "oci:layout:v1", "--chunked", input=archive)
    assert report["artifactType"] == ARTIFACT and of_type(report, PACK)
    again = layout.ok("push", "-", "oci:layout:v1", "--chunked", input=archive)
    assert (again["digest"], sent(again)) == (report["digest"], 0)
    assert _archive(layout, "oci:layout:v1")[1] == _archive(layout, "oci:layout:v1")[1]
    layout.pull("v1", "-o", "files")
    assert (layout.path / "files" / "memory-ranges").read_bytes() == MEMORY


def _archive(place: Place, reference: str) -> tuple[int, bytes]:
    done = subprocess.run(
        command("pull", reference, "-o", "-"),
        cwd=place.path,
        env=environment(place.env),
        capture_output=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_a_registry_without_ranges_gives_whole_packs(tmp_path, fake_registry, place_at):
    registry = fake_registry()
    place = place_at(f"{registry.address}/acme/bot")
    made = snapshot("v1", MEMORY, DISK)
    place.push(made)
    registry.fault("GET", "/blobs/sha256:", IgnoreRange())
    place.pull("v1", "--store", "back")
    assert comes_back(tmp_path / "back", made)


@pytest.mark.parametrize("kind", ["index", "pack"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "swapped"])
def test_a_damaged_layer_leaves_nothing_under_a_name(layout, kind, damage):
    made = snapshot("v1", MEMORY, DISK)
    report = layout.push(made)
    layer = layout.blob(of_type(report, INDEX if kind == "index" else PACK)[0]["digest"])
    raw = layer.read_bytes()
    layer.unlink()
    if damage == "cut":
        layer.write_bytes(raw[: len(raw) // 2])
    elif damage == "changed":
        layer.write_bytes(raw[:500] + bytes(100) + raw[600:])
    elif damage == "swapped":
        layer.write_bytes(noise("other", len(raw)))
    layout.env["XDG_CACHE_HOME"] = str(layout.path / "another")
    done = layout.run("pull", "oci:layout:v1", "--store", "back")
    assert done.code in (3, 5), done.err
    done.error  # noqa: B018 (one line)
    assert not [name for name in tree(layout.path / "back") if name.startswith(("manifests/", "catalog"))]
    for path in (layout.path / "back").rglob("*"):
        if path.is_file() and len(path.name) == 64:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_push_that_broke_off_goes_on_from_the_packs_that_it_sent(tmp_path, fake_registry, place_at):
    registry = fake_registry()
    place = place_at(f"{registry.address}/acme/bot", XDG_STATE_HOME=str(tmp_path / "state"))
    made = snapshot("v1", noise("a", 20 << 20), noise("b", 20 << 20))
    put_snapshot(tmp_path / "store", made)
    registry.fault("PUT", "/manifests/v1", Respond(403, code="DENIED"), first=1)
    words = ("push", "bot:v1", f"{place.target}:v1", "--store", "store", "--chunked")
    assert place.run(*words).code == 4
    assert len(list((tmp_path / "state").rglob("*.packs"))) == 1
    report = place.ok(*words)
    assert {blob["action"] for blob in of_type(report, PACK)} == {"skipped"}
    assert not list((tmp_path / "state").rglob("*.packs"))
    place.pull("v1", "--store", "back")
    assert comes_back(tmp_path / "back", made)


def test_packs_that_a_registry_has_collected_since_the_push_broke_off_are_sent_again(tmp_path, fake_registry, place_at):
    registry = fake_registry()
    place = place_at(f"{registry.address}/acme/bot", XDG_STATE_HOME=str(tmp_path / "state"))
    made = snapshot("v1", noise("a", 20 << 20), noise("b", 20 << 20))
    put_snapshot(tmp_path / "store", made)
    registry.fault("PUT", "/manifests/v1", Respond(403, code="DENIED"), first=1)
    words = ("push", "bot:v1", f"{place.target}:v1", "--store", "store", "--chunked")
    assert place.run(*words).code == 4
    gone = [digest for digest, size in registry.blobs("acme/bot").items() if size > 10 << 20][:1]
    for digest in gone:
        registry.delete_blob("acme/bot", digest)
    actions = [blob["action"] for blob in of_type(place.ok(*words), PACK)]
    assert "sent" in actions and "skipped" in actions
    place.pull("v1", "--store", "back")
    assert comes_back(tmp_path / "back", made)


@pytest.mark.parametrize("junk", [b"", b"junk", bytes(200), b"\xff" * 300])
def test_a_journal_that_is_torn_or_foreign_is_passed_over(tmp_path, layout, junk):
    layout.env["XDG_STATE_HOME"] = str(tmp_path / "state")
    name = hashlib.sha256(f"oci:{'layout'}".encode()).hexdigest()
    journal = tmp_path / "state" / "epoch-oci" / "packs" / f"{name}.packs"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(junk)
    journal.chmod(0o600)
    made = snapshot("v1", MEMORY, DISK)
    layout.push(made)
    layout.pull("v1", "--store", "back")
    assert comes_back(layout.path / "back", made)


def test_a_pull_that_was_interrupted_goes_on_from_verified_chunks(layout):
    made = snapshot("v1", noise("a", 24 << 20), DISK)
    report = layout.push(made)
    packs = of_type(report, PACK)
    last = layout.blob(packs[-1]["digest"])
    raw = last.read_bytes()
    last.unlink()
    assert layout.run("pull", "oci:layout:v1", "--store", "back", "--jobs", "1").code == 5
    last.write_bytes(raw)
    report = layout.pull("v1", "--store", "back")
    moved = next(blob["bytes"] for blob in report["blobs"] if blob["title"] == "memory-ranges")
    assert moved < 10 << 20
    assert comes_back(layout.path / "back", made)


def test_a_disk_that_is_too_small_is_told_before_the_file_is_fetched(layout):
    made = snapshot("v1", noise("a", 24 << 20), DISK)
    layout.push(made)
    small = layout.path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        done = layout.run("pull", "oci:layout:v1", "--store", "small/back")
        assert (done.code, "the disk has room for" in done.error) == (7, True), done.err
        assert not list((small / "back").rglob("manifests/**/*.json"))
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True, capture_output=True)
        layout.pull("v1", "--store", "small/back")
        assert comes_back(small / "back", made)
    finally:
        subprocess.run(["umount", small], check=False, capture_output=True)


def test_guest_memory_in_chunks_is_kept_from_the_public(tmp_path, fake_registry, place_at):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=("pull",)))
    place = place_at(f"{registry.address}/acme/bot", EPOCH_OCI_USERNAME=USER, EPOCH_OCI_PASSWORD=PASSWORD)
    put_snapshot(tmp_path / "store", snapshot("v1", MEMORY, DISK))
    words = ("push", "bot:v1", f"{place.target}:v1", "--store", "store", "--chunked")
    assert place.run(*words).code == 8
    assert not registry.recording.count("PUT|PATCH", "/v2/")
    place.push(snapshot("v2", MEMORY, DISK), "--allow-public")
    for form in ("--chunked", "--plain"):
        assert place.run("copy", f"{place.target}:v2", f"{registry.address}/acme/other:v2", form).code == 8
    assert not registry.blobs("acme/other")
    assert place.run(*words, "--allow-public").code == 0
    assert place.run(*words).code == 8


def test_a_reader_of_the_plain_form_refuses_it_by_name(layout):
    """What version 0.1.0 checks first: the artifact's type against that of its config."""
    report = layout.push(snapshot("v1", MEMORY, DISK))
    image = ImageManifest.parse(Document("", layout.blob(report["digest"]).read_bytes()))
    assert image.artifact_type == ARTIFACT
    assert image.config.media_type == "application/vnd.cocoon.snapshot.config.v1+json"
    assert layout.blob(str(image.config.digest)).read_bytes() == snapshot("v1", MEMORY, DISK).raw


def test_convert_gives_the_same_epoch_manifest_back(layout):
    made = snapshot("v1", MEMORY, DISK)
    layout.push(made)
    done = layout.run("convert", "oci:layout:v1", "--to", "epoch")
    assert done.out.encode() == made.raw
    plain = layout.run("convert", "oci:layout:v1", "--to", "oci")
    assert json.loads(plain.out)["artifactType"] == "application/vnd.cocoon.snapshot.v1+json"


# Looking


# From one form into the other


def test_a_copy_changes_the_form_and_nothing_else(place):
    made = snapshot("v1", MEMORY, DISK)
    put_snapshot(place.path / "store", made)
    plain = place.ok("push", "bot:v1", f"{place.target}:v1", "--store", "store", "-a", "org.acme.run=17")
    there = place.ok("copy", f"{place.target}:v1", "oci:other:c", "--chunked", "--level", 3)
    assert there["command"] == "copy" and there["artifactType"].endswith("snapshot.chunked.v1+json")
    assert there["digest"] != plain["digest"] and len(of_type(there, PACK)) == 1
    back = place.ok("copy", "oci:other:c", "oci:third:v1,latest", "--plain")
    assert back["digest"] == plain["digest"]
    for target in ("oci:other:c", "oci:third:latest"):
        place.ok("pull", target, "--store", f"back-{target[-1]}", "--as", "bot:v1")
        assert comes_back(place.path / f"back-{target[-1]}", made)


def test_a_copy_into_chunks_sends_what_the_target_lacks(place):
    put_snapshot(place.path / "store", snapshot("v2", changed(MEMORY, 7), DISK))
    place.push(snapshot("v1", MEMORY, DISK))
    place.ok("push", "bot:v2", "oci:plain:v2", "--store", "store")
    report = place.ok("copy", "oci:plain:v2", f"{place.target}:v2", "--chunked")
    assert sent(report) < 2 * CHUNK + 20_000
    again = place.ok("copy", "oci:plain:v2", f"{place.target}:v2", "--chunked")
    assert again["digest"] == report["digest"] and sent(again) == 0


def test_a_copy_into_chunks_beside_the_plain_form_is_one(place):
    put_snapshot(place.path / "store", made := snapshot("v1", MEMORY, DISK))
    place.ok("push", "bot:v1", f"{place.target}:v1", "--store", "store")
    report = place.ok("copy", f"{place.target}:v1", f"{place.target}:c", "--chunked")
    assert of_type(report, PACK) and sent(report) > 20 * CHUNK
    assert sent(place.ok("copy", f"{place.target}:v1", f"{place.target}:c", "--chunked")) == 0
    place.pull("c", "--store", "back", "--as", "bot:v1")
    assert comes_back(place.path / "back", made)


def test_a_plain_artifact_is_copied_as_it_is_where_the_plain_form_is_wanted(layout):
    put_snapshot(layout.path / "store", snapshot("v1", MEMORY, DISK))
    first = layout.ok("push", "bot:v1", "oci:layout:v1", "--store", "store", "--part-size", "1MiB")
    assert layout.ok("copy", "oci:layout:v1", "oci:other:v1", "--plain")["digest"] == first["digest"]


@pytest.mark.parametrize("flag", ["--chunked", "--plain"])
def test_a_copy_in_another_form_keeps_to_the_rules_of_publication(tmp_path, fake_registry, place_at, flag):
    registry = fake_registry()
    place = place_at("oci:layout", EPOCH_OCI_CHUNKED="1")
    put_snapshot(tmp_path / "store", snapshot("v1", MEMORY, DISK))
    put_snapshot(tmp_path / "store", snapshot("v2", changed(MEMORY, 7), DISK))
    form = [] if flag == "--plain" else ["--dialect", "cocoonstack"]
    first = place.ok("push", "bot:v1", "oci:layout:v1", "--store", "store", *form)
    place.ok("push", "bot:v2", "oci:layout:v2", "--store", "store", *form)
    target = f"{registry.address}/acme/bot:v1"
    foretold = place.ok("copy", "oci:layout:v1", target, flag, "--dry-run")
    assert foretold["dryRun"] and sent(foretold) and not registry.blobs("acme/bot")
    place.ok("copy", "oci:layout:v1", target, flag)
    assert place.run("copy", "oci:layout:v2", target, flag).code == 9
    place.ok("copy", "oci:layout:v2", target, flag, "--force")
    assert place.run("copy", "oci:layout:v1", target, "--chunked", "--plain").code == 2
    assert place.run("copy", "oci:layout:v1", target, flag, "--referrers").code == 2
    exact = place.ok("copy", "oci:layout:v1", "oci:other:v1")  # the environment is about pushing
    assert exact["digest"] == first["digest"]


def test_inspect_tells_what_the_bytes_are(layout):
    layout.push(snapshot("v1", MEMORY, DISK))
    layout.push(snapshot("v2", changed(MEMORY, 3) + MEMORY[: 10 * CHUNK], DISK))
    found = layout.ok("inspect", "oci:layout:v2")
    memory = next(file for file in found["files"] if file["name"] == "memory-ranges")
    zeros = sum(CHUNK for at in range(0, len(MEMORY), CHUNK) if not any(MEMORY[at : at + CHUNK]))
    again = [MEMORY[at : at + CHUNK] for at in range(0, 10 * CHUNK, CHUNK) if at != 3 * CHUNK]
    assert memory["encoding"] == "chunks" and memory["parts"] == 1
    assert memory["chunks"]["zeros"] >= zeros
    assert memory["chunks"]["repeated"] == sum(CHUNK for chunk in again if any(chunk))
    assert [pack["size"] > pack["live"] > 0 for pack in found["packs"]] == [True, True]
    assert found["stored"] < found["size"]
    assert "2 packs" in layout.run("inspect", "oci:layout:v2").out


def test_inspect_says_which_layer_is_missing(layout):
    report = layout.push(snapshot("v1", MEMORY, DISK))
    pack = of_type(report, PACK)[0]["digest"]
    layout.blob(pack).unlink()
    assert layout.ok("inspect", "oci:layout:v1")["missing"] == [f"a layer of files in chunks ({pack}) is not there"]


@pytest.mark.parametrize("flags", [(), ("--rebuild",), ("--round-trip",), ("--fast",)])
def test_verify_finds_nothing_wrong_with_what_is_right(place, flags):
    place.push(snapshot("v1", MEMORY, DISK))
    second = place.push(snapshot("v2", changed(MEMORY, 3), DISK))
    found = place.ok("verify", f"{place.target}:v2", *flags)
    layers = [blob for blob in second["blobs"] if blob["title"] or blob["mediaType"] in (INDEX, PACK)]
    assert (found["ok"], found["checked"]["blobs"]) == (True, len(layers))
    assert found["checked"]["bytes"] == (0 if "--fast" in flags else sum(blob["size"] for blob in layers))


@pytest.mark.parametrize("damage", ["changed", "gone", "tail"])
def test_verify_names_the_pack_that_is_wrong_and_goes_on(layout, damage):
    report = layout.push(snapshot("v1", noise("m", 20 << 20), DISK))
    packs = of_type(report, PACK)
    layer = layout.blob(packs[0]["digest"])
    raw = layer.read_bytes()
    layer.unlink()
    if damage != "gone":
        layer.write_bytes(raw[:100] + b"X" + raw[101:] if damage == "changed" else raw[:-1] + b"X")
    done = layout.run("verify", "oci:layout:v1", "--format", "json")
    assert done.code == 3
    findings = done.json["findings"]
    assert [packs[0]["digest"][7:19] in finding["object"] for finding in findings] == [True]


def on_another_machine(place: Place) -> None:
    """Nothing is remembered there of what was pushed or read here."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        place.env[name] = str(place.path / "another" / name)


@pytest.mark.parametrize("named", [True, False], ids=["a base that is named", "what the repository has"])
def test_an_index_that_lies_about_packs_costs_bytes_and_never_the_snapshot(layout, named):
    """Its digests are right and its places are not: the pack's own table says so before a chunk of it is reused."""
    report = layout.push(snapshot("v1", MEMORY, DISK))
    forged = _with_forged_index(layout, report)
    layout.ok("tag", f"oci:layout@{forged}", "v1", "--force")
    on_another_machine(layout)
    second = snapshot("v2", changed(MEMORY, 7), DISK)
    report = layout.push(second, *(("--base", "v1") if named else ()))
    assert any("is not what an index of an earlier version says" in text for text in report["warnings"])
    assert sent(report) > 20 * CHUNK
    assert layout.run("verify", "oci:layout:v2", "--rebuild").code == 0
    layout.pull("v2", "--store", "back")
    assert comes_back(layout.path / "back", second)


def test_a_pack_whose_table_lies_is_found_out_by_whoever_asks(layout):
    """Whoever may write there can make one: it is what its digest says, and its table is not what is in it."""
    lying = _with_lying_pack(layout, layout.push(snapshot("v1", MEMORY, DISK)))
    layout.ok("tag", f"oci:layout@{lying}", "v1", "--force")
    on_another_machine(layout)
    second = snapshot("v2", changed(MEMORY, 7), DISK)
    report = layout.push(second, "--verify-bases")
    assert any("has a chunk that is not" in text and "is not reused" in text for text in report["warnings"])
    layout.ok("verify", "oci:layout:v2", "--rebuild")
    layout.pull("v2", "--store", "back")
    assert comes_back(layout.path / "back", second)


def test_packs_of_others_are_read_once_where_that_is_asked_for(fake_registry, place_at):
    registry = fake_registry()
    repository, requests = place_at(f"{registry.address}/acme/bot"), registry.recording
    packs = {row["digest"] for row in of_type(repository.push(snapshot("v1", MEMORY, DISK)), PACK)}

    def read(tag: str, *numbers: int) -> set[str]:
        requests.clear()
        words = ("--verify-bases", "--base", f"v{int(tag[1:]) - 1}")
        assert not repository.push(snapshot(tag, changed(MEMORY, *numbers), DISK), *words)["warnings"]
        return {entry.path.rpartition("/")[2] for entry in requests.find("GET", "/blobs/sha256:")} & packs

    assert read("v2", 7) == set()  # they were laid here
    on_another_machine(repository)
    assert read("v3", 7, 9) == packs
    assert read("v4", 7, 9, 11) == set()


@pytest.mark.parametrize("rows", [0, 1, 5000], ids=["a first range that is too short", "some", "all of the pack"])
def test_a_table_is_read_off_the_end_of_a_pack(layout, rows):
    (pack,) = of_type(layout.push(snapshot("v1", MEMORY, DISK)), PACK)
    raw = layout.blob(pack["digest"]).read_bytes()
    assert table_of(BytesContent(raw), len(raw), rows, "the pack") == read_table(raw, "the pack")
    for wrong in (noise("x", len(raw)), raw[:-64] + bytes(64), raw[:5], b""):
        with pytest.raises(ContentError):
            table_of(BytesContent(wrong), len(wrong), rows, "the pack")


def test_what_packs_say_is_asked_once_and_not_of_ones_own(fake_registry, place_at):
    """A small range of each pack that is reused, from a machine that did not write it; then nothing is asked."""
    registry = fake_registry()
    repository, requests = place_at(f"{registry.address}/acme/bot"), registry.recording
    packs = {row["digest"] for row in of_type(repository.push(snapshot("v1", MEMORY, DISK)), PACK)}

    def read_of_packs() -> list[int]:
        found = [entry for entry in requests.find("GET", "/blobs/sha256:") if entry.path.rpartition("/")[2] in packs]
        requests.clear()
        return [ranged(entry.header("Range")) for entry in found]

    repository.push(snapshot("v2", changed(MEMORY, 7), DISK))
    assert read_of_packs() == []
    on_another_machine(repository)
    repository.push(snapshot("v3", changed(MEMORY, 7, 9), DISK))
    asked = read_of_packs()
    assert 0 < len(asked) <= 2 * len(packs) and sum(asked) < 64_000
    repository.push(snapshot("v4", changed(MEMORY, 7, 9, 11), DISK), "--base", "v3")
    assert read_of_packs() == []


def ranged(header: str | None) -> int:
    """How many bytes a request asks for."""
    assert header is not None
    first, last = header.removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


def test_where_ranges_are_refused_an_index_is_taken_at_its_word(tmp_path, fake_registry, place_at):
    registry = fake_registry()
    place = place_at(f"{registry.address}/acme/bot")
    place.push(snapshot("v1", MEMORY, DISK))
    on_another_machine(place)
    registry.fault("GET", "/blobs/sha256:", IgnoreRange())
    second = snapshot("v2", changed(MEMORY, 7), DISK)
    report = place.push(second)
    assert not report["warnings"] and sent(report) < 4 * CHUNK + 20_000
    place.pull("v2", "--store", "back")
    assert comes_back(tmp_path / "back", second)


def test_verify_finds_an_index_that_fits_its_digests_and_not_its_packs(layout):
    """Made by somebody whose hashes are all right: only what the packs say of themselves shows it."""
    report = layout.push(snapshot("v1", MEMORY, DISK))
    forged = _with_forged_index(layout, report)
    done = layout.run("verify", f"oci:layout@{forged}", "--rebuild", "--format", "json")
    assert done.code == 3 and done.json["findings"]
    assert layout.run("pull", f"oci:layout@{forged}", "--store", "back", "--as", "bot:x").code == 3
    assert not list((layout.path / "back").rglob("manifests/**/*.json"))


def _with_forged_index(layout: Place, report: dict) -> str:
    """The artifact again, with an index in which one chunk lies elsewhere; returns its digest."""

    def moved(piece: Piece, packs: int) -> None:
        at = next(at for at, encoding in enumerate(piece.encodings) if encoding == 2)
        piece.offsets[at] += 1

    return forge(layout.path / "layout", report["digest"], moved)


def _with_lying_pack(layout: Place, report: dict) -> str:
    """The artifact again, with a first pack in which a chunk is not what the pack's own table says; its digest."""
    blobs = layout.path / "layout" / "blobs" / "sha256"
    packs = [StoredBlob(Digest.parse(row["digest"]), row["size"]) for row in of_type(report, PACK)]
    raw = (blobs / packs[0].digest.hex).read_bytes()
    wrong = raw[:100] + bytes([raw[100] ^ 1]) + raw[101:]
    packs[0] = StoredBlob(Digest.of(wrong), len(wrong))
    (blobs / packs[0].digest.hex).write_bytes(wrong)
    return forge(layout.path / "layout", report["digest"], lambda piece, count: None, packs)


def forge(
    layout: Path, digest: str, change: Callable[[Piece, int], None], packs: Sequence[StoredBlob] | None = None
) -> str:
    """An artifact of a layout again, after `change` had its way with the first piece of each file; its digest.

    With `packs` in the place of its own.
    """

    def path(of: str) -> Path:
        return layout / "blobs" / "sha256" / of.removeprefix("sha256:")

    value = json.loads(path(digest).read_bytes())
    raw = path(value["layers"][0]["digest"]).read_bytes()
    notes = value["layers"][0]["annotations"]
    layer = Descriptor(media_type=INDEX, digest=Digest.of(raw), size=len(raw), annotations=notes)
    index = Index(layer, lambda offset, length: raw[offset : offset + length])
    files = []
    for number, file in enumerate(index.header.files):
        pieces = list(index.pieces(number))
        change(pieces[0], len(index.header.packs))
        files.append((file, pieces))
    packs = packs or index.header.packs
    blob, header = write_index(packs, files)
    value["layers"][0] |= {"digest": str(Digest.of(blob)), "size": len(blob), "annotations": annotations(blob, header)}
    for row, pack in zip(value["layers"][1:], packs, strict=False):
        row |= {"digest": str(pack.digest), "size": pack.size}
    document = json.dumps(value).encode()
    for content in (blob, document):
        path(str(Digest.of(content))).write_bytes(content)
    return str(Digest.of(document))


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_versions_come_back_whatever_the_indexes_of_their_bases_say(tmp_path_factory, data):
    """Bases whose digests are right and whose places, packs, lengths, encodings or names are not."""
    path, chosen = tmp_path_factory.mktemp("lies"), random.Random(data.draw(st.integers(0, 1 << 30)))
    target, memory, disk = f"oci:{path}/layout", guest(chosen.randrange(9), 1 << 21), guest(9, 20 * CHUNK)

    def lie(piece: Piece, packs: int) -> None:
        stored = [at for at, encoding in enumerate(piece.encodings) if encoding]
        for at in chosen.sample(stored, min(len(stored), chosen.randrange(1, 4))):
            other = chosen.choice(stored)
            for column in chosen.sample(["offsets", "stored", "packs", "digests"], chosen.randrange(1, 3)):
                if column == "digests":
                    digests, size = piece.digests, 32
                    digests[at * size : at * size + size] = digests[other * size : other * size + size]
                elif column == "packs":
                    piece.packs[at] = chosen.randrange(packs)
                else:
                    values = getattr(piece, column)
                    values[at] = chosen.choice([values[other], values[at] + 1, max(0, values[at] - 1)])

    layout = OciLayout(path / "layout")
    for number in range(1, data.draw(st.integers(2, 4)) + 1):
        memory = changed(memory, *(chosen.randrange(len(memory) // CHUNK) for _ in range(3)), seed=number)
        made = snapshot(f"v{number}", memory, disk)
        put_snapshot(path / "store", made)
        options = epoch_oci.PushOptions(chunking=epoch_oci.Chunking())
        report = epoch_oci.push(str(made.key), f"{target}:v{number}", store=path / "store", options=options)
        epoch_oci.pull(f"{target}:v{number}", path / f"back{number}")
        assert comes_back(path / f"back{number}", made)
        if data.draw(st.booleans()):
            forged = forge(path / "layout", str(report.document.digest), lie)
            layout.publish(f"v{number}", layout.resolve(forged), replace=True)


# diff


@pytest.fixture
def two(layout) -> Place:
    """Two versions in either form: a page written, a chunk moved, one zeroed, and one more at the end."""
    memory = bytearray(changed(MEMORY, 3) + noise("more", CHUNK))
    moved = next(at for at in range(0, len(MEMORY), CHUNK) if any(MEMORY[at : at + CHUNK]) and at > 10 * CHUNK)
    memory[5 * CHUNK : 6 * CHUNK] = MEMORY[moved : moved + CHUNK]
    filled = next(at for at in range(moved + CHUNK, len(MEMORY), CHUNK) if any(MEMORY[at : at + CHUNK]))
    memory[filled : filled + CHUNK] = bytes(CHUNK)
    for made in (snapshot("v1", MEMORY, DISK), snapshot("v2", bytes(memory), DISK)):
        layout.push(made)
        layout.ok("push", made.key, f"oci:plain:{made.key.tag}", "--store", "store")
    return layout


@pytest.mark.parametrize(
    ("a", "b", "flags"),
    [
        ("oci:layout:v1", "oci:layout:v2", ()),
        ("oci:plain:v1", "oci:plain:v2", ("--deep",)),
        ("bot:v1", "oci:layout:v2", ("--deep", "--store", "store")),
    ],
)
def test_diff_tells_what_became_of_each_chunk(two, a, b, flags):
    found = two.ok("diff", a, b, *flags)
    assert {file["name"]: file["state"] for file in found["files"]} == {
        "config.json": "same",
        "memory-ranges": "changed",
        "overlay.qcow2": "same",
    }
    chunks = found["files"][1]["chunks"]
    assert (chunks["written"], chunks["moved"], chunks["zeroed"], chunks["removed"]) == (2, 1, 1, 0)
    assert chunks["total"] == len(MEMORY) // CHUNK + 1 and found["same"] is False
    back = two.ok("diff", b, a, *flags)
    assert back["files"][1]["chunks"]["removed"] == 1


def test_diff_without_chunks_tells_files_alone(two):
    found = two.ok("diff", "oci:plain:v1", "oci:plain:v2")
    assert "chunks" not in found["files"][1] and found["files"][1]["state"] == "changed"
    assert two.ok("diff", "oci:plain:v1", "oci:layout:v1")["same"] is True
    text = two.run("diff", "oci:layout:v1", "oci:layout:v2").out
    assert "memory-ranges  changed" in text and text.rstrip().endswith("different files")


def test_diff_draws_a_picture_and_replaces_none_unasked(two):
    assert two.run("diff", "oci:layout:v1", "oci:layout:v2", "--svg", "d.svg").code == 0
    picture = ElementTree.fromstring((two.path / "d.svg").read_text())
    assert picture.tag.endswith("svg") and len(list(picture)) > 12
    assert two.run("diff", "oci:layout:v1", "oci:layout:v2", "--svg", "d.svg").code == 9
    assert two.run("diff", "oci:layout:v1", "oci:layout:v2", "--svg", "d.svg", "--force").code == 0
    assert two.run("diff", "oci:layout:v1", "oci:layout:v3").code == 5
