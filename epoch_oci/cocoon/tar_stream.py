"""Reading a tar archive from a pipe: once, entry after entry, and to its proper end."""

from dataclasses import dataclass
from types import MappingProxyType

from epoch_oci.cocoon import tar_blocks
from epoch_oci.cocoon.tar_blocks import BLOCK_SIZE, PAX_LIMIT, ZERO_BLOCK, Header
from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import shown
from epoch_oci.oci.verify import BLOCK, ByteReader

_TRAILER_LIMIT = 1 << 20
"""Most zeros behind the end of an archive, in bytes; writers fill up to a block of the tape of old."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the archive: `size` bytes of content; `mode` has permission bits; the PAX records before it."""

    name: str
    size: int
    mode: int
    pax_records: MappingProxyType[str, str]


class TarStream:
    """The entries of `stream`, each to be read by `read` before the next one; what is left of it is skipped.

    Raises ContentError: SIZE where the archive is cut off (also right behind an entry, for a writer that got to its end
    writes two blocks of zeros), TYPE for damage, links, devices and whatever else is not a plain file.
    """

    def __init__(self, stream: ByteReader) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0

    def next(self) -> Entry | None:
        """The next file, None at the end of the archive; then the stream is at its end too."""
        self._skip_rest()
        block = self._block()
        if block == ZERO_BLOCK:
            self._finish()
            return None
        header, records = tar_blocks.parse_header(block), {}
        if header.kind == tar_blocks.PAX:
            records = self._records(header)
            header = tar_blocks.with_records(self._file_header(), records)
        self._left, self._padding = header.size, tar_blocks.padding(header.size)
        return Entry(header.name, header.size, header.mode, MappingProxyType(records))

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes of the current file (at most a block where it is negative), b"" at its end."""
        wanted = min(BLOCK if size < 0 else size, self._left)
        if wanted == 0:
            return b""
        block = self._stream.read(wanted)
        if not block:
            raise self._cut_off()
        self._left -= len(block)
        return block

    def _records(self, header: Header) -> dict[str, str]:
        if header.size > PAX_LIMIT:
            raise ContentError(
                f"the archive has {header.size} bytes of PAX records for one file, more than the {PAX_LIMIT} allowed",
                code="SIZE",
            )
        raw = self._exactly(header.size + tar_blocks.padding(header.size))[: header.size]
        return tar_blocks.parse_records(raw)

    def _file_header(self) -> Header:
        block = self._block()
        header = None if block == ZERO_BLOCK else tar_blocks.parse_header(block)
        if header is None or header.kind != tar_blocks.FILE:
            raise ContentError("the archive is damaged: PAX records are not followed by a file", code="TYPE")
        return header

    def _skip_rest(self) -> None:
        while self.read(BLOCK):
            pass
        self._exactly(self._padding)
        self._padding = 0

    def _block(self) -> bytes:
        return self._exactly(BLOCK_SIZE)

    def _exactly(self, count: int) -> bytes:
        blocks = []
        while count:
            block = self._stream.read(count)
            if not block:
                raise self._cut_off()
            blocks.append(block)
            count -= len(block)
        return b"".join(blocks)

    def _finish(self) -> None:
        """A second block of zeros, and nothing but zeros behind it. Read to the end, a compressed stream is checked."""
        rest = self._block()
        count = 0
        while rest:
            if rest.strip(b"\x00"):
                raise ContentError("the archive goes on behind its end", code="TYPE")
            count += len(rest)
            if count > _TRAILER_LIMIT:
                raise ContentError(f"more than {_TRAILER_LIMIT} bytes follow the end of the archive", code="SIZE")
            rest = self._stream.read(BLOCK)

    def _cut_off(self) -> ContentError:
        return ContentError(
            "the archive is cut off",
            code="SIZE",
            hint="whatever wrote it did not get to its end: look at its error, and make the archive again",
        )


def refuse_name(entry: Entry, why: str) -> ContentError:
    """An error about an entry's name."""
    return ContentError(f"the archive holds {shown(entry.name)}: {why}", code="NAME", object=shown(entry.name))
