"""An Epoch store's catalog kept up: tags entered one by one or in batches, and what is wrong with an entry."""

import threading
import time
from collections.abc import Callable

from epoch_oci.epoch.catalog import Catalog, with_tags
from epoch_oci.epoch.keys import (
    CATALOG_KEY,
    SnapshotKey,
    hostile_problem,
    manifest_key,
)
from epoch_oci.errors import Finding
from epoch_oci.oci.digest import shown

_BATCH = 500
_BATCH_SECONDS = 10.0
"""A catalog of thousands of tags is not written again for each: so many at a time, or so long after the last time."""


class Batch:
    """Tags that are published and not listed yet. Safe for threads."""

    def __init__(self, enlist: Callable[[set[SnapshotKey], bool], None]) -> None:
        self._enlist = enlist
        self._lock = threading.Lock()
        self._keys: set[SnapshotKey] = set()
        self._noted: set[SnapshotKey] = set()
        self._open = True
        self._since = time.monotonic()

    def add(self, key: SnapshotKey, *, renew: bool) -> bool:
        """Keep a tag for later; False when it is too late for that."""
        with self._lock:
            if not self._open:
                return False
            # A tag that is there with the same bytes keeps its time in the catalog: nothing was pushed.
            (self._keys if renew else self._noted).add(key)
            due = len(self._keys) >= _BATCH or time.monotonic() - self._since > _BATCH_SECONDS
            keys = self._taken() if due else set()
        try:
            self._enlist(keys, True)
        except BaseException:
            with self._lock:
                # They are published all the same, and the next writing takes them along.
                self._keys |= keys
            raise
        return True

    def note(self, key: SnapshotKey) -> None:
        """Keep the tag of a snapshot that somebody else has published."""
        with self._lock:
            self._noted.add(key)
            noted = set(self._noted) if len(self._noted) >= _BATCH else set()
            self._noted -= noted
        self._enlist(noted, False)

    def flush(self) -> None:
        """List what is left."""
        with self._lock:
            # From here on `add` sends latecomers to write for themselves: a thread may still be publishing.
            self._open, keys = False, self._taken()
        self._enlist(keys, True)
        self._enlist(self._noted, False)

    def _taken(self) -> set[SnapshotKey]:
        keys, self._keys, self._since = self._keys, set(), time.monotonic()
        return keys


class Unlisted:
    """As `Batch`, for whom somebody else does the listing."""

    def add(self, key: SnapshotKey, *, renew: bool) -> bool:
        """Somebody else will."""
        return True


class Enlisting:
    """Enters tags into the catalog; `renew` dates them anew where they stand there already.

    Asked again because somebody else wrote in between, it does so only where a tag is missing. Two writers on a store
    without conditional writes would otherwise keep replacing each other's times.
    """

    def __init__(self, keys: set[SnapshotKey], renew: bool, clock: Callable[[], str]) -> None:
        self._keys, self._renew, self._clock = keys, renew, clock

    def __call__(self, old: bytes | None) -> bytes | None:
        """What the catalog is to be; None for no change."""
        keys = self._keys
        if not self._renew and old is not None:
            catalog = Catalog.parse(old)
            keys = {key for key in keys if not catalog.lists(key)}
            if not keys:
                return None
        # The first time only: asked again it would take back the time that another writer has just set.
        self._renew = False
        return with_tags(old, keys, self._clock())


def entry_problem(key: SnapshotKey, value: str, keys: set[SnapshotKey]) -> Finding | None:
    """What is wrong with a catalog's entry. Its value is never used as a key, so a foreign one is no danger."""
    for word in (key.name, key.tag):
        if (why := hostile_problem(word)) is not None:
            return Finding(CATALOG_KEY, "NAME", f"{shown(str(key))}: {shown(word)} {why}")
    if key not in keys:
        return Finding(CATALOG_KEY, "MISMATCH", f"{shown(str(key))} is listed and its manifest is not there")
    if value != manifest_key(key):
        return Finding(CATALOG_KEY, "MISMATCH", f"{shown(str(key))} points to {shown(value)}")
    return None
