"""How a sync's time falls with workers: the planner and the course of the product on a simulated cluster.

The cluster has a clock of its own: no byte moves and nothing sleeps. Resources share their bandwidth equally among the
pieces that use them (processor sharing): the bucket, the registry, each worker's network and its hashing. A piece needs
all of them at once and goes at the rate of the scarcest. `python -m benchmarks.cluster_model` writes scale.json and
scale.svg beside this file.
"""

import hashlib
import heapq
import itertools
import json
import math
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from epoch_oci.bulk import run as bulk_run
from epoch_oci.bulk.run import Course, Task
from epoch_oci.bulk.sides import Entry
from epoch_oci.bulk.union import Blob, SyncPlan, Wanted, plan
from epoch_oci.bulk.work import BlobTask, Done
from epoch_oci.oci.digest import Digest

HERE = Path(__file__).parent
WORKERS = (1, 2, 4, 8, 16, 32, 64)
GIB = float(1 << 30)
THREADS = 2
REQUEST = 0.02
"""Seconds of round trips that a snapshot costs beside its bytes: look, tag, small blobs."""


@dataclass(frozen=True, slots=True)
class Load:
    """What limits: GiB/s of the bucket and the registry in all, of one worker's network and its hashing."""

    name: str
    bucket: float
    registry: float
    network: float
    hashing: float


LOADS = (
    Load("bucket-bound", bucket=10.0, registry=40.0, network=1.2, hashing=1.5),
    Load("registry-bound", bucket=40.0, registry=4.0, network=1.2, hashing=1.5),
    Load("hash-bound", bucket=80.0, registry=80.0, network=10.0, hashing=0.5),
)


def sample(snapshots: int = 400, bases: int = 10) -> SyncPlan:
    """A plan over snapshots of 1 to 3 GiB of their own over bases of 4 GiB."""
    return plan([_wanted(number, bases) for number in range(snapshots)], set(), {}, mounts=True)


def _wanted(number: int, bases: int) -> Wanted:
    own = int((1 + number % 5 / 2) * GIB)
    blobs = (
        Blob(_digest(f"own {number}"), own),
        Blob(_digest(f"base {number % bases}"), int(4 * GIB), base=True),
    )
    entry = Entry(f"bot{number // 4}", f"v{number % 4}", f"bot{number // 4}", f"v{number % 4}")
    return Wanted(source=entry, target=entry, pinned=_digest(f"doc {number}"), blobs=blobs)


def _digest(text: str) -> Digest:
    return Digest("sha256", hashlib.sha256(text.encode()).hexdigest())


@dataclass(slots=True)
class _Piece:
    left: float
    worker: int
    future: "Future[Done]"
    done: Done
    wait: float


@dataclass(slots=True)
class Simulated:
    """A crew of `workers` under a load. Its clock moves when the course waits."""

    load: Load
    workers: int
    sizes: dict[Digest, int]
    slots: int = 0
    now: float = 0.0
    _under_way: list[_Piece] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _idle: list[tuple[int, int, int]] = field(default_factory=list)
    _there: set[Digest] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.slots = self.workers * THREADS
        self._idle = [(thread, worker, worker) for thread in range(THREADS) for worker in range(self.workers)]
        heapq.heapify(self._idle)

    def submit(self, task: Task) -> "Future[Done]":
        future: Future[Done] = Future()
        size = task.size if isinstance(task, BlobTask) else self._own(task)
        _, _, worker = heapq.heappop(self._idle)
        done = Done(size=size, moved=size, placed=(task.digest,) if isinstance(task, BlobTask) else ())
        self._under_way.append(_Piece(size / GIB, worker, future, done, REQUEST))
        return future

    def _own(self, task: Task) -> int:
        """What a snapshot's task moves: its own content; what is shared is there, or mounted."""
        return self.sizes[task.pinned]

    def wait(
        self, futures: object, timeout: float, return_when: str
    ) -> tuple[set["Future[Done]"], set["Future[Done]"]]:
        """As `concurrent.futures.wait`, on the clock of the cluster."""
        ended: set[Future[Done]] = set()
        while not ended and self._under_way:
            rates = [self._rate(piece) for piece in self._under_way]
            step = min(
                piece.wait if piece.wait > 0 else piece.left / rate
                for piece, rate in zip(self._under_way, rates, strict=True)
            )
            self.now += step
            for piece, rate in zip(list(self._under_way), rates, strict=True):
                if piece.wait > 0:
                    piece.wait = max(0.0, piece.wait - step)
                else:
                    piece.left -= rate * step
                if piece.wait <= 1e-12 and piece.left <= 1e-9:
                    self._under_way.remove(piece)
                    heapq.heappush(self._idle, (0, next(self._order) + self.workers, piece.worker))
                    piece.future.set_result(piece.done)
                    ended.add(piece.future)
        return ended, set()

    def _rate(self, piece: _Piece) -> float:
        moving = sum(each.wait <= 0 for each in self._under_way) or 1
        mine = sum(each.worker == piece.worker and each.wait <= 0 for each in self._under_way) or 1
        return min(
            self.load.bucket / moving, self.load.registry / moving, self.load.network / mine, self.load.hashing / mine
        )


