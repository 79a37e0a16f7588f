"""From an Epoch store into a registry or a layout, in the chunked form: what changed since earlier versions is sent."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from epoch_oci.artifacts.bases import as_source
from epoch_oci.artifacts.chunked import folds_of
from epoch_oci.artifacts.packing import SMALL, Chunking, Packing, Sending, packing_into
from epoch_oci.artifacts.publish import files_of
from epoch_oci.artifacts.read import FoundDocuments, artifact_of
from epoch_oci.artifacts.write import Push, file_wants, small_wants
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Artifact, ChunkLayers, SnapshotFile
from epoch_oci.dialects.layers import is_chunked
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.events import Event, OnEvent, phase
from epoch_oci.oci import media_types
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.parts import PartTable
from epoch_oci.transfer.cuts import cut_size, cut_table
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Plan, Want, in_parallel, require
from epoch_oci.transfer.pool import beside
from epoch_oci.transfer.report import BlobReport, TransferReport, done, planned


@dataclass(slots=True, kw_only=True)
class ChunkedPush(Push):
    """The chunked form (docs/format.md, chapter 7).

    What the target has of the snapshot in chunks already is not sent and not even read. A base that is of no use is a
    warning.
    """

    @property
    def chunking(self) -> Chunking:
        """How files are put into chunks."""
        assert self.options.chunking is not None
        return self.options.chunking

    def run(self) -> TransferReport:
        """As `Push.run`."""
        there = self._there()
        # Cutting is not a function of the snapshot alone (earlier packs take part), so that the same snapshot would get
        # another digest at every push.
        if there is not None and (artifact := self._unchanged(there)) is not None:
            return self._published(artifact, self._all_there(artifact), known=True)
        if not self.options.force:
            self._refuse_taken(there)
        large, plain = self._divided()
        self._admit(large, plain)
        size = sum(file.size for file in large)
        with packing_into(self._sending(), self.chunking, size, (self.tag, there)) as packing:
            phase(self.on_event, "cutting into chunks" if self.options.dry_run else "sending in chunks")
            self.on_event(Event(event="plan", bytes=size, total=size))
            self._cut(large, packing)
            chunks, rows = packing.finish()
            artifact = self.encode(parts=self._tables(plain), chunks=chunks)
            for file in artifact.files:
                self.publication.check_limits(file.name, file.carriers)
            plan = self.plan(self._wants(artifact))
            sent = planned(plan, "send") if self.options.dry_run else self._execute(plan)
            return self._published(artifact, (*sent[:1], *rows, *sent[1:]), known=False)

    def _there(self) -> ImageManifest | None:
        """What the tag holds; None for nothing, and for what is no image manifest and will be replaced."""
        try:
            document = self.sink.resolve(self.tag)
        except NotFoundError:
            return None
        try:
            return ImageManifest.parse(document)
        except ContentError:
            if self.options.force:
                return None
            # What cannot be read may be anybody's, and is replaced only by whoever says so.
            raise self.publication.conflict(self.tag, document) from None

    def _refuse_taken(self, there: ImageManifest | None) -> None:
        """Before anything is read: a tag that holds something holds something else, for it is not this snapshot."""
        if there is not None:
            raise self.publication.conflict(self.tag, there.document)
        for tag in self.options.also:
            with suppress(NotFoundError):
                raise self.publication.conflict(tag, self.sink.resolve(tag))

    def _unchanged(self, there: ImageManifest) -> Artifact | None:
        """The artifact that the tag holds, when it is this very snapshot in chunks and all of it is there."""
        document = self.manifest.document
        if not is_chunked(there) or (there.config.digest, there.config.size) != (document.digest, document.size):
            return None
        if (source := as_source(self.sink)) is None:
            return None
        with suppress(ContentError, NotFoundError):
            # Its documents need not be fetched: the one was read just now, and the other is what is being pushed.
            config = document.called(there.config.media_type)
            # The index is two round trips, and the blobs are asked for meanwhile.
            reading = beside(artifact_of, source, FoundDocuments(there, config))
            present = in_parallel(self.sink.holds, there.successors, self.options.jobs)
            found = reading.result()
            # Other annotations were asked for: then it is another artifact, though its files are the same.
            wanted = self.encode(chunks=_NO_CHUNKS).image.annotations
            if dict(there.annotations) == dict(wanted) and all(present):
                return Artifact(there.document, config, found.snapshot.files)
        return None

    def _all_there(self, artifact: Artifact) -> tuple[BlobReport, ...]:
        # Nothing was moved or would be: the same row, in the tense of the run.
        word = "skip" if self.options.dry_run else "skipped"
        return tuple(
            BlobReport(str(blob.digest), blob.size, blob.title, blob.media_type, word, 0)
            for blob in artifact.image.successors
        )

    def _divided(self) -> tuple[list[SnapshotFile], list[SnapshotFile]]:
        """What is cut, and what stays plain: small files, base images, and what is there plain already."""
        files = [file for file in self.encode(chunks=_NO_CHUNKS).files if file.size]
        # Base images do not change from version to version: as one blob each they are mounted and shared whole.
        images = {file.digest for file in files if file.role != "layer"}
        keep = self.chunking.keep_plain
        large = [
            file
            for file in files
            if file.size > SMALL and file.digest not in images and not (keep and self.sink.holds(file.blob))
        ]
        cut = {file.digest for file in large}
        return large, [file for file in files if file.digest not in cut]

    def _admit(self, large: Sequence[SnapshotFile], plain: Sequence[SnapshotFile]) -> None:
        """Everything that can be known to be wrong before the first byte is read."""
        # What the sink has need not be in the source; what is cut is read in any case.
        absent = [file for file in plain if not self.sink.holds(file.blob)]
        needed = [file.blob for file in (*large, *absent)]
        require(self.source, needed, {file.digest: file.name for file in (*large, *absent)}, jobs=self.options.jobs)
        if self.options.dry_run:
            self.notes += self.publication.foretold(files_of(self.manifest))
            return
        self.publication.check_write()
        self.publication.admit(files_of(self.manifest))

    def _sending(self) -> Sending:
        options = self.options
        return Sending(
            sink=self.sink,
            on_event=self._heard,
            jobs=options.jobs,
            throttle=options.throttle,
            dry_run=options.dry_run,
        )

    def _cut(self, large: Sequence[SnapshotFile], packing: Packing) -> None:
        folds = folds_of(self.manifest)
        for file in large:
            blob = replace(file.blob, annotations={media_types.TITLE: file.name})
            packing.add(blob, self.source.content(file.blob), folds.get(file.digest))
        packing.settle()

    def _heard(self, event: Event) -> None:
        """A base that is of no use is told in the report, beside all else that is odd."""
        if event.event == "warning" and event.message:
            self.notes.append(event.message)
        else:
            self.on_event(event)

    def _tables(self, plain: Sequence[SnapshotFile]) -> dict[Digest, PartTable]:
        """How plain files are cut into parts where the target needs that, as in the plain form."""
        options = self.options
        sizes = {file.blob: cut_size(file.blob, self.sink, options.part_size) for file in plain}
        return {
            blob.digest: cut_table(self.source.content(blob), blob, size, options.part_cache)
            for blob, size in sizes.items()
            if size is not None and not self.sink.holds(blob)
        }

    def _wants(self, artifact: Artifact) -> list[Want]:
        """The config first, then what is neither a pack nor the index."""
        wants = small_wants(artifact, artifact.image)
        for file in artifact.files:
            # Packs and index have been sent by the time that the artifact is known.
            if file.encoding != "chunks":
                wants += file_wants(self.source.content(file.blob), file.carriers)
        return wants

    def _execute(self, plan: Plan) -> tuple[BlobReport, ...]:
        options = self.options
        heard = _without_plan(self.on_event)
        return done(execute(plan, moved="sent", jobs=options.jobs, on_event=heard, throttle=options.throttle))

    def _published(self, artifact: Artifact, rows: tuple[BlobReport, ...], *, known: bool) -> TransferReport:
        if not self.options.dry_run:
            phase(self.on_event, "publishing")
            files = files_of(self.manifest)
            self.publication.commit(self.tag, artifact.manifest, files, known=known)
            for tag in self.options.also:
                taken = self.publication.is_tagged(tag, artifact.manifest)
                self.publication.commit(tag, artifact.manifest, files, known=taken)
        return self.report(artifact, rows)


_NO_CHUNKS = ChunkLayers(index=None, packs=(), files=frozenset())


def _without_plan(on_event: OnEvent) -> OnEvent:
    """Listens to the last of several transfers that are one for people."""

    def heard(event: Event) -> None:
        if event.event != "plan":
            on_event(event)

    return heard
