"""What versions of a guest cost in each form: writes VERSIONS.md, versions.svg and versions.json (`make bench`)."""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.guest import CHUNK, PAGE, Guest, write_version
from benchmarks.line import Line
from benchmarks.measure import MIB
from benchmarks.registry import SEARCH_PATH, Registry, find_registry
from benchmarks.tools import environment
from epoch_oci.chunks.chunk import zstd

HERE = Path(__file__).parent
RATE, DELAY = 25 * MIB, 0.020
WINDOW = 16 * MIB
SCATTERED = 64  # MiB that are read here and there out of a mount
TIMEOUT = 1800
FORMS = {"plain": (), "chunked": ("--chunked",), "cocoonstack": ("--dialect", "cocoonstack", "--zstd", "1")}
"""Flags of a push; `cocoonstack` with `--zstd` is snapshot.v2, in windows of 16 MiB."""
LARGE, LARGE_MARK, LARGE_READS = 20 << 30, 8 << 10, 200
"""Bytes of the file that a mount is timed with, bytes of noise in each of its chunks, MiB read here and there."""


@dataclass
class Row:
    """One command: bytes that passed on the line in both directions, requests, seconds, CPU seconds, peak bytes."""

    what: str
    line: str
    up: int
    down: int
    requests: int
    wall: float
    cpu: float
    peak: int
    error: str = ""


class Bench:
    """A registry, two lines to it, and what was measured."""

    def __init__(self, work: Path, registry: Registry) -> None:
        self.work = work
        self.lines = {"loopback": Line(registry.address), "long": Line(registry.address, rate=RATE, delay=DELAY)}
        self.rows: list[Row] = []
        self.env = environment(work / "home")
        self.env["PATH"] = SEARCH_PATH

    def run(
        self, what: str, line: str, *words: str, program: tuple[str, ...] = (sys.executable, "-m", "epoch_oci")
    ) -> Row:
        """Run a command; LINE in its words is the line's address."""
        self.lines[line].taken()
        argv = [*program, *(word.replace("LINE", self.lines[line].address) for word in words)]
        used = measure.run(argv, env=self.env, cwd=self.work, logs=self.work / "log", timeout=TIMEOUT)
        passed = self.lines[line].taken()
        row = Row(
            what, line, passed["up"], passed["down"], passed["requests"], used.wall, used.cpu, used.peak, used.error
        )
        self.rows.append(row)
        say(f"{what} ({line}): {row.wall:.1f} s, up {row.up / MIB:.1f} MiB, down {row.down / MIB:.1f} MiB {row.error}")
        return row

    def push(self, form: str, tag: str, line: str) -> Row:
        return self.run(
            f"push {tag}, {form}",
            line,
            "push",
            f"guest:{tag}",
            f"LINE/{line}/{form}:{tag}",
            "--store",
            "store",
            *FORMS[form],
            "-q",
        )

    def pull(self, what: str, form: str, tag: str, line: str, target: str) -> Row:
        return self.run(f"pull {tag}, {what}", line, "pull", f"LINE/{line}/{form}:{tag}", "--store", target, "-q")


def main(words: list[str] | None = None) -> int:
    """Run it all; 1 when a command failed."""
    parser = argparse.ArgumentParser(prog="benchmarks.versions", description=__doc__)
    parser.add_argument("--memory", type=int, default=768, help="MiB of memory (default: 768)")
    parser.add_argument("--disk", type=int, default=192, help="MiB of disk (default: 192)")
    parser.add_argument(
        "--large", type=int, default=LARGE >> 20, help="MiB of the file that is mounted (default: 20480)"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="where the results go (default: beside this file)")
    options = parser.parse_args(words)
    binary, load = find_registry(), os.getloadavg()[0]
    if binary is None:
        say("no registry is installed; see `make peers`")
        return 2
    with tempfile.TemporaryDirectory(prefix="epoch-oci-versions-", dir="/var/tmp") as scratch:
        work = Path(scratch)
        registry = Registry(binary, work / "registry", work)
        registry.start()
        try:
            bench = Bench(work, registry)
            real = os.environ.get("EPOCH_OCI_BENCH_GUEST")
            facts = _dumps(work, Path(real)) if real else _inputs(work, options.memory, options.disk)
            _measure(bench)
            facts["mount"] = _mounted(bench, "loopback/chunked:v3", SCATTERED)
            facts["large"] = _large(bench, options.large * MIB)
        finally:
            registry.stop()
    facts["load"] = max(load, os.getloadavg()[0])
    facts |= {"rows": [asdict(row) for row in bench.rows], "registry": binary.version, "cores": os.cpu_count()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "versions.json").write_text(json.dumps(facts, indent=1) + "\n")
    (options.out / "VERSIONS.md").write_text(report(facts))
    (options.out / "versions.svg").write_text(picture(facts))
    return 1 if any(row.error for row in bench.rows) else 0


