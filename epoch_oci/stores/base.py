"""The ports: what a place that keeps content must be able to do, and nothing more.

A *source* resolves a name to a document and hands out content; a *sink* says whether it has a blob, puts one, and
publishes a document under a name. Names are the store's own: `TAG` or `sha256:HEX` in a layout or a repository,
`NAME:TAG` in an Epoch store. Every implementation raises only exceptions of `epoch_oci.errors`, also while content is
being read. Further powers are protocols of their own that callers look for with `isinstance`: `Remote` has those of a
registry, `Node` those of a Cocoon root.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from epoch_oci.dataclass import dataclass
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.sparse import Segment
from epoch_oci.errors import Finding, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.verifying import ByteReader

if TYPE_CHECKING:
    from epoch_oci.chunks.chunked_file import Part
    from epoch_oci.disk.assembly import Assembly


class Content(Protocol):
    """A blob's bytes, which can be opened again and from any offset. Nothing in it has been verified."""

    @property
    def size(self) -> int:
        """Length in bytes, as declared."""

    def open(self, start: int = 0, length: int | None = None) -> AbstractContextManager[ByteReader]:
        """A reader of `length` bytes (None: all) from `start`. Raises NotFoundError, LocalIOError, NetworkError."""


@runtime_checkable
class Source(Protocol):
    """Where documents and blobs come from."""

    @property
    def where(self) -> str:
        """What people call it, as a command line spells it: without the tag, digest or key of what is in it."""

    def resolve(self, name: str) -> Document:
        """The exact bytes published under `name`. Raises NotFoundError; ContentError for bytes of another digest."""

    def has(self, target: Descriptor) -> bool:
        """Whether a blob of this digest and size is here. False means known to be absent; failure is an exception."""

    def content(self, target: Descriptor) -> Content:
        """The blob `target` names. Cheap: absence shows as NotFoundError when it is opened."""


class VanishedError(NotFoundError):
    """What a document refers to is not there when it is published, though it was, or had been put."""


class Sink(Protocol):
    """Where documents and blobs go."""

    @property
    def where(self) -> str:
        """As `Source.where`."""

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        """Whether a blob is here that can be counted on, so that it need not be put.

        One with another size counts as absent, and so does a file of this machine with other bytes: it is read to know,
        once for as long as nobody changes it, and with `anew` in any case. A registry or bucket is taken at its word.
        False also where it cannot be told: putting a blob again does no harm.
        """

    def put(self, target: Descriptor, content: Content) -> None:
        """Store a blob: verified, atomic, durable, idempotent.

        Nothing is visible under the digest before every byte was checked. Raises ContentError (DIGEST, SIZE) when the
        content is not `target`, and leaves nothing behind. May open `content` more than once.
        """

    def resolve(self, name: str) -> Document:
        """What is published under `name` now. Raises NotFoundError."""

    def publish(self, name: str, document: Document, *, replace: bool = False) -> None:
        """Make `document` visible under `name`, after all it refers to is here. Atomic: readers see the old or the new.

        Raises NotFoundError when something it refers to is missing, ConflictError when `name` holds another document
        and `replace` is false. Publishing the same bytes again changes nothing.
        """


def full_name(store: Source | Sink, name: str) -> str:
    """A tag or digest in a store, as a reference is written."""
    return f"{store.where}{'@' if name.startswith('sha256:') else ':'}{name}"


@runtime_checkable
class Remover(Protocol):
    """A store that can take back what was published. Content stays until somebody collects it."""

    def remove(self, name: str) -> None:
        """Take `name` away, and nothing else that is published. Raises NotFoundError when it is not there."""


