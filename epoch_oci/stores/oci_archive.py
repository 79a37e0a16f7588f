"""An OCI image layout in a tar archive, as `skopeo copy … oci-archive:FILE` and `regctl image export` write it.

A tar cannot be changed in place without a moment in which it is no archive. What is stored waits in a directory beside
it, where another run goes on with it, until an index names it: then the whole archive is written anew, in an order
that follows from what is in it, and takes the place of the old one in one step. That needs room for both.
"""

import contextlib
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from epoch_oci.disk import local
from epoch_oci.disk.assembly import Assembly
from epoch_oci.disk.draft import Draft, sweep
from epoch_oci.disk.facts import Marks, is_same
from epoch_oci.disk.local import Warnings, unheard
from epoch_oci.disk.lock import locked, try_lock
from epoch_oci.errors import ConflictError, ContentError, Finding, LocalIOError, NotFoundError, UsageError
from epoch_oci.oci import media_types, verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import MANIFEST_LIMIT, Document
from epoch_oci.oci.manifest import ImageIndex, ImageManifest
from epoch_oci.oci.verifying import ByteReader, VerifyingReader
from epoch_oci.stores.backends.base import Change, Opener, read_if_there
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.backends.layout_tar import BLOB_KEY, LayoutTar, LayoutTarWriter, Member
from epoch_oci.stores.layout_index import LayoutIndex
from epoch_oci.stores.oci_layout import INDEX, MARK, MARK_BYTES, OciLayout, blob_key

_NESTING = 8
_POLL_SECONDS = 0.02


