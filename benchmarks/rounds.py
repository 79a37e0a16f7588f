"""The race: pushes and pulls of the same artifact by every contender, alternating, several rounds."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import measure
from benchmarks.bench import Bench, Outcome, transfer
from benchmarks.registry import Registry, fresh
from benchmarks.repeat import repeat_pull, repeat_pushes
from benchmarks.results import Arena, Direction, Sample
from benchmarks.snapshot import Artifact, blob_path
from benchmarks.tools import PUT, Job, Tool

WARM_UP = -1
"""A transfer that does not count: memory that is touched for the first time would slow down whoever goes first."""


def race(bench: Bench, arena: Arena, artifact: Artifact, *, until: float, repeats: bool) -> None:
    """All rounds of one arena; no new round begins that would probably end after `until`, but one is always done.

    With `repeats` the unchanged transfers are done again while everything is in place.
    """
    bench.results.arenas.append(arena)
    storage = bench.place("registry", arena.registry_in_memory)
    pushers = [tool for tool in bench.tools if tool.push]
    pullers = [tool for tool in bench.tools if tool.pull]
    middle = time.monotonic() + (until - time.monotonic()) / 2

    _one_push(bench, arena, artifact, next(tool for tool in pushers if tool.raw), WARM_UP, storage)

    def push_round(number: int) -> None:
        for tool in rotated(pushers, number):
            _one_push(bench, arena, artifact, tool, number, storage)

    _rounds(bench, f"{arena.name}: push", push_round, middle)
    with fresh(bench.binary, storage, bench.disk) as registry:
        _seed(bench, artifact, registry)
        _one_pull(bench, arena, artifact, next(tool for tool in pullers if tool.raw), WARM_UP, registry, repeats=False)

        def pull_round(number: int) -> None:
            for tool in rotated(pullers, number):
                _one_pull(bench, arena, artifact, tool, number, registry, repeats and number == 0)

        _rounds(bench, f"{arena.name}: pull", pull_round, until)
        if repeats:
            repeat_pushes(bench, artifact, registry, pushers)


def rotated(tools: Sequence[Tool], by: int) -> Iterator[Tool]:
    """The same order in each round, but another one goes first."""
    by %= len(tools)
    yield from tools[by:]
    yield from tools[:by]


def _rounds(bench: Bench, what: str, one: Callable[[int], None], until: float) -> None:
    longest = 0.0
    for number in range(bench.rounds):
        begin = time.monotonic()
        if number and begin + longest > until:
            note = f"{what}: {number} of {bench.rounds} rounds, since the time set for the run was used up"
            bench.results.notes.append(note)
            bench.say(note)
            return
        bench.say(f"{what}: round {number + 1} of {bench.rounds}")
        one(number)
        longest = max(longest, time.monotonic() - begin)


def _one_push(bench: Bench, arena: Arena, artifact: Artifact, tool: Tool, number: int, storage: Path) -> None:
    assert tool.push is not None
    bench.forget(tool.name)
    with fresh(bench.binary, storage, bench.disk) as registry:
        measure.warm(artifact.layout)
        job = Job(artifact=artifact, address=registry.address, target=Path())
        outcome = transfer(bench, tool, tool.push, job, registry, "push")
    _record(bench, _sample(arena, "push", tool, number, outcome), artifact)


def _one_pull(
    bench: Bench, arena: Arena, artifact: Artifact, tool: Tool, number: int, registry: Registry, repeats: bool
) -> None:
    assert tool.pull is not None
    bench.forget(tool.name)
    target = bench.place("target", arena.target_in_memory)
    shutil.rmtree(target, ignore_errors=True)
    if tool.offline or not arena.registry_in_memory:
        measure.warm(artifact.layout if tool.offline else registry.storage)
    job = Job(artifact=artifact, address=registry.address, target=target)
    try:
        outcome = transfer(bench, tool, tool.pull, job, registry, "pull")
        wrong = content_fault(artifact, target) if number == 0 and not (outcome.error or tool.offline) else ""
        sample = _sample(arena, "pull", tool, number, outcome, wrong, _disk_blocks(artifact, target))
        _record(bench, sample, artifact)
        if repeats and not sample.error and not tool.raw:
            repeat_pull(bench, tool, job)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _sample(
    arena: Arena,
    direction: Direction,
    tool: Tool,
    number: int,
    outcome: Outcome,
    wrong: str = "",
    allocated: int = -1,
) -> Sample:
    return Sample(
        arena=arena.name,
        direction=direction,
        tool=tool.name,
        round=number,
        wall=outcome.wall,
        durable=outcome.durable,
        cpu=outcome.usage.cpu,
        registry_cpu=outcome.registry_cpu,
        peak=outcome.usage.peak,
        allocated=allocated,
        error=outcome.error or wrong,
    )


def content_fault(artifact: Artifact, target: Path) -> str:
    """The first file at `target` whose bytes do not hash to its digest; empty when there is none."""
    for file in artifact.files:
        with blob_path(target, file.digest).open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != file.digest:
                return f"{file.name} has other bytes after the pull"
    return ""


def _disk_blocks(artifact: Artifact, target: Path) -> int:
    disks = [blob_path(target, file.digest) for file in artifact.files if file.name == "cow.raw"]
    return sum(measure.allocated(path) for path in disks if path.exists()) if disks else -1


def _record(bench: Bench, sample: Sample, artifact: Artifact) -> None:
    if sample.round == WARM_UP:
        return
    bench.results.samples.append(sample)
    rate = f"{artifact.size / measure.MIB / sample.wall:8.0f} MiB/s" if sample.wall else ""
    bench.say(f"  {sample.direction} {sample.tool:20}" + (f" FAILED: {sample.error}" if sample.error else rate))


def _seed(bench: Bench, artifact: Artifact, registry: Registry) -> None:
    """Fill the registry for the pulls; raises RuntimeError when that does not work."""
    put = next(tool for tool in bench.tools if tool.name == PUT)
    assert put.push is not None
    job = Job(artifact=artifact, address=registry.address, target=Path())
    outcome = transfer(bench, put, put.push, job, registry, "push")
    if outcome.error:
        raise RuntimeError(f"the registry could not be filled: {outcome.error}")
