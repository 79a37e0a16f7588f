"""An encoded artifact is fetched once by whoever keeps files on this machine: decoded on the way, out of sight."""

import io
import json
import tarfile
import threading
from collections import Counter
from pathlib import Path

import pytest
from backports import zstd
from cli_runner import run_cli, start_cli
from cocoon_world import make_root
from cocoonstack_artifacts import EncodedArtifact, Packed, encoded_artifact
from disks import drafts, tmpfs
from snapshots import noise, open_store, tree
from support.faults import Flip, Respond
from test_encoded import chunks, compressed

from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError, EpochOciError, LocalIOError, NotFoundError
from epoch_oci.flows.pull import PullOptions, pull_to_files, pull_to_store
from epoch_oci.locate import Connection, locate_artifact
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.files import FilesDirectory
from epoch_oci.stores.oci_layout import OciLayout
from epoch_oci.transfer import assemble

MIB = 1 << 20
DISK = noise("disk", 6 * MIB + 5)
MEMORY = noise("memory", 2 * MIB)
STATE = b'{"state":1}' * 100_000
LOOSE = noise("loose", 3 * MIB)
RUNS = f'[{{"o":4096,"l":{MIB}}},{{"o":{8 * MIB},"l":{MIB}}}]'
FILES = {
    "config.json": Packed(b"{}", (b"{}",), compressed=False),
    "cow.raw": Packed(DISK, tuple(map(zstd.compress, chunks(DISK, MIB)))),
    "memory-ranges": compressed(MEMORY, entry={"sparseMap": RUNS, "sparseSize": 16 * MIB}),
    "state.json": compressed(STATE),
    "loose.bin": Packed(LOOSE, tuple(chunks(LOOSE, MIB)), compressed=False),
}


def artifact() -> EncodedArtifact:
    return encoded_artifact(FILES, image="ubuntu:24.04", cpu=2, memory=16 * MIB, createdAt="2026-07-20T08:30:00Z")


def publish(registry, made: EncodedArtifact | None = None) -> str:
    target = f"{registry.address}/vms/bot:v1"
    (made or artifact()).publish(locate_artifact(target, connection=Connection()).store)
    registry.recording.clear()
    return target


LOOKED_INTO = ("config.json", "state.json")
"""Small files that are read for what they say of a VM, besides being fetched."""
LAYERS = {str(layer.digest) for layer in artifact().layers if layer.title not in LOOKED_INTO}


def asked(registry) -> Counter[str]:
    """How often each layer was asked for, but for those that are looked into."""
    found = Counter(entry.path.rpartition("/")[2] for entry in registry.recording.find("GET", "/blobs/sha256:"))
    return Counter({digest: count for digest, count in found.items() if digest in LAYERS})


def piped(*words: object) -> bytes:
    """What a command writes on standard output."""
    child = start_cli(*words)
    out, err = child.communicate(timeout=100)
    assert child.returncode == 0, err
    return out


@pytest.mark.parametrize("place", ["store", "files", "root"])
def test_each_layer_is_asked_for_once(fake_registry, tmp_path, place):
    registry = fake_registry()
    source = publish(registry)
    where = {
        "store": ("--store", tmp_path / "there", "--as", "bot:v1"),
        "files": ("-o", tmp_path / "there"),
        "root": ("--store", f"cocoon:{make_root(tmp_path / 'root').path}", "--as", "bot:v1"),
    }[place]
    done = run_cli("pull", source, *where, "--format", "json")
    assert done.code == 0, done.err
    assert asked(registry) == dict.fromkeys(LAYERS, 1)
    moved = {row["title"]: row["bytes"] for row in done.json["blobs"] if row.get("title") in FILES}
    assert moved == {name: len(file.plain) for name, file in FILES.items()}
    assert {row["action"] for row in done.json["blobs"]} == {"received"}
    assert not [path for path in drafts(tmp_path) if path.is_file()]
    registry.recording.clear()
    again = run_cli("pull", source, *where, "--format", "json")
    assert again.code == 0 and not asked(registry) and again.json["bytesTransferred"] == 0


def test_only_what_is_wanted_is_asked_for(fake_registry, tmp_path):
    registry = fake_registry()
    done = run_cli("pull", publish(registry), "-o", tmp_path / "files", "--only", "memory*")
    assert done.code == 0, done.err
    assert asked(registry) == {str(Digest.of(FILES["memory-ranges"].layers[0])): 1}
    (unfolded,) = tree(tmp_path / "files").values()
    assert unfolded[4096:][:MIB] + unfolded[8 * MIB :][:MIB] == MEMORY and len(unfolded) == 16 * MIB


