"""Many snapshots from one place to another: look, plan, move, and take away what the source no longer has."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from typing import ClassVar

from epoch_oci.bulk.journal import Journal
from epoch_oci.bulk.results import Row, SyncReport
from epoch_oci.bulk.run import Course, Crew, Ended, Meter, Threads
from epoch_oci.bulk.select import Selection
from epoch_oci.bulk.sides import Entry, RegistrySide, Side, Unlisted, mounts_within, of_one_registry, removing, store_of
from epoch_oci.bulk.states import LeftOut, Rules, Survey, There, held, survey
from epoch_oci.bulk.union import Carry, SyncPlan, Wanted, plan, version_by_version
from epoch_oci.bulk.work import Done, Local, Manner
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import EpochOciError, NotFoundError, PolicyError, UsageError, counted
from epoch_oci.events import OnEvent, ignore, phase
from epoch_oci.flows.remove import Removable, removed
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.reference import is_fallback_tag
from epoch_oci.options import Checked
from epoch_oci.stores.epoch_store import EpochStore
from epoch_oci.stores.oci_layout import OciLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions(Checked):
    """What to sync and how. `jobs` are pieces under way at a time; `delete` takes away what the source has no more."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"jobs": (1, 64)}
    selection: Selection = field(default_factory=Selection)
    manner: Manner = field(default_factory=Manner)
    local: Local = field(default_factory=Local)
    journal: Journal = field(default_factory=lambda: Journal(None, ""))
    jobs: int = 8
    delete: bool = False
    dry_run: bool = False


CrewMaker = Callable[[Manner, OnEvent, Wanted], Crew]
"""Makes those who do the work, from how it is done, who hears of it, and a snapshot to try it on."""
ExitCode = Callable[[EpochOciError], int]


def sync(
    source: Side,
    target: Side,
    *,
    options: SyncOptions | None = None,
    exit_code: ExitCode = lambda error: 1,
    crew: CrewMaker | None = None,
    on_event: OnEvent = ignore,
) -> SyncReport:
    """Bring every snapshot of `source` that is meant to `target`; one's failure is its own and stands in its row.

    `exit_code` says what a failure would be alone. `crew` makes those who do the work, threads if it is not given.
    Raises what listing the source raises, PolicyError where `delete` would take everything away, and what a target
    raises that cannot be written at all.
    """
    options = options or SyncOptions()
    started = time.monotonic()
    _refuse_nested(source, target)
    report = SyncReport(source=source.where, target=target.where, dry_run=options.dry_run)
    _check_whole(target)
    found = _survey(source, target, options, on_event)
    _refuse_empty(found, source, options)
    journal = options.journal
    planned = plan(
        found.wanted,
        held(target, found.wanted, on_event=on_event),
        _homes(found, journal),
        mounts=mounts_within(target),
        one_registry=of_one_registry(source, target),
    )
    if any(item.in_chunks for item in planned.wanted):
        planned = version_by_version(planned, pushed=source.kind == "store")
    report.total, report.union, report.mounted, report.old = planned.total, planned.union, planned.mounted, found.old
    report.shared = sum(carry.blob.size for carry in planned.carries)
    report.warnings += _nothing(found, source)
    report.rows += [_there(item, target) for item in found.there]
    report.total += sum(row.size for row in report.rows)
    report.rows += [_left_out(item, target, exit_code) for item in found.left_out]
    if options.dry_run:
        report.bytes_moved = planned.moved
        report.rows += _foretold(planned, target)
        if options.delete:
            _delete(found, target, options, report, exit_code)
    else:
        with _catalogued(target, found, options, on_event) as listed:
            _bring(planned, found, source, target, options, report, exit_code, crew, on_event, listed)
            if options.delete:
                _delete(found, target, options, report, exit_code)
    # They end in any order; a report of two runs shall be alike.
    report.rows.sort(key=lambda row: (row.source or row.target, row.target))
    report.seconds = time.monotonic() - started
    return report


def _survey(source: Side, target: Side, options: SyncOptions, on_event: OnEvent) -> Survey:
    manner = options.manner
    rules = Rules(
        dialect=manner.dialect,
        part_size=manner.part_size,
        part_cache=options.local.cache,
        referrers=manner.referrers,
        chunked=manner.chunked,
        allow_loss=manner.allow_loss,
        force=manner.force,
    )
    return survey(source, target, options.selection, rules, options.journal, on_event=on_event)


