"""Carrying a plan out: shared blobs ahead, then snapshot by snapshot, and no failure is anybody else's."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import field, replace
from typing import Protocol

from epoch_oci.bulk.sides import Side
from epoch_oci.bulk.union import Carry, Place, SyncPlan, Wanted
from epoch_oci.bulk.work import BlobTask, Done, Local, Manner, SnapshotTask, do_blob, do_snapshot
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, EpochOciError, LocalIOError, NetworkError, NotFoundError
from epoch_oci.events import Event, OnEvent
from epoch_oci.oci.digest import Digest

Task = BlobTask | SnapshotTask
_SOURCES = 3
"""How many snapshots that share a blob are asked for it, should the first not have it."""
_IN_A_ROW = 5
"""Failures of the network or the disk one after another, with no success between, after which nothing is tried."""
_HOPELESS = (NetworkError, LocalIOError)


class Crew(Protocol):
    """Whoever does the pieces: threads of this process, or workers elsewhere."""

    @property
    def slots(self) -> int:
        """How many pieces are under way at a time."""

    def submit(self, task: Task) -> "Future[Done]":
        """Begin a piece; the future raises what it raises."""

    def close(self) -> None:
        """Nothing more is to be done."""


@dataclass(slots=True)
class Threads:
    """A crew of threads. `heard` gets their events, each with the snapshot that it belongs to."""

    source: Side
    target: Side
    manner: Manner
    local: Local
    heard: OnEvent
    slots: int = 4
    _pool: ThreadPoolExecutor | None = field(default=None, init=False)

    def submit(self, task: Task) -> "Future[Done]":
        """As `Crew.submit`."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=self.slots, thread_name_prefix="sync")
        return self._pool.submit(perform, task, self.source, self.target, self.manner, self.local, self.heard)

    def close(self) -> None:
        """Begin nothing more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def perform(task: Task, source: Side, target: Side, manner: Manner, local: Local, heard: OnEvent) -> Done:
    """Do a piece. Its events are passed on with the name of the snapshot; plans, phases and ends of parts are not."""
    label = task.source.label if isinstance(task, SnapshotTask) else f"blob {task.digest.short()}"

    def listen(event: Event) -> None:
        if event.event not in ("plan", "phase", "done"):
            heard(replace(event, snapshot=label))

    if isinstance(task, BlobTask):
        return do_blob(task, source, target, manner, local, listen)
    return do_snapshot(task, source, target, manner, local, listen)


@dataclass(frozen=True, slots=True)
class Ended:
    """A snapshot that is through, one way or the other."""

    wanted: Wanted
    done: Done | None
    error: EpochOciError | None
    seconds: float


class Course:
    """One run over a plan. `homes` says where blobs are, and learns; `carried` hears of every shared blob."""

    def __init__(
        self, plan: SyncPlan, crew: Crew, homes: dict[Digest, str], carried: Callable[[Carry, Done], None]
    ) -> None:
        self._plan = plan
        self._placed = set(plan.placed)
        self._arriving: set[Place] = set()
        self._turns = plan.turns or (None,) * len(plan.wanted)
        self._taken: set[str | None] = set()
        self._parts: dict[Digest, tuple[Digest, ...]] = {}
        self._crew = crew
        self._homes = homes
        self._carried = carried
        self._carries = deque(plan.carries)
        self._blockers: list[set[Digest]] = [set() for _ in plan.wanted]
        for carry in plan.carries:
            for index in carry.users:
                self._blockers[index].add(carry.blob.digest)
        self._waiting = dict.fromkeys(range(len(plan.wanted)))
        self._poison: dict[int, EpochOciError] = {}
        self._under_way: dict[Future[Done], tuple[Carry | int, float]] = {}
        self._in_a_row = 0

    def run(self) -> Iterator[Ended]:
        """Every snapshot as it ends. What is raised here is nobody's failure: a bug, or an interruption."""
        # What is shared and nobody waits for any more is not brought.
        while self._waiting or self._under_way:
            yield from self._begin()
            if not self._under_way:
                continue
            # Woken up now and then, or a signal would wait for the end of a long transfer.
            done, _ = wait(self._under_way, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                what, started = self._under_way.pop(future)
                error = future.exception()
                # A bug is nobody's row: it ends the sync and shows where it comes from.
                if error is not None and not isinstance(error, EpochOciError):
                    raise error
                if isinstance(what, Carry):
                    self._blob_ended(what, future, error)
                else:
                    yield self._snapshot_ended(what, future, error, started)

    def _begin(self) -> Iterator[Ended]:
        """Fill the free slots: base images, then snapshots that wait for nothing more, then what else is shared."""
        while len(self._under_way) < self._crew.slots:
            # Base images hold up most snapshots, so they go before any snapshot that could already go.
            first = bool(self._carries) and self._carries[0].blob.base and self._in_a_row < _IN_A_ROW
            index = None if first else next((item for item in self._waiting if self._is_ready(item)), None)
            if index is not None:
                del self._waiting[index]
                if (error := self._poison.get(index) or self._given_up(index)) is not None:
                    yield Ended(self._plan.wanted[index], None, error, 0.0)
                    continue
                # What it brings is mounted by those that come after; who needs the same waits rather than sending it as
                # well.
                self._arriving |= self._missing(index)
                self._taken |= {self._turns[index]} - {None}
                self._submit(self._snapshot(index), index)
            elif self._carries and self._in_a_row < _IN_A_ROW:
                carry = self._carries.popleft()
                self._submit(self._blob(carry), carry)
            elif self._carries:
                self._unblock(self._carries.popleft())
            else:
                return

    def _is_ready(self, index: int) -> bool:
        """Whether a snapshot waits for nothing: no turn, no shared blob, and none that another one just mounts."""
        if self._turns[index] in self._taken:
            return False
        return not self._blockers[index] and self._missing(index).isdisjoint(self._arriving)

    def _missing(self, index: int) -> set[Place]:
        """What a snapshot's container is not known to have."""
        wanted = self._plan.wanted[index]
        return {(wanted.target.container, blob.digest) for blob in wanted.blobs} - self._placed

    def _submit(self, task: Task, what: "Carry | int") -> None:
        self._under_way[self._crew.submit(task)] = (what, time.monotonic())

    def _snapshot(self, index: int) -> SnapshotTask:
        wanted = self._plan.wanted[index]
        digests = [digest for blob in wanted.blobs for digest in (blob.digest, *self._parts.get(blob.digest, ()))]
        homes = tuple((digest, self._homes[digest]) for digest in digests if digest in self._homes)
        return SnapshotTask(wanted.source, wanted.target, wanted.pinned, homes)

    def _blob(self, carry: Carry) -> BlobTask:
        users = [self._plan.wanted[index] for index in carry.users]
        first = next(item for item in users if item.target.container == carry.container)
        sources = tuple((item.source, item.pinned) for item in users[:_SOURCES])
        return BlobTask(carry.blob.digest, carry.blob.size, first.target, sources, carry.blob.secret)

    def _blob_ended(self, carry: Carry, future: "Future[Done]", error: EpochOciError | None) -> None:
        """A blob that is wrong or missing fails all that need it; otherwise each of them may try for itself."""
        self._unblock(carry)
        if error is None:
            done = future.result()
            # Parts have digests of their own, and are what the snapshot's manifest will name.
            self._parts[carry.blob.digest] = tuple(digest for digest in done.placed if digest != carry.blob.digest)
            for digest in {carry.blob.digest, *done.placed}:
                self._homes[digest] = carry.container
                self._placed.add((carry.container, digest))
            self._in_a_row = 0
            self._carried(carry, done)
            return
        self._count(error)
        # Wrong or missing it stays for everybody; any other failure may not come again.
        if isinstance(error, ContentError | NotFoundError):
            self._poison |= dict.fromkeys(carry.users, error)

    def _unblock(self, carry: Carry) -> None:
        for index in carry.users:
            self._blockers[index].discard(carry.blob.digest)

    def _snapshot_ended(self, index: int, future: "Future[Done]", error: EpochOciError | None, started: float) -> Ended:
        wanted, seconds = self._plan.wanted[index], time.monotonic() - started
        self._arriving -= self._missing(index)
        self._taken.discard(self._turns[index])
        if error is not None:
            self._count(error)
            return Ended(wanted, None, error, seconds)
        self._in_a_row = 0
        for blob in wanted.blobs:
            self._homes.setdefault(blob.digest, wanted.target.container)
            self._placed.add((wanted.target.container, blob.digest))
        return Ended(wanted, future.result(), None, seconds)

    def _count(self, error: EpochOciError) -> None:
        # A snapshot that is wrong says nothing about the line; a network that fails five times in a row is gone.
        self._in_a_row = self._in_a_row + 1 if isinstance(error, _HOPELESS) else 0
        if isinstance(error, _HOPELESS):
            self._last = error

    def _given_up(self, index: int) -> EpochOciError | None:
        if self._in_a_row < _IN_A_ROW:
            return None
        return type(self._last)(f"not tried, after {self._in_a_row} failures in a row: {self._last.message}")


class Meter:
    """The events of a whole sync out of those of its pieces: one total, and how many snapshots are through."""

    def __init__(self, on_event: OnEvent, snapshots: int) -> None:
        self._on_event = on_event
        self._snapshots = snapshots
        self._lock = threading.Lock()
        self._ended = 0
        self._total = 0
        self._resumed: dict[tuple[str | None, str, str | None], int] = {}

    def begin(self, to_move: int) -> None:
        """The plan is made: `to_move` bytes."""
        self._total = to_move
        self._on_event(Event(event="plan", bytes=to_move, total=to_move, snapshots=self._snapshots))

    def hear(self, event: Event) -> None:
        """An event of a piece. What an earlier run left of a blob is no part of what is to move."""
        self._on_event(event)
        if event.event != "blob-start" or event.digest is None:
            return
        key = (event.snapshot, str(event.digest), event.title)
        with self._lock:
            change = self._resumed.pop(key, 0) - event.bytes
            if event.bytes:
                self._resumed[key] = event.bytes
            self._total = max(0, self._total + change)
            if change:
                self._on_event(Event(event="plan", bytes=self._total, total=self._total, snapshots=self._snapshots))

    def ended(self, ended: Ended) -> None:
        """A snapshot is through."""
        with self._lock:
            self._ended += 1
        error = ended.error
        self._on_event(
            Event(
                event="snapshot-done",
                snapshot=ended.wanted.source.label,
                message=None if error is None else str(error),
                bytes=ended.done.moved if ended.done else 0,
                total=ended.wanted.size,
                snapshots=self._ended,
            )
        )

    def end(self, moved: int) -> None:
        """All is through."""
        self._on_event(Event(event="done", bytes=moved, total=self._total, snapshots=self._ended))
