"""Many snapshots that share base images, from one registry to another: ours beside loops of other clients.

`python -m benchmarks.many [COUNT]` makes COUNT (200) snapshots over 10 bases, puts them into a registry, and has each
client bring them to a fresh one, all bytes counted by a proxy in front of it. It prints a table for RESULTS.md.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.counting import CountingProxy
from benchmarks.registry import SEARCH_PATH, find_registry, fresh
from benchmarks.results import Many

BASES, BASE_SIZE, OWN_SIZE = 10, 16 << 20, 256 << 10
TAGS = 4
"""Versions of each name."""


def make_store(store: Path, count: int) -> list[str]:
    """Snapshots `botN:vM`; the names and tags."""
    blobs = store / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def layer(filename: str, raw: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(raw).hexdigest()
        (blobs / digest).write_bytes(raw)
        return {"digest": digest, "size": len(raw), "filename": filename, "mediaType": f"application/vnd.cocoon.{kind}"}

    bases = [layer(f"base{number}.qcow2", os.urandom(BASE_SIZE), "disk.qcow2") for number in range(BASES)]
    names = []
    for number in range(count):
        name, tag = f"bot{number // TAGS}", f"v{number % TAGS}"
        own = layer("overlay.qcow2", os.urandom(OWN_SIZE), "disk.qcow2")
        members = {"schemaVersion": 1, "name": name, "tag": tag, "snapshotId": "", "layers": [own]}
        members |= {"baseImages": [bases[number % BASES]], "totalSize": OWN_SIZE + BASE_SIZE}
        path = store / "manifests" / name / f"{tag}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**members, "createdAt": "2026-04-02T10:00:00Z"}))
        names.append(f"{name}:{tag}")
    return names


def ours(source: str, target: str, names: list[str], home: Path) -> None:
    """One command for all."""
    _run([sys.executable, "-m", "epoch_oci", "sync", f"{source}/m", f"{target}/m", "-q"], home)


def oras(source: str, target: str, names: list[str], home: Path) -> None:
    """A loop, as its users write one."""
    flags = ["--from-plain-http", "--to-plain-http", "--no-tty"]
    for name in names:
        _run(["oras", "cp", *flags, f"{source}/m/{name}", f"{target}/m/{name}"], home)


def regctl(source: str, target: str, names: list[str], home: Path) -> None:
    """The same."""
    for address in (source, target):
        _run(["regctl", "registry", "set", "--tls", "disabled", address], home)
    for name in names:
        _run(["regctl", "image", "copy", f"{source}/m/{name}", f"{target}/m/{name}"], home)


def skopeo(source: str, target: str, names: list[str], home: Path) -> None:
    """Its own command for many: every tag of a repository at a time."""
    flags = ["--src-tls-verify=false", "--dest-tls-verify=false", "--src", "docker", "--dest", "docker"]
    for name in dict.fromkeys(name.partition(":")[0] for name in names):
        _run(["skopeo", "sync", "--insecure-policy", *flags, f"{source}/m/{name}", f"{target}/m"], home)


CLIENTS: dict[str, Callable[[str, str, list[str], Path], None]] = {
    "epoch-oci sync": ours,
    "regctl image copy": regctl,
    "oras cp": oras,
    "skopeo sync": skopeo,
}


def _run(words: list[str], home: Path) -> None:
    environ = {**os.environ, "HOME": str(home), "PATH": SEARCH_PATH, "XDG_STATE_HOME": str(home / "state")}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {done.stderr.strip().splitlines()[-1:]}")


@contextlib.contextmanager
def counted(upstream: str) -> Iterator[CountingProxy]:
    """A proxy in front of a registry."""
    with CountingProxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


def race(count: int, work: Path) -> list[Many]:
    """Every client that is installed, each to a registry of its own."""
    binary = find_registry()
    assert binary is not None, "no registry is installed"
    names, union = make_store(work / "store", count), BASES * BASE_SIZE + count * OWN_SIZE
    results: list[Many] = []
    with fresh(binary, work / "from", work) as source:
        _run([sys.executable, "-m", "epoch_oci", "sync", str(work / "store"), f"{source.address}/m", "-q"], work)
        for client, copy in CLIENTS.items():
            if client.split()[0] != "epoch-oci" and shutil.which(client.split()[0], path=SEARCH_PATH) is None:
                continue
            home = Path(tempfile.mkdtemp(dir=work))
            with fresh(binary, work / f"to-{len(results)}", home) as target, counted(target.address) as proxy:
                began, problem = time.monotonic(), ""
                try:
                    copy(source.address, proxy.address, names, home)
                except RuntimeError as error:
                    problem = str(error)
                seconds = time.monotonic() - began
                results.append(Many(client, count, union, seconds, proxy.count.sent, problem))
            shutil.rmtree(work / f"to-{len(results) - 1}", ignore_errors=True)
            print(results[-1], file=sys.stderr)
    return results


def table(results: list[Many]) -> str:
    """As Markdown."""
    first = results[0]
    alone, union = first.count * (BASE_SIZE + OWN_SIZE) / 2**20, first.union / 2**20
    head = (
        f"{first.count} snapshots share {BASES} base images, {TAGS} versions a name, and go to another registry: "
        f"{alone:.0f} MiB when each is treated alone, {union:.0f} MiB of distinct files. The others are loops "
        "over names, as their users write them (`skopeo sync` takes the tags of a repository at a time).\n\n"
        "| client | seconds | MiB sent |\n|---|--:|--:|\n"
    )
    rows = [
        f"| {item.client} | {item.problem or f'{item.seconds:.1f}'} | {item.sent / 2**20:.0f} |" for item in results
    ]
    return head + "\n".join(rows)


def main() -> None:
    """Race and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(prefix="many-") as work:
        print(table(race(count, Path(work))))


if __name__ == "__main__":
    main()
