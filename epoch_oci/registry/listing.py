"""Lists in pages (distribution-spec, "Listing Tags")."""

import json
import re
from collections.abc import Iterator

import requests

from epoch_oci.errors import ContentError, NotFoundError, PolicyError
from epoch_oci.registry.client import RegistryClient
from epoch_oci.registry.origin import joined, redacted

_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)
_PAGE_LIMIT = 4 << 20
_PAGES = 1_000
_ITEMS = 100_000


def pages(client: RegistryClient, url: str, key: str, what: str) -> Iterator[str]:
    """The texts under `key` of every page, each once. Raises NotFoundError, ContentError, PolicyError."""
    seen: set[str] = set()
    for _ in range(_PAGES):
        found = client.read(url, what=what, limit=_PAGE_LIMIT)
        if found is None:
            raise NotFoundError(f"{what} is not there", object=what)
        following = _next(client, found[0])
        items = _items(found[1], key, what)
        for item in items:
            if item not in seen:
                seen.add(item)
                yield item
        if following is None or following == url:
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


def _next(client: RegistryClient, response: requests.Response) -> str | None:
    found = _NEXT.search(response.headers.get("Link", ""))
    if found is None:
        return None
    url = joined(response.url, found[1])
    if not client.is_home(url):
        raise PolicyError(f"{client.origin} continues its list at {redacted(url)}", object=redacted(url))
    return str(url)
