"""Contents that behave badly, for what a sink must survive."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from epoch_oci.oci.verifying import ByteReader


@dataclass(frozen=True)
class Raw:
    """Just bytes, handed out ``step`` at a time however many are asked for."""

    raw: bytes
    step: int = 1 << 20

    @property
    def size(self) -> int:
        return len(self.raw)

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        stream = io.BytesIO(self.raw[start : None if length is None else start + length])
        yield _Stepper(stream, self.step)


class _Stepper:
    def __init__(self, stream: io.BytesIO, step: int) -> None:
        self._stream = stream
        self._step = step

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(self._step if size < 0 else min(size, self._step))


@dataclass(frozen=True)
class Failing:
    """``raw``, and then ``error`` instead of the end."""

    raw: bytes
    error: BaseException

    @property
    def size(self) -> int:
        return len(self.raw)

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        yield _Failer(io.BytesIO(self.raw[start:]), self.error)


class _Failer:
    def __init__(self, stream: io.BytesIO, error: BaseException) -> None:
        self._stream = stream
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        if block := self._stream.read(size):
            return block
        raise self._error


@dataclass(frozen=True)
class Unopenable:
    """Content that cannot even be opened."""

    size: int
    error: BaseException

    def open(self, start: int = 0, length: int | None = None) -> "Unopenable":
        return self

    def __enter__(self) -> ByteReader:
        raise self.error

    def __exit__(self, *_: object) -> None: ...
