"""The Epoch manifest of a snapshot that came from Cocoon itself, in the form of vk-cocoon (W3b; epoch-formats 1.6).

A pure function of what is known about the snapshot: the same archive gives the same bytes, whoever reads it when.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from epoch_oci.cocoon.envelope import Envelope
from epoch_oci.cocoon.names import key_of
from epoch_oci.epoch.extra_members import ENVELOPE
from epoch_oci.epoch.keys import DEFAULT_TAG
from epoch_oci.epoch.manifest import LayerHeader, media_type_for_file
from epoch_oci.epoch.mint import Facts, MintedFile, mint
from epoch_oci.errors import UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of a snapshot as it is stored: `digest` and `size` (bytes) are of the packed form where there is one.

    `mode` has permission bits, 0 for not known; `pax_records` hold the map of a packed file (`epoch.sparse`).
    """

    name: str
    digest: Digest
    size: int
    mode: int = 0
    pax_records: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def descriptor(self) -> Descriptor:
        """The blob, with the media type that Epoch gives a file of this name."""
        return Descriptor(media_type=media_type_for_file(self.name), digest=self.digest, size=self.size)


def manifest_of(
    envelope: Envelope,
    files: Iterable[StoredFile],
    name: str | None = None,
    tag: str | None = None,
    *,
    base_images: Iterable[StoredFile] = (),
    image_blobs: Mapping[str, str] | None = None,
    created_at: str = "",
) -> Document:
    """The manifest of `files` in their order, with the envelope riding in it.

    `name` and `tag` outweigh what the envelope says; an export has no creation time and no base images, and Epoch's
    push has none either for it. `image_blobs` says for each blob ID what Epoch says of it, the ID itself by default.
    Raises UsageError when nothing names the snapshot, ContentError.
    """
    known = key_of(envelope.name)
    name = name or known.name
    if not name:
        raise UsageError("the snapshot has no name of its own", hint="name it with --as NAME[:TAG]")
    facts = Facts(
        name=name,
        tag=tag or (known.tag if name == known.name else DEFAULT_TAG),
        snapshot_id=envelope.id,
        image=envelope.image,
        image_blob_ids={blob: blob for blob in envelope.image_blob_ids} if image_blobs is None else image_blobs,
        cpu=envelope.cpu,
        memory=envelope.memory,
        storage=envelope.storage,
        nics=envelope.nics,
        created_at=created_at,
    )
    return mint(
        facts,
        map(_minted, files),
        base_images=map(_minted, base_images),
        extra={ENVELOPE: envelope.raw.decode("utf-8")},
        what="the Epoch manifest made of the snapshot",
    ).document


def _minted(file: StoredFile) -> MintedFile:
    return MintedFile(
        name=file.name,
        digest=file.digest,
        size=file.size,
        media_type=media_type_for_file(file.name),
        header=LayerHeader(file.mode, file.pax_records),
    )
