"""`sync` and `prune`: many snapshots at once."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from epoch_oci.cli import flags
from epoch_oci.cli.arguments import output_file, read_document, write_file
from epoch_oci.cli.exit_codes import exit_code
from epoch_oci.cli.streams import is_terminal
from epoch_oci.errors import BatchError, LocalIOError, UsageError, counted

if TYPE_CHECKING:
    from epoch_oci.bulk.results import SyncReport
    from epoch_oci.bulk.rounds import RoundEnd
    from epoch_oci.bulk.run import Crew
    from epoch_oci.bulk.select import Selection
    from epoch_oci.bulk.sides import Side
    from epoch_oci.bulk.sync import CrewMaker, SyncOptions
    from epoch_oci.bulk.union import Wanted
    from epoch_oci.bulk.work import Local, Manner
    from epoch_oci.bulk.worker import Words
    from epoch_oci.cli.session import Run
    from epoch_oci.events import OnEvent
    from epoch_oci.transfer.throttle import Throttle

_LONGEST_LIST = 16 << 20
"""Bytes of --repositories-from: a registry of 100,000 names has 5 MB of them."""


def sync(
    run: "Run",
    source: flags.SyncSource,
    target: flags.SyncTarget,
    include: flags.Include = (),
    exclude: flags.Exclude = (),
    newer_than: flags.NewerThan = None,
    all_tags: flags.AllTags = True,
    no_all_tags: flags.NoAllTags = False,
    rename: flags.Rename = (),
    repository: flags.Repository = (),
    repositories_from: flags.RepositoriesFrom = None,
    dialect: flags.Dialect = "cocoon",
    part_size: flags.PartSize = "auto",
    chunked: flags.Chunked = False,
    verify_bases: flags.VerifyBases = False,
    referrers: flags.Referrers = True,
    no_referrers: flags.NoReferrers = False,
    allow_loss: flags.AllowLoss = False,
    allow_public: flags.AllowPublic = False,
    force: flags.Force = False,
    delete: flags.Delete = False,
    dry_run: flags.DryRun = False,
    report: flags.Report = None,
    every: flags.Every = None,
    health_file: flags.Health = None,
    metrics: flags.Metrics = None,
    scheduler: flags.Scheduler = None,
    workers: flags.Workers = None,
    jobs: flags.SyncJobs = 8,
    limit_rate: flags.LimitRate = None,
) -> None:
    """Bring all snapshots of one place to another: stores, registries, layouts.

    Every distinct blob moves once; what is there already costs one small request. A snapshot that fails is listed, and
    the others go on (exit 10). Kill it and run it again as often as you like.
    """
    from epoch_oci.bulk.select import rename_of
    from epoch_oci.bulk.work import Manner
    from epoch_oci.cli.arguments import part_size as size_of_parts

    if report is not None:
        report = output_file("--report", report, source, target)
    if health_file is not None:
        health_file = output_file("--health-file", health_file, source, target)
    if every is None and (health_file or metrics):
        raise UsageError("--health-file and --metrics are for a mirror", hint="say how often with --every, such as 10m")
    every_tag = all_tags and not no_all_tags
    selection = partial(_selection, include, exclude, every_tag, tuple(map(rename_of, rename)), newer_than)
    selection()  # a wrong moment is known before anything is opened
    run.progress.begin("opening")
    manner = Manner(
        dialect=dialect,
        part_size=size_of_parts(part_size),
        allow_loss=allow_loss,
        allow_public=allow_public,
        force=force,
        referrers=referrers and not no_referrers,
        chunked=chunked,
        verify_bases=verify_bases,
    )
    local = _local(run, limit_rate)
    options = partial(_options, run, selection, manner, local, jobs=jobs, delete=delete, dry_run=dry_run)
    ends = (source, target, (*repository, *_listed(run, repositories_from)))
    _refuse_unused(run, ends)
    once = partial(_round, run, ends, options, report)
    with _cluster(run, scheduler, workers, ends, jobs, limit_rate) as crew:
        if every is not None:
            _mirror(run, partial(once, crew), every, health_file, metrics)
        result = once(crew)
    run.progress.close()
    _show(run, result)


def _refuse_unused(run: "Run", ends: tuple[str, str, Sequence[str]]) -> None:
    """What is typed of how artifacts are made, where none is made, would be taken for what is done. Raises UsageError.

    What the environment says of it is about pushing.
    """
    from epoch_oci.bulk.sides import open_side

    typed = [name for name in ("chunked", "verify_bases", "dialect", "part_size", "allow_loss") if run.typed(name)]
    if not typed:
        return
    source, target, named = ends
    here = open_side(source, connection=run.connection, repositories=tuple(named))
    there = open_side(target, connection=run.connection, create=True)
    if here.kind == "store" and there.kind != "store":
        return
    flag = f"--{typed[0].replace('_', '-')}"
    raise UsageError(
        f"{flag} says how an artifact is made of a snapshot in a store, and none is made here: "
        f"{here.where} is a {here.kind}, and {there.where} is a {there.kind}",
        object=flag,
        hint="leave it out" + ("; `copy` changes the form of one artifact" if typed[0] == "chunked" else ""),
    )


def _selection(
    include: Sequence[str],
    exclude: Sequence[str],
    all_tags: bool,
    renames: tuple[tuple[re.Pattern[str], str], ...],
    newer_than: str | None,
) -> "Selection":
    """Which snapshots are meant; a span is one until now, whenever that is."""
    from datetime import UTC, datetime

    from epoch_oci.bulk.select import Selection, moment_from

    newer = moment_from(newer_than, "--newer-than", lambda: datetime.now(UTC)) if newer_than else None
    return Selection(
        include=tuple(include), exclude=tuple(exclude), all_tags=all_tags, renames=renames, newer_than=newer
    )


def _local(run: "Run", limit_rate: str | None) -> "Local":
    from epoch_oci.bulk.work import Local

    state = run.settings.state_directory
    return Local(run.settings.cache_directory, state / "packs" if state else None, _throttle(limit_rate))


def _options(
    run: "Run",
    selection: "Callable[[], Selection]",
    manner: "Manner",
    local: "Local",
    there: "Side",
    *,
    jobs: int,
    delete: bool,
    dry_run: bool,
) -> "SyncOptions":
    from epoch_oci.bulk.journal import Journal
    from epoch_oci.bulk.sync import SyncOptions

    return SyncOptions(
        selection=selection(),
        manner=manner,
        local=local,
        journal=Journal(run.settings.state_directory, there.where),
        jobs=jobs,
        delete=delete,
        dry_run=dry_run,
    )


@contextmanager
def _cluster(
    run: "Run",
    scheduler: str | None,
    workers: int | None,
    ends: tuple[str, str, Sequence[str]],
    jobs: int,
    limit_rate: str | None,
) -> "Iterator[CrewMaker | None]":
    """Who does the work: None for threads of this process, else a cluster's workers after a preflight."""
    if scheduler is None and workers is None:
        yield None
        return
    if scheduler is not None and workers is not None:
        raise UsageError("--scheduler and --workers exclude each other", hint="one cluster does all of it")
    if run.settings.password_stdin or (run.settings.username and not run.settings.environ.get("EPOCH_OCI_USERNAME")):
        raise UsageError(
            "credentials of the command line do not travel to workers",
            hint="log in where they run, or set EPOCH_OCI_USERNAME and EPOCH_OCI_PASSWORD there",
        )
    if ends[1].startswith("oci-archive:"):
        raise UsageError(
            f"{ends[1]} is written once, by one process, and not by workers",
            object=ends[1],
            hint="leave --workers and --scheduler out, or sync to a layout in a directory: oci:DIR",
        )
    from epoch_oci.bulk.cluster import Cluster, hush

    if not run.settings.debug:
        hush()
    cluster = Cluster.at(scheduler) if scheduler is not None else Cluster.of(workers or 1, jobs)
    words = _words(run, ends, jobs, limit_rate)

    def crew(manner: "Manner", heard: "OnEvent", sample: "Wanted") -> "Crew":
        return cluster.crew(words, manner, heard, sample)

    try:
        yield crew
    finally:
        cluster.close()


