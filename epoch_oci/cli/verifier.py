"""`--verify-with`: another program judges an artifact, by its digest, before a byte of it is fetched."""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from epoch_oci.cli.settings import without_secrets
from epoch_oci.errors import PolicyError, UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run

PLACE = "{}"
"""What stands in the command for the artifact; without it the artifact is its last word."""
_LONGEST_LINE = 1 << 16


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
        assert process.stdout is not None
        while line := process.stdout.readline(_LONGEST_LINE):
            say(f"{name}: {line.decode('utf-8', 'replace').rstrip()}")
        code = process.wait()
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


@contextlib.contextmanager
def _started(words: list[str], run: "Run") -> Iterator["subprocess.Popen[bytes]"]:
    """The program, which does not outlive us."""
    try:
        process = subprocess.Popen(  # noqa: S603 (what the user asked for, and no shell)
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=without_secrets(run.settings.environ),
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
            process.kill()
