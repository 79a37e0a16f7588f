"""Credentials of registries: Docker's `config.json` and containers' `auth.json`, their helpers, and what was typed.

The formats are those of oci-registries 6. Nothing here reads the environment: it is handed in.
"""

import base64
import binascii
import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epoch_oci.errors import ContentError, LocalIOError
from epoch_oci.registry import helpers

_HUB = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_FILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Credential:
    """What opens a registry: a user and a secret, an identity (refresh) token, or a ready bearer token."""

    username: str = ""
    secret: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of a Basic `Authorization` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode("ascii")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown."""
        found = [self.secret, self.identity_token, self.registry_token]
        if self.secret:
            found.append(self.basic.removeprefix("Basic "))
        return tuple(text for text in found if text)


@dataclass(frozen=True, slots=True)
class CredentialStore:
    """Where credentials are looked up, first match wins; `explicit` comes before every file.

    `config` is the one file that `--registry-config` names; then no other is read. `warn` is told about a file that
    others can read.
    """

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    config: str | None = None
    explicit: Credential | None = None
    warn: Callable[[str], None] = lambda text: None

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """The credential for a repository, None for none. Raises ContentError for a broken file, LocalIOError."""
        if self.explicit is not None:
            return self.explicit
        for path, namespaces in self._files():
            document = self._load(path)
            if document is not None:
                found = _lookup(document, registry, repository if namespaces else "", self._search_path)
                if found is not None:
                    return found
        return None

    def keep(self, registry: str, username: str, secret: str) -> str:
        """Remember a credential, with the helper the file names, else in the file itself (0600). Returns where."""
        path = self._own_file()
        document = self._load(path) or {}
        key = _key(registry)
        suffix = _helper(document, registry)
        if suffix:
            helpers.store(suffix, key, username, secret, self._search_path)
            entry: dict[str, Any] = {}
        else:
            entry = {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode("ascii")}
        auths = document.get("auths")
        document["auths"] = {**(auths if isinstance(auths, dict) else {}), key: entry}
        _write(path, document)
        return f"the helper docker-credential-{suffix}" if suffix else str(path)

    def forget(self, registry: str) -> bool:
        """Forget a credential; False when none was kept."""
        path = self._own_file()
        document = self._load(path) or {}
        suffix = _helper(document, registry)
        auths = document.get("auths")
        names = [name for name in auths if _same(name, registry)] if isinstance(auths, dict) else []
        if suffix:
            helpers.erase(suffix, _key(registry), self._search_path)
        if names and isinstance(auths, dict):
            document["auths"] = {name: entry for name, entry in auths.items() if name not in names}
            _write(path, document)
        return bool(names or suffix)

    @property
    def _search_path(self) -> str:
        return self.environ.get("PATH", os.defpath)

    def _own_file(self) -> Path:
        return next(self._files())[0] if self.config else self._docker_file()

    def _docker_file(self) -> Path:
        folder = self.environ.get("DOCKER_CONFIG")
        return Path(folder) / "config.json" if folder else self._home / ".docker/config.json"

    @property
    def _home(self) -> Path:
        home = self.environ.get("HOME")
        return Path(home) if home else Path("/nonexistent")

    def _files(self) -> Iterator[tuple[Path, bool]]:
        """The files in order of precedence, and whether their keys may have namespaces (containers' auth.json)."""
        if self.config:
            yield Path(self.config), True
            return
        if named := self.environ.get("REGISTRY_AUTH_FILE"):
            yield Path(named), True
        yield self._docker_file(), False
        if runtime := self.environ.get("XDG_RUNTIME_DIR"):
            yield Path(runtime) / "containers/auth.json", True
        config = self.environ.get("XDG_CONFIG_HOME")
        yield (Path(config) if config else self._home / ".config") / "containers/auth.json", True

    def _load(self, path: Path) -> dict[str, Any] | None:
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                raw = file.read(_FILE_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LocalIOError(f"{path}: {(error.strerror or 'unreadable').lower()}", object=str(path)) from None
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            raise ContentError(f"{path} is not JSON, so it has no credentials", code="JSON", object=str(path)) from None
        if not isinstance(value, dict):
            raise ContentError(f"{path} is not a JSON object", code="JSON", object=str(path))
        if mode & (stat.S_IRGRP | stat.S_IROTH) and _has_secrets(value):
            self.warn(f"{path} holds credentials and can be read by others; make it private with chmod 600")
        return value


def _has_secrets(document: dict[str, Any]) -> bool:
    auths = document.get("auths")
    return isinstance(auths, dict) and any(auths.values())


def _lookup(document: dict[str, Any], registry: str, repository: str, search_path: str) -> Credential | None:
    auths = document.get("auths")
    auths = auths if isinstance(auths, dict) else {}
    named = _helper_of(document, registry)
    if named:
        return helpers.get(named, _key(registry), search_path)
    for name in _namespaces(registry, repository):
        if isinstance(auths.get(name), dict) and (found := _entry(auths[name])) is not None:
            return found
    store = document.get("credsStore")
    if isinstance(store, str) and store and (found := helpers.get(store, _key(registry), search_path)) is not None:
        return found
    for name, value in auths.items():
        if _same(name, registry) and isinstance(value, dict) and (found := _entry(value)) is not None:
            return found
    return None


def _namespaces(registry: str, repository: str) -> Iterator[str]:
    """`host/a/b`, then `host/a`: the longest key wins (containers-auth.json)."""
    parts = repository.split("/") if repository else []
    for count in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:count]])


def _entry(value: dict[str, Any]) -> Credential | None:
    def text(key: str) -> str:
        return value[key] if isinstance(value.get(key), str) else ""

    username, secret = text("username"), text("password")
    if text("auth"):
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            username, _, secret = base64.b64decode(text("auth"), validate=True).decode("utf-8").partition(":")
    secret = secret.rstrip("\x00")
    identity, ready = text("identitytoken"), text("registrytoken")
    if not (secret or identity or ready):
        return None
    return Credential(username, secret, identity, ready)


def _helper_of(document: dict[str, Any], registry: str) -> str | None:
    """The helper that `credHelpers` names for a registry."""
    named = document.get("credHelpers")
    for name, suffix in named.items() if isinstance(named, dict) else ():
        if _same(name, registry) and isinstance(suffix, str) and suffix:
            return suffix
    return None


def _helper(document: dict[str, Any], registry: str) -> str | None:
    store = document.get("credsStore")
    return _helper_of(document, registry) or (store if isinstance(store, str) and store else None)


def _key(registry: str) -> str:
    return _HUB if registry in _HUB_NAMES else registry


def _same(name: object, registry: str) -> bool:
    """Whether a key of a file means a registry: with or without scheme and path, and the names of Docker Hub."""
    if not isinstance(name, str):
        return False
    host = name.removeprefix("https://").removeprefix("http://").partition("/")
    if host[2].strip("/") not in ("", "v1", "v2"):
        return False
    names = _HUB_NAMES if registry in _HUB_NAMES else {registry}
    return host[0].lower() in names


def _write(path: Path, document: dict[str, Any]) -> None:
    """Replace the file at once, readable by its owner alone. A link is followed to the file it names."""
    target = path.resolve()
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    raw = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8") + b"\n"
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise
    except OSError as error:
        raise LocalIOError(f"{path}: {(error.strerror or 'cannot be written').lower()}", object=str(path)) from None
