"""Races over a way that is not a cable on the desk: a long line, one that resets connections, and TLS.

On the long line every connection carries 25 MiB/s and everything is 20 ms on its way, so that the seconds are the
line's and hardly spread: this tool and the limit go in every round, the peers in the first alone, for they take
minutes.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import measure
from benchmarks.bench import Bench, pulled_fault
from benchmarks.line import Line
from benchmarks.measure import MIB
from benchmarks.registry import Identity, Registry, fresh
from benchmarks.results import Arena, Direction, Sample, Way
from benchmarks.rounds import content_fault, rotated
from benchmarks.snapshot import Artifact, make_far
from benchmarks.tools import OURS, PUT, Job, Tool, eight

RATE, DELAY = 25 * MIB, 0.020
RESETS = 0.01
"""The chance of a reset for each MiB: a file of 1 GiB on one connection meets about ten."""
FAR_PEERS = ("oras", "crane")
"""The fastest two on this line in trials; the others take half as long again or the same."""
CLIENTS = ("oras", "crane", "regctl", "skopeo")
PATIENCE = 120.0
"""Seconds for a client under resets: some begin anew for as long as they are let."""

Between = Callable[[Registry, int], contextlib.AbstractContextManager[Line | None]]


def line(bench: Bench) -> None:
    """Two large files each way over the long line."""
    artifact = make_far(bench.disk, bench.scale.far)
    arena = _arena("line", "two large files over a long line", artifact, "line")

    @contextlib.contextmanager
    def way(registry: Registry, number: int) -> Iterator[Line]:
        yield from _closing(Line(registry.address, rate=RATE, delay=DELAY))

    ours = [_ours(bench), eight()]
    peers = [tool for tool in bench.tools if tool.name in FAR_PEERS]
    race = _Race(bench, arena, artifact, way)
    for number in range(bench.rounds):
        race.round(number, [*ours, *peers] if number == 0 else ours)
    shutil.rmtree(artifact.store.parent)


def resets(bench: Bench) -> None:
    """A memory image while connections are reset at random."""
    artifact = bench.inputs.memory
    arena = _arena("resets", "a memory image under resets", artifact, "resets")

    @contextlib.contextmanager
    def way(registry: Registry, number: int) -> Iterator[Line]:
        yield from _closing(Line(registry.address, resets=RESETS, seed=number))

    race = _Race(bench, arena, artifact, way)
    usual, bench.timeout = bench.timeout, min(bench.timeout, PATIENCE)
    try:
        for number in range(bench.rounds):
            race.round(number, [_ours(bench), *_clients(bench)])
    finally:
        bench.timeout = usual


def tls(bench: Bench) -> None:
    """A memory image, encrypted on its way; every client trusts the registry's authority by the same variable."""
    artifact = bench.inputs.memory
    arena = _arena("tls", "a memory image over TLS", artifact, "tls")
    identity = _identity(bench.disk / "tls")
    bench.trust = {"SSL_CERT_FILE": str(identity.authority), "EPOCH_OCI_BENCH_TLS": "1"}
    race = _Race(bench, arena, artifact, lambda registry, number: contextlib.nullcontext(), identity)
    limits = [tool for tool in bench.tools if tool.raw and not tool.offline]
    try:
        for number in range(bench.rounds):
            race.round(number, [_ours(bench), *_clients(bench), *limits])
    finally:
        bench.trust = {}


class _Race:
    """Each contender pushes into an empty registry and pulls from a full one, over the same kind of way."""

    def __init__(
        self, bench: Bench, arena: Arena, artifact: Artifact, way: Between, identity: Identity | None = None
    ) -> None:
        self._bench, self._arena, self._artifact, self._way, self._identity = bench, arena, artifact, way, identity
        bench.results.arenas.append(arena)

    def round(self, number: int, tools: list[Tool]) -> None:
        """One push and one pull by each, another one first each time."""
        self._bench.say(f"{self._arena.title}: round {number + 1}")
        for tool in rotated([tool for tool in tools if tool.push], number):
            with self._registry() as registry:
                self._one(registry, tool, "push", number)
        with self._registry() as registry:
            self._fill(registry)
            for tool in rotated([tool for tool in tools if tool.pull], number):
                self._one(registry, tool, "pull", number)

    def _registry(self) -> contextlib.AbstractContextManager[Registry]:
        storage = self._bench.place("registry", self._arena.registry_in_memory)
        return fresh(self._bench.binary, storage, self._bench.disk, self._identity)

    def _fill(self, registry: Registry) -> None:
        put = next(tool for tool in self._bench.tools if tool.name == PUT)
        assert put.push is not None
        usage = self._bench.run(PUT, put.push(self._job(registry.address, Path())))
        if usage.error:
            raise RuntimeError(f"the registry could not be filled: {usage.error}")

    def _job(self, address: str, target: Path) -> Job:
        return Job(artifact=self._artifact, address=address, target=target, tls=self._identity is not None)

    def _one(self, registry: Registry, tool: Tool, direction: Direction, number: int) -> None:
        bench = self._bench
        command = tool.push if direction == "push" else tool.pull
        assert command is not None
        bench.forget(tool.name)
        target = bench.place("target", self._arena.target_in_memory)
        shutil.rmtree(target, ignore_errors=True)
        measure.warm(self._artifact.layout)
        measure.settle()
        before = registry.cpu
        with self._way(registry, number) as line:
            usage = bench.run(tool.name, command(self._job(line.address if line else registry.address, target)))
            taken = line.taken() if line else {}
        wall = measure.said_seconds(usage) if tool.raw and not usage.error else usage.wall
        moved = taken["up"] + taken["down"] if taken else -1
        error = usage.error or ("" if tool.raw else self._fault(registry, tool, direction, target))
        shutil.rmtree(target, ignore_errors=True)
        sample = Sample(
            arena=self._arena.name,
            direction=direction,
            tool=tool.name,
            round=number,
            wall=wall,
            durable=wall,
            cpu=usage.cpu,
            registry_cpu=registry.cpu - before,
            peak=usage.peak,
            moved=moved,
            error=error,
        )
        bench.results.samples.append(sample)
        bench.say(f"  {direction} {tool.name:22} {error or f'{wall:.1f} s'}")

    def _fault(self, registry: Registry, tool: Tool, direction: Direction, target: Path) -> str:
        if direction == "pull":
            return pulled_fault(self._artifact, target) or content_fault(self._artifact, target)
        # This tool sends files above 1 GiB in parts: its manifest is another one than the layout's.
        return registry.fault_of(self._artifact, parts=tool.name == OURS)


def _closing(line: Line) -> Iterator[Line]:
    try:
        yield line
    finally:
        line.close()


def _arena(name: str, title: str, artifact: Artifact, way: Way) -> Arena:
    return Arena(
        name=name,
        title=title,
        size=artifact.size,
        blobs=len(artifact.files) + 1,
        registry_in_memory=True,
        target_in_memory=True,
        way=way,
    )


def _ours(bench: Bench) -> Tool:
    return next(tool for tool in bench.tools if tool.name == OURS)


def _clients(bench: Bench) -> list[Tool]:
    return [tool for tool in bench.tools if tool.name in CLIENTS]


def _identity(directory: Path) -> Identity:
    """A certificate for 127.0.0.1 from an authority made for this run."""
    import trustme

    directory.mkdir(exist_ok=True)
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1", "localhost")
    identity = Identity(directory / "registry.pem", directory / "registry.key", directory / "ca.pem")
    identity.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    made.private_key_pem.write_to_path(str(identity.key))
    authority.cert_pem.write_to_path(str(identity.authority))
    return identity
