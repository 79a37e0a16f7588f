"""What progress looks like: counted, in lines, as JSON, as bars."""

import contextlib
import json
import os
import pty
import subprocess
import threading

import pyte
import pytest
from cli_runner import Here, command, environment
from rich.cells import cell_len, chop_cells
from snapshots import make_snapshot, put_snapshot

from epoch_oci.cli import bars, progress
from epoch_oci.cli.bars import rows
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
    assert status_line(Tally(clock)) == ""


def test_each_phase_has_its_own_words_and_figures():
    clock = Clock()
    tally = tally_at(clock)
    tally.add(moved(60))
    clock.now = 5
    tally.add(Event(event="phase", message="checking every byte"))
    assert status_line(tally) == "checking every byte: 0.0 s"
    clock.now = 17
    assert status_line(tally) == "checking every byte: 12.0 s"
    tally.add(Event(event="plan", bytes=200 * MIB, total=200 * MIB))
    clock.now = 19
    tally.add(moved(50))
    assert status_line(tally) == "checking every byte: 25 % of 200.0 MiB, 25.0 MiB/s, 6.0 s left (memory-ranges 50 %)"


def test_a_push_that_only_mounts_is_no_whole_of_nothing():
    clock = Clock()
    tally = Tally(clock)
    tally.add(Event(event="phase", message="mounting"))
    tally.add(Event(event="plan", bytes=0, total=100 * MIB))
    clock.now = 3
    tally.add(Event(event="blob-done", digest=ONE, title="a", bytes=5, total=5, action="mounted"))
    assert status_line(tally) == "mounting: 3.0 s" and rows(tally, 60, 9) == [f"{'mounting':<50}  3.0 s"]


def test_what_an_earlier_run_left_is_not_moved():
    clock = Clock()
    tally = Tally(clock)
    tally.add(Event(event="plan", bytes=40 * MIB, total=100 * MIB))
    tally.add(Event(event="blob-start", digest=ONE, title="memory-ranges", total=100 * MIB))
    tally.add(Event(event="blob-start", digest=ONE, title="memory-ranges", bytes=60 * MIB, total=100 * MIB))
    clock.now = 2
    tally.add(moved(80))
    assert (tally.moved, tally.total, tally.rate()) == (20 * MIB, 40 * MIB, 10 * MIB)
    tally.add(Event(event="blob-start", digest=ONE, title="memory-ranges", total=100 * MIB))
    assert (tally.moved, tally.total) == (0, 100 * MIB)


def test_a_part_that_turns_out_to_be_there_leaves_the_total():
    tally = Tally(Clock())
    tally.add(Event(event="plan", bytes=100 * MIB, total=100 * MIB))
    tally.add(Event(event="plan", bytes=90 * MIB, total=100 * MIB))
    tally.add(Event(event="blob-done", digest=TWO, title="part", bytes=10 * MIB, total=10 * MIB, action="skipped"))
    assert (tally.moved, tally.total) == (0, 90 * MIB)


def test_hashing_ahead_of_sending_is_counted_apart():
    clock = Clock()
    tally = Tally(clock)
    tally.add(Event(event="phase", message="sending"))
    tally.add(Event(event="plan", bytes=100 * MIB, total=100 * MIB))
    for second in (1, 2):
        clock.now = second
        hashed = second * 20 * MIB
        tally.add(
            Event(event="blob-progress", digest=ONE, title="disk", bytes=hashed, total=100 * MIB, phase="hashing")
        )
    assert (tally.moved, tally.rate(), tally.hash_rate()) == (0, 0, 20 * MIB)
    assert status_line(tally) == "sending: 0 % of 100.0 MiB, 0 B/s, hashing 40 % of disk"


def test_no_time_is_foretold_that_nobody_would_wait_for():
    clock = Clock()
    tally = Tally(clock)
    tally.add(Event(event="plan", bytes=1 << 40, total=1 << 40))
    clock.now = 10
    tally.add(Event(event="blob-progress", digest=ONE, title="a", bytes=100, total=1 << 40))
    assert tally.rate() == 10 and tally.seconds_left() is None


