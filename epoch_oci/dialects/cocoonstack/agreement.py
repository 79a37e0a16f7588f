"""Holding the Epoch manifest that rides in an artifact against the artifact around it."""

from collections.abc import Iterator, Sequence

from epoch_oci.dialects.base import SnapshotFile
from epoch_oci.dialects.cocoonstack.config import FileEntry, SnapshotConfig
from epoch_oci.dialects.cocoonstack.minted import entry_of
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import Finding, counted
from epoch_oci.oci.digest import shown


def disagreements(epoch: Manifest, config: SnapshotConfig, files: Sequence[SnapshotFile]) -> list[Finding]:
    """Where the manifest and what Epoch would make of the artifact differ; base images are not looked at."""
    return [*_fact_findings(epoch, config), *file_findings(epoch, files), *_entry_findings(epoch, config)]


def file_findings(epoch: Manifest, files: Sequence[SnapshotFile]) -> Iterator[Finding]:
    """The same files in the same order, with the same digests and sizes."""
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
    if not epoch.image_blob_ids.keys() <= set(config.image_blob_ids) <= set(epoch.pinned_blobs):
        yield Finding("$.imageBlobIDs", "MISMATCH", "are not the blobs that the config pins")


def _entry_findings(epoch: Manifest, config: SnapshotConfig) -> Iterator[Finding]:
    for layer in epoch.layers:
        should = entry_of(epoch.layer_headers.get(layer.filename))
        entry = config.files.get(layer.filename, FileEntry())
        is_ = FileEntry(mode=entry.mode, sparse_map=entry.sparse_map, sparse_size=entry.sparse_size)
        if is_ != should:
            problem = f"mode and sparse map of {shown(layer.filename)} are not those in the config"
            yield Finding("$.layerHeaders", "MISMATCH", problem)
