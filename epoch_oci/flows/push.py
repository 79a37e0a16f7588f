"""From an Epoch store into a registry repository or an OCI image layout."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from epoch_oci import dialects
from epoch_oci.dialects.base import Artifact, EncodeOptions
from epoch_oci.dialects.carried import is_placeholder
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.events import OnEvent, ignore
from epoch_oci.flows.artifact import read_epoch
from epoch_oci.flows.packing import Chunking
from epoch_oci.flows.parts import part_tables
from epoch_oci.flows.publish import Publication, files_of, legal_target
from epoch_oci.flows.report import BlobReport, TransferReport, done, planned
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.document import EMPTY_CONTENT
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.stores.base import BytesContent, Content, Sink, Source
from epoch_oci.transfer.content import SliceContent
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Plan, Want, plan_blobs, require
from epoch_oci.transfer.throttle import Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """How to push. `force` replaces a tag that holds another artifact; `mount_from` are sibling repositories.

    `also` are further tags for the artifact.

    `part_size` is in bytes: files above it are cut, 0 means never, None what the target is known to need. Without
    `allow_public` no manifest that names a guest's memory is published where anybody may read it. `part_cache`
    remembers part digests.
    `throttle` paces what is sent; runs that are given the same one share its rate. With `chunking` the artifact is of
    the chunked form.
    """

    dialect: str = "cocoon"
    also: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    mount_from: tuple[str, ...] = ()
    allow_loss: bool = False
    allow_public: bool = False
    part_size: int | None = None
    part_cache: Path | None = None
    force: bool = False
    dry_run: bool = False
    jobs: int | None = None
    throttle: Throttle | None = None
    chunking: Chunking | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    key: SnapshotKey
    tag: str
    manifest: Manifest
    artifact: Artifact
    image: ImageManifest
    plan: Plan
    tagged: bool
    also: tuple[str, ...]


def push(
    source: Source,
    snapshot: SnapshotKey,
    sink: Sink,
    tag: str | None,
    *,
    where: str,
    options: PushOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Translate a snapshot, move what the sink lacks, and tag it last.

    `tag` None means the snapshot's own; `where` names the target without its tag, for messages and the report.
    Raises ContentError for a wrong manifest or blob, NotFoundError for a missing one, ConflictError, UsageError, and
    whatever source and sink raise. Whatever is raised, the tag is then what it was, and blobs that were sent stay.
    """
    options = options or PushOptions()
    if options.chunking is not None:
        from epoch_oci.flows.push_chunked import push_chunked

        return push_chunked(
            source, snapshot, sink, tag, where=where, options=options, chunking=options.chunking, on_event=on_event
        )
    started = time.monotonic()
    publication = Publication(sink, where, allow_public=options.allow_public, replace=options.force)
    ready = _prepare(source, snapshot, publication, tag, options)
    files = files_of(ready.manifest)
    if options.dry_run:
        notes = publication.foretold(files)
        return _report(ready, planned(ready.plan, "send"), where, started, dry_run=True, notes=notes)
    if ready.also or not ready.tagged or not ready.plan.all_there:
        publication.check_write()
    publication.admit(files)
    outcomes = execute(ready.plan, moved="sent", jobs=options.jobs, on_event=on_event, throttle=options.throttle)
    known = ready.tagged and all(outcome.action == "skipped" for outcome in outcomes)
    publication.commit(ready.tag, ready.artifact.manifest, files, known=known)
    for tag in ready.also:
        publication.commit(tag, ready.artifact.manifest, files)
    return _report(ready, done(outcomes), where, started)


def _prepare(
    source: Source, key: SnapshotKey, publication: Publication, tag: str | None, options: PushOptions
) -> _Prepared:
    sink = publication.sink
    manifest = read_epoch(source, str(key))
    tag = legal_target(tag or key.tag, key)
    tables = part_tables(source, manifest, sink, options.part_size, options.part_cache)
    encode = EncodeOptions(annotations=options.annotations, allow_loss=options.allow_loss, parts=tables)
    artifact = dialects.named(options.dialect).encode(manifest.document, encode)
    image = artifact.image
    for file in artifact.files:
        publication.check_limits(file.name, file.carriers)
    tagged = publication.is_tagged(tag, artifact.manifest)
    also = tuple(tag for tag in options.also if not publication.is_tagged(tag, artifact.manifest))
    plan = plan_blobs(sink, _wants(source, artifact, image), mount_from=options.mount_from, jobs=options.jobs)
    _require_content(source, artifact, plan, options.jobs)
    return _Prepared(key, tag, manifest, artifact, image, plan, tagged, also)


def _wants(source: Source, artifact: Artifact, image: ImageManifest) -> list[Want]:
    wants = small_wants(artifact, image)
    for file in artifact.files:
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
    names = {file.digest: file.name for file in artifact.files}
    require(source, needed, names, jobs=jobs)


def _report(
    ready: _Prepared,
    blobs: tuple[BlobReport, ...],
    where: str,
    started: float,
    *,
    dry_run: bool = False,
    notes: Sequence[str] = (),
) -> TransferReport:
    return TransferReport(
        command="push",
        reference=f"{where}:{ready.tag}",
        document=ready.artifact.manifest,
        artifact_type=ready.image.kind,
        name=ready.key.name,
        tag=ready.key.tag,
        blobs=blobs,
        seconds=time.monotonic() - started,
        dry_run=dry_run,
        warnings=(
            *(str(finding) for finding in ready.manifest.warnings),
            *(f"{item} has no place in the artifact" for item in ready.artifact.lost),
            *notes,
        ),
    )