def test_one_line_for_waits_with_one_reason():
    said: list[str] = []
    listener = Progress(said.append)
    listener._show = listener._tell  # type: ignore[method-assign]
    for seconds in (1, 2, 4):
        listener(Event(event="wait", title="disk", message="429: slow down", seconds=seconds))
    listener(Event(event="wait", title="disk", message="503: away", seconds=1))
    assert said == ["disk: waiting 1.0 s: 429: slow down", "disk: waiting 1.0 s: 503: away"]
    listener(Event(event="blob-start", digest=ONE, title="disk", total=10))
    listener(Event(event="blob-progress", digest=ONE, title="disk", bytes=5, total=10))
    listener(Event(event="wait", title="disk", message="429: slow down", seconds=1))
    assert len(said) == 3


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
    ticker.join(60)
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


def test_parts_that_are_there_leave_the_total_and_hashing_is_told_apart(cli, pushing):
    """Nobody knows the digests of parts before they are read, nor whether they are there."""
    first = cli(*pushing, "--part-size", "256K", "--progress", "json", "--format", "json")
    events = [json.loads(line) for line in first.err.splitlines()]
    hashed = [event for event in events if event.get("phase") == "hashing"]
    assert {"memory-ranges"} <= {event["title"] for event in hashed}
    assert all(event["event"] == "blob-progress" and event["bytes"] <= event["total"] for event in hashed)
    whole = {event["title"]: event["total"] for event in hashed}
    assert {event["title"]: event["bytes"] for event in hashed} == whole  # the last that is told is the end
    plans = [event["bytes"] for event in events if event["event"] == "plan"]
    assert plans[-1] == first.json["bytesTransferred"]
    forgetful = {"XDG_CACHE_HOME": "new"}
    second = cli(*pushing, "--part-size", "256K", "--progress", "json", "--format", "json", env=forgetful)
    plans = [json.loads(line)["bytes"] for line in second.err.splitlines() if json.loads(line)["event"] == "plan"]
    assert second.json["bytesTransferred"] == 0 and plans[0] > 0 and plans[-1] == 0


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
        "publishing",
    ]
    assert [event["message"][:11] for event in events if event["event"] == "warning"] == ["$.totalSize"]


def test_a_phase_before_any_plan_is_said_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.01)
    said = threading.Event()
    shown = PlainProgress(lambda line: said.set() if line.startswith("reading the manifest: ") else None)
    shown(Event(event="phase", message="reading the manifest"))
    assert said.wait(60)
    shown.close()


def test_a_phase_that_counts_says_how_far_it_is():
    said: list[str] = []
    told = JsonProgress(said.append)
    going = Phase(told, "surveying", 3)
    for _ in range(3):
        going.one_more()
    first, last = json.loads(said[0]), json.loads(said[-1])
    assert "count" not in first and last["message"] == "surveying" and last["count"] == last["of"] == 3
    assert told.tally.text == "surveying: 3 of 3" and last["phase"] == "surveying"


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


def busy(*, waits: bool = True) -> Tally:
    clock = Clock()
    tally = Tally(clock)
    tally.add(Event(event="phase", message="sending"))
    tally.add(Event(event="plan", bytes=80 << 30, total=80 << 30))
    names = ("memory-ranges", "a-disk-with-a-name-that-is-longer-than-most-terminals-are-wide.raw", 12 * "盘" + ".raw")
    digests = [Digest.of(name.encode()) for name in names]
    for name, digest in zip(names, digests, strict=True):
        tally.add(Event(event="blob-start", digest=digest, title=name, total=20 << 30))
    clock.now = 4
    for name, digest in zip(names, digests, strict=True):
        tally.add(Event(event="blob-progress", digest=digest, title=name, bytes=1 << 30, total=20 << 30))
    tally.add(Event(event="blob-progress", digest=ONE, title="late.raw", bytes=1, total=9 << 30, phase="hashing"))
    if waits:
        tally.add(Event(event="wait", title="disk", message="429: the registry asks for it", seconds=2))
    return tally


