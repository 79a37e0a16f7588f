"""The commands that README and docs show, as blocks to run, and the world that they are run in.

A block of `sh` or `python` is run as it is, one after another, page by page. Of a block of `console` the lines that
begin with `$ ` are run, and what they print is held against the lines below: `…` stands for anything.
Hosts, buckets and absolute paths of the docs are replaced by real registries, buckets and folders of this machine.
"""

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli_runner import relay

ROOT = Path(__file__).parent.parent
PASSWORD_FILES = ("robot.secret", "epoch.token")
USERS = ("my-name", "robot$snapshots", "me", "AWS", "oauth2accesstoken", "00000000-0000-0000-0000-000000000000")
NOT_RUN = {
    r"git clone|python3 -m venv": "installing is what `make` does, and this very test",
    r"make \w": "each target is run by itself",
    r"epoch-oci mount": "FUSE is not everywhere; tests/test_reading.py mounts where it is",
    r".*--every ": "a mirror never ends; tests/test_sync_mirror.py",
    r".*--(workers|scheduler) ": "a Dask cluster; tests/test_sync_cluster.py",
    r"cosign|notation|.*--verify-with": "tests/test_signing.py, with the programs themselves",
    r".*…": "a place for what is yours",
    r"aws ecr create|gcloud artifacts|cocoon vm clone": "of the cloud, or of the hypervisor",
    r".*\| xxd": "of another package",
}
"""What is shown and not run, and why; a pattern is held against the start of a command."""
STAND_INS = {
    "aws": "cat {secret}",
    "gcloud": "cat {secret}",
    "az": "cat {secret}",
    "cocoon": 'case "$2" in export) cat {archive};; import) cat > imported.tar;; *) exit 9;; esac',
    "epoch-oci": 'exec {relay} "$@"',
    "python": 'exec {python} "$@"',
}
"""Programs of clouds and of Cocoon, as far as the docs use them: a token, and an archive that Cocoon wrote."""


@dataclass(frozen=True)
class Block:
    """A fence of a page; `line` is where it begins."""

    page: str
    line: int
    kind: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command, over several lines perhaps; `shown` is what the page says that it prints, None where it does not."""

    text: str
    shown: str | None = None

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, self.text, re.DOTALL)), None)


def pages() -> list[Path]:
    """Every page that shows commands. What docs/cli.md shows is printed by the program, and tried with that."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if page.name != "cli.md" and blocks(page)]


def fences(page: Path) -> Iterator[Block]:
    """Every fence of a page."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    for found in re.finditer(r"^( *)```([^\n`]*)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
        lines = [line.removeprefix(found[1]) for line in found[3].splitlines()]
        yield Block(name, text.count("\n", 0, found.start()) + 1, found[2], "\n".join(lines) + "\n")


def blocks(page: Path) -> list[Block]:
    """Those that are run."""
    return [block for block in fences(page) if block.kind in ("sh", "console", "python")]


def commands(block: Block) -> list[Command]:
    """The commands of a block, in order."""
    if block.kind == "console":
        parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
        return [Command(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]
    if block.kind == "python":
        return [Command(f"python - <<'END'\n{block.text}END")]
    found, lines = [], block.text.splitlines()
    while lines:
        text = lines.pop(0)
        while lines and (text.endswith(("\\", "|")) or (text.startswith("for ") and not text.endswith("done"))):
            text += "\n" + lines.pop(0)
        if text.strip():
            found.append(Command(text))
    return found


def fits(shown: str, printed: str) -> bool:
    """Whether what was printed is what a page shows."""
    pattern = re.escape(shown.rstrip("\n")).replace("…", r"[\s\S]*?")
    return re.fullmatch(pattern, printed.rstrip("\n")) is not None


class World:
    """A folder with all that the docs speak of, and a shell in it that remembers its variables."""

    def __init__(self, folder: Path, words: Mapping[str, str], variables: Mapping[str, str], secret: str) -> None:
        self.folder = folder
        self.words = words
        self.work, self.bin, self.state = folder / "work", folder / "bin", folder / "state"
        for made in (self.work, self.bin, folder / "mnt/usb", folder / "data"):
            made.mkdir(parents=True)
        for name in PASSWORD_FILES:
            (self.work / name).write_text(secret)
        (folder / "secret").write_text(secret)
        relayed = shlex.join(relay())
        for name, body in STAND_INS.items():
            text = body.format(
                secret=folder / "secret", archive=folder / "export.tar", python=sys.executable, relay=relayed
            )
            (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.bin / name).chmod(stat.S_IRWXU)
        self.environ = {**os.environ, **variables}
        self.environ["PATH"] = os.pathsep.join([str(self.bin), *variables.get("PATH", os.environ["PATH"]).split(":")])

    def here(self, text: str) -> str:
        """A command as it is run here: hosts, buckets and paths are those of this world."""
        text = re.sub(r"(?<![\w.])/(?=(?:data|mnt|var/lib/cocoon)\b)", f"{self.folder}/", text)
        for word, instead in self.words.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(word)}", lambda _, new=instead: new, text)
        return text

    def run(self, command: Command) -> tuple[int, str, str]:
        """Exit code, what was printed, and what the shell was given."""
        text = self.here(command.text)
        script = f"set -aeo pipefail; [ ! -e {self.state} ] || . {self.state}\n{text}\nexport -p > {self.state}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.work,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout, text
