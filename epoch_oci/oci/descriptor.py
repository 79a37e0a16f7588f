"""Content descriptors (image-spec, descriptor.md)."""

import re
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import media_types, strict_json
from epoch_oci.oci.digest import Digest, shown

_KNOWN = frozenset({"mediaType", "digest", "size", "annotations", "artifactType", "urls", "data", "platform"})
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z")


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Names content by media type, digest and size in bytes. `extra` keeps the members not modelled here."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=_nothing, hash=False)
    artifact_type: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_nothing, hash=False)

    @property
    def title(self) -> str | None:
        """The file name it claims; hostile until checked (`oci.filename`)."""
        return self.annotations.get(media_types.TITLE)

    @classmethod
    def parse(cls, value: object, path: str = "$") -> Self:
        """Read one from parsed JSON. Raises ContentError with every finding below `path`."""
        findings = list(_findings(value, path))
        if findings:
            raise ContentError.of("descriptor", findings)
        assert isinstance(value, dict)
        modelled = {"mediaType", "digest", "size", "annotations", "artifactType"}
        # What nobody here knows goes back out as it came in (image-spec, considerations.md, "Extensibility").
        rest = {key: item for key, item in value.items() if key not in modelled}
        return cls(
            media_type=value["mediaType"],
            digest=Digest.parse(value["digest"]),
            size=value["size"],
            annotations=MappingProxyType(stated_annotations(value.get("annotations"))),
            artifact_type=value.get("artifactType") or None,
            extra=MappingProxyType({key: item for key, item in rest.items() if item is not None or key not in _KNOWN}),
        )

    def to_json(self) -> dict[str, Any]:
        """The members as OCI spells them; empty annotations are left out."""
        members: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            members["annotations"] = dict(self.annotations)
        if self.artifact_type:
            members["artifactType"] = self.artifact_type
        # Ours last: no unknown member may take the place of one that was checked.
        return {**self.extra, **members}


EMPTY = Descriptor(media_type=media_types.EMPTY, digest=Digest.of(b"{}"), size=2)
"""The OCI empty descriptor, without inline `data`."""


def size_problem(value: object) -> str | None:
    """What is wrong with a size in bytes, None when it is an integer from 0 to 2^53-1."""
    # Not isinstance: true is an int in Python, and 1.0 one in JSON Schema. No size is written so (reliability D2).
    if type(value) is not int:
        return f"{shown(value)} is not an integer"
    if not 0 <= value <= strict_json.INTEGER_LIMIT:
        return f"{shown(value)} is not between 0 and 2^53-1"
    return None


def size_of(text: str | None) -> int | None:
    """The size in bytes that `text` spells, None for any other text: the one spelling that everybody reads alike.

    As Go prints an int64. A sign, a leading zero or a blank is another writer's, and some reader takes it for another
    number (docs/format.md, "Parts").
    """
    if text is None or _DECIMAL.match(text) is None or size_problem(int(text)):
        return None
    return int(text)


def annotation_findings(value: object, path: str) -> list[Finding]:
    """What is wrong with parsed annotations at `path`; null stands for none, of all and of each."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return [Finding(path, "SCHEMA", f"{shown(value)} is not an object of strings")]
    return [
        Finding(strict_json.member_path(path, key), "SCHEMA", f"{shown(item)} is not a string")
        for key, item in value.items()
        if not isinstance(item, str | None)
    ]


def stated_annotations(value: Mapping[str, str | None] | None) -> dict[str, str]:
    """Parsed annotations without those that are null, which are absent ones (as for Go's readers)."""
    return {key: item for key, item in (value or {}).items() if item is not None}


def _findings(value: object, path: str) -> list[Finding]:
    if not isinstance(value, dict):
        return [Finding(path, "SCHEMA", "a descriptor must be an object")]
    found = strict_json.alias_findings(value, _KNOWN, path)
    if not media_types.is_media_type(value.get("mediaType")):
        found.append(Finding(f"{path}.mediaType", "SCHEMA", f"{shown(value.get('mediaType'))} is not a media type"))
    try:
        Digest.parse(value.get("digest"))
    except ContentError as error:
        found.append(Finding(f"{path}.digest", "DIGEST", error.message))
    if problem := size_problem(value.get("size")):
        found.append(Finding(f"{path}.size", "SIZE", problem))
    found.extend(annotation_findings(value.get("annotations"), f"{path}.annotations"))
    for key in ("artifactType", "data"):
        if not isinstance(value.get(key), str | None):
            found.append(Finding(f"{path}.{key}", "SCHEMA", f"{key} must be a string"))
    urls = value.get("urls")
    if urls is not None and not (isinstance(urls, list) and all(isinstance(url, str) for url in urls)):
        found.append(Finding(f"{path}.urls", "SCHEMA", "urls must be an array of strings"))
    return found
