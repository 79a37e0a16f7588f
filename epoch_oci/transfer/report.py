"""What a transfer tells afterwards."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import NetworkError
from epoch_oci.events import Event, OnEvent
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import MANIFEST
from epoch_oci.stores.base import VanishedError
from epoch_oci.transfer.execute import Outcome
from epoch_oci.transfer.plan import Plan

# The words of a run and those of a dry run, which tells what would be done.
_REUSED = frozenset({"skipped", "mounted", "reused", "skip", "mount"})


@dataclass(frozen=True, slots=True)
class BlobReport:
    """One blob: `size` in bytes, `action` what was done, or in a dry run would be done, and the bytes moved for it."""

    digest: str
    size: int
    title: str | None
    media_type: str
    action: str
    moved: int

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "digest": self.digest,
            "size": self.size,
            "title": self.title,
            "mediaType": self.media_type,
            "action": self.action,
            "bytes": self.moved,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReport:
    """The result of a push or a pull; sizes in bytes, `seconds` of wall-clock time.

    `document` is None in a dry run that would have had to read files to know it; `blobs` has those files whole then.
    """

    command: str
    reference: str
    document: Document | None
    artifact_type: str
    name: str
    tag: str
    blobs: tuple[BlobReport, ...]
    retries: int = 0
    seconds: float = 0.0
    derived: bool = False
    dry_run: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def digest(self) -> Digest | None:
        """Of the document, where it is known."""
        return self.document.digest if self.document else None

    @property
    def size(self) -> int:
        """Sum of all blobs."""
        return sum(blob.size for blob in self.blobs)

    @property
    def transferred(self) -> int:
        """Bytes that were moved, or would be."""
        return sum(blob.moved for blob in self.blobs)

    @property
    def reused(self) -> int:
        """Bytes of blobs that were skipped, mounted or reused."""
        return sum(blob.size for blob in self.blobs if blob.action in _REUSED)

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "command": self.command,
            "reference": self.reference,
            "digest": str(self.digest) if self.digest else None,
            # A dry run may not know the document yet, and yet what kind of one it will be.
            "mediaType": MANIFEST if self.document is None else self.document.media_type,
            "artifactType": self.artifact_type,
            "name": self.name,
            "tag": self.tag,
            "size": self.size,
            "blobs": [blob.to_json() for blob in self.blobs],
            "bytesTransferred": self.transferred,
            "bytesReused": self.reused,
            "retries": self.retries,
            "seconds": round(self.seconds, 3),
            "derived": self.derived,
            "dryRun": self.dry_run,
            "warnings": list(self.warnings),
        }


def planned(plan: Plan, word: str) -> tuple[BlobReport, ...]:
    """The blobs of a dry run; `word` is what moving one is called (`send` or `fetch`)."""
    return tuple(
        _blob(item, word if item.step == "move" else item.step, item.cost if item.step == "move" else 0)
        for item in plan.items
    )


def done(outcomes: Sequence[Outcome]) -> tuple[BlobReport, ...]:
    """The blobs of a finished transfer."""
    return tuple(_blob(outcome.item, outcome.action, outcome.bytes) for outcome in outcomes)


def _blob(item: Any, action: str, moved: int) -> BlobReport:
    target = item.target
    return BlobReport(str(target.digest), target.size, item.title, target.media_type, action, moved)


_Report = TypeVar("_Report", bound=TransferReport)


def once_more(run: Callable[[OnEvent], _Report], on_event: OnEvent) -> _Report:
    """What `run` reports. It runs again, once, when a blob was gone before the manifest came that names it.

    A registry may collect garbage between the look at it and the manifest. Raises NetworkError when it does so again.
    """
    sent: dict[str, Event] = {}
    ended: list[Event] = []

    def heard(event: Event) -> None:
        # The second run finds most of them there: for whoever asked, they were sent all the same.
        if event.event == "blob-done" and event.action in ("sent", "mounted"):
            sent[str(event.digest)] = event
        # When the bytes are there the tag is not yet, and an archive is still to be written.
        if event.event == "done":
            ended[:] = [event]
        else:
            on_event(event)

    def whole() -> _Report:
        ended.clear()
        report = run(heard)
        for event in ended:
            on_event(event)
        return report

    try:
        return whole()
    except VanishedError as error:
        on_event(Event(event="retry", title=error.object, message=f"{error.message}; it is sent again"))
    there = dict(sent)
    try:
        report = whole()
    except VanishedError as error:
        raise NetworkError(
            error.message,
            object=error.object,
            hint="the registry loses what it is sent; when it is done with that, run the same command again",
        ) from error
    return replace(report, blobs=tuple(_as_first(blob, there.get(blob.digest)) for blob in report.blobs))


def _as_first(blob: BlobReport, event: Event | None) -> BlobReport:
    """What was done about a blob, the first time when there was nothing left to do the second time."""
    if event is None or event.action is None or blob.action != "skipped":
        return blob
    return replace(blob, action=event.action, moved=event.total if event.action == "sent" else 0)
