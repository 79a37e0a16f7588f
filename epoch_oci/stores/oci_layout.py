"""An OCI image layout in a directory (image-spec, image-layout.md): many tags over shared blobs."""

import io
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.disk.facts import Marks
from epoch_oci.disk.local import Warnings, unheard
from epoch_oci.errors import ContentError, Finding, NotFoundError, UsageError
from epoch_oci.oci import media_types, strict_json, verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import MANIFEST_LIMIT, Document
from epoch_oci.oci.manifest import ImageIndex, ImageManifest, is_index, subject_of
from epoch_oci.oci.reference import fallback_subject, tag_problem
from epoch_oci.stores.backends.base import (
    Backend,
    StoredContent,
    left_behind,
    read_if_there,
    verified,
)
from epoch_oci.stores.backends.collect import Collector, oci_digests_in
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.base import BytesContent, Content, Garbage
from epoch_oci.stores.layout_index import (
    EMPTY,
    IndexBatch,
    IndexChange,
    LayoutIndex,
    changed,
    orphaned,
    ref_name,
    told_apart,
    with_entry,
)

if TYPE_CHECKING:
    from epoch_oci.disk.assembly import Assembly

MARK = "oci-layout"
INDEX = "index.json"
_BLOBS = "blobs/sha256/"
_ALL_BLOBS = "blobs/"
_VERSION = "1.0.0"
MARK_BYTES = b'{"imageLayoutVersion":"1.0.0"}'
_MARK_LIMIT = 4096
_DEFAULT_TAG = "latest"
_MOST_NAMES = 20
"""How many are listed in a message."""


