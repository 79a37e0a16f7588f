"""Files of this machine, opened without following a link; their errors in words.

A directory is given as an open descriptor and a file by its name in it, so that nobody can swap what lies between.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from epoch_oci.errors import ContentError, LocalIOError
from epoch_oci.oci.verifying import BLOCK

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: should a FIFO get past the look before, opening it must not wait for a writer.
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
OUR_PREFIX = ".epoch-oci"
"""What the names of files begin with that are this program's own and no content; no key and no file name does."""

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reported an error",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.EFBIG: "it is larger than the file system or the limits of this process allow",
    errno.ENAMETOOLONG: "its name is too long for the file system",
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "a part of its path is not a directory",
    errno.EEXIST: "something else is in its place",
    errno.EISDIR: "a directory is in its place",
    errno.ELOOP: "a symbolic link is in its place, or too many are on its way",
}
# What was verified stays (reliability F4).
_ROOM = "make room and run the same command again"
_HINTS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: "look at its owner and mode, and at those of the directories above it",
    errno.EMFILE: "raise the limit of open files (ulimit -n) or use fewer jobs",
}
_NOT_HERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM})
"""How file systems that cannot do a thing say so: CIFS EPERM for a mode, GVfs EOPNOTSUPP, others ENOSYS or EINVAL."""
_USABLE = 0o700
_READ_WRITE = 0o600
_NOT_OURS = "is not this user's alone to write"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_KINDS = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)


def unheard(text: str) -> None:
    """The listener to warnings where nobody listens."""


@contextlib.contextmanager
def local_errors(what: str) -> Iterator[None]:
    """Turn OSError into LocalIOError, in words, about the file or directory `what`."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        reason = _REASONS.get(number) or os.strerror(number).lower()
        raise LocalIOError(f"{what}: {reason}", object=what, hint=_HINTS.get(number)) from error


def kind_of(mode: int) -> str:
    """What a file of this `st_mode` is, with its article."""
    return next((word for test, word in _KINDS if test(mode)), "a device")


def look(name: str, directory: int, what: str) -> os.stat_result | None:
    """What is there under `name`, itself and not what it may point to; None when nothing is."""
    with local_errors(what):
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None


def look_for_file(name: str, directory: int, what: str) -> os.stat_result | None:
    """As `look`. Raises ContentError (TYPE) for anything but a regular file."""
    found = look(name, directory, what)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise _wrong_kind(what, found.st_mode, "a regular file")
    return found


def open_file(name: str, directory: int, what: str) -> int | None:
    """A descriptor to read a regular file by, None when it is not there. Raises ContentError (TYPE), LocalIOError."""
    if look_for_file(name, directory, what) is None:
        return None
    with local_errors(what):
        try:
            descriptor = os.open(name, OPEN_FILE, dir_fd=directory)
        except FileNotFoundError:
            return None
    try:
        with local_errors(what):
            mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _wrong_kind(what, mode, "a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_directory(name: str | Path, what: str, *, parent: int | None = None) -> int | None:
    """A descriptor of a directory, None when it is not there. Below a `parent` no symbolic link is followed.

    Raises ContentError (TYPE) when it is something else, LocalIOError.
    """
    flags = _DIRECTORY if parent is None else _DIRECTORY | os.O_NOFOLLOW
    with local_errors(what):
        try:
            return os.open(name, flags, dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            # ENOTDIR and ELOOP do not say whether it is the name itself or one above it.
            found = os.stat(name, dir_fd=parent, follow_symlinks=parent is None)
            if stat.S_ISDIR(found.st_mode):
                raise
    raise _wrong_kind(what, found.st_mode, "a directory")


def open_below(root: Path, folder: str, *, create: bool = False, sync: bool = False) -> int | None:
    """A descriptor of `folder` (its components divided by `/`) below `root`, None when one of them is not there.

    Each is opened out of the one above it, so that no link is followed on the way, and nobody can put one there
    meanwhile. `create` makes those that are missing, `sync` makes all of them durable. Raises as `open_directory`.
    """
    what = str(root)
    directory = open_directory(root, what)
    for name in folder.split("/") if folder else ():
        if directory is None:
            return None
        try:
            if sync:
                _sync(directory, what)
            what = f"{what}/{name}"
            child = open_directory(name, what, parent=directory)
            if child is None and create:
                make_directory(name, directory, what)
                child = open_directory(name, what, parent=directory)
        finally:
            os.close(directory)
        directory = child
    if sync and directory is not None:
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, directory)
            _sync(directory, what)
            undo.pop_all()
    return directory


def _sync(directory: int, what: str) -> None:
    with local_errors(what):
        sync_directory(directory)


def make_directory(name: str, parent: int, what: str, mode: int = _USABLE) -> None:
    """Make sure that a directory is there, and durable; a new one has `mode`, whatever the umask."""
    with local_errors(what):
        _make(name, parent, mode)


def make_directories(path: Path) -> None:
    """Make sure that a directory and all above it are there, new ones with mode 0700, and durable."""
    for folder in _missing(path):
        with local_errors(str(folder)):
            _make_below(folder)


def open_private(path: Path, *, make: bool = True, follow: bool = False) -> int:
    """A descriptor of a directory for its owner alone, made with all above it if `make`; `follow` lets it be a link.

    Raises OSError where that cannot be, and where others can write to it.
    """
    for folder in _missing(path) if make else ():
        _make_below(folder)
    directory = os.open(path, _DIRECTORY if follow else _DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(directory)
        # One that others could write to until now may hold anything, so closing it is of no use.
        if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_WRITE:
            raise PermissionError(errno.EACCES, _NOT_OURS)
        if found.st_mode & _OTHERS:
            set_mode(directory, _USABLE)
    except BaseException:
        os.close(directory)
        raise
    return directory


@contextlib.contextmanager
def private(path: Path, *, make: bool = True, follow: bool = False) -> Iterator[int]:
    """As `open_private`, for as long as the block lasts."""
    directory = open_private(path, make=make, follow=follow)
    try:
        yield directory
    finally:
        os.close(directory)


def _missing(path: Path) -> list[Path]:
    """What of a path is to be made, from the top down."""
    return [folder for folder in (path, *path.parents) if not os.path.lexists(folder)][::-1]


def _make_below(folder: Path) -> None:
    parent = os.open(folder.parent, _DIRECTORY)
    try:
        _make(folder.name, parent, _USABLE)
    finally:
        os.close(parent)


def _make(name: str, parent: int, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass  # somebody else made it, and its mode is theirs to say
    else:
        _make_usable(name, parent, mode)
    # Also where it was there: whoever made it may not have come to this.
    sync_directory(parent)


def _make_usable(name: str, parent: int, mode: int) -> None:
    """Give a new directory the bits that the umask took from it. One that is unreadable opens as a mere path only."""
    with where_supported():
        found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            now = stat.S_IMODE(os.fstat(found).st_mode)
            if now & mode != mode:
                with contextlib.suppress(FileNotFoundError):  # no /proc here
                    Path(f"/proc/self/fd/{found}").chmod(now | mode)
        finally:
            os.close(found)


class where_supported:  # noqa: N801 (a context manager, which reads as `suppress` does)
    """Passes over an OSError which says that the file system cannot do a thing at all; others are raised."""

    def __init__(self, *more: int) -> None:
        self._numbers = _NOT_HERE.union(more)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in self._numbers


def set_mode(descriptor: int, mode: int) -> None:
    """Give an open file of ours its permission bits, where its file system has such. Raises OSError."""
    with where_supported(errno.EACCES):  # NFS with squashed users: a file of ours that the server calls another's
        os.fchmod(descriptor, mode)


def make_usable(descriptor: int) -> None:
    """Let the owner read and write an open file of ours, of which the umask may have taken the bits. Raises OSError."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & _READ_WRITE != _READ_WRITE:
        set_mode(descriptor, mode | _READ_WRITE)


