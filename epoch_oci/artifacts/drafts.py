"""Decoded files on their way into a target of this machine, before anybody knows what they will be called.

The target's own assemblies take them, under a stand-in for the digest: so the bytes are where the blob will be, out of
sight, outlive a kill, and are swept like all that is unfinished. Once the digest is known the assembly is renamed, and
whoever puts the blob there finds it complete, and verifies it as it would any other.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import field, replace
from typing import Protocol

from epoch_oci.artifacts.decode import stand_in
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedFile, EncodedSnapshot, SnapshotFile
from epoch_oci.disk.assembly import Assembly
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.base import Assembler, FileSink, FileTarget, Sink
from epoch_oci.transfer.execute import Outcome
from epoch_oci.transfer.plan import Plan


class Drafts(Protocol):
    """Where decoded files are put together. `received` has for each digest found how many bytes were read for it."""

    received: dict[Digest, int]

    def expect(self, encoded: EncodedSnapshot, files: Sequence[EncodedFile]) -> None:
        """Be told which files will come. Raises ConflictError for what is in the way, LocalIOError for lack of room."""

    def assemble(self, file: EncodedFile, digest: Digest) -> AbstractContextManager[Assembly] | None:
        """As `stores.base.Assembler.assemble`, with a stand-in for the digest."""

    def holds(self, file: EncodedFile, digest: Digest) -> bool:
        """Whether the file is there already."""


@dataclass(slots=True)
class StoreDrafts:
    """Blobs of a store in a directory, or of a Cocoon root."""

    sink: Sink
    received: dict[Digest, int] = field(default_factory=dict)

    def expect(self, encoded: EncodedSnapshot, files: Sequence[EncodedFile]) -> None:
        """As `Drafts.expect`: the store looks for room when a blob is begun."""

    def assemble(self, file: EncodedFile, digest: Digest) -> AbstractContextManager[Assembly] | None:
        """As `Drafts.assemble`."""
        return self.sink.assemble(_blob(file, digest)) if isinstance(self.sink, Assembler) else None

    def holds(self, file: EncodedFile, digest: Digest) -> bool:
        """As `Drafts.holds`."""
        return self.sink.holds(_blob(file, digest))


@dataclass(slots=True)
class FileDrafts:
    """Files under their own names; `target` says how one lands."""

    sink: FileSink
    target: Callable[[Manifest, SnapshotFile], FileTarget]
    received: dict[Digest, int] = field(default_factory=dict)
    _targets: dict[str, FileTarget] = field(default_factory=dict)

    def expect(self, encoded: EncodedSnapshot, files: Sequence[EncodedFile]) -> None:
        """As `Drafts.expect`."""
        names = {file.name for file in files}
        told = encoded.finish_part({file.name: stand_in(file) for file in files}, names)
        self._targets = {file.name: self.target(told.manifest, file) for file in told.files}
        # Whether a file may be replaced is known when its digest is: it may be the very same.
        self.sink.check(list(self._targets.values()), replace=True)

    def assemble(self, file: EncodedFile, digest: Digest) -> AbstractContextManager[Assembly] | None:
        """As `Drafts.assemble`."""
        return self.sink.assemble(self._target(file, digest), replace=True)

    def holds(self, file: EncodedFile, digest: Digest) -> bool:
        """As `Drafts.holds`."""
        return self.sink.holds(self._target(file, digest))

    def _target(self, file: EncodedFile, digest: Digest) -> FileTarget:
        target = self._targets[file.name]
        return replace(target, blob=replace(target.blob, digest=digest))


def begun(plan: Plan, drafts: Drafts | None) -> Plan:
    """The plan, which looks for drafts of files however small they are, and asks nobody else for what was received."""
    received = drafts.received if drafts is not None else {}
    items = (
        replace(item, begun=True, seeds=() if received[item.target.digest] else item.seeds)
        if item.target.digest in received
        else item
        for item in plan.items
    )
    return replace(plan, items=tuple(items))


def counted(outcomes: Sequence[Outcome], drafts: Drafts | None) -> tuple[Outcome, ...]:
    """The outcomes, with what was received for drafts."""
    received = dict(drafts.received) if drafts is not None else {}
    return tuple(_counted(outcome, received.pop(outcome.item.target.digest, 0)) for outcome in outcomes)


def _counted(outcome: Outcome, more: int) -> Outcome:
    return replace(outcome, action="received", bytes=outcome.bytes + more) if more else outcome


def _blob(file: EncodedFile, digest: Digest) -> Descriptor:
    return Descriptor(media_type=file.media_type, digest=digest, size=file.size)
