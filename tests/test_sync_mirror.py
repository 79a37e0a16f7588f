"""`sync --every`: rounds, the health file, metrics, and the end by a signal."""

import json
import re
import shutil
import signal
import urllib.request

import pytest
from cli_runner import Here, start_cli
from snapshots import put_snapshot, tree
from support.waiting import until
from test_sync import small, without_catalog

from epoch_oci.bulk.results import Row, SyncReport
from epoch_oci.bulk.rounds import HealthFile, Metrics, rounds
from epoch_oci.cli.progress import PlainProgress
from epoch_oci.cli.render import round_line
from epoch_oci.errors import NetworkError, UsageError
from epoch_oci.events import Event
from epoch_oci.oci.digest import Digest


def told(**counts: int) -> SyncReport:
    rows = [Row(source="a", target="b", action=action, moved=10) for action, n in counts.items() for _ in range(n)]
    report = SyncReport(source="s", target="t", rows=rows)
    report.bytes_moved = sum(row.moved for row in rows)
    return report


def test_a_round_that_fails_is_followed_by_the_next_one():
    outcomes = iter([told(synced=1), NetworkError("down"), told(there=1)])
    waits: list[float] = []

    def once() -> SyncReport:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    going = rounds(once, 60, sleep=waits.append)
    ended = [next(going) for _ in range(3)]
    assert [item.ok for item in ended] == [True, False, True]
    assert "down" in round_line(ended[1]) and ended[1].to_json()["error"]["code"] == "NETWORK"
    assert len(waits) == 2 and all(59 < wait <= 60 for wait in waits)


def test_what_no_round_will_mend_ends_it():
    def once() -> SyncReport:
        raise UsageError("never")

    with pytest.raises(UsageError):
        next(rounds(once, 1))


def test_the_health_file_is_replaced_whole(tmp_path):
    path = tmp_path / "health.json"
    for ended, _ in zip(rounds(lambda: told(synced=2), 0, sleep=lambda _: None), range(2), strict=False):
        HealthFile(path)(ended)
        value = json.loads(path.read_text())
        assert value["ok"] is True and value["round"] == ended.number and value["counts"]["synced"] == 2
    assert [item.name for item in tmp_path.iterdir()] == ["health.json"]
    assert path.stat().st_mode & 0o777 == 0o644
    # What has a name that a draft might have is somebody's own.
    beside = tmp_path / ".health.json.new"
    beside.write_text("mine")
    HealthFile(path)(ended)
    assert beside.read_text() == "mine"


def test_metrics_are_served(tmp_path):
    metrics = Metrics(":0")
    try:
        metrics(next(rounds(lambda: told(synced=3, there=2), 0)))
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        metrics.close()
    assert 'epoch_oci_sync_snapshots_total{outcome="synced"} 3.0' in text
    assert "epoch_oci_sync_moved_bytes_total 50.0" in text
    assert re.search(r"epoch_oci_sync_last_success_timestamp_seconds \d", text)


@pytest.mark.parametrize("address", ["9090", ":x", "host:99999"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UsageError, match="--metrics"):
        Metrics(address)


def test_a_mirror_follows_its_source_until_it_is_told_to_stop(tmp_path):
    put_snapshot(tmp_path / "store", small("bot", "v1"))
    words = ("sync", "store", "second", "--every", "1s", "--health-file", "health.json", "--metrics", ":0")
    child = start_cli(*words, cwd=tmp_path)
    try:
        until(lambda: (tmp_path / "health.json").exists())
        put_snapshot(tmp_path / "store", small("bot", "v2"))
        until(lambda: (tmp_path / "second" / "manifests" / "bot" / "v2.json").exists())
        until(lambda: json.loads((tmp_path / "health.json").read_text())["counts"]["there"] == 2)
    finally:
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=30)
    assert child.returncode == 143
    lines = out.decode().splitlines()
    assert lines[0].startswith("round 1: 1 synced, 0 there, 0 failed")
    assert without_catalog(tree(tmp_path / "second")) == tree(tmp_path / "store")


def test_a_mirror_is_quiet_between_its_rounds_and_says_what_is_wrong_once(tmp_path, fake_registry):
    """And a health file that cannot be written any more ends nothing."""
    registry = fake_registry()
    put_snapshot(tmp_path / "store", small("bot", "v1"))
    put_snapshot(tmp_path / "store", small("Not/Legal", "v1"))
    (tmp_path / "health").mkdir()
    words = ("sync", "store", f"{registry.address}/m", "--every", "1s", "--health-file", "health/it.json")
    child = start_cli(*words, cwd=tmp_path)
    try:
        until(lambda: (tmp_path / "health" / "it.json").exists())
        shutil.rmtree(tmp_path / "health")
        until(lambda: child.stdout.readline().startswith(b"round 4:"))
    finally:
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    lines = err.decode().splitlines()
    assert len([line for line in lines if "Not/Legal:v1:" in line]) == 1
    assert any("it.json" in line for line in lines) and registry.tags("m/bot").keys() == {"v1"}


def test_progress_that_rests_begins_at_nothing():
    said: list[str] = []
    progress = PlainProgress(said.append)
    for size in (10, 20):
        progress(Event(event="plan", bytes=size, total=size, snapshots=1))
        progress(Event(event="blob-done", digest=Digest.of(b"1"), bytes=size, total=size, action="sent"))
        progress(Event(event="retry", message="again"))
        assert (progress.tally.moved, progress.tally.total, progress.retries) == (size, size, 1)
        progress.rest()
        assert progress.tally.total == 0 and progress.tally.phase == ""
    progress.close()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--every", "soon"), "--every cannot be soon"),
        (("--health-file", "x"), "are for a mirror"),
        (("--every", "1m", "--metrics", "nowhere"), "--metrics cannot be nowhere"),
        (("--every", "1m", "--health-file", "."), "--health-file . is a directory"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, tmp_path, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    put_snapshot(tmp_path / "store", small("bot", "v1"))
    done = Here(capsys)("sync", "store", "second", *words)
    assert done.code == 2 and problem in done.error
