"""A snapshot's files as a read-only directory (FUSE), for a hypervisor that starts before the bytes have come."""

import errno
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from epoch_oci.errors import EpochOciError, LocalIOError, NotFoundError, UsageError
from epoch_oci.reading.readable_files import ReadableFile
from epoch_oci.reading.remote_file import RemoteFile

_LOOK_SECONDS = 0.02
_THREADS = 10


def mount(
    files: Mapping[str, ReadableFile],
    directory: Path,
    on_error: Callable[[str], None],
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve `files` in `directory` until it is unmounted or a signal comes; `on_ready` is called when it stands.

    `on_error` is told of what could not be read; whoever reads gets EIO. Raises UsageError where there is no FUSE,
    NotFoundError, LocalIOError.
    """
    fuse = _module()
    if not directory.is_dir():
        raise NotFoundError(f"there is no directory {directory}", object=str(directory), hint="make it first")
    if any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty", object=str(directory), hint="mount on an empty directory")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # libfuse unmounts on them, where nobody else handles them
    operations = _operations(fuse, files, on_error, on_ready)
    try:
        fuse.FUSE(
            operations,
            str(directory),
            foreground=True,
            ro=True,
            fsname="epoch-oci",
            nothreads=False,
            default_permissions=True,
            # A guest that boots reads in many places at once, and each reading waits for a registry.
            max_threads=_THREADS,
            max_idle_threads=_THREADS,  # libfuse 3.14 complains of its own default, which is none
        )
    except RuntimeError as error:
        if operations.served:  # libfuse says so of a mount that a signal has ended
            return
        raise LocalIOError(
            f"{directory} cannot be mounted (FUSE error {error})",
            object=str(directory),
            hint="is /dev/fuse there, and may this user use it?",
        ) from None


def go_to_background(directory: Path) -> int | None:
    """Go on in a process of its own. There it returns None; here it waits, and returns that process's exit code.

    Which is 0 as soon as the mount stands, and else what the process ended with. Call it before anything is open.
    """
    before = _device(directory)
    sys.stdout.flush()
    # Before anything is open: connections and threads do not live on in a child.
    child = os.fork()
    if not child:
        # Out of the terminal's session, or closing the terminal would end the mount.
        os.setsid()
        _close((0, 1))
        return None
    # A mount point is on another device than what it covers, which tells that the mount stands without asking it.
    while _device(directory) == before:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_LOOK_SECONDS)
    return 0


def fall_silent() -> None:
    """Let go of standard error too: whoever waits for the end of it would wait until the mount's."""
    _close((2,))


def _close(streams: tuple[int, ...]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in streams:
        os.dup2(nothing, stream)
    os.close(nothing)


def _device(directory: Path) -> int | None:
    try:
        return directory.stat().st_dev
    except OSError:
        return None


def _module() -> Any:
    try:
        import mfusepy
    except (ImportError, OSError) as error:
        raise UsageError(
            f"mounting needs FUSE ({error})", hint="install the extra: pip install 'epoch-oci[mount]', and libfuse"
        ) from None
    return mfusepy


def _operations(
    fuse: Any,
    files: Mapping[str, ReadableFile],
    on_error: Callable[[str], None],
    on_ready: Callable[[], None],
) -> Any:
    class Operations(fuse.Operations):  # type: ignore[misc]
        """One directory of regular files that nobody can change."""

        use_ns = True

        def __init__(self) -> None:
            self.served = False
            # The time of the mount: a snapshot says when it was made, and not when its files were.
            self._now = time.time_ns()
            self._open: dict[str, RemoteFile] = {}
            self._lock = threading.Lock()

        def init(self, path: str) -> None:
            """The mount stands."""
            self.served = True
            on_ready()

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            """As stat."""
            base = {"st_uid": os.getuid(), "st_gid": os.getgid(), "st_mtime": self._now, "st_ctime": self._now}
            base |= {"st_atime": self._now}
            if path == "/":
                return {**base, "st_mode": stat.S_IFDIR | 0o500, "st_nlink": 2}
            file = self._file(path)
            return {
                **base,
                "st_mode": stat.S_IFREG | 0o400,
                "st_nlink": 1,
                "st_size": file.size,
                "st_blocks": -(-file.size // 512),
                "st_blksize": 65536,
            }

        def readdir(self, path: str, fh: int) -> list[str]:
            """The files."""
            return [".", "..", *files]

        def open(self, path: str, flags: int) -> int:
            """Only for reading; the files never change, so the kernel may keep what it has of them."""
            if flags & (os.O_WRONLY | os.O_RDWR):
                # The kernel refuses most of it by `ro`; this is for what asks all the same.
                raise fuse.FuseOSError(errno.EROFS)
            self._remote(path)
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            """Verified bytes, or EIO."""
            try:
                return self._remote(path).pread(size, offset)
            except EpochOciError as error:
                on_error(f"{path[1:]}: {error.message}")
                raise fuse.FuseOSError(errno.EIO) from None

        def _file(self, path: str) -> ReadableFile:
            if path[1:] not in files:
                raise fuse.FuseOSError(errno.ENOENT)
            return files[path[1:]]

        def _remote(self, path: str) -> RemoteFile:
            file = self._file(path)
            with self._lock:
                # One for all who read the file: they share its pages and what is read ahead.
                if path not in self._open:
                    self._open[path] = RemoteFile(file)
                return self._open[path]

    return Operations()
