"""The `index.json` of an OCI image layout as a view over its bytes, and how an entry is added (image-layout.md)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from epoch_oci.errors import ConflictError, ContentError, Finding
from epoch_oci.oci import media_types, strict_json
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import MANIFEST_LIMIT, Document
from epoch_oci.oci.reference import tag_problem

_KEYS = frozenset({"schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations"})


@dataclass(frozen=True, slots=True)
class LayoutIndex:
    """A view of an index. It has as many entries as fit into its bytes, unlike one in a registry."""

    members: Mapping[str, Any]
    entries: tuple[Descriptor, ...]
    by_name: Mapping[str, Sequence[Descriptor]]
    by_short_name: Mapping[str, Sequence[Descriptor]]

    @classmethod
    def parse(cls, raw: bytes, what: str) -> Self:
        """Read an index; null, which Go writes, stands for no manifests. Raises ContentError with every finding."""
        members = strict_json.loads(raw, what, limit=MANIFEST_LIMIT)
        if not isinstance(members, dict):
            raise ContentError(f"{what} is not a JSON object", code="TYPE", object=what)
        found = strict_json.alias_findings(members, _KEYS)
        if type(members.get("schemaVersion")) is not int or members["schemaVersion"] != 2:
            found.append(Finding("$.schemaVersion", "TYPE", f"{shown(members.get('schemaVersion'))} is not 2"))
        stated = members.get("mediaType")
        if stated not in (None, "") and (not isinstance(stated, str) or stated not in media_types.INDEXES):
            found.append(Finding("$.mediaType", "TYPE", f"{shown(stated)} is not the type of an index"))
        if "manifests" not in members:
            found.append(Finding("$.manifests", "SCHEMA", "manifests is missing"))
        entries = _entries(members.get("manifests"), found)
        if found:
            raise ContentError.of(what, found)
        return cls(members, entries, _grouped(entries, ref_name), _grouped(entries, _short_name))

    @property
    def tags(self) -> list[str]:
        """Every tag once, sorted."""
        return sorted({tag for entry in self.entries if (tag := self.tag(entry)) is not None})

    def tag(self, entry: Descriptor) -> str | None:
        """What the entry can be asked for by, None where that is its digest alone.

        Some tools write a reference's full name in place of its tag (`docker.io/library/alpine:3.19`). Its tag will do
        then, unless another entry has it.
        """
        text = ref_name(entry)
        if text is None or tag_problem(text) is None:
            return text
        short = _short_name(entry)
        return short if short is not None and {item.digest for item in self._tagged(short)} == {entry.digest} else None

    def _tagged(self, tag: str) -> Sequence[Descriptor]:
        """Entries with this very tag, else those whose full name ends in it."""
        return self.by_name.get(tag) or self.by_short_name.get(tag, ())

    def tagged(self, tag: str, what: str) -> Descriptor | None:
        """The entry with this tag. Raises ContentError when there are two."""
        found = self._tagged(tag)
        if len(found) > 1 and (ref_name(found[0]) == tag or len({entry.digest for entry in found}) > 1):
            raise ContentError(
                f"{what} has {len(found)} entries with the tag {shown(tag)}",
                object=what,
                hint="name the one you want by its digest",
            )
        return found[0] if found else None

    def with_digest(self, digest: Digest) -> Descriptor | None:
        """The first entry with this digest."""
        return next((entry for entry in self.entries if entry.digest == digest), None)

    def added(self, entry: Descriptor) -> bytes:
        """The index with `entry` in the place of the one that had its tag, else at the end; the rest stays as it is."""
        manifests = list(self.members.get("manifests") or ())
        tag = ref_name(entry)
        places = [index for index, old in enumerate(self.entries) if ref_name(old) == tag]
        at = places[0] if places else len(manifests)
        manifests[at : at + 1] = [entry.to_json()]
        return _encoded({**self.members, "manifests": manifests})

    def without(self, name: str) -> bytes:
        """The index without the entries of a tag, or of a digest; the rest stays as it is."""
        manifests = list(self.members.get("manifests") or ())
        doomed = self._tagged(name)
        kept = [
            item
            for item, entry in zip(manifests, self.entries, strict=True)
            if entry not in doomed and name != str(entry.digest)
        ]
        return _encoded({**self.members, "manifests": kept})

    def with_untagged(self, entry: Descriptor) -> bytes:
        """The index with one more entry at its end."""
        return _encoded({**self.members, "manifests": [*(self.members.get("manifests") or ()), entry.to_json()]})


def ref_name(entry: Descriptor) -> str | None:
    """What an entry is called, None when it has no name."""
    return entry.annotations.get(media_types.REF_NAME)


def _short_name(entry: Descriptor) -> str | None:
    """The tag in the full name of a reference that an entry is called by, None when there is none."""
    repository, colon, tag = (ref_name(entry) or "").rpartition(":")
    return tag if colon and "@" not in repository and tag_problem(tag) is None else None


def _grouped(
    entries: Iterable[Descriptor], name: Callable[[Descriptor], str | None]
) -> Mapping[str, Sequence[Descriptor]]:
    found: dict[str, list[Descriptor]] = {}
    for entry in entries:
        if (text := name(entry)) is not None:
            found.setdefault(text, []).append(entry)
    return found


def empty_index() -> bytes:
    """An index without entries."""
    return _encoded({"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": []})


def with_entry(raw: bytes | None, entry: Descriptor, what: str, *, replace: bool) -> bytes | None:
    """The index `raw` (None: there is none yet) with `entry`, whose tag is in its annotations; None when it has it.

    Raises ConflictError when the tag names something else and `replace` is false, ContentError for a wrong index.
    """
    index = LayoutIndex.parse(empty_index() if raw is None else raw, what)
    old = index.tagged(ref_name(entry) or "", what)
    if old is not None and (old.digest, old.size) == (entry.digest, entry.size):
        return None
    if old is not None and not replace:
        raise ConflictError(
            f"the tag {shown(ref_name(entry))} of {what} names {old.digest}, which is another artifact",
            object=what,
            hint="use another tag, or replace it with --force",
        )
    return index.added(entry)


def _entries(value: Any, found: list[Finding]) -> tuple[Descriptor, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        found.append(Finding("$.manifests", "SCHEMA", "manifests must be an array"))
        return ()
    entries = []
    for index, item in enumerate(value):
        try:
            entries.append(Descriptor.parse(item, f"$.manifests[{index}]"))
        except ContentError as error:
            found.extend(error.findings)
    return tuple(entries)


def _encoded(members: Mapping[str, Any]) -> bytes:
    try:
        return Document.encode(media_types.INDEX, members).raw
    except ValueError as error:  # a number beyond any double, in a member of somebody else's
        raise ContentError(f"the index cannot be written again: {error}", code="JSON") from None
