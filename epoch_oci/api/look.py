"""Looking, never changing: `inspect`, `verify`, `list_snapshots`, `diff`, `open_file`."""

from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.api.words import Store, Word, check, connected, name_of, place_of, store_of, text_of
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import UsageError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.locate import (
    ArtifactPlace,
    Connection,
    Place,
)
from epoch_oci.stores.base import Layout

if TYPE_CHECKING:
    from epoch_oci.flows.diff import SnapshotDiff, Version
    from epoch_oci.flows.inspect import Inspection
    from epoch_oci.flows.listing import ListedSnapshot
    from epoch_oci.flows.verify import Verification, VerifyOptions
    from epoch_oci.reading.remote_file import RemoteFile


def inspect(word: Word, *, store: Store | None = None, connection: Connection | None = None) -> "Inspection":
    """What a snapshot of `store`, or an artifact, is; no blob is read.

    Raises NotFoundError, ContentError with every finding, AccessError, NetworkError, LocalIOError.
    """
    from epoch_oci.flows.inspect import inspect_artifact, inspect_snapshot

    place = place_of(word, store, connected(connection))
    if isinstance(place, ArtifactPlace):
        return inspect_artifact(place.store, place.named())
    if place.key is None:
        raise UsageError(f"{place.where} is a whole store", hint="name a snapshot in it, and the store beside it")
    return inspect_snapshot(place.store, place.key)


def verify(
    word: Word,
    *,
    store: Store | None = None,
    options: "VerifyOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "Verification":
    """Hash every byte of a snapshot, an artifact, or all that a store or layout has; `ok` says how it went.

    Findings are part of the result and not raised. Raises NotFoundError when there is nothing of that name, and what
    reading it raises.
    """
    from epoch_oci.flows.verify import VerifyOptions

    check(options, VerifyOptions)
    place = place_of(word, store, connected(connection, on_event))
    return verify_place(place, options or VerifyOptions(), on_event)


def verify_place(place: Place, options: "VerifyOptions", on_event: OnEvent = ignore) -> "Verification":
    """As `verify`, for what is open already; the books of a store or layout that is checked whole are checked too."""
    from epoch_oci.flows.verify import audit, verify_artifacts, verify_snapshots

    if isinstance(place, ArtifactPlace):
        if place.name is not None or not isinstance(place.store, Layout):
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


def list_snapshots(store: Store, *, connection: Connection | None = None) -> "list[ListedSnapshot]":
    """Every snapshot of a store, by name then tag. Raises NotFoundError when there is no store."""
    from epoch_oci.flows import listing

    return listing.list_snapshots(store_of(store, connected(connection)))


def open_file(
    location: Word,
    name: str,
    *,
    store: Store | None = None,
    connection: Connection | None = None,
    cache: Word | None = None,
    cache_size: int | None = 10 << 30,
) -> "RemoteFile":
    """File `name` of the snapshot at `location` (a registry, a layout, or NAME:TAG in `store`), read where it is.

    Packed files are unfolded. See `RemoteFile` for what is verified when. What is read of files in chunks is kept in
    the directory `cache`, for whoever reads or pulls later: at most about `cache_size` bytes (None: all), and what was
    used longest ago goes first. Raises UsageError, NotFoundError, ContentError, AccessError, NetworkError,
    LocalIOError.
    """
    from epoch_oci.reading.readable_files import chosen, files_at
    from epoch_oci.reading.remote_file import RemoteFile

    place = place_of(location, store, connected(connection))
    named = place.named() if isinstance(place, ArtifactPlace) else ""
    files = files_at(place, named, None if cache is None else Path(text_of(cache)), cache_size)
    return RemoteFile(chosen(files, name_of(name)))


def diff(
    a: Word,
    b: Word,
    *,
    store: Store | None = None,
    deep: bool = False,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "SnapshotDiff":
    """Hold two snapshots against each other, wherever each is: by their files' digests, and by chunks where known.

    `deep` reads files whose chunks no index tells. Raises ContentError, NotFoundError and what else reading raises.
    """
    from epoch_oci.flows.diff import diff as compare

    reached = connected(connection, on_event)
    sides = (version_at(word, place_of(word, store, reached), deep=deep, on_event=on_event) for word in (a, b))
    return compare(*sides)


def version_at(word: Word, place: Place, *, deep: bool, on_event: OnEvent = ignore) -> "Version":
    """One side of `diff`. Raises UsageError for a whole store, and what reading raises."""
    from epoch_oci.flows.diff import version_of_artifact, version_of_snapshot

    if isinstance(place, ArtifactPlace):
        return version_of_artifact(place.store, place.named(), text_of(word), deep=deep, on_event=on_event)
    if place.key is None:
        raise UsageError(f"{place.where} is a whole store", hint="name a snapshot in it, and the store beside it")
    return version_of_snapshot(place.store, str(place.key), text_of(word), deep=deep, on_event=on_event)