def _words(run: "Run", ends: tuple[str, str, Sequence[str]], jobs: int, limit_rate: str | None) -> "Words":
    """What every worker is told. Paths are absolute, for it works elsewhere."""
    from uuid import uuid4

    from epoch_oci.bulk.sides import absolute
    from epoch_oci.bulk.worker import Words
    from epoch_oci.cli.arguments import rate
    from epoch_oci.cli.session import connection_here, hidden_here, options_for_workers

    source, target, named = ends
    return Words(
        source=absolute(source),
        target=absolute(target),
        repositories=tuple(named),
        connect=connection_here,
        options=options_for_workers(run.settings),
        rate=None if limit_rate is None else rate(limit_rate),
        run=f"epoch-oci-{uuid4().hex[:12]}",
        leases=jobs,
        hide=hidden_here,
    )


def prune(
    run: "Run",
    location: flags.Prunable = None,
    store: flags.Store = None,
    keep_last: flags.KeepLast = None,
    keep_within: flags.KeepWithin = None,
    keep: flags.KeepGlob = (),
    grace: flags.Grace = "24h",
    cache: flags.PrunedCache = None,
    cache_size: flags.CacheSize = "10GiB",
    yes: flags.Yes = False,
    dry_run: flags.DryRun = False,
) -> None:
    """Remove tags by a policy, and content that nothing refers to.

    On a terminal it shows what would go, and asks. Without --keep-last or --keep-within no tag goes. In a registry only
    tags are removed: its own clean-up frees the bytes.
    """
    if cache is not None:
        if location is not None:
            raise UsageError("--cache names a directory in place of a location", object="--cache")
        _prune_cache(run, Path(cache), cache_size, dry_run=dry_run)
        return
    from epoch_oci.bulk.prune import Policy, carry_out, look
    from epoch_oci.bulk.select import span_of
    from epoch_oci.bulk.sides import open_single
    from epoch_oci.cli.arguments import named_store
    from epoch_oci.cli.commands.artifacts import confirm, warn_of
    from epoch_oci.cli.render import prune_lines

    if keep and keep_last is None and keep_within is None:
        raise UsageError("--keep says what a policy spares, and there is none", hint="add --keep-last or --keep-within")
    policy = Policy(
        last=keep_last, within=span_of(keep_within, "--keep-within") if keep_within is not None else None, keep=keep
    )
    seconds = 0.0 if grace == "0" else span_of(grace, "--grace").total_seconds()
    side = open_single(location or named_store(store), connection=run.connection)
    found = look(side, policy, seconds)
    if dry_run:
        run.result(found.to_json(), lambda: prune_lines(found))
        return
    lines = prune_lines(found)
    # What is only left alone, and why, is no act that anybody could refuse.
    acts = [line.removeprefix("would ") for line in lines if line.startswith("would ")]
    if acts:
        confirm(run, acts, yes=yes, shown=lines)
        found = carry_out(side, found, seconds)
    else:
        found.dry_run = False
    run.result(found.to_json(), lambda: prune_lines(found))
    if found.failures:
        errors = [error for _, error in found.failures]
        warn_of(run, errors)
        raise BatchError(f"{len(errors)} of {counted(len(errors) + len(found.removed), 'tag')} not removed", errors)


