"""What `cocoon snapshot export` writes: a tar archive, raw or in gzip, of an envelope and the snapshot's files.

Read once, from a pipe, with a block in memory and one file at a time on the disk; gzip is told from a raw stream by its
first bytes and unpacked with bounded memory.
"""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from epoch_oci.cocoon.envelope import ENVELOPE, ENVELOPE_LIMIT, Envelope
from epoch_oci.cocoon.epoch_manifest import manifest_of
from epoch_oci.cocoon.tar import TarEntry, TarStream, refuse_name
from epoch_oci.dataclass import dataclass
from epoch_oci.disk.local import local_errors
from epoch_oci.disk.spool import Spool
from epoch_oci.epoch import sparse
from epoch_oci.epoch.manifest import LayerHeader
from epoch_oci.epoch.mint import StoredFile
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import filename
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import LAYER_LIMIT
from epoch_oci.oci.verifying import BLOCK, ByteReader
from epoch_oci.stores.base import Content

_COW = "cow.raw"
_GZIP = b"\x1f\x8b"
_OTHERS = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"))
# As much as the longest of the magic words below has.
_SNIFFED = 6
_INPUT = 1 << 16
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file of the archive; its content can be read until the next file is asked for."""

    file: StoredFile
    content: Content


class ExportArchive:
    """The files of the archive in `stream`, one after another; when the last one is through, the snapshot is known.

    Each file is copied to a nameless file in `spool_dir`, because a registry wants a blob's digest before its bytes;
    the disk never holds more than the largest of them. Raises ContentError for whatever is not a whole, plain archive
    of Cocoon's, LocalIOError. What was handed out before an error is then the part of a snapshot that does not exist.
    """

    def __init__(self, stream: ByteReader, spool_dir: Path, what: str = "the archive") -> None:
        self._what = what
        self._tar = TarStream(unwrapped(stream, what))
        # The content is read once for its digest and once to be sent: a pipe cannot be rewound.
        self._spool_dir = spool_dir
        self._spool: Spool | None = None
        self._files: list[StoredFile] = []
        self._seen: dict[str, str] = {}
        self._complete = False
        self.envelope: Envelope | None = None
        """Known from the first file on in every archive that Cocoon wrote: there it is the first entry."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[ArchivedFile]:
        return self

    def __next__(self) -> ArchivedFile:
        self.close()
        while (entry := None if self._complete else self._tar.next()) is not None:
            # Wherever it stands: Cocoon writes it first, and other tar programs keep no order (epoch-formats 5.7).
            if entry.name != ENVELOPE:
                return self._file(entry)
            self._read_envelope(entry)
        if not self._complete:
            self._finish()
        raise StopIteration

    def close(self) -> None:
        """Drop the file that was handed out last."""
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files so far, in the order of the archive."""
        return tuple(self._files)

    def document(self, name: str | None = None, tag: str | None = None) -> Document:
        """The Epoch manifest (`manifest_of`), once every file is through. Raises UsageError, ContentError."""
        if not self._complete or self.envelope is None:
            raise ContentError(f"{self._what} was not read to its end", code="SIZE", object=self._what)
        return manifest_of(self.envelope, self._files, name, tag)

    def so_far(self, name: str | None = None, tag: str | None = None) -> Document | None:
        """As `document`, of the files until now; None while the envelope has not come."""
        return manifest_of(self.envelope, self._files, name, tag) if self.envelope is not None else None

    def _file(self, entry: TarEntry) -> ArchivedFile:
        self._check(entry)
        self._spool = spool = Spool(self._spool_dir, entry.name)
        spool.fill(self._tar)
        header = LayerHeader(entry.mode, entry.pax_records)
        file = StoredFile(name=entry.name, digest=spool.digest, size=entry.size, header=header)
        self._files.append(file)
        return ArchivedFile(file, spool.content)

    def _check(self, entry: TarEntry) -> None:
        if (why := filename.problem(entry.name)) is not None:
            raise refuse_name(entry, why)
        # An archive of a million empty files would make a manifest that nobody takes (reliability Z4).
        if len(self._files) >= LAYER_LIMIT:
            raise ContentError(f"{self._what} has more than {LAYER_LIMIT} files", code="SIZE", object=self._what)
        # Cocoon lets the last of two win, on a file system that may fold case (trap 26).
        key = entry.name.casefold()  # flat ASCII by now
        if key in self._seen:
            raise refuse_name(entry, f"{self._seen[key]} is there already")
        self._seen[key] = entry.name
        found: list[Finding] = []
        if sparse.is_packed(entry.pax_records):
            sparse.read_unpacking(entry.pax_records, entry.size, "$", found)
        if found:
            raise ContentError.of(f"{entry.name} in {self._what}", found)

    def _read_envelope(self, entry: TarEntry) -> None:
        if self.envelope is not None:
            raise refuse_name(entry, "it is there twice")
        # It is read into memory, so its size is looked at before a byte of it.
        if entry.size > ENVELOPE_LIMIT:
            raise ContentError(f"{ENVELOPE} is {entry.size} bytes, more than the {ENVELOPE_LIMIT} allowed", code="SIZE")
        if sparse.is_packed(entry.pax_records):
            raise ContentError(f"{ENVELOPE} is packed as a sparse file", code="TYPE", object=ENVELOPE)
        self.envelope = Envelope.parse(b"".join(iter(self._tar.read, b"")), f"{ENVELOPE} of {self._what}")

    def _finish(self) -> None:
        if self.envelope is None:
            raise ContentError(
                f"{self._what} has no {ENVELOPE}: it is not an export of Cocoon's", code="TYPE", object=self._what
            )
        # Later versions of Cocoon list the files, so that an archive cut between two entries is found (epoch-formats
        # 5.8).
        missing = [name for name in self.envelope.files or () if name.casefold() not in self._seen]
        if missing:
            problem = f"{self._what} lacks {', '.join(missing[:3])}, which {ENVELOPE} lists"
            raise ContentError(problem, code="MISMATCH", object=missing[0])
        self._refuse_lost_map(self.envelope.storage)
        self._complete = True

    def _refuse_lost_map(self, storage: int) -> None:
        """A tar program that does not know Cocoon's records leaves a packed disk that nothing can unfold (trap 8)."""
        for file in self._files:
            # Only of this one is the length known: that of the disk.
            if file.name == _COW and file.size < storage and not sparse.is_packed(file.pax_records):
                raise ContentError(
                    f"{_COW} is {file.size} bytes and the disk has {storage}: its sparse map was lost",
                    code="SIZE",
                    object=_COW,
                    hint="use the archive as `cocoon snapshot export` wrote it; other tar programs drop the map",
                )


