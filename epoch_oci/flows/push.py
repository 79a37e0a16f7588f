"""From an Epoch store into a registry repository or an OCI image layout."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from epoch_oci import dialects
from epoch_oci.artifacts.decode import Decoding
from epoch_oci.artifacts.packing import Chunking
from epoch_oci.artifacts.publish import Publication, files_of, legal_target
from epoch_oci.artifacts.read import ArtifactsOf, FoundDocuments, StoredSnapshot, as_snapshot, forgets, read_stored
from epoch_oci.dialects.base import Artifact, EncodeOptions, SnapshotFile
from epoch_oci.dialects.layers import is_placeholder
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError
from epoch_oci.events import OnEvent, ignore, phase
from epoch_oci.flows.copy import ArtifactSink, CopyOptions, copy
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import EMPTY_CONTENT
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.options import Checked
from epoch_oci.stores.base import BytesContent, Content, Sink, Source, full_name
from epoch_oci.transfer.content import SliceContent
from epoch_oci.transfer.cuts import Cuts, plan_cuts
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Late, Plan, Want, cut_late, plan_blobs, require
from epoch_oci.transfer.report import BlobReport, TransferReport, done, once_more, planned
from epoch_oci.transfer.throttle import Throttle

if TYPE_CHECKING:
    from epoch_oci.flows.push_encoded import Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions(Checked):
    """How to push. `force` replaces a tag that holds another artifact; `also` are further tags for it.

    `key` names the snapshot of an archive, which may bring no name.

    `mount_from` are sibling repositories, and `homes` says of some blobs which of these has it.
    `part_size` is in bytes: files above it are cut, 0 means never, None is as the target takes them. Without
    `allow_public` no manifest that names a guest's memory is published where anybody may read it. `part_cache`
    remembers part digests.
    `throttle` paces what is sent; runs that are given the same one share its rate. With `chunking` the artifact is of
    the chunked form, with `encoding` one of version 2 of the `cocoonstack` dialect.
    """

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"jobs": (1, 64)}
    dialect: str = "cocoon"
    also: tuple[str, ...] = ()
    key: SnapshotKey | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    mount_from: tuple[str, ...] = ()
    homes: Mapping[Digest, str] = field(default_factory=dict)
    allow_loss: bool = False
    allow_public: bool = False
    part_size: int | None = None
    part_cache: Path | None = None
    force: bool = False
    dry_run: bool = False
    jobs: int | None = None
    throttle: Throttle | None = None
    chunking: Chunking | None = None
    encoding: "Encoding | None" = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    key: SnapshotKey
    tag: str
    snapshot: StoredSnapshot
    artifact: Artifact
    image: ImageManifest
    plan: Plan
    cuts: Cuts
    tagged: bool
    also: tuple[str, ...]


def push(
    source: Source,
    snapshot: SnapshotKey,
    sink: Sink,
    tag: str | None,
    *,
    options: PushOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Translate a snapshot, move what the sink lacks, and tag it last.

    `tag` None means the snapshot's own. Raises ContentError for a wrong manifest or blob, NotFoundError for a missing
    one, ConflictError, UsageError, and whatever source and sink raise; the tag is then what it was, and blobs that were
    sent stay.
    """
    how = options or PushOptions()

    def run(hear: OnEvent) -> TransferReport:
        return _push(source, snapshot, sink, tag, how, hear)

    try:
        return once_more(run, on_event)
    except ContentError:
        if not forgets(source, snapshot, how.part_cache):
            raise
    # What was remembered may be what was wrong, and not the blob: it is found out anew, once.
    return once_more(run, on_event)


