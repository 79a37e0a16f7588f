"""Content that came from a pipe, kept in a file without a name until it has been sent."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epoch_oci.dataclass import dataclass
from epoch_oci.disk.holes import write_sparse
from epoch_oci.disk.local import FileReader, local_errors
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK, ByteReader


@dataclass(frozen=True, slots=True)
class SpooledContent:
    """What a spool holds; it can be read until the spool is closed."""

    descriptor: int
    size: int
    what: str

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`."""
        yield FileReader(self.descriptor, self.what, start, length)

    def ranged(self) -> bool:
        """As `stores.base.Ranged`."""
        return True


class Spool:
    """One file in `directory` that nobody else can open: mode 0600, without a name, gone when it is closed.

    Pages of zeros take no room. `digest` and `size` (bytes) are of what was written.
    """

    def __init__(self, directory: Path, what: str) -> None:
        self._what = f"a temporary file for {what} in {directory} (TMPDIR says where)"
        self._hasher = Digest.of(b"").hasher()
        self.size = 0
        with local_errors(str(directory)):
            self._descriptor = _unnamed(directory)

    def fill(self, content: ByteReader) -> None:
        """Write all that `content` has. Raises LocalIOError, and what reading raises."""
        while block := content.read(BLOCK):
            self._hasher.update(block)
            with local_errors(self._what):
                # A disk of ten gigabytes that is nearly empty takes no ten gigabytes of /tmp.
                write_sparse(self._descriptor, block, self.size)
            self.size += len(block)
        with local_errors(self._what):
            os.ftruncate(self._descriptor, self.size)

    @property
    def digest(self) -> Digest:
        """The SHA-256 of what was written so far."""
        return Digest("sha256", self._hasher.hexdigest())

    @property
    def content(self) -> SpooledContent:
        """What was written, to be read as often as wanted."""
        return SpooledContent(self._descriptor, self.size, self._what)

    def close(self) -> None:
        """Let go of the file. Safe to call again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


def _unnamed(directory: Path) -> int:
    with suppress(OSError):
        # Guest memory: no name that anybody could open, and nothing left behind by a kill.
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    # A file system without unnamed files; for every other reason this fails as well.
    descriptor, path = tempfile.mkstemp(prefix=".epoch-oci-", dir=directory)
    with suppress(OSError):
        Path(path).unlink()
    return descriptor
