"""Cocoon's own lock on its index: an exclusive flock on `snapshots.lock` (Cocoon lock/flock; epoch-formats 5.2).

While it is held no Cocoon changes the index, and none collects garbage.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from epoch_oci.cocoon.tree import DATABASE, LOCK, Tree
from epoch_oci.disk.local import local_errors, make_usable
from epoch_oci.disk.lock import wait_for_lock
from epoch_oci.errors import LocalIOError


@contextmanager
def index_locked(tree: Tree, seconds: float) -> Iterator[int]:
    """Hold the lock; gives a descriptor of the directory that the index is in.

    Raises LocalIOError when somebody else holds it for more than `seconds`.
    """
    what = tree.what(DATABASE, LOCK)
    with tree.own(DATABASE) as directory:
        with local_errors(what):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            held = os.open(LOCK, flags, 0o600, dir_fd=directory)
        try:
            with local_errors(what):
                make_usable(held)
            _wait(held, what, seconds, tree.warnings.no_locks)
            yield directory
        finally:
            os.close(held)


def _wait(descriptor: int, what: str, seconds: float, unlocked: Callable[[], None]) -> None:
    with local_errors(what):
        held = wait_for_lock(descriptor, seconds)
    if held is None:  # no Cocoon holds one either then
        unlocked()
    if held is False:
        raise LocalIOError(
            f"{what} is held by another process", object=what, hint="see what Cocoon is doing, and run this again"
        )
