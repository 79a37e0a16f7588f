"""A Cocoon root directory as a store of snapshots (epoch-formats 5.1 to 5.4).

Read, a snapshot becomes an Epoch manifest like vk-cocoon's: sparse files in the packed form that Cocoon's own export
gives them, so that both ways lead to the same blobs. That form follows the holes that the file system reports: the same
content with other holes is another blob. Written, it becomes what Cocoon's import would have made.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from epoch_oci.cocoon import tree as places
from epoch_oci.cocoon.epoch_manifest import manifest_of
from epoch_oci.cocoon.landing import Landing
from epoch_oci.cocoon.records import INDEX_LIMIT, Record, SnapshotIndex
from epoch_oci.cocoon.root_file import Digests, RootFile
from epoch_oci.cocoon.tree import DATABASE, IMAGE_BLOBS, INDEX, SNAPSHOTS, STAGE, Tree
from epoch_oci.dataclass import dataclass
from epoch_oci.disk import local
from epoch_oci.disk.assembly import Assembly
from epoch_oci.disk.facts import Facts, Marks
from epoch_oci.disk.lock import try_lock
from epoch_oci.epoch.keys import SnapshotKey, blob_key
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.epoch.mint import StoredFile
from epoch_oci.errors import ConflictError, ContentError, Finding, NotFoundError
from epoch_oci.oci import filename
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.verifying import ByteReader
from epoch_oci.stores.backends.base import StoredContent, left_behind, read_bounded, verified
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.base import Content, SnapshotEntry

# SHA-256 runs at a core's speed, and a node has others to serve.
_HASHERS = 4
_EXTENSIONS = (".qcow2", ".raw", "")
"""What an image blob's name may end in, in the order in which Epoch looks for it (epoch-formats 1.5)."""


