"""Part digests: found in one pass over a blob, and remembered, for a blob never changes."""

import contextlib
import hashlib
import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable, spans
from epoch_oci.oci.verify import BLOCK, ByteReader, VerifyingReader
from epoch_oci.stores.base import Content

_AHEAD = 4


def part_table(content: Content, blob: Descriptor, part_size: int) -> PartTable:
    """Hash `content` once, whole and in parts of `part_size` bytes. Raises ContentError when it is not `blob`.

    The two hashes run side by side (hashlib lets go of the interpreter lock); memory stays at a few blocks.
    """
    digests: list[Digest] = []
    with content.open() as reader:
        whole = VerifyingReader(reader, blob)
        with _Hasher(digests.append) as parts:
            for _, length in spans(blob.size, part_size):
                for block in _exactly(whole, length):
                    parts.feed(block)
                parts.end()
    return PartTable(size=part_size, digests=tuple(digests))


def _exactly(reader: ByteReader, length: int) -> "Any":
    while length:
        block = reader.read(min(BLOCK, length))
        length -= len(block)
        yield block


class _Hasher:
    """A thread that hashes what it is fed, part after part."""

    def __init__(self, done: Callable[[Digest], None]) -> None:
        self._done = done
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._work, name="part-digests")

    def __enter__(self) -> "_Hasher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks.put(None)
        self._thread.join()

    def feed(self, block: bytes) -> None:
        """Hash one more block of the current part."""
        self._blocks.put(block)

    def end(self) -> None:
        """The current part is complete."""
        self._blocks.put(b"")

    def _work(self) -> None:
        hasher = hashlib.sha256()
        while (block := self._blocks.get()) is not None:
            if block:
                hasher.update(block)
                continue
            self._done(Digest("sha256", hasher.hexdigest()))
            hasher = hashlib.sha256()


class PartCache:
    """Part tables in a directory of small files, by (blob digest, part size). What cannot be read is made anew."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def table(self, content: Content, blob: Descriptor, part_size: int) -> PartTable:
        """The table of `blob`, from the cache or by reading `content`. Raises what `part_table` raises."""
        path = self._directory / f"{blob.digest.hex}-{part_size}.json"
        known = _load(path, blob, part_size)
        if known is not None:
            return known
        table = part_table(content, blob, part_size)
        self._save(path, table)
        return table

    def _save(self, path: Path, table: PartTable) -> None:
        """A cache that cannot be written is no reason to fail."""
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
