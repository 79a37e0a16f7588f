"""Keeps the user's own files, credentials and proxies out of every test: ``isolate(monkeypatch, home)``."""

import os
from pathlib import Path

import pytest

DROPPED = frozenset(
    {
        "REGISTRY_AUTH_FILE",
        "NETRC",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GITHUB_TOKEN",
        "GITHUB_ACTOR",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "NO_COLOR",
        "FORCE_COLOR",
    }
)
DROPPED_PREFIXES = ("EPOCH_", "AWS_", "AZURE_", "COCOON_", "DOCKER_")
KEPT_PREFIXES = ("EPOCH_OCI_REQUIRE_", "EPOCH_OCI_INSTALL_", "EPOCH_OCI_PEERS", "EPOCH_OCI_TEST_")
PROXIES = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"})


def _is_dropped(name: str) -> bool:
    if name.startswith(KEPT_PREFIXES):
        return False
    return name in DROPPED or name.startswith(DROPPED_PREFIXES) or name.lower() in PROXIES


def isolate(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Point HOME, XDG_* and DOCKER_CONFIG below ``home``; drop credentials, proxies and our own settings."""
    for name in filter(_is_dropped, list(os.environ)):
        monkeypatch.delenv(name)
    run = home / "run"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DOCKER_CONFIG", str(home / ".docker"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    for name, place in {
        "CONFIG": ".config",
        "CACHE": ".cache",
        "DATA": ".local/share",
        "STATE": ".local/state",
    }.items():
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / place))
