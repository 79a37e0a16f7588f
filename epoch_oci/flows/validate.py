"""Checking documents: the strict reader, the schema, and the meaning. Every finding at once."""

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any

from epoch_oci import dialects, schemas
from epoch_oci.dataclass import dataclass
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Manifest
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import media_types
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageIndex, ImageManifest
from epoch_oci.oci.positions import positions


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """What is wrong with one document; `kind` is the schema's file stem, None when it is no known kind.

    `places` has the line and column (from 1) of each finding's path in the text, if that was asked for.
    """

    file: str
    kind: str | None
    findings: tuple[Finding, ...]
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """True when nothing worse than a warning was found."""
        return all(finding.severity == "warning" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {"file": self.file, "kind": self.kind, "findings": [finding_json(item) for item in self.findings]}


def finding_json(finding: Finding) -> dict[str, str]:
    """A finding as the command-line contract spells it."""
    return {
        "path": finding.path,
        "code": finding.code,
        "problem": finding.problem,
        "severity": finding.severity,
    }


def located(report: DocumentReport, raw: bytes) -> DocumentReport:
    """The report on `raw`, with the places of its findings."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:  # it ceases to be JSON there
        text = raw[: error.start].decode()
    return replace(report, places=positions(text, {finding.path for finding in report.findings}))


def validate(raw: bytes, file: str, kind: str | None = None) -> DocumentReport:
    """Check one document as `kind`, or as what it says it is. Raises UsageError for an unknown kind only."""
    if kind is not None:
        schemas.schema(kind)
    try:
        # Its kind is not known yet, so by the widest bound of all; by its own one as soon as it is known.
        value = schemas.read(raw, kind or "epoch-catalog.v1", file)
        kind = kind or schemas.kind_of(value)
        if kind is None:
            return DocumentReport(file, None, (Finding("$", "TYPE", "is no kind of document that is known here"),))
        schemas.read(raw, kind, file)
    except ContentError as error:
        return DocumentReport(file, kind, error.findings)
    found = schemas.findings(value, kind)
    return DocumentReport(file, kind, _merged(found, _meaning(raw, kind, file)))


def _meaning(raw: bytes, kind: str, file: str) -> tuple[Finding, ...]:
    check = _MEANINGS.get(kind)
    if check is None:
        return ()
    try:
        return check(raw, file)
    except ContentError as error:
        return error.findings


# What a kind alone needs is loaded for that kind: most documents are Epoch's manifests.
def _epoch(raw: bytes, file: str) -> tuple[Finding, ...]:
    return Manifest.parse(Document(EPOCH_MANIFEST, raw), file).warnings


def _image(raw: bytes, file: str) -> tuple[Finding, ...]:
    dialects.detect(ImageManifest.parse(Document(media_types.MANIFEST, raw), file))
    return ()


def _config(raw: bytes, file: str) -> tuple[Finding, ...]:
    from epoch_oci.dialects.cocoonstack.config import SnapshotConfig
    from epoch_oci.dialects.cocoonstack.vocabulary import SNAPSHOT_CONFIG

    SnapshotConfig.parse(Document(SNAPSHOT_CONFIG, raw), file)
    return ()


def _envelope(raw: bytes, file: str) -> tuple[Finding, ...]:
    from epoch_oci.cocoon.envelope import Envelope

    Envelope.parse(raw, file)
    return ()


def _snapshots(raw: bytes, file: str) -> tuple[Finding, ...]:
    from epoch_oci.cocoon.records import SnapshotIndex

    return tuple(SnapshotIndex.parse(raw, file).findings())


def _index(raw: bytes, file: str) -> tuple[Finding, ...]:
    ImageIndex.parse(Document(media_types.INDEX, raw), file)
    return ()


_MEANINGS: dict[str, Callable[[bytes, str], tuple[Finding, ...]]] = {
    "epoch-manifest.v1": _epoch,
    "oci-image-manifest.cocoon.v1": _image,
    "oci-image-manifest.cocoon-chunked.v1": _image,
    "cocoonstack-snapshot-manifest.v1": _image,
    "cocoonstack-snapshot-manifest.v2": _image,
    "cocoonstack-os-image-manifest.v1": _image,
    "cocoonstack-snapshot-config.v1": _config,
    "cocoonstack-snapshot-config.v2": _config,
    "cocoon-export-envelope.v1": _envelope,
    "cocoon-snapshots.v1": _snapshots,
    "oci-image-index.v1": _index,
}


def _merged(shape: list[Finding], meaning: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Both, with one finding for each place: the schema and the meaning checks see some faults twice."""
    seen = {finding.path for finding in shape}
    return (*shape, *(finding for finding in meaning if finding.path not in seen))
