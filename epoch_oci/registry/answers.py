"""From what the other side says, or fails to say, to our errors. The one boundary, iteration of bodies included."""

import contextlib
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead

import requests
import urllib3

from epoch_oci.errors import AccessError, EpochOciError, NetworkError, NotFoundError
from epoch_oci.oci.digest import shown
from epoch_oci.redaction import without
from epoch_oci.registry.origin import redacted
from epoch_oci.registry.retry import asked_wait, is_secondary_limit

ERROR_LIMIT = 64 << 10
_EXCERPT = 300
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,63}\Z")
_RETRYABLE = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_WAITED_FOR = frozenset({403, 429, 503})


def may_have_acted(error: NetworkError) -> bool:
    """Whether the other side may have done what was asked: no answer came, or a gateway's instead of its own."""
    return error.status is None or error.status >= 500


@contextmanager
def foreign_errors(where: str) -> Iterator[None]:
    """Turn what requests, urllib3 and the sockets raise into NetworkError."""
    try:
        yield
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise network_error(error, where) from error


def network_error(error: BaseException, where: str) -> NetworkError:
    """A transport failure in one line; a certificate that does not verify is final."""
    untrusted = _cause(error, ssl.SSLCertVerificationError)
    if isinstance(untrusted, ssl.SSLCertVerificationError):
        return NetworkError(
            f"{where}: the TLS certificate is not trusted ({untrusted.verify_message})",
            object=where,
            hint="name its authority with --ca-file PEM",
            retryable=False,
        )
    return NetworkError(f"{where}: {_reason(error)}", object=where, retryable=_is_passing(error))


def _reason(error: BaseException) -> str:
    for kind, words in _REASONS:
        if _cause(error, kind) is not None:
            return words
    cause = _cause(error, OSError)
    text = getattr(cause, "strerror", None) if cause is not None else None
    return str(text).lower() if text else type(error).__name__


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


def _is_passing(error: BaseException) -> bool:
    """Whether another attempt can help; two sides that have no version of TLS in common never will."""
    refused = _cause(error, ssl.SSLError)
    if isinstance(refused, ssl.SSLError) and refused.reason is not None and _NO_COMMON_TLS.search(refused.reason):
        return False
    return not isinstance(error, _MALFORMED)


_MALFORMED = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
    urllib3.exceptions.LocationParseError,
)


_NO_COMMON_TLS = re.compile(r"VERSION|PROTOCOL|HANDSHAKE_FAILURE|NO_SHARED|HTTP_REQUEST")


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The first of `kind` in the chain of causes, wrapped reasons included."""
    seen = 0
    while error is not None and seen < 12:
        if isinstance(error, kind):
            return error
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((item for item in error.args if isinstance(item, BaseException)), None)
        error, seen = inner or error.__cause__ or error.__context__, seen + 1
    return None


def dismiss(response: requests.Response) -> None:
    """Be done with an answer; its connection can be used again when the rest of the body is short."""
    length = response.headers.get("Content-Length", "")
    head = response.request is not None and response.request.method == "HEAD"
    if head or (length.isdigit() and len(length) < 9 and int(length) <= ERROR_LIMIT):
        with contextlib.suppress(Exception):
            response.raw.read(ERROR_LIMIT, decode_content=False)
    response.close()


def body_text(response: requests.Response) -> str:
    """The start of an answer's body, for its errors; the connection is not used again."""
    try:
        raw = response.raw.read(ERROR_LIMIT, decode_content=False)
    except Exception:  # whatever is wrong with an error's body, the error is what counts
        raw = b""
    finally:
        response.close()
    return bytes(raw or b"").decode("utf-8", "replace")


def codes_of(text: str) -> tuple[str, ...]:
    """The OCI error codes in a body; what does not look like one is left out."""
    codes = (item.get("code") for item in _items(text))
    return tuple(code for code in codes if isinstance(code, str) and _CODE.match(code))


def _items(text: str) -> list[dict[str, object]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    items = value.get("errors") if isinstance(value, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _said(text: str, secrets: tuple[str, ...]) -> str:
    """What the server said, short, on one line and without our secrets."""
    items = _items(text)
    said = "; ".join(f"{item.get('code', '')} {item.get('message', '')}".strip() for item in items) or ""
    if not said and text.lstrip()[:1] not in ("<", ""):
        said = " ".join(without(secrets, text).split())
    return shown(without(secrets, said), _EXCERPT).strip('"') if said else ""


def refusal(response: requests.Response, what: str, secrets: tuple[str, ...] = ()) -> EpochOciError:
    """The error that an answer of an unwanted status is. `what` was being done. Reads and closes the answer."""
    text = body_text(response)
    status = response.status_code
    said = _said(text, secrets)
    reason = shown(without(secrets, response.reason or "")).strip('"')
    message = f"{what}: {status} {reason}".strip() + (f" ({said})" if said else "")
    where = redacted(without(secrets, response.url or ""))
    if is_secondary_limit(status, text) or status in _RETRYABLE:
        wait = asked_wait(response.headers.get("Retry-After"), text) if status in _WAITED_FOR else None
        return NetworkError(message, object=where, status=status, retry_after=wait)
    if status == 401:
        return AccessError(message, object=where, hint="log in with `epoch-oci login HOST`, or look at the credentials")
    if status == 403:
        return AccessError(message, object=where, hint="these credentials may not do this; look at the permissions")
    if status == 404:
        return NotFoundError(message, object=where)
    return NetworkError(message, object=where, status=status, retryable=False)
