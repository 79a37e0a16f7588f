"""Results → lines of text. Whoever prints them makes them safe for a terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from epoch_oci.cli.exit_codes import hint_of
from epoch_oci.cli.units import duration_text, size_text
from epoch_oci.errors import counted

if TYPE_CHECKING:
    from epoch_oci.bulk.prune import Pruning
    from epoch_oci.bulk.results import SyncReport
    from epoch_oci.flows.convert import Conversion
    from epoch_oci.flows.listing import ListedArtifact, ListedSnapshot
    from epoch_oci.flows.report import BlobReport, TransferReport
    from epoch_oci.flows.validate import DocumentReport
    from epoch_oci.flows.verify import Verification

_UNTITLED = {".chunks.index.v1": "(chunk index)", ".chunks.pack.v1": "(pack of chunks)"}
_ORDER = ("send", "fetch", "sent", "received", "mount", "mounted", "reused", "skip", "skipped")


def aligned(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Columns as wide as their widest cell; those in `right` are aligned to the right."""
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(max(map(len, rows), default=0))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


_DONE = {"push": "Pushed", "pull": "Pulled", "copy": "Copied"}


def transfer_lines(report: "TransferReport", where: str) -> list[str]:
    """A push or a pull in a few lines; the last one is the digest. `where` is the store or directory of a pull."""
    snapshot = f"{report.name}:{report.tag}"
    if report.command == "push":
        moved = f"{snapshot} to {report.reference}"
    elif report.command == "copy":
        moved = f"{report.to_json()['source']} to {report.reference}"
    else:
        known = f" as {snapshot}" if report.name else ""
        moved = f"{report.reference}{known} into {where}"
    if report.dry_run:
        lines = [f"Would {report.command} {moved}:", *_blob_lines(report.blobs)]
    else:
        lines = [f"{_DONE[report.command]} {moved}"]
    lines.append(_summary(report))
    if report.derived:
        lines.append("The Epoch manifest was derived from the artifact's layers; none travels with it.")
    if report.document is None:
        return [*lines, "Digest: not known before what is cut into parts has been read"]
    return [*lines, f"Digest: {report.digest}"]


def _untitled(media_type: str) -> str:
    """What a blob without a title is."""
    return next((word for end, word in _UNTITLED.items() if media_type.endswith(end)), "(config)")


def _blob_lines(blobs: Iterable["BlobReport"]) -> list[str]:
    rows = [
        [f"  {blob.action}", size_text(blob.size), blob.title or _untitled(blob.media_type), short(blob.digest)]
        for blob in blobs
    ]
    return aligned(rows, right=frozenset({1}))


def _summary(report: "TransferReport") -> str:
    """`5 blobs, 1.6 GiB: sent 4 (1.6 GiB), skipped 1 (2.8 KiB) in 3.2 s, 512.0 MiB/s`."""
    parts = []
    for action in _ORDER:
        chosen = [blob for blob in report.blobs if blob.action == action]
        if chosen:
            parts.append(f"{action} {len(chosen)} ({size_text(sum(blob.size for blob in chosen))})")
    text = f"{counted(len(report.blobs), 'blob')}, {size_text(report.size)}: {', '.join(parts) or 'nothing to move'}"
    if report.dry_run:
        return text
    rate = f", {size_text(report.transferred / report.seconds)}/s" if report.transferred and report.seconds else ""
    again = f", {counted(report.retries, 'retry', 'retries')}" if report.retries else ""
    return f"{text} in {duration_text(report.seconds)}{rate}{again}"


def short(digest: str) -> str:
    """The first twelve digits, for people."""
    return digest.partition(":")[2][:12]


def validation_lines(reports: Iterable["DocumentReport"]) -> list[str]:
    """One line for each finding, and one for each document that has none worth refusing it."""
    lines = []
    for report in reports:
        for finding in report.findings:
            word = "warning: " if finding.severity == "warning" else ""
            lines.append(f"{report.file}: {finding.path}: {finding.code}: {word}{finding.problem}")
        if report.valid:
            lines.append(f"{report.file}: ok ({report.kind})")
    return lines


def verification_lines(check: "Verification", *, fast: bool) -> list[str]:
    """Findings, notes, and what was looked at."""
    lines = [f"{item.object}: {item.code}: {item.problem}" for item in check.findings]
    lines += [f"note: {note}" for note in check.notes]
    how = "present" if fast else f"{size_text(check.bytes)} hashed"
    looked = f"{counted(check.documents, 'document')}, {counted(check.blobs, 'blob')}, {how}"
    verdict = "ok" if check.ok else f"{counted(len(check.findings), 'finding')}"
    return [*lines, f"{check.location}: {verdict} ({looked})"]


