"""`sync` on Dask: real worker processes, one of them killed, and no secret on the way."""

import contextlib
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import combinations
from queue import Queue

import pytest
from cli_runner import command, environment, run_fresh
from registry_room import PASSWORD, USER
from snapshots import noise, put_snapshot, tree
from support.faults import Exchange, Fault, Throttle
from support.net import hold
from support.proxy import FaultProxy
from support.registry_auth import BasicAuth
from support.waiting import until
from test_sync import BASE, small, uploads, without_catalog

from epoch_oci import __version__, errors
from epoch_oci.bulk.ration import Rationed, Rations, portion
from epoch_oci.bulk.work import BlobTask, Done, SnapshotTask
from epoch_oci.bulk.worker import Words, heard_of, told_of
from epoch_oci.cli.session import connection_here
from epoch_oci.events import Event
from epoch_oci.oci.digest import Digest
from epoch_oci.transfer.throttle import BURST_SECONDS

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.xdist_group("dask"), pytest.mark.timeout(600)]


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
    fill(tmp_path / "store", 40, unique=100_000)
    slowly = ("--limit-rate", "1M")
    words = command("sync", "store", f"{registry.address}/m", "--workers", "2", *slowly, "--format", "json")
    running = subprocess.Popen(
        words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        victim = worker_of(running.pid, lambda: registry.recording.count("PUT", "/manifests/") >= 5)
        os.kill(victim, signal.SIGKILL)
        out, err = running.communicate(timeout=250)
    finally:
        running.kill()
    assert running.returncode == 0, err
    assert json.loads(out)["counts"]["synced"] == 40
    for number in range(40):
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


def test_a_registry_that_asks_one_worker_to_wait_is_left_alone_by_all(tmp_path, fake_registry):
    registry = fake_registry()
    for number in range(16):
        put_snapshot(tmp_path / "store", small(f"bot{number}", "v1", base=noise(f"base {number}", 10_000)))
    registry.fault("POST", "/uploads/", Throttle(4), first=1)
    words = ("sync", "store", f"{registry.address}/m", "--workers", 2, "--jobs", 2, "--progress", "json")
    code, report, err = run(*words, cwd=tmp_path)
    assert code == 0 and report["counts"]["synced"] == 16, err
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    [waits] = [event for event in events if event["event"] == "wait"]  # it is said here, and by whom it was asked
    assert waits["seconds"] == 4 and waits["registry"] == registry.address
    asked = next(item.at for item in registry.recording.find("POST", "/uploads/") if item.status == 429)
    published = [item.at for item in registry.recording.find("PUT", "/manifests/")]
    # What the other one had under way, and perhaps some that it began before it could hear of it.
    assert sum(asked <= at < asked + 3.5 for at in published) <= 8


class Dask:
    """A scheduler and its workers as they are started on a cluster, each a process of its own."""

    def __init__(self, directory, env: dict | None = None) -> None:
        self.directory, self.env = directory, {**environment(), **(env or {})}
        self._held = hold()
        self.port = self._held.getsockname()[1]
        self.scheduler: subprocess.Popen | None = None
        self.workers: list[subprocess.Popen] = []

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> "Dask":
        self.start_scheduler()
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.scheduler, *self.workers):
            if process is not None:
                process.kill()
                process.wait()
        self._held.close()

    def _start(self, *words: str, env: dict | None = None) -> subprocess.Popen:
        log = (self.directory / "dask.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**self.env, **(env or {})},
            )

    def start_scheduler(self) -> None:
        where = ("--host", "127.0.0.1", "--port", str(self.port))
        self.scheduler = self._start("distributed.cli.dask_scheduler", *where, "--no-dashboard", "--no-show")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.05)
        raise AssertionError((self.directory / "dask.log").read_text())

    def start_worker(self, env: dict | None = None) -> None:
        """One more, of which the scheduler knows when this returns: a run that finds no worker ends at once."""
        words = ("--no-nanny", "--no-dashboard", "--nthreads", "4", "--host", "127.0.0.1", "--death-timeout", "60")
        self.workers.append(self._start("distributed.cli.dask_worker", self.address, *words, env=env))
        with distributed.Client(self.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=100)

    def restart(self) -> None:
        """As a machine that comes up again: what ran on it is gone without a word."""
        for process in (self.scheduler, *self.workers):
            assert process is not None
            process.kill()
            process.wait()
        self.workers.clear()
        self.start_scheduler()
        self.start_worker()


