"""Where the time goes, for what misses its target."""

import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.bench import Bench
from benchmarks.registry import fresh
from benchmarks.snapshot import Artifact
from benchmarks.tools import HERE, OURS, PUT, Job, our_pull, our_push


def profile_transfers(bench: Bench, artifact: Artifact, title: str, in_memory: bool, wanted: set[str]) -> None:
    """A push and a pull of `artifact`, sampled; `wanted` holds `push`, `pull` or both."""
    target = bench.place("target", in_memory)
    put = next(tool for tool in bench.tools if tool.name == PUT)
    assert put.push is not None
    for direction in sorted(wanted & {"push", "pull"}):
        bench.forget(OURS)
        with fresh(bench.binary, bench.place("registry", in_memory), bench.disk) as registry:
            job = Job(artifact=artifact, address=registry.address, target=target)
            if direction == "pull":
                bench.run(PUT, put.push(job))
            measure.settle()
            command = our_push(job) if direction == "push" else our_pull(job)
            _sampled(bench, f"{direction} of {title}", command[1:])


def _sampled(bench: Bench, title: str, words: list[str]) -> None:
    output = bench.disk / "profile.txt"
    output.unlink(missing_ok=True)
    usage = bench.run(OURS, [sys.executable, str(HERE / "sampler.py"), str(output), *words])
    _keep(bench, title, output.read_text() if output.exists() else usage.error)


def profile_translation(bench: Bench) -> None:
    """The functions that take the time."""
    usage = bench.run(OURS, [sys.executable, str(HERE / "translate.py"), "2000", "profile"])
    rows = [line.rstrip() for line in usage.output.splitlines() if line.strip()]
    _keep(bench, "translation of 2,000 manifests", "\n".join(rows) or usage.error)


def profile_startup(bench: Bench) -> None:
    """The fifteen dearest imports."""
    bench.run(OURS, [sys.executable, "-X", "importtime", "-m", "epoch_oci", "--help"])
    rows = (bench.disk / "logs" / f"{OURS}.err").read_text().splitlines()
    dear = sorted(rows[1:], key=_own_time, reverse=True)[:15]
    _keep(bench, "imports of --help (microseconds: own, with what it imports)", "\n".join(dear))


def _own_time(row: str) -> int:
    word = row.removeprefix("import time:").split("|")[0].strip()
    return int(word) if word.isdigit() else 0


def _keep(bench: Bench, title: str, text: str) -> None:
    # Paths of this machine say nothing to a reader.
    for path, short in ((str(Path.home()), "~"), (str(HERE.parent), "."), (str(bench.disk), "WORK")):
        text = text.replace(path, short)
    bench.results.profiles[title] = text