def listing_lines(rows: Iterable["ListedSnapshot"]) -> list[str]:
    """`NAME:TAG`, kind, size and digest, in columns."""
    cells = [
        [
            str(row.key),
            row.kind or "unreadable",
            "-" if row.size is None else size_text(row.size),
            "-" if row.digest is None else short(row.digest),
        ]
        for row in rows
    ]
    return aligned([["SNAPSHOT", "KIND", "SIZE", "DIGEST"], *cells], right=frozenset({2})) if cells else []


def artifact_lines(rows: Iterable["ListedArtifact"]) -> list[str]:
    """Tag, kind, size, date and digest, in columns."""
    cells = [
        [
            row.tag,
            row.kind or "unreadable",
            "-" if row.size is None else size_text(row.size),
            row.created or "-",
            "-" if row.digest is None else short(row.digest),
        ]
        for row in rows
    ]
    return aligned([["TAG", "KIND", "SIZE", "CREATED", "DIGEST"], *cells], right=frozenset({2})) if cells else []


def prune_lines(found: "Pruning") -> list[str]:
    """What would go or went, what is shared, and what was left alone."""
    word = "would remove" if found.dry_run else "removed"
    lines = [f"{word} {found.names[entry]}" for entry in found.removed]
    garbage = found.garbage
    if garbage.kept_back is not None and garbage.blobs:
        lines.append(
            f"{counted(len(garbage.blobs), 'blob')} that nothing refers to are left alone: {garbage.kept_back}"
        )
    elif garbage.blobs or garbage.leftovers:
        loose = f"{counted(len(garbage.blobs), 'blob')} that nothing refers to"
        left = f", {counted(len(garbage.leftovers), 'leftover')} of broken runs" if garbage.leftovers else ""
        lines.append(f"{word} {loose}{left}")
    if garbage.young:
        lines.append(f"{counted(garbage.young, 'blob')} that nothing refers to are too young")
    shared = f", {size_text(found.shared)} are shared with what is kept" if found.shared else ""
    by = "its own clean-up frees" if found.registry else "frees" if found.dry_run else "freed"
    return [*lines, f"{found.where}: {counted(found.kept, 'tag')} kept, {by} {size_text(found.frees)}{shared}"]


def sync_lines(report: "SyncReport") -> list[str]:
    """What failed, one a line, then the sums; of a dry run also what would be done."""
    lines = []
    if report.dry_run:
        planned = [row for row in report.rows if row.action in ("sync", "delete")]
        cells = [[f"  {row.action}", size_text(row.size), row.source or "-", row.target] for row in planned]
        lines += [f"Would sync {report.source} to {report.target}:", *aligned(cells, right=frozenset({1}))]
    for row in report.failures:
        assert row.error is not None
        about, code = row.source or row.target or report.source, f"{row.error.code} (exit {row.exit_code})"
        lines.append(f"{row.action}: {about}: {code}: {row.error.message}; {hint_of(row.error)}")
    words = {
        "sync": "to sync",
        "synced": "synced",
        "there": "there already",
        "failed": "failed",
        "left-out": "left out",
        "delete": "to delete",
        "deleted": "deleted",
    }
    counts = [f"{count:,} {word}" for action, word in words.items() if (count := report.count(action))]  # type: ignore[arg-type]
    counts += [f"{report.old:,} too old"] if report.old else []
    lines.append(f"{counted(len(report.rows), 'snapshot')}: {', '.join(counts) or 'nothing to do'}")
    moved = "to move" if report.dry_run else "moved"
    sums = f"{size_text(report.bytes_moved)} {moved}, {size_text(report.saved)} saved of {size_text(report.total)}"
    rate = f", {size_text(report.bytes_moved / report.seconds)}/s" if report.bytes_moved and not report.dry_run else ""
    return [*lines, f"{sums} in {duration_text(report.seconds)}{rate}"]


def conversion_lines(conversion: "Conversion", directory: str) -> list[str]:
    """What was written where; the last line is the digest of the document that was asked for."""
    return [
        f"Wrote oci-manifest.json and epoch-manifest.json to {directory}",
        f"{counted(len(conversion.carried), 'file')}, {conversion.artifact_type}",
        f"Digest: {conversion.result.digest}",
    ]
