"""Processes and registries that die under a transfer, answers that are lost at each step, and secrets meanwhile."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from cli_runner import command, environment
from long_support import MIB, Watched, Way, in_files, in_layout, in_registry, in_store, put_big, run
from long_wire import BLOB, MANIFESTS, SHAPES, TOKEN, UPLOADS, Wire
from snapshots import Made, make_snapshot, put_snapshot
from support.canary import shows
from support.faults import DropResponse, ExpireTokens, Respond, Throttle
from support.proxy import Stall
from support.registry_auth import PASSWORD, USER, BearerAuth
from support.waiting import until


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> tuple[Path, Made]:
    store = tmp_path_factory.mktemp("big")
    return store, put_big(store, 32, 16)


@pytest.fixture
def wire(tmp_path, fake_registry) -> Wire:
    return Wire(tmp_path, fake_registry(), make_snapshot())


# A registry that is killed and comes back with the same storage


def test_a_push_outlives_the_registry(live_factory, proxy, big):
    store, made = big
    registry = live_factory()
    line = proxy(registry, held := Stall("up", 6 * MIB, times=1))
    with Watched("push", made.key, f"{line.address}/t/big:v1", "--store", store) as watched:
        until(lambda: held.fired)
        registry.restart(lose_sessions=True)
        line.drop_connections()
        assert watched.finish()["retries"]
    assert in_registry(registry, "t/big", "v1")


def test_a_pull_outlives_the_registry(live_factory, proxy, tmp_path, big):
    store, made = big
    registry = live_factory()
    target = f"{registry.address}/t/big:v1"
    with Watched("push", made.key, target, "--store", store) as watched:
        watched.finish()
    line = proxy(registry, held := Stall("down", 6 * MIB, times=1))
    with Watched("pull", f"{line.address}/t/big:v1", "--store", tmp_path / "copy") as watched:
        until(lambda: held.fired)
        registry.restart()
        line.drop_connections()
        assert watched.finish()["retries"]
    assert in_store(tmp_path / "copy", made)


# Killed at random


@pytest.fixture
def numbers() -> Iterator[int]:
    return count()


def test_a_push_to_a_layout_that_is_killed(tmp_path, big, numbers):
    store, made = big

    def begin():
        layout = tmp_path / f"layout-{next(numbers)}"
        return ["push", made.key, f"oci:{layout}", "--store", store], lambda: in_layout(layout, "v1")

    Way(begin).kill_often("quick layout", 3)


def test_a_pull_of_files_that_is_killed(tmp_path, big, numbers):
    store, made = big
    run("push", made.key, f"oci:{tmp_path / 'layout'}", "--store", store, "--part-size", "8MiB")

    def begin():
        files = tmp_path / f"files-{next(numbers)}"
        return ["pull", f"oci:{tmp_path / 'layout'}", "-o", files], lambda: in_files(files, made)

    Way(begin).kill_often("quick files", 3)


def test_a_push_in_chunks_that_is_killed(tmp_path, big, numbers):
    store, made = big

    def begin():
        layout = tmp_path / f"layout-{next(numbers)}"
        return ["push", made.key, f"oci:{layout}", "--store", store, "--chunked"], lambda: in_layout(layout, "v1")

    Way(begin).kill_often("quick chunked layout", 3)


@pytest.mark.parametrize("end", ["store", "files"])
def test_a_pull_of_chunks_that_is_killed(tmp_path, big, numbers, end):
    store, made = big
    run("push", made.key, f"oci:{tmp_path / 'layout'}", "--store", store, "--chunked")

    def begin():
        copy = tmp_path / f"copy-{next(numbers)}"
        words = ["pull", f"oci:{tmp_path / 'layout'}", "-o" if end == "files" else "--store", copy]
        return words, lambda: (in_files if end == "files" else in_store)(copy, made)

    Way(begin).kill_often(f"quick chunked {end}", 3)


def test_two_pushes_of_one_artifact_to_one_tag_both_succeed(live_registry, repo_name, big):
    store, made = big
    words = ("push", made.key, f"{live_registry.address}/{repo_name}:v1", "--store", store)
    with Watched(*words) as one, Watched(*words) as other:
        assert one.finish()["digest"] == other.finish()["digest"]
    assert in_registry(live_registry, repo_name, "v1")


# Each step

PUSHED = {"look": ("HEAD", BLOB), "open": ("POST", UPLOADS), "send": ("PUT|PATCH", UPLOADS), "tag": ("PUT", MANIFESTS)}
PULLED = {"manifest": ("GET", MANIFESTS), "blob": ("GET", BLOB)}
UNLUCKY = {"lost": DropResponse, "slow": lambda: Throttle(0), "gone": lambda: Respond(502)}


@pytest.mark.parametrize("kind", list(UNLUCKY))
@pytest.mark.parametrize("step", list(PUSHED))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_push_outlives_a_failure_of_each_step(wire, shape, step, kind):
    rule = wire.registry.fault(*PUSHED[step], UNLUCKY[kind](), first=2)
    name = wire.push(shape=shape)
    wire.arrived(name)
    wire.registry.assert_fired(rule)
    largest = max(map(len, wire.made.blobs.values()))
    whole = sum(map(len, wire.made.blobs.values())) + len(wire.made.raw)
    assert wire.sent(name) <= whole + (2 * largest if step == "send" else 0)


@pytest.mark.parametrize("kind", list(UNLUCKY))
@pytest.mark.parametrize("step", list(PULLED))
def test_a_pull_outlives_a_failure_of_each_step(wire, step, kind):
    name = wire.push()
    wire.registry.fault(*PULLED[step], UNLUCKY[kind](), first=2)
    wire.pull(name)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_tokens_of_three_requests_last(tmp_path, fake_registry, shape):
    registry = fake_registry(auth=BearerAuth(uses=3))
    wire = Wire(tmp_path, registry, make_snapshot(), login=True)
    name = wire.push(shape=shape)
    wire.arrived(name)
    wire.pull(name)
    refused = sum(entry.status == 401 for entry in registry.recording)
    assert refused and registry.recording.count("*", TOKEN) <= refused + 2


# Secrets

HELPER = b"docker-credential-canary"


class Session:
    """Command lines of all processes of a session, looked at all the time; `mark` is there once a helper was seen."""

    def __init__(self, number: int, mark: Path) -> None:
        self.seen: set[bytes] = set()
        self._number, self._mark, self._done = number, mark, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Session":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == self._number:
                        self.seen.add(line := (process / "cmdline").read_bytes())
                        if HELPER in line:
                            self._mark.touch()


@pytest.fixture
def helper(tmp_path, isolated_home) -> dict[str, str]:
    """A credential helper that knows the password and stays until it was seen; the environment in which it is found."""
    program = tmp_path / "bin" / HELPER.decode()
    program.parent.mkdir()
    secret = tmp_path / "bin/secret"
    secret.write_text(json.dumps({"ServerURL": "", "Username": USER, "Secret": PASSWORD}))
    program.write_text(
        f"#!/bin/sh\ncat > /dev/null\nwhile ! [ -e {tmp_path}/seen ]; do sleep 0.02; done\ncat {secret}\n"
    )
    program.chmod(0o755)
    config = isolated_home / ".docker/config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({"credsStore": "canary"}))
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


def test_secrets_are_nowhere_while_it_works_fails_and_dies(tmp_path, fake_registry, helper, isolated_home):
    registry = fake_registry(auth=BearerAuth(uses=4))
    target = f"{registry.address}/acme/bot:v1"
    put_snapshot(tmp_path / "work/store", make_snapshot())
    said: list[bytes] = []
    lines: set[bytes] = set()

    def tried(*words: object, seconds: float | None = None) -> int:
        full = command(*map(str, words), "--jobs", "1", "--debug", "-v", "--progress", "json")
        where = {"cwd": tmp_path / "work", "env": environment(helper), "start_new_session": True}
        with subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **where) as process:
            with Session(process.pid, tmp_path / "seen") as session:
                if seconds is not None:
                    time.sleep(seconds)
                    process.kill()
                said.extend(process.communicate(timeout=60))
            lines.update(session.seen)
            return process.returncode

    assert tried("push", "team/bot:v1", target, "--store", "store", "--part-size", "256KiB") == 0, said[-1].decode()
    assert tried("pull", target, "--store", "copy") == 0
    expired = registry.fault("GET", BLOB, ExpireTokens(), nth=2)
    assert tried("pull", target, "-o", "files") == 0
    denied = registry.fault("GET", MANIFESTS, Respond(403, code="DENIED", message=f"{USER}:{PASSWORD}"))
    assert tried("pull", target, "-o", "other") == 4
    registry.assert_fired(expired, denied)
    registry.clear_faults()
    for seconds in (0.5, 0.7):
        tried("pull", target, "--store", f"killed-{seconds}", seconds=seconds)
    secrets = [PASSWORD, *(grant.token for grant in registry.auth.grants)]
    assert len(secrets) > 5 and any(HELPER in line for line in lines)
    kept = [path for place in (isolated_home, tmp_path / "work") for path in place.rglob("*") if path.is_file()]
    assert any("epoch-oci" in str(path) for path in kept)  # the part digests, if nothing else
    for secret in secrets:
        assert not any(shows(secret, text) for text in (*said, *lines))
        assert not [path for path in kept if shows(secret, path.read_bytes())]
