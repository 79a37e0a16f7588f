"""history.json: what each full run found; history.svg: the ratios to the fastest peer, run by run."""

import json
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.results import Results
from benchmarks.targets import verdicts
from benchmarks.tools import OURS

WIDTH, ROW, LABEL, PLOT = 760, 30, 360, 300
TOP = 56
HIGHEST = 4.0
"""The right end of the scale: ratios beyond it are drawn there and written out."""
STYLE = """
  .ground { fill: #ffffff; } text { font: 13px system-ui, sans-serif; fill: #24292f; } .title { font-weight: 600; }
  .line { stroke: #0b7a75; fill: none; stroke-width: 1.5; } .dot { fill: #0b7a75; }
  .even { stroke: #9aa7b4; stroke-dasharray: 3 2; }
  @media (prefers-color-scheme: dark) { .ground { fill: #0d1117; } text { fill: #e6edf3; }
    .line { stroke: #2bb5ac; } .dot { fill: #2bb5ac; } }
"""

Run = dict[str, object]


def keep(results: Results, path: Path) -> list[Run]:
    """Add this run to those at `path`, in place of one of the same day, version and scale; all, oldest first."""
    runs: list[Run] = json.loads(path.read_text()) if path.exists() else []
    figures = {each.what: round(each.value, 4) for each in verdicts(results) if each.value is not None}
    run: Run = {"date": results.date, "version": results.versions[OURS], "scale": results.scale}
    runs = [each for each in runs if {key: each[key] for key in run} != run]
    runs.append(run | {"machine": results.machine, "figures": figures})
    runs.sort(key=lambda each: (str(each["date"]), str(each["version"])))
    path.write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
    return runs


def svg(runs: list[Run]) -> str:
    """A row a race, a dot a run from left (the first) to right; the dashed line is as fast as the fastest peer."""
    rows: dict[str, list[float | None]] = {}
    for run in runs:
        for what in _figures(run):
            if "against the fastest peer" in what:
                rows.setdefault(what, [])
    for what, values in rows.items():
        values.extend(_figures(run).get(what) for run in runs)
    dates = f"{runs[0]['date']} to {runs[-1]['date']}" if runs else ""
    body = [
        f'<text class="title" x="16" y="26">Speed in multiples of the fastest peer, {len(runs)} runs, {dates}</text>'
    ]
    for number, (what, values) in enumerate(rows.items()):
        body.append(_row(TOP + number * ROW, what.replace(" against the fastest peer", ""), values))
    height = TOP + ROW * len(rows) + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="Speed against the fastest peer, run by run">\n<style>{STYLE}</style>\n'
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _figures(run: Run) -> dict[str, float]:
    figures = run["figures"]
    assert isinstance(figures, dict)
    return figures


def _row(top: int, what: str, values: list[float | None]) -> str:
    """One race: its dots lie as high in the row as they were fast."""
    step = PLOT / max(1, len(values) - 1)
    points = [
        (LABEL + place * step, top - 14 * (min(value, HIGHEST) / HIGHEST) + 4)
        for place, value in enumerate(values)
        if value is not None
    ]
    even = top - 14 / HIGHEST + 4
    last = next(value for value in reversed(values) if value is not None)
    drawn = [
        f'<text x="16" y="{top}">{escape(what)}</text>',
        f'<path class="even" d="M{LABEL} {even:.1f}H{LABEL + PLOT}"/>',
        f'<path class="line" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>',
        *(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points),
        f'<text x="{LABEL + PLOT + 12}" y="{top}">{last:.2f} ×</text>',
    ]
    return "".join(drawn)
