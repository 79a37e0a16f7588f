"""Snapshots of version 2 of the `cocoonstack` dialect, written: files in zstd, and cut where that is wanted.

What a layer is called is known only after it was compressed, so each is made in a nameless file on the disk and sent
from there, while the next one is being made. Each file of the snapshot is read once.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import field

from epoch_oci.artifacts.publish import files_of
from epoch_oci.artifacts.write import Encoding, Push, small_wants
from epoch_oci.chunks.chunk import zstd
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Artifact, SnapshotFile, WrittenFile
from epoch_oci.dialects.profile import SNAPSHOT_ID
from epoch_oci.disk.spool import Spool
from epoch_oci.errors import ContentError, NotFoundError, UsageError
from epoch_oci.events import Event, phase
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.media_types import OCTET_STREAM, TITLE
from epoch_oci.oci.verifying import BLOCK, ByteReader, VerifyingReader
from epoch_oci.stores.base import BytesContent, Content
from epoch_oci.transfer.content import told_of
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, require
from epoch_oci.transfer.report import BlobReport, TransferReport, done, planned

SMALL = 1 << 20
"""Smaller files stay as they are, as cocoon-common leaves them (epoch-formats 4.10)."""
_MOST_THREADS = 4


@dataclass(slots=True, kw_only=True)
class EncodedPush(Push):
    """Version 2 of the `cocoonstack` dialect."""

    rows: dict[str, BlobReport] = field(default_factory=dict)

    @property
    def encoding(self) -> Encoding:
        """How files are encoded."""
        assert self.options.encoding is not None
        return self.options.encoding

    def run(self) -> TransferReport:
        """As `Push.run`. Raises UsageError for a cloud image."""
        if self.manifest.is_cloud_image:
            problem = f"{self.key} is a cloud image, and only snapshots have a second version"
            raise UsageError(problem, object=str(self.key))
        files = self.encode(written={}).files
        self._look(files)
        written: dict[str, WrittenFile] = {}
        phase(self.on_event, "compressing" if self.options.dry_run else "compressing and sending")
        with ThreadPoolExecutor(1, thread_name_prefix="layers") as sender:
            for file in files:
                written[file.name] = self._write(file, sender)
        # Only now is every layer's digest known, and with them the manifest.
        artifact = self.encode(written=written)
        self._send(small_wants(artifact, artifact.image))
        return self._published(artifact)

    def _look(self, files: tuple[SnapshotFile, ...]) -> None:
        """All that can be known to be wrong before anything is read."""
        sink, names = self.sink, {file.digest: file.name for file in files}
        require(self.source, [file.blob for file in files], names, jobs=self.options.jobs)
        if not self.options.force:
            # Before gigabytes are compressed; the digest is not known yet, so the snapshot's ID has to tell.
            with suppress(NotFoundError, ContentError):
                there = sink.resolve(self.tag)
                if ImageManifest.parse(there).annotations.get(SNAPSHOT_ID, "") != self.manifest.snapshot_id:
                    raise self.publication.conflict(self.tag, there)
        if self.options.dry_run:
            self.notes += self.publication.foretold(files_of(self.manifest))
            return
        self.publication.check_write()
        self.publication.admit(files_of(self.manifest))

    def _write(self, file: SnapshotFile, sender: ThreadPoolExecutor) -> WrittenFile:
        """Encode a file and send its layers. Raises ContentError when it is not what the manifest says."""
        content = told_of(self.source.content(file.blob), self.on_event, file.digest, file.name)
        wanted = self.encoding.chunk_size or max(1, file.size)
        compress = file.size >= SMALL
        # Cut before compressing: a reader joins the layers, each of which is whole in itself (epoch-formats 4.10).
        sizes = [min(wanted, file.size - start) for start in range(0, file.size, wanted)] if compress else [file.size]
        layers: list[Descriptor] = []
        sending: Future[None] | None = None
        with content.open() as opened:
            reader = VerifyingReader(opened, file.blob, file.name)
            for size in sizes:
                spool = Spool(self.encoding.spool, file.name)
                spool.fill(_Compressing(reader, size, self.encoding.level) if compress else _Limited(reader, size))
                target = Descriptor(
                    media_type=OCTET_STREAM, digest=spool.digest, size=spool.size, annotations={TITLE: file.name}
                )
                layers.append(target)
                # One layer is made while one is sent: more would fill the disk with spools.
                if sending is not None:
                    sending.result()
                sending = sender.submit(self._send_spool, target, spool)
        if sending is not None:
            sending.result()
        return WrittenFile(layers=tuple(layers), encoding="zstd" if compress else "")

    def _send_spool(self, target: Descriptor, spool: Spool) -> None:
        with closing(spool):
            content: Content = spool.content if target.size else BytesContent(b"")
            self._send([Want(target=target, content=content, title=target.title)])

    def _send(self, wants: list[Want]) -> None:
        options = self.options
        # Two files may compress to the same layer: zeros do.
        wants = [want for want in wants if str(want.target.digest) not in self.rows]
        plan = self.plan(wants)
        if options.dry_run:
            rows = planned(plan, "send")
        else:
            rows = done(execute(plan, moved="sent", jobs=options.jobs, on_event=self._heard, throttle=options.throttle))
        self.rows |= {row.digest: row for row in rows}

    def _heard(self, event: Event) -> None:
        """Each layer is a transfer of its own; for whoever listens there is one, and nobody knows its size before."""
        if event.event not in ("plan", "done"):
            self.on_event(event)

    def _published(self, artifact: Artifact) -> TransferReport:
        phase(self.on_event, "publishing")
        tags = [self.tag, *self.options.also]
        taken = [self.publication.is_tagged(tag, artifact.manifest) for tag in tags]
        sent = any(row.action != "skipped" for row in self.rows.values())
        for tag, there in zip(tags, taken, strict=True) if not self.options.dry_run else ():
            known = there and not sent
            self.publication.commit(tag, artifact.manifest, files_of(self.manifest), known=known)
        order = dict.fromkeys(str(blob.digest) for blob in artifact.image.successors)
        return self.report(artifact, tuple(self.rows[digest] for digest in order))


class _Limited:
    """The next `left` bytes of `reader`."""

    def __init__(self, reader: ByteReader, left: int) -> None:
        self._reader, self._left = reader, left

    def read(self, size: int = -1, /) -> bytes:
        block = self._reader.read(min(self._left, BLOCK if size < 0 else size))
        self._left -= len(block)
        return block


class _Compressing:
    """The next `size` bytes of `reader` as one zstd frame: the same bytes and level give the same frame."""

    def __init__(self, reader: ByteReader, size: int, level: int) -> None:
        module = zstd()
        parameter = module.CompressionParameter
        # With workers, zstd cuts its work by size alone: their number does not show in what comes out.
        workers = max(1, min(os.cpu_count() or 1, _MOST_THREADS))
        compressor = module.ZstdCompressor(
            options={parameter.compression_level: level, parameter.nb_workers: workers, parameter.checksum_flag: 1}
        )
        # So that the frame's header tells the size, and a reader can refuse it before it decodes anything.
        compressor.set_pledged_input_size(size)
        self._blocks = _frame(compressor, _Limited(reader, size))

    def read(self, size: int = -1, /) -> bytes:
        """The next piece of the frame, whatever its length."""
        return next(self._blocks, b"")


def _frame(compressor: object, reader: ByteReader) -> Iterator[bytes]:
    while block := reader.read(BLOCK):
        if piece := compressor.compress(block):  # type: ignore[attr-defined]
            yield piece
    yield compressor.flush()  # type: ignore[attr-defined]
