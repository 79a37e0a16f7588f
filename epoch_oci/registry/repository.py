"""A registry and its repositories as stores. A list that may be short is never passed for a whole one."""

import json
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import quote, urlencode

from epoch_oci.errors import (
    AccessError,
    ContentError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from epoch_oci.events import Event
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.parts import CUT_ABOVE, CUT_INTO
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.auth_token import Challenge
from epoch_oci.registry.client import PUSH, RegistryClient
from epoch_oci.registry.download import BlobContent, Presence
from epoch_oci.registry.http_errors import dismiss
from epoch_oci.registry.manifests import Manifests
from epoch_oci.registry.openness import Onlooker
from epoch_oci.registry.policy import Attempts, RegistrySettings
from epoch_oci.registry.profiles import Manner, profile_for, profile_told
from epoch_oci.registry.upload_journal import UploadJournal
from epoch_oci.registry.upload_session import Destination, Session
from epoch_oci.stores.base import Content, Limits, Openness

_CATALOG = Scope("catalog", "*", kind="registry")
# What registries answer that keep no catalog.
_ABSENT = frozenset({404, 405, 501})
_PAGE_LIMIT = 4 << 20
_PAGE = 1_000
"""Items that are asked for: some registries have no way on from a page of their own size, and none takes more."""
# A list without end is a fault or an attack (reliability M4).
_PAGES = 1_000
_ITEMS = 100_000
_PROBE = Descriptor(media_type=media_types.OCTET_STREAM, digest=Digest.of(b""), size=0)


class RegistryHost:
    """One registry: its connections, its tokens and what is learnt of it serve every repository. Safe for threads."""

    def __init__(self, registry: str, settings: RegistrySettings) -> None:
        self.registry = registry
        self.settings = settings
        self.client = RegistryClient(registry, settings)
        self._named = profile_for(registry, settings.profile)
        self.manner = Manner(self._named)
        # Only where nobody has said which kind it is, neither the user nor its name.
        if settings.profile is None and self._named.name == "unknown":
            self.client.auth.on_challenge = self._recognise
        state = settings.state_directory
        self.journal = UploadJournal(state / "uploads") if state is not None else None

    def catalog(self) -> Iterator[str]:
        """The name of every repository that the registry shows to us, sorted.

        Raises NotFoundError where it keeps no catalog, or none for these credentials (GHCR, GitLab, Docker Hub).
        """
        try:
            names = sorted(_Pages(self.client, self.client.url("_catalog"), "repositories", self.registry, _CATALOG))
        except (AccessError, NotFoundError, UsageError, NetworkError) as error:
            if isinstance(error, NetworkError) and error.status not in _ABSENT:
                raise
            raise NotFoundError(
                f"{self.registry} shows no catalog of its repositories ({error.message})",
                object=self.registry,
                hint=f"name the repositories: epoch-oci ls {self.registry}/REPOSITORY, or sync with --repository NAME",
            ) from error
        yield from names

    def repository(self, name: str) -> "RegistryRepository":
        """A repository of it by its full name. Raises UsageError for a name that is none."""
        return RegistryRepository(Reference.parse(f"{self.registry}/{name}"), self.settings, self)

    def _recognise(self, challenges: Sequence[Challenge]) -> None:
        """Learn from what the registry asks for which kind it is; once known, it stays."""
        if self.manner.profile is self._named and (profile := profile_told(challenges)) is not None:
            self.manner.become(profile)
            if (say := self.settings.on_debug) is not None:
                say(f"{self.client.hostname} asks for credentials as {profile.name} does, and is taken for one")


class RegistryRepository:
    """A repository as ArtifactStore and Remote. Safe for threads.

    Names of `resolve` are tags or digests, of `publish` tags.
    """

    def __init__(self, reference: Reference, settings: RegistrySettings, host: RegistryHost | None = None) -> None:
        host = host or RegistryHost(reference.registry, settings)
        self._repository = _hub_name(reference)
        self._where = reference.name
        self._client, self._manner, self._journal = host.client, host.manner, host.journal
        self._manifests = Manifests(host.client, self._repository, self._where)
        self._onlooker = Onlooker(self._client, self._repository)
        self._asking = threading.Lock()
        self._writable = False
        self._openness: dict[bool, Openness | None] = {}

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return self._where

    @property
    def path(self) -> str:
        """What the registry calls it."""
        return self._repository

    def resolve(self, name: str) -> Document:
        """As `Source.resolve`."""
        return self._manifests.resolve(name)

    def has(self, target: Descriptor) -> bool:
        """As `Source.has`."""
        return Presence(self._client, self._repository, target).known()

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Sink.holds`."""
        return self._destination(target).is_there()

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`."""
        return BlobContent(self._client, self._repository, target)

    def put(self, target: Descriptor, content: Content) -> None:
        """As `Sink.put`. What is wrong with the content is found before the registry has all of it."""
        from epoch_oci.registry.upload import Upload

        Upload(self._destination(target), content, self._journal).run()

    def publish(self, name: str, document: Document, *, replace: bool = False) -> None:
        """As `Sink.publish`: the manifest's exact bytes under a tag, looked at afterwards."""
        self._manifests.publish(name, document, replace=replace)

    def keep(self, document: Document) -> None:
        """As `ArtifactStore.keep`."""
        self._manifests.keep(document)

    def digest_of(self, name: str) -> Digest | None:
        """As `ArtifactStore.digest_of`."""
        return self._manifests.digest_of(name)

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """As `ArtifactStore.referrers`."""
        return self._manifests.referrers(digest)

    def remove(self, name: str) -> None:
        """As `Remover.remove`; a digest is removed with every tag it has.

        Raises AccessError where the registry does not delete, or would take other tags away as well.
        """
        self._manifests.remove(name, self.tags)

    def tags(self) -> Iterator[str]:
        """As `ArtifactStore.tags`: every page of the registry's list, sorted because distribution 2 does not."""
        url = self._client.url(f"{self._repository}/tags/list")
        yield from sorted(_Pages(self._client, url, "tags", self._where))

    def mount(self, target: Descriptor, repository: str) -> bool:
        """As `Remote.mount`. It is tried once, whatever the answer; an upload opened instead is cancelled."""
        if repository == self._repository:
            return False
        query = urlencode({"mount": str(target.digest), "from": repository}, safe=":/")
        url = self._client.url(f"{self._repository}/blobs/uploads/?{query}")
        try:
            response = self._client.do_request(url, "POST", data=b"", scope=Scope(self._repository, PUSH))
        except (AccessError, NotFoundError, NetworkError):  # Harbor's answer for a source that may not be read, too
            return False
        if response.status_code == 202:
            # Declined, and a session opened instead, which would take room there until it is purged.
            Session.opened(self._destination(target), response).cancel()
            return False
        dismiss(response)
        # GHCR has been seen to claim mounts that were none (oci-registries 3.4).
        return response.status_code == 201 and self._destination(target).is_there()

    def check_write(self) -> None:
        """Open an upload session and cancel it. Raises AccessError or NotFoundError before gigabytes were read."""
        with self._asking:
            if not self._writable:
                # No registry has another way to ask, and this one leaves nothing behind.
                self._destination(_PROBE).open().cancel()
                self._writable = True

    def openness(self, blob: Descriptor | None = None) -> Openness | None:
        """As `Remote.openness`. An open registry on this very machine, with no credentials in play, does not count.

        Asked once without a blob and once with one: a repository does not open up in the middle of a run.
        """
        with self._asking:
            known = self._openness
            if (blob is None) not in known:
                known[blob is None] = self._onlooker.openness(blob)
            return known[blob is None]

    def limits(self) -> Limits:
        """As `Remote.limits`. Files are cut alike for every registry, so that an artifact tells none of them."""
        profile = self._manner.profile
        return Limits(largest=profile.largest, cut_above=CUT_ABOVE, part_size=CUT_INTO, jobs=profile.jobs)

    def _destination(self, target: Descriptor) -> Destination:
        return Destination(self._client, self._repository, self._manner, target)


def _hub_name(reference: Reference) -> str:
    """Docker Hub's official repositories live under `library/`."""
    if reference.registry == "docker.io" and "/" not in reference.repository:
        return f"library/{reference.repository}"
    return reference.repository


def verify_login(registry: str, settings: RegistrySettings) -> None:
    """Ask the registry whether it takes the credentials. Raises AccessError when it does not, NetworkError."""
    client = RegistryClient(registry, settings)
    attempts = Attempts(settings, f"logging in to {registry}")
    while True:
        try:
            return client.auth.check_login(client.url(""))
        except NetworkError as error:
            attempts.again(error)


class _Pages:
    """The texts under `key` of every page of a list, each once. Raises NotFoundError, ContentError, PolicyError."""

    def __init__(self, client: RegistryClient, url: str, key: str, what: str, scope: Scope | None = None) -> None:
        self._client, self._url, self._key, self._what, self._scope = client, url, key, what, scope
        self._seen: set[str] = set()
        self._asked: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        following: str | None = f"{self._url}?n={_PAGE}"
        for _ in range(_PAGES):
            assert following is not None
            items, link = self._page(following)
            new = [item for item in dict.fromkeys(items) if item not in self._seen]
            self._seen.update(new)
            yield from new
            following = self._after(items, new, link)
            if following is None:
                return
            if len(self._seen) > _ITEMS:
                break
        raise ContentError(f"{self._what}: the list does not end", code="SIZE", object=self._what)

    def _page(self, url: str) -> tuple[list[str], str | None]:
        """The items of a page, and where it says that the next one is."""
        self._asked.add(url)
        try:
            found = self._client.read(url, what=self._what, limit=_PAGE_LIMIT, scope=self._scope)
        except UsageError:  # a registry that takes no number, or none so large
            if url == self._url or len(self._asked) > 1:
                raise
            return self._page(self._url)
        if found is None:
            raise NotFoundError(f"{self._what} is not there", object=self._what)
        return _items(found[1], self._key, self._what), self._client.next_page(found[0])

    def _after(self, items: list[str], new: list[str], link: str | None) -> str | None:
        """The next page to ask for. One that leads in a circle is asked past by name, as the specification has it."""
        if link is None or link not in self._asked:
            return link
        past = f"{self._url}?n={_PAGE}&last={quote(items[-1], safe='')}" if items else None
        if past is not None and past not in self._asked:
            return past
        if items and not new:
            text = f"{self._what}: the registry leads in a circle, so there may be more {self._key} than are listed"
            self._client.settings.on_event(Event(event="warning", message=text))
        return None


def _items(raw: bytes, key: str, what: str) -> list[str]:
    try:
        value = json.loads(raw)
        items = [] if value.get(key) is None else value[key]
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return items
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise ContentError(f"{what}: the list of {key} cannot be read", code="JSON", object=what)
