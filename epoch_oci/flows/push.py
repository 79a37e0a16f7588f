"""From an Epoch store into a registry repository or an OCI image layout; here in the plain form."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic

from epoch_oci import dialects
from epoch_oci.artifacts.publish import Publication, files_of, legal_target
from epoch_oci.artifacts.read import ArtifactsOf, FoundDocuments, as_snapshot, forgets, read_stored
from epoch_oci.artifacts.write import (
    Push,
    PushOptions,
    cuts_there,
    decoding_for,
    file_wants,
    small_wants,
    wanted_parts,
)
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Artifact, SnapshotFile
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.events import OnEvent, ignore, phase
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.stores.base import ArtifactStore, Sink, Source
from epoch_oci.transfer.cuts import Cuts, plan_cuts
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Late, Plan, Want, cut_late, require
from epoch_oci.transfer.report import BlobReport, TransferReport, done, once_more, planned


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
    source: Source, key: SnapshotKey, sink: Sink, tag: str | None, options: PushOptions, on_event: OnEvent
) -> TransferReport:
    form, started = _form(options), monotonic()
    phase(on_event, "reading the manifest")
    stored = read_stored(source, key)
    target = legal_target(tag or key.tag, key)
    # A store that keeps artifacts already: the same bytes give the same digest, and a new one would have another.
    as_it_is = form is PlainPush and isinstance(stored, FoundDocuments) and _goes_as_it_is(stored, options)
    if as_it_is and isinstance(sink, ArtifactStore):
        return _copied(source, key, sink, target, options, on_event)
    snapshot = as_snapshot(source, key, stored, decoding_for(options, on_event))
    publication = Publication(sink, allow_public=options.allow_public, replace=options.force)
    return form(
        snapshot=snapshot,
        key=key,
        publication=publication,
        tag=target,
        options=options,
        on_event=on_event,
        started=started,
    ).run()


def _form(options: PushOptions) -> type[Push]:
    """What carries out the form that is asked for. Raises UsageError where the dialect has no such form."""
    if options.chunking is not None:
        from epoch_oci.flows.push_chunked import ChunkedPush

        if options.dialect != "cocoon":
            raise UsageError(
                f"the dialect {options.dialect} has no chunked form", hint="leave --dialect or --chunked out"
            )
        return ChunkedPush
    if options.encoding is not None:
        from epoch_oci.flows.push_encoded import EncodedPush

        if options.dialect != "cocoonstack":
            raise UsageError(
                "--zstd is for the cocoonstack dialect", hint="add --dialect cocoonstack, or use --chunked"
            )
        return EncodedPush
    return PlainPush


def _goes_as_it_is(found: FoundDocuments, options: PushOptions) -> bool:
    """Whether an artifact of a store is asked for in the very form that it has, which is then not made anew."""
    own = dialects.detect(found.image).name
    return own == options.dialect and not options.annotations and not options.part_size


def _copied(
    source: Source, key: SnapshotKey, sink: ArtifactStore, tag: str, options: PushOptions, on_event: OnEvent
) -> TransferReport:
    from epoch_oci.flows.copy import CopyOptions, copy

    how = CopyOptions(referrers=False, **options.shared())
    artifacts, tags = ArtifactsOf(source, key.name), [tag, *options.also]
    report = copy(artifacts, key.tag, sink, tags, options=how, on_event=on_event)
    return replace(report.plain(), command="push", name=key.name, tag=key.tag)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is to be done. `tagged`: the tag holds the artifact already; `also` are further tags that do not."""

    artifact: Artifact
    cuts: Cuts
    plan: Plan
    tagged: bool
    also: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class PlainPush(Push):
    """Each file as one blob, or in parts where that is wanted or the sink needs it."""

    def run(self) -> TransferReport:
        """As `Push.run`."""
        ready, files = self._prepare(), files_of(self.manifest)
        if self.options.dry_run:
            self.notes += [*self.publication.foretold(files), *_unread(ready)]
            return self.report(ready.artifact, _foretold(ready), known=not ready.cuts.late)
        # Not for a run that changes nothing: a registry that may only be read is fine then.
        if ready.also or not ready.tagged or not ready.plan.all_there:
            self.publication.check_write()
        self.publication.admit(files)
        phase(self.on_event, ready.plan.doing("sending"))
        how = self.options
        try:
            outcomes = execute(ready.plan, moved="sent", jobs=how.jobs, on_event=self.on_event, throttle=how.throttle)
        except ContentError:
            if not ready.cuts.forget():
                raise
            # A remembered part digest may be what is wrong, and not the blob: it is learnt anew, once. Nothing is
            # looked up then, for what is remembered in a cache that cannot be written to cannot be forgotten either.
            return replace(self, options=replace(how, part_cache=None)).run()
        ready = self._settled(ready)
        # A tag that was right before is not published again: some registries count that as a push, and others forbid
        # it.
        known = ready.tagged and all(outcome.action == "skipped" for outcome in outcomes)
        # An archive is written now, whole.
        phase(self.on_event, "publishing")
        self.publication.commit(self.tag, ready.artifact.manifest, files, known=known)
        # Each tag is looked at and guarded like the first: they may hold other artifacts.
        for tag in ready.also:
            self.publication.commit(tag, ready.artifact.manifest, files)
        return self.report(ready.artifact, _in_order(done(outcomes), ready.artifact.image))

    def _prepare(self) -> _Prepared:
        options, manifest = self.options, self.manifest
        wanted = wanted_parts(options, cloud_image=manifest.is_cloud_image)
        there: Mapping[str, int] = {}
        # Nobody said how files are cut, so one that is there already decides: the snapshot is no other one for it.
        if wanted is None and not options.force:
            there = cuts_there(self.publication.peek(self.tag), manifest.document.digest)
        cuts = plan_cuts(manifest, self.sink, wanted, options.part_cache, there)
        artifact = self.encode(parts=cuts.foreseen(manifest))
        for file in artifact.files:
            self.publication.check_limits(file.name, file.carriers)
        # From here on the sink is asked; all that the documents alone can tell is known by now.
        phase(self.on_event, "looking at what is there")
        tagged, also = self._look(artifact, cuts)
        # Then all that is left is questions, each a round trip.
        if tagged:
            self.publication.ask_ahead(files_of(manifest))
        plan = self.plan(self._wants(artifact, cuts))
        late = [self._cut_late(file, cuts) for file in artifact.files if file.digest in cuts.late]
        plan = replace(plan, late=tuple(late))
        _require_content(self.source, artifact, plan, options.jobs)
        return _Prepared(artifact, cuts, plan, tagged, also)

    def _look(self, artifact: Artifact, cuts: Cuts) -> tuple[bool, tuple[str, ...]]:
        """Whether the tag holds the artifact, and which further tags do not. Raises ConflictError for another one's.

        An artifact with parts that are not known yet is told from another one by its config, before gigabytes are read.
        """
        also, publication = self.options.also, self.publication
        if not cuts.late:
            tagged = publication.is_tagged(self.tag, artifact.manifest)
            return tagged, tuple(more for more in also if not publication.is_tagged(more, artifact.manifest))
        for name in (self.tag, *also):
            publication.refuse_other(name, artifact.image)
        return False, also

    def _wants(self, artifact: Artifact, cuts: Cuts) -> list[Want]:
        wants = small_wants(artifact, artifact.image)
        for file in artifact.files:
            if file.digest not in cuts.late:
                wants += file_wants(self.source.content(file.blob), file.carriers)
        return wants

    def _cut_late(self, file: SnapshotFile, cuts: Cuts) -> Late:
        home = self.options.homes.get(file.digest)  # where the whole file went, its parts did
        return cut_late(
            self.sink,
            self.source.content(file.blob),
            file.blob,
            file.carriers,
            lambda table: cuts.learn(file.blob, table),
            title=file.name,
            mount_from=(*([home] if home is not None else []), *self.options.mount_from),
        )

    def _settled(self, ready: _Prepared) -> _Prepared:
        """The artifact once every part is known, and another look at what its tags hold."""
        if not ready.plan.late:
            return ready
        # By now `learn` has filled the tables: what was made up before is replaced by what was read.
        cuts = replace(ready.cuts, late={})
        artifact = self.encode(parts=cuts.foreseen(self.manifest))
        tagged, also = self._look(artifact, cuts)
        return replace(ready, artifact=artifact, cuts=cuts, tagged=tagged, also=also)


