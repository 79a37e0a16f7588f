"""What a registry asks for, and getting the token that answers it.

A challenge is `WWW-Authenticate`, several challenges and all (RFC 9110, section 11.6.1). The grammar is read as servers
write it: parameters divided by blanks or semicolons as well, values without quotes whatever they hold, in single
quotes, or with a quote that never ends.

The token is asked for in terms of Docker's token specification, as registries and their services keep to it
(oci-registries 5.7): where it may be asked for, how, and what the answer says.
"""

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import requests

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, ContentError, EpochOciError, NetworkError, PolicyError
from epoch_oci.redaction import octets
from epoch_oci.registry.credentials import Credential
from epoch_oci.registry.http_errors import Refusal, dismiss, foreign_errors
from epoch_oci.registry.trust import Origin, check_hop, joined, realm_fits, redacted

# Challenges

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIVIDERS = " \t\r\n\f\v,;"
_SCHEME = re.compile(rf"({_WORD}):?(?=[\s,;]|\Z)")
_PARAMETER = re.compile(
    rf"""({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|\Z)|'([^']*)'|([^\s,;"]*))""",
    re.DOTALL,
)
_CREDENTIALS = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*(?=,|\Z)")
_LONGEST_HEADER = 16 << 10
"""Characters. Each takes time to read, and no honest challenge comes near."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, in lower case, and its parameters, their names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge of a header; what cannot be read is passed over."""
    found: list[tuple[str, dict[str, str]]] = []
    rest = header[:_LONGEST_HEADER]
    while rest := rest.lstrip(_DIVIDERS):
        parameter, scheme = _PARAMETER.match(rest), _SCHEME.match(rest)
        if parameter is not None:
            if found:
                found[-1][1].setdefault(parameter[1].lower(), _value(parameter))
            rest = rest[parameter.end() :]
        elif scheme is not None:
            found.append((scheme[1].lower(), {}))
            rest = rest[scheme.end() :].lstrip()
            if (credentials := _CREDENTIALS.match(rest)) is not None:  # what goes on in a scheme of several rounds
                rest = rest[credentials.end() :]
        else:
            rest = rest[1:]
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _value(parameter: re.Match[str]) -> str:
    _, quoted, single, plain = parameter.groups()
    return re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else single if single is not None else plain


# Tokens

