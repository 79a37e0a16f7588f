"""Real registries on loopback: CNCF distribution 2 (Debian's ``docker-registry``) and 3 (``registry``).

    with LiveRegistry(binary, tmp_path, htpasswd=True, tls=kit) as registry:   # or the ``live_*`` fixtures
        registry.address, registry.url, registry.user, registry.password, registry.client_context()
        registry.restart()                                  # same port, same storage

``find_registries()`` lists the binaries, one of a kind; ``ensure_registry()`` installs Debian's when there is none.
Storage is a directory, deletion is enabled, the log goes to a file that ``log_tail()`` shows.
"""

import base64
import contextlib
import fcntl
import functools
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from support.client import Client
from support.net import hold
from support.peers import PEERS_DIRECTORY, SEARCH_PATH
from support.registry_auth import PASSWORD, USER
from support.tls import TlsKit
from support.token_server import ISSUER, SERVICE, TokenServer

# Read at import, before the isolated_home fixture hides them.
REQUIRE_LIVE = os.environ.get("EPOCH_OCI_REQUIRE_LIVE") == "1"
INSTALL_LIVE = REQUIRE_LIVE or os.environ.get("EPOCH_OCI_INSTALL_LIVE") == "1"
NO_REGISTRY = "no-registry"
KINDS = ("distribution-2", "distribution-3")
START_SECONDS = 60.0
# bcrypt of registry_auth.PASSWORD at the lowest cost, so that a check costs the registry about a millisecond.
HTPASSWD = f"{USER}:$2y$04$KFQ7iah1yZOazEKr807Vj.F1v.NDplCNuNapuEOLChvgNapg.8a5u\n"


@dataclass(slots=True, frozen=True)
class Binary:
    """A registry executable; ``kind`` is one of KINDS."""

    kind: str
    path: Path
    version: str


def _identify(path: Path) -> Binary | None:
    """What the executable says it is; None when it is not a distribution registry."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    hit = re.search(r"distribution\S*\s+v?(\d+)(\.\S+)", said)
    kind = f"distribution-{hit[1]}" if hit else ""
    return Binary(kind, path, hit[1] + hit[2]) if hit and kind in KINDS else None


def find_registries(search_path: str = SEARCH_PATH) -> dict[str, Binary]:
    """The first binary of each kind on the search path."""
    found: dict[str, Binary] = {}
    for directory in search_path.split(os.pathsep):
        for name in ("docker-registry", "registry"):
            path = shutil.which(name, path=directory)
            binary = _identify(Path(path)) if path else None
            if binary is not None:
                found.setdefault(binary.kind, binary)
    return dict(sorted(found.items()))


def ensure_registry(search_path: str = SEARCH_PATH) -> dict[str, Binary]:
    """``find_registries``, after installing Debian's package when none is there, we are root and apt-get exists."""
    found = find_registries(search_path)
    if found or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return found
    lock = PEERS_DIRECTORY.parent / "install.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        # Test workers race to get here: one installs, the others wait and then find it.
        fcntl.flock(handle, fcntl.LOCK_EX)
        return find_registries(search_path) or _install(search_path)


def _install(search_path: str) -> dict[str, Binary]:
    # RUNLEVEL=1 keeps the package's scripts from starting a registry on port 5000.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", "docker-registry"]):
        subprocess.run(["apt-get", "-q", *words], env=environment, capture_output=True, timeout=600, check=False)
    return find_registries(search_path)


@functools.cache
def registries() -> dict[str, Binary]:
    """The registries of this test run, by kind; installs one first where that is asked for."""
    return ensure_registry() if INSTALL_LIVE else find_registries()


def check_registry(item: pytest.Item) -> None:
    """Skip or fail a live test when there is no registry; from one place, so that pytest shows one line for all."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if parameters.get("live_binary") != NO_REGISTRY:
        return
    reason = f"no registry found on PATH or in {PEERS_DIRECTORY} (Debian package docker-registry, or `make peers`)"
    if REQUIRE_LIVE:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class LiveRegistry:
    """One registry process with its own storage below ``directory``; see the module."""

    user, password = USER, PASSWORD

    def __init__(
        self,
        binary: Binary,
        directory: Path,
        *,
        htpasswd: bool = False,
        tls: TlsKit | None = None,
        token: TokenServer | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.binary, self.directory = binary, directory
        self.htpasswd, self.tls, self.token = htpasswd, tls, token
        self.port = 0
        self.log = directory / "registry.log"
        self.storage = directory / "storage"
        self._environment = {"PATH": os.defpath, "HOME": str(directory), "OTEL_TRACES_EXPORTER": "none"}
        self._environment |= dict(environment or {})
        self._secret = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def kind(self) -> str:
        return self.binary.kind

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def ca_file(self) -> Path | None:
        return self.tls.ca_file if self.tls else None

    def basic_header(self) -> dict[str, str]:
        """Authorization for a registry with htpasswd, or for the token service."""
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def client_context(self) -> ssl.SSLContext | None:
        return self.tls.client_context() if self.tls else None

    def client(self, headers: Mapping[str, str] | None = None) -> Client:
        """A bare client, authenticated when the registry has htpasswd; close it."""
        if headers is None:
            headers = self.basic_header() if self.htpasswd else {}
        return Client(self.url, tls=self.client_context(), headers=headers)

    def log_tail(self, lines: int = 60) -> str:
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _configuration(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": self.address, "secret": self._secret}
        if self.tls is not None:
            files = self.tls.files()
            http["tls"] = {"certificate": str(files.certificate), "key": str(files.key)}
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": http,
        }
        auth = self._auth()
        return configuration | ({"auth": auth} if auth else {})

    def _auth(self) -> dict[str, object]:
        if self.htpasswd:
            path = self.directory / "htpasswd"
            path.write_text(HTPASSWD)
            return {"htpasswd": {"realm": "live", "path": str(path)}}
        if self.token is not None:
            bundle = str(self.token.certificate)
            return {
                "token": {
                    "realm": self.token.realm,
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": bundle,
                    # distribution 2 has no such setting and ignores it.
                    "signingalgorithms": ["RS256"],
                }
            }
        return {}

    def start(self) -> Self:
        """Start and wait until it listens; raises RuntimeError with the log when it does not."""
        configuration = self.directory / "config.json.yml"
        configuration.write_text(json.dumps(self._configuration()))
        self.storage.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                [self.binary.path, "serve", configuration],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self.directory,
                start_new_session=True,
            )
        try:
            # The kernel picks the port of the first start and the log names it: nobody can take it in between.
            self.port = self._listening_port(begin)
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        return self

    def _listening_port(self, begin: int) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with self.log.open("rb") as log:
                log.seek(begin)
                hit = re.search(rb"listening on (?:127\.0\.0\.1|\[::1\]):(\d+)", log.read())
            if hit:
                return int(hit[1])
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{self.binary.path} did not start:\n{self.log_tail()}")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with contextlib.closing(self.client()) as client:
                    client.request("GET", "/v2/")
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL the process group; storage stays."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)
        self._process = None

    stop = kill

    def restart(self, *, lose_sessions: bool = False) -> None:
        """Kill and start again on the same port and storage; with another secret old upload Locations are void."""
        self.kill()
        if lose_sessions:
            self._secret = secrets.token_hex(16)
        with hold(self.port):
            self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
