"""One piece of a sync, a shared blob or a snapshot, for whoever has both ends open. Pieces are words and digests."""

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import ClassVar

from epoch_oci import dialects
from epoch_oci.artifacts.decode import carried_content
from epoch_oci.artifacts.packing import Chunking
from epoch_oci.artifacts.publish import Publication
from epoch_oci.artifacts.read import read_artifact
from epoch_oci.artifacts.write import PushOptions, WriteOptions, file_wants
from epoch_oci.bulk.sides import Entry, RegistrySide, Side, of_one_registry, store_of
from epoch_oci.dataclass import dataclass
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import NotFoundError
from epoch_oci.events import OnEvent
from epoch_oci.flows.copy import CopyOptions
from epoch_oci.flows.copy import copy as copy_artifact
from epoch_oci.flows.pull import PullOptions, pull_to_store
from epoch_oci.flows.push import push
from epoch_oci.flows.transplant import transplant
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.manifest import is_index
from epoch_oci.oci.parts import spans
from epoch_oci.oci.reference import is_fallback_tag
from epoch_oci.options import Checked
from epoch_oci.stores.base import ArtifactStore, Content
from epoch_oci.transfer.cuts import cut_size, cut_table
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs
from epoch_oci.transfer.report import TransferReport
from epoch_oci.transfer.throttle import Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner(Checked):
    """How every piece is done, as `PushOptions` has it; `jobs` is how many transfers one piece may have under way."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"jobs": (1, 64)}
    dialect: str = "cocoon"
    part_size: int | None = None
    allow_loss: bool = False
    allow_public: bool = False
    force: bool = False
    referrers: bool = True
    chunked: bool = False
    verify_bases: bool = False
    jobs: int | None = None


@dataclass(frozen=True, slots=True)
class Local(Checked):
    """What only this process has: directories to remember things in, and the rate that all pieces share."""

    cache: Path | None = None
    packs: Path | None = None
    throttle: Throttle | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class BlobTask:
    """Bring `digest`, `size` bytes, to a container of the target, out of the first of `sources` that has it.

    Each source is a snapshot and the digest of its document; `secret` is as in `union.Blob`.
    """

    digest: Digest
    size: int
    target: Entry
    sources: tuple[tuple[Entry, Digest], ...]
    secret: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SnapshotTask:
    """Bring a snapshot. `pinned` is the digest of its document at the source, `homes` where its blobs are by now."""

    source: Entry
    target: Entry
    pinned: Digest
    homes: tuple[tuple[Digest, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of a piece. `digest` is what the target has it by, None for a blob; sizes are bytes.

    `placed` are the blobs that the target's container has now under names of their own, parts for example.
    """

    digest: Digest | None = None
    size: int = 0
    moved: int = 0
    reused: int = 0
    placed: tuple[Digest, ...] = ()
    warnings: tuple[str, ...] = ()


def do_blob(task: BlobTask, source: Side, target: Side, manner: Manner, local: Local, on_event: OnEvent) -> Done:
    """Bring a shared blob. Raises ContentError, NotFoundError and what both ends raise."""
    sink = store_of(target, task.target)
    blob = Descriptor(media_type=media_types.OCTET_STREAM, digest=task.digest, size=task.size)
    content = _content(task, source)
    publication = Publication(sink, allow_public=manner.allow_public, replace=False)
    publication.check_write()
    # The guard of every publishing, here too: a shared blob travels before any manifest names it.
    if task.secret is not None:
        publication.admit([task.secret])
    wants = [Want(target=blob, content=content)]
    # Only out of a store: an artifact that is copied keeps its parts as they are.
    size = cut_size(blob, sink, _wanted_parts(manner)) if source.kind == "store" and target.kind != "store" else None
    if size is not None:
        table = cut_table(content, blob, size, local.cache)
        lengths = [length for _, length in spans(blob.size, table.size)]
        parts = [
            Descriptor(media_type=media_types.OCTET_STREAM, digest=digest, size=length)
            for digest, length in zip(table.digests, lengths, strict=True)
        ]
        wants = file_wants(content, parts)
    plan = plan_blobs(sink, wants, jobs=manner.jobs)
    outcomes = execute(plan, moved="sent", jobs=manner.jobs, on_event=on_event, throttle=local.throttle)
    moved = sum(outcome.bytes for outcome in outcomes)
    placed = tuple(outcome.item.target.digest for outcome in outcomes)
    return Done(size=task.size, moved=moved, reused=task.size - moved, placed=placed)


