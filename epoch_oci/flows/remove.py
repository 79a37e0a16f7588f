"""Taking tags, artifacts and snapshots away, each on its own."""

from collections.abc import Sequence

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import (
    AccessError,
    ContentError,
    EpochOciError,
    InterruptedTransferError,
    NotFoundError,
    UsageError,
)
from epoch_oci.flows.copy import pointed
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.base import ArtifactStore, Remover, SnapshotStore, Source, full_name


@dataclass(slots=True)
class Removable:
    """What is to be removed from `store`: `name` as the store has it."""

    store: Source
    name: str
    digest: Digest | None = None

    @property
    def label(self) -> str:
        """What people call it; a snapshot's name says enough."""
        return self.name if isinstance(self.store, SnapshotStore) else full_name(self.store, self.name)


def removed(targets: Sequence[Removable], *, dry_run: bool) -> list[tuple[Removable, EpochOciError | None]]:
    """Remove one after another; each with what kept it from being removed, if anything did.

    What was refused is tried again as long as others go: an index may be among them that named it.
    """
    gone: set[tuple[str, str]] = set()
    stores: dict[str, Source] = {}
    for target in targets:  # one of each place, which need not ask again what it was told
        target.store = stores.setdefault(target.store.where, target.store)
    outcomes = [_outcome(target, targets, gone, dry_run) for target in targets]
    while True:
        before = len(gone)
        refused = [at for at, error in enumerate(outcomes) if isinstance(error, AccessError)]
        if not refused or not gone:
            break
        for at in refused:
            outcomes[at] = _outcome(targets[at], targets, gone, dry_run)
        if len(gone) == before:
            break
    return list(zip(targets, outcomes, strict=True))


def _outcome(
    target: Removable, targets: Sequence[Removable], gone: set[tuple[str, str]], dry_run: bool
) -> EpochOciError | None:
    if (target.store.where, target.name) in gone:
        return None
    try:
        _look(target)
        if not dry_run:
            gone |= _remove(target, targets)
    except InterruptedTransferError:  # ends all of it, and is none of this target's faults
        raise
    except EpochOciError as error:
        return error
    return None


def _look(target: Removable) -> None:
    if not isinstance(target.store, Remover):
        raise UsageError(f"{target.label}: nothing can be removed from such a place", object=target.name)
    try:
        target.digest = pointed(target.store, target.name)
    except ContentError:  # what is damaged can be removed all the same
        return
    if target.digest is None:
        raise NotFoundError(f"{target.label} is not there", object=target.label)


def _remove(target: Removable, targets: Sequence[Removable]) -> set[tuple[str, str]]:
    """Remove it; what is gone then. A registry that deletes whole manifests does so when all of the tags are wanted."""
    assert isinstance(target.store, Remover)
    try:
        target.store.remove(target.name)
    except AccessError:
        # A registry without the deletion of tags takes the manifest away, and with it every tag of it.
        tags = _tags_of(target)
        wanted = {item.name for item in targets if item.store.where == target.store.where}
        # Only if every tag of the manifest was named: one that was not would be lost with it.
        if target.digest is None or len(tags) < 2 or not tags <= wanted:
            raise
        target.store.remove(str(target.digest))
        return {(target.store.where, tag) for tag in tags}
    return {(target.store.where, target.name)}


def _tags_of(target: Removable) -> set[str]:
    if not isinstance(target.store, ArtifactStore) or target.digest is None:
        return set()
    return {tag for tag in target.store.tags() if pointed(target.store, tag) == target.digest}
