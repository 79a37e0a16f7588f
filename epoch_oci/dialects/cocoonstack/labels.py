"""What the annotations of an artifact say about the whole of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from epoch_oci.dialects import profile
from epoch_oci.epoch import times
from epoch_oci.epoch.keys import hostile_problem
from epoch_oci.errors import Finding
from epoch_oci.oci import media_types
from epoch_oci.oci.digest import shown
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.strict_json import member_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """`created` is a time as text, "" when there is none; `rest` are the annotations that are nothing of these.

    An artifact of Epoch has neither name nor tag in it: these are its repository's, and its tag's.
    """

    name: str
    tag: str
    snapshot_id: str
    image: str
    created: str
    rest: Mapping[str, str]
    warnings: tuple[Finding, ...]

    @classmethod
    def read(cls, manifest: ImageManifest, found: list[Finding]) -> Self:
        """Those of `manifest`; what is hostile is added to `found`."""
        notes = manifest.annotations
        for key in (media_types.TITLE, media_types.VERSION):
            text = notes.get(key)
            if text and (why := hostile_problem(text)) is not None:
                found.append(Finding(member_path("$.annotations", key), "NAME", f"{shown(text)} {why}"))
        created, warnings = notes.get(media_types.CREATED, ""), []
        if created and not times.is_time(created):
            path = member_path("$.annotations", media_types.CREATED)
            problem = f"{shown(created)} is not a time (RFC 3339) and is left out"
            warnings.append(Finding(path, "SCHEMA", problem, "warning"))
            created = ""
        return cls(
            name=notes.get(media_types.TITLE, ""),
            tag=notes.get(media_types.VERSION, ""),
            snapshot_id=notes.get(profile.SNAPSHOT_ID, ""),
            image=notes.get(profile.IMAGE, ""),
            created=created,
            rest=MappingProxyType({key: text for key, text in notes.items() if key not in profile.MANIFEST_KEYS}),
            warnings=tuple(warnings),
        )

    def unlike(self, *, snapshot_id: str, image: str) -> dict[str, str]:
        """The annotations to keep beside members of these values: `rest`, and what differs from them."""
        rows = ((profile.SNAPSHOT_ID, self.snapshot_id, snapshot_id), (profile.IMAGE, self.image, image))
        return {**self.rest, **{key: text for key, text, known in rows if text not in ("", known)}}
