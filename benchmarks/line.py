"""A proxy on loopback that is a line: so many bytes a second for each connection, so long on the way, and counted.

It can also be a bad one, which cuts connections in the middle.
"""

import contextlib
import random
import re
import socket
import socketserver
import struct
import threading
import time
from collections import deque

from benchmarks.measure import MIB

BLOCK = 64 << 10
IN_FLIGHT = 4 * MIB  # what a connection may have under way, as a window of TCP would allow
REQUEST = re.compile(rb"(?:GET|HEAD|PUT|POST|PATCH|DELETE) /")


class Line:
    """Forwards to `upstream` (HOST:PORT). `rate` is bytes a second and connection, `delay` seconds one way; 0: none.

    `resets` is the chance that a connection is reset while it carries a MiB: from 0 to 1, drawn from `seed`.
    """

    def __init__(self, upstream: str, *, rate: float = 0, delay: float = 0, resets: float = 0, seed: int = 0) -> None:
        self.rate, self.delay, self.resets, self.cut = rate, delay, resets, 0
        self._dice = random.Random(seed)
        self.up = self.down = self.requests = 0
        self._upstream = upstream
        self._lock = threading.Lock()
        line = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                line._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def taken(self) -> dict[str, int]:
        """What has passed since the last time this was asked: bytes up and down, and requests."""
        with self._lock:
            found = {"up": self.up, "down": self.down, "requests": self.requests}
            self.up = self.down = self.requests = 0
            return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socket.socket) -> None:
        host, _, port = self._upstream.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            for end in (client, upstream):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fate = self._fate()
            back = threading.Thread(target=self._pump, args=(upstream, client, False, fate), daemon=True)
            back.start()
            self._pump(client, upstream, True, fate)
            back.join()

    def _fate(self) -> "_Fate":
        with self._lock:
            return _Fate(self._dice.expovariate(self.resets) * MIB if self.resets else float("inf"))

    def _pump(self, source: socket.socket, target: socket.socket, up: bool, fate: "_Fate") -> None:
        """One direction. A thread reads and dates what it read, this one sends it when its time has come."""
        queue: deque[tuple[float, bytes]] = deque()
        state = threading.Condition()
        reader = threading.Thread(target=self._read, args=(source, target, queue, state, up, fate), daemon=True)
        reader.start()
        try:
            while True:
                with state:
                    state.wait_for(lambda: queue)
                    due, block = queue[0]
                if not block:
                    break
                if (wait := due - time.monotonic()) > 0:
                    time.sleep(wait)
                target.sendall(block)
                with state:
                    queue.popleft()
                    state.notify_all()
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _read(
        self,
        source: socket.socket,
        target: socket.socket,
        queue: deque[tuple[float, bytes]],
        state: threading.Condition,
        up: bool,
        fate: "_Fate",
    ) -> None:
        clear = 0.0
        while True:
            try:
                block = source.recv(BLOCK)
            except OSError:
                block = b""
            if fate.struck(len(block)):
                self._reset(source, target)
                block = b""
            now = time.monotonic()
            clear = max(clear, now) + (len(block) / self.rate if self.rate else 0)
            with state:
                queue.append((clear + self.delay, block))
                state.notify_all()
                state.wait_for(lambda: sum(len(each) for _, each in queue) < IN_FLIGHT)
            self._count(block, up)
            if not block:
                return

    def _reset(self, *ends: socket.socket) -> None:
        """With this option the kernel answers a reset, not an orderly end, once the socket is closed."""
        with self._lock:
            self.cut += 1
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, block: bytes, up: bool) -> None:
        with self._lock:
            if up:
                self.up += len(block)
                self.requests += bool(REQUEST.match(block))
            else:
                self.down += len(block)


class _Fate:
    """How many bytes a connection may still carry in both directions together."""

    def __init__(self, left: float) -> None:
        self._left, self._lock = left, threading.Lock()

    def struck(self, size: int) -> bool:
        """Whether its end comes with these bytes; said once."""
        with self._lock:
            before, self._left = self._left, self._left - size
            return before > 0 >= self._left