def _inputs(work: Path, memory: int, disk: int) -> dict:
    """Three versions in a store; their sizes, what changed, and what other forms would send of them."""
    guest = Guest(memory * MIB, disk * MIB)
    sizes, changed, windows = [guest.store(work / "store")], [], _Windows()
    sent = [windows.of(guest)]
    for _ in range(2):
        changed.append(guest.work())
        sizes.append(guest.store(work / "store"))
        sent.append(windows.of(guest))
        say(f"version {guest.version} changed {changed[-1]}")
    return {"sizes": sizes, "changed": changed, "windows": sent}


def _dumps(work: Path, directory: Path) -> dict:
    """The same of real dumps: DIRECTORY/v1, v2 and v3 hold the files of each version."""
    sizes, windows, sent, changed = [], _Windows(), [], []
    for number in (1, 2, 3):
        files = {path.name: path for path in sorted((directory / f"v{number}").iterdir())}
        sizes.append(write_version(work / "store", {name: _chunks(path) for name, path in files.items()}, number))
        sent.append(sum(windows.file(_chunks(path)) for path in files.values()))
        if number > 1:
            pairs = [(directory / f"v{number - 1}" / name, path) for name, path in files.items()]
            changed.append(_changed([pair for pair in pairs if pair[0].exists() and "memory" in pair[1].name]))
    return {"sizes": sizes, "changed": changed, "windows": sent, "real": True}


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            yield block


def _changed(pairs: list[tuple[Path, Path]]) -> dict[str, float]:
    """Shares of pages and of chunks of memory that differ."""
    chunks = pages = changed_chunks = changed_pages = 0
    for before, now in pairs:
        for old, new in zip(_chunks(before), _chunks(now), strict=False):
            differ = sum(old[at : at + PAGE] != new[at : at + PAGE] for at in range(0, len(new), PAGE))
            chunks, pages = chunks + 1, pages + len(new) // PAGE
            changed_chunks, changed_pages = changed_chunks + bool(differ), changed_pages + differ
    return {"pages": changed_pages / max(1, pages), "chunks": changed_chunks / max(1, chunks)}


