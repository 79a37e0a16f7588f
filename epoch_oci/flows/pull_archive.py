"""From a registry repository or an OCI image layout onto a pipe: Cocoon's import archive, or a cloud image's disk."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from epoch_oci.artifacts.decode import Undecoded, layer_contents
from epoch_oci.artifacts.read import FoundArtifact, artifact_of, read_documents, reference_key
from epoch_oci.cocoon.compat import obstacles
from epoch_oci.cocoon.envelope import record_name
from epoch_oci.cocoon.import_archive import Verify, Write, disk_layers, write_cloud_image, write_import_archive
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedSnapshot, SnapshotFile
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Layer
from epoch_oci.errors import ContentError
from epoch_oci.events import Action, Event, OnEvent, ignore, phase
from epoch_oci.flows.pull import (
    PullOptions,
    approved,
    at_hand_source,
    decoding,
    file_content,
    forget_decoded,
    pull_report,
)
from epoch_oci.oci.verifying import ByteReader, VerifyingReader
from epoch_oci.stores.base import Content, Source, full_name
from epoch_oci.transfer.content import WatchedContent
from epoch_oci.transfer.report import BlobReport, TransferReport
from epoch_oci.transfer.throttle import Throttle

_REPORT_SECONDS = 0.1


def pull_to_archive(
    source: Source,
    name: str,
    write: Write,
    *,
    options: PullOptions | None = None,
    on_event: OnEvent = ignore,
) -> TransferReport:
    """Write what `cocoon snapshot import` or `cocoon image import` reads, in one pass and without a copy on the disk.

    The key in `options` is what Cocoon shall call the snapshot. What was written does not pass for a whole archive
    before every hash was right. Raises as `pull_to_store`.
    """
    options = options or PullOptions()
    started = time.monotonic()
    phase(on_event, "reading the manifest")
    pinned = approved(source, name, options)
    said = reference_key(source, name)
    found, undecoded = _found(source, pinned, options, on_event)
    found = found.identified(said)
    found = replace(found, source=at_hand_source(found, options))
    manifest = found.snapshot.manifest
    # `cocoon image import` reads one disk, and nothing beside it.
    layers = disk_layers(manifest) if manifest.is_cloud_image else manifest.layers
    files = _files_of(found, layers)
    key = options.key or SnapshotKey(manifest.name, manifest.tag)
    if not options.dry_run:
        phase(on_event, "receiving")
        try:
            verify = undecoded.verify if undecoded is not None else VerifyingReader
            _write(found, _Told(found.source, files, on_event, options.throttle), write, options.key, verify)
        except ContentError:  # what was written cannot be taken back, but the next run shall not trip over the same
            forget_decoded(source, pinned, options)
            raise
        on_event(Event(event="done", bytes=sum(file.size for file in files.values())))
        if undecoded is not None:  # by now it is known what its files are called
            found = replace(found, snapshot=undecoded.snapshot).identified(said)
            files = _files_of(found, layers)
    rows = tuple(_row(file, dry_run=options.dry_run) for file in files.values())
    return pull_report(
        found,
        key,
        rows,
        full_name(source, name),
        started,
        dry_run=options.dry_run,
        notes=obstacles(found.snapshot.manifest, layer_contents(found.source, found.snapshot), with_base_images=False),
    )


def _found(
    source: Source, name: str, options: PullOptions, on_event: OnEvent
) -> tuple[FoundArtifact, Undecoded | None]:
    """The artifact, and what is still to be learnt of it; a dry run learns it, for it says what files are called."""
    documents = read_documents(source, name)
    told = documents.told()
    if options.dry_run or not isinstance(told, EncodedSnapshot):
        return artifact_of(source, documents, decoding(options, on_event)), None
    undecoded = Undecoded(source, told, options.decode_cache)
    return FoundArtifact(documents.image, documents.config, undecoded.snapshot, source), undecoded


def _write(found: FoundArtifact, contents: "_Told", write: Write, key: SnapshotKey | None, verify: Verify) -> None:
    manifest = found.snapshot.manifest
    contents.plan()
    if manifest.is_cloud_image:
        write_cloud_image(manifest, contents.of, write, verify=verify)
    else:
        write_import_archive(manifest, contents.of, write, name=record_name(key) if key else None, verify=verify)


def _files_of(found: FoundArtifact, layers: tuple[Layer, ...]) -> dict[str, SnapshotFile]:
    files = {file.name: file for file in found.snapshot.files if file.role == "layer"}
    return {layer.filename: files[layer.filename] for layer in layers}


def _row(file: SnapshotFile, *, dry_run: bool) -> BlobReport:
    action, moved = ("fetch", file.size) if dry_run else ("received", file.size)
    return BlobReport(str(file.digest), file.size, file.name, file.media_type, action, moved)


@dataclass(frozen=True, slots=True)
class _Told:
    """Contents of the files, with an event for whatever happens to them."""

    source: Source
    files: dict[str, SnapshotFile]
    on_event: OnEvent
    throttle: Throttle | None

    def plan(self) -> None:
        size = sum(file.size for file in self.files.values())
        self.on_event(Event(event="plan", bytes=size, total=size))

    def of(self, layer: Layer) -> Content:
        file = self.files[layer.filename]
        return _ToldContent(file, file_content(self.source, file), self.on_event, self.throttle)


@dataclass(frozen=True, slots=True)
class _ToldContent:
    file: SnapshotFile
    content: Content
    on_event: OnEvent
    throttle: Throttle | None

    @property
    def size(self) -> int:
        return self.content.size

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        last = time.monotonic()

        def moved(offset: int, _: int) -> None:
            nonlocal last
            # A block comes every few milliseconds, and no terminal is read that fast.
            if time.monotonic() - last >= _REPORT_SECONDS:
                last = time.monotonic()
                self._tell("blob-progress", offset)

        self._tell("blob-start", start)
        with WatchedContent(self.content, moved, threading.Event(), self.throttle).open(start, length) as reader:
            yield reader
        self._tell("blob-done", self.size)

    def _tell(self, event: Literal["blob-start", "blob-progress", "blob-done"], count: int) -> None:
        file = self.file
        action: Action | None = "received" if event == "blob-done" else None
        told = Event(event=event, digest=file.digest, title=file.name, bytes=count, total=file.size, action=action)
        self.on_event(told)
