"""`sync` on Dask: real worker processes, one of them killed, and no secret on the way."""

import json
import os
import pickle
import signal
import subprocess
import time

import pytest
from cli_runner import command, environment, run_fresh
from registry_room import PASSWORD, USER
from snapshots import put_snapshot, tree
from support.registry_auth import BasicAuth
from test_sync import BASE, small, uploads, without_catalog

from epoch_oci import errors
from epoch_oci.bulk.cluster import Reach, Words
from epoch_oci.bulk.work import BlobTask, Done, SnapshotTask
from epoch_oci.cli.session import connection_here

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.xdist_group("dask"), pytest.mark.timeout(240)]


def fill(path, count: int, unique: int = 5_000) -> None:
    for number in range(count):
        put_snapshot(path, small(f"bot{number}", "v1", unique=unique))


def run(*words: object, cwd, env: dict | None = None) -> tuple[int, dict | None, str]:
    done = run_fresh(*words, "--format", "json", cwd=cwd, env=env)
    return done.code, json.loads(done.out) if done.out else None, done.err


def test_workers_of_this_machine_do_all_of_it_once(tmp_path, fake_registry):
    registry = fake_registry()
    fill(tmp_path / "store", 12)
    code, report, err = run(
        "sync", "store", f"{registry.address}/m", "--workers", 2, "--progress", "json", cwd=tmp_path
    )
    assert code == 0, err
    assert report["counts"]["synced"] == 12 and uploads(registry, BASE) == 1
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert {event["snapshot"] for event in events if event["event"] == "snapshot-done"} == {
        f"bot{number}:v1" for number in range(12)
    }
    assert any(event["event"] == "blob-done" and event.get("snapshot") for event in events)
    code, report, err = run("sync", f"{registry.address}/m", "second", "--workers", 2, cwd=tmp_path)
    assert code == 0, err
    assert without_catalog(tree(tmp_path / "second")) == tree(tmp_path / "store")
    assert len(json.loads((tmp_path / "second" / "catalog.json").read_text())["repositories"]) == 12


def test_a_worker_that_is_killed_costs_what_it_had_under_way(tmp_path, fake_registry):
    registry = fake_registry()
    fill(tmp_path / "store", 60, unique=150_000)
    slowly = ("--limit-rate", "1M")
    words = command("sync", "store", f"{registry.address}/m", "--workers", "2", *slowly, "--format", "json")
    running = subprocess.Popen(
        words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        victim = worker_of(running.pid, lambda: registry.recording.count("PUT", "/manifests/") >= 5)
        os.kill(victim, signal.SIGKILL)
        out, err = running.communicate(timeout=200)
    finally:
        running.kill()
    assert running.returncode == 0, err
    assert json.loads(out)["counts"]["synced"] == 60
    for number in range(60):
        assert set(registry.tags(f"m/bot{number}")) == {"v1"}
    code, _, err = run("sync", f"{registry.address}/m", "second", cwd=tmp_path)
    assert code == 0, err
    assert without_catalog(tree(tmp_path / "second")) == tree(tmp_path / "store")


def worker_of(pid: int, ready) -> int:
    """A worker process of the command, once it is in the middle of its work."""
    psutil = pytest.importorskip("psutil")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        children = psutil.Process(pid).children(recursive=True)
        if ready():
            told = {child.pid: " ".join(child.cmdline()) for child in children}
            # With setproctitle a worker calls itself what it is.
            return int(next(pid for pid, words in told.items() if "dask worker" in words or "spawn_main" in words))
        time.sleep(0.05)
    raise AssertionError("it never began")


def test_workers_without_credentials_are_named_before_a_byte_moves(tmp_path, fake_registry):
    """The cluster is somebody else's: what this process may do its workers may not."""
    registry = fake_registry(auth=BasicAuth())
    fill(tmp_path / "store", 2)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        env = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}
        target = f"{registry.address}/m"
        code, _, err = run("sync", "store", target, "--scheduler", cluster.scheduler_address, cwd=tmp_path, env=env)
        assert code == 4 and "1 of 1 workers cannot do their part" in err and "AUTH" in err
        assert registry.recording.count("POST", "/uploads/") == 0
        state = repr(cluster.scheduler.get_events()) + repr(cluster.scheduler.transition_log)
        assert PASSWORD not in state and PASSWORD not in err


def test_a_cluster_that_is_there_is_used(tmp_path):
    fill(tmp_path / "store", 6)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        code, report, err = run("sync", "store", "second", "--scheduler", cluster.scheduler_address, cwd=tmp_path)
    assert code == 0, err
    assert report["counts"]["synced"] == 6
    assert without_catalog(tree(tmp_path / "second")) == tree(tmp_path / "store")


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("--scheduler", "tcp://127.0.0.1:1"), 6, "no Dask scheduler"),
        (("--scheduler", "nowhere"), 2, "--scheduler cannot be nowhere"),
        (("--scheduler", "tcp://x:1", "--workers", "2"), 2, "exclude each other"),
        (("--workers", "2", "--username", "me", "--password-stdin"), 2, "do not travel"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, words, code, problem):
    fill(tmp_path / "store", 1)
    done = run_fresh("sync", "store", "second", *words, cwd=tmp_path)
    assert done.code == code and problem in done.error


def test_what_travels_is_words_and_digests():
    """Tasks and errors survive the way there and back, and there is nothing in them that is secret."""
    made = small("bot", "v1")
    from epoch_oci.bulk.sides import Entry

    entry = Entry("bot", "v1", "bot", "bot:v1")
    words = Words(
        source="store", target="host.example/m", repositories=(), connect=connection_here, reach=Reach(), run="r"
    )
    tasks = [
        BlobTask(made.document.digest, 5, entry, ((entry, made.document.digest),), ("mem", "x")),
        SnapshotTask(entry, entry, made.document.digest, ((made.document.digest, "a"),)),
        Done(digest=made.document.digest, moved=3, warnings=("w",)),
        words,
    ]
    for task in tasks:
        assert pickle.loads(pickle.dumps(task)) == task
    for kind in (errors.ContentError, errors.NetworkError, errors.NotFoundError, errors.PolicyError):
        error = pickle.loads(pickle.dumps(kind("no", object="it", hint="do", code="X")))
        assert type(error) is kind and (error.message, error.object, error.hint, error.code) == ("no", "it", "do", "X")
