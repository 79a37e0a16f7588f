"""Several at the same thing, and disks that are too small."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from long_support import MIB, Watched, in_files, in_layout, in_registry, in_store, put_big, small_disk
from snapshots import Made, make_snapshot, put_snapshot
from support.proxy import Bandwidth

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROUNDS = 6
EACH = 4


def start(*words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "epoch_oci", *map(str, words), "--format", "json", "-q"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(running: list[subprocess.Popen[bytes]]) -> tuple[list[int], list[dict]]:
    """How they ended, and the reports of those that succeeded."""
    said = [process.communicate(timeout=200) for process in running]
    codes = [process.returncode for process in running]
    assert set(codes) <= {0, 9}, (codes, [err for _, err in said])
    return codes, [json.loads(out) for (out, _), code in zip(said, codes, strict=True) if code == 0]


def run(*words: object) -> dict:
    return finish([start(*words)])[1][0]


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Iterator[tuple[Path, Made]]:
    store = tmp_path_factory.mktemp("big")
    yield store, put_big(store, 48, 48)


@pytest.fixture(autouse=True)
def tidy(tmp_path) -> Iterator[None]:
    """Give the disk back: pytest would keep it all."""
    yield
    shutil.rmtree(tmp_path)


# Several at once


@pytest.mark.parametrize("end", ["store", "files"])
def test_many_pull_the_same_snapshot(live_registry, repo_name, tmp_path, big, end):
    """All succeed, and the bytes come once: whoever is second waits for the first."""
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    size = run("push", made.key, target, "--store", store)["size"]
    for number in range(ROUNDS):
        copy = tmp_path / f"copy-{number}"
        codes, reports = finish(
            [start("pull", target, *(("--store",) if end == "store" else ("-o",)), copy) for _ in range(EACH)]
        )
        assert codes == [0] * EACH
        assert in_store(copy, made) if end == "store" else in_files(copy, made)
        assert sum(report["bytesTransferred"] for report in reports) <= 1.1 * size
        assert not [path for path in copy.rglob(".*") if path.is_file() and path.suffix in (".part", ".tmp", ".done")]


def test_many_push_the_same_artifact_to_one_tag(live_registry, repo_name, big):
    store, made = big
    for number in range(ROUNDS):
        repository = f"{repo_name}/n{number}"
        target = f"{live_registry.address}/{repository}:v1"
        codes, reports = finish([start("push", made.key, target, "--store", store) for _ in range(EACH)])
        assert codes == [0] * EACH and len({report["digest"] for report in reports}) == 1
        assert in_registry(live_registry, repository, "v1")
        assert not run("push", made.key, target, "--store", store)["bytesTransferred"]


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["unforced", "forced"])
def test_many_push_different_artifacts_to_one_tag(live_registry, repo_name, tmp_path, force):
    """One of them is there in the end, whole: without --force the first, and what the losers say is CONFLICT."""
    store = tmp_path / "store"
    for number in range(EACH):
        put_big(store, 6, 6, name=f"big{number}", label=str(number))
    for number in range(ROUNDS):
        repository = f"{repo_name}/n{number}"
        target = f"{live_registry.address}/{repository}:v1"
        codes, reports = finish([start("push", f"big{n}:v1", target, "--store", store, *force) for n in range(EACH)])
        assert 0 in codes and (not force or codes == [0] * EACH)
        assert in_registry(live_registry, repository, "v1")
        with live_registry.client() as client:
            winner = client.manifest(repository, "v1").header("Docker-Content-Digest")
        assert winner in {report["digest"] for report in reports}
        run("pull", f"{target}", "--store", tmp_path / f"copy-{number}")


@pytest.mark.parametrize("same", [True, False])
def test_many_push_into_one_layout(tmp_path, big, same):
    """No tag of another is lost from the index."""
    store, made = big
    small = tmp_path / "store"
    for number in range(EACH):
        put_snapshot(small, make_snapshot(tag=f"v{number}"))
    for number in range(ROUNDS):
        layout = tmp_path / f"layout-{number}"
        if same:
            running = [start("push", made.key, f"oci:{layout}:v0", "--store", store) for _ in range(EACH)]
        else:
            running = [start("push", f"team/bot:v{n}", f"oci:{layout}", "--store", small) for n in range(EACH)]
        codes, _ = finish(running)
        assert codes == [0] * EACH
        assert all(in_layout(layout, f"v{n}") for n in range(1 if same else EACH))


def test_many_pull_different_snapshots_into_one_store(live_registry, repo_name, tmp_path):
    """The catalog of the store lists all of them."""
    store = tmp_path / "store"
    for number in range(EACH):
        put_snapshot(store, make_snapshot(tag=f"v{number}"))
        run("push", f"team/bot:v{number}", f"{live_registry.address}/{repo_name}", "--store", store)
    for number in range(ROUNDS):
        copy = tmp_path / f"copy-{number}"
        codes, _ = finish(
            [start("pull", f"{live_registry.address}/{repo_name}:v{n}", "--store", copy) for n in range(EACH)]
        )
        assert codes == [0] * EACH
        tags = json.loads((copy / "catalog.json").read_bytes())["repositories"]["team/bot"]["tags"]
        assert tags == {f"v{n}": f"manifests/team/bot/v{n}.json" for n in range(EACH)}


# Small disks

small_disks = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
SIZES = ["1m", "24m", "47m", "50m", "72m", "95m", "96m"]


@small_disks
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["store", "files", "layout"])
def test_a_disk_that_is_too_small(live_registry, repo_name, tmp_path, big, way, size):
    """Exit 7 and nothing half; with more room the same command goes on from what was kept."""
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    run("push", made.key, target, "--store", store)
    with small_disk(tmp_path / "disk", f"size={size}") as disk:
        (disk / "place").mkdir()
        words, complete = filling(way, target, store, made, disk / "place")
        with Watched(*words) as watched:
            watched.finish(7, *((0,) if size == "96m" else ()))
        if watched.process.returncode:
            assert any(line.startswith("epoch-oci: IO: ") for line in watched.said), watched.said
        assert complete() == (watched.process.returncode == 0)
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        run(*words)
        assert complete()


@small_disks
@pytest.mark.parametrize("way", ["store", "files", "layout"])
def test_a_disk_that_somebody_else_fills(live_registry, repo_name, proxy, tmp_path, big, way):
    """There was room when it began."""
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    run("push", made.key, target, "--store", store)
    proxy = proxy(live_registry, Bandwidth("down", 20 * MIB)) if way != "layout" else live_registry
    for free in (0, 4, 20) if way != "layout" else (0, 1):
        with small_disk(tmp_path / f"disk-{free}", "size=160m") as disk:
            (disk / "place").mkdir()
            words, complete = filling(way, f"{proxy.address}/{repo_name}:v1", store, made, disk / "place")
            for _ in range(5):
                with Watched(*words) as watched:
                    watched.until(1)
                    fill(disk, free * MIB)
                    watched.finish(0, 7)
                code = watched.process.returncode
                if code != 0:
                    break
                # A copy on this machine may be through before its disk is full: that tried nothing.
                (disk / "filler").unlink()
                shutil.rmtree(disk / "place")
                (disk / "place").mkdir()
            assert code == 7, watched.said
            assert not complete()
            (disk / "filler").unlink()
            run(*words)
            assert complete()


@small_disks
@pytest.mark.parametrize("way", ["store", "files", "layout"])
def test_a_disk_without_room_for_another_file(live_registry, repo_name, tmp_path, big, way):
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    run("push", made.key, target, "--store", store)
    for inodes in (2, 3, 4, 5, 7):
        with small_disk(tmp_path / f"disk-{inodes}", f"size=200m,nr_inodes={inodes}") as disk:
            (disk / "place").mkdir()
            words, complete = filling(way, target, store, made, disk / "place")
            with Watched(*words) as watched:
                watched.finish(0, 7)
            code = watched.process.returncode
            assert complete() == (code == 0), watched.said
            assert code or inodes > 5
            subprocess.run(["mount", "-o", "remount,nr_inodes=100", disk], check=True)
            run(*words)
            assert complete()


def filling(way: str, target: str, store: Path, made: Made, place: Path) -> tuple[list[object], object]:
    """The command that fills a disk, and whether it is complete; raises for what is half."""
    match way:
        case "store":
            return ["pull", target, "--store", place / "s"], lambda: in_store(place / "s", made)
        case "files":
            return ["pull", target, "-o", place / "f"], lambda: in_files(place / "f", made)
        case _:
            return ["push", made.key, f"oci:{place / 'l'}", "--store", store], lambda: in_layout(place / "l", "v1")


def fill(disk: Path, left: int) -> None:
    """Use the disk up but for ``left`` bytes."""
    with (disk / "filler").open("wb") as file:
        free = os.statvfs(disk)
        size = max(0, free.f_bavail * free.f_frsize - left)
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            assert error.errno == errno.ENOSPC