def _check_whole(target: Side) -> None:
    """A target whose own list cannot be read fails all snapshots alike: said once, before anything is asked."""
    store = None if isinstance(target, RegistrySide) else store_of(target, Entry("", "", "", ""))
    if isinstance(store, OciLayout):
        store.check_target()
    elif isinstance(store, EpochStore):
        store.catalog()


def _homes(found: Survey, journal: Journal) -> dict[Digest, str]:
    """Where at the target blobs are, by what was seen there today, else by what earlier runs saw."""
    homes = dict(journal.homes)
    for item in found.there:
        homes.update(dict.fromkeys((blob.digest for blob in item.blobs), item.target.container))
    return homes


def _bring(
    planned: SyncPlan,
    found: Survey,
    source: Side,
    target: Side,
    options: SyncOptions,
    report: SyncReport,
    exit_code: ExitCode,
    crew: CrewMaker | None,
    on_event: OnEvent,
    listed: Callable[[str], None],
) -> None:
    if not planned.wanted:
        return
    # Nothing is opened for a sync that brings nothing: a target that may only be read is fine then.
    journal, meter = options.journal, Meter(on_event, len(planned.wanted))
    homes, notes = _homes(found, journal), dict[str, list[str]]()
    phase(on_event, "syncing")
    meter.begin(planned.moved)
    # Snapshots and their blobs share one bound: eight snapshots with sixteen transfers each are 128 connections.
    manner = replace(options.manner, jobs=options.manner.jobs or _inner_jobs(options.jobs, planned.at_once))
    threads = Threads(source, target, manner, options.local, meter.hear, options.jobs)
    hands: Crew = threads if crew is None else crew(manner, meter.hear, planned.wanted[0])

    def carried(carry: Carry, done: Done) -> None:
        report.bytes_moved += done.moved

    try:
        for ended in Course(planned, hands, homes, carried).run():
            row = _ended(ended, target, exit_code)
            report.rows.append(row)
            report.bytes_moved += row.moved
            _learn(ended, source, target, journal)
            if crew is not None and ended.done is not None:
                listed(ended.wanted.target.ref)
            meter.ended(ended)
            for text in ended.done.warnings if ended.done else ():
                notes.setdefault(text, []).append(ended.wanted.source.label)
    finally:
        # Also when it was interrupted: what was brought until then is there, and need not be found out again.
        journal.homes = homes
        journal.keep()
        hands.close()
        threads.close()
    report.warnings += _warned(notes)
    meter.end(report.bytes_moved)


