"""Results → lines of text, a card and a picture. Whoever prints lines makes them safe for a terminal."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epoch_oci.cli.exit_codes import hint_of
from epoch_oci.cli.streams import safe
from epoch_oci.errors import counted

if TYPE_CHECKING:
    from epoch_oci.bulk.prune import Pruning
    from epoch_oci.bulk.results import SyncReport
    from epoch_oci.bulk.rounds import RoundEnd
    from epoch_oci.flows.convert import Conversion
    from epoch_oci.flows.inspect import InspectedFile, Inspection
    from epoch_oci.flows.listing import ListedArtifact, ListedSnapshot
    from epoch_oci.flows.validate import DocumentReport
    from epoch_oci.flows.verify import Verification
    from epoch_oci.registry.doctor import Examination
    from epoch_oci.transfer.report import BlobReport, TransferReport

_UNTITLED = {".chunks.index.v1": "(chunk index)", ".chunks.pack.v1": "(pack of chunks)"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DONE = {"push": "Pushed", "pull": "Pulled", "copy": "Copied"}
_ACTIONS = ("send", "fetch", "sent", "received", "mount", "mounted", "reused", "skip", "skipped")
_WRITERS = {
    "W1": "Epoch 0.1, its push library straight to the bucket",
    "W2a": "Epoch 0.1.1 to 0.1.3, `epoch push`",
    "W2b": "Epoch 0.1.4 and later, `epoch push`",
    "W3a": "vk-cocoon 0.1.1 to 0.1.7",
    "W3b": "vk-cocoon 0.1.8 and later, with the headers of its archive",
    "epoch-oci": "this program, out of an archive or an artifact without an Epoch manifest",
    "unknown": "not told by its marks",
}
_COLUMNS = ("FILE", "ROLE", "SIZE", "MEDIA TYPE", "DIGEST")
_SIZE_COLUMN = 2


def size_text(count: float) -> str:
    """1717666771 → `1.6 GiB`; powers of 1024."""
    unit = 0
    # What would round to 1024.0 is 1.0 of the next unit.
    while count >= 1023.95 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """3.21 → `3.2 s`, 75 → `1:15`, 3700 → `1:01:40`."""
    # What would round to 60.0 s is 1:00.
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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
    """`5 blobs, 1.6 GiB: sent 4 (1.1 GiB of 1.6 GiB), skipped 1 (2.8 KiB) in 3.2 s, 352.0 MiB/s`."""
    parts = []
    for action in _ACTIONS:
        chosen = [blob for blob in report.blobs if blob.action == action]
        if chosen:
            size, moved = sum(blob.size for blob in chosen), sum(blob.moved for blob in chosen)
            # Less where an earlier run left some of it, and where it came in chunks.
            less = f"{size_text(moved)} of " if 0 < moved < size else ""
            parts.append(f"{action} {len(chosen)} ({less}{size_text(size)})")
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
    return [*lines, f"{found.location}: {counted(found.kept, 'tag')} kept, {by} {size_text(found.frees)}{shared}"]


def sync_lines(report: "SyncReport") -> list[str]:
    """What failed, one a line, then the sums; of a dry run also what would be done."""
    lines = []
    if report.dry_run:
        planned = [row for row in report.rows if row.action in ("sync", "delete")]
        # What goes has a size as well, and nobody has asked for it.
        sizes = ("-" if row.action == "delete" else size_text(row.size) for row in planned)
        cells = [
            [f"  {row.action}", size, row.source or "-", row.target] for row, size in zip(planned, sizes, strict=True)
        ]
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


def facts(found: "Inspection") -> list[tuple[str, str]]:
    """The head of the card: a label and a value a line; what is not known has none."""
    manifest, called = found.manifest, _called(found)
    rows = [
        ("Snapshot" if found.kind == "snapshot" else "Cloud image", called),
        ("Location", found.location if called != found.location else ""),
        ("Dialect", found.dialect + _derivation(found)),
        ("Written by", f"{found.writer}: {_WRITERS[found.writer]}" if found.writer else ""),
        ("Snapshot ID", manifest.snapshot_id),
        ("Image", manifest.image),
        ("Resources", _resources(found)),
        ("Created", known(manifest.created_at)),
        ("Pushed", known(manifest.pushed_at)),
        ("Size", f"{size_text(found.size)} in {counted(len(found.files), 'file')}"),
        ("Chunks", _chunks(found)),
        ("Digest", str(found.document.digest)),
    ]
    return [(label, text) for label, text in rows if text]


def _called(found: "Inspection") -> str:
    """What people call it: its name and tag as far as it has them, else the reference that led to it."""
    manifest = found.manifest
    return ":".join(filter(None, (manifest.name, manifest.tag))) if manifest.name else found.location


def _derivation(found: "Inspection") -> str:
    if not found.derived:
        return ""
    origin = "Cocoon's record and files" if found.dialect == "epoch" else "the layers"
    return f" (Epoch manifest derived from {origin})"


def _chunks(found: "Inspection") -> str:
    """Of an artifact in chunks, what its layers take and how alive its packs are."""
    if not found.packs:
        return ""
    live, size = sum(item.live for item in found.packs), sum(item.pack.size for item in found.packs)
    packs = f"{len(found.packs)} pack{'s' if len(found.packs) > 1 else ''}"
    return (
        f"{size_text(found.stored)} stored ({found.stored / found.size:.1%}), {packs}, {live / size:.0%} of them alive"
    )


def known(text: str) -> str:
    """A time that somebody meant, "" for none."""
    from epoch_oci.flows.inspect import known_time

    return known_time(text) or ""


def card_lines(found: "Inspection") -> list[str]:
    """The card without colour, however wide."""
    lines = aligned([[f"{label}:", text] for label, text in facts(found)])
    if found.files:
        rows = [list(_COLUMNS), *(_cells(file) for file in found.files)]
        lines += ["", *aligned(rows, right=frozenset({_SIZE_COLUMN}))]
    lines += [""] if found.missing or found.warnings else []
    lines += [f"missing: {text}" for text in found.missing]
    return lines + [f"warning: {text}" for text in found.warnings]


def _resources(found: "Inspection") -> str:
    manifest = found.manifest
    parts = [
        f"{manifest.cpu} CPU" if manifest.cpu else "",
        f"{size_text(manifest.memory)} memory" if manifest.memory else "",
        f"{size_text(manifest.storage)} storage" if manifest.storage else "",
        counted(manifest.nics, "NIC") if manifest.nics else "",
    ]
    return ", ".join(part for part in parts if part)


def _cells(file: "InspectedFile") -> list[str]:
    parts = f" in {file.parts} parts" if file.parts > 1 else _in_chunks(file)
    return [file.name, file.role, size_text(file.size) + parts, file.media_type, short(file.digest)]


def _in_chunks(file: "InspectedFile") -> str:
    chunks = file.chunks
    if chunks is None:
        return ""
    fresh = chunks.size - chunks.zeros - chunks.repeated
    ratio = f", rest to {chunks.stored / fresh:.0%}" if fresh else ""
    return f" in chunks: {chunks.zeros / chunks.size:.0%} zeros, {chunks.repeated / chunks.size:.0%} repeated{ratio}"


def print_card(found: "Inspection") -> None:
    """The card with colour, on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    card = Table.grid(padding=(0, 2))
    for label, text in facts(found):
        # Wrapped in Text: in a plain text rich obeys markup, and `[red]` may stand in a name.
        card.add_row(Text(label, style="dim"), Text(safe(text), style="bold" if label == "Snapshot" else ""))
    files = Table(box=None, pad_edge=False, header_style="dim")
    for index, title in enumerate(_COLUMNS):
        files.add_column(title, justify="right" if index == _SIZE_COLUMN else "left", overflow="fold")
    for file in found.files:
        style = "cyan" if file.role == "base-image" else ""
        files.add_row(*(Text(safe(cell), style=style) for cell in _cells(file)))
    console = Console(file=sys.stdout, highlight=False)
    console.print(card)
    if found.files:
        console.print()
        console.print(files)
    for word, style, texts in (("missing", "bold red", found.missing), ("warning", "yellow", found.warnings)):
        for text in texts:
            console.print(Text(f"{word}: ", style=style) + Text(safe(text)), soft_wrap=True)


