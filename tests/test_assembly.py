"""Blobs put together out of order, kept across runs, and never shown before they are right."""

import os
import random
import signal
import sys
import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from cli_runner import run_cli, start_cli, start_function
from hypothesis import given
from hypothesis import strategies as st
from snapshots import noise, open_store, put_snapshot
from support.waiting import until
from test_limit_rate import big_snapshot

from epoch_oci.disk.assembly import Assembly, Spans
from epoch_oci.disk.draft import sweep
from epoch_oci.epoch.sparse import Segment
from epoch_oci.errors import ConflictError, ContentError
from epoch_oci.events import Event
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.base import BytesContent, FileTarget
from epoch_oci.stores.files import FilesDirectory
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs, plan_files

RAW = noise("assembly", 5 * BLOCK + 12_345)


def blob(raw: bytes = RAW) -> Descriptor:
    return Descriptor(media_type="a/b", digest=Digest.of(raw), size=len(raw))


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def write_span(assembly: Assembly, start: int, end: int, raw: bytes = RAW) -> None:
    for offset in range(start, end, 100_000):
        assembly.write(offset, raw[offset : min(end, offset + 100_000)], start)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12))), st.integers(60, 80))
def test_spans_know_what_is_there(added, size):
    spans, model = Spans(), set()
    for start, length in added:
        spans.add(start, start + length)
        model |= set(range(start, start + length))
    assert spans.total() == len(model)
    assert spans.prefix() == next(at for at in range(100) if at not in model)
    missing = {at for offset, length in spans.gaps(size) for at in range(offset, offset + length)}
    assert missing == set(range(size)) - model


def test_spans_in_any_order_make_the_blob(tmp_path, directory):
    cuts = [0, 70_000, BLOCK, 3 * BLOCK + 1, len(RAW)]
    spans = list(pairwise(cuts))
    random.Random(7).shuffle(spans)
    with Assembly(directory, "blob", blob(), "blob") as assembly:
        threads = [threading.Thread(target=write_span, args=(assembly, *span)) for span in spans]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert assembly.missing() == []
        assert not (tmp_path / "blob").exists()
        assert assembly.finish()
    assert (tmp_path / "blob").read_bytes() == RAW
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]
    assert (tmp_path / "blob").stat().st_mode & 0o777 == 0o600


def test_what_is_there_is_not_fetched_again(tmp_path, directory):
    with Assembly(directory, "blob", blob(), "blob") as first:
        write_span(first, 0, 2 * BLOCK)
        first.settle(0, 2 * BLOCK)
        write_span(first, 4 * BLOCK, len(RAW))
    assert not (tmp_path / "blob").exists()
    with Assembly(directory, "blob", blob(), "blob") as second:
        assert second.resumed == len(RAW) - 2 * BLOCK
        assert second.missing() == [(2 * BLOCK, 2 * BLOCK)]
        write_span(second, 2 * BLOCK, 4 * BLOCK)
        assert second.finish()
    assert (tmp_path / "blob").read_bytes() == RAW
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


def test_wrong_bytes_are_never_shown_and_not_kept(tmp_path, directory):
    with Assembly(directory, "blob", blob(), "blob") as assembly:
        write_span(assembly, 0, len(RAW), RAW[:-1] + b"!")
        with pytest.raises(ContentError) as caught:
            assembly.finish()
    assert caught.value.code == "DIGEST"
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_blob_cannot_be_finished(tmp_path, directory):
    with Assembly(directory, "blob", blob(), "blob") as assembly:
        write_span(assembly, 0, BLOCK)
        with pytest.raises(ContentError, match="lacks"):
            assembly.finish()
    assert not (tmp_path / "blob").exists()


def test_nothing_fetched_leaves_nothing(tmp_path, directory):
    with Assembly(directory, "blob", blob(), "blob"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"garbage\n", b"0 99999999999\n", b"5 4\n", b"0 1048576", b"\xff\xfe\n" * 9])
def test_a_damaged_record_is_worth_nothing_and_harms_nothing(tmp_path, directory, damage):
    with Assembly(directory, "blob", blob(), "blob") as first:
        write_span(first, 0, len(RAW) - 1)
        first.settle(0, len(RAW) - 1)
    (record,) = tmp_path.glob(".*.done")
    record.write_bytes(damage)
    with Assembly(directory, "blob", blob(), "blob") as second:
        assert second.resumed == 0
        write_span(second, 0, len(RAW))
        assert second.finish()
    assert (tmp_path / "blob").read_bytes() == RAW


