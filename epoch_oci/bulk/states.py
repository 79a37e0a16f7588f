"""How each snapshot stands at the target: there, to be brought, or why not. Documents are read, never a blob."""

from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from pathlib import Path
from typing import TypeVar

from epoch_oci import dialects
from epoch_oci.artifacts.graph import Graph, read_graph
from epoch_oci.artifacts.publish import secret_names
from epoch_oci.artifacts.read import ArtifactsOf, FoundDocuments, read_documents, read_stored
from epoch_oci.bulk.journal import Journal
from epoch_oci.bulk.select import Selection, latest
from epoch_oci.bulk.sides import Entry, LayoutSide, RegistrySide, Side, StoreSide, Unlisted, store_of
from epoch_oci.bulk.union import Blob, Place, Wanted
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedSnapshot, EncodeOptions
from epoch_oci.dialects.foreign import identified
from epoch_oci.dialects.layers import is_chunked
from epoch_oci.dialects.profile import ROLE
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ConflictError, EpochOciError, NetworkError, NotFoundError
from epoch_oci.events import OnEvent, Phase, ignore
from epoch_oci.flows.copy import pointed
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageIndex, ImageManifest, is_index, successors
from epoch_oci.oci.reference import attached_tags, is_attached_tag, is_fallback_tag
from epoch_oci.stores.base import ArtifactStore, Source
from epoch_oci.transfer.cuts import plan_cuts

ASKED_AT_ONCE = 16
"""Questions under way at a time: small ones, of which each is a round trip."""

Answer = TypeVar("Answer")
Question = TypeVar("Question")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides how a snapshot would look at the target, and whether it may take the place of another one.

    `part_size` and `part_cache` as in `PushOptions`.
    """

    dialect: str = "cocoon"
    part_size: int | None = None
    part_cache: Path | None = None
    referrers: bool = True
    chunked: bool = False
    allow_loss: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class There:
    """A snapshot that is at the target already; `blobs` is what it is known to be made of."""

    source: Entry
    target: Entry
    digest: Digest
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A snapshot that is not brought, and why. `target` is None where it has no place there at all."""

    source: Entry | None
    target: Entry | None
    error: EpochOciError


@dataclass(slots=True)
class Survey:
    """Every snapshot of the source that is meant, by how it stands. `old` counts those passed over by their age.

    `listed` are all at the source, meant or not, as they are called at the target; `whole` is False when some part of
    the source could not be listed, so that nothing may be concluded from what is missing. `attached` are cosign's tags
    there by their container, which come with what they are about.
    """

    wanted: list[Wanted] = field(default_factory=list)
    there: list[There] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    old: int = 0
    listed: set[str] = field(default_factory=set)
    attached: dict[str, set[str]] = field(default_factory=dict)
    whole: bool = True


def survey(
    source: Side, target: Side, selection: Selection, rules: Rules, journal: Journal, *, on_event: OnEvent = ignore
) -> Survey:
    """Look at every snapshot, several at a time; `on_event` hears how many were found, and then looked at.

    Raises what listing the source raises, and NetworkError when one end has gone away. What is wrong with one snapshot
    is among those left out.
    """
    found = Survey()
    pairs = _matched(source, target, selection, rules, found, Phase(on_event, "listing"))
    looker = Looker(source, target, selection, rules, journal, found.attached)
    looked_at = Phase(on_event, "surveying", len(pairs))
    in_a_row = 0
    for state in in_parallel(looker.state, pairs):
        looked_at.one_more()
        away = isinstance(state, LeftOut) and isinstance(state.error, NetworkError)
        in_a_row = in_a_row + 1 if away else 0
        if isinstance(state, LeftOut) and in_a_row == ASKED_AT_ONCE:
            raise state.error  # whoever is away is not waited for once for each of thousands
        if isinstance(state, Wanted):
            found.wanted.append(state)
        elif isinstance(state, There):
            found.there.append(state)
        elif isinstance(state, LeftOut):
            found.left_out.append(state)
        else:
            found.old += 1
    return found


