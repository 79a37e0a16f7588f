"""Files that appear all at once: written under a hidden name beside their place, then given their own.

Or not written at all, where one copy on the disk can serve two files: clones, which part when written to, and hard
links, which are one file.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from epoch_oci.disk.holes import write_sparse
from epoch_oci.disk.local import (
    OPEN_FILE,
    OUR_PREFIX,
    local_errors,
    look,
    make_usable,
    open_directory,
    set_mode,
    sync_directory,
    sync_file,
)
from epoch_oci.disk.lock import try_lock
from epoch_oci.errors import ConflictError, NotFoundError

_DRAFT = re.compile(re.escape(OUR_PREFIX) + r"-[0-9a-f]{16}\.tmp\Z")
_KEPT = re.compile(re.escape(OUR_PREFIX) + r"-[0-9a-f]{32}\.(?:part|done)\Z")
RECORD_HEAD = b"for "
"""What the record of an assembly begins with, before the name of the file that it will be."""
# A file's name has 255 bytes at most.
_HEAD_LIMIT = 512
_KEPT_SECONDS = 14 * 24 * 3600
"""How long an unfinished assembly that nobody goes on with is kept."""
# How file systems say that they have no hard links, or no more of them for this file.
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})
_WRITEBACK = 16 << 20
"""How much is left unwritten before the disk is set to work; else the last fsync waits for all of it."""


Shown = Callable[[os.stat_result], None]
# Not in Python's fcntl; the number is the same on every architecture that Linux has FICLONE for but a few old ones.
_FICLONE = 0x40049409


class Draft:
    """A file that nobody sees before `commit`: under a hidden name, locked by its owner, gone when it is given up.

    Pages of zeros become holes. The lock tells a later run whether the owner still lives (`sweep`).
    """

    def __init__(self, directory: int, what: str) -> None:
        self._directory = directory
        self._what = what
        self._offset = 0
        self._written_back = 0
        self._name: str | None = None
        self._descriptor = -1

    def __enter__(self) -> Self:
        with local_errors(self._what):
            self._name, self._descriptor = _create(self._directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._name is not None:
            _remove(self._name, self._directory)
        with contextlib.suppress(OSError):  # what was committed is on the disk already
            os.close(self._descriptor)

    def seek(self, offset: int) -> None:
        """Go on at `offset` bytes from the start; what is never written is a hole."""
        self._offset = offset

    def write(self, block: bytes) -> None:
        """Write at the current offset and move it. Raises LocalIOError."""
        with local_errors(self._what):
            write_sparse(self._descriptor, block, self._offset)
            self._offset += len(block)
            if self._offset - self._written_back >= _WRITEBACK:
                self._write_back()

    def _write_back(self) -> None:
        """Have the disk start on what was written. Linux does so on this advice, and does not wait for it."""
        length = self._offset - self._written_back
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, self._written_back, length, os.POSIX_FADV_DONTNEED)
        self._written_back = self._offset

    def give_to(self, owner: int, group: int) -> None:
        """Make it somebody else's; -1 leaves either as it is. Raises LocalIOError."""
        with local_errors(self._what):
            found = os.fstat(self._descriptor)
            if owner not in (-1, found.st_uid) or group not in (-1, found.st_gid):
                os.fchown(self._descriptor, owner, group)

    def commit(
        self,
        name: str,
        *,
        size: int | None = None,
        mode: int = 0o600,
        replace: bool = True,
        shown: Shown = lambda found: None,
    ) -> bool:
        """Show the file as `name`, `size` bytes long (None: up to the current offset), when it is safe on the disk.

        False when `replace` is false and the name is taken. `shown` as in `reveal`. Raises LocalIOError.
        """
        assert self._name is not None
        size = self._offset if size is None else size
        with local_errors(self._what):
            done = reveal(self._descriptor, self._name, self._directory, name, size, mode, replace=replace, shown=shown)
        if done:
            self._name = None
        return done