def utc_now() -> str:
    """This moment as Go writes a UTC time."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    # Go drops zeros at the end (RFC3339Nano).
    fraction = f".{nanoseconds:09}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


class CocoonRoot:
    """The snapshots of a Cocoon root directory, named by `SnapshotKey`s: a name, an ID, or the beginning of an ID.

    A source and a sink. `cache_dir` remembers digests between runs, for a snapshot's files must be read once to know
    them; `where` is what people call the root, `clock` and `random` date and name new records; `lock_seconds` is how
    long Cocoon's lock is waited for. `warn` is told what is at risk in the root, each thing once.
    """

    def __init__(
        self,
        path: Path,
        *,
        where: str | None = None,
        cache_dir: Path | None = None,
        clock: Callable[[], str] = utc_now,
        random: Callable[[int], bytes] = secrets.token_bytes,
        lock_seconds: float = 30.0,
        warn: Callable[[str], None] = local.unheard,
    ) -> None:
        # First of all: `__del__` runs also where what follows here failed.
        self._leases: dict[str, int] = {}
        self._tree = Tree(path, warn)
        self._where = where or f"cocoon:{path}"
        marks = Marks(Facts(cache_dir))
        self._digests = Digests(marks)
        self._stage = DirectoryBackend(self._tree.path / STAGE, warnings=self._tree.warnings, marks=marks)
        self._landing = Landing(
            tree=self._tree,
            digests=self._digests,
            stage=self._stage,
            locate=self.located,
            index=self.index,
            clock=clock,
            random=random,
            lock_seconds=lock_seconds,
        )
        self._found: dict[Digest, RootFile] = {}

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return self._where

    @property
    def root(self) -> str:
        """As `stores.base.Node.root`."""
        return str(self._tree.path)

    def close(self) -> None:
        """Let go of the snapshots that were read, which Cocoon may delete again, and of blobs that wait for one."""
        self._landing.let_go()
        while self._leases:
            os.close(self._leases.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def index(self) -> SnapshotIndex:
        """Cocoon's index. Raises NotFoundError when this is no Cocoon root, ContentError when it cannot be read."""
        what = self._tree.what(DATABASE, INDEX)
        self._refuse_modern()
        with self._tree.folder(DATABASE) as directory:
            descriptor = None if directory is None else local.open_file(INDEX, directory, what)
        # An index is made with the first snapshot: a fresh root has none, and any other directory has none either.
        if descriptor is None and not self._tree.is_root():
            hint = f"a Cocoon root has folders like {DATABASE} or {IMAGE_BLOBS} in it"
            raise NotFoundError(f"{self._tree.path} is no Cocoon root", object=str(self._tree.path), hint=hint)
        if descriptor is None:
            return SnapshotIndex.parse(None, what)
        try:
            raw = read_bounded(local.FileReader(descriptor, what), INDEX_LIMIT, what)
        finally:
            os.close(descriptor)
        return SnapshotIndex.parse(raw, what)

    def find(self, word: str) -> SnapshotKey:
        """As `SnapshotStore.find`: its names divide in one way."""
        return SnapshotKey.parse(word)

    def snapshots(self) -> Iterator[SnapshotEntry]:
        """As `SnapshotStore.snapshots`: those that Cocoon lists."""
        for record in self.index().finished():
            yield SnapshotEntry(record.key.name, record.key.tag)

    def sizes(self) -> Iterator[tuple[SnapshotKey, int]]:
        """As `stores.base.Node.sizes`."""
        for record in self.index().finished():
            yield record.key, sum(file.size for file in self._files(record))

    def resolve(self, name: str) -> Document:
        """The Epoch manifest of a snapshot; its files are read to know their digests, base images too.

        Raises NotFoundError, UsageError, ConflictError when Cocoon is about to delete it, ContentError.
        """
        # Before its files are read, which takes minutes: a collector may come in between.
        record = self.index().find(SnapshotKey.parse(name), str(self._tree.path))
        self._lease(record.id)
        try:
            return self._manifest(record)
        except ContentError:
            if not self.forget():
                raise
        # Digests that contradict each other may be what is remembered wrongly.
        return self._manifest(record)

    def _manifest(self, record: Record) -> Document:
        bases = self._base_images(record)
        files = self._files(record)
        stored = self._hashed([*files, *bases.values()])
        named = {blob: bases[blob].name if blob in bases else blob for blob in record.envelope().image_blob_ids}
        return manifest_of(
            record.envelope(),
            stored[: len(files)],
            record.key.name,
            record.key.tag,
            base_images=stored[len(files) :],
            image_blobs=named,
            created_at=record.created_at,
        )

    def has(self, target: Descriptor) -> bool:
        """Whether the blob is here: in a snapshot, as a base image, or on its way into one."""
        return self.holds(target)

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Sink.holds`."""
        # A blob of the expected snapshot counts even where no file has its form (another map of holes, say).
        return self._landing.satisfied(target) or self.located(target, anew=anew) is not None

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`."""
        return _RootContent(self, target)

    def located(self, target: Descriptor, *, anew: bool = False) -> Content | None:
        """The blob `target` if it is here. Only files of just its size are read for it; `anew` as in `holds`."""
        # What was hashed in this run is known without a look at any file.
        found = None if anew else self._found.get(target.digest)
        if found is not None and found.size == target.size:
            return found
        key = blob_key(target.digest)
        if self._stage.holds(key, target, anew=anew):
            return StoredContent(self._stage, key, target.size)
        # Files of another size are not read: a root holds hundreds of gigabytes.
        for file in self._candidates(target.size):
            if self._digests.of(file, anew=anew) == target.digest:
                self._found[target.digest] = file
                return file
        return None

    def forget(self) -> bool:
        """As `stores.base.Node.forget`."""
        self._found.clear()
        return self._digests.forget()

    def expect(self, name: str, document: Document, *, replace: bool = False) -> bool:
        """Be told what is about to come, before gigabytes of it do: `publish` with the same arguments will follow.

        Raises what `publish` would raise, as far as it can be told by now. Afterwards `has` is true of all blobs of a
        snapshot that is here already under this name, whatever form its files have.
        """
        return self._landing.expect(SnapshotKey.parse(name), Manifest.parse(document), replace=replace)

    def put(self, target: Descriptor, content: Content) -> None:
        """As `Sink.put`: the blob waits beside the snapshots until `publish`."""
        self._landing.prepare()
        self._stage.write(blob_key(target.digest), lambda: verified(content, target), target.size)

    def assemble(self, target: Descriptor) -> AbstractContextManager[Assembly] | None:
        """As `Assembler.assemble`."""
        self._landing.prepare()
        return self._stage.assemble(blob_key(target.digest), target)

    def publish(self, name: str, document: Document, *, replace: bool = False) -> None:
        """Make a snapshot of the blobs: its files, its base images, and its record in Cocoon's index.

        All of it appears at once, under Cocoon's lock. The same snapshot again changes nothing. With `replace` a
        snapshot of that name stays, and only loses the name: somebody may be using it. Raises NotFoundError for a
        missing blob, ConflictError, LocalIOError, ContentError, UsageError for a cloud image.
        """
        self._landing.publish(SnapshotKey.parse(name), Manifest.parse(document), replace=replace)

    def audit(self) -> Iterator[Finding]:
        """As `Auditor.audit`: the index held against the directories and image blobs that are there."""
        index = self.index()
        what = f"{DATABASE}/{INDEX}"
        yield from (replace(finding, path=what) for finding in index.findings())
        for record in index.finished():
            with self._tree.folder(f"{SNAPSHOTS}/{record.id}") as directory:
                if directory is None:
                    yield Finding(what, "NOT_FOUND", f"the files of {record.key} ({record.id}) are not there")
        for left in left_behind(self._stage, ("blobs/sha256/",)):
            yield replace(left, path=f"{STAGE}/{left.path}")
        known = {record.id for record in index.records.values()}
        for name, mode in self._tree.names(SNAPSHOTS):
            # A warning alone: Cocoon's collector removes it, or its owner is about to list it.
            if name not in known and local.kind_of(mode) == "a directory":
                yield Finding(f"{SNAPSHOTS}/{shown(name)}", "MISMATCH", "no snapshot has this directory", "warning")

    def _refuse_modern(self) -> None:
        with self._tree.folder(places.MODERN) as directory:
            what = self._tree.what(places.MODERN)
            found = [
                name
                for name in places.MODERN_FILES
                if directory is not None and local.look(name, directory, what) is not None
            ]
        if found:
            raise ContentError(
                f"this Cocoon keeps its records in {self._tree.what(places.MODERN, found[0])}, which it alone reads",
                code="TYPE",
                object=str(self._tree.path),
                hint="use its archives: `cocoon snapshot export NAME -o -` into `epoch-oci push -`, and the way back",
            )

    def _files(self, record: Record) -> list[RootFile]:
        """The files of a snapshot in Cocoon's order. Raises NotFoundError, ContentError for whatever else is there."""
        folder = f"{SNAPSHOTS}/{record.id}"
        with self._tree.folder(folder) as directory:
            if directory is None:
                raise NotFoundError(
                    f"{self._tree.what(folder)}, the files of {record.key}, is not there", object=str(record.key)
                )
        files = []
        for name, _ in self._tree.names(folder):
            if (why := filename.problem(name)) is not None:
                raise ContentError(f"{self._tree.what(folder)}: {why}", code="NAME", object=shown(name))
            if (file := RootFile.find(self._tree, folder, name)) is not None:
                files.append(file)
        return files

    def _base_images(self, record: Record) -> dict[str, RootFile]:
        """The cloud images that the snapshot's disk builds on, by blob ID; the layers of OCI images are elsewhere."""
        found = {}
        for blob in record.envelope().image_blob_ids:
            names = (f"{blob}{extension}" for extension in _EXTENSIONS)
            files = (RootFile.find(self._tree, IMAGE_BLOBS, name, packed=False) for name in names)
            if (file := next(filter(None, files), None)) is not None:
                found[blob] = file
        return found

    def _hashed(self, files: list[RootFile]) -> list[StoredFile]:
        with ThreadPoolExecutor(max_workers=_HASHERS, thread_name_prefix="hash") as pool:
            digests = list(pool.map(self._digests.of, files))
        self._found.update(zip(digests, files, strict=True))
        return [file.stored(digest) for file, digest in zip(files, digests, strict=True)]

    def _candidates(self, size: int) -> Iterator[RootFile]:
        """Files that are stored as so many bytes: base images, and those of finished snapshots."""
        for name, _ in self._tree.names(IMAGE_BLOBS):
            yield from self._of_size(IMAGE_BLOBS, name, size, packed=False)
        for record in self.index().finished():
            folder = f"{SNAPSHOTS}/{record.id}"
            for name, _ in self._tree.names(folder):
                yield from self._of_size(folder, name, size, packed=True)

    def _of_size(self, folder: str, name: str, size: int, *, packed: bool) -> Iterator[RootFile]:
        # A stray link or pipe among them is an error for whoever wants that file, not for one who looks for a blob.
        with contextlib.suppress(ContentError):
            file = RootFile.find(self._tree, folder, name, packed=packed)
            if file is not None and file.size == size:
                yield file

    def _lease(self, snapshot_id: str) -> None:
        """Keep Cocoon from deleting the snapshot while it is read, where its version has leases for that."""
        if snapshot_id in self._leases:
            return
        # Later versions than 0.3.8; where there is no such file nothing can be held, and nothing is.
        name = f"{snapshot_id}.lease"
        what = self._tree.what(SNAPSHOTS, name)
        with self._tree.folder(SNAPSHOTS) as directory:
            descriptor = None if directory is None else local.open_file(name, directory, what)
        if descriptor is None:
            return
        if try_lock(descriptor, shared=True) is False:
            os.close(descriptor)
            hint = "see what Cocoon is doing, and run this again"
            raise ConflictError(f"{what}: Cocoon is making or deleting it", object=what, hint=hint)
        self._leases[snapshot_id] = descriptor


@dataclass(frozen=True, slots=True)
class _RootContent:
    root: CocoonRoot
    target: Descriptor

    @property
    def size(self) -> int:
        return self.target.size

    def open(self, start: int = 0, length: int | None = None) -> AbstractContextManager[ByteReader]:
        found = self.root.located(self.target)
        if found is None:
            raise NotFoundError(f"no file is {self.target.digest}", object=str(self.target.digest))
        return found.open(start, length)

    def ranged(self) -> bool:
        return True
