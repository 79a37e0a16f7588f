"""What an artifact says and an Epoch manifest has no member for rides in a derived manifest as one unknown member.

    "cocoonstack": {"config": {"windows": true, …}, "annotations": {…}, "titles": ["win.qcow2.00.qcow2.part", …]}

Epoch skips members it does not know, and so does every reader here. Whoever writes such a manifest back to this dialect
restores what is in it.

A snapshot that came from a Cocoon has another such member instead, the text of Cocoon's own envelope; out of it come
the members that Epoch 0.1.8 and later would have taken from it (epoch-formats 4.4 and 5.5).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from epoch_oci.epoch.extra_members import ENVELOPE, FLAGS, MODERN, TEXTS
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, Manifest
from epoch_oci.errors import ContentError
from epoch_oci.oci import strict_json
from epoch_oci.oci.digest import Digest, shown

_ENVELOPE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """`config` are members of the snapshot's config, `titles` those of a cloud image's layers, in their order."""

    config: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    titles: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What rides in `manifest`; nothing when its member of that name has another shape, being somebody else's."""
        members = manifest.document.json(limit=MANIFEST_LIMIT)
        if MODERN not in members:
            return cls(config=_of_envelope(members.get(ENVELOPE)))
        value = members[MODERN]
        if not isinstance(value, dict) or not value.keys() <= {"config", "annotations", "titles"}:
            return cls()
        config, annotations, titles = value.get("config", {}), value.get("annotations", {}), value.get("titles", [])
        if not isinstance(config, dict) or not _are_texts(annotations, dict) or not _are_texts(titles, list):
            return cls()
        return cls(config=config, annotations=annotations, titles=tuple(titles))

    def to_json(self) -> dict[str, Any]:
        """The member's value, empty when nothing rides."""
        members = {"config": dict(self.config), "annotations": dict(self.annotations), "titles": list(self.titles)}
        return {key: value for key, value in members.items() if value}

    def words(self) -> tuple[str, ...]:
        """What rides, for people."""
        return (
            *(f"config member {shown(key)}" for key in self.config),
            *(f"annotation {shown(key)}" for key in self.annotations),
            *(f"title {shown(title)}" for title in self.titles),
        )


def _of_envelope(text: Any) -> dict[str, Any]:
    """What `text`, an envelope of Cocoon's, says and an Epoch manifest has no member for; nothing when it is none."""
    if not isinstance(text, str):
        return {}
    try:
        value = strict_json.loads(text.encode("utf-8"), "the envelope", limit=_ENVELOPE_LIMIT)
    except ContentError:
        return {}
    said = value.get("config") if isinstance(value, dict) else None
    if not isinstance(said, dict):
        return {}
    found: dict[str, Any] = {
        key: item for key, name in TEXTS.items() if isinstance(item := said.get(name), str) and item
    }
    if not _is_digest(found.get("imageDigest")):
        found.pop("imageDigest", None)
    return found | {key: True for key, name in FLAGS.items() if said.get(name) is True}


def _is_digest(text: object) -> bool:
    """Whether it is one; Cocoon takes any text, a reader of the config might not."""
    try:
        Digest.parse(text)
    except ContentError:
        return False
    return True


def _are_texts(value: Any, kind: type) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, kind) and all(isinstance(item, str) for item in items)