def reveal(
    descriptor: int,
    draft: str,
    directory: int,
    name: str,
    size: int,
    mode: int,
    *,
    replace: bool,
    shown: Shown,
    record: str | None = None,
) -> bool:
    """Give the file under the hidden name `draft` its length, its mode and its own name, each step safe on the disk.

    The `record` of how the draft came to be is taken away with its name. `shown` is told what the file is then, unless
    somebody else wrote to it, or it is not safe on this file system. False when `replace` is false and `name` is taken;
    the draft is still there then. Raises OSError.
    """
    # Zeros at the end were never written.
    os.ftruncate(descriptor, size)
    set_mode(descriptor, mode)
    # Before it gets its name: a name may reach the disk before the bytes do (reliability F3).
    safe = sync_file(descriptor)
    before = os.fstat(descriptor)
    if replace:
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    # Not looked at and then renamed: another process would get in between.
    elif not _link(draft, name, directory):
        return False
    # Before the disk is waited for: whoever is killed there would leave it, and the next run has nothing to do here.
    if record is not None:
        _remove(record, directory)
    sync_directory(directory)
    # A file that somebody wrote to meanwhile is not the one that was verified.
    after = os.fstat(descriptor)
    if safe and (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
        shown(after)
    return True


def sweep(directory: int, kept_seconds: float = _KEPT_SECONDS) -> None:
    """Remove what nothing uses: drafts of owners that are gone, and assemblies forgotten or of no use to anybody.

    What cannot be removed is left, and so is all that a living process holds.
    """
    old = time.time() - kept_seconds
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in list(entries):
            with contextlib.suppress(OSError):
                if _DRAFT.match(entry.name) or (_KEPT.match(entry.name) and _is_useless(entry.name, directory, old)):
                    _remove_stale(entry.name, directory, old)


def _is_useless(name: str, directory: int, old: float) -> bool:
    """Whether nobody can go on with an assembly: it is old, half of it is lost, or the whole file is there by now."""
    stem = name.rpartition(".")[0]
    part = _state(f"{stem}.part", directory)
    if part is None or part.st_mtime < old:
        return True
    if name.endswith(".done"):
        return False  # it goes with the part
    try:
        record = os.open(f"{stem}.done", OPEN_FILE, dir_fd=directory)
    except FileNotFoundError:
        return True
    try:
        head = os.read(record, _HEAD_LIMIT).partition(b"\n")[0]
    finally:
        os.close(record)
    whole = _state(os.fsdecode(head.removeprefix(RECORD_HEAD)), directory) if head.startswith(RECORD_HEAD) else None
    # A whole file that is older is one that was wrong: it is what the assembly was to replace.
    return whole is not None and whole.st_mtime > part.st_mtime


def _state(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def stale(directory: int, kept_seconds: float) -> list[tuple[str, int, float]]:
    """Name, bytes on disk and time of change of what `sweep` would remove, as far as can be seen from outside."""
    old = time.time() - kept_seconds
    found = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if _KEPT.match(entry.name) or _DRAFT.match(entry.name):
                with contextlib.suppress(OSError):
                    seen = entry.stat(follow_symlinks=False)
                    if seen.st_mtime < old:
                        found.append((entry.name, seen.st_blocks * 512, seen.st_mtime))
    return found


def is_ours(name: str) -> bool:
    """Whether a file is one of this program's own beside the content: a draft, what is half-done, the lock."""
    return name.startswith(OUR_PREFIX)


def is_reserved(path: str) -> bool:
    """Whether a component of a path, divided by `/`, has a name of this program's own."""
    return any(name.startswith(OUR_PREFIX) for name in path.split("/"))


def _create(directory: int) -> tuple[str, int]:
    # Exclusive, and through no link: nobody else's file is ever opened for writing (reliability N6).
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = f"{OUR_PREFIX}-{secrets.token_hex(8)}.tmp"
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, descriptor)
            undo.callback(_remove, name, directory)
            make_usable(descriptor)  # by whoever sweeps it should we be killed
            if _own(descriptor):
                undo.pop_all()
                return name, descriptor


def _remove(name: str, directory: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _own(descriptor: int) -> bool:
    """Lock a new draft. False when a sweep was quicker and took it for a stale one.

    Where there are no locks no sweep can lock it either, and none removes it.
    """
    return try_lock(descriptor) is not False and os.fstat(descriptor).st_nlink > 0


def _remove_stale(name: str, directory: int, old: float) -> None:
    # For writing, because NFS grants an exclusive lock for nothing less.
    descriptor = os.open(name, (OPEN_FILE & ~os.O_ACCMODE) | os.O_RDWR, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        held = stat.S_ISREG(found.st_mode) and try_lock(descriptor)
        # Locked by nobody, so that its owner is gone.
        if held or (held is None and found.st_mtime < old):  # without locks its age has to tell
            if name.endswith(".part"):  # first what says that there is something to go on with
                _remove(f"{name.removesuffix('.part')}.done", directory)
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)


def _link(draft: str, name: str, directory: int) -> bool:
    """Give the draft its name unless that is taken; a link, unlike a rename, never replaces."""
    try:
        os.link(draft, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: look, then rename.
        if look(name, directory, name) is not None:
            return False
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        _remove(draft, directory)
    return True


def clone(file: int, copy: int) -> bool:
    """Make the empty file `copy` a clone of `file`. False where their file systems have no such thing."""
    try:
        fcntl.ioctl(copy, _FICLONE, file)
    except OSError:
        return False
    return True


def may_link(file: int, mode: int) -> bool:
    """Whether a link to `file` is as good as a file of our own with this `mode`: ours, and open to nobody else."""
    found = os.fstat(file)
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & ~mode


def link(file: int, name: str, directory: int) -> bool:
    """Give an open file a further name, in place of what has it now, safe on the disk. False where that cannot be."""
    # By way of a hidden name: a link never replaces, and a rename does.
    hidden = f"{OUR_PREFIX}-{secrets.token_hex(8)}.tmp"
    try:
        # Its bytes before its name: whoever wrote it may not have synced it (reliability F3).
        os.fsync(file)
        # By its descriptor: what its name leads to by now may be another file.
        os.link(f"/proc/self/fd/{file}", hidden, dst_dir_fd=directory, follow_symlinks=True)
        os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
        sync_directory(directory)
    except OSError:
        return False
    finally:
        # A rename between two names of one file does nothing, and leaves both.
        with contextlib.suppress(OSError):
            os.unlink(hidden, dir_fd=directory)
    return True


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool, mode: int = 0o600) -> Iterator[Draft]:
    """A draft that becomes the file `path` when the block ends well, and nothing when it does not.

    Raises ConflictError when something is there, unless `replace`; NotFoundError for its directory, LocalIOError.
    """
    directory = open_directory(path.absolute().parent, str(path.parent))
    if directory is None:
        raise NotFoundError(f"there is no directory {path.parent}", object=str(path.parent))
    taken = ConflictError(f"{path} is there already", object=str(path), hint="replace it with --force")
    try:
        if not replace and look(path.name, directory, str(path)) is not None:
            raise taken
        with Draft(directory, str(path)) as draft:
            yield draft
            if not draft.commit(path.name, replace=replace, mode=mode):
                raise taken
    finally:
        os.close(directory)
