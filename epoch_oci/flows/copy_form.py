"""One artifact into another place in the plain or the chunked form: the same Epoch manifest, and the same files."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from epoch_oci.artifacts.decode import Decoding
from epoch_oci.artifacts.packing import Chunking
from epoch_oci.artifacts.read import (
    FoundDocuments,
    StoredSnapshot,
    artifact_of,
    read_documents,
    reference_key,
    stored_artifact,
)
from epoch_oci.artifacts.write import PushOptions
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedSnapshot, Snapshot
from epoch_oci.dialects.layers import is_chunked
from epoch_oci.dialects.profile import MANIFEST_KEYS, NAMESPACE
from epoch_oci.epoch.keys import SnapshotKey, hostile_problem
from epoch_oci.epoch.manifest import EPOCH_MANIFEST
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.flows.copy import CopyOptions, CopyReport, copy
from epoch_oci.flows.push import push
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.options import Checked
from epoch_oci.stores.base import ArtifactStore, Content, Source, full_name
from epoch_oci.transfer.report import TransferReport

_DIALECT = "cocoon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form(Checked):
    """The form to write: with `chunking` the chunked one, else the plain one.

    `cache` is a directory that remembers digests, as `PushOptions.part_cache`.
    """

    chunking: Chunking | None = None
    cache: Path | None = None


def copy_in_form(
    source: Source,
    name: str,
    sink: ArtifactStore,
    tags: Sequence[str],
    form: Form,
    *,
    options: CopyOptions,
    on_event: OnEvent = ignore,
) -> CopyReport:
    """As `copy.copy`, in `form`: what is in another one is read, verified and written anew, unless the target has it.

    Annotations that somebody added come along. What refers to the artifact stays behind where that is written anew,
    for it speaks of another digest. Raises as `copy.copy` and `push.push`; UsageError without `tags`.
    """
    found = read_documents(source, name)
    # Already in the form that is asked for: then byte for byte, with all that refers to it.
    if form.chunking is None and _is_plain(found):
        return copy(source, name, sink, tags, options=options, on_event=on_event)
    if not tags:
        raise UsageError("an artifact that is written anew needs a tag", hint="name one in the target")
    key = _key(found.told(), reference_key(source, name))
    decoding = Decoding(cache=form.cache, jobs=options.jobs, throttle=options.throttle, on_event=on_event)
    snapshot = stored_artifact(artifact_of(source, found, decoding), key)
    how = PushOptions(
        also=tuple(tags[1:]),
        annotations=_added(found.image),
        part_cache=form.cache,
        chunking=form.chunking,
        **options.shared(),
    )
    report = push(_Unwrapped(snapshot, key), key, sink, tags[0], options=how, on_event=on_event)
    return _report(report, snapshot, full_name(source, name))


@dataclass(frozen=True, slots=True)
class _Unwrapped:
    """A store of one snapshot, which is an artifact elsewhere."""

    snapshot: StoredSnapshot
    key: SnapshotKey

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return self.snapshot.source.where

    def resolve(self, name: str) -> Document:
        """As `Source.resolve`: the Epoch manifest."""
        if name == str(self.key):
            return Document(EPOCH_MANIFEST, self.snapshot.manifest.document.raw)
        return self.snapshot.source.resolve(name)

    def has(self, target: Descriptor) -> bool:
        """As `Source.has`."""
        return self.snapshot.source.has(target)

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`."""
        return self.snapshot.source.content(target)


def _is_plain(found: FoundDocuments) -> bool:
    snapshot = found.told()
    return isinstance(snapshot, Snapshot) and snapshot.dialect == _DIALECT and not is_chunked(found.image)


def _key(told: Snapshot | EncodedSnapshot, said: SnapshotKey) -> SnapshotKey:
    """What the snapshot says it is called, else what the reference says."""
    # What the document says comes first: the repository may be a mirror with a name of its own.
    own = told.manifest if isinstance(told, Snapshot) else told
    title, tag = own.name or said.name, own.tag or said.tag
    if not title or not tag:
        raise UsageError("the artifact does not say what the snapshot is called", hint="name its tag, not its digest")
    for text in (title, tag):
        if (why := hostile_problem(text)) is not None:
            raise ContentError(f"{shown(text)} {why}", code="NAME", object=text)
    return SnapshotKey(title, tag)


def _added(image: ImageManifest) -> dict[str, str]:
    """The annotations that are not the profile's own."""
    return {
        key: value
        for key, value in image.annotations.items()
        # What the profile writes it writes anew; anything else somebody has added on purpose.
        if key not in MANIFEST_KEYS and not key.startswith(NAMESPACE)
    }


def _report(report: TransferReport, snapshot: StoredSnapshot, source: str) -> CopyReport:
    values = {field.name: getattr(report, field.name) for field in fields(TransferReport)}
    document = report.document
    lost = tuple(f"{item} has no place in the artifact" for item in snapshot.lost)
    values |= {
        "command": "copy",
        "derived": snapshot.derived,
        "warnings": tuple(dict.fromkeys((*snapshot.warnings, *report.warnings, *lost))),
    }
    documents = () if document is None else (document.descriptor,)
    return CopyReport(**values, source=source, documents=documents, referrers=())
