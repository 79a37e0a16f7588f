"""What progress looks like: counted, in lines, as JSON, as bars."""

import json
import os
import pty
import subprocess
import threading

import pytest
from cli_runner import Here, command, environment
from snapshots import make_snapshot, put_snapshot

from epoch_oci.cli import progress
from epoch_oci.cli.progress import JsonProgress, PlainProgress, Progress, Tally, event_json, event_line, status_line
from epoch_oci.events import Event, Phase
from epoch_oci.oci.digest import Digest

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")
MIB = 1 << 20
KINDS = {"phase", "plan", "blob-start", "blob-progress", "blob-done", "retry", "wait", "done", "error"}


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tally_at(clock: Clock) -> Tally:
    tally = Tally(clock)
    tally.add(Event(event="plan", bytes=100 * MIB, total=120 * MIB))
    tally.add(Event(event="blob-done", digest=TWO, title="disk", bytes=20 * MIB, total=20 * MIB, action="skipped"))
    tally.add(Event(event="blob-start", digest=ONE, title="memory-ranges", total=100 * MIB))
    return tally


def moved(count: int) -> Event:
    return Event(event="blob-progress", digest=ONE, title="memory-ranges", bytes=count * MIB, total=100 * MIB)


def test_what_is_there_already_does_not_count():
    tally = tally_at(Clock())
    assert (tally.moved, tally.total) == (0, 100 * MIB)


def test_rate_and_time_left():
    clock = Clock()
    tally = tally_at(clock)
    assert tally.rate() == 0 and tally.seconds_left() is None
    clock.now = 2
    tally.add(moved(20))
    assert tally.rate() == 10 * MIB and tally.seconds_left() == 8
    for second in range(3, 30):
        clock.now = second
        tally.add(moved(20 + second))
    assert tally.rate() == pytest.approx(MIB)  # what was long ago does not count
    clock.now = 1000
    assert tally.rate() < MIB / 10


def test_an_attempt_that_starts_again_gives_back_what_it_counted():
    clock = Clock()
    tally = tally_at(clock)
    tally.add(moved(50))
    tally.add(Event(event="retry", digest=ONE, title="memory-ranges"))
    tally.add(moved(5))
    assert tally.moved == 5 * MIB and tally.retries == 1
    done = Event(event="blob-done", digest=ONE, title="memory-ranges", bytes=100 * MIB, total=100 * MIB, action="sent")
    tally.add(done)
    assert tally.moved == tally.total == 100 * MIB and tally.flows == {}


def test_a_mount_that_had_to_be_a_move_adds_to_the_total():
    tally = Tally(Clock())
    tally.add(Event(event="plan", bytes=0, total=10))
    tally.add(Event(event="blob-start", digest=ONE, total=10))
    assert tally.total == 10


def test_two_files_with_one_content_are_two():
    tally = Tally(Clock())
    tally.add(Event(event="plan", bytes=20, total=20))
    for title in ("a", "b"):
        tally.add(Event(event="blob-done", digest=ONE, title=title, bytes=10, total=10, action="received"))
    assert tally.moved == 20


def test_the_status_line():
    clock = Clock()
    tally = tally_at(clock)
    clock.now = 2
    tally.add(moved(20))
    assert status_line(tally) == "20 % of 100.0 MiB, 10.0 MiB/s, 8.0 s left (memory-ranges 20 %)"
    assert status_line(Tally(clock)) == "100 % of 0 B, 0 B/s"


def test_lines_worth_saying():
    wait = Event(event="wait", title="disk", message="429: slow down", seconds=75.0)
    assert event_line(wait, verbose=False) == "disk: waiting 1:15: 429: slow down"
    assert event_line(Event(event="wait"), verbose=False) == "waiting"
    assert event_line(Event(event="retry", message="reset\x1b[2J"), verbose=False) == "trying again: reset\\x1b[2J"
    again = Event(event="retry", title="ghcr.io/a", message="ghcr.io/a: reset", seconds=2.0)
    assert event_line(again, verbose=False) == "trying again in 2.0 s: ghcr.io/a: reset"
    done = Event(event="blob-done", digest=ONE, title="disk", total=2048, action="sent")
    assert event_line(done, verbose=False) is None
    assert event_line(done, verbose=True) == "sent disk (2.0 KiB)"
    assert event_line(moved(1), verbose=True) is None


def test_an_event_as_json():
    value = json.loads(event_json(Event(event="plan", bytes=1, total=2)))
    assert value == {"event": "plan", "digest": None, "bytes": 1, "total": 2}
    value = json.loads(event_json(Event(event="wait", digest=ONE, title="t\u202e", message="why", seconds=1.5)))
    assert value["digest"] == str(ONE) and value["message"] == "why" and value["seconds"] == 1.5
    assert "\u202e" not in event_json(Event(event="wait", title="t\u202e"))


