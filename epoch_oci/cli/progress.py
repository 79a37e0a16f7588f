"""Events → how far a run has come: counted, and told as a line now and then, as JSON lines, or not at all.

All of it goes to standard error; the bars are in `bars.py`, for they need rich.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epoch_oci.cli.render import duration_text, size_text
from epoch_oci.cli.streams import safe
from epoch_oci.events import Event

PLAIN_SECONDS = 10.0
_BLOBS_NAMED = 3

_WINDOW_SECONDS = 15.0
_SHORTEST_SECONDS = 0.5
_NOT_MOVED = frozenset({"skipped", "mounted", "reused"})

Key = tuple[str, str]
Say = Callable[[str], None]


@dataclass(slots=True)
class Flow:
    """One blob on its way; sizes in bytes."""

    title: str
    total: int
    done: int = 0


class Tally:
    """Adds events up. Not safe for threads: whoever feeds it holds a lock. `clock` is monotonic, in seconds.

    What is there already is no part of it: neither of the bytes to move nor of those moved. `snapshots` are how many of
    how many are through, where there are many.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.retries = 0
        self.moved = 0
        self.snapshots = (0, 0)
        self.flows: dict[Key, Flow] = {}
        self._planned = 0
        self._met = 0
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def total(self) -> int:
        """Bytes to move: as planned, or more when a blob that was to be mounted had to be moved after all."""
        return max(self._planned, self._met)

    def add(self, event: Event) -> None:
        """Count one event in."""
        match event.event:
            case "plan":
                self._planned = event.bytes
                self.snapshots = (0, event.snapshots)
                self._sample()
            case "blob-start" | "blob-progress":
                self._advance(self._flow(event), event.bytes)
            case "blob-done" if event.action not in _NOT_MOVED:
                self._advance(self._flow(event), event.bytes)
                del self.flows[key_of(event)]
            case "snapshot-done":
                self.snapshots = (event.snapshots, self.snapshots[1])
            case "retry":
                self.retries += 1
            case _:
                return

    def rate(self) -> float:
        """Bytes a second over the last seconds, 0 when nothing moves."""
        self._sample()
        first, last = self._samples[0], self._samples[-1]
        elapsed = last[0] - first[0]
        return max(0.0, (last[1] - first[1]) / elapsed) if elapsed >= _SHORTEST_SECONDS else 0.0

    def seconds_left(self) -> float | None:
        """Until the end at the present rate, None when nothing moves."""
        rate = self.rate()
        return (self.total - self.moved) / rate if rate > 0 else None

    def _flow(self, event: Event) -> Flow:
        key = key_of(event)
        if key not in self.flows:
            self._met += event.total
            self.flows[key] = Flow(event.title or _short(event), event.total)
        return self.flows[key]

    def _advance(self, flow: Flow, done: int) -> None:
        self.moved += done - flow.done
        flow.done = done
        self._sample()

    def _sample(self) -> None:
        now = self._clock()
        self._samples.append((now, self.moved))
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW_SECONDS:
            self._samples.popleft()


def key_of(event: Event) -> Key:
    """What tells blobs apart: two files may have one content."""
    return str(event.digest), event.title or ""


def _short(event: Event) -> str:
    return event.digest.short() if event.digest else "document"


class Progress:
    """The listener of a run, and the base of all: counts, and says why something waits. Safe for threads."""

    def __init__(self, say: Say, *, verbose: bool = False) -> None:
        self.tally = Tally()
        self.phase = ""
        self._out = say
        self._verbose = verbose
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        with self._lock:
            self.tally.add(event)
            if event.event == "phase":
                self.phase = phase_text(event)
            self._show(event)

    @property
    def retries(self) -> int:
        """How often something was tried again."""
        return self.tally.retries

    def say(self, line: str) -> None:
        """Say something beside the progress."""
        self._out(line)

    def rest(self) -> None:
        """Nothing is under way until something begins anew, of which nothing is counted yet."""
        with self._lock:
            self.tally, self.phase = Tally(), ""

    def close(self) -> None:
        """Nothing is shown any more."""

    def _show(self, event: Event) -> None:
        """Show one event; the lock is held."""


