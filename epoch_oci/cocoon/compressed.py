"""Telling a gzip stream from a raw one, and unpacking it with bounded memory."""

import zlib
from collections.abc import Callable

from epoch_oci.disk.local import local_errors
from epoch_oci.errors import ContentError
from epoch_oci.oci.verify import BLOCK, ByteReader

_GZIP = b"\x1f\x8b"
_OTHERS = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"))
_SNIFFED = 6
_INPUT = 1 << 16
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


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
        self._new: Callable[[], zlib._Decompress] = lambda: zlib.decompressobj(_GZIP_WINDOW)
        self._decoder = self._new()

    def read(self, size: int = -1, /) -> bytes:
        wanted = BLOCK if size < 0 else min(size, BLOCK)
        while wanted:
            data = self._input()
            if data is None:
                return b""
            try:
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
