"""An Epoch snapshot as the artifact that Epoch 0.1.8 and later and the cocoon tools pull (epoch-formats 4.3 to 4.6).

Every layer becomes a file there and nothing else does, so a file of length zero is a layer as well: left out, it would
be missing from the snapshot. There is no place for base images, and none for a file in parts.
"""

from collections.abc import Mapping, Sequence

from epoch_oci.dialects.base import Artifact, EncodeOptions, SnapshotFile, WrittenFile
from epoch_oci.dialects.cocoonstack import riding, words
from epoch_oci.dialects.cocoonstack.agreement import absent_words
from epoch_oci.dialects.cocoonstack.artifact import annotations, image_manifest
from epoch_oci.dialects.cocoonstack.carried import Carried
from epoch_oci.dialects.cocoonstack.minted import check, file_entries, mint
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, Layer, Manifest
from epoch_oci.errors import ContentError, PolicyError, UsageError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document


def snapshot_artifact(epoch: Manifest, options: EncodeOptions) -> Artifact:
    """The artifact of a snapshot. Raises ContentError, UsageError, and PolicyError for a loss that is not allowed."""
    _refuse_parts(epoch, options)
    carried = Carried.of(epoch)
    written = options.written
    config, lost = _config(epoch, carried, written)
    files = tuple(_file(layer, (written or {}).get(layer.filename)) for layer in epoch.layers)
    _refuse_loss(lost, options)
    layers = [carrier for file in files for carrier in file.carriers]
    kind = words.SNAPSHOT if written is None else words.SNAPSHOT_V2
    document = image_manifest(kind, config, layers, annotations(epoch, carried, options))
    return Artifact(document, config, files, lost)


def _refuse_loss(lost: Sequence[str], options: EncodeOptions) -> None:
    if lost and not options.allow_loss:
        raise PolicyError(
            f"the cocoonstack dialect has no place for {'; '.join(lost)}",
            hint="allow it with --allow-loss, or choose the cocoon dialect, which loses nothing",
        )


def _config(
    epoch: Manifest, carried: Carried, written: Mapping[str, WrittenFile] | None
) -> tuple[Document, tuple[str, ...]]:
    """The config, with the Epoch manifest riding in it unless this makes it too large, and what is lost."""
    bare = mint(epoch, carried, None, written)
    if bare.size > MANIFEST_LIMIT:
        problem = f"the config would be {bare.size} bytes, more than the {MANIFEST_LIMIT} allowed"
        raise ContentError(problem, code="SIZE", object=str(epoch.document.digest))
    check(bare)
    full = mint(epoch, carried, riding.seated(epoch.document, file_entries(epoch)), written)
    # Epoch itself reads no version 2, and cocoon-common takes a config of any size that we write.
    lost, limit = list(absent_words(epoch)), words.EPOCH_CONFIG_LIMIT if written is None else MANIFEST_LIMIT
    if bare.size > limit:
        lost.append(f"Epoch up to 0.2.1 as a reader: it takes {limit} bytes of config, and this one has {bare.size}")
        limit = MANIFEST_LIMIT
    if full.size <= limit:
        return full, tuple(lost)
    lost.append(f"the Epoch manifest's own bytes: with them the config would have {full.size} bytes")
    return bare, tuple(lost)


def _file(layer: Layer, written: WrittenFile | None) -> SnapshotFile:
    blob = layer.descriptor
    media_type = words.media_type_for_file(layer.filename)
    if written is not None and written.encoding == "zstd":
        media_type += words.ZSTD
    pieces = written.layers if written is not None else (blob,)
    carriers = tuple(
        Descriptor(
            media_type=media_type,
            digest=piece.digest,
            size=piece.size,
            annotations={**_place(index, len(pieces)), media_types.TITLE: layer.filename},
        )
        for index, piece in enumerate(pieces)
    )
    return SnapshotFile(
        name=layer.filename,
        role="layer",
        media_type=blob.media_type,
        digest=layer.digest,
        size=layer.size,
        carriers=carriers,
        encoding=written.encoding if written is not None else "",
    )


def _place(index: int, count: int) -> dict[str, str]:
    return {words.CHUNK_INDEX: str(index), words.CHUNK_COUNT: str(count)} if count > 1 else {}


def _refuse_parts(epoch: Manifest, options: EncodeOptions) -> None:
    for layer in epoch.layers:
        table = (options.parts or {}).get(layer.digest)
        if table is not None and table.size < layer.size:
            raise UsageError(
                f"{shown(layer.filename)} of {layer.size} bytes cannot be carried in parts of {table.size} bytes: a "
                "snapshot of the cocoonstack dialect has none",
                hint="choose the cocoon dialect for this registry, or carry files whole with --part-size none",
            )
