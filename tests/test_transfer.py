"""Contents made of contents, plans, and the pool that carries them out."""

import io
import threading
import time
from contextlib import contextmanager

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from snapshots import make_snapshot, open_store, put_snapshot
from support.waiting import PATIENCE, at_once

from epoch_oci.errors import ContentError, NetworkError, NotFoundError
from epoch_oci.flows.verify import VerifyOptions, verify_snapshots
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import TITLE
from epoch_oci.oci.verifying import BLOCK, VerifyingReader
from epoch_oci.stores.base import BytesContent, FileTarget, Limits
from epoch_oci.transfer.content import CancelledError, JoinedContent, SliceContent, WatchedContent
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, cut_late, in_parallel, plan_blobs, plan_files, require
from epoch_oci.transfer.pool import Climb, GrowingPool


def descriptor(content: bytes) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=Digest.of(content), size=len(content))


class MemorySink:
    """The smallest real sink: verified content by digest."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.asked: list[Digest] = []
        self.mounted: list[tuple[Digest, str]] = []
        self.mountable: set[str] = set()
        self.lock = threading.Lock()

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        with self.lock:
            self.asked.append(target.digest)
        return target.digest in self.blobs and len(self.blobs[target.digest]) == target.size

    def content(self, target: Descriptor) -> BytesContent:
        if target.digest not in self.blobs:
            raise NotFoundError(str(target.digest))
        return BytesContent(self.blobs[target.digest])

    has = holds

    def put(self, target: Descriptor, content) -> None:
        with content.open() as reader:
            raw = b"".join(VerifyingReader(reader, target).blocks())
        self.blobs[target.digest] = raw

    def mount(self, target: Descriptor, repository: str) -> bool:
        self.mounted.append((target.digest, repository))
        return repository in self.mountable

    def limits(self) -> Limits:
        return Limits()

    def check_write(self) -> None:
        pass

    def openness(self, blob: Descriptor | None = None) -> None:
        return None

    def resolve(self, name: str) -> Document:
        raise NotFoundError(name)

    def publish(self, name: str, document: Document, *, replace: bool = False) -> None:
        raise AssertionError


def read_all(content, *span: int) -> bytes:
    with content.open(*span) as reader:
        return b"".join(iter(lambda: reader.read(7), b""))


@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(0, 60), st.one_of(st.none(), st.integers(0, 60)))
def test_joined_content_reads_as_the_concatenation(pieces, start, length):
    whole = b"".join(pieces)
    content = JoinedContent([BytesContent(piece) for piece in pieces])
    assert content.size == len(whole)
    assert read_all(content, start, length) == whole[start : None if length is None else start + length]


@given(st.binary(min_size=1, max_size=60), st.data())
def test_slice_content_stays_inside_its_slice(whole, data):
    offset = data.draw(st.integers(0, len(whole)))
    size = data.draw(st.integers(0, len(whole) - offset))
    start = data.draw(st.integers(0, size))
    length = data.draw(st.one_of(st.none(), st.integers(0, 80)))
    inner = whole[offset : offset + size]
    content = SliceContent(BytesContent(whole), offset, size)
    assert read_all(content, start, length) == inner[start : None if length is None else start + length]


def test_parts_of_a_blob_join_to_the_blob():
    whole = bytes(range(256)) * 41
    parts = [
        SliceContent(BytesContent(whole), offset, min(1000, len(whole) - offset))
        for offset in range(0, len(whole), 1000)
    ]
    assert read_all(JoinedContent(parts)) == whole


def test_watched_content_reports_offsets_and_stops():
    seen: list[tuple[int, int]] = []
    stop = threading.Event()
    content = WatchedContent(BytesContent(b"x" * 20), lambda offset, count: seen.append((offset, count)), stop)
    with content.open(5) as reader:
        assert reader.read(10) == b"x" * 10
        stop.set()
        with pytest.raises(CancelledError):
            reader.read(1)
    assert seen == [(15, 10)]


def test_a_plan_asks_once_for_each_digest_and_skips_what_is_there():
    sink, here, gone = MemorySink(), b"here", b"gone"
    sink.blobs[Digest.of(here)] = here
    wants = [Want(target=descriptor(raw), content=BytesContent(raw)) for raw in (here, gone, gone)]
    plan = plan_blobs(sink, wants)
    assert sorted(sink.asked) == sorted({Digest.of(here), Digest.of(gone)})
    assert [item.step for item in plan.items] == ["skip", "move"]
    assert (plan.size, plan.to_move) == (8, 4)


def test_execute_moves_only_what_is_missing_and_reports_it():
    sink, contents = MemorySink(), [b"a" * 10, b"b" * 3_000_000, b""]
    sink.blobs[Digest.of(contents[0])] = contents[0]
    events = []
    plan = plan_blobs(sink, [Want(target=descriptor(raw), content=BytesContent(raw)) for raw in contents])
    outcomes = execute(plan, moved="sent", jobs=2, on_event=events.append)
    assert [(outcome.action, outcome.bytes) for outcome in outcomes] == [
        ("skipped", 0),
        ("sent", 3_000_000),
        ("sent", 0),
    ]
    assert set(sink.blobs.values()) == set(contents)
    assert events[0].event == "plan" and events[-1].event == "done"
    done = {event.digest: event.action for event in events if event.event == "blob-done"}
    assert done == {Digest.of(raw): action for raw, action in zip(contents, ("skipped", "sent", "sent"), strict=True)}


def test_a_declined_mount_becomes_a_transfer():
    sink, first, second = MemorySink(), b"first", b"second"
    wants = [Want(target=descriptor(raw), content=BytesContent(raw)) for raw in (first, second)]
    plan = plan_blobs(sink, wants, mount_from=["acme/one", "acme/two"])
    assert [item.step for item in plan.items] == ["mount", "mount"]
    assert plan.to_move == 0
    sink.mountable = {"acme/two"}
    assert [outcome.action for outcome in execute(plan, moved="sent")] == ["mounted", "mounted"]
    assert not sink.blobs
    sink.mountable = set()
    assert [outcome.action for outcome in execute(plan, moved="sent")] == ["sent", "sent"]
    assert len(sink.blobs) == 2


class Blocking:
    """Content that waits for a signal, then hands out endless blocks."""

    size = 1 << 40

    def __init__(self) -> None:
        self.started = threading.Event()

    @contextmanager
    def open(self, start=0, length=None):
        self.started.set()

        class Reader:
            def read(self, size=-1, /):
                time.sleep(0.001)
                return b"z"

        yield Reader()


class Failing:
    size = 5

    def __init__(self, after: threading.Event) -> None:
        self.after = after

    @contextmanager
    def open(self, start=0, length=None):
        assert self.after.wait(PATIENCE)
        raise NetworkError("the line is dead")
        yield


def test_the_first_error_stops_the_others_and_is_the_one_raised():
    sink, endless = MemorySink(), Blocking()
    big = Descriptor(media_type="a/b", digest=Digest.of(b"big"), size=endless.size)
    small = Descriptor(media_type="a/b", digest=Digest.of(b"small"), size=5)
    plan = plan_blobs(sink, [Want(target=big, content=endless), Want(target=small, content=Failing(endless.started))])
    with at_once(), pytest.raises(NetworkError, match="the line is dead"):
        execute(plan, moved="sent", jobs=2)
    assert not sink.blobs


def test_altered_content_is_refused_by_the_sink():
    sink = MemorySink()
    plan = plan_blobs(sink, [Want(target=descriptor(b"right"), content=BytesContent(b"wrong"))])
    with pytest.raises(ContentError) as caught:
        execute(plan, moved="sent")
    assert caught.value.code == "DIGEST"
    assert not sink.blobs


def test_require_names_every_missing_blob_before_anything_moves():
    targets = [descriptor(raw) for raw in (b"1", b"2", b"3", b"4", b"5")]
    names = {target.digest: f"file-{index}" for index, target in enumerate(targets)}
    sink = MemorySink()
    for raw in (b"1", b"2", b"3", b"4", b"5"):
        sink.blobs[Digest.of(raw)] = raw
    require(sink, targets, names)
    sink.blobs = {targets[0].digest: b"1"}
    with pytest.raises(NotFoundError) as caught:
        require(sink, targets, names)
    assert "file-1" in str(caught.value) and "and 1 more" in str(caught.value)


@pytest.mark.parametrize(("content", "how"), [(b"", "fewer"), (b"ab", "fewer"), (b"abcd", "more"), (b"a" * 99, "more")])
def test_a_blob_of_another_size_is_wrong_and_not_absent(content, how):
    target, sink = descriptor(b"abc"), MemorySink()
    sink.blobs[target.digest] = content
    with pytest.raises(ContentError, match=f"file is there, and has {how} than the 3 bytes") as caught:
        require(sink, [target], {target.digest: "file"})
    assert caught.value.code == "SIZE" and caught.value.object == str(target.digest)
    assert caught.value.hint and "epoch-oci verify" in caught.value.hint


class Denies(MemorySink):
    """Says that it has nothing, and notes how much of what it has is asked for."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self._content, self.read = BytesContent(raw), []

    def has(self, target, *, anew=False):
        return False

    def content(self, target):
        return self

    def open(self, start=0, length=None):
        self.read.append((start, length))
        return self._content.open(start, length)


