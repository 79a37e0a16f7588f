"""What bounds a transfer as it grows: `python -m benchmarks.growth` prints the table of docs/moving.md.

A simulation on paper: each stage of a transfer has a rate, they overlap, and the slowest one is the time. What this
program, SHA-256 and a registry cost for each GiB is taken from results.json, measured on this machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import GIB, MIB, median
from benchmarks.report import table
from benchmarks.results import DIRECTIONS, Direction, Results, load
from benchmarks.tools import OURS, SHA256

GB, GIGABIT = 10**9, 10**9 / 8
SIZES = (GB, 10 * GB, 100 * GB)
LINES = (GIGABIT, 10 * GIGABIT, 100 * GIGABIT)
TRANSFERS = 16
START_SECONDS = 0.3
"""Until the first byte: the interpreter, and the questions before it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a transfer happens: cores here and at the registry, bytes a second of the disk and of one connection."""

    name: str
    cores: int
    registry_cores: int
    disk: float
    connection: float


PLACES = (
    Place("a small node, SATA disk (500 MB/s)", 2, 2, 500e6, float("inf")),
    Place("a large node, NVMe (3 GB/s)", 16, 16, 3e9, float("inf")),
    Place("a large node, far away (25 MiB/s a connection)", 16, 16, 3e9, 25 * MIB),
)


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds a GiB: here, and at the registry; bytes a second that one core hashes."""

    client: float
    registry: float
    hashed: float


def measured(results: Results, direction: Direction) -> Costs:
    """What the run in memory found. Raises StatisticsError where it has none."""
    size = next(arena.size for arena in results.arenas if arena.name == "memory") / GIB
    ours = results.of("memory", direction, OURS)
    hashing = results.of("memory", "pull", SHA256)
    return Costs(
        client=median([each.cpu for each in ours]) / size,
        registry=median([each.registry_cpu for each in ours]) / size,
        hashed=size * GIB / median([each.wall for each in hashing]),
    )


def bounds(place: Place, line: float, costs: Costs) -> dict[str, float]:
    """Bytes a second that each stage lets through; a file is hashed by one core, sent by many connections."""
    return {
        "line": line,
        "connections": TRANSFERS * place.connection,
        "hash": costs.hashed,
        "cores": place.cores * GIB / costs.client,
        "disk": place.disk,
        "registry": place.registry_cores * GIB / costs.registry,
    }


def rows(results: Results, direction: Direction) -> Iterator[list[str]]:
    """A row a place and line: seconds for each size, and what the slowest stage is."""
    costs = measured(results, direction)
    for place in PLACES:
        for line in LINES:
            found = bounds(place, line, costs)
            slowest = min(found, key=lambda stage: found[stage])
            seconds = [f"{START_SECONDS + size / found[slowest]:.1f}" for size in SIZES]
            yield [place.name, f"{line / GIGABIT:.0f} Gb/s", *seconds, slowest]


def main() -> None:
    """Print a table for both directions, or one for each where they differ."""
    results = load(Path(__file__).parent / "results.json")
    found = {direction: list(rows(results, direction)) for direction in DIRECTIONS}
    same = found["push"] == found["pull"]
    for direction in DIRECTIONS[:1] if same else DIRECTIONS:
        what = "One file, push or pull" if same else f"{direction.capitalize()} of one file"
        print(table((what, "line", "1 GB, s", "10 GB, s", "100 GB, s", "bound by"), found[direction]) + "\n")


if __name__ == "__main__":
    main()
