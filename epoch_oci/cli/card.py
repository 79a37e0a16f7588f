"""`inspect` for people: a card of facts and a table of files, the same content with colour or without."""

import sys
from typing import TYPE_CHECKING

from epoch_oci.cli.render import aligned, short
from epoch_oci.cli.session import Run
from epoch_oci.cli.streams import is_terminal, safe
from epoch_oci.cli.units import size_text
from epoch_oci.errors import counted

if TYPE_CHECKING:
    from epoch_oci.flows.inspect import InspectedFile, Inspection

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


def show_inspection(run: Run, found: "Inspection") -> None:
    """Print it: JSON, coloured on a terminal, plain elsewhere."""
    if run.settings.json or run.settings.quiet or not is_terminal(sys.stdout):
        run.result(found.to_json(), lambda: plain_lines(found))
    else:
        _print_coloured(found)


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


def plain_lines(found: "Inspection") -> list[str]:
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


def _print_coloured(found: "Inspection") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    card = Table.grid(padding=(0, 2))
    for label, text in facts(found):
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
