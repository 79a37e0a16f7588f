"""From what the other side says, or fails to say, to our errors. The one boundary, iteration of bodies included."""

import contextlib
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead

import requests
import urllib3

from epoch_oci.errors import AccessError, NetworkError
from epoch_oci.registry.retry import UnreachableError

ERROR_LIMIT = 64 << 10


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
        failure = network_error(error, where, asking=asking)
        failure.add_note(f"caused by {_kinds(error)}")
        raise failure from None


def network_error(error: BaseException, where: str, *, asking: bool = False) -> NetworkError | AccessError:
    """A transport failure in one line; a certificate that does not verify, and one that is wanted of us, are final."""
    untrusted = _cause(error, ssl.SSLCertVerificationError)
    if isinstance(untrusted, ssl.SSLCertVerificationError):
        return NetworkError(
            f"{where}: the TLS certificate is not trusted ({untrusted.verify_message})",
            object=where,
            hint="name its authority with --ca-file PEM",
            retryable=False,
        )
    if (refused := _refused(error, where)) is not None:
        return refused
    kind = UnreachableError if asking and any(_cause(error, kind) for kind in _UNREACHED) else NetworkError
    return kind(f"{where}: {_reason(error)}", object=where, retryable=_is_passing(error))


def _refused(error: BaseException, where: str) -> AccessError | None:
    """What a proxy or the other side's TLS says to those who show nothing, or not what is wanted."""
    alert = getattr(_cause(error, ssl.SSLError), "reason", None) or ""
    if "ALERT" in alert and _WANTS_CERTIFICATE.search(alert):
        return AccessError(
            f"{where}: the other side wants a certificate of ours, or another one",
            object=where,
            hint="show one with --cert-file PEM and --key-file PEM",
        )
    tunnel = next(filter(None, (_TUNNEL.search(str(item)) for item in _chain(error))), None)
    if tunnel is None or tunnel[1].startswith("5"):
        return None
    if tunnel[1] == "407":
        return AccessError(f"{where}: it wants to know who asks (407)", object=where, hint=PROXY_LOGIN)
    return AccessError(
        f"{where}: it does not lead there ({tunnel[1]})", object=where, hint="ask who runs the proxy, or use no_proxy"
    )


PROXY_LOGIN = "give user and password in the proxy's URL: http://USER:PASSWORD@HOST:PORT"
_TUNNEL = re.compile(r"Tunnel connection failed: ([45][0-9]{2})")
_WANTS_CERTIFICATE = re.compile(
    "CERTIFICATE_REQUIRED|BAD_CERTIFICATE|CERTIFICATE_(?:UNKNOWN|EXPIRED|REVOKED)|UNKNOWN_CA"
)

_UNREACHED: tuple[type[BaseException], ...] = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ProxyError,
    requests.exceptions.ProxyError,
    ConnectionRefusedError,
    ConnectionResetError,
)
"""No connection was made, or it was closed again without a byte, as what stands before a registry that is away does."""


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


def was_kept_waiting(error: BaseException) -> bool:
    """Whether a connection was made, and no answer came on it in time."""
    if _cause(error, urllib3.exceptions.ConnectTimeoutError) is not None:
        return False
    waits = (urllib3.exceptions.ReadTimeoutError, TimeoutError, requests.exceptions.ReadTimeout)
    return any(_cause(error, kind) is not None for kind in waits)


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


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The first of `kind` in the chain of causes, wrapped reasons included."""
    return next((item for item in _chain(error) if isinstance(item, kind)), None)


def _kinds(error: BaseException) -> str:
    return " out of ".join(dict.fromkeys(type(item).__name__ for item in _chain(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 12:
        yield error
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((item for item in error.args if isinstance(item, BaseException)), None)
        error, seen = inner or error.__cause__ or error.__context__, seen + 1


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
