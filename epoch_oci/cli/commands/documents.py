"""`convert` and `validate`: documents, without a blob."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.cli import flags
from epoch_oci.cli.arguments import STANDARD_INPUT, annotations_of, artifact_of, read_document
from epoch_oci.cli.streams import write_result
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, EpochOciError, NotFoundError, UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run
    from epoch_oci.flows.convert import Conversion
    from epoch_oci.flows.validate import DocumentReport
    from epoch_oci.oci.document import Document

OCI_FILE = "oci-manifest.json"
CONFIG_FILE = "oci-config.json"
EPOCH_FILE = "epoch-manifest.json"
_REVIEWS = ("sarif", "github")
_EPOCH_KIND = "epoch-manifest.v1"
_OCI_KINDS = frozenset(
    {
        "oci-image-manifest.cocoon.v1",
        "oci-image-manifest.cocoon-chunked.v1",
        "cocoonstack-snapshot-manifest.v1",
        "cocoonstack-snapshot-manifest.v2",
        "cocoonstack-os-image-manifest.v1",
    }
)


@dataclass(frozen=True, slots=True)
class _Given:
    """What is to be translated: an Epoch manifest, or an OCI manifest with its config (None: the empty one).

    `from_file` is true for an OCI manifest in a file, which needs its config from elsewhere. `name` and `tag` are those
    of the place it was found at, "" where that has none.
    """

    epoch: "Document | None" = None
    manifest: "Document | None" = None
    config: "Document | None" = None
    from_file: bool = False
    name: str = ""
    tag: str = ""


def convert(
    run: "Run",
    file: flags.File,
    to: flags.To = None,
    dialect: flags.Dialect = "cocoon",
    annotation: flags.Annotations = (),
    annotation_file: flags.AnnotationFile = None,
    config: flags.Config = None,
    allow_loss: flags.AllowLoss = False,
    as_: flags.As = None,
    output: flags.DocumentsOutput = None,
    force: flags.Force = False,
) -> None:
    """Translate one manifest between Epoch and OCI.

    No blob is read. Without -o the document's exact bytes go to standard output.
    """
    from epoch_oci.dialects.base import EncodeOptions
    from epoch_oci.flows.convert import Called, converted_artifact, converted_to_epoch, converted_to_oci

    given = _given(run, file, to, config)
    if run.typed("config") and not given.from_file:
        raise UsageError("--config goes with an OCI manifest in a file", object="--config", hint="leave it out")
    if to is None:
        to = "oci" if given.manifest is None else "epoch"
    options = EncodeOptions(annotations=annotations_of(annotation, annotation_file), allow_loss=allow_loss)
    called = Called(*_key(as_)) if as_ else Called(given.name, given.tag)
    if given.manifest is not None:
        conversion = (
            converted_to_epoch(given.manifest, given.config, called)
            if to == "epoch"
            else converted_artifact(given.manifest, given.config, dialect, options, called)
        )
    elif given.epoch is not None and to == "oci":
        conversion = converted_to_oci(given.epoch, dialect, options)
    else:
        raise UsageError(f"{file} is an Epoch manifest already", object=file, hint="translate it with --to oci")
    _show(run, conversion, output, force)


def validate(run: "Run", files: flags.Files, schema: flags.Schema = None) -> None:
    """Check documents; every finding at once.

    Each is read strictly, held against its JSON Schema, and then looked at for what a schema cannot say. For code
    review there are --format sarif and --format github, with the line of each finding.
    """
    from epoch_oci import schemas

    if schema is not None:
        schemas.schema(schema)
    reports, unread = [], []
    for file in files:
        try:
            reports.append(_checked(file, schema, place=run.settings.format in _REVIEWS))
        except EpochOciError as error:  # the others are looked at all the same
            unread.append(error)
    if unread and not reports:
        raise unread[0]
    _show_findings(run, reports, unread)
    wrong = [report for report in reports if not report.valid]
    # The first one is raised below, unless something is wrong, which counts for more (docs/cli.md, Exit codes).
    for unreadable in unread[0 if wrong else 1 :]:
        run.warn(unreadable.message)
    if wrong:
        first = next(finding for finding in wrong[0].findings if finding.severity == "error")
        raise ContentError(
            f"{wrong[0].file} is not valid" if len(reports) == 1 else f"{len(wrong)} of {len(reports)} are not valid",
            code=first.code,
            object=wrong[0].file,
            hint="the findings are on standard output",
        )
    if unread:
        raise unread[0]


def _checked(file: str, schema: str | None, *, place: bool) -> "DocumentReport":
    from epoch_oci import schemas
    from epoch_oci.flows.validate import located
    from epoch_oci.flows.validate import validate as check

    # The bound of the largest kind: of which one it is, is told by what it holds.
    raw = read_document(file, schemas.CATALOG_LIMIT)
    report = check(raw, file, schema)
    return located(report, raw) if place else report


def _show_findings(run: "Run", reports: "list[DocumentReport]", unread: list[EpochOciError]) -> None:
    match run.settings.format:
        case "sarif":
            from epoch_oci.cli.reviews import sarif

            write_result(json.dumps(sarif(reports, unread), indent=2) + "\n")
        case "github":
            from epoch_oci.cli.reviews import workflow_commands

            write_result("".join(f"{line}\n" for line in workflow_commands(reports, unread)))
        case _:
            from epoch_oci.cli.render import validation_lines

            value = {
                "valid": not unread and all(report.valid for report in reports),
                "documents": [report.to_json() for report in reports],
            }
            run.result(value, lambda: validation_lines(reports))


def _given(run: "Run", word: str, to: str | None, config: str | None) -> _Given:
    """Raises ContentError for what cannot be translated, NotFoundError, UsageError."""
    from epoch_oci import location, schemas
    from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT
    from epoch_oci.oci import media_types
    from epoch_oci.oci.document import Document

    # A file that is there is meant, whatever else its name could be.
    if word != STANDARD_INPUT and not Path(word).exists():
        found = location.parse(word)
        if not isinstance(found, location.NameLocation | location.StoreLocation):
            return _given_artifact(run, word)
    document = Document(EPOCH_MANIFEST, read_document(word, MANIFEST_LIMIT))
    kind = schemas.kind_of(document.json(word, limit=MANIFEST_LIMIT))
    if kind in _OCI_KINDS:
        manifest = document.called(media_types.MANIFEST)
        return _Given(manifest=manifest, config=_config(word, manifest, config), from_file=True)
    # Who asks for --to oci means an Epoch manifest: what is wrong with it is said then, and not what it might be.
    if kind != _EPOCH_KIND and to != "oci":
        raise ContentError(
            f"{word} is neither an Epoch manifest nor an OCI manifest",
            code="TYPE",
            object=word,
            hint=f"`epoch-oci validate {word}` says what it is",
        )
    return _Given(epoch=document)


def _given_artifact(run: "Run", word: str) -> _Given:
    from epoch_oci.artifacts.read import read_documents, reference_key

    place = artifact_of(run, word)
    asked = place.named()
    found = read_documents(place.store, asked)
    said = reference_key(place.store, asked)
    return _Given(manifest=found.image.document, config=found.config, name=said.name, tag=said.tag)


def _key(text: str) -> tuple[str, str]:
    from epoch_oci.epoch.keys import SnapshotKey

    key = SnapshotKey.parse(text)
    return key.name, key.tag


def _config(word: str, manifest: "Document", config: str | None) -> "Document | None":
    """The config of a manifest in a file: the file that was named, else the one beside it that -o wrote with it."""
    from epoch_oci.epoch.manifest import MANIFEST_LIMIT
    from epoch_oci.oci import media_types, verifying
    from epoch_oci.oci.document import Document
    from epoch_oci.oci.manifest import ImageManifest

    target = ImageManifest.parse(manifest, word).config
    if target.media_type == media_types.EMPTY:
        return None
    # Both, for in the cocoon dialect the Epoch manifest is the config (docs/format.md, 2. The manifest).
    beside = [Path(word).with_name(name) for name in (CONFIG_FILE, EPOCH_FILE)] if word != STANDARD_INPUT else []
    candidates = [config] if config is not None else [str(path) for path in beside if path.is_file()]
    error: EpochOciError = NotFoundError(
        f"{word} needs its config {target.digest}", object=str(target.digest), hint="name it with --config FILE"
    )
    for where in candidates:
        raw = read_document(where, MANIFEST_LIMIT)
        try:
            return Document(target.media_type, verifying.check_bytes(raw, target, f"the config {where}"))
        except ContentError as wrong:
            error = wrong
    raise error


def _show(run: "Run", conversion: "Conversion", output: str | None, force: bool) -> None:
    from epoch_oci.cli.render import conversion_lines

    if conversion.derived:
        run.warn("no Epoch manifest travels with the artifact; one was derived from its layers")
    for item in conversion.lost:
        run.warn(f"not carried over: {item}")
    if output is None:
        write_result(conversion.result.raw)
        return
    documents = _documents(conversion)
    _write(documents, Path(output), force=force)
    more = ["Wrote oci-config.json, which goes with oci-manifest.json"] if CONFIG_FILE in documents else []
    run.result(conversion.to_json(), lambda: _amended(conversion_lines(conversion, output), more))


def _amended(lines: list[str], more: list[str]) -> list[str]:
    return [*lines[:1], *more, *lines[1:]]


def _documents(conversion: "Conversion") -> "dict[str, Document]":
    """The documents by file name; the config only where it is neither the Epoch manifest nor the empty one."""
    documents = {OCI_FILE: conversion.oci, EPOCH_FILE: conversion.epoch}
    if conversion.config is not None and conversion.config.raw != conversion.epoch.raw:
        documents[CONFIG_FILE] = conversion.config
    return documents


def _write(documents: "dict[str, Document]", directory: Path, *, force: bool) -> None:
    """All of them, each whole or not at all. Raises ConflictError for other content in their place."""
    from epoch_oci.locate import open_files
    from epoch_oci.stores.base import BytesContent, FileTarget

    sink = open_files(directory)
    targets = {name: FileTarget(name=name, blob=document.descriptor) for name, document in documents.items()}
    sink.check(list(targets.values()), replace=force)
    for name, document in documents.items():
        sink.write(targets[name], BytesContent(document.raw), replace=force)