class PlainProgress(Progress):
    """A line every ten seconds, whether bytes move or not, and one for each wait."""

    def __init__(self, say: Say, *, verbose: bool = False) -> None:
        super().__init__(say, verbose=verbose)
        self._closed = threading.Event()
        self._ticker: threading.Thread | None = None

    def close(self) -> None:
        """Say nothing any more."""
        self._closed.set()

    def _show(self, event: Event) -> None:
        if event.event in ("phase", "plan") and self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        if (line := event_line(event, verbose=self._verbose)) is not None:
            self.say(line)

    def _tick(self) -> None:
        while not self._closed.wait(PLAIN_SECONDS):
            with self._lock:
                if line := status_line(self.tally) if self.tally.total else self.phase:
                    self.say(line)


class JsonProgress(Progress):
    """One JSON object a line for each event."""

    def _show(self, event: Event) -> None:
        self.say(event_json(event))


def event_json(event: Event) -> str:
    """An event as one line; `digest` is null where it is about everything."""
    members: dict[str, Any] = {
        "event": event.event,
        "digest": str(event.digest) if event.digest else None,
        "bytes": event.bytes,
        "total": event.total,
    }
    extra: dict[str, Any] = {
        "title": event.title,
        "action": event.action,
        "message": event.message,
        "seconds": event.seconds,
    }
    extra |= {"snapshot": event.snapshot, "snapshots": event.snapshots or None}
    extra |= {"count": event.count or None, "of": event.of or None}
    return json.dumps(members | {key: item for key, item in extra.items() if item is not None})


def event_line(event: Event, *, verbose: bool) -> str | None:
    """What is worth a line of its own: waits, retries, and under -v every finished blob. None for the rest."""
    reason = safe(event.message or "")
    about = f"{safe(event.title)}: " if event.title and safe(event.title) not in reason else ""
    when = f" {duration_text(event.seconds)}" if event.seconds is not None else ""
    match event.event:
        case "wait":
            return f"{about}waiting{when}{': ' + reason if reason else ''}"
        case "retry":
            return f"{about}trying again{' in' + when if when else ''}{': ' + reason if reason else ''}"
        case "error":
            return f"{about}failed{': ' + reason if reason else ''}"
        case "phase" if verbose and not event.count:
            return reason
        case "snapshot-done" if event.message is not None:
            return f"{safe(event.snapshot or '')}: failed: {reason}"
        case "snapshot-done" if verbose:
            return f"{safe(event.snapshot or '')}: done ({size_text(event.bytes)} moved)"
        case "blob-done" if verbose:
            what = safe(event.title or str(event.digest))
            return f"{event.action or 'checked'} {what} ({size_text(event.total)})"
        case _:
            return None


def status_line(tally: Tally) -> str:
    """`41 % of 1.6 GiB, 82.0 MiB/s, 0:14 left (memory-ranges 12 %)`."""
    left = tally.seconds_left()
    ended, count = tally.snapshots
    parts = [f"{ended} of {count} snapshots"] if count else []
    parts += [f"{_percent(tally.moved, tally.total)} of {size_text(tally.total)}", f"{size_text(tally.rate())}/s"]
    parts += [f"{duration_text(left)} left"] if left is not None else []
    flows = sorted(tally.flows.values(), key=lambda flow: -flow.total)
    named = ", ".join(f"{safe(flow.title)} {_percent(flow.done, flow.total)}" for flow in flows[:_BLOBS_NAMED])
    more = f" and {len(flows) - _BLOBS_NAMED} more" if len(flows) > _BLOBS_NAMED else ""
    return ", ".join(parts) + (f" ({named}{more})" if named else "")


def phase_text(event: Event) -> str:
    """`surveying: 1,200 of 10,000`, or the word alone where nothing is counted."""
    word = safe(event.message or "")
    if not event.count and not event.of:
        return word
    return f"{word}: {event.count:,} of {event.of:,}" if event.of else f"{word}: {event.count:,}"


def _percent(done: int, total: int) -> str:
    return f"{100 * done // total if total else 100} %"
