"""Who we are to a registry: tokens for one origin, repository and set of actions, renewed before they run out."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import oras.auth
import requests

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, ContentError, EpochOciError, NetworkError, PolicyError
from epoch_oci.network import is_loopback
from epoch_oci.registry.auth_token import Challenge, TokenService, parse_challenges, renewal
from epoch_oci.registry.credentials import Credential
from epoch_oci.registry.http_errors import Refusal, dismiss
from epoch_oci.registry.policy import RegistrySettings
from epoch_oci.registry.trust import Origin

BACKEND = "epoch-oci"
_REMEMBERED = 256
"""Tokens: another thread may still be answered about an older one."""
_TRIES = 4
"""Answers of 401 in a row: tokens that die every few requests are renewed as often, and then it is a decision."""
_NO_PROOF = frozenset({401, 403, 407, 429})
"""What may be answered before anybody looks at who asks; so may everything from 500 on."""
_HIDING = frozenset({401, 403, 404})
"""What registries answer that do not say whether something is there, some of them without asking for credentials."""


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

    @property
    def account(self) -> str:
        """The repository whose credentials it takes, "" for those of the registry."""
        return (self.repository or "") if self.kind == "repository" else ""


@dataclass(slots=True)
class _Token:
    """`users` counts the requests it was handed to; `proven` says that one of them was not refused.

    `renewal` is one that was fetched because another, or none, was refused.
    """

    header: str
    scopes: tuple[str, ...]
    renew_at: float
    renewal: bool = False
    users: int = 0
    proven: bool = False

    @property
    def is_final(self) -> bool:
        """Whether its refusal is no question of age or use: nobody but the one who is refused has had it."""
        return self.renewal and not self.proven and self.users == 1


class Authenticator(oras.auth.TokenAuth):  # type: ignore[misc]
    """Answers the challenges of one registry, for many threads; its secrets go to nobody else.

    An oras backend, so that `oras.provider.Registry` shares its session with it. Credentials are looked up when they
    are asked for. A scheme that has once been let in is kept: one request that is refused in the words of the other
    lacks a right, and moves nobody.
    """

    registry: Origin
    host: str
    settings: RegistrySettings

    def setup(
        self,
        registry: Origin,
        host: str,
        settings: RegistrySettings,
        send: Callable[..., requests.Response],
        send_to_service: Callable[..., requests.Response],
    ) -> None:
        """`host` is the registry as the user wrote it, which is what credentials are kept under.

        `send` makes an exchange with the registry, `send_to_service` one with a token service.
        """
        self.registry, self.host, self.settings, self._send = registry, host, settings, send
        self._service = TokenService(registry, host, settings.trusted, send_to_service, self.secrets)
        self._lock = threading.RLock()
        self._scheme: str | None = None
        self._proven = False
        self._bearer: Challenge | None = None
        self._tokens: dict[Scope, _Token] = {}
        self._issued: OrderedDict[str, _Token] = OrderedDict()
        self._reserved = threading.local()
        self._credentials: dict[str, Credential | None] = {}
        self._failure: EpochOciError | None = None
        self._pinged = self._warned = False
        self.anonymous = False
        self.on_challenge: Callable[[Sequence[Challenge]], None] | None = None

    # What the client asks of it

    def exchange(self, send: Callable[[str | None], requests.Response], scope: Scope, what: str) -> requests.Response:
        """The answer to a request that `send` makes with an Authorization header, and can make again.

        Raises AccessError when a 401 stands, PolicyError, and what `send` and a token service raise.
        """
        sent = self.header_for(scope)
        response = send(sent)
        if sent is None and response.status_code in _HIDING and (unasked := self._unasked(response, scope)):
            dismiss(response)
            sent, response = unasked, send(unasked)
        tries = 0
        while response.status_code == 401:
            again = self._answered(response, scope, sent, alone=tries > 0) if tries < _TRIES else None
            tries += 1
            if again is None and tries <= _TRIES:
                again, tries = self._password_after_all(response, scope, sent), _TRIES
            if again is None:
                raise self.denied(response, scope, sent, what)
            dismiss(response)
            sent, response = again, send(again)
        self.accepted(response, sent)
        return response

    def header_for(self, scope: Scope, *, body: bool = False) -> str | None:
        """The header to send, None for none; a token is fetched when the one in hand is about to run out.

        A `body` that was refused for its token's sake gets one that no other request uses up meanwhile.
        """
        with self._lock:
            credential = self.settings.credentials.explicit if not self.anonymous else None
            # A ready token needs no challenge, and a legacy Epoch server gives none that could be answered.
            if credential is not None and credential.registry_token:
                return f"Bearer {credential.registry_token}"
            # No secret goes out unasked: the first request of a run, which has no body, learns the scheme
            # (oci-registries 5.7).
            if self._scheme is None:
                return None
            if self._scheme == "bearer" and self._bearer is not None:
                return self._bearer_header(self._bearer, scope, body=body)
            return self._own_header(self._known(scope))

    def accepted(self, response: requests.Response, sent: str | None) -> None:
        """Note that a request was let in."""
        status = response.status_code
        if sent is None or status in _NO_PROOF or status >= 500:
            return
        with self._lock:
            self._proven = True
            if (token := self._issued.get(sent)) is not None:
                token.proven = True

    def answer_body(self, response: requests.Response, scope: Scope, what: str) -> None:
        """Learn from the 401 that a body was answered with, for when it is sent again. Raises AccessError for good."""
        sent = response.request.headers.get("Authorization")
        again = self._answered(response, scope, sent, alone=True)
        if again is None:
            raise self.denied(response, scope, sent, what)
        dismiss(response)
        if again in self._issued:
            self._reserved.header = (scope, again)

    def denied(self, response: requests.Response, scope: Scope, sent: str | None, what: str) -> EpochOciError:
        """The error that a 401 is, with what would help; reads and closes it."""
        error = Refusal(response, what, self.secrets()).error()
        if not isinstance(error, AccessError):
            return error
        if self._failure is not None and self._known(scope) is None:
            return self._failure
        error.hint = self._way_in(scope, sent)
        return error

    def check_login(self, url: str) -> None:
        """See whether the registry takes the credentials, also where it asks nobody for any.

        Raises AccessError when it does not, NotFoundError where there is no registry, NetworkError.
        """
        what = f"logging in to {self.host}"
        response = self.exchange(lambda header: self._ask(url, header), Scope(), what)
        with self._lock:
            header = None if self._scheme else self._own_header(self._known(Scope()))
        # Who lets in everybody has not looked at the credentials yet; sent along unasked, they may still be refused.
        if header is not None and response.status_code == 200:
            response.close()
            response = self._ask(url, header)
        if response.status_code == 401:
            raise self.denied(response, Scope(), header, what)
        if response.status_code != 200:
            raise Refusal(response, what, self.secrets()).error()
        response.close()

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
            known = [self.settings.credentials.explicit, *self._credentials.values()]
            found = [text for item in known if item for text in item.secrets]
            return (*found, *(header.partition(" ")[2] for header in self._issued))

    # Challenges

    def _answered(
        self, response: requests.Response, scope: Scope, sent: str | None, *, alone: bool = False
    ) -> str | None:
        """The header to send a request with that was answered with 401; None when there is no other.

        `alone` asks for a token that no other request uses up.
        """
        challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
        if self.on_challenge is not None:
            self.on_challenge(challenges)
        try:
            with self._lock:
                return self._answer(challenges, scope, sent, alone=alone)
        except BaseException:
            response.close()
            raise

    def _answer(self, challenges: Sequence[Challenge], scope: Scope, sent: str | None, *, alone: bool) -> str | None:
        credential = self._known(scope)
        if credential is not None and credential.registry_token:
            header = f"Bearer {credential.registry_token}"
            self._scheme = "ready"
            return header if header != sent else None
        bearer = next((item for item in challenges if item.scheme == "bearer"), None)
        basic = any(item.scheme == "basic" for item in challenges)
        if self._proven and self._scheme == "bearer":
            # Harbor answers in terms of Basic whatever was wrong with a token, its age too (oci-registries 3.5); others
            # in none.
            return self._renewed(bearer or self._bearer, scope, sent, alone=alone)
        if self._proven and self._scheme == "basic":
            return self._looked_up_anew(scope, sent)
        password = self._own_header(credential) if basic else None
        if bearer is not None:
            self._scheme = "bearer"
            try:
                return self._renewed(bearer, scope, sent, alone=alone)
            # Where both are offered the password itself may do, though the token service is of no use.
            except (AccessError, PolicyError, ContentError):
                if password in (None, sent):
                    raise
        if password is None or password == sent:
            return None
        self._scheme = "basic"
        return password

    def _password_after_all(self, response: requests.Response, scope: Scope, sent: str | None) -> str | None:
        """The password, for a registry that gives tokens and still wants it for one thing: Harbor for its catalog.

        None where it does not ask for it, or had it. The run goes on with tokens.
        """
        schemes = {item.scheme for item in parse_challenges(response.headers.get("WWW-Authenticate", ""))}
        if scope.kind == "repository" or schemes != {"basic"}:
            return None
        with self._lock:
            header = self._own_header(self._known(scope)) if self._scheme == "bearer" else None
        return header if header != sent else None

    def _renewed(self, challenge: Challenge | None, scope: Scope, sent: str | None, *, alone: bool) -> str | None:
        """A token after `sent` was refused; None when it was a new one that nobody else had, for then it lacks a right.

        Tokens that die every few requests are renewed as often as one of them was let in.
        """
        assert challenge is not None
        self._bearer = challenge
        asked = self._scopes(challenge, scope)
        refused = self._issued.get(sent or "")
        held = self._tokens.get(scope)
        # New, used once, and refused for the very scopes that are asked for again: it lacks a right.
        if refused is not None and refused.is_final and refused.scopes == asked:
            return None
        outdated = sent is None or (refused is not None and refused.proven)
        if held is not None and held.header != sent and outdated and not alone:
            return self._handed(held)  # another thread was quicker
        token = self._fetch(challenge, scope, asked)
        token.renewal = True
        if not alone:
            self._tokens[scope] = token
        return self._handed(token)

    def _looked_up_anew(self, scope: Scope, sent: str | None) -> str | None:
        """The header of credentials that have changed since `sent`: those of cloud registries live for hours."""
        held = self._known(scope)
        own = self._own_header(held)
        if own is not None and own != sent:
            return own  # another thread was quicker: it found the scheme, or looked first
        try:
            found = None if self.anonymous else self.settings.credentials.find(self.host, scope.account, anew=True)
        except EpochOciError:
            return None
        if found is None or found == held:
            return None
        self._credentials[scope.account] = found
        header = self._own_header(found)
        return header if header != sent else None

    def _unasked(self, response: requests.Response, scope: Scope) -> str | None:
        """A header for a request whose answer asks for none, and may hide what is there from those who have none.

        How the registry wants to be spoken to is asked at its front door, once, by those who have credentials.
        """
        if self.anonymous or parse_challenges(response.headers.get("WWW-Authenticate", "")):
            return None
        with self._lock:
            if self._scheme is not None or self._pinged:
                return self.header_for(scope)
            self._pinged = True
            # Whoever has nothing to show need not ask how it wants to be shown.
            if not self.settings.credentials.may_have(self.host):
                return None
            with contextlib.suppress(NetworkError):
                door = self._ask(f"{self.registry}/v2/", None)
                dismiss(door)
                if door.status_code == 401 and self._known(scope) is not None:
                    return self._answered(door, scope, None)
            return None

    # Credentials and tokens

    def _known(self, scope: Scope) -> Credential | None:
        """The credential for a scope. One that cannot be looked up is none: a refusal has it told why."""
        try:
            return self.credential(scope.account)
        except EpochOciError as error:
            self._failure, self._credentials[scope.account] = error, None
            return None

    def _own_header(self, credential: Credential | None) -> str | None:
        """The credential itself as a header."""
        if credential is None:
            return None
        if self._scheme == "ready" and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        return credential.basic if credential.secret else None

    def _bearer_header(self, challenge: Challenge, scope: Scope, *, body: bool) -> str:
        if body and (reserved := self._take_reserved(scope)) is not None:
            return reserved
        token = self._tokens.get(scope)
        # The answer to a body that was sent with a token that ran out is lost (oci-registries 5.6).
        if token is None or token.renew_at <= self.settings.clock():
            token = self._tokens[scope] = self._fetch(challenge, scope, (str(scope),) if scope.repository else ())
        return self._handed(token)

    def _take_reserved(self, scope: Scope) -> str | None:
        """What `answer_body` has laid aside for this thread, as long as it is good."""
        found: tuple[Scope, str] | None = getattr(self._reserved, "header", None)
        self._reserved.header = None
        token = self._issued.get(found[1]) if found is not None and found[0] == scope else None
        return token.header if token is not None and token.renew_at > self.settings.clock() else None

    def _handed(self, token: _Token) -> str:
        token.users += 1
        return token.header

    def _fetch(self, challenge: Challenge, scope: Scope, scopes: tuple[str, ...]) -> _Token:
        credential = self._known(scope)
        try:
            grant = self._service.ask(challenge, scopes, credential)
        except AccessError:
            # A file of accounts that cannot be read is the better reason than "anonymous access was refused".
            if credential is None and self._failure is not None:
                raise self._failure from None
            # Those of cloud registries run out within hours, and somebody may have put new ones in their place.
            if not self._proven or self._looked_up_anew(scope, None) is None:
                raise
            grant = self._service.ask(challenge, scopes, self._known(scope))
        if credential is None and self._failure is not None:
            self._warn_once(f"{self._failure.message}; {self.host} is asked without credentials")
        token = _Token(f"Bearer {grant.token}", scopes, self.settings.clock() + renewal(grant.seconds))
        self._issued[token.header] = token
        if len(self._issued) > _REMEMBERED:
            self._issued.popitem(last=False)
        return token

    def _warn_once(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            self.settings.warn(message)

    def _scopes(self, challenge: Challenge, scope: Scope) -> tuple[str, ...]:
        """What to ask for: what is needed, and what the challenge says, unless that is about other repositories."""
        asked = challenge.parameters.get("scope", "")
        return tuple(dict.fromkeys(text for text in (str(scope), asked) if text and _is_ours(text, scope)))

    def _ask(self, url: str, header: str | None) -> requests.Response:
        return self._send("GET", url, headers={"Authorization": header} if header else {})

    def _way_in(self, scope: Scope, sent: str | None) -> str:
        """What to do about a 401."""
        with self._lock:
            credential = self._known(scope)
            known = self._proven or (sent is not None and sent in self._issued)
        if credential is None:
            return f"log in with `epoch-oci login {self.host}`"
        if sent is not None and known:
            return f"{credential.owner} are taken there, and lack the right to this; ask for it"
        if sent is None:
            return f"{self.host} does not ask for credentials in a way that {credential.owner} could answer"
        return f"look at {credential.owner}, or log in anew with `epoch-oci login {self.host}`"

    # What oras expects, and what others look at

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
    """Whether to ask for a challenge's scope: not when it is all about other repositories.

    GHCR's front door names `repository:user/image:pull`, which is nobody's (oci-registries 3.4).
    """
    ours = f"{scope.kind}:{scope.repository}:"
    return scope.repository is None or any(part.startswith(ours) for part in text.split())


oras.auth.auth_backends[BACKEND] = Authenticator
