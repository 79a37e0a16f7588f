"""The one lock: flock(2) on an open file or directory. It ends with the descriptor, however the process ends.

Not every file system has it (Lustre without its mount option, NFS without its daemon, much of what FUSE serves). That
is never a reason to fail: each function here says so, and its caller goes on or says what is at risk.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator

from epoch_oci.disk.local import OUR_PREFIX, local_errors, make_usable

_LOCK_FILE = f"{OUR_PREFIX}.lock"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Each time somebody else renamed or removed the file between opening and locking it.
_TRIES = 64
# flock(2) itself would wait without end, and could not be told to give up.
_POLL_SECONDS = 0.02


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock it, or turn the lock that it has into this one.

    True when it is held, False when another lock is in the way, None where the file system has none at all.
    """
    return _flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def wait_for_lock(descriptor: int, seconds: float) -> bool | None:
    """As `try_lock`, again and again for `seconds`."""
    deadline = time.monotonic() + seconds
    while (held := try_lock(descriptor)) is False and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return held


def open_locked(name: str, directory: int, flags: int = 0) -> tuple[int, bool] | None:
    """Open the file `name`, made if need be, and lock it; None when somebody else has it locked. Raises OSError.

    A descriptor for reading and writing, opened with further `flags`, and whether it is locked: it is not where there
    are no locks. The locked file is the one that has the name by then, for whoever held it before may have renamed or
    removed it. What has the name and is no file of its own, so that writing to it changes another one, loses the name.
    """
    for _ in range(_TRIES):
        descriptor = os.open(name, _FILE | flags, 0o600, dir_fd=directory)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, descriptor)
            held = try_lock(descriptor)
            if held is False:
                return None
            # Locked, and yet of no use: the lock that counts is on whatever has the name now.
            if not _is_still(descriptor, name, directory):
                continue
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                make_usable(descriptor)  # for the next one that opens it
                undo.pop_all()
                return descriptor, held is True
            # A second name, or a pipe: what is written there would land elsewhere (reliability N6).
            with contextlib.suppress(FileNotFoundError):  # another process saw it as well
                os.unlink(name, dir_fd=directory)
    return None


@contextlib.contextmanager
def locked(directory: int, what: str, unlocked: Callable[[], None]) -> Iterator[None]:
    """Hold a directory for one thread of one process; all the others wait. Raises LocalIOError.

    Where there are no locks `unlocked` is called, and nobody waits.
    """
    with local_errors(what):
        held = _lock_directory(directory)
    if held is None:
        unlocked()
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def _lock_directory(directory: int) -> int | None:
    """A descriptor that holds the lock until it is closed; None where there are no locks.

    The directory itself is locked, which leaves nothing behind. NFS locks only what is open for writing, so there a
    file serves.
    """
    held = _lock_opened(".", _DIRECTORY, directory)
    if held is None:
        held = _lock_opened(_LOCK_FILE, _FILE, directory)
        if held is None:
            with contextlib.suppress(OSError):
                os.unlink(_LOCK_FILE, dir_fd=directory)
    return held


def _lock_opened(name: str, flags: int, directory: int) -> int | None:
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, descriptor)
        if flags & os.O_CREAT:
            make_usable(descriptor)
        if _flock(descriptor, fcntl.LOCK_EX) is None:
            return None
        undo.pop_all()
    return descriptor


def _flock(descriptor: int, operation: int) -> bool | None:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        # Which number stands for "not here" differs by file system (ENOSYS, ENOLCK, EOPNOTSUPP, EBADF, EINVAL, …).
        # A disk that fails is not one without locks.
        if error.errno == errno.EIO:
            raise
        return None
    return True


def _is_still(descriptor: int, name: str, directory: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False
