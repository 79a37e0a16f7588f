"""The targets, and how far this tool is from each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.measure import MIB, median
from benchmarks.results import DIRECTIONS, Arena, Direction, Results
from benchmarks.tools import EIGHT, GET, OURS, PUT, SHA256, SOCKET

LIMITS = (PUT, GET, SOCKET, SHA256, EIGHT)
PEAK_MIB = 150
SAME_PEAK = 1.1  # "the same at every size": within a tenth
SPARSE = 1.02  # extents end on file-system blocks
TRANSLATIONS = 2000
HELP_SECONDS = 0.150
PUT_SHARE, GET_SHARE = 0.9, 0.8
FAR_TIMES, EIGHT_SHARE = 3.0, 0.8


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` says what to profile when it is missed; `met` is None when it could not be measured.

    `value` is what was measured, in the unit of the words, for `history`.
    """

    what: str
    wanted: str
    measured: str
    met: bool | None
    kind: str = ""
    missed_by: str = ""
    value: float | None = None


def seconds_of(results: Results, arena: Arena, direction: Direction, tool: str) -> list[float]:
    """The times that count, in seconds: until the process ended, or on a disk until a pull's bytes were on it."""
    samples = results.of(arena.name, direction, tool)
    on_disk = direction == "pull" and not arena.target_in_memory and tool != SHA256
    return [sample.durable if on_disk else sample.wall for sample in samples]


def peers_of(results: Results, arena: Arena, direction: Direction) -> dict[str, float]:
    """The median seconds of every peer that managed."""
    names = dict.fromkeys(sample.tool for sample in results.samples if sample.tool not in (OURS, *LIMITS))
    found = {name: seconds_of(results, arena, direction, name) for name in names}
    return {name: median(values) for name, values in found.items() if values}


def verdicts(results: Results) -> list[Verdict]:
    """All of them, in the order of the report."""
    return [
        *(verdict for arena in results.arenas for verdict in _races(results, arena)),
        *_memory(results),
        *_repeat(results),
        *_sparse(results),
        *_others(results),
    ]


def _races(results: Results, arena: Arena) -> Iterator[Verdict]:
    for direction in DIRECTIONS:
        wanted = FAR_TIMES if arena.way == "line" else 1.0
        sign = ">" if direction == "pull" and arena.way == "near" else "≥"
        ours = seconds_of(results, arena, direction, OURS)
        peers = peers_of(results, arena, direction)
        fastest = min(peers, key=lambda name: peers[name], default="")
        what = f"{direction} against the fastest peer, {arena.title}"
        ratio = peers[fastest] / median(ours) if ours and fastest else None
        kind = direction if arena.way == "near" else ""
        yield _ratio(what, f"{sign} {wanted:.2f}", ratio, wanted, f"× {fastest}", kind, strict=sign == ">")
        if arena.way == "line":
            yield _raw(results, arena, direction, (EIGHT,), EIGHT_SHARE)
    if arena.way == "near":
        yield _raw(results, arena, "push", (PUT,), PUT_SHARE)
        yield _raw(results, arena, "pull", (GET, SHA256), GET_SHARE)


def _raw(results: Results, arena: Arena, direction: Direction, limits: tuple[str, ...], share: float) -> Verdict:
    ours = seconds_of(results, arena, direction, OURS)
    raw = {name: seconds_of(results, arena, direction, name) for name in limits}
    slower = max((name for name in raw if raw[name]), key=lambda name: median(raw[name]), default="")
    ratio = median(raw[slower]) / median(ours) if ours and slower else None
    name = limits[0] if len(limits) == 1 else "the slower of bare HTTP GET and SHA-256"
    what = f"{direction} against {name}, {arena.title}"
    return _ratio(what, f"≥ {share:.2f}", ratio, share, f"× {slower}", direction)