def test_a_scheduler_that_restarts_and_a_client_that_is_killed_cost_what_was_under_way(tmp_path, fake_registry):
    registry = fake_registry()
    fill(tmp_path / "store", 40, unique=100_000)

    def through() -> int:
        return registry.recording.count("PUT", "/manifests/")

    with Dask(tmp_path) as dask:
        dask.start_worker()
        words = command("sync", "store", f"{registry.address}/m", "--scheduler", dask.address, "--format", "json")
        words += ["--limit-rate", "1M"]
        for act in (lambda running: running.kill(), lambda running: dask.restart(), None):
            running = subprocess.Popen(
                words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            try:
                before, deadline = through(), time.monotonic() + 100
                while act is not None and through() < before + 5 and time.monotonic() < deadline:
                    assert running.poll() is None, running.communicate()
                    time.sleep(0.02)
                if act is not None:
                    act(running)
                out, err = running.communicate(timeout=250)
            finally:
                running.kill()
            if running.returncode == -signal.SIGKILL:
                continue
            assert running.returncode == 0, err
            report = json.loads(out)
            assert report["counts"]["failed"] == 0 and "Traceback" not in err and "distributed" not in err
        assert report["counts"] == {**report["counts"], "there": 40, "synced": 0}
    # Each of the two cost what was under way, and nothing was tagged twice.
    assert uploads(registry, BASE) <= 3 and through() <= 40 + 2 * 4
    code, _, err = run("sync", f"{registry.address}/m", "second", cwd=tmp_path)
    assert code == 0, err
    assert without_catalog(tree(tmp_path / "second")) == tree(tmp_path / "store")


def test_a_connection_to_the_scheduler_that_is_cut_again_and_again_costs_what_was_under_way(tmp_path, fake_registry):
    registry = fake_registry()
    fill(tmp_path / "store", 30, unique=100_000)

    def through() -> int:
        return registry.recording.count("PUT", "/manifests/")

    with Dask(tmp_path) as dask, FaultProxy(("127.0.0.1", dask.port)) as line, ThreadPoolExecutor(1) as waiting:
        dask.start_worker()
        words = command("sync", "store", f"{registry.address}/m", "--scheduler", f"tcp://{line.address}")
        words += ["--format", "json", "--progress", "json", "--limit-rate", "1M"]
        running = subprocess.Popen(
            words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        cuts, before = 0, 0
        try:
            outcome = waiting.submit(running.communicate, timeout=400)
            while not outcome.done():
                # Many at once: whatever is done to go on meets a connection that ends meanwhile.
                if through() >= before + 4:
                    before = through()
                    for _ in range(40):
                        cuts += line.drop_connections()
                        time.sleep(0.02)
                time.sleep(0.02)
            out, err = outcome.result()
        finally:
            running.kill()
    assert running.returncode == 0 and "Traceback" not in err and "distributed" not in err, err
    assert json.loads(out)["counts"] == {**json.loads(out)["counts"], "synced": 30, "failed": 0} and cuts >= 10
    # What workers tell is heard by each new connection as well; what they said while there was none is lost.
    events = [json.loads(text) for text in err.splitlines() if text.startswith("{")]
    assert len({event["snapshot"] for event in events if event["event"] == "blob-done"}) >= 15


def test_what_an_interrupted_sync_had_under_way_is_called_off_and_not_begun_again(tmp_path, fake_registry):
    registry = fake_registry()
    fill(tmp_path / "store", 40, unique=100_000)

    def through() -> int:
        return registry.recording.count("PUT", "/manifests/")

    with Dask(tmp_path) as dask:
        dask.start_worker()
        words = command("sync", "store", f"{registry.address}/m", "--scheduler", dask.address, "--limit-rate", "1M")
        running = subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
        try:
            until(lambda: through() >= 5)
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=120)
        finally:
            running.kill()
        assert running.returncode == 130 and "Traceback" not in err and "lost" not in err, err
        with distributed.Client(dask.address, timeout=60, set_as_default=False) as client:
            until(lambda: not any(client.processing().values()))
    assert through() < 40


@pytest.mark.long
def test_a_scheduler_that_does_not_come_back_ends_the_sync_once_and_not_once_for_each_piece(tmp_path, fake_registry):
    registry = fake_registry()
    fill(tmp_path / "store", 40, unique=100_000)
    with Dask(tmp_path) as dask:
        dask.start_worker()
        words = command("sync", "store", f"{registry.address}/m", "--scheduler", dask.address, "--limit-rate", "1M")
        running = subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
        try:
            until(lambda: registry.recording.count("PUT", "/manifests/") >= 5)
            dask.scheduler.kill()
            # Four pieces are under way: a minute for each would be too long.
            _, err = running.communicate(timeout=150)
        finally:
            running.kill()
    assert running.returncode == 10 and "Traceback" not in err, err
    assert "the cluster lost the worker or the scheduler" in err and "not tried" in err


def test_workers_with_another_version_are_named(tmp_path):
    fill(tmp_path / "store", 1)
    (tmp_path / "older" / "epoch_oci").mkdir(parents=True)
    (tmp_path / "older" / "epoch_oci" / "__init__.py").write_text('__version__ = "0.0.9"\n')
    (tmp_path / "lacking" / "epoch_oci").mkdir(parents=True)
    (tmp_path / "lacking" / "epoch_oci" / "__init__.py").write_text("raise ImportError\n")
    with Dask(tmp_path) as dask:
        for place in ("older", "lacking"):
            dask.start_worker(env={"PYTHONPATH": str(tmp_path / place)})
        done = run_fresh("sync", "store", "second", "--scheduler", dask.address, cwd=tmp_path)
    assert done.code == 2 and f"this is epoch-oci {__version__}, and " in done.error
    assert re.search(r"tcp://127.0.0.1:\d+ has 0\.0\.9\b", done.error)
    assert re.search(r"tcp://127.0.0.1:\d+ has none\b", done.error)
    assert "install the same version" in done.error and not (tmp_path / "second" / "manifests").exists()


def test_what_is_secret_on_a_worker_stays_there(tmp_path):
    """Only it knows: this process could not take it out of what comes back, and the scheduler keeps that."""
    fill(tmp_path / "store", 1)
    missing = small("bot0", "v1").blobs
    (digest,) = [name for name, raw in missing.items() if len(raw) == 5_000]
    (tmp_path / "store" / "blobs" / "sha256" / digest).unlink()
    with Dask(tmp_path) as dask:
        dask.start_worker(env={"SOME_TOKEN": digest})
        code, report, err = run("sync", "store", "second", "--scheduler", dask.address, cwd=tmp_path)
        with distributed.Client(dask.address, timeout=60, set_as_default=False) as client:
            kept = repr(client.get_events())
    assert code == 10 and [row["error"]["exit"] for row in report["snapshots"]] == [5]
    assert digest not in json.dumps(report) + err + kept + (tmp_path / "dask.log").read_text()


class Gate(Fault):
    """Whoever comes waits until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def before(self, exchange: Exchange) -> None:
        exchange.fire()
        self.reached.set()
        self.opened.wait(150)


def test_a_worker_that_comes_late_is_asked_before_its_first_piece(tmp_path, fake_registry):
    """It was not there for the preflight; a version or an account that it lacks is nobody's failed snapshot."""
    registry = fake_registry(auth=BasicAuth())
    fill(tmp_path / "store", 40)
    (tmp_path / "older" / "epoch_oci").mkdir(parents=True)
    (tmp_path / "older" / "epoch_oci" / "__init__.py").write_text('__version__ = "0.0.9"\n')
    account = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}
    with Dask(tmp_path) as dask:
        dask.start_worker(env=account)
        registry.fault("PUT", "/manifests/", gate := Gate())
        words = ("sync", "store", f"{registry.address}/m", "--scheduler", dask.address)
        running = subprocess.Popen(
            command(*words, "--format", "json"), cwd=tmp_path, env=environment(account), stdout=-1, stderr=-1, text=True
        )
        try:
            assert gate.reached.wait(120), running.communicate()  # the only worker has its hands full
            dask.start_worker(env={"PYTHONPATH": str(tmp_path / "older")})
            dask.start_worker()
            gate.opened.set()
            out, err = running.communicate(timeout=150)
        finally:
            running.kill()
    assert running.returncode == 0, err
    assert json.loads(out)["counts"]["synced"] == 40
    refused = [line for line in err.splitlines() if "is given nothing more" in line]
    assert len(refused) == 2 and any("has epoch-oci 0.0.9" in line for line in refused), err
    assert any("cannot do its part: AUTH" in line for line in refused) and PASSWORD not in err


