"""Which files of a snapshot are cut into parts for a target, and what is known of the parts beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epoch_oci.epoch.manifest import Manifest
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable, fitting_size, spans
from epoch_oci.stores.base import Content, Remote, Sink
from epoch_oci.transfer.parts import PartCache, part_table


@dataclass(slots=True)
class Cuts:
    """The parts of a snapshot's large files. `tables` has those whose digests are known, `late` the size of others'.

    `cache` remembers the tables; None is nowhere.
    """

    cache: PartCache | None
    tables: dict[Digest, PartTable] = field(default_factory=dict)
    late: dict[Digest, int] = field(default_factory=dict)
    remembered: dict[Digest, Descriptor] = field(default_factory=dict)

    def foreseen(self, manifest: Manifest) -> Mapping[Digest, PartTable]:
        """A table for every file that is cut. Those that are not known have made-up digests, and all else is right."""
        sizes = {blob.digest: blob.size for blob in manifest.descriptors}
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


def plan_cuts(manifest: Manifest, sink: Sink, wanted: int | None, cache: Path | None) -> Cuts:
    """How the files of `manifest` are cut; nothing is read but the `cache`.

    `wanted` is a size in bytes, 0 for whole files, None for what the sink is known to need.
    """
    cuts = Cuts(PartCache(cache) if cache is not None else None)
    for blob in manifest.descriptors:
        if (size := cut_size(blob, sink, wanted)) is None:
            continue
        known = cuts.cache.known(blob, size) if cuts.cache is not None else None
        if known is None:
            cuts.late[blob.digest] = size
        else:
            cuts.tables[blob.digest], cuts.remembered[blob.digest] = known, blob
    return cuts


def cut_size(blob: Descriptor, sink: Sink, wanted: int | None) -> int | None:
    """The size of the parts that `blob` is cut into, in bytes; None when it travels whole."""
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
    return PartTable(size=size, digests=tuple(Digest.of(f"{blob} part {index}".encode()) for index in range(count)))