@pytest.mark.parametrize(("raw", "read"), [(b"a" * 1000, (999, 2)), (b"", (0, 2))])
def test_two_bytes_are_enough_to_see_whether_the_size_is_right(raw, read):
    sink = Denies(raw)
    with pytest.raises(NotFoundError):
        require(sink, [descriptor(raw)], {})
    assert sink.read == [read]


def test_a_part_that_is_cut_on_the_way_is_called_as_its_carrier_is():
    raw = b"0123456789"
    sink = MemorySink()
    sink.mountable = {"elsewhere"}
    carriers = [
        Descriptor(media_type="x/part", digest=Digest.of(b""), size=size, annotations=titled)
        for size, titled in ((6, {TITLE: "disk.001"}), (4, {TITLE: "disk.002"}))
    ]
    late = cut_late(
        sink, BytesContent(raw), descriptor(raw), carriers, lambda table: None, title="disk", mount_from=("elsewhere",)
    )
    item = late.item(1, Digest.of(raw[6:]), blake3(raw[6:]).digest())
    assert (item.title, item.target.size, item.target.digest) == ("disk.002", 4, Digest.of(raw[6:]))
    assert item.unasked and item.step == "mount" and item.mount is not None and item.mount()
    assert sink.mounted == [(item.target.digest, "elsewhere")]
    with item.content.open() as reader:
        assert reader.read(99) == raw[6:]
    assert late.part_size == 6 and not sink.asked