@runtime_checkable
class ArtifactStore(Source, Sink, Remover, Protocol):
    """A repository or layout: artifacts by tag, and by digest what has none."""

    def tags(self) -> Iterator[str]:
        """Every tag once, sorted where the store has no order. Raises NotFoundError when there is no repository."""

    def digest_of(self, name: str) -> Digest | None:
        """The digest of what is published under `name`, at less than the price of it; None when nothing is."""

    def keep(self, document: Document) -> None:
        """Store a document under its digest, after all it consists of is here. Raises as `Sink.publish`.

        The manifests of an index are kept so, and what refers to another manifest.
        """

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The documents whose `subject` is `digest`, each once; none for a manifest that is not here."""


@runtime_checkable
class Layout(ArtifactStore, Protocol):
    """An OCI image layout, which is all at hand: what it holds can be told apart."""

    def sole_entry(self) -> str:
        """What is meant when nobody said which: the only entry, else `latest`. Raises NotFoundError: lists the tags."""

    def artifacts(self) -> list[str]:
        """All that counts as an artifact: by tags, else by digests."""

    def orphans(self) -> list[str]:
        """The digests of untagged entries that refer to what cannot be reached by any tag any more."""


@dataclass(frozen=True, slots=True, order=True)
class SnapshotEntry:
    """A snapshot as its store's key names it; the document inside may say otherwise (epoch-formats 1.5, writer W4)."""

    name: str
    tag: str


@runtime_checkable
class SnapshotStore(Source, Sink, Protocol):
    """A store of snapshots by name and tag: Epoch's, in whatever it is kept, or a Cocoon root."""

    def snapshots(self) -> Iterator[SnapshotEntry]:
        """Every snapshot, by name then tag, from the manifests that are there and not from a catalog."""

    def find(self, word: str) -> SnapshotKey:
        """The snapshot that `word` names: of its readings the first that is here, else the usual one.

        Raises UsageError, ContentError (NAME).
        """

    def expect(self, name: str, document: Document, *, replace: bool = False) -> bool:
        """Say that `publish` will follow with the same arguments, before any blob comes.

        Returns whether the very snapshot is here under that name, so that there will be nothing to do; raises what
        `publish` would, as far as it is known now.
        """


@runtime_checkable
class Node(Protocol):
    """What only a Cocoon root can be asked, whose snapshots VMs are made of; it is a `SnapshotStore` besides."""

    @property
    def root(self) -> str:
        """The absolute path of Cocoon's root directory."""

    def sizes(self) -> Iterator[tuple[SnapshotKey, int]]:
        """Every snapshot with the bytes of its files as stored, in the order of `SnapshotStore.snapshots`.

        Nothing is read for it, while `resolve` has to read all files of one.
        """

    def forget(self) -> bool:
        """Forget what digests of files were told from memory so far, for it may be wrong. False when none was."""


@runtime_checkable
class Auditor(Protocol):
    """A store that keeps books beside its content (a catalog, an index)."""

    def audit(self) -> Iterator[Finding]:
        """What is wrong with the books (errors) or odd about them (warnings); a finding's path is its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What nothing refers to: `blobs` and `leftovers` of broken runs by key, with their sizes in bytes.

    Where it may not be taken away now, `kept_back` says why; `young` counts blobs that are left for their age.
    """

    blobs: Mapping[str, int]
    leftovers: Mapping[str, int]
    young: int = 0
    kept_back: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(self.blobs.values()) + sum(self.leftovers.values())


@runtime_checkable
class Collecting(Protocol):
    """A store that can tell which of its content nothing refers to, and take it away."""

    def garbage(self, grace: float, *, without: AbstractSet[str] = frozenset()) -> Garbage:
        """What nothing refers to that was written more than `grace` seconds ago, once `without` are not published.

        Raises what reading raises: where one document cannot be read, nobody knows what it refers to.
        """

    def collect(self, garbage: Garbage, grace: float) -> Garbage:
        """Take away what `garbage` found, but for what is referred to by now; returns what is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTarget:
    """A file of a snapshot to be written under its own name.

    `blob` names the stored bytes. Where `segments` is not None these are the data runs one after another (Cocoon's
    packed form) and `logical_size` is the length of the file they unfold to; else the blob is the file.
    """

    name: str
    blob: Descriptor
    mode: int = 0o600
    segments: Sequence[Segment] | None = None
    logical_size: int = 0

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self.blob.size if self.segments is None else self.logical_size


@runtime_checkable
class Assembler(Protocol):
    """A sink that can take a blob's bytes out of order and keep them across runs."""

    def assemble(self, target: Descriptor) -> "AbstractContextManager[Assembly] | None":
        """Start or go on with a blob; None when this sink cannot.

        Entering it raises BusyError while another process is at the blob. Whoever waited asks `holds` again inside.
        """


