"""Killed, crowded or out of space: what is visible is whole, and the same command goes on."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_runner import start_cli
from snapshots import Made, noise, put_snapshot, tree
from support.nursery import Child
from support.proxy import Cut
from support.waiting import until

from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.oci.digest import Digest

BIG = 48 << 20


def finish(process: Child) -> tuple[int, str]:
    _, said = process.communicate(timeout=100)
    return process.returncode, said.decode()


def kill_at(seconds: float, *words: object) -> int:
    """Start, kill, and say with what status it ended."""
    process = start_cli(*words)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=100)
    return process.returncode


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> tuple[Path, Made]:
    """A store with two blobs that take a moment to move."""
    store = tmp_path_factory.mktemp("big")
    made = Made(SnapshotKey("big", "v1"), b"")
    rows = []
    for name, seed in (("memory-ranges", "m"), ("overlay.qcow2", "o")):
        raw = noise(seed, 1 << 20) * (BIG >> 20)
        made.blobs[Digest.of(raw).hex] = raw
        rows.append({"digest": Digest.of(raw).hex, "size": len(raw), "filename": name})
    zero = "0001-01-01T00:00:00Z"
    value = {"schemaVersion": 1, "name": "big", "tag": "v1", "snapshotId": "9f3c1a7be20d4c55", "layers": rows}
    made.raw = gojson.dumps({**value, "totalSize": 2 * BIG, "createdAt": zero, "pushedAt": zero})
    put_snapshot(store, made)
    return store, made


def whole(store: Path, made: Made) -> None:
    """Nothing visible under a digest or a tag is anything but what it should be."""
    for name, raw in tree(store).items():
        if name.startswith("blobs/sha256/") and "/.epoch-oci" not in name:
            assert Digest.of(raw).hex == Path(name).name
        if name == "manifests/big/v1.json":
            assert raw == made.raw
            assert all((store / "blobs/sha256" / blob).is_file() for blob in made.blobs)


def test_a_push_that_is_killed_leaves_no_tag_and_goes_on(live_registry, repo_name, big):
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    rng = random.Random(5)
    words = ("push", made.key, target, "--store", store, "-q")
    for _ in range(4):
        killed = kill_at(rng.uniform(0.05, 0.6), *words)
        code, said = finish(start_cli("verify", target, "--fast", "-q"))
        assert code == 0 or (code == 5 and killed == -signal.SIGKILL), said
    assert finish(start_cli(*words))[0] == 0
    assert finish(start_cli("verify", target, "-q"))[0] == 0


def test_the_chunked_form_survives_kills_on_its_way_there_and_back(live_registry, repo_name, tmp_path):
    """Two versions, pushed and pulled, each killed again and again: no tag and no file before all of it is right."""
    rng = random.Random(7)
    for tag in ("v1", "v2"):
        raw = random.Random("same").randbytes(BIG // 2) + random.Random(tag).randbytes(BIG // 2)
        made = Made(SnapshotKey("big", tag), b"", {Digest.of(raw).hex: raw})
        row = {"digest": Digest.of(raw).hex, "size": len(raw), "filename": "memory-ranges"}
        zero = "0001-01-01T00:00:00Z"
        value = {"schemaVersion": 1, "name": "big", "tag": tag, "snapshotId": "9f3c1a7be20d4c55", "layers": [row]}
        made.raw = gojson.dumps({**value, "totalSize": len(raw), "createdAt": zero, "pushedAt": zero})
        put_snapshot(tmp_path / "store", made)
        target = f"{live_registry.address}/{repo_name}:{tag}"
        push = ("push", made.key, target, "--store", tmp_path / "store", "--chunked", "-q")
        for _ in range(2):
            kill_at(rng.uniform(0.1, 0.7), *push)
            assert finish(start_cli("verify", target, "--fast", "-q"))[0] in (0, 5)
        code, said = finish(start_cli(*push))
        assert code == 0, said
        pull = ("pull", target, "--store", tmp_path / "copy", "-q")
        for _ in range(2):
            kill_at(rng.uniform(0.1, 0.7), *pull)
            assert right_names(tmp_path / "copy")
        code, said = finish(start_cli(*pull))
        assert code == 0, said
        assert tree(tmp_path / "copy")[f"manifests/big/{tag}.json"] == made.raw
        assert tree(tmp_path / "copy")[f"blobs/sha256/{Digest.of(raw).hex}"] == raw


def right_names(store: Path) -> bool:
    """Whether every visible blob is what it is called."""
    files = tree(store).items() if store.exists() else ()
    blobs = [(Path(name).name, raw) for name, raw in files if name.startswith("blobs/") and "/.epoch-oci" not in name]
    return all(Digest.of(raw).hex == name for name, raw in blobs)


def test_a_line_cut_in_the_middle_of_a_blob_costs_nothing_where_the_registry_says_how_far_it_got(
    live_registry, repo_name, big, proxy
):
    store, made = big
    cut = proxy(live_registry, Cut("up", 40 << 20, times=2))
    target = f"{cut.address}/{repo_name}:v1"
    assert finish(start_cli("push", made.key, target, "--store", store, "-q", "--jobs", 1))[0] == 0
    assert finish(start_cli("verify", target, "-q"))[0] == 0
    if live_registry.kind == "distribution-3":
        assert cut.bytes_up < (2 * BIG) + (1 << 20)


def test_a_pull_that_is_killed_shows_nothing_half_and_goes_on(live_registry, repo_name, big, tmp_path):
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    assert finish(start_cli("push", made.key, target, "--store", store, "-q"))[0] == 0
    rng = random.Random(6)
    words = ("pull", target, "--store", tmp_path / "copy", "-q")
    for _ in range(4):
        kill_at(rng.uniform(0.05, 0.6), *words)
        whole(tmp_path / "copy", made)
    assert finish(start_cli(*words))[0] == 0
    after = tree(tmp_path / "copy")
    del after["catalog.json"]
    assert after == tree(store)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_pull_says_so_within_seconds(live_registry, repo_name, big, tmp_path, number, code):
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    assert finish(start_cli("push", made.key, target, "--store", store, "-q"))[0] == 0
    process = start_cli("pull", target, "-o", tmp_path / "files", "-q")
    part = tmp_path / "files"
    until(lambda: process.poll() is not None or (part.is_dir() and any(part.iterdir())))
    process.send_signal(number)
    ended, said = finish(process)
    assert ended in (code, 0)  # 0: it was through before the signal came
    if ended:
        assert said.startswith("epoch-oci: INTERRUPTED: ") and said.count("\n") == 1
    assert finish(start_cli("pull", target, "-o", part, "-q"))[0] == 0
    assert sorted(path.name for path in part.iterdir()) == ["memory-ranges", "overlay.qcow2"]


def test_two_pulls_at_once_both_succeed(live_registry, repo_name, big, tmp_path):
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    assert finish(start_cli("push", made.key, target, "--store", store, "-q"))[0] == 0
    running = [start_cli("pull", target, "--store", tmp_path / "copy", "-q") for _ in range(3)]
    assert [finish(process)[0] for process in running] == [0, 0, 0]
    after = tree(tmp_path / "copy")
    del after["catalog.json"]
    assert after == tree(store)


def test_two_pushes_of_one_tag_leave_one_whole_artifact(live_registry, repo_name, big):
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    words = ("push", made.key, target, "--store", store, "-q", "--annotation")
    running = [start_cli(*words, f"org.example.who={who}") for who in range(3)]
    codes = sorted(finish(process)[0] for process in running)
    assert codes[0] == 0 and set(codes) <= {0, 9}
    assert finish(start_cli("verify", target, "--round-trip", "-q"))[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_said_and_nothing_half_is_left(live_registry, repo_name, big, tmp_path):
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    assert finish(start_cli("push", made.key, target, "--store", store, "-q"))[0] == 0
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        for words in (("--store", disk / "store"), ("-o", disk / "files")):
            code, said = finish(start_cli("pull", target, *words, "-q"))
            assert code == 7 and said.startswith("epoch-oci: IO: "), said
        whole(disk / "store", made)
        assert not (disk / "store/manifests").exists()
        assert not list((disk / "files").glob("*")) if (disk / "files").exists() else True
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
