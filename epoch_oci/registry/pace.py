"""How many bodies are sent and received at once: fewer when the registry says "slow down", more again as it lets us."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SETTLES = 1.0
"""Seconds. What was already under way is refused too when a registry begins to throttle: that is one warning."""


class Pace:
    """The room for bodies of one registry, shared by all threads that move them.

    Nothing is held back until the registry throttles. Then there is room for half as many as were under way, and after
    each round that went well for one more, until there is again room for as many as there ever were (AIMD, as TCP).
    A thread that has a body under way is never made to wait for another, so nested transfers cannot lock each other.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._mine = threading.local()
        self._under_way = self._most = self._went_well = 0
        self._room: int | None = None
        self._slowed = float("-inf")

    @property
    def room(self) -> int | None:
        """How many bodies may be under way at once; None is as many as the caller likes."""
        return self._room

    @contextmanager
    def body(self) -> Iterator[None]:
        """While a body is under way. Waits until there is room for it; ending without an error is going well."""
        self.enter()
        try:
            yield
        except BaseException:
            self.leave(well=False)
            raise
        self.leave(well=True)

    def enter(self) -> None:
        """A body begins. To be ended with `leave` by the same thread."""
        held = getattr(self._mine, "held", 0)
        with self._changed:
            # Not a thread that holds one already: it may be what the others wait for.
            while held <= 0 and self._room is not None and self._under_way >= self._room:
                self._changed.wait()
            self._under_way += 1
            self._most = max(self._most, self._under_way)
        self._mine.held = held + 1

    def leave(self, *, well: bool) -> None:
        """A body ended."""
        self._mine.held = getattr(self._mine, "held", 0) - 1
        with self._changed:
            self._under_way -= 1
            if well and self._room is not None:
                self._climb(self._room)
            self._changed.notify_all()

    def throttled(self) -> None:
        """The registry has said that this is too much."""
        with self._changed:
            now = self._clock()
            # Eight bodies under way are refused at once; halving for each of them would leave one.
            if now - self._slowed < _SETTLES:
                return
            self._slowed, self._went_well = now, 0
            at_once = self._most if self._room is None else min(self._room, self._most)
            self._room = max(1, at_once // 2)

    def _climb(self, room: int) -> None:
        # One more for each round, not for each body: as slowly as TCP does.
        self._went_well += 1
        if self._went_well >= room:
            self._went_well = 0
            self._room = room + 1 if room + 1 < self._most else None