def seconds(load: Load, workers: int, planned: SyncPlan) -> float:
    """How long the sync takes on so many workers."""
    sizes = {item.pinned: size for item, size in zip(planned.wanted, planned.own, strict=True)}
    crew = Simulated(load, workers, sizes)
    with mock.patch.object(bulk_run, "wait", crew.wait):
        ended = list(Course(planned, crew, {}, lambda carry, done: None).run())
    assert len(ended) == len(planned.wanted) and all(item.error is None for item in ended)
    return crew.now


def table() -> dict[str, list[float]]:
    """By load the seconds for each number of WORKERS."""
    planned = sample()
    return {load.name: [round(seconds(load, workers, planned), 1) for workers in WORKERS] for load in LOADS}


def knee(times: list[float]) -> int:
    """The number of workers from which on twice as many win less than a tenth."""
    for index, (now, then) in enumerate(itertools.pairwise(times)):
        if then > 0.9 * now:
            return WORKERS[index]
    return WORKERS[-1]


_COLOURS = {"bucket-bound": "#0969da", "registry-bound": "#bf5b04", "hash-bound": "#1a7f37"}
_WIDTH, _HEIGHT, _LEFT, _TOP = 560, 300, 60, 20


def svg(found: dict[str, list[float]]) -> str:
    """Speed-up over workers, both doubled from line to line; the dashed line is what nobody beats."""
    most = len(WORKERS) - 1

    def place(index: float, speedup: float) -> tuple[float, float]:
        return _LEFT + index / most * (_WIDTH - 160), _TOP + (1 - math.log2(max(1, speedup)) / most) * (_HEIGHT - 60)

    def line(points: list[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)

    ideal = [place(index, workers) for index, workers in enumerate(WORKERS)]
    body = [f'<polyline points="{line(ideal)}" class="ideal"/>']
    for name, times in found.items():
        points = [place(index, times[0] / each) for index, each in enumerate(times)]
        x, y = points[-1]
        body.append(f'<polyline points="{line(points)}" fill="none" stroke="{_COLOURS[name]}" stroke-width="2.5"/>')
        body.append(f'<text x="{x + 8:.0f}" y="{y + 4:.0f}" style="fill:{_COLOURS[name]}">{name}</text>')
    for index, workers in enumerate(WORKERS):
        x, y = place(index, workers)
        body.append(f'<text x="{x:.0f}" y="{_HEIGHT - 18}" text-anchor="middle">{workers}</text>')
        body.append(f'<text x="{_LEFT - 10}" y="{y + 4:.0f}" text-anchor="end">{workers}×</text>')
    body.append(f'<text x="{_LEFT}" y="{_HEIGHT - 2}">workers; speed-up over one</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        'aria-label="Speed-up over workers for three loads"><style>text{font:12px system-ui,sans-serif;fill:#57606a}'
        ".ground{fill:#fff}.ideal{fill:none;stroke:#9aa7b4;stroke-dasharray:4 3}"
        "@media (prefers-color-scheme:dark){text{fill:#9198a1}.ground{fill:#0d1117}}</style>"
        f'<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>' + "".join(body) + "</svg>\n"
    )


def main() -> None:
    """Write the figures and the plot."""
    found = table()
    rows = {"workers": WORKERS, "seconds": found, "knee": {name: knee(times) for name, times in found.items()}}
    (HERE / "scale.json").write_text(json.dumps(rows, indent=1) + "\n")
    (HERE / "scale.svg").write_text(svg(found))
    for name, times in found.items():
        print(f"{name:16}", *(f"{each:9.1f}" for each in times), " knee", rows["knee"][name])


if __name__ == "__main__":
    main()
