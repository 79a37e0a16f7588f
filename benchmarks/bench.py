"""One benchmark run: its directories, its clock, and a transfer with everything that has to surround it."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import measure
from benchmarks.registry import Binary, Registry
from benchmarks.results import Direction, Results
from benchmarks.snapshot import Artifact, Inputs, Scale, blob_path
from benchmarks.tools import OURS, Command, Job, Tool, environment


@dataclass(slots=True, kw_only=True)
class Bench:
    """`disk` and `memory` are scratch directories on a disk and in memory; `deadline` is on the monotonic clock."""

    scale: Scale
    rounds: int
    disk: Path
    memory: Path
    binary: Binary
    inputs: Inputs
    tools: list[Tool]
    results: Results
    timeout: float
    deadline: float
    begin: float = field(default_factory=time.monotonic)
    trust: dict[str, str] = field(default_factory=dict)
    """Variables that name the authority of a registry with TLS."""

    def say(self, text: str) -> None:
        """Progress, to standard error."""
        sys.stderr.write(f"[{time.monotonic() - self.begin:7.1f} s] {text}\n")
        sys.stderr.flush()

    def place(self, name: str, in_memory: bool) -> Path:
        """A scratch directory's path; it need not exist."""
        return (self.memory if in_memory else self.disk) / name

    def home(self, tool: str) -> Path:
        """The home directory that a contender sees."""
        return self.disk / "homes" / tool.replace(" ", "-")

    def forget(self, tool: str) -> None:
        """Drop every cache and journal that a contender keeps between its runs."""
        shutil.rmtree(self.home(tool), ignore_errors=True)

    def run(self, tool: str, argv: Sequence[str]) -> measure.Usage:
        """Run a contender's command."""
        home = self.home(tool)
        env = environment(home) | self.trust
        logs = self.disk / "logs" / tool.replace(" ", "-")
        logs.parent.mkdir(exist_ok=True)
        return measure.run(argv, env=env, cwd=home, logs=logs, timeout=self.timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A measured transfer: see `results.Sample`."""

    usage: measure.Usage
    wall: float
    durable: float
    registry_cpu: float
    error: str


def transfer(bench: Bench, tool: Tool, command: Command, job: Job, registry: Registry, direction: Direction) -> Outcome:
    """Run one transfer and check what it left behind; nothing is dirty when it begins."""
    measure.settle()
    before = registry.cpu
    usage = bench.run(tool.name, command(job))
    synced = measure.settle()
    wall = measure.said_seconds(usage) if tool.raw and not usage.error else usage.wall
    return Outcome(
        usage=usage,
        wall=wall,
        durable=wall + synced,
        registry_cpu=registry.cpu - before,
        error=usage.error or ("" if tool.offline else _fault(tool, job, registry, direction)),
    )


def _fault(tool: Tool, job: Job, registry: Registry, direction: Direction) -> str:
    if direction == "push":
        # This tool sends files above 1 GiB in parts: its manifest is another one than the layout's.
        return registry.fault_of(job.artifact, parts=tool.name == OURS)
    return pulled_fault(job.artifact, job.target)


def pulled_fault(artifact: Artifact, target: Path) -> str:
    """What is wrong with the blobs at `target` by name and size; empty when nothing is."""
    for file in artifact.files:
        path = blob_path(target, file.digest)
        if not path.exists():
            return f"{file.name} is missing after the pull"
        if path.stat().st_size != file.size:
            return f"{file.name} has {path.stat().st_size} bytes after the pull, not {file.size}"
    return ""
