"""A limit on bytes a second that the workers of a cluster share: portions in a queue, which whoever moves bytes takes.

A share for each worker would be lost where a worker has nothing to do. The process that plans fills the queue at the
rate; it lives with the scheduler, so that taking is one round trip, and a worker that dies takes one portion along.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from epoch_oci.transfer.throttle import BURST_SECONDS, Throttle

_A_SECOND = 32
"""Portions: so few that a scheduler does not feel them, so many that none of a cluster's workers waits for long."""
_SMALLEST = 4 << 10
_WAIT_SECONDS = 1.0
"""How soon whoever waits for a portion looks whether it is still wanted."""


def portion(rate: int) -> int:
    """The bytes of a portion, of `rate` bytes a second."""
    return max(min(_SMALLEST, rate), rate // _A_SECOND)


def queue_size(rate: int) -> int:
    """How many portions may lie in the queue: what was not used may be made up for, but no more than a burst of it."""
    return max(1, int(rate * BURST_SECONDS) // portion(rate))


class Rationed(Throttle):
    """As `Throttle`, on a worker: the rate is the whole cluster's, and portions of it are in `queue`."""

    def __init__(self, rate: int, queue: Any = None) -> None:
        super().__init__(rate)
        self.queue = queue
        self._left = 0
        self._taking = threading.Lock()

    @property
    def grain(self) -> int:
        """As `Throttle.grain`."""
        return min(super().grain, portion(self.rate))

    def take(self, count: int, cancelled: threading.Event) -> bool:
        """As `Throttle.take`. Raises what Dask raises when the scheduler is gone."""
        while not self._taking.acquire(timeout=_WAIT_SECONDS):
            if cancelled.is_set():
                return False
        try:
            while self._left < count:
                if cancelled.is_set():
                    return False
                self._left += self._portion()
            self._left -= count
        finally:
            self._taking.release()
        return not cancelled.is_set()

    def _portion(self) -> int:
        try:
            return int(self.queue.get(timeout=_WAIT_SECONDS))
        except TimeoutError:
            return 0


class Rations:
    """Fills a queue with portions of `rate` bytes a second, from a thread of its own, until it is closed.

    `opened` opens the queue; again where it was lost with its scheduler.
    """

    def __init__(self, opened: Callable[[], Any], rate: int) -> None:
        self._opened, self._rate = opened, rate
        self._queue: Any = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="rations", daemon=True)

    def start(self) -> "Rations":
        """Begin."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed.set()

    def _fill(self) -> None:
        size = portion(self._rate)
        due = time.monotonic()
        while not self._closed.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - BURST_SECONDS) + size / self._rate
            self._put(size)

    def _put(self, size: int) -> None:
        """Put a portion in, as soon as there is room for it and a scheduler."""
        while not self._closed.is_set():
            try:
                self._queue = self._queue or self._opened()
                self._queue.put(size, timeout=_WAIT_SECONDS)
            except TimeoutError:
                continue
            # Whatever Dask makes of it that its scheduler is not there, or there again without the queue.
            except Exception:
                self._queue = None
                self._closed.wait(_WAIT_SECONDS)
            else:
                return
