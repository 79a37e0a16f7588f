"""Every exception raised on purpose, one tree, grouped by whose fault it is.

    EpochOciError
    ├── UsageError          the caller: a bad flag, reference or combination
    ├── ContentError        what was read is wrong: schema, digest, size, hostile name, unsupported kind
    ├── AccessError         not authenticated, or not allowed
    ├── NotFoundError       snapshot, tag, repository, blob or file is not there
    ├── NetworkError        the network or the registry gave up
    ├── LocalIOError        this machine's disk
    ├── PolicyError         refused on purpose: plain http, a foreign host, RAM to a public place
    ├── ConflictError       the target holds something else
    ├── BatchError          some of several objects failed
    └── InterruptedTransferError  SIGINT or SIGTERM

Facts are attributes; callers branch on the type or on `code`, never on text.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from epoch_oci.dataclass import dataclass

Severity = Literal["error", "warning"]


def counted(number: int, one: str, many: str = "") -> str:
    """`1 byte`, `2 bytes`, as messages say it; `many` where that is not `one` and an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a document.

    `path` is a JSON path from the document's root (`$.layers[2].digest`), `code` one of the stable code words.
    """

    path: str
    code: str
    problem: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class EpochOciError(Exception):
    """Base of all of them.

    `code` is a stable word scripts may match; `object` names what the error is about; `hint` says what to do next.
    None of the three ever holds a secret. `status` is the HTTP status of the answer that it comes from, if any, and
    `request_id` what its server's log calls that answer. `is_final` where nobody else who has the same is to be asked.
    """

    default_code: ClassVar[str] = "INTERNAL"
    status: int | None = None
    request_id: str | None = None
    is_final: bool = False

    def __init__(
        self, message: str, *, code: str | None = None, object: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.object = object
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(EpochOciError):
    """A bad flag, reference or combination of them."""

    default_code = "USAGE"


class ContentError(EpochOciError):
    """What was read is wrong; `findings` has every reason that was found, at least one."""

    default_code = "SCHEMA"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        object: str | None = None,
        hint: str | None = None,
        findings: Sequence[Finding] = (),
    ) -> None:
        super().__init__(message, code=code, object=object, hint=hint)
        self.findings = tuple(findings) or (Finding("$", self.code, message),)

    @classmethod
    def of(cls, what: str, findings: Sequence[Finding]) -> "ContentError":
        """One error out of several findings about the document `what`; its code is the first one's."""
        errors = [finding for finding in findings if finding.severity == "error"] or list(findings)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return cls(f"{what}: {errors[0]}{more}", code=errors[0].code, object=what, findings=findings)


class AccessError(EpochOciError):
    """Not authenticated, or not allowed."""

    default_code = "AUTH"


class NotFoundError(EpochOciError):
    """A snapshot, tag, repository, blob or file that is known not to be there."""

    default_code = "NOT_FOUND"


class NetworkError(EpochOciError):
    """The network or the registry failed; `retryable` says whether another attempt can help.

    `status` is the HTTP status of the answer, None when none came; `retry_after` the wait asked for, in seconds.
    """

    default_code = "NETWORK"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        object: str | None = None,
        hint: str | None = None,
        retryable: bool = True,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, object=object, hint=hint)
        self.retryable = retryable
        self.status = status
        self.retry_after = retry_after


class LocalIOError(EpochOciError):
    """A file, directory or disk of this machine failed: full, not permitted, unreadable."""

    default_code = "IO"


class PolicyError(EpochOciError):
    """Refused on purpose, however well-formed the request."""

    default_code = "POLICY"


class ConflictError(EpochOciError):
    """The target tag or file holds something else and may not be replaced."""

    default_code = "CONFLICT"


class BatchError(EpochOciError):
    """Some of several objects failed; `failures` has one error for each."""

    default_code = "BATCH"

    def __init__(self, message: str, failures: Sequence[EpochOciError]) -> None:
        super().__init__(message)
        self.failures = tuple(failures)


class InterruptedTransferError(EpochOciError):
    """A signal ended the work; `signum` is its number. What was verified is kept."""

    default_code = "INTERRUPTED"

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
