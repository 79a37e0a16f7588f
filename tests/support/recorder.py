"""``Recorder``: a server of another origin, standing for an attacker; it writes down every byte it is sent.

    with Recorder() as other:                       # or the ``recorder`` fixture; ``make_recorder`` for several, TLS
        registry.fault("PATCH", "/uploads/", ForeignLocation(other.url))
        ...
        other.assert_untouched()                    # not even a connection
        assert not other.shows(PASSWORD)            # or: talked to, but no secret in any encoding

``answer`` is what it replies to every request: an ``Answer``, or a function of the request; None closes instead.
"""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from support import canary
from support.net import Server
from support.recording import Recorded, Recording
from support.wire import Answer, PeerGone, Request, Stream, read_request, wants_to_close, write_answer

KEPT = 4 * 1024 * 1024


class Recorder(Server):
    """``recording`` holds parsed requests, ``received`` raw bytes (the first 4 MiB), ``bytes_received`` their count."""

    def __init__(
        self,
        answer: Answer | Callable[[Request], Answer] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(tls=tls, port=port)
        self.answer: Answer | Callable[[Request], Answer] | None = answer or Answer.of(404, b"nothing here\n")
        self.recording = Recording()
        self.bytes_received = 0
        self._received = bytearray()

    @property
    def received(self) -> bytes:
        return bytes(self._received)

    @property
    def requests(self) -> list[Recorded]:
        return list(self.recording)

    def shows(self, secret: str) -> bool:
        """Whether ``secret`` is in what was received, raw or encoded."""
        return canary.shows(secret, self.received)

    def body_bytes(self) -> int:
        """Body bytes over all requests."""
        return self.recording.body_bytes()

    def assert_untouched(self) -> None:
        assert not self.connections, f"{self.connections} connections:\n{self.received[:2000]!r}"

    def assert_no_body(self) -> None:
        assert not self.body_bytes(), self.recording.summary()

    def serve(self, sock: socket.socket) -> None:
        connection = self.connections
        stream = Stream(sock, self._tap)
        with suppress(PeerGone):
            while request := read_request(stream):
                entry = self.recording.add(request, connection)
                try:
                    for _ in request.body:
                        pass
                finally:
                    self.recording.finish(entry)
                if not self._reply(stream, request, entry):
                    return

    def _tap(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._received += data[: max(0, KEPT - len(self._received))]

    def _reply(self, stream: Stream, request: Request, entry: Recorded) -> bool:
        answer = self.answer(request) if callable(self.answer) else self.answer
        if answer is None:
            return False
        entry.status = answer.status
        write_answer(stream, request, answer)
        return not wants_to_close(request) and not answer.close
