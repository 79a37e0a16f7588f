"""Image manifests and indexes as views over a document (image-spec, manifest.md and image-index.md)."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, Finding, counted
from epoch_oci.oci import media_types, strict_json, verifying
from epoch_oci.oci.descriptor import Descriptor, annotation_findings, stated_annotations
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document

# Registries take 4 MiB of manifest, at about 450 bytes a layer (oci-registries 1.4).
LAYER_LIMIT = 2_000
# A layout's index lists every tag of a repository.
INDEX_LIMIT = 10_000
_MANIFEST_KEYS = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations", "manifests"}
)


_MARKS = (b'"config"', b'"manifests"', b"/vnd.oci.image.", b"/vnd.docker.distribution.")


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """A view of an OCI image manifest; `document` has the bytes that count."""

    document: Document
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    artifact_type: str | None
    subject: Descriptor | None

    @classmethod
    def parse(cls, document: Document, what: str = "manifest") -> Self:
        """Read a manifest. Raises ContentError with every finding; TYPE when it is another kind of document."""
        value = _object(document, what)
        _refuse_other_kind(value, document, what, {*media_types.MANIFESTS}, "manifests", "layers")
        findings = strict_json.alias_findings(value, _MANIFEST_KEYS)
        config = _descriptor(value.get("config"), "$.config", findings)
        layers = _descriptors(value, "layers", LAYER_LIMIT, findings)
        subject = _descriptor(value["subject"], "$.subject", findings) if value.get("subject") is not None else None
        annotations = _annotations(value, findings)
        artifact_type = value.get("artifactType")
        if not isinstance(artifact_type, str | None):
            findings.append(Finding("$.artifactType", "SCHEMA", "artifactType must be a string"))
        # All at once, before one blob is asked for (decision D10).
        if findings or config is None:
            raise ContentError.of(what, findings)
        numbered = [(f"$.layers[{index}]", layer) for index, layer in enumerate(layers)]
        # A config that is a layer as well is legal; with another size it is not (reliability D5).
        if conflicts := _size_conflicts([("$.config", config), *numbered]):
            raise ContentError.of(what, conflicts)
        return cls(document, config, layers, annotations, artifact_type or None, subject)

    @property
    def kind(self) -> str:
        """The artifact's type: `artifactType`, else the config's media type."""
        return self.artifact_type or self.config.media_type

    @property
    def successors(self) -> tuple[Descriptor, ...]:
        """What must be stored before this manifest: config and layers, each digest once."""
        return tuple({item.digest: item for item in (self.config, *self.layers)}.values())


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """A view of an OCI image index or a Docker manifest list."""

    document: Document
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @classmethod
    def parse(cls, document: Document, what: str = "index") -> Self:
        """Read an index. Raises ContentError with every finding; TYPE when it is another kind of document."""
        value = _object(document, what)
        _refuse_other_kind(value, document, what, {*media_types.INDEXES}, "layers", "manifests")
        findings = strict_json.alias_findings(value, _MANIFEST_KEYS)
        manifests = _descriptors(value, "manifests", INDEX_LIMIT, findings)
        annotations = _annotations(value, findings)
        findings = findings or _size_conflicts((f"$.manifests[{index}]", item) for index, item in enumerate(manifests))
        if findings:
            raise ContentError.of(what, findings)
        return cls(document, manifests, annotations)


def media_type_of(raw: bytes) -> str | None:
    """What an OCI or Docker manifest or index says it is, or is by its shape; None for any other document.

    How well it is formed is not looked at: whoever parses it says that.
    """
    if not any(mark in raw for mark in _MARKS):  # spares megabytes of Epoch's own from being read twice
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    stated = value.get("mediaType")
    if isinstance(stated, str) and stated in media_types.MANIFESTS | media_types.INDEXES:
        return stated
    if isinstance(value.get("config"), dict) and "mediaType" in value["config"]:
        return media_types.MANIFEST
    return media_types.INDEX if isinstance(value.get("manifests"), list) else None


def is_index(document: Document) -> bool:
    """Whether a document lists manifests: as its own `mediaType` says, else as it was served or is shaped."""
    value = document.json()
    stated = value.get("mediaType") if isinstance(value, dict) else None
    if isinstance(stated, str) and stated:
        return stated in media_types.INDEXES
    return document.media_type in media_types.INDEXES


def as_stated(document: Document, what: str, quoted: Callable[[str], str] = shown) -> Document:
    """The same bytes as what they say they are: by their own `mediaType`, without one by their shape.

    How they were served is a hint, for what says neither. Raises ContentError (TYPE) for what is no manifest, in which
    `quoted` makes what the other side said fit to be shown.
    """
    value = _read_loosely(document)
    stated = (value or {}).get("mediaType") or _shape(value or {}, document.media_type)
    known = media_types.MANIFESTS | media_types.INDEXES
    if stated is None and value is None and document.media_type in known:
        return document  # damaged: whoever parses it says how
    if stated not in known:
        named = f"calls itself {quoted(str(stated))}" if stated else f"was served as {quoted(document.media_type)}"
        raise ContentError(
            f"{what} {named}, which is no manifest",
            code="TYPE",
            object=what,
            hint="is this a registry, and the right address?",
        )
    return document if stated == document.media_type else document.called(stated)


def _read_loosely(document: Document) -> dict[str, Any] | None:
    """The object that a document is, None when it is none; how well it is formed others find out."""
    try:
        value = document.json()
    except ContentError:  # all the same, what it says it is decides who says what is wrong with it
        try:
            value = json.loads(document.raw)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _shape(value: dict[str, Any], hint: str) -> str | None:
    """The media type of a document that does not state its own."""
    lists, holds = isinstance(value.get("manifests"), list), "layers" in value or isinstance(value.get("config"), dict)
    if not lists and not holds:
        return None
    kind = media_types.MANIFESTS if holds else media_types.INDEXES
    return hint if hint in kind else media_types.MANIFEST if holds else media_types.INDEX


def successors(document: Document, what: str = "manifest") -> tuple[Descriptor, ...]:
    """What must be stored before a manifest or an index, each digest once. Raises ContentError with every finding."""
    if is_index(document):
        parts = ImageIndex.parse(document, what).manifests
        return tuple({item.digest: item for item in parts}.values())
    return ImageManifest.parse(document, what).successors


def subject_of(document: Document) -> Descriptor | None:
    """What a manifest or an index refers to. Raises ContentError for one that is no descriptor."""
    value = document.json()
    subject = value.get("subject") if isinstance(value, dict) else None
    return None if subject is None else Descriptor.parse(subject, "$.subject")


def _object(document: Document, what: str) -> dict[str, Any]:
    value = document.json(what)
    if not isinstance(value, dict):
        raise ContentError(f"{what} is not a JSON object", code="TYPE", object=what)
    return value


def _refuse_other_kind(
    value: dict[str, Any], document: Document, what: str, allowed: set[str], foreign: str, own: str
) -> None:
    """Refuse a document that could be read as two kinds (CVE-2021-41190), or as none of those `allowed`."""
    findings = []
    version = value.get("schemaVersion")
    if type(version) is not int or version != 2:
        findings.append(Finding("$.schemaVersion", "TYPE", f"schemaVersion is {shown(version)}, only 2 is understood"))
    if value.get(foreign) is not None:
        findings.append(Finding(f"$.{foreign}", "TYPE", f'"{foreign}" and "{own}" may not stand in one document'))
    if own not in value:
        findings.append(Finding("$", "TYPE", f'there is no "{own}"'))
    stated = value.get("mediaType")
    if stated in (None, ""):  # absent: Go writes neither, and reads both so
        stated = document.media_type
    if not isinstance(stated, str) or stated not in allowed:
        findings.append(
            Finding(
                "$.mediaType",
                "TYPE",
                f"media type {shown(stated)} is not one of {', '.join(sorted(allowed))}",
            )
        )
    # What a store or an index says of a document and what it says of itself must agree: the one is what was asked for,
    # the other is what readers go by (CVE-2021-41190).
    elif document.media_type and document.media_type != stated:
        findings.append(
            Finding(
                "$.mediaType",
                "TYPE",
                f"served as {shown(document.media_type)} but says {shown(stated)} of itself",
            )
        )
    if findings:
        raise ContentError.of(what, findings)


def _descriptor(value: object, path: str, findings: list[Finding]) -> Descriptor | None:
    try:
        found = Descriptor.parse(value, path)
    except ContentError as error:
        findings.extend(error.findings)
        return None
    findings.extend(_inline_findings(found, path))
    return found


def _inline_findings(item: Descriptor, path: str) -> list[Finding]:
    """Embedded content must be what the descriptor names (image-spec, descriptor.md, "Embedded Content")."""
    inline = item.extra.get("data")
    if inline is None:
        return []
    try:
        verifying.check_bytes(base64.b64decode(inline, validate=True), item, "the embedded content")
    except ValueError:
        return [Finding(f"{path}.data", "SCHEMA", "data is not base64")]
    except ContentError as error:
        return [Finding(f"{path}.data", error.code, error.message)]
    return []


def _descriptors(value: dict[str, Any], key: str, limit: int, findings: list[Finding]) -> tuple[Descriptor, ...]:
    items = value.get(key)
    # Epoch 0.1.6 and later write null for no layers (a nil slice in Go).
    if items is None and key in value:
        return ()
    if not isinstance(items, list) or len(items) > limit:
        findings.append(Finding(f"$.{key}", "SCHEMA", f"{key} must be an array of at most {limit}"))
        return ()
    parsed = [_descriptor(item, f"$.{key}[{index}]", findings) for index, item in enumerate(items)]
    return tuple(item for item in parsed if item is not None)


def _size_conflicts(items: Iterable[tuple[str, Descriptor]]) -> list[Finding]:
    """One digest cannot have two sizes."""
    sizes: dict[Digest, int] = {}
    return [
        Finding(
            f"{path}.size",
            "SIZE",
            f"{item.digest} is {counted(item.size, 'byte')} here and {sizes[item.digest]} before",
        )
        for path, item in items
        if sizes.setdefault(item.digest, item.size) != item.size
    ]


def _annotations(value: dict[str, Any], findings: list[Finding]) -> Mapping[str, str]:
    notes = value.get("annotations")
    found = annotation_findings(notes, "$.annotations")
    findings.extend(found)
    return MappingProxyType({} if found else stated_annotations(notes))
