"""Killed at random instants, and a registry killed under it: nothing half is visible, the same command gets there."""

import random
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from long_support import (
    MIB,
    SEED,
    Watched,
    Way,
    in_files,
    in_layout,
    in_registry,
    in_store,
    put_big,
    run,
    sha256,
)
from snapshots import Made
from support.live import LiveRegistry
from support.proxy import Bandwidth, FaultProxy

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PARTS = ("--part-size", "8MiB")
CHUNKED = ("--chunked",)


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Iterator[tuple[Path, Made]]:
    store = tmp_path_factory.mktemp("big")
    yield store, put_big(store, 64, 40, 24)


@pytest.fixture(autouse=True)
def tidy(tmp_path, request, repo_name) -> Iterator[None]:
    """Give the disk back: pytest would keep it all, and a registry what broken uploads left."""
    yield
    shutil.rmtree(tmp_path)
    if "live_registry" in request.fixturenames:
        registry = request.getfixturevalue("live_registry")
        for left in (registry.storage / f"docker/registry/v2/repositories/{repo_name}").rglob("_uploads"):
            shutil.rmtree(left)


@pytest.fixture
def numbers() -> Iterator[int]:
    return count()


@pytest.mark.parametrize("parts", [(), PARTS, CHUNKED], ids=["whole", "parts", "chunks"])
def test_a_push_to_a_registry_killed_at_random(live_registry, repo_name, big, numbers, parts):
    store, made = big

    def begin() -> tuple[list[object], Callable[[], bool]]:
        repository = f"{repo_name}/n{next(numbers)}"
        words = ["push", made.key, f"{live_registry.address}/{repository}:v1", "--store", store, *parts]
        return words, lambda: in_registry(live_registry, repository, "v1")

    Way(begin).kill_often(f"push {parts}")
    for number in range(next(numbers)):  # whatever was tagged is right to the last byte
        target = f"{live_registry.address}/{repo_name}/n{number}"
        if in_registry(live_registry, f"{repo_name}/n{number}", "v1"):
            run("verify", f"{target}:v1", "--round-trip")


@pytest.mark.parametrize("parts", [(), PARTS, CHUNKED], ids=["whole", "parts", "chunks"])
def test_a_push_to_a_layout_killed_at_random(tmp_path, big, numbers, parts):
    store, made = big

    def begin() -> tuple[list[object], Callable[[], bool]]:
        layout = tmp_path / f"layout-{next(numbers)}"
        return ["push", made.key, f"oci:{layout}", "--store", store, *parts], lambda: in_layout(layout, "v1")

    Way(begin).kill_often(f"layout {parts}")


@pytest.mark.parametrize("parts", [(), PARTS, CHUNKED], ids=["whole", "parts", "chunks"])
@pytest.mark.parametrize("end", ["store", "files"])
def test_a_pull_from_a_registry_killed_at_random(live_registry, repo_name, tmp_path, big, numbers, parts, end):
    store, made = big
    target = f"{live_registry.address}/{repo_name}:v1"
    run("push", made.key, target, "--store", store, *parts)
    Way(lambda: pulling(target, end, tmp_path / f"copy-{next(numbers)}", made)).kill_often(f"pull {parts} {end}")


@pytest.mark.parametrize("parts", [(), PARTS, CHUNKED], ids=["whole", "parts", "chunks"])
@pytest.mark.parametrize("end", ["store", "files"])
def test_a_pull_from_a_layout_killed_at_random(tmp_path, big, numbers, parts, end):
    store, made = big
    target = f"oci:{tmp_path / 'layout'}"
    run("push", made.key, target, "--store", store, *parts)
    Way(lambda: pulling(target, end, tmp_path / f"copy-{next(numbers)}", made)).kill_often(f"layout {parts} {end}")


def pulling(target: str, end: str, copy: Path, made: Made) -> tuple[list[object], Callable[[], bool]]:
    if end == "store":
        return ["pull", target, "--store", copy], lambda: in_store(copy, made)
    return ["pull", target, "-o", copy], lambda: in_files(copy, made)


# What a kill costs

KILLED_AT = (0.25, 0.45, 0.6, 0.8)


