"""From what the other side says, or fails to say, to our errors: the one boundary, iteration of bodies included.

What a refusal means is told by its status, and by the codes and words of the registry. Exit 6 is for what repeating
mends. No byte of a blob is ever shown: what is not wanted may be a guest's memory all the same.
"""

import contextlib
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from urllib.parse import urlsplit

import requests
import urllib3

from epoch_oci.errors import (
    AccessError,
    ConflictError,
    ContentError,
    EpochOciError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from epoch_oci.oci.digest import shown
from epoch_oci.redaction import without
from epoch_oci.registry.policy import UnreachableError, asked_wait, is_secondary_limit
from epoch_oci.registry.trust import redacted

_LONGEST_BODY = 64 << 10
"""Bytes of an error's body that are read; a proxy's page may be long, and a blob's endless."""
PROXY_LOGIN = "give user and password in the proxy's URL: http://USER:PASSWORD@HOST:PORT"
_TUNNEL = r"Tunnel connection failed: ([45][0-9]{2})"
_WANTS_CERTIFICATE = "CERTIFICATE_REQUIRED|BAD_CERTIFICATE|CERTIFICATE_(?:UNKNOWN|EXPIRED|REVOKED)|UNKNOWN_CA"
_UNREACHED: tuple[type[BaseException], ...] = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ProxyError,
    requests.exceptions.ProxyError,
    ConnectionRefusedError,
    ConnectionResetError,
)
"""No connection was made, or it was closed again without a byte, as what stands before a registry that is away does."""
# The first that is anywhere in the chain counts, so what is more exact comes before what wraps it.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (urllib3.exceptions.NameResolutionError, "the host's name cannot be resolved"),
    (ConnectionRefusedError, "the connection was refused"),
    (urllib3.exceptions.ProxyError, "the proxy failed"),
    (requests.exceptions.ProxyError, "the proxy failed"),
    (urllib3.exceptions.ConnectTimeoutError, "no connection within the time limit"),
    (urllib3.exceptions.ReadTimeoutError, "no answer within the time limit"),
    (TimeoutError, "nothing moved within the time limit"),
    (requests.exceptions.Timeout, "no answer within the time limit"),
    (IncompleteRead, "the answer was cut off"),
    (ConnectionResetError, "the connection was reset"),
    (BrokenPipeError, "the connection was closed while sending"),
    (ssl.SSLError, "TLS failed"),
    (urllib3.exceptions.ProtocolError, "the connection broke"),
)
_MALFORMED = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
    urllib3.exceptions.LocationParseError,
)
_NO_COMMON_TLS = r"VERSION|PROTOCOL|HANDSHAKE_FAILURE|NO_SHARED|HTTP_REQUEST"


def may_have_acted(error: NetworkError) -> bool:
    """Whether the other side may have done what was asked: no answer came, or a gateway's instead of its own."""
    return error.status is None or error.status >= 500


@contextmanager
def foreign_errors(where: str, *, asking: bool = False) -> Iterator[None]:
    """Turn what requests, urllib3 and the sockets raise into NetworkError.

    While `asking`, that nobody answered at all is an UnreachableError. Their own texts go no further, not even into a
    traceback: they quote what came out of step, which may be a blob's.
    """
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        failure = _network_error(error, where, asking=asking)
        failure.add_note(f"caused by {_kinds(error)}")
        raise failure from None


# By OpenSSL's codes (x509_vfy.h): no authority mends these.
_CLOCK = "who runs the server has to renew it, unless this machine's clock is wrong"
_NAME = "it is for another name: write the host as the certificate has it"
_UNTRUSTED = {9: _CLOCK, 10: _CLOCK, 62: _NAME, 64: _NAME}


def _network_error(error: BaseException, where: str, *, asking: bool = False) -> NetworkError | AccessError:
    """A transport failure in one line; a certificate that does not verify, and one that is wanted of us, are final."""
    # Before all else, for it is an SSLError too, and those are tried again.
    untrusted = _cause(error, ssl.SSLCertVerificationError)
    if isinstance(untrusted, ssl.SSLCertVerificationError):
        return NetworkError(
            f"{where}: the TLS certificate is not trusted ({untrusted.verify_message})",
            object=where,
            hint=_UNTRUSTED.get(untrusted.verify_code, "name its authority with --ca-file PEM"),
            retryable=False,
        )
    if (refused := _refused(error, where)) is not None:
        return refused
    kind = UnreachableError if asking and any(_cause(error, kind) for kind in _UNREACHED) else NetworkError
    return kind(f"{where}: {_reason(error)}", object=where, retryable=_is_passing(error))


