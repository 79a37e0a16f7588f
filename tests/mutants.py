"""Changes to the code that a quick test must notice: `python tests/mutants.py [WORD]` tries them, one after the other.

Each is a thing that once broke somewhere and looks right. `tests/test_mutants.py` sees to it that each still applies to
the code, and tries all of them in the long tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutant:
    """`old` stands once in `file` of the package; with `new` in its place one of `tests` has to fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return ROOT / "epoch_oci" / self.file

    def applies(self) -> bool:
        return self.path.read_text(encoding="utf-8").count(self.old) == 1


MUTANTS = (
    Mutant(
        "no cap on redirects",
        "registry/client.py",
        "if hops > _HOPS:",
        "if hops > 1_000_000:",
        ("test_registry_origins.py", "test_registry_repository.py", "test_hostile_peers.py"),
    ),
    Mutant(
        "a token is used to its last second",
        "registry/auth_token.py",
        "return seconds - min(_MARGIN, seconds / 2)",
        "return seconds",
        ("test_registry_secrets.py", "test_registry_transfers.py", "test_registry_repository.py"),
    ),
    Mutant(
        "large blobs come in one span at a time",
        "transfer/assemble.py",
        "        if executor is not None:\n",
        "        if executor is None:\n            return\n        if False:\n",
        ("test_transfer.py", "test_assembly.py"),
    ),
    Mutant(
        "a seed that failed is asked again",
        "transfer/execute.py",
        "            seed.failed = True\n",
        "",
        ("test_seeds.py", "test_transfer.py"),
    ),
    Mutant(
        "the smallest blobs are moved first",
        "transfer/execute.py",
        "key=lambda index: -plan.items[index].target.size",
        "key=lambda index: plan.items[index].target.size",
        ("test_transfer.py",),
    ),
    Mutant(
        "chunks shrink without end",
        "registry/profiles.py",
        "if self.chunk // 2 < self.smallest_chunk:",
        "if self.chunk // 2 < 1:",
        ("test_registry_profiles.py", "test_registry_transfers.py", "test_registry_journal.py"),
    ),
    Mutant(
        "what a seed has counts as bytes to move",
        "transfer/plan.py",
        'if item.step == "move" and not item.seeds)',
        'if item.step == "move")',
        ("test_seeds.py", "test_transfer.py"),
    ),
)


def survives(mutant: Mutant) -> bool:
    """Whether its tests pass although the code is changed. The code itself is left alone: a copy is."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "epoch_oci", f"{folder}/epoch_oci", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "schemas", f"{folder}/schemas")
        changed = Path(folder, "epoch_oci", mutant.file)
        changed.write_text(mutant.path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        # -P: the copy on PYTHONPATH comes before the checkout
        command = [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "-q",
            "-x",
            "-n",
            "0",
            "-m",
            "not long",
            "-p",
            "no:cacheprovider",
        ]
        done = subprocess.run(
            [*command, *(f"tests/{name}" for name in mutant.tests)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stdout.decode() + done.stderr.decode())
        return done.returncode == 0


def main(word: str = "") -> int:
    """How many survived."""
    alive = 0
    for mutant in MUTANTS:
        if word in mutant.name:
            lives = survives(mutant)
            alive += lives
            print("SURVIVES" if lives else "dies    ", mutant.name, flush=True)
    return alive


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
