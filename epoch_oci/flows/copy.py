"""One artifact from a repository or layout into another: the same bytes, with its index and what refers to it."""

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from epoch_oci.artifacts.graph import Graph, read_graph
from epoch_oci.artifacts.publish import Named, Publication, named_by
from epoch_oci.artifacts.write import WriteOptions
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, ConflictError, ContentError, NotFoundError, UsageError
from epoch_oci.events import OnEvent, ignore, phase
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest, is_index, subject_of
from epoch_oci.stores.base import ArtifactStore, Source, full_name
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs
from epoch_oci.transfer.report import BlobReport, TransferReport, done, once_more, planned


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions(WriteOptions):
    """How to copy. `referrers`: what refers to the artifact comes along, cosign's tags (`sha256-HEX.sig`) included."""

    referrers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport(TransferReport):
    """The result of a copy; `documents` are its manifests and indexes, the artifact's own last."""

    source: str
    documents: tuple[Descriptor, ...]
    referrers: tuple[Descriptor, ...]

    def plain(self) -> TransferReport:
        """What it has in common with a push."""
        return TransferReport(**{field.name: getattr(self, field.name) for field in fields(TransferReport)})

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        rows = [
            {"digest": str(item.digest), "size": item.size, "mediaType": item.media_type, "role": role}
            for role, items in (("document", self.documents), ("referrer", self.referrers))
            for item in items
        ]
        return {**TransferReport.to_json(self), "source": self.source, "documents": rows}


def copy(
    source: Source,
    name: str,
    sink: ArtifactStore,
    tags: Sequence[str],
    *,
    options: CopyOptions | None = None,
    on_event: OnEvent = ignore,
) -> CopyReport:
    """Copy what `name` (a tag or a digest) is in `source`, and tag it last; without `tags` it has its digest alone.

    Raises ContentError for a wrong document or blob, NotFoundError, ConflictError for a tag that holds something else,
    PolicyError, and whatever source and sink raise; no tag has moved then, and blobs that were sent stay.
    """
    how = options or CopyOptions()
    return once_more(lambda hear: _copy(source, name, sink, tags, how, hear), on_event)


def _copy(
    source: Source,
    name: str,
    sink: ArtifactStore,
    tags: Sequence[str],
    options: CopyOptions,
    on_event: OnEvent,
) -> CopyReport:
    started = time.monotonic()
    phase(on_event, "reading the manifests")
    root = source.resolve(name)
    graph = read_graph(source, root, full_name(source, name), referrers=options.referrers)
    publication = Publication(sink, allow_public=options.allow_public, replace=options.force)
    # All tags before the first byte: a conflict on the last of them would leave half of a copy.
    missing = [tag for tag in tags if not holds(sink, tag, root.digest, force=options.force)]
    unattached = {tag: item for tag, item in graph.attached.items() if not _has_attached(sink, tag, item, options)}
    for blob in graph.blobs.values():
        publication.check_limits(blob.title or str(blob.digest), [blob])
    wants = [Want(target=blob, content=source.content(blob), title=blob.title) for blob in graph.blobs.values()]
    phase(on_event, "looking at what is there")
    plan = plan_blobs(sink, wants, mount_from=options.mount_from, homes=options.homes, jobs=options.jobs)
    # Before a byte moves, as everything that may end it.
    absent = _absent_documents(sink, graph, tags)
    files = _files(source, graph)
    if options.dry_run:
        blobs, notes = planned(plan, "send"), publication.foretold(files)
        return _report(graph, blobs, full_name(source, name), sink, tags, started, dry_run=True, notes=notes)
    if missing or absent or unattached or not plan.all_there:
        publication.check_write()
        publication.admit(files)
    phase(on_event, plan.doing("sending"))
    outcomes = execute(plan, moved="sent", jobs=options.jobs, on_event=on_event, throttle=options.throttle)
    phase(on_event, "publishing")
    # After all blobs: a registry may refuse a manifest whose blobs it lacks (oci-registries 2.2).
    for document in absent:
        publication.keep(sink, document)
    for tag, document in unattached.items():
        publication.commit(tag, document)
    for tag in tags:
        publication.commit(tag, root, files, blobs=graph.blobs.values(), known=tag not in missing)
    return _report(graph, done(outcomes), full_name(source, name), sink, tags, started)


