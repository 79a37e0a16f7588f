"""A cloud image as Epoch 0.1.6 and later and the cocoon tools pull it (epoch-formats 4.7).

No reader looks at the config of an image, so the Epoch manifest is the config, byte for byte, under Epoch's own media
type. Names in the wrong byte order give way to titles in the right one; the config keeps them.
"""

from collections.abc import Sequence

from epoch_oci.dialects.base import Artifact, EncodeOptions, SnapshotFile
from epoch_oci.dialects.cocoonstack import words
from epoch_oci.dialects.cocoonstack.artifact import annotations, image_manifest
from epoch_oci.dialects.cocoonstack.carried import Carried
from epoch_oci.dialects.cocoonstack.titles import disk_format, oci_titles
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Layer, Manifest
from epoch_oci.errors import UsageError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import LAYER_LIMIT
from epoch_oci.oci.parts import PartTable, spans


def image_artifact(epoch: Manifest, options: EncodeOptions) -> Artifact:
    """The artifact of a cloud image. Raises ContentError, and UsageError for annotations and parts that do not fit."""
    carried = Carried.of(epoch)
    files = _files(epoch, options, carried.titles)
    layers = [carrier for file in files for carrier in file.carriers]
    config = Document(EPOCH_MANIFEST, epoch.document.raw)
    document = image_manifest(words.OS_IMAGE, config, layers, annotations(epoch, carried, options))
    return Artifact(document, config, files)


def _files(epoch: Manifest, options: EncodeOptions, known: Sequence[str]) -> tuple[SnapshotFile, ...]:
    names = [layer.filename for layer in epoch.layers]
    pieces = [_pieces(layer, (options.parts or {}).get(layer.digest)) for layer in epoch.layers]
    count = sum(map(len, pieces))
    if count > LAYER_LIMIT:
        raise UsageError(f"{count} layers are more than the {LAYER_LIMIT} allowed", hint="choose a larger part size")
    titles = iter(oci_titles(names, count, known))
    # Readers find the disk by this type, and skip octets, which is what Epoch calls parts (trap 24).
    media_type = words.DISK + disk_format(names) + (words.PART if count > 1 else "")
    return tuple(
        SnapshotFile(
            name=layer.filename,
            role="layer",
            media_type=layer.descriptor.media_type,
            digest=layer.digest,
            size=layer.size,
            carriers=tuple(_carrier(media_type, piece, next(titles)) for piece in row),
        )
        for layer, row in zip(epoch.layers, pieces, strict=True)
    )


def _pieces(layer: Layer, table: PartTable | None) -> list[Descriptor]:
    """What carries a file: its blob, or the parts that `table` cuts it into."""
    if table is None or layer.size <= table.size:
        return [layer.descriptor]
    cuts = list(spans(layer.size, table.size)) if table.size > 0 else []
    if not cuts or len(cuts) != len(table.digests):
        raise UsageError(
            f"{shown(layer.filename)} of {layer.size} bytes cannot be cut into {len(table.digests)} parts of "
            f"{table.size} bytes"
        )
    return [
        Descriptor(media_type=words.GENERIC, digest=digest, size=length)
        for (_, length), digest in zip(cuts, table.digests, strict=True)
    ]


def _carrier(media_type: str, piece: Descriptor, title: str) -> Descriptor:
    return Descriptor(
        media_type=media_type, digest=piece.digest, size=piece.size, annotations={media_types.TITLE: title}
    )
