"""A proxy on loopback that is a line: so many bytes a second for each connection, so long on the way, and counted."""

import contextlib
import re
import socket
import socketserver
import threading
import time
from collections import deque

from benchmarks.measure import MIB

BLOCK = 64 << 10
IN_FLIGHT = 4 * MIB  # what a connection may have under way, as a window of TCP would allow
REQUEST = re.compile(rb"(?:GET|HEAD|PUT|POST|PATCH|DELETE) /")


class Line:
    """Forwards to `upstream` (HOST:PORT). `rate` is bytes a second and connection, `delay` seconds one way; 0: none."""

    def __init__(self, upstream: str, *, rate: float = 0, delay: float = 0) -> None:
        self.rate, self.delay = rate, delay
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
            back = threading.Thread(target=self._pump, args=(upstream, client, False), daemon=True)
            back.start()
            self._pump(client, upstream, True)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        """One direction. A thread reads and dates what it read, this one sends it when its time has come."""
        queue: deque[tuple[float, bytes]] = deque()
        state = threading.Condition()
        reader = threading.Thread(target=self._read, args=(source, queue, state, up), daemon=True)
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
        self, source: socket.socket, queue: deque[tuple[float, bytes]], state: threading.Condition, up: bool
    ) -> None:
        clear = 0.0
        while True:
            try:
                block = source.recv(BLOCK)
            except OSError:
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

    def _count(self, block: bytes, up: bool) -> None:
        with self._lock:
            if up:
                self.up += len(block)
                self.requests += bool(REQUEST.match(block))
            else:
                self.down += len(block)
