"""Folders below a Cocoon root, opened without following a link, and Cocoon's own lock on its index."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from epoch_oci.disk import local
from epoch_oci.disk.local import local_errors, make_usable
from epoch_oci.disk.lock import wait_for_lock
from epoch_oci.errors import LocalIOError

DATABASE = "snapshot/db"
SNAPSHOTS = "snapshot/localfile"
IMAGE_BLOBS = "cloudimg/blobs"
INDEX = "snapshots.json"
LOCK = "snapshots.lock"
STAGE = f"snapshot/{local.OUR_PREFIX}"
"""Where what is on its way waits: on the file system of the snapshots, and where Cocoon's collector never looks."""
SIGNS = ("snapshot", "cloudimg", "oci/db", "cloudhypervisor", "firecracker")
"""A directory with one of these in it is a root; Cocoon makes each of them when it first needs it (5.1)."""
DIRECTORY_MODE = 0o750
"""What Cocoon gives every directory that it makes."""
MODERN = "meta"
MODERN_FILES = ("meta.db", "meta-convert.manifest")
"""Later Cocoon versions keep their records in a database there, or are about to."""


class Tree:
    """The directory `path`; folders are named relative to it. A link on the way is refused (ContentError, TYPE).

    `warn` is told what is at risk there, each thing once.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = local.unheard) -> None:
        self.path = path.absolute()
        self.warnings = local.Warnings(str(self.path), warn)

    def what(self, folder: str, name: str = "") -> str:
        """A file or folder as people write it."""
        return str(self.path / folder / name)

    @contextmanager
    def folder(self, folder: str) -> Iterator[int | None]:
        """A descriptor of the folder, None when it or one above it is not there. Raises ContentError, LocalIOError."""
        # The root itself may be reached through a link, for an operator put it there; nothing below it may (reliability
        # L3).
        directory = local.open_below(self.path, folder)
        try:
            yield directory
        finally:
            if directory is not None:
                os.close(directory)

    @contextmanager
    def existing(self, folder: str) -> Iterator[int]:
        """As `folder`, for one that has to be there. Raises LocalIOError."""
        with self.folder(folder) as directory:
            if directory is None:
                raise LocalIOError(f"{self.what(folder)} is not there", object=self.what(folder))
            yield directory

    @contextmanager
    def own(self, folder: str) -> Iterator[int]:
        """As `existing`, to write in; a warning when somebody else could put things there meanwhile."""
        with self.existing(folder) as directory:
            self.warnings.look_at(directory)
            yield directory

    def is_root(self) -> bool:
        """Whether this looks like a root, be it one in which no snapshot was ever made."""
        # Any of them, for a root in which only images were imported has no snapshot's folder.
        for sign in SIGNS:
            with self.folder(sign) as directory:
                if directory is not None:
                    return True
        return False

    def make(self, folder: str) -> None:
        """Make sure that a folder is there, and those above it, as Cocoon would make them. Raises as `own`."""
        above = ""
        for name in folder.split("/"):
            below = f"{above}/{name}" if above else name
            with self.folder(below) as found:
                # Each with Cocoon's own mode, or a Cocoon of another user of the group could not go on there.
                missing = found is None
            if missing:
                with self.own(above) as parent:
                    local.make_directory(name, parent, self.what(below), DIRECTORY_MODE)
            above = below

    def names(self, folder: str) -> list[tuple[str, int]]:
        """What is in a folder, with each one's `st_mode`, sorted by name; nothing when the folder is not there."""
        with self.folder(folder) as directory, local.local_errors(self.what(folder)):
            if directory is None:
                return []
            with os.scandir(directory) as entries:
                found = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]
        return sorted(found)


@contextmanager
def index_locked(tree: Tree, seconds: float) -> Iterator[int]:
    """Hold the lock; gives a descriptor of the directory that the index is in.

    Raises LocalIOError when somebody else holds it for more than `seconds`.
    """
    what = tree.what(DATABASE, LOCK)
    with tree.own(DATABASE) as directory:
        with local_errors(what):
            # Made where it is missing, as Cocoon does: a lock that only one of the two takes is none.
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