def _require_content(source: Source, artifact: Artifact, plan: Plan, jobs: int | None) -> None:
    """Every file of which something must be sent has to be in the source, before the first byte moves."""
    absent = {item.target.digest for item in plan.items if item.step != "skip"}
    needed = [file.blob for file in artifact.files if any(carrier.digest in absent for carrier in file.carriers)]
    # Of these nobody knows yet what is there, so that all of them must be.
    needed += [late.blob for late in plan.late]
    names = {file.digest: file.name for file in artifact.files}
    require(source, needed, names, jobs=jobs)


def _foretold(ready: _Prepared) -> tuple[BlobReport, ...]:
    """What would be sent; a file whose parts nobody knows yet is one row, for what is there of it cannot be told."""
    files = {file.digest: file for file in ready.artifact.files}
    late = [files[late.blob.digest] for late in ready.plan.late]
    rows = [BlobReport(str(file.digest), file.size, file.name, file.media_type, "send", file.size) for file in late]
    return (*planned(ready.plan, "send"), *rows)


def _unread(ready: _Prepared) -> list[str]:
    return [
        f"the parts of {file.name} are not known before it is read: what is there of it is not counted"
        for file in ready.artifact.files
        if file.digest in ready.cuts.late
    ]


def _in_order(rows: Sequence[BlobReport], image: ImageManifest) -> tuple[BlobReport, ...]:
    """The rows as the artifact has its blobs, each digest once."""
    by_digest = {row.digest: row for row in rows}
    return tuple(by_digest[str(digest)] for digest in dict.fromkeys(blob.digest for blob in image.successors))
