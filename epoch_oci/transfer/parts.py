"""Part digests: found in one pass over a blob, and remembered, for a blob never changes."""

import contextlib
import hashlib
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable, spans
from epoch_oci.oci.verify import BLOCK, VerifyingReader
from epoch_oci.stores.base import Content

_AHEAD = 4


def part_digests(content: Content, blob: Descriptor, part_size: int) -> Iterator[Digest]:
    """The digest of each part of `part_size` bytes, as soon as it has been read; `content` is read once.

    The whole is hashed beside the parts (hashlib lets go of the interpreter lock), and memory stays at a few blocks.
    Raises ContentError in place of the last digest when the content is not `blob`, and CancelledError.
    """
    with content.open() as reader, _Hasher() as parts:
        whole = VerifyingReader(reader, blob)
        for _, length in spans(blob.size, part_size):
            left = length
            while left:
                block = whole.read(min(BLOCK, left))
                left -= len(block)
                parts.feed(block)
            yield parts.end()


def part_table(content: Content, blob: Descriptor, part_size: int) -> PartTable:
    """Every part's digest. Raises as `part_digests`."""
    return PartTable(size=part_size, digests=tuple(part_digests(content, blob, part_size)))


class _Hasher:
    """A thread that hashes what it is fed, part after part."""

    def __init__(self) -> None:
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._digests: queue.Queue[Digest] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="part-digests", daemon=True)

    def __enter__(self) -> "_Hasher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks.put(None)
        self._thread.join()

    def feed(self, block: bytes) -> None:
        """Hash one more block of the current part."""
        self._blocks.put(block)

    def end(self) -> Digest:
        """The current part is complete: its digest."""
        self._blocks.put(b"")
        return self._digests.get()

    def _work(self) -> None:
        hasher = hashlib.sha256()
        while (block := self._blocks.get()) is not None:
            if block:
                hasher.update(block)
                continue
            self._digests.put(Digest("sha256", hasher.hexdigest()))
            hasher = hashlib.sha256()


class PartCache:
    """Part tables in a directory of small files, by (blob digest, part size). What cannot be read is made anew."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def table(self, content: Content, blob: Descriptor, part_size: int) -> PartTable:
        """The table of `blob`, from the cache or by reading `content`. Raises what `part_table` raises."""
        if (known := self.known(blob, part_size)) is not None:
            return known
        table = part_table(content, blob, part_size)
        self.learn(blob, table)
        return table

    def known(self, blob: Descriptor, part_size: int) -> PartTable | None:
        """The table of `blob`, None when it is not in the cache."""
        return _load(self._path(blob, part_size), blob, part_size)

    def forget(self, blob: Descriptor, part_size: int) -> None:
        """The table proved wrong."""
        with contextlib.suppress(OSError):
            self._path(blob, part_size).unlink()

    def _path(self, blob: Descriptor, part_size: int) -> Path:
        return self._directory / f"{blob.digest.hex}-{part_size}.json"

    def learn(self, blob: Descriptor, table: PartTable) -> None:
        """Keep a table. A cache that cannot be written is no reason to fail."""
        path = self._path(blob, table.size)
        scratch = path.with_name(f".{path.name}.{threading.get_ident()}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.write_text(json.dumps([digest.hex for digest in table.digests]), encoding="ascii")
            scratch.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                scratch.unlink()


def _load(path: Path, blob: Descriptor, part_size: int) -> PartTable | None:
    try:
        digests = tuple(Digest.from_hex(item) for item in json.loads(path.read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError, ContentError):
        return None
    if len(digests) != len(list(spans(blob.size, part_size))):
        return None
    return PartTable(size=part_size, digests=digests)
