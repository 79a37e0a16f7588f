"""From a Cocoon export archive on a pipe into a registry repository or an OCI image layout, in one pass.

Each file is sent while the next one is still to come; what the snapshot is called and made of is known at the end, and
only then is it tagged. An archive that breaks off leaves blobs behind, and no snapshot.
"""

import time
from contextlib import ExitStack, suppress
from dataclasses import field, replace

from epoch_oci import dialects, schemas
from epoch_oci.artifacts.packing import SMALL, Chunking, Packing, Sending, packing_into
from epoch_oci.artifacts.publish import Publication, files_of, legal_target
from epoch_oci.artifacts.write import PushOptions, file_wants, small_wants, wanted_parts
from epoch_oci.chunks.fold import Fold
from epoch_oci.cocoon.export_archive import ArchivedFile, ExportArchive
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Artifact, ChunkLayers, EncodeOptions
from epoch_oci.dialects.layers import cuts_of, part_layers, whole_layer
from epoch_oci.dialects.profile import SNAPSHOT_ID
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.epoch.sparse import unpacking
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.events import Event, OnEvent, ignore, phase
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.media_types import TITLE
from epoch_oci.oci.parts import PartTable
from epoch_oci.stores.base import BytesContent, Sink, full_name
from epoch_oci.transfer.cuts import cut_size, cut_table
from epoch_oci.transfer.execute import Outcome, execute
from epoch_oci.transfer.plan import Plan, Want, plan_blobs
from epoch_oci.transfer.report import BlobReport, TransferReport, done, planned


