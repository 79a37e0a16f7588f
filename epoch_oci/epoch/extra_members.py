"""Members that one side knows and the other has no word for, by the names they travel under (docs/format.md, 6.1).

Readers that do not know a member skip it, Epoch's and Cocoon's too; whoever writes the other form takes it back.
"""

ENVELOPE = "cocoonEnvelope"
"""In an Epoch manifest: the text of Cocoon's own envelope, byte for byte."""
MODERN = "cocoonstack"
"""In an Epoch manifest: what an artifact of modern Epoch says beside it."""
EPOCH = "epochManifest"
"""In the config of a modern snapshot: the bytes of an Epoch manifest."""

OF_MANIFESTS = frozenset({ENVELOPE, MODERN})
"""The marks of an Epoch manifest that was made here."""

TEXTS = {
    "description": "description",
    "imageDigest": "image_digest",
    "imageType": "image_type",
    "hypervisor": "hypervisor",
    "network": "network",
}
FLAGS = {"windows": "windows"}
"""What Epoch 0.1.8 and later have in a config and Epoch's old manifest has no member for, in their order; and what
Cocoon calls it in its envelope (epoch-formats 4.4 and 5.5)."""
