"""The few tar headers that Cocoon's archives are made of: ustar, with PAX records before an entry (POSIX.1-2017, pax).

Written as Go's archive/tar writes them, bit for bit; read strictly, for two readers may take an odd header differently.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import size_problem
from epoch_oci.oci.digest import shown

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
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z")

FILE = "file"
PAX = "pax"
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


@dataclass(frozen=True, slots=True)
class Header:
    """One header block. `size` is the bytes that follow it, `kind` FILE or PAX; `mode` has permission bits only."""

    name: str
    size: int
    mode: int
    kind: str = FILE


def padding(size: int) -> int:
    """How many bytes fill up the last block of `size` bytes."""
    return -size % BLOCK_SIZE


def parse_header(block: bytes) -> Header:
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
    return Header(name, _number(block[_SIZE], "size"), mode, kind)


def with_records(header: Header, records: Mapping[str, str]) -> Header:
    """`header` as the PAX records before it change it. Raises ContentError (TYPE, SIZE)."""
    # A tar program that repacked the archive: it knows holes in a way of its own, and Cocoon does not know that one.
    if "linkpath" in records or any(key.startswith("GNU.sparse.") for key in records):
        raise ContentError(
            f"the archive holds {shown(header.name)} as a link or in GNU's sparse form, which Cocoon never writes",
            code="TYPE",
            hint="use the archive as `cocoon snapshot export` wrote it",
        )
    size = header.size
    if (text := records.get("size")) is not None:
        if _DECIMAL.match(text) is None or size_problem(int(text)):
            raise ContentError(f"{shown(text)} is not the size of an entry", code="SIZE")
        size = int(text)
    return Header(records.get("path", header.name), size, header.mode, header.kind)


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
    own = {} if len(name) <= 100 else {"path": name}
    return {**records, **own, **({} if size < _OCTAL_LIMIT else {"size": str(size)})}


def _pax_blocks(name: str, records: Mapping[str, str]) -> bytes:
    body = _pax_body(records)
    if len(body) > PAX_LIMIT:
        raise ContentError(f"{name} has {len(body)} bytes of PAX records, no reader takes so many", code="SIZE")
    return _block(f"PaxHeaders.0/{name}", len(body), 0, b"x") + body + bytes(padding(len(body)))


def _pax_body(records: Mapping[str, str]) -> bytes:
    return b"".join(_record(key, records[key]) for key in sorted(records))


def _record(key: str, value: str) -> bytes:
    """`LENGTH KEY=VALUE`, where the length counts its own digits too."""
    rest = f" {key}={value}\n".encode()
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