def test_what_waits_has_no_rate_and_no_end():
    """And what comes back has the rate of what moves from then on, not that of the wait."""
    clock = Clock()
    tally = Tally(clock)
    tally.add(Event(event="plan", bytes=100 << 20, total=100 << 20))
    tally.add(Event(event="blob-start", digest=ONE, title="disk", total=100 << 20))
    for second in range(1, 5):
        clock.now = second
        tally.add(Event(event="blob-progress", digest=ONE, title="disk", bytes=second << 20, total=100 << 20))
    assert tally.rate() == 1 << 20 and tally.seconds_left() == 96
    tally.add(Event(event="retry", title="disk", message="http://host:5/v2/a/blobs/uploads/1?_state=x: refused"))
    assert tally.waiting == "http://host:5: refused" and (tally.rate(), tally.seconds_left()) == (0, None)
    for second in (14, 15):
        clock.now = second
        count = second - 9 << 20
        tally.add(Event(event="blob-progress", digest=ONE, title="disk", bytes=count, total=100 << 20))
    assert tally.rate() == 1 << 20


def test_one_line_for_a_registry_that_is_away():
    said: list[str] = []
    shown = PlainProgress(said.append)
    for name in ("disk", "memory"):
        for path in ("blobs/sha256:" + "0" * 64, "blobs/uploads/1?_state=x&digest=y"):
            message = f"http://host:5/v2/a/{path}: the connection was refused"
            shown(Event(event="retry", title=name, message=message, seconds=1))
    shown.close()
    assert said == ["disk: trying again in 1.0 s: http://host:5: the connection was refused"]


@pytest.mark.parametrize("width", [20, 34, 60, 79, 200])
def test_a_narrow_terminal_cuts_names_and_no_number(width):
    shown = rows(busy(), width, 20)
    assert len(shown) == 6 and all(cell_len(line) <= width for line in shown)
    assert "  3 %" in shown[0] and all("  5 %" in line for line in shown[3:])
    if width >= 60:
        assert shown[0].startswith("sending") and "80.0 GiB" in shown[0]
        moving = rows(busy(waits=False), width, 20)
        assert "768.0 MiB/s" in moving[0] and "1:43" in moving[0]
        assert shown[1].startswith("  waiting: 429: the registry") and shown[2].startswith("  hashing l")
        assert ("…" in shown[3] + shown[4] + shown[5]) == (width < 100)
    assert len(rows(busy(), width, 3)) == 3


class Terminal:
    """A screen as a person sees it, that breaks lines anew when it is made smaller, as most terminals do."""

    encoding = "utf-8"

    def __init__(self, columns: int) -> None:
        self.screen = pyte.Screen(columns, 24)
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def shrink(self, columns: int) -> None:
        broken = [piece for line in self.lines for piece in chop_cells(line, columns)]
        self.__init__(columns)  # type: ignore[misc]
        self.write("\n".join(broken))


@pytest.mark.parametrize(("columns", "smaller"), [(200, 80), (80, 60), (60, 35)])
def test_no_row_is_left_over_when_a_terminal_is_made_smaller(columns, smaller, monkeypatch):
    terminal = Terminal(columns)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = bars.BarProgress(lambda line: None, file=terminal)  # type: ignore[arg-type]
    shown.tally = busy()
    terminal.write("$ epoch-oci push\n")
    shown.draw()
    before = terminal.lines
    assert before[0] == "$ epoch-oci push" and len(before) == 7
    terminal.shrink(smaller)
    assert shown._live is not None
    shown._live.console.width = smaller
    shown.draw()
    after = terminal.lines
    assert after[0] == "$ epoch-oci push" and after[1:] == [line.rstrip() for line in rows(busy(), smaller - 1, 20)]
    shown.close()
    assert terminal.lines == ["$ epoch-oci push"]


