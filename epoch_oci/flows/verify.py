"""Whether everything is there and is what it says: presence, or every byte."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, ClassVar

from epoch_oci import dialects
from epoch_oci.artifacts.decode import carried_content
from epoch_oci.artifacts.graph import read_graph
from epoch_oci.artifacts.read import ArtifactsOf, FoundDocuments, epoch_of, is_epoch, read_config, read_documents
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedFile, EncodedSnapshot, EncodeOptions, Snapshot
from epoch_oci.dialects.layers import is_chunked, packs_of
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError, EpochOciError, Finding, NotFoundError, counted
from epoch_oci.events import Event, Kind, OnEvent, ignore, phase
from epoch_oci.flows.verify_chunked import ChunkedCheck
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.reference import repository_problem, tag_problem
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.options import Checked
from epoch_oci.stores.base import Auditor, Content, Node, Source, full_name
from epoch_oci.transfer.content import WatchedContent
from epoch_oci.transfer.plan import refuse_other_size
from epoch_oci.transfer.pool import GrowingPool
from epoch_oci.transfer.zstd import digest_of


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be; `object` names the key, tag or digest."""

    object: str
    code: str
    problem: str


@dataclass(slots=True)
class Verification:
    """What was checked and what was wrong. `bytes` counts what was hashed, 0 for a presence check."""

    location: str
    documents: int = 0
    blobs: int = 0
    bytes: int = 0
    findings: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when nothing was wrong; notes do not count."""
        return not self.findings

    def add(self, error: EpochOciError, name: str) -> None:
        """Record an error as a finding about `name`; a document's every finding counts."""
        if isinstance(error, ContentError) and len(error.findings) > 1:
            self.findings.extend(Problem(name, item.code, str(item)) for item in _errors(error.findings))
        else:
            self.findings.append(Problem(name, error.code, error.message))

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "location": self.location,
            "ok": self.ok,
            "checked": {"documents": self.documents, "blobs": self.blobs, "bytes": self.bytes},
            "findings": [{"object": item.object, "code": item.code, "problem": item.problem} for item in self.findings],
            "notes": self.notes,
        }


