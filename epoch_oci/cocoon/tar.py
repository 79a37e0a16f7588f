"""The few tar headers that Cocoon's archives are made of, and such an archive out of a pipe (POSIX.1-2017, pax).

ustar, with PAX records before an entry. Written as Go's archive/tar writes them, bit for bit; read strictly, for two
readers may take an odd header differently, and an archive is read once, entry after entry, to its proper end.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import size_of, size_problem
from epoch_oci.oci.digest import shown
from epoch_oci.oci.verifying import BLOCK, ByteReader

BLOCK_SIZE = 512
ZERO_BLOCK = bytes(BLOCK_SIZE)
PAX_LIMIT = 1 << 20
"""Most bytes of PAX records before one entry; Go's archive/tar neither writes nor reads more."""

# Eleven octal digits, 8 GiB; beyond it the size stands in a PAX record, and Go writes zero here.
_OCTAL_LIMIT = 8**11
_NAME = slice(0, 100)
_MODE = slice(100, 108)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_TYPE = slice(156, 157)
_MAGIC = slice(257, 265)
_PREFIX = slice(345, 500)
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \x00"
_RECORD = re.compile(rb"([1-9][0-9]{0,7}) ")
_OCTAL = re.compile(rb"[0-7]*\Z")

FILE = "file"
PAX = "pax"
# A zero byte is what tar of before POSIX wrote for a file; programs that repack an archive may still do so.
_TYPES = {b"0": FILE, b"\x00": FILE, b"x": PAX}
_FOREIGN = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a FIFO",
    b"7": "a contiguous file",
    b"g": "a global PAX header",
    b"K": "a GNU long link name",
    b"L": "a GNU long name",
    b"S": "a GNU sparse file",
}
_TRAILER_LIMIT = 1 << 20
"""Most zeros behind the end of an archive, in bytes; writers fill up to a block of the tape of old."""


@dataclass(frozen=True, slots=True)
class TarHeader:
    """One header block. `size` is the bytes that follow it, `kind` FILE or PAX; `mode` has permission bits only."""

    name: str
    size: int
    mode: int
    kind: str = FILE


def padding(size: int) -> int:
    """How many bytes fill up the last block of `size` bytes."""
    return -size % BLOCK_SIZE


def parse_header(block: bytes) -> TarHeader:
    """Read a header block. Raises ContentError (TYPE) for a damaged one, and for what is neither a file nor PAX."""
    # First of all: a block of something else has no meaning in any field.
    if _checksum(block) != _number(block[_CHECKSUM], "checksum"):
        raise _broken("a header's checksum is wrong")
    name = _text(block[_NAME])
    if block[_MAGIC] == _USTAR and (prefix := _text(block[_PREFIX])):
        name = f"{prefix}/{name}"
    elif block[_MAGIC] not in (_USTAR, _GNU, bytes(8)):
        raise _broken("a header is of no known kind of tar")
    kind = _TYPES.get(block[_TYPE])
    # Links, devices and directories: Cocoon passes them over, so what it would import is not what is here (reliability
    # Z4).
    if kind is None:
        word = _FOREIGN.get(block[_TYPE], f"an entry of type {shown(block[_TYPE].decode('latin-1'))}")
        raise ContentError(f"the archive holds {word} ({shown(name)}); only files are understood", code="TYPE")
    # Go writes the file's type into the mode as well; Cocoon looks at the permissions.
    mode = _number(block[_MODE], "mode") & 0o7777
    return TarHeader(name, _number(block[_SIZE], "size"), mode, kind)


def with_records(header: TarHeader, records: Mapping[str, str]) -> TarHeader:
    """`header` as the PAX records before it change it. Raises ContentError (TYPE, SIZE)."""
    # A tar program that repacked the archive: it knows holes in a way of its own, and Cocoon does not know that one.
    if "linkpath" in records or any(key.startswith("GNU.sparse.") for key in records):
        raise ContentError(
            f"the archive holds {shown(header.name)} as a link or in GNU's sparse form, which Cocoon never writes",
            code="TYPE",
            hint="use the archive as `cocoon snapshot export` wrote it",
        )
    text = records.get("size")
    size = header.size if text is None else size_of(text)
    if size is None:
        raise ContentError(f"{shown(text)} is not the size of an entry", code="SIZE")
    return TarHeader(records.get("path", header.name), size, header.mode, header.kind)


def parse_records(raw: bytes) -> dict[str, str]:
    """The PAX records in `raw`: `LENGTH KEY=VALUE` lines. Raises ContentError (TYPE) for all that is odd."""
    records: dict[str, str] = {}
    at = 0
    while at < len(raw):
        match = _RECORD.match(raw, at)
        end = at + int(match[1]) if match else at
        line = raw[match.end() : end] if match else b""
        key, equals, value = line.partition(b"=")
        if not (equals and key and line.endswith(b"\n") and end <= len(raw)) or b"\x00" in line:
            raise _broken("its PAX records are damaged")
        name = _decoded(key)
        # The last one wins for some readers, the first for others.
        if name in records:
            raise _broken(f"it has the PAX record {shown(name)} twice")
        records[name] = _decoded(value[:-1])
        at = end
    return records


