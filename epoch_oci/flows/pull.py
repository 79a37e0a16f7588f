"""From a registry repository or an OCI image layout back into an Epoch store, or into files."""

import fnmatch
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from epoch_oci.artifacts.decode import Decoding, carried_content, forgot, layer_contents
from epoch_oci.artifacts.drafts import Drafts, FileDrafts, StoreDrafts, begun, counted
from epoch_oci.artifacts.publish import Publication, files_of
from epoch_oci.artifacts.read import FoundArtifact, read_artifact, read_documents, reference_key
from epoch_oci.cocoon.compat import obstacles
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedSnapshot, Snapshot, SnapshotFile
from epoch_oci.dialects.layers import is_chunked
from epoch_oci.epoch.keys import SnapshotKey, hostile_problem
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.epoch.sparse import unpacking
from epoch_oci.errors import ContentError, EpochOciError, NotFoundError, UsageError
from epoch_oci.events import OnEvent, ignore, phase
from epoch_oci.oci import media_types
from epoch_oci.oci.digest import shown
from epoch_oci.options import Checked
from epoch_oci.stores.base import Content, FileSink, FileTarget, Node, Sink, SnapshotStore, Source, full_name
from epoch_oci.transfer.execute import Outcome, execute
from epoch_oci.transfer.plan import Plan, Seed, Want, most_of, plan_blobs, plan_files
from epoch_oci.transfer.report import BlobReport, TransferReport, done, planned
from epoch_oci.transfer.seeds import foreseen, with_seeds
from epoch_oci.transfer.throttle import Throttle

_OWNER = 0o700
_DEFAULT_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions(Checked):
    """How to pull. `only` are glob patterns over file names, for files alone; `force` replaces what is in the way.

    A blob is there if `Sink.holds` says so; with `force` those on this machine are read and hashed once more, and
    damaged ones fetched anew. Files are hashed in any case, for anybody may have written into them.
    `throttle` paces what is fetched; runs that are given the same one share its rate. What `seeds` have is taken from
    them, verified like all else. `decode_cache` is a directory that remembers what compressed layers decode to,
    `read_cache` one that keeps what was read of snapshots in chunks (`reading.readable_files.files_at`).
    `approve` is called with the artifact's reference by digest before anything but its manifest is asked for; what it
    raises ends the pull, and what is pulled is just that digest.
    """

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"jobs": (1, 64)}
    key: SnapshotKey | None = None
    only: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    jobs: int | None = None
    throttle: Throttle | None = None
    seeds: tuple[Seed, ...] = ()
    decode_cache: Path | None = None
    read_cache: Path | None = None
    approve: Callable[[str], None] | None = None


