"""One copy on the disk for two files: clones, which part when written to, and hard links, which are one file."""

import contextlib
import fcntl
import os
import secrets
import stat

from epoch_oci.disk.local import OUR_PREFIX, sync_directory

# Not in Python's fcntl; the number is the same on every architecture that Linux has FICLONE for but a few old ones.
_FICLONE = 0x40049409


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
    hidden = f"{OUR_PREFIX}-{secrets.token_hex(8)}.tmp"
    try:
        os.fsync(file)
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