def round_line(ended: "RoundEnd") -> str:
    """How a round of a mirror went."""
    report, took = ended.report, duration_text(ended.seconds)
    if report is None:
        return f"round {ended.number}: failed after {took}: {ended.error}"
    counts = f"{report.count('synced')} synced, {report.count('there')} there, {len(report.failures)} failed"
    deleted = f", {report.count('deleted')} deleted" if report.count("deleted") else ""
    return f"round {ended.number}: {counts}{deleted}, {size_text(report.bytes_moved)} moved in {took}"


def examination_lines(found: "Examination") -> list[str]:
    """A line for each check, what to do about it below; what the registry is like at the end."""
    where = f"{found.registry}/{found.repository}" if found.repository else found.registry
    width = max(len(check.name) for check in found.checks)
    lines = [where]
    for check in (item for item in found.checks if item.status != "skipped"):
        lines.append(f"  {check.status.upper():<7}  {check.name:<{width}}  {check.finding}")
        if check.advice:
            lines.append(f"  {'':<7}  {'':<{width}}  → {check.advice}")
    passed: dict[str | None, list[str]] = {}
    for check in (item for item in found.checks if item.status == "skipped"):
        passed.setdefault(check.advice, []).append(check.name)
    lines += [f"  {'-':<7}  not tried: {', '.join(names)}; {why}" for why, names in passed.items()]
    return [*lines, "It can be used." if found.error is None else "It cannot be used as it is."]


def config_lines(shown: Mapping[str, Any]) -> list[str]:
    """Each setting, its value and where it comes from, in columns; then those of single registries."""
    rows = [[item["name"], _value(item["value"]), item["from"]["where"] or "default"] for item in shown["settings"]]
    rows += [
        [f"{item['host']}: {item['name']}", _value(item["value"]), item["from"]["where"]] for item in shown["hosts"]
    ]
    head = shown["file"] or "none is there, at ~/.config/epoch-oci/config.toml or where EPOCH_OCI_CONFIG says"
    return [f"Configuration file: {head}", "", *aligned([["SETTING", "VALUE", "FROM"], *rows])]


def _value(found: object) -> str:
    if found is None or found == []:
        return "-"
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, float):
        return f"{found:g}"
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)
