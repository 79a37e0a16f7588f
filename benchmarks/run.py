"""The command behind `make bench`: makes the inputs, runs everything, writes RESULTS.md, results.svg, results.json."""

import argparse
import contextlib
import fcntl
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from benchmarks import extras, far, history, many, measure, plot, profiles, report, targets, tools
from benchmarks.bench import Bench
from benchmarks.registry import Binary, find_registry
from benchmarks.results import Arena, Results, load
from benchmarks.rounds import race
from benchmarks.snapshot import SCALES, Artifact, Scale, blob_path, make_inputs

HERE = Path(__file__).parent
STAGES = (
    "memory",
    "disk",
    "snapshot",
    "repeat",
    "second",
    "scaling",
    "startup",
    "translation",
    "plan",
    "many",
    "tls",
    "resets",
    "line",
    "profile",
)
QUICK = ("memory", "tls", "startup", "translation")
"""What `--quick` does in five minutes: the races that programs decide, not disks or lines."""
LATER_SECONDS = {"small": 60, "quick": 60, "full": 1300}  # kept for what comes after the races
ROOM_GIB = 6  # memory that must stay free beside what lies in the RAM file system
RAM_DISK = Path("/dev/shm")


def main(words: list[str] | None = None) -> int:
    """Run the benchmarks, or only write the report of a run again."""
    options = _options(words)
    # A trial run shall not replace the results that are kept.
    if options.quick:
        options.scale, options.only, options.budget = "quick", options.only or QUICK, min(options.budget, 300)
    out = options.out or (HERE if options.scale == "full" else Path(tempfile.gettempdir()) / "epoch-oci-bench-results")
    if options.render:
        write(load(out / "results.json"), out)
        return 0
    signal.signal(signal.SIGTERM, _terminated)
    with _scratch(options.work, options.scale, options.keep) as (disk, memory):
        bench = _bench(options, disk, memory)
        _run(bench, set(options.only or STAGES))
    out.mkdir(parents=True, exist_ok=True)
    write(bench.results, out)
    bench.say(f"written: {out / 'RESULTS.md'}")
    return 1 if any(sample.tool == tools.OURS and sample.error for sample in bench.results.samples) else 0


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="how large the inputs are (default: full)")
    parser.add_argument("--quick", action="store_true", help="the races that programs decide alone, in five minutes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each race (default: 3)")
    parser.add_argument("--budget", type=int, default=2400, help="seconds for all; rounds are dropped (default: 2400)")
    parser.add_argument("--work", type=Path, help="directory for everything that is made (default: the system's)")
    parser.add_argument("--keep", action="store_true", help="keep the inputs in --work for the next run")
    parser.add_argument("--out", type=Path, help="directory of the results (default: this one; small: a temporary)")
    parser.add_argument("--only", nargs="+", choices=STAGES, help="these stages only")
    parser.add_argument("--tools", nargs="+", help="these contenders only; the raw limits always take part")
    parser.add_argument("--render", action="store_true", help="write the report again from --out's results.json")
    return parser.parse_args(words)


def write(results: Results, out: Path) -> None:
    """The files of a run; `notes.md` beside them is a person's comment and goes into the report."""
    notes = out / "notes.md"
    results.dump(out / "results.json")
    (out / "results.svg").write_text(plot.svg(results))
    runs = history.keep(results, out / "history.json")
    (out / "history.svg").write_text(history.svg(runs))
    extra = notes.read_text() if notes.exists() else ""
    (out / "RESULTS.md").write_text(report.markdown(results, extra, history=len(runs) > 1))


@contextlib.contextmanager
def _scratch(work: Path | None, scale: str, keep: bool) -> Iterator[tuple[Path, Path]]:
    """Two directories of our own, on disk and in memory; they are removed at the end, the inputs unless `keep`."""
    disk = (work or Path(tempfile.gettempdir())) / f"epoch-oci-bench-{scale}"
    disk.mkdir(mode=0o700, parents=True, exist_ok=True)
    ram = RAM_DISK if os.access(RAM_DISK, os.W_OK) else disk
    with (disk / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"another run is using {disk}") from None
        memory = Path(tempfile.mkdtemp(prefix="epoch-oci-bench-", dir=ram))
        try:
            yield disk, memory
        finally:
            shutil.rmtree(memory, ignore_errors=True)
            _clean(disk, keep)


def _clean(disk: Path, keep: bool) -> None:
    if not keep:
        shutil.rmtree(disk, ignore_errors=True)
        return
    for entry in disk.iterdir():
        if not entry.name.startswith("inputs-"):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()


def _bench(options: argparse.Namespace, disk: Path, memory: Path) -> Bench:
    begin = time.monotonic()
    binary = find_registry()
    if binary is None:
        raise SystemExit("no registry found: install Debian's docker-registry, or run `make peers`")
    scale = SCALES[options.scale]
    _require_room(disk, scale)
    contenders = [tools.ours(), *tools.peers()]
    if options.tools:
        contenders = [tool for tool in contenders if tool.name in options.tools]
    results = Results(
        scale=scale.name,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        rounds=options.rounds,
        machine=_machine(),
        versions={tool.name: tool.version for tool in contenders} | {"registry (distribution)": binary.version},
    )

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    return Bench(
        scale=scale,
        rounds=options.rounds,
        disk=disk,
        memory=memory,
        binary=Binary(binary.path, binary.version),
        inputs=make_inputs(disk, scale, say),
        tools=[*contenders, *tools.limits()],
        results=results,
        timeout=120 if scale.name == "small" else 900,
        deadline=begin + options.budget,
        begin=begin,
    )


