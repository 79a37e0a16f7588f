"""Lists in pages (distribution-spec, "Listing Tags")."""

import json
from collections.abc import Iterator

from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import RegistryClient

_PAGE_LIMIT = 4 << 20
_PAGES = 1_000
_ITEMS = 100_000


def pages(client: RegistryClient, url: str, key: str, what: str, *, scope: Scope | None = None) -> Iterator[str]:
    """The texts under `key` of every page, each once. Raises NotFoundError, ContentError, PolicyError."""
    seen: set[str] = set()
    for _ in range(_PAGES):
        found = client.read(url, what=what, limit=_PAGE_LIMIT, scope=scope)
        if found is None:
            raise NotFoundError(f"{what} is not there", object=what)
        following = client.next_page(found[0], url)
        items = _items(found[1], key, what)
        for item in items:
            if item not in seen:
                seen.add(item)
                yield item
        if following is None:
            return
        if len(seen) > _ITEMS:
            break
        url = following
    raise ContentError(f"{what}: the list does not end", code="SIZE", object=what)


def _items(raw: bytes, key: str, what: str) -> list[str]:
    try:
        value = json.loads(raw)
        items = [] if value.get(key) is None else value[key]
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return items
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise ContentError(f"{what}: the list of {key} cannot be read", code="JSON", object=what)
