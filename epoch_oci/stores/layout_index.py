"""The `index.json` of an OCI image layout as a view over its bytes, and how an entry is added (image-layout.md)."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ConflictError, ContentError, Finding
from epoch_oci.oci import media_types, strict_json
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import MANIFEST_LIMIT, Document
from epoch_oci.oci.reference import is_fallback_tag, tag_problem

_KEYS = frozenset({"schemaVersion", "mediaType", "artifactType", "manifests", "subject", "annotations"})
_BATCH = 500
_BATCH_SECONDS = 10.0
"""Changes of one batch that are written together, and how long the first of them waits for others."""


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

    def added(self, entry: Descriptor) -> Self:
        """With `entry` in the place of the one that had its tag, else at the end; the rest stays as it is."""
        tag = ref_name(entry)
        places = [index for index, old in enumerate(self.entries) if ref_name(old) == tag]
        if not places:
            return self._longer(entry)
        return self._with({places[0]: entry})

    def without(self, name: str) -> Self:
        """Without the entries of a tag, or of a digest; the rest stays as it is."""
        doomed = self._tagged(name)
        gone = [at for at, entry in enumerate(self.entries) if entry in doomed or name == str(entry.digest)]
        return self._with(dict.fromkeys(gone))

    def with_untagged(self, entry: Descriptor) -> Self:
        """With one more entry at its end."""
        return self._longer(entry)

    def encoded(self) -> bytes:
        """Its bytes. Raises ContentError for what cannot be written again."""
        try:
            return Document.encode(media_types.INDEX, self.members).raw
        except ValueError as error:  # a number beyond any double, in a member of somebody else's
            raise ContentError(f"the index cannot be written again: {error}", code="JSON") from None

    def _with(self, changed: Mapping[int, Descriptor | None]) -> Self:
        """With other entries in some places, or none."""
        kept = list(enumerate(zip(self.members.get("manifests") or (), self.entries, strict=True)))
        rows = [(changed[at], None) if at in changed else (entry, item) for at, (item, entry) in kept]
        entries = tuple(entry for entry, _ in rows if entry is not None)
        items = [item if item is not None else entry.to_json() for entry, item in rows if entry is not None]
        grouped = (_grouped(entries, ref_name), _grouped(entries, _short_name))
        return type(self)({**self.members, "manifests": items}, entries, *grouped)

    def _longer(self, entry: Descriptor) -> Self:
        # Whoever adds thousands does so thousands of times: nothing of what is there is looked at again.
        members = {**self.members, "manifests": [*(self.members.get("manifests") or ()), entry.to_json()]}
        names = _with_one_more(self.by_name, ref_name(entry), entry)
        shorts = _with_one_more(self.by_short_name, _short_name(entry), entry)
        return type(self)(members, (*self.entries, entry), names, shorts)


IndexChange = Callable[[LayoutIndex], LayoutIndex | None]
"""What becomes of an index; None for one that is as it should be. Asked again when somebody else wrote in between."""
EMPTY = LayoutIndex({"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": []}, (), {}, {})


def changed(index: LayoutIndex, changes: Iterable[IndexChange]) -> LayoutIndex:
    """The index after all changes, the very same if it is as it should be. Raises what they raise."""
    for change in changes:
        index = change(index) or index
    return index


class IndexBatch:
    """Changes that are made to an index in memory, and written many at a time. Safe for threads.

    `index` is what is made of it so far; `write` makes changes where it is stored, and returns what is there then.
    Those that are not written `often` are written at the end alone.
    """

    def __init__(
        self, index: LayoutIndex, write: Callable[[Sequence[IndexChange]], LayoutIndex], *, often: bool
    ) -> None:
        self.index = index
        self._write, self._often = write, often
        self._changes: list[IndexChange] = []
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def add(self, change: IndexChange) -> None:
        """Make a change. Raises what it raises, and now and then what writing raises."""
        with self._lock:
            new = change(self.index)
            if new is not None:
                self.index = new
                self._changes.append(change)
            if self._often and (len(self._changes) >= _BATCH or time.monotonic() - self._since > _BATCH_SECONDS):
                self._write_all()

    def flush(self) -> None:
        """Write what is left."""
        with self._lock:
            if self._changes or not self._often:  # an archive may also be written for the blobs' sake
                self._write_all()

    def _write_all(self) -> None:
        self.index = self._write(tuple(self._changes))
        self._changes.clear()
        self._since = time.monotonic()


def _with_one_more(
    groups: Mapping[str, Sequence[Descriptor]], name: str | None, entry: Descriptor
) -> Mapping[str, Sequence[Descriptor]]:
    return groups if name is None else {**groups, name: [*groups.get(name, ()), entry]}


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


def with_entry(index: LayoutIndex, entry: Descriptor, what: str, *, replace: bool) -> LayoutIndex | None:
    """The index with `entry`, whose tag is in its annotations; None when it has it.

    Raises ConflictError when the tag names something else and `replace` is false.
    """
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


def told_apart(index: LayoutIndex, refers: Callable[[Descriptor], bool]) -> tuple[list[str], list[str]]:
    """The names of artifacts, and those of what refers to them; `refers` reads a manifest to know, each one once."""
    # One manifest may have several entries, some without a tag; what has a tag is called by it.
    tagged = {entry.digest for entry in index.entries if index.tag(entry) is not None}
    referring: dict[Digest, bool] = {}
    found: dict[str, bool] = {}
    for entry in index.entries:
        name = index.tag(entry)
        if name is None and entry.digest in tagged:
            continue
        if entry.digest not in referring:
            referring[entry.digest] = refers(entry)
        found[name or str(entry.digest)] = referring[entry.digest] or is_fallback_tag(name or "")
    # Tags in their order, then what has none in the order of the index: digests have no order that means anything.
    names = sorted(found, key=lambda name: (":" in name, name if ":" not in name else ""))
    return [name for name in names if not found[name]], [name for name in names if found[name]]


def orphaned(subjects: Mapping[Digest, Digest], reached: Callable[[Digest], bool]) -> list[Digest]:
    """Of what refers to something (`subjects`), all whose subject is not `reached`, or is an orphan itself."""
    lost: dict[Digest, None] = {}
    while gone := sorted(
        digest
        for digest, subject in subjects.items()
        # Again and again until nothing is added: what refers to an orphan is one.
        if digest not in lost and (subject in lost or not reached(subject))
    ):
        lost |= dict.fromkeys(gone)
    return list(lost)
