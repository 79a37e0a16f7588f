"""A real registry (CNCF distribution) on loopback, and what can be asked of it without any of the contenders."""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.snapshot import CONFIG_TYPE, OCI_MANIFEST, Artifact

START_SECONDS = 20.0
PEERS = Path(os.environ.get("EPOCH_OCI_PEERS") or Path.home() / ".cache/epoch-oci/peers/bin")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), str(PEERS)])


@dataclass(frozen=True, slots=True)
class Binary:
    """A registry program; `version` without a leading v."""

    path: str
    version: str


def find_registry() -> Binary | None:
    """The newest distribution registry that is installed."""
    found = []
    for name in ("registry", "docker-registry"):
        path = shutil.which(name, path=SEARCH_PATH)
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout if path else ""
        hit = re.search(r"distribution\S*\s+v?(\d[\w.]*)", said)
        if path and hit:
            found.append(Binary(path, hit[1]))
    return max(found, key=lambda binary: [int(part) for part in re.findall(r"\d+", binary.version)], default=None)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate for loopback with its key, and the authority that vouches for it: PEM files."""

    certificate: Path
    key: Path
    authority: Path


class Registry:
    """One registry process over `storage`; the kernel picks its port. With an `identity` it speaks TLS."""

    def __init__(self, binary: Binary, storage: Path, logs: Path, identity: Identity | None = None) -> None:
        self.binary, self.storage, self.log, self.identity = binary, storage, logs / "registry.log", identity
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def cpu(self) -> float:
        """CPU seconds used so far; raises AssertionError when it does not run."""
        assert self._process is not None
        return measure.cpu_seconds(self._process.pid)

    def start(self) -> None:
        """Start and wait until it answers; raises RuntimeError with the end of its log when it does not."""
        self.storage.mkdir(parents=True, exist_ok=True)
        configuration = self.log.with_name("registry.yml")
        configuration.write_text(json.dumps(self._configuration()))  # JSON is YAML
        environment = {"PATH": os.defpath, "HOME": str(self.log.parent), "OTEL_TRACES_EXPORTER": "none"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [self.binary.path, "serve", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        try:
            self.port = self._wait()
        except BaseException:
            self.stop()
            raise

    def _configuration(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": "127.0.0.1:0", "secret": secrets.token_hex(16)}
        if self.identity is not None:
            http["tls"] = {"certificate": str(self.identity.certificate), "key": str(self.identity.key)}
        return {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": http,
        }

    def _wait(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            hit = re.search(rb"listening on 127\.0\.0\.1:(\d+)", self.log.read_bytes())
            if hit:
                return int(hit[1])
            time.sleep(0.02)
        raise RuntimeError(f"{self.binary.path} did not start:\n{self.log.read_text('utf-8', 'replace')[-2000:]}")

    def stop(self) -> None:
        """End the process; what it stored stays."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def fault_of(self, artifact: Artifact, *, parts: bool = False) -> str:
        """What is wrong with `artifact` as it was pushed here; empty when nothing is.

        Manifests are compared as JSON, since one peer writes its own spelling; with `parts` only blobs are asked for.
        """
        with contextlib.closing(self._connection()) as connection:
            path = f"/v2/{artifact.repository}"
            status, body = _ask(connection, "GET", f"{path}/manifests/{artifact.tag}", {"Accept": OCI_MANIFEST})
            if status != 200:
                return f"the tag answers {status} after the push"
            manifest = json.loads(body)
            if not parts and manifest != json.loads(artifact.manifest):
                return "the manifest in the registry is not the one that was pushed"
            if manifest["config"]["mediaType"] != CONFIG_TYPE:
                return "the config in the registry has another type"
            for blob in [*manifest["layers"], manifest["config"]]:
                status, size = _ask(connection, "HEAD", f"{path}/blobs/{blob['digest']}", {})
                if status != 200 or int(size) != blob["size"]:
                    return f"blob {blob['digest']} answers {status} with {int(size)} bytes after the push"
        return ""

    def _connection(self) -> http.client.HTTPConnection:
        if self.identity is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        trust = ssl.create_default_context(cafile=str(self.identity.authority))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=trust)


def _ask(connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body; the length instead of the body for HEAD."""
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    return response.status, (response.headers.get("Content-Length", "-1").encode() if method == "HEAD" else body)


@contextlib.contextmanager
def fresh(binary: Binary, storage: Path, logs: Path, identity: Identity | None = None) -> Iterator[Registry]:
    """A registry that holds nothing; its storage is removed at the end."""
    shutil.rmtree(storage, ignore_errors=True)
    registry = Registry(binary, storage, logs, identity)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
        shutil.rmtree(storage, ignore_errors=True)
