"""`sync` and the verbs around it between real registries and buckets: killed in the middle, equal in the end."""

import json
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cli_runner import run_cli, start_cli
from long_support import in_registry, newest
from object_stores import Bucket
from snapshots import noise, put_snapshot, with_tag
from support import s3
from support.content import INDEX, MANIFEST, descriptor, index
from support.live import LiveRegistry, registries
from test_sync import small

KILLS = 3
ROOT = "epoch/"
"""What stands before every key where a word names a bucket alone."""


def server() -> s3.MotoS3 | s3.VersityS3:
    """The gateway where it is there: the emulator handles one request after another."""
    return list(s3.shared_servers())[-1][1]()


def filled(bucket: Bucket, snapshots: int) -> dict[str, bytes]:
    """An Epoch store in the bucket, of snapshots that share ten bases, ten tags to a name; what it holds."""
    held: dict[str, bytes] = {}
    catalog: bytes | None = None
    for number in range(snapshots):
        base = noise(f"base {number % 10}", 30_000 + number % 10)
        made = small(f"team/bot{number // 10}", f"v{number % 10}", unique=20_000 + number, base=base)
        catalog = with_tag(catalog, made.key.name, made.key.tag, "2026-04-04T13:07:33Z")
        held |= {f"blobs/sha256/{name}": raw for name, raw in made.blobs.items()}
        held[f"manifests/{made.key.name}/{made.key.tag}.json"] = made.raw
    held["catalog.json"] = catalog or b""
    for key, raw in held.items():
        bucket.put(ROOT + key, raw)
    return held


def dated(raw: bytes) -> bytes:
    """A catalog as it would be had every entry been written at one moment."""
    return re.sub(rb'"updatedAt": "[^"]*"', b'"updatedAt": "then"', raw)


def whole(bucket: Bucket) -> int:
    """How many snapshots are published there; all that they name has to be there as well, at its size."""
    held = {key.removeprefix(ROOT): found[0] for key, found in bucket.listing().items()}
    manifests = [key for key in held if key.startswith("manifests/")]
    for key in manifests:
        value = json.loads(bucket.get(ROOT + key))
        for row in (*value["layers"], *value["baseImages"]):
            assert held[f"blobs/sha256/{row['digest']}"] == row["size"], key
    return len(manifests)


def tagged(registry: LiveRegistry, prefix: str) -> list[tuple[str, str]]:
    """Repositories and tags below a prefix, read off the registry's own storage."""
    root = registry.storage / "docker/registry/v2/repositories"
    links = (root / prefix).glob("team/*/_manifests/tags/*/current/link")
    return [(str(link.parents[4].relative_to(root)), link.parents[1].name) for link in links]


def killed(
    words: tuple[str, ...], env: dict[str, str], cwd: Path, through: Callable[[], int], counts: list[int]
) -> None:
    """Run it until so many are through, and kill it there; once for each count, all of them on the way."""
    for count in counts:
        running = start_cli(*words, "--progress", "none", cwd=cwd, env=env)
        deadline = time.monotonic() + 300
        while through() < count and running.poll() is None:
            assert time.monotonic() < deadline, "it does not get on"
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        assert running.wait(30) == -signal.SIGKILL, running.communicate()[1].decode()