def in_parallel(ask: Callable[[Question], Answer], questions: Iterable[Question]) -> Iterable[Answer]:
    """The answers in order. An error is raised without waiting for the questions after it."""
    # Not a context: leaving it would wait for all that is under way, also after an error.
    pool = ThreadPoolExecutor(max_workers=ASKED_AT_ONCE, thread_name_prefix="survey")
    try:
        yield from pool.map(ask, questions)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def held(target: Side, wanted: Iterable[Wanted], *, on_event: OnEvent = ignore) -> set[Place]:
    """Which blobs of the snapshots that are wanted their containers hold already."""
    places = {(item.target.container, blob.digest): (item.target, blob) for item in wanted for blob in item.blobs}

    def ask(place: Place) -> bool:
        entry, blob = places[place]
        store = store_of(target, entry)
        return store.has(Descriptor(media_type=media_types.OCTET_STREAM, digest=blob.digest, size=blob.size))

    found: set[Place] = set()
    looked_at = Phase(on_event, "looking at what is there", len(places))
    for place, there in zip(places, in_parallel(ask, places), strict=True):
        looked_at.one_more()
        found |= {place} if there else set()
    return found


def _matched(
    source: Side, target: Side, selection: Selection, rules: Rules, found: Survey, listing: Phase
) -> list[tuple[Entry, Entry]]:
    """Source and target of every snapshot that is meant and has a legal name there; two never have one target."""
    by_target: dict[Entry, list[Entry]] = {}
    for entry in source.entries():
        listing.one_more()
        if isinstance(entry, Unlisted):
            # Nobody waits for a repository of which no tag is meant; renamed, it might be called as one that is.
            if entry.name is None or selection.renames or selection.may_take(entry.name):
                found.whole = False
                found.left_out.append(LeftOut(None, None, entry.error))
            continue
        if is_attached_tag(entry.tag):
            found.attached.setdefault(entry.container, set()).add(entry.tag)
        # Before its name is judged: what is not meant may be called as it likes.
        if not _is_meant(entry, source, target, rules):
            continue
        try:
            landing = _landing(entry, source, target, selection)
        except EpochOciError as error:
            if selection.takes(entry.label):
                found.left_out.append(LeftOut(entry, None, error))
            continue
        # Meant or not: `--delete` takes away what the source has not, and not what a pattern left out.
        found.listed.add(landing.label)
        if selection.takes(entry.label):
            by_target.setdefault(landing, []).append(entry)
    for landing, entries in by_target.items():
        # Which of them came last would decide what is there, and another run might decide otherwise.
        if len(entries) > 1:
            names = ", ".join(entry.label for entry in entries)
            clash = ConflictError(f"{names} would all be {target.reference(landing)}", object=landing.label)
            found.left_out += [LeftOut(entry, landing, clash) for entry in entries]
    return [(entries[0], landing) for landing, entries in by_target.items() if len(entries) == 1]


def _is_meant(entry: Entry, source: Side, target: Side, rules: Rules) -> bool:
    """What refers to others is no snapshot, and has no place in a store; copies take its listings along as well.

    What cosign has attached comes with its subject, except out of layouts that have it under a snapshot's name.
    """
    if not is_fallback_tag(entry.tag):
        return True
    if not rules.referrers or "store" in (source.kind, target.kind):
        return False
    return not is_attached_tag(entry.tag) or bool(source.kind == "layout" and entry.name)


def _landing(entry: Entry, source: Side, target: Side, selection: Selection) -> Entry:
    if isinstance(source, LayoutSide) and isinstance(target, LayoutSide) and not selection.renames:
        return Entry(entry.name, entry.tag, "", entry.ref)
    name = entry.name
    if not name and isinstance(target, StoreSide) and isinstance(source, RegistrySide):
        # The repository that is the whole source has no name below it; it is called as it is.
        name = source.where.rpartition("/")[2]
    return target.landing(*selection.renamed(name, entry.tag))


