"""Image manifests and indexes as views over a document (image-spec, manifest.md and image-index.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import media_types, strict_json
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document

LAYER_LIMIT = 2_000
INDEX_LIMIT = 256
_MANIFEST_KEYS = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations", "manifests"}
)


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
        if not isinstance(value.get("artifactType", ""), str):
            findings.append(Finding("$.artifactType", "SCHEMA", "artifactType must be a string"))
        if findings or config is None:
            raise ContentError.of(what, findings)
        return cls(document, config, layers, annotations, value.get("artifactType"), subject)

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
        if findings:
            raise ContentError.of(what, findings)
        return cls(document, manifests, annotations)


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
    if foreign in value:
        findings.append(Finding(f"$.{foreign}", "TYPE", f'"{foreign}" and "{own}" may not stand in one document'))
    if own not in value:
        findings.append(Finding("$", "TYPE", f'there is no "{own}"'))
    stated = value.get("mediaType", document.media_type)
    if stated not in allowed:
        findings.append(
            Finding(
                "$.mediaType",
                "TYPE",
                f"media type {shown(stated)} is not one of {', '.join(sorted(allowed))}",
            )
        )
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
        return Descriptor.parse(value, path)
    except ContentError as error:
        findings.extend(error.findings)
        return None


def _descriptors(value: dict[str, Any], key: str, limit: int, findings: list[Finding]) -> tuple[Descriptor, ...]:
    items = value.get(key)
    if not isinstance(items, list) or len(items) > limit:
        findings.append(Finding(f"$.{key}", "SCHEMA", f"{key} must be an array of at most {limit}"))
        return ()
    parsed = [_descriptor(item, f"$.{key}[{index}]", findings) for index, item in enumerate(items)]
    found = tuple(item for item in parsed if item is not None)
    findings.extend(_size_conflicts(found, key))
    return found


def _size_conflicts(items: tuple[Descriptor, ...], key: str) -> list[Finding]:
    sizes: dict[object, int] = {}
    return [
        Finding(
            f"$.{key}[{index}].size",
            "SIZE",
            f"{item.digest} is {item.size} bytes here and {sizes[item.digest]} before",
        )
        for index, item in enumerate(items)
        if sizes.setdefault(item.digest, item.size) != item.size
    ]


def _annotations(value: dict[str, Any], findings: list[Finding]) -> Mapping[str, str]:
    notes = value.get("annotations")
    if notes is None:
        return MappingProxyType({})
    if not isinstance(notes, dict) or not all(isinstance(item, str) for item in notes.values()):
        findings.append(Finding("$.annotations", "SCHEMA", "annotations must map strings to strings"))
        return MappingProxyType({})
    return MappingProxyType(notes)
