"""Credentials of registries: what was typed, Docker's and containers' files of accounts, and their helpers.

Helpers are programs called `docker-credential-SUFFIX` that keep secrets elsewhere. Nothing here reads the environment:
it is handed in.
"""

import base64
import binascii
import contextlib
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import NamedTuple

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, ContentError, EpochOciError, UsageError
from epoch_oci.oci.digest import shown
from epoch_oci.redaction import octets
from epoch_oci.registry import credentials_file
from epoch_oci.registry.credentials_file import Document

FILE_VARIABLE = "REGISTRY_AUTH_FILE"
TEXT_VARIABLE = "DOCKER_AUTH_CONFIG"
# What a helper says where it gives an identity token (oci-registries 6.1).
_TOKEN_USER = "<token>"  # noqa: S105 (a user, not a token)


@dataclass(frozen=True, slots=True)
class Credential:
    """What opens a registry: a user and a secret, an identity (refresh) token, or a ready bearer token.

    `source` is where it was found, for people. Texts stand for the bytes that `redaction.octets` makes of them.
    """

    username: str = ""
    secret: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    source: str = field(default="", compare=False)

    @property
    def basic(self) -> str:
        """The value of a Basic `Authorization` header."""
        return "Basic " + _encoded(self.username, self.secret)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown."""
        found = [self.secret, self.identity_token, self.registry_token]
        if self.secret:
            found.append(self.basic.removeprefix("Basic "))
        return tuple(text for text in found if text)

    @property
    def owner(self) -> str:
        """Whose it is, and where it was found, for a message."""
        named = f" of {self.username}" if self.username else ""
        return f"the credentials{named}" + (f" ({self.source})" if self.source else "")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where accounts may be kept: a file, or a text that stands for one (namespaces: `credentials_file.entries`)."""

    name: str
    path: Path | None
    namespaces_first: bool = True


class Kept(NamedTuple):
    """Where a credential is kept, and whether anybody can read it who can read that file: base64 hides nothing."""

    where: str
    in_clear: bool


