"""What an artifact says and an Epoch manifest has no member for rides in a derived manifest as one unknown member.

    "cocoonstack": {"config": {"windows": true, …}, "annotations": {…}, "titles": ["win.qcow2.00.qcow2.part", …]}

Epoch skips members it does not know, and so does every reader here. Whoever writes such a manifest back to this dialect
restores what is in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from epoch_oci.epoch.manifest import MANIFEST_LIMIT, Manifest
from epoch_oci.oci.digest import shown

MEMBER = "cocoonstack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """`config` are members of the snapshot's config, `titles` those of a cloud image's layers, in their order."""

    config: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    titles: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What rides in `manifest`; nothing when its member of that name has another shape, being somebody else's."""
        value = manifest.document.json(limit=MANIFEST_LIMIT).get(MEMBER)
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


def _are_texts(value: Any, kind: type) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, kind) and all(isinstance(item, str) for item in items)
