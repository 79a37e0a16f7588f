"""Who we are to a registry: tokens for one origin, repository and set of actions, renewed before they run out."""

import json
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import oras.auth
import requests

from epoch_oci.errors import AccessError, ContentError, NetworkError, PolicyError
from epoch_oci.registry.answers import foreign_errors, refusal
from epoch_oci.registry.challenge import Challenge, parse_challenges
from epoch_oci.registry.credentials import Credential
from epoch_oci.registry.origin import Origin, check_hop, is_loopback, realm_fits, redacted
from epoch_oci.registry.settings import RegistrySettings

_TOKEN_LIMIT = 64 << 10
_DEFAULT_LIFE = 60.0
_MARGIN = 60.0
_CLIENT = "epoch-oci"
BACKEND = "epoch-oci"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request needs: `repository` (None: nothing in particular) and comma-joined `actions`.

    Where `kind` is not `repository`, the name is one of that kind: `registry` has a `catalog`.
    """

    repository: str | None = None
    actions: str = ""
    kind: str = "repository"

    def __str__(self) -> str:
        return f"{self.kind}:{self.repository}:{self.actions}" if self.repository else ""


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    renew_at: float


class Authenticator(oras.auth.TokenAuth):  # type: ignore[misc]
    """Answers the challenges of one registry, for many threads; its secrets go to nobody else.

    An oras backend, so that `oras.provider.Registry` shares its session with it.
    """

    registry: Origin
    host: str
    settings: RegistrySettings

    def setup(self, registry: Origin, host: str, settings: RegistrySettings, send: Callable[..., Any]) -> None:
        """`host` is the registry as the user wrote it, which is what credentials are kept under."""
        self.registry, self.host, self.settings, self._send = registry, host, settings, send
        self._lock = threading.RLock()
        self._scheme: str | None = None
        self._bearer: Challenge | None = None
        self._tokens: dict[Scope, _Token] = {}
        self._issued: deque[str] = deque(maxlen=256)  # another thread may still be answered about an older one
        self._credentials: dict[str, Credential | None] = {}
        self.anonymous = False
        self.on_challenge: Callable[[Sequence[Challenge]], None] | None = None

    def credential(self, repository: str | None) -> Credential | None:
        """What was found for a repository, looked up once. Raises what the credential files raise."""
        if self.anonymous:
            return None
        name = repository or ""
        with self._lock:
            if name not in self._credentials:
                self._credentials[name] = self.settings.credentials.find(self.host, name)
            return self._credentials[name]

    def secrets(self) -> tuple[str, ...]:
        """Every text that must never be shown: what was found, and the tokens in use."""
        with self._lock:
            found = [text for item in self._credentials.values() if item for text in item.secrets]
            return (*found, *self._issued)

    def header_for(self, scope: Scope) -> str | None:
        """The header to send, None for none; a token is fetched when the one in hand is about to run out."""
        with self._lock:
            credential = self.credential(scope.repository if scope.kind == "repository" else None)
            if credential is not None and credential.registry_token:
                return f"Bearer {credential.registry_token}"
            if self._scheme == "basic":
                return credential.basic if credential is not None and credential.secret else None
            if self._bearer is None:
                return None
            token = self._tokens.get(scope)
            if token is None or token.renew_at <= self.settings.clock():
                token = self._tokens[scope] = self._fetch(self._bearer, scope, "")
            return token.header

    def answer(self, response: requests.Response, scope: Scope, sent: str | None) -> bool:
        """Learn from a 401; True when the request is worth sending again. Raises AccessError, PolicyError."""
        challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
        if self.on_challenge is not None:
            self.on_challenge(challenges)
        with self._lock:
            bearer = next((item for item in challenges if item.scheme == "bearer"), None)
            if bearer is not None:
                return self._answer_bearer(bearer, scope, sent)
            if any(item.scheme == "basic" for item in challenges):
                return self._answer_basic(scope, sent)
            return False

    def _answer_bearer(self, challenge: Challenge, scope: Scope, sent: str | None) -> bool:
        self._scheme, self._bearer = "bearer", challenge
        held = self._tokens.get(scope)
        if held is not None and held.header != sent:
            return True  # another thread was quicker
        self._tokens[scope] = self._fetch(challenge, scope, challenge.parameters.get("scope", ""))
        return True

    def _answer_basic(self, scope: Scope, sent: str | None) -> bool:
        """Harbor asks for Basic as soon as anything was refused, and takes it on every request."""
        credential = self.credential(scope.repository if scope.kind == "repository" else None)
        if credential is None or not credential.secret or sent == credential.basic:
            return False
        self._scheme = "basic"
        return True

    def _fetch(self, challenge: Challenge, scope: Scope, asked: str) -> _Token:
        realm = challenge.parameters.get("realm", "")
        credential = self.credential(scope.repository if scope.kind == "repository" else None)
        self._check_realm(realm, credential)
        scopes = list(dict.fromkeys(text for text in (str(scope), asked) if text and _is_ours(text, scope)))
        service = challenge.parameters.get("service", "")
        answer = self._ask(realm, service, scopes, credential)
        return self._token(answer, realm)

    def _check_realm(self, realm: str, credential: Credential | None) -> None:
        if not realm.startswith(("http://", "https://")):
            raise PolicyError(
                f"{self.host} names no URL to get tokens from", object=self.host, hint="is this an OCI registry?"
            )
        there = Origin.of(realm)
        if there.address in self.settings.trusted or realm_fits(self.registry, there):
            return
        if credential is None:
            check_hop(self.registry, there)
            return
        raise PolicyError(
            f"{self.host} asks for its credentials to be sent to {there}",
            object=str(there),
            hint=f"if that is right, allow it with --trust-host {there.address}"
            + ("; an Epoch server behind a proxy needs EPOCH_PUBLIC_URL" if there.host == self.registry.host else ""),
        )

    def _ask(self, realm: str, service: str, scopes: list[str], credential: Credential | None) -> requests.Response:
        pairs = [("service", service)] if service else []
        pairs += [("scope", scope) for scope in scopes]
        if credential is not None and credential.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", credential.identity_token),
                ("client_id", _CLIENT),
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            merged = [*form, ("service", service), ("scope", " ".join(scopes))]
            response = self._send("POST", realm, headers=headers, data=urlencode(merged).encode())
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(pairs)}" if pairs else realm
            named = {"Authorization": credential.basic} if credential is not None and credential.secret else {}
            response = self._send("GET", url, headers=named)
        if response.status_code != 200:
            raise self._refused(response, credential)
        found: requests.Response = response
        return found

    def _refused(self, response: requests.Response, credential: Credential | None) -> Exception:
        status = response.status_code
        error = refusal(response, f"getting a token for {self.host}", self.secrets())
        if status in (400, 401, 403, 404) and not (isinstance(error, NetworkError) and error.retryable):
            words = "the credentials were refused" if credential else "anonymous access was refused"
            hint = f"log in with `epoch-oci login {self.host}`"
            return AccessError(f"{self.host}: {words} ({status})", object=self.host, hint=hint)
        return error

    def _token(self, response: requests.Response, realm: str) -> _Token:
        with foreign_errors(redacted(realm)):
            raw = response.raw.read(_TOKEN_LIMIT + 1, decode_content=False) or b""
        response.close()
        try:
            answer = json.loads(raw) if len(raw) <= _TOKEN_LIMIT else None
        except (ValueError, RecursionError):
            answer = None
        text = (answer.get("token") or answer.get("access_token") or "") if isinstance(answer, dict) else None
        if not isinstance(text, str) or not text or not text.isprintable() or not text.isascii():
            raise ContentError(f"{self.host}: the token service gave no token", code="JSON", object=redacted(realm))
        life = answer.get("expires_in") if isinstance(answer, dict) else None
        seconds = float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE
        margin = min(_MARGIN, seconds / 2)
        self._issued.append(text)
        return _Token(f"Bearer {text}", self.settings.clock() + seconds - margin)

    def load_configs(self, container: object, configs: object = None) -> None:
        """Called by oras; credentials are resolved by `credential` instead."""

    def is_known(self) -> bool:
        """Whether the registry has said how it wants to be spoken to."""
        return self._scheme is not None

    @property
    def is_local(self) -> bool:
        """Whether the registry is this very machine."""
        return is_loopback(self.registry.host)


def _is_ours(text: str, scope: Scope) -> bool:
    """Whether to ask for a challenge's scope: not when it is all about other repositories (GHCR's dummy scope)."""
    ours = f"{scope.kind}:{scope.repository}:"
    return scope.repository is None or any(part.startswith(ours) for part in text.split())


oras.auth.auth_backends[BACKEND] = Authenticator