def _ratio(
    what: str, wanted: str, ratio: float | None, limit: float, unit: str, kind: str, *, strict: bool = False
) -> Verdict:
    if ratio is None:
        return Verdict(what, wanted, "not measured", None, kind)
    met = ratio > limit if strict else ratio >= limit
    return Verdict(
        what, wanted, f"{ratio:.2f} {unit}", met, kind, "" if met else f"{100 * (1 - ratio / limit):.1f} %", ratio
    )


def _most(
    what: str, wanted: str, value: float | None, limit: float, show: Callable[[float], str], kind: str = ""
) -> Verdict:
    if value is None:
        return Verdict(what, wanted, "not measured", None, kind)
    met = value <= limit
    missed = "" if met else f"{100 * (value / limit - 1):.0f} %" if limit else show(value)
    return Verdict(what, wanted, show(value), met, kind, missed, value)


def _memory(results: Results) -> Iterator[Verdict]:
    good = [each for each in results.scaling if not each.error]
    failed = len(good) < len(results.scaling)
    peak = max((each.peak for each in good), default=None) if not failed else None
    yield _most(
        "peak resident memory with 8 transfers",
        f"≤ {PEAK_MIB} MiB",
        peak,
        PEAK_MIB * MIB,
        lambda v: f"{v / MIB:.0f} MiB",
    )
    sizes = sorted({each.size for each in good})
    growth = None
    if len(sizes) > 1 and not failed:
        growth = max(_peak(results, sizes[-1], d) / _peak(results, sizes[0], d) for d in ("push", "pull"))
    small, large = (f"{size / 1024 / MIB:g} GiB" for size in (sizes[0], sizes[-1])) if sizes else ("small", "large")
    yield _most(f"the same at {small} and {large}", f"≤ × {SAME_PEAK}", growth, SAME_PEAK, lambda v: f"× {v:.2f}")


def _peak(results: Results, size: int, direction: str) -> int:
    return max(each.peak for each in results.scaling if each.size == size and each.direction == direction)


def _repeat(results: Results) -> Iterator[Verdict]:
    ours = [each for each in results.repeats if each.tool == OURS and each.direction == "push" and not each.error]
    payload = float(ours[0].payload) if ours else None
    yield _most("payload bytes of an unchanged push", "0", payload, 0, lambda v: f"{v:.0f}")
    limit = ours[0].blobs + 3 if ours else 0
    requests = float(ours[0].requests) if ours else None
    wanted = f"≤ {limit} (blobs + 3)" if ours else "≤ blobs + 3"
    yield _most("requests of an unchanged push", wanted, requests, limit, lambda v: f"{v:.0f}")


def _sparse(results: Results) -> Iterator[Verdict]:
    for arena in results.arenas:
        if arena.disk_data:
            samples = results.of(arena.name, "pull", OURS)
            blocks = float(max(sample.allocated for sample in samples)) if samples else None
            limit = arena.disk_data * SPARSE
            wanted = f"≤ {arena.disk_data / MIB:.0f} MiB of data + 2 %"
            yield _most(
                f"disk blocks of the sparse disk, {arena.title}", wanted, blocks, limit, lambda v: f"{v / MIB:.0f} MiB"
            )


def _others(results: Results) -> Iterator[Verdict]:
    seconds = results.seconds.get("translation")
    rate = results.manifests / median(seconds) if seconds else None
    wanted = f"≥ {TRANSLATIONS}/s"
    met = None if rate is None else rate >= TRANSLATIONS
    missed = f"{100 * (1 - rate / TRANSLATIONS):.0f} %" if rate is not None and not met else ""
    measured = f"{rate:.0f}/s" if rate is not None else "not measured"
    yield Verdict("translation, schemas checked, one core", wanted, measured, met, "translation", missed, rate)
    starts = results.seconds.get("help")
    start = median(starts) if starts else None
    yield _most("`--help`", "≤ 150 ms", start, HELP_SECONDS, lambda v: f"{1000 * v:.0f} ms", "help")
