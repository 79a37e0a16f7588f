"""A directory that receives a snapshot's files under their own names, as a hypervisor wants them."""

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from epoch_oci.disk import local
from epoch_oci.disk.assembly import Assembly, room_taken
from epoch_oci.disk.draft import Draft, sweep
from epoch_oci.disk.holes import RunReader, is_zero_outside
from epoch_oci.epoch.sparse import Segment
from epoch_oci.errors import ConflictError, ContentError, LocalIOError
from epoch_oci.oci import filename
from epoch_oci.oci.verifying import BLOCK, ByteReader, VerifyingReader
from epoch_oci.stores.base import Content, FileTarget

_OWNER = 0o700
_DEFAULT_MODE = 0o600


class FilesDirectory:
    """Files below `path`, which is made when the first one is written. Safe for threads.

    The directory is opened once and kept: whatever its path comes to mean later, the files land in the same place.
    `warn` is told once each what is at risk: where others may write, and where the file system has no locks.
    """

    def __init__(self, path: Path, *, warn: Callable[[str], None] = local.unheard) -> None:
        self._path = path.absolute()
        self._warnings = local.Warnings(str(self._path), warn)
        self._lock = threading.Lock()
        self._directory: int | None = None
        self._swept = False

    def close(self) -> None:
        """Let go of the directory; it is opened again when needed."""
        with self._lock:
            directory, self._directory = self._directory, None
        if directory is not None:
            os.close(directory)

    def __del__(self) -> None:
        self.close()

    def holds(self, target: FileTarget) -> bool:
        """As `FileSink.holds`. The stored bytes of a packed file are hashed, and between them all must be zero."""
        _check_target(target)
        directory = self._opened()
        if directory is None:
            return False
        what = self._what(target)
        found = local.look(target.name, directory, what)
        # A look first: most files that stand in the way have another size, and are not read to know.
        if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != target.size:
            return False
        descriptor = local.open_file(target.name, directory, what)
        if descriptor is None:
            return False
        try:
            return _matches(descriptor, what, target)
        finally:
            os.close(descriptor)

    def check(self, targets: Sequence[FileTarget], *, replace: bool = False) -> None:
        """As `FileSink.check`, naming everything in the way. What a file holds already is not asked of the disk."""
        for target in targets:
            _check_target(target)
        # All that is in the way is told at once, before anything is fetched for an hour.
        problems = [why for target in targets if (why := self._conflicting(target, replace)) is not None]
        if problems:
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            raise self._conflict("; ".join(problems[:3]) + more)
        directory = self._opened()
        begun = 0 if directory is None else sum(_room_taken(directory, target) for target in targets)
        self._refuse_lack_of_room(sum(target.blob.size for target in targets) - begun)

    def write(self, target: FileTarget, content: Content, *, replace: bool = False) -> None:
        """As `FileSink.write`. A file that is there with this very content is left as it is."""
        _check_target(target)
        directory = self._made()
        what = self._what(target)
        if (why := self._obstacle(target, replace)) is not None:
            if self.holds(target):
                return
            raise self._conflict(why)
        with Draft(directory, what) as draft:
            with content.open() as reader:
                _unfold(VerifyingReader(reader, target.blob, target.name), draft, target.segments)
            # What holds a machine's memory is its owner's alone, whatever the archive said (reliability N7).
            mode = target.mode & _OWNER or _DEFAULT_MODE
            # Without `replace` it never takes the place of anything: who was quicker keeps it (reliability N6).
            committed = draft.commit(target.name, size=target.size, mode=mode, replace=replace)
        if not committed and not self.holds(target):
            raise self._conflict(f"{what} was put there by another process")

    @contextmanager
    def assemble(self, target: FileTarget, *, replace: bool = False) -> Iterator[Assembly]:
        """As `FileSink.assemble`."""
        _check_target(target)
        directory = self._made()
        if (why := self._obstacle(target, replace)) is not None and not self.holds(target):
            raise self._conflict(why)
        with Assembly(
            directory,
            target.name,
            target.blob,
            self._what(target),
            segments=target.segments,
            size=target.size,
            mode=target.mode & _OWNER or _DEFAULT_MODE,
            replace=replace,
            unlocked=self._warnings.no_locks,
        ) as assembly:
            yield assembly

    def _what(self, target: FileTarget) -> str:
        return str(self._path / target.name)

    def _opened(self) -> int | None:
        """The directory, None when it is not there."""
        with self._lock:
            if self._directory is None:
                directory = local.open_directory(self._path, str(self._path))
                if directory is None:
                    return None
                self._directory = directory
                self._warnings.look_at(directory)
            return self._directory

    def _made(self) -> int:
        directory = self._opened()
        if directory is None:
            local.make_directories(self._path)
            directory = self._opened()
        if directory is None:
            raise LocalIOError(f"{self._path} was removed meanwhile", object=str(self._path))
        with self._lock:
            if not self._swept:
                # Once a run, before the first file: drafts of killed runs take the room that this one needs.
                sweep(directory)
                self._swept = True
        return directory

    def _conflicting(self, target: FileTarget, replace: bool) -> str | None:
        why = self._obstacle(target, replace)
        return None if why is None or self.holds(target) else why

    def _obstacle(self, target: FileTarget, replace: bool) -> str | None:
        """What stands where the file is to go, in words; None when nothing does, or what does may be replaced."""
        directory = self._opened()
        what = self._what(target)
        found = None if directory is None else local.look(target.name, directory, what)
        if found is None:
            return None
        kind = local.kind_of(found.st_mode)
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
            # A directory or a device is nobody's earlier pull; --force is for files and links.
            return f"{what} is {kind}, which is never replaced"
        if replace:
            return None
        return f"{what} is {kind}" if stat.S_ISLNK(found.st_mode) else f"{what} has other content"

    def _refuse_lack_of_room(self, needed: int) -> None:
        free = self._free_space()
        if free is not None and needed > free:
            raise LocalIOError(
                f"{self._path}: {needed} bytes are to be written, and the disk has room for {free}",
                object=str(self._path),
                hint="make room, or choose some of the files with --only",
            )

    def _free_space(self) -> int | None:
        """Of the disk that the directory is on, or will be on once it is made."""
        # It may not be there yet, and is made on the disk of the first directory above it that is.
        for folder in (self._path, *self._path.parents):
            directory = local.open_directory(folder, str(folder))
            if directory is not None:
                break
        else:
            raise LocalIOError(f"{self._path} has no directory above it", object=str(self._path))
        try:
            return local.free_space(directory, str(folder))
        finally:
            os.close(directory)

    def _conflict(self, problem: str) -> ConflictError:
        return ConflictError(
            problem,
            object=str(self._path),
            hint="write to another directory, or replace files and links with --force",
        )