def test_a_record_that_claims_too_much_is_found_out_and_healed(tmp_path):
    """What a power cut can leave: a span on record, and zeros in its place."""
    store, want = open_store(tmp_path), Want(target=blob(), content=BytesContent(RAW))
    with store.assemble(blob()) as assembly:
        write_span(assembly, 0, 3 * BLOCK, bytes(len(RAW)))
        assembly.settle(0, 3 * BLOCK)
    (outcome,) = execute(plan_blobs(store, [want]), moved="received")
    assert outcome.bytes == len(RAW)
    assert (tmp_path / "blobs/sha256" / blob().digest.hex).read_bytes() == RAW
    assert [path.name for path in (tmp_path / "blobs/sha256").iterdir()] == [blob().digest.hex]


def test_execute_goes_on_where_an_earlier_run_stopped(tmp_path):
    store = open_store(tmp_path)
    with store.assemble(blob()) as assembly:
        write_span(assembly, 0, 4 * BLOCK)
        assembly.settle(0, 4 * BLOCK)
    heard: list[Event] = []
    plan = plan_blobs(store, [Want(target=blob(), content=BytesContent(RAW))])
    (outcome,) = execute(plan, moved="received", on_event=heard.append)
    assert (outcome.action, outcome.bytes) == ("received", len(RAW) - 4 * BLOCK)
    assert store.has(blob())
    # What the earlier run left is told as there from the start, and is none of what has to move.
    assert [event.bytes for event in heard if event.event == "blob-start"] == [0, 4 * BLOCK]
    assert [event.bytes for event in heard if event.event == "plan"] == [len(RAW), len(RAW) - 4 * BLOCK]
    hashed = [event for event in heard if event.phase == "hashing"]
    assert all(event.bytes <= event.total == 4 * BLOCK for event in hashed)
    # Where it took long enough to be told of, its end is told too.
    assert not hashed or hashed[-1].bytes == 4 * BLOCK


def test_a_packed_file_is_unfolded_as_it_arrives(tmp_path):
    runs = [Segment(4096, 2 * BLOCK), Segment(3 * BLOCK, 100), Segment(6 * BLOCK, len(RAW) - 2 * BLOCK - 100)]
    target = FileTarget(name="memory", blob=blob(), mode=0o700, segments=runs, logical_size=20 * BLOCK)
    sink = FilesDirectory(tmp_path)
    execute(plan_files(sink, [(target, BytesContent(RAW))], replace=False), moved="received")
    expected, at = bytearray(20 * BLOCK), 0
    for run in runs:
        expected[run.offset : run.offset + run.length] = RAW[at : at + run.length]
        at += run.length
    assert (tmp_path / "memory").read_bytes() == bytes(expected)
    assert (tmp_path / "memory").stat().st_blocks * 512 < len(RAW) + 64 * 1024
    assert (tmp_path / "memory").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


def test_another_file_in_the_way_is_a_conflict(tmp_path):
    (tmp_path / "memory").write_text("mine")
    target = FileTarget(name="memory", blob=blob())
    with pytest.raises(ConflictError):
        plan_files(FilesDirectory(tmp_path), [(target, BytesContent(RAW))], replace=False)
    with pytest.raises(ConflictError), FilesDirectory(tmp_path).assemble(target):
        pass
    assert (tmp_path / "memory").read_text() == "mine"


class Slow(BytesContent):
    """64 KiB at a time, with a pause before each."""

    @contextmanager
    def open(self, start=0, length=None):
        with BytesContent.open(self, start, length) as reader:
            yield SlowReader(reader)


class SlowReader:
    def __init__(self, reader):
        self._reader = reader

    def read(self, size=-1, /):
        time.sleep(0.02)
        return self._reader.read(min(size, 65536) if size > 0 else 65536)


def fetch_slowly() -> None:
    """Fetch RAW into the store that `sys.argv` names, in a process that somebody will kill."""
    print("ready", flush=True)
    plan = plan_blobs(open_store(Path(sys.argv[1])), [Want(target=blob(), content=Slow(RAW))])
    (outcome,) = execute(plan, moved="received")
    print(outcome.action, outcome.bytes)


