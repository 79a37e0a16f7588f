"""The client: `oras.provider.Registry` with its transport replaced, one for each registry."""

import re
import ssl
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import oras.provider
import requests
import urllib3
from oras.container import Container
from requests.utils import parse_header_links

from epoch_oci.errors import AccessError, ContentError, EpochOciError, NetworkError, PolicyError
from epoch_oci.events import Event
from epoch_oci.network import proxy_name
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.reference import Reference
from epoch_oci.redaction import without
from epoch_oci.registry.auth import BACKEND, Authenticator, Scope
from epoch_oci.registry.http_errors import PROXY_LOGIN, Refusal, dismiss, foreign_errors
from epoch_oci.registry.policy import Attempts, RegistrySettings, UnreachableError
from epoch_oci.registry.transport import Adapter, Body, sending
from epoch_oci.registry.trust import Origin, check_hop, context_of, joined, redacted

PULL, PUSH = "pull", "pull,push"
KEEPS_METHOD = frozenset({307, 308})
REDIRECTS = frozenset({301, 302, 303}) | KEEPS_METHOD
_HOPS = 5
"""Redirects of one request (oci-registries 5.8): registry, storage, and what stands before either."""
_PATH = re.compile(r"/v2/(.+)/(?:blobs|manifests|tags|referrers)(?:/|\Z)")
_WARNING = re.compile(r'\b299 (?:-|[!-~]+) "((?:[^"\\]|\\.)*)"')
_WARNING_LIMIT = 4096  # octets, by distribution-spec (oci-registries 2.2)
_WARNINGS = 8
"""Of a registry's, in a run: whoever has more to say than that has nothing to say."""
# The one registry whose name is not its host (oci-registries 6.1).
_HUB = "registry-1.docker.io"