def there_and_on(registry: LiveRegistry, prefix: str, snapshots: int, cwd: Path, *slowly: str) -> None:
    """Bucket → registry → another bucket, each leg killed in its middle again and again (`slowly`, to be caught)."""
    kind = server()
    source, target = Bucket(kind), Bucket(kind)
    held = filled(source, snapshots)
    middles = [snapshots * number // (KILLS + 2) for number in range(1, KILLS + 1)]
    middle = f"{registry.address}/{prefix}"
    env = {**kind.environ(source.name), "XDG_STATE_HOME": str(cwd / "state"), "XDG_CACHE_HOME": str(cwd / "cache")}

    there = ("sync", f"s3://{source.name}", middle)
    killed((*there, *slowly), env, cwd, lambda: len(tagged(registry, prefix)), middles)
    for repository, tag in tagged(registry, prefix):
        assert in_registry(registry, repository, tag)
    done = run_cli(*there, "--format", "json", cwd=cwd, env=env, timeout=600)
    assert done.code == 0, done.err
    # What was through is known again, and what a kill cut short is no more than what was under way.
    assert done.json["counts"]["there"] >= middles[-1]
    assert len(tagged(registry, prefix)) == snapshots

    env |= kind.environ(target.name)
    on = ("sync", middle, f"s3://{target.name}")
    killed(
        (*on, *slowly), env, cwd, lambda: sum(key.startswith(f"{ROOT}manifests/") for key in target.listing()), middles
    )
    assert whole(target) >= middles[-1]
    done = run_cli(*on, "--format", "json", cwd=cwd, env=env, timeout=600)
    assert done.code == 0, done.err
    assert done.json["counts"]["there"] >= middles[-1]

    there_now = {key.removeprefix(ROOT): target.get(key) for key in target.listing()}
    assert dated(there_now.pop("catalog.json")) == dated(held.pop("catalog.json"))
    assert there_now == held


def test_a_tagged_index_loses_no_part_whatever_is_removed(live_registry, repo_name, tmp_path):
    """distribution 2 deletes manifests only, and would take a part of the index; distribution 3 deletes tags."""
    for tag in ("v1", "v2", "v3"):
        put_snapshot(tmp_path / "store", small("bot", tag, created=f"2026-05-0{tag[1]}T00:00:00Z"))
    place = f"{live_registry.address}/{repo_name}"
    assert run_cli("sync", "store", place, cwd=tmp_path).code == 0
    with live_registry.client() as client:
        part = client.manifest(f"{repo_name}/bot", "v1").body
        whole = index([descriptor(part, MANIFEST)], annotations={"org.opencontainers.image.created": "2026-05-09"})
        target = f"/v2/{repo_name}/bot/manifests/multi"
        assert client.request("PUT", target, whole, Content_Type=INDEX).status == 201
    refused = run_cli("rm", f"{place}/bot:v1", "--yes", cwd=tmp_path)
    only_manifests = live_registry.kind == "distribution-2"
    assert refused.code == (4 if only_manifests else 0), refused.err
    pruned = run_cli("prune", f"{place}/bot", "--keep-last", "1", "--yes", cwd=tmp_path)
    assert pruned.code == (10 if only_manifests else 0), pruned.err
    assert run_cli("ls", f"{place}/bot", cwd=tmp_path).out.split() == ["multi", *(["v1"] if only_manifests else [])]
    assert run_cli("copy", f"{place}/bot:multi", "oci:layout", cwd=tmp_path).code == 0
    assert run_cli("verify", "oci:layout", cwd=tmp_path).code == 0
    left = [f"{place}/bot:{tag}" for tag in ("v1", "multi")[not only_manifests :]]
    assert run_cli("rm", *left, "--yes", cwd=tmp_path).code == 0


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, given back whatever happens."""
    place = Path("/dev/shm")
    with TemporaryDirectory(dir=place if place.is_dir() and shutil.disk_usage(place).free > 1 << 30 else None) as path:
        yield Path(path)


@pytest.fixture
def registry(memory) -> Iterator[LiveRegistry]:
    """The newest registry there is, which keeps its files in memory."""
    binary = newest(registries())
    if binary is None:
        pytest.skip("no registry is there (Debian package docker-registry, or `make peers`)")
    (memory / "registry").mkdir()
    with LiveRegistry(binary, memory / "registry") as running:
        yield running


@pytest.mark.live
def test_through_a_registry_into_another_bucket_with_every_leg_killed(registry, memory):
    there_and_on(registry, "mirror", 40, memory, "--limit-rate", "700K")


@pytest.mark.live
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_through_a_registry_into_another_bucket_with_every_leg_killed(registry, memory):
    there_and_on(registry, "mirror", 1_000, memory)
