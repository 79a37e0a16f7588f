"""A reverse proxy on loopback that counts requests and body bytes, and passes everything on as it is."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BLOCK = 256 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "upgrade", "expect"}


@dataclass(slots=True)
class Count:
    """`sent` are body bytes of requests on blob uploads, `received` those of answers to GETs of blobs."""

    requests: int = 0
    sent: int = 0
    received: int = 0


def _chunk(piece: bytes | memoryview) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), bytes(piece))


class CountingProxy(ThreadingHTTPServer):
    """Listens on a port of its own while in a `with`."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.upstream = upstream
        self.count = Count()
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A contender that hangs up early is no news; what it did not get it reports itself."""


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CountingProxy

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, _, port = self.server.upstream.partition(":")
        self.upstream = http.client.HTTPConnection(host, int(port), timeout=600)

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def relay(self) -> None:
        """Pass on one request and its answer."""
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.upstream.putheader(name, value)
        self.upstream.endheaders()
        sent = 0
        for piece in self._chunks() if chunked else self._body():
            self.upstream.send(_chunk(piece) if chunked else piece)
            sent += len(piece)
        if chunked:
            self.upstream.send(b"0\r\n\r\n")
        response = self.upstream.getresponse()
        # Before the answer goes out: whoever waits for it may read the count as soon as he has it.
        with self.server.lock:
            self.server.count.requests += 1
            self.server.count.sent += sent if "/blobs/uploads/" in self.path else 0
        self._answer(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = relay  # noqa: N815  # the server's names

    def _body(self) -> Iterator[memoryview]:
        left = int(self.headers.get("Content-Length", 0))
        buffer = memoryview(bytearray(BLOCK))
        while left and (got := self.rfile.readinto(buffer[: min(left, BLOCK)])):
            left -= got
            yield buffer[:got]

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _answer(self, response: http.client.HTTPResponse) -> None:
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self.send_response_only(response.status, response.reason)
        for name, value in response.headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()
        of_a_blob = "/blobs/sha256:" in self.path
        buffer = memoryview(bytearray(BLOCK))
        while got := response.readinto(buffer):
            with self.server.lock:
                self.server.count.received += got if of_a_blob else 0
            self.wfile.write(_chunk(buffer[:got]) if chunked else buffer[:got])
        if chunked and self.command != "HEAD":
            self.wfile.write(b"0\r\n\r\n")
        response.close()  # that of a HEAD stays open else, and the connection with it

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def counting(upstream: str) -> Iterator[CountingProxy]:
    """A proxy before the registry at `upstream`."""
    with CountingProxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
