"""--limit-rate: how many bytes a second all transfers of a run move together."""

import json
import subprocess
import threading
import time

import pytest
from cli_runner import Here, command, run_cli
from hypothesis import given
from hypothesis import strategies as st
from snapshots import Made, make_snapshot, noise, open_store, put_snapshot, tree
from support.waiting import at_once

from epoch_oci.cli.arguments import rate
from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import NetworkError, UsageError
from epoch_oci.events import Event
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.base import BytesContent
from epoch_oci.transfer.content import CancelledError, WatchedContent
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs
from epoch_oci.transfer.throttle import BURST_SECONDS, Throttle

MIB = 1 << 20
NEVER = threading.Event()


class Clock:
    """Time that passes only where a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Turns(threading.Event):
    """An event nobody sets; what would be waited for passes on the clock at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self.clock.now += timeout or 0.0
        return self.is_set()


def descriptor(raw: bytes) -> Descriptor:
    return Descriptor(media_type="a/b", digest=Digest.of(raw), size=len(raw))


def big_snapshot(*sizes: int) -> Made:
    """A snapshot of as many files as there are sizes."""
    made = Made(SnapshotKey("big", "v1"), b"")
    rows = []
    for index, size in enumerate(sizes):
        raw = noise(f"limit {index}", size)
        made.blobs[Digest.of(raw).hex] = raw
        rows.append({"digest": Digest.of(raw).hex, "size": size, "filename": f"disk-{index}.raw"})
    zero = "0001-01-01T00:00:00Z"
    value = {"schemaVersion": 1, "name": "big", "tag": "v1", "snapshotId": "9f3c1a7be20d4c55", "layers": rows}
    made.raw = gojson.dumps({**value, "totalSize": sum(sizes), "createdAt": zero, "pushedAt": zero})
    return made


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1, max_size=40))
def test_no_window_gets_more_than_the_rate_and_one_burst(steps):
    clock = Clock()
    throttle, turns = Throttle(10_000, clock=clock), Turns(clock)
    passed = []
    for count, pause in steps:
        clock.now += pause
        asked = clock.now
        assert throttle.take(count, turns)
        passed.append((asked, clock.now, count))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            seconds = passed[last][1] - passed[first][0]
            moved = sum(count for _, _, count in passed[first : last + 1])
            assert moved <= 10_000 * (seconds + BURST_SECONDS) + 1


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40))
def test_from_its_first_byte_it_takes_size_by_rate_and_no_longer(counts):
    clock = Clock()
    throttle, turns = Throttle(10_000, clock=clock), Turns(clock)
    clock.now += 60  # what nobody used before the first byte is not made up for
    started = clock.now
    assert all(throttle.take(count, turns) for count in counts)
    assert clock.now - started == pytest.approx(sum(counts) / 10_000)


def test_time_lost_elsewhere_is_made_up_for_up_to_a_burst():
    clock = Clock()
    throttle, turns = Throttle(1000, clock=clock), Turns(clock)
    started = clock.now
    for _ in range(20):
        clock.now += 0.05  # reading takes time as well
        throttle.take(100, turns)
    assert clock.now - started == pytest.approx(2.05)


def test_those_who_share_it_get_equal_parts():
    """Who comes while others wait has its turn behind them, and before they have a second one."""
    clock = Clock()
    throttle, waiting = Throttle(400_000, clock=clock), []

    class Turn(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.append(timeout)
            return False

    for _ in range(12):
        assert throttle.take(throttle.grain, Turn())
    seconds = throttle.grain / throttle.rate
    assert waiting == pytest.approx([seconds * number for number in range(1, 13)])
    clock.now += waiting[0]  # the first has had its turn, and asks again
    throttle.take(throttle.grain, Turn())
    assert waiting[-1] == pytest.approx(12 * seconds)


def test_cancelling_ends_the_waiting_at_once():
    throttle, cancelled = Throttle(1024), threading.Event()
    threading.Timer(0.1, cancelled.set).start()
    content = WatchedContent(BytesContent(bytes(8 * BLOCK)), lambda offset, count: None, cancelled, throttle)
    with at_once(), content.open() as reader, pytest.raises(CancelledError):
        reader.read(BLOCK)


def test_an_error_ends_a_throttled_run_at_once(tmp_path):
    class Failing(BytesContent):
        def open(self, start=0, length=None):
            time.sleep(0.2)
            raise NetworkError("the line is dead", retryable=False)

    slow, bad = noise("slow", 2 * MIB), noise("bad", 5 * MIB)
    wants = [
        Want(target=descriptor(slow), content=BytesContent(slow)),
        Want(target=descriptor(bad), content=Failing(bad)),
    ]
    with at_once(), pytest.raises(NetworkError):
        execute(plan_blobs(open_store(tmp_path), wants), moved="received", jobs=2, throttle=Throttle(10_000))


def test_what_is_there_costs_nothing(tmp_path):
    raw = noise("there", 3 * MIB)
    store, want = open_store(tmp_path), Want(target=descriptor(raw), content=BytesContent(raw))
    execute(plan_blobs(store, [want]), moved="received")
    throttle = Throttle(1024)
    with at_once():
        (outcome,) = execute(plan_blobs(store, [want]), moved="received", throttle=throttle)
    assert outcome.action == "skipped"


def test_slow_transfers_still_show_progress(tmp_path):
    raw = noise("slow", 300_000)
    events: list[Event] = []
    want = Want(target=descriptor(raw), content=BytesContent(raw))
    plan = plan_blobs(open_store(tmp_path), [want])
    execute(plan, moved="received", on_event=events.append, throttle=Throttle(100_000))
    seen = [event.bytes for event in events if event.event == "blob-progress"]
    assert len(seen) >= 2 and seen == sorted(seen)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1024", 1024), ("1K", 1024), ("50M", 50 << 20), ("50MiB", 50 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30)],
)
def test_rates_as_people_write_them(text, count):
    assert rate(text) == count


