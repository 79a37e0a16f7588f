"""Progress as bars: one for each blob on its way, and one for all of it. The only user of rich's live display."""

import sys

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from epoch_oci.cli.progress import Key, Progress, Say, event_line, key_of, phase_text
from epoch_oci.cli.render import size_text
from epoch_oci.cli.streams import safe
from epoch_oci.events import Event

_TITLE_WIDTH = 32
_BARS_SHOWN = 8


class BarProgress(Progress):
    """Bars that vanish when the work is done; what must be read is printed above them."""

    def __init__(self, say: Say, *, verbose: bool = False) -> None:
        super().__init__(say, verbose=verbose)
        self._console = Console(file=sys.stderr, highlight=False)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            _RateColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # the result never waits for the bars; what goes to standard error lands above them
        )
        self._tasks: dict[Key, TaskID] = {}
        self._all: TaskID | None = None

    def close(self) -> None:
        """Take the bars away."""
        with self._lock:
            self._bars.stop()

    def rest(self) -> None:
        """As `Progress.rest`."""
        with self._lock:
            super().rest()
            self._bars.stop()
            for task in (*self._tasks.values(), *([self._all] if self._all is not None else [])):
                self._bars.remove_task(task)
            self._tasks, self._all = {}, None

    def _show(self, event: Event) -> None:
        if event.event == "plan" or (event.event == "phase" and not self.tally.total):
            self._bars.start()
            if self._all is not None:
                self._bars.remove_task(self._all)
            named = event.event == "phase"
            self._all = self._bars.add_task(_title(event), total=None) if named else self._bars.add_task("total")
        elif event.event == "blob-progress":
            self._advance(event)
        elif event.event == "blob-done" and (task := self._tasks.pop(key_of(event), None)) is not None:
            self._bars.remove_task(task)
        if (line := event_line(event, verbose=self._verbose)) is not None:
            self.say(line)
        if self._all is not None and event.event != "phase":
            ended, count = self.tally.snapshots
            words = f"total ({ended} of {count} snapshots)" if count else "total"
            self._bars.update(self._all, completed=self.tally.moved, total=self.tally.total, description=words)

    def _advance(self, event: Event) -> None:
        """Move a blob's bar; it appears only now, for a small blob is through before anybody could see one."""
        key = key_of(event)
        if key in self._tasks:
            self._bars.update(self._tasks[key], completed=event.bytes)
        elif len(self._tasks) < _BARS_SHOWN:
            self._tasks[key] = self._bars.add_task(_title(event), total=event.total, completed=event.bytes)


class _RateColumn(ProgressColumn):
    """The rate in the units that everything else is in."""

    def render(self, task: Task) -> Text:
        """Nothing until there is a rate."""
        speed = task.finished_speed or task.speed
        return Text(f"{size_text(speed)}/s" if speed else "", style="progress.data.speed")


def _title(event: Event) -> str:
    title = safe(event.title or (event.digest.short() if event.digest else phase_text(event)))
    return title if len(title) <= _TITLE_WIDTH else title[: _TITLE_WIDTH - 1] + "…"