def _prune_cache(run: "Run", cache: Path, size: str, *, dry_run: bool) -> None:
    """Without asking: what goes is a copy, and fetched again by whoever reads it."""
    from epoch_oci.bulk.prune import prune_cache
    from epoch_oci.cli.arguments import cache_size
    from epoch_oci.cli.render import size_text

    found = prune_cache(cache.absolute(), cache_size(size), dry_run=dry_run)
    word = "would be freed" if dry_run else "freed"
    run.result(found.to_json(), lambda: [f"{found.location}: {size_text(found.frees)} {word}"])


def _mirror(
    run: "Run", once: Callable[[], "SyncReport"], every: str, health: str | None, metrics: str | None
) -> NoReturn:
    """Round after round, until a signal ends it."""
    from epoch_oci.bulk.rounds import HealthFile, Metrics, rounds
    from epoch_oci.bulk.select import span_of
    from epoch_oci.cli.render import round_line

    span = span_of(every, "--every").total_seconds()
    # A port that is taken is an error before the first round, and not after it.
    served = Metrics(metrics) if metrics else None
    watchers: list[Callable[[RoundEnd], None]] = [HealthFile(Path(health))] if health else []
    watchers += [served] if served is not None else []
    if served is not None:
        run.note(f"metrics are served at port {served.port}")
    told: set[str] = set()
    for ended in rounds(once, span):
        # Else the last round would be told of every ten seconds until the next one.
        run.progress.rest()
        for watch in watchers:
            try:
                watch(ended)
            except LocalIOError as error:  # whoever looks at the file sees how old it is
                run.warn(str(error))
        run.line(ended.to_json(), round_line(ended))
        now = _said_of(ended)
        for text in now:
            if text not in told:
                run.warn(text)
        told = set(now)
    raise AssertionError("rounds never end")


