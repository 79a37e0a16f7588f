"""Cocoon's own lock on its index: an exclusive flock on `snapshots.lock` (Cocoon lock/flock; epoch-formats 5.2).

While it is held no Cocoon changes the index, and none collects garbage.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from epoch_oci.cocoon.tree import DATABASE, LOCK, Tree
from epoch_oci.disk.local import local_errors
from epoch_oci.errors import LocalIOError

_POLL_SECONDS = 0.02


@contextmanager
def index_locked(tree: Tree, seconds: float) -> Iterator[int]:
    """Hold the lock; gives a descriptor of the directory that the index is in.

    Raises LocalIOError when somebody else holds it for more than `seconds`, PolicyError for a shared directory.
    """
    what = tree.what(DATABASE, LOCK)
    with tree.own(DATABASE) as directory:
        with local_errors(what):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            held = os.open(LOCK, flags, 0o600, dir_fd=directory)
        try:
            _wait(held, what, time.monotonic() + seconds)
            yield directory
        finally:
            os.close(held)


def _wait(descriptor: int, what: str, deadline: float) -> None:
    while True:
        with local_errors(what):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return
        if time.monotonic() >= deadline:
            raise LocalIOError(
                f"{what} is held by another process", object=what, hint="see what Cocoon is doing, and run this again"
            )
        time.sleep(_POLL_SECONDS)
