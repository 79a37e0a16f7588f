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
    from epoch_oci.api.look import diff, inspect, list_snapshots, open_file, verify
    from epoch_oci.api.manage import login, logout, prune, remove, sync, tag
    from epoch_oci.api.move import copy, pull, pull_to_archive, push, push_archive
    from epoch_oci.artifacts.bases import Base
    from epoch_oci.artifacts.packing import Chunking
    from epoch_oci.artifacts.write import Encoding, PushOptions
    from epoch_oci.bulk.journal import Journal
    from epoch_oci.bulk.prune import Candidate, Policy, Pruning
    from epoch_oci.bulk.results import Row, SyncReport
    from epoch_oci.bulk.select import Selection
    from epoch_oci.bulk.sides import Entry
    from epoch_oci.bulk.sync import SyncOptions
    from epoch_oci.bulk.work import Local, Manner
    from epoch_oci.chunks.figures import FileFigures, PackFigures
    from epoch_oci.chunks.index import StoredBlob
    from epoch_oci.dialects import register_dialect
    from epoch_oci.dialects.base import (
        Artifact,
        ChunkLayers,
        Dialect,
        EncodedFile,
        EncodedSnapshot,
        EncodeOptions,
        Snapshot,
        SnapshotFile,
        WrittenFile,
    )
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
    from epoch_oci.flows.copy import CopyOptions, CopyReport
    from epoch_oci.flows.copy_form import Form
    from epoch_oci.flows.diff import Change, FileDiff, SnapshotDiff
    from epoch_oci.flows.inspect import InspectedFile, Inspection, inspect_artifact, inspect_snapshot
    from epoch_oci.flows.listing import ListedSnapshot
    from epoch_oci.flows.pull import PullOptions, pull_to_files, pull_to_store
    from epoch_oci.flows.remove import Removable
    from epoch_oci.flows.validate import DocumentReport, validate
    from epoch_oci.flows.verify import Problem, Verification, VerifyOptions, verify_artifacts, verify_snapshots
    from epoch_oci.locate import ArtifactPlace, Connection, HostReach, locate_artifact, open_files, open_store
    from epoch_oci.location import StoreLocation
    from epoch_oci.oci.descriptor import Descriptor
    from epoch_oci.oci.digest import Digest
    from epoch_oci.oci.document import Document
    from epoch_oci.oci.manifest import ImageManifest
    from epoch_oci.oci.parts import PartTable
    from epoch_oci.oci.reference import Reference
    from epoch_oci.oci.verifying import ByteReader, VerifyingReader
    from epoch_oci.reading.remote_file import RemoteFile
    from epoch_oci.stores.base import (
        ArtifactStore,
        BytesContent,
        Content,
        FileSink,
        FileTarget,
        Garbage,
        Sink,
        SnapshotEntry,
        SnapshotStore,
        Source,
    )
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
    "BytesContent",
    "Candidate",
    "Change",
    "ChunkLayers",
    "Chunking",
    "ConflictError",
    "Connection",
    "Content",
    "ContentError",
    "CopyOptions",
    "CopyReport",
    "Descriptor",
    "Dialect",
    "Digest",
    "Document",
    "DocumentReport",
    "EncodeOptions",
    "EncodedFile",
    "EncodedSnapshot",
    "Encoding",
    "Entry",
    "EpochOciError",
    "Event",
    "FileDiff",
    "FileFigures",
    "FileSink",
    "FileTarget",
    "Finding",
    "Form",
    "Garbage",
    "HostReach",
    "ImageManifest",
    "InspectedFile",
    "Inspection",
    "InterruptedTransferError",
    "Journal",
    "Layer",
    "LayerHeader",
    "ListedSnapshot",
    "Local",
    "LocalIOError",
    "Manifest",
    "Manner",
    "NetworkError",
    "NotFoundError",
    "OnEvent",
    "PackFigures",
    "PartTable",
    "Policy",
    "PolicyError",
    "Problem",
    "Pruning",
    "PullOptions",
    "PushOptions",
    "Reference",
    "RemoteFile",
    "Removable",
    "Row",
    "Seed",
    "Segment",
    "Selection",
    "Sink",
    "Snapshot",
    "SnapshotDiff",
    "SnapshotEntry",
    "SnapshotFile",
    "SnapshotKey",
    "SnapshotStore",
    "Source",
    "StoreLocation",
    "StoredBlob",
    "SyncOptions",
    "SyncReport",
    "Throttle",
    "TransferReport",
    "UsageError",
    "Verification",
    "VerifyOptions",
    "VerifyingReader",
    "WrittenFile",
    "copy",
    "diff",
    "errors",
    "inspect",
    "inspect_artifact",
    "inspect_snapshot",
    "list_snapshots",
    "locate",
    "locate_artifact",
    "login",
    "logout",
    "open_file",
    "open_files",
    "open_store",
    "prune",
    "pull",
    "pull_to_archive",
    "pull_to_files",
    "pull_to_store",
    "push",
    "push_archive",
    "register_dialect",
    "remove",
    "schemas",
    "sync",
    "tag",
    "to_epoch",
    "to_oci",
    "validate",
    "verify",
    "verify_artifacts",
    "verify_snapshots",
]

