"""What the fault tests over whole processes share: a run that is watched and killed, and who may see what after it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Self

from snapshots import Made, noise, put_snapshot
from support.live import Binary, LiveRegistry

from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.oci.digest import Digest

MIB = 1 << 20
SEED = int(os.environ.get("EPOCH_OCI_TEST_SEED", "1"))
"""Other instants, offsets and orders; the long tests print it."""
_ZERO_TIME = "0001-01-01T00:00:00Z"


class Watched:
    """The tool in a process group of its own, its JSON progress read as it comes.

    ``present`` are the bytes the target is known to hold; ``peak`` is the most memory the process was seen to use.
    """

    def __init__(self, *words: object, env: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "epoch_oci", *map(str, words), "--progress", "json", "--format", "json"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        self.events: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.peak = 0
        self._plan: tuple[int, int] | None = None
        self._moved: dict[str, tuple[int, bool]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self._end(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    @property
    def to_move(self) -> int:
        """Bytes of the blobs that the plan found missing."""
        assert self._plan is not None, self.said
        return self._plan[0]

    @property
    def moved(self) -> int:
        """Bytes of the plan's blobs that are there now; those left by an earlier run count."""
        return sum(count for count, _ in self._moved.values())

    @property
    def present(self) -> int:
        return 0 if self._plan is None else self._plan[1] - self._plan[0] + self.moved

    @property
    def in_flight(self) -> int:
        """Bytes of blobs that have begun and are not done."""
        return sum(count for count, done in self._moved.values() if not done)

    @property
    def finished(self) -> set[str]:
        """Digests of the blobs that this run has reported as moved."""
        return {digest for digest, (_, done) in self._moved.items() if done}

    def until(self, present: int) -> None:
        """Read on until so many bytes are present. Fails when the run ends before."""
        for _ in self._lines():
            if self.present >= present:
                return
        raise AssertionError(f"ended with {self.present} of {present} bytes: exit {self.process.wait()}, {self.said}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the whole group now, and read what it still said. Fails when it had ended by itself."""
        self._end(number)
        for _ in self._lines():
            pass
        assert self.process.wait(100) == -number, self.said

    def finish(self, *codes: int) -> dict[str, Any]:
        """Wait for its end, with one of ``codes`` (none: 0); the report, empty when there is none."""
        for _ in self._lines():
            pass
        assert self.process.stdout is not None
        report = self.process.stdout.read()
        assert self.process.wait(100) in (codes or (0,)), (self.process.returncode, self.said)
        return json.loads(report) if report else {}

    def _end(self, number: int) -> None:
        self.peak = max(self.peak, peak_memory(self.process.pid))
        os.killpg(self.process.pid, number)

    def _lines(self) -> Iterator[None]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.peak = max(self.peak, peak_memory(self.process.pid))
            try:
                event = json.loads(line)
            except ValueError:
                event = {}
            if "event" in event:
                self._take(event)
            else:
                self.said.append(line.decode())
            yield

    def _take(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        match event["event"]:
            case "plan":
                self._plan = event["bytes"], event["total"]
            case "blob-start" | "blob-progress":
                self._moved[event["digest"]] = event["bytes"], False
            case "blob-done" if event["action"] != "skipped":
                self._moved[event["digest"]] = event["total"], True


def run(*words: object) -> float:
    """The tool to its end; how long it took."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "epoch_oci", *map(str, words), "-q"], capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr.decode()
    return time.monotonic() - began


@dataclass
class Way:
    """A command with fresh places to work on: ``begin`` gives its words, and how to look what is there now."""

    begin: Callable[[], tuple[list[object], Callable[[], bool]]]

    def kill_often(self, label: str, kills: int = 12) -> None:
        """Kill it at random instants of what it takes undisturbed, in a new place whenever it got through."""
        rng = random.Random(f"{SEED}/{label}")
        words, complete = self.begin()
        took = run(*words)
        assert complete()
        words, complete = self.begin()
        killed, rounds = 0, 0
        while killed < kills:
            rounds += 1
            assert rounds < 5 * kills, f"only {killed} of {rounds} runs could be killed"
            status = kill_after(rng.uniform(0.1, took), *words)
            there = complete()
            if status == -signal.SIGKILL:
                killed += 1
                continue
            assert status == 0 and there
            words, complete = self.begin()
        run(*words)
        assert complete()


def kill_after(seconds: float, *words: object) -> int:
    """Start it, kill it, and say with what status it ended."""
    command = [sys.executable, "-m", "epoch_oci", *map(str, words), "-q"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        return process.wait(100)


def peak_memory(pid: int) -> int:
    """The most memory a process has had, in bytes; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def written_by(registry: LiveRegistry) -> int:
    """Bytes that the registry's process wrote since it started: to its storage and to its sockets."""
    assert registry._process is not None
    lines = Path(f"/proc/{registry._process.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def newest(binaries: Mapping[str, Binary]) -> Binary | None:
    """The newest kind of registry there is."""
    return binaries[max(binaries)] if binaries else None


def in_registry(registry: LiveRegistry, repository: str, tag: str) -> bool:
    """Whether the tag is there; then all it refers to must be, at its size. Asked without our own client."""
    with registry.client() as client:
        reply = client.manifest(repository, tag)
        if reply.status == 404:
            return False
        assert reply.status == 200, reply
        document = json.loads(reply.body)
        for blob in (document["config"], *document["layers"]):
            found = client.request("HEAD", f"/v2/{repository}/blobs/{blob['digest']}")
            assert (found.status, found.header("Content-Length")) == (200, str(blob["size"])), (tag, blob)
    return True


def in_layout(layout: Path, tag: str) -> bool:
    """As ``in_registry`` for an OCI image layout; every visible blob must be what it is called."""
    right_names(layout / "blobs/sha256")
    index = layout / "index.json"
    rows = json.loads(index.read_bytes())["manifests"] if index.exists() else []
    named = [row for row in rows if row.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag]
    for row in named:
        document = json.loads((layout / "blobs/sha256" / row["digest"].removeprefix("sha256:")).read_bytes())
        for blob in (document["config"], *document["layers"]):
            path = layout / "blobs/sha256" / blob["digest"].removeprefix("sha256:")
            assert path.stat().st_size == blob["size"]
    return bool(named)


def in_store(store: Path, made: Made) -> bool:
    """As ``in_layout`` for an Epoch store."""
    right_names(store / "blobs/sha256")
    manifest = store / f"manifests/{made.key.name}/{made.key.tag}.json"
    if not manifest.exists():
        return False
    assert manifest.read_bytes() == made.raw
    for row in json.loads(made.raw)["layers"]:
        assert (store / "blobs/sha256" / row["digest"]).stat().st_size == row["size"]
    return True


def in_files(directory: Path, made: Made) -> bool:
    """Every visible file must be whole; True when all are there."""
    rows = {row["filename"]: row["digest"] for row in json.loads(made.raw)["layers"]}
    there = {path.name: sha256(path) for path in visible(directory)}
    assert there.items() <= rows.items(), there
    return there == rows


def right_names(directory: Path, known: set[str] | None = None) -> None:
    """Every visible file is called by its digest; those in ``known`` are believed, and what was read is added."""
    for path in visible(directory):
        if known is None or path.name not in known:
            assert sha256(path) == path.name, path
            (known if known is not None else set()).add(path.name)


def visible(directory: Path) -> list[Path]:
    """The files of a directory but hidden ones: drafts and what is kept to go on with."""
    return [path for path in directory.iterdir() if not path.name.startswith(".")] if directory.is_dir() else []


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def put_big(store: Path, *sizes: int, name: str = "big", tag: str = "v1", label: str = "") -> Made:
    """A snapshot with one file of each size in MiB, no two MiB of it alike."""
    made = Made(SnapshotKey(name, tag), b"")
    rows = []
    for number, size in enumerate(sizes):
        start = noise(f"{label}/{number}", MIB)
        raw = b"".join(index.to_bytes(8, "big") + start[8:] for index in range(size))
        made.blobs[Digest.of(raw).hex] = raw
        rows.append({"digest": Digest.of(raw).hex, "size": len(raw), "filename": f"disk-{number}.raw"})
    made.raw = epoch_manifest(made.key, rows)
    put_snapshot(store, made)
    return made


def epoch_manifest(key: SnapshotKey, rows: list[dict[str, Any]]) -> bytes:
    """A snapshot of these files."""
    value = {"schemaVersion": 1, "name": key.name, "tag": key.tag, "snapshotId": "9f3c1a7be20d4c55", "layers": rows}
    total = sum(row["size"] for row in rows)
    return gojson.dumps({**value, "totalSize": total, "createdAt": _ZERO_TIME, "pushedAt": _ZERO_TIME})


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory with mount options such as ``size=64m``; only root may."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
