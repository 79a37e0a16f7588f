"""Content that nothing refers to, found by its age and by everything that is published, and taken away."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor

from epoch_oci.dataclass import dataclass
from epoch_oci.stores.backends.base import Backend, DatedBackend, Stored
from epoch_oci.stores.base import Garbage

_READERS = 16
_HEX = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_DIGEST = re.compile(rb"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Collector:
    """Collects below `blobs` of a key space. `references` gives the keys that are referred to, without some names.

    `books` are what a live server writes at every push; they are looked at where servers may write.
    """

    backend: Backend
    blobs: str
    books: tuple[str, ...]
    references: Callable[[AbstractSet[str]], set[str]]

    def find(self, grace: float, without: AbstractSet[str]) -> Garbage:
        """As `Collecting.garbage`. The listing is older than the references, so what is published meanwhile counts."""
        if not isinstance(self.backend, DatedBackend):
            return Garbage(blobs={}, leftovers={}, kept_back="it does not tell when content was written")
        now = time.time()
        # First the list, then the references: a blob that is put and published in between is in no list, and safe.
        stored = list(self.backend.dated(self.blobs))
        referred = self.references(without)
        loose = [item for item in stored if item.key not in referred]
        old = [item for item in loose if now - item.modified > grace]
        leftovers = [
            item
            for folder in sorted({item.key.rpartition("/")[0] + "/" for item in stored} or {self.blobs})
            for item in self.backend.leftovers(folder, grace, remove=False)
        ]
        return Garbage(
            blobs={item.key: item.size for item in old},
            leftovers={item.key: item.size for item in leftovers},
            young=len(loose) - len(old),
            kept_back=self._kept_back(self.backend, stored, now, grace),
        )

    def _kept_back(self, backend: DatedBackend, stored: Iterable[Stored], now: float, grace: float) -> str | None:
        """A server that may be writing can count on any blob, and takes no lock: only stillness shows there is none."""
        if not backend.is_shared:
            return None
        # A push whose blobs were all there writes nothing else.
        books = [item for prefix in self.books for item in backend.dated(prefix)]
        age = min((now - item.modified for item in (*stored, *books)), default=grace + 1)
        if age > grace:
            return None
        return f"something was written to it {_ago(age)}, and a server may still be writing"

    def remove(self, garbage: Garbage, grace: float) -> Garbage:
        """As `Collecting.collect`: every document is read once more, right before."""
        assert isinstance(self.backend, DatedBackend)
        # Once more, right before: in the minutes since the look a push may have named what was loose.
        referred = self.references(frozenset())
        gone = {key: size for key, size in garbage.blobs.items() if key not in referred}
        for key in gone:
            self.backend.delete(key)
        folders = sorted({key.rpartition("/")[0] + "/" for key in garbage.leftovers})
        swept = [item for folder in folders for item in self.backend.leftovers(folder, grace, remove=True)]
        return Garbage(blobs=gone, leftovers={item.key: item.size for item in swept})


def gathered(read: Callable[[str], set[str]], keys: Sequence[str]) -> set[str]:
    """What `read` finds in all of `keys`, several at a time. The first error is raised."""
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="collect") as pool:
        found: set[str] = set()
        for some in pool.map(read, keys):
            found |= some
        return found


def digests_in(raw: bytes) -> set[str]:
    """Every run of exactly 64 hex digits: a document of any format may be what holds a blob."""
    return {found.decode() for found in _HEX.findall(raw)}


def oci_digests_in(raw: bytes) -> list[str]:
    """Every digest as OCI writes them."""
    return [found.decode() for found in _DIGEST.findall(raw)]


def _ago(seconds: float) -> str:
    if seconds < 120:
        return "a moment ago"
    return f"{seconds / 60:.0f} minutes ago" if seconds < 7200 else f"{seconds / 3600:.0f} hours ago"
