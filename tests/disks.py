"""Disks and directories that misbehave: things in the way, full and read-only disks, system calls that fail."""

import errno
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from epoch_oci.disk.draft import is_ours


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("making a device needs root")


def _socket(path: Path) -> None:
    # A socket's own path may be no longer than 107 bytes.
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def _link(path: Path) -> None:
    target = path.with_name(f"{path.name}.elsewhere")
    target.write_bytes(b"not for anyone")
    path.symlink_to(target)


OBSTACLES: dict[str, Callable[[Path], None]] = {
    "symlink": _link,
    "dangling-symlink": lambda path: path.symlink_to("/nonexistent/file"),
    "fifo": lambda path: os.mkfifo(path, 0o600),
    "socket": _socket,
    "device": _device,
    "directory": lambda path: path.mkdir(),
    "full-directory": lambda path: (path / "sub").mkdir(parents=True),
}
LINKS = frozenset({"symlink", "dangling-symlink"})


def put_in_the_way(kind: str, path: Path) -> os.stat_result:
    """Replace what is at ``path`` by an obstacle of this kind; what it is then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.unlink()
    OBSTACLES[kind](path)
    return path.lstat()


def drafts(root: Path) -> list[Path]:
    """Hidden files of ours below ``root``."""
    return [path for path in root.rglob(".*") if is_ours(path.name)]


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    """A small disk at ``path``; the test is skipped, visibly, where mounting is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def free_bytes(path: Path) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


@dataclass
class FailingCall:
    """The ``n``-th call of a function of ``os`` fails with ``number``; ``fired`` says whether it came to that."""

    function: str
    n: int
    number: int = errno.EIO
    calls: int = field(default=0, init=False)
    fired: bool = field(default=False, init=False)

    @contextmanager
    def armed(self) -> Iterator["FailingCall"]:
        real = getattr(os, self.function)

        def call(*arguments: object, **keywords: object) -> object:
            self.calls += 1
            if self.calls == self.n:
                self.fired = True
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments, **keywords)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, self.function, call)
            yield self


CALLS = ("open", "stat", "mkdir", "fstat", "fstatvfs", "pwrite", "pread", "ftruncate", "fchmod", "fsync")


def open_under(folder: Path) -> int:
    """How many of this process's descriptors are of `folder` or of what lies in it; others come and go."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            count += Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(folder)
    return count
