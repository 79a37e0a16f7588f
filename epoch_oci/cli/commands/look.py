"""`inspect`, `verify` and `ls`: looking, never changing."""

import sys
from typing import TYPE_CHECKING

from epoch_oci.cli import flags
from epoch_oci.cli.arguments import bare_host, named_store, place_of
from epoch_oci.cli.streams import is_terminal
from epoch_oci.errors import ContentError, NotFoundError, UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run
    from epoch_oci.flows.inspect import Inspection
    from epoch_oci.locate import ArtifactPlace, SnapshotPlace


def inspect(run: "Run", location: flags.Location, store: flags.Store = None) -> None:
    """Show what a snapshot is made of.

    Kind, files, sizes, digests, the VM's resources, who wrote it, and what is missing.
    """
    from epoch_oci.flows.inspect import inspect_artifact, inspect_snapshot
    from epoch_oci.locate import SnapshotPlace

    place = place_of(run, location, store)
    if isinstance(place, SnapshotPlace):
        if place.key is None:
            raise UsageError(
                f"{location} is a whole store",
                object=location,
                hint=f"name a snapshot: `epoch-oci inspect NAME:TAG --store {location}`, or list them with `ls`",
            )
        found = inspect_snapshot(place.store, place.key)
    else:
        found = inspect_artifact(place.store, place.named())
    _show_card(run, found)


def _show_card(run: "Run", found: "Inspection") -> None:
    """JSON, coloured on a terminal, plain elsewhere."""
    from epoch_oci.cli.render import card_lines, print_card

    if run.settings.json or run.settings.quiet or not is_terminal(sys.stdout):
        run.result(found.to_json(), lambda: card_lines(found))
    else:
        print_card(found)


def verify(
    run: "Run",
    location: flags.LocationOrStore,
    store: flags.Store = None,
    fast: flags.Fast = False,
    round_trip: flags.RoundTrip = False,
    rebuild: flags.Rebuild = False,
    jobs: flags.Jobs = None,
) -> None:
    """Check that everything is there and intact.

    Every byte is hashed again, unless --fast. A store and a layout are checked whole.
    """
    from epoch_oci.api.look import verify_place
    from epoch_oci.cli.render import verification_lines
    from epoch_oci.flows.verify import VerifyOptions

    run.progress.begin("opening")
    options = VerifyOptions(fast=fast, round_trip=round_trip, rebuild=rebuild, jobs=jobs)
    place = place_of(run, location, store)
    check = verify_place(place, options, run.listen)
    run.progress.close()
    run.result(check.to_json(), lambda: verification_lines(check, fast=fast))
    if not check.ok:
        # The findings are out already: this line says that there are any, and where to look.
        first = check.findings[0]
        raise ContentError(
            f"{check.location}: {_wrong(len(check.findings))} {first.object}",
            code=first.code,
            object=first.object,
            hint="the findings are on standard output",
        )


def ls(
    run: "Run",
    location: flags.OptionalLocation = None,
    store: flags.Store = None,
    long: flags.Long = False,
    all_: flags.All = False,
) -> None:
    """List snapshots of a store, tags of a repository, or repositories of a registry."""
    from epoch_oci.locate import SnapshotPlace

    if (host := bare_host(location, store)) is not None:
        _list_repositories(run, host)
        return
    place = place_of(run, location or named_store(store), store)
    if isinstance(place, SnapshotPlace):
        _list_snapshots(run, place, location if place.key else None, every=all_)
    else:
        _list_tags(run, place, long=long, every=all_)


def _wrong(count: int) -> str:
    return "one thing is wrong, with" if count == 1 else f"{count} things are wrong, the first with"


def _list_snapshots(run: "Run", place: "SnapshotPlace", word: str | None, *, every: bool) -> None:
    from epoch_oci.cli.render import listing_lines
    from epoch_oci.flows.listing import list_snapshots
    from epoch_oci.oci.digest import shown
    from epoch_oci.oci.reference import is_fallback_tag

    rows = list_snapshots(place.store, word)
    if word is None and not every:  # a modern Epoch is a registry, and keeps what it was sent
        rows = [row for row in rows if not is_fallback_tag(row.key.tag)]
    if word is not None and not rows:
        raise NotFoundError(f"{place.where} holds no snapshot {shown(word)}", object=word)
    for row in rows:
        if row.problem is not None:
            run.warn(f"{row.key}: {row.problem}")
    if not rows and not run.settings.quiet:
        run.note(f"{place.where} holds no snapshots")
    value = {"location": place.where, "snapshots": [row.to_json() for row in rows]}
    run.result(value, lambda: listing_lines(rows))


def _list_tags(run: "Run", place: "ArtifactPlace", *, long: bool, every: bool) -> None:
    from epoch_oci.oci.reference import is_fallback_tag
    from epoch_oci.stores.base import Layout, full_name

    if place.name is not None:
        raise UsageError(
            f"{full_name(place.store, place.name)} is one artifact", hint="leave the tag out, or use `inspect`"
        )
    tags = [tag for tag in place.store.tags() if every or not is_fallback_tag(tag)]
    untagged: list[str] = []
    if isinstance(place.store, Layout):  # in a layout what has no tag counts as well
        untagged = [name for name in place.store.artifacts() if ":" in name]
    if not tags and not untagged and not run.settings.quiet:
        run.note(f"{place.where} lists no artifact")
    value = {"location": place.where, "tags": tags, **({"untagged": untagged} if untagged else {})}
    if not long:
        run.result(value, lambda: [*tags, *untagged])
        return
    from epoch_oci.cli.render import artifact_lines
    from epoch_oci.flows.listing import list_artifacts

    rows = list_artifacts(place.store, [*tags, *untagged])
    for row in rows:
        if row.problem is not None:
            run.warn(f"{row.tag}: {row.problem}")
    run.result({**value, "artifacts": [row.to_json() for row in rows]}, lambda: artifact_lines(rows))


def _list_repositories(run: "Run", host: str) -> None:
    from epoch_oci.locate import open_registry

    names = list(open_registry(host, connection=run.connection).catalog())
    run.result({"location": host, "repositories": names}, lambda: [f"{host}/{name}" for name in names])