@dataclass(frozen=True, slots=True)
class CredentialStore:
    """Where credentials are looked up, first match wins; `explicit` comes before every file.

    `config` is the one file that `--registry-config` names; then no other is read. `warn` is told about a file that
    others can read, and about what failed where another place had the answer.
    """

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    config: str | None = None
    explicit: Credential | None = None
    warn: Callable[[str], None] = lambda text: None
    _read: dict[str, Document] = field(default_factory=dict, init=False, repr=False, compare=False)

    def find(self, registry: str, repository: str = "", *, anew: bool = False) -> Credential | None:
        """The credential for a repository, None for none. Files are read once, unless `anew`.

        Raises ContentError, LocalIOError or AccessError where a file or a helper failed and no other place had one.
        """
        if self.explicit is not None:
            return self.explicit
        if anew:
            self._read.clear()
        failures: list[EpochOciError] = []
        for place in self._places():
            found = self._find_in(place, registry, repository, failures)
            if found is not None:
                for failure in failures:
                    self.warn(failure.message)
                return found
        if failures:
            raise failures[0]
        return None

    def may_have(self, registry: str) -> bool:
        """Whether anything but nothing would be found, as far as that is known without asking a helper."""
        if self.explicit is not None:
            return True
        for place in self._places():
            try:
                if credentials_file.mentions(self._document(place), registry):
                    return True
            except EpochOciError:
                return True
        return False

    def keep(self, registry: str, username: str, secret: str) -> Kept:
        """Remember a credential, with the helper the file names, else in the file itself (0600).

        Raises UsageError, ContentError, LocalIOError, and AccessError for a helper that fails.
        """
        path = self._own_file()
        named = credentials_file.helpers_of(credentials_file.read(path, self.warn), registry)
        entry: Document = {}
        if named:
            self._helper(named[0]).store(credentials_file.key_of(registry), username, secret)
        else:
            entry["auth"] = _encoded(username, secret)
        credentials_file.change(path, lambda document: credentials_file.put_entry(document, registry, entry), self.warn)
        self._read.clear()
        return Kept(f"the helper docker-credential-{named[0]}" if named else str(path), in_clear=not named)

    def forget(self, registry: str) -> bool:
        """Forget the credentials of a registry in every file that is read; False when none were kept.

        Raises, where nothing could be forgotten: LocalIOError for a file that cannot be changed, ContentError for one
        that cannot be read, AccessError for a helper.
        """
        found, failures = False, []
        for place in self._places():
            try:
                found |= place.path is not None and self._forget_in(place.path, registry)
            except EpochOciError as error:
                failures.append(error)
        self._read.clear()
        if failures and not found:
            raise failures[0]
        for failure in failures:
            self.warn(failure.message)
        return found

    def overruled(self, registry: str) -> str | None:
        """The variable whose credentials for a registry come before those of every file, if it has any."""
        for place in self._places():
            if place.path is None:
                return place.name if self._find_in(place, registry, "", []) is not None else None
        return None

    def _find_in(
        self, place: _Place, registry: str, repository: str, failures: list[EpochOciError]
    ) -> Credential | None:
        """What one place has. What failed is added to `failures`, for the answer may be elsewhere."""
        try:
            document = self._document(place)
        except EpochOciError as error:
            failures.append(error)
            return None
        for suffix in credentials_file.helpers_of(document, registry):
            try:
                said = self._helper(suffix).get(credentials_file.key_of(registry))
            except EpochOciError as error:
                failures.append(error)
                continue
            if said is not None:
                return _told(*said, f"docker-credential-{suffix}")
        entries = credentials_file.entries(document, registry, repository, namespaces_first=place.namespaces_first)
        found = next(filter(None, map(_entry, entries)), None)
        return replace(found, source=place.name) if found is not None else None

    def _forget_in(self, path: Path, registry: str) -> bool:
        document = credentials_file.read(path, self.warn)
        helpers = [self._helper(suffix) for suffix in credentials_file.helpers_of(document, registry)]
        kept = credentials_file.drop_entries(document, registry)
        if kept:
            credentials_file.change(path, lambda held: credentials_file.drop_entries(held, registry), self.warn)
        server = credentials_file.key_of(registry)
        for helper in helpers:
            if helper.may_have(server):
                helper.erase(server)
                kept = True
        return kept

    def _helper(self, suffix: str) -> "_Helper":
        return _Helper(suffix, self.environ)

    def _document(self, place: _Place) -> Document:
        if place.name not in self._read:
            if place.path is None:
                found = credentials_file.parsed(octets(self.environ[place.name]), place.name)
            else:
                found = credentials_file.read(place.path, self.warn)
            self._read[place.name] = found
        return self._read[place.name]

    def _own_file(self) -> Path:
        """The file that a login writes: of all files, the one that is read first. Raises UsageError."""
        found = next((place.path for place in self._places() if place.path is not None), None)
        if found is None:
            raise UsageError("neither HOME nor DOCKER_CONFIG is set", hint="name a file with --registry-config FILE")
        return found

    def _places(self) -> Iterator[_Place]:
        """Where accounts are looked for, in order of precedence (oci-registries 6.3)."""
        # Who names a file wants to be somebody else than usual, so no other one is looked into.
        if self.config:
            yield _file(Path(self.config))
            return
        if self.environ.get(TEXT_VARIABLE):
            yield _Place(TEXT_VARIABLE, None)
        if named := self.environ.get(FILE_VARIABLE):
            yield _file(Path(named))
        home = Path(self.environ["HOME"]) if self.environ.get("HOME") else None
        if folder := self.environ.get("DOCKER_CONFIG"):
            yield _file(Path(folder) / "config.json", namespaces_first=False)
        elif home is not None:
            yield _file(home / ".docker/config.json", namespaces_first=False)
        yield from self._containers(home)
        if home is not None:
            yield _file(home / ".dockercfg", namespaces_first=False)

    def _containers(self, home: Path | None) -> Iterator[_Place]:
        # Logins of this session before those that outlive it, as podman and skopeo read them (oci-registries 6.2).
        if runtime := self.environ.get("XDG_RUNTIME_DIR"):
            yield _file(Path(runtime) / "containers/auth.json")
        elif home is not None:
            yield _file(Path(f"/run/containers/{os.geteuid()}/auth.json"))
        config = self.environ.get("XDG_CONFIG_HOME") or (home and home / ".config")
        if config:
            yield _file(Path(config) / "containers/auth.json")


def _file(path: Path, *, namespaces_first: bool = True) -> _Place:
    return _Place(str(path), path, namespaces_first)


def _told(username: str, secret: str, source: str) -> Credential | None:
    """What a helper's answer means."""
    if not secret:
        return None
    if username == _TOKEN_USER:
        return Credential(identity_token=secret, source=source)
    return Credential(username, secret, source=source)


def _entry(value: Document) -> Credential | None:
    """What an account in a file means; None when it holds nothing, as where a helper has the secret."""

    def text(name: str) -> str:
        found = credentials_file.member(value, name)
        return found if isinstance(found, str) else ""

    # `auth` is what clients write; the two others are read by them too, and it wins (oci-registries 6.1).
    username, secret = text("username"), text("password")
    if (decoded := _decoded(text("auth"))) is not None:
        username, secret = decoded
    secret = secret.rstrip("\x00")  # Docker's own reader takes padding away that old clients wrote
    identity, ready = text("identitytoken"), text("registrytoken")
    return Credential(username, secret, identity, ready) if secret or identity or ready else None


def _encoded(username: str, secret: str) -> str:
    return base64.b64encode(octets(f"{username}:{secret}")).decode("ascii")


def _decoded(text: str) -> tuple[str, str] | None:
    """User and password of a base64 text, which may be wrapped, unpadded or of the URL's alphabet; None for none."""
    plain = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    with contextlib.suppress(binascii.Error, ValueError):
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode("utf-8", "surrogateescape")
        username, colon, secret = raw.partition(":")  # at the first: a secret may have colons, a user has none
        return (username, secret) if colon else None
    return None


# Helpers

_SUFFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\Z")
_HELPER_SECONDS = 30.0
"""Longer than any takes by itself: some ask a person first, to open a keyring."""
_HELPER_LIMIT = 64 << 10
# Helpers have no status for "none": it is said in words, each of them in its own (oci-registries 6.1).
_NOT_FOUND = ("credentials not found", "no credentials", "not found in")


@dataclass(frozen=True, slots=True)
class _Helper:
    """A program called `docker-credential-SUFFIX`; `environ` is what it runs in, and has the search path."""

    suffix: str
    environ: Mapping[str, str] = field(repr=False)

    def get(self, server: str) -> tuple[str, str] | None:
        """User and secret that it has for `server`, None for none. Raises ContentError, AccessError naming it."""
        status, said = self._run("get", server.encode())
        if status != 0:
            if any(word in said.lower() for word in _NOT_FOUND):
                return None
            raise self._failed(f"failed with status {status}", hint=self._look)
        try:
            answer = {name.lower(): value for name, value in json.loads(said.removeprefix("\ufeff")).items()}
            username, secret = answer["username"], answer["secret"]  # in any letter case, as Go's readers take them
        except (ValueError, KeyError, AttributeError, RecursionError):
            username = secret = None
        if not isinstance(username, str) or not isinstance(secret, str):
            raise ContentError(f"{self} gave no credentials", code="JSON", object=self.suffix, hint=self._look)
        return username, secret

    def may_have(self, server: str) -> bool:
        """Whether it has one for `server`. What it cannot give, it may yet forget; if not, erasing says why."""
        try:
            return self.get(server) is not None
        except EpochOciError:
            return True

    def store(self, server: str, username: str, secret: str) -> None:
        """Have it keep a credential. Raises AccessError, and UsageError for what its language has no words for."""
        try:
            f"{username}{secret}".encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{self} takes text, and the user or password is not UTF-8",
                object=self.suffix,
                hint="name a file that uses no helper with --registry-config",
            ) from None
        document = json.dumps({"ServerURL": server, "Username": username, "Secret": secret}).encode()
        if self._run("store", document)[0] != 0:
            raise self._failed("did not keep the credentials")

    def erase(self, server: str) -> None:
        """Have it forget a credential. Raises AccessError when it does not."""
        if self._run("erase", server.encode())[0] != 0:
            raise self._failed("did not forget the credentials")

    def __str__(self) -> str:
        return f"docker-credential-{self.suffix}"

    @property
    def _look(self) -> str:
        return f"see what `{self} list` says, or give --username and --password-stdin"

    def _failed(self, how: str, hint: str | None = None) -> AccessError:
        return AccessError(f"{self} {how}", object=self.suffix, hint=hint)

    def _run(self, verb: str, text: bytes) -> tuple[int, str]:
        """Its status and what it says; secrets go through its standard input only."""
        try:
            process = subprocess.Popen(  # noqa: S603 (an absolute path, found by a checked name)
                [self._program(), verb],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it may quote what it was told
                env=dict(self.environ),
            )
        except OSError as error:
            raise self._failed(f"cannot be run: {(error.strerror or 'failed').lower()}") from None
        with process:
            try:
                said = _converse(process, text, time.monotonic() + _HELPER_SECONDS)
                process.wait(_HELPER_SECONDS)
            except (TimeoutError, subprocess.TimeoutExpired):
                raise self._failed(f"did not answer within {_HELPER_SECONDS:.0f} seconds") from None
            except OverflowError:
                raise ContentError(f"{self} says too much", code="SIZE", object=self.suffix, hint=self._look) from None
            finally:
                process.kill()
            return process.returncode, said.decode("utf-8", "replace")

    def _program(self) -> str:
        """Where it is, looked for in absolute directories of the search path only."""
        if _SUFFIX.match(self.suffix) is None:
            raise ContentError(
                f"{shown(self.suffix)} cannot name a credential helper",
                code="NAME",
                object=self.suffix,
                hint="mend the file of accounts, or name another one with --registry-config",
            )
        # A relative entry would run whatever program lies where the user happens to stand.
        for folder in self.environ.get("PATH", os.defpath).split(":"):
            program = Path(folder) / str(self)
            # `access` first: it is not put out by a directory that may not be looked into.
            if Path(folder).is_absolute() and os.access(program, os.X_OK) and program.is_file():
                return str(program)
        raise AccessError(
            f"{self}, which the file of accounts names, is not on the search path",
            object=self.suffix,
            hint="install it, or name another file with --registry-config",
        )


def _converse(process: "subprocess.Popen[bytes]", text: bytes, deadline: float) -> bytes:
    """Tell a helper `text` and hear it out. Raises TimeoutError, and OverflowError for more than the limit."""
    assert process.stdin is not None
    assert process.stdout is not None
    # One that knows the answer without having read the question may have closed its input already.
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(text)
    said = bytearray()
    while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        block = os.read(process.stdout.fileno(), _HELPER_LIMIT)
        if not block:
            return bytes(said)
        said += block
        if len(said) > _HELPER_LIMIT:
            raise OverflowError
    raise TimeoutError