def _said_of(ended: "RoundEnd") -> list[str]:
    """What a round has to say beside its sums; a mirror repeats none of it as long as it stays so."""
    if ended.report is None:
        return []
    return [*ended.report.warnings, *(f"{row.source or row.target}: {row.error}" for row in ended.report.failures)]


def _round(
    run: "Run",
    ends: tuple[str, str, Sequence[str]],
    options: "Callable[[Side], SyncOptions]",
    page: str | None,
    crew: "CrewMaker | None",
) -> "SyncReport":
    """Both ends are opened anew: a mirror outlives tokens, addresses and what was learnt of a repository."""
    from epoch_oci.bulk.page import page as html
    from epoch_oci.bulk.sides import open_side
    from epoch_oci.bulk.sync import sync as sync_all

    source, target, named = ends
    here = open_side(source, connection=run.connection, repositories=tuple(named))
    there = open_side(target, connection=run.connection, create=True)
    result = sync_all(here, there, options=options(there), exit_code=exit_code, crew=crew, on_event=run.listen)
    result.retries = run.progress.retries
    if page is not None:
        write_file(page, html(result.to_json()).encode())
    return result


def _show(run: "Run", result: "SyncReport") -> None:
    from epoch_oci.cli.render import sync_lines

    for warning in result.warnings:
        run.warn(warning)
    run.result(result.to_json(), lambda: sync_lines(result))
    if failures := [row.error for row in result.rows if row.error is not None]:
        word = "would fail" if result.dry_run else "failed"
        raise BatchError(f"{len(failures)} of {counted(len(result.rows), 'snapshot')} {word}", failures)


def _listed(run: "Run", path: str | None) -> Sequence[str]:
    """The lines of --repositories-from; empty ones and those that begin with # are none."""
    if path is None:
        return ()
    if path == "-" and (is_terminal(sys.stdin) or run.settings.password_stdin):
        raise UsageError("--repositories-from - reads standard input", hint="pipe in the names, one a line")
    raw = read_document(path, _LONGEST_LIST)
    if len(raw) > _LONGEST_LIST:
        raise UsageError(f"--repositories-from: {path} is longer than {_LONGEST_LIST >> 20} MiB", object=path)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UsageError(f"--repositories-from: {path} is no text", object=path) from None
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _throttle(limit: str | None) -> "Throttle | None":
    from epoch_oci.cli.arguments import rate
    from epoch_oci.transfer.throttle import Throttle

    return None if limit is None else Throttle(rate(limit))