def _push(
    source: Source,
    snapshot: SnapshotKey,
    sink: Sink,
    tag: str | None,
    options: PushOptions,
    on_event: OnEvent,
) -> TransferReport:
    if options.chunking is not None:
        from epoch_oci.flows.push_chunked import push_chunked

        return push_chunked(source, snapshot, sink, tag, options=options, chunking=options.chunking, on_event=on_event)
    if options.encoding is not None:
        from epoch_oci.flows.push_encoded import push_encoded

        return push_encoded(source, snapshot, sink, tag, options=options, encoding=options.encoding, on_event=on_event)
    started = time.monotonic()
    publication = Publication(sink, allow_public=options.allow_public, replace=options.force)
    phase(on_event, "reading the manifest")
    stored = read_stored(source, snapshot)
    target = legal_target(tag or snapshot.tag, snapshot)
    if isinstance(stored, FoundDocuments) and isinstance(sink, ArtifactSink) and _goes_as_it_is(stored, options):
        return _copied(source, snapshot, sink, target, options, on_event)
    found = as_snapshot(source, snapshot, stored, decoding_for(options, on_event))
    ready = _prepare(found, snapshot, publication, target, options, on_event)
    files = files_of(ready.snapshot.manifest)
    if options.dry_run:
        notes = publication.foretold(files)
        return _report(ready, _foretold(ready), sink, started, dry_run=True, notes=notes)
    # Not for a run that changes nothing: a registry that may only be read is fine then.
    if ready.also or not ready.tagged or not ready.plan.all_there:
        publication.check_write()
    publication.admit(files)
    phase(on_event, "sending")
    try:
        outcomes = execute(ready.plan, moved="sent", jobs=options.jobs, on_event=on_event, throttle=options.throttle)
    except ContentError:
        if not ready.cuts.forget():
            raise
        # A remembered part digest may be what is wrong, and not the blob: it is learnt anew, once. Nothing is looked up
        # then, for what is remembered in a cache that cannot be written to cannot be forgotten either.
        return _push(source, snapshot, sink, tag, replace(options, part_cache=None), on_event)
    ready = _settled(ready, publication, options)
    # A tag that was right before is not published again: some registries count that as a push, and others forbid it.
    known = ready.tagged and all(outcome.action == "skipped" for outcome in outcomes)
    publication.commit(ready.tag, ready.artifact.manifest, files, known=known)
    for tag in ready.also:
        publication.commit(tag, ready.artifact.manifest, files)
    return _report(ready, _in_order(done(outcomes), ready.image), sink, started)


def decoding_for(options: PushOptions, on_event: OnEvent) -> Decoding:
    """How a snapshot that a store keeps compressed is read."""
    return Decoding(cache=options.part_cache, jobs=options.jobs, throttle=options.throttle, on_event=on_event)


def _goes_as_it_is(found: FoundDocuments, options: PushOptions) -> bool:
    """Whether an artifact of a store is asked for in the very form that it has, which is then not made anew."""
    own = dialects.detect(found.image).name
    return own == options.dialect and not options.annotations and not options.part_size


def _copied(
    source: Source, key: SnapshotKey, sink: ArtifactSink, tag: str, options: PushOptions, on_event: OnEvent
) -> TransferReport:
    how = CopyOptions(
        referrers=False,
        mount_from=options.mount_from,
        homes=options.homes,
        allow_public=options.allow_public,
        force=options.force,
        dry_run=options.dry_run,
        jobs=options.jobs,
        throttle=options.throttle,
    )
    artifacts, tags = ArtifactsOf(source, key.name), [tag, *options.also]
    report = copy(artifacts, key.tag, sink, tags, options=how, on_event=on_event)
    return replace(report.plain(), command="push", name=key.name, tag=key.tag)


def _prepare(
    snapshot: StoredSnapshot,
    key: SnapshotKey,
    publication: Publication,
    tag: str,
    options: PushOptions,
    on_event: OnEvent,
) -> _Prepared:
    sink, source, manifest = publication.sink, snapshot.source, snapshot.manifest
    cuts = plan_cuts(manifest, sink, wanted_parts(options, cloud_image=manifest.is_cloud_image), options.part_cache)
    artifact = _encode(manifest, cuts, options)
    image = artifact.image
    for file in artifact.files:
        publication.check_limits(file.name, file.carriers)
    phase(on_event, "looking at what is there")
    tagged, also = _look(publication, tag, artifact, cuts, options)
    late = [file for file in artifact.files if file.digest in cuts.late]
    wants = _wants(source, artifact, image, cuts)
    plan = plan_blobs(sink, wants, mount_from=options.mount_from, homes=options.homes, jobs=options.jobs)
    plan = replace(plan, late=tuple(_cut_late(source, file, sink, cuts, options) for file in late))
    _require_content(source, artifact, plan, options.jobs)
    return _Prepared(key, tag, snapshot, artifact, image, plan, cuts, tagged, also)


def _encode(manifest: Manifest, cuts: Cuts, options: PushOptions) -> Artifact:
    parts = cuts.foreseen(manifest)
    encode = EncodeOptions(annotations=options.annotations, allow_loss=options.allow_loss, parts=parts)
    return dialects.named(options.dialect).encode(manifest.document, encode)


def wanted_parts(options: PushOptions, *, cloud_image: bool) -> int | None:
    """The part size that was asked for; where nobody did, none at all for a dialect that knows no parts."""
    if options.part_size is None and not dialects.named(options.dialect).cuts(cloud_image=cloud_image):
        return 0
    return options.part_size


def _look(
    publication: Publication, tag: str, artifact: Artifact, cuts: Cuts, options: PushOptions
) -> tuple[bool, tuple[str, ...]]:
    """Whether the tag holds the artifact, and which further tags do not. Raises ConflictError for another one's.

    An artifact with parts that are not known yet is told from another one by its config, before gigabytes are read.
    """
    if not cuts.late:
        tagged = publication.is_tagged(tag, artifact.manifest)
        return tagged, tuple(more for more in options.also if not publication.is_tagged(more, artifact.manifest))
    for name in (tag, *options.also):
        publication.refuse_other(name, artifact.config)
    return False, options.also