def test_a_killed_push_costs_the_parts_in_flight(live_registry, repo_name, big):
    """Four parts of 8 MiB at a time: nothing that had arrived is sent again."""
    store, made = big
    with FaultProxy(live_registry.address, Bandwidth("up", 30 * MIB)) as proxy:
        target = f"{proxy.address}/{repo_name}:v1"
        size = kill_and_finish("push", made.key, target, "--store", store, *PARTS)
        assert in_registry(live_registry, repo_name, "v1")
        assert proxy.bytes_up - size <= len(KILLED_AT) * 4 * (8 * MIB) + MIB


@pytest.mark.parametrize("parts", [(), ("--part-size", "40MiB")], ids=["whole", "parts"])
@pytest.mark.parametrize("end", ["store", "files"])
def test_a_killed_pull_costs_a_little_of_each_span(live_registry, repo_name, tmp_path, big, parts, end):
    """Whatever the size of a blob: the 8 MiB between two records for each of four spans, and what was under way.

    The last are some MiB in the buffers of the sockets.
    """
    store, made = big
    run("push", made.key, f"{live_registry.address}/{repo_name}:v1", "--store", store, *parts)
    with FaultProxy(live_registry.address, Bandwidth("down", 30 * MIB)) as proxy:
        words, complete = pulling(f"{proxy.address}/{repo_name}:v1", end, tmp_path / "copy", made)
        size = kill_and_finish(*words, look=complete)
        assert complete()
        assert proxy.bytes_down - size <= len(KILLED_AT) * 4 * 14 * MIB


def kill_and_finish(*words: object, look: Callable[[], bool] | None = None) -> int:
    """Kill it wherever KILLED_AT says, then let it finish; the size of it all."""
    for fraction in KILLED_AT:
        with Watched(*words) as watched:
            watched.until(int(fraction * 128 * MIB))
            watched.kill()
        assert look is None or not look()
    with Watched(*words) as watched:
        return watched.finish()["size"]


# A registry that is killed and comes back


@pytest.mark.parametrize("parts", [(), PARTS], ids=["whole", "parts"])
def test_a_push_outlives_the_registry(live_factory, proxy, big, parts):
    store, made = big
    registry = live_factory()
    slow = proxy(registry, Bandwidth("up", 20 * MIB))
    rng = random.Random(f"{SEED}/restart push {parts}")
    for number in range(4):
        repository = f"t/n{number}"
        words = ("push", made.key, f"{slow.address}/{repository}:v1", "--store", store, *parts)
        with Watched(*words) as watched:
            watched.until(rng.randrange(1, 100 * MIB))
            restart(registry, rng.uniform(0, 1.5), lose_sessions=number % 2 == 1)
            report = watched.finish()
        assert report["retries"] and in_registry(registry, repository, "v1")
    stored_right(registry)


@pytest.mark.parametrize("parts", [(), PARTS], ids=["whole", "parts"])
@pytest.mark.parametrize("end", ["store", "files"])
def test_a_pull_outlives_the_registry(live_factory, proxy, tmp_path, big, parts, end):
    store, made = big
    registry = live_factory()
    target = f"{registry.address}/t/big:v1"
    run("push", made.key, target, "--store", store, *parts)
    slow = proxy(registry, Bandwidth("down", 20 * MIB))
    rng = random.Random(f"{SEED}/restart pull {parts} {end}")
    for number in range(3):
        words, complete = pulling(f"{slow.address}/t/big:v1", end, tmp_path / f"copy-{number}", made)
        with Watched(*words) as watched:
            watched.until(rng.randrange(1, 100 * MIB))
            restart(registry, rng.uniform(0, 1.5))
            report = watched.finish()
        assert report["retries"] and complete()


def restart(registry: LiveRegistry, seconds: float, *, lose_sessions: bool = False) -> None:
    """Kill the registry, have it away for a while, and start it on the same port and storage."""
    registry.kill()
    time.sleep(seconds)
    registry.restart(lose_sessions=lose_sessions)


def stored_right(registry: LiveRegistry) -> None:
    """Every stored blob is what it is called."""
    for path in registry.storage.glob("docker/registry/v2/blobs/sha256/*/*/data"):
        assert sha256(path) == path.parent.name
