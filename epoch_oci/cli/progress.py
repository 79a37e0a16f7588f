"""Events → how far a run has come: counted, and told as a line now and then, as JSON lines, or not at all.

All of it goes to standard error; the bars are in `bars.py`, for they need rich.
"""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from epoch_oci.cli.render import duration_text, size_text
from epoch_oci.cli.streams import safe
from epoch_oci.dataclass import dataclass
from epoch_oci.events import Event

# Between two lines, as docs/cli.md (Progress) promises.
PLAIN_SECONDS = 10.0
_BLOBS_NAMED = 3

_WINDOW_SECONDS = 15.0
# Of two counts at nearly one moment any rate could be made.
_SHORTEST_SECONDS = 0.5
_LONGEST_LEFT = 100 * 3600
"""Seconds: what would take longer at the rate of the moment is not foretold."""
_NOT_MOVED = frozenset({"skipped", "mounted", "reused"})

_PATH = re.compile(r"(\bhttps?://[^/\s]+)/\S*?(?=:?(?:\s|\Z))")

Key = tuple[str, str]
Say = Callable[[str], None]


@dataclass(slots=True)
class Flow:
    """One blob on its way; sizes in bytes. `base` is how much of it was there when it began."""

    title: str
    total: int
    done: int = 0
    base: int = 0


class Rate:
    """How fast a count grows, over the last seconds. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, count: int) -> None:
        """The count is at so much now."""
        now = self._clock()
        self._samples.append((now, count))
        # One from before the window stays, so that the whole of it is always spanned.
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW_SECONDS:
            self._samples.popleft()

    def restart(self) -> None:
        """Nothing grew for a while, which says nothing of how fast it does."""
        self._samples.clear()

    def now(self, count: int) -> float:
        """A second, 0 while it does not grow or not long enough."""
        self.note(count)
        first, last = self._samples[0], self._samples[-1]
        elapsed = last[0] - first[0]
        return max(0.0, (last[1] - first[1]) / elapsed) if elapsed >= _SHORTEST_SECONDS else 0.0


class Tally:
    """Adds events up. Not safe for threads: whoever feeds it holds a lock. `clock` is monotonic, in seconds.

    It counts one phase at a time: `phase` is its word, and its bytes are those that this phase has to move and has
    moved. What is there already is no part of it, nor what an earlier run left. `snapshots` are how many of how many
    are through, where there are many. `waiting` is why nothing moves, "" where something does.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.retries = 0
        self.snapshots = (0, 0)
        self.waiting = ""
        self._clock = clock
        self.begin("")

    def begin(self, phase: str) -> None:
        """Count from nothing: something else is done from here on."""
        self.phase = self.text = phase
        self.moved = self._planned = self._hashed = 0
        self.flows: dict[Key, Flow] = {}
        self.hashing: dict[Key, Flow] = {}
        self._began = self._clock()
        self._rate, self._hash_rate = Rate(self._clock), Rate(self._clock)

    @property
    def total(self) -> int:
        """Bytes to move, as far as is known: as planned, or more when more turned out to be on its way."""
        return max(self._planned, self.moved + sum(flow.total - flow.done for flow in self.flows.values()))

    @property
    def seconds(self) -> float:
        """How long the phase has gone on."""
        return self._clock() - self._began

    def add(self, event: Event) -> None:
        """Count one event in."""
        match event.event:
            case "phase":
                # A phase that counts is told of again with every count.
                if (event.message or "") != self.phase:
                    self.begin(event.message or "")
                self.text = phase_text(event)
            case "plan":
                self._planned = event.bytes
                self.snapshots = (self.snapshots[0], event.snapshots or self.snapshots[1])
                self._rate.note(self.moved)
            case "blob-start" | "blob-progress" | "blob-done":
                if self.waiting:
                    self._rate.restart()
                self.waiting = ""
                self._blob(event)
            case "snapshot-done":
                self.snapshots = (event.snapshots, self.snapshots[1])
            case "retry" | "wait":
                self.retries += event.event == "retry"
                self.waiting = safe(where(event.message or "")) or "waiting"
            case _:
                return

    def rate(self) -> float:
        """Bytes a second over the last seconds, 0 when nothing moves."""
        return 0.0 if self.waiting else self._rate.now(self.moved)

    def hash_rate(self) -> float:
        """Bytes a second that are hashed ahead of what moves."""
        return self._hash_rate.now(self._hashed)

    def seconds_left(self) -> float | None:
        """Until the end at the present rate, None when nothing moves or nobody can tell."""
        rate = self.rate()
        left = (self.total - self.moved) / rate if rate > 0 else _LONGEST_LEFT
        return left if left < _LONGEST_LEFT else None

    def _blob(self, event: Event) -> None:
        key = key_of(event)
        if event.phase == "hashing":
            flow = self.hashing.setdefault(key, Flow(_title(event), event.total))
            self._hashed += event.bytes - flow.done
            flow.done = event.bytes
            self._hash_rate.note(self._hashed)
            if flow.done >= flow.total:
                del self.hashing[key]
            return
        flow = self.flows.get(key) or Flow(_title(event), event.total)
        # Taken out and counted in anew: an attempt that starts again has less than the one before.
        self.moved -= max(0, flow.done - flow.base)
        if event.event == "blob-done":
            self.flows.pop(key, None)
            # It turned out to be there: then it is no part of the total either.
            if event.action in _NOT_MOVED:
                return
        else:
            self.flows[key] = flow
        if event.event == "blob-start":
            flow.base = event.bytes
        flow.done = event.bytes
        self.moved += max(0, flow.done - flow.base)
        self._rate.note(self.moved)


