"""Epoch's media types and how it tells what a manifest holds (Epoch manifest/media.go, manifest/types.go)."""

from typing import TYPE_CHECKING

from epoch_oci.oci.media_types import OCTET_STREAM

if TYPE_CHECKING:
    from epoch_oci.epoch.manifest import Manifest

PREFIX = "application/vnd.cocoon."
DISK_QCOW2 = "application/vnd.cocoon.disk.qcow2"
DISK_RAW = "application/vnd.cocoon.disk.raw"
MEMORY = "application/vnd.cocoon.memory"
CIDATA = "application/vnd.cocoon.cidata"
CONFIG = "application/vnd.cocoon.config+json"
STATE = "application/vnd.cocoon.state+json"

_BY_NAME = {
    "overlay.qcow2": DISK_QCOW2,
    "cow.raw": DISK_RAW,
    "memory-ranges": MEMORY,
    "cidata.img": CIDATA,
    "config.json": CONFIG,
    "state.json": STATE,
}
_SNAPSHOT_FILES = frozenset({"config.json", "state.json", "memory-ranges", "cidata.img"})


def media_type_for_file(name: str) -> str:
    """The media type that Epoch gives a file of this name (epoch-formats 1.7)."""
    if (known := _BY_NAME.get(name)) is not None:
        return known
    # *.raw but for cow.raw is octets to Epoch, and so are parts of either: by type alone a disk is not to be found
    # (epoch-formats 1.7).
    return DISK_QCOW2 if name.endswith(".qcow2") else OCTET_STREAM


def is_cloud_image(manifest: "Manifest") -> bool:
    """Epoch's own rule (epoch-formats 1.8), which Firecracker snapshots can meet: see `Manifest.is_cloud_image`."""
    # Whatever rests on another image is no image itself.
    if manifest.base_images or manifest.image_blob_ids:
        return False
    names = [layer.filename for layer in manifest.layers]
    return _SNAPSHOT_FILES.isdisjoint(names) and any(is_disk(name) for name in names)


def is_disk(name: str) -> bool:
    """Whether a file of this name is a cloud image's disk, or a part of one."""
    return name.endswith((".qcow2", ".raw")) or ".qcow2.part." in name or ".raw.part." in name