def unwrapped(stream: ByteReader, what: str) -> ByteReader:
    """`stream` without its gzip wrapping, if it has one, as Cocoon looks for it: by its first two bytes.

    The checksums of gzip are verified when it is read to its end. Raises ContentError for an empty stream and for
    compression that Cocoon does not read; reading raises ContentError for a damaged stream, LocalIOError.
    """
    source = _Source(stream, what)
    head = source.peek(_SNIFFED)
    if not head:
        hint = "look at the error of the program that was to write it"
        raise ContentError(f"{what} is empty", code="SIZE", object=what, hint=hint)
    # Cocoon takes whatever is not gzip for a tar archive, and then speaks of a damaged header.
    for magic, name in _OTHERS:
        if head.startswith(magic):
            raise ContentError(
                f"{what} is compressed with {name}",
                code="TYPE",
                object=what,
                hint="Cocoon itself reads raw tar and gzip",
            )
    return _Gunzip(source, what) if head.startswith(_GZIP) else source


class _Source:
    """A stream whose first bytes were looked at, and whose errors are ours."""

    def __init__(self, stream: ByteReader, what: str) -> None:
        self._stream = stream
        self._what = what
        self._head = b""

    def peek(self, count: int) -> bytes:
        while len(self._head) < count and (block := self._read(count - len(self._head))):
            self._head += block
        return self._head

    def read(self, size: int = -1, /) -> bytes:
        wanted = BLOCK if size < 0 else min(size, BLOCK)
        if not self._head:
            return self._read(wanted)
        block, self._head = self._head[:wanted], self._head[wanted:]
        return block

    def _read(self, count: int) -> bytes:
        with local_errors(self._what):
            return self._stream.read(count)


class _Gunzip:
    """The content of one gzip member after another, as Go reads them; never more than what is asked for is unpacked."""

    def __init__(self, source: _Source, what: str) -> None:
        self._source = source
        self._what = what
        # Go joins gzip members without being asked, and `cat` of two archives is such a stream.
        self._new: Callable[[], zlib._Decompress] = lambda: zlib.decompressobj(_GZIP_WINDOW)
        self._decoder = self._new()

    def read(self, size: int = -1, /) -> bytes:
        wanted = BLOCK if size < 0 else min(size, BLOCK)
        while wanted:
            data = self._input()
            if data is None:
                return b""
            try:
                # Bounded by what is asked for: one kilobyte of gzip can be a megabyte of zeros (reliability Z2).
                block = self._decoder.decompress(data, wanted)
            except zlib.error as error:
                raise self._broken(f"is damaged: {error}") from None
            if block:
                return block
        return b""

    def _input(self) -> bytes | None:
        """What the decoder is to be given next, None at the end of the last member."""
        if not self._decoder.eof:
            if data := self._decoder.unconsumed_tail or self._source.read(_INPUT):
                return data
            raise self._broken("is cut off")
        following = self._decoder.unused_data or self._source.read(_INPUT)
        if not following:
            return None
        self._decoder = self._new()
        return following

    def _broken(self, problem: str) -> ContentError:
        return ContentError(f"{self._what}, compressed with gzip, {problem}", code="SIZE", object=self._what)
