"""The words of Epoch 0.1.6 and later, and of cocoon-common after it (epoch-formats 4.1, 4.5 and 4.10)."""

from epoch_oci.oci.media_types import OCTET_STREAM

SNAPSHOT = "application/vnd.cocoonstack.snapshot.v1+json"
SNAPSHOT_V2 = "application/vnd.cocoonstack.snapshot.v2+json"
"""A snapshot with compressed or cut layers; cocoon-common 0.2.8 and later."""
SNAPSHOT_CONFIG = "application/vnd.cocoonstack.snapshot.config.v1+json"
"""The type of a snapshot's config, also in version 2."""
OS_IMAGE = "application/vnd.cocoonstack.os-image.v1+json"
WINDOWS_IMAGE = "application/vnd.cocoonstack.windows-image.v1+json"
"""An older name of OS_IMAGE."""
SNAPSHOTS = frozenset({SNAPSHOT, SNAPSHOT_V2})
IMAGES = frozenset({OS_IMAGE, WINDOWS_IMAGE})

DISK = "application/vnd.cocoonstack.disk."
"""What the type of a disk begins with; its format follows."""
PART = ".part"
# As the OCI spec marks its own compressed layers.
ZSTD = "+zstd"
FORMATS = ("qcow2", "raw")
DISKS = frozenset(
    f"application/vnd.cocoonstack.{system}disk.{disk_format}{part}"
    for system in ("", "windows.")
    for disk_format in FORMATS
    for part in ("", PART)
)
"""The layers of a cloud image that are joined to its disk; every other layer only accompanies it."""

GENERIC = OCTET_STREAM
_BY_NAME = {
    "config.json": "application/vnd.cocoonstack.vm.config+json",
    "state.json": "application/vnd.cocoonstack.vm.state+json",
    "memory-ranges": "application/vnd.cocoonstack.vm.memory",
    "cidata.img": "application/vnd.cocoonstack.vm.cidata",
}
SNAPSHOT_LAYERS = frozenset({*_BY_NAME.values(), GENERIC, *(DISK + disk_format for disk_format in FORMATS)})
"""All types that cocoon-common takes for a file of a snapshot; it refuses to pull any other."""

CHUNK_INDEX = "cocoonstack.chunk.index"
CHUNK_COUNT = "cocoonstack.chunk.count"
"""Annotations of the layers of a file that is cut: for people, the config has the order."""

EPOCH_CONFIG_LIMIT = 1 << 20
"""Largest snapshot config in bytes that Epoch up to 0.2.1 can read; cocoon-common reads 64 MiB."""


def layer_type_for_file(name: str) -> str:
    """The type of a snapshot's layer by the name of the file."""
    if (known := _BY_NAME.get(name)) is not None:
        return known
    disk_format = name.rpartition(".")[2] if "." in name else ""
    return DISK + disk_format if disk_format in FORMATS else GENERIC


def is_zstd(media_type: str) -> bool:
    """Whether a layer of this type is compressed."""
    return media_type.endswith(ZSTD)
