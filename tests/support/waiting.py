"""Time in tests: with patience for what is to come, since a busy machine is not a fault, and a bound far below that."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 100.0
"""Seconds: longer than anything takes on a machine with other work."""


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Look again and again until it is so; AssertionError when it never comes to be."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


@contextmanager
def at_once() -> Iterator[None]:
    """What goes on in here waits for nobody: what it could wait for has to take PATIENCE or more."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < PATIENCE / 2, "it waited"