_TOLD_SECONDS = 0.1
_READERS = 2
"""Blobs hashed at a time where nobody said how many: one core each, and a disk is read in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions(Checked):
    """`fast` asks for presence and size only; `round_trip` also translates there and back and compares the bytes.

    `rebuild` makes the chunk index anew from the packs, and compares.
    """

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"jobs": (1, 64)}
    fast: bool = False
    round_trip: bool = False
    rebuild: bool = False
    jobs: int | None = None


def verify_snapshots(
    source: Source,
    keys: Iterable[SnapshotKey],
    *,
    options: VerifyOptions,
    on_event: OnEvent = ignore,
    whole: bool = False,
) -> Verification:
    """Check snapshots of an Epoch store. What is wrong with them becomes findings; only other failures are raised.

    `whole` says that `keys` are all that the store lists. Else NotFoundError is raised when the one snapshot that was
    asked for is not there at all.
    """
    keys = list(keys)
    # A wrong word is an error with its exit code; a snapshot that vanished from a list is a finding.
    if len(keys) == 1 and not whole:
        source.resolve(str(keys[0]))
    location = source.where if whole else ", ".join(map(str, keys))
    result = _verify_snapshots(source, keys, location, options, on_event)
    if not result.ok and isinstance(source, Node) and source.forget():
        # What was remembered of files may be what is wrong, and not the files.
        result = _verify_snapshots(source, keys, location, options, on_event)
    return result


def _verify_snapshots(
    source: Source, keys: Iterable[SnapshotKey], location: str, options: VerifyOptions, on_event: OnEvent
) -> Verification:
    result, found = Verification(location), _Found()
    for key in keys:
        _note_names(key, result)
        result.documents += 1
        try:
            document = source.resolve(str(key))
            if is_epoch(document):
                _look_at_manifest(document, key, found, result, options)
            else:
                _look_at_artifact(ArtifactsOf(source, key.name), document, str(key), found, result, options)
        except (ContentError, NotFoundError) as error:
            result.add(error, str(key))
    found.check(source, result, options, on_event)
    return result


def verify_artifacts(
    source: Source,
    names: Iterable[str],
    *,
    options: VerifyOptions,
    on_event: OnEvent = ignore,
    whole: bool = False,
) -> Verification:
    """Check artifacts of a repository or layout, as `verify_snapshots`; parts are hashed one by one.

    Layers that are compressed are decoded as well, unless `fast`: they must hold a file of the size declared. Files in
    chunks are put together, and must be what the config says.
    """
    names = list(names)
    if len(names) == 1 and not whole:
        source.resolve(names[0])
    location = source.where if whole else ", ".join(full_name(source, name) for name in names)
    result, found = Verification(location), _Found()
    for name in names:
        result.documents += 1
        try:
            documents = read_documents(source, name)
            _look_at_snapshot(documents, name, found, options)
        except (ContentError, NotFoundError) as error:
            result.add(error, name)
            continue
        result.documents += 1
        for item in documents.image.layers:
            found.want(item, f"{name}: {item.title or item.digest}")
    found.check(source, result, options, on_event)
    return result


@dataclass(slots=True)
class _Found:
    """What is to be checked: each blob once, what the layers of `encoded` snapshots decode to, and `chunked` files."""

    wanted: dict[Digest, "_Row"] = field(default_factory=dict)
    encoded: dict[str, EncodedSnapshot] = field(default_factory=dict)
    chunked: dict[str, tuple[ImageManifest, Snapshot]] = field(default_factory=dict)

    def want(self, blob: Descriptor, name: str) -> None:
        self.wanted.setdefault(blob.digest, _Row(name, (blob,)))

    def check(self, source: Source, result: Verification, options: VerifyOptions, on_event: OnEvent) -> None:
        rows = _file_rows(self.encoded)
        # What is decoded is hashed on the way; reading it once more would learn nothing.
        covered = {layer.digest for row in rows for layer in row.layers}
        covered |= {pack.digest for image, _ in self.chunked.values() for pack in packs_of(image)}
        plain = [row for digest, row in self.wanted.items() if digest not in covered]
        _check_rows(source, [*plain, *rows], result, options, on_event)
        _check_finished(self.encoded, rows, result)
        for name, (image, snapshot) in self.chunked.items():
            check = ChunkedCheck(source, name, result.add, on_event, options.rebuild)
            check.run(image, snapshot)
            result.blobs += len(packs_of(image))
            result.bytes += sum(check.sound.values())


def _look_at_manifest(
    document: Document, key: SnapshotKey, found: _Found, result: Verification, options: VerifyOptions
) -> None:
    """Epoch's own manifest. Raises ContentError."""
    manifest = epoch_of(document, key)
    _note_key(key, manifest, result)
    if options.round_trip:
        _round_trip(manifest)
    for layer in (*manifest.layers, *manifest.base_images):
        blob = Descriptor(media_type=media_types.OCTET_STREAM, digest=layer.digest, size=layer.size)
        found.want(blob, f"{key}: {layer.filename}")


def _look_at_artifact(
    source: Source, document: Document, name: str, found: _Found, result: Verification, options: VerifyOptions
) -> None:
    """Whatever an Epoch that is a registry keeps: snapshots, and images and indexes too. Raises ContentError."""
    graph = read_graph(source, document, name, referrers=False)
    result.documents += len(graph.documents) - 1
    for blob in graph.blobs.values():
        found.want(blob, f"{name}: {blob.title or blob.digest}")
    snapshots = [image for image in graph.images if dialects.accepting(image) is not None]
    if not snapshots:
        result.notes.append(f"{name} is no snapshot, and was checked as the artifact that it is")
    for image in snapshots:
        _look_at_snapshot(FoundDocuments(image, read_config(source, image)), name, found, options)


