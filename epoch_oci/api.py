"""The verbs for those who use the library: words in, one report out.

Each opens what its words mean (`epoch_oci.location` has the grammar) and calls the verb of the same name in
`epoch_oci.flows`, which works on stores that are open already. Nothing is printed, nobody is prompted; `on_event` hears
how far it has come. Raised are the exceptions of `epoch_oci.errors`: UsageError for a word that can mean nothing.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import UsageError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.locate import (
    ArtifactPlace,
    Connection,
    Place,
    SoleEntry,
    key_in,
    locate,
    locate_artifact,
    open_files,
    open_store,
)

if TYPE_CHECKING:
    from epoch_oci.artifacts.write import PushOptions
    from epoch_oci.flows.inspect import Inspection
    from epoch_oci.flows.listing import ListedSnapshot
    from epoch_oci.flows.pull import PullOptions
    from epoch_oci.flows.verify import Verification, VerifyOptions
    from epoch_oci.transfer.report import TransferReport

Word = str | os.PathLike[str]
"""A location as the command line takes it; a path is one on this machine."""


def push(
    snapshot: str | SnapshotKey,
    to: Word,
    *,
    store: Word,
    options: "PushOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "TransferReport":
    """Push `snapshot` (NAME[:TAG]) of `store` to a repository or layout, made when it is not there; the tag comes last.

    Without a tag in `to` the snapshot's own is used. `connection` None finds credentials, proxies and buckets' settings
    in the environment. Raises as `epoch_oci.flows.push.push`.
    """
    from epoch_oci.flows.push import push as push_snapshot

    connection = connection or _from_environment(on_event)
    source = open_store(os.fspath(store), connection=connection)
    key = snapshot if isinstance(snapshot, SnapshotKey) else key_in(source, snapshot)
    place = locate_artifact(os.fspath(to), connection=connection, create=True)
    if place.digest is not None:
        raise UsageError(f"{place.where}: a push target has no digest, for it follows from the snapshot")
    return push_snapshot(source, key, place.store, place.tag, options=options, on_event=on_event)


def pull(
    reference: Word,
    to: Word | None = None,
    *,
    files: Word | None = None,
    options: "PullOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "TransferReport":
    """Pull an artifact into the store `to`, or write its `files` under their own names into that directory.

    Both are made when they are not there. Without a tag or digest it is the layout's only one, else `latest`. Raises
    as `epoch_oci.flows.pull.pull_to_store`; UsageError unless exactly one target is named.
    """
    from epoch_oci.flows.pull import pull_to_files, pull_to_store

    if (to is None) == (files is None):
        raise UsageError("a pull goes either into a store or into a directory of files")
    connection = connection or _from_environment(on_event)
    # What is wrong with the target is said before anybody is asked for the source.
    if files is not None:
        sink = open_files(Path(files), connection=connection)
        place = locate_artifact(os.fspath(reference), connection=connection)
        return pull_to_files(place.store, place.named(), sink, options=options, on_event=on_event)
    store = open_store(os.fspath(to or ""), connection=connection, create=True)
    place = locate_artifact(os.fspath(reference), connection=connection)
    return pull_to_store(place.store, place.named(), store, options=options, on_event=on_event)


def inspect(word: Word, *, store: Word | None = None, connection: Connection | None = None) -> "Inspection":
    """What a snapshot of `store`, or an artifact, is. Raises as `epoch_oci.flows.inspect`."""
    from epoch_oci.flows.inspect import inspect_artifact, inspect_snapshot

    place = _place(word, store, connection or _from_environment())
    if isinstance(place, ArtifactPlace):
        return inspect_artifact(place.store, place.named())
    if place.key is None:
        raise UsageError(f"{place.where} is a whole store", hint="name a snapshot in it, and the store beside it")
    return inspect_snapshot(place.store, place.key)


def verify(
    word: Word,
    *,
    store: Word | None = None,
    options: "VerifyOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "Verification":
    """Hash every byte of a snapshot, an artifact, or all that a store or layout has; `ok` says how it went.

    Findings are part of the result and not raised. Raises NotFoundError when there is nothing of that name, and what
    reading it raises.
    """
    from epoch_oci.flows.verify import VerifyOptions

    place = _place(word, store, connection or _from_environment(on_event))
    return verify_place(place, options or VerifyOptions(), on_event)


def verify_place(place: Place, options: "VerifyOptions", on_event: OnEvent = ignore) -> "Verification":
    """As `verify`, for what is open already; the books of a store or layout that is checked whole are checked too."""
    from epoch_oci.flows.verify import audit, verify_artifacts, verify_snapshots

    if isinstance(place, ArtifactPlace):
        if place.name is not None or not isinstance(place.store, SoleEntry):
            return verify_artifacts(place.store, [place.named()], options=options, on_event=on_event)
        what, names = "artifact is listed", place.store.artifacts()
        result = verify_artifacts(place.store, names, options=options, on_event=on_event, whole=True)
    elif place.key is not None:
        return verify_snapshots(place.store, [place.key], options=options, on_event=on_event)
    else:
        keys = [SnapshotKey(entry.name, entry.tag) for entry in place.store.snapshots()]
        what, names = "snapshot is", [str(key) for key in keys]
        result = verify_snapshots(place.store, keys, options=options, on_event=on_event, whole=True)
    if not names:
        result.notes.append(f"{place.where}: no {what} there")
    audit(place.store, result)
    return result


def list_snapshots(store: Word, *, connection: Connection | None = None) -> "list[ListedSnapshot]":
    """Every snapshot of a store, by name then tag. Raises NotFoundError when there is no store."""
    from epoch_oci.flows import listing

    return listing.list_snapshots(open_store(os.fspath(store), connection=connection or _from_environment()))


def _place(word: Word, store: Word | None, connection: Connection) -> Place:
    return locate(os.fspath(word), store=None if store is None else os.fspath(store), connection=connection)


def _from_environment(on_event: OnEvent = ignore) -> Connection:
    return replace(Connection(environ=dict(os.environ)), on_event=on_event)