def file_header(name: str, size: int, mode: int, records: Mapping[str, str]) -> tuple[bytes, bytes]:
    """What precedes a file's content: the blocks of its PAX records, if it has any, and its own header.

    Without owner and time, which Cocoon does not look at.
    Raises ContentError (SIZE) for more PAX records than a reader takes: `fits` tells beforehand.
    """
    records = _needed(name, size, records)
    blocks = _pax_blocks(name, records) if records else b""
    return blocks, _block(name, size if size < _OCTAL_LIMIT else 0, mode, b"0", full=True)


def fits(name: str, size: int, records: Mapping[str, str]) -> bool:
    """Whether an entry's PAX records are few enough."""
    return len(_pax_body(_needed(name, size, records))) <= PAX_LIMIT


def _needed(name: str, size: int, records: Mapping[str, str]) -> dict[str, str]:
    # Go splits a long name between name and prefix only at a slash, and flat names have none.
    own = {} if len(name) <= 100 else {"path": name}
    return {**records, **own, **({} if size < _OCTAL_LIMIT else {"size": str(size)})}


def _pax_blocks(name: str, records: Mapping[str, str]) -> bytes:
    body = _pax_body(records)
    if len(body) > PAX_LIMIT:
        raise ContentError(f"{name} has {len(body)} bytes of PAX records, no reader takes so many", code="SIZE")
    return _block(f"PaxHeaders.0/{name}", len(body), 0, b"x") + body + bytes(padding(len(body)))


def _pax_body(records: Mapping[str, str]) -> bytes:
    # Sorted as Go does, so that one snapshot has one archive.
    return b"".join(_record(key, records[key]) for key in sorted(records))


def _record(key: str, value: str) -> bytes:
    """`LENGTH KEY=VALUE`, where the length counts its own digits too."""
    rest = f" {key}={value}\n".encode()
    # Twice: counting its own digits may give the length one more digit.
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return str(length).encode("ascii") + rest


def _block(name: str, size: int, mode: int, kind: bytes, *, full: bool = False) -> bytes:
    """A ustar header; `full` fills the device numbers in too, as Go does for files and not for PAX headers."""
    block = bytearray(BLOCK_SIZE)
    block[_NAME] = name.encode("ascii")[:100].ljust(100, b"\x00")
    block[_MODE] = _octal(mode, 8)
    block[108:116] = block[116:124] = _octal(0, 8)
    block[_SIZE] = _octal(size, 12)
    block[136:148] = _octal(0, 12)
    block[_TYPE] = kind
    block[_MAGIC] = _USTAR
    # Readers do not look at them; the archive is to be the very bytes that Cocoon would write.
    if full:
        block[329:337] = block[337:345] = _octal(0, 8)
    block[_CHECKSUM] = _octal(_checksum(bytes(block)), 7) + b" "
    return bytes(block)


def _octal(value: int, width: int) -> bytes:
    return f"{value:0{width - 1}o}".encode("ascii") + b"\x00"


def _checksum(block: bytes) -> int:
    """The sum of all bytes, those of the checksum itself taken for spaces (POSIX)."""
    return sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's binary form, which begins with a set bit."""
    # How GNU tar writes a size of 8 GiB and more.
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b" \x00")
        if _OCTAL.match(digits) is None:
            raise _broken(f"a header's {what} is no number")
        value = int(digits or b"0", 8)
    if size_problem(value):
        raise _broken(f"a header's {what} is too large")
    return value


def _text(field: bytes) -> str:
    return _decoded(field.partition(b"\x00")[0])


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _broken("a name or a PAX record is not UTF-8") from None


def _broken(problem: str) -> ContentError:
    return ContentError(f"the archive is damaged: {problem}", code="TYPE")


@dataclass(frozen=True, slots=True)
class TarEntry:
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

    def next(self) -> TarEntry | None:
        """The next file, None at the end of the archive; then the stream is at its end too."""
        # Whoever took the entry may not have read it to its end.
        self._skip_rest()
        block = self._block()
        if block == ZERO_BLOCK:
            self._finish()
            return None
        header, records = parse_header(block), {}
        if header.kind == PAX:
            records = self._records(header)
            header = with_records(self._file_header(), records)
        self._left, self._padding = header.size, padding(header.size)
        return TarEntry(header.name, header.size, header.mode, MappingProxyType(records))

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

    def _records(self, header: TarHeader) -> dict[str, str]:
        # Read into memory, so bounded before it is read.
        if header.size > PAX_LIMIT:
            raise ContentError(
                f"the archive has {header.size} bytes of PAX records for one file, more than the {PAX_LIMIT} allowed",
                code="SIZE",
            )
        raw = self._exactly(header.size + padding(header.size))[: header.size]
        return parse_records(raw)

    def _file_header(self) -> TarHeader:
        block = self._block()
        header = None if block == ZERO_BLOCK else parse_header(block)
        if header is None or header.kind != FILE:
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


def refuse_name(entry: TarEntry, why: str) -> ContentError:
    """An error about an entry's name."""
    return ContentError(f"the archive holds {shown(entry.name)}: {why}", code="NAME", object=shown(entry.name))
