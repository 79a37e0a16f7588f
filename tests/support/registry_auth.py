"""Who may do what at a ``FakeRegistry``: ``NoAuth()``, ``BasicAuth(...)``, ``BearerAuth(...)``.

A check gets the request and what it needs (repository and actions) and answers None to let it pass, or a 401.
"""

import base64
import binascii
import re
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from support.wire import Answer, Request

Need = tuple[str, frozenset[str]]
"""A repository and the actions (pull, push, delete) wanted on it."""

USER: Final = "robot"
PASSWORD: Final = "correct-horse-battery"
OMIT: Final = object()
"""Leave the member out of the token response."""


def basic_credentials(request: Request) -> tuple[str, str] | None:
    """User and password of an ``Authorization: Basic`` header."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user, password


class NoAuth:
    """Everybody may do everything."""

    def refuse(self, request: Request, needs: Sequence[Need]) -> Answer | None:
        return None

    def challenge(self, request: Request, needs: Sequence[Need], error: str = "") -> Answer:
        return Answer.error(401, "UNAUTHORIZED", "authentication required")

    def endpoint(self, request: Request) -> Answer | None:
        return None

    def expire_all(self) -> None:
        return None


class BasicAuth(NoAuth):
    """One account, asked for on every request."""

    def __init__(self, user: str = USER, password: str = PASSWORD, realm: str = "fake") -> None:
        self.user, self.password, self.realm = user, password, realm

    def refuse(self, request: Request, needs: Sequence[Need]) -> Answer | None:
        if basic_credentials(request) == (self.user, self.password):
            return None
        return self.challenge(request, needs)

    def challenge(self, request: Request, needs: Sequence[Need], error: str = "") -> Answer:
        header = ("WWW-Authenticate", f'Basic realm="{self.realm}"')
        return Answer.error(401, "UNAUTHORIZED", "authentication required", header)


@dataclass(slots=True)
class Grant:
    """A token handed out: to whom, for which (repository, action) pairs, and how it was asked for."""

    token: str = field(repr=False)
    user: str | None
    access: frozenset[tuple[str, str]]
    grant_type: str
    deadline: float
    uses_left: int | None


class BearerAuth(NoAuth):
    """Token authentication with a token endpoint on the registry itself.

    A token carries exactly the scopes asked for, cut down to what ``allow(user, repository, action)`` grants; it dies
    after ``lifetime`` seconds or ``uses`` requests. ``expires_in`` is what the response says (OMIT: nothing), which
    may be a lie. ``anonymous`` names the actions a caller without credentials may hold; None refuses such tokens.
    ``identity_tokens`` are accepted by the POST form (``grant_type=refresh_token``); ``offers_refresh`` hands one out
    on ``offline_token`` or ``access_type=offline``. ``post=False`` answers 404 to the POST form, as older servers do.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        anonymous: Sequence[str] | None = (),
        allow: Callable[[str | None, str, str], bool] | None = None,
        lifetime: float = 300,
        uses: int | None = None,
        expires_in: object = None,
        identity_tokens: Sequence[str] = (),
        offers_refresh: bool = False,
        post: bool = True,
        service: str = "fake-registry",
        realm: str | None = None,
        path: str = "/token",
        token_member: str = "both",
    ) -> None:
        self.users = {USER: PASSWORD} if users is None else dict(users)
        self.anonymous = anonymous
        self.lifetime, self.uses = lifetime, uses
        self.expires_in = int(lifetime) if expires_in is None else expires_in
        self.offers_refresh, self.post = offers_refresh, post
        self.service, self.realm, self.path, self.token_member = service, realm, path, token_member
        self.grants: list[Grant] = []
        self._allow = allow or self._default_allow
        self._refresh: dict[str, str] = dict.fromkeys(identity_tokens, next(iter(self.users), ""))
        self._guard = threading.Lock()

    def _default_allow(self, user: str | None, repository: str, action: str) -> bool:
        return user is not None or action in (self.anonymous or ())

    # Checks at the registry

    def refuse(self, request: Request, needs: Sequence[Need]) -> Answer | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return self.challenge(request, needs)
        grant = self._use(token.strip())
        if grant is None:
            return self.challenge(request, needs, "invalid_token")
        wanted = {(repository, action) for repository, actions in needs for action in actions}
        return None if wanted <= grant.access else self.challenge(request, needs, "insufficient_scope")

    def challenge(self, request: Request, needs: Sequence[Need], error: str = "") -> Answer:
        realm = self.realm or f"{request.origin}{self.path}"
        parts = [f'realm="{realm}"', f'service="{self.service}"']
        if needs:
            scopes = (f"repository:{name}:{','.join(sorted(actions))}" for name, actions in needs)
            parts.append(f'scope="{" ".join(scopes)}"')
        if error:
            parts.append(f'error="{error}"')
        return Answer.error(
            401, "UNAUTHORIZED", "authentication required", ("WWW-Authenticate", "Bearer " + ",".join(parts))
        )

    def _use(self, token: str) -> Grant | None:
        """The live grant of ``token``, one use taken off it."""
        with self._guard:
            grant = next((each for each in self.grants if secrets.compare_digest(each.token, token)), None)
            if grant is None or time.monotonic() >= grant.deadline or grant.uses_left == 0:
                return None
            if grant.uses_left is not None:
                grant.uses_left -= 1
            return grant

    def expire_all(self) -> None:
        """Make every token handed out so far invalid."""
        with self._guard:
            for grant in self.grants:
                grant.deadline = 0

    # The token endpoint

    def endpoint(self, request: Request) -> Answer | None:
        """The answer when ``request`` is for the token endpoint."""
        if request.path != self.path:
            return None
        if request.method == "POST":
            return self._post(request) if self.post else Answer.of(404, b"404 page not found\n")
        if request.method != "GET":
            return Answer.of(405)
        credentials = basic_credentials(request)
        if "Authorization" in request.headers and not self._known(credentials):
            return Answer.error(401, "UNAUTHORIZED", "wrong user or password")
        if credentials is None and self.anonymous is None:
            return Answer.error(401, "UNAUTHORIZED", "no anonymous tokens here")
        params = request.params()
        user = credentials[0] if credentials else None
        offline = params.get("offline_token", [""])[0] == "true"
        return self._issue(user, params.get("scope", []), "get", offline)

    def _known(self, credentials: tuple[str, str] | None) -> bool:
        return credentials is not None and self.users.get(credentials[0]) == credentials[1]

    def _post(self, request: Request) -> Answer:
        form = urllib.parse.parse_qs(request.body.read_all(KEPT_FORM).decode("utf-8", "replace"))
        one = {name: values[0] for name, values in form.items()}
        grant_type = one.get("grant_type", "")
        if grant_type == "refresh_token":
            user = self._refresh.get(one.get("refresh_token", ""))
        elif grant_type == "password" and self._known((one.get("username", ""), one.get("password", ""))):
            user = one["username"]
        else:
            user = None
        if user is None:
            return Answer.json(401, {"error": "invalid_grant"})
        return self._issue(user, form.get("scope", []), grant_type, one.get("access_type") == "offline")

    def _issue(self, user: str | None, scopes: Sequence[str], grant_type: str, offline: bool) -> Answer:
        token = f"tok-{secrets.token_hex(24)}"
        access = frozenset(pair for pair in _pairs(scopes) if self._allow(user, *pair))
        grant = Grant(token, user, access, grant_type, time.monotonic() + self.lifetime, self.uses)
        with self._guard:
            self.grants.append(grant)
        members: dict[str, object] = {}
        if self.token_member in ("both", "token") and grant_type == "get":
            members["token"] = token
        if self.token_member in ("both", "access_token") or grant_type != "get":
            members["access_token"] = token
        if self.expires_in is not OMIT:
            members["expires_in"] = self.expires_in
        if offline and self.offers_refresh and user is not None:
            members["refresh_token"] = self._new_refresh(user)
        return Answer.json(200, members)

    def _new_refresh(self, user: str) -> str:
        token = f"refresh-{secrets.token_hex(16)}"
        with self._guard:
            self._refresh[token] = user
        return token


KEPT_FORM = 64 * 1024
SCOPE = re.compile(r"repository:(?P<name>[^\s]+):(?P<actions>[a-z*,]+)")


def _pairs(scopes: Sequence[str]) -> set[tuple[str, str]]:
    """(repository, action) of every scope, whether repeated or in one space-separated value."""
    found = (SCOPE.fullmatch(scope) for value in scopes for scope in value.split())
    return {(hit["name"], action) for hit in found if hit for action in hit["actions"].split(",")}