def _require_room(disk: Path, scale: Scale) -> None:
    whole = scale.memory + scale.qcow2 + scale.disk
    # Two versions of the inputs, then the registry's copy and a dense pulled one, or the largest file of the scaling.
    need = 2 * (scale.memory + scale.qcow2 + scale.disk_data) + max(2 * whole, scale.scaling[-1]) + measure.GIB
    free = shutil.disk_usage(disk).free
    if free < need:
        raise SystemExit(
            f"{need / measure.GIB:.0f} GiB of disk are needed in {disk}, {free / measure.GIB:.0f} are free"
        )


def _machine() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kernel = re.match(r"[\d.]+", platform.release())
    return {
        "cores": str(os.cpu_count()),
        "architecture": platform.machine(),
        "memory": f"{memory / measure.GIB:.0f} GiB of memory",
        "kernel": f"{platform.system()} {kernel[0] if kernel else ''}".strip(),
        "python": f"Python {platform.python_version()}",
    }


def _run(bench: Bench, wanted: set[str]) -> None:
    for stage, run in _STAGES.items():
        if stage in wanted:
            try:
                run(bench, wanted)
            except (OSError, RuntimeError, ValueError) as error:
                # What the other stages found is worth keeping.
                note = f"stage {stage} failed: {error}"
                bench.results.notes.append(note)
                bench.say(note)


def _memory_race(bench: Bench, wanted: set[str]) -> None:
    artifact = bench.inputs.memory
    if not _fits(2 * artifact.size):
        bench.results.notes.append("no race in memory: there is too little of it")
        return
    arena = _arena("memory", "a memory image", artifact, in_memory=(True, True))
    race(bench, arena, artifact, until=_until(bench), repeats=False)


def _disk_race(bench: Bench, wanted: set[str]) -> None:
    artifact = bench.inputs.memory
    arena = _arena("disk", "a memory image, to disk", artifact, in_memory=(False, False))
    race(bench, arena, artifact, until=_until(bench), repeats=False)


def _snapshot_race(bench: Bench, wanted: set[str]) -> None:
    artifact = bench.inputs.snapshot
    arena = _arena("snapshot", "a whole snapshot", artifact, in_memory=(_fits(artifact.size), False))
    race(bench, arena, artifact, until=_until(bench), repeats="repeat" in wanted)


def _until(bench: Bench) -> float:
    """When the races must end so that the stages after them have their time, on the monotonic clock."""
    return bench.deadline - LATER_SECONDS[bench.scale.name]


def _second(bench: Bench, wanted: set[str]) -> None:
    part = max(bench.scale.memory // extras.SCALING_PARTS, measure.MIB)
    for part_size in ("none", f"{part // measure.MIB}MiB"):
        extras.second_version(bench, part_size, _fits(2 * bench.inputs.snapshot.size))


def _scaling(bench: Bench, wanted: set[str]) -> None:
    for size in bench.scale.scaling:
        extras.scaling(bench, size)


def _arena(name: str, title: str, artifact: Artifact, *, in_memory: tuple[bool, bool]) -> Arena:
    disks = [blob_path(artifact.store, file.digest) for file in artifact.files if file.name == "cow.raw"]
    return Arena(
        name=name,
        title=title,
        size=artifact.size,
        blobs=len(artifact.files) + 1,
        registry_in_memory=in_memory[0],
        target_in_memory=in_memory[1],
        disk_data=sum(measure.allocated(disk) for disk in disks),
    )


def _fits(size: int) -> bool:
    """Whether `size` bytes may lie in the RAM file system and the page cache still has room."""
    available = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    if available is None or not os.access(RAM_DISK, os.W_OK) or shutil.disk_usage(RAM_DISK).free < 1.1 * size:
        return False
    return int(available[1]) * 1024 - size > ROOM_GIB * measure.GIB


def _profile(bench: Bench, wanted: set[str]) -> None:
    """What misses its target is looked at more closely."""
    missed = {verdict.kind for verdict in targets.verdicts(bench.results) if verdict.met is False}
    bench.say(f"targets missed: {', '.join(sorted(kind for kind in missed if kind)) or 'none that a profile explains'}")
    profiles.profile_transfers(bench, bench.inputs.memory, "a memory image", True, missed)
    if "translation" in missed:
        profiles.profile_translation(bench)
    if "help" in missed:
        profiles.profile_startup(bench)


def _many(bench: Bench, wanted: set[str]) -> None:
    work = bench.disk / "many"
    work.mkdir()
    try:
        bench.results.many += many.race(200 if bench.scale.name == "full" else 20, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


_STAGES: dict[str, Callable[[Bench, set[str]], None]] = {
    "memory": _memory_race,
    "disk": _disk_race,
    "snapshot": _snapshot_race,
    "second": _second,
    "scaling": _scaling,
    "startup": lambda bench, _: extras.startup(bench),
    "translation": lambda bench, _: extras.translation(bench),
    "plan": lambda bench, _: extras.plan(bench),
    "many": _many,
    "tls": lambda bench, _: far.tls(bench),
    "resets": lambda bench, _: far.resets(bench),
    "line": lambda bench, _: far.line(bench),
    "profile": _profile,
}

if __name__ == "__main__":
    sys.exit(main())
