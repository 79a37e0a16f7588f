"""What urllib3 and http.client leave out of HTTP/1.1 (RFC 9110, RFC 9112), for whoever moves gigabytes.

An answer may come while a body is still on its way, and ends the sending. Informational answers come before the final
one, as many as the other side likes. A head that ends with its connection is no answer, and one that comes byte by byte
is waited for no longer than one that does not come. And a request target is sent as it was given: a Location may be
signed to the letter.
"""

import errno
import io
import re
import select
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from epoch_oci.dataclass import dataclass
from epoch_oci.oci.verifying import BLOCK, ByteReader

_POOL = 32
"""Connections kept to one host: twice the most transfers, for spans and questions come on top of them."""
_MOST_INFORMATIONAL = 1_000
"""Some gateways send one every few seconds while a registry commits a blob, for a quarter of an hour."""
_LONGEST = 1_800.0
"""Seconds that they put the final answer off, all together: twice as long as a commit is waited for."""
_SLOWEST = 16 << 10
"""Bytes a second of an answer, once it has been waited for as long as for its beginning (reliability Z5)."""
# As http.client has it for the headers of final answers.
_MOST_HEADERS = 100
_LONGEST_LINE = 64 << 10
_EARLY = 64 << 10
"""Bytes of an answer that are looked at while a body is sent."""
_UNSENT = 128 << 10
"""Bytes of a body that may wait in a socket to a registry on this machine: there is no line to be kept full, and what
it reads while that is in the processor's cache costs it a fifth less."""
_STATUS = re.compile(rb"HTTP/[0-9.]+\s+([0-9]{3})(?=\s)")
_HEAD = re.compile(rb".*?\n\r?\n", re.DOTALL)
_TARGET = re.compile(r"/[!-~]*\Z")


class Body:
    """Bytes of one request, `length` of them, block by block as requests sends what has a length.

    `left` are those in blocks that were not wholly handed to the socket, for an answer may come first. `begun` says
    that there was a connection to send to.
    """

    def __init__(self, reader: ByteReader, length: int) -> None:
        self._reader, self._length = reader, length
        self.left = length
        self.begun = False

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        while self.left and (block := self._reader.read(min(BLOCK, self.left))):
            yield block
            self.left -= len(block)  # only now: the block was sent when the next one is asked for


@dataclass(frozen=True, slots=True)
class _Sending:
    """What holds for one exchange: the request target as it was given, and the seconds of silence that end it.

    `longest` is how many seconds informational answers may go on.
    """

    target: str | None
    silence: float
    longest: float = _LONGEST


_USUAL = _Sending(None, 60.0)
_sending: ContextVar[_Sending] = ContextVar("sending", default=_USUAL)


@contextmanager
def sending(url: str, silence: float, longest: float = _LONGEST) -> Iterator[None]:
    """What is asked for meanwhile goes to the path and query of `url`, letter by letter.

    A body is given up on when nothing of it was taken for `silence` seconds, and an answer that has begun when it has
    been waited for as long and is still slower than any line; informational ones are heard for `longest` seconds.
    """
    target = url.partition("://")[2][len(urlsplit(url).netloc) :].partition("#")[0]
    token = _sending.set(_Sending(target if _TARGET.match(target) else None, silence, min(longest, _LONGEST)))
    try:
        yield
    finally:
        _sending.reset(token)