def _look_at_snapshot(documents: FoundDocuments, name: str, found: _Found, options: VerifyOptions) -> None:
    """What the documents of a snapshot say of each other. Raises ContentError."""
    told = documents.told()
    # A derived manifest was made just now: that it survives a round trip says nothing.
    if not isinstance(told, EncodedSnapshot):
        if options.round_trip and not told.derived:
            _round_trip(told.manifest)
        if is_chunked(documents.image) and not options.fast:
            found.chunked[name] = documents.image, told
    elif not options.fast:
        found.encoded[name] = told


@dataclass(slots=True)
class _Row:
    """Layers that are checked together, and in which `file` they are encoded, if they are; `name` is for findings.

    `digest` is what the file was found to decode to.
    """

    name: str
    layers: tuple[Descriptor, ...]
    file: EncodedFile | None = None
    digest: Digest | None = None

    @property
    def size(self) -> int:
        """Bytes to be read; a layer that repeats is read as often."""
        return sum(layer.size for layer in self.layers)


def _file_rows(encoded: Mapping[str, EncodedSnapshot]) -> list[_Row]:
    """One for each compressed file; of one that is only cut, every layer is looked at for its own sake."""
    return [
        _Row(f"{name}: {file.name}", file.carriers, file)
        for name, snapshot in encoded.items()
        for file in snapshot.undigested
        if file.encoding
    ]


def _check_finished(encoded: Mapping[str, EncodedSnapshot], rows: Iterable[_Row], result: Verification) -> None:
    """Whether the files make the snapshot that the documents tell of, where all their digests were found."""
    # One file whose layers are wrong leaves the whole untold, and its own finding says why.
    digests = {row.name: row.digest for row in rows if row.digest is not None}
    for name, snapshot in encoded.items():
        known = {file.name: digests.get(f"{name}: {file.name}") for file in snapshot.undigested}
        complete = {key: digest for key, digest in known.items() if digest is not None}
        if len(complete) < len(known):
            continue
        try:
            # The dialect looks at the whole only when every digest is known: an Epoch manifest that rides must fit.
            snapshot.finish(complete)
        except ContentError as error:
            result.add(error, name)


def audit(store: object, result: Verification) -> None:
    """Add what a store says about its own books, if it keeps any: errors as findings, oddities as notes."""
    if not isinstance(store, Auditor):
        return
    for finding in store.audit():
        if finding.severity == "error":
            result.findings.append(Problem(finding.path, finding.code, finding.problem))
        else:
            result.notes.append(f"{finding.path}: {finding.problem}")


def _check_rows(
    source: Source, rows: list[_Row], result: Verification, options: VerifyOptions, on_event: OnEvent
) -> None:
    check: Check = _present if options.fast else _hashed
    phase(on_event, "looking at what is there" if options.fast else "checking every byte")
    size = sum(row.size for row in rows)
    on_event(Event(event="plan", bytes=0 if options.fast else size, total=size))
    sound: dict[Digest, int] = {}
    pool = GrowingPool(options.jobs or _READERS, "verify")
    try:
        for row, wrong in zip(rows, pool.map(lambda row: _attempt(check, source, row, on_event), rows), strict=True):
            for error in wrong:
                result.add(error, row.name)
            # Only what was read to its end counts as checked, and each blob once.
            if not wrong and not options.fast:
                sound.update({layer.digest: layer.size for layer in row.layers})
    finally:
        # A place that fails is not waited for: each of its readers may hang for minutes.
        pool.shutdown(wait=False, cancel_futures=True)
    result.blobs += len({layer.digest for row in rows for layer in row.layers})
    result.bytes += sum(sound.values())
    on_event(Event(event="done", bytes=result.bytes, total=result.bytes))


