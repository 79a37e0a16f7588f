"""A key space in a bucket of an object store, through `obstore`: S3, Google Cloud Storage, Azure.

An object appears whole or not at all, as these stores promise. What a killed process began in parts stays invisible
in the bucket until its lifecycle rules remove it.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from epoch_oci.disk.local import unheard
from epoch_oci.errors import AccessError, ContentError, EpochOciError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.verifying import ByteReader
from epoch_oci.stores.backends.base import Change, Opener, Stored, check_key
from epoch_oci.stores.backends.object_conditions import HIDDEN, Place, SharedObjects
from epoch_oci.stores.backends.object_errors import foreign_errors
from epoch_oci.stores.backends.object_streams import ObjectReader, Patience, upload

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class ObjectStoreBackend:
    """Objects of a bucket whose names begin with `prefix`. Safe for threads and processes.

    `where` is what people call the place, the prefix included; keys are put behind it in messages. `warn` is told
    when the store turns out not to write on condition. `first_page` as in `Listing`.
    """

    def __init__(
        self,
        store: "ObjectStore",
        where: str,
        prefix: str = "",
        *,
        patience: Patience | None = None,
        warn: Callable[[str], None] = unheard,
        first_page: "ObjectStore | None" = None,
    ) -> None:
        self._place = Place(store, where, prefix)
        self._listing = Listing(store, where, first_page)
        self._patience = patience or Patience()
        self._shared = SharedObjects(self._place, self._patience, warn)

    def check(self) -> None:
        """As `Backend.check`: whether there is such a bucket. A prefix that holds nothing is an empty store."""
        # Epoch takes a bucket that is not there for an empty one (epoch-formats 2.1), and who misspells it shall hear
        # of it.
        next(self._list(self._place.prefix), None)

    def head(self, key: str) -> int | None:
        """As `Backend.head`."""
        import obstore

        path = self._path(key)
        try:
            with foreign_errors(self._place.what(key)):
                return obstore.head(self._place.store, path)["size"]
        except NotFoundError:
            return None

    @contextmanager
    def open(self, key: str, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Backend.open`. A body that breaks off is gone on with from there."""
        path, what = self._path(key), self._place.what(key)
        reader = ObjectReader(self._place.store, path, what, start, length, self._patience)
        reader.begin()
        try:
            yield reader
        finally:
            reader.close()

    def holds(self, key: str, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Backend.holds`: a look."""
        return self.head(key) == target.size

    def write(self, key: str, content: Opener, size: int, *, digest: Digest | None = None) -> None:
        """As `Backend.write`. Large objects go in parts; the upload is aborted when the content fails."""
        path, what = self._path(key), self._place.what(key)
        with content() as reader:
            upload(self._place.store, path, what, reader, size)

    def update(self, key: str, change: Change, *, limit: int) -> bool:
        """As `Backend.update`, by compare-and-set where the store can."""
        self._path(key)
        return self._shared.update(key, change, limit=limit)

    def assemble(self, key: str, target: Descriptor) -> None:
        """As `Backend.assemble`: an object comes whole or not at all."""

    def file(self, key: str) -> None:
        """As `Backend.file`: it is none."""

    def keys(self, prefix: str) -> Iterator[str]:
        """As `Backend.keys`, page by page. Raises ContentError (NAME) for an object that no path can name."""
        whole, hidden = self._place.prefix + prefix, self._place.prefix + HIDDEN
        for path in self._list(whole):
            if path.startswith(whole) and not path.startswith(hidden):
                yield path[len(self._place.prefix) :]

    @property
    def is_shared(self) -> bool:
        """As `DatedBackend.is_shared`."""
        return True

    def dated(self, prefix: str) -> Iterator[Stored]:
        """As `DatedBackend.dated`."""
        whole, hidden = self._place.prefix + prefix, self._place.prefix + HIDDEN
        for item in self._items(whole):
            path = item["path"]
            if path.startswith(whole) and not path.startswith(hidden):
                key = path[len(self._place.prefix) :]
                yield Stored(key, item["size"], item["last_modified"].timestamp())

    def leftovers(self, prefix: str, older: float, *, remove: bool) -> list[Stored]:
        """As `DatedBackend.leftovers`: uploads that were broken off show in no listing; the bucket's rules end them."""
        return []

    def delete(self, key: str) -> None:
        """As `Backend.delete`."""
        import obstore

        path = self._path(key)
        try:
            with foreign_errors(self._place.what(key)):
                obstore.delete(self._place.store, path)
        except NotFoundError:
            return

    def flush(self, prefix: str) -> None:
        """As `Backend.flush`: an object store answers when it is durable."""

    def _path(self, key: str) -> str:
        """The object's name. Raises ContentError (NAME) for one that `obstore` cannot ask for, or that is ours."""
        check_key(key)
        # obstore encodes names as paths do, and some characters come back as others.
        if any(char < " " or char == "\x7f" for char in key):
            raise ContentError(f"the key {shown(key)} has a control character", code="NAME", object=shown(key))
        if key.startswith(HIDDEN):
            raise ContentError(f"the key {key} is reserved", code="NAME", object=key)
        return self._place.path(key)

    def _list(self, prefix: str) -> Iterator[str]:
        """Names of all objects in the folder that `prefix` ends in, and below it."""
        return (item["path"] for item in self._items(prefix))

    def _items(self, prefix: str) -> Iterator[Any]:
        return self._listing.items(prefix.rpartition("/")[0])


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
