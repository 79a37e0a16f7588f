"""A store of one's own: snapshots in one SQLite file. `own_store.py FILE STORE SNAPSHOT` takes one in, and out again.

A store is a class with the methods of `epoch_oci.SnapshotStore`; every verb takes an open store where it takes the
name of one. Promised is what the protocols say: what is visible is whole, and errors are those of `epoch_oci`.
"""

import contextlib
import io
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from epoch_oci import (
    ConflictError,
    Content,
    Descriptor,
    Document,
    Manifest,
    NotFoundError,
    SnapshotEntry,
    SnapshotKey,
    VerifyingReader,
    list_snapshots,
    pull,
    push,
    verify,
)

CHUNK = 1 << 20
MEDIA_TYPE = "application/vnd.epoch.manifest.v1+json"
TABLES = """
CREATE TABLE IF NOT EXISTS blobs (digest TEXT, size INTEGER, number INTEGER, bytes BLOB, PRIMARY KEY (digest, number));
CREATE TABLE IF NOT EXISTS manifests (name TEXT PRIMARY KEY, raw BLOB);
"""


@dataclass(frozen=True)
class StoredBlob:
    """A blob that can be opened from any offset; nothing in it is trusted before it was hashed by whoever reads it."""

    store: "SqliteStore"
    target: Descriptor

    @property
    def size(self) -> int:
        """Length in bytes, as declared."""
        return self.target.size

    def open(self, start: int = 0, length: int | None = None) -> contextlib.AbstractContextManager[io.BufferedReader]:
        """A reader of `length` bytes (None: all) from `start`."""
        if not self.store.has(self.target):
            raise NotFoundError(f"{self.target.digest} is not in {self.store.where}", object=str(self.target.digest))
        end = self.size if length is None else start + length
        return contextlib.closing(io.BufferedReader(_Rows(self.store, str(self.target.digest), start, end)))


class _Rows(io.RawIOBase):
    """The bytes of a blob from `position` to `end`, row by row."""

    def __init__(self, store: "SqliteStore", digest: str, position: int, end: int) -> None:
        self._store, self._digest, self._position, self._end = store, digest, position, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        number, offset = divmod(self._position, CHUNK)
        row = self._store.one("SELECT bytes FROM blobs WHERE digest = ? AND number = ?", self._digest, number)
        block = row[0][offset : offset + min(len(buffer), self._end - self._position)] if row else b""
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)


class SqliteStore:
    """Snapshots in one file. Every thread has a connection of its own, for verbs read and write in several."""

    def __init__(self, path: str) -> None:
        self._path = path
        with self._connected() as database:
            database.executescript(TABLES)

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"sqlite:{self._path}"

    def resolve(self, name: str) -> Document:
        """The exact bytes under NAME:TAG. Raises NotFoundError."""
        row = self.one("SELECT raw FROM manifests WHERE name = ?", name)
        if row is None:
            raise NotFoundError(f"there is no {name} in {self.where}", object=name)
        return Document(MEDIA_TYPE, row[0])

    def snapshots(self) -> Iterator[SnapshotEntry]:
        """Every snapshot, by name then tag."""
        with self._connected() as database:
            names = [name for (name,) in database.execute("SELECT name FROM manifests")]
        yield from sorted(SnapshotEntry(*name.rsplit(":", 1)) for name in names)

    def find(self, word: str) -> SnapshotKey:
        """The snapshot that NAME[:TAG] names."""
        return SnapshotKey.parse(word)

    def has(self, target: Descriptor) -> bool:
        """Whether a blob of this digest and size is here."""
        row = self.one("SELECT max(size) FROM blobs WHERE digest = ?", str(target.digest))
        return row is not None and row[0] == target.size

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        """Whether it need not be put. `anew` asks for the bytes to be hashed once more."""
        if not self.has(target):
            return False
        if anew:
            with self.content(target).open() as reader:
                VerifyingReader(reader, target).exhaust()
        return True

    def content(self, target: Descriptor) -> Content:
        """The blob; absence shows when it is opened."""
        return StoredBlob(self, target)

    def put(self, target: Descriptor, content: Content) -> None:
        """Store a blob, all of it or nothing: the transaction ends after the last byte was verified."""
        with self._connected() as database, content.open() as reader:
            database.execute("DELETE FROM blobs WHERE digest = ?", (str(target.digest),))
            database.execute("INSERT INTO blobs VALUES (?, ?, -1, '')", (str(target.digest), target.size))
            verified = io.BufferedReader(_Reader(VerifyingReader(reader, target)), CHUNK)
            for number, block in enumerate(iter(lambda: verified.read(CHUNK), b"")):
                database.execute("INSERT INTO blobs VALUES (?, ?, ?, ?)", (str(target.digest), 0, number, block))

    def expect(self, name: str, document: Document, *, replace: bool = False) -> bool:
        """Whether it is here already; asked before the blobs come."""
        row = self.one("SELECT raw FROM manifests WHERE name = ?", name)
        if row is not None and row[0] != document.raw and not replace:
            raise ConflictError(f"{name} in {self.where} is another snapshot", object=name)
        return row is not None and row[0] == document.raw

    def publish(self, name: str, document: Document, *, replace: bool = False) -> None:
        """Make a manifest visible, after all it refers to is here."""
        for blob in Manifest.parse(document).descriptors:
            if blob.size and not self.has(blob):
                raise NotFoundError(f"{blob.digest} is not in {self.where}", object=str(blob.digest))
        with self._connected() as database:
            database.execute("BEGIN IMMEDIATE")  # nobody else writes between the look and the row
            self.expect(name, document, replace=replace)
            database.execute("INSERT OR REPLACE INTO manifests VALUES (?, ?)", (name, document.raw))

    def one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """The first row of an answer."""
        with self._connected() as database:
            row: tuple[Any, ...] | None = database.execute(query, values).fetchone()
        return row

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A transaction: committed at the end, undone by an exception."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as database, database:
            yield database


class _Reader(io.RawIOBase):
    """A verifying reader as a stream of Python's, so that blocks come in one size."""

    def __init__(self, inner: VerifyingReader) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        block = self._inner.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def main(path: str, store: str, snapshot: str) -> int:
    """Into the file, and out of it again; both ways through a layout, where the digest is the same."""
    first = push(snapshot, to=f"oci:{path}.in", store=store)
    pull(f"oci:{path}.in", SqliteStore(path))
    assert verify(snapshot, store=SqliteStore(path)).ok
    again = push(snapshot, to=f"oci:{path}.out", store=SqliteStore(path))
    assert again.digest == first.digest
    for row in list_snapshots(SqliteStore(path)):
        print(f"{row.size:>14} {row.key}")
    print("the same", again.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