def child(path):
    process = start_function("test_assembly:fetch_slowly", path)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_killed_at_any_instant_it_converges(tmp_path):
    """Each kill may cost what was not yet on record, and no more; a wrong blob is never visible."""
    final = tmp_path / "blobs/sha256" / blob().digest.hex
    rng = random.Random(11)
    for _ in range(4):
        process = child(tmp_path)
        time.sleep(rng.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not final.exists() or final.read_bytes() == RAW
    out, _ = child(tmp_path).communicate()
    assert out.decode().split()[0] in ("received", "skipped", "reused")
    assert final.read_bytes() == RAW
    assert [path.name for path in final.parent.iterdir()] == [final.name]


def test_who_waits_for_another_process_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("epoch_oci.transfer.execute._BUSY_TOLD_SECONDS", 0.5)
    process, events = child(tmp_path), []
    until(lambda: list(tmp_path.glob("blobs/sha256/.*.part")))
    want = Want(target=blob(), content=BytesContent(RAW))
    (outcome,) = execute(plan_blobs(open_store(tmp_path), [want]), moved="received", on_event=events.append)
    assert process.communicate()[0].decode().split() == ["received", str(len(RAW))]
    assert (outcome.action, outcome.bytes) == ("reused", 0)
    waits = [event for event in events if event.event == "wait"]
    assert 1 <= len(waits) <= 8  # once, and again every half second; the other one takes two or more
    assert {(event.digest, event.message) for event in waits} == {
        (blob().digest, "another process is fetching this blob")
    }


def test_who_waits_can_be_interrupted(tmp_path):
    """The blob is held here; a pull waits for it, tells so once, and goes when it is asked to."""
    made = big_snapshot(len(RAW))
    put_snapshot(tmp_path / "store", made)
    pushed = run_cli("push", "big:v1", "oci:layout", "--store", "store", cwd=tmp_path)
    assert pushed.code == 0, pushed.err
    (raw,) = made.blobs.values()
    with open_store(tmp_path / "second").assemble(blob(raw)):
        process = start_cli("pull", "oci:layout", "--store", "second", "--progress", "json", cwd=tmp_path)
        line = next(line for line in process.stderr if b'"wait"' in line)
        assert b"another process is fetching this blob" in line
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert b'"wait"' not in rest
    again = run_cli("pull", "oci:layout", "--store", "second", cwd=tmp_path)
    assert again.code == 0, again.err


def test_two_processes_fetch_a_blob_once(tmp_path):
    first, second = child(tmp_path), child(tmp_path)
    results = [process.communicate()[0].split() for process in (first, second)]
    assert sum(int(count) for _, count in results) == len(RAW)
    assert (tmp_path / "blobs/sha256" / blob().digest.hex).read_bytes() == RAW


class TestLeftovers:
    """What broken runs leave is named by `verify`, and goes when nothing can come of it."""

    @pytest.fixture
    def left(self, tmp_path):
        """A store in which a run broke off that had half of a blob."""
        store = open_store(tmp_path)
        with store.assemble(blob()) as assembly:
            write_span(assembly, 0, len(RAW) // 2)
            assembly.settle(0, len(RAW) // 2)
        return store

    @staticmethod
    def hidden(path):
        return sorted(found.suffix for found in path.rglob(".epoch-oci*"))

    @staticmethod
    def next_run(path):
        """Another run writes something there, which tidies first."""
        other = noise("other", 1000)
        open_store(path).put(blob(other), BytesContent(other))

    def test_that_a_run_can_go_on_with_stay(self, left, tmp_path):
        self.next_run(tmp_path)
        assert self.hidden(tmp_path) == [".done", ".part"]
        with open_store(tmp_path).assemble(blob()) as assembly:
            assert assembly.resumed == len(RAW) // 2

    def test_of_a_blob_that_is_there_by_now_go(self, left, tmp_path):
        left.put(blob(), BytesContent(RAW))
        self.next_run(tmp_path)
        assert self.hidden(tmp_path) == []

    def test_of_a_blob_that_they_are_to_mend_stay(self, tmp_path):
        path = tmp_path / "blobs/sha256" / blob().digest.hex
        path.parent.mkdir(parents=True)
        path.write_bytes(b"?" + RAW[1:])
        os.utime(path, (1e9, 1e9))
        with open_store(tmp_path).assemble(blob()) as assembly:
            write_span(assembly, 0, len(RAW) // 2)
        self.next_run(tmp_path)
        assert self.hidden(tmp_path) == [".done", ".part"]

    @pytest.mark.parametrize("lost", [".done", ".part"])
    def test_of_which_half_is_lost_go(self, left, tmp_path, lost):
        (found,) = [path for path in tmp_path.rglob(".epoch-oci*") if path.suffix == lost]
        found.unlink()
        self.next_run(tmp_path)
        assert self.hidden(tmp_path) == []

    def test_that_are_old_go(self, left, tmp_path):
        for path in tmp_path.rglob(".epoch-oci*"):
            os.utime(path, (1e9, 1e9))
        self.next_run(tmp_path)
        assert self.hidden(tmp_path) == []

    def test_that_are_in_use_stay(self, tmp_path):
        with open_store(tmp_path).assemble(blob()) as assembly:
            write_span(assembly, 0, len(RAW) // 2)
            for path in tmp_path.rglob(".epoch-oci*"):
                os.utime(path, (1e9, 1e9))
                if path.suffix == ".done":
                    path.unlink()
            self.next_run(tmp_path)
            assert self.hidden(tmp_path) == [".part"]
            write_span(assembly, len(RAW) // 2, len(RAW))
            assert assembly.finish()

    def test_of_another_process_that_was_quicker_go_at_once(self, left, tmp_path):
        left.put(blob(), BytesContent(RAW))
        answers = iter((False, True))
        wants = [Want(target=blob(), content=BytesContent(RAW))]
        plan = plan_blobs(open_store(tmp_path), wants, present=lambda target: next(answers))
        (outcome,) = execute(plan, moved="received")
        assert outcome.bytes == 0 and self.hidden(tmp_path) == []

    def test_are_notes_of_an_audit(self, left, tmp_path):
        (tmp_path / "blobs/sha256/.epoch-oci-0123456789abcdef.tmp").write_bytes(b"x" * 5000)
        notes = [item for item in left.audit() if ".epoch-oci" in item.path]
        assert sorted(Path(item.path).suffix for item in notes) == [".done", ".part", ".tmp"]
        assert {item.severity for item in notes} == {"warning"}
        assert all(item.path.startswith("blobs/sha256/") for item in notes)

    def test_that_are_many_are_counted(self, left, tmp_path):
        for number in range(30):
            (tmp_path / f"blobs/sha256/.epoch-oci-{number:016x}.tmp").write_bytes(b"x")
        notes = [item for item in left.audit() if "run that broke off" in item.problem or "more such" in item.problem]
        assert len(notes) == 21 and "12 more such files" in notes[-1].problem


def stand_in(size: int = len(RAW)) -> Descriptor:
    return Descriptor(media_type="a/b", digest=Digest.of(b"nobody knows yet"), size=size)


@pytest.mark.parametrize("leftovers", [False, True], ids=["nothing", "part of it"])
def test_what_was_begun_under_a_stand_in_is_found_under_the_digest(directory, tmp_path, leftovers):
    """By whoever begins it, complete; it is called by its digest if it was to be."""
    if leftovers:
        with Assembly(directory, blob().digest.hex, blob(), "x") as other:
            write_span(other, 0, 10, b"?" * 10)
    with Assembly(directory, stand_in().digest.hex, stand_in(), "x") as assembly:
        write_span(assembly, 0, len(RAW))
        assert assembly.digest() == blob().digest and assembly.rename(assembly.digest())
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    with Assembly(directory, blob().digest.hex, blob(), "x") as found:
        assert found.resumed == len(RAW) and found.missing() == []
        assert found.finish()
    assert [path.name for path in tmp_path.iterdir()] == [blob().digest.hex]
    assert (tmp_path / blob().digest.hex).read_bytes() == RAW


def test_a_sweep_while_a_stand_in_is_renamed_harms_nothing(directory, tmp_path, monkeypatch):
    rename = os.rename

    def then_sweep(*names, **where) -> None:
        rename(*names, **where)
        sweep(directory)

    monkeypatch.setattr(os, "rename", then_sweep)
    with Assembly(directory, stand_in().digest.hex, stand_in(), "x") as assembly:
        write_span(assembly, 0, len(RAW))
        assert assembly.rename(assembly.digest())
    monkeypatch.undo()
    with Assembly(directory, blob().digest.hex, blob(), "x") as again:
        assert again.missing() == [] and again.finish()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {blob().digest.hex: RAW}


def test_a_stand_in_is_not_renamed_to_what_somebody_is_at(directory):
    with (
        Assembly(directory, blob().digest.hex, blob(), "x") as other,
        Assembly(directory, stand_in().digest.hex, stand_in(), "x") as assembly,
    ):
        write_span(assembly, 0, len(RAW))
        assert not assembly.rename(blob().digest)
        assembly.discard()
        write_span(other, 0, len(RAW))
        assert other.finish()


def test_what_is_written_without_a_start_counts_only_when_it_is_settled(directory):
    with Assembly(directory, "x", blob(), "x") as assembly:
        for offset in range(0, len(RAW), BLOCK):
            assembly.write(offset, RAW[offset : offset + BLOCK], None)
        assembly.settle_safely([(0, BLOCK), (BLOCK, 3 * BLOCK)])
        assert assembly.missing() == [] and assembly.settled() == [BLOCK, 3 * BLOCK]
    with Assembly(directory, "x", blob(), "x") as assembly:
        assert assembly.settled() == [BLOCK, 3 * BLOCK] and assembly.resumed == 3 * BLOCK
