"""A limit on bytes a second that all transfers of a run share."""

import threading
import time
from collections.abc import Callable

from epoch_oci.errors import UsageError
from epoch_oci.oci.verifying import BLOCK

BURST_SECONDS = 0.25
"""What was not used of the rate may be made up for, but no more than this much of it."""
# A blob that asks for a second's worth makes seven others wait that second.
_SHARES = 8
# Below that more is spent on calls than is moved.
_SMALLEST_READ = 1 << 10


class Throttle:
    """`rate` bytes a second, handed out in the order in which they are asked for. Safe for threads.

    Each transfer asks for no more than `grain` bytes at a time, so that those who share the rate get equal parts of it.
    `clock` is monotonic, in seconds. Raises UsageError for a rate below 1.
    """

    def __init__(self, rate: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not isinstance(rate, int) or rate < 1:
            raise UsageError(f"a rate cannot be {rate!r} bytes a second: it has to be a whole number, 1 or more")
        self.rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._paid: float | None = None

    @property
    def grain(self) -> int:
        """How many bytes to move at a time: a fraction of a second's worth, a block at most."""
        return min(BLOCK, max(_SMALLEST_READ, self.rate // _SHARES))

    def take(self, count: int, cancelled: threading.Event) -> bool:
        """Wait until `count` more bytes may pass. False when `cancelled` was set, which ends the waiting at once."""
        # Booked before waiting, so that whoever comes later waits behind: else the luckiest thread would get all.
        return not cancelled.wait(self._booked(count))

    def _booked(self, count: int) -> float:
        """Enter `count` bytes behind those of all others; returns the seconds until it is their turn.

        `_paid` is the moment up to which the rate is used up. It never lags more than a burst behind the clock, and at
        the first byte not at all: so no transfer ends before its size divided by the rate.
        """
        with self._lock:
            now = self._clock()
            # A burst makes up for a pause of the scheduler; without a bound an hour's pause would be made up for at
            # full speed.
            begin = now if self._paid is None else max(self._paid, now - BURST_SECONDS)
            self._paid = begin + count / self.rate
            return max(0.0, self._paid - now)
