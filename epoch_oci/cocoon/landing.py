"""How a snapshot gets into a Cocoon root: everything is made ready out of sight, then shown at once.

Blobs wait in a folder that Cocoon does not look at, and the snapshot's directory is filled beside them. While Cocoon's
lock is held, so that neither its collector nor another Cocoon is at work, base images get their names, the directory
gets its place, and the index its record, in this order. Killed in between, what is left is unknown to Cocoon, and its
next collection removes it.
"""

import re
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import field
from typing import Any

from epoch_oci.cocoon.envelope import record_name, spelled
from epoch_oci.cocoon.image_blobs import ImageBlobs
from epoch_oci.cocoon.records import Record, SnapshotIndex, config_of, is_meant, new_record
from epoch_oci.cocoon.root_file import Digests, RootFile
from epoch_oci.cocoon.stage import BLOBS, NewDirectory, WaitingBlobs, remove_abandoned
from epoch_oci.cocoon.tree import DATABASE, INDEX, SNAPSHOTS, STAGE, Tree, index_locked
from epoch_oci.dataclass import dataclass
from epoch_oci.disk import local
from epoch_oci.disk.draft import Draft, sweep
from epoch_oci.epoch.gojson import is_set_time
from epoch_oci.epoch.keys import SnapshotKey, blob_key
from epoch_oci.epoch.manifest import DEFAULT_MODE, Layer, Manifest, unpacking_of
from epoch_oci.epoch.sparse import Unpacking
from epoch_oci.errors import ConflictError, EpochOciError, NotFoundError, UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.base import BytesContent, Content

_UMASK = 0o022
"""Taken from a file's mode: others may never write. Cocoon's import has the same by the usual umask."""
# That of a file which Cocoon made itself (epoch-formats 5.2).
_INDEX_MODE = 0o644


