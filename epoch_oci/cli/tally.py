"""How far a transfer has come, out of its events: bytes moved of those to move, rate, time left."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from epoch_oci.events import Event

_WINDOW_SECONDS = 15.0
_SHORTEST_SECONDS = 0.5
_NOT_MOVED = frozenset({"skipped", "mounted", "reused"})

Key = tuple[str, str]


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
