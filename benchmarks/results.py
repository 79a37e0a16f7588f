"""What a run found out, as plain values that go to JSON and come back."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Direction = Literal["push", "pull"]
Way = Literal["near", "line", "resets", "tls"]
DIRECTIONS: tuple[Direction, ...] = ("push", "pull")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One transfer. `wall`, `cpu` and `registry_cpu` in seconds, `peak` in bytes.

    `durable` is `wall` and the time that a sync right after it took. `allocated` are the bytes of disk that the pulled
    disk image takes, -1 where nothing was pulled. `moved` are the bytes that passed a proxy in both directions, -1
    where there was none. `error` is empty when all went well.
    """

    arena: str
    direction: Direction
    tool: str
    round: int
    wall: float = 0.0
    durable: float = 0.0
    cpu: float = 0.0
    registry_cpu: float = 0.0
    peak: int = 0
    allocated: int = -1
    moved: int = -1
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """An unchanged transfer done again: `wall` seconds directly; the counts as a proxy saw them."""

    direction: Direction
    tool: str
    blobs: int
    wall: float = 0.0
    requests: int = 0
    payload: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondVersion:
    """A push of the next version: bytes as the tool says, and by how much the registry's storage grew."""

    part_size: str
    size: int
    wall: float = 0.0
    sent: int = 0
    grown: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """One file of `size` bytes with eight transfers."""

    size: int
    part_size: str
    direction: Direction
    wall: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Inputs, and where things lie; `blobs` counts the config, `disk_data` is what the source's disk image takes.

    `way` is what lies between client and registry: nothing, a long line, one that resets connections, or TLS.
    """

    name: str
    title: str
    size: int
    blobs: int
    registry_in_memory: bool
    target_in_memory: bool
    disk_data: int = 0
    way: Way = "near"


@dataclass(frozen=True, slots=True)
class Many:
    """How one client brought `count` snapshots over a few bases to another registry.

    `sent` are bytes of uploads that reached it; `union` is every distinct file once, in bytes.
    """

    client: str
    count: int
    union: int
    seconds: float
    sent: int
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class Results:
    """All of it; `seconds` by what was timed, each a list of runs."""

    scale: str
    date: str
    rounds: int
    machine: dict[str, str]
    versions: dict[str, str]
    arenas: list[Arena] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)
    second_versions: list[SecondVersion] = field(default_factory=list)
    scaling: list[Scaling] = field(default_factory=list)
    many: list[Many] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    manifests: int = 0
    notes: list[str] = field(default_factory=list)
    profiles: dict[str, str] = field(default_factory=dict)

    def dump(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def of(self, arena: str, direction: Direction, tool: str) -> list[Sample]:
        """The samples of one contender that went well."""
        return [
            sample
            for sample in self.samples
            if (sample.arena, sample.direction, sample.tool) == (arena, direction, tool) and not sample.error
        ]


_LISTS: dict[str, Any] = {
    "arenas": Arena,
    "samples": Sample,
    "repeats": Repeat,
    "second_versions": SecondVersion,
    "scaling": Scaling,
    "many": Many,
}


def load(path: Path) -> Results:
    """Read what `dump` wrote."""
    document = json.loads(path.read_text())
    for name, kind in _LISTS.items():
        document[name] = [kind(**each) for each in document.get(name, ())]
    return Results(**document)
