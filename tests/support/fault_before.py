"""Faults that strike before the registry acts, or in its place."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from support.fault_base import Exchange, Fault
from support.wire import Answer, CutConnection, Reply, Request, write_answer


class Respond(Fault):
    """Answer this, do nothing. With ``code`` the body is an OCI error document."""

    def __init__(
        self, status: int, body: bytes = b"", *headers: tuple[str, str], code: str | None = None, message: str = ""
    ) -> None:
        self.status, self.body, self.headers, self.code, self.message = status, body, headers, code, message

    def before(self, exchange: Exchange) -> Answer:
        exchange.fire()
        if self.code is not None:
            return Answer.error(self.status, self.code, self.message, *self.headers)
        return Answer.of(self.status, self.body, *self.headers)


class AnswerEarly(Respond):
    """Answer this before the body, of which the rest is read all the same, or not, and the connection kept open."""

    def __init__(self, *args: object, reads_on: bool = True, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.reads_on = reads_on

    def before(self, exchange: Exchange) -> Answer:
        body = exchange.request.body
        write_answer(body.stream, exchange.request, super().before(exchange))
        if self.reads_on:
            for _ in body:
                pass
        else:
            exchange.sleep(60)
        raise CutConnection(rst=False)


class Interim(Fault):
    """Informational answers before the final one, in two pieces each."""

    def __init__(self, *statuses: int, headers: bytes = b"Link: </x>; rel=preload\r\n", pause: float = 0.01) -> None:
        self.statuses, self.headers, self.pause = statuses, headers, pause

    def before(self, exchange: Exchange) -> None:
        exchange.fire()
        for status in self.statuses:
            head = b"HTTP/1.1 %d Informational\r\n%b\r\n" % (status, self.headers)
            exchange.request.body.stream.write(head[:20])
            exchange.sleep(self.pause)
            exchange.request.body.stream.write(head[20:])


class Throttle(Respond):
    """429 (or 503) with ``Retry-After`` as given: seconds, a date, junk; None leaves it out."""

    def __init__(self, retry_after: str | int | None = 0, status: int = 429) -> None:
        headers = [] if retry_after is None else [("Retry-After", str(retry_after))]
        super().__init__(status, b"", *headers, code="TOOMANYREQUESTS", message="slow down")


class Redirect(Fault):
    """Answer a redirect to ``target``, or to ``target(request)``; an origin alone gets the request's own path."""

    def __init__(self, target: str | Callable[[Request], str], status: int = 307) -> None:
        self.target, self.status = target, status

    def before(self, exchange: Exchange) -> Answer:
        exchange.fire()
        if callable(self.target):
            url = self.target(exchange.request)
        elif re.fullmatch(r"[a-z]+://[^/]*", self.target):
            url = self.target + exchange.request.target
        else:
            url = self.target
        return Answer.of(self.status, b"", ("Location", url))


class Unauthorized(Fault):
    """401 with the registry's own challenge, whatever credentials came."""

    def before(self, exchange: Exchange) -> Answer:
        exchange.fire()
        registry = exchange.registry
        return registry.auth.challenge(exchange.request, registry.needs(exchange.request), "invalid_token")


class Stall(Fault):
    """Wait before acting."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def before(self, exchange: Exchange) -> None:
        exchange.fire()
        exchange.sleep(self.seconds)


class ResetRequest(Fault):
    """Break the connection after ``after`` body bytes, which the registry keeps; RST, or FIN when ``rst`` is False."""

    def __init__(self, after: int = 0, *, rst: bool = True) -> None:
        self.after_bytes, self.rst = after, rst

    def before(self, exchange: Exchange) -> None:
        def cut() -> None:
            exchange.fire()
            raise CutConnection(rst=self.rst)

        if self.after_bytes == 0:
            cut()
        exchange.request.body.break_at = self.after_bytes
        exchange.request.body.on_break = cut


class LimitBody(Fault):
    """Refuse bodies of more than ``limit`` bytes with ``status``, at once when the length is declared."""

    def __init__(self, limit: int, status: int = 413) -> None:
        self.limit, self.status = limit, status

    def before(self, exchange: Exchange) -> Answer | None:
        code = "SIZE_INVALID" if self.status == 413 else "RANGE_INVALID"
        answer = Answer.error(self.status, code, "body too large")

        def refuse() -> None:
            exchange.fire()
            raise Reply(answer)

        body = exchange.request.body
        if body.declared is None:
            body.break_at, body.on_break = self.limit + 1, refuse
        elif body.declared > self.limit:
            exchange.fire()
            return answer
        return None


class IgnoreRange(Fault):
    """Answer as if the request had no Range (200, whole body)."""

    def before(self, exchange: Exchange) -> None:
        if "Range" in exchange.request.headers:
            exchange.fire()
            del exchange.request.headers["Range"]


class ForgetUploads(Fault):
    """Lose every upload session, as at a restart, then act."""

    def before(self, exchange: Exchange) -> None:
        if exchange.registry.forget_uploads():
            exchange.fire()


class ExpireTokens(Fault):
    """Invalidate every token handed out so far, then act."""

    def before(self, exchange: Exchange) -> None:
        exchange.fire()
        exchange.registry.auth.expire_all()


class MoveTag(Fault):
    """Point ``tag`` at the next of ``digests`` before each request, round and round."""

    def __init__(self, repository: str, tag: str, digests: Sequence[str]) -> None:
        self.repository, self.tag = repository, tag
        self._digests = itertools.cycle(digests)

    def before(self, exchange: Exchange) -> None:
        exchange.fire()
        exchange.registry.tag(self.repository, self.tag, next(self._digests))


class Raw(Fault):
    """Write ``data`` on the wire in place of a response, then close; for framing no HTTP library would emit."""

    def __init__(self, data: bytes | Callable[[], Iterator[bytes]], *, rst: bool = False) -> None:
        self.data, self.rst = data, rst

    def before(self, exchange: Exchange) -> None:
        exchange.fire()
        blocks = (self.data,) if isinstance(self.data, bytes) else self.data()
        for block in blocks:
            exchange.request.body.stream.write(block)
            if exchange.registry.stopping.is_set():
                break
        raise CutConnection(rst=self.rst)
