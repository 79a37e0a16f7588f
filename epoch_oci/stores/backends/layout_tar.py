"""A tar archive of an OCI image layout, read where it lies, every member from any offset, and laid out anew.

Only a compressed archive is unpacked first, into a file without a name. An archive is somebody else's word: members
that no layout has (links, devices, sparse files, paths that lead elsewhere, two of one name) are refused before any is
used.
"""

import gzip
import io
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from epoch_oci.dataclass import dataclass
from epoch_oci.disk import local
from epoch_oci.disk.draft import Draft
from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import shown
from epoch_oci.oci.verifying import BLOCK, ByteReader

BLOB_KEY = re.compile(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})\Z")
_MEMBER_LIMIT = 1_000_000
_HEADER_LIMIT = 1 << 20
"""Most that is read at once while members are looked up; a longer name or PAX header is nobody's honest one."""
_SCAN_LIMIT = 4 << 20
"""Most that is read until the next member is found: extended headers may follow one another without end."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of a regular file are in the tar."""

    offset: int
    size: int


class LayoutTar:
    """An open tar and where its members are. `found` is what the file was when it was opened."""

    def __init__(self, path: Path, spool: Path) -> None:
        self._what = str(path)
        with local.local_errors(self._what):
            # Without O_NONBLOCK opening a pipe would wait for somebody who writes to it.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.found = os.fstat(self._descriptor)
        try:
            if not stat.S_ISREG(self.found.st_mode):
                raise ContentError(f"{path} is {local.kind_of(self.found.st_mode)} and no archive", code="TYPE")
            self.compressed = self._unpack(spool)
            self.members = _members(self._descriptor, self._what)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Readers that are open go on: they have a descriptor of their own."""
        os.close(self._descriptor)

    @contextmanager
    def open(self, member: Member, what: str, start: int, length: int | None) -> Iterator[ByteReader]:
        """The bytes of a member; they stay readable when the archive is closed or replaced meanwhile."""
        left = max(0, member.size - start)
        # Readers outlive the archive: another thread may close it to open the one that took its place.
        descriptor = os.dup(self._descriptor)
        try:
            yield local.FileReader(
                descriptor, what, member.offset + start, left if length is None else min(length, left)
            )
        finally:
            os.close(descriptor)

    def _unpack(self, spool: Path) -> bool:
        """Whether it is compressed: then what it holds is read from a file without a name from here on."""
        decoder = _decoder(os.pread(self._descriptor, 8, 0))
        if decoder is None:
            return False
        with local.local_errors(f"unpacking {self._what} below {spool}"):
            # Not beside the archive, where it might be the only place that is full; and without a name, so that a kill
            # leaves nothing.
            unpacked = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115
        with unpacked, os.fdopen(os.dup(self._descriptor), "rb") as packed:
            packed.seek(0)
            for block in _decoded(decoder(packed), self._what):
                with local.local_errors(f"unpacking {self._what} below {spool}"):
                    unpacked.write(block)
            unpacked.flush()
            os.dup2(unpacked.fileno(), self._descriptor, inheritable=False)
        return True


class _Bounded(io.RawIOBase):
    """What `tarfile` looks members up in: a hostile header must not have it read gigabytes at once."""

    def __init__(self, descriptor: int, what: str) -> None:
        self._descriptor = descriptor
        self._what = what
        self._offset = 0
        self.budget = _SCAN_LIMIT

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or offset < 0:
            raise ContentError(f"{self._what} is no tar archive", code="TYPE", object=self._what)
        self._offset = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        self.budget -= max(size, 0)
        if not 0 <= size <= _HEADER_LIMIT or self.budget < 0:
            raise ContentError(f"{self._what} has a header without end", code="SIZE", object=self._what)
        with local.local_errors(self._what):
            block = os.pread(self._descriptor, size, self._offset)
        self._offset += len(block)
        return block


def _members(descriptor: int, what: str) -> dict[str, Member]:
    """Every regular file by its key. Raises ContentError for whatever does not belong into a layout."""
    length = os.fstat(descriptor).st_size
    found: dict[str, Member] = {}
    reader = _Bounded(descriptor, what)
    try:
        tar = tarfile.TarFile(fileobj=reader)
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep every one
            reader.budget = _SCAN_LIMIT
            name = _name_of(info, what)
            if not name:
                continue
            # Tar takes the last of two, other readers the first: two layouts in one file (reliability M2).
            if name in found:
                raise _refusal(what, name, "is there twice", "NAME")
            # Said now and not in the middle of a copy: an archive whose download broke off ends so.
            if info.size < 0 or info.offset_data + info.size > length:
                raise _refusal(what, name, "is cut off", "SIZE")
            found[name] = Member(info.offset_data, info.size)
            if len(found) > _MEMBER_LIMIT:
                raise ContentError(f"{what} has more than {_MEMBER_LIMIT} members", code="SIZE", object=what)
        end = os.pread(descriptor, tarfile.BLOCKSIZE, tar.offset)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise ContentError(f"{what} is no tar archive: {error}", code="TYPE", object=what) from None
    # `tarfile` takes a broken header for the end of the archive; an end is zeros.
    if end.strip(b"\0"):
        raise ContentError(f"{what} is damaged at byte {tar.offset}", code="TYPE", object=what)
    return found


def _name_of(info: tarfile.TarInfo, what: str) -> str:
    """The key of a member, "" for a folder. Raises ContentError (NAME, TYPE)."""
    name = info.name.removeprefix("./").rstrip("/")
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or info.issparse():
        kind = next((word for test, word in _KINDS if test(info)), "of no kind that a layout has")
        raise _refusal(what, info.name, f"is {kind}", "TYPE")
    if info.isdir():
        if name not in ("", ".", "blobs") and not name.startswith("blobs/"):
            raise _refusal(what, info.name, "is a folder that no layout has", "NAME")
        return ""
    if "/" in name and BLOB_KEY.match(name) is None:
        raise _refusal(what, info.name, "is no path of a layout", "NAME")
    if name in ("", ".", "..") or not name.isprintable():
        raise _refusal(what, info.name, "is no name of a file", "NAME")
    return name


_KINDS: tuple[tuple[Callable[[tarfile.TarInfo], bool], str], ...] = (
    (tarfile.TarInfo.issym, "a symbolic link"),
    (tarfile.TarInfo.islnk, "a link"),
    (tarfile.TarInfo.isdev, "a device"),
    (tarfile.TarInfo.issparse, "a sparse file"),
)


def _refusal(what: str, name: str, problem: str, code: str) -> ContentError:
    return ContentError(f"{what}: {shown(name)} {problem}", code=code, object=what, hint="nothing of it was used")


def _decoder(head: bytes) -> Callable[[Any], Any] | None:
    """What unpacks a file that begins with `head`; None for one that is not compressed."""
    if head.startswith(b"\x1f\x8b"):
        return lambda packed: gzip.GzipFile(fileobj=packed)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        from epoch_oci.chunks.chunk import zstd

        return zstd().ZstdFile  # type: ignore[no-any-return]
    return None


def _decoded(unpacking: Any, what: str) -> Iterator[bytes]:
    try:
        with unpacking:
            while block := unpacking.read(BLOCK):
                yield block
    except Exception as error:  # gzip and zstd have no common word for damage
        raise ContentError(f"{what} cannot be unpacked: {error}", code="TYPE", object=what) from None


class LayoutTarWriter:
    """Lays a tar out: headers that say nothing but name and length, so that the same content makes the same file."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._offset = 0
        self._folders: set[str] = set()
        self.members: dict[str, Member] = {}

    def add(self, name: str, size: int, content: ByteReader) -> None:
        """A regular file, after the folders it is in."""
        for folder in _folders_of(name):
            if folder not in self._folders:
                self._folders.add(folder)
                self._header(folder, 0, tarfile.DIRTYPE, 0o755)
        self._header(name, size, tarfile.REGTYPE, 0o644)
        self.members[name] = Member(self._offset, size)
        end = self._offset + size
        while block := content.read(BLOCK):
            self._put(block)
        # Behind a member that is shorter than its header says all others would be read from the wrong place.
        if self._offset != end:
            raise ContentError(f"{name} is not as long as it was", code="SIZE", object=name)
        self._pad(tarfile.BLOCKSIZE)

    def finish(self) -> None:
        """Two blocks of zeros, and zeros to the end of a record of the tapes of old."""
        self._put(bytes(2 * tarfile.BLOCKSIZE))
        self._pad(tarfile.RECORDSIZE)

    def _header(self, name: str, size: int, kind: bytes, mode: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.mode = size, kind, mode
        self._put(info.tobuf(tarfile.PAX_FORMAT))

    def _put(self, block: bytes) -> None:
        self._draft.write(block)
        self._offset += len(block)

    def _pad(self, to: int) -> None:
        self._put(bytes(-self._offset % to))


def _folders_of(name: str) -> Iterator[str]:
    parts = name.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        yield "/".join(parts[:depth])