class Trickle(io.BytesIO):
    """A reader that hands out less than it is asked for."""

    def read(self, size=-1, /):
        return super().read(1)


def test_short_reads_change_nothing():
    raw = b"short reads"
    reader = VerifyingReader(Trickle(raw), descriptor(raw))
    assert b"".join(reader.blocks()) == raw


def test_an_error_while_planning_does_not_wait_for_the_other_questions():
    targets = [descriptor(bytes([index])) for index in range(40)]
    let_go, asked = threading.Event(), []

    def present(target: Descriptor) -> bool:
        asked.append(target)
        if target is targets[0]:
            raise NetworkError("the registry is gone")
        return let_go.wait(PATIENCE)

    try:
        with at_once(), pytest.raises(NetworkError):
            in_parallel(present, targets, 4)
    finally:
        let_go.set()
    time.sleep(0.2)
    assert len(asked) < 10  # what was queued is never asked


def test_an_error_while_verifying_does_not_wait_for_the_other_blobs(tmp_path):
    put_snapshot(tmp_path, made := make_snapshot())
    store, let_go, opened = open_store(tmp_path), threading.Event(), threading.Event()

    class Held(BytesContent):
        @contextmanager
        def open(self, start=0, length=None):
            if opened.is_set():
                let_go.wait(PATIENCE)
            opened.set()
            raise NetworkError("the store is gone")
            yield

    class Source:
        resolve, has = store.resolve, store.has

        def content(self, target: Descriptor):
            return Held(b"")

    try:
        with at_once(), pytest.raises(NetworkError):
            verify_snapshots(Source(), [made.key], options=VerifyOptions(jobs=2))
    finally:
        let_go.set()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def climbed(rate_of, seconds: int, most: int = 16) -> list[int]:
    """The numbers of workers over time, on a line that carries `rate_of(workers)` bytes a second."""
    clock, moved, seen = Clock(), 0, []
    climb = Climb(4, most, clock)
    for _ in range(seconds):
        clock.now += 1.0
        moved += rate_of(climb.workers)
        seen.append(climb.heard(moved))
    return seen


def test_transfers_climb_to_the_most_where_each_connection_has_a_rate_of_its_own():
    assert climbed(lambda workers: 25 * workers, 8)[-1] == 16
    assert climbed(lambda workers: 25 * workers, 8, most=5)[-1] == 5


def test_a_step_that_did_not_pay_is_taken_back_and_tried_again_much_later():
    seen = climbed(lambda workers: 1000, 19)
    assert set(seen[:1]) == {8}  # nothing is known yet: one step up
    assert set(seen[1:]) == {4}
    assert 8 in climbed(lambda workers: 1000, 30)[20:]


def test_silence_is_no_reason_for_more_or_fewer_transfers():
    clock = Clock()
    climb = Climb(4, 16, clock)
    for _ in range(50):
        clock.now += 1.0
        assert climb.heard(0) == 4


