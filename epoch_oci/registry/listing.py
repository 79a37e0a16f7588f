"""Lists in pages (distribution-spec, "Listing Tags"). A list that may be short is never passed for a whole one."""

import json
from collections.abc import Iterator
from urllib.parse import quote

from epoch_oci.errors import ContentError, NotFoundError, UsageError
from epoch_oci.events import Event
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import RegistryClient

_PAGE_LIMIT = 4 << 20
_PAGE = 1_000
"""Items that are asked for: some registries have no way on from a page of their own size, and none takes more."""
_PAGES = 1_000
_ITEMS = 100_000


def pages(client: RegistryClient, url: str, key: str, what: str, *, scope: Scope | None = None) -> Iterator[str]:
    """The texts under `key` of every page, each once. Raises NotFoundError, ContentError, PolicyError."""
    return _List(client, url, key, what, scope).items()


class _List:
    def __init__(self, client: RegistryClient, url: str, key: str, what: str, scope: Scope | None) -> None:
        self._client, self._url, self._key, self._what, self._scope = client, url, key, what, scope
        self._seen: set[str] = set()
        self._asked: set[str] = set()

    def items(self) -> Iterator[str]:
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