def _cut_late(source: Source, file: SnapshotFile, sink: Sink, cuts: Cuts, options: PushOptions) -> Late:
    home = options.homes.get(file.digest)  # where the whole file went, its parts did
    return cut_late(
        sink,
        source.content(file.blob),
        file.blob,
        file.carriers,
        lambda table: cuts.learn(file.blob, table),
        mount_from=(*([home] if home is not None else []), *options.mount_from),
    )


def _settled(ready: _Prepared, publication: Publication, options: PushOptions) -> _Prepared:
    """The artifact once every part is known, and another look at what its tags hold."""
    late = ready.plan.late
    if not late:
        return ready
    cuts = replace(ready.cuts, late={})
    artifact = _encode(ready.snapshot.manifest, cuts, options)
    tagged, also = _look(publication, ready.tag, artifact, cuts, options)
    return replace(ready, artifact=artifact, image=artifact.image, cuts=cuts, tagged=tagged, also=also)


def _wants(source: Source, artifact: Artifact, image: ImageManifest, cuts: Cuts) -> list[Want]:
    wants = small_wants(artifact, image)
    for file in artifact.files:
        if file.digest not in cuts.late:
            wants += file_wants(source.content(file.blob), file.carriers)
    return wants


def small_wants(artifact: Artifact, image: ImageManifest) -> list[Want]:
    """The blobs of an artifact that are no file of the snapshot's."""
    wants = [Want(target=image.config, content=BytesContent(artifact.config.raw))]
    wants += [
        Want(target=layer, content=BytesContent(EMPTY_CONTENT)) for layer in image.layers if is_placeholder(layer)
    ]
    return wants


def file_wants(whole: Content, carriers: Sequence[Descriptor]) -> list[Want]:
    """What carries a file, out of all of its content."""
    if len(carriers) == 1:
        return [Want(target=carriers[0], content=whole, title=carriers[0].title)]
    starts = accumulate((carrier.size for carrier in carriers), initial=0)
    return [
        Want(target=carrier, content=SliceContent(whole, start, carrier.size), title=carrier.title)
        for carrier, start in zip(carriers, starts, strict=False)
    ]


def _require_content(source: Source, artifact: Artifact, plan: Plan, jobs: int | None) -> None:
    """Every file of which something must be sent has to be in the source, before the first byte moves."""
    absent = {item.target.digest for item in plan.items if item.step != "skip"}
    needed = [file.blob for file in artifact.files if any(carrier.digest in absent for carrier in file.carriers)]
    needed += [late.blob for late in plan.late]
    names = {file.digest: file.name for file in artifact.files}
    require(source, needed, names, jobs=jobs)


def _foretold(ready: _Prepared) -> tuple[BlobReport, ...]:
    """What would be sent; a file whose parts nobody knows yet is one row, for what is there of it cannot be told."""
    files = {file.digest: file for file in ready.artifact.files}
    late = [files[late.blob.digest] for late in ready.plan.late]
    rows = [BlobReport(str(file.digest), file.size, file.name, file.media_type, "send", file.size) for file in late]
    return (*planned(ready.plan, "send"), *rows)


def _in_order(rows: Sequence[BlobReport], image: ImageManifest) -> tuple[BlobReport, ...]:
    """The rows as the artifact has its blobs, each digest once."""
    by_digest = {row.digest: row for row in rows}
    return tuple(by_digest[str(digest)] for digest in dict.fromkeys(blob.digest for blob in image.successors))


def _report(
    ready: _Prepared,
    blobs: tuple[BlobReport, ...],
    sink: Sink,
    started: float,
    *,
    dry_run: bool = False,
    notes: Sequence[str] = (),
) -> TransferReport:
    unread = [
        f"the parts of {file.name} are not known before it is read: what is there of it is not counted"
        for file in ready.artifact.files
        if dry_run and file.digest in ready.cuts.late
    ]
    return TransferReport(
        command="push",
        reference=full_name(sink, ready.tag),
        document=None if ready.cuts.late else ready.artifact.manifest,
        artifact_type=ready.image.kind,
        name=ready.key.name,
        tag=ready.key.tag,
        blobs=blobs,
        seconds=time.monotonic() - started,
        derived=ready.snapshot.derived,
        dry_run=dry_run,
        warnings=(
            *ready.snapshot.warnings,
            *(f"{item} has no place in the artifact" for item in (*ready.snapshot.lost, *ready.artifact.lost)),
            *notes,
            *unread,
        ),
    )
