"""What is remembered of unfinished uploads between runs: one private file for each blob on its way into a repository.

A location may hold signed state, so the files are for their owner alone. Nothing here is worth a failure: what cannot
be written is not, and what is odd is forgotten. An entry is read and written only by who holds its claim.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import field
from pathlib import Path

from epoch_oci.dataclass import dataclass
from epoch_oci.disk.journals import PrivateDirectory
from epoch_oci.oci.digest import Digest

LIFE = 7 * 86400.0
"""Seconds after which an entry is of no use to anybody: registries purge their sessions after a week."""
_PAUSE = 2.0
"""Seconds between notes: a chunk may take milliseconds, and bytes that were not noted are found by asking."""


@dataclass(frozen=True, slots=True)
class UploadKey:
    """Which upload: a blob on its way into a repository of a registry, which is named by its origin."""

    registry: str
    repository: str
    digest: Digest
    size: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return hashlib.sha256(f"{self.registry}\n{self.repository}\n{self.digest}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """An unfinished upload: where its session is, and how many bytes the registry has acknowledged."""

    location: str = field(repr=False)
    offset: int


class UploadJournal:
    """The entries in a directory, which is made when it is first needed."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = directory
        self._clock = clock
        self._pruned = False

    def knows(self, key: UploadKey) -> bool:
        """Whether there may be an entry; it takes a claim to read it."""
        return os.path.lexists(self._path / f"{key.name}.json")

    def claim(self, key: UploadKey) -> "Claim | None":
        """The right to an entry until it is released; None while somebody else has it, and where files cannot be."""
        try:
            directory = PrivateDirectory(self._path)
        except OSError:
            return None
        self._prune(directory)
        lock = directory.lock(key.name)
        if lock is None:
            directory.close()
            return None
        return Claim(directory, lock, key, self._clock)

    def _prune(self, directory: PrivateDirectory) -> None:
        """Take away what is too old, once in a run: nobody will ask for it again."""
        if self._pruned:
            return
        self._pruned = True
        with suppress(OSError):
            for name in directory.names():
                if directory.age(name, self._clock()) <= LIFE:
                    continue
                lock = directory.lock(name)
                # Whoever holds it is at that very upload, however old its entry.
                if lock is not None:
                    directory.remove(name)
                    directory.unlock(name, lock)


class Claim:
    """One entry, held against other threads and processes."""

    def __init__(self, directory: PrivateDirectory, lock: int, key: UploadKey, clock: Callable[[], float]) -> None:
        self._directory, self._lock = directory, lock
        self._key = key
        self._clock = clock
        self._noted: float | None = None

    def entry(self) -> UploadEntry | None:
        """What an earlier run left. What is odd, or too old, is forgotten."""
        raw = self._directory.read(self._key.name)
        if raw is None:
            return None
        entry = _parse(raw, self._key, self._clock())
        if entry is None:
            self.forget()
        return entry

    def note(self, location: str, offset: int, *, at_once: bool = False) -> None:
        """Remember how far the upload got; what comes soon after another note is not written, except `at_once`."""
        now = time.monotonic()
        if not at_once and self._noted is not None and now - self._noted < _PAUSE:
            return
        self._noted = now
        key = self._key
        value = {
            "version": 1,
            "registry": key.registry,
            "repository": key.repository,
            "digest": str(key.digest),
            "size": key.size,
            "location": location,
            "offset": offset,
            "at": self._clock(),
        }
        with suppress(OSError):
            self._directory.write(key.name, json.dumps(value).encode())

    def forget(self) -> None:
        """Take the entry away."""
        self._directory.remove(self._key.name)

    def release(self) -> None:
        """Let others have it."""
        self._directory.unlock(self._key.name, self._lock)
        self._directory.close()


def _parse(raw: bytes, key: UploadKey, now: float) -> UploadEntry | None:
    """The entry in a file, None for what is not this upload's, or not to be believed."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("version") != 1:
        return None
    named = (key.registry, key.repository, str(key.digest), key.size)
    if tuple(value.get(name) for name in ("registry", "repository", "digest", "size")) != named:
        return None
    location, offset, at = value.get("location"), value.get("offset"), value.get("at")
    # It becomes a request's target, with our token beside it; where it leads is judged again when it is used.
    if not isinstance(location, str) or not location.isascii() or not location.isprintable():
        return None
    # Not isinstance: True is an int.
    if type(offset) is not int or not 0 <= offset <= key.size:
        return None
    # A minute for clocks that were set back; further in the future is no time it can have been written at.
    if not isinstance(at, float | int) or not -60 <= now - at <= LIFE:
        return None
    return UploadEntry(location, offset)
