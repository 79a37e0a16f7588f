"""Moving one snapshot or artifact: `push`, `pull`, `copy`, and archives of Cocoon's."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from epoch_oci.api.words import Store, Word, changed, check, connected, name_of, push_target, store_of, tags_of, text_of
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import NotFoundError, UsageError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.locate import (
    ArtifactPlace,
    Connection,
    locate_artifact,
    open_files,
    sources_of,
)

# What does the work is loaded by the verb that needs it: `import epoch_oci` stays fast.
if TYPE_CHECKING:
    from epoch_oci.artifacts.write import PushOptions
    from epoch_oci.flows.copy import CopyOptions, CopyReport
    from epoch_oci.flows.copy_form import Form
    from epoch_oci.flows.pull import PullOptions
    from epoch_oci.transfer.report import TransferReport


def push(
    snapshot: str | SnapshotKey,
    to: Word,
    *,
    store: Store,
    options: "PushOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "TransferReport":
    """Push `snapshot` (NAME[:TAG]) of `store` to a repository or layout, made when it is not there; the tag comes last.

    Without a tag in `to` the snapshot's own is used. `connection` None finds credentials, proxies and buckets' settings
    in the environment. Raises NotFoundError, ContentError for a wrong manifest or blob, ConflictError for a tag that
    holds something else, PolicyError, AccessError, NetworkError, LocalIOError; the tag is then what it was.
    """
    from epoch_oci.artifacts.write import PushOptions
    from epoch_oci.flows.push import push as push_snapshot

    check(options, PushOptions)
    connection = connected(connection, on_event)
    source = store_of(store, connection)
    key = snapshot if isinstance(snapshot, SnapshotKey) else source.find(name_of(snapshot))
    place = push_target(to, connection)
    return push_snapshot(source, key, place.store, place.tag, options=options, on_event=on_event)


def pull(
    reference: Word,
    to: Store | None = None,
    *,
    files: Word | None = None,
    options: "PullOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "TransferReport":
    """Pull an artifact into the store `to`, or write its `files` under their own names into that directory.

    Both are made when they are not there. Without a tag or digest it is the layout's only one, else `latest`. Raises
    UsageError unless exactly one target is named, and NotFoundError, ContentError for a wrong document or blob,
    ConflictError for what stands in the way, AccessError, NetworkError, LocalIOError.
    """
    from epoch_oci.flows.pull import PullOptions, pull_to_files, pull_to_store
    from epoch_oci.registry.mirror import by_turns

    check(options, PullOptions)
    if (to is None) == (files is None):
        raise UsageError("a pull goes either into a store or into a directory of files")
    connection = connected(connection, on_event)
    # What is wrong with the target is said before anybody is asked for the source.
    into: partial[TransferReport]
    if files is not None:
        into = partial(pull_to_files, sink=open_files(Path(text_of(files)), connection=connection))
    else:
        into = partial(pull_to_store, sink=store_of("" if to is None else to, connection, create=True))
    place = locate_artifact(text_of(reference), connection=connection)
    name, sources = place.named(), sources_of(place, connection=connection)
    return by_turns(sources, lambda source: into(source, name, options=options, on_event=on_event), connection.warn)


def push_archive(
    archive: Word | IO[bytes],
    to: Word,
    *,
    options: "PushOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "TransferReport":
    """Push what `cocoon snapshot export` wrote: a file, or a binary stream that is read once to its end.

    `options.key` names the snapshot where the archive's own name will not do. Each file waits in a nameless file below
    `TMPDIR` (else `/var/tmp`) until it is sent. Raises ContentError for an
    archive that is wrong or breaks off, and what `push` raises.
    """
    from epoch_oci.artifacts.write import PushOptions
    from epoch_oci.cocoon.export_archive import ExportArchive
    from epoch_oci.flows.push_archive import push_archive as push_stream

    check(options, PushOptions)
    connection = connected(connection, on_event)
    # Not /tmp, which may be memory: these are gigabytes.
    spool = Path(connection.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 (files there have no name)
    with _read(archive) as (stream, what), ExportArchive(stream, spool, what) as files:
        place = push_target(to, connection)
        return push_stream(files, place.store, place.tag, options=options, on_event=on_event)


def pull_to_archive(
    reference: Word,
    archive: Word | IO[bytes],
    *,
    replace: bool = False,
    options: "PullOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "TransferReport":
    """Write what `cocoon snapshot import` reads, or of a cloud image the disk, to a file or a binary stream.

    The file appears whole or not at all; what was written to a stream does not pass for an archive before every hash
    was right. `options.key` is what Cocoon shall call the snapshot. Raises ConflictError for a file that is there,
    unless `replace`, and what `pull` raises.
    """
    from epoch_oci.flows.pull import PullOptions
    from epoch_oci.flows.pull_archive import pull_to_archive as pull_to_stream

    check(options, PullOptions)
    place = locate_artifact(text_of(reference), connection=connected(connection, on_event))
    with _written(archive, replace, dry_run=options is not None and options.dry_run) as write:
        return pull_to_stream(place.store, place.named(), write, options=options, on_event=on_event)


def copy(
    source: Word,
    target: Word,
    *,
    also: Sequence[str] = (),
    form: "Form | None" = None,
    options: "CopyOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "CopyReport":
    """Copy one artifact between registries and layouts, bytes and digests unchanged, with what refers to it.

    Without a tag in `target` the source's own is used; `also` are further ones. With a `form` the snapshot is written
    anew in it. Within one registry blobs are mounted. Raises what `push` raises; no tag
    has moved then.
    """
    from epoch_oci.flows.copy import CopyOptions
    from epoch_oci.flows.copy import copy as copy_artifact
    from epoch_oci.flows.copy_form import Form, copy_in_form

    check(options, CopyOptions)
    check(form, Form)
    connection = connected(connection, on_event)
    here = locate_artifact(text_of(source), connection=connection)
    there = locate_artifact(text_of(target), connection=connection, create=True)
    tags, options = target_tags(here, there, tags_of(also)), options or CopyOptions()
    # The source's own repository first: all of the blobs are there.
    options = changed(options, mount_from=(*own_registry(here, there), *options.mount_from))
    if form is not None:
        return copy_in_form(here.store, here.named(), there.store, tags, form, options=options, on_event=on_event)
    return copy_artifact(here.store, here.named(), there.store, tags, options=options, on_event=on_event)


def own_registry(here: ArtifactPlace, there: ArtifactPlace) -> tuple[str, ...]:
    """The source's repository, where the target is one of the same registry and can mount blobs from it."""
    from epoch_oci.location import repository_in

    (host, _, name), other = here.where.partition("/"), there.where.partition("/")[0]
    return (name,) if host == other and repository_in(here.where) and repository_in(there.where) else ()


