"""RESULTS.md: the targets first, then every number they rest on."""

from collections.abc import Iterator, Sequence

from benchmarks.many import table as many_table
from benchmarks.measure import GIB, MIB, median
from benchmarks.results import Arena, Direction, Repeat, Results, Sample
from benchmarks.targets import LIMITS, Verdict, peers_of, seconds_of, verdicts
from benchmarks.tools import OURS

METHOD = """\
Every contender runs as a whole process with its own defaults, one after the other; in each round another one goes
first. A push starts with an empty registry and ends with a check that every blob and the manifest are there; a pull
starts with an empty directory and ends with a check of its files, in the first round of their bytes too. Before
each run the files to be read are in the page cache, nothing is dirty, and the contender's caches are gone. Wall
clock and CPU (user and system) are those of the process with its children, peak memory is resident. Bare PUT and
GET use Python's `http.client` with blocks of 1 MiB, one blob after the other, and time the transfer alone; they
check nothing, nor does oras-py.

"In memory" means that the registry's storage or the pull's target is a RAM file system, so that programs are
compared and not a disk. Where the target is on a disk, a pull counts as done when its bytes are on that disk: the
time of the process and of a `sync` right after it. This tool syncs each file before it gives it its name; some
peers leave that to the kernel.

The long line is a proxy that gives each connection 25 MiB/s in each direction and takes 20 ms one way; the peers run
once on it, for seconds that a line dictates hardly spread. The line that resets connections ends each of them with a
chance of 1 % for every MiB, from the same dice for all in a round; what was sent again is in "MiB moved". Over TLS all
clients trust the registry's authority by `SSL_CERT_FILE`.
"""


