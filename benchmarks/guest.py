"""Snapshots of a guest at work, made up: memory with zeros, text, noise and page cache; a disk that grows.

What changes between versions is clustered as in a guest that was measured: about 10 % of the pages of 4 KiB and 13 % of
the chunks of 64 KiB in a minute; its memory went to 28 % of its bytes at first. `store` writes an Epoch store.
"""

import hashlib
import json
import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import KIB

PAGE, CHUNK = 4 * KIB, 64 * KIB
PAGES = CHUNK // PAGE
SEED = "epoch-oci guest"
CHUNKS_CHANGED, PAGES_CHANGED = 0.13, 0.10
WORDS = 4096
KINDS = {"zero": 50, "text": 28, "cache": 14, "noise": 8}  # of the memory, in percent
DISK_NOISE = 0.25
GROWTH = 0.03  # of the disk, in a version
ZERO = bytes(PAGE)
TYPES = {
    "config.json": "application/vnd.cocoon.config+json",
    "memory-ranges": "application/vnd.cocoon.memory",
    "overlay.qcow2": "application/vnd.cocoon.disk.qcow2",
    "state.json": "application/vnd.cocoon.state+json",
}


@dataclass
class Guest:
    """Pages by what they are made of: a pair of kind and number, from which their bytes follow."""

    memory_size: int
    disk_size: int
    version: int = 1
    memory: list[tuple[str, int]] = field(default_factory=list)
    disk: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(SEED)
        self._next = 0
        self._text = _text_pages(self._random)
        self.disk = [
            self._fresh("text" if self._random.random() < 0.6 else "noise") for _ in range(self.disk_size // PAGE)
        ]
        kinds, weights = list(KINDS), list(KINDS.values())
        while len(self.memory) * PAGE < self.memory_size:
            run = PAGES * self._random.randint(1, 24)
            kind = self._random.choices(kinds, weights)[0]
            start = self._random.randrange(len(self.disk) - run) if kind == "cache" else 0
            self.memory += (
                self.disk[start : start + run] if kind == "cache" else [self._fresh(kind) for _ in range(run)]
            )
        del self.memory[self.memory_size // PAGE :]

    def work(self) -> dict[str, float]:
        """A minute of it: returns the shares of memory that changed, in pages and in chunks."""
        self.version += 1
        before = list(self.memory)
        chunks = len(self.memory) // PAGES
        wanted, touched = int(chunks * CHUNKS_CHANGED), set()
        while len(touched) < wanted:
            start = self._random.randrange(chunks)
            touched |= set(range(start, min(chunks, start + self._random.randint(1, 12))))
        for chunk in touched:
            for page in range(PAGES):
                if self._random.random() < PAGES_CHANGED / CHUNKS_CHANGED:
                    kind = self._random.choices(("text", "noise", "zero"), (60, 25, 15))[0]
                    self.memory[chunk * PAGES + page] = self._fresh(kind)
        self.disk += [self._fresh("text") for _ in range(int(len(self.disk) * GROWTH))]
        pages = [old != new for old, new in zip(before, self.memory, strict=True)]
        changed = sum(any(pages[at : at + PAGES]) for at in range(0, len(pages), PAGES))
        return {"pages": sum(pages) / len(pages), "chunks": changed / chunks}

    def blocks(self, pages: list[tuple[str, int]]) -> Iterator[bytes]:
        """The bytes of pages, a chunk at a time."""
        for at in range(0, len(pages), PAGES):
            yield b"".join(map(self._bytes, pages[at : at + PAGES]))

    def store(self, path: Path, name: str = "guest") -> int:
        """Write this version as NAME:vN; returns the bytes of all its files."""
        parts = {
            "config.json": iter([b'{"cpus":{"boot_vcpus":4}}']),
            "memory-ranges": self.blocks(self.memory),
            "overlay.qcow2": self.blocks(self.disk),
            "state.json": iter([f'{{"version":{self.version}}}'.encode()]),
        }
        return write_version(path, parts, self.version, name)

    def _fresh(self, kind: str) -> tuple[str, int]:
        self._next += 1
        return kind, 0 if kind == "zero" else self._next

    def _bytes(self, page: tuple[str, int]) -> bytes:
        kind, number = page
        if kind == "zero":
            return ZERO
        if kind == "text":
            return struct.pack("<QQ", number, number * 2654435761 % (1 << 63)) + self._text[number % len(self._text)]
        return random.Random(number).randbytes(PAGE)


def _text_pages(chosen: random.Random) -> list[bytes]:
    """Pages as text and tables compress: to about a third."""
    words = [bytes(chosen.choices(b"abcdefghijklmnopqrstuvwxyz_/=.", k=chosen.randint(2, 11))) for _ in range(WORDS)]
    pages = []
    for _ in range(512):
        raw = bytearray()
        while len(raw) < PAGE:
            raw += chosen.choice(words[: 1 << chosen.randint(4, 12)]) + b" " * chosen.randint(1, 3)
        pages.append(bytes(raw[: PAGE - 16]))
    return pages


def write_version(path: Path, files: Mapping[str, Iterator[bytes]], version: int, name: str = "guest") -> int:
    """Write the files, by name, into the store at `path` as NAME:vVERSION; returns the bytes of all of them."""
    blobs, tag = path / "blobs" / "sha256", f"v{version}"
    blobs.mkdir(parents=True, exist_ok=True)
    rows = []
    for file, parts in files.items():
        digest, size = _written(blobs, parts)
        rows.append({"digest": digest, "size": size, "filename": file, "mediaType": _type(file)})
    total = sum(row["size"] for row in rows)
    document = {"schemaVersion": 1, "name": name, "tag": tag, "snapshotId": f"{name}-{tag}", "layers": rows}
    document |= {
        "totalSize": total,
        "createdAt": f"2026-04-0{version}T10:00:00Z",
        "pushedAt": "2026-04-09T10:00:00Z",
    }
    manifest = path / "manifests" / name / f"{tag}.json"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps(document))
    return total


def _type(file: str) -> str:
    kind = "memory" if "memory" in file else "disk.qcow2" if file.endswith(".qcow2") else "disk.raw"
    return TYPES.get(file, f"application/vnd.cocoon.{kind}")


def _written(directory: Path, parts: Iterator[bytes]) -> tuple[str, int]:
    """Zeros at the end of a part become a hole."""
    hasher, size, scratch = hashlib.sha256(), 0, directory / ".writing"
    with scratch.open("wb") as file:
        for part in parts:
            file.seek(size)
            file.write(part.rstrip(b"\0"))
            hasher.update(part)
            size += len(part)
        file.truncate(size)
    scratch.rename(directory / hasher.hexdigest())
    return hasher.hexdigest(), size
