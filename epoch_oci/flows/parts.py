"""Which files of a snapshot are cut into parts for a target, and how."""

from collections.abc import Mapping
from pathlib import Path

from epoch_oci.epoch.manifest import Manifest
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable, fitting_size
from epoch_oci.stores.base import Content, Limited, Sink, Source
from epoch_oci.transfer.parts import PartCache, part_table


def part_tables(
    source: Source, manifest: Manifest, sink: Sink, wanted: int | None, cache: Path | None
) -> Mapping[Digest, PartTable]:
    """The part digests of every blob that is larger than the part size, found by reading it or in `cache`.

    `wanted` is a size in bytes, 0 for whole files, None for what the sink is known to need. Raises what reading raises.
    """
    size = part_size_for(sink, wanted)
    large = [blob for blob in manifest.descriptors if size and blob.size > size]
    return {blob.digest: cut_table(source.content(blob), blob, size, cache) for blob in large}


def part_size_for(sink: Sink, wanted: int | None) -> int:
    """What larger files are cut into, in bytes: `wanted`, or where that is None what the sink needs; 0 is never."""
    if wanted is not None:
        return wanted
    return (sink.limits().part_size or 0) if isinstance(sink, Limited) else 0


def cut_table(content: Content, blob: Descriptor, size: int, cache: Path | None) -> PartTable:
    """How `blob` is cut into parts of `size` bytes or more, found by reading it or in `cache`."""
    cut = fitting_size(blob.size, size)
    return PartCache(cache).table(content, blob, cut) if cache is not None else part_table(content, blob, cut)