@dataclass(slots=True, kw_only=True)
class Landing:
    """The writing half of a root. `stage` is where blobs wait, `locate` finds a blob anywhere in the root."""

    tree: Tree
    digests: Digests
    stage: DirectoryBackend
    locate: Callable[[Descriptor], Content | None]
    index: Callable[[], SnapshotIndex]
    clock: Callable[[], str]
    random: Callable[[int], bytes]
    lock_seconds: float
    _images: ImageBlobs = field(init=False)
    _waiting: WaitingBlobs = field(init=False)
    _satisfied: frozenset[Digest] = field(init=False, default=frozenset())
    _prepared: bool = field(init=False, default=False)
    _preparing: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._images = ImageBlobs(self.tree, self.digests)
        self._waiting = WaitingBlobs(self.tree, self.stage)

    def satisfied(self, target: Descriptor) -> bool:
        """Whether the snapshot that is expected is here already, and this is a blob of it."""
        return target.digest in self._satisfied

    def prepare(self) -> None:
        """Make sure that this is a root to be written to, and tidy up after those who were killed; once."""
        with self._preparing:  # blobs come in several threads
            if self._prepared:
                return
            self.index()
            for folder in (DATABASE, SNAPSHOTS):
                self.tree.make(folder)
            # Beside the snapshots and not in a cache directory: links and renames need one file system.
            with self.tree.own(SNAPSHOTS), self.tree.own("snapshot") as parent:
                local.make_directory(STAGE.rpartition("/")[2], parent, self.tree.what(STAGE))
            remove_abandoned(self.tree)
            self._waiting.tidy()
            self._prepared = True

    def expect(self, key: SnapshotKey, manifest: Manifest, *, replace: bool) -> bool:
        """As `CocoonRoot.expect`; nothing is written, for it may be all that a dry run does."""
        self._waiting.hold()
        _, same = self._standing(self.index(), key, manifest, replace)
        # So that a pull of what is here already moves nothing, though its files may have another form than its blobs.
        self._satisfied = frozenset(blob.digest for blob in manifest.descriptors) if same else frozenset()
        return same

    def let_go(self) -> None:
        """What waits is not counted on any more."""
        self._waiting.release()
        self._prepared = False

    def publish(self, key: SnapshotKey, manifest: Manifest, *, replace: bool) -> None:
        """As `CocoonRoot.publish`."""
        self.prepare()
        # Looked at three times: before gigabytes move, before files are put together, and under Cocoon's lock, which
        # alone decides.
        if not self._standing(self.index(), key, manifest, replace)[1]:
            self._require(key, manifest)
            self._land(key, manifest, replace)
        self._waiting.done([blob.digest for blob in manifest.descriptors])
        self.let_go()

    def _standing(
        self, index: SnapshotIndex, key: SnapshotKey, manifest: Manifest, replace: bool
    ) -> tuple[Record | None, bool]:
        """The snapshot that has the name now, and whether it is this one.

        Raises ConflictError when it may not have the name, or a base image not its own, UsageError for a cloud image,
        ContentError for an envelope that is wrong.
        """
        _refuse_cloud_image(manifest)
        name = record_name(key)
        config = config_of(manifest, name)  # read in any case: an envelope that cannot be meant is told of at once
        images = [self._images.holds(layer) for layer in manifest.base_images]
        record = index.named(name)
        if record is None:
            self._refuse_name(index, name)
            return None, False
        if not record.pending and all(images) and self._is_same(record, config, manifest):
            return record, True
        # A snapshot in the making belongs to the Cocoon that makes it, whatever was asked for.
        if record.pending or not replace:
            raise self._conflict(key, record)
        return record, False

    def _refuse_name(self, index: SnapshotIndex, name: str) -> None:
        rule = index.naming()
        if rule is not None and re.fullmatch(rule, name) is None:
            raise UsageError(
                f"{shown(name)} is no name that the import of the Cocoon of {self.tree.path} takes",
                object=name,
                hint=f"name it with --as {spelled(name, rule)}",
            )

    def _conflict(self, key: SnapshotKey, record: Record) -> ConflictError:
        where, name = self.tree.path, shown(record.name)
        if record.pending:
            return ConflictError(
                f"Cocoon is making a snapshot {name} in {where}",
                object=str(key),
                hint="wait for it, or store it under another name (--as NAME:TAG)",
            )
        return ConflictError(
            f"{where} has another snapshot {name}",
            object=str(key),
            hint="store it under another name (--as NAME:TAG), or take the name from the other one with --force",
        )

    def _is_same(self, record: Record, config: Mapping[str, Any], manifest: Manifest) -> bool:
        if not is_meant(record, config):
            return False
        folder = f"{SNAPSHOTS}/{record.id}"
        if {found for found, _ in self.tree.names(folder)} != {layer.filename for layer in manifest.layers}:
            return False
        # By content and not by ID: an import gives the same snapshot a new one (trap 33).
        return all(self._is_there(folder, layer, unpacking_of(manifest, layer)) for layer in manifest.layers)

    def _is_there(self, folder: str, layer: Layer, packed: Unpacking | None) -> bool:
        file = RootFile.find(self.tree, folder, layer.filename)
        if file is None:
            return False
        if file.segments == (packed.segments if packed else None):  # the same form: its digest may be known
            logical = packed.logical_size if packed else layer.size
            return file.logical_size == logical and self.digests.fits(file, layer.digest)
        return file.unfolds_from(layer.digest, layer.size, packed)

    def _require(self, key: SnapshotKey, manifest: Manifest) -> None:
        missing = [blob for blob in manifest.descriptors if blob.size and self.locate(blob) is None]
        if missing:
            named = ", ".join(str(blob.digest) for blob in missing[:3]) + (" …" if len(missing) > 3 else "")
            raise NotFoundError(
                f"{key} cannot be stored: {len(missing)} of its blobs are not here ({named})",
                object=str(missing[0].digest),
                hint="blobs are stored before the manifest that names them",
            )

    def _land(self, key: SnapshotKey, manifest: Manifest, replace: bool) -> None:
        with ExitStack() as stack:
            waiting = stack.enter_context(self.tree.folder(BLOBS))
            # Filled before the lock is taken: it takes minutes, and no Cocoon could take a snapshot meanwhile.
            new = stack.enter_context(NewDirectory(self.tree))
            free = self._fill(new, manifest, waiting)
            directory = stack.enter_context(index_locked(self.tree, self.lock_seconds))
            index = self.index()
            former, same = self._standing(index, key, manifest, replace)
            if same:  # another process was quicker
                return
            snapshot_id = index.new_id(self.random)
            raw = index.with_record(
                self._record(index, snapshot_id, record_name(key), manifest), unnamed=former.id if former else None
            )
            # In the order in which a reader goes: what the record names is there before the record is.
            undo = stack.enter_context(ExitStack())
            for layer in manifest.base_images:
                taken = None if waiting is None or layer.digest not in free else (waiting, layer.digest.hex)
                if self._images.add(layer, self._content(layer), taken):
                    undo.callback(self._images.remove, layer)
            new.move(snapshot_id)
            undo.callback(new.move_back, snapshot_id)
            try:
                self._write_index(directory, raw)
            except BaseException:
                # Better a directory that nobody lists than a record whose files are gone.
                if self._may_be_listed(snapshot_id):
                    undo.pop_all()
                raise
            undo.pop_all()

    def _fill(self, new: NewDirectory, manifest: Manifest, waiting: int | None) -> frozenset[Digest]:
        """Put the files together; returns which waiting blobs were not used up."""
        free = {blob.digest for blob in manifest.descriptors if self.stage.holds(blob_key(blob.digest), blob)}
        for layer in manifest.layers:
            mode = manifest.mode_of(layer.filename) & ~_UMASK or DEFAULT_MODE
            packed = unpacking_of(manifest, layer)
            if packed is None and waiting is not None and layer.digest in free:
                # Each waiting blob becomes one file at most: two files that shared their bytes would change together.
                free.remove(layer.digest)
                if new.take(layer.filename, mode, waiting, layer.digest.hex):
                    continue
            with self._content(layer).open() as reader:
                new.write(layer.filename, mode, VerifyingReader(reader, layer.descriptor, layer.filename), packed)
        return frozenset(free)

    def _content(self, layer: Layer) -> Content:
        # An empty file has no blob that anybody stored (trap 13).
        if not layer.size:
            return BytesContent(b"")
        found = self.locate(layer.descriptor)
        if found is None:
            raise NotFoundError(f"{layer.filename} ({layer.digest}) is not here any more", object=str(layer.digest))
        return found

    def _record(self, index: SnapshotIndex, snapshot_id: str, name: str, manifest: Manifest) -> dict[str, object]:
        now = self.clock()
        sizes = ((unpacking_of(manifest, layer), layer.size) for layer in manifest.layers)
        return new_record(
            index,
            snapshot_id,
            config_of(manifest, name),
            # Where it does not say when it was made, it is taken for made now, as an import does.
            created_at=manifest.created_at if is_set_time(manifest.created_at) else now,
            root=str(self.tree.path),
            size=sum(packed.logical_size if packed else size for packed, size in sizes),
            now=now,
        )

    def _write_index(self, directory: int, raw: bytes) -> None:
        what = self.tree.what("snapshot/db", INDEX)
        sweep(directory)
        # Its mode stays as it was found: Epoch's old pull leaves 0600 (epoch-formats 5.2).
        found = local.look_for_file(INDEX, directory, what)
        mode = _INDEX_MODE if found is None else stat.S_IMODE(found.st_mode)
        with Draft(directory, what) as draft:
            draft.write(raw)
            draft.commit(INDEX, mode=mode)

    def _may_be_listed(self, snapshot_id: str) -> bool:
        """Whether the record was written before something failed; when in doubt, for then its files must stay."""
        try:
            return snapshot_id in self.index().records
        except EpochOciError:
            return True


def _refuse_cloud_image(manifest: Manifest) -> None:
    if manifest.is_cloud_image:
        raise UsageError(
            "a cloud image is no snapshot, and Cocoon keeps it in another form",
            hint="pull it with `-o -` into `cocoon image import NAME`",
        )
