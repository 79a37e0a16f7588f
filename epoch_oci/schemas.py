"""Finds, compiles and applies the JSON Schemas; the only opener of a schema file.

In a wheel the schemas lie inside the package, in a checkout beside it.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epoch_oci.epoch.manifest import MANIFEST_LIMIT as EPOCH_LIMIT
from epoch_oci.errors import ContentError, Finding, UsageError
from epoch_oci.oci import media_types, strict_json
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import MANIFEST_LIMIT, Document

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator
    from jsonschema_rs import Draft202012Validator as Gate

_SUFFIX = ".schema.json"
_CODES = {
    **dict.fromkeys(("digest", "imageDigest", "image_digest", "chunks", "vnd.cocoon.part.digest"), "DIGEST"),
    **dict.fromkeys(("size", "totalSize", "sparseSize", "vnd.cocoon.part.size"), "SIZE"),
    **dict.fromkeys(
        ("filename", "name", "tag", "repositories", "tags", media_types.TITLE, "vnd.cocoon.part.file"), "NAME"
    ),
    **dict.fromkeys(
        ("mediaType", "artifactType", "schemaVersion", "version", "imageLayoutVersion", "manifests"), "TYPE"
    ),
}
"""The code word of a finding by the member it is about; SCHEMA for every other."""
_MAPS = frozenset({"annotations", "paxRecords"})
"""Members whose keys are data: a reader that folds the case of member names does not fold these."""
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
CATALOG_LIMIT = 256 << 20
COCOON_LIMIT = 64 << 20
_OF_ANY_LENGTH = frozenset({"epoch-catalog.v1", "cocoon-snapshots.v1", "cocoon-images.v1"})
"""Indexes: they have as many members as fit into their bytes."""
_LIMITS = {
    "epoch-manifest.v1": EPOCH_LIMIT,
    "epoch-catalog.v1": CATALOG_LIMIT,
    "cocoonstack-snapshot-config.v1": EPOCH_LIMIT,
    "cocoonstack-snapshot-config.v2": EPOCH_LIMIT,
    "cocoon-export-envelope.v1": EPOCH_LIMIT,
    "cocoon-snapshots.v1": COCOON_LIMIT,
    "cocoon-images.v1": COCOON_LIMIT,
}
"""Largest document of a kind in bytes; every other kind is an OCI document of 4 MiB at most."""


@cache
def kinds() -> tuple[str, ...]:
    """The kinds of document there is a schema for: the stems of the schema files, sorted."""
    return _stems("")


@cache
def interfaces() -> tuple[str, ...]:
    """The kinds of what the command line prints and reads as JSON or TOML: `cli/push.v1` and so on, sorted."""
    return _stems("cli/")


def text(kind: str) -> bytes:
    """The schema of `kind` as its file has it. Raises UsageError for a kind that has none."""
    if kind not in (*kinds(), *interfaces()):
        raise UsageError(f"there is no schema {shown(kind)}", hint=f"one of: {', '.join(kinds())}")
    return (_folder() / f"{kind}{_SUFFIX}").read_bytes()


@cache
def schema(kind: str) -> dict[str, Any]:
    """The schema of `kind`. Raises UsageError for a kind that has none."""
    value: dict[str, Any] = json.loads(text(kind))
    return value


def read(raw: bytes, kind: str, what: str) -> Any:
    """Read a document of `kind` strictly (`oci.strict_json`). Raises ContentError (JSON, SIZE)."""
    members = None if kind in _OF_ANY_LENGTH else strict_json.MEMBER_LIMIT
    return strict_json.loads(raw, what, limit=_LIMITS.get(kind, MANIFEST_LIMIT), members=members)


def findings(value: Any, kind: str) -> list[Finding]:
    """Everything in the parsed document that its schema forbids, in document order."""
    if allows(value, kind):
        return []
    errors = _validator(kind).iter_errors(value)
    found = [_finding(error) for error in errors] + list(_aliases(value, schema(kind), schema(kind)))
    return sorted(set(found), key=lambda item: item.path)


def check(document: Document, kind: str, what: str) -> Any:
    """The parsed document, as every view of it will have it. Raises ContentError with every finding."""
    value = document.json(what, limit=_LIMITS.get(kind, MANIFEST_LIMIT))
    if not allows(value, kind):
        raise ContentError.of(what, findings(value, kind))
    return value


def kind_of(value: Any) -> str | None:
    """The kind that a parsed document says it is, None when it is none we know."""
    if not isinstance(value, dict):
        return None
    return next((kind for kind, test in _TELLS if test(value)), None)


def _is_manifest(value: dict[str, Any]) -> bool:
    if value.get("config") is None and "manifests" in value:  # an index, whose other members are null
        return False
    return "config" in value and "layers" in value


def _is_cocoonstack(value: dict[str, Any]) -> bool:
    return _is_manifest(value) and str(value.get("artifactType", "")).startswith("application/vnd.cocoonstack.")


def _is_os_image(value: dict[str, Any]) -> bool:
    return _is_cocoonstack(value) and str(value["artifactType"]).endswith("-image.v1+json")


def _is_encoded(value: dict[str, Any]) -> bool:
    """A snapshot of version 2; its config has the media type of version 1."""
    return _is_manifest(value) and value.get("artifactType") == "application/vnd.cocoonstack.snapshot.v2+json"


def _is_chunked(value: dict[str, Any]) -> bool:
    return _is_manifest(value) and str(value.get("artifactType", "")).endswith(".chunked.v1+json")


_TELLS = (
    ("oci-layout.v1", lambda value: "imageLayoutVersion" in value),
    ("epoch-catalog.v1", lambda value: "repositories" in value),
    ("cocoonstack-snapshot-manifest.v2", _is_encoded),
    ("cocoonstack-os-image-manifest.v1", _is_os_image),
    ("cocoonstack-snapshot-manifest.v1", _is_cocoonstack),
    ("oci-image-manifest.cocoon-chunked.v1", _is_chunked),
    ("oci-image-manifest.cocoon.v1", _is_manifest),
    ("oci-image-index.v1", lambda value: "manifests" in value),
    ("cocoon-snapshots.v1", lambda value: "snapshots" in value),
    ("cocoon-images.v1", lambda value: "images" in value),
    ("cocoon-export-envelope.v1", lambda value: "config" in value and "version" in value),
    ("cocoonstack-snapshot-config.v2", lambda value: value.get("schemaVersion") == "v2"),
    ("cocoonstack-snapshot-config.v1", lambda value: isinstance(value.get("schemaVersion"), str)),
    ("epoch-manifest.v1", lambda value: "layers" in value or "snapshotId" in value or "snapshotID" in value),
)


def _stems(below: str) -> tuple[str, ...]:
    found = (_folder() / below).glob(f"*{_SUFFIX}")
    return tuple(sorted(below + path.name.removesuffix(_SUFFIX) for path in found))


def _folder() -> Path:
    packaged = Path(__file__).parent / "_schemas"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "schemas"


@cache
def _validator(kind: str) -> "Validator":
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # JSON Schema calls 1.0 an integer; a size that reads 1.0 or 1e3 is not one here.
    strict = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    validator: Validator = extend(Draft202012Validator, type_checker=strict)(schema(kind))  # type: ignore[no-untyped-call]
    return validator


def allows(value: Any, kind: str) -> bool:
    """Whether the parsed document is as its schema says; quicker than `findings`."""
    gate = _gate(kind)
    # JSON Schema calls 1.0 an integer, and so does the gate: where a fraction stands anywhere, the full validator says.
    if gate is not None and not _has_fraction(value):
        allowed = gate.is_valid(value)
    else:
        allowed = _validator(kind).is_valid(value)
    return allowed and not any(_aliases(value, schema(kind), schema(kind)))


@cache
def _gate(kind: str) -> "Gate | None":
    """A yes or no in microseconds; None on machines that jsonschema-rs has no wheel for, where a document takes longer.

    What is wrong with a document is told by jsonschema alone, so that findings are the same everywhere.
    """
    try:
        from jsonschema_rs import Draft202012Validator
    except ImportError:
        return None
    return Draft202012Validator(schema(kind))


def _has_fraction(value: Any) -> bool:
    for item in value.values() if type(value) is dict else value if type(value) is list else ():
        of = type(item)
        if of is float or ((of is dict or of is list) and _has_fraction(item)):
            return True
    return type(value) is float


_MOST_CHOICES = 20


def _finding(error: "ValidationError") -> Finding:
    path = json_path(list(error.absolute_path))
    if error.validator == "required":
        missing = error.message.removesuffix(" is a required property").strip("'\"")
        return Finding(json_path([*error.absolute_path, missing]), "SCHEMA", "is missing")
    # The member that a finding is about says more of it than the keyword that was broken.
    key = next((part for part in reversed(error.absolute_path) if isinstance(part, str)), "")
    return Finding(path, _CODES.get(key, "SCHEMA"), _sentence(error))


def _sentence(error: "ValidationError") -> str:
    value: Any = error.instance
    rule: Any = error.validator_value
    match error.validator:
        case "type":
            wanted = rule if isinstance(rule, str) else " or ".join(rule)
            return f"{shown(value)} is not of type {wanted}"
        case "enum" if len(rule) <= _MOST_CHOICES:
            return f"{shown(value)} is none of {', '.join(map(str, rule))}"
        case "pattern" | "const" | "enum" | "not" | "oneOf" | "anyOf":
            meaning = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
            return f"{shown(value)} is not allowed here" + (f": {meaning}" if meaning else "")
        case "minimum" | "exclusiveMinimum":
            return f"{shown(value)} is less than {rule}"
        case "maximum" | "exclusiveMaximum":
            return f"{shown(value)} is more than {rule}"
        case "maxItems" | "maxLength" | "maxProperties":
            return f"has {len(value)} of at most {rule}"
        case "minItems" | "minLength" | "minProperties":
            return f"has {len(value)} of at least {rule}"
        case _:
            return shown(error.message, 200).strip('"')


def json_path(parts: list[str | int]) -> str:
    """A JSON path from the root: `$.layers[2].digest`, and `$["odd key"]` where a name is not a plain word."""
    text = "$"
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if _PLAIN_KEY.match(part) else f"[{shown(part)}]"
    return text


def _aliases(value: Any, rule: Any, root: dict[str, Any], path: str = "$") -> Iterator[Finding]:
    """Keys that differ in case only from one the schema knows, at every level it describes."""
    if not isinstance(rule, dict):
        return
    # An optional member of a shared kind is written `if null, else $ref`.
    reference = rule.get("$ref") or (rule.get("else") or {}).get("$ref")
    if reference is not None:
        rule = root["$defs"][reference.rpartition("/")[2]]
    if isinstance(value, dict):
        known = rule.get("properties", {})
        if path.rpartition(".")[2] not in _MAPS:
            yield from strict_json.alias_findings(value, known.keys(), path)
        for key, member in value.items():
            below = path + json_path([key])[1:]
            yield from _aliases(member, known.get(key, rule.get("additionalProperties")), root, below)
    elif isinstance(value, list) and "items" in rule:
        for index, member in enumerate(value):
            yield from _aliases(member, rule["items"], root, f"{path}[{index}]")