@pytest.mark.parametrize("text", ["0", "1", "1023", "fast", "-1M", "1.5M", "50MB", "50 M", "50M/s", "", "1T", "٥M"])
def test_nonsense_is_no_rate(text):
    with pytest.raises(UsageError, match="--limit-rate"):
        rate(text)


@pytest.mark.parametrize("where", ["flag", "environment"])
def test_nonsense_is_a_usage_error_of_both_commands(tmp_path, capsys, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    put_snapshot(tmp_path / "store", make_snapshot())
    words = ("--limit-rate", "soon") if where == "flag" else ()
    env = {"EPOCH_OCI_LIMIT_RATE": "soon"} if where == "environment" else {}
    run = Here(capsys)
    for verb in (("push", "team/bot:v1", "oci:layout"), ("pull", "oci:layout")):
        ran = run(*verb, "--store", "store", *words, env=env)
        assert ran.code == 2 and "--limit-rate" in ran.error
    assert not (tmp_path / "layout").exists()


def test_between_two_places_of_this_machine_nothing_is_limited(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_snapshot(tmp_path / "store", make_snapshot())
    run = Here(capsys)
    with at_once():
        assert run("push", "team/bot:v1", "oci:layout", "--store", "store", "--limit-rate", "1K").code == 0
        assert run("pull", "oci:layout", "--store", "second", "--limit-rate", "1K").code == 0


def timed(*words: object, **options: object) -> tuple[float, dict]:
    started = time.monotonic()
    ran = run_cli(*words, "--format", "json", **options)
    assert ran.code == 0, ran.err
    return time.monotonic() - started, ran.json


def test_push_and_pull_keep_to_it_on_a_live_registry(live_registry, repo_name, tmp_path):
    """One large blob and smaller ones, so that both a blob fetched in ranges and the sharing are in it."""
    made = big_snapshot(6 * MIB, MIB, MIB)
    put_snapshot(tmp_path / "first", made)
    target = f"{live_registry.address}/{repo_name}:v1"
    seconds, pushed = timed("push", "big:v1", target, "--store", tmp_path / "first", "--limit-rate", "8M")
    assert seconds >= pushed["bytesTransferred"] / (8 * MIB) >= 1
    env = {"EPOCH_OCI_LIMIT_RATE": "8M"}
    seconds, pulled = timed("pull", target, "--store", tmp_path / "second", env=env)
    assert seconds >= pulled["bytesTransferred"] / (8 * MIB) >= 1
    after = tree(tmp_path / "second")
    after.pop("catalog.json")
    assert after == tree(tmp_path / "first")
    assert timed("verify", target)[1]["ok"]
    again, skipped = timed("pull", target, "--store", tmp_path / "second", "--limit-rate", "1K")
    assert skipped["bytesTransferred"] == 0 and again < 60  # else it took an hour


def test_a_push_shows_the_rate_it_is_held_to(fake_registry, tmp_path):
    put_snapshot(tmp_path / "first", big_snapshot(3 * MIB))
    target = f"{fake_registry().address}/acme/bot:v1"
    words = ("--store", tmp_path / "first", "--limit-rate", "3M", "--progress", "json")
    ran = run_cli("push", "big:v1", target, *words)
    assert ran.code == 0, ran.err
    events = [json.loads(line) for line in ran.err.splitlines()]
    seen = [event["bytes"] for event in events if event["event"] == "blob-progress"]
    assert len(seen) >= 2 and all(0 < count <= 3 * MIB for count in seen)


def test_archives_keep_to_it_as_well(fake_registry, tmp_path):
    put_snapshot(tmp_path / "first", big_snapshot(3 * MIB))
    target = f"{fake_registry().address}/t/bot:v1"
    timed("push", "big:v1", target, "--store", tmp_path / "first")
    paths = [tmp_path / "fast.tar", tmp_path / "slow.tar"]
    for path, limit in zip(paths, ((), ("--limit-rate", "4M")), strict=True):
        started = time.monotonic()
        with path.open("wb") as out:
            subprocess.run(command("pull", target, "-o", "-", *limit), stdout=out, check=True, timeout=60)
        took = time.monotonic() - started
    assert took >= 0.75
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with paths[0].open("rb") as archive:  # the registry has the blob, so nothing is held back: else it took an hour
        words = ("push", "-", target.replace(":v1", ":v2"), "--limit-rate", "1K")
        pushed = subprocess.run(command(*words), stdin=archive, capture_output=True, timeout=60)
    assert pushed.returncode == 0, pushed.stderr
    fresh = target.replace("/t/", "/u/")
    with paths[0].open("rb") as archive:
        started = time.monotonic()
        subprocess.run(command("push", "-", fresh, "--limit-rate", "4M"), stdin=archive, check=True, timeout=60)
    assert time.monotonic() - started >= 0.75
    assert timed("verify", fresh)[1]["ok"]
