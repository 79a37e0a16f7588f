"""Which files are cut into parts for a target, and what the parts' digests are.

They are found in one pass over a blob, and remembered, for a blob never changes.
"""

import hashlib
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from epoch_oci.dataclass import dataclass
from epoch_oci.disk.facts import Facts
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable, fitting_size, spans
from epoch_oci.oci.verifying import BLOCK, VerifyingReader, sealer
from epoch_oci.stores.base import Content, Remote, Sink

# Blocks that reading may be ahead of hashing: one to work on, the others for when one of the two stumbles.
_AHEAD = 4


def part_digests(content: Content, blob: Descriptor, part_size: int) -> Iterator[tuple[Digest, bytes]]:
    """The digest of each part of `part_size` bytes, as soon as it has been read, and its seal; `content` is read once.

    The whole is hashed beside the parts (hashlib lets go of the interpreter lock), and memory stays at a few blocks.
    Raises ContentError in place of the last digest when the content is not `blob`, and CancelledError.
    """
    with content.open() as reader, _Hasher() as parts:
        whole = VerifyingReader(reader, blob)
        for start, length in spans(blob.size, part_size):
            seal, part = sealer(), hashlib.sha256()
            # The first part is how the whole begins, which is hashed as it is.
            is_begin = start == 0 and blob.digest.algorithm == part.name
            parts.begin([seal] if is_begin else [seal, part])
            left = length
            # Blocks never reach across two parts: the hash of one must end where the part does.
            while left:
                block = whole.read(min(BLOCK, left))
                left -= len(block)
                parts.feed(block)
            parts.end()
            yield whole.so_far() if is_begin else Digest(part.name, part.hexdigest()), seal.digest()


def part_table(content: Content, blob: Descriptor, part_size: int) -> PartTable:
    """Every part's digest. Raises as `part_digests`."""
    return PartTable(size=part_size, digests=tuple(digest for digest, _ in part_digests(content, blob, part_size)))


class _Hasher:
    """A thread that hashes what it is fed, part after part."""

    def __init__(self) -> None:
        self._blocks: queue.Queue[bytes | list[Any] | None] = queue.Queue(_AHEAD)
        self._through = threading.Semaphore(0)
        # A daemon, for whoever gives up on a push shall not wait for a hash of gigabytes.
        self._thread = threading.Thread(target=self._work, name="part-digests", daemon=True)

    def __enter__(self) -> "_Hasher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Also after an error, or the thread would wait for blocks for ever.
        self._blocks.put(None)
        self._thread.join()

    def begin(self, hashers: list[Any]) -> None:
        """A part begins: what comes is for these."""
        self._blocks.put(hashers)

    def feed(self, block: bytes) -> None:
        """Hash one more block of the current part."""
        self._blocks.put(block)

    def end(self) -> None:
        """The current part is complete: wait until all of it is hashed."""
        # No block of a file is empty, so that an empty one can mark the end of a part.
        self._blocks.put(b"")
        self._through.acquire()

    def _work(self) -> None:
        hashers: list[Any] = []
        while (given := self._blocks.get()) is not None:
            if isinstance(given, list):
                hashers = given
            elif given:
                for hasher in hashers:
                    hasher.update(given)
            else:
                self._through.release()


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
        # What anybody can write to on this disk is read as a hint and never as truth: the sink hashes every part again.
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
    # The size of the parts is in it: the same blob cut another way has other parts.
    return f"{blob.digest} {blob.size} {part_size}"


@dataclass(slots=True)
class Cuts:
    """The parts of a snapshot's large files. `tables` has those whose digests are known, `late` the size of others'.

    `cache` remembers the tables; None is nowhere.
    """

    cache: PartCache | None
    tables: dict[Digest, PartTable] = field(default_factory=dict)
    late: dict[Digest, int] = field(default_factory=dict)
    remembered: dict[Digest, Descriptor] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any file is cut."""
        return bool(self.tables or self.late)

    def foreseen(self, manifest: Manifest) -> Mapping[Digest, PartTable]:
        """A table for every file that is cut. Those that are not known have made-up digests, and all else is right."""
        sizes = {blob.digest: blob.size for blob in manifest.descriptors}
        # With them the artifact can be built before a byte is read: its limits, its names and what the dialect refuses
        # are known then, and only its digest is not.
        made_up = {digest: _made_up(digest, sizes[digest], size) for digest, size in self.late.items()}
        return {**self.tables, **made_up}

    def learn(self, blob: Descriptor, table: PartTable) -> None:
        """The parts of a late file have been hashed, and the whole was what it should be."""
        self.tables[blob.digest] = table
        if self.cache is not None:
            self.cache.learn(blob, table)

    def forget(self) -> bool:
        """What was remembered may be wrong: forget it. False when nothing was."""
        for digest, blob in self.remembered.items():
            assert self.cache is not None
            self.cache.forget(blob, self.tables[digest].size)
        return bool(self.remembered)


def plan_cuts(
    manifest: Manifest,
    sink: Sink,
    wanted: int | None,
    cache: Path | None,
    there: Mapping[str, int] | None = None,
) -> Cuts:
    """How the files of `manifest` are cut; nothing is read but the `cache`.

    `wanted` is a size in bytes, 0 for whole files, None for what the sink is known to need. `there` has the same by
    digest of those files that are to be cut as something else has them.
    """
    cuts = Cuts(PartCache(cache) if cache is not None else None)
    for blob in manifest.descriptors:
        if (size := cut_size(blob, sink, (there or {}).get(str(blob.digest), wanted))) is None:
            continue
        known = cuts.cache.known(blob, size) if cuts.cache is not None else None
        if known is None:
            cuts.late[blob.digest] = size
        else:
            cuts.tables[blob.digest], cuts.remembered[blob.digest] = known, blob
    return cuts


def cut_size(blob: Descriptor, sink: Sink, wanted: int | None) -> int | None:
    """The size of the parts that `blob` is cut into, in bytes; None when it travels whole."""
    # Nobody asked: what the registry is known to bear decides (oci-registries 3.1), and a layout bears anything.
    if wanted is None:
        limits = sink.limits() if isinstance(sink, Remote) else None
        above, size = (limits.cut_above, limits.part_size) if limits is not None else (None, None)
    else:
        above, size = (wanted, wanted) if wanted else (None, None)
    if above is None or size is None or blob.size <= above:
        return None
    return fitting_size(blob.size, size)


def cut_table(content: Content, blob: Descriptor, size: int, cache: Path | None) -> PartTable:
    """How `blob` is cut into parts of `size` bytes, found by reading it or in `cache`."""
    return PartCache(cache).table(content, blob, size) if cache is not None else part_table(content, blob, size)


def _made_up(blob: Digest, total: int, size: int) -> PartTable:
    count = len(list(spans(total, size)))
    # Different for each part, for two parts of one digest would be one blob.
    return PartTable(size=size, digests=tuple(Digest.of(f"{blob} part {index}".encode()) for index in range(count)))
