"""Small objects that several writers change at once.

Where a store writes on condition (`If-None-Match`, `If-Match`, a generation) a change is compare-and-set, tried again
from a fresh read. Whether it does is found out on an object of our own: some stores, and proxies before them, pass
over a condition without a word. There a write is looked at again after a while, which narrows the gap and no more.
"""

import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, ConflictError, EpochOciError, NetworkError, NotFoundError, UsageError
from epoch_oci.stores.backends.base import Change
from epoch_oci.stores.backends.object_errors import foreign_errors
from epoch_oci.stores.backends.object_streams import Patience, read_small

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

HIDDEN = ".epoch-oci/"
"""Where this program's own objects lie, below the prefix; they are never listed and never taken for content."""

# As many as writers may meet at one catalog; each waits at random, so one of them always gets through.
_ATTEMPTS = 40
_NOT_KNOWN = frozenset({400, 405, 501})
"""How a store answers that does not know a condition, and says so."""

Manner = Literal["heeded", "passed over", "untested"]
"""What becomes of a condition. Where it could not be tested it is sent, and relied upon no more than if it were not."""


class OutdatedError(Exception):
    """The object is not what it was when it was read."""


@dataclass(frozen=True, slots=True)
class Place:
    """A store, what people call it, and the prefix of its keys."""

    store: "ObjectStore"
    where: str
    prefix: str

    def path(self, key: str) -> str:
        """The object's name in the bucket: prefix and key, one after the other as Epoch does."""
        return self.prefix + key

    def what(self, key: str) -> str:
        """The object, for people."""
        return self.where + key


class SharedObjects:
    """What is changed by compare-and-set. Safe for threads."""

    def __init__(self, place: Place, patience: Patience, warn: Callable[[str], None]) -> None:
        self._place, self._patience, self._warn = place, patience, warn
        self._manner: Manner | None = None
        self._lock = threading.Lock()

    def update(self, key: str, change: Change, *, limit: int) -> bool:
        """As `Backend.update`. Raises ConflictError when other writers leave no room."""
        with self._lock:  # the threads of one process need not fight each other over the network
            return self._update(key, change, limit)

    def manner(self) -> Manner:
        """How the store takes conditions; tried out once, when something is about to be written."""
        if self._manner is None:
            # Not when the store is opened: whoever only reads may not be allowed to write a probe.
            self._manner = probe(self._place, self._warn)
            if self._manner != "heeded":
                self._warn(
                    f"{self._place.where} does not write on condition: what another writer enters in catalog.json at"
                    " the same moment can be lost; let one write at a time, and look with `epoch-oci verify`"
                )
        return self._manner

    def _update(self, key: str, change: Change, limit: int) -> bool:
        path, what = self._place.path(key), self._place.what(key)
        written: bytes | None = None
        for failed in range(_ATTEMPTS):
            if failed:
                # Conflicts are short: a hundredth of the usual wait to begin with.
                self._patience.wait(min(failed, 5) - 4)
            # Anew in each attempt: a change is made to what stands there now, or another writer's entry would be lost.
            old, version = read_small(self._place.store, path, what, limit)
            # Looked at before anything is written again: a write whose answer was lost must not be taken for another
            # writer's.
            if old is not None and old == written:
                return True  # ours: the answer to an earlier attempt was lost, or the write stood in the end
            new = change(old)
            if new is None or new == old:
                return written is not None
            written = new
            try:
                write(self._place, key, new, None if self.manner() == "passed over" else version)
            except OutdatedError:
                continue
            # Without conditions nobody is told of being overwritten: only a look after a while shows it (reliability
            # F23).
            if self._manner == "heeded" or self._stands(path, what, new, limit):
                return True
        raise ConflictError(f"{what}: other writers keep changing it", object=what, hint="run the same command again")

    def _stands(self, path: str, what: str, content: bytes, limit: int) -> bool:
        """Whether a write without a condition is still there after a while."""
        self._patience.sleep(self._patience.settle * (1 + self._patience.jitter()))
        return read_small(self._place.store, path, what, limit)[0] == content


def write(place: Place, key: str, content: bytes, version: "UpdateVersion | Literal['create'] | None") -> None:
    """Write an object on condition: as `version` read it, or new. Raises OutdatedError; None writes it anyhow."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    with foreign_errors(place.what(key)):
        try:
            obstore.put(place.store, place.path(key), content, mode=version or "overwrite", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            # Also what a 409 becomes: two conditional requests met, and the loser may try again.
            raise OutdatedError from None


def probe(place: Place, warn: Callable[[str], None]) -> Manner:
    """Find out on a hidden object how a store takes conditions: both must hold where they should, and only there."""
    # A name that nobody else has: two probes at a time must not answer each other.
    key = f"{HIDDEN}probe-{secrets.token_hex(16)}"
    path, what = place.path(key), place.what(key)
    try:
        return _try_out(place, key)
    except (NetworkError, UsageError) as error:
        if error.status not in _NOT_KNOWN:
            raise
        return "passed over"
    except AccessError:
        return "untested"  # an object beside Epoch's own may not be written
    finally:
        _remove(place, path, what, warn)


def _try_out(place: Place, key: str) -> Manner:
    try:
        write(place, key, b"1", "create")
        # Some stores take `If-None-Match` and pass it over: the answer is 200, and the object is replaced (reliability
        # F23).
        if not _is_refused(place, key, "create"):
            return "passed over"
        _, first = read_small(place.store, place.path(key), place.what(key), 16)
        if first is None:
            return "passed over"
        write(place, key, b"2", first)
    except OutdatedError:
        return "passed over"  # nobody else knows the name, so what was refused was not refused for its condition
    return "heeded" if _is_refused(place, key, first) else "passed over"


def _is_refused(place: Place, key: str, version: "UpdateVersion | Literal['create']") -> bool:
    try:
        write(place, key, b"3", version)
    except OutdatedError:
        return True
    return False


def _remove(place: Place, path: str, what: str, warn: Callable[[str], None]) -> None:
    import obstore

    try:
        with foreign_errors(what):
            obstore.delete(place.store, path)
    except NotFoundError:
        pass
    except EpochOciError as error:
        warn(f"an empty object was left behind: {error.message}")