def _refused(error: BaseException, where: str) -> AccessError | None:
    """What a proxy or the other side's TLS says to those who show nothing, or not what is wanted."""
    alert = getattr(_cause(error, ssl.SSLError), "reason", None) or ""
    if "ALERT" in alert and re.search(_WANTS_CERTIFICATE, alert):
        return AccessError(
            f"{where}: the other side wants a certificate of ours, or another one",
            object=where,
            hint="show one with --cert-file PEM and --key-file PEM",
        )
    tunnel = next(filter(None, (re.search(_TUNNEL, str(item)) for item in _chain(error))), None)
    # A proxy that cannot reach the registry just now passes, as the registry's own absence would.
    if tunnel is None or tunnel[1].startswith("5"):
        return None
    if tunnel[1] == "407":
        return AccessError(f"{where}: it wants to know who asks (407)", object=where, hint=PROXY_LOGIN)
    return AccessError(
        f"{where}: it does not lead there ({tunnel[1]})", object=where, hint="ask who runs the proxy, or use no_proxy"
    )


def _reason(error: BaseException) -> str:
    for kind, words in _REASONS:
        if _cause(error, kind) is not None:
            return words
    cause = _cause(error, OSError)
    text = getattr(cause, "strerror", None) if cause is not None else None
    return str(text).lower() if text else type(error).__name__


def was_kept_waiting(error: BaseException) -> bool:
    """Whether a connection was made, and no answer came on it in time."""
    if _cause(error, urllib3.exceptions.ConnectTimeoutError) is not None:
        return False
    waits = (urllib3.exceptions.ReadTimeoutError, TimeoutError, requests.exceptions.ReadTimeout)
    return any(_cause(error, kind) is not None for kind in waits)


def _is_passing(error: BaseException) -> bool:
    """Whether another attempt can help; two sides that have no version of TLS in common never will."""
    refused = _cause(error, ssl.SSLError)
    if isinstance(refused, ssl.SSLError) and refused.reason is not None and re.search(_NO_COMMON_TLS, refused.reason):
        return False
    return not isinstance(error, _MALFORMED)


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The first of `kind` in the chain of causes, wrapped reasons included."""
    return next((item for item in _chain(error) if isinstance(item, kind)), None)


def _kinds(error: BaseException) -> str:
    return " out of ".join(dict.fromkeys(type(item).__name__ for item in _chain(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    # Causes may go round in a circle, as contexts of contexts do.
    while error is not None and seen < 12:
        yield error
        # urllib3 wraps in `reason`, requests in its first argument, and neither always chains.
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((item for item in error.args if isinstance(item, BaseException)), None)
        error, seen = inner or error.__cause__ or error.__context__, seen + 1


def dismiss(response: requests.Response) -> None:
    """Be done with an answer; its connection can be used again when the rest of the body is short."""
    length = response.headers.get("Content-Length", "")
    head = response.request is not None and response.request.method == "HEAD"
    if head or (length.isdigit() and len(length) < 9 and int(length) <= _LONGEST_BODY):
        with contextlib.suppress(Exception):
            response.raw.read(_LONGEST_BODY, decode_content=False)
    response.close()


def body_text(response: requests.Response) -> str:
    """The start of an answer's body, for its errors; the connection is not used again."""
    try:
        raw = response.raw.read(_LONGEST_BODY, decode_content=False)
    except Exception:  # whatever is wrong with an error's body, the error is what counts
        raw = b""
    finally:
        response.close()
    return bytes(raw or b"").decode("utf-8", "replace")


_EXCERPT = 300
# What does not look like a code may be anything, a blob's bytes included.
_CODE = r"[A-Z][A-Z0-9_]{1,63}\Z"
# 499 and 520 to 524 are nginx's and Cloudflare's own: the registry behind may have gone on (oci-registries 2.3).
_RETRYABLE = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})
# Those that `Retry-After` is meant for (RFC 9110, 10.2.3; RFC 6585, 4), and GHCR's 403 with a hint in its body.
_WAITED_FOR = frozenset({403, 429, 503})

