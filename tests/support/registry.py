"""``FakeRegistry``: an in-process HTTP(S) registry on loopback, conformant until a fault rule says otherwise.

    with FakeRegistry(auth=BearerAuth()) as registry:         # or the ``fake_registry`` fixture, a factory
        digest = registry.put_blob("acme/bot", b"...")
        registry.put_manifest("acme/bot", "v1", manifest([b"..."]))
        registry.fault("GET", r"/blobs/", Truncate(10), first=1)   # faults are in support.faults
        ...                                                   # drive the client at registry.address
        assert registry.recording.count("GET", r"/blobs/") == 2
        registry.assert_fired()                               # the fixture does it for you at the end

A rule matches by method (``"GET"``, ``"GET|HEAD"``, ``"*"``) and a regular expression searched in the request target
(path and query as sent). ``nth=3``: the third match only; ``nth=(1, 3)``; ``first=2``: the first two; neither: every
one; ``when=predicate(request)``: only such requests are matches at all.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from support.content import MANIFEST, digest_of
from support.content import manifest as build_manifest
from support.faults import Exchange, Fault
from support.net import Server, half_close, reset, wait_until_sent
from support.recording import Recorded, Recording, matches
from support.registry_api import Api
from support.registry_auth import Need, NoAuth
from support.registry_call import Behaviour
from support.registry_state import Manifest, Repository, State
from support.wire import (
    Answer,
    CutConnection,
    PeerGone,
    Reply,
    Request,
    Stream,
    read_request,
    wants_to_close,
    write_answer,
)

UNREAD_LIMIT = 256 * 1024
"""Unread body bytes a server still swallows before it gives up the connection, as Go's net/http does."""
LINGER_SECONDS = 0.3


class Rule:
    """A fault and when it applies. ``matched`` counts requests, ``fired`` how often the fault took effect."""

    def __init__(
        self,
        method: str,
        pattern: str,
        fault: Fault,
        nth: Iterable[int] | None,
        first: int | None,
        when: Callable[[Request], bool] | None,
        optional: bool,
    ) -> None:
        self.method, self.pattern, self.fault = method, pattern, fault
        self.nth = None if nth is None else frozenset(nth)
        self.first, self.when, self.optional = first, when, optional
        self.matched = 0
        self.fired = 0
        self._guard = threading.Lock()

    def applies(self, request: Request) -> bool:
        """Whether the fault is due; counts the request when it matches."""
        if not matches(request.method, request.target, self.method, self.pattern):
            return False
        if self.when is not None and not self.when(request):
            return False
        with self._guard:
            self.matched += 1
            if self.nth is not None:
                return self.matched in self.nth
            return self.first is None or self.matched <= self.first

    def fire(self) -> None:
        with self._guard:
            self.fired += 1

    def __repr__(self) -> str:
        fault = type(self.fault).__name__
        return f"{fault} on {self.method} {self.pattern!r}: matched {self.matched}, fired {self.fired}"


