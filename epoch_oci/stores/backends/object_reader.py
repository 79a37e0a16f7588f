"""An object read as a stream, taken up again where it broke off."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from epoch_oci.errors import ContentError, NetworkError, NotFoundError
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.backends.object_errors import foreign_errors, status_of

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

# What a store says to a range behind the end of an object: for a reader that is the end.
_UNSATISFIABLE = 416


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often to try, and how long to wait in between: `first` seconds, twice as long each time up to `longest`.

    `jitter` gives 0 to 1. What `obstore` itself tries again it does so often too, and for two minutes at most.
    `settle` is how long a write that could not be made on condition is left alone before it is looked at again.
    """

    attempts: int = 8
    first: float = 0.2
    longest: float = 20.0
    settle: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def wait(self, failed: int) -> None:
        """Sleep before the next attempt, after `failed` ones."""
        self.sleep(min(self.longest, self.first * 2.0 ** min(failed, 16)) * self.jitter())


class ObjectReader:
    """Bytes of an object from `start` on, `length` of them (None: to its end). Nothing is asked before `begin`."""

    def __init__(
        self, store: "ObjectStore", path: str, what: str, start: int, length: int | None, patience: Patience
    ) -> None:
        self._store, self._path, self._what = store, path, what
        self._offset = start
        self._end = None if length is None else start + length
        self._patience = patience
        self._failed = 0
        self._blocks: Iterator[memoryview] | None = None
        self._block = memoryview(b"")

    def begin(self) -> None:
        """Ask for the object. Raises NotFoundError, AccessError, NetworkError."""
        with foreign_errors(self._what):
            self._blocks = self._ask()

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes and never more than a block; b"" at the end."""
        wanted = BLOCK if size < 0 else min(size, BLOCK)
        if not self._block and wanted:
            self._block = self._next()
        taken = bytes(self._block[:wanted])
        self._block = self._block[wanted:]
        self._offset += len(taken)
        return taken

    def close(self) -> None:
        """Give the connection up."""
        self._blocks, self._block = iter(()), memoryview(b"")

    def _next(self) -> memoryview:
        """The next bytes from the store. Only what has been handed out counts, so nothing comes twice."""
        while True:
            try:
                with foreign_errors(self._what):
                    if self._blocks is None:
                        self._blocks = self._ask()
                    block = next(self._blocks, memoryview(b""))
            except NetworkError as error:
                self._blocks = None
                self._failed += 1
                # Counted without progress: a line that breaks every gigabyte still gets there.
                if not error.retryable or self._failed >= self._patience.attempts:
                    raise
            else:
                self._failed = 0
                return block
            self._patience.wait(self._failed)

    def _ask(self) -> Iterator[memoryview]:
        import obstore
        from obstore.exceptions import GenericError

        if self._end is not None and self._offset >= self._end:
            return iter(())
        try:
            if self._end is not None:
                result = obstore.get(self._store, self._path, options={"range": (self._offset, self._end)})
            elif self._offset:
                result = obstore.get(self._store, self._path, options={"range": {"offset": self._offset}})
            else:
                result = obstore.get(self._store, self._path)
        except GenericError as error:
            if status_of(error) == _UNSATISFIABLE:
                return iter(())
            raise
        return (memoryview(block) for block in result.stream(min_chunk_size=BLOCK))


def read_small(
    store: "ObjectStore", path: str, what: str, limit: int
) -> "tuple[bytes | None, UpdateVersion | Literal['create'] | None]":
    """An object whole with its version, or None and "create" when it is not there.

    The version is None where the store names none. Raises ContentError (SIZE) for more than `limit` bytes.
    """
    import obstore

    try:
        with foreign_errors(what):
            result = obstore.get(store, path)
            blocks, size = [], 0
            for block in result.stream(min_chunk_size=BLOCK):
                blocks.append(bytes(block))
                size += len(block)
                if size > limit:
                    raise ContentError(f"{what} is larger than the {limit} bytes allowed", code="SIZE", object=what)
            meta = result.meta
    except NotFoundError:
        return None, "create"
    version: UpdateVersion = {}
    if tag := meta["e_tag"]:
        version["e_tag"] = tag
    if generation := meta["version"]:
        version["version"] = generation
    return b"".join(blocks), version or None
