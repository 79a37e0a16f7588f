"""Carrying a plan out: a pool of transfers, each blob verified by the sink before it is visible."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Executor, Future, wait
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, ConflictError, ContentError, LocalIOError, NetworkError, NotFoundError
from epoch_oci.events import Action, Event, Kind, OnEvent, ignore
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.base import Scattered
from epoch_oci.transfer.content import CancelledError, WatchedContent, hashing, unheard
from epoch_oci.transfer.cuts import part_digests
from epoch_oci.transfer.plan import Item, Late, Plan, Seed
from epoch_oci.transfer.pool import MOST, START, Climb, GrowingPool
from epoch_oci.transfer.throttle import Throttle

if TYPE_CHECKING:
    from epoch_oci.disk.assembly import Assembly

_SHUTDOWN_SECONDS = 4.0
_REPORT_SECONDS = 0.1
_REPORT_AT_LEAST_SECONDS = 1.0
"""However slowly bytes come, progress is reported as often as this."""
_BUSY_SECONDS = 0.2
"""How long to wait before looking again whether a blob is still held by another process."""
_BUSY_TOLD_SECONDS = 30.0
_CUTTERS = 2
"""Large files hashed at a time: one core each."""
_PARTS_WAITING = 2
"""Parts hashed before there is a transfer for them."""
_ASSEMBLED_FROM = 4 * BLOCK
"""Smaller blobs are moved in one piece: there is nothing to resume."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one blob; `bytes` is how many were moved for it."""

    item: Item
    action: Action
    bytes: int


def execute(
    plan: Plan,
    *,
    moved: Action,
    jobs: int | None = None,
    on_event: OnEvent = ignore,
    executor: Executor | None = None,
    throttle: Throttle | None = None,
) -> tuple[Outcome, ...]:
    """Move what the plan says, `jobs` blobs at a time, the largest first; `moved` is the word for a moved blob.

    `jobs` None is as many as the line is worth: few to begin with, more while the total rate climbs with them.

    Returns one outcome for each item, in the plan's order, then one for each part that was cut on the way. The first
    error stops the rest and is raised; what was verified until then stays. `executor` runs the transfers elsewhere (its
    workers must reach source and sink). `throttle` paces all that is moved; give the same one to several calls that
    shall share its rate.
    """
    if executor is not None:
        outcomes = _Run(plan, on_event, moved, jobs or MOST, executor, throttle).all()
    else:
        climb = Climb(_first_workers(plan), most=plan.most) if jobs is None else None
        pool = GrowingPool(climb.workers if climb else jobs or 1, "transfer")
        try:
            outcomes = _Run(plan, on_event, moved, jobs or plan.most, pool, throttle, climb).all()
        finally:
            pool.shutdown(cancel_futures=True)
    on_event(Event(event="done", bytes=sum(outcome.bytes for outcome in outcomes), total=plan.size))
    return outcomes


def _first_workers(plan: Plan) -> int:
    """Parts out of packs are small, a round trip each: twice as many at a time to begin with."""
    return START * 2 if any(isinstance(item.content, Scattered) for item in plan.items) else START


def _is_counted(item: Item) -> bool:
    """Whether `Plan.to_move` has its bytes: of what is cut on the way it has all, for nobody was asked about any."""
    return item.unasked or (item.step == "move" and not item.seeds)