@pytest.mark.parametrize("where", ["archive", "files", "store"])
def test_where_an_epoch_manifest_rides_along_no_pass_is_needed_at_all(fake_registry, tmp_path, where):
    registry = fake_registry()
    piped("pull", publish(registry), "--store", tmp_path / "store", "--as", "bot:v1")
    target = f"{registry.address}/vms/ours:v1"
    words = ("--store", tmp_path / "store", "--dialect", "cocoonstack", "--zstd", 1, "--chunk-size", "1MiB")
    layers = run_cli("push", "bot:v1", target, *words, "--format", "json").json["blobs"]
    looked_into = {row["digest"] for row in layers if row.get("title") in LOOKED_INTO}
    registry.recording.clear()
    places = {"archive": ("-o", "-"), "files": ("-o", tmp_path / "out"), "store": ("--store", tmp_path / "out")}
    piped("pull", target, *places[where], "-q")
    found = Counter(entry.path.rpartition("/")[2] for entry in registry.recording.find("GET", "/blobs/sha256:"))
    assert {count for digest, count in found.items() if digest not in looked_into} == {1}


def test_onto_a_pipe_it_is_read_once_and_comes_out_whole(fake_registry, tmp_path):
    registry = fake_registry()
    source = publish(registry)
    child = start_cli("pull", source, "-o", "-", "--format", "json", "-q")
    raw, report = child.communicate(timeout=100)
    assert child.returncode == 0, report
    assert asked(registry) == dict.fromkeys(LAYERS, 1)
    # By the end it is known what the files are called, and remembered: another pull writes the same.
    told = {row["title"]: row["digest"] for row in json.loads(report)["blobs"] if row["title"]}
    assert told == {name: str(Digest.of(file.plain)) for name, file in FILES.items()}
    assert piped("pull", source, "-o", "-", "-q") == raw
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        found = {item.name: archive.extractfile(item).read() for item in archive}
    assert {name: found[name] for name in FILES} == {name: file.plain for name, file in FILES.items()}


def test_a_wrong_layer_leaves_no_whole_archive_on_a_pipe(fake_registry):
    registry = fake_registry()
    source = publish(registry)
    registry.fault("GET", str(Digest.of(FILES["cow.raw"].layers[-1])), Flip(), optional=True)
    child = start_cli("pull", source, "-o", "-", "-q")
    out, err = child.communicate(timeout=100)
    assert child.returncode == 3 and b"epoch-oci: " in err
    with pytest.raises(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(out)) as archive:
        _ = [archive.extractfile(item).read() for item in archive]


def big() -> EncodedArtifact:
    return encoded_artifact({"cow.raw": FILES["cow.raw"], "loose.bin": FILES["loose.bin"]})


def stored(path: Path, raw: bytes) -> Path:
    return path / "blobs/sha256" / Digest.of(raw).hex


@pytest.mark.parametrize("place", ["store", "files"])
def test_what_broke_off_goes_on_behind_the_last_whole_layer(tmp_path, monkeypatch, place):
    """And what it had is the only thing that is left: the layers that were decoded may be gone by then."""
    monkeypatch.setattr(assemble, "_SETTLE_EVERY", 1)
    layout, layers = OciLayout(tmp_path / "layout"), FILES["cow.raw"].layers
    big().publish(layout)
    broken = stored(tmp_path / "layout", layers[4])
    kept = broken.read_bytes()
    broken.unlink()

    def pull():
        if place == "store":
            options = PullOptions(key=SnapshotKey("bot", "v1"), jobs=1)
            return pull_to_store(layout, "v1", open_store(tmp_path / "there"), options=options)
        return pull_to_files(layout, "v1", FilesDirectory(tmp_path / "there"), options=PullOptions(jobs=1))

    with pytest.raises(NotFoundError):
        pull()
    assert not [path for path in tree(tmp_path / "there") if ".epoch-oci-" not in path]
    broken.write_bytes(kept)
    for raw in layers[:4]:
        stored(tmp_path / "layout", raw).unlink()
    pull()
    name = f"blobs/sha256/{Digest.of(DISK).hex}" if place == "store" else "cow.raw"
    assert (tmp_path / "there" / name).read_bytes() == DISK
    assert not [path for path in drafts(tmp_path / "there") if path.is_file()]