class _Told:
    """Events about how far a row has been read, whose layers are read one after another."""

    def __init__(self, row: _Row, on_event: OnEvent) -> None:
        self._row, self._on_event = row, on_event
        self._before, self._told = 0, float("-inf")

    def watched(self, content: Content) -> Content:
        """The content, whose reading is told of."""
        return WatchedContent(content, self._moved, threading.Event())

    def through(self, layer: Descriptor) -> None:
        """A layer was read to its end."""
        self._before += layer.size

    def say(self, event: Kind, count: int) -> None:
        """So many bytes of the row have been read."""
        row, first = self._row, self._row.layers[0]
        title = row.file.name if row.file else first.title
        self._on_event(Event(event=event, digest=first.digest, title=title, bytes=count, total=row.size))

    def _moved(self, offset: int, count: int) -> None:
        if (now := time.monotonic()) - self._told >= _TOLD_SECONDS:
            self._told = now
            self.say("blob-progress", min(self._before + offset, self._row.size))


Check = Callable[[Source, Descriptor, _Told], None]


def _attempt(check: Check, source: Source, row: _Row, on_event: OnEvent) -> list[EpochOciError]:
    """What is wrong with a row. Where a file cannot be decoded, the layers that are to blame, if they are."""
    layers = {layer.digest: layer for layer in row.layers}.values()
    wrong: list[EpochOciError] = []
    told = _Told(row, on_event)
    if row.file is not None:
        try:
            row.digest = digest_of(told.watched(carried_content(source, row.file)))
        except (ContentError, NotFoundError) as error:
            wrong.append(error)
    # A file that does not decode: its layers tell whether they are damaged, or were made wrong.
    if row.file is None or wrong:
        wrong = [found for layer in layers if (found := _error(check, source, layer, told)) is not None] or wrong
    if not wrong:
        told.say("blob-done", row.size)
    return wrong


def _error(check: Check, source: Source, target: Descriptor, told: _Told) -> EpochOciError | None:
    try:
        check(source, target, told)
    except (ContentError, NotFoundError) as error:
        return error
    return None


def _present(source: Source, target: Descriptor, told: _Told) -> None:
    # What has another size counts as denied, and which of both it is decides what is to be done.
    if not source.has(target):
        refuse_other_size(source, target, str(target.digest))
        raise NotFoundError(f"{target.digest} ({counted(target.size, 'byte')}) is not there", object=str(target.digest))


def _hashed(source: Source, target: Descriptor, told: _Told) -> None:
    with told.watched(source.content(target)).open() as reader:
        VerifyingReader(reader, target, str(target.digest)).exhaust()
    told.through(target)


def _round_trip(manifest: Manifest) -> None:
    """Translate there and back. Raises ContentError when the bytes differ."""
    # The one dialect that carries every byte of every manifest (decision D3): any other may say that something has no
    # place.
    dialect = dialects.named("cocoon")
    artifact = dialect.encode(manifest.document, EncodeOptions())
    back = dialect.decode(artifact.image, artifact.config)
    if back.epoch.raw != manifest.document.raw:
        raise ContentError("the manifest does not survive a round trip", code="MISMATCH")


def _note_names(key: SnapshotKey, result: Verification) -> None:
    if (why := repository_problem(key.name)) is not None:
        result.notes.append(f"{key}: as an OCI repository the name {why}")
    if (why := tag_problem(key.tag)) is not None:
        result.notes.append(f"{key}: as an OCI tag {key.tag} {why}")


def _note_key(key: SnapshotKey, manifest: Manifest, result: Verification) -> None:
    # A note and no finding: a re-tag changes the key and never the document (trap 3).
    if (manifest.name, manifest.tag) != (key.name, key.tag):
        result.notes.append(f"{key}: the document calls itself {manifest.name}:{manifest.tag}")
    result.notes.extend(f"{key}: {finding}" for finding in manifest.warnings)


def _errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]
