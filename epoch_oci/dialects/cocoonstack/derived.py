"""The Epoch manifest of an artifact: derived where none travels with it, held against it where one does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from epoch_oci.dialects.base import SnapshotFile
from epoch_oci.dialects.cocoonstack.config import FileEntry, SnapshotConfig, entry_of
from epoch_oci.dialects.cocoonstack.extra import Extra
from epoch_oci.epoch.extra_members import MODERN
from epoch_oci.epoch.manifest import LayerHeader, Manifest
from epoch_oci.epoch.mint import SnapshotFacts, StoredFile, mint
from epoch_oci.errors import Finding, counted
from epoch_oci.oci.digest import shown


def derived(
    facts: SnapshotFacts,
    files: Iterable[SnapshotFile],
    extra: Extra,
    entries: Mapping[str, FileEntry] = MappingProxyType({}),
) -> Manifest:
    """The Epoch manifest that is made of an artifact that has none; modes and maps of `entries` become `layerHeaders`.

    Raises ContentError.
    """
    rows = [
        StoredFile(
            name=file.name,
            digest=file.digest,
            size=file.size,
            media_type=file.media_type,
            header=_header(entries.get(file.name)),
        )
        for file in files
    ]
    members = {MODERN: extra.to_json()}
    return mint(facts, rows, extra=members, what="the Epoch manifest derived from the artifact")


def _header(entry: FileEntry | None) -> LayerHeader | None:
    # An empty header would say that something is known of the file (trap 9).
    if entry is None or not (entry.mode or entry.pax_records):
        return None
    return LayerHeader(entry.mode, entry.pax_records)


def disagreements(epoch: Manifest, config: SnapshotConfig, files: Sequence[SnapshotFile]) -> list[Finding]:
    """Where the manifest and what Epoch would make of the artifact differ; base images are not looked at."""
    return [*_fact_findings(epoch, config), *file_findings(epoch, files), *_entry_findings(epoch, config)]


def file_findings(epoch: Manifest, files: Sequence[SnapshotFile]) -> Iterator[Finding]:
    """The same files in the same order, with the same digests and sizes."""
    # Not strict: another number of files is told below, beside what is wrong with the first ones.
    for index, (layer, file) in enumerate(zip(epoch.layers, files, strict=False)):
        rows = (
            ("filename", layer.filename, file.name),
            ("digest", str(layer.digest), str(file.digest)),
            ("size", layer.size, file.size),
        )
        for key, should, is_ in rows:
            if is_ != should:
                yield Finding(
                    f"$.layers[{index}].{key}", "MISMATCH", f"is {shown(should)}, the layer says {shown(is_)}"
                )
    if len(epoch.layers) != len(files):
        yield Finding("$.layers", "MISMATCH", f"has {counted(len(epoch.layers), 'file')}, the artifact {len(files)}")


def absent_words(epoch: Manifest) -> tuple[str, ...]:
    """The base images, which no layer of this dialect can carry."""
    return tuple(
        f"base image {shown(layer.filename)} ({layer.digest}, {counted(layer.size, 'byte')})"
        for layer in epoch.base_images
    )


def _fact_findings(epoch: Manifest, config: SnapshotConfig) -> Iterator[Finding]:
    rows = (
        ("snapshotId", epoch.snapshot_id, config.snapshot_id),
        ("image", epoch.image, config.image),
        ("cpu", epoch.cpu, config.cpu),
        ("memory", epoch.memory, config.memory),
        ("storage", epoch.storage, config.storage),
        ("nics", epoch.nics, config.nics),
    )
    for key, should, is_ in rows:
        if is_ != should:
            yield Finding(f"$.{key}", "MISMATCH", f"is {shown(should)}, the config says {shown(is_)}")
    # Epoch pins what the manifest names, other writers base images too (trap 16).
    if not epoch.image_blob_ids.keys() <= set(config.image_blob_ids) <= set(epoch.pinned_blobs):
        yield Finding("$.imageBlobIDs", "MISMATCH", "are not the blobs that the config pins")


def _entry_findings(epoch: Manifest, config: SnapshotConfig) -> Iterator[Finding]:
    for layer in epoch.layers:
        should = entry_of(epoch.layer_headers.get(layer.filename))
        entry = config.files.get(layer.filename, FileEntry())
        # Without what version 2 adds: an Epoch manifest has no word for it.
        is_ = FileEntry(mode=entry.mode, sparse_map=entry.sparse_map, sparse_size=entry.sparse_size)
        if is_ != should:
            problem = f"mode and sparse map of {shown(layer.filename)} are not those in the config"
            yield Finding("$.layerHeaders", "MISMATCH", problem)
