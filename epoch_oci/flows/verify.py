"""Whether everything is there and is what it says: presence, or every byte."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from epoch_oci import dialects
from epoch_oci.dialects.base import EncodeOptions
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError, EpochOciError, Finding, NotFoundError
from epoch_oci.events import Event, OnEvent, ignore
from epoch_oci.flows.artifact import read_artifact, read_epoch
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.reference import repository_problem, tag_problem
from epoch_oci.oci.verify import VerifyingReader
from epoch_oci.stores.base import Auditor, Source


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


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """`fast` asks for presence and size only; `round_trip` also translates there and back and compares the bytes."""

    fast: bool = False
    round_trip: bool = False
    jobs: int = 2


def verify_snapshots(
    source: Source,
    keys: Iterable[SnapshotKey],
    *,
    where: str,
    options: VerifyOptions,
    on_event: OnEvent = ignore,
) -> Verification:
    """Check snapshots of an Epoch store. What is wrong with them becomes findings; only other failures are raised.

    Raises NotFoundError when the one snapshot that was asked for is not there at all.
    """
    keys = list(keys)
    if len(keys) == 1:
        source.resolve(str(keys[0]))
    result = Verification(where)
    wanted: dict[Digest, tuple[Descriptor, str]] = {}
    for key in keys:
        _note_names(key, result)
        try:
            manifest = read_epoch(source, str(key))
            _note_key(key, manifest, result)
            if options.round_trip:
                _round_trip(manifest)
        except (ContentError, NotFoundError) as error:
            result.add(error, str(key))
            continue
        finally:
            result.documents += 1
        for layer in (*manifest.layers, *manifest.base_images):
            blob = Descriptor(media_type=media_types.OCTET_STREAM, digest=layer.digest, size=layer.size)
            wanted.setdefault(layer.digest, (blob, f"{key}: {layer.filename}"))
    _check_blobs(source, wanted.values(), result, options, on_event)
    return result


def verify_artifacts(
    source: Source,
    names: Iterable[str],
    *,
    where: str,
    options: VerifyOptions,
    on_event: OnEvent = ignore,
) -> Verification:
    """Check artifacts of a repository or layout, as `verify_snapshots`; parts are hashed one by one."""
    names = list(names)
    if len(names) == 1:
        source.resolve(names[0])
    result = Verification(where)
    wanted: dict[Digest, tuple[Descriptor, str]] = {}
    for name in names:
        result.documents += 1
        try:
            found = read_artifact(source, name)
            if options.round_trip and not found.snapshot.derived:
                _round_trip(found.snapshot.manifest)
        except (ContentError, NotFoundError) as error:
            result.add(error, name)
            continue
        result.documents += 1
        for item in found.image.layers:
            wanted.setdefault(item.digest, (item, f"{name}: {item.title or item.digest}"))
    _check_blobs(source, wanted.values(), result, options, on_event)
    return result


def audit(store: object, result: Verification) -> None:
    """Add what a store says about its own books, if it keeps any: errors as findings, oddities as notes."""
    if not isinstance(store, Auditor):
        return
    for finding in store.audit():
        if finding.severity == "error":
            result.findings.append(Problem(finding.path, finding.code, finding.problem))
        else:
            result.notes.append(f"{finding.path}: {finding.problem}")


def _check_blobs(
    source: Source,
    wanted: Iterable[tuple[Descriptor, str]],
    result: Verification,
    options: VerifyOptions,
    on_event: OnEvent,
) -> None:
    check = _present if options.fast else _hashed
    rows = list(wanted)
    size = sum(target.size for target, _ in rows)
    on_event(Event(event="plan", bytes=0 if options.fast else size, total=size))
    with ThreadPoolExecutor(max_workers=options.jobs, thread_name_prefix="verify") as pool:
        for (target, name), error in zip(
            rows, pool.map(lambda row: _attempt(check, source, row[0], on_event), rows), strict=True
        ):
            result.blobs += 1
            if error is not None:
                result.add(error, name)
            elif not options.fast:
                result.bytes += target.size
    on_event(Event(event="done", bytes=result.bytes, total=result.bytes))


def _attempt(
    check: Callable[[Source, Descriptor], None], source: Source, target: Descriptor, on_event: OnEvent
) -> EpochOciError | None:
    try:
        check(source, target)
    except (ContentError, NotFoundError) as error:
        return error
    on_event(Event(event="blob-done", digest=target.digest, title=target.title, bytes=target.size, total=target.size))
    return None


def _present(source: Source, target: Descriptor) -> None:
    if not source.has(target):
        raise NotFoundError(f"{target.digest} ({target.size} bytes) is not there", object=str(target.digest))


def _hashed(source: Source, target: Descriptor) -> None:
    with source.content(target).open() as reader:
        for _ in VerifyingReader(reader, target, str(target.digest)).blocks():
            pass


def _round_trip(manifest: Manifest) -> None:
    """Translate there and back. Raises ContentError when the bytes differ."""
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
    if (manifest.name, manifest.tag) != (key.name, key.tag):
        result.notes.append(f"{key}: the document calls itself {manifest.name}:{manifest.tag}")
    result.notes.extend(f"{key}: {finding}" for finding in manifest.warnings)


def _errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]
