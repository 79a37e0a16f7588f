"""From a registry repository or an OCI image layout back into an Epoch store, or into files."""

import fnmatch
import time
from collections.abc import Sequence
from dataclasses import dataclass

from epoch_oci.dialects.base import Snapshot, SnapshotFile
from epoch_oci.epoch.keys import SnapshotKey, hostile_problem
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.epoch.sparse import unpacking
from epoch_oci.errors import ConflictError, ContentError, NotFoundError, UsageError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.flows.artifact import FoundArtifact, joined, read_artifact
from epoch_oci.flows.report import BlobReport, TransferReport, done, planned
from epoch_oci.oci.digest import shown
from epoch_oci.stores.base import BytesContent, Content, FileSink, FileTarget, Sink, Source
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs, plan_files

_OWNER = 0o700
_DEFAULT_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """How to pull. `only` are glob patterns over file names, for files alone; `force` replaces what is in the way."""

    key: SnapshotKey | None = None
    only: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    jobs: int = 4


def pull_to_store(
    source: Source,
    name: str,
    sink: Sink,
    *,
    where: str,
    options: PullOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Restore a snapshot into an Epoch store: blobs, then the manifest's exact bytes, then the catalog.

    `name` is a tag or a digest; `where` names the repository or layout, for messages and the report. Raises
    ContentError, NotFoundError, ConflictError, and whatever source and sink raise.
    """
    options = options or PullOptions()
    started = time.monotonic()
    found = read_artifact(source, name)
    key = options.key or _key(found.snapshot, name, where)
    found = found.identified(key)
    _refuse_absent(found.snapshot, sink)
    _refuse_conflict(sink, key, found.snapshot, force=options.force)
    wants = [Want(target=file.blob, content=_content(source, file), title=file.name) for file in found.snapshot.files]
    plan = plan_blobs(sink, wants, jobs=options.jobs)
    if options.dry_run:
        return _report(found, key, planned(plan, "fetch"), where, name, started, dry_run=True)
    outcomes = execute(plan, moved="received", jobs=options.jobs, on_event=on_event)
    sink.publish(str(key), found.snapshot.epoch, replace=options.force)
    return _report(found, key, done(outcomes), where, name, started)


def pull_to_files(
    source: Source,
    name: str,
    sink: FileSink,
    *,
    where: str,
    options: PullOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Write a snapshot's files under their own names: sparse, packed ones unfolded, only the owner's mode bits.

    Raises UsageError when `only` matches nothing, and what `pull_to_store` raises.
    """
    options = options or PullOptions()
    started = time.monotonic()
    found = read_artifact(source, name)
    files = _chosen(found.snapshot.files, options.only)
    wants = [(file_target(found.snapshot.manifest, file), _content(source, file)) for file in files]
    plan = plan_files(sink, wants, replace=options.force)
    key = options.key or SnapshotKey(found.snapshot.manifest.name, found.snapshot.manifest.tag)
    if options.dry_run:
        return _report(found, key, planned(plan, "fetch"), where, name, started, dry_run=True)
    outcomes = execute(plan, moved="received", jobs=options.jobs, on_event=on_event)
    return _report(found, key, done(outcomes), where, name, started)


def file_target(manifest: Manifest, file: SnapshotFile) -> FileTarget:
    """How a file lands on a disk: Cocoon's packed form unfolded, the owner's bits of its mode, else 0600."""
    header = manifest.layer_headers.get(file.name) if file.role == "layer" else None
    mode = header.mode & _OWNER if header and header.mode else _DEFAULT_MODE
    packed = unpacking(header.pax_records, file.size) if header else None
    if packed is None:
        return FileTarget(name=file.name, blob=file.blob, mode=mode)
    return FileTarget(
        name=file.name, blob=file.blob, mode=mode, segments=packed.segments, logical_size=packed.logical_size
    )


def _content(source: Source, file: SnapshotFile) -> Content:
    return joined(source, file.carriers) if file.carriers else BytesContent(b"")


def _chosen(files: Sequence[SnapshotFile], only: Sequence[str]) -> list[SnapshotFile]:
    if not only:
        return list(files)
    chosen = [file for file in files if any(fnmatch.fnmatchcase(file.name, pattern) for pattern in only)]
    if not chosen:
        names = ", ".join(file.name for file in files)
        raise UsageError(f"--only {' '.join(only)} matches no file", hint=f"the files are: {names}")
    return chosen


def _key(snapshot: Snapshot, name: str, where: str) -> SnapshotKey:
    """Under the document's name and the reference's tag; the document's tag when pulled by digest.

    A derived document without a name is called as its repository is.
    """
    manifest = snapshot.manifest
    repository = "" if where.startswith("oci:") else where.partition("/")[2]
    title = manifest.name or (repository if snapshot.derived else "")
    tag = name if not name.startswith("sha256:") else manifest.tag
    if not title or not tag:
        raise UsageError("the artifact does not say what the snapshot is called", hint="name it with --as NAME:TAG")
    for text in (title, tag):
        if (why := hostile_problem(text)) is not None:
            raise ContentError(f"{shown(text)} {why}", code="NAME", object=text)
    return SnapshotKey(title, tag)


def _refuse_absent(snapshot: Snapshot, sink: Sink) -> None:
    """What the artifact's dialect had no place for must be in the store already, or the snapshot cannot be."""
    missing = [blob for blob in snapshot.absent if not sink.has(blob)]
    if missing:
        raise NotFoundError(
            f"the artifact does not carry {len(missing)} of the snapshot's blobs ({missing[0].digest} …)",
            object=str(missing[0].digest),
            hint="they were given up with --allow-loss when it was pushed; write its files with -o DIR instead",
        )


def _refuse_conflict(sink: Sink, key: SnapshotKey, snapshot: Snapshot, *, force: bool) -> None:
    if force:
        return
    try:
        there = sink.resolve(str(key))
    except NotFoundError:
        return
    if there.digest != snapshot.epoch.digest:
        raise ConflictError(
            f"the store holds another snapshot as {key}",
            object=str(key),
            hint="pull it under another name with --as NAME:TAG, or replace it with --force",
        )


def _report(
    found: FoundArtifact,
    key: SnapshotKey,
    blobs: tuple[BlobReport, ...],
    where: str,
    name: str,
    started: float,
    *,
    dry_run: bool = False,
) -> TransferReport:
    return TransferReport(
        command="pull",
        reference=f"{where}{'@' if name.startswith('sha256:') else ':'}{name}",
        document=found.image.document,
        artifact_type=found.artifact_type,
        name=key.name,
        tag=key.tag,
        blobs=blobs,
        seconds=time.monotonic() - started,
        derived=found.snapshot.derived,
        dry_run=dry_run,
        warnings=tuple(str(finding) for finding in found.snapshot.warnings),
    )
