"""``FaultProxy``: a TCP proxy that does to a connection what its toxics say; faults below HTTP, also under TLS.

    with FaultProxy(registry.address, Cut("down", 1000, times=1)) as proxy:     # or the ``proxy`` fixture, a factory
        ...                                                # drive the client at proxy.address
        proxy.assert_fired()                               # the fixture does it for you at the end

``down`` is towards the client, ``up`` towards the upstream. Toxics apply to connections opened after ``add``.
``times`` limits how often a toxic strikes over all connections; ``fired`` counts.
"""

import socket
import threading
from collections.abc import Iterable
from contextlib import suppress

from support.net import LOOPBACK, Server, half_close, interrupt, reset, wait_until_sent
from support.toxics import DOWN, UP, Bandwidth, Cut, CutLink, DropResponse, Hook, Latency, Slice, Stall, Toxic
from support.wire import BLOCK

CONNECT_SECONDS = 60.0
DRAIN_SECONDS = 1.0

__all__ = ["DOWN", "UP", "Bandwidth", "Cut", "DropResponse", "FaultProxy", "Latency", "Slice", "Stall", "Toxic"]


class Link:
    """One proxied connection."""

    def __init__(self, proxy: "FaultProxy", client: socket.socket, upstream: socket.socket) -> None:
        self.proxy, self.client, self.upstream = proxy, client, upstream
        self.closed = threading.Event()
        self.drain_client = False
        self.flags: dict[int, threading.Event] = {}
        """State that a toxic shares between the two directions, by the toxic's ``id``."""

    def sleep(self, seconds: float | None) -> None:
        """Wait; None is until the connection or the proxy ends."""
        waited = 0.0
        while not self.closed.is_set() and not self.proxy.stopping.is_set():
            step = 0.05 if seconds is None else min(0.05, seconds - waited)
            if step <= 0:
                return
            self.closed.wait(step)
            waited += step
        raise CutLink("rst")


class FaultProxy(Server):
    """Forwards to ``upstream``: ``"HOST:PORT"`` or a pair. Counts ``bytes_up`` and ``bytes_down`` as passed on."""

    def __init__(self, upstream: str | tuple[str, int], *toxics: Toxic) -> None:
        super().__init__()
        host, port = upstream.rsplit(":", 1) if isinstance(upstream, str) else upstream
        self.upstream = (host or LOOPBACK, int(port))
        self.toxics: list[Toxic] = list(toxics)
        self.bytes_up = 0
        self.bytes_down = 0

    def add(self, toxic: Toxic) -> Toxic:
        self.toxics.append(toxic)
        return toxic

    def clear(self) -> None:
        """Take all toxics away, for connections opened from now on."""
        self.toxics.clear()

    def assert_fired(self, *toxics: Toxic) -> None:
        silent = [toxic for toxic in toxics or self.toxics if not toxic.fired]
        assert not silent, f"toxics that never fired: {silent}; {self.bytes_up} B up, {self.bytes_down} B down"

    def serve(self, sock: socket.socket) -> None:
        upstream = socket.create_connection(self.upstream, timeout=CONNECT_SECONDS)
        self.track(upstream)
        try:
            upstream.settimeout(None)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(self, sock, upstream)
            toxics = list(self.toxics)
            back = self._spawn(self._pump, link, DOWN, toxics)
            self._pump(link, UP, toxics)
            back.join()
            if link.drain_client:
                _drain(sock)
        finally:
            self.untrack(upstream)

    def _pump(self, link: Link, direction: str, toxics: list[Toxic]) -> None:
        source, sink = (link.client, link.upstream) if direction == UP else (link.upstream, link.client)
        hooks = [hook for toxic in toxics if (hook := toxic.open(link, direction))]
        try:
            while data := source.recv(BLOCK):
                for piece in _through(hooks, data):
                    sink.sendall(piece)
                    self._count(direction, len(piece))
            if not link.closed.is_set():
                half_close(sink)
        except CutLink as cut:
            self._cut(link, cut.how)
        except OSError:
            # One side broke: the other must learn of it.
            link.closed.set()
            interrupt(link.client)
            interrupt(link.upstream)
        except Exception as unexpected:
            self._errors.append(unexpected)

    def _count(self, direction: str, length: int) -> None:
        with self._guard:
            if direction == UP:
                self.bytes_up += length
            else:
                self.bytes_down += length

    def _cut(self, link: Link, how: str) -> None:
        """End the client's side as asked, after what was passed has arrived; the upstream sees a broken peer."""
        if link.closed.is_set():
            return
        link.closed.set()
        with suppress(OSError, ValueError):
            wait_until_sent(link.client)
            wait_until_sent(link.upstream)
        if how == "fin":
            half_close(link.client)
            link.drain_client = True
        else:
            _reset_under_reader(link.client)
        _reset_under_reader(link.upstream)


def _reset_under_reader(sock: socket.socket) -> None:
    """RST, also while the other pump is blocked in ``recv``: that call holds the socket open until SHUT_RD ends it."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
    reset(sock)


def _drain(sock: socket.socket) -> None:
    """Read what the peer still sends: closing over unread input would turn our FIN into a RST."""
    sock.settimeout(DRAIN_SECONDS)
    with suppress(OSError):
        while sock.recv(BLOCK):
            pass


def _through(hooks: list[Hook], data: bytes) -> Iterable[bytes]:
    pieces: Iterable[bytes] = (data,)
    for hook in hooks:
        pieces = (out for piece in pieces for out in hook(piece))
    return pieces