_LONGEST_ANSWER = 64 << 10
# What Docker's specification says of a life that is not stated, and GHCR states none (oci-registries 3.3).
_DEFAULT_LIFE = 60.0
_LONGEST_LIFE = 24 * 3600.0
_MARGIN = 60.0
"""Seconds before a token's end in which no body is begun with it (oci-registries 5.7)."""
_HOPS = 3
_CLIENT = "epoch-oci"
_INFLATE = (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS)
"""gzip or zlib by its header, and deflate without any."""
_KEEPS_METHOD = frozenset({307, 308})
_LEADS_ON = frozenset({301, 302, 303}) | _KEEPS_METHOD


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, and for how many seconds it is of use."""

    token: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TokenService:
    """The service that a challenge of a registry names. `host` is the registry as the user wrote it.

    `send` makes an exchange, `secrets` are kept out of messages, `trusted` are hosts that the user allows.
    """

    registry: Origin
    host: str
    trusted: frozenset[str]
    send: Callable[..., requests.Response]
    secrets: Callable[[], tuple[str, ...]]

    def ask(self, challenge: Challenge, scopes: Sequence[str], credential: Credential | None) -> Grant:
        """Get a token for all of `scopes`.

        Raises PolicyError before anything is sent where it may not be, AccessError for a refusal, ContentError for an
        answer that is none, NetworkError.
        """
        realm = challenge.parameters.get("realm", "").strip()
        if realm.startswith("/"):  # a path on the registry itself, as some that stand behind a proxy name it
            realm = joined(f"{self.registry}/v2/", realm)
        self._check(realm, credential)
        service = challenge.parameters.get("service", "")
        # An identity token is no password: it is exchanged, and never leaves in a header (oci-registries 6.1).
        if credential is not None and credential.identity_token:
            response = self._post(realm, service, scopes, credential.identity_token)
        else:
            response = self._get(realm, service, scopes, credential)
        if not 200 <= response.status_code < 300:
            raise self._refused(response, credential)
        return self._grant(response, redacted(realm), credential)

    def _check(self, realm: str, credential: Credential | None) -> None:
        if not realm.lower().startswith(("http://", "https://")):
            raise PolicyError(
                f"{self.host} names no URL to get tokens from", object=self.host, hint="is this an OCI registry?"
            )
        there = Origin.of(realm)
        if self.registry.scheme == "https" and there.scheme != "https":
            raise PolicyError(
                f"{self.host} wants its tokens asked for at {there}, which is not encrypted",
                object=str(there),
                hint="its operator has to name an address with https (for an Epoch server, in EPOCH_PUBLIC_URL)",
            )
        if realm_fits(self.registry, there) or there.address in self.trusted:
            return
        # Without a secret there is none to lose, but a public registry may not have us look into this network either.
        if credential is None:
            check_hop(self.registry, there)
            return
        raise PolicyError(
            f"{self.host} asks for its credentials to be sent to {there}",
            object=str(there),
            hint=f"if that is right, allow it with --trust-host {there.address}",
        )

    def _post(self, realm: str, service: str, scopes: Sequence[str], token: str) -> requests.Response:
        form = {"grant_type": "refresh_token", "refresh_token": octets(token), "client_id": _CLIENT, "service": service}
        data = urlencode({**form, "scope": " ".join(scopes)}).encode()
        return self._visit("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, data)

    def _get(self, realm: str, service: str, scopes: Sequence[str], credential: Credential | None) -> requests.Response:
        pairs = [("service", service)] if service else []
        pairs += [("scope", scope) for scope in scopes]
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(pairs)}" if pairs else realm
        named = {"Authorization": credential.basic} if credential is not None and credential.secret else {}
        return self._visit("GET", url, named, None)

    def _visit(self, method: str, url: str, headers: dict[str, str], data: bytes | None) -> requests.Response:
        """An exchange. It is led on only within the service's own origin, or from http to https on its host."""
        for _ in range(_HOPS):
            response = self.send(method, url, headers=headers, data=data)
            location = response.headers.get("Location")
            if response.status_code not in _LEADS_ON or not location:
                break
            here, target = Origin.of(url), joined(url, location)
            there = Origin.of(target)
            encrypts = (here.scheme, there.scheme) == ("http", "https") and here.host == there.host
            # A POST has the identity token in its body, and a hop that makes a GET of it would lose that.
            if (method != "GET" and response.status_code not in _KEEPS_METHOD) or not (there == here or encrypts):
                break
            dismiss(response)
            url = target
        return response

    def _refused(self, response: requests.Response, credential: Credential | None) -> EpochOciError:
        status = response.status_code
        what = f"getting a token for {self.host}"
        error = Refusal(response, what, self.secrets()).error()
        if status not in (400, 401, 403, 404) or (isinstance(error, NetworkError) and error.retryable):
            return error
        words = f"{credential.owner} were refused" if credential else "anonymous access was refused"
        lacking = credential is not None and status == 403  # GitLab's and others' answer to who is known
        return self._denied(
            f"{words}: {error.message.removeprefix(f'{what}: ')}",
            "they may lack the right to this; ask for it" * lacking,
        )

    def _denied(self, words: str, hint: str = "") -> AccessError:
        hint = hint or f"log in with `epoch-oci login {self.host}`"
        return AccessError(f"{self.host}: {words}", object=self.host, hint=hint)

    def _grant(self, response: requests.Response, where: str, credential: Credential | None) -> Grant:
        with foreign_errors(where):
            raw = response.raw.read(_LONGEST_ANSWER + 1, decode_content=False) or b""
        response.close()
        answer = _members(raw)
        token = (answer.get("token") or answer.get("access_token")) if answer is not None else None
        if answer is not None and not token and ("token" in answer or "access_token" in answer):
            # Epoch's way to say that it does not know who asks.
            raise self._denied(f"{credential.owner} were not taken" if credential else "not logged in")
        # It becomes part of a header, where a line break would begin another one.
        if not isinstance(token, str) or not token.strip().isprintable() or not token.isascii() or not token.strip():
            raise ContentError(f"{self.host}: the token service gave no token", code="JSON", object=where)
        return Grant(token.strip(), _life((answer or {}).get("expires_in")))


def renewal(seconds: float) -> float:
    """After how many seconds of a token's life to ask for the next."""
    return seconds - min(_MARGIN, seconds / 2)


def _members(raw: bytes) -> dict[str, Any] | None:
    """The members of an answer, by lower-case name; of one that was packed without having been asked to be, too."""
    for text in _unpacked(raw):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            # Of two that differ in case the first counts; the exact one before both.
            return {name.lower(): item for name, item in reversed(value.items())} | value
    return None


def _unpacked(raw: bytes) -> list[bytes]:
    found = [raw]
    for bits in _INFLATE:
        try:
            # Bounded as the answer itself: a few packed bytes may unfold to gigabytes.
            found.append(zlib.decompressobj(bits).decompress(raw, _LONGEST_ANSWER + 1))
        except zlib.error:
            continue
    return [text for text in found if len(text) <= _LONGEST_ANSWER]


def _life(stated: object) -> float:
    """Seconds that a token lives: as stated, as far as that can be."""
    try:
        seconds = float(stated) if isinstance(stated, int | float | str) and not isinstance(stated, bool) else 0.0
    except (ValueError, OverflowError):
        return _LONGEST_LIFE if isinstance(stated, int) and stated > 0 else _DEFAULT_LIFE
    return min(seconds, _LONGEST_LIFE) if seconds > 0 and not math.isnan(seconds) else _DEFAULT_LIFE
