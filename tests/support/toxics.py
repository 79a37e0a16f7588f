"""What a ``FaultProxy`` may do to a connection; import them from ``support.proxy``."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

Hook = Callable[[bytes], Iterable[bytes]]
UP, DOWN = "up", "down"


class CutLink(Exception):  # noqa: N818  # control flow, not an error
    """End both sides of the connection: RST, or FIN."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Link(Protocol):
    """What a toxic sees of a proxied connection."""

    flags: dict[int, threading.Event]

    def sleep(self, seconds: float | None) -> None:
        """Wait; None is until the connection or the proxy ends."""


class Toxic:
    """The base. ``open`` is called once a connection and direction; None means: leave it alone."""

    def __init__(self, *, times: int | None = None) -> None:
        self.times = times
        self.fired = 0
        self._guard = threading.Lock()

    def open(self, link: Link, direction: str) -> Hook | None:
        raise NotImplementedError

    def claim(self) -> bool:
        """Count one strike; False when none is left."""
        with self._guard:
            if self.times is not None and self.fired >= self.times:
                return False
            self.fired += 1
            return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(fired={self.fired})"


class _OneWay(Toxic):
    """A toxic on one direction."""

    def __init__(self, direction: str, *, times: int | None = None) -> None:
        super().__init__(times=times)
        if direction not in (UP, DOWN):
            raise ValueError(direction)
        self.direction = direction

    def open(self, link: Link, direction: str) -> Hook | None:
        return self.hook(link) if direction == self.direction else None

    def hook(self, link: Link) -> Hook:
        raise NotImplementedError


class _At(_OneWay):
    """Strikes when ``after`` bytes have passed: of each connection, or of all together with ``total``."""

    def __init__(self, direction: str, after: int, *, times: int | None = None, total: bool = False) -> None:
        super().__init__(direction, times=times)
        self.after, self.total = after, total
        self._passed = 0

    def hook(self, link: Link) -> Hook:
        passed = 0
        struck = False

        def feed(data: bytes) -> Iterator[bytes]:
            nonlocal passed, struck
            before = self._advance(len(data)) if self.total else passed
            passed += len(data)
            at = self.after - before
            if struck or at > len(data) or (self.total and at < 0):
                yield data
                return
            head, tail = data[: max(0, at)], data[max(0, at) :]
            if head:
                yield head
            struck = True
            if self.claim():
                self.strike(link)
            if tail:
                yield tail

        return feed

    def _advance(self, length: int) -> int:
        with self._guard:
            self._passed += length
            return self._passed - length

    def strike(self, link: Link) -> None:
        raise NotImplementedError


class Cut(_At):
    """End the connection when ``after`` bytes have been passed on; ``how`` is "rst" or "fin"."""

    def __init__(
        self, direction: str, after: int, *, how: str = "rst", times: int | None = None, total: bool = False
    ) -> None:
        super().__init__(direction, after, times=times, total=total)
        self.how = how

    def strike(self, link: Link) -> None:
        raise CutLink(self.how)


class Stall(_At):
    """Pass ``after`` bytes, then nothing for ``seconds`` (None: until somebody closes)."""

    def __init__(
        self,
        direction: str,
        after: int = 0,
        *,
        seconds: float | None = None,
        times: int | None = None,
        total: bool = False,
    ) -> None:
        super().__init__(direction, after, times=times, total=total)
        self.seconds = seconds

    def strike(self, link: Link) -> None:
        link.sleep(self.seconds)


class Latency(_OneWay):
    """Hold every piece back for ``seconds``."""

    def __init__(self, direction: str, seconds: float, *, times: int | None = None) -> None:
        super().__init__(direction, times=times)
        self.seconds = seconds

    def hook(self, link: Link) -> Hook:
        def feed(data: bytes) -> Iterator[bytes]:
            if self.claim():
                link.sleep(self.seconds)
            yield data

        return feed


class Bandwidth(_OneWay):
    """At most ``rate`` bytes a second, per connection."""

    def __init__(self, direction: str, rate: float) -> None:
        super().__init__(direction)
        self.rate = rate

    def hook(self, link: Link) -> Hook:
        piece = max(1, int(self.rate / 20))

        def feed(data: bytes) -> Iterator[bytes]:
            for offset in range(0, len(data), piece):
                part = data[offset : offset + piece]
                self.claim()
                link.sleep(len(part) / self.rate)
                yield part

        return feed


class Slice(_OneWay):
    """Send in pieces of ``size`` bytes, ``delay`` seconds apart."""

    def __init__(self, direction: str, size: int, *, delay: float = 0.0) -> None:
        super().__init__(direction)
        self.size, self.delay = size, delay

    def hook(self, link: Link) -> Hook:
        def feed(data: bytes) -> Iterator[bytes]:
            for offset in range(0, len(data), self.size):
                self.claim()
                if offset and self.delay:
                    link.sleep(self.delay)
                yield data[offset : offset + self.size]

        return feed


class DropResponse(Toxic):
    """Let a request through, then cut instead of passing its response on: the registry has acted.

    The request is the first one after ``marker`` (for instance ``b"PUT /v2/"``) went up; empty means the first of all.
    """

    def __init__(self, marker: bytes = b"", *, how: str = "rst", times: int | None = 1) -> None:
        super().__init__(times=times)
        self.marker, self.how = marker, how

    def open(self, link: Link, direction: str) -> Hook:
        armed = self._armed(link)
        if direction == UP:
            return self._watch(armed)
        return self._drop(armed)

    def _armed(self, link: Link) -> threading.Event:
        with self._guard:
            return link.flags.setdefault(id(self), threading.Event())

    def _watch(self, armed: threading.Event) -> Hook:
        tail = b""

        def feed(data: bytes) -> Iterator[bytes]:
            nonlocal tail
            window = tail + data
            if self.marker in window:
                armed.set()
            tail = window[-len(self.marker) :] if self.marker else b""
            yield data

        return feed

    def _drop(self, armed: threading.Event) -> Hook:
        def feed(data: bytes) -> Iterator[bytes]:
            interim = data.startswith(b"HTTP/1.1 100") and data.count(b"\r\n\r\n") == 1
            if armed.is_set() and not interim and self.claim():
                raise CutLink(self.how)
            yield data

        return feed
