"""Names of objects, page by page, and whether what came was a list at all.

`obstore` takes any well-formed XML for a list without entries: a web page that a console, a portal or a proxy answers
with, an error with the status 200. An endpoint that somebody typed in is therefore looked at before it is believed, and
the end of a list is asked for once more.
"""

import re
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from epoch_oci.errors import AccessError, ContentError, EpochOciError, NotFoundError
from epoch_oci.stores.backends.object_errors import foreign_errors

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# S3's own page; asking for more brings no more.
_PAGE = 1_000
_FIRST_PAGE_LIMIT = 64 << 10
"""Bytes of a list with one entry: its key has 1,024 at most."""
_LIST = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}\?>)?\s*(?:<!--.{0,500}?-->\s*)?<(?:[A-Za-z0-9]+:)?ListBucketResult[\s/>]",
    re.DOTALL,
)


class Listing:
    """Lists `store`, which people call `where`. Safe for threads.

    `first_page` is a store of which every object is the first page of a list of the same bucket, as the endpoint wrote
    it; None where the endpoint is the cloud's own, which is believed.
    """

    def __init__(self, store: "ObjectStore", where: str, first_page: "ObjectStore | None" = None) -> None:
        self._store, self._where, self._first_page = store, where, first_page
        self._believed = first_page is None

    def items(self, folder: str) -> Iterator[dict[str, Any]]:
        """Every object below `folder` ("": all), as `obstore` tells of it.

        Raises ContentError (TYPE) for what is no list, or one without an end.
        """
        self._look()
        begun: set[str] = set()
        last = ""
        for page in self._pages(folder):
            if not page:
                continue
            if page[0]["path"] in begun:
                raise self._odd("lists the same names again and again")
            begun.add(page[0]["path"])
            last = page[-1]["path"]
            yield from page
        if self._first_page is None:
            return
        if not last:
            self._expect_nothing()
        else:
            yield from self._behind(folder, last)

    def _pages(self, folder: str, offset: str | None = None) -> Iterator[list[Any]]:
        import obstore

        # obstore lists folders and not prefixes; what lies beside is left out by whoever asked.
        with foreign_errors(self._where):
            yield from obstore.list(self._store, folder or None, offset=offset, chunk_size=_PAGE)

    def _look(self) -> None:
        """Look at the beginning of a list, once. What cannot be asked for that way is left to the list itself."""
        if self._believed or self._first_page is None:
            return
        import obstore

        raw = b""
        try:
            with foreign_errors(self._where):
                for block in obstore.get(self._first_page, "list").stream(min_chunk_size=_FIRST_PAGE_LIMIT):
                    raw += bytes(block)
                    if len(raw) > _FIRST_PAGE_LIMIT:
                        break
        except EpochOciError:
            return
        if len(raw) > _FIRST_PAGE_LIMIT or _LIST.match(raw) is None:
            raise self._odd("answers with something else than a list of objects")
        self._believed = True

    def _expect_nothing(self) -> None:
        """Of a list without entries that could not be looked at: an object store lacks what nobody ever put there."""
        if self._believed:
            return
        import obstore

        try:
            with foreign_errors(self._where):
                obstore.head(self._store, f"epoch-oci-{secrets.token_hex(16)}")
        except (NotFoundError, AccessError):
            return
        except EpochOciError as error:
            raise self._odd(f"lists nothing, and is odd in other ways ({error.message})") from None
        raise self._odd("has an object of whatever name")

    def _behind(self, folder: str, last: str) -> Iterator[dict[str, Any]]:
        """What is listed behind `last`, which a page that was no page would have hidden."""
        while True:
            seen, end = False, last
            for page in self._pages(folder, _shortly_before(last)):
                for item in page:
                    seen = seen or item["path"] == last
                    if item["path"] > end:
                        end = item["path"]
                        yield item
            if not seen:
                raise self._odd("lists a name, and then not any more")
            if end == last:
                return
            last = end

    def _odd(self, what: str) -> ContentError:
        return ContentError(
            f"{self._where}: the endpoint {what}",
            code="TYPE",
            object=self._where,
            hint="is it that of an object store, and not of its console or of a proxy?",
        )


def _shortly_before(name: str) -> str:
    """A name that comes before this one, with hardly another between them."""
    before = ord(name[-1]) - 1
    return f"{name[:-1]}{chr(0xD7FF if 0xD800 <= before <= 0xDFFF else before)}~~~~"