def key_of(event: Event) -> Key:
    """What tells blobs apart: two files may have one content."""
    return str(event.digest), event.title or ""


def _title(event: Event) -> str:
    return safe(event.title or (event.digest.short() if event.digest else "document"))


class Progress:
    """The listener of a run, and the base of all: counts, and says why something waits. Safe for threads."""

    def __init__(self, say: Say, *, verbose: bool = False) -> None:
        self.tally = Tally()
        self._out = say
        self._verbose = verbose
        self._lock = threading.RLock()
        self._waits: set[tuple[str | None, ...]] = set()

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        with self._lock:
            before = self.tally.moved
            self.tally.add(event)
            if self.tally.moved > before:
                self._waits.clear()
            self._show(event)

    @property
    def retries(self) -> int:
        """How often something was tried again."""
        return self.tally.retries

    def begin(self, phase: str) -> None:
        """Show from now on that something is done, before there is anything to hear of."""

    def say(self, line: str) -> None:
        """Say something beside the progress."""
        self._out(line)

    def rest(self) -> None:
        """Nothing is under way until something begins anew, of which nothing is counted yet."""
        with self._lock:
            self.tally = Tally()

    def close(self) -> None:
        """Nothing is shown any more."""

    def _show(self, event: Event) -> None:
        """Show one event; the lock is held."""

    def _tell(self, event: Event) -> None:
        """Say what is worth a line; of waits with one reason the first, until something moves again."""
        if event.event in ("wait", "retry") and not self._verbose:
            # One line for a registry that is away, whichever of its blobs notice.
            event = replace(event, message=where(event.message or ""))
            reason = (None if "://" in (event.message or "") else event.title, event.message)
            if reason in self._waits:
                return
            self._waits.add(reason)
        if (line := event_line(event, verbose=self._verbose)) is not None:
            self.say(line)


class PlainProgress(Progress):
    """A line every ten seconds, whether bytes move or not, and one for each new reason to wait."""

    def __init__(self, say: Say, *, verbose: bool = False) -> None:
        super().__init__(say, verbose=verbose)
        self._closed = threading.Event()
        self._ticker: threading.Thread | None = None

    def close(self) -> None:
        """Say nothing any more."""
        self._closed.set()

    def _show(self, event: Event) -> None:
        # A command that plans nothing needs no thread.
        if event.event in ("phase", "plan") and self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        self._tell(event)

    def _tick(self) -> None:
        while not self._closed.wait(PLAIN_SECONDS):
            with self._lock:
                if line := status_line(self.tally):
                    self.say(line)


class JsonProgress(Progress):
    """One JSON object a line for each event."""

    def _show(self, event: Event) -> None:
        self.say(event_json(event, self.tally.phase))


def where(message: str) -> str:
    """A message without the paths of its URLs: that of an upload is long, and tells a person nothing."""
    return _PATH.sub(r"\1", message)


def event_json(event: Event, phase: str = "") -> str:
    """An event as one line; `digest` is null where it is about everything. `phase` is what is being done."""
    members: dict[str, Any] = {
        "event": event.event,
        "digest": str(event.digest) if event.digest else None,
        "bytes": event.bytes,
        "total": event.total,
    }
    extra: dict[str, Any] = {
        "title": event.title,
        "action": event.action,
        "phase": event.phase or phase or None,
        "message": event.message,
        "seconds": event.seconds,
        "snapshot": event.snapshot,
        "snapshots": event.snapshots or None,
        "count": event.count or None,
        "of": event.of or None,
        "registry": event.registry,
    }
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
    """`sending: 41 % of 1.6 GiB, 82.0 MiB/s, 0:14 left (memory-ranges 12 %)`; the phase alone where no byte moves."""
    ended, count = tally.snapshots
    parts = [f"{ended:,} of {count:,} snapshots"] if count else []
    parts += figures(tally)
    parts += [f"hashing {percent(flow.done, flow.total)} of {flow.title}" for flow in tally.hashing.values()]
    parts += [f"waiting: {tally.waiting}"] if tally.waiting else []
    flows = sorted(tally.flows.values(), key=lambda flow: -flow.total)
    named = ", ".join(f"{flow.title} {percent(flow.done, flow.total)}" for flow in flows[:_BLOBS_NAMED])
    more = f" and {len(flows) - _BLOBS_NAMED} more" if len(flows) > _BLOBS_NAMED else ""
    text = ", ".join(parts) + (f" ({named}{more})" if named else "")
    return ": ".join(filter(None, (tally.text, text)))


def figures(tally: Tally) -> list[str]:
    """Percent and total, rate, and time left, as far as they are known; nothing where no byte has to move."""
    if not tally.total:
        return [duration_text(tally.seconds)] if tally.phase else []
    left = tally.seconds_left()
    parts = [f"{percent(tally.moved, tally.total)} of {size_text(tally.total)}", f"{size_text(tally.rate())}/s"]
    return parts + ([f"{duration_text(left)} left"] if left is not None else [])


def phase_text(event: Event) -> str:
    """`surveying: 1,200 of 10,000`, or the word alone where nothing is counted."""
    word = safe(event.message or "")
    if not event.count and not event.of:
        return word
    return f"{word}: {event.count:,} of {event.of:,}" if event.of else f"{word}: {event.count:,}"


def percent(done: int, total: int) -> str:
    """`41 %`; never more than all of it."""
    return f"{min(100, 100 * done // total) if total else 100} %"
