"""The entry point, and the one place where an exception becomes a line, an exit code and, if asked for, JSON."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from epoch_oci.cli import signals
from epoch_oci.cli.exit_codes import EXIT_OK, EXIT_READER_GONE, exit_code, hint_of
from epoch_oci.cli.settings import environment, guessed, secrets_of
from epoch_oci.cli.streams import (
    ReaderGoneError,
    Secrets,
    discard_output,
    flush_result,
    prepare,
    write_error,
)
from epoch_oci.errors import (
    ContentError,
    EpochOciError,
    InterruptedTransferError,
    LocalIOError,
    NetworkError,
    UsageError,
)

_ASKED_BY_SHELL = "_ARGCOMPLETE"
"""What argcomplete sets where a shell asks what a word may become."""
_KEPT = {
    "push": "what was sent is kept, and the tag is set last; ",
    "sync": "what was sent is kept, and each tag is set after all it names; ",
    "copy": "what was sent is kept, and the tag is set last; ",
    "pull": "what was received and verified is kept, and nothing half-written is visible; ",
}


def main() -> NoReturn:
    """Run this process's command line and end the process."""
    had_output = prepare()
    words, environ = sys.argv[1:], environment()
    signals.install(lambda error: _failed(error, words, environ, _known(words, environ)))
    try:
        code = run(words, environ, had_output=had_output)
    except InterruptedTransferError as error:  # the signal came while an error was being told
        code = _failed(error, words, environ, _known(words, environ))
    _leave(code)


def run(words: Sequence[str], environ: Mapping[str, str], *, had_output: bool = True) -> int:
    """Do what `words` ask for; the exit code. Whatever goes wrong has been told on standard error."""
    secrets = _known(words, environ)
    try:
        if not had_output:
            raise LocalIOError(
                "standard output is closed", object="standard output", hint="redirect it, to /dev/null for example"
            )
        # The standard streams are looked at first: what fails with them closed cannot be told.
        signals.let_go()
        code = _run(words, environ, secrets)
        # A full disk behind standard output shows no earlier than here, and then it is no success.
        flush_result()
        return code
    except ReaderGoneError:
        discard_output()
        return EXIT_READER_GONE
    # Whatever it is: one line says it, and --debug shows where it came from (decision D11).
    except Exception as error:
        return _failed(error, words, environ, secrets)


def _known(words: Sequence[str], environ: Mapping[str, str]) -> Secrets:
    """The secrets that show before anything is done."""
    secrets = Secrets(secrets_of(environ))
    # A store may be named in a variable as well, and so may a proxy.
    secrets.add_typed([*words, *environ.values()])
    return secrets


def _run(words: Sequence[str], environ: Mapping[str, str], secrets: Secrets) -> int:
    from epoch_oci.cli.app import VERBS, parse

    # Before anything is parsed: what was typed so far stands in the environment then, and is no command line yet.
    if _ASKED_BY_SHELL in environ:
        from epoch_oci.cli.help import complete

        complete(VERBS)
    call = parse(words, environ)
    if isinstance(call, int):
        return call
    from epoch_oci.cli.session import Run

    with Run(call.settings, secrets, call.origins) as session:
        return call.verb(session, **call.arguments) or EXIT_OK


def _failed(raised: Exception, words: Sequence[str], environ: Mapping[str, str], secrets: Secrets) -> int:
    """Tell what went wrong, with what to do next."""
    import json

    # Guessed, for the error may be that of the command line or of the configuration file, and then there are no
    # settings.
    shape, shown = guessed(words, environ), secrets.shown
    error = _ours(raised)
    if shape.debug and not isinstance(error, InterruptedTransferError):
        _show_traceback(raised, shown)
    # Among JSON lines the error line is the only one for people (docs/cli.md, Progress).
    if isinstance(error, ContentError) and len(error.findings) > 1 and shape.verbose and not shape.json_progress:
        for finding in error.findings:
            write_error(f"epoch-oci: {finding.code}: {shown(str(finding))}")
    text = shown(f"{error.message}; {_next(error, words)}")
    if shape.json_progress:
        write_error(json.dumps({"event": "error", "digest": None, "bytes": 0, "total": 0, "message": text}))
    write_error(f"epoch-oci: {error.code}: {text}")
    # The last line: that is where scripts look for it (docs/cli.md, Errors).
    if shape.json:
        about = shown(error.object) if error.object is not None else None
        members = {"code": error.code, "message": text, "object": about}
        if error.request_id is not None:
            members["requestId"] = shown(error.request_id)
        write_error(json.dumps({"error": members}))
    return exit_code(error)


def _ours(error: Exception) -> EpochOciError:
    """The error in our words; what nobody foresaw is a bug of ours, except what the system reports."""
    if isinstance(error, EpochOciError):
        return error
    # Both are OSErrors too, and no fault of this machine.
    if isinstance(error, ConnectionError | TimeoutError):
        return NetworkError(f"the connection failed: {error}")
    # Libraries derive errors of their own from OSError (requests does): those have no `strerror`, and are not the
    # system's.
    if isinstance(error, OSError) and error.strerror:
        name = str(error.filename) if error.filename is not None else None
        return LocalIOError(f"{name or 'this machine'}: {error.strerror.lower()}", object=name)
    return EpochOciError(f"{type(error).__name__}: {error}")


def _next(error: EpochOciError, words: Sequence[str]) -> str:
    if isinstance(error, InterruptedTransferError):
        # The first word that is a verb: the signal may have come before the line was parsed.
        command = next((word for word in words if word in _KEPT), "")
        return _KEPT.get(command, "") + "run the same command again to go on"
    if isinstance(error, UsageError) and not error.hint:
        from epoch_oci.cli.app import VERBS

        command = next((f" {word}" for word in words if word in VERBS), "")
        return f"see `epoch-oci{command} --help`"
    return hint_of(error)


def _show_traceback(error: Exception, shown: Callable[[str], str]) -> None:
    import traceback

    for part in traceback.format_exception(error):
        for line in part.splitlines():
            write_error(shown(line))


def _leave(code: int) -> NoReturn:
    """End the process now: all that is to outlast it is on a disk, synced, and the system takes back the rest.

    A transfer's thread may hang for long, and nothing it does counts any more. And to take the interpreter apart object
    by object is a tenth of a short command.
    """
    for stream in (sys.stdout, sys.stderr):
        # `os._exit` flushes nothing. What could not be written was told by `flush_result`.
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
