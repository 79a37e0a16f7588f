"""Faults that strike while the body of a response goes out."""

from collections.abc import Iterator

from support.fault_base import Exchange, Fault
from support.wire import Answer, CutConnection


class _BodyFault(Fault):
    """A filter over the response body."""

    def filter(self, exchange: Exchange, blocks: Iterator[bytes]) -> Iterator[bytes]:
        raise NotImplementedError

    def after(self, exchange: Exchange, answer: Answer) -> None:
        answer.filters.append(lambda blocks: self.filter(exchange, blocks))


def split_at(blocks: Iterator[bytes], offset: int) -> Iterator[tuple[bytes, bool]]:
    """The same bytes, cut so that ``offset`` is a boundary; True marks blocks at or beyond it."""
    seen = 0
    for block in blocks:
        head = block[: max(0, offset - seen)]
        if head:
            yield head, False
        if len(head) < len(block):
            yield block[len(head) :], True
        seen += len(block)


class Truncate(_BodyFault):
    """End the connection after ``after`` body bytes under the full Content-Length; FIN, or RST."""

    def __init__(self, after: int, *, rst: bool = False) -> None:
        self.after_bytes, self.rst = after, rst

    def filter(self, exchange: Exchange, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block, beyond in split_at(blocks, self.after_bytes):
            if beyond:
                exchange.fire()
                raise CutConnection(rst=self.rst)
            yield block


class Flip(_BodyFault):
    """Change one byte: XOR with ``mask`` at ``offset`` of the body."""

    def __init__(self, offset: int = 0, mask: int = 1) -> None:
        self.offset, self.mask = offset, mask

    def filter(self, exchange: Exchange, blocks: Iterator[bytes]) -> Iterator[bytes]:
        flipped = False
        for block, beyond in split_at(blocks, self.offset):
            if beyond and not flipped:
                exchange.fire()
                flipped = True
                block = bytes([block[0] ^ self.mask]) + block[1:]
            yield block


class Trailing(_BodyFault):
    """``data`` after the body; with ``declared`` it counts in Content-Length, else it follows on the wire."""

    def __init__(self, data: bytes, *, declared: bool = True) -> None:
        self.data, self.declared = data, declared

    def filter(self, exchange: Exchange, blocks: Iterator[bytes]) -> Iterator[bytes]:
        held = b""
        for block in blocks:
            if held:
                yield held
            held = block
        # With the last block, or a client that stops at Content-Length could be done before this fires.
        exchange.fire()
        yield held + self.data

    def after(self, exchange: Exchange, answer: Answer) -> None:
        super().after(exchange, answer)
        answer.size += len(self.data) if self.declared else 0
        answer.close = answer.close or not self.declared


class StallBody(_BodyFault):
    """Wait once, after ``after`` body bytes."""

    def __init__(self, seconds: float, after: int = 0) -> None:
        self.seconds, self.after_bytes = seconds, after

    def filter(self, exchange: Exchange, blocks: Iterator[bytes]) -> Iterator[bytes]:
        waited = False
        for block, beyond in split_at(blocks, self.after_bytes):
            if beyond and not waited:
                exchange.fire()
                waited = True
                exchange.sleep(self.seconds)
            yield block


class Trickle(_BodyFault):
    """Send the body in pieces of ``size`` bytes, ``delay`` seconds before each."""

    def __init__(self, size: int = 1, delay: float = 0.1) -> None:
        self.size, self.delay = size, delay

    def filter(self, exchange: Exchange, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            for offset in range(0, len(block), self.size):
                exchange.fire()
                exchange.sleep(self.delay)
                yield block[offset : offset + self.size]