_IMMUTABLE = (
    r"immutab|can(?: ?not|'t) be (?:overwritten|replaced)|already exists|not allow (?:updating|redeploy|overwrit)"
)
"""An existing tag that stays as it is: Harbor 412, ECR 400, Quay 409, Nexus 400, GAR 400 say it in words alone."""
_FULL = r"quota|exceed|insufficient storage|no space|storage limit|limit reached"
_QUOTA = r"quota|insufficient storage|no space|storage (?:limit|resource)"
"""A 413 is of the request's size otherwise."""
# Said of a registry or project that takes nothing from anybody: other credentials would not help.
_CLOSED = r"read.?only|maintenance|archived|proxy project|proxy.?cache|locked"
_TO_TLS = r"HTTP request (?:was sent )?to (?:an )?HTTPS (?:port|server)"

_ROOM = "make room there, or have more of it allowed"
_ASK = "a rule of the registry forbids it: ask who runs it"
_NAME = "look at the spelling; some registries want a project in front: HOST/PROJECT/REPOSITORY"
_ABSENT = "it has to be there first: look at the spelling, or ask who runs the registry for it"
_TAKEN = "push to another tag: the registry lets nobody replace this one, with --force neither"
_KEPT = "a rule of the registry keeps it: it goes only once that rule is changed"

_Kind = type[EpochOciError]
_BY_CODE: dict[str, tuple[_Kind, str]] = {
    "NAME_INVALID": (UsageError, _NAME),
    "TAG_INVALID": (UsageError, "name another tag"),
    "BAD_REQUEST": (UsageError, _NAME),
    "NAME_UNKNOWN": (NotFoundError, _ABSENT),
    "PROJECTPOLICYVIOLATION": (AccessError, _ASK),
    "MANIFEST_INVALID": (ContentError, "the registry takes no artifact like this one; another --dialect may suit it"),
    "DIGEST_INVALID": (ContentError, "something between here and the registry changes what is sent"),
}
_BY_STATUS: dict[int, tuple[_Kind, str]] = {
    400: (UsageError, "look at the address of the registry and at the repository's name"),
    402: (AccessError, _ASK),
    405: (AccessError, "the registry takes none of this here: it may be read-only, or a cache of another one"),
    406: (UsageError, "the registry has this in no form that is understood here"),
    407: (AccessError, "give the proxy's user and password in its URL"),
    409: (ConflictError, "push to another tag"),
    410: (NotFoundError, "see what is there with `epoch-oci ls`"),
    412: (AccessError, _ASK),
    413: (UsageError, "something between here and the registry limits the size of a request; try --part-size"),
    415: (UsageError, "the registry takes no artifact like this one"),
    423: (AccessError, _ASK),
    451: (AccessError, _ASK),
    501: (AccessError, "the registry cannot do this"),
    505: (AccessError, "the registry cannot do this"),
    511: (AccessError, "log in to this network first"),
}


