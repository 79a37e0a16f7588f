"""Carrying a plan out: a pool of transfers, each blob verified by the sink before it is visible."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from epoch_oci.errors import ConflictError, ContentError
from epoch_oci.events import Action, Event, OnEvent, ignore
from epoch_oci.oci.verify import BLOCK
from epoch_oci.stores.base import Assembly
from epoch_oci.transfer.assemble import assemble
from epoch_oci.transfer.content import CancelledError, WatchedContent
from epoch_oci.transfer.plan import Item, Plan

_SHUTDOWN_SECONDS = 4.0
_REPORT_SECONDS = 0.1
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
    jobs: int = 4,
    on_event: OnEvent = ignore,
    executor: Executor | None = None,
) -> tuple[Outcome, ...]:
    """Move what the plan says, `jobs` blobs at a time, the largest first; `moved` is the word for a moved blob.

    Returns one outcome for each item, in the plan's order. The first error stops the rest and is raised; what was
    verified until then stays. `executor` runs the transfers elsewhere (its workers must reach source and sink).
    """
    on_event(Event(event="plan", bytes=plan.to_move, total=plan.size))
    if executor is not None:
        outcomes = _Run(on_event, moved, jobs, executor).all(plan)
    else:
        pool = ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="transfer")
        try:
            outcomes = _Run(on_event, moved, jobs, pool).all(plan)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    on_event(Event(event="done", bytes=sum(outcome.bytes for outcome in outcomes), total=plan.size))
    return outcomes


class _Run:
    def __init__(self, on_event: OnEvent, moved: Action, jobs: int, executor: Executor) -> None:
        self._on_event = on_event
        self._moved = moved
        self._jobs = jobs
        self._executor = executor
        self._cancelled = threading.Event()

    def all(self, plan: Plan) -> tuple[Outcome, ...]:
        order = sorted(range(len(plan.items)), key=lambda index: -plan.items[index].target.size)
        futures: dict[int, Future[Outcome]] = {}
        try:
            for index in order:
                futures[index] = self._executor.submit(self._one, plan.items[index])
            self._wait(list(futures.values()))
        except BaseException:
            self._cancelled.set()
            for future in futures.values():
                future.cancel()
            wait(futures.values(), timeout=_SHUTDOWN_SECONDS)
            raise
        return tuple(futures[index].result() for index in range(len(plan.items)))

    def _wait(self, futures: Sequence[Future[Outcome]]) -> None:
        """Wait for all, or raise the first error; wakes up often enough for a signal to be seen."""
        pending: set[Future[Outcome]] = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
            for future in done:
                if (error := future.exception()) is not None:
                    raise error

    def _one(self, item: Item) -> Outcome:
        if self._cancelled.is_set():
            raise CancelledError
        if item.step == "skip":
            self._report("blob-done", item, item.target.size, "skipped")
            return Outcome(item, "skipped", 0)
        if item.step == "mount" and item.mount is not None and item.mount():
            self._report("blob-done", item, item.target.size, "mounted")
            return Outcome(item, "mounted", 0)
        self._report("blob-start", item, 0)
        moved = self._move(item)
        action = self._moved if moved or not item.target.size else "reused"
        self._report("blob-done", item, item.target.size, action)
        return Outcome(item, action, moved)

    def _move(self, item: Item) -> int:
        """Move a blob; returns the bytes that were moved. What an earlier run left of it is not moved again."""
        if item.assemble is not None and item.target.size >= _ASSEMBLED_FROM:
            assembling = item.assemble()
            if assembling is not None:
                with assembling as assembly:
                    return self._assemble(item, assembly)
        item.put(WatchedContent(item.content, self._progress(item), self._cancelled))
        return item.target.size

    def _assemble(self, item: Item, assembly: Assembly) -> int:
        if item.present():  # another process was at it meanwhile
            return 0
        report = self._progress(item)
        content = WatchedContent(item.content, lambda _: report(assembly.covered), self._cancelled)
        moved = item.target.size - assembly.resumed
        try:
            finished = assemble(content, assembly, self._jobs, self._executor)
        except ContentError:
            if not assembly.resumed:
                assembly.discard()
                raise
            finished = self._again(item, content, assembly)
            moved = item.target.size
        if not finished and not item.present():
            raise ConflictError(f"{item.title} was put there by another process", object=item.title)
        return moved

    def _again(self, item: Item, content: WatchedContent, assembly: Assembly) -> bool:
        """What an earlier run left was not what it claimed to be (a power cut): fetch all of it, once."""
        assembly.discard()
        item.put(content)
        return True

    def _progress(self, item: Item) -> Callable[[int], None]:
        last = [time.monotonic(), 0.0]

        def moved(offset: int) -> None:
            now = time.monotonic()
            if now - last[0] >= _REPORT_SECONDS and abs(offset - last[1]) >= BLOCK:
                last[:] = [now, float(offset)]
                self._report("blob-progress", item, offset)

        return moved

    def _report(self, event: str, item: Item, count: int, action: Action | None = None) -> None:
        self._on_event(
            Event(
                event=event,  # type: ignore[arg-type]
                digest=item.target.digest,
                title=item.title,
                bytes=count,
                total=item.target.size,
                action=action,
            )
        )
