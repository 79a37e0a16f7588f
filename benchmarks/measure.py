"""One command, measured from outside: wall-clock time, CPU seconds of its process tree, peak resident memory."""

import contextlib
import json
import os
import resource
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

SAMPLE_SECONDS = 0.02
FAMILY_SECONDS = 0.5  # reading every process's stat is dear, so new children are looked for less often
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a command took: `wall` and `cpu` in seconds, `peak` in bytes; `error` is empty when it exited with 0."""

    wall: float
    cpu: float
    peak: int
    error: str
    output: str


@dataclass(slots=True)
class _Tree:
    """A process and its descendants, while they live."""

    root: int
    peak: int = 0
    _pids: set[int] = field(default_factory=set)
    _next_family: float = 0.0

    def sample(self) -> None:
        """Note the tree's memory now, and each process's own high-water mark."""
        now = time.monotonic()
        if now >= self._next_family:
            self._next_family = now + FAMILY_SECONDS
            self._pids = _family(self.root)
        together = 0
        for pid in self._pids:
            resident, highest = _memory(pid)
            together += resident
            self.peak = max(self.peak, highest)
        self.peak = max(self.peak, together)


def _family(root: int) -> set[int]:
    """`root` and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            children.setdefault(_parent(entry.name), []).append(int(entry.name))
    found, pending = set(), [root]
    while pending:
        pid = pending.pop()
        found.add(pid)
        pending += children.get(pid, [])
    return found


def _parent(pid: str) -> int:
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except OSError:
        return 0
    # The name in parentheses may hold anything, blanks and parentheses too: fields are counted from the last one.
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def _memory(pid: int) -> tuple[int, int]:
    """Resident bytes now (VmRSS) and at the most (VmHWM); zeros when the process is gone."""
    now = most = 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"VmHWM:"):
                most = int(line.split()[1]) * KIB
            elif line.startswith(b"VmRSS:"):
                now = int(line.split()[1]) * KIB
                break
    return now, most


def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, logs: Path, timeout: float) -> Usage:
    """Run `argv` to its end in a session of its own; its output goes to `logs`. A run past `timeout` is killed."""
    out, err = logs.with_suffix(".out"), logs.with_suffix(".err")
    with out.open("wb") as stdout, err.open("wb") as stderr:
        begin = time.perf_counter()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        tree = _Tree(process.pid)
        try:
            in_time = _watch(tree, timeout)
            wall = time.perf_counter() - begin
        finally:
            # The session leader is not reaped yet, so the number of its group can belong to nobody else.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    failed = process.returncode != 0 or not in_time
    return Usage(
        wall=wall,
        cpu=used.ru_utime + used.ru_stime,
        peak=max(tree.peak, _own_peak(used.ru_maxrss * KIB)),
        error=_why(process.returncode, in_time, timeout, err, out) if failed else "",
        output=out.read_text("utf-8", "replace"),
    )


def _watch(tree: _Tree, timeout: float) -> bool:
    """Sample the tree until its root ends; False when that took longer than `timeout`."""
    deadline = time.monotonic() + timeout
    handle = os.pidfd_open(tree.root)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while not poll.poll(SAMPLE_SECONDS * 1000):
            if time.monotonic() > deadline:
                return False
            tree.sample()
        return True
    finally:
        os.close(handle)


def _own_peak(reported: int) -> int:
    """What the kernel reports for a child starts at its parent's peak; only what is above that is the child's own."""
    return reported if reported > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB else 0


def _why(code: int, in_time: bool, timeout: float, *logs: Path) -> str:
    if not in_time:
        return f"not done after {timeout:.0f} s"
    for log in logs:
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        spoken = [line for line in lines if not line.startswith("{")] or lines
        if spoken:
            # Go programs say first which request it was, with a URL of some hundred characters, and last what happened.
            return f"exit {code}: {_ends(spoken[-1])}"
    return f"exit {code}, without a word"


def _ends(text: str, most: int = 240) -> str:
    return text if len(text) <= most else f"{text[: most // 3]} … {text[-most * 2 // 3 :]}"


def said_seconds(usage: Usage) -> float:
    """The seconds that a raw limit timed itself."""
    return float(json.loads(usage.output)["seconds"])


def cpu_seconds(pid: int) -> float:
    """CPU that a living process has used so far."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    fields = stat[stat.rindex(b")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def settle() -> float:
    """Write everything that is dirty to the disks; the seconds it took."""
    begin = time.perf_counter()
    os.sync()
    return time.perf_counter() - begin


def warm(root: Path) -> None:
    """Read every byte of data below `root` once, so that each contender finds it in the page cache."""
    buffer = bytearray(4 * MIB)
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                _read_data(file.fileno(), buffer)


def _read_data(handle: int, buffer: bytearray) -> None:
    position = 0
    while True:
        try:
            position = os.lseek(handle, position, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        end = os.lseek(handle, position, os.SEEK_HOLE)
        while position < end:
            got = os.preadv(handle, [memoryview(buffer)[: end - position]], position)
            if not got:
                return
            position += got


def allocated(path: Path) -> int:
    """Bytes of disk that a file, or everything below a directory, occupies."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_blocks for each in files) * 512


def median(values: Sequence[float]) -> float:
    """The median; raises StatisticsError for none."""
    return statistics.median(values)