class Refusal:
    """An answer that was not wanted, read and closed. `what` was being done, in words that name its object."""

    def __init__(
        self, response: requests.Response, what: str, secrets: tuple[str, ...] = (), *, of_blob: bool = False
    ) -> None:
        """`of_blob`: the body may be a blob's, whatever its address looks like."""
        text = body_text(response)
        self.status = response.status_code
        self.codes = codes_of(text)
        parts = urlsplit(response.url or "")
        self._host = without(secrets, parts.netloc.rpartition("@")[2])
        self._what, self._headers, self._text = what, response.headers, text
        self._of_blob = of_blob or "/blobs/" in parts.path
        self._said = self._words(secrets)
        self._anonymous = "Authorization" not in response.request.headers and parts.path.startswith("/v2/")
        self._reason = shown(without(secrets, response.reason or "")).strip('"')
        self._where = without(secrets, redacted(response.url or ""))
        self._removes = response.request.method == "DELETE"

    def error(self) -> EpochOciError:
        """What it means."""
        error = self._passing() or self._final()
        error.status = self.status
        error.request_id = request_id(self._headers)
        return error

    @property
    def is_full(self) -> bool:
        """Whether it is for want of room there, whatever was sent in whatever shape."""
        return self.status == 507 or (self.status == 413 and re.search(_QUOTA, self._said, re.I) is not None)

    @property
    def message(self) -> str:
        """Who refused what, and in which words."""
        who = "" if self._host in self._what else f"{self._host} answered "
        said = f" ({self._said})" if self._said else ""
        return f"{self._what}: {who}{self.status} {self._reason}".strip() + said

    def _words(self, secrets: tuple[str, ...]) -> str:
        """What the server said, short and on one line: its error document, or a line that cannot be a blob's."""
        if self.status < 400:
            return ""
        said = "; ".join(
            f"{item.get('code', '')} {item.get('message', '')}".strip()
            for item in _items(self._text)
            if not self._of_blob or _is_code(item.get("code"))
        )
        # A page of HTML has no words for a terminal, and a body under /blobs/ may be a guest's memory.
        if not said and not self._of_blob and self._text.lstrip()[:1] != "<":
            said = " ".join(self._text.split())
        return shown(without(secrets, said), _EXCERPT).strip('"') if said else ""

    def _passing(self) -> EpochOciError | None:
        status = self.status
        # Looked for before 403 is taken for a denial: GHCR throttles so (oci-registries 3.4).
        if status not in _RETRYABLE and not is_secondary_limit(status, self._text):
            return None
        wait = None
        if status in _WAITED_FOR:
            wait = asked_wait(self._headers.get("Retry-After"), self._text, self._headers.get("Date"))
        return NetworkError(self.message, object=self._where, status=status, retry_after=wait)

    def _final(self) -> EpochOciError:
        kind, hint = self._meaning()
        if kind is NetworkError:
            return NetworkError(self.message, object=self._where, status=self.status, retryable=False)
        code = "TYPE" if self.status < 400 else None
        return kind(self.message, code=code, object=self._where, hint=hint)

    def _meaning(self) -> tuple[_Kind, str]:
        status, said = self.status, self._said
        if status < 400:
            return ContentError, "is this a registry, and the right address?"
        if status == 401:
            return self._unauthorized()
        # Of six statuses only the words say that it is about a tag that may not be replaced.
        if status in (400, 403, 405, 409, 412, 422) and not self._of_blob and re.search(_IMMUTABLE, said, re.I):
            return ConflictError, _KEPT if self._removes else _TAKEN
        if self.is_full:
            return AccessError, _ROOM
        # Codes before statuses: the same 400 is a bad name, a bad manifest or a bad digest (oci-registries 2.3).
        for code in self.codes:
            if code in _BY_CODE and status < 500:
                return _BY_CODE[code]
        if status == 400 and re.search(_TO_TLS, self._text, re.I):
            return UsageError, "it speaks https: leave --plain-http out"
        if status == 403:
            return AccessError, self._forbidden(said)
        if status == 404:
            return NotFoundError, "see what is there with `epoch-oci ls`"
        return _BY_STATUS.get(status) or ((UsageError, _BY_STATUS[400][1]) if status < 500 else (NetworkError, ""))

    def _forbidden(self, said: str) -> str:
        if re.search(_FULL, said, re.I):
            return _ROOM
        if re.search(_CLOSED, said, re.I):
            return "nothing can be written there now: ask who runs it"
        if self._anonymous:
            return f"log in with `epoch-oci login {self._host}`, or ask who runs it"
        return "these credentials may not do this; look at the permissions"

    def _unauthorized(self) -> tuple[_Kind, str]:
        """Harbor has a challenge for what may not be read, and an empty one for a project that does not exist."""
        if self._headers.get("WWW-Authenticate", "absent").strip() == "":
            return NotFoundError, _ABSENT
        return AccessError, f"log in with `epoch-oci login {self._host}`, or ask what these credentials may do"


def request_id(headers: requests.structures.CaseInsensitiveDict[str]) -> str | None:
    """By what name the registry's operator finds this exchange in its log (Harbor's `X-Request-Id`, W3C's trace)."""
    found = headers.get("X-Request-Id") or headers.get("Traceparent")
    return shown(found, 128).strip('"') if found else None


def codes_of(text: str) -> tuple[str, ...]:
    """The OCI error codes in a body; what does not look like one is left out."""
    codes = (item.get("code") for item in _items(text))
    return tuple(code for code in codes if isinstance(code, str) and _is_code(code))


def _is_code(code: object) -> bool:
    return isinstance(code, str) and re.match(_CODE, code) is not None


def _items(text: str) -> list[dict[str, object]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    items = value.get("errors") if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
