"""The same transfer once more, with nothing changed: how long it takes, and what it asks the registry for."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.counting import counting
from benchmarks.registry import Registry
from benchmarks.results import Direction, Repeat
from benchmarks.snapshot import Artifact
from benchmarks.tools import Command, Job, Tool

TIMES = 3


def repeat_pushes(bench: Bench, artifact: Artifact, registry: Registry, tools: Sequence[Tool]) -> None:
    """Everything is in the registry already."""
    for tool in tools:
        if tool.push and not tool.raw:
            bench.forget(tool.name)
            job = Job(artifact=artifact, address=registry.address, target=Path())
            _repeat(bench, "push", tool, tool.push, job, TIMES)


def repeat_pull(bench: Bench, tool: Tool, job: Job) -> None:
    """Everything is in the target already."""
    assert tool.pull is not None
    _repeat(bench, "pull", tool, tool.pull, job, 1)


def _repeat(bench: Bench, direction: Direction, tool: Tool, command: Command, job: Job, times: int) -> None:
    usages = [bench.run(tool.name, command(job)) for _ in range(times)]
    with counting(job.address) as proxy:
        through = Job(artifact=job.artifact, address=proxy.address, target=job.target, options=job.options)
        usages.append(bench.run(tool.name, command(through)))
        count = proxy.count
    error = next((usage.error for usage in usages if usage.error), "")
    repeat = Repeat(
        direction=direction,
        tool=tool.name,
        blobs=len(job.artifact.files) + 1,
        wall=statistics.median(usage.wall for usage in usages[:-1]),
        requests=count.requests,
        payload=count.sent if direction == "push" else count.received,
        error=error,
    )
    bench.results.repeats.append(repeat)
    said = error or f"{repeat.wall:.2f} s, {repeat.requests} requests, {repeat.payload} payload bytes"
    bench.say(f"  {direction} again, {tool.name}: {said}")
