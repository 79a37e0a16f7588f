"""results.svg: a panel a direction and arena; bars of the median rate, whiskers from slowest to fastest run."""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.measure import GIB, MIB, median
from benchmarks.results import DIRECTIONS, Arena, Direction, Results
from benchmarks.targets import LIMITS, seconds_of
from benchmarks.tools import OURS, SHA256, SOCKET

LABEL, BAR, VALUE = 118, 230, 64
PANEL = LABEL + BAR + VALUE
GAP, MARGIN = 36, 20
ROW, THICK, HEAD = 25, 14, 52
STYLE = """
  .ground { fill: #ffffff; }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; } .note { font-size: 12px; fill: #57606a; }
  .ours { font-weight: 600; } .end { text-anchor: end; }
  .bar { fill: #9aa7b4; } .bar.ours { fill: #0b7a75; }
  .bar.limit { fill: none; stroke: #9aa7b4; stroke-dasharray: 3 2; }
  .whisker { stroke: #24292f; stroke-width: 1.2; } .axis { stroke: #8c959f; stroke-width: 1; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; }
    text { fill: #e6edf3; } .note { fill: #9198a1; } .bar { fill: #59636e; } .bar.ours { fill: #2bb5ac; }
    .bar.limit { stroke: #7d8590; } .whisker { stroke: #e6edf3; } .axis { stroke: #7d8590; }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A contender: median, slowest and fastest rate in MiB/s; zeros when it failed."""

    name: str
    rate: float
    low: float
    high: float

    @property
    def kind(self) -> str:
        return "ours" if self.name == OURS else "limit" if self.name in LIMITS else ""


def bars(results: Results, arena: Arena, direction: Direction) -> list[Bar]:
    """Every contender: the limits first, then the fastest."""
    names = dict.fromkeys(
        each.tool for each in results.samples if (each.arena, each.direction) == (arena.name, direction)
    )
    found = []
    for name in names:
        rates = [arena.size / MIB / each for each in seconds_of(results, arena, direction, name)]
        # They are far off the scale and are in the tables; PUT, GET and the peers share one.
        if name not in (SOCKET, SHA256):
            found.append(Bar(name, *((median(rates), min(rates), max(rates)) if rates else (0.0, 0.0, 0.0))))
    return sorted(found, key=lambda bar: (bar.kind != "limit", -bar.rate))


def svg(results: Results) -> str:
    """The picture; it follows the reader's light or dark setting."""
    body: list[str] = []
    top = MARGIN
    for arena in results.arenas:
        panels = [(direction, bars(results, arena, direction)) for direction in DIRECTIONS]
        for column, (direction, found) in enumerate(panels):
            body += _panel(MARGIN + column * (PANEL + GAP), top, _title(arena, direction), found)
        top += HEAD + ROW * max(len(found) for _, found in panels) + GAP // 2
    width, height = 2 * MARGIN + 2 * PANEL + GAP, top + MARGIN + 10
    note = "MiB/s, more is better. Bar: median; whisker: slowest and fastest run. Dashed: the raw limit."
    body.append(f'<text class="note" x="{MARGIN}" y="{height - 16}">{note}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Push and pull rates of each contender">\n<style>{STYLE}</style>\n'
        f'<rect class="ground" width="{width}" height="{height}" rx="6"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _title(arena: Arena, direction: Direction) -> tuple[str, str]:
    registry, target = (
        "in memory" if each else "on disk" for each in (arena.registry_in_memory, arena.target_in_memory)
    )
    where = f"registry {registry}" + (f", target {target}" if direction == "pull" else "")
    return f"{direction.capitalize()}: {arena.title}", f"{arena.size / GIB:.2f} GiB, {where}"


def _panel(left: int, top: int, title: tuple[str, str], found: list[Bar]) -> Iterator[str]:
    yield f'<text class="title" x="{left}" y="{top + 12}">{escape(title[0])}</text>'
    yield f'<text class="note" x="{left}" y="{top + 30}">{escape(title[1])}</text>'
    scale = BAR / max((bar.high for bar in found if bar.high), default=1.0)
    axis = left + LABEL
    for row, bar in enumerate(found):
        yield from _row(axis, top + HEAD + row * ROW, scale, bar)
    bottom = top + HEAD + len(found) * ROW - (ROW - THICK) + 4
    yield f'<line class="axis" x1="{axis}" y1="{top + HEAD - 4}" x2="{axis}" y2="{bottom}"/>'


def _row(axis: int, top: int, scale: float, bar: Bar) -> Iterator[str]:
    middle, text = top + THICK / 2, top + THICK - 2
    own = "ours" if bar.kind == "ours" else "plain"
    yield f'<text class="end {own}" x="{axis - 8}" y="{text}">{escape(bar.name)}</text>'
    if not bar.rate:
        yield f'<text class="note" x="{axis + 7}" y="{text}">failed</text>'
        return
    width = bar.rate * scale
    kind = f"bar {bar.kind}".strip()
    yield f'<rect class="{kind}" x="{axis}" y="{top}" width="{width:.1f}" height="{THICK}" rx="2"/>'
    low, high = axis + bar.low * scale, axis + bar.high * scale
    ends = f"M{low:.1f} {middle - 3}v6M{high:.1f} {middle - 3}v6"
    yield f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}{ends}"/>'
    yield f'<text class="{own}" x="{high + 7:.1f}" y="{text}">{bar.rate:.0f}</text>'