class RegistryClient(oras.provider.Registry):  # type: ignore[misc]
    """Speaks to one registry. Every exchange goes through `do_request`, those of the inherited methods too."""

    auth: Authenticator

    def __init__(self, registry: str, settings: RegistrySettings) -> None:
        settings.trust.check()
        if settings.insecure:  # the user has said so; urllib3 would repeat it at every request
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        super().__init__(registry, insecure=settings.plain_http, tls_verify=True, auth_backend=BACKEND)
        # Not told to oras, which would silence every warning of urllib3 and not this one alone.
        self._tls_verify = self.auth._tls_verify = not settings.insecure
        self.settings = settings
        host = _HUB if registry == "docker.io" else registry
        self.base = f"{self.prefix}://{host}"
        self.origin = Origin.of(self.base)
        # What the environment says of proxies, certificates and `.netrc` is read once, by us: requests would read it
        # for each request, and send a password that nobody asked for.
        self.session.trust_env = False
        # requests looks at redirects even when told not to follow them, and reads their bodies to the end
        self.session.get_redirect_target = lambda _: None
        self.session.headers = requests.structures.CaseInsensitiveDict(
            # Bytes are hashed as they come, so nothing may be packed on the way (oci-registries 5.6).
            {"User-Agent": settings.user_agent, "Accept-Encoding": "identity", "Accept": "*/*"}
        )
        self._adapters: dict[tuple[bool, bool], Adapter] = {}
        self._introduced = {self.origin}  # who is shown our certificate
        self.session.get_adapter = self._adapter
        self._met: set[Origin] = set()  # who has answered
        self._lost: set[Origin] = set()  # who never has, and was asked
        self._warned: set[str] = set()
        self.ranges: bool | None = None  # whether blobs can be read in ranges; None: not tried yet
        self.auth.setup(self.origin, registry, settings, self._send, self._introduce)

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | Body | None = None,
        headers: Mapping[str, str] | None = None,
        json: None = None,
        stream: bool = False,
        *,
        scope: Scope | None = None,
        timeout: float | None = None,
    ) -> requests.Response:
        """One exchange with the registry, authenticated once more when it answers 401.

        Redirects are not followed, but for those within the registry of anything that is no GET and has no large body.
        Raises NetworkError when no answer comes, PolicyError for a foreign URL, AccessError when the 401 stands. A body
        that is sent in blocks is sent once: its 401 is returned.
        """
        there = Origin.of(url)
        if not self._may_send_to(there):
            raise PolicyError(f"{there} is not the registry {self.origin}", object=redacted(url))
        scope = scope or self._scope_of(url, method)
        # Whoever calls knows nothing of secrets, and oras's own methods hand on what they were given.
        plain = {name: value for name, value in (headers or {}).items() if name.lower() != "authorization"}

        def send(url: str, authorization: str | None) -> requests.Response:
            return self._send(method, url, headers=_with(plain, authorization), data=data, timeout=timeout)

        if not self.is_home(url):
            return send(url, None)
        if isinstance(data, Body):
            # A body in blocks cannot be rewound here: who sent it makes it anew.
            sent = self.auth.header_for(scope, body=True)
            response = send(url, sent)
            self.auth.accepted(response, sent)
            return response
        response = self.auth.exchange(partial(send, url), scope, f"{method} {redacted(url)}")
        hops = 0
        # What sends is led on within the registry, as proxies with opinions on paths do; `follow` leads what reads.
        while method != "GET" and hops < _HOPS and self._stays(response):
            hops, url = hops + 1, self.location(response)
            response = self.auth.exchange(partial(send, url), scope, f"{method} {redacted(url)}")
        return response

    def knock(self) -> requests.Response:
        """What the front door answers to somebody who shows nothing, its body unread. Asked once, not again."""
        return self._send("GET", self.url(""), headers={})

    def call(
        self,
        method: str,
        url: str,
        expect: Iterable[int],
        *,
        what: str,
        scope: Scope | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        attempts: Attempts | None = None,
    ) -> requests.Response:
        """An exchange without a large body, tried again as the retry policy says. Answers other than `expect` raise.

        `attempts` are those of the whole of which it is a part.
        """
        attempts = attempts or Attempts(self.settings, what)
        while True:
            try:
                response = self.do_request(url, method, data=data, headers=headers, scope=scope)
                if response.status_code in expect:
                    return response
                raise self.refusal(response, what)
            except NetworkError as error:
                attempts.again(error)

    def follow(self, response: requests.Response, headers: Mapping[str, str], method: str = "GET") -> requests.Response:
        """Follow the redirects of a GET or HEAD by hand: no credentials off-origin, no way down from https."""
        hops = 0
        while response.status_code in REDIRECTS:
            hops += 1
            dismiss(response)
            here, url = Origin.of(response.url), self.location(response)
            if hops > _HOPS:
                raise NetworkError(f"{here}: more than {_HOPS} redirects", object=str(here), retryable=False)
            # Every hop is judged by the one before: two harmless ones may make a harmful one.
            check_hop(here, Origin.of(url))
            if self.is_home(url):
                response = self.do_request(url, method, headers=headers)
            else:
                response = self._send(method, url, headers=dict(headers))
        return response

    def location(self, response: requests.Response) -> str:
        """The absolute URL of a Location header. Raises NetworkError when there is none."""
        location = response.headers.get("Location")
        if not location:
            raise NetworkError(f"{redacted(response.url)}: an answer without Location", retryable=False)
        return joined(response.url, location)

    def upload_location(self, response: requests.Response) -> str:
        """Where a body is to be sent. Raises PolicyError before a byte of it goes to anybody but the registry."""
        url = self.location(response)
        there = Origin.of(url)
        if self._may_send_to(there):
            return url
        raise PolicyError(
            f"{self.origin} wants the content to be sent to {there}",
            object=str(there),
            hint="its operator has to name an address with https"
            if _is_downgrade(self.origin, there)
            else f"if that is right, allow it with --trust-host {there.address}",
        )

    def refusal(self, response: requests.Response, what: str, *, of_blob: bool = False) -> EpochOciError:
        """The error that an answer of an unwanted status is; reads and closes it. See `Refusal`."""
        if response.status_code in REDIRECTS and response.headers.get("Location"):
            return self._led(response, what)
        return Refusal(response, what, self.auth.secrets(), of_blob=of_blob).error()

    def _led(self, response: requests.Response, what: str) -> EpochOciError:
        """What a redirect means that cannot be followed: what is sent goes nowhere but to the registry."""
        dismiss(response)
        here, url = Origin.of(response.url), self.location(response)
        there, where = Origin.of(url), without(self.auth.secrets(), redacted(url))
        message = f"{what}: {here} leads to {where}"
        if there == here:
            return ContentError(message, code="TYPE", object=where, hint="is this a registry's address?")
        if _is_downgrade(here, there):
            hint = "nothing is sent there, for it is not encrypted: its operator has to name an address with https"
        elif here.host == there.host and there.scheme == "https":
            hint = "it speaks https: leave --plain-http out"
        else:
            hint = "nothing is sent there: if that is where the registry is now, name it so"
        return PolicyError(message, object=where, hint=hint)

    def _stays(self, response: requests.Response) -> bool:
        """Whether an answer has the same request made again elsewhere in the registry."""
        if response.status_code not in KEEPS_METHOD:
            return False
        dismiss(response)
        return self.is_home(self.location(response))

    def _may_send_to(self, there: Origin) -> bool:
        """Whether what belongs to the registry may go there. Trust in a host is none in a line that all can read."""
        if there == self.origin:
            return True
        return there.address in self.settings.trusted and not _is_downgrade(self.origin, there)

    def read(
        self,
        url: str,
        *,
        what: str,
        limit: int,
        headers: Mapping[str, str] | None = None,
        scope: Scope | None = None,
    ) -> tuple[requests.Response, bytes] | None:
        """What a GET answers, whole and bounded, redirects followed; None for 404. Tried again as `call` does."""
        attempts = Attempts(self.settings, what)
        while True:
            try:
                response = self.follow(self.do_request(url, headers=headers, scope=scope), headers or {})
                if response.status_code == 404:
                    dismiss(response)
                    return None
                if response.status_code != 200:
                    raise self.refusal(response, what)
                return response, read_bounded(response, limit, what)
            except NetworkError as error:
                attempts.again(error)

    def next_page(self, response: requests.Response) -> str | None:
        """Where a list goes on, None at its end. Raises PolicyError for a foreign address, ContentError for none."""
        header = response.headers.get("Link", "")
        links = parse_header_links(header)
        found = next((link["url"] for link in links if "next" in _relations(link)), None)
        # A single link that does not say what it is, as some registries write it.
        if found is None and len(links) == 1 and _is_of(links[0], response.url):
            found = links[0]["url"]
        # A list that goes on where nobody can follow is not passed for a whole one.
        if found is None and "next" in header.lower():
            where = redacted(response.url)
            message = f"{where}: where the list goes on cannot be read: {self.quoted(header)}"
            raise ContentError(message, code="SCHEMA", object=where)
        if found is None:
            return None
        following = joined(response.url, found)
        # It is asked for with our credentials.
        if not self.is_home(following):
            raise PolicyError(f"{self.origin} continues its list at {redacted(following)}", object=redacted(following))
        return following

    def quoted(self, value: str) -> str:
        """What a server said, for a message: short, harmless on a terminal, and without our secrets."""
        return shown(without(self.auth.secrets(), value))

    def is_lost(self, url: str) -> bool:
        """Whether a URL is of a host that could not be reached in this run, and never has been."""
        return Origin.of(url) in self._lost

    def is_home(self, url: str) -> bool:
        """Whether a URL is of the registry itself, which alone gets credentials."""
        return Origin.of(url) == self.origin

    def url(self, path: str) -> str:
        """An absolute URL below `/v2/`."""
        return f"{self.base}/v2/{path}"

    def get_container(self, name: str | Container) -> Container:
        """As oras, for references that are legal and name their registry. Raises UsageError."""
        if isinstance(name, Container):
            return name
        reference = Reference.parse(name)
        if reference.registry != self.hostname:
            raise PolicyError(f"{reference.registry} is not the registry {self.hostname}", object=str(reference))
        return Container(str(reference))

    def _scope_of(self, url: str, method: str) -> Scope:
        found = _PATH.search(urlsplit(url).path)
        actions = PULL if method in ("GET", "HEAD") else PUSH
        return Scope(found[1], actions) if found else Scope()

    def _send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: bytes | Body | None = None,
        timeout: float | None = None,
    ) -> requests.Response:
        origin = Origin.of(url)
        limits, proxy = self.settings.timeouts, self.settings.proxies.choose(url)
        where = redacted(url) + (f" (through the proxy {proxy_name(proxy)})" if proxy else "")
        if (left := self.settings.left) <= 0:
            raise NetworkError(f"{where}: not asked, for the time was up", object=where, retryable=False)
        try:
            with foreign_errors(where, asking=True), sending(url, min(limits.answer, left), left):
                response: requests.Response = self.session.request(
                    method,
                    url,
                    data=data,
                    headers=dict(headers),
                    stream=True,
                    verify=self._tls_verify,
                    allow_redirects=False,
                    timeout=(min(limits.connect, left), min(timeout or limits.answer, left)),
                    proxies={"all": proxy} if proxy else {},
                )
        except UnreachableError as error:
            # It was there, and had a session opened before. Who is away by now is met at the next question.
            if isinstance(data, Body) and data.begun:
                raise NetworkError(error.message, object=error.object) from error
            # A host that has answered before is away; one that never did may be misspelt (see `Attempts`).
            error.met = origin in self._met
            if not error.met:
                self._lost.add(origin)
            raise
        if response.status_code == 407:
            raise _unknown_to(proxy, response)
        self._met.add(origin)
        self._lost.discard(origin)
        self._debug(method, url, headers, data, response)
        if origin == self.origin:
            self._pass_warnings(response)
        return response

    def _pass_warnings(self, response: requests.Response) -> None:
        """Show what the registry wants its users to know (distribution-spec, "Warnings"), each text once."""
        for text in _WARNING.findall(response.headers.get("Warning", "")[:_WARNING_LIMIT]):
            said = self.quoted(text.replace('\\"', '"'))
            if said not in self._warned and len(self._warned) < _WARNINGS:
                self._warned.add(said)
                self.settings.on_event(Event(event="warning", message=f"{self.hostname} says: {said}"))

    def _introduce(self, method: str, url: str, **options: Any) -> requests.Response:
        """An exchange with a token service, which may want to see our certificate as the registry does."""
        self._introduced.add(Origin.of(url))
        return self._send(method, url, **options)

    def _adapter(self, url: str) -> Adapter:
        """What makes connections; TLS is set up when it is first needed."""
        encrypted = url[:6].lower() == "https:"
        # Our certificate says who we are: storages and strangers that a redirect leads to are not told.
        known = encrypted and self.settings.cert_file is not None and Origin.of(url) in self._introduced
        if (adapter := self._adapters.get((encrypted, known))) is None:
            tls = self._context(identified=known) if encrypted else None
            adapter = self._adapters.setdefault((encrypted, known), Adapter(tls, self._context))
        return adapter

    def _context(self, *, identified: bool = False) -> ssl.SSLContext:
        return context_of(self.settings.trust, self.settings.warn, identified=identified)

    def _debug(
        self, method: str, url: str, headers: Mapping[str, str], data: object, response: requests.Response
    ) -> None:
        say = self.settings.on_debug
        if say is None:
            return
        secrets = self.auth.secrets()
        names = ", ".join(f"{name}: {_shown(name, value)}" for name, value in headers.items())
        length = f" [{len(data)} bytes]" if isinstance(data, bytes | Body) else ""
        answer = ", ".join(
            f"{name}: {_shown(name, without(secrets, value))}"
            for name, value in response.headers.items()
            if name.title() in _SHOWN_ANSWER
        )
        say(f"{method} {redacted(without(secrets, url))} ({names}){length} -> {response.status_code} ({answer})")

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("this method of oras is not fit for snapshots; RegistryRepository has one that is")

    pull = push = login = logout = _refuse
    delete_tag = delete_tags = get_manifest = upload_manifest = _refuse
    upload_blob = download_blob = put_upload = chunked_upload = get_blob = blob_exists = _refuse