def _room_taken(directory: int, target: FileTarget) -> int:
    return room_taken(directory, target.name, target.blob, target.segments)


def _check_target(target: FileTarget) -> None:
    """The last look at what came from a manifest, should nobody have looked before."""
    if (why := filename.problem(target.name)) is not None:
        raise ContentError(why, code="NAME", object=target.name)
    if target.segments is None:
        return
    end = 0
    for segment in target.segments:
        # Else one segment could write over another, and the hash of the packed form would still be right (reliability
        # Z3).
        if segment.offset < end or segment.length < 0:
            raise ContentError(f"{target.name}: its sparse map is out of order", code="SIZE", object=target.name)
        end = segment.offset + segment.length
    if end > target.logical_size or sum(item.length for item in target.segments) != target.blob.size:
        raise ContentError(f"{target.name}: its sparse map does not fit its size", code="SIZE", object=target.name)


def _unfold(reader: VerifyingReader, draft: Draft, segments: Sequence[Segment] | None) -> None:
    """Write what `reader` has: as it is, or each segment where it belongs."""
    if segments is None:
        for block in reader.blocks():
            draft.write(block)
        return
    for segment in segments:
        draft.seek(segment.offset)
        left = segment.length
        while left:
            block = reader.read(min(BLOCK, left))
            draft.write(block)
            left -= len(block)


def _matches(descriptor: int, what: str, target: FileTarget) -> bool:
    segments = target.segments
    reader: ByteReader = (
        local.FileReader(descriptor, what) if segments is None else RunReader(descriptor, what, segments)
    )
    try:
        VerifyingReader(reader, target.blob, target.name).exhaust()
    except ContentError:
        return False
    # The packed form says nothing of what lies between its runs: there the file must be zero, or it is another file.
    return segments is None or is_zero_outside(descriptor, what, segments, target.logical_size)
