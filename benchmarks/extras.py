"""What is measured of this tool alone: the next version, scaling, start-up, translation, a plan of 100 parts."""

import json
import shutil
import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.bench import Bench, transfer
from benchmarks.registry import Registry, fresh
from benchmarks.results import Direction, Scaling, SecondVersion
from benchmarks.snapshot import Artifact, make_marked
from benchmarks.tools import HERE, OURS, Job, Tool, our_pull, our_push, program

JOBS = 8
STARTS = 20
PLAN_PARTS = 100
SCALING_PARTS = 64


def second_version(bench: Bench, part_size: str, in_memory: bool) -> None:
    """Push the first version, then the second, of which 5 % of the blocks differ."""
    options = ("--part-size", part_size)
    first, second = bench.inputs.snapshot, bench.inputs.second
    bench.forget(OURS)
    with fresh(bench.binary, bench.place("registry", in_memory), bench.disk) as registry:
        before = Job(artifact=first, address=registry.address, target=Path(), options=options)
        outcome = transfer(bench, _ours(bench), our_push, before, registry, "push")
        held = _stored(registry)
        if not outcome.error:
            measure.warm(second.layout)
            job = Job(artifact=second, address=registry.address, target=Path(), options=options)
            outcome = transfer(bench, _ours(bench), our_push, job, registry, "push")
        result = SecondVersion(
            part_size=part_size,
            size=second.size,
            wall=outcome.wall,
            sent=_said(outcome.usage.output),
            grown=_stored(registry) - held,
            error=outcome.error,
        )
    bench.results.second_versions.append(result)
    bench.say(f"second version, part size {part_size}: {result.error or f'{result.sent} bytes in {result.wall:.1f} s'}")


def _ours(bench: Bench) -> Tool:
    return next(tool for tool in bench.tools if tool.name == OURS)


def _stored(registry: Registry) -> int:
    """Bytes of all blobs that the registry keeps."""
    return sum(path.stat().st_size for path in registry.storage.rglob("data"))


def _said(output: str) -> int:
    try:
        return int(json.loads(output)["bytesTransferred"])
    except (ValueError, KeyError):
        return -1


def scaling(bench: Bench, size: int) -> None:
    """One file of `size` bytes, pushed and pulled with eight transfers, whole and in parts."""
    bench.say(f"scaling: making one file of {size / measure.GIB:g} GiB")
    artifact = make_marked(bench.disk, size)
    for part_size in ("none", str(max(size // SCALING_PARTS, measure.MIB))):
        with fresh(bench.binary, bench.place("registry", False), bench.disk) as registry:
            options = ("--jobs", str(JOBS), "--part-size", part_size)
            _scale(bench, artifact, registry, "push", part_size, options)
            _scale(bench, artifact, registry, "pull", part_size, options[:2])
    shutil.rmtree(artifact.store.parent)


def _scale(
    bench: Bench,
    artifact: Artifact,
    registry: Registry,
    direction: Direction,
    part_size: str,
    options: tuple[str, ...],
) -> None:
    target = bench.place("target", False)
    bench.forget(OURS)
    job = Job(artifact=artifact, address=registry.address, target=target, options=options)
    command = our_push if direction == "push" else our_pull
    try:
        outcome = transfer(bench, _ours(bench), command, job, registry, direction)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    usage = outcome.usage
    bench.results.scaling.append(
        Scaling(
            size=artifact.size,
            part_size=part_size,
            direction=direction,
            wall=usage.wall,
            cpu=usage.cpu,
            peak=usage.peak,
            error=outcome.error,
        )
    )
    said = outcome.error or f"{usage.peak / measure.MIB:.0f} MiB, {usage.wall:.1f} s"
    bench.say(f"scaling: {direction} with part size {part_size}: {said}")


def startup(bench: Bench) -> None:
    """`--help`, twenty times, and the bare interpreter beside it."""
    commands = {"help": [program(), "--help"], "python": [sys.executable, "-c", "pass"]}
    for name in list(commands) * STARTS:
        usage = bench.run(OURS, commands[name])
        if usage.error:
            bench.results.notes.append(f"start-up, {name}: {usage.error}")
            return
        bench.results.seconds.setdefault(name, []).append(usage.wall)
    bench.say(f"--help: {1000 * measure.median(bench.results.seconds['help']):.0f} ms")


def translation(bench: Bench) -> None:
    """Ten thousand manifests through the library."""
    count = bench.scale.manifests
    usage = bench.run(OURS, [sys.executable, str(HERE / "translate.py"), str(count)])
    if usage.error:
        bench.results.notes.append(f"translation: {usage.error}")
        return
    seconds = json.loads(usage.output)["seconds"]
    bench.results.manifests = count
    bench.results.seconds["translation"] = [seconds]
    bench.say(f"translation: {count / seconds:.0f} manifests/s")


def plan(bench: Bench) -> None:
    """A dry run of a push in 100 parts, whose digests it need not know: once with nothing known, then again."""
    artifact = bench.inputs.memory
    part_size = -(-artifact.file("memory-ranges").size // PLAN_PARTS)
    options = ("--part-size", str(part_size), "--dry-run")
    bench.forget(OURS)
    with fresh(bench.binary, bench.place("registry", True), bench.disk) as registry:
        job = Job(artifact=artifact, address=registry.address, target=Path(), options=options)
        for name in ("plan, first", "plan, again", "plan, again", "plan, again"):
            usage = bench.run(OURS, our_push(job))
            if usage.error:
                bench.results.notes.append(f"{name}: {usage.error}")
                return
            bench.results.seconds.setdefault(name, []).append(usage.wall)
    bench.say(f"plan of {PLAN_PARTS} parts: " + ", ".join(
        f"{name} {measure.median(bench.results.seconds[name]):.2f} s" for name in ("plan, first", "plan, again")
    ))  # fmt: skip