def test_a_line_now_and_then_also_when_nothing_moves(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.05)
    said: list[str] = []
    listener = PlainProgress(said.append)
    listener(Event(event="plan", bytes=MIB, total=MIB))
    while len(said) < 3:
        listener._closed.wait(0.01)
    listener.close()
    assert set(said) == {"0 % of 1.0 MiB, 0 B/s"}
    ticker = listener._ticker
    assert ticker is not None
    ticker.join(5)
    assert not ticker.is_alive()


def test_a_wait_is_said_at_once():
    said: list[str] = []
    PlainProgress(said.append)(Event(event="wait", message="the registry asked for it", seconds=30))
    assert said == ["waiting 30.0 s: the registry asked for it"]


@pytest.fixture
def pushing(tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot("W3b"))
    return ("push", "team/bot:v1", "oci:layout", "--store", "store")


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


def test_json_lines_and_nothing_else(cli, pushing):
    ran = cli(*pushing, "--progress", "json", "--format", "json")
    events = [json.loads(line) for line in ran.err.splitlines()]
    assert events[0]["event"] == "phase" and events[-1]["event"] == "done"
    assert {event["event"] for event in events} <= KINDS
    assert all({"event", "digest", "bytes", "total"} <= event.keys() for event in events)
    finished = [event for event in events if event["event"] == "blob-done"]
    assert {event["digest"] for event in finished} == {blob["digest"] for blob in ran.json["blobs"]}
    assert {event["action"] for event in finished} == {"sent"}
    assert sum(event["bytes"] for event in finished) == ran.json["bytesTransferred"]


def test_phases_and_warnings_are_events(cli, tmp_path):
    made = make_snapshot("W1")
    made.raw = made.raw.replace(b'"totalSize": ', b'"totalSize": 9')
    put_snapshot(tmp_path / "store", made)
    ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--progress", "json")
    events = [json.loads(line) for line in ran.err.splitlines()]
    phases = [event["message"] for event in events if event["event"] == "phase"]
    assert phases == [
        "reading the manifest",
        "looking at what is there",
        "sending",
    ]
    assert [event["message"][:11] for event in events if event["event"] == "warning"] == ["$.totalSize"]


def test_a_phase_before_any_plan_is_said_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.01)
    said = threading.Event()
    shown = PlainProgress(lambda line: said.set() if line == "reading the manifest" else None)
    shown(Event(event="phase", message="reading the manifest"))
    assert said.wait(20)
    shown.close()


def test_a_phase_that_counts_says_how_far_it_is():
    said: list[str] = []
    told = JsonProgress(said.append)
    going = Phase(told, "surveying", 3)
    for _ in range(3):
        going.one_more()
    first, last = json.loads(said[0]), json.loads(said[-1])
    assert "count" not in first and last["message"] == "surveying" and last["count"] == last["of"] == 3
    assert told.phase == "surveying: 3 of 3"


def test_json_lines_end_with_the_error(cli, pushing, tmp_path):
    next((tmp_path / "store/blobs/sha256").iterdir()).unlink()
    ran = cli(*pushing, "--progress", "json")
    *events, line = ran.err.splitlines()
    assert json.loads(events[-1])["event"] == "error" and line.startswith("epoch-oci: NOT_FOUND: ")


@pytest.mark.parametrize(
    "words", [("-q",), ("--progress", "none"), ("-q", "--progress", "json"), ("--progress", "plain"), ()]
)
def test_silence(cli, pushing, words):
    assert cli(*pushing, *words).err == ""


def test_verbose_names_every_blob(cli, pushing):
    ran = cli(*pushing, "-v")
    assert "epoch-oci: sent memory-ranges (1.4 MiB)\n" in ran.err
    assert ran.out.startswith("Pushed ")


def test_bars_on_a_terminal_and_a_clean_result(pushing, tmp_path):
    ours, theirs = pty.openpty()
    env = environment({"TERM": "xterm-256color", "COLUMNS": "100"})
    process = subprocess.Popen(
        command(*pushing, "--progress", "bar"), stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, env=env
    )
    os.close(theirs)
    out = process.communicate(timeout=60)[0].decode()
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:
        pass
    os.close(ours)
    assert process.returncode == 0
    assert b"total" in shown and b"MiB" in shown and shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1
    assert out.startswith("Pushed ") and "\x1b" not in out


def test_the_base_listener_counts_and_says_nothing():
    said: list[str] = []
    listener = Progress(said.append)
    listener(Event(event="retry"))
    assert listener.retries == 1 and said == []
    JsonProgress(said.append)(Event(event="retry"))
    assert len(said) == 1
