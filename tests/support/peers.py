"""Foreign programs (oras, crane, skopeo, Epoch, Cocoon, …) and where they are found: PATH, then the peers directory.

Mark a test with ``@requires_peer("oras")`` (several names are allowed): it is skipped, visibly, when one is missing,
and fails under ``EPOCH_OCI_REQUIRE_PEERS=1`` where `make peers` would have installed it. Inside,
``run_peer("oras", "pull", ref, home=tmp_path)`` runs it with a HOME and Docker configuration of its own.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

# Read at import: the isolated_home fixture changes HOME and the environment later.
PEERS_DIRECTORY = Path(os.environ.get("EPOCH_OCI_PEERS") or Path.home() / ".cache/epoch-oci/peers/bin")
NODE_MODULES = PEERS_DIRECTORY.parent / "node/node_modules"
REQUIRE_PEERS = os.environ.get("EPOCH_OCI_REQUIRE_PEERS") == "1"
INSTALLED = {"crane", "htpasswd", "oras", "regctl", "registry", "skopeo", "versitygw"}
"""What `make peers` installs; the rest are run where they happen to be."""
SIGNERS = {"cosign", "notation"}
"""What `make signers` builds, in minutes."""
SYSTEM_PATH = os.environ.get("PATH", os.defpath)
SEARCH_PATH = os.pathsep.join([SYSTEM_PATH, str(PEERS_DIRECTORY)])


class PeerFailed(AssertionError):  # noqa: N818  # reads as the test's failure
    """A foreign client exited with another code than zero."""


def find_peer(name: str) -> Path | None:
    """The executable, or None."""
    found = shutil.which(name, path=SEARCH_PATH)
    return Path(found) if found else None


def requires_peer(*names: str) -> pytest.MarkDecorator:
    """Mark a test as needing these clients."""
    return pytest.mark.peer(*names)


def check_peers(item: pytest.Item) -> None:
    """Skip or fail a test whose peers are missing; called by ``conftest.py``."""
    wanted = [str(name) for mark in item.iter_markers("peer") for name in mark.args]
    missing = [name for name in wanted if find_peer(name) is None]
    if not missing:
        return
    name = next(
        (name for name in missing if name in INSTALLED), missing[0]
    )  # one, so that each has one line of its own
    how = "; `make peers` installs it" if name in INSTALLED else "; `make signers` builds it" if name in SIGNERS else ""
    reason = f"foreign program not found: {name} (PATH, {PEERS_DIRECTORY}){how}"
    if REQUIRE_PEERS and name in INSTALLED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require_node_package(name: str) -> None:
    """Skip or fail a test that needs a package of Node's."""
    if (NODE_MODULES / name).is_dir():
        return
    reason = f"{name} is not in {NODE_MODULES}; `make peers` installs it"
    if REQUIRE_PEERS:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def peer_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which a client sees nothing of the user's."""
    docker = home / ".docker"
    docker.mkdir(parents=True, exist_ok=True)
    run = home / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    environment = {
        "PATH": SYSTEM_PATH,
        "HOME": str(home),
        "DOCKER_CONFIG": str(docker),
        "XDG_RUNTIME_DIR": str(run),
        "TMPDIR": str(run),
        "LC_ALL": "C.UTF-8",
    }
    return environment | dict(extra or {})


def run_peer(
    name: str,
    *arguments: str | Path,
    home: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float = 60,
    check: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """Run a client to its end; raises PeerFailed with its output when ``check`` and it does not exit with 0."""
    executable = find_peer(name)
    if executable is None:
        raise FileNotFoundError(name)
    done = subprocess.run(
        [str(executable), *map(str, arguments)],
        cwd=cwd or home,
        env=peer_environment(home, env),
        input=b"" if stdin is None else stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        words = " ".join(map(str, arguments))
        output = (done.stdout + done.stderr).decode("utf-8", "replace")
        raise PeerFailed(f"{name} {words} exited with {done.returncode}:\n{output}")
    return done
