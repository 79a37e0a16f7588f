"""An Epoch store: Epoch's key layout over any backend (epoch-formats 2).

The objects under `manifests/` are the truth; `catalog.json` is kept for Epoch's servers and never relied upon.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from epoch_oci.epoch.catalog import CATALOG_LIMIT, Catalog, without_tags
from epoch_oci.epoch.keys import (
    CATALOG_KEY,
    MANIFESTS,
    SnapshotKey,
    blob_key,
    digest_copy_key,
    hostile_problem,
    is_digest_copy,
    manifest_key,
    parse_manifest_key,
)
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT, Manifest, stored_document
from epoch_oci.errors import AccessError, ConflictError, ContentError, Finding, NotFoundError, counted
from epoch_oci.oci import verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.stores.backends.base import (
    Backend,
    StoredContent,
    left_behind,
    read_if_there,
    verified,
)
from epoch_oci.stores.backends.collect import Collector, digests_in, gathered
from epoch_oci.stores.base import Content, Garbage, SnapshotEntry
from epoch_oci.stores.catalog_upkeep import Batch, Enlisting, Unlisted, entry_problem

if TYPE_CHECKING:
    from epoch_oci.disk.assembly import Assembly

_BLOBS = "blobs/sha256/"
_LOOKED_INTO = 64
_READERS = 8


def go_now() -> str:
    """This moment as Go writes a UTC time: RFC 3339, nine digits at most after the point, no zeros at their end."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    fraction = f".{nanoseconds:09}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


