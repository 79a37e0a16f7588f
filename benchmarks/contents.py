"""The bytes of the files that are moved, from a fixed seed; with every version a little of them changes."""

import json
import random
from collections.abc import Iterator

from benchmarks.measure import KIB, MIB

BLOCK = 64 * KIB
SEED = "epoch-oci benchmark"
CHANGED_SHARE = 0.05
CHANGED_EXTENTS = 8
MARKS_APART = MIB

Piece = bytes | int  # an int is a hole of so many bytes


def _noise(label: str, size: int = BLOCK) -> bytes:
    return random.Random(f"{SEED}/{label}").randbytes(size)


def changed_blocks(count: int) -> frozenset[int]:
    """5 % of `count` blocks, in a few runs, as a guest that worked for a while leaves them."""
    if count < 1:
        return frozenset()
    runs = min(CHANGED_EXTENTS, max(1, round(count * CHANGED_SHARE)))
    length = max(1, round(count * CHANGED_SHARE / runs))
    return frozenset(run * count // runs + place for run in range(runs) for place in range(length))


def _blocks(label: str, count: int, version: int) -> Iterator[bytes]:
    changed = changed_blocks(count) if version > 1 else frozenset()
    for index in range(count):
        yield _noise(f"{label}/{index}/{version if index in changed else 1}")


def memory(size: int, version: int) -> Iterator[Piece]:
    """Incompressible, as pages of a busy guest."""
    yield from _blocks("memory", size // BLOCK, version)


def qcow2(size: int, version: int) -> Iterator[Piece]:
    """A header, an L1 and L2 tables, then clusters of data, one in eight of which compresses well."""
    clusters = size // BLOCK
    tables = clusters * 8 // BLOCK + 1
    header = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(12) + (16).to_bytes(4, "big") + size.to_bytes(8, "big")
    yield header.ljust(BLOCK, b"\0")
    offsets = iter(range((1 + tables) * BLOCK, (1 + tables + tables * BLOCK // 8) * BLOCK, BLOCK))
    for _ in range(tables):
        yield b"".join((1 << 63 | next(offsets)).to_bytes(8, "big") for _ in range(BLOCK // 8))
    for index, block in enumerate(_blocks("qcow2", clusters - 1 - tables, version)):
        yield block[: 4 * KIB] * (BLOCK // (4 * KIB)) if index % 8 == 7 else block


def raw_disk(size: int, data: int, version: int) -> Iterator[Piece]:
    """Extents of 1 MiB, evenly spread over the disk; all the rest is a hole."""
    extents = data // MIB
    pitch = size // extents
    blocks = _blocks("disk", data // BLOCK, version)
    for _ in range(extents):
        for _ in range(MIB // BLOCK):
            yield next(blocks)
        yield pitch - MIB
    if size > pitch * extents:
        yield size - pitch * extents


def marked(size: int, label: str = "mark") -> Iterator[Piece]:
    """Nearly all hole, but no two parts of it are alike, nor of two files with other labels."""
    for offset in range(0, size, MARKS_APART):
        length = min(MARKS_APART, size - offset)
        yield _noise(f"{label}/{offset}", 4 * KIB)
        yield length - 4 * KIB


def json_document(name: str, version: int, entries: int) -> Iterator[Piece]:
    """A JSON document with `entries` devices, about 120 bytes each."""
    devices = [{"id": f"{name}-{n}", "bdf": f"0000:00:{n:04x}", "state": _noise(f"{name}/{n}", 16).hex()}
               for n in range(entries)]  # fmt: skip
    yield json.dumps({"version": version, "devices": devices}, indent=2).encode()
