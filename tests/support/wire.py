"""HTTP/1.1 as our test servers speak it: full control over framing, so that a fault can break any of it.

``read_request(stream)`` gives a ``Request`` whose ``body`` is read lazily; ``write_answer(stream, request, answer)``
sends an ``Answer``. ``Answer.filters`` see the body on its way out; ``Answer.lengths`` replaces Content-Length.
"""

import json
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import parse_headers
from io import BytesIO
from typing import Self

MAX_HEAD = 256 * 1024
BLOCK = 256 * 1024
KEPT_BODY = 64 * 1024

Filter = Callable[[Iterator[bytes]], Iterator[bytes]]


class PeerGone(ConnectionError):  # noqa: N818  # a state of the peer
    """The peer closed in the middle of a message."""


class CutConnection(Exception):  # noqa: N818  # control flow, not an error
    """End this connection now: with RST when ``rst``, else with FIN."""

    def __init__(self, *, rst: bool = True) -> None:
        super().__init__("cut")
        self.rst = rst


class Reply(Exception):  # noqa: N818  # control flow, not an error
    """Answer this now, wherever the exchange stands."""

    def __init__(self, answer: "Answer") -> None:
        super().__init__(answer.status)
        self.answer = answer


class Stream:
    """A socket with line and exact reads; ``tap`` is shown every byte received."""

    def __init__(self, sock: socket.socket, tap: Callable[[bytes], None] | None = None) -> None:
        self.sock = sock
        self._tap = tap
        self._buffer = bytearray()

    def _fill(self) -> bool:
        data = self.sock.recv(BLOCK)
        if data and self._tap is not None:
            self._tap(data)
        self._buffer += data
        return bool(data)

    def read(self, limit: int) -> bytes:
        """Up to ``limit`` bytes; empty at the end of the connection."""
        if not self._buffer and not self._fill():
            return b""
        data = bytes(self._buffer[:limit])
        del self._buffer[:limit]
        return data

    def line(self) -> bytes:
        """One line with its end; empty when the peer closed before sending anything."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise PeerGone("line too long")
            if not self._fill():
                if self._buffer:
                    raise PeerGone("closed inside a line")
                return b""
        data = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return data

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)


class Body:
    """A request's body, read once. ``break_at`` bytes in, ``on_break`` is called and must raise."""

    def __init__(self, stream: Stream, headers: Message) -> None:
        self.chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        declared = headers.get("Content-Length")
        self.declared = None if self.chunked else int(declared or 0)
        self.received = 0
        self.head = bytearray()
        self.awaits_continue = headers.get("Expect", "").lower() == "100-continue"
        self.break_at: int | None = None
        self.on_break: Callable[[], None] | None = None
        self.stream = stream
        self._left_in_chunk = 0
        self._ended = self.declared == 0

    @property
    def ended(self) -> bool:
        return self._ended

    def read(self, limit: int = BLOCK) -> bytes:
        """Up to ``limit`` bytes; empty at the end of the body. Raises PeerGone when the peer leaves before."""
        if self.break_at is not None and self.received >= self.break_at and self.on_break is not None:
            self.on_break()
        if self._ended:
            return b""
        self._say_continue()
        if self.break_at is not None:
            limit = min(limit, self.break_at - self.received)
        data = self._read_chunked(limit) if self.chunked else self._read_plain(limit)
        self.received += len(data)
        self.head += data[: max(0, KEPT_BODY - len(self.head))]
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def read_all(self, cap: int = 64 * 1024 * 1024) -> bytes:
        """The whole body, or its first bytes just beyond ``cap``."""
        data = bytearray()
        while len(data) <= cap and (block := self.read()):
            data += block
        return bytes(data)

    def _say_continue(self) -> None:
        if self.awaits_continue:
            self.awaits_continue = False
            self.stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take(self, limit: int) -> bytes:
        data = self.stream.read(limit)
        if not data:
            raise PeerGone("closed inside a body")
        return data

    def _read_plain(self, limit: int) -> bytes:
        assert self.declared is not None
        data = self._take(min(limit, self.declared - self.received))
        self._ended = self.received + len(data) == self.declared
        return data

    def _read_chunked(self, limit: int) -> bytes:
        if not self._left_in_chunk:
            self._left_in_chunk = int(self._line().split(b";")[0], 16)
        if not self._left_in_chunk:
            while self._line().strip():
                pass
            self._ended = True
            return b""
        data = self._take(min(limit, self._left_in_chunk))
        self._left_in_chunk -= len(data)
        if not self._left_in_chunk:
            self._line()
        return data

    def _line(self) -> bytes:
        line = self.stream.line()
        if not line:
            raise PeerGone("closed inside a chunk")
        return line


