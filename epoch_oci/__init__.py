"""The bridge between Epoch snapshots and OCI registries.

    import epoch_oci

    epoch_oci.push("bot:v2", to="ghcr.io/acme/bot:v2", store="/srv/epoch")
    epoch_oci.pull("ghcr.io/acme/bot:v2", "/srv/other")

`to_oci` and `to_epoch` translate without a network or a disk. The verbs on stores that are open already are in
`epoch_oci.flows`, what opens them in `epoch_oci.locate`. What is named here is the public interface; it is loaded
when it is first used, so that importing the package costs nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # `typing` itself costs a fifth of what it takes until a signal is heard
if TYPE_CHECKING:
    from epoch_oci import errors, locate, schemas
    from epoch_oci.api import inspect, list_snapshots, pull, push, verify
    from epoch_oci.dialects.base import Artifact, Snapshot
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.epoch.manifest import Manifest
    from epoch_oci.errors import (
        AccessError,
        BatchError,
        ConflictError,
        ContentError,
        EpochOciError,
        Finding,
        InterruptedTransferError,
        LocalIOError,
        NetworkError,
        NotFoundError,
        PolicyError,
        UsageError,
    )
    from epoch_oci.events import Event
    from epoch_oci.flows.convert import to_epoch, to_oci
    from epoch_oci.flows.inspect import Inspection, inspect_artifact, inspect_snapshot
    from epoch_oci.flows.listing import ListedSnapshot
    from epoch_oci.flows.pull import PullOptions, pull_to_files, pull_to_store
    from epoch_oci.flows.push import PushOptions
    from epoch_oci.flows.report import TransferReport
    from epoch_oci.flows.validate import validate
    from epoch_oci.flows.verify import Verification, VerifyOptions, verify_artifacts, verify_snapshots
    from epoch_oci.locate import Connection, locate_artifact, open_files, open_store
    from epoch_oci.oci.descriptor import Descriptor
    from epoch_oci.oci.digest import Digest
    from epoch_oci.oci.document import Document
    from epoch_oci.oci.reference import Reference
    from epoch_oci.reading.remote_file import RemoteFile, open_file

__version__ = "0.2.0"

__all__ = [
    "AccessError",
    "Artifact",
    "BatchError",
    "ConflictError",
    "Connection",
    "ContentError",
    "Descriptor",
    "Digest",
    "Document",
    "EpochOciError",
    "Event",
    "Finding",
    "Inspection",
    "InterruptedTransferError",
    "ListedSnapshot",
    "LocalIOError",
    "Manifest",
    "NetworkError",
    "NotFoundError",
    "PolicyError",
    "PullOptions",
    "PushOptions",
    "Reference",
    "RemoteFile",
    "Snapshot",
    "SnapshotKey",
    "TransferReport",
    "UsageError",
    "Verification",
    "VerifyOptions",
    "errors",
    "inspect",
    "inspect_artifact",
    "inspect_snapshot",
    "list_snapshots",
    "locate",
    "locate_artifact",
    "open_file",
    "open_files",
    "open_store",
    "pull",
    "pull_to_files",
    "pull_to_store",
    "push",
    "schemas",
    "to_epoch",
    "to_oci",
    "validate",
    "verify",
    "verify_artifacts",
    "verify_snapshots",
]

_HOMES = {
    "api": ("inspect", "list_snapshots", "pull", "push", "verify"),
    "dialects.base": ("Artifact", "Snapshot"),
    "epoch.keys": ("SnapshotKey",),
    "epoch.manifest": ("Manifest",),
    "flows.convert": ("to_epoch", "to_oci"),
    "flows.listing": ("ListedSnapshot",),
    "flows.inspect": ("Inspection", "inspect_artifact", "inspect_snapshot"),
    "flows.pull": ("PullOptions", "pull_to_files", "pull_to_store"),
    "flows.push": ("PushOptions",),
    "flows.report": ("TransferReport",),
    "flows.validate": ("validate",),
    "flows.verify": ("Verification", "VerifyOptions", "verify_artifacts", "verify_snapshots"),
    "locate": ("Connection", "locate_artifact", "open_files", "open_store"),
    "oci.descriptor": ("Descriptor",),
    "oci.digest": ("Digest",),
    "oci.document": ("Document",),
    "oci.reference": ("Reference",),
    "reading.remote_file": ("RemoteFile", "open_file"),
    "events": ("Event",),
}
_MODULES = frozenset({"errors", "locate", "schemas"})
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
