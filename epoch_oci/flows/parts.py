"""Which files of a snapshot are cut into parts for a target, and how."""

from collections.abc import Mapping
from pathlib import Path

from epoch_oci.epoch.manifest import Manifest
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable, fitting_size
from epoch_oci.stores.base import Limited, Sink, Source
from epoch_oci.transfer.parts import PartCache, part_table


def part_tables(
    source: Source, manifest: Manifest, sink: Sink, wanted: int | None, cache: Path | None
) -> Mapping[Digest, PartTable]:
    """The part digests of every blob that is larger than the part size, found by reading it or in `cache`.

    `wanted` is a size in bytes, 0 for whole files, None for what the sink is known to need. Raises what reading raises.
    """
    size = wanted if wanted is not None else _needed(sink)
    if not size:
        return {}
    remembered = PartCache(cache) if cache is not None else None
    tables = {}
    for blob in manifest.descriptors:
        if blob.size > size:
            content, cut = source.content(blob), fitting_size(blob.size, size)
            table = remembered.table(content, blob, cut) if remembered else part_table(content, blob, cut)
            tables[blob.digest] = table
    return tables


def _needed(sink: Sink) -> int:
    return (sink.limits().part_size or 0) if isinstance(sink, Limited) else 0
