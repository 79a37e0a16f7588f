r"""How an envelope travels: inside the Epoch manifest, as the text of one member that Epoch does not know.

    "cocoonEnvelope": "{\n  \"version\": 1,\n …}\n"

Epoch's readers skip it; whoever writes an archive or a record of Cocoon takes it back, byte for byte.
"""

from collections.abc import Mapping
from typing import Any

from epoch_oci.cocoon.envelope import Envelope
from epoch_oci.epoch.extra_members import ENVELOPE, FLAGS, MODERN, TEXTS
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, Manifest

_FIRECRACKER_FILES = frozenset({"vmstate", "mem"})


def envelope_of(manifest: Manifest, what: str = "the Epoch manifest") -> Envelope:
    """The envelope that came with the snapshot, else the one that Epoch would write for it. Raises ContentError.

    What Epoch never knew of (whether the guest is Windows, the network, …) is not made up: it stays absent.
    """
    value = manifest.document.json(what, limit=MANIFEST_LIMIT)
    text = value.get(ENVELOPE)
    if isinstance(text, str):
        return Envelope.parse(text.encode("utf-8"), f"{what}: $.{ENVELOPE}")
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
    return {key: value for key, value in members.items() if value or key == "name"}
