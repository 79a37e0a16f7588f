"""How many transfers at a time: a pool of threads that grows for as long as growing pays.

One number fits no line. On loopback two streams fill the machine; over a far line each connection carries what its
window and the round trip allow, and sixteen carry four times what four do. So the pool begins small, adds workers
while the total rate climbs with them, and takes the last step back when it did not. Falling when a registry says
"slow down" is the registry room's part: it holds bodies back there, whatever the pool would allow.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")

START, MOST = 4, 16
"""Transfers at a time to begin with, and at the most."""
_WINDOW_SECONDS = 1.0
"""A rate is taken over this long: shorter, and slow start and the bursts of a paced line look like a change."""
_WORTH = 1.1
"""More workers have paid when the rate grew by this factor."""
_AGAIN_SECONDS = 20.0
"""A line changes; after a step that did not pay another one is tried this much later."""


class Climb:
    """The number of workers that the rates seen so far speak for. `clock` is monotonic, in seconds."""

    def __init__(self, start: int = START, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self.workers = min(start, most)
        self._most, self._clock = most, clock
        self._since, self._moved = clock(), 0
        self._rate = 0.0
        self._before = self.workers
        self._settled: float | None = None

    def heard(self, moved: int) -> int:
        """The number of workers from now on; `moved` is the bytes of the whole run so far."""
        now = self._clock()
        elapsed = now - self._since
        # Nothing moved: a pause of the other side says nothing about the number of workers.
        if elapsed < _WINDOW_SECONDS or moved == self._moved:
            return self.workers
        rate = (moved - self._moved) / elapsed
        self._since, self._moved = now, moved
        if self._settled is not None:
            self._rate = rate
            # The rate of now and not the best one ever is what a new step has to beat: the line is another one by then.
            if now - self._settled >= _AGAIN_SECONDS:
                self._step()
        # The first window always passes here, for nothing was measured before it.
        elif rate >= self._rate * _WORTH:
            self._rate = rate
            self._step()
        else:
            # The last step brought nothing and costs connections, so it is taken back before things settle.
            self.workers, self._settled = self._before, now
        return self.workers

    def _step(self) -> None:
        self._settled = None
        # By half, at least one: from four it takes three steps to sixteen, and a step too far costs little.
        self._before, self.workers = self.workers, min(self._most, 2 * self.workers)


def beside(fn: Callable[..., T], /, *args: Any) -> "Future[T]":
    """Run `fn` in a thread of its own, that nobody waits for but who asks for the result."""
    pool = GrowingPool(1, "beside")
    try:
        return pool.submit(fn, *args)
    finally:
        pool.shutdown()


class GrowingPool(Executor):
    """Threads that run tasks in the order in which they came; `resize` says how many of them there are.

    `ThreadPoolExecutor` cannot change its size, tasks that wait inside it for their turn could not be cancelled, and
    the interpreter would wait at its end for a thread that waits for a registry.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._name = name
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._wanted = max(1, workers)
        self._threads = self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """As `Executor.submit`."""
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._tasks.append((future, lambda: fn(*args, **kwargs)))
            self._fill()
        return future

    def resize(self, workers: int) -> None:
        """From now on this many; a surplus thread ends with the task it is at."""
        with self._changed:
            self._wanted = max(1, workers)
            self._fill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`, but that it never waits: whoever submitted a task waits for it."""
        with self._changed:
            self._closed = True
            # Here, and not in the threads: they might be busy for minutes.
            while cancel_futures and self._tasks:
                self._tasks.popleft()[0].cancel()
            self._changed.notify_all()

    def _fill(self) -> None:
        """Wake or start as many threads as there is work and leave for; the lock is held."""
        self._changed.notify_all()
        # Threads that idle take the tasks that are there; only the rest needs new ones.
        for _ in range(min(self._wanted - self._threads, len(self._tasks) - self._idle)):
            self._threads += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            future, run = task
            # From here on it cannot be cancelled, and whoever waits for it knows that it runs.
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = run()
            except BaseException as error:  # handed to whoever asks the future
                future.set_exception(error)
            else:
                future.set_result(result)

    def _next(self) -> "tuple[Future[Any], Callable[[], Any]] | None":
        """The next task, once there is one; None for a thread that is not wanted any more."""
        with self._changed:
            self._idle += 1
            while not self._tasks and not self._closed and self._threads <= self._wanted:
                self._changed.wait()
            self._idle -= 1
            if self._tasks and self._threads <= self._wanted:
                return self._tasks.popleft()
            # A surplus thread leaves by itself between two tasks: nothing is ever interrupted for a smaller pool.
            self._threads -= 1
            return None
