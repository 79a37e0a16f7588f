"""Fewer tags by a policy, and in stores and layouts the content that nothing refers to."""

import contextlib
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from epoch_oci.artifacts.graph import read_graph
from epoch_oci.artifacts.read import epoch_of, is_epoch
from epoch_oci.bulk.select import latest, moment_of
from epoch_oci.bulk.sides import Entry, RegistrySide, Side, Unlisted, removing, store_of
from epoch_oci.bulk.states import in_parallel
from epoch_oci.dataclass import dataclass
from epoch_oci.disk.local import local_errors
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import EpochOciError, NotFoundError
from epoch_oci.flows.remove import Removable, removed
from epoch_oci.oci import media_types
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.manifest import ImageIndex, ImageManifest, is_index
from epoch_oci.oci.reference import attached_tags, fallback_tag, is_fallback_tag
from epoch_oci.options import Checked
from epoch_oci.stores.base import Collecting, Garbage, Layout


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tag. `name` is the snapshot's or repository's, `created` text, "" when nobody knows."""

    name: str
    tag: str
    created: str = ""

    @property
    def label(self) -> str:
        """What patterns are held against."""
        return f"{self.name}:{self.tag}" if self.name else self.tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Checked):
    """What is kept: of each name the newest `last`, what is not older than `within`, what a pattern of `keep` takes.

    With neither `last` nor `within` everything is.
    """

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"last": (1, 1_000_000)}
    last: int | None = None
    within: timedelta | None = None
    keep: tuple[str, ...] = ()

    def removed(self, candidates: Iterable[Candidate], now: datetime) -> list[Candidate]:
        """Those that nothing keeps. What has no date is never old."""
        if self.last is None and self.within is None:
            return []
        by_name: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            by_name.setdefault(candidate.name, []).append(candidate)
        return [item for items in by_name.values() for item in self._of_name(items, now)]

    def _of_name(self, items: list[Candidate], now: datetime) -> list[Candidate]:
        dated = [(moment, item) for item in items if (moment := moment_of(item.created)) is not None]
        # The tag breaks ties: which of two goes must not depend on the order of a listing.
        dated.sort(key=lambda pair: (pair[0], pair[1].tag), reverse=True)
        old = dated[self.last :] if self.last is not None else dated
        if self.within is not None:
            old = [pair for pair in old if now - pair[0] > self.within]
        return [item for _, item in old if not self._is_kept(item)]

    def _is_kept(self, item: Candidate) -> bool:
        return any(fnmatch.fnmatchcase(text, pattern) for pattern in self.keep for text in (item.label, item.tag))


@dataclass(frozen=True, slots=True)
class _Seen:
    """A tag, its date, its digest, and the blobs of its own document with their sizes in bytes."""

    entry: Entry
    created: str
    digest: Digest
    blobs: Mapping[Digest, int]


@dataclass(slots=True, kw_only=True)
class Pruning:
    """What would go, or went. Sizes are bytes.

    `frees` is what nothing else refers to, `shared` what the removed tags have in common with kept ones. In a registry
    its own clean-up frees the bytes, which `registry` says.
    """

    location: str
    removed: list[Entry] = field(default_factory=list)
    kept: int = 0
    names: dict[Entry, str] = field(default_factory=dict)
    garbage: Garbage = field(default_factory=lambda: Garbage(blobs={}, leftovers={}))
    frees: int = 0
    shared: int = 0
    registry: bool = False
    dry_run: bool = False
    failures: list[tuple[str, EpochOciError]] = field(default_factory=list)
    _seen: Sequence["_Seen"] = field(default=(), init=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        return {
            "command": "prune",
            "location": self.location,
            "dryRun": self.dry_run,
            "removed": [
                {"reference": self.names[entry], "action": "remove" if self.dry_run else "removed", "error": None}
                for entry in self.removed
            ]
            + [
                {"reference": name, "action": "failed", "error": {"code": error.code, "message": str(error)}}
                for name, error in self.failures
            ],
            "kept": self.kept,
            "blobs": dict(self.garbage.blobs),
            "leftovers": dict(self.garbage.leftovers),
            "young": self.garbage.young,
            "keptBack": self.garbage.kept_back,
            "bytesFreed": self.frees,
            "bytesShared": self.shared,
            "freedByRegistry": self.registry,
        }


def look(side: Side, policy: Policy, grace: float, *, now: datetime | None = None) -> Pruning:
    """What `policy` and a look for garbage would take away. Nothing is changed.

    Raises ContentError where a document cannot be read: what it refers to is not known, so nothing may go.
    """
    seen = _looked_at(side)
    # What refers to others is no version of its own; it goes with what it refers to.
    by_label = {_candidate(item): item for item in seen if not is_fallback_tag(item.entry.tag)}
    gone = [by_label[item].entry for item in policy.removed(by_label, now or datetime.now(UTC))]
    gone += _lists_of(gone, seen)
    found = Pruning(location=side.where, removed=sorted(gone), kept=len(seen) - len(gone), dry_run=True)
    found._seen = seen
    found.names = {entry: side.reference(entry) for entry in gone}
    _count(found)
    if isinstance(side, RegistrySide):
        # Hardly any registry lets a client take blobs away; its own clean-up does.
        found.registry = True
        return found
    store: object = store_of(side, Entry("", "", "", ""))
    if isinstance(store, Collecting):
        found.garbage = store.garbage(grace, without=frozenset(entry.ref for entry in gone))
        if found.garbage.kept_back is None:
            found.frees = found.garbage.size
    return found


def carry_out(side: Side, found: Pruning, grace: float) -> Pruning:
    """Take away what `look` found: tags first, then what nothing refers to any more."""
    targets = {entry: _removable(side, entry) for entry in found.removed}
    with removing(side, found.removed):
        outcomes = removed(list(targets.values()), dry_run=False)
    failures = [
        (found.names[entry], error)
        for entry, (_, error) in zip(targets, outcomes, strict=True)
        if error is not None and not isinstance(error, NotFoundError)  # somebody else has removed it
    ]
    failed = {name for name, _ in failures}
    done = Pruning(
        location=found.location,
        removed=[entry for entry in found.removed if found.names[entry] not in failed],
        kept=found.kept + len(failed),
        names=found.names,
        registry=found.registry,
        failures=failures,
    )
    done._seen = found._seen
    _count(done)
    store: object = None if isinstance(side, RegistrySide) else store_of(side, Entry("", "", "", ""))
    if isinstance(store, Layout):
        with removing(side, ()):
            for digest in store.orphans():
                store.remove(digest)
    if not isinstance(store, Collecting):
        return done
    done.frees = 0
    done.garbage = found.garbage
    if found.garbage.kept_back is None:
        # Looked for anew, now that the tags are gone; with a tag that could not be removed only what was loose before
        # goes.
        done.garbage = store.collect(store.garbage(grace) if not failed else found.garbage, grace)
        done.frees = done.garbage.size
    return done


def prune_cache(cache: Path, size: int, *, dry_run: bool) -> Pruning:
    """Bring what `mount` and `cat` have kept in a directory down to about `size` bytes, what was used last stays.

    Raises NotFoundError, LocalIOError.
    """
    from epoch_oci.artifacts.at_hand import kept_parts

    parts = kept_parts(cache, size).bound
    assert parts is not None
    if not (cache / "chunks").is_dir():
        raise NotFoundError(f"{cache} is no directory that --cache has made", object=str(cache))
    with local_errors(str(cache)):
        gone = parts.surplus()
        if not dry_run:
            parts.remove(gone)
    garbage = Garbage(blobs=gone, leftovers={})
    return Pruning(location=str(cache), garbage=garbage, frees=garbage.size, dry_run=dry_run)


def _entries(side: Side) -> Iterator[Entry]:
    for entry in side.entries():
        if isinstance(entry, Unlisted):
            raise entry.error
        yield entry


def _looked_at(side: Side) -> list[_Seen]:
    """Every tag with what it names. One that somebody removes meanwhile is none; one that is broken is an error."""

    def ask(entry: Entry) -> _Seen | NotFoundError:
        try:
            return _seen(side, entry)
        except NotFoundError as error:
            return error

    entries = list(_entries(side))
    answers = list(in_parallel(ask, entries))
    missing = {entry: item for entry, item in zip(entries, answers, strict=True) if isinstance(item, NotFoundError)}
    for entry in _entries(side) if missing else ():
        if entry in missing:
            raise missing[entry]
    return [item for item in answers if not isinstance(item, NotFoundError)]


def _candidate(item: _Seen) -> Candidate:
    name = item.entry.container if item.entry.container else item.entry.name
    return Candidate(name, item.entry.tag, item.created)


def _seen(side: Side, entry: Entry) -> _Seen:
    store = store_of(side, entry)
    document = store.resolve(entry.ref)
    if is_epoch(document):
        manifest = epoch_of(document, SnapshotKey.parse(entry.ref))
        sizes = {blob.digest: blob.size for blob in manifest.descriptors}
        return _Seen(entry, latest((manifest.created_at, manifest.pushed_at)), manifest.document.digest, sizes)
    if is_index(document):
        index = ImageIndex.parse(document)
        sizes = {item.digest: item.size for item in index.manifests}
        with contextlib.suppress(NotFoundError):  # a child that is not there has nothing that could be freed
            graph = read_graph(store, document, str(document.digest), referrers=False)
            sizes |= {item.digest: item.size for item in graph.blobs.values()}
        return _Seen(entry, index.annotations.get(media_types.CREATED, ""), document.digest, sizes)
    image = ImageManifest.parse(document)
    sizes = {item.digest: item.size for item in image.successors}
    return _Seen(entry, image.annotations.get(media_types.CREATED, ""), document.digest, sizes)


def _lists_of(gone: list[Entry], seen: list[_Seen]) -> list[Entry]:
    """The tags that are about a manifest which loses its last tag: lists of referrers, and what cosign has attached."""
    lost = set(gone)
    held = {(item.entry.container, item.digest) for item in seen if item.entry not in lost}
    digests = {(item.entry.container, item.digest) for item in seen if item.entry in lost} - held
    about = {(container, tag) for container, one in digests for tag in (fallback_tag(one), *attached_tags(one))}
    return [item.entry for item in seen if (item.entry.container, item.entry.tag) in about]


def _count(found: Pruning) -> None:
    lost = set(found.removed)
    kept: dict[Digest, int] = {}
    going: dict[Digest, int] = {}
    for item in found._seen:
        (going if item.entry in lost else kept).update(item.blobs)
    found.frees = sum(size for digest, size in going.items() if digest not in kept)
    found.shared = sum(size for digest, size in going.items() if digest in kept)


def _removable(side: Side, entry: Entry) -> Removable:
    return Removable(store_of(side, entry), entry.ref)