def test_layers_without_bytes_are_not_counted_on(tmp_path, monkeypatch):
    """Two layers that end at the same place: how many were decoded cannot be told by where they end."""
    monkeypatch.setattr(assemble, "_SETTLE_EVERY", 1)
    pieces = [noise("a", MIB), b"", noise("b", MIB), noise("c", MIB)]
    plain, layers = b"".join(pieces), tuple(map(zstd.compress, pieces))
    layout = OciLayout(tmp_path / "layout")
    encoded_artifact({"a.raw": Packed(plain, layers)}).publish(layout)
    last = stored(tmp_path / "layout", layers[3])
    kept = last.read_bytes()
    last.unlink()
    options = PullOptions(key=SnapshotKey("bot", "v1"))
    with pytest.raises(NotFoundError):
        pull_to_store(layout, "v1", open_store(tmp_path / "store"), options=options)
    last.write_bytes(kept)
    pull_to_store(layout, "v1", open_store(tmp_path / "store"), options=options)
    assert stored(tmp_path / "store", plain).read_bytes() == plain


@pytest.mark.parametrize("place", ["store", "files"])
def test_a_wrong_layer_shows_nothing(fake_registry, tmp_path, place):
    registry = fake_registry()
    source = publish(registry)
    registry.fault("GET", str(Digest.of(FILES["loose.bin"].layers[2])), Flip(), optional=True)
    where = ("--store", tmp_path / "there", "--as", "bot:v1") if place == "store" else ("-o", tmp_path / "there")
    done = run_cli("pull", source, *where)
    assert done.code == 3, done.err
    assert not [path for path in tree(tmp_path / "there") if ".epoch-oci-" not in path]


def test_a_full_disk_is_told_before_anything_is_fetched(fake_registry, tmp_path):
    registry = fake_registry()
    source = publish(registry)
    with tmpfs(tmp_path / "small", "size=5m") as disk:
        for where in (("--store", disk / "store", "--as", "bot:v1"), ("-o", disk / "files")):
            registry.recording.clear()
            done = run_cli("pull", source, *where)
            assert done.code == 7 and "the disk has room for" in done.err, done.err
            assert str(Digest.of(FILES["cow.raw"].layers[0])) not in asked(registry)


def test_files_need_room_once(fake_registry, tmp_path):
    """What is drafted is counted when the disk is asked whether the files fit, and so is what broke off."""
    registry = fake_registry()
    source = publish(registry)
    size = sum(len(file.plain) for file in FILES.values())
    with tmpfs(tmp_path / "small", f"size={size + 3 * MIB}") as disk:
        rule = registry.fault("GET", str(Digest.of(FILES["loose.bin"].layers[2])), Respond(404), optional=True)
        assert run_cli("pull", source, "-o", disk / "files", "-j", 1).code == 5
        registry.rules.remove(rule)
        done = run_cli("pull", source, "-o", disk / "files")
        assert done.code == 0, done.err
        assert (disk / "files/cow.raw").read_bytes() == DISK


def test_two_at_a_time_fetch_it_once(fake_registry, tmp_path):
    registry = fake_registry()
    source = publish(registry, big())
    failed: list[EpochOciError] = []

    def pull() -> None:
        options = PullOptions(key=SnapshotKey("bot", "v1"), decode_cache=tmp_path / "cache")
        place = locate_artifact(source, connection=Connection())
        try:
            pull_to_store(place.store, "v1", open_store(tmp_path / "store"), options=options)
        except EpochOciError as error:
            failed.append(error)

    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert set(asked(registry).values()) == {1}
    assert stored(tmp_path / "store", DISK).read_bytes() == DISK


def test_two_files_of_the_same_layers_are_fetched_once(fake_registry, tmp_path):
    registry = fake_registry()
    source = publish(registry, encoded_artifact({"cow.raw": FILES["cow.raw"], "data.raw": FILES["cow.raw"]}))
    place = locate_artifact(source, connection=Connection())
    options = PullOptions(key=SnapshotKey("bot", "v1"), jobs=2)
    pull_to_store(place.store, "v1", open_store(tmp_path / "store"), options=options)
    assert set(asked(registry).values()) == {1}
    assert stored(tmp_path / "store", DISK).read_bytes() == DISK


def test_what_is_there_by_another_name_is_not_kept_twice(tmp_path):
    layout = OciLayout(tmp_path / "layout")
    big().publish(layout)
    store = open_store(tmp_path / "store")
    for tag in ("v1", "v2"):
        pull_to_store(layout, "v1", store, options=PullOptions(key=SnapshotKey("bot", tag)))
    assert not [path for path in drafts(tmp_path / "store") if path.is_file()]


def test_sizes_that_cannot_be_are_refused_before_room_is_looked_for(tmp_path):
    layout = OciLayout(tmp_path / "layout")
    encoded_artifact({"a.raw": compressed(MEMORY, size=1 << 50)}).publish(layout)
    with pytest.raises(ContentError) as caught:
        pull_to_files(layout, "v1", FilesDirectory(tmp_path / "files"))
    assert caught.value.code == "SIZE" and not isinstance(caught.value, LocalIOError)
