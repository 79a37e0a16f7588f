"""Exceptions → exit codes, and what to do next where an error does not say it itself."""

from collections.abc import Sequence

from epoch_oci import errors
from epoch_oci.errors import EpochOciError, InterruptedTransferError, counted

EXIT_OK = 0
EXIT_BUG = 1
EXIT_READER_GONE = 141
"""128 + SIGPIPE: who read our standard output has gone; what a shell reports of any other tool then."""

EXIT_CODES: dict[type[EpochOciError], int] = {
    errors.UsageError: 2,
    errors.ContentError: 3,
    errors.AccessError: 4,
    errors.NotFoundError: 5,
    errors.NetworkError: 6,
    errors.LocalIOError: 7,
    errors.PolicyError: 8,
    errors.ConflictError: 9,
    errors.BatchError: 10,
}

_NEXT: dict[type[EpochOciError], str] = {
    errors.UsageError: "see `epoch-oci --help`",
    errors.ContentError: "nothing of it was taken over; it has to be mended where it came from",
    errors.AccessError: "see which credentials are in use there, and what they are allowed",
    errors.NotFoundError: "look at the spelling; `epoch-oci ls` shows what is there",
    errors.NetworkError: "run the same command again: it goes on from what was verified",
    errors.LocalIOError: "mend it and run the same command again",
    errors.PolicyError: "nothing was sent",
    errors.ConflictError: "choose another name, or replace what is there with --force",
}
_PASSING = (errors.NetworkError, errors.LocalIOError)
"""What may be gone the next time, or once this machine was seen to; all else needs another command or other content."""


def exit_code(error: BaseException) -> int:
    """The exit code of the contract; 1 for what nobody foresaw."""
    if isinstance(error, InterruptedTransferError):
        return 128 + error.signum
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), EXIT_BUG)


def hint_of(error: EpochOciError) -> str:
    """What to do next."""
    if error.hint:
        return error.hint
    if isinstance(error, errors.ContentError) and len(error.findings) > 1:
        return "every finding is shown with -v"
    if isinstance(error, errors.BatchError):
        return advice(error.failures)
    default = "run it again with --debug, and report what it prints"
    return next((hint for kind, hint in _NEXT.items() if isinstance(error, kind)), default)


def advice(failures: Sequence[EpochOciError]) -> str:
    """What to do about several failures: the same command again, as far as that can mend any of them."""
    passing = sum(isinstance(error, _PASSING) for error in failures)
    if passing == len(failures):
        disk = any(isinstance(error, errors.LocalIOError) for error in failures)
        return (
            "mend what is wrong on this machine and " if disk else ""
        ) + "run the same command again for what failed"
    if passing == 0:
        return "the same command would end the same way: what each of them needs is said with it"
    others = counted(len(failures) - passing, "other needs", "others need")
    return f"run the same command again for {passing} of them; the {others} what is said with each"