class EpochStore:
    """Snapshots named `NAME:TAG` by the store's own keys; `where` is what people call the store.

    Names of `resolve` and `publish` are read by `SnapshotKey.parse`. `clock` gives the catalog's times as text.
    """

    def __init__(self, backend: Backend, where: str, *, clock: Callable[[], str] = go_now) -> None:
        self._backend = backend
        self._where = where
        self._clock = clock
        self._batch: Batch | Unlisted | None = None
        self._going: set[SnapshotKey] = set()
        self._modern: bool | None = None

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return self._where

    def find(self, word: str) -> SnapshotKey:
        """As `SnapshotStore.find`."""
        # `team:bot:v1` and `team/bot:v1` may both be meant: names with a colon are legal in Epoch (trap 35).
        first, *others = SnapshotKey.readings(word)
        if not others or self._is_here(first):
            return first
        return next((key for key in others if self._is_here(key)), first)

    def resolve(self, name: str) -> Document:
        """The manifest's exact bytes; not parsed. Its media type tells which generation of Epoch it is of.

        Raises NotFoundError, ContentError (NAME, SIZE, TYPE; DIGEST for what was asked for by digest), UsageError.
        """
        key = SnapshotKey.parse(name)
        raw = self._read(manifest_key(key), MANIFEST_LIMIT)
        # After the tag: a tag may look like a digest, and what is tagged is what people mean.
        raw = self._copy(key) if raw is None else raw
        if raw is None:
            self._backend.check()
            raise NotFoundError(
                f"{self._where} holds no snapshot {key}",
                object=str(key),
                hint=f"see what it holds with `epoch-oci ls {self._where}`",
            )
        return stored_document(raw)

    def has(self, target: Descriptor) -> bool:
        """Whether a blob of this name and size is here: a look, its bytes are not read (`verify` does that)."""
        return self._backend.head(blob_key(target.digest)) == target.size

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Sink.holds`."""
        return self._backend.holds(blob_key(target.digest), target, anew=anew)

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`."""
        return StoredContent(self._backend, blob_key(target.digest), target.size)

    def put(self, target: Descriptor, content: Content) -> None:
        """As `Sink.put`. Reads and checks `content` whatever is here already, and replaces it."""
        key = blob_key(target.digest)
        self._backend.write(key, lambda: verified(content, target), target.size, digest=target.digest)

    def assemble(self, target: Descriptor) -> "AbstractContextManager[Assembly] | None":
        """As `Assembler.assemble`."""
        return self._backend.assemble(blob_key(target.digest), target)

    def expect(self, name: str, document: Document, *, replace: bool = False) -> bool:
        """As `SnapshotStore.expect`."""
        key = SnapshotKey.parse(name)
        old = self._read(manifest_key(key), MANIFEST_LIMIT) if not replace else self._read_if_sound(key)
        self._refuse(key, old, document, replace=replace)
        return old == document.raw

    def publish(self, name: str, document: Document, *, replace: bool = False) -> None:
        """Store a manifest, after all its blobs are here, then list it in the catalog.

        Raises NotFoundError for a missing blob (an empty one counts too), ConflictError, also for a bucket of Epoch
        0.1.6 or later, ContentError for a wrong manifest or a catalog that cannot be read; then nothing was written.
        """
        key = SnapshotKey.parse(name)
        # Readers of a store must never meet a manifest whose blobs are missing (decision D6).
        self._require_blobs(key, Manifest.parse(document, f"the manifest of {key}"))
        if self._batch is None:
            self.catalog()
        # Blobs that were skipped may be of a run that was killed before it made them durable.
        self._backend.flush(_BLOBS)
        written = self._backend.update(
            # Under the backend's lock or condition, so that of two writers of one key one is refused (reliability F20).
            manifest_key(key),
            lambda old: self._replacement(key, old, document, replace),
            limit=MANIFEST_LIMIT,
        )
        # The catalog last: Epoch's servers find snapshots by it, and must not find one that is not there yet.
        if self._batch is None or not self._batch.add(key, renew=written):
            self._backend.update(CATALOG_KEY, Enlisting({key}, written, self._clock), limit=CATALOG_LIMIT)

    @contextmanager
    def batch(self) -> Iterator[Callable[[str], None]]:
        """Inside, tags that are published enter the catalog many at a time, and all of them before it ends.

        What is given is called with the names of snapshots that are there and may not be listed: of a run that was
        killed, for example. Raises ContentError for a catalog that cannot be read, before anything is published.
        """
        self.catalog()
        batch = Batch(self._enlist)
        self._batch = batch
        try:
            yield lambda name: batch.note(SnapshotKey.parse(name))
        finally:
            self._batch = None
            # Also after an error: what was published is there, and nobody would list it otherwise.
            batch.flush()

    def leave_unlisted(self) -> None:
        """From here on tags that are published do not enter the catalog: another process lists them, in its batches."""
        self._batch = Unlisted()

    def _enlist(self, keys: set[SnapshotKey], renewed: bool) -> None:
        if keys:
            self._backend.update(CATALOG_KEY, Enlisting(keys, renewed, self._clock), limit=CATALOG_LIMIT)

    def remove(self, name: str) -> None:
        """As `stores.base.Remover`: out of the catalog first, so that it never lists what is not there. Blobs stay."""
        key = SnapshotKey.parse(name)
        if self._backend.head(manifest_key(key)) is None:
            self._backend.check()
            raise NotFoundError(f"{self._where} holds no snapshot {key}", object=str(key))
        if key not in self._going:
            self._unlist({key})
        # Copies under `_digests/` stay: who asked for the snapshot by its digest still finds it (epoch-formats 2.1).
        self._backend.delete(manifest_key(key))
        self._going.discard(key)

    @contextmanager
    def removing(self, names: Iterable[str]) -> Iterator[None]:
        """Inside, these are to be removed: they leave the catalog at once, which is not written again for each.

        What is still there at the end is listed again.
        """
        self._going = {SnapshotKey.parse(name) for name in names}
        self._unlist(self._going)
        try:
            yield
        finally:
            left, self._going = self._going, set()
            self._enlist({key for key in left if self._backend.head(manifest_key(key)) is not None}, False)

    def _unlist(self, keys: AbstractSet[SnapshotKey]) -> None:
        def changed(old: bytes | None) -> bytes | None:
            new = None if old is None else without_tags(old, keys, self._clock())
            return None if new == old else new

        self._backend.update(CATALOG_KEY, changed, limit=CATALOG_LIMIT)

    def garbage(self, grace: float, *, without: AbstractSet[str] = frozenset()) -> Garbage:
        """As `Collecting.garbage`; copies of manifests under `_digests/` refer to blobs as well."""
        self._backend.check()
        return Collector(self._backend, _BLOBS, (MANIFESTS, CATALOG_KEY), self._references).find(grace, without)

    def collect(self, garbage: Garbage, grace: float) -> Garbage:
        """As `Collecting.collect`."""
        return Collector(self._backend, _BLOBS, (MANIFESTS, CATALOG_KEY), self._references).remove(garbage, grace)

    def _references(self, without: AbstractSet[str]) -> set[str]:
        """The keys of all blobs that any document names, in whatever format: every 64 hex digits count as a digest."""

        def read(text: str) -> set[str]:
            key = parse_manifest_key(text)
            # What would be removed refers to nothing any more; its copy by digest, if there is one, still does.
            if key is not None and str(key) in without:
                return set()
            return {_BLOBS + found for found in digests_in(self._read(text, MANIFEST_LIMIT) or b"")}

        return gathered(read, list(self._backend.keys(MANIFESTS)))

    def snapshots(self) -> Iterator[SnapshotEntry]:
        """As `SnapshotStore.snapshots`, hostile names included. Raises NotFoundError when there is no store."""
        self._backend.check()
        # From the manifests and not from the catalog, which a server writes blindly and may be behind (reliability E4).
        for key in sorted(set(self._manifest_keys())):
            yield SnapshotEntry(key.name, key.tag)

    def catalog(self) -> Catalog | None:
        """What `catalog.json` says, None when there is none. Raises ContentError when it cannot be read."""
        raw = self._read(CATALOG_KEY, CATALOG_LIMIT)
        return None if raw is None else Catalog.parse(raw)

    def audit(self) -> Iterator[Finding]:
        """As `Auditor.audit`: the catalog held against the manifests that are there, and keys of no snapshot."""
        keys = set(self._manifest_keys())
        yield from self._stray_keys()
        # A name that is hostile is listed as a finding, and never made a path of.
        folders = {f"{MANIFESTS}{key.name}/" for key in keys if hostile_problem(key.name) is None}
        yield from left_behind(self._backend, ("", _BLOBS, *sorted(folders)))
        try:
            catalog = self.catalog()
        except ContentError as error:
            yield from (Finding(CATALOG_KEY, item.code, str(item)) for item in error.findings)
            return
        listed: set[SnapshotKey] = set()
        for name, repository in sorted(catalog.repositories.items() if catalog else ()):
            for tag, value in sorted(repository.tags.items()):
                listed.add(SnapshotKey(name, tag))
                if (why := entry_problem(SnapshotKey(name, tag), value, keys)) is not None:
                    yield why
        for key in sorted(keys - listed):
            yield Finding(CATALOG_KEY, "MISMATCH", f"{shown(str(key))} is not listed", "warning")

    def _read(self, key: str, limit: int) -> bytes | None:
        return read_if_there(self._backend, key, limit=limit, what=f"{key} of {self._where}")

    def _manifest_keys(self) -> Iterator[SnapshotKey]:
        for text in self._backend.keys(MANIFESTS):
            if (key := parse_manifest_key(text)) is not None:
                yield key

    def _stray_keys(self) -> Iterator[Finding]:
        copies = 0
        for text in sorted(set(self._backend.keys(MANIFESTS))):
            if parse_manifest_key(text) is not None:
                continue
            if "/_digests/" in text:
                copies += 1
            else:
                yield Finding(text, "NAME", f"{shown(text)} is not the key of a snapshot", "warning")
        if copies:
            yield Finding(
                MANIFESTS, "NAME", f"{counted(copies, 'copy', 'copies')} under _digests/ passed over", "warning"
            )

    def _require_blobs(self, key: SnapshotKey, manifest: Manifest) -> None:
        # `holds` and not `has`: on a disk of this machine a blob of the right size may still be the wrong one.
        missing = [blob for blob in manifest.descriptors if not self.holds(blob)]
        if missing:
            named = ", ".join(str(blob.digest) for blob in missing[:3]) + (" …" if len(missing) > 3 else "")
            raise NotFoundError(
                f"{key} cannot be stored: {self._where} lacks {len(missing)} of its blobs ({named})",
                object=str(missing[0].digest),
                hint="blobs are stored before the manifest that names them",
            )

    def _replacement(self, key: SnapshotKey, old: bytes | None, document: Document, replace: bool) -> bytes | None:
        if old == document.raw:
            return None
        self._refuse(key, old, document, replace=replace)
        return document.raw

    def _refuse(self, key: SnapshotKey, old: bytes | None, document: Document, *, replace: bool) -> None:
        """Raise ConflictError for what `document` may not be written over or beside."""
        if replace or old == document.raw:
            return
        if old is not None:
            raise ConflictError(
                f"{self._where} holds another snapshot as {key}",
                object=str(key),
                hint="store it under another name (--as NAME:TAG), or replace it with --force",
            )
        if self._is_modern():
            raise ConflictError(
                f"{self._where} is the bucket of an Epoch of 0.1.6 or later, which reads no manifests of the old form",
                object=str(key),
                hint="push to that Epoch with --dialect cocoonstack, or store it in a place of its own; "
                "--force writes it here all the same",
            )

    def _is_modern(self) -> bool:
        """Whether manifests of Epoch 0.1.6 or later live here.

        It keeps a copy of each by its digest, and these are looked into; of the others only some are, for there may be
        a hundred thousand, and who copied a bucket without its copies copied it together.
        """
        if self._modern is None:
            with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="look") as pool:
                # Once for a store: it is asked at every publishing, and one answer costs a listing.
                self._modern = any(pool.map(self._is_oci, self._looked_into()))
        return self._modern

    def _looked_into(self) -> list[str]:
        copies: list[str] = []
        others: list[str] = []
        # Who may not list may yet write, and what a listing stumbles over is no reason to refuse a snapshot.
        with suppress(ContentError, AccessError):
            for text in self._backend.keys(MANIFESTS):
                chosen = copies if is_digest_copy(text) else others
                if len(chosen) < _LOOKED_INTO:
                    chosen.append(text)
        return [*copies, *others]

    def _is_oci(self, text: str) -> bool:
        try:
            raw = self._read(text, MANIFEST_LIMIT)
        except ContentError:
            return False
        return raw is not None and stored_document(raw).media_type != EPOCH_MANIFEST

    def _is_here(self, key: SnapshotKey) -> bool:
        return self._backend.head(manifest_key(key)) is not None

    def _copy(self, key: SnapshotKey) -> bytes | None:
        """The manifest by its digest, which is what Epoch looks for where a tag is none."""
        digest = key.digest
        if digest is None:
            return None
        raw = self._read(digest_copy_key(key.name, digest), MANIFEST_LIMIT)
        if raw is not None:
            verifying.check(digest, Digest.of(raw), f"{key} in {self._where}")
        return raw

    def _read_if_sound(self, key: SnapshotKey) -> bytes | None:
        """What is there now and may be replaced: damage is mended so, a link or a directory in the way is not."""
        try:
            return self._read(manifest_key(key), MANIFEST_LIMIT)
        except ContentError as error:
            if error.code == "TYPE":
                raise
            return None