class OciLayout:
    """Artifacts named `TAG` or `ALGORITHM:HEX`. The layout is made when the first blob is stored.

    `warn` is told what is wrong or at risk there, each thing once; `marks` remember which blobs were found right.
    `backend` keeps its files where that is no directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        warn: Callable[[str], None] = unheard,
        marks: Marks | None = None,
        backend: Backend | None = None,
    ) -> None:
        warnings = Warnings(str(directory), warn)
        self._backend = backend or DirectoryBackend(directory, warnings=warnings, marks=marks)
        self._where = str(directory)
        self._subjects: tuple[LayoutIndex | None, dict[Digest, dict[Digest, Descriptor]]] = (None, {})
        self._parsed: tuple[bytes, LayoutIndex] = (b"", EMPTY)
        self._referring: dict[Digest, Digest | None] = {}
        self._batch: IndexBatch | None = None

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return f"oci:{self._where}"

    def resolve(self, name: str) -> Document:
        """As `Source.resolve`; a digest also finds what only another index of the layout refers to.

        Raises NotFoundError also when the directory is no layout yet, ContentError for two entries with one tag.
        """
        index = self._index()
        digest = _digest(name)
        entry = index.tagged(name, self._index_name) if digest is None else index.with_digest(digest)
        if entry is not None:
            return self._document(entry)
        if digest is not None:
            return self._unlisted(digest)
        raise NotFoundError(
            f"{self._where} has no tag {shown(name)}",
            object=name,
            hint=f"its tags are {_listed(index.tags)}" if index.tags else "it has no tags at all",
        )

    def has(self, target: Descriptor) -> bool:
        """Whether a blob of this name and size is here: a look, its bytes are not read."""
        return self._backend.head(blob_key(target.digest)) == target.size

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Sink.holds`."""
        return self._backend.holds(blob_key(target.digest), target, anew=anew)

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`."""
        return StoredContent(self._backend, blob_key(target.digest), target.size)

    def check_target(self) -> None:
        """Raises what every write would raise: for a layout of another version, or an index that cannot be read."""
        self._has_mark()
        self._entries()

    def put(self, target: Descriptor, content: Content) -> None:
        """As `Sink.put`. Reads and checks `content` whatever is here already, and replaces it."""
        self._has_mark()
        key = blob_key(target.digest)
        self._backend.write(key, lambda: verified(content, target), target.size, digest=target.digest)
        self._make()

    def assemble(self, target: Descriptor) -> "AbstractContextManager[Assembly] | None":
        """As `Assembler.assemble`."""
        self._has_mark()
        return self._backend.assemble(blob_key(target.digest), target)

    def publish(self, name: str, document: Document, *, replace: bool = False) -> None:
        """As `Sink.publish`: the manifest as a blob, then its entry in `index.json`. `name` must be a legal tag."""
        if (why := tag_problem(name)) is not None:
            raise UsageError(f"{shown(name)} cannot be a tag: it {why}")
        self._has_mark()
        entry = self._entry(name, document)
        with_entry(self._entries(), entry, self._index_name, replace=replace)  # refuses, before anything is written
        if not self._stores(document):
            self.put(document.descriptor, BytesContent(document.raw))
        self._make()
        self._backend.flush(_BLOBS)
        self._change(lambda index: with_entry(index, entry, self._index_name, replace=replace))

    def keep(self, document: Document) -> None:
        """As `ArtifactStore.keep`. What refers to another manifest is listed without a tag, or nobody would find it."""
        self._has_mark()
        entry = self._entry(None, document)
        if not self._stores(document):
            self.put(document.descriptor, BytesContent(document.raw))
        self._make()
        if subject_of(document) is not None:
            self._backend.flush(_BLOBS)
            self._change(lambda index: index.with_untagged(entry) if index.with_digest(entry.digest) is None else None)

    def digest_of(self, name: str) -> Digest | None:
        """As `stores.base.ArtifactStore.digest_of`."""
        try:
            return self.resolve(name).digest
        except NotFoundError:
            return None

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """As `ArtifactStore.referrers`: by the entries of `index.json`, and by the tag that some tools use instead."""
        index = self._entries()
        known, found = self._subjects
        if known is not index:
            found = self._listed_subjects(index)
            self._subjects = (index, found)
        return tuple(found.get(digest, {}).values())

    def remove(self, name: str) -> None:
        """As `stores.base.Remover`: a tag's entry, or all entries of a digest. Content stays, see `prune`."""
        if self.digest_of(name) is None:
            raise NotFoundError(f"{self._where} has no {shown(name)}", object=name)
        self._change(lambda index: index.without(name))

    @contextmanager
    def batch(self) -> Iterator[Callable[[str], None]]:
        """Inside, what is published enters `index.json` many at a time, and all of it before it ends.

        What a kill keeps from being listed is there: publishing it again moves nothing. The listener that is given is
        as that of `EpochStore.batch`, and has nothing to do. A batch in a batch is part of it.
        """
        if self._batch is not None:
            yield lambda name: None
            return
        self._batch = batch = IndexBatch(self._entries(), self._write_changes, often=self._writes_often)
        try:
            yield lambda name: None
            batch.flush()
        finally:
            self._batch = None
            if self._writes_often:
                batch.flush()

    _writes_often = True

    def _change(self, change: IndexChange) -> None:
        if self._batch is not None:
            self._batch.add(change)
        else:
            self._write_changes([change])

    def _write_changes(self, changes: Sequence[IndexChange]) -> LayoutIndex:
        """Make changes to the index that is there, which another process may have written; what is there then."""
        index = EMPTY

        def made(old: bytes | None) -> bytes | None:
            nonlocal index
            before = EMPTY if old is None else self._parse(old)
            index = changed(before, changes)
            return None if index is before else index.encoded()

        self._backend.update(INDEX, made, limit=MANIFEST_LIMIT)
        return index

    def garbage(self, grace: float, *, without: AbstractSet[str] = frozenset()) -> Garbage:
        """As `Collecting.garbage`: what cannot be reached from `index.json`, through manifests and their referrers."""
        self._index()
        # Without books: a layout in a directory is written under a lock, and no server writes to it behind our back.
        return Collector(self._backend, _ALL_BLOBS, (), self._reached).find(grace, without)

    def collect(self, garbage: Garbage, grace: float) -> Garbage:
        """As `Collecting.collect`."""
        return Collector(self._backend, _ALL_BLOBS, (), self._reached).remove(garbage, grace)

    def orphans(self) -> list[str]:
        """The digests of untagged entries that refer to what cannot be reached by any tag any more."""
        subjects = {
            entry.digest: subject.digest
            for entry in self._index().entries
            if ref_name(entry) is None and (subject := subject_of(self._document(entry))) is not None
        }
        reached = self._reached(frozenset())
        return [str(digest) for digest in orphaned(subjects, lambda subject: blob_key(subject) in reached)]

    def _reached(self, without: AbstractSet[str]) -> set[str]:
        """The keys of all that the entries of `index.json` lead to, but for tags `without` and referrers of theirs."""
        waiting, loose = [], {}
        index = self._index()
        for entry in index.entries:
            if not without.isdisjoint((index.tag(entry) or "", str(entry.digest))):
                continue
            if ref_name(entry) is None and (subject := subject_of(self._document(entry))) is not None:
                loose[entry.digest] = subject.digest
            else:
                waiting.append(entry.digest)
        reached: set[str] = set()
        while waiting:
            digest = waiting.pop()
            if blob_key(digest) in reached:
                continue
            reached.add(blob_key(digest))
            waiting += self._named_in(digest)
            waiting += [referrer for referrer, subject in loose.items() if subject == digest]
        return reached

    def _named_in(self, digest: Digest) -> list[Digest]:
        """What a blob names, if it is a manifest or an index."""
        size = self._backend.head(blob_key(digest))
        if size is None or size > MANIFEST_LIMIT:
            return []
        raw = self._read(blob_key(digest)) or b""
        # A small blob that happens to be JSON is no document; a manifest of a type that nobody knows yet is one.
        if raw.lstrip()[:1] != b"{" or not (b'"layers"' in raw or b'"manifests"' in raw):
            return []
        # By text and not by the known members: whatever a later version of a document names is kept (reliability J4).
        return [Digest.parse(found) for found in oci_digests_in(raw)]

    def _listed_subjects(self, index: LayoutIndex) -> dict[Digest, dict[Digest, Descriptor]]:
        """What refers to what."""
        found: dict[Digest, dict[Digest, Descriptor]] = {}
        for entry in index.entries:
            if (subject := self._subject(entry)) is not None:
                found.setdefault(subject, {})[entry.digest] = replace(entry, annotations={})
            # Layouts that were copied from a registry without the referrers API have its lists (oci-registries 2.2).
            if (digest := fallback_subject(ref_name(entry) or "")) is not None and is_index(
                document := self._document(entry)
            ):
                found.setdefault(digest, {}).update(
                    {item.digest: item for item in ImageIndex.parse(document, self._where).manifests}
                )
        return found

    def _subject(self, entry: Descriptor) -> Digest | None:
        """What a manifest refers to; read once, for bytes of one digest say one thing."""
        if entry.digest not in self._referring:
            subject = subject_of(self._document(entry))
            self._referring[entry.digest] = None if subject is None else subject.digest
        return self._referring[entry.digest]

    def tags(self) -> Iterator[str]:
        """As `ArtifactStore.tags`."""
        yield from self._index().tags

    def sole_entry(self) -> str:
        """What to read when nobody said which: the only entry, else `latest`. A tag, or a digest where there is none.

        Raises NotFoundError, which lists the tags.
        """
        index = self._index()
        names, _ = told_apart(index, self._refers)
        if len(names) == 1:
            return names[0]
        if _DEFAULT_TAG in names:
            return _DEFAULT_TAG
        if not names:
            raise NotFoundError(f"{self._where} is a layout that lists no artifact", object=self._where)
        raise NotFoundError(
            f"{self._where} has {len(names)} entries and none of them is tagged {_DEFAULT_TAG}",
            object=self._where,
            hint=f"name one: {_listed(names)}",
        )

    def artifacts(self) -> list[str]:
        """What counts as an artifact of its own: its tags, and by their digests those that have none.

        What refers to another manifest (signatures, attestations and the like) does not, nor does the list of such.
        """
        return told_apart(self._index(), self._refers)[0]

    def _refers(self, entry: Descriptor) -> bool:
        """Whether a manifest refers to another one; one that cannot be read counts for itself, for it is missed."""
        try:
            return subject_of(self._document(entry)) is not None
        except (ContentError, NotFoundError):
            return False

    def audit(self) -> Iterator[Finding]:
        """As `Auditor.audit`: tags that occur twice, entries without a blob, what does not count, what is left over."""
        yield from left_behind(self._backend, ("", _BLOBS))
        try:
            index = self._index()
        except ContentError as error:
            yield from (Finding(INDEX, item.code, str(item)) for item in error.findings)
            return
        for tag, entries in index.by_name.items():
            if len(entries) > 1:
                yield Finding(INDEX, "SCHEMA", f"{len(entries)} entries have the tag {shown(tag)}")
        for name in told_apart(index, self._refers)[1]:
            yield Finding(INDEX, "NAME", f"{name} refers to another manifest, and is no artifact itself", "warning")
        for entry in {entry.digest: entry for entry in index.entries}.values():
            if not self.has(entry):
                yield Finding(INDEX, "NOT_FOUND", f"{entry.digest} ({entry.size} bytes) is listed and not there")
        for digest in dict.fromkeys(entry.digest for entry in index.entries if ref_name(entry) is None):
            yield Finding(INDEX, "NAME", f"{digest} has no tag", "warning")

    @property
    def _index_name(self) -> str:
        return f"{self._where}/{INDEX}"

    def _read(self, key: str, limit: int = MANIFEST_LIMIT) -> bytes | None:
        return read_if_there(self._backend, key, limit=limit, what=f"{self._where}/{key}")

    def _has_mark(self) -> bool:
        """Whether the directory says it is a layout. Raises ContentError when it says so of another version."""
        raw = self._read(MARK, _MARK_LIMIT)
        if raw is None:
            return False
        what = f"{self._where}/{MARK}"
        value = strict_json.loads(raw, what, limit=_MARK_LIMIT)
        version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
        if version != _VERSION:
            raise ContentError(
                f"{what} gives the layout's version as {shown(version)}, only {_VERSION} is understood",
                code="TYPE",
                object=what,
            )
        return True

    def _entries(self) -> LayoutIndex:
        """What is listed, also of what is no layout yet."""
        if self._batch is not None:
            return self._batch.index
        raw = self._read(INDEX)
        return EMPTY if raw is None else self._parse(raw)

    def _parse(self, raw: bytes) -> LayoutIndex:
        known = self._parsed
        if known[0] != raw:
            self._parsed = known = (raw, LayoutIndex.parse(raw, self._index_name))
        return known[1]

    def _index(self) -> LayoutIndex:
        if self._batch is not None:
            return self._batch.index
        self._backend.check()
        # The mark first: a layout of a later version may have an index that means something else.
        marked, raw = self._has_mark(), self._read(INDEX)
        if not marked or raw is None:
            missing = INDEX if marked else MARK
            raise NotFoundError(
                f"{self._where} is not an OCI image layout: it has no {missing}",
                object=self._where,
                hint="name the directory of a layout: oci:DIR[:TAG]",
            )
        return self._parse(raw)

    def _make(self) -> None:
        """Make it a layout if it is none yet."""
        if self._backend.head(INDEX) is None:
            self._backend.update(INDEX, lambda old: EMPTY.encoded() if old is None else None, limit=MANIFEST_LIMIT)
        # The index before the mark: what has a mark is a layout, and a layout has an index.
        if self._backend.head(MARK) is None:
            self._backend.write(MARK, lambda: io.BytesIO(MARK_BYTES), len(MARK_BYTES))

    def _document(self, entry: Descriptor) -> Document:
        return Document(entry.media_type, self._checked(entry))

    def _checked(self, entry: Descriptor) -> bytes:
        if entry.size > MANIFEST_LIMIT:
            raise ContentError(
                f"{entry.digest} is {entry.size} bytes, more than the {MANIFEST_LIMIT} of a manifest",
                code="SIZE",
                object=str(entry.digest),
            )
        raw = self._read(blob_key(entry.digest))
        if raw is None:
            raise NotFoundError(f"{self._where} lists {entry.digest} and does not have it", object=str(entry.digest))
        return verifying.check_bytes(raw, entry, f"the manifest in {self._where}")

    def _unlisted(self, digest: Digest) -> Document:
        """A manifest that `index.json` does not list; it says itself what it is."""
        size = self._backend.head(blob_key(digest))
        if size is None:
            raise NotFoundError(f"{self._where} has no manifest {digest}", object=str(digest))
        raw = self._checked(Descriptor(media_type=media_types.OCTET_STREAM, digest=digest, size=size))
        value = strict_json.loads(raw, f"{digest} in {self._where}", limit=MANIFEST_LIMIT)
        stated = value.get("mediaType") if isinstance(value, dict) else None
        # A document that no index lists has no type but the one that it gives itself.
        if isinstance(stated, str) and stated:
            return Document(stated, raw)
        return Document(
            media_types.INDEX if isinstance(value, dict) and "manifests" in value else media_types.MANIFEST, raw
        )

    def _stores(self, document: Document) -> bool:
        return self._read(blob_key(document.digest)) == document.raw

    def _entry(self, tag: str | None, document: Document) -> Descriptor:
        """The entry for a document all of whose parts are here. Raises ContentError, NotFoundError."""
        what = f"the manifest for {self._where}:{tag}" if tag else f"the manifest {document.digest}"
        if not document.media_type:
            raise ContentError(f"{what} has no media type", code="TYPE", object=what)
        artifact_type: str | None = None
        if document.media_type in media_types.INDEXES:
            parts = ImageIndex.parse(document, what).manifests
        else:
            image = ImageManifest.parse(document, what)
            parts, artifact_type = image.successors, image.artifact_type
        # An index's children too: what is listed must be there, for whoever copies the layout follows it.
        missing = [part for part in parts if not self._backend.holds(blob_key(part.digest), part)]
        if missing:
            raise NotFoundError(
                f"{self._where} lacks {missing[0].digest}, which {what} refers to"
                + (f", and {len(missing) - 1} more" if len(missing) > 1 else ""),
                object=str(missing[0].digest),
                hint="content is stored before the manifest that refers to it",
            )
        return Descriptor(
            media_type=document.media_type,
            digest=document.digest,
            size=document.size,
            artifact_type=artifact_type,
            # The entry's own and not the manifest's: what a tag points to is no part of what it is.
            annotations={media_types.REF_NAME: tag} if tag else {},
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(shown(name).strip('"') for name in names[:_MOST_NAMES]) + more


def _digest(name: str) -> Digest | None:
    """The digest that `name` is, None when it is a tag."""
    try:
        return Digest.parse(name)
    except ContentError:
        return None


def blob_key(digest: Digest) -> str:
    """Where a layout keeps a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"