def test_bars_on_a_terminal_and_a_clean_result(pushing, tmp_path, fake_registry):
    """A push that is slow enough to be seen."""
    registry = fake_registry()
    ours, theirs = pty.openpty()
    env = environment({"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24"})
    words = ("push", "team/bot:v1", f"{registry.address}/acme/bot:v1", "--store", "store", "--limit-rate", "700K")
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, env=env)
    os.close(theirs)
    shown = bytearray()
    reader = threading.Thread(target=_drained, args=(ours, shown))
    reader.start()
    out = process.communicate(timeout=60)[0].decode()
    reader.join(20)
    assert process.returncode == 0
    assert b"sending" in shown and b"iB/s" in shown and shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1
    assert out.startswith("Pushed ") and "\x1b" not in out


def _drained(terminal: int, into: bytearray) -> None:
    with contextlib.suppress(OSError):
        while block := os.read(terminal, 65536):
            into += block
    os.close(terminal)


def test_the_base_listener_counts_and_says_nothing():
    said: list[str] = []
    listener = Progress(said.append)
    listener(Event(event="retry"))
    assert listener.retries == 1 and said == []
    JsonProgress(said.append)(Event(event="retry"))
    assert len(said) == 1


@pytest.mark.parametrize("words", [("--chunked",), ("--dialect", "cocoonstack", "--zstd", "1", "--allow-loss"), ()])
def test_the_last_event_comes_when_the_tag_is_set(cli, tmp_path, words):
    """An archive is written after all bytes have moved, which takes as long again, and has a word of its own."""
    put_snapshot(tmp_path / "store", make_snapshot("W3b"))
    ran = cli("push", "team/bot:v1", "oci-archive:a.tar:v1", "--store", "store", "--progress", "json", *words)
    assert ran.code == 0, ran.err
    events = [json.loads(line) for line in ran.err.splitlines()]
    order = [event["message"] if event["event"] == "phase" else event["event"] for event in events]
    assert "publishing" in order
    if "done" in order:
        assert order[-1] == "done" and order.count("done") == 1
    moved = [event for event in events if event["event"].startswith("blob-")]
    assert moved and all(event["phase"] not in ("reading the manifest", "publishing") for event in moved)


def test_files_that_are_only_read_are_told_of(cli, tmp_path):
    """Which may take hours: `diff --deep`, and `verify` of files in chunks."""
    put_snapshot(tmp_path / "store", make_snapshot("W3b"))
    put_snapshot(tmp_path / "store", make_snapshot("W3b", tag="v2"))
    assert cli("push", "team/bot:v1", "oci:layout:c", "--store", "store", "--chunked").code == 0
    (tmp_path / "store" / "manifests" / "team" / "bot" / "v2.json").write_bytes(changed(tmp_path / "store"))
    for words in (("diff", "team/bot:v1", "team/bot:v2", "--store", "store", "--deep"), ("verify", "oci:layout:c")):
        ran = cli(*words, "--progress", "json")
        assert ran.code == 0, ran.err
        events = [json.loads(line) for line in ran.err.splitlines()]
        hashed = [event for event in events if event.get("phase") == "hashing"]
        assert events[0]["event"] == "phase" and hashed[-1]["bytes"] == hashed[-1]["total"] > 0


def changed(store) -> bytes:
    """Another version: its memory is another file of the store."""
    value = json.loads((store / "manifests" / "team" / "bot" / "v2.json").read_bytes())
    raw = b"other memory" * 100_000
    layer = next(
        item for item in value["layers"] if item["filename"] == "cow.raw" or item["filename"] == "overlay.qcow2"
    )
    digest = Digest.of(raw).hex
    (store / "blobs" / "sha256" / digest).write_bytes(raw)
    value["totalSize"] += len(raw) - layer["size"]
    layer |= {"digest": digest, "size": len(raw)}
    value.pop("layerHeaders", None)
    return json.dumps(value).encode()
