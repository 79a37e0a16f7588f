r"""The Epoch manifest of a snapshot that came from Cocoon, and Cocoon's envelope in it, taken back byte for byte.

Such a manifest has the form of vk-cocoon (W3b; epoch-formats 1.6). It is a pure function of what is known about the
snapshot: the same archive gives the same bytes, whoever reads it when. The envelope rides in it as the text of one
member that Epoch does not know:

    "cocoonEnvelope": "{\n  \"version\": 1,\n …}\n"

Epoch's readers skip it; whoever writes an archive or a record of Cocoon takes it back.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from epoch_oci.cocoon.envelope import Envelope, key_of
from epoch_oci.epoch.extra_members import ENVELOPE, FLAGS, MODERN, TEXTS
from epoch_oci.epoch.keys import DEFAULT_TAG
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, Manifest
from epoch_oci.epoch.mint import SnapshotFacts, StoredFile, mint
from epoch_oci.errors import UsageError
from epoch_oci.oci.document import Document

# The only files that no other hypervisor writes.
_FIRECRACKER_FILES = frozenset({"vmstate", "mem"})


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
    # A free name may have a tag in it, as whoever took the snapshot divided it.
    known = key_of(envelope.name)
    name = name or known.name
    if not name:
        raise UsageError("the snapshot has no name of its own", hint="name it with --as NAME[:TAG]")
    facts = SnapshotFacts(
        name=name,
        # A tag belongs to the name that it came with.
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
        files,
        base_images=base_images,
        extra={ENVELOPE: envelope.raw.decode("utf-8")},
        what="the Epoch manifest made of the snapshot",
    ).document


def envelope_of(manifest: Manifest, what: str = "the Epoch manifest") -> Envelope:
    """The envelope that came with the snapshot, else the one that Epoch would write for it. Raises ContentError.

    What Epoch never knew of (whether the guest is Windows, the network, …) is not made up: it stays absent.
    """
    value = manifest.document.json(what, limit=MANIFEST_LIMIT)
    text = value.get(ENVELOPE)
    if isinstance(text, str):
        return Envelope.parse(text.encode("utf-8"), f"{what}: $.{ENVELOPE}")
    # Of a snapshot that never was in Cocoon, and of one that an older writer pushed (epoch-formats 4.6).
    return Envelope.mint(_config(manifest, value.get(MODERN)))


def has_envelope(manifest: Manifest) -> bool:
    """Whether Cocoon's own envelope travels in the manifest."""
    return isinstance(manifest.document.json(limit=MANIFEST_LIMIT).get(ENVELOPE), str)


def is_firecracker(manifest: Manifest) -> bool:
    """Whether the files are those of a Firecracker VM: its state and its memory (epoch-formats 5.4)."""
    return {layer.filename for layer in manifest.layers} >= _FIRECRACKER_FILES


def _config(manifest: Manifest, modern: Any) -> Mapping[str, Any]:
    """Cocoon's keys in the order in which Epoch 0.2.1 writes them (epoch-formats 4.6)."""
    config = modern.get("config") if isinstance(modern, dict) else None
    known = {
        key: value
        for name, key in (TEXTS | FLAGS).items()
        if isinstance(config, dict) and isinstance(value := config.get(name), str | bool)
    }
    members: dict[str, Any] = {
        "id": manifest.snapshot_id,
        "name": manifest.name,
        "description": known.get("description"),
        "image": manifest.image,
        "image_digest": known.get("image_digest"),
        "image_type": known.get("image_type"),
        "image_blob_ids": {blob: {} for blob in manifest.pinned_blobs},
        "hypervisor": known.get("hypervisor") or ("firecracker" if is_firecracker(manifest) else None),
        "cpu": manifest.cpu,
        "memory": manifest.memory,
        "storage": manifest.storage,
        "nics": manifest.nics,
        "network": known.get("network"),
        "windows": known.get("windows"),
    }
    # Go leaves out what is zero, but for the name, which has no `omitempty` (epoch-formats 5.2).
    return {key: value for key, value in members.items() if value or key == "name"}
