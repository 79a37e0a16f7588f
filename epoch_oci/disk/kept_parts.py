"""Files of which only some parts are here: sparse, called by the digest of the whole; what is not here is a hole.

Nobody vouches for a part: whoever reads one has to check it. Several processes may write the same file, for they all
write the same bytes.
"""

import contextlib
import errno
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epoch_oci.disk.holes import data_runs
from epoch_oci.disk.local import FileReader, local_errors, make_usable, open_private
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verify import ByteReader

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class KeptPart:
    """One such file of `size` bytes, as `stores.base.Content`."""

    def __init__(self, descriptor: int, what: str, size: int) -> None:
        self.size = size
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)  # whoever reads last does not know it
        self._what = what
        self._full = False

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`; holes read as zeros."""
        yield FileReader(self._descriptor, self._what, start, length)

    def write(self, offset: int, block: bytes) -> bool:
        """Keep a part; False when it was not kept, and nothing is any more: what is missing is only slower."""
        if not self._full:
            try:
                self._full = os.pwrite(self._descriptor, block, offset) != len(block)
            except OSError:
                self._full = True
        return not self._full

    def runs(self) -> Iterator[tuple[int, int]]:
        """The (start, end) of what is here; all of it where the file system knows no holes. Raises LocalIOError."""
        for start, length in data_runs(self._descriptor, self.size, self._what):
            yield start, start + length


class KeptParts:
    """Such files in `directory`, which is its owner's alone and is made when it is needed."""

    def __init__(self, directory: Path) -> None:
        self._path = directory

    def find(self, digest: Digest, size: int) -> KeptPart | None:
        """The file as it is here; None when nothing is, or something else."""
        with contextlib.suppress(OSError):
            return self._opened(digest, size, 0)
        return None

    def make(self, digest: Digest, size: int) -> KeptPart:
        """The file, made where it is not here. Raises LocalIOError."""
        with local_errors(str(self._path)):
            return self._opened(digest, size, os.O_CREAT)

    def _opened(self, digest: Digest, size: int, flags: int) -> KeptPart:
        directory = open_private(self._path, make=bool(flags))
        try:
            descriptor = os.open(digest.hex, _FLAGS | flags, 0o600, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            there = os.fstat(descriptor).st_size
            if there not in ((0, size) if flags else (size,)):
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            make_usable(descriptor)
            os.ftruncate(descriptor, size)
            return KeptPart(descriptor, str(self._path / digest.hex), size)
        except OSError:
            os.close(descriptor)
            raise
