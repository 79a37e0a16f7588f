"""Decoding the layers of a file that are compressed (cocoon-common's snapshot.v2), within bounds and as a stream.

Nothing of what a compressed layer expands to is trusted: the output ends at the size that the snapshot's config
declares, the window at WINDOW_LIMIT, and memory holds one window and two blocks whatever a frame says of itself. Of a
file of several layers the next ones are decoded meanwhile: a window and AHEAD bytes for each thread.
"""

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK, ByteReader, VerifyingReader, read_digest
from epoch_oci.stores.base import Content
from epoch_oci.transfer.pool import GrowingPool

WINDOW_LIMIT = 128 << 20
"""Largest window in bytes that a frame may ask for; the reference decoder's own limit."""
FRAME_LIMIT = 100_000
"""Most frames of one layer. cocoon-common writes one; tools that compress in parallel write one for a few megabytes."""
_INPUT = 128 << 10
# A block of at most 128 KiB has a header of three bytes and one byte at least (RFC 8878, 3.1.1.2).
_EXPANSION = (128 << 10) // 4
AHEAD = 8 << 20
"""Decoded bytes of one layer that wait until it is its turn."""
_GROUP, _GROUP_LAYERS = 4 << 20, 16
_DECODERS = max(1, min(4, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class UnpackedContent:
    """The `size` bytes that `layers` hold together, each a blob of its own, zstd frames where `zstd`.

    Every layer is verified while it is read, and its last bytes are handed out only after that. Raises ContentError:
    DIGEST or SIZE for a layer that is not what its descriptor names, TYPE for what is no zstd or is cut short, SIZE for
    an output of another size than declared. UsageError where no zstd decoder is installed.
    """

    layers: Sequence[tuple[Descriptor, Content]]
    size: int
    zstd: bool
    what: str

    def refuse_impossible(self) -> None:
        """Raise ContentError (SIZE) where the layers cannot decode to so much, before room is made for it."""
        stored = sum(target.size for target, _ in self.layers)
        if self.size > stored * (_EXPANSION if self.zstd else 1):
            raise self._size_error(f"has {stored} bytes in its layers, which cannot be the {self.size} declared")

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`; what lies before `start` is decoded and dropped."""
        with closing(self._blocks()) as blocks:
            # The last block waits until the size and every layer's hash were right (reliability D7).
            reader = _Withheld(blocks)
            _skip(reader, start)
            yield _Limited(reader, length)

    def _blocks(self) -> Generator[bytes, None, None]:
        with closing(self.decoded()) as blocks:
            yield from filter(None, blocks)

    def decoded(self, first: int = 0, start: int = 0) -> Generator[bytes, None, None]:
        """The blocks of the layers from number `first` on, which begins at byte `start`.

        Behind each layer comes an empty one, when all of it was right. Raises as reading does.
        """
        left = self.size - start
        groups = list(self._groups(first))
        with closing(
            _in_order(map(self._decoded, groups)) if len(groups) > 1 else self._decoded(self.layers[first:])
        ) as decoded:
            for block in decoded:
                left -= len(block)
                # Before the block is handed on: nothing beyond the declared size leaves here (reliability Z2).
                if left < 0:
                    raise self._size_error(f"decodes to more than the {self.size} bytes declared")
                yield block
        if left:
            raise self._size_error(f"decodes to {self.size - left} of the {self.size} bytes declared")

    def _groups(self, first: int) -> Iterator[Sequence[tuple[Descriptor, Content]]]:
        """Layers that one thread decodes at one go: changing threads for each small one costs more than it gains."""
        size = 0
        for number, (target, _) in enumerate(self.layers[first:], first + 1):
            size += target.size
            if size >= _GROUP or number - first >= _GROUP_LAYERS or number == len(self.layers):
                yield self.layers[first:number]
                first, size = number, 0

    def _decoded(self, layers: Sequence[tuple[Descriptor, Content]]) -> Generator[bytes, None, None]:
        for target, content in layers:
            # Behind a piece that is not compressed nothing is looked for, as in parts.
            with content.open(0, None if self.zstd else target.size) as stored:
                verified = VerifyingReader(stored, target, f"a layer of {self.what}")
                reader = ZstdReader(verified, self.what) if self.zstd else verified
                while block := reader.read(BLOCK):
                    yield block
            yield b""

    def _size_error(self, problem: str) -> ContentError:
        return ContentError(f"{self.what} {problem}", code="SIZE", object=self.what)


class ZstdReader:
    """Reads the zstd frames of `content` decoded, to the end of `content`. Raises ContentError (TYPE), UsageError.

    Whoever reads bounds the output; skippable frames are nothing.
    """

    def __init__(self, content: ByteReader, what: str) -> None:
        self._zstd = zstd_module()
        self._content = content
        self._what = what
        self._frames = 0
        self._decoder: Any = self._new_decoder()
        self._at_start = True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes (at most a block where `size` is negative)."""
        wanted = BLOCK if size < 0 else size
        while wanted:
            data = self._input()
            if data is None:
                return b""
            try:
                block: bytes = self._decoder.decompress(data, wanted)
            except self._zstd.ZstdError as error:
                raise self._broken(f"cannot be decoded as zstd: {error}") from None
            if block:
                return block
        return b""

    def _input(self) -> bytes | None:
        """What the decoder is to be given next: nothing while it still has output, None when all is through."""
        decoder = self._decoder
        if decoder.eof:
            # A frame may end anywhere in what was read; what is left of that begins the next one.
            data: bytes = decoder.unused_data or self._content.read(_INPUT)
            if not data:
                return None
            self._decoder = self._new_decoder()
            return data
        if not decoder.needs_input:
            return b""
        data = self._content.read(_INPUT)
        if data:
            self._at_start = False
            return data
        raise self._broken("is empty" if self._at_start else "ends in the middle of a zstd frame")

    def _new_decoder(self) -> Any:
        self._frames += 1
        if self._frames > FRAME_LIMIT:
            raise self._broken(f"has more than {FRAME_LIMIT} zstd frames")
        # The frame's own wish for memory is a stranger's: more than this is refused before it is allocated (reliability
        # Z2).
        window = {self._zstd.DecompressionParameter.window_log_max: WINDOW_LIMIT.bit_length() - 1}
        return self._zstd.ZstdDecompressor(options=window)

    def _broken(self, problem: str) -> ContentError:
        return ContentError(f"a layer of {self._what} {problem}", code="TYPE", object=self._what)


def digest_of(content: Content) -> Digest:
    """The SHA-256 of all of `content`, read once."""
    with content.open() as reader:
        return read_digest(reader)


def zstd_module() -> Any:
    """The zstd decoder of Python 3.14, or its backport for those before. Raises UsageError where there is none."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from backports import zstd  # type: ignore[import-not-found,import-untyped,unused-ignore,no-redef]
        except ImportError:
            raise UsageError(
                "the snapshot is compressed with zstd, and no decoder is installed",
                hint="install the package backports.zstd",
            ) from None
    return zstd


def _in_order(layers: Iterator[Generator[bytes, None, None]]) -> Generator[bytes, None, None]:
    """The blocks of `layers` one after another, while threads of their own decode the next ones."""
    pool = GrowingPool(_DECODERS, "decode")
    waiting: deque[_Ahead] = deque()
    try:
        for layer in layers:
            waiting.append(_Ahead(layer))
            pool.submit(waiting[-1].run)
            # One more than there are threads: while the first is being taken, no thread is without work.
            if len(waiting) > _DECODERS:
                yield from waiting[0].blocks()
                waiting.popleft()
        while waiting:
            yield from waiting[0].blocks()
            waiting.popleft()
    finally:
        # Also when the reader left early: a thread that waits for room would wait for ever.
        for ahead in waiting:
            ahead.stop()
        pool.shutdown(cancel_futures=True)


class _Ahead:
    """Blocks that a thread makes and another one takes."""

    def __init__(self, source: Generator[bytes, None, None]) -> None:
        self._source = source
        self._made: deque[list[bytes]] = deque()
        self._size = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._state = threading.Condition()

    def run(self) -> None:
        """Make them; what goes wrong is for whoever takes them."""
        try:
            with closing(self._source):
                self._make()
        except BaseException as error:
            self._error = error
        with self._state:
            self._ended = True
            self._state.notify_all()

    def _make(self) -> None:
        """Hand blocks over by the megabyte, for a decoder may give them in crumbs."""
        made, size = [], 0
        try:
            for block in self._source:
                made.append(block)
                size += len(block)
                if size >= BLOCK:
                    if not self._put(made, size):
                        return
                    made, size = [], 0
        finally:
            # Also after an error: the blocks before it are right, and come before it.
            self._put(made, size)

    def blocks(self) -> Iterator[bytes]:
        """Take them. Raises what went wrong, when it is its turn."""
        while (made := self._next()) is not None:
            yield from made
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Nobody takes them any more."""
        with self._state:
            self._stopped = True
            self._state.notify_all()

    def _put(self, made: list[bytes], size: int) -> bool:
        with self._state:
            # The bound of memory: a small layer may decode to gigabytes while it is not its turn.
            while self._size >= AHEAD and not self._stopped:
                self._state.wait()
            self._made.append(made)
            self._size += size
            self._state.notify_all()
            return not self._stopped

    def _next(self) -> list[bytes] | None:
        with self._state:
            while not self._made and not self._ended:
                self._state.wait()
            if not self._made:
                return None
            made = self._made.popleft()
            self._size -= sum(map(len, made))
            self._state.notify_all()
            return made


class _Withheld:
    """Blocks as a reader that hands out the last of them only after the iterator came to its end without an error."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._following = next(blocks, b"")
        self._block = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        if not self._block and self._following:
            self._block, self._following = memoryview(self._following), next(self._blocks, b"")
        end = len(self._block) if size < 0 else size
        taken, self._block = self._block[:end], self._block[end:]
        return bytes(taken)


@dataclass(slots=True)
class _Limited:
    """At most `left` bytes of `content`; None: all."""

    content: ByteReader
    left: int | None

    def read(self, size: int = -1, /) -> bytes:
        if self.left is None:
            return self.content.read(size)
        block = self.content.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(block)
        return block


def _skip(reader: ByteReader, count: int) -> None:
    while count and (block := reader.read(min(count, BLOCK))):
        count -= len(block)
