"""A key space in a bucket of an object store, through `obstore`: S3, Google Cloud Storage, Azure.

An object appears whole or not at all, as these stores promise. What a killed process began in parts stays invisible
in the bucket until its lifecycle rules remove it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from epoch_oci.disk.local import unheard
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.verifying import ByteReader
from epoch_oci.stores.backends.base import Change, Opener, Stored, check_key
from epoch_oci.stores.backends.object_conditions import HIDDEN, Place, SharedObjects
from epoch_oci.stores.backends.object_errors import foreign_errors
from epoch_oci.stores.backends.object_listing import Listing
from epoch_oci.stores.backends.object_reader import ObjectReader, Patience
from epoch_oci.stores.backends.object_upload import upload

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