_HOMES = {
    "api.look": ("diff", "inspect", "list_snapshots", "open_file", "verify"),
    "api.manage": ("login", "logout", "prune", "remove", "sync", "tag"),
    "api.move": ("copy", "pull", "pull_to_archive", "push", "push_archive"),
    "artifacts.bases": ("Base",),
    "artifacts.packing": ("Chunking",),
    "artifacts.write": ("Encoding", "PushOptions"),
    "bulk.journal": ("Journal",),
    "bulk.results": ("Row", "SyncReport"),
    "bulk.prune": ("Candidate", "Policy", "Pruning"),
    "bulk.select": ("Selection",),
    "bulk.sides": ("Entry",),
    "bulk.sync": ("SyncOptions",),
    "bulk.work": ("Local", "Manner"),
    "chunks.figures": ("FileFigures", "PackFigures"),
    "chunks.index": ("StoredBlob",),
    "dialects": ("register_dialect",),
    "dialects.base": (
        "Artifact",
        "ChunkLayers",
        "Dialect",
        "EncodeOptions",
        "EncodedFile",
        "EncodedSnapshot",
        "Snapshot",
        "SnapshotFile",
        "WrittenFile",
    ),
    "disk.assembly": ("Assembly",),
    "epoch.keys": ("SnapshotKey",),
    "epoch.manifest": ("Layer", "LayerHeader", "Manifest"),
    "epoch.sparse": ("Segment",),
    "events": ("Event", "OnEvent"),
    "flows.convert": ("to_epoch", "to_oci"),
    "flows.copy": ("CopyOptions", "CopyReport"),
    "flows.copy_form": ("Form",),
    "flows.diff": ("Change", "FileDiff", "SnapshotDiff"),
    "flows.inspect": ("InspectedFile", "Inspection", "inspect_artifact", "inspect_snapshot"),
    "flows.listing": ("ListedSnapshot",),
    "flows.pull": ("PullOptions", "pull_to_files", "pull_to_store"),
    "flows.remove": ("Removable",),
    "flows.validate": ("DocumentReport", "validate"),
    "flows.verify": ("Problem", "Verification", "VerifyOptions", "verify_artifacts", "verify_snapshots"),
    "locate": ("ArtifactPlace", "Connection", "HostReach", "locate_artifact", "open_files", "open_store"),
    "location": ("StoreLocation",),
    "oci.descriptor": ("Descriptor",),
    "oci.digest": ("Digest",),
    "oci.document": ("Document",),
    "oci.manifest": ("ImageManifest",),
    "oci.parts": ("PartTable",),
    "oci.reference": ("Reference",),
    "oci.verifying": ("ByteReader", "VerifyingReader"),
    "reading.remote_file": ("RemoteFile",),
    "stores.base": (
        "ArtifactStore",
        "BytesContent",
        "Content",
        "FileSink",
        "FileTarget",
        "Garbage",
        "Sink",
        "SnapshotEntry",
        "SnapshotStore",
        "Source",
    ),
    "transfer.plan": ("Seed",),
    "transfer.report": ("BlobReport", "TransferReport"),
    "transfer.throttle": ("Throttle",),
}
_MODULES = frozenset({"errors", "locate", "schemas"})
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOME_OF.get(name, 'errors')}"), name)
    if hasattr(found, "__code__"):
        from epoch_oci.options import held

        # Whoever comes by this way is no part of the house, and is told at once what was wrong.
        found = held(found, lambda each: getattr(import_module(__name__), each))
        # Where it is found: another process that is sent it looks there, and not where the one without looks is.
        found.__module__ = __name__
    # From now on it is found without coming here.
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
