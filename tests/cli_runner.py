"""The command line under test: as a process of its own, or in this one where only speed matters.

Whatever it prints as JSON is held to its schema (`interface`), whichever test it is that runs it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import interface
from support.nursery import Child, Nursery

import epoch_oci
from epoch_oci.cli import main

TIMEOUT = 60


@dataclass(frozen=True)
class Ran:
    """What came of a command line; `out` and `err` are text."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which has to be one JSON document."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one error line."""
        lines = [line for line in self.err.splitlines() if re.match(r"epoch-oci: [A-Z_]+: ", line)]
        assert len(lines) == 1, self.err
        return lines[0]

    @property
    def json_error(self) -> Any:
        """The JSON object that goes with the error line."""
        return json.loads(self.err.splitlines()[-1])["error"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "epoch_oci", *words]


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, **(env or {})}


_NURSERY = Nursery("epoch_oci.*", "oras.provider", "jsonschema.validators", "jsonschema_rs", "obstore", "pytest")


def start_function(target: str, *words: object, env: Mapping[str, str] | None = None, cwd: object = None) -> Child:
    """Call a function (`MODULE:FUNCTION`, test modules too) in a process of its own; it finds `words` in `sys.argv`."""
    return _NURSERY.start(target, [target, *map(str, words)], env=environment(env), cwd=cwd)


def start_cli(
    *words: object, env: Mapping[str, str] | None = None, cwd: object = None, stdin: int | None = None
) -> Child:
    """Start it as a user does, in a process of its own; see `support.nursery` for what is not quite so."""
    argv = [epoch_oci.__file__.replace("__init__", "__main__"), *map(str, words)]
    return _NURSERY.start("epoch_oci.cli.main:main", argv, env=environment(env), cwd=cwd, stdin=stdin)


def relay() -> list[str]:
    """A command line that does what `epoch-oci` does, for scripts that start it often."""
    return _NURSERY.relay("epoch_oci.cli.main:main", epoch_oci.__file__.replace("__init__", "__main__"))


def run_cli(
    *words: object,
    env: Mapping[str, str] | None = None,
    input: bytes = b"",
    cwd: object = None,
    timeout: float = TIMEOUT,
) -> Ran:
    """Run it as a user does, in a process of its own."""
    child = start_cli(*words, env=env, cwd=cwd)
    out, err = child.communicate(input, timeout)
    assert child.returncode is not None
    return _ran(words, environment(env), child.returncode, out.decode(), err.decode())


def run_bytes(
    *words: object, env: Mapping[str, str] | None = None, input: bytes = b"", cwd: object = None
) -> subprocess.CompletedProcess[bytes]:
    """As `run_cli`, for output that is no text."""
    child = start_cli(*words, env=env, cwd=cwd)
    out, err = child.communicate(input, TIMEOUT)
    assert child.returncode is not None
    return subprocess.CompletedProcess([str(word) for word in words], child.returncode, out, err)


def run_fresh(*words: object, env: Mapping[str, str] | None = None, input: bytes = b"", cwd: object = None) -> Ran:
    """As `run_cli`, with an interpreter of its own."""
    done = subprocess.run(
        command(*map(str, words)), env=environment(env), input=input, cwd=cwd, capture_output=True, timeout=TIMEOUT
    )
    return _ran(words, environment(env), done.returncode, done.stdout.decode(), done.stderr.decode())


def _ran(words: Sequence[object], env: Mapping[str, str], code: int, out: str, err: str) -> Ran:
    interface.check([str(word) for word in words], env, out, err)
    return Ran(code, out, err)


class Here:
    """Runs it in this process; exit code and streams are the same."""

    def __init__(self, capsys: Any) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, env: Mapping[str, str] | None = None) -> Ran:
        self._capsys.readouterr()
        code = main.run([str(word) for word in words], environment(env))
        out, err = self._capsys.readouterr()
        return _ran(words, environment(env), code, out, err)


def completed(line: str, **env: str) -> list[str]:
    """What a shell is offered for the last word of `line`, by argcomplete's protocol."""
    with tempfile.NamedTemporaryFile() as answer:
        asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": ""}
        ran = run_fresh(env={**asked, "_ARGCOMPLETE_STDOUT_FILENAME": answer.name, **env})
        assert (ran.code, ran.out, ran.err) == (0, "", "")
        return [word.strip() for word in answer.read().decode().split("\x0b") if word]