@dataclass(frozen=True, slots=True)
class Looker:
    """Looks at one snapshot after another. Safe for threads."""

    source: Side
    target: Side
    selection: Selection
    rules: Rules
    journal: Journal
    attached: Mapping[str, Container[str]]

    def state(self, pair: tuple[Entry, Entry]) -> Wanted | There | LeftOut | None:
        """How a snapshot stands; None for one that is too old."""
        source, target = pair
        try:
            if self.source.kind == "store":
                return self._of_snapshot(source, target)
            if self.target.kind == "store":
                return self._to_snapshot(source, target)
            return self._of_artifact(source, target)
        except EpochOciError as error:
            # One snapshot's fault is its own, and stands in its row (reliability F21).
            return LeftOut(source, target, error)

    def _of_snapshot(self, source: Entry, target: Entry) -> Wanted | There | None:
        """Out of an Epoch store: its manifest tells everything."""
        manifest = read_stored(store_of(self.source, source), SnapshotKey.parse(source.ref))
        if isinstance(manifest, FoundDocuments):
            return self._of_modern(source, target, manifest)
        created = latest((manifest.created_at, manifest.pushed_at))
        if not self.selection.is_new(created):
            return None
        pinned, blobs = manifest.document.digest, _blobs_of(manifest)
        there = self._is_there(manifest, target)
        if there is not None:
            return There(source, target, there, blobs)
        chunked = self.rules.chunked and self.target.kind != "store"
        return Wanted(source=source, target=target, pinned=pinned, blobs=blobs, created=created, in_chunks=chunked)

    def _of_modern(self, source: Entry, target: Entry, found: FoundDocuments) -> Wanted | There | None:
        """Out of the bucket of a modern Epoch, which keeps its snapshots as artifacts."""
        image, told, key = found.image, found.told(), SnapshotKey.parse(source.ref)
        created, pinned = image.annotations.get(media_types.CREATED, ""), image.document.digest
        if not self.selection.is_new(created):
            return None
        if self.target.kind != "store" and told.dialect == self.rules.dialect and self.rules.part_size in (None, 0):
            artifacts = ArtifactsOf(store_of(self.source, source), key.name)
            graph = read_graph(artifacts, image.document, source.ref, referrers=False)
            there, blobs = self._held(target, pinned), _blobs_in(graph)
        elif isinstance(told, EncodedSnapshot):
            there, blobs = None, ()
        else:
            manifest = identified(told, key.name, key.tag).manifest
            there, blobs = self._is_there(manifest, target), _blobs_of(manifest)
        if there is not None:
            return There(source, target, there, blobs)
        chunked = self.rules.chunked and self.target.kind != "store"
        return Wanted(source=source, target=target, pinned=pinned, blobs=blobs, created=created, in_chunks=chunked)

    def _is_there(self, manifest: Manifest, target: Entry) -> Digest | None:
        """The digest that the target has the snapshot by. Raises ConflictError when it has another one there."""
        if self.target.kind == "store":
            return self._held(target, manifest.document.digest)
        sink = store_of(self.target, target)
        dialect = dialects.named(self.rules.dialect)
        cuttable = self.rules.part_size is not None or dialect.cuts(cloud_image=manifest.is_cloud_image)
        cuts = plan_cuts(manifest, sink, self.rules.part_size if cuttable else 0, self.rules.part_cache)
        # Everything is known: then the artifact that would be pushed is made here, and its digest is held against the
        # tag's.
        # Where nobody says how files are cut, those that are there are no others for it; a push takes them as they are.
        as_there = self.rules.part_size is None and bool(cuts)
        if not cuts.late and not as_there and not self.rules.chunked:
            options = EncodeOptions(allow_loss=self.rules.allow_loss, parts=cuts.tables)
            artifact = dialect.encode(manifest.document, options)
            return self._held(target, artifact.manifest.digest)
        return self._held_in_parts(target, manifest)

    def _held_in_parts(self, target: Entry, manifest: Manifest) -> Digest | None:
        """How files are cut is known only once they were read; what an artifact was made of is told by its config."""
        try:
            document = store_of(self.target, target).resolve(target.ref)
        except NotFoundError:
            return None
        # The config is the Epoch manifest itself (decision D3): the same one is the same snapshot, however it is cut.
        if not is_index(document) and ImageManifest.parse(document).config.digest == manifest.document.digest:
            return document.digest
        # It is another artifact: said, or replaced, as for any other digest that is not the expected one.
        return self._held(target, Digest.of(b"what no tag points to"))

    def _held(self, target: Entry, expected: Digest) -> Digest | None:
        there = pointed(store_of(self.target, target), target.ref)
        if there is None or there == expected:
            return there
        if self.rules.force:
            return None
        where = self.target.reference(target)
        raise ConflictError(
            f"{where} holds {there}, which is another one", object=where, hint="replace it with --force"
        )

    def _to_snapshot(self, source: Entry, target: Entry) -> Wanted | There | None:
        """Out of a repository or layout into an Epoch store."""
        store = store_of(self.source, source)
        digest = pointed(store, source.ref)
        if digest is None:
            raise NotFoundError(f"{self.source.reference(source)} is not there any more", object=source.label)
        # What an artifact decodes to never changes, so that an earlier run's answer spares reading it.
        known = self.journal.told.get(digest)
        if known is not None and self.selection.newer_than is None and self._held(target, known) is not None:
            return There(source, target, known)
        found = read_documents(store, str(digest))
        created = found.image.annotations.get(media_types.CREATED, "")
        if not self.selection.is_new(created):
            return None
        told = found.told()
        if isinstance(told, EncodedSnapshot):
            return Wanted(source=source, target=target, pinned=digest, blobs=(), created=created)
        blobs = _blobs_of(told.manifest)
        # A derived manifest depends on what the snapshot is called here, so that its digest is known only when it
        # lands.
        if not told.derived and (there := self._held(target, told.epoch.digest)) is not None:
            self.journal.told[digest] = there
            return There(source, target, there, blobs)
        return Wanted(
            source=source,
            target=target,
            pinned=digest,
            blobs=blobs,
            created=created,
            in_chunks=is_chunked(found.image),
        )

    def _of_artifact(self, source: Entry, target: Entry) -> Wanted | There | None:
        """From one repository or layout to another."""
        store, sink = store_of(self.source, source), store_of(self.target, target)
        digest = pointed(store, source.ref)
        if digest is None:
            raise NotFoundError(f"{self.source.reference(source)} is not there any more", object=source.label)
        listing = is_fallback_tag(source.tag)
        there = pointed(sink, target.ref)
        if there == digest and self._has_all_about(store, sink, source, digest) and self._is_new(store, digest):
            return There(source, target, digest)
        # A list of referrers is merged into the target's own, and is no conflict with it.
        if there not in (None, digest) and not listing:
            self._held(target, digest)
        document = store.resolve(str(digest))
        if listing and is_index(document) and self._lists(sink, document):
            return There(source, target, digest)
        # Only for what is not there: following an artifact costs a request for each of its documents.
        graph = read_graph(store, document, self.source.reference(source), referrers=self.rules.referrers)
        created = _created(document)
        if not self.selection.is_new(created):
            return None
        return Wanted(source=source, target=target, pinned=digest, blobs=_blobs_in(graph), created=created)

    def _is_new(self, store: Source, digest: Digest) -> bool:
        return self.selection.newer_than is None or self.selection.is_new(_created(store.resolve(str(digest))))

    def _has_all_about(self, store: Source, sink: Source, source: Entry, digest: Digest) -> bool:
        """Whether what is said of it came along as well: a signature may be younger than what it signs."""
        return self._has_referrers(store, sink, digest) and self._has_attached(store, sink, source, digest)

    def _has_attached(self, store: Source, sink: Source, source: Entry, digest: Digest) -> bool:
        listed = self.attached.get(source.container)
        if not listed or not self.rules.referrers:
            return True
        document = store.resolve(str(digest))  # whoever signs an index may have signed its manifests
        parts = [part.digest for part in successors(document)] if is_index(document) else []
        tags = [tag for subject in (digest, *parts) for tag in attached_tags(subject) if tag in listed]
        return all(pointed(sink, tag) == pointed(store, tag) for tag in tags)

    def _has_referrers(self, store: object, sink: object, digest: Digest) -> bool:
        if not (self.rules.referrers and isinstance(store, ArtifactStore) and isinstance(sink, ArtifactStore)):
            return True
        named = {item.digest for item in store.referrers(digest)}
        # Most have none, and then the target need not be asked.
        return not named or named <= {item.digest for item in sink.referrers(digest)}

    def _lists(self, sink: object, listing: Document) -> bool:
        """Whether the target has all that a list of referrers names, in whatever way it keeps such lists."""
        items = ImageIndex.parse(listing).manifests
        return all(pointed(sink, str(item.digest)) is not None for item in items)


