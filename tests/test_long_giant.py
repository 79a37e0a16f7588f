"""20 GiB to a real registry and back, through three kills each way."""

import hashlib
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from long_support import (
    MIB,
    SEED,
    Watched,
    epoch_manifest,
    in_registry,
    newest,
    right_names,
    sha256,
    visible,
    written_by,
)
from snapshots import Made
from support import live
from support.live import LiveRegistry

from epoch_oci.epoch.keys import SnapshotKey

GIB = 1 << 30
FILES = {"memory-ranges": 16 * GIB, "overlay.qcow2": 4 * GIB - 12_345, "config.json": 2_871, "state.json": 40_961}
TOTAL = sum(FILES.values())
PART = GIB
JOBS = 4
KILLED_AT = (0.2, 0.5, 0.8)
MOST_MEMORY = 150 * MIB
SPAN_LOSS = 32 * MIB
"""What a kill may cost of a span on its way down: the 8 MiB between two records, and what the sockets hold."""
NEEDED = 2 * TOTAL + len(KILLED_AT) * JOBS * PART
"""Two copies, and what the killed uploads leave in the registry."""

pytestmark = [pytest.mark.long, pytest.mark.live, pytest.mark.timeout(1800)]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for all of it, emptied afterwards whatever happens."""
    free = shutil.disk_usage(tmp_path).free
    if free < NEEDED + 4 * GIB:
        pytest.skip(f"needs {(NEEDED + 4 * GIB) / GIB:.0f} GiB of disk below {tmp_path}, {free / GIB:.0f} GiB are free")
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def registry(room: Path) -> Iterator[LiveRegistry]:
    binary = newest(live.registries())
    if binary is None:
        pytest.skip("no registry found (Debian package docker-registry, or `make peers`)")
    (room / "registry").mkdir()
    with LiveRegistry(binary, room / "registry") as registry:
        yield registry


def make(store: Path) -> Made:
    """The snapshot on the disk: random blocks, each MiB headed by its number, so that no two are alike."""
    made = Made(SnapshotKey("giant", "v1"), b"")
    rows = []
    for name, size in FILES.items():
        block = bytearray(random.Random(f"{SEED}/{name}").randbytes(64 * MIB))
        digest, scratch = hashlib.sha256(), store / name
        store.mkdir(exist_ok=True)
        with scratch.open("wb") as file:
            for offset in range(0, size, len(block)):
                for inside in range(0, len(block), MIB):
                    block[inside : inside + 16] = (offset + inside).to_bytes(16, "big")
                piece = memoryview(block)[: size - offset]
                digest.update(piece)
                file.write(piece)
        blob = store / "blobs/sha256" / digest.hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(blob)
        rows.append({"digest": blob.name, "size": size, "filename": name})
    made.raw = epoch_manifest(made.key, rows)
    manifest = store / "manifests/giant/v1.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(made.raw)
    return made


def stored_blobs(registry: LiveRegistry, known: set[str]) -> None:
    """Every blob the registry has is right; read from its storage, each once."""
    for path in registry.storage.glob("docker/registry/v2/blobs/sha256/*/*/data"):
        if path.parent.name not in known:
            assert sha256(path) == path.parent.name
            known.add(path.parent.name)


def test_twenty_gibibytes_there_and_back_through_three_kills_each_way(room, registry, record_property):
    store, copy, repository = room / "store", room / "copy", "t/giant"
    target = f"{registry.address}/{repository}:v1"
    made = make(store)
    began = time.monotonic()
    words = ("push", made.key, target, "--store", store, "--part-size", "1GiB", "--jobs", JOBS)
    before, known, peaks, sent = written_by(registry), set(), [], set()
    lost = 0
    for fraction in KILLED_AT:
        with Watched(*words) as run:
            run.until(int(fraction * TOTAL))
            run.kill()
            assert not run.finished & sent, "a blob that had arrived was sent again"
            sent |= run.finished
            lost += run.in_flight
            peaks.append(run.peak)
        assert not in_registry(registry, repository, "v1")
        stored_blobs(registry, known)
    with Watched(*words) as run:
        report = run.finish()
        assert not run.finished & sent
        peaks.append(run.peak)
    assert in_registry(registry, repository, "v1")
    stored_blobs(registry, known)
    again = written_by(registry) - before - report["size"]
    # Where a part goes up in one request, all of it that was in flight is lost; whatever else, it is no more than that.
    assert again <= len(KILLED_AT) * JOBS * (PART + 8 * MIB)
    assert again <= lost + len(KILLED_AT) * JOBS * 64 * MIB  # progress lags behind a little
    figures = {
        "push: seconds": time.monotonic() - began,
        "push: sent again": again,
        "push: in flight at the kills": lost,
        "push: peaks": peaks,
    }

    shutil.rmtree(store)
    shutil.rmtree(registry.storage / f"docker/registry/v2/repositories/{repository}/_uploads", ignore_errors=True)
    began = time.monotonic()
    words = ("pull", target, "--store", copy, "--jobs", JOBS)
    before, known, peaks = written_by(registry), set(), []
    for fraction in KILLED_AT:
        with Watched(*words) as run:
            run.until(int(fraction * TOTAL))
            run.kill()
            peaks.append(run.peak)
        right_names(copy / "blobs/sha256", known)
        assert not (copy / "manifests").exists()
    with Watched(*words) as run:
        report = run.finish()
        peaks.append(run.peak)
    again = written_by(registry) - before - report["size"]
    assert again <= len(KILLED_AT) * JOBS * SPAN_LOSS
    figures |= {"pull: seconds": time.monotonic() - began, "pull: fetched again": again, "pull: peaks": peaks}
    right_names(copy / "blobs/sha256", known)
    assert (copy / "manifests/giant/v1.json").read_bytes() == made.raw
    assert {path.name: path.stat().st_size for path in visible(copy / "blobs/sha256")} == sizes(made)
    for name, value in figures.items():
        record_property(name, value)
        sys.stdout.write(f"{name}: {value}\n")
    assert max(figures["push: peaks"] + figures["pull: peaks"]) <= MOST_MEMORY


def sizes(made: Made) -> dict[str, int]:
    return {row["digest"]: row["size"] for row in json.loads(made.raw)["layers"]}