class _Counter:
    """Bytes that passed, in either direction, of all transfers together."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes += count


class _Run:
    def __init__(
        self,
        plan: Plan,
        on_event: OnEvent,
        moved: Action,
        jobs: int,
        pool: Executor,
        throttle: Throttle | None,
        climb: Climb | None = None,
    ) -> None:
        self._plan = plan
        self._to_move = plan.to_move
        self._lock = threading.Lock()
        self._on_event = on_event
        self._moved = moved
        self._jobs = jobs
        self._executor = pool
        self._climb = climb
        self._counted = _Counter()
        self._throttle = throttle
        self._cancelled = threading.Event()
        self._parts: dict[Digest, Future[Outcome]] = {}

    def all(self) -> tuple[Outcome, ...]:
        plan = self._plan
        self._learned(0)
        # The largest first: begun last it would run alone at the end, with the line half empty.
        order = sorted(range(len(plan.items)), key=lambda index: -plan.items[index].target.size)
        futures: dict[int, Future[Outcome]] = {}
        # Threads of their own: in the pool of the transfers they would wait for the parts that wait for them.
        cutters = GrowingPool(_CUTTERS, "cut")
        try:
            for index in order:
                futures[index] = self._executor.submit(self._one, plan.items[index])
            cutting = [
                cutters.submit(self._cut, late, {item.target.digest for item in plan.items}) for late in plan.late
            ]
            self._wait({*futures.values(), *cutting})
        except BaseException:
            self._cancelled.set()
            every = [*futures.values(), *self._parts.values()]
            for future in every:
                future.cancel()
            # A transfer sees `_cancelled` at its next block; one that hangs in a socket is not waited for (reliability
            # F2).
            wait(every, timeout=_SHUTDOWN_SECONDS)
            raise
        finally:
            cutters.shutdown(cancel_futures=True)
        known = [futures[index].result() for index in range(len(plan.items))]
        return (*known, *(future.result() for future in self._parts.values()))

    def _wait(self, pending: set[Future[Any]]) -> None:
        """Wait for all, or raise the first error; wakes up often enough for a signal to be seen."""
        seen: set[Digest] = set()
        while pending:
            # Python hands a signal to this thread alone, and only while it runs.
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
            self._resize()
            for future in done:
                if (error := future.exception()) is not None:
                    raise error
            # Parts come to be while others are under way; each is waited for as soon as it is seen.
            parts = {digest: self._parts[digest] for digest in list(self._parts) if digest not in seen}
            seen |= parts.keys()
            pending |= set(parts.values())

    def _cut(self, late: Late, known: set[Digest]) -> None:
        """Learn the parts of a blob one after another, and have each sent while the next one is being hashed."""
        told, size = hashing(self._on_event, late.blob.digest, late.title), late.blob.size
        content = WatchedContent(late.content, lambda at, count: told(at, size) if count else None, self._cancelled)
        digests: list[Digest] = []
        for digest, seal in part_digests(content, late.blob, late.part_size):
            item = late.item(len(digests), digest, seal)
            digests.append(digest)
            if digest not in known and digest not in self._parts:  # parts may be alike: zeros
                self._parts[digest] = self._executor.submit(self._one, item)
            else:
                self._learned(-item.target.size)
            self._wait_for_room()
        late.learned(PartTable(size=late.part_size, digests=tuple(digests)))

    def _wait_for_room(self) -> None:
        """Parts that were hashed are in the page cache, and shall still be there when it is their turn to be sent."""
        while not self._cancelled.is_set():
            waiting = [part for part in list(self._parts.values()) if not part.running() and not part.done()]
            # Else hashing, which is faster than any line, would be through with the file before the first part was
            # sent.
            if len(waiting) <= _PARTS_WAITING:
                return
            wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)

    def _resize(self) -> None:
        if self._climb is not None and isinstance(self._executor, GrowingPool):
            self._executor.resize(self._climb.heard(self._counted.bytes))

    def _one(self, item: Item) -> Outcome:
        if self._cancelled.is_set():
            raise CancelledError
        if item.step == "skip":
            return self._unmoved(item, "skipped")
        if item.unasked and item.present():
            return self._unmoved(item, "skipped")
        # Before any seed: the registry copies nothing, and this machine reads nothing.
        if item.step == "mount" and item.mount is not None and item.mount():
            return self._unmoved(item, "mounted")
        if any(self._reused(item, seed) for seed in item.seeds):
            return self._unmoved(item, "reused")
        if not _is_counted(item):
            self._learned(item.target.size)
        self._report("blob-start", item, 0)
        moved = self._move(item)
        if isinstance(item.content, Scattered):
            # What came out of packs is less than the file: chunks are compressed, and some were at hand.
            moved = item.content.fetched
        # All of it was left from an earlier run, or at hand: then nothing was moved for it.
        action = self._moved if moved or not item.target.size else "reused"
        self._report("blob-done", item, item.target.size, action)
        return Outcome(item, action, moved)

    def _unmoved(self, item: Item, action: Action) -> Outcome:
        """What became of a blob for which no byte was moved."""
        if _is_counted(item):
            self._learned(-item.target.size)
        self._report("blob-done", item, item.target.size, action)
        return Outcome(item, action, 0)

    def _move(self, item: Item) -> int:
        """Move a blob; returns the bytes that were moved. What an earlier run left of it is not moved again."""
        large = item.target.size >= _ASSEMBLED_FROM or item.begun or item.fill is not None
        if item.assemble is not None and large:
            with self._entered(item) as assembly:
                if assembly is not None:
                    return self._assemble(item, assembly)
        kept = 0

        def resumed(count: int) -> None:
            nonlocal kept
            self._learned(kept - count)
            kept = count
            self._report("blob-start", item, count)

        item.put(self._watched(item, self._progress(item), resumed))
        return item.target.size - kept

    def _reused(self, item: Item, seed: Seed) -> bool:
        """Take the blob from `seed`. False, with a warning, when that fails: a seed is never a reason to fail."""
        if seed.failed:
            return False
        try:
            content = WatchedContent(seed.source.content(item.target), unheard, self._cancelled)
            with self._entered(item) as assembly:
                # Another process may have brought it while this one waited for its turn.
                if not item.present():
                    from epoch_oci.transfer.seeds import reuse

                    reuse(item, content, assembly)
        except (ContentError, NotFoundError, LocalIOError) as error:
            self._warn(f"{seed.source.where} has no good copy of {item.title or item.target.digest}: {error.message}")
        except (NetworkError, AccessError) as error:
            seed.failed = True
            self._warn(f"{seed.source.where} is of no use as a seed: {error.message}")
        else:
            return True
        return False

    @contextmanager
    def _entered(self, item: Item) -> "Iterator[Assembly | None]":
        """The blob's assembly, once no other process is at it; None where the sink has no such thing."""
        from epoch_oci.disk.assembly import BusyError

        told = -_BUSY_TOLD_SECONDS
        while (assembling := item.assemble() if item.assemble else None) is not None:
            try:
                assembly = assembling.__enter__()
            except BusyError:
                # Told now and then, so that a wait of an hour does not look like a program that hangs (reliability
                # F19).
                if time.monotonic() - told >= _BUSY_TOLD_SECONDS:
                    told = time.monotonic()
                    self._report("wait", item, 0, message="another process is fetching this blob")
                if self._cancelled.wait(_BUSY_SECONDS):
                    raise CancelledError from None
            else:
                # Entered by hand above, for only entering may raise BusyError; from here on it is left as any other
                # context.
                with ExitStack() as stack:
                    stack.push(assembling)
                    yield assembly
                return
        yield None

    def _assemble(self, item: Item, assembly: "Assembly") -> int:
        from epoch_oci.transfer.assemble import assemble, scatter

        if item.present():  # another process was at it meanwhile
            assembly.discard()
            return 0
        report = self._progress(item)
        content = self._watched(item, lambda _: report(assembly.covered))
        moved = item.target.size - assembly.resumed
        if assembly.resumed:
            assembly.on_hashed = hashing(self._on_event, item.target.digest, item.title)
            self._learned(-assembly.resumed)
            self._report("blob-start", item, assembly.resumed)
        if item.fill is not None:
            item.fill(content, assembly)
            return moved
        try:
            if isinstance(item.content, Scattered):
                finished = scatter(item.content, content, assembly, self._jobs, self._executor)
            else:
                finished = assemble(content, assembly, self._jobs, self._executor)
        except ContentError:
            # All bytes are of this run: then the source is what is wrong, and fetching again would bring the same.
            if not assembly.resumed:
                assembly.discard()
                raise
            self._learned(assembly.resumed)
            self._report("blob-start", item, 0)
            finished = self._again(item, content, assembly)
            moved = item.target.size
        # Somebody was quicker; the same blob is as good as ours, and anything else stands in its way.
        if not finished and not item.present():
            raise ConflictError(f"{item.title} was put there by another process", object=item.title)
        return moved

    def _again(self, item: Item, content: WatchedContent, assembly: "Assembly") -> bool:
        """What an earlier run left was not what it claimed to be (a power cut): fetch all of it, once."""
        assembly.discard()
        item.put(content)
        return True

    def _watched(
        self, item: Item, moved: Callable[[int], None], resumed: Callable[[int], None] | None = None
    ) -> WatchedContent:
        def heard(offset: int, count: int) -> None:
            self._counted.add(count)
            moved(offset)

        hashed = hashing(self._on_event, item.target.digest, item.title)
        return WatchedContent(item.content, heard, self._cancelled, self._throttle, resumed, hashed)

    def _progress(self, item: Item) -> Callable[[int], None]:
        last = [time.monotonic(), 0.0]

        def moved(offset: int) -> None:
            now = time.monotonic()
            waited, gained = now - last[0], abs(offset - last[1])
            if waited >= _REPORT_SECONDS and gained and (gained >= BLOCK or waited >= _REPORT_AT_LEAST_SECONDS):
                last[:] = [now, float(offset)]
                self._report("blob-progress", item, offset)

        return moved

    def _learned(self, change: int) -> None:
        """Tell how many bytes are to move, which are so many more, or less, than was known before."""
        with self._lock:
            self._to_move += change
            self._on_event(Event(event="plan", bytes=max(0, self._to_move), total=self._plan.size))

    def _warn(self, text: str) -> None:
        self._on_event(Event(event="warning", message=text))

    def _report(
        self, event: Kind, item: Item, count: int, action: Action | None = None, *, message: str | None = None
    ) -> None:
        self._on_event(
            Event(
                event=event,
                digest=item.target.digest,
                title=item.title,
                bytes=count,
                total=item.target.size,
                action=action,
                message=message,
            )
        )