def _inner_jobs(jobs: int, snapshots: int) -> int:
    """So that few large snapshots have as many transfers under way as many small ones."""
    return max(1, jobs // max(1, min(jobs, snapshots)))


@contextmanager
def _catalogued(
    target: Side, found: Survey, options: SyncOptions, on_event: OnEvent
) -> Iterator[Callable[[str], None]]:
    """Tags enter the catalog of a store in batches, with those that a run before this one did not get to list.

    An archive is written once, at the end.

    What is given notes what workers elsewhere have published, who leave the catalog to this process.
    """
    store = None if isinstance(target, RegistrySide) else store_of(target, Entry("", "", "", ""))
    if not isinstance(store, EpochStore | OciLayout) or not (found.wanted or found.there or options.delete):
        yield lambda _: None
        return
    with store.batch() as note:
        for item in found.there:
            note(item.target.ref)
        yield note
        if target.kind == "layout":
            phase(on_event, "writing the index")


def _learn(ended: Ended, source: Side, target: Side, journal: Journal) -> None:
    if ended.done is not None and ended.done.digest is not None and target.kind == "store" and source.kind != "store":
        journal.told[ended.wanted.pinned] = ended.done.digest


def _warned(notes: dict[str, list[str]]) -> Iterator[str]:
    """Thousands of snapshots have few different things to say."""
    for text, labels in notes.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        yield f"{labels[0]}{more}: {text}"


def _foretold(planned: SyncPlan, target: Side) -> list[Row]:
    return [
        Row(
            source=item.source.label,
            target=target.reference(item.target),
            repository=item.target.name,
            action="sync",
            size=item.size,
            moved=own,
            reused=item.size - own,
        )
        for item, own in zip(planned.wanted, planned.own, strict=True)
    ]


def _there(item: There, target: Side) -> Row:
    size = sum(blob.size for blob in item.blobs)
    return Row(
        source=item.source.label,
        target=target.reference(item.target),
        repository=item.target.name,
        action="there",
        digest=str(item.digest),
        size=size,
        reused=size,
    )


def _left_out(item: LeftOut, target: Side, exit_code: ExitCode) -> Row:
    return Row(
        source=item.source.label if item.source else "",
        target=target.reference(item.target) if item.target else "",
        repository=item.target.name if item.target else "",
        action="left-out" if item.source and item.target is None else "failed",
        error=item.error,
        exit_code=exit_code(item.error),
    )


def _ended(ended: Ended, target: Side, exit_code: ExitCode) -> Row:
    done, error = ended.done, ended.error
    return Row(
        source=ended.wanted.source.label,
        target=target.reference(ended.wanted.target),
        repository=ended.wanted.target.name,
        action="synced" if done else "failed",
        digest=str(done.digest) if done and done.digest else None,
        size=done.size if done else ended.wanted.size,
        moved=done.moved if done else 0,
        reused=done.reused if done else 0,
        seconds=ended.seconds,
        error=error,
        exit_code=exit_code(error) if error else None,
    )


def _refuse_nested(source: Side, target: Side) -> None:
    """What lands below the source would be a part of the source the next time. Raises UsageError."""
    if not (isinstance(source, RegistrySide) and isinstance(target, RegistrySide)):
        return
    if source.registry == target.registry and f"{target.prefix}/".startswith(f"{source.prefix}/".lstrip("/")):
        raise UsageError(
            f"{target.where} lies within {source.where}",
            object=target.where,
            hint="choose a prefix beside the source's",
        )


def _refuse_empty(found: Survey, source: Side, options: SyncOptions) -> None:
    # A source that lists nothing is more often a wrong word or a broken list than an empty place (reliability F21).
    if options.delete and not found.listed:
        raise PolicyError(
            f"{source.where} lists no snapshot at all, and --delete would take everything away",
            object=source.where,
            hint="look at the source; to empty a target, use `prune` or `rm`",
        )


def _nothing(found: Survey, source: Side) -> list[str]:
    """That nothing is brought deserves a word: a prefix or a pattern may be misspelt."""
    if found.wanted or found.there or found.left_out or found.old:
        return []
    if not found.listed:
        return [f"{source.where} lists no snapshot"]
    count = counted(len(found.listed), "snapshot")
    return [f"none of the {count} of {source.where} is meant by --include, --exclude and --no-all-tags"]


def _delete(found: Survey, target: Side, options: SyncOptions, report: SyncReport, exit_code: ExitCode) -> None:
    """Take away what the source has not, of all that the patterns take in. Referrers go with what they refer to."""
    # What could not be listed may be there: nothing is concluded from its absence (reliability F21).
    if not found.whole:
        report.warnings.append("nothing was deleted, for not all of the source could be listed")
        return
    entries = list(_surplus(found, target, options.selection, report))
    if options.dry_run:
        report.rows += [
            Row(source="", target=target.reference(entry), repository=entry.name, action="delete") for entry in entries
        ]
        return
    with removing(target, entries):
        outcomes = removed([Removable(store_of(target, entry), entry.ref) for entry in entries], dry_run=False)
    for entry, (_, error) in zip(entries, outcomes, strict=True):
        wrong = error if not isinstance(error, NotFoundError) else None  # somebody else has removed it
        report.rows.append(
            Row(
                source="",
                target=target.reference(entry),
                repository=entry.name,
                action="failed" if wrong else "deleted",
                error=wrong,
                exit_code=exit_code(wrong) if wrong else None,
            )
        )


def _surplus(found: Survey, target: Side, selection: Selection, report: SyncReport) -> Iterator[Entry]:
    kept = found.listed | {item.target.label for item in found.left_out if item.target}
    for entry in _present(found, target):
        if isinstance(entry, Unlisted):
            report.warnings.append(f"the target could not be listed whole: {entry.error.message}")
        elif entry.label not in kept and selection.takes(entry.label) and not is_fallback_tag(entry.tag):
            yield entry


def _present(found: Survey, target: Side) -> Iterator[Entry | Unlisted]:
    """What the target holds. Without a catalog only repositories that the source knows can be looked at."""
    try:
        entries = list(target.entries())
    except NotFoundError:
        if not isinstance(target, RegistrySide):
            return
        names = {label.rpartition(":")[0] for label in found.listed}
        entries = list(target.below(tuple(sorted(names))))
    yield from entries
