"""The contenders: how each is found and called. All do the same with their own defaults, from and to a directory."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

from benchmarks.registry import SEARCH_PATH
from benchmarks.snapshot import Artifact

HERE = Path(__file__).parent
OURS = "epoch-oci"
PUT, GET, SOCKET, SHA256 = "bare HTTP PUT", "bare HTTP GET", "copy over a socket", "SHA-256, one core"
EIGHT = "8 connections"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One transfer of `artifact` to or from the registry at `address`; a pull goes to the directory `target`."""

    artifact: Artifact
    address: str
    target: Path
    options: tuple[str, ...] = ()
    tls: bool = False

    @property
    def reference(self) -> str:
        return f"{self.address}/{self.artifact.repository}:{self.artifact.tag}"


Command = Callable[[Job], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A contender. A raw limit (`raw`) times itself; `offline` means that it needs no registry."""

    name: str
    version: str
    push: Command | None = None
    pull: Command | None = None
    raw: bool = False
    offline: bool = False


def environment(home: Path) -> dict[str, str]:
    """An environment in which a tool sees nothing of the user's."""
    for name in (".docker", "run", "cache", "state", "data"):
        (home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "DOCKER_CONFIG": str(home / ".docker"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_DATA_HOME": str(home / "data"),
        "TMPDIR": str(home / "run"),
        "LC_ALL": "C.UTF-8",
        # Makes skopeo keep its blob cache in this home when it is run by root as well.
        "_CONTAINERS_ROOTLESS_UID": str(os.geteuid() or 1000),
        "PYTHONPATH": str(HERE.parent),
        # The memory image goes to a registry that anybody on this machine can read: that is what is measured.
        "EPOCH_OCI_ALLOW_PUBLIC": "1",
    }


def program() -> str:
    """This tool's own command, beside the interpreter that runs the harness, else on PATH."""
    beside = Path(sys.executable).with_name(OURS)
    return str(beside) if beside.exists() else shutil.which(OURS) or OURS


def our_push(job: Job) -> list[str]:
    """`options` go to the end."""
    snapshot = f"{job.artifact.name}:{job.artifact.tag}"
    words = [program(), "push", snapshot, job.reference, "--store", str(job.artifact.store)]
    return [*words, "--format", "json", "--progress", "none", *job.options]


def our_pull(job: Job) -> list[str]:
    """Into a store at `target`."""
    words = [program(), "pull", job.reference, "--store", str(job.target), "--format", "json", "--progress", "none"]
    return [*words, *job.options]


def _script(name: str) -> list[str]:
    return [sys.executable, str(HERE / name)]


def _plain_oras() -> Tool:
    script = _script("plain_oras.py")
    return Tool(
        name="oras-py",
        version=installed("oras"),
        push=lambda job: [*script, "push", str(job.artifact.layout), *_words(job)],
        pull=lambda job: [*script, "pull", *_words(job), str(job.target)],
    )


def _words(job: Job) -> list[str]:
    return [job.address, job.artifact.repository, job.artifact.tag]


def _plain(job: Job) -> str:
    return str(not job.tls).lower()


def _oras(path: str, version: str) -> Tool:
    return Tool(
        name="oras",
        version=version,
        push=lambda job: [path, "cp", "--from-oci-layout", f"{job.artifact.layout}:{job.artifact.tag}",
                          f"--to-plain-http={_plain(job)}", job.reference],
        pull=lambda job: [path, "cp", f"--from-plain-http={_plain(job)}", job.reference, "--to-oci-layout",
                          f"{job.target}:{job.artifact.tag}"],
    )  # fmt: skip


def _verified(job: Job) -> str:
    return str(job.tls).lower()


def _skopeo(path: str, version: str) -> Tool:
    copy = [path, "--insecure-policy", "copy", "--preserve-digests"]
    return Tool(
        name="skopeo",
        version=version,
        push=lambda job: [*copy, f"--dest-tls-verify={_verified(job)}",
                          f"oci:{job.artifact.layout}:{job.artifact.tag}", f"docker://{job.reference}"],
        pull=lambda job: [*copy, f"--src-tls-verify={_verified(job)}", "--dest-oci-accept-uncompressed-layers",
                          f"docker://{job.reference}", f"oci:{job.target}:{job.artifact.tag}"],
    )  # fmt: skip


def _crane(path: str, version: str) -> Tool:
    return Tool(
        name="crane",
        version=version,
        push=lambda job: [path, "push", *_insecure(job), str(job.artifact.layout), job.reference],
        pull=lambda job: [path, "pull", *_insecure(job), "--format", "oci", job.reference, str(job.target)],
    )


def _insecure(job: Job) -> list[str]:
    return [] if job.tls else ["--insecure"]


def _regctl(path: str, version: str) -> Tool:
    def copy(job: Job, source: str, target: str) -> list[str]:
        return [
            path,
            "--host",
            f"reg={job.address},tls={'enabled' if job.tls else 'disabled'}",
            "image",
            "copy",
            source,
            target,
        ]

    return Tool(
        name="regctl",
        version=version,
        push=lambda job: copy(job, f"ocidir://{job.artifact.layout}:{job.artifact.tag}", job.reference),
        pull=lambda job: copy(job, job.reference, f"ocidir://{job.target}:{job.artifact.tag}"),
    )


PEERS: dict[str, tuple[list[str], Callable[[str, str], Tool]]] = {
    "oras": (["version"], _oras),
    "skopeo": (["--version"], _skopeo),
    "crane": (["version"], _crane),
    "regctl": (["version"], _regctl),
}


def peers() -> list[Tool]:
    """Every peer that is installed; plain oras-py always is."""
    found = []
    for name, (words, make) in PEERS.items():
        path = shutil.which(name, path=SEARCH_PATH)
        if path:
            said = subprocess.run([path, *words], capture_output=True, text=True, check=False).stdout
            hit = re.search(r"v?(\d+\.\d+[\w.]*)", said)
            found.append(make(path, hit[1] if hit else "unknown"))
    return [*found, _plain_oras()]


def ours() -> Tool:
    """This tool."""
    return Tool(name=OURS, version=installed("epoch-oci"), push=our_push, pull=our_pull)


def eight() -> Tool:
    """What eight connections carry together, with nothing else to do: the limit of a long line."""
    script = _script("limits.py")
    return Tool(
        name=EIGHT,
        version=f"Python {sys.version.split()[0]}",
        raw=True,
        push=lambda job: [*script, "put8", str(job.artifact.layout), *_words(job)],
        pull=lambda job: [*script, "get8", *_words(job), str(job.target)],
    )


def limits() -> list[Tool]:
    """The raw limits, as contenders that time themselves."""
    script = _script("limits.py")
    version = f"Python {sys.version.split()[0]}"
    return [
        Tool(
            name=PUT,
            version=version,
            raw=True,
            push=lambda job: [*script, "put", str(job.artifact.layout), *_words(job)],
        ),
        Tool(name=GET, version=version, raw=True, pull=lambda job: [*script, "get", *_words(job), str(job.target)]),
        Tool(
            name=SOCKET,
            version=version,
            raw=True,
            offline=True,
            push=lambda job: [*script, "socket", str(job.artifact.layout)],
        ),
        Tool(
            name=SHA256,
            version=version,
            raw=True,
            offline=True,
            pull=lambda job: [*script, "sha256", str(job.artifact.layout)],
        ),
    ]
