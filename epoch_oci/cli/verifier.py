"""`--verify-with`: another program judges an artifact, by its digest, before a byte of it is fetched."""

import contextlib
import os
import select
import shlex
import signal
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from epoch_oci.cli.settings import without_secrets
from epoch_oci.errors import PolicyError, UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run

PLACE = "{}"
"""What stands in the command for the artifact; without it the artifact is its last word."""
# Bytes: a program may write for ever without ending a line, and memory stays flat.
_LONGEST_LINE = 1 << 16
_PIPE = 1 << 16
"""Bytes: no less than what a pipe holds, so that what was said before the end is read in one go."""
_PAUSE = 0.1
"""Seconds between two looks whether a program that is silent has ended."""


def refuse_unless_verified(run: "Run", command: str, reference: str) -> None:
    """Run `command` on `reference`, which is HOST/REPOSITORY@sha256:HEX; what it says is shown on standard error.

    No shell reads it, it has no standard input, and none of our own secrets in its environment. Raises PolicyError
    unless it exits 0, UsageError for what is no command.
    """
    words = words_of(command, reference)
    name = os.path.basename(words[0])  # noqa: PTH119 (a word, as it was typed)
    say = run.note if not run.settings.quiet else lambda text: None
    say(f"asking {name} about {reference}")
    with _started(words, run) as process:
        for line in _lines(process):
            say(f"{name}: {line.decode('utf-8', 'replace').rstrip()}")
        _has_ended(process, waits=True)
    code = process.returncode
    if code != 0:
        how = f"exit {code}" if code > 0 else f"signal {-code}"
        raise PolicyError(
            f"{name} did not verify {reference} ({how})", object=reference, hint="nothing of it was fetched"
        )


def words_of(command: str, reference: str) -> list[str]:
    """The command with the artifact in its place. Raises UsageError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--verify-with is no command: {error}".lower(), object="--verify-with") from None
    if not words:
        raise UsageError("--verify-with names no program", object="--verify-with")
    if not any(PLACE in word for word in words):
        return [*words, reference]
    return [word.replace(PLACE, reference) for word in words]


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """What the program says until it ends; whoever it started, and left its output to, is not waited for."""
    assert process.stdout is not None
    number, held, is_open = process.stdout.fileno(), b"", True
    while is_open:
        # Asked before the pipe is: what was written before the end is in it by then, and is read below.
        ended = _has_ended(process)
        ready = select.select([number], [], [], 0 if ended else _PAUSE)[0]
        block = os.read(number, _PIPE) if ready else b""
        is_open = not ended and (bool(block) or not ready)
        *lines, held = (held + block).split(b"\n")
        yield from lines
        if held and (len(held) >= _LONGEST_LINE or not is_open):
            yield held
            held = b""


def _has_ended(process: "subprocess.Popen[bytes]", *, waits: bool = False) -> bool:
    """It is not taken away yet: until then nobody else has its number, which is that of its group."""
    how = os.WEXITED | os.WNOWAIT | (0 if waits else os.WNOHANG)
    return os.waitid(os.P_PID, process.pid, how) is not None


@contextlib.contextmanager
def _started(words: list[str], run: "Run") -> Iterator["subprocess.Popen[bytes]"]:
    """The program, in a session of its own: whom it starts does not outlive us either, and no terminal is asked."""
    try:
        process = subprocess.Popen(  # noqa: S603 (what the user asked for, and no shell)
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # One pipe for both, so that lines are shown in the order in which they were written.
            stderr=subprocess.STDOUT,
            env=without_secrets(run.settings.environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(
            f"--verify-with: {words[0]} cannot be run: {reason}",
            object=words[0],
            hint="name a program on PATH, and its words",
        ) from None
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
