"""The chunked form of the `cocoon` profile: an index and packs before the plain layers (docs/format.md, 7.1)."""

from dataclasses import replace

from epoch_oci.dialects import profile
from epoch_oci.dialects.base import SnapshotFile
from epoch_oci.errors import Finding
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.oci.manifest import ImageManifest


def is_chunked(manifest: ImageManifest) -> bool:
    """Whether an artifact says that its files are in chunks."""
    return manifest.artifact_type in profile.CHUNKED_TYPES.values()


def packs_of(manifest: ImageManifest) -> tuple[Descriptor, ...]:
    """The packs among the layers, in order."""
    return tuple(layer for layer in manifest.layers if layer.media_type == profile.CHUNK_PACK)


def in_chunks(file: SnapshotFile, layers: tuple[Descriptor, ...]) -> SnapshotFile:
    """A file that the index among `layers` describes."""
    return replace(file, encoding="chunks", carriers=layers)


def chunk_layers(manifest: ImageManifest, found: list[Finding]) -> tuple[Descriptor, ...]:
    """The index and the packs, none where there is no index. What stands where it may not is added to `found`."""
    layers = manifest.layers
    if not layers or layers[0].media_type != profile.CHUNK_INDEX:
        end = 0
    else:
        end = next(
            (at for at, layer in enumerate(layers) if at and layer.media_type != profile.CHUNK_PACK), len(layers)
        )
    found += [
        Finding(f"$.layers[{at}].mediaType", "MISMATCH", f"{shown(layer.media_type)} may not stand here")
        for at, layer in enumerate(layers[end:], end)
        if layer.media_type in (profile.CHUNK_INDEX, profile.CHUNK_PACK)
    ]
    return layers[:end]