def sync_file(descriptor: int) -> bool:
    """Make a file's bytes durable; False where its file system does not know how. Raises OSError."""
    with where_supported():
        os.fsync(descriptor)
        return True
    return False


def sync_directory(directory: int) -> None:
    """Make names in a directory durable, where its file system knows how. Raises OSError."""
    with where_supported(errno.EBADF):  # some want it opened for writing, which no directory can be
        os.fsync(directory)


def free_space(directory: int, what: str) -> int | None:
    """Bytes that this user may still write there; None where the file system does not say (a size of nothing)."""
    room = None
    with local_errors(what), where_supported():
        room = os.fstatvfs(directory)
    return None if room is None or room.f_blocks == 0 else room.f_bavail * room.f_frsize


class Warnings:
    """What is at risk in a place, which people call `place`; `tell` hears each thing once. Safe for threads."""

    def __init__(self, place: str, tell: Callable[[str], None] = unheard) -> None:
        self._place, self._tell = place, tell
        self._told: set[str] = set()

    def __call__(self, text: str) -> None:
        """Pass `text` on, unless it was already."""
        if text not in self._told:
            self._told.add(text)
            self._tell(text)

    def no_locks(self) -> None:
        """A lock was needed, and could not be had."""
        self(f"{self._place}: its file system has no locks; two that write there at once may undo each other's work")

    def look_at(self, directory: int) -> None:
        """Whether others than this user and root could put things into the directory, which is in the place."""
        with local_errors(self._place):
            found = os.fstat(directory)
        # Root could do it anyway (reliability, "Not promised").
        if found.st_uid not in (os.geteuid(), 0):
            self(f"{self._place} belongs to another user, who could swap files while they are written")
        # With the sticky bit, as in /tmp, nobody else can rename or remove what is ours.
        elif found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            self(f"{self._place} can be written to by everybody, who could swap files while they are written")


class FileReader:
    """Reads an open file from `start` on, at most `length` bytes (None: to the end). Does not close it."""

    def __init__(self, descriptor: int, what: str, start: int = 0, length: int | None = None) -> None:
        self._descriptor = descriptor
        self._what = what
        self._offset = start
        self._end = None if length is None else start + length

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, and never more than a block. Raises LocalIOError."""
        wanted = BLOCK if size < 0 else min(size, BLOCK)
        if self._end is not None:
            wanted = min(wanted, self._end - self._offset)
        with local_errors(self._what):
            block = os.pread(self._descriptor, wanted, self._offset)
        self._offset += len(block)
        return block


def _wrong_kind(what: str, mode: int, wanted: str) -> ContentError:
    return ContentError(
        f"{what} is {kind_of(mode)} and not {wanted}",
        code="TYPE",
        object=what,
        hint="it was neither followed nor read; look at what it is there for, and move it away or name another place",
    )
