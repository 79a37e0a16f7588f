"""`tag`, `remove`, `prune`, `sync`; `login` and `logout`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from epoch_oci.api.words import Store, Word, changed, check, connected, name_of, place_of, several, tags_of, text_of
from epoch_oci.errors import BatchError, UsageError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.locate import (
    Connection,
    Place,
    SnapshotPlace,
    locate_artifact,
)
from epoch_oci.oci.digest import Digest, shown

if TYPE_CHECKING:
    from epoch_oci.bulk.prune import Policy, Pruning
    from epoch_oci.bulk.results import SyncReport
    from epoch_oci.bulk.sync import SyncOptions
    from epoch_oci.flows.remove import Removable

# What a push under way has sent looks like garbage until its manifest is there.
_DAY = timedelta(days=1)


def tag(
    reference: Word,
    tags: Sequence[str],
    *,
    force: bool = False,
    allow_public: bool = False,
    connection: Connection | None = None,
) -> Digest:
    """Give an artifact further tags in its own repository or layout, and return its digest; no blob moves.

    Raises ConflictError for a tag that holds something else, unless `force`: then none is set. Raises PolicyError where
    anybody could read the memory of a guest, unless `allow_public`.
    """
    from epoch_oci.flows.copy import add_tags

    place = locate_artifact(text_of(reference), connection=connected(connection))
    told = add_tags(place.store, place.named(), tags_of(tags), force=force, allow_public=allow_public, dry_run=False)
    return Digest.parse(told["digest"])


def remove(
    *references: Word, store: Store | None = None, dry_run: bool = False, connection: Connection | None = None
) -> "list[Removable]":
    """Take tags, artifacts or snapshots away: HOST/REPO:TAG, oci:DIR:TAG, or NAME:TAG in `store`. Blobs stay.

    Each of the result has the digest that it held. Raises what kept one from being removed, and BatchError with all of
    these where there are several references; the others are gone then. UsageError for what does not name one.
    """
    from epoch_oci.flows.remove import removed

    reached = connected(connection)
    # All are understood before one goes: a word that is wrong removes nothing.
    targets = [removable(word, place_of(word, store, reached)) for word in references]
    done = removed(targets, dry_run=dry_run)
    failures = [error for _, error in done if error is not None]
    # Of one it is the error itself, which says more than that one of one failed.
    if len(targets) == 1 and failures:
        raise failures[0]
    if failures:
        raise BatchError(f"{len(failures)} of {len(targets)} could not be removed", failures)
    return [target for target, _ in done]


def removable(word: Word, place: Place) -> "Removable":
    """What `remove` takes away. Raises UsageError for a word that does not name one snapshot or artifact."""
    from epoch_oci.flows.remove import Removable

    if isinstance(place, SnapshotPlace):
        if place.key is None or ":" not in text_of(word):
            raise UsageError(f"{shown(text_of(word))} does not say which snapshot", hint="write NAME:TAG")
        return Removable(place.store, str(place.key))
    if place.name is None:
        raise UsageError(f"{shown(text_of(word))} is all of it", hint="name a tag or a digest; `prune` takes many")
    return Removable(place.store, place.name)


def prune(
    location: Word,
    policy: "Policy | None" = None,
    *,
    grace: timedelta = _DAY,
    dry_run: bool = False,
    connection: Connection | None = None,
) -> "Pruning":
    """Remove tags by a policy and, in stores and layouts, content older than `grace` that nothing refers to.

    Without a policy no tag goes. What could not be removed stands in `failures` of the result. Raises ContentError
    where a document cannot be read, for then nobody knows what it refers to; nothing is removed then.
    """
    from epoch_oci.bulk.prune import Policy, carry_out, look
    from epoch_oci.bulk.sides import open_single

    check(policy, Policy)
    if not isinstance(grace, timedelta) or grace < timedelta():
        raise UsageError("grace has to be a timedelta, and not below zero", object="grace")
    side, seconds = open_single(text_of(location), connection=connected(connection)), grace.total_seconds()
    found = look(side, policy or Policy(), seconds)
    return found if dry_run else carry_out(side, found, seconds)


def sync(
    source: Word,
    target: Word,
    *,
    repositories: Sequence[str] = (),
    options: "SyncOptions | None" = None,
    connection: Connection | None = None,
    on_event: OnEvent = ignore,
) -> "SyncReport":
    """Bring all snapshots of a store, a registry below a prefix, or a layout to another one.

    What they share moves once. One that fails stands in its row of the report with its error, and the others go on.
    `repositories` are those below the source's prefix where its registry has no catalog. Raises what listing the source
    raises, and PolicyError where `options.delete` would take everything away.
    """
    from epoch_oci.bulk.sides import open_side
    from epoch_oci.bulk.sync import SyncOptions
    from epoch_oci.bulk.sync import sync as sync_all

    check(options, SyncOptions)
    connection = connected(connection, on_event)
    here = open_side(text_of(source), connection=connection, repositories=several(repositories, "repositories"))
    there = open_side(text_of(target), connection=connection, create=True)
    return sync_all(here, there, options=options, on_event=on_event)


def login(registry: str, username: str, password: str, *, connection: Connection | None = None) -> str:
    """Try credentials at HOST[:PORT] and keep them where Docker's and podman's are; returns where that is.

    Raises AccessError when they are not taken, NetworkError, LocalIOError, UsageError.
    """
    from epoch_oci.locate import credential_store, registry_settings
    from epoch_oci.oci.reference import registry_named
    from epoch_oci.registry.repository import verify_login

    host, name = registry_named(name_of(registry)), name_of(username)
    # It ends at the first colon, in the header and in the file.
    if not name or ":" in name:
        raise UsageError("a user's name is not empty and holds no colon", object="username")
    reached = changed(connected(connection), username=name, password=name_of(password))
    verify_login(host, registry_settings(host, reached))
    return credential_store(reached).keep(host, name, password).where


def logout(registry: str, *, connection: Connection | None = None) -> bool:
    """Forget the credentials of HOST[:PORT] in every file that is read; False when none were kept.

    Raises LocalIOError, ContentError and AccessError where nothing could be forgotten.
    """
    from epoch_oci.locate import credential_store
    from epoch_oci.oci.reference import registry_named

    return credential_store(connected(connection)).forget(registry_named(name_of(registry)))