def test_the_rate_is_one_for_all_and_what_a_worker_does_not_use_another_one_has():
    portions: Queue[int] = Queue()
    rate = 32 * 10_000
    busy, idle = Rationed(rate, portions), Rationed(rate, portions)
    for _ in range(9):
        portions.put(portion(rate))
    going = threading.Event()
    assert all(busy.take(10_000, going) for _ in range(8)) and portions.qsize() == 1
    assert idle.take(1_000, going) and idle.take(9_000, going) and portions.qsize() == 0
    going.set()
    assert not idle.take(1, going)


def test_no_more_than_the_rate_is_handed_out():
    class Taken:
        def __init__(self) -> None:
            self.at: list[float] = []

        def put(self, size: int, timeout: float) -> None:
            self.at.append(time.monotonic())
            if len(self.at) == 8:
                time.sleep(0.5)  # nobody took any: no more than a burst of it is made up for
            if len(self.at) == 48:
                rations.close()

    taken = Taken()
    rations = Rations(lambda: taken, 32 * 10_000).start()
    rations._thread.join(60)
    assert len(taken.at) == 48
    for first, last in combinations(range(48), 2):
        assert last - first <= (taken.at[last] - taken.at[first] + BURST_SECONDS) * 32 + 1


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


@pytest.mark.long
def test_what_answers_and_is_no_scheduler_is_not_waited_for(tmp_path, fake_registry):
    """Dask's own limit does not hold there; a dashboard's port is easily taken for the scheduler's."""
    fill(tmp_path / "store", 1)
    done = run_fresh("sync", "store", "second", "--scheduler", f"tcp://{fake_registry().address}", cwd=tmp_path)
    assert done.code == 6 and "no Dask scheduler" in done.error


def test_all_that_an_event_says_is_heard_from_a_worker():
    said = {"digest": Digest.of(b"x"), "event": "phase", "action": "send"}
    event = Event(**{field.name: said.get(field.name, number) for number, field in enumerate(fields(Event), 1)})
    assert heard_of(json.loads(json.dumps({**told_of(event), "stamp": 1.5}))) == event


def test_what_travels_is_words_and_digests():
    """Tasks and errors survive the way there and back, and there is nothing in them that is secret."""
    made = small("bot", "v1")
    from epoch_oci.bulk.sides import Entry

    entry = Entry("bot", "v1", "bot", "bot:v1")
    words = Words(
        source="store", target="host.example/m", repositories=(), connect=connection_here, options=(), run="r"
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