def target_tags(here: ArtifactPlace, there: ArtifactPlace, also: tuple[str, ...]) -> tuple[str, ...]:
    """The tags that a copy sets: as written, else the source's own; none for a digest's copy in a registry.

    Raises UsageError for a target with a digest, and for one in a layout that nobody would find.
    """
    from epoch_oci.location import repository_in

    if there.digest is not None:
        raise UsageError(
            f"{there.where}: a target has no digest, for it will be that of the source",
            object=there.where,
            hint="name a tag",
        )
    tag = there.tag or (here.named() if here.digest is None else None)
    # What has no tag in a layout is named by its digest.
    if tag is None or tag.startswith("sha256:"):
        if not repository_in(there.where):
            raise UsageError(
                f"{there.where} names no tag", object=there.where, hint="in a layout nobody finds it without one"
            )
        return also
    return (tag, *also)


@contextmanager
def _read(archive: object) -> Iterator[tuple[IO[bytes], str]]:
    """The stream of an archive and what to call it. Raises UsageError, NotFoundError, LocalIOError."""
    from epoch_oci.disk.local import local_errors

    if hasattr(archive, "read"):
        if isinstance(archive, io.TextIOBase):
            raise UsageError("the archive was opened as text", hint='open it with "rb"')
        yield cast(IO[bytes], archive), "the archive"
        return
    path = Path(text_of(archive))
    if not path.exists():
        raise NotFoundError(f"there is no archive {path}", object=str(path))
    with local_errors(str(path)):
        stream = path.open("rb")
    with stream:
        yield stream, str(path)


@contextmanager
def _written(archive: object, replace: bool, *, dry_run: bool) -> Iterator[Callable[[bytes], object]]:
    from epoch_oci.disk.draft import new_file

    if dry_run:
        yield lambda block: None
    elif hasattr(archive, "write"):
        if isinstance(archive, io.TextIOBase):
            raise UsageError("the archive was opened as text", hint='open it with "wb"')
        yield lambda block: _write_all(cast(IO[bytes], archive), block)
    else:
        with new_file(Path(text_of(archive)), replace=replace) as draft:
            yield draft.write


def _write_all(stream: IO[bytes], block: bytes) -> None:
    """A raw stream may take less than it was given."""
    from epoch_oci.disk.local import local_errors

    view = memoryview(block)
    while view:
        with local_errors("the archive"):
            taken = stream.write(view)
        view = view[len(view) if taken is None else taken :]