def push_archive(
    archive: ExportArchive,
    sink: Sink,
    tag: str | None,
    *,
    options: PushOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Send the files of `archive` one by one, translate the manifest that they make, and tag it last.

    `tag` None means the snapshot's own. Raises ContentError for an archive that is wrong, ConflictError, UsageError,
    PolicyError, and whatever reading and `sink` raise. Whatever is raised, the tag is then what it was.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        stream = _Stream(archive, sink, tag, options or PushOptions(), on_event, stack)
        stream.send_files()
        return stream.finish(started)


@dataclass(slots=True)
class _Stream:
    archive: ExportArchive
    sink: Sink
    tag: str | None
    options: PushOptions
    on_event: OnEvent
    stack: ExitStack
    publication: Publication = field(init=False)
    packing: Packing | None = None
    tables: dict[Digest, PartTable] = field(default_factory=dict)
    blobs: dict[str, BlobReport] = field(default_factory=dict)
    looked: bool = False
    there: dict[str, int] = field(default_factory=dict)  # how the tag has the snapshot's files already

    def __post_init__(self) -> None:
        options = self.options
        self.publication = Publication(self.sink, allow_public=options.allow_public, replace=options.force)

    def send_files(self) -> None:
        if not self.options.dry_run:
            self.publication.check_write()
        phase(self.on_event, "sending what comes")
        for archived in self.archive:
            self._look()
            self._send_file(archived)

    def finish(self, started: float) -> TransferReport:
        """The documents; the tag. All that carries a file has been sent by now."""
        document = self.archive.document(*self._called())
        schemas.check(document, "epoch-manifest.v1", "the manifest made of the archive")
        epoch = Manifest.parse(document, "the manifest made of the archive")
        key = SnapshotKey(epoch.name, epoch.tag)
        tag = legal_target(self.tag or key.tag, key)
        artifact = self._encode(document, self._packed())
        image = artifact.image
        self._send_rest(artifact)
        tagged = self.publication.is_tagged(tag, artifact.manifest)
        self._move(small_wants(artifact, image))
        files = files_of(epoch)
        notes: tuple[str, ...] = ()
        if self.options.dry_run:
            notes = self.publication.foretold(files)
        else:
            self.publication.commit(tag, artifact.manifest, files, known=tagged and self._moved_nothing())
            self.on_event(Event(event="done", bytes=sum(row.moved for row in self.blobs.values())))
        return TransferReport(
            command="push",
            reference=full_name(self.sink, tag),
            document=artifact.manifest,
            artifact_type=image.kind,
            name=key.name,
            tag=key.tag,
            blobs=self._rows(image),
            seconds=time.monotonic() - started,
            dry_run=self.options.dry_run,
            warnings=(
                *(str(finding) for finding in epoch.warnings),
                *(f"{item} has no place in the artifact" for item in artifact.lost),
                *notes,
            ),
        )

    def _called(self) -> tuple[str | None, str | None]:
        key = self.options.key
        return (key.name, key.tag) if key else (None, None)

    def _send_file(self, archived: ArchivedFile) -> None:
        blob, name = archived.file.descriptor, archived.file.name
        if not self.options.dry_run:
            self.publication.admit([(name, blob.media_type)])
        # A file that is there plain already costs nothing; in chunks it would be sent a second time.
        if self.options.chunking is not None and blob.size > SMALL and not self.sink.holds(blob):
            self._pack(archived, self.options.chunking)
            return
        carriers = self._carriers(archived)
        self.publication.check_limits(name, carriers)
        self._move(file_wants(archived.content, carriers))

    def _pack(self, archived: ArchivedFile, chunking: Chunking) -> None:
        """Cut the file; what must be laid anew is read from its spool, before the next file takes its place."""
        file = archived.file
        if self.packing is None:
            self.packing = self._new_packing(chunking)
        blob = replace(file.descriptor, annotations={TITLE: file.name})
        packed = unpacking(file.pax_records, blob.size)
        self.packing.add(blob, archived.content, Fold(packed.segments, packed.logical_size) if packed else None)
        # For each file by itself: its bytes are in a spool that the next file will replace.
        self.packing.settle()

    def _new_packing(self, chunking: Chunking) -> Packing:
        """How large packs get is by what the machine has: the archive does not say beforehand what it holds."""
        options, document, there = self.options, self.archive.so_far(*self._called()), None
        epoch = Manifest.parse(document) if document is not None else None
        tag = self.tag or (epoch.tag if epoch else "latest")
        with suppress(NotFoundError, ContentError):
            # As a base alone; whether the tag may be replaced is looked at when the snapshot's name is known.
            there = ImageManifest.parse(self.sink.resolve(tag))
        sending = Sending(
            sink=self.sink,
            on_event=self.on_event,
            jobs=options.jobs,
            throttle=options.throttle,
            dry_run=options.dry_run,
        )
        size = epoch.memory + epoch.storage if epoch else 0
        return self.stack.enter_context(packing_into(sending, chunking, size, (tag, there)))

    def _packed(self) -> ChunkLayers | None:
        """The layers that carry what was cut; None for the plain form."""
        if self.options.chunking is None:
            return None
        if self.packing is None:
            return ChunkLayers(index=None, packs=(), files=frozenset())
        layers, rows = self.packing.finish()
        self.blobs |= {row.digest: row for row in rows}
        return layers

    def _carriers(self, archived: ArchivedFile) -> tuple[Descriptor, ...]:
        """What carries the file; the dialect may have no place for one in parts, and says so before it is sent."""
        blob = archived.file.descriptor
        if blob.size == 0:
            return ()
        whole = whole_layer(archived.file.name, "layer", blob)
        wanted = wanted_parts(self.options, cloud_image=False)
        if wanted is None:
            # Nobody said how files are cut, so what the tag has of the snapshot decides, as far as it is known by now.
            wanted = self.there.get(str(blob.digest))
        size = cut_size(blob, self.sink, wanted)
        if size is None:
            return (whole,)
        table = cut_table(archived.content, blob, size, self.options.part_cache)
        # Encoded with what is known: a dialect that has no place for parts says so before the file is sent.
        self.tables[blob.digest] = table
        if (document := self.archive.so_far(*self._called())) is not None:
            self._encode(document)
        return part_layers(whole, table)

    def _encode(self, document: Document, chunks: ChunkLayers | None = None) -> Artifact:
        options = self.options
        encode = EncodeOptions(
            annotations=options.annotations, allow_loss=options.allow_loss, parts=self.tables, chunks=chunks
        )
        return dialects.named(options.dialect).encode(document, encode)

    def _move(self, wants: list[Want]) -> None:
        # The same content may come twice in one archive, and its bytes are gone once they were sent.
        wants = [want for want in wants if str(want.target.digest) not in self.blobs]
        plan = plan_blobs(self.sink, wants, mount_from=self.options.mount_from, jobs=self.options.jobs)
        rows = planned(plan, "send") if self.options.dry_run else done(self._execute(plan))
        self.blobs |= {row.digest: row for row in rows}

    def _execute(self, plan: Plan) -> tuple[Outcome, ...]:
        options = self.options
        return execute(plan, moved="sent", jobs=options.jobs, on_event=self._tell, throttle=options.throttle)

    def _tell(self, event: Event) -> None:
        """Each file is a transfer of its own; for whoever listens there is one, and nobody knows its size before."""
        # A bar that starts and ends with every file tells nobody how far the archive is.
        if event.event not in ("plan", "done"):
            self.on_event(event)

    def _look(self) -> None:
        """Once the envelope is known: is the tag legal, and does it hold another snapshot? Before gigabytes of it."""
        # Cocoon writes the envelope first, and other tools need not (epoch-formats 5.5).
        if self.looked or (document := self.archive.so_far(*self._called())) is None:
            return
        self.looked = True
        epoch = Manifest.parse(document)
        key = SnapshotKey(epoch.name, epoch.tag)
        tag = legal_target(self.tag or key.tag, key)
        if not self.options.force:
            self._refuse_other(tag, epoch.snapshot_id)

    def _refuse_other(self, tag: str, snapshot_id: str) -> None:
        try:
            there = self.sink.resolve(tag)
        except NotFoundError:
            return
        try:
            image = ImageManifest.parse(there)
        except ContentError:
            raise self.publication.conflict(tag, there) from None
        # By the snapshot's ID: digests are known only when the archive is through.
        if image.annotations.get(SNAPSHOT_ID) not in (None, snapshot_id):
            raise self.publication.conflict(tag, there)
        self.there = cuts_of(image)

    def _send_rest(self, artifact: Artifact) -> None:
        """Some dialects carry empty files too; of all others nothing can be missing now."""
        carriers = [carrier for file in artifact.files for carrier in file.carriers]
        absent = [carrier for carrier in carriers if str(carrier.digest) not in self.blobs]
        # No byte of an archive can be read twice: what was not sent when it came by is lost.
        for carrier in absent:
            if carrier.size:
                raise ContentError(f"{carrier.title} was not sent", code="MISMATCH", object=str(carrier.digest))
        self._move([Want(target=carrier, content=BytesContent(b""), title=carrier.title) for carrier in absent])

    def _moved_nothing(self) -> bool:
        return all(blob.action == "skipped" for blob in self.blobs.values())

    def _rows(self, image: ImageManifest) -> tuple[BlobReport, ...]:
        """In the order of the artifact, the config first."""
        digests = [str(image.config.digest), *(str(layer.digest) for layer in image.layers)]
        return tuple(self.blobs[digest] for digest in dict.fromkeys(digests))
