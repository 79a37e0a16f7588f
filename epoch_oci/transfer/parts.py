"""Part digests: found in one pass over a blob, and remembered, for a blob never changes."""

import hashlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from epoch_oci.disk.facts import Facts
from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable, spans
from epoch_oci.oci.verify import BLOCK, VerifyingReader
from epoch_oci.stores.base import Content

# Blocks that reading may be ahead of hashing: one to work on, the others for when one of the two stumbles.
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
    """Part tables by (blob digest, part size), among what is remembered in `directory`. What is lost is made anew."""

    def __init__(self, directory: Path) -> None:
        self._facts = Facts(directory)

    def table(self, content: Content, blob: Descriptor, part_size: int) -> PartTable:
        """The table of `blob`, from the cache or by reading `content`. Raises what `part_table` raises."""
        if (known := self.known(blob, part_size)) is not None:
            return known
        table = part_table(content, blob, part_size)
        self.learn(blob, table)
        return table

    def known(self, blob: Descriptor, part_size: int) -> PartTable | None:
        """The table of `blob`, None when it is not in the cache."""
        text = self._facts.recall("parts", _key(blob, part_size)) or ""
        try:
            digests = tuple(Digest.from_hex(item) for item in text.split())
        except ContentError:
            return None
        # A file that was cut off, or made by another version, is as if it were not there (decision D18).
        count = len(list(spans(blob.size, part_size)))
        return PartTable(size=part_size, digests=digests) if len(digests) == count else None

    def learn(self, blob: Descriptor, table: PartTable) -> None:
        """Keep a table."""
        text = " ".join(digest.hex for digest in table.digests)
        self._facts.keep("parts", _key(blob, table.size), text)

    def forget(self, blob: Descriptor, part_size: int) -> None:
        """The table proved wrong."""
        self._facts.forget("parts", _key(blob, part_size))


def _key(blob: Descriptor, part_size: int) -> str:
    return f"{blob.digest} {blob.size} {part_size}"
