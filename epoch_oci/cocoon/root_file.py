"""A file of a Cocoon root as a blob: what it is stored as, its digest, and its bytes.

A sparse file is stored packed: where its data is, and only that (epoch-formats 5.6).
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from epoch_oci.cocoon.tree import Tree
from epoch_oci.dataclass import dataclass
from epoch_oci.disk import local
from epoch_oci.disk.facts import Marks
from epoch_oci.disk.holes import RunReader, data_runs, is_zero_outside
from epoch_oci.epoch import gojson, sparse
from epoch_oci.epoch.manifest import LayerHeader
from epoch_oci.epoch.mint import StoredFile
from epoch_oci.epoch.sparse import Segment, Unpacking
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import ByteReader, read_digest

# Later versions of Cocoon; up to 0.3.8 nothing is guarded, and Go's reader fails (epoch-formats 5.6).
MAP_LIMIT = 800 << 10
"""Longest map in bytes; Cocoon carries a file whole whose map is longer."""


@dataclass(frozen=True, slots=True)
class RootFile:
    """A regular file as it was found. `segments` are its runs of data where it is stored packed, None where whole.

    `state` is device, inode, size and time of the last change of its content; whoever reads the file later looks
    whether it is still the same.
    """

    tree: Tree
    folder: str
    name: str
    state: tuple[int, int, int, int]
    found: os.stat_result
    mode: int
    segments: tuple[Segment, ...] | None
    pax_records: Mapping[str, str]

    @classmethod
    def find(cls, tree: Tree, folder: str, name: str, *, packed: bool = True) -> "RootFile | None":
        """Look at a file; None when it is not there. Unless `packed`, it is stored whole whatever holes it has.

        Raises ContentError (TYPE) for anything but a regular file.
        """
        what = tree.what(folder, name)
        with tree.folder(folder) as directory:
            # Opened and not merely looked at: the file that is measured is the one whose holes are read.
            descriptor = None if directory is None else local.open_file(name, directory, what)
        if descriptor is None:
            return None
        try:
            with local.local_errors(what):
                found = os.fstat(descriptor)
            # Where the file system has data, which is what Cocoon packs: zeros that are stored stay data, or the digest
            # would be another.
            segments = tuple(Segment(*run) for run in data_runs(descriptor, found.st_size, what)) if packed else ()
        finally:
            os.close(descriptor)
        records = pax_records(segments, found.st_size) if packed else {}
        mode = stat.S_IMODE(found.st_mode)
        # A file that Cocoon would carry whole has no segments here either.
        return cls(tree, folder, name, _state(found), found, mode, segments if records else None, records)

    @property
    def what(self) -> str:
        """Its path."""
        return self.tree.what(self.folder, self.name)

    @property
    def logical_size(self) -> int:
        """Length of the file in bytes."""
        return self.state[2]

    @property
    def size(self) -> int:
        """Length of the stored form in bytes."""
        return self.logical_size if self.segments is None else sum(length for _, length in self.segments)

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`, of the stored form. Raises ContentError (MISMATCH) when the file was changed meanwhile."""
        with self._descriptor() as descriptor:
            if self.segments is None:
                yield local.FileReader(descriptor, self.what, start, length)
            else:
                yield RunReader(descriptor, self.what, self.segments, start, length)

    def ranged(self) -> bool:
        """As `stores.base.Ranged`."""
        return True

    def stored(self, digest: Digest) -> StoredFile:
        """The file as a manifest has it."""
        header = LayerHeader(self.mode, self.pax_records)
        return StoredFile(name=self.name, digest=digest, size=self.size, header=header)

    def hashed(self) -> Digest:
        """The digest of the stored form; all of it is read."""
        with self.open() as reader:
            return read_digest(reader)

    def unfolds_from(self, digest: Digest, size: int, packed: Unpacking | None) -> bool:
        """Whether the blob `digest` of `size` bytes, unfolded where it is `packed`, is this file's content."""
        # The length first: it costs nothing, and tells most of them apart.
        if self.logical_size != (size if packed is None else packed.logical_size):
            return False
        with self._descriptor() as descriptor:
            if packed is None:
                return read_digest(local.FileReader(descriptor, self.what)) == digest
            # By the map of the blob and not by the holes of the file, which another file system may have put elsewhere.
            if read_digest(RunReader(descriptor, self.what, packed.segments)) != digest:
                return False
            return is_zero_outside(descriptor, self.what, packed.segments, self.logical_size)

    @contextmanager
    def _descriptor(self) -> Iterator[int]:
        with self.tree.folder(self.folder) as directory:
            descriptor = None if directory is None else local.open_file(self.name, directory, self.what)
        if descriptor is None:
            raise NotFoundError(f"{self.what} is not there any more", object=self.what)
        try:
            with local.local_errors(self.what):
                found = os.fstat(descriptor)
            # A VM may be writing to it; what was promised of it does not hold then (reliability L6).
            if _state(found) != self.state:
                raise ContentError(
                    f"{self.what} was changed while it was read",
                    code="MISMATCH",
                    object=self.what,
                    hint="run the same command again when nothing writes to the snapshot any more",
                )
            yield descriptor
        finally:
            os.close(descriptor)


class Digests:
    """Digests of the stored forms of files, found by reading each once for as long as it is not changed.

    They are only ever a hint, because whoever moves the bytes hashes them again. Safe for threads.
    """

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._told: dict[tuple[str, str], RootFile] = {}

    def of(self, file: RootFile, *, anew: bool = False) -> Digest:
        """The digest of the file's stored form; with `anew` the file is read. Raises what reading it raises."""
        form = _form(file)
        # A guest's memory is tens of gigabytes: read once, and then only when it was changed.
        digest = None if anew else self._marks.digest(file.found, form)
        if digest is None:
            digest = file.hashed()
            self._marks.was_read(file.found, digest, form)
        else:
            self._told[file.what, form] = file
        return digest

    def fits(self, file: RootFile, digest: Digest) -> bool:
        """Whether `digest` is that of the file; it is read before that is denied."""
        return self._marks.digest(file.found, _form(file)) == digest or self.of(file, anew=True) == digest

    def forget(self) -> bool:
        """As `stores.base.Node.forget`."""
        told, self._told = self._told, {}
        for (_, form), file in told.items():
            self._marks.forget(file.found, form)
        return bool(told)


def _form(file: RootFile) -> str:
    """The packed form follows the holes, which can change while the file does not."""
    if file.segments is None:
        return "sha256"
    return hashlib.sha256(repr(sorted(file.pax_records.items())).encode()).hexdigest()


def _state(found: os.stat_result) -> tuple[int, int, int, int]:
    # Not the time of the inode: a second name or another mode changes that, and not the content.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def pax_records(segments: Sequence[Segment], size: int) -> Mapping[str, str]:
    """The records of a packed file; none for one that Cocoon would carry whole.

    That is a file without holes or with nothing in it, and one in so many pieces that the map would be too long.
    """
    # As Cocoon: any hole makes a file packed, none leaves it whole (epoch-formats 5.6).
    if sum(length for _, length in segments) == size:
        return MappingProxyType({})
    pieces = [{"o": offset, "l": length} for offset, length in segments]
    text = gojson.dumps(pieces or None, indent=None).decode("ascii")
    if len(text) > MAP_LIMIT:
        return MappingProxyType({})
    return MappingProxyType({sparse.MAP: text, sparse.SIZE: str(size)})