class _Windows:
    """What cocoon-common's snapshot.v2 sends: files cut into fixed windows, each compressed and sent once."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def of(self, guest: Guest) -> int:
        return sum(self.file(guest.blocks(pages)) for pages in (guest.memory, guest.disk))

    def file(self, blocks: Iterator[bytes]) -> int:
        """Bytes sent of a file that comes in chunks."""
        sent = 0
        while window := b"".join(block for block, _ in zip(blocks, range(WINDOW // (64 << 10)), strict=False)):
            digest = hashlib.sha256(window).digest()
            if digest not in self._seen:
                self._seen.add(digest)
                sent += len(zstd().compress(window, 1))
        return sent


def _measure(bench: Bench) -> None:
    for form in FORMS:
        for tag in ("v1", "v2", "v3"):
            bench.push(form, tag, "loopback")
    _others(bench)
    for form in FORMS:
        bench.pull(f"{form}, into nothing", form, "v2", "loopback", f"fresh-{form}")
        bench.pull(f"{form}, into nothing", form, "v1", "loopback", f"node-{form}")
        bench.pull(f"{form}, v1 at hand", form, "v2", "loopback", f"node-{form}")
    for form in ("plain", "chunked"):
        for tag in ("v1", "v2"):
            bench.push(form, tag, "long")
        bench.pull(f"{form}, into nothing", form, "v1", "long", f"far-{form}")
        bench.pull(f"{form}, v1 at hand", form, "v2", "long", f"far-{form}")


def _others(bench: Bench) -> None:
    """Other clients on the same files, as far as they are installed."""
    for tag in ("v1", "v2"):
        bench.run(f"files of {tag}", "loopback", "pull", f"LINE/loopback/plain:{tag}", "-o", f"files-{tag}", "-q")
        names = sorted(path.name for path in (bench.work / f"files-{tag}").iterdir())
        if (oras := shutil.which("oras", path=SEARCH_PATH)) is not None:
            words = ("push", "--plain-http", "--disable-path-validation", f"LINE/oras/guest:{tag}")
            files = [str(bench.work / f"files-{tag}" / name) for name in names]
            bench.run(f"push {tag}, oras", "loopback", *words, *files, program=(oras,))
        if (regctl := shutil.which("regctl", path=SEARCH_PATH)) is not None:
            words = (
                "--host",
                "reg=LINE,tls=disabled",
                "artifact",
                "put",
                "--artifact-type",
                "application/x",
                "--file-title",
            )
            files = [
                word
                for name in names
                for word in ("-m", "application/octet-stream", "-f", str(bench.work / f"files-{tag}" / name))
            ]
            bench.run(f"push {tag}, regctl", "loopback", *words, *files, f"LINE/regctl/guest:{tag}", program=(regctl,))
    bench.rows = [row for row in bench.rows if not row.what.startswith("files of")]


def _large(bench: Bench, size: int) -> dict | None:
    """The same of a file of `size` bytes, an eighth of each chunk of which is noise."""
    store = bench.work / "large"
    chunks = (random.Random(number).randbytes(LARGE_MARK).ljust(CHUNK, b"\0") for number in range(size // CHUNK))
    write_version(store, {"memory-ranges": chunks}, 1)
    words = ("push", "guest:v1", "LINE/large:v1", "--store", "large", "--chunked", "-q")
    push = bench.run("push of the large file, chunked", "loopback", *words)
    shutil.rmtree(store)
    found = None if push.error else _mounted(bench, "large:v1", LARGE_READS)
    return found and found | {"size": size}


def _mounted(bench: Bench, name: str, wanted: int) -> dict | None:
    """Seconds until a mount stands, and bytes that move for scattered reads; None where this user cannot mount."""
    if os.geteuid() or not os.access("/dev/fuse", os.W_OK):
        return None
    directory, line = bench.work / "mnt", bench.lines["loopback"]
    directory.mkdir(exist_ok=True)
    line.taken()
    begin = time.perf_counter()
    words = [sys.executable, "-m", "epoch_oci", "mount", f"{line.address}/{name}", str(directory), "-f"]
    with subprocess.Popen(words, env=bench.env, stderr=subprocess.DEVNULL) as process:
        try:
            while not os.path.ismount(directory) and process.poll() is None:
                time.sleep(0.01)
            ready = time.perf_counter() - begin
            chosen, size = random.Random(1), (directory / "memory-ranges").stat().st_size
            spots = chosen.sample(range(0, size, MIB), min(wanted, size // MIB))
            begin = time.perf_counter()
            with (directory / "memory-ranges").open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                read = sum(len(os.pread(file.fileno(), MIB, spot)) for spot in spots)
            seconds = time.perf_counter() - begin
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
    moved = line.taken()
    return {"ready": ready, "read": read, "seconds": seconds, "down": moved["down"], "requests": moved["requests"]}


def report(facts: dict) -> str:
    """VERSIONS.md."""
    sizes, rows = facts["sizes"], {(row["what"], row["line"]): row for row in facts["rows"]}
    share, stack = (
        [rows[f"push v{number}, {form}", "loopback"]["up"] / size for number, size in enumerate(sizes, 1)]
        for form in ("chunked", "cocoonstack")
    )
    windows = [sent / size for sent, size in zip(facts["windows"], sizes, strict=True)]
    changed = ", ".join(f"{each['pages']:.1%} of pages and {each['chunks']:.1%} of chunks" for each in facts["changed"])
    lines = [
        "# Versions",
        "",
        f"Written by `python -m benchmarks.versions` on {facts['cores']} cores, against CNCF distribution "
        f"{facts['registry']} on loopback, through a proxy that counts and, for the long line, gives each connection "
        f"25 MiB/s and 20 ms one way. {_origin(facts)}: {sizes[0] / MIB:.0f} MiB; of its memory there "
        f"changed, version by version: {changed}. Load of the machine before or after: {facts['load']:.1f}; above the "
        "number of cores, seconds say little.",
        "",
        "![Bytes sent for each version](versions.svg)",
        "",
        "| Share of the snapshot that is sent | first | second | third | wanted |",
        "|---|--:|--:|--:|---|",
        _shares("`push --chunked`", share, "35 %, then 8 %"),
        _shares("`push --dialect cocoonstack --zstd 1` (snapshot.v2)", stack, ""),
        _shares("every window of 16 MiB sent once, computed", windows, ""),
        "",
        "| Command | Line | sent MiB | received MiB | requests | seconds | CPU s | peak MiB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['what']} | {row['line']} | {row['up'] / MIB:.1f} | {row['down'] / MIB:.1f} | {row['requests']} | "
        f"{row['wall']:.1f} | {row['cpu']:.1f} | {row['peak'] / MIB:.0f} |"
        for row in facts["rows"]
    ]
    lines += ["", *_verdicts(facts, rows)]
    return "\n".join(lines) + "\n"


def _origin(facts: dict) -> str:
    return "The guest is a real one" if facts.get("real") else "The guest is made up (`guest.py`)"


def _shares(what: str, shares: list[float], wanted: str) -> str:
    return f"| {what} | {' | '.join(f'{share:.1%}' for share in shares)} | {wanted} |"


def _verdicts(facts: dict, rows: dict) -> list[str]:
    size = facts["sizes"][0]
    first = rows["push v1, chunked", "loopback"]
    near = [rows[f"pull v2, {form}, into nothing", "loopback"]["wall"] for form in ("plain", "chunked")]
    far = [rows[f"pull v1, {form}, into nothing", "long"]["wall"] for form in ("plain", "chunked")]
    found = [
        f"- First push: {size / MIB / first['cpu']:.0f} MiB of source for each CPU second, start-up and sending "
        "included (wanted: 250 of encoding).",
        f"- Chunked pull on loopback: {near[0] / near[1]:.2f} of the plain pull's speed (wanted: 0.7); on the long "
        f"line {far[0] / far[1]:.1f} times as fast (wanted: 3).",
    ]
    for what, mount in (("v3", facts.get("mount")), ("a file of 20 GiB", facts.get("large"))):
        if mount is None:
            continue
        if "size" in mount:
            what = f"a file of {mount['size'] / 2**30:g} GiB, an eighth of it noise,"
        found.append(
            f"- `mount` of {what} stands after {mount['ready']:.2f} s; {mount['read'] / MIB:.0f} MiB read here and "
            f"there, 1 MiB at a time, move {mount['down'] / MIB:.1f} MiB ({mount['down'] / mount['read']:.2f} of them; "
            f"wanted: at most 1.3) in {mount['seconds']:.1f} s."
        )
    return found


def picture(facts: dict) -> str:
    """Bars: what each form sends of each version, in percent of the snapshot."""
    rows = {(row["what"], row["line"]): row for row in facts["rows"]}
    forms = {
        "whole files": [rows[f"push v{number}, plain", "loopback"]["up"] for number in (1, 2, 3)],
        "snapshot.v2": [rows[f"push v{number}, cocoonstack", "loopback"]["up"] for number in (1, 2, 3)],
        "push --chunked": [rows[f"push v{number}, chunked", "loopback"]["up"] for number in (1, 2, 3)],
    }
    colours = {"whole files": "#9aa7b4", "snapshot.v2": "#c8a24a", "push --chunked": "#0b7a75"}
    parts, top = [], 56
    for number, size in enumerate(facts["sizes"]):
        parts.append(f'<text x="16" y="{top + 34}" class="title">v{number + 1}</text>')
        for place, (form, sent) in enumerate(forms.items()):
            share, y = sent[number] / size, top + place * 22
            width = 480 * min(1.0, share)
            parts.append(
                f'<text x="56" y="{y + 13}">{form}</text>'
                f'<rect x="216" y="{y}" width="{max(1.0, width):.1f}" height="16" fill="{colours[form]}"/>'
                f'<text x="{224 + width:.1f}" y="{y + 13}">{share:.1%}</text>'
            )
        top += 84
    style = (
        ".ground{fill:#fff}text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}"
        "@media(prefers-color-scheme:dark){.ground{fill:#0d1117}text{fill:#e6edf3}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="780" height="{top}"><style>{style}</style>'
        f'<rect class="ground" width="100%" height="100%"/>'
        f'<text x="16" y="28" class="title">Bytes sent for each version of a guest, in percent of the snapshot</text>'
        f"{''.join(parts)}</svg>\n"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