def markdown(results: Results, extra: str = "", *, history: bool = False) -> str:
    """The whole report; `extra` is put after the targets. `history` says that there is a picture of earlier runs."""
    parts = [
        f"# Benchmark results\n\n{_setting(results)}",
        f"## Targets\n\n{_targets(verdicts(results))}",
        extra.strip(),
        "![MiB/s of each contender, push and pull](results.svg)",
        "![The same ratios from run to run](history.svg)" if history else "",
        f"## Method\n\n{METHOD.strip()}",
        *(_arena(results, arena) for arena in results.arenas),
        *_optional(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting(results: Results) -> str:
    machine = ", ".join(f"{value} {name}" if name == "cores" else value for name, value in results.machine.items())
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    lines = [
        f"Written by `make bench` on {results.date}; scale `{results.scale}`, up to {results.rounds} rounds.",
        f"Machine: {machine}.",
        f"Versions: {versions}.",
    ]
    return "  \n".join([*lines, *(f"Note: {note}." for note in results.notes)])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def _targets(found: Sequence[Verdict]) -> str:
    rows = [(each.what, each.wanted, each.measured, _outcome(each)) for each in found]
    return table(("Target", "Wanted", "Measured", "Outcome"), rows)


def _outcome(verdict: Verdict) -> str:
    if verdict.met is None:
        return "not measured"
    return "met" if verdict.met else f"**missed by {verdict.missed_by}**"


def _arena(results: Results, arena: Arena) -> str:
    where = "registry {}, target {}".format(
        *("in memory" if each else "on disk" for each in (arena.registry_in_memory, arena.target_in_memory))
    )
    head = f"## {arena.title[0].upper()}{arena.title[1:]}: {arena.size / GIB:.2f} GiB in {arena.blobs} blobs; {where}"
    return "\n\n".join([head, *(_race(results, arena, direction) for direction in ("push", "pull"))])


def _race(results: Results, arena: Arena, direction: Direction) -> str:
    names = dict.fromkeys(
        each.tool for each in results.samples if (each.arena, each.direction) == (arena.name, direction)
    )
    ordered = sorted(names, key=lambda name: _order(results, arena, direction, name))
    to_disk = direction == "pull" and not arena.target_in_memory
    best = min(peers_of(results, arena, direction).values(), default=0.0)
    head = [direction.capitalize(), "MiB/s", "min – max", "s", "× fastest peer", "CPU s", "registry CPU s", "peak MiB"]
    if to_disk:
        head[4:4] = ["process alone, s"]
    if arena.disk_data and direction == "pull":
        head.append("disk image takes MiB")
    if arena.way in ("line", "resets"):
        head.append("MiB moved")
    rows = [_race_row(results, arena, direction, name, best, len(head), to_disk) for name in ordered]
    return table(head, rows)


def _order(results: Results, arena: Arena, direction: Direction, name: str) -> tuple[bool, float]:
    values = seconds_of(results, arena, direction, name)
    return name in LIMITS, median(values) if values else float("inf")


def _race_row(
    results: Results, arena: Arena, direction: Direction, name: str, best: float, width: int, to_disk: bool
) -> list[str]:
    samples = results.of(arena.name, direction, name)
    label = f"**{name}**" if name == OURS else f"*{name}*" if name in LIMITS else name
    if not samples:
        return [f"{label}: failed: {_last_error(results, arena, direction, name)}", *[""] * (width - 1)]
    seconds = seconds_of(results, arena, direction, name)
    rates = [arena.size / MIB / each for each in seconds]
    failed = sum(
        1
        for each in results.samples
        if (each.arena, each.direction, each.tool) == (arena.name, direction, name) and each.error
    )
    row = [
        label + (f" ({failed} failed: {_last_error(results, arena, direction, name)})" if failed else ""),
        f"{median(rates):.0f}",
        f"{min(rates):.0f} – {max(rates):.0f}",
        f"{median(seconds):.2f}",
        f"{best / median(seconds):.2f}" if best else "",
        *_costs(samples),
    ]
    if to_disk:
        row[4:4] = [f"{median([each.wall for each in samples]):.2f}"]
    if arena.way in ("line", "resets"):
        row.append(f"{median([each.moved for each in samples]) / MIB:.0f}")
    elif len(row) < width:
        blocks = median([each.allocated for each in samples])
        row.append(f"{blocks / MIB:.0f}" if blocks > 0 else "")
    return row


def _costs(samples: Sequence[Sample]) -> list[str]:
    return [
        f"{median([each.cpu for each in samples]):.2f}",
        f"{median([each.registry_cpu for each in samples]):.2f}",
        f"{max(each.peak for each in samples) / MIB:.0f}",
    ]


def _last_error(results: Results, arena: Arena, direction: Direction, name: str) -> str:
    errors = [
        each.error
        for each in results.samples
        if (each.arena, each.direction, each.tool) == (arena.name, direction, name) and each.error
    ]
    return _short(errors[-1]).replace("|", "\\|") if errors else "never ran"


def _short(error: str) -> str:
    """The exit code and what happened in the end, without addresses and paths of this machine."""
    code, _, words = error.partition(": ")
    return f"{code}: {words.rpartition(': ')[2]}"


def _optional(results: Results) -> Iterator[str]:
    if results.repeats:
        yield "## Nothing changed: the same transfer again\n\n" + _repeats(results.repeats)
    if results.second_versions:
        yield "## The next version: 5 % of the blocks changed\n\n" + _second(results)
    if results.scaling:
        yield "## One file, eight transfers\n\n" + _scaling(results)
    if results.many:
        yield "## Many snapshots\n\n" + many_table(results.many)
    if results.seconds:
        yield "## Start-up, translation, planning\n\n" + _seconds(results)
    for title, text in results.profiles.items():
        yield f"## Profile: {title}\n\n```\n{text}\n```"


def _repeats(repeats: Sequence[Repeat]) -> str:
    rows = []
    for each in sorted(repeats, key=lambda each: (each.direction != "push", each.tool != OURS)):
        numbers = [f"{each.wall:.2f}", str(each.requests), str(each.payload)]
        label = f"{each.direction}, {each.tool}"
        rows.append([label, *numbers] if not each.error else [f"{label}: failed: {each.error}", "", "", ""])
    text = f"{repeats[0].blobs} blobs with the config; a proxy before the registry counted requests and payload.\n\n"
    return text + table(("Again", "s", "requests", "payload bytes"), rows)


def _second(results: Results) -> str:
    rows = [
        [f"`--part-size {each.part_size}`", f"{each.sent / MIB:.0f}", f"{100 * each.sent / each.size:.1f} %",
         f"{each.grown / MIB:.0f}", f"{each.wall:.2f}"]
        if not each.error else [f"`--part-size {each.part_size}`: failed: {each.error}", "", "", "", ""]
        for each in results.second_versions
    ]  # fmt: skip
    text = (
        "Each large file differs from its first version in 5 % of its 64 KiB blocks, in up to eight runs. Changes\n"
        "that are scattered evenly over a file touch every part of it; then parts save nothing.\n\n"
    )
    return text + table(("Push of the second version", "MiB sent", "of all", "MiB the registry grew by", "s"), rows)


def _scaling(results: Results) -> str:
    rows = []
    for each in results.scaling:
        label = f"{each.direction} of {each.size / GIB:g} GiB, part size {_size(each.part_size)}"
        numbers = [f"{each.peak / MIB:.0f}", f"{each.wall:.2f}", f"{each.cpu:.2f}"]
        rows.append([label, *numbers] if not each.error else [f"{label}: failed: {each.error}", "", "", ""])
    return table((f"{OURS} --jobs 8", "peak MiB", "s", "CPU s"), rows)


def _size(part_size: str) -> str:
    return f"{int(part_size) / MIB:g} MiB" if part_size.isdigit() else part_size


def _seconds(results: Results) -> str:
    names = {
        "help": "`epoch-oci --help`",
        "python": "the interpreter alone",
        "plan, first": "plan of a file in 100 parts, nothing known yet",
        "plan, again": "the same plan again",
        "translation": f"translation of {results.manifests:,} manifests",
    }
    rows = [
        [names[key], f"{median(values):.3f}", f"{min(values):.3f} – {max(values):.3f}", str(len(values))]
        for key, values in results.seconds.items()
    ]
    return table(("What", "median s", "min – max", "runs"), rows)