@runtime_checkable
class Moving(Content, Protocol):
    """Content of which every byte that is read counts as moved, and may have to wait for its turn."""

    def aside(self, count: int) -> Content:
        """The same bytes, for whoever reads the first `count` of them only to hash them."""

    def kept(self, count: int) -> None:
        """Hear that the first `count` bytes are where they shall go, from an earlier run; 0 takes it back."""


@runtime_checkable
class FileContent(Protocol):
    """Content that may be a file of this machine that is never written to again."""

    def file(self) -> AbstractContextManager[int] | None:
        """A descriptor to read all of it by; None when it is not such a file. Raises as `Content.open`."""


@runtime_checkable
class Ranged(Protocol):
    """Content of which a middle part can be read at the price of that part."""

    def ranged(self) -> bool:
        """Whether that is so; may ask the other side, once."""


@runtime_checkable
class Sealed(Protocol):
    """Content that may have been hashed in this run already."""

    @property
    def seal(self) -> bytes | None:
        """The BLAKE3 of all its bytes, as they were when the digest it is asked for by was taken; None: unknown."""


@runtime_checkable
class Scattered(Protocol):
    """Content that is cheaper to have in an order of its own than from start to end."""

    @property
    def fetched(self) -> int:
        """How many bytes had to be fetched for it so far."""

    def parts(self, missing: Sequence[tuple[int, int]]) -> Iterator["Part"]:
        """What brings the (offset, length) spans that are missing; it may bring a little more around them."""

    def cost(self) -> int:
        """How many bytes have to be fetched for all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sink is known to bear: the largest blob, in bytes, and the most transfers.

    Files above `cut_above` bytes travel in parts of `part_size` bytes where nobody says otherwise.
    """

    largest: int | None = None
    cut_above: int | None = None
    part_size: int | None = None
    jobs: int | None = None


Openness = Literal["repository", "registry", "epoch"]
"""What is open to everybody: this repository, or all that the registry has, for want of credentials or by nature."""


@runtime_checkable
class Remote(Protocol):
    """What only a repository of a registry can be asked; it is an `ArtifactStore` besides."""

    def mount(self, target: Descriptor, repository: str) -> bool:
        """Take a blob over from a sibling on the same registry without moving bytes; False when it is declined.

        True says that it was looked at, and is here.
        """

    def limits(self) -> Limits:
        """What is known of them; nothing is asked."""

    def check_write(self) -> None:
        """Raises AccessError or NotFoundError when it may not be written to. Leaves nothing behind."""

    def openness(self, blob: Descriptor | None = None) -> Openness | None:
        """Whether somebody without credentials can read it, None for no; `blob` is one that is here, to try it on.

        Without one a place that is not there yet counts as closed unless it is known to open. Raises NetworkError when
        nobody can say, for a guard that did not see does not let pass.
        """


class FileSink(Protocol):
    """A directory that receives a snapshot's files."""

    def holds(self, target: FileTarget) -> bool:
        """Whether the file is there with exactly this content (it is read and hashed to know)."""

    def check(self, targets: Sequence[FileTarget], *, replace: bool = False) -> None:
        """Look before the leap: raises ConflictError for what stands in the way, LocalIOError when space is short."""

    def write(self, target: FileTarget, content: Content, *, replace: bool = False) -> None:
        """Write one file: verified, sparse, atomic, durable, no symbolic link followed.

        Raises ContentError when the content is not `target.blob`, ConflictError when something else stands there.
        """

    def assemble(self, target: FileTarget, *, replace: bool = False) -> "AbstractContextManager[Assembly]":
        """As `Assembler.assemble` for the blob of a file; raises what `write` raises."""


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Content that is already in memory; for documents, not for blobs."""

    raw: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.raw)

    def open(self, start: int = 0, length: int | None = None) -> AbstractContextManager[ByteReader]:
        """As `Content.open`."""
        end = len(self.raw) if length is None else start + length
        return io.BytesIO(self.raw[start:end])
