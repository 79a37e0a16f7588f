"""From what an object store says, or fails to say, to our errors.

`obstore` gives one text that holds the request's URL and the answer's body: signed queries, key names, whatever the
other side echoes. Nothing of it is shown but the status, the store's own error code, and a reason in our words.
"""

import contextlib
import re
from collections.abc import Iterator

from epoch_oci.errors import (
    AccessError,
    ContentError,
    EpochOciError,
    NetworkError,
    NotFoundError,
    PolicyError,
    UsageError,
)

_STATUS = re.compile(r"status code: ([1-5][0-9]{2})")
_CODE = re.compile(r"<Code>([A-Za-z0-9._-]{1,64})</Code>")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>")
_METADATA = re.compile(r"Error performing [A-Z]+ http://(?:169\.254\.|metadata\.google\.internal|\[fd00:ec2)")
_KIND = re.compile(r"source: (Missing[A-Za-z]+|Invalid[A-Za-z]+|[A-Z][A-Za-z]*Credentials)")
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
_WRONG_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_COLLISIONS = frozenset({409, 412})
_PASSING_CODES = frozenset({"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "OperationAborted"})
_ACCESS_HINTS = {
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "InvalidAccessKeyId": "the store does not know the access key",
    "AuthenticationFailed": "the credentials were refused",
    "ExpiredToken": "the session token has run out; get a new one",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
}
_LOOK = "look at the bucket's name, the endpoint and the region"
_REFUSAL_HINTS = {
    "InvalidBucketName": "name a bucket as it allows them: at least three characters, lower case",
    "EntityTooLarge": "it takes no object of that size",
}
_TRANSPORT: tuple[tuple[str, str, bool], ...] = (
    ("InvalidCertificate", "the TLS certificate is not trusted", False),
    ("InvalidMessage", "it does not speak TLS", False),
    ("dns error", "the host's name cannot be resolved", True),
    ("ConnectionRefused", "the connection was refused", True),
    ("ConnectionReset", "the connection was reset", True),
    ("TimedOut", "nothing came within the time limit", True),
    ("kind: Timeout", "nothing came within the time limit", True),
    ("kind: Body", "the answer was cut off", True),
    ("kind: Interrupted", "the answer was cut off", True),
)
"""What to look for in the text, what it means, and whether another attempt can help."""


@contextlib.contextmanager
def foreign_errors(what: str) -> Iterator[None]:
    """Turn what `obstore` raises about the object `what` into our errors; theirs are not chained, for what they hold.

    Missing objects become NotFoundError, also where the whole bucket is missing.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError, ValueError, NotImplementedError) as error:
        raise translated(error, what) from None


def translated(error: BaseException, what: str) -> EpochOciError:
    """The error that an exception of `obstore` is."""
    from obstore.exceptions import InvalidPathError, PermissionDeniedError, UnauthenticatedError

    text = str(error)
    found = _STATUS.search(text)
    status = int(found[1]) if found else None
    code = _found(_CODE, text)
    # With no credentials at all `obstore` asks the machine's own service for some, and then fails there.
    if _METADATA.search(text):
        return _no_credentials(what)
    if isinstance(error, InvalidPathError) or (isinstance(error, ValueError) and "path" in text.lower()):
        return ContentError(
            f"{what}: a key there has an empty, . or .. component or a control character",
            code="NAME",
            object=what,
            hint="such an object cannot be reached; look for it with the store's own tools and rename it",
        )
    if code in _WRONG_REGION or "without LOCATION" in text:
        # Signed for another region a request is refused as if its signature were wrong; the answer names the right one.
        return _wrong_region(what, _found(_REGION, text))
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in (401, 403):
        return _denied(what, status, code)
    if isinstance(error, FileNotFoundError) or status == 404:
        return _missing(what, code)
    return _unanswered(text, what) if status is None else _answered(status, code, what)


def _missing(what: str, code: str) -> NotFoundError:
    """What is not there: the object, or with the store's code for it the whole bucket."""
    if code in _NO_BUCKET:
        return NotFoundError(f"{what}: there is no such bucket", object=what, hint="look at its name and the endpoint")
    return NotFoundError(f"{what} is not there", object=what)


def status_of(error: BaseException) -> int | None:
    """The HTTP status in an exception of `obstore`, None when no answer came."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _no_credentials(what: str) -> AccessError:
    return AccessError(
        f"{what}: no credentials are set, and this machine has none of its own",
        object=what,
        hint="set EPOCH_S3_ENDPOINT and EPOCH_S3_ACCESS_KEY, or the cloud's own variables (docs/stores.md lists them)",
    )


def _wrong_region(what: str, region: str) -> UsageError:
    return UsageError(
        f"{what}: the bucket is in another region" + (f" ({region})" if region else ""),
        object=what,
        hint="name its region with EPOCH_S3_REGION, or AWS_REGION",
    )


def _denied(what: str, status: int | None, code: str) -> AccessError:
    said = " ".join(str(item) for item in (status, code) if item)
    return AccessError(
        f"{what}: access was denied" + (f" ({said})" if said else ""),
        object=what,
        hint=_ACCESS_HINTS.get(code, "look at the credentials and what they permit"),
    )


def _answered(status: int, code: str, what: str) -> EpochOciError:
    said = f"{status} {code}".strip()
    # A redirect would take the signature along to wherever it leads (reliability C5).
    if status == 304 or 300 <= status < 400:
        return PolicyError(
            f"{what}: the store sends us elsewhere ({said}), which is not followed",
            object=what,
            hint="name the right endpoint and region",
        )
    passing = status in _PASSING or code in _PASSING_CODES
    # A request that is wrong is as wrong the next time; what only collides with another one (409, 412) may not be.
    if not passing and 400 <= status < 500 and status not in _COLLISIONS:
        error = UsageError(f"{what}: the store refuses it ({said})", object=what, hint=_REFUSAL_HINTS.get(code, _LOOK))
        error.status = status
        return error
    return NetworkError(f"{what}: {said}", object=what, status=status, retryable=passing)


def _unanswered(text: str, what: str) -> EpochOciError:
    # S3 begins to answer a long copy or completion with 200 before it knows how it ends (reliability F23).
    if "Server returned error response" in text:
        return _answered(200, _found(_CODE, text) or "an error in place of a result", what)
    for sign, reason, passing in _TRANSPORT:
        # The library gives no kind of these but its text; whatever is not known here is told without it.
        if sign in text:
            hint = "name its authority with --ca-file PEM" if sign == "InvalidCertificate" else None
            return NetworkError(f"{what}: {reason}", object=what, hint=hint, retryable=passing)
    if "error sending request" in text or "HttpError" in text:
        return NetworkError(f"{what}: the connection broke", object=what)
    if "InvalidListResponse" in text:
        return ContentError(
            f"{what}: the endpoint answers with something else than a list of objects",
            code="TYPE",
            object=what,
            hint="is it that of an object store, and not of its console or of a proxy?",
        )
    kind = _found(_KIND, text)
    if kind or "root_certificate" in text or "onfiguration" in text:
        reason = f" ({kind})" if kind else ""
        return UsageError(f"{what}: the settings for the object store are incomplete or wrong{reason}", object=what)
    return NetworkError(f"{what}: the object store failed", object=what, retryable=False)