class Adapter(HTTPAdapter):
    """Blocks of 1 MiB instead of 16 KiB, room for many transfers, and connections as this module has them.

    `tls` is what is encrypted with; `stranger` gives that for a proxy, which is shown no certificate of ours.
    """

    def __init__(self, tls: ssl.SSLContext | None, stranger: Callable[[], ssl.SSLContext]) -> None:
        self._tls = {} if tls is None else {"ssl_context": tls}
        self._stranger = stranger
        super().__init__(pool_connections=4, pool_maxsize=_POOL, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As `HTTPAdapter`."""
        super().init_poolmanager(*args, **{**kwargs, **self._tls, "blocksize": BLOCK})
        _equip(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """As `HTTPAdapter`."""
        more: dict[str, Any] = {**self._tls, "blocksize": BLOCK}
        if proxy.startswith("https://"):
            more["proxy_ssl_context"] = self._stranger()
        return _equip(super().proxy_manager_for(proxy, **{**kwargs, **more}))

    def cert_verify(self, *args: object, **kwargs: object) -> None:
        """As `HTTPAdapter`, which would have the authorities read anew for each connection: the context has them."""


def _equip(manager: Any) -> Any:
    pools: Mapping[str, type] = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _equipped(pool) for scheme, pool in pools.items()}
    return manager


@cache
def _equipped(pool: Any) -> type:
    """A kind of connection pool, SOCKS proxies' own included, with our connections in it."""
    # The manager of a proxy is the same one at every request, and was equipped at the first.
    if issubclass(pool.ConnectionCls, _Wire):
        return pool  # type: ignore[no-any-return]
    connection = type(pool.ConnectionCls.__name__, (_Wire, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _Wire:
    """Goes before a connection class of urllib3."""

    sock: Any
    connect: Callable[[], None]
    _early = bytearray()
    _in_body = False
    _broken_off = False

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        self._early, self._in_body, self._broken_off = bytearray(), False, False
        super().putrequest(method, _as_given(url), *args, **kwargs)  # type: ignore[misc]

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        super().endheaders(*args, **kwargs)  # type: ignore[misc]
        self._in_body = True
        if isinstance(self.sock, socket.socket) and _is_local(self.sock):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()  # whose failures are other ones
        try:
            self._send(data)
        except (ConnectionError, ssl.SSLEOFError) as error:
            self._broken_off = True
            # Who closes without reading on may have said why before: an answer, or TLS's alert that it wants a
            # certificate. This is the one error at which urllib3 looks for that.
            raise BrokenPipeError(errno.EPIPE, "closed before all was sent") from error
        except OSError:
            self._broken_off = True
            raise

    def _send(self, data: Any) -> None:
        # Heads are short. A TLS connection inside another, to a proxy, is no socket that can be polled.
        if not self._in_body or not isinstance(self.sock, socket.socket):
            return super().send(data)  # type: ignore[misc,no-any-return]
        limit = self.sock.gettimeout()
        # A blocking send would wait for room that a registry which has answered already, and reads no more, never
        # makes.
        self.sock.settimeout(0)
        try:
            self._send_watching(memoryview(data))
        finally:
            with suppress(OSError):
                self.sock.settimeout(limit)

    def response_class(self, *args: Any, **kwargs: Any) -> "_Answer":
        """What http.client makes an answer with."""
        return _Answer(*args, early=bytes(self._early), closes=self._broken_off, **kwargs)

    def _send_watching(self, view: memoryview) -> None:
        """Send a block. Raises BrokenPipeError, which has urllib3 read the answer, as soon as there is a final one."""
        # Before it, and whenever the other side is waited for: a look before each write would be one for each record of
        # TLS.
        self._stop_if_answered()
        while view:
            try:
                view = view[self.sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLIN | select.POLLOUT)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)

    def _wait(self, events: int) -> None:
        poll = select.poll()
        poll.register(self.sock, events)
        ready = poll.poll(_sending.get().silence * 1000)
        if not ready:
            raise TimeoutError(errno.ETIMEDOUT, "nothing more was taken")
        if ready[0][1] != select.POLLOUT:
            self._stop_if_answered()

    def _stop_if_answered(self) -> None:
        if self._is_answered():
            raise BrokenPipeError(errno.EPIPE, "answered before all was sent")

    def _is_answered(self) -> bool:
        """Whether a final answer, or the end of the connection, has come. What came before it is dropped."""
        while _is_readable(self.sock):
            try:
                came = self.sock.recv(4096)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False  # TLS has messages of its own
            self._early += came
            if not came or len(self._early) > _EARLY or _is_final(self._early):
                return True
        return False


def _as_given(url: str) -> str:
    """The request target, which is a whole URL where a proxy forwards it, without what was done to its encoding."""
    given = _sending.get().target
    if given is None:
        return url
    parts = urlsplit(url)
    return given if url.startswith("/") else f"{parts.scheme}://{parts.netloc}{given}"


def _is_local(sock: socket.socket) -> bool:
    """Whether the other end is on this machine."""
    try:
        return sock.family != socket.AF_UNIX and bool(sock.getpeername()[0] == sock.getsockname()[0])
    except OSError:  # it has gone, which sending will tell
        return False


def _is_readable(sock: Any) -> bool:
    # Bytes that TLS has read and decrypted already show in no poll.
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _is_final(early: bytearray) -> bool:
    """Whether the start of a final answer is there; informational answers before it are taken out."""
    while (status := _STATUS.match(early)) is not None and _is_informational(int(status[1])):
        head = _HEAD.match(early)
        if head is None:
            return False
        del early[: head.end()]
    return status is not None or b"\n" in early


def _is_informational(status: int) -> bool:
    return 100 <= status < 200 and status != 101


class _Answer(HTTPResponse):
    """An answer whose first bytes may have come `early`; `closes` says that its connection is of no further use."""

    fp: Any

    def __init__(self, sock: Any, *args: Any, early: bytes, closes: bool, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if early:
            self.fp = io.BufferedReader(_Rejoined(early, self.fp.detach()))
        self._closes = closes
        self._watch = _Watch(self.fp.raw, _sending.get().silence)

    def begin(self) -> None:
        """As `HTTPResponse`. Raises IncompleteRead for a head that ends with its connection."""
        self.fp = _Head(self.fp)
        try:
            super().begin()
        finally:
            if isinstance(self.fp, _Head):
                self.fp = self.fp.lines
        self._watch.restart()

    def unwatched(self) -> None:
        """Let the rest take as long as its reader allows."""
        self._watch.end()

    def _read_status(self) -> tuple[str, int, str]:
        began = time.monotonic()
        for _ in range(_MOST_INFORMATIONAL):
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not _is_informational(found[1]):
                return found
            _skip_headers(self.fp)
            if time.monotonic() - began > _sending.get().longest:
                break
            self._watch.restart()
        raise HTTPException("there is no end to informational answers")

    def _check_close(self) -> bool:
        # A body that broke off leaves the other side in the middle of it: the next request would be taken for the rest.
        return self._closes or super()._check_close()  # type: ignore[misc]


def unwatched(response: requests.Response) -> None:
    """Let the body take as long as its reader allows: who reads gigabytes has a floor of its own."""
    answer = getattr(response.raw, "_original_response", None)
    if isinstance(answer, _Answer):
        answer.unwatched()


class _Watch:
    """Stands before a connection's `readinto`: the limit of a socket is for each byte, and a byte a second never ends.

    Only what comes after the first byte is counted, for a registry may think before it answers.
    """

    def __init__(self, raw: Any, seconds: float) -> None:
        self._raw = weakref.ref(raw)  # it holds this one
        self._seconds = seconds
        self.restart()
        raw.readinto = self

    def restart(self) -> None:
        """Count anew: another head, or the body, begins."""
        self._waited, self._came = 0.0, 0

    def end(self) -> None:
        """Stand aside; from here on it costs nothing."""
        with suppress(AttributeError):
            del self._raw().readinto  # type: ignore[union-attr]

    def __call__(self, buffer: Any, /) -> int | None:
        if self._waited >= self._seconds and self._came < _SLOWEST * self._waited:
            raise TimeoutError(errno.ETIMEDOUT, "the answer comes too slowly")
        raw: Any = self._raw()
        began = time.monotonic()
        count: int | None = type(raw).readinto(raw, buffer)
        if self._came:
            self._waited += time.monotonic() - began
        self._came += count or 0
        return count


class _Head:
    """The lines of an answer's head, each of which has to end."""

    def __init__(self, lines: Any) -> None:
        self.lines = lines
        self._begun = False

    def readline(self, limit: int = -1, /) -> bytes:
        line: bytes = self.lines.readline(limit)
        if not line.endswith(b"\n") and (line or self._begun) and not len(line) == limit:
            raise IncompleteRead(b"")
        self._begun = True
        return line

    def close(self) -> None:
        self.lines.close()


def _skip_headers(head: Any) -> None:
    for _ in range(_MOST_HEADERS):
        line = head.readline(_LONGEST_LINE)
        if line in (b"\r\n", b"\n", b""):
            return
        if not line.endswith(b"\n"):
            break
    raise HTTPException("the head of an informational answer is too long")


class _Rejoined(io.RawIOBase):
    """What was read early, and the rest of the connection."""

    def __init__(self, early: bytes, rest: Any) -> None:
        self._early, self._rest = memoryview(early), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if not self._early:
            return self._rest.readinto(buffer)  # type: ignore[no-any-return]
        count = min(len(buffer), len(self._early))
        buffer[:count] = self._early[:count]
        self._early = self._early[count:]
        return count

    def close(self) -> None:
        self._rest.close()
        super().close()