def pull_to_store(
    source: Source,
    name: str,
    sink: Sink,
    *,
    options: PullOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Restore a snapshot into an Epoch store: blobs, then the manifest's exact bytes, then the catalog.

    `name` is a tag or a digest. Raises ContentError, NotFoundError, ConflictError, and whatever source and sink raise.
    """
    options = options or PullOptions()
    return _with_good_memory(_pull_to_store, source, name, sink, options, on_event)


def _pull_to_store(
    source: Source, name: str, pinned: str, sink: Sink, options: PullOptions, on_event: OnEvent
) -> TransferReport:
    started = time.monotonic()
    phase(on_event, "reading the manifest")
    drafts = None if options.dry_run else StoreDrafts(sink)
    found = read_artifact(source, pinned, decoding(options, on_event, drafts))
    phase(on_event, "looking at what is there")
    key = options.key or _key(found.snapshot, reference_key(source, name))
    # Its name is part of a derived manifest, and so of the digest that the store gets.
    found = found.identified(key)
    # Before the first byte: a conflict that shows after hours is hours lost.
    known = isinstance(sink, SnapshotStore) and sink.expect(str(key), found.snapshot.epoch, replace=options.force)
    _refuse_absent(found.snapshot, sink)
    source = at_hand_source(found, options, sink)
    wants = [
        Want(target=file.blob, content=file_content(source, file), title=file.name) for file in found.snapshot.files
    ]
    plan = plan_blobs(sink, wants, jobs=options.jobs, present=partial(sink.holds, anew=True) if options.force else None)
    plan = with_seeds(plan, options.seeds, on_event, jobs=options.jobs)
    contents = layer_contents(source, found.snapshot) if isinstance(sink, Node) else None
    notes = obstacles(found.snapshot.manifest, contents, node=sink)
    if options.dry_run:
        return pull_report(
            found, key, _foretold(plan), full_name(source, name), started, dry_run=True, notes=notes, known=known
        )
    phase(on_event, "receiving")
    outcomes = counted(_fetch(source, begun(plan, drafts), options, on_event), drafts)
    publication = Publication(sink, allow_public=False, replace=options.force)
    # The exact bytes that travelled, whatever was understood of them (decision D3).
    publication.commit(str(key), found.snapshot.epoch, files_of(found.snapshot.manifest))
    return pull_report(found, key, done(outcomes), full_name(source, name), started, notes=notes, known=known)


def pull_to_files(
    source: Source,
    name: str,
    sink: FileSink,
    *,
    options: PullOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Write a snapshot's files under their own names: sparse, packed ones unfolded, only the owner's mode bits.

    Raises UsageError when `only` matches nothing, and what `pull_to_store` raises.
    """
    options = options or PullOptions()
    return _with_good_memory(_pull_to_files, source, name, sink, options, on_event)


def _pull_to_files(
    source: Source, name: str, pinned: str, sink: FileSink, options: PullOptions, on_event: OnEvent
) -> TransferReport:
    started = time.monotonic()
    phase(on_event, "reading the manifest")
    choose = partial(_chosen, only=options.only) if options.only else None
    drafts = None if options.dry_run else FileDrafts(sink, file_target)
    how = decoding(options, on_event, drafts)
    found = read_artifact(source, pinned, how, choose).identified(reference_key(source, name))
    phase(on_event, "looking at what is there")
    source = at_hand_source(found, options)
    # Chosen once more: of an artifact that nothing had to be decoded of, all files are here.
    names = _chosen([file.name for file in found.snapshot.files], options.only)
    files = [file for file in found.snapshot.files if file.name in names]
    wants = [(file_target(found.snapshot.manifest, file), file_content(source, file)) for file in files]
    plan = with_seeds(plan_files(sink, wants, replace=options.force), options.seeds, on_event, jobs=options.jobs)
    key = options.key or SnapshotKey(found.snapshot.manifest.name, found.snapshot.manifest.tag)
    contents = layer_contents(source, found.snapshot)
    notes = () if options.only else obstacles(found.snapshot.manifest, contents)
    if options.dry_run:
        return pull_report(
            found,
            key,
            _foretold(plan),
            full_name(source, name),
            started,
            dry_run=True,
            notes=notes,
            known=not plan.to_move,
        )
    phase(on_event, "receiving")
    outcomes = counted(_fetch(source, begun(plan, drafts), options, on_event), drafts)
    return pull_report(
        found, key, done(outcomes), full_name(source, name), started, notes=notes, known=not plan.to_move
    )


def at_hand_source(found: FoundArtifact, options: PullOptions, *places: object) -> Source:
    """Where the files are had: of those in chunks, what `places` and the seeds have of them is not fetched."""
    if not is_chunked(found.image):
        return found.source
    from epoch_oci.artifacts.at_hand import with_chunks_at_hand
    from epoch_oci.artifacts.chunked import kept_indexes

    kept = kept_indexes(options.decode_cache) if options.decode_cache else None
    seeds = [seed.source for seed in options.seeds]
    return with_chunks_at_hand(found.source, [*places, *seeds], kept, options.read_cache)


def _with_good_memory(
    pull: Callable[..., TransferReport],
    source: Source,
    name: str,
    sink: object,
    options: PullOptions,
    on_event: OnEvent,
) -> TransferReport:
    """Pull; once more, when what went wrong may be what was remembered of an earlier decoding, and not the artifact."""
    pinned = approved(source, name, options)
    try:
        return pull(source, name, pinned, sink, options, on_event)
    except ContentError:
        if not forget_decoded(source, pinned, options):
            raise
    return pull(source, name, pinned, sink, options, on_event)


def approved(source: Source, name: str, options: PullOptions) -> str:
    """By what the artifact is to be had: `name`, or the digest where somebody had to approve of that."""
    if options.approve is None:
        return name
    digest = str(source.resolve(name).digest)
    try:
        options.approve(full_name(source, digest))
    except EpochOciError as error:
        error.is_final = True  # of the artifact, whoever else has it
        raise
    return digest


def forget_decoded(source: Source, name: str, options: PullOptions) -> bool:
    """Forget what layers decode to, if that was remembered; False when there was nothing to forget."""
    # Without a directory nothing was remembered, and pulling again would bring the same.
    if options.decode_cache is None:
        return False
    told = read_documents(source, name).told()
    return isinstance(told, EncodedSnapshot) and forgot(told.undigested, options.decode_cache)


def decoding(options: PullOptions, on_event: OnEvent, drafts: Drafts | None = None) -> Decoding:
    """What has to be decoded before anything can be planned is held to the same limits."""
    return Decoding(
        cache=options.decode_cache, jobs=options.jobs, on_event=on_event, throttle=options.throttle, drafts=drafts
    )


def _foretold(plan: Plan) -> tuple[BlobReport, ...]:
    return planned(foreseen(plan), "fetch")


def _fetch(source: Source, plan: Plan, options: PullOptions, on_event: OnEvent) -> tuple[Outcome, ...]:
    # The plan knows what the sink bears; a registry that is read from has limits as well.
    plan = replace(plan, most=min(plan.most, most_of(source)))
    return execute(plan, moved="received", jobs=options.jobs, on_event=on_event, throttle=options.throttle)


def file_target(manifest: Manifest, file: SnapshotFile) -> FileTarget:
    """How a file lands on a disk: Cocoon's packed form unfolded, the owner's bits of its mode, else 0600."""
    # Headers go by name, and a base image may have the name of a file.
    header = manifest.layer_headers.get(file.name) if file.role == "layer" else None
    # Guest memory is nobody else's to read, whatever it was where it came from (reliability N7).
    mode = header.mode & _OWNER if header and header.mode else _DEFAULT_MODE
    packed = unpacking(header.pax_records, file.size) if header else None
    if packed is None:
        return FileTarget(name=file.name, blob=file.blob, mode=mode)
    return FileTarget(
        name=file.name, blob=file.blob, mode=mode, segments=packed.segments, logical_size=packed.logical_size
    )


def file_content(source: Source, file: SnapshotFile) -> Content:
    """The stored bytes of a file, whatever carries them."""
    return carried_content(source, file)


def _chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Those that a pattern of `only` takes. Raises UsageError where it takes none."""
    if not only:
        return list(names)
    chosen = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in only)]
    if not chosen:
        raise UsageError(f"--only {' '.join(only)} matches no file", hint=f"the files are: {', '.join(names)}")
    return chosen


def _key(snapshot: Snapshot, said: SnapshotKey) -> SnapshotKey:
    """Under the document's name and the reference's tag; the document's tag when pulled by digest.

    A derived document without a name is called as its repository is.
    """
    manifest = snapshot.manifest
    title = manifest.name or (said.name if snapshot.derived else "")
    # The reference is what was asked for; the document inside may be of before a re-tag (trap 3).
    tag = said.tag or manifest.tag
    if not title or not tag:
        raise UsageError("the artifact does not say what the snapshot is called", hint="name it with --as NAME:TAG")
    for text in (title, tag):
        if (why := hostile_problem(text)) is not None:
            raise ContentError(f"{shown(text)} {why}", code="NAME", object=text)
    return SnapshotKey(title, tag)


def _refuse_absent(snapshot: Snapshot, sink: Sink) -> None:
    """What the artifact's dialect had no place for must be in the store already, or the snapshot cannot be."""
    # Before the first byte; the store may still have them from a push of its own.
    missing = [blob for blob in snapshot.absent if not sink.holds(blob)]
    if missing:
        raise NotFoundError(
            f"the artifact does not carry {len(missing)} of the snapshot's blobs ({missing[0].digest} …)",
            object=str(missing[0].digest),
            hint="they were given up with --allow-loss when it was pushed: have them there first, or use -o DIR",
        )


def pull_report(
    found: FoundArtifact,
    key: SnapshotKey,
    blobs: tuple[BlobReport, ...],
    reference: str,
    started: float,
    *,
    dry_run: bool = False,
    notes: Sequence[str] = (),
    known: bool = False,
) -> TransferReport:
    """What a pull did; `notes` say what keeps Cocoon from making a VM of the snapshot.

    `known`: the snapshot was there before, so that its config is no news.
    """
    return TransferReport(
        command="pull",
        reference=reference,
        document=found.image.document,
        artifact_type=found.artifact_type,
        name=key.name,
        tag=key.tag,
        blobs=(*_config_row(found, known=known, dry_run=dry_run), *blobs),
        seconds=time.monotonic() - started,
        derived=found.snapshot.derived,
        dry_run=dry_run,
        warnings=(*(str(finding) for finding in found.snapshot.warnings), *notes),
    )


def _config_row(found: FoundArtifact, *, known: bool, dry_run: bool) -> tuple[BlobReport, ...]:
    """The config, which is the Epoch manifest: read in any case, and moved only where it was not there."""
    config = found.image.config
    if config.media_type == media_types.EMPTY:
        return ()
    action = ("skip" if known else "fetch") if dry_run else ("skipped" if known else "received")
    return (BlobReport(str(config.digest), config.size, None, config.media_type, action, 0 if known else config.size),)
