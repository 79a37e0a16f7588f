"""Progress on a terminal: a line for all of it and one for each large blob. The only user of rich's live display."""

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from epoch_oci.cli.progress import Progress, Say, Tally, percent
from epoch_oci.cli.render import duration_text, size_text
from epoch_oci.events import Event

if TYPE_CHECKING:
    from rich.live import Live

PATIENCE = 0.7
"""Seconds before anything is shown: what is through by then need not flicker."""
_REFRESH = 0.2
_WIDEST = 120
"""Columns: what is wider is read less easily, and a terminal that is made smaller breaks fewer lines in two."""
_BAR, _BAR_FROM = 12, 70
_LONG_BAR, _LONG_BAR_FROM = 24, 100
_BLOBS_SHOWN = 6
_END = 4
"""Characters at the end of a name that is cut: parts of one file differ there."""
_SIZE, _RATE, _LEFT, _PERCENT = 10, 12, 8, 5


class BarProgress(Progress):
    """Lines that are drawn anew and vanish when the work is done; what must be read is printed above them."""

    def __init__(self, say: Say, *, verbose: bool = False, file: TextIO | None = None) -> None:
        super().__init__(say, verbose=verbose)
        self._file = file
        self._closed = threading.Event()
        self._ticker: threading.Thread | None = None
        self._live: Live | None = None
        self._widths: list[int] = []

    def begin(self, phase: str) -> None:
        """As `Progress.begin`."""
        with self._lock:
            self.tally.begin(phase)
            self._start()

    def close(self) -> None:
        """Take the lines away."""
        self._closed.set()
        with self._lock:
            self._hide()

    def _show(self, event: Event) -> None:
        self._start()
        self._tell(event)

    def _start(self) -> None:
        if self._ticker is None:
            # A daemon: what is shown never keeps the process from ending.
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        wait = PATIENCE
        while not self._closed.wait(wait):
            wait = _REFRESH
            with self._lock:
                if not self._closed.is_set():
                    with suppress(OSError, ValueError):  # where nobody looks any more is no reason to fail
                        (self.draw if self.tally.text or self.tally.total else self._hide)()

    def _hide(self) -> None:
        if self._live is not None:
            self._erase_broken(self._live)
            self._live.stop()
            self._live = None

    def draw(self) -> None:
        """Draw it as it is now; the lock is held."""
        from rich.cells import cell_len
        from rich.text import Text

        live = self._live or self._started()
        width, height = live.console.size
        # The last column and line stay free: filling them makes a terminal wrap, or scroll.
        lines = rows(self.tally, min(_WIDEST, width - 1), height - 1)
        self._erase_broken(live)
        self._widths = [cell_len(line) for line in lines]
        live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)

    def _started(self) -> "Live":
        """Loaded only now, for most commands are through before."""
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._file or sys.stderr, highlight=False)
        # The result never waits for the lines; what goes to standard error lands above them.
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._live.start()
        return self._live

    def _erase_broken(self, live: "Live") -> None:
        """Take away what a terminal that was made smaller has broken off the lines: rich counts them as they were."""
        width = live.console.size.width
        broken = sum((cells - 1) // width for cells in self._widths if cells > width)
        if broken:
            live.console.file.write("\r" + "\x1b[2K\x1b[1A" * broken)


def rows(tally: Tally, width: int, height: int) -> list[str]:
    """What is shown, no line wider than `width` and no more than `height` of them. Names are cut, and no number is."""
    lines = [_all_of_it(tally, width)]
    for number, flow in enumerate(tally.hashing.values()):  # they have one rate together
        rate = tally.hash_rate() if number == 0 else 0.0
        lines.append(_row(f"  hashing {flow.title}", flow.done, flow.total, width, rate))
    flows = sorted(tally.flows.values(), key=lambda flow: -flow.total)
    # The first line says all there is to say of one blob alone.
    if len(flows) + len(tally.hashing) > 1 or tally.snapshots[1]:
        lines += [_row(f"  {flow.title}", flow.done, flow.total, width) for flow in flows[:_BLOBS_SHOWN]]
    if tally.waiting:
        # High up, for a low terminal cuts off the last lines.
        lines.insert(1, _cut(f"  waiting: {tally.waiting}", width))
    return [line.rstrip() for line in lines[: max(1, height)]]


def _all_of_it(tally: Tally, width: int) -> str:
    ended, count = tally.snapshots
    name = f"{ended:,} of {count:,} snapshots" if count else tally.text
    if not tally.total:
        return _cut(name, width - 10) + f"  {duration_text(tally.seconds)}"
    return _row(name, tally.moved, tally.total, width, tally.rate(), tally.seconds_left())


def _row(name: str, done: int, total: int, width: int, rate: float = 0.0, left: float | None = None) -> str:
    """Name, bar, percent, size, rate and time left; on narrow terminals the bar goes, then the rate, then the size."""
    # Each bound leaves the name, which gets what is over, three columns or more.
    cells = [f"{percent(done, total):>{_PERCENT}}"]
    if width >= 34:
        cells.append(f"{size_text(total):>{_SIZE}}")
    if width >= 46:
        cells.append(f"{size_text(rate) + '/s' if rate else '':>{_RATE}}")
    cells.append(f"{duration_text(left) if left is not None else '':>{_LEFT}}")
    if width >= _BAR_FROM:
        cells.insert(0, _bar(done, total, _LONG_BAR if width >= _LONG_BAR_FROM else _BAR))
    figures = "  ".join(cells)
    return f"{_cut(name, width - len(figures) - 2, _END)}  {figures}"


def _bar(done: int, total: int, width: int) -> str:
    filled = min(width, width * done // total) if total else width
    return "━" * filled + "─" * (width - filled)


def _cut(text: str, width: int, end: int = 0) -> str:
    """`text` in just so many columns; of one that is cut, its last `end` characters are kept."""
    from rich.cells import cell_len, set_cell_size

    width = max(1, width)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    tail = text[-end:] if end and cell_len(text[-end:]) == end and width > 2 * end else ""
    return set_cell_size(text, width - 1 - len(tail)) + "…" + tail