def _created(document: Document) -> str:
    annotations = (
        ImageIndex.parse(document).annotations if is_index(document) else ImageManifest.parse(document).annotations
    )
    return annotations.get(media_types.CREATED, "")


def _blobs_of(manifest: Manifest) -> tuple[Blob, ...]:
    bases = {layer.digest for layer in manifest.base_images}
    secrets = _secrets((layer.digest, layer.filename, layer.media_type) for layer in manifest.layers)
    return tuple(
        Blob(item.digest, item.size, item.digest in bases, secrets.get(item.digest)) for item in manifest.descriptors
    )


def _blobs_in(graph: Graph) -> tuple[Blob, ...]:
    """The blobs of an artifact; its layers say which are base images."""
    layers = [layer for image in graph.images for layer in image.layers]
    # Another tool's artifact says nothing of roles: then nothing is a base image, and only the order differs.
    bases = {layer.digest for layer in layers if layer.annotations.get(ROLE) == "base-image"}
    secrets = _secrets((layer.digest, layer.title or "", layer.media_type) for layer in layers)
    return tuple(
        Blob(item.digest, item.size, item.digest in bases, secrets.get(item.digest)) for item in graph.blobs.values()
    )


def _secrets(files: Iterable[tuple[Digest, str, str]]) -> dict[Digest, tuple[str, str]]:
    return {digest: (name, kind) for digest, name, kind in files if secret_names([(name, kind)])}