class ArchiveBackend:
    """The key space of a layout in the tar archive `path`, with what waits beside it to be in there."""

    def __init__(self, path: Path, *, spool: Path, warnings: Warnings, marks: Marks) -> None:
        self._path = Path(os.path.realpath(path))  # what is put in its place must not replace a link
        self._spool = spool
        self._warnings = warnings
        self._marks = marks
        self._waiting = DirectoryBackend(
            self._path.with_name(f"{local.OUR_PREFIX}-{self._path.name}"), warnings=warnings, marks=marks
        )
        self._lock = threading.RLock()
        self._opened: LayoutTar | None = None
        self._presence = -1
        self._writers = 0
        self._said: tuple[LayoutTar | None, frozenset[str]] = (None, frozenset())

    def close(self) -> None:
        """Let go of the archive and of the directory beside it."""
        with self._lock:
            opened, self._opened = self._opened, None
            presence, self._presence = self._presence, -1
        if opened is not None:
            opened.close()
        if presence >= 0:
            os.close(presence)

    def __del__(self) -> None:
        self.close()

    def check(self) -> None:
        """As `Backend.check`."""
        if self._tar() is None:
            raise NotFoundError(f"there is no archive {self._path}", object=str(self._path))

    def head(self, key: str) -> int | None:
        """As `Backend.head`."""
        waiting = self._waiting.head(key)
        member = self._member(key) if waiting is None else None
        return waiting if member is None else member.size

    @contextmanager
    def open(self, key: str, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Backend.open`. What waits was verified, so it comes before what is in the archive."""
        with contextlib.ExitStack() as stack:
            try:
                reader = stack.enter_context(self._waiting.open(key, start, length))
            except NotFoundError:  # by now it may be in the archive
                reader = stack.enter_context(self._open_member(key, start, length))
            yield reader

    def holds(self, key: str, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Backend.holds`."""
        # What waits counts: a push that was killed goes on from there.
        if self._waiting.holds(key, target, anew=anew):
            return True
        member = self._member(key)
        if member is None or member.size != target.size:
            return False
        with contextlib.suppress(NotFoundError):
            digest = self._digest(key, member, target.digest.algorithm, anew)
            if digest != target.digest:
                self._warnings(f"{self._what(key)} does not hold what its name says, and counts as absent")
            return digest == target.digest
        return False

    def _digest(self, key: str, member: Member, algorithm: str, anew: bool) -> Digest:
        """What a member holds, read unless that is known."""
        form = _form(member, algorithm)
        tar = self._tar()
        # A compressed archive is unpacked anew for each run: where a member lies in it tells nothing the next time.
        known = None if tar is None or tar.compressed or anew else self._marks.digest(tar.found, form)
        if known is not None:
            return known
        with self._open_member(key) as reader:
            digest = verifying.read_digest(reader, algorithm)
        if tar is not None and not tar.compressed and self._tar() is tar:
            self._marks.was_read(tar.found, digest, form)
        return digest

    def write(self, key: str, content: Opener, size: int, *, digest: Digest | None = None) -> None:
        """As `Backend.write`: it waits for an index that names it."""
        with self._present():
            self._waiting.write(key, content, size, digest=digest)

    @contextmanager
    def assemble(self, key: str, target: Descriptor) -> Iterator[Assembly]:
        """As `stores.base.Assembler.assemble`."""
        with self._present(), self._waiting.assemble(key, target) as assembly:
            yield assembly

    def file(self, key: str) -> None:
        """As `Backend.file`: a member of a tar is none."""

    def update(self, key: str, change: Change, *, limit: int) -> bool:
        """As `Backend.update`, for the index alone: with it the archive is written anew.

        Raises LocalIOError when there is no room for it beside the old one.
        """
        if key != INDEX:
            raise UsageError(f"{key} of an archive cannot be changed")
        local.make_directories(self._path.parent)
        parent = local.open_directory(self._path.parent, str(self._path.parent))
        if parent is None:
            raise LocalIOError(f"{self._path.parent} was removed meanwhile", object=str(self._path.parent))
        try:
            with locked(parent, str(self._path), self._warnings.no_locks):
                # Under the lock, from the archive as it is now: another process may have written a new one meanwhile.
                old = read_if_there(self, key, limit=limit, what=self._what(key))
                new = change(old)
                if new is None or new == old:
                    if old is None or not any(self._waiting.head(blob) is not None for blob in self._reached(old)):
                        return False
                    new = old  # what it names is not all right in the archive, and waits beside it
                self.check_writable()
                # The draft of a killed run is as large as the archive, and the new one needs its room.
                sweep(parent)
                self._write_archive(parent, new)
        finally:
            os.close(parent)
        # Outside the lock: the directory beside the archive has one of its own, which others may hold for long.
        self._clear()
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """As `Backend.keys`."""
        tar = self._tar()
        found = {key for key in (tar.members if tar is not None else ()) if key.startswith(prefix)}
        yield from found.union(self._waiting.keys(prefix))

    def delete(self, key: str) -> None:
        """As `Backend.delete`, of what waits; what is in the archive stays there."""
        self._waiting.delete(key)

    def flush(self, prefix: str) -> None:
        """As `Backend.flush`."""
        self._waiting.flush(prefix)

    def waiting(self) -> Path | None:
        """Where content waits beside the archive, a broken run's as a rule; None when there is none."""
        return self._waiting.path if next(self._waiting.keys("blobs/"), None) else None

    def is_to_mend(self, key: str) -> bool:
        """Whether an object waits that the archive is said to have; till it is written it is as wrong as before."""
        return self._waiting.head(key) is not None and key in self._said_to_have()

    def _said_to_have(self) -> frozenset[str]:
        """The keys that the archive's index leads to; followed once for each archive that takes another's place."""
        with self._lock:
            tar = self._tar()
            if tar is None:
                return frozenset()
            if self._said[0] is not tar:
                index = read_if_there(self, INDEX, limit=MANIFEST_LIMIT, what=self._what(INDEX))
                self._said = (tar, frozenset(self._reached(index)) if index is not None else frozenset())
            return self._said[1]

    def _what(self, key: str) -> str:
        return f"{key} in {self._path}"

    def _tar(self) -> LayoutTar | None:
        """The archive as it is now; another process may have put a new one in its place."""
        with self._lock:
            with local.local_errors(str(self._path)):
                try:
                    there = self._path.stat()
                except (FileNotFoundError, NotADirectoryError):
                    there = None
            known = self._opened
            # By what the file is and not by its name: archives are replaced, never written into.
            if known is not None and there is not None and is_same(known.found, there):
                return known
            self._opened = None
            if known is not None:
                known.close()
            if there is not None:
                self._opened = LayoutTar(self._path, self._spool)
            return self._opened

    def _member(self, key: str) -> Member | None:
        tar = self._tar()
        return tar.members.get(key) if tar is not None else None

    @contextmanager
    def _open_member(self, key: str, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        with contextlib.ExitStack() as stack:
            with self._lock:  # another thread may close the archive, to open the one that took its place
                tar = self._tar()
                member = tar.members.get(key) if tar is not None else None
                if tar is None or member is None:
                    raise NotFoundError(f"{self._what(key)} is not there", object=self._what(key))
                reader = stack.enter_context(tar.open(member, self._what(key), start, length))
            yield reader

    @contextmanager
    def _present(self) -> Iterator[None]:
        """Be at the directory beside the archive, so that nobody takes it away as no longer needed."""
        with self._lock:
            self.check_writable()
            while self._presence < 0:
                self._presence = self._try_presence()
            self._writers += 1
        try:
            yield
        finally:
            with self._lock:
                self._writers -= 1

    def _try_presence(self) -> int:
        """A descriptor that holds the directory; -1, after a moment, when somebody has just taken it away."""
        path = self._waiting.path
        local.make_directories(path)
        held = local.open_directory(path, str(path))
        if held is not None:
            # Held and still the one at that path: else it was taken away between making and locking it.
            if try_lock(held, shared=True) is not False and _is_there(held, path):
                return held
            os.close(held)
        time.sleep(_POLL_SECONDS)
        return -1

    def check_writable(self) -> None:
        """Raises UsageError for a compressed archive, ConflictError for a tar of something that is no layout."""
        tar = self._tar()
        # The new archive takes the place of the whole file: of somebody's backup nothing would be left.
        if tar is not None and tar.members and MARK not in tar.members:
            raise ConflictError(
                f"{self._path} is a tar of something else: it has files, and no {MARK} among them",
                object=str(self._path),
                hint="name another file",
            )
        if tar is not None and tar.compressed:
            raise UsageError(
                f"{self._path} is compressed, and only a plain archive is written to",
                object=str(self._path),
                hint="decompress it first, or name another file",
            )

    def _clear(self) -> None:
        """Take away the directory beside the archive, if nothing waits there and nobody else is at it."""
        with self._lock:
            if self._writers or self._presence < 0:
                return
            held, self._presence = self._presence, -1
            try:
                if try_lock(held) is not False:
                    # `rmdir` refuses what is not empty: content that waits for another index is safe.
                    for folder in ("blobs/sha256", "blobs/sha512", "blobs", ""):
                        with contextlib.suppress(OSError):
                            (self._waiting.path / folder).rmdir()
            finally:
                os.close(held)

    def _write_archive(self, parent: int, index: bytes) -> None:
        """The archive with `index` as its index: all that was in it, and what waits and is wanted, by name."""
        tar = self._tar()
        blobs = {key: member.size for key, member in tar.members.items() if BLOB_KEY.match(key)} if tar else {}
        others = {name: tar.members[name] for name in tar.members if _is_other(name)} if tar else {}
        taken = {key: size for key in self._reached(index) if (size := self._waiting.head(key)) is not None}
        blobs |= taken
        self._require_room(parent, [*blobs.values(), *(member.size for member in others.values())], len(index))
        mode = stat.S_IMODE(tar.found.st_mode) if tar is not None else 0o600
        with Draft(parent, str(self._path)) as draft:
            writer = LayoutTarWriter(draft)
            writer.add(MARK, len(MARK_BYTES), io.BytesIO(MARK_BYTES))
            writer.add(INDEX, len(index), io.BytesIO(index))
            # What docker writes beside a layout, for older versions of itself: it is not ours to throw away.
            for name in sorted(others):
                with self._open_member(name) as reader:
                    writer.add(name, others[name].size, reader)
            # By name, so that the same content makes the same archive, byte for byte.
            for key in sorted(blobs):
                with self.open(key) as reader:
                    writer.add(key, blobs[key], VerifyingReader(reader, _descriptor(key, blobs[key]), self._what(key)))
            writer.finish()
            draft.commit(self._path.name, mode=mode, shown=lambda found: self._mark(found, writer.members))
        # Only now: until the new archive has its name, what waits is the only copy.
        for key in taken:
            self._waiting.delete(key)

    def _mark(self, found: os.stat_result, members: Mapping[str, Member]) -> None:
        for key, member in members.items():
            if BLOB_KEY.match(key):
                digest = _descriptor(key, member.size).digest
                self._marks.was_written(found, digest, _form(member, digest.algorithm))

    def _require_room(self, parent: int, sizes: Collection[int], index: int) -> None:
        free = local.free_space(parent, str(self._path))
        size = index + sum(sizes) + 1024 * (len(sizes) + 16)
        if free is not None and size > free:
            raise LocalIOError(
                f"{self._path}: the new archive has {size} bytes, and the disk has room for {free}",
                object=str(self._path),
                hint="make room and run the same command again: what was stored waits beside the archive",
            )

    def _reached(self, index: bytes) -> set[str]:
        """The keys of all that an index leads to, as far as it is here."""
        found: set[str] = set()
        self._reach(LayoutIndex.parse(index, self._what(INDEX)).entries, found, _NESTING)
        return found

    def _reach(self, targets: tuple[Descriptor, ...], found: set[str], nesting: int) -> None:
        for target in targets:
            key = f"blobs/{target.digest.algorithm}/{target.digest.hex}"
            if key in found:
                continue
            found.add(key)
            is_document = target.media_type in media_types.MANIFESTS | media_types.INDEXES
            # A ring of indexes has no end; what lies deeper than any index is nobody's honest layout (reliability M4).
            if is_document and nesting and target.size <= MANIFEST_LIMIT:
                raw = read_if_there(self, key, limit=MANIFEST_LIMIT, what=self._what(key))
                if raw is not None:
                    self._reach(_named_in(Document(target.media_type, raw)), found, nesting - 1)


class OciArchive(OciLayout):
    """An OCI image layout in the tar archive `path`. It is written when something is published.

    `spool` is where a compressed archive is unpacked to be read; `warn` and `marks` as in `OciLayout`.
    """

    def __init__(
        self,
        path: Path,
        *,
        spool: Path | None = None,
        warn: Callable[[str], None] = unheard,
        marks: Marks | None = None,
    ) -> None:
        spool = spool or Path("/var/tmp")  # noqa: S108 (files there have no name)
        self._archive = ArchiveBackend(path, spool=spool, warnings=Warnings(str(path), warn), marks=marks or Marks())
        super().__init__(path, backend=self._archive)

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return f"oci-archive:{self._where}"

    def close(self) -> None:
        """Let go of the files; they are opened again when needed."""
        self._archive.close()

    def check_target(self) -> None:
        """As `OciLayout.check_target`."""
        self._archive.check_writable()
        super().check_target()

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Sink.holds`; what waits to mend the archive does not count before it is in there."""
        return super().holds(target, anew=anew) and not self._archive.is_to_mend(blob_key(target.digest))

    def audit(self) -> Iterator[Finding]:
        """As `OciLayout.audit`, and what a broken run has left beside the archive."""
        yield from super().audit()
        if waiting := self._archive.waiting():
            yield Finding(INDEX, "MISMATCH", f"{waiting} has what an unfinished push has stored", "warning")

    _writes_often = False

    def _make(self) -> None:
        """There is no archive before there is an index with something in it."""


def _is_other(name: str) -> bool:
    return name not in (MARK, INDEX) and BLOB_KEY.match(name) is None


def _descriptor(key: str, size: int) -> Descriptor:
    _, algorithm, digits = key.split("/")
    return Descriptor(media_type=media_types.OCTET_STREAM, digest=Digest(algorithm, digits), size=size)


def _named_in(document: Document) -> tuple[Descriptor, ...]:
    """What a manifest or index leads to; nothing for one that cannot be read, which `verify` will say."""
    try:
        if document.media_type in media_types.INDEXES:
            return ImageIndex.parse(document).manifests
        return ImageManifest.parse(document).successors
    except ContentError:
        return ()


def _form(member: Member, algorithm: str) -> str:
    """What marks call the bytes of a member among all others of the file."""
    return f"{algorithm} {member.offset}+{member.size}"


def _is_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
