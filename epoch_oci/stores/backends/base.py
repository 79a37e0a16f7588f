"""What a key space must be able to do, so that one store serves a directory and an object store alike.

Keys are relative, `/` divides their components. Every implementation raises only exceptions of `epoch_oci.errors`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, Finding, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.verifying import BLOCK, ByteReader, VerifyingReader
from epoch_oci.stores.base import Content

if TYPE_CHECKING:
    from epoch_oci.disk.assembly import Assembly

_MOST_LEFTOVERS = 20

Opener = Callable[[], AbstractContextManager[ByteReader]]
"""Opens an object's bytes from their start; may be called again for another attempt."""

Change = Callable[[bytes | None], bytes | None]
"""From what a key holds (None: nothing) to what it shall hold (None: leave it). May be called more than once."""


class Backend(Protocol):
    """Objects by key. Reading finds an object whole or not at all; a writer that fails leaves what was there."""

    def check(self) -> None:
        """Raise NotFoundError when there is no such place at all, rather than one that holds nothing."""

    def head(self, key: str) -> int | None:
        """The object's size in bytes, None when it is known not to be there."""

    def open(self, key: str, start: int = 0, length: int | None = None) -> AbstractContextManager[ByteReader]:
        """Its bytes, `length` of them (None: to the end) from `start`. Raises NotFoundError."""

    def holds(self, key: str, target: Descriptor, *, anew: bool = False) -> bool:
        """Whether the object is the blob `target`. Where objects are files, their bytes are what counts.

        They are hashed once, and once more with `anew`; where somebody else keeps them, the size has to do.
        """

    def write(self, key: str, content: Opener, size: int, *, digest: Digest | None = None) -> None:
        """Store all that `content` reads, `size` bytes as declared: all or nothing, durable, replacing what is there.

        Whatever reading raises is passed on, and then nothing was stored. `digest` is what `content` is known to have
        by its end, if it is.
        """

    def update(self, key: str, change: Change, *, limit: int) -> bool:
        """Read, change and write a small object; no other update of this key comes between. True when it was written.

        A directory takes a lock, an object store writes on condition and tries again. What `change` raises is passed
        on. Raises ContentError (SIZE) when the object has more than `limit` bytes.
        """

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that starts with `prefix`, in no particular order."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def flush(self, prefix: str) -> None:
        """Make durable what others, perhaps killed since, stored below `prefix` (a key's folder)."""

    def assemble(self, key: str, target: Descriptor) -> "AbstractContextManager[Assembly] | None":
        """As `stores.base.Assembler.assemble`, for the object `key`."""

    def file(self, key: str) -> AbstractContextManager[int] | None:
        """A descriptor to read the object by; None where it is not a file of this machine.

        Raises NotFoundError, ContentError (TYPE), LocalIOError.
        """


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a listing shows it: `size` in bytes, `modified` in seconds since 1970."""

    key: str
    size: int
    modified: float


@runtime_checkable
class DatedBackend(Protocol):
    """A key space that tells when its objects were written."""

    @property
    def is_shared(self) -> bool:
        """Whether servers elsewhere may write to it at any time, with no lock that they would heed."""

    def dated(self, prefix: str) -> Iterator[Stored]:
        """As `Backend.keys`, with what a listing tells; what is no regular object is left out."""

    def leftovers(self, prefix: str, older: float, *, remove: bool) -> list[Stored]:
        """What broken runs left below `prefix` and nobody has touched for `older` seconds; gone then with `remove`."""


def left_behind(backend: object, folders: Iterable[str]) -> Iterator[Finding]:
    """Notes on what broken runs left in these folders of a key space, if it tells of such."""
    if not isinstance(backend, DatedBackend):
        return
    found = [item for folder in folders for item in backend.leftovers(folder, 0.0, remove=False)]
    # A place that many killed runs have left may hold thousands, and one line each tells nobody anything.
    for item in found[:_MOST_LEFTOVERS]:
        problem = f"{item.size} bytes of a run that broke off, or is still at work; what nothing uses is swept in time"
        yield Finding(item.key, "MISMATCH", problem, "warning")
    if len(found) > _MOST_LEFTOVERS:
        more = found[_MOST_LEFTOVERS:]
        problem = f"{len(more)} more such files, {sum(item.size for item in more)} bytes"
        yield Finding(more[0].key.rpartition("/")[0], "MISMATCH", problem, "warning")


@dataclass(frozen=True, slots=True)
class StoredContent:
    """An object as content; `size` is what the caller expects it to have."""

    backend: Backend
    key: str
    size: int

    def open(self, start: int = 0, length: int | None = None) -> AbstractContextManager[ByteReader]:
        """As `Content.open`."""
        return self.backend.open(self.key, start, length)

    def ranged(self) -> bool:
        """As `stores.base.Ranged`: every backend reads from any offset."""
        return True

    def file(self) -> AbstractContextManager[int] | None:
        """As `stores.base.FileContent`."""
        return self.backend.file(self.key)


@contextmanager
def verified(content: Content, target: Descriptor) -> Iterator[ByteReader]:
    """`content` from its start, vouched for as `oci.verifying.VerifyingReader` does."""
    with content.open() as reader:
        yield VerifyingReader(reader, target)


def read_object(backend: Backend, key: str, *, limit: int, what: str) -> bytes:
    """A small object whole. Raises NotFoundError, ContentError (SIZE) when it has more than `limit` bytes."""
    with backend.open(key) as reader:
        return read_bounded(reader, limit, what)


def read_bounded(reader: ByteReader, limit: int, what: str) -> bytes:
    """All that `reader` has. Raises ContentError (SIZE) when that is more than `limit` bytes."""
    blocks, size = [], 0
    # One byte beyond the limit is read and no more: that tells that there is more.
    while block := reader.read(min(BLOCK, limit + 1 - size)):
        blocks.append(block)
        size += len(block)
        if size > limit:
            raise ContentError(f"{what} is larger than the {limit} bytes allowed", code="SIZE", object=what)
    return b"".join(blocks)


def read_if_there(backend: Backend, key: str, *, limit: int, what: str) -> bytes | None:
    """As `read_object`; None when the object is not there."""
    try:
        return read_object(backend, key, limit=limit, what=what)
    except NotFoundError:
        return None


def check_key(key: str) -> None:
    """Raise ContentError (NAME) for a key that could lead out of its place or that not every backend can keep."""
    # Keys are made of checked names; this is the last look before one becomes a path (reliability N1).
    if any(part in ("", ".", "..") for part in key.split("/")):
        why = "has an empty, . or .. component"
    elif "\x00" in key or any("\ud800" <= char <= "\udfff" for char in key):
        why = "has a NUL or is not Unicode"
    else:
        return
    raise ContentError(f"the key {shown(key)} {why}", code="NAME", object=shown(key))