@dataclass(slots=True)
class Request:
    """One request. ``path`` is percent-decoded, ``target`` is what stood in the request line."""

    method: str
    target: str
    version: str
    headers: Message
    body: Body
    scheme: str = "http"
    path: str = ""
    query: str = ""

    def __post_init__(self) -> None:
        raw_path, _, self.query = self.target.partition("?")
        self.path = urllib.parse.unquote(raw_path)

    @property
    def origin(self) -> str:
        """Scheme, host and port as the client wrote them."""
        return f"{self.scheme}://{self.headers.get('Host')}"

    def params(self) -> dict[str, list[str]]:
        return urllib.parse.parse_qs(self.query, keep_blank_values=True)

    def param(self, name: str) -> str | None:
        return self.params().get(name, [None])[0]


def read_request(stream: Stream) -> Request | None:
    """Read a request's head; None when the peer closed between requests. Raises PeerGone on a broken head."""
    line = stream.line()
    while line in (b"\r\n", b"\n"):
        line = stream.line()
    if not line:
        return None
    words = line.decode("latin-1").split()
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise PeerGone(f"not a request line: {line[:80]!r}")
    head = bytearray()
    while (field_line := stream.line()).strip():
        head += field_line
        if len(head) > MAX_HEAD:
            raise PeerGone("head too long")
    if not field_line:
        raise PeerGone("closed inside the head")
    headers = parse_headers(BytesIO(bytes(head) + b"\r\n"))
    scheme = "https" if isinstance(stream.sock, ssl.SSLSocket) else "http"
    return Request(words[0], words[1], words[2], headers, Body(stream, headers), scheme)


@dataclass(slots=True)
class Answer:
    """A response: ``size`` bytes from ``chunks()``, through ``filters``, under the given header lines."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: Callable[[], Iterable[bytes]] = tuple
    size: int = 0
    filters: list[Filter] = field(default_factory=list)
    lengths: tuple[str, ...] | None = None
    chunked: bool = False
    close: bool = False

    @classmethod
    def of(cls, status: int, body: bytes = b"", *headers: tuple[str, str]) -> Self:
        return cls(status, list(headers), lambda: (body,) if body else (), len(body))

    @classmethod
    def json(cls, status: int, value: object, *headers: tuple[str, str]) -> Self:
        return cls.of(status, json.dumps(value).encode(), ("Content-Type", "application/json"), *headers)

    @classmethod
    def error(cls, status: int, code: str, message: str = "", *headers: tuple[str, str], detail: object = None) -> Self:
        """An OCI error body with one entry (distribution-spec, "Error Codes")."""
        entry = {"code": code, "message": message or code.lower().replace("_", " "), "detail": detail}
        return cls.json(status, {"errors": [entry]}, *headers)

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def set(self, name: str, *values: str) -> None:
        """Replace every ``name`` header by ``values``; none removes it."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        self.headers += [(name, value) for value in values]

    def replace_body(self, body: bytes) -> None:
        self.chunks, self.size = (lambda: (body,)), len(body)

    def length_lines(self) -> tuple[str, ...]:
        if self.lengths is not None:
            return self.lengths
        if self.chunked or self.status in (204, 304):
            return ()
        return (str(self.size),)

    def has_body(self, method: str) -> bool:
        return method != "HEAD" and self.status not in (204, 304) and self.status >= 200


def _head(request: Request, answer: Answer) -> bytes:
    reason = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else "Other"
    lines = [f"HTTP/1.1 {answer.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += [f"Content-Length: {value}" for value in answer.length_lines()]
    if answer.chunked:
        lines.append("Transfer-Encoding: chunked")
    if answer.close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def write_answer(stream: Stream, request: Request, answer: Answer) -> None:
    """Send ``answer``. A filter may raise CutConnection, which leaves the message unfinished."""
    stream.write(_head(request, answer))
    if not answer.has_body(request.method):
        return
    blocks: Iterator[bytes] = iter(answer.chunks())
    for each in answer.filters:
        blocks = each(blocks)
    for block in blocks:
        if answer.chunked and block:
            block = b"%x\r\n%b\r\n" % (len(block), block)
        stream.write(block)
    if answer.chunked:
        stream.write(b"0\r\n\r\n")


def wants_to_close(request: Request) -> bool:
    return request.version == "HTTP/1.0" or "close" in request.headers.get("Connection", "").lower()