class FakeRegistry(Server):
    """See the module. ``options`` are the fields of ``Behaviour`` (also at ``registry.behaviour``, changeable)."""

    def __init__(
        self,
        *,
        auth: NoAuth | None = None,
        tls: ssl.SSLContext | None = None,
        spool: Path | None = None,
        port: int = 0,
        **options: object,
    ) -> None:
        super().__init__(tls=tls, port=port)
        self.auth = auth or NoAuth()
        self.behaviour = Behaviour(**options)  # type: ignore[arg-type]
        self.state = State(spool)
        self.recording = Recording()
        self.rules: list[Rule] = []
        self._api = Api(self.state, self.auth, self.behaviour)

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self.state.close()

    def restart(self, *, forget_uploads: bool = True) -> None:
        """Drop every connection and listen again on the same port; sessions are lost unless told otherwise."""
        super().stop()
        if forget_uploads:
            self.forget_uploads()
        self.start()

    # Faults

    def fault(
        self,
        method: str,
        pattern: str,
        fault: Fault,
        *,
        nth: int | Iterable[int] | None = None,
        first: int | None = None,
        when: Callable[[Request], bool] | None = None,
        optional: bool = False,
    ) -> Rule:
        """Add a rule; ``optional`` ones may stay unfired. Rules apply in the order they were added."""
        times = (nth,) if isinstance(nth, int) else nth
        rule = Rule(method, pattern, fault, times, first, when, optional)
        self.rules.append(rule)
        return rule

    def clear_faults(self) -> None:
        """Take all rules away."""
        self.rules.clear()

    def assert_fired(self, *rules: Rule) -> None:
        """Fail when a rule (by default: any that is not optional) never took effect."""
        checked = rules or [rule for rule in self.rules if not rule.optional]
        silent = [rule for rule in checked if not rule.fired]
        assert not silent, f"faults that never fired: {silent}\nrequests:\n{self.recording.summary()}"

    # Content

    def put_blob(self, repository: str, data: bytes | Iterable[bytes], digest: str | None = None) -> str:
        """Keep a blob; a given ``digest`` is believed (to plant a wrong blob). Returns the digest."""
        return self.state.put_blob(repository, data, digest)

    def put_manifest(self, repository: str, reference: str | None, body: bytes, media_type: str = MANIFEST) -> str:
        """Keep exact bytes under their sha256, and under ``reference``: a tag, a digest (believed) or None."""
        is_digest = reference is not None and ":" in reference
        digest = reference if is_digest and reference else digest_of(body)
        self.state.put_manifest(repository, digest, Manifest(body, media_type), None if is_digest else reference)
        return digest

    def put_image(self, repository: str, tag: str, layers: Sequence[bytes] = (b"layer",), config: bytes = b"{}") -> str:
        """A complete small image: blobs and manifest. Returns the manifest's digest."""
        for blob in (config, *layers):
            self.put_blob(repository, blob)
        return self.put_manifest(repository, tag, build_manifest(layers, config=config))

    def tag(self, repository: str, tag: str, digest: str) -> None:
        with self.state.guard:
            self.state.repository(repository).tags[tag] = digest

    def repository(self, name: str) -> Repository:
        return self.state.repository(name)

    def blobs(self, repository: str) -> dict[str, int]:
        """Size by digest."""
        with self.state.guard:
            return {digest: content.size for digest, content in self.repository(repository).blobs.items()}

    def blob(self, repository: str, digest: str) -> bytes:
        """The blob's bytes; raises KeyError."""
        return self.repository(repository).blobs[digest].read()

    def manifests(self, repository: str) -> dict[str, bytes]:
        """Exact bytes by digest."""
        with self.state.guard:
            return {digest: each.body for digest, each in self.repository(repository).manifests.items()}

    def manifest(self, repository: str, reference: str) -> bytes:
        """Exact bytes under a tag or digest; raises KeyError."""
        found = self.repository(repository).manifest(reference)
        if found is None:
            raise KeyError(reference)
        return found[1].body

    def tags(self, repository: str) -> dict[str, str]:
        """Digest by tag."""
        with self.state.guard:
            return dict(self.repository(repository).tags)

    def uploads(self, repository: str) -> dict[str, int]:
        """Bytes received by open session."""
        with self.state.guard:
            return {key: each.content.size for key, each in self.repository(repository).uploads.items()}

    def delete_blob(self, repository: str, digest: str) -> None:
        with self.state.guard:
            del self.repository(repository).blobs[digest]

    def forget_uploads(self) -> int:
        """Lose every upload session; returns how many there were."""
        return self.state.forget_uploads()

    def traces(self, secret: str) -> list[Recorded]:
        """Requests in which ``secret`` showed, raw or encoded."""
        return self.recording.traces(secret)

    def needs(self, request: Request) -> list[Need]:
        """What the registry would ask for this request."""
        return self._api.needs_of(request)

    # One connection

    def serve(self, sock: socket.socket) -> None:
        connection = self.connections
        stream = Stream(sock)
        with suppress(PeerGone):
            while not self.stopping.is_set():
                request = read_request(stream)
                if request is None or not self._exchange(stream, request, connection):
                    return

    def _exchange(self, stream: Stream, request: Request, connection: int) -> bool:
        """Answer one request; whether the connection stays usable."""
        entry = self.recording.add(request, connection)
        try:
            answer = self._answer(request)
            keep = self._settle_body(request) and not wants_to_close(request) and not answer.close
            answer.close = not keep
            entry.status = answer.status
            write_answer(stream, request, answer)
            if not request.body.ended:
                self._linger(stream)
        except CutConnection as cut:
            entry.cut = True
            _end(stream.sock, rst=cut.rst)
            return False
        finally:
            self.recording.finish(entry)
        return keep

    def _answer(self, request: Request) -> Answer:
        active = [rule for rule in list(self.rules) if rule.applies(request)]
        exchanges = [(rule.fault, Exchange(self, request, rule.fire)) for rule in active]
        answer = None
        try:
            for fault, exchange in exchanges:
                answer = answer or fault.before(exchange)
            answer = answer or self._api.handle(request)
        except Reply as early:
            answer = early.answer
        for fault, exchange in exchanges:
            fault.after(exchange, answer)
        return answer

    def _settle_body(self, request: Request) -> bool:
        """Swallow a little unread body so that the connection can go on; False when there is too much of it."""
        body = request.body
        if body.ended:
            return True
        if body.awaits_continue:
            return False
        body.break_at = None
        limit = body.received + UNREAD_LIMIT
        if body.declared is not None and body.declared > limit:
            return False
        while body.received < limit and body.read():
            pass
        return body.ended

    def _linger(self, stream: Stream) -> None:
        """Give the peer a moment to read the answer before its unread input causes a RST, as net/http does."""
        wait_until_sent(stream.sock)
        half_close(stream.sock)
        self.stopping.wait(LINGER_SECONDS)


def _end(sock: socket.socket, *, rst: bool) -> None:
    if rst:
        reset(sock)
        return
    half_close(sock)
    sock.settimeout(LINGER_SECONDS)
    with suppress(OSError):
        while sock.recv(UNREAD_LIMIT):
            pass
