"""The command line under test: as a process of its own, or in this one where only speed matters."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def run_cli(
    *words: object,
    env: Mapping[str, str] | None = None,
    input: bytes = b"",
    cwd: object = None,
    timeout: float = TIMEOUT,
) -> Ran:
    """Run it as a user does, in a process of its own."""
    done = subprocess.run(
        command(*map(str, words)), env=environment(env), input=input, cwd=cwd, capture_output=True, timeout=timeout
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


class Here:
    """Runs it in this process; exit code and streams are the same."""

    def __init__(self, capsys: Any) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, env: Mapping[str, str] | None = None) -> Ran:
        self._capsys.readouterr()
        code = main.run([str(word) for word in words], environment(env))
        out, err = self._capsys.readouterr()
        return Ran(code, out, err)
