"""Faults that change or drop the response of a registry that has acted."""

import gzip
import re
import urllib.parse

from support.fault_base import Exchange, Fault
from support.wire import Answer, CutConnection


class DropResponse(Fault):
    """Act, then break the connection without a byte of response."""

    def __init__(self, *, rst: bool = True) -> None:
        self.rst = rst

    def after(self, exchange: Exchange, answer: Answer) -> None:
        exchange.fire()
        raise CutConnection(rst=self.rst)


class SetStatus(Fault):
    """Report another status than the one that is true."""

    def __init__(self, status: int) -> None:
        self.status = status

    def after(self, exchange: Exchange, answer: Answer) -> None:
        exchange.fire()
        answer.status = self.status


class SetHeader(Fault):
    """Replace a response header by ``values``; none removes it, two double it."""

    def __init__(self, name: str, *values: str) -> None:
        self.name, self.values = name, values

    def after(self, exchange: Exchange, answer: Answer) -> None:
        exchange.fire()
        answer.set(self.name, *self.values)


class WrongDigest(SetHeader):
    """A ``Docker-Content-Digest`` that is not the content's."""

    def __init__(self, digest: str = "sha256:" + "0" * 64) -> None:
        super().__init__("Docker-Content-Digest", digest)


class _RewriteHeader(Fault):
    """Rewrite one header of the response, when it has it."""

    name = ""

    def rewrite(self, value: str) -> str:
        raise NotImplementedError

    def after(self, exchange: Exchange, answer: Answer) -> None:
        value = answer.get(self.name)
        if value is not None:
            exchange.fire()
            answer.set(self.name, self.rewrite(value))


class ForeignLocation(_RewriteHeader):
    """Move the Location to another ``origin`` (``http://HOST:PORT``), path and query kept."""

    name = "Location"

    def __init__(self, origin: str) -> None:
        self.origin = origin.rstrip("/")

    def rewrite(self, value: str) -> str:
        parts = urllib.parse.urlsplit(value)
        return self.origin + parts.path + (f"?{parts.query}" if parts.query else "")


class ForeignRealm(_RewriteHeader):
    """Send the client to another token service: the realm of the challenge becomes ``url``."""

    name = "WWW-Authenticate"

    def __init__(self, url: str) -> None:
        self.url = url

    def rewrite(self, value: str) -> str:
        return re.sub(r'realm="[^"]*"', f'realm="{self.url}"', value)


class ForeignLink(_RewriteHeader):
    """Move the next page of a tag list to another ``origin``."""

    name = "Link"

    def __init__(self, origin: str) -> None:
        self.origin = origin.rstrip("/")

    def rewrite(self, value: str) -> str:
        return value.replace("<", f"<{self.origin}", 1)


class ShiftRange(Fault):
    """Say ``by`` bytes further in Content-Range than the body truly is."""

    def __init__(self, by: int = 1) -> None:
        self.by = by

    def after(self, exchange: Exchange, answer: Answer) -> None:
        hit = re.fullmatch(r"bytes (\d+)-(\d+)/(.+)", answer.get("Content-Range") or "")
        if hit:
            exchange.fire()
            answer.set("Content-Range", f"bytes {int(hit[1]) + self.by}-{int(hit[2]) + self.by}/{hit[3]}")


class LyingRange(Fault):
    """A 206 with the right headers over bytes from ``by`` further (cyclic) in the blob."""

    def __init__(self, by: int = 1) -> None:
        self.by = by

    def after(self, exchange: Exchange, answer: Answer) -> None:
        if answer.status == 206:
            exchange.fire()
            body = b"".join(answer.chunks())
            shift = self.by % max(1, len(body))
            answer.replace_body(body[shift:] + body[:shift])


class ContentLength(Fault):
    """These Content-Length lines in place of the true one: none, a wrong one, two. The connection closes after."""

    def __init__(self, *values: str | int) -> None:
        self.values = tuple(str(value) for value in values)

    def after(self, exchange: Exchange, answer: Answer) -> None:
        exchange.fire()
        answer.lengths = self.values
        answer.close = True


class Gzip(Fault):
    """Send the body gzip-encoded and say so; ``body`` replaces it before (for a bomb)."""

    def __init__(self, body: bytes | None = None) -> None:
        self.body = body

    def after(self, exchange: Exchange, answer: Answer) -> None:
        exchange.fire()
        plain = b"".join(answer.chunks()) if self.body is None else self.body
        answer.replace_body(gzip.compress(plain, mtime=0))
        answer.set("Content-Encoding", "gzip")


class ReplaceBody(Fault):
    """The same headers over another body, its length declared."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def after(self, exchange: Exchange, answer: Answer) -> None:
        exchange.fire()
        answer.replace_body(self.body)
