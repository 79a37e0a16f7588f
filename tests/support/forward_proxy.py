"""``ForwardProxy``: a proxy of HTTP (forwarding and CONNECT) and of SOCKS 5 in one, that knows where names lead.

``hosts`` maps a name to the ``HOST:PORT`` behind it; any other is refused. ``login`` is (user, password), asked for by
the rules of each protocol. ``asked`` has every ``HOST:PORT`` that was asked for.
"""

import base64
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress

from support.net import Server, half_close
from support.wire import Stream

_REQUEST = re.compile(rb"(\S+) http://([^/\s]+)(\S*) (HTTP/1\.1\r\n)")


class ForwardProxy(Server):
    """See the module."""

    def __init__(
        self,
        hosts: Mapping[str, str],
        *,
        login: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        refuses: int | None = None,
    ) -> None:
        super().__init__(tls=tls)
        self.hosts, self.login, self.refuses = dict(hosts), login, refuses
        self.asked: list[str] = []

    def serve(self, sock: socket.socket) -> None:
        stream = Stream(sock)
        first = stream.read(1)
        if first == b"\x05":
            self._socks(sock, stream)
        elif first:
            self._http(sock, stream, first)

    def _http(self, sock: socket.socket, stream: Stream, first: bytes) -> None:
        head = first
        while not head.endswith(b"\r\n\r\n"):
            line = stream.line()
            if not line:
                return None
            head += line
        forwarded = _REQUEST.match(head)
        where = forwarded[2].decode() if forwarded else head.split()[1].decode()
        self.asked.append(where)
        if self.login is not None:
            wanted = base64.b64encode(":".join(self.login).encode())
            if b"\r\nproxy-authorization: basic " + wanted.lower() not in head.lower():
                return self._say(sock, 407, b"Proxy-Authenticate: Basic realm=x\r\n")
        if self.refuses is not None:
            return self._say(sock, self.refuses)
        upstream = self._connect(where)
        if upstream is None:
            return self._say(sock, 502)
        if forwarded is None:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:  # one request a connection, which keeps this simple
            path = forwarded[3] or b"/"
            rest = head[forwarded.end() :].replace(b"Connection: keep-alive\r\n", b"")
            upstream.sendall(forwarded[1] + b" " + path + b" HTTP/1.1\r\nConnection: close\r\n" + rest)
        return self._relay(sock, stream, upstream)

    def _say(self, sock: socket.socket, status: int, headers: bytes = b"") -> None:
        sock.sendall(b"HTTP/1.1 %d No\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n" % (status, headers))

    def _socks(self, sock: socket.socket, stream: Stream) -> None:
        methods = _exactly(stream, _exactly(stream, 1)[0])
        wanted = b"\x02" if self.login else b"\x00"
        if wanted not in methods:
            sock.sendall(b"\x05\xff")
            return
        sock.sendall(b"\x05" + wanted)
        if self.login is not None:
            _exactly(stream, 1)
            given = tuple(_exactly(stream, _exactly(stream, 1)[0]).decode() for _ in range(2))
            sock.sendall(b"\x01" + (b"\x00" if given == self.login else b"\x01"))
            if given != self.login:
                return
        kind = _exactly(stream, 4)[3]
        raw = _exactly(stream, _exactly(stream, 1)[0] if kind == 3 else 4)
        host = raw.decode() if kind == 3 else socket.inet_ntoa(raw)
        where = f"{host}:{int.from_bytes(_exactly(stream, 2), 'big')}"
        self.asked.append(where)
        upstream = self._connect(where)
        sock.sendall(b"\x05" + (b"\x00" if upstream else b"\x04") + b"\x00\x01" + bytes(6))
        if upstream is not None:
            self._relay(sock, stream, upstream)

    def _connect(self, where: str) -> socket.socket | None:
        target = self.hosts.get(where.rpartition(":")[0] if ":" in where else where)
        if target is None:
            return None
        host, _, port = target.rpartition(":")
        upstream = socket.create_connection((host, int(port)))
        self.track(upstream)
        return upstream

    def _relay(self, sock: socket.socket, stream: Stream, upstream: socket.socket) -> None:
        def down() -> None:
            with suppress(OSError):
                while data := upstream.recv(1 << 16):
                    sock.sendall(data)
            half_close(sock)

        thread = threading.Thread(target=down, daemon=True)
        thread.start()
        with suppress(OSError):
            while data := stream.read(1 << 16):
                upstream.sendall(data)
        half_close(upstream)
        thread.join(10)
        self.untrack(upstream)


def _exactly(stream: Stream, count: int) -> bytes:
    found = b""
    while len(found) < count and (data := stream.read(count - len(found))):
        found += data
    return found
