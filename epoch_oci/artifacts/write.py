"""What every form of an artifact has in common when a snapshot is pushed: how, with what, and what is told of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from itertools import accumulate
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from epoch_oci import dialects
from epoch_oci.artifacts.decode import Decoding
from epoch_oci.artifacts.publish import Publication
from epoch_oci.artifacts.read import StoredSnapshot
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Artifact, ChunkLayers, EncodeOptions, WrittenFile
from epoch_oci.dialects.layers import cuts_of, is_chunked, is_placeholder
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError
from epoch_oci.events import OnEvent
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import EMPTY_CONTENT, Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.parts import PartTable
from epoch_oci.options import Checked
from epoch_oci.stores.base import BytesContent, Content, Sink, Source, full_name
from epoch_oci.transfer.content import SliceContent
from epoch_oci.transfer.plan import Plan, Want, plan_blobs
from epoch_oci.transfer.report import BlobReport, TransferReport
from epoch_oci.transfer.throttle import Throttle

if TYPE_CHECKING:
    from epoch_oci.artifacts.packing import Chunking


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding(Checked):
    """How files are encoded: `level` is zstd's; files of more than `chunk_size` bytes are cut (0: never).

    `spool` is a directory for what waits to be sent: one layer that is being made, and one that is being sent.
    """

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"level": (1, 19)}
    level: int
    chunk_size: int
    spool: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions(Checked):
    """How an artifact gets to where it goes, whichever verb brings it there.

    `mount_from` are repositories of the sink's own registry that may hold the blobs already, `homes` says of some
    blobs which of them does. `force` replaces a tag that holds another artifact. Without `allow_public` no manifest
    that names a guest's memory is published where anybody may read it. `throttle` paces what is sent; runs that are
    given the same one share its rate.
    """

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"jobs": (1, 64)}
    mount_from: tuple[str, ...] = ()
    homes: Mapping[Digest, str] = field(default_factory=dict)
    allow_public: bool = False
    force: bool = False
    dry_run: bool = False
    jobs: int | None = None
    throttle: Throttle | None = None

    def shared(self) -> dict[str, Any]:
        """What the options of every verb have, by name."""
        return {field.name: getattr(self, field.name) for field in fields(WriteOptions)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions(WriteOptions):
    """How to push. `also` are further tags for the artifact; `key` names the snapshot of an archive without a name.

    `part_size` is in bytes: files above it are cut, 0 means never, None is as the tag has the
    snapshot already, else as the target takes them. `part_cache`
    remembers part digests. With `chunking` the artifact is of the chunked form, with `encoding` one of version 2 of the
    `cocoonstack` dialect. The rest as `WriteOptions` has it.
    """

    dialect: str = "cocoon"
    also: tuple[str, ...] = ()
    key: SnapshotKey | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    allow_loss: bool = False
    part_size: int | None = None
    part_cache: Path | None = None
    chunking: "Chunking | None" = None
    encoding: Encoding | None = None


@dataclass(slots=True, kw_only=True)
class Push(ABC):
    """One snapshot on its way into an artifact. Each form has a class of its own, whose `run` carries it out.

    `tag` is a legal one. `notes` are told as warnings in the end. `started` is of the monotonic clock.
    """

    snapshot: StoredSnapshot
    key: SnapshotKey
    publication: Publication
    tag: str
    options: PushOptions
    on_event: OnEvent
    started: float = field(default_factory=monotonic)
    notes: list[str] = field(default_factory=list)

    @property
    def source(self) -> Source:
        """Where every blob of the snapshot is had."""
        return self.snapshot.source

    @property
    def manifest(self) -> Manifest:
        """The snapshot as Epoch tells it."""
        return self.snapshot.manifest

    @property
    def sink(self) -> Sink:
        """Where it goes."""
        return self.publication.sink

    @abstractmethod
    def run(self) -> TransferReport:
        """Move what the sink lacks, and tag it last. Raises as `flows.push.push`."""

    def encode(
        self,
        *,
        parts: Mapping[Digest, PartTable] | None = None,
        chunks: ChunkLayers | None = None,
        written: Mapping[str, WrittenFile] | None = None,
    ) -> Artifact:
        """The artifact, with as much of how its files are carried as is known. Raises ContentError, UsageError."""
        options = self.options
        how = EncodeOptions(
            annotations=options.annotations,
            allow_loss=options.allow_loss,
            parts=parts,
            chunks=chunks,
            written=written,
        )
        return dialects.named(options.dialect).encode(self.manifest.document, how)

    def plan(self, wants: Sequence[Want]) -> Plan:
        """What of `wants` the sink lacks."""
        options = self.options
        return plan_blobs(self.sink, wants, mount_from=options.mount_from, homes=options.homes, jobs=options.jobs)

    def report(self, artifact: Artifact, blobs: tuple[BlobReport, ...], *, known: bool = True) -> TransferReport:
        """What was done; unless the artifact is `known` it has no document yet."""
        lost = (*self.snapshot.lost, *artifact.lost)
        return TransferReport(
            command="push",
            reference=full_name(self.sink, self.tag),
            document=artifact.manifest if known else None,
            artifact_type=artifact.image.kind,
            name=self.key.name,
            tag=self.key.tag,
            blobs=blobs,
            seconds=monotonic() - self.started,
            derived=self.snapshot.derived,
            dry_run=self.options.dry_run,
            warnings=(
                *self.snapshot.warnings,
                *(f"{item} has no place in the artifact" for item in lost),
                *self.notes,
            ),
        )


def decoding_for(options: PushOptions, on_event: OnEvent) -> Decoding:
    """How a snapshot that a store keeps compressed is read."""
    return Decoding(cache=options.part_cache, jobs=options.jobs, throttle=options.throttle, on_event=on_event)


def wanted_parts(options: PushOptions, *, cloud_image: bool) -> int | None:
    """The part size that was asked for; where nobody did, none at all for a dialect that knows no parts."""
    # Readers of such a dialect would not join the parts again, so the registry's limit decides alone.
    if options.part_size is None and not dialects.named(options.dialect).cuts(cloud_image=cloud_image):
        return 0
    return options.part_size


def cuts_there(there: Document | None, config: Digest) -> Mapping[str, int]:
    """How what a tag holds cuts the files of the snapshot of this `config`, see `cuts_of`; nothing for another one."""
    try:
        image = None if there is None else ImageManifest.parse(there)
    except ContentError:
        image = None
    if image is None:
        return {}
    # The config is the Epoch manifest itself (decision D3): the same one is the same snapshot, however it is cut.
    return cuts_of(image) if image.config.digest == config and not is_chunked(image) else {}


def small_wants(artifact: Artifact, image: ImageManifest) -> list[Want]:
    """The blobs of an artifact that are no file of the snapshot's."""
    wants = [Want(target=image.config, content=BytesContent(artifact.config.raw))]
    wants += [
        # A manifest without layers has one of two bytes, for many registries take none without (oci-registries 1.2).
        Want(target=layer, content=BytesContent(EMPTY_CONTENT))
        for layer in image.layers
        if is_placeholder(layer)
    ]
    return wants


def file_wants(whole: Content, carriers: Sequence[Descriptor]) -> list[Want]:
    """What carries a file, out of all of its content."""
    # The blob itself and no slice of it: its source may be a file, which can be cloned or sent without a copy.
    if len(carriers) == 1:
        return [Want(target=carriers[0], content=whole, title=carriers[0].title)]
    starts = accumulate((carrier.size for carrier in carriers), initial=0)
    return [
        Want(target=carrier, content=SliceContent(whole, start, carrier.size), title=carrier.title)
        for carrier, start in zip(carriers, starts, strict=False)
    ]