def _wanted_parts(manner: Manner) -> int | None:
    """As `artifacts.write.wanted_parts`, for a blob of which nobody knows whether it is a cloud image's."""
    if manner.part_size is None and not dialects.named(manner.dialect).cuts(cloud_image=False):
        return 0
    return manner.part_size


def _content(task: BlobTask, source: Side) -> Content:
    """The bytes of a shared blob, as a whole file where an artifact carries it in parts. Raises NotFoundError."""
    blob = Descriptor(media_type=media_types.OCTET_STREAM, digest=task.digest, size=task.size)
    for entry, pinned in task.sources:
        store = store_of(source, entry)
        if store.has(blob):
            return store.content(blob)
        if source.kind == "store":
            break
        # A repository may have the file only as its parts.
        for file in read_artifact(store, str(pinned)).snapshot.files:
            if file.digest == task.digest:
                return carried_content(store, file)
    raise NotFoundError(f"the source does not hold {task.digest}", object=str(task.digest))


def do_snapshot(
    task: SnapshotTask, source: Side, target: Side, manner: Manner, local: Local, on_event: OnEvent
) -> Done:
    """Bring a snapshot, whatever the two ends are. Raises what push, pull and copy raise."""
    store, sink = store_of(source, task.source), store_of(target, task.target)
    if target.kind == "store":
        return _to_store(task, source, target, manner, local, on_event)
    how = WriteOptions(
        mount_from=_own_registry(task, source, target),
        homes=_homes(task, target),
        allow_public=manner.allow_public,
        force=manner.force,
        jobs=manner.jobs,
        throttle=local.throttle,
    )
    if source.kind == "store":
        options, key = _pushing(how, manner, local, _alike(task, target)), SnapshotKey.parse(task.source.ref)
        return _done(push(store, key, sink, task.target.ref, options=options, on_event=on_event))
    assert isinstance(sink, ArtifactStore)
    copying = CopyOptions(referrers=manner.referrers, **how.shared())
    # A listing of referrers is the registry's own; what it lists is entered into the target's, however that keeps it.
    tags = () if is_fallback_tag(task.source.tag) and _is_listing(task, source) else (task.target.ref,)
    return _done(copy_artifact(store, str(task.pinned), sink, tags, options=copying, on_event=on_event))


def _pushing(how: WriteOptions, manner: Manner, local: Local, alike: str) -> PushOptions:
    return PushOptions(
        dialect=manner.dialect,
        allow_loss=manner.allow_loss,
        part_size=manner.part_size,
        part_cache=local.cache,
        chunking=Chunking(journals=local.packs, cache=local.cache, verify_bases=manner.verify_bases, alike=alike)
        if manner.chunked
        else None,
        **how.shared(),
    )


def _alike(task: SnapshotTask, target: Side) -> str:
    """What the tags of versions of a snapshot begin with at the target: a layout has those of others as well."""
    return task.target.ref.removesuffix(task.target.tag) if target.kind == "layout" else ""


def _is_listing(task: SnapshotTask, source: Side) -> bool:
    return is_index(store_of(source, task.source).resolve(str(task.pinned)))


def _to_store(task: SnapshotTask, source: Side, target: Side, manner: Manner, local: Local, on_event: OnEvent) -> Done:
    store, sink = store_of(source, task.source), store_of(target, task.target)
    options = PullOptions(
        key=SnapshotKey.parse(task.target.ref),
        force=manner.force,
        jobs=manner.jobs,
        throttle=local.throttle,
        decode_cache=local.cache,
    )
    if source.kind == "store":
        report = transplant(store, SnapshotKey.parse(task.source.ref), sink, options=options, on_event=on_event)
        return _done(report)
    report = pull_to_store(store, str(task.pinned), sink, options=options, on_event=on_event)
    return replace(_done(report), digest=sink.resolve(task.target.ref).digest)


def _own_registry(task: SnapshotTask, source: Side, target: Side) -> tuple[str, ...]:
    """The source's repository, where the target can mount blobs from it."""
    if not (of_one_registry(source, target) and isinstance(source, RegistrySide)):
        return ()
    return (source.repository(task.source.container),)


def _homes(task: SnapshotTask, target: Side) -> Mapping[Digest, str]:
    """By blob, the full name of a sibling repository that has it."""
    if not isinstance(target, RegistrySide):
        return {}
    # What is in the container already needs no mounting.
    own = task.target.container
    return {digest: target.repository(container) for digest, container in task.homes if container != own}


def _done(report: TransferReport) -> Done:
    return Done(
        digest=report.document.digest if report.document is not None else None,
        size=report.size,
        moved=report.transferred,
        reused=report.reused,
        warnings=report.warnings,
    )
