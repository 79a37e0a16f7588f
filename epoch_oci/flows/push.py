"""From an Epoch store into a registry repository or an OCI image layout."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epoch_oci import dialects
from epoch_oci.dialects.base import Artifact, EncodeOptions
from epoch_oci.dialects.carried import is_placeholder
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ConflictError, NotFoundError, PolicyError, UsageError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.flows.artifact import read_epoch
from epoch_oci.flows.parts import part_tables
from epoch_oci.flows.report import BlobReport, TransferReport, done, planned
from epoch_oci.oci.document import EMPTY_CONTENT
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.reference import legal_tag, tag_problem
from epoch_oci.stores.base import BytesContent, Exposed, Limited, Preflight, Sink, Source
from epoch_oci.transfer.content import SliceContent
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Plan, Want, plan_blobs, require

_MEMORY_FILES = frozenset({"mem", "vmstate", "state.json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """How to push. `force` replaces a tag that holds another artifact; `mount_from` are sibling repositories.

    `part_size` is in bytes: files above it are cut, 0 means never, None what the target is known to need. Without
    `allow_public` a guest's memory is not sent where anybody may read it. `part_cache` remembers part digests.
    """

    dialect: str = "cocoon"
    annotations: Mapping[str, str] = field(default_factory=dict)
    mount_from: tuple[str, ...] = ()
    allow_loss: bool = False
    allow_public: bool = False
    part_size: int | None = None
    part_cache: Path | None = None
    force: bool = False
    dry_run: bool = False
    jobs: int = 4


@dataclass(frozen=True, slots=True)
class _Prepared:
    key: SnapshotKey
    tag: str
    manifest: Manifest
    artifact: Artifact
    image: ImageManifest
    plan: Plan
    tagged: bool


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
    started = time.monotonic()
    ready = _prepare(source, snapshot, sink, tag, where, options)
    if options.dry_run:
        return _report(ready, planned(ready.plan, "send"), where, started, dry_run=True)
    if ready.plan.to_move:
        _guard(sink, ready.manifest, where, options)
    outcomes = execute(ready.plan, moved="sent", jobs=options.jobs, on_event=on_event)
    if not ready.tagged or any(outcome.action != "skipped" for outcome in outcomes):
        sink.publish(ready.tag, ready.artifact.manifest, replace=options.force)
    return _report(ready, done(outcomes), where, started)


def _prepare(
    source: Source, key: SnapshotKey, sink: Sink, tag: str | None, where: str, options: PushOptions
) -> _Prepared:
    manifest = read_epoch(source, str(key))
    tag = _legal(tag or key.tag, key)
    tables = part_tables(source, manifest, sink, options.part_size, options.part_cache)
    encode = EncodeOptions(annotations=options.annotations, allow_loss=options.allow_loss, parts=tables)
    artifact = dialects.named(options.dialect).encode(manifest.document, encode)
    image = artifact.image
    _check_limits(artifact, sink, where)
    tagged = _is_tagged(sink, tag, artifact, where, force=options.force)
    plan = plan_blobs(sink, _wants(source, artifact, image), mount_from=options.mount_from, jobs=options.jobs)
    _require_content(source, artifact, plan, options.jobs)
    return _Prepared(key, tag, manifest, artifact, image, plan, tagged)


def _legal(tag: str, key: SnapshotKey) -> str:
    if (why := tag_problem(tag)) is None:
        return tag
    legal = legal_tag(tag) or "latest"
    raise UsageError(
        f'the tag "{tag}" of {key} {why}', object=str(key), hint=f'name a target tag, for example ":{legal}"'
    )


def _check_limits(artifact: Artifact, sink: Sink, where: str) -> None:
    """Refuse what the target is known not to take, before it has taken gigabytes of it."""
    largest = sink.limits().largest if isinstance(sink, Limited) else None
    for file in artifact.files:
        for carrier in file.carriers:
            if largest is not None and carrier.size > largest:
                raise UsageError(
                    f"{file.name} needs a layer of {carrier.size} bytes, and {where} takes {largest} at most",
                    object=file.name,
                    hint="cut it with --part-size 1GiB",
                )


def _guard(sink: Sink, manifest: Manifest, where: str, options: PushOptions) -> None:
    """Before the first byte: may we write, and may everybody read? Memory holds the guest's secrets."""
    if isinstance(sink, Preflight):
        sink.check_write()
    secret = [layer.filename for layer in manifest.layers if _holds_memory(layer.filename, layer.media_type)]
    if secret and not options.allow_public and isinstance(sink, Exposed) and sink.anonymous_can_read():
        raise PolicyError(
            f"anybody can read {where}, and {', '.join(secret)} hold what was in the guest's memory",
            object=where,
            hint="make the repository private, or push it all the same with --allow-public",
        )


def _holds_memory(name: str, media_type: str) -> bool:
    """Guest memory or device state, by Epoch's media types and by the names that Firecracker's files have."""
    return media_type.endswith((".memory", ".state+json")) or name.startswith("memory-range") or name in _MEMORY_FILES


def _wants(source: Source, artifact: Artifact, image: ImageManifest) -> list[Want]:
    wants = [Want(target=image.config, content=BytesContent(artifact.config.raw))]
    for layer in image.layers:
        if is_placeholder(layer):
            wants.append(Want(target=layer, content=BytesContent(EMPTY_CONTENT)))
    for file in artifact.files:
        whole, offset = source.content(file.blob), 0
        for carrier in file.carriers:
            content = whole if len(file.carriers) == 1 else SliceContent(whole, offset, carrier.size)
            wants.append(Want(target=carrier, content=content, title=carrier.title))
            offset += carrier.size
    return wants


def _require_content(source: Source, artifact: Artifact, plan: Plan, jobs: int) -> None:
    """Every file of which something must be sent has to be in the source, before the first byte moves."""
    absent = {item.target.digest for item in plan.items if item.step != "skip"}
    needed = [file.blob for file in artifact.files if any(carrier.digest in absent for carrier in file.carriers)]
    names = {file.digest: file.name for file in artifact.files}
    require(source.has, needed, names, jobs=jobs)


def _is_tagged(sink: Sink, tag: str, artifact: Artifact, where: str, *, force: bool) -> bool:
    """Whether the tag holds this very artifact. Raises ConflictError when it holds another; `publish` looks again."""
    try:
        there = sink.resolve(tag)
    except NotFoundError:
        return False
    if there.digest == artifact.manifest.digest:
        return True
    if force:
        return False
    raise ConflictError(
        f"{where}:{tag} holds {there.digest}, which is another artifact",
        object=f"{where}:{tag}",
        hint="push to another tag, or replace it with --force",
    )


def _report(
    ready: _Prepared, blobs: tuple[BlobReport, ...], where: str, started: float, *, dry_run: bool = False
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
        ),
    )
