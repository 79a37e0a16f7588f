"""The words of the `cocoon` profile: media types and annotation keys (docs/format.md)."""

from epoch_oci.oci import media_types

SNAPSHOT = "application/vnd.cocoon.snapshot.v1+json"
SNAPSHOT_CONFIG = "application/vnd.cocoon.snapshot.config.v1+json"
OS_IMAGE = "application/vnd.cocoon.os-image.v1+json"
OS_IMAGE_CONFIG = "application/vnd.cocoon.os-image.config.v1+json"
ARTIFACT_TYPES = {SNAPSHOT_CONFIG: SNAPSHOT, OS_IMAGE_CONFIG: OS_IMAGE}
"""The artifact type that goes with each config type."""
CHUNKED_TYPES = {
    SNAPSHOT_CONFIG: "application/vnd.cocoon.snapshot.chunked.v1+json",
    OS_IMAGE_CONFIG: "application/vnd.cocoon.os-image.chunked.v1+json",
}
"""The same of the chunked form."""
CHUNK_INDEX = "application/vnd.cocoon.chunks.index.v1"
CHUNK_PACK = "application/vnd.cocoon.chunks.pack.v1"
COCOONSTACK = "application/vnd.cocoonstack."
"""What the media types of Epoch 0.1.6 and later begin with; they are another dialect."""

SNAPSHOT_ID = "cocoonstack.snapshot.id"
IMAGE = "cocoonstack.snapshot.baseimage"
MANIFEST_KEYS = frozenset({media_types.CREATED, media_types.TITLE, media_types.VERSION, SNAPSHOT_ID, IMAGE})
NAMESPACE = "vnd.cocoon."
"""What the profile's own annotation keys begin with."""

ROLE = "vnd.cocoon.layer.role"
PART_FILE = "vnd.cocoon.part.file"
PART_INDEX = "vnd.cocoon.part.index"
PART_COUNT = "vnd.cocoon.part.count"
PART_OFFSET = "vnd.cocoon.part.offset"
PART_SIZE = "vnd.cocoon.part.size"
PART_DIGEST = "vnd.cocoon.part.digest"
PART_KEYS = (PART_FILE, PART_INDEX, PART_COUNT, PART_OFFSET, PART_SIZE, PART_DIGEST)
PART_SUFFIX = ".part"
