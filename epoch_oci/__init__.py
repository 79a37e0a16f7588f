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
    from epoch_oci.artifacts.bases import Base
    from epoch_oci.artifacts.packing import Chunking
    from epoch_oci.artifacts.write import Encoding, PushOptions
    from epoch_oci.chunks.figures import FileFigures, PackFigures
    from epoch_oci.chunks.index import Stored
    from epoch_oci.dialects.base import Artifact, Snapshot, SnapshotFile
    from epoch_oci.disk.assembly import Assembly
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.epoch.manifest import Layer, LayerHeader, Manifest
    from epoch_oci.epoch.sparse import Segment
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
    from epoch_oci.events import Event, OnEvent
    from epoch_oci.flows.convert import to_epoch, to_oci
    from epoch_oci.flows.inspect import InspectedFile, Inspection, inspect_artifact, inspect_snapshot
    from epoch_oci.flows.listing import ListedSnapshot
    from epoch_oci.flows.pull import PullOptions, pull_to_files, pull_to_store
    from epoch_oci.flows.validate import DocumentReport, validate
    from epoch_oci.flows.verify import Problem, Verification, VerifyOptions, verify_artifacts, verify_snapshots
    from epoch_oci.locate import (
        ArtifactPlace,
        ArtifactStore,
        Connection,
        SnapshotStore,
        locate_artifact,
        open_files,
        open_store,
    )
    from epoch_oci.location import StoreLocation
    from epoch_oci.oci.descriptor import Descriptor
    from epoch_oci.oci.digest import Digest
    from epoch_oci.oci.document import Document
    from epoch_oci.oci.manifest import ImageManifest
    from epoch_oci.oci.reference import Reference
    from epoch_oci.oci.verifying import ByteReader
    from epoch_oci.reading.remote_file import RemoteFile, open_file
    from epoch_oci.stores.base import Content, FileSink, FileTarget, Sink, SnapshotEntry, Source
    from epoch_oci.transfer.plan import Seed
    from epoch_oci.transfer.report import BlobReport, TransferReport
    from epoch_oci.transfer.throttle import Throttle

__version__ = "0.2.0"

__all__ = [
    "AccessError",
    "Artifact",
    "ArtifactPlace",
    "ArtifactStore",
    "Assembly",
    "Base",
    "BatchError",
    "BlobReport",
    "ByteReader",
    "Chunking",
    "ConflictError",
    "Connection",
    "Content",
    "ContentError",
    "Descriptor",
    "Digest",
    "Document",
    "DocumentReport",
    "Encoding",
    "EpochOciError",
    "Event",
    "FileFigures",
    "FileSink",
    "FileTarget",
    "Finding",
    "ImageManifest",
    "InspectedFile",
    "Inspection",
    "InterruptedTransferError",
    "Layer",
    "LayerHeader",
    "ListedSnapshot",
    "LocalIOError",
    "Manifest",
    "NetworkError",
    "NotFoundError",
    "OnEvent",
    "PackFigures",
    "PolicyError",
    "Problem",
    "PullOptions",
    "PushOptions",
    "Reference",
    "RemoteFile",
    "Seed",
    "Segment",
    "Sink",
    "Snapshot",
    "SnapshotEntry",
    "SnapshotFile",
    "SnapshotKey",
    "SnapshotStore",
    "Source",
    "StoreLocation",
    "Stored",
    "Throttle",
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
    "api": (
        "inspect",
        "list_snapshots",
        "pull",
        "push",
        "verify",
    ),
    "artifacts.bases": ("Base",),
    "artifacts.packing": ("Chunking",),
    "artifacts.write": (
        "Encoding",
        "PushOptions",
    ),
    "chunks.figures": (
        "FileFigures",
        "PackFigures",
    ),
    "chunks.index": ("Stored",),
    "dialects.base": (
        "Artifact",
        "Snapshot",
        "SnapshotFile",
    ),
    "disk.assembly": ("Assembly",),
    "epoch.keys": ("SnapshotKey",),
    "epoch.manifest": (
        "Layer",
        "LayerHeader",
        "Manifest",
    ),
    "epoch.sparse": ("Segment",),
    "events": (
        "Event",
        "OnEvent",
    ),
    "flows.convert": (
        "to_epoch",
        "to_oci",
    ),
    "flows.inspect": (
        "InspectedFile",
        "Inspection",
        "inspect_artifact",
        "inspect_snapshot",
    ),
    "flows.listing": ("ListedSnapshot",),
    "flows.pull": (
        "PullOptions",
        "pull_to_files",
        "pull_to_store",
    ),
    "flows.validate": (
        "DocumentReport",
        "validate",
    ),
    "flows.verify": (
        "Problem",
        "Verification",
        "VerifyOptions",
        "verify_artifacts",
        "verify_snapshots",
    ),
    "locate": (
        "ArtifactPlace",
        "ArtifactStore",
        "Connection",
        "SnapshotStore",
        "locate_artifact",
        "open_files",
        "open_store",
    ),
    "location": ("StoreLocation",),
    "oci.descriptor": ("Descriptor",),
    "oci.digest": ("Digest",),
    "oci.document": ("Document",),
    "oci.manifest": ("ImageManifest",),
    "oci.reference": ("Reference",),
    "oci.verifying": ("ByteReader",),
    "reading.remote_file": (
        "RemoteFile",
        "open_file",
    ),
    "stores.base": (
        "Content",
        "FileSink",
        "FileTarget",
        "Sink",
        "SnapshotEntry",
        "Source",
    ),
    "transfer.plan": ("Seed",),
    "transfer.report": (
        "BlobReport",
        "TransferReport",
    ),
    "transfer.throttle": ("Throttle",),
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