def _is_downgrade(here: Origin, there: Origin) -> bool:
    return here.scheme == "https" and there.scheme != "https"


_SHOWN_ANSWER = frozenset(
    {"Content-Length", "Content-Type", "Content-Range", "Range", "Location", "Docker-Content-Digest", "Retry-After"}
    | {"Www-Authenticate", "Link", "Server", "Warning", "X-Request-Id", "Traceparent"}
)


def _shown(name: str, value: str) -> str:
    if name.lower() == "authorization":
        return f"{value.partition(' ')[0]} …"
    return redacted(value) if name.lower() in ("location", "link") else shown(value, 300).strip('"')


def _with(headers: Mapping[str, str], authorization: str | None) -> dict[str, str]:
    return {**headers, "Authorization": authorization} if authorization else dict(headers)


def _unknown_to(proxy: str | None, response: requests.Response) -> AccessError:
    dismiss(response)
    name = f"the proxy {proxy_name(proxy)}" if proxy else "a proxy"
    return AccessError(
        f"{redacted(response.url)}: {name} wants to know who asks (407)",
        object=name,
        hint=PROXY_LOGIN,
    )


def read_bounded(response: requests.Response, limit: int, what: str) -> bytes:
    """The body of an answer, whole and as it came, whatever encoding is claimed. Raises ContentError, NetworkError."""
    blocks, size = [], 0
    with foreign_errors(what):
        for block in response.raw.stream(64 << 10, decode_content=False):
            blocks.append(block)
            size += len(block)
            if size > limit:
                response.close()
                raise ContentError(f"{what} is larger than the {limit} bytes allowed", code="SIZE", object=what)
    return b"".join(blocks)


def header_digest(response: requests.Response) -> Digest | None:
    """What `Docker-Content-Digest` says, None when it says nothing that is a digest."""
    try:
        return Digest.parse(response.headers.get("Docker-Content-Digest"))
    except ContentError:
        return None


def _is_of(link: Mapping[str, str], url: str) -> bool:
    """Whether a link that does not say what it is leads to another page of the list at `url`, as others take it."""
    if "rel" in {name.lower() for name in link}:
        return False
    here, there = urlsplit(url), urlsplit(joined(url, link["url"]))
    return there.path == here.path and "last=" in there.query


def _relations(link: Mapping[str, str]) -> list[str]:
    """What a link of a `Link` header is to the page: its `rel`, however it is spelt (RFC 8288, 3.3)."""
    return [word for name, value in link.items() if name.lower() == "rel" for word in value.lower().split()]