def holds(sink: ArtifactStore, tag: str, digest: Digest, *, force: bool) -> bool:
    """Whether a tag points to `digest`. Raises ConflictError when it points elsewhere, unless `force`."""
    try:
        there = pointed(sink, tag)
    except (AccessError, ContentError):  # what is to be replaced need not be fit to be read
        if not force:
            raise
        return False
    if there is None or there == digest:
        return there == digest
    if force:
        return False
    raise ConflictError(
        f"{sink.where}:{tag} holds {there}, which is another artifact",
        object=f"{sink.where}:{tag}",
        hint="choose another tag, or replace it with --force",
    )


def pointed(store: object, name: str) -> Digest | None:
    """What a name points to, None for nothing. Raises what the store raises."""
    if isinstance(store, ArtifactStore):
        return store.digest_of(name)
    try:
        return store.resolve(name).digest  # type: ignore[attr-defined, no-any-return]
    except NotFoundError:
        return None


def _absent_documents(sink: object, graph: Graph, tags: Sequence[str]) -> list[Document]:
    """What has to be stored by its digest, in order: all but the root, which its tags bring, and what is there."""
    untagged = [item for item in graph.documents.values() if item is not graph.root or not tags]
    absent = [item for item in untagged if pointed(sink, str(item.digest)) is None]
    # These get their tags below, which is how they are found; kept by digest alone they would be sent twice.
    tagged = {item.digest for item in graph.attached.values()}
    referring = [item for item in graph.referrers.values() if item.digest not in tagged]
    return absent + [item for item in referring if not _is_listed(sink, item)]


def _has_attached(sink: ArtifactStore, tag: str, document: Document, options: CopyOptions) -> bool:
    """As `holds`, of a tag that the source has something under beside the artifact."""
    try:
        return holds(sink, tag, document.digest, force=options.force)
    except ConflictError as error:
        hint = "somebody else signed it there: leave the source's behind with --no-referrers, or replace with --force"
        raise ConflictError(error.message, object=error.object, hint=hint) from None


def _is_listed(sink: object, referrer: Document) -> bool:
    """Whether a referrer is there and can be found: its entry may have been lost to another writer."""
    subject = subject_of(referrer)
    if subject is not None and isinstance(sink, ArtifactStore):
        return any(item.digest == referrer.digest for item in sink.referrers(subject.digest))
    return pointed(sink, str(referrer.digest)) is not None


def _files(source: Source, graph: Graph) -> list[Named]:
    """The files that any manifest of it names: a snapshot's config may name more than its layers do."""
    return [named for image in graph.images for named in named_by(image, source)]


def _report(
    graph: Graph,
    blobs: tuple[BlobReport, ...],
    source: str,
    sink: ArtifactStore,
    tags: Sequence[str],
    started: float,
    *,
    dry_run: bool = False,
    notes: Sequence[str] = (),
) -> CopyReport:
    root = graph.root
    return CopyReport(
        command="copy",
        source=source,
        reference=full_name(sink, tags[0] if tags else str(root.digest)),
        document=root,
        artifact_type=root.media_type if is_index(root) else ImageManifest.parse(root).kind,
        name="",
        tag=tags[0] if tags else "",
        blobs=blobs,
        documents=tuple(item.descriptor for item in graph.documents.values()),
        referrers=tuple(item.descriptor for item in graph.referrers.values()),
        seconds=time.monotonic() - started,
        dry_run=dry_run,
        warnings=tuple(notes),
    )


def add_tags(
    store: ArtifactStore, name: str, tags: Sequence[str], *, force: bool, allow_public: bool, dry_run: bool
) -> dict[str, Any]:
    """Give what `name` is in `store` further tags there. Raises as `copy`; unless all are free, none moves."""
    if not tags:
        raise UsageError("no new tag is given")
    root = store.resolve(name)
    missing = [tag for tag in tags if not holds(store, tag, root.digest, force=force)]
    if missing and not dry_run:
        graph = read_graph(store, root, full_name(store, name), referrers=False)
        publication = Publication(store, allow_public=allow_public, replace=force)
        files = _files(store, graph)
        publication.admit(files)
        # A tag that is right already is not written again: some registries count that as a push, and others forbid it.
        for tag in missing:
            publication.commit(tag, root, files, blobs=graph.blobs.values())
    return {
        "command": "tag",
        "reference": full_name(store, name),
        "digest": str(root.digest),
        "tags": [{"tag": tag, "action": "set" if tag in missing else "held"} for tag in tags],
        "dryRun": dry_run,
    }
