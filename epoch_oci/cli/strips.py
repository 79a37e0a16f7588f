"""`diff` for people: a table, and a picture with a strip for each file."""

from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from epoch_oci.cli.render import aligned, size_text

if TYPE_CHECKING:
    from epoch_oci.flows.diff import FileDiff, SnapshotDiff

_WIDTH, _HEIGHT, _LABEL, _CELLS = 1000, 26, 190, 400
_COLOURS = {0: "#e8e8e8", 1: "#d6493b", 2: "#3b7dd6", 3: "#ffffff", 4: "#a0a0a0"}
_NAMES = {0: "same", 1: "written", 2: "moved", 3: "zeros now", 4: "gone"}
_LOUDEST = (1, 2, 4, 3, 0)
"""Which change a cell shows of the several chunks that it stands for."""


def diff_lines(found: "SnapshotDiff") -> list[str]:
    """One line for each file; of one that changed, how many of its chunks became what."""
    rows = [["FILE", "STATE", "SIZE", "WRITTEN", "MOVED", "ZEROS NOW", "GONE"]]
    rows += [_row(file) for file in found.files]
    verdict = "the same files" if found.same else "different files"
    return [*aligned(rows, right=frozenset({2, 3, 4, 5, 6})), f"{found.a} and {found.b}: {verdict}"]


def _row(file: "FileDiff") -> list[str]:
    sizes = [size_text(size) for size in (file.before, file.after) if size is not None]
    size = " → ".join(dict.fromkeys(sizes))
    if file.changes is None:
        return [file.name, file.state, size, "", "", "", ""]
    total = max(1, len(file.changes))
    counts = [f"{file.changes.count(change)} ({file.changes.count(change) / total:.1%})" for change in (1, 2, 3, 4)]
    return [file.name, file.state, size, *counts]


def diff_picture(found: "SnapshotDiff") -> str:
    """An SVG document: for each file a strip of its chunks from its start to its end."""
    rows = [_strip(file, 64 + number * (_HEIGHT + 10)) for number, file in enumerate(found.files)]
    height = 64 + len(rows) * (_HEIGHT + 10) + 10
    legend = "".join(
        f'<rect x="{_LABEL + number * 110}" y="34" width="14" height="14" fill="{_COLOURS[change]}" stroke="#888"/>'
        f'<text x="{_LABEL + number * 110 + 20}" y="46">{name}</text>'
        for number, (change, name) in enumerate(_NAMES.items())
    )
    title = f"{escape(found.a)} → {escape(found.b)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="#fafafa"/>'
        f'<text x="10" y="22" font-size="15">{title}</text>{legend}{"".join(rows)}</svg>\n'
    )


def _strip(file: "FileDiff", top: int) -> str:
    width = _WIDTH - _LABEL - 20
    name = file.name if len(file.name) <= 24 else file.name[:23] + "…"
    label = f'<text x="10" y="{top + 17}">{escape(name)}</text>'
    frame = f'<rect x="{_LABEL}" y="{top}" width="{width}" height="{_HEIGHT}" fill="{{}}" stroke="#888"/>'
    if file.changes is None:
        said = "" if file.state == "same" else f'<text x="{_LABEL + 8}" y="{top + 17}">{file.state}</text>'
        return label + frame.format(_COLOURS[0] if file.state == "same" else "#f5d9a8") + said
    cells = _cells(file.changes)
    step = width / max(1, len(cells))
    marks = "".join(
        f'<rect x="{_LABEL + number * step:.2f}" y="{top}" width="{step + 0.3:.2f}" height="{_HEIGHT}" '
        f'fill="{_COLOURS[change]}"/>'
        for number, change in enumerate(cells)
        if change
    )
    return label + frame.format(_COLOURS[0]) + marks


def _cells(changes: bytes) -> list[int]:
    """At most so many cells as can be seen, each with the loudest change of its chunks."""
    count = min(_CELLS, len(changes))
    edges = [number * len(changes) // count for number in range(count + 1)] if count else [0]
    parts = [set(changes[low:high]) for low, high in pairwise(edges)]
    return [next(change for change in _LOUDEST if change in part) for part in parts]