def test_a_pool_grows_while_its_tasks_wait_and_gives_surplus_threads_up():
    pool, gate, running = GrowingPool(1, "test"), threading.Event(), threading.Semaphore(0)

    def task() -> None:
        running.release()
        gate.wait(30)

    futures = [pool.submit(task) for _ in range(5)]
    assert running.acquire(timeout=30)
    assert not running.acquire(timeout=0.05)  # one at a time
    pool.resize(4)
    assert all(running.acquire(timeout=30) for _ in range(3))
    pool.resize(1)
    gate.set()
    for future in futures:
        future.result(30)
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(task)


def test_a_pool_that_is_shut_down_cancels_what_it_has_not_begun():
    pool, gate, begun = GrowingPool(1, "test"), threading.Event(), threading.Event()
    first, second = pool.submit(lambda: begun.set() or gate.wait(30)), pool.submit(gate.wait, 30)
    assert begun.wait(30)
    pool.shutdown(cancel_futures=True)
    assert second.cancelled()
    gate.set()
    assert first.result(30) is True


def test_a_run_asks_for_no_more_transfers_than_the_other_side_bears():
    class Narrow(MemorySink):
        def limits(self) -> Limits:
            return Limits(jobs=3)

    assert plan_blobs(Narrow(), []).most == 3
    assert plan_blobs(MemorySink(), []).most == 16


def test_the_largest_blobs_are_moved_first():
    """The last one to begin is small then, and no thread waits long for it."""

    class Ordered(MemorySink):
        def put(self, target: Descriptor, content) -> None:
            super().put(target, content)
            order.append(target.size)

    order: list[int] = []
    wants = [Want(target=descriptor(bytes(size)), content=BytesContent(bytes(size))) for size in (5, 900, 70, 0, 80)]
    execute(plan_blobs(Ordered(), wants), moved="sent", jobs=1)
    assert order == [900, 80, 70, 5, 0]


def test_a_slow_blob_is_fetched_in_several_spans_at_a_time(tmp_path, monkeypatch):
    """Each span but the first waits for another one to be under way: alone, none would ever come to its end."""
    monkeypatch.setattr("epoch_oci.transfer.assemble.SMALLEST_SPAN", BLOCK)
    monkeypatch.setattr("epoch_oci.transfer.assemble._PROBE_SECONDS", 0.0)
    monkeypatch.setattr("epoch_oci.transfer.assemble.FAST", 1 << 60)
    raw = bytes(range(256)) * (8 * BLOCK // 256)
    met = threading.Event()

    class Spans(BytesContent):
        def ranged(self) -> bool:
            return True

        @contextmanager
        def open(self, start: int = 0, length: int | None = None):
            if start:
                met.set()
            with BytesContent.open(self, start, length) as reader:
                yield Waiting(reader)

    class Waiting:
        def __init__(self, reader) -> None:
            self.reader, self.read_already = reader, False

        def read(self, size: int = -1, /) -> bytes:
            if self.read_already:
                assert met.wait(PATIENCE), "nobody else came to help"
            self.read_already = True
            return self.reader.read(size)

    want = Want(target=descriptor(raw), content=Spans(raw))
    (outcome,) = execute(plan_blobs(open_store(tmp_path), [want]), moved="received", jobs=4)
    assert (outcome.action, outcome.bytes) == ("received", len(raw))
    assert (tmp_path / "blobs/sha256" / want.target.digest.hex).read_bytes() == raw


class MemoryFiles:
    """A place for files that notes what it was asked."""

    def __init__(self, held: tuple[str, ...]) -> None:
        self.held, self.said = held, []

    def holds(self, target):
        return target.name in self.held

    def check(self, targets, *, replace=False):
        self.said.append(("check", [target.name for target in targets], replace))

    def write(self, target, content, *, replace=False):
        self.said.append(("write", target.name, content, replace))

    @contextmanager
    def assemble(self, target, *, replace=False):
        self.said.append(("assemble", target.name, replace))
        yield None


@pytest.mark.parametrize("replace", [True, False])
def test_files_are_planned_as_the_place_says(replace):
    sink = MemoryFiles(held=("a",))
    content = BytesContent(b"x")
    wants = [(FileTarget(name=name, blob=descriptor(name.encode())), content) for name in ("a", "b")]
    plan = plan_files(sink, wants, replace=replace)
    assert [(item.title, item.step, item.present()) for item in plan.items] == [
        ("a", "skip", True),
        ("b", "move", False),
    ]
    plan.items[1].put(content)
    with plan.items[1].assemble():
        pass
    assert sink.said == [("check", ["b"], replace), ("write", "b", content, replace), ("assemble", "b", replace)]
