"""What the words of a command line mean: stores, snapshots in them, repositories, layouts."""

import os
from typing import TYPE_CHECKING

from epoch_oci.cli.session import Run
from epoch_oci.errors import EpochOciError, NotFoundError, UsageError

if TYPE_CHECKING:
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.locate import ArtifactPlace, Place, SnapshotStore


def named_store(store: str | None) -> str:
    """The store that was named. Raises UsageError when none was."""
    if store:
        return store
    raise UsageError("no store is named", object="--store", hint="name it with --store DIR, or set EPOCH_STORE")


def snapshot_in(run: Run, word: str, store: str | None) -> "tuple[SnapshotStore, SnapshotKey]":
    """The store and the snapshot `NAME[:TAG]` in it. Raises UsageError, ContentError (NAME)."""
    from epoch_oci.locate import key_in, open_store

    # A path that is there was meant as one; any other word with such components is a hostile name, and said to be one.
    is_path = word.startswith(("./", "~")) or (word.startswith((".", "/")) and os.path.exists(word))  # noqa: PTH110
    if is_path or "://" in word:
        raise UsageError(
            f"{word} is no snapshot's name", object=word, hint="name a snapshot, NAME[:TAG], and its store with --store"
        )
    opened = open_store(named_store(store), connection=run.connection)
    return opened, key_in(opened, word)


def place_of(run: Run, word: str, store: str | None) -> "Place":
    """Whatever `word` names. Raises UsageError, NotFoundError."""
    from epoch_oci.locate import ArtifactPlace, locate

    place = locate(word, store=store, connection=run.connection)
    if isinstance(place, ArtifactPlace):
        _hold_tag_against_digest(run, place)
    return place


def artifact_of(run: Run, word: str) -> "ArtifactPlace":
    """The repository or layout that `word` names, to be read. Raises UsageError, NotFoundError."""
    from epoch_oci.locate import locate_artifact

    place = locate_artifact(word, connection=run.connection)
    _hold_tag_against_digest(run, place)
    return place


def _hold_tag_against_digest(run: Run, place: "ArtifactPlace") -> None:
    """Where both were written the digest decides; that the tag holds something else is worth a word."""
    if place.tag is None or place.digest is None:
        return
    try:
        there = place.store.resolve(place.tag).digest
    except NotFoundError:
        run.warn(f"{place.where} has no tag {place.tag}; {place.digest} is what counts")
    except EpochOciError:  # nothing depends on it, and what matters will be said of the digest
        return
    else:
        if there != place.digest:
            run.warn(f"{place.where}:{place.tag} holds {there}; {place.digest} is what counts")


def several_tags(word: str) -> tuple[str, tuple[str, ...]]:
    """`WHERE:a,b` as `WHERE:a` and the other tags. Raises UsageError for one that is none."""
    from epoch_oci.oci.reference import tag_problem

    where, colon, tags = word.rpartition(":")
    if not colon or "," not in tags or "/" in tags:
        return word, ()
    first, *others = tags.split(",")
    for tag in others:
        if (why := tag_problem(tag)) is not None:
            raise UsageError(f'{word}: the tag "{tag}" {why}', object=word, hint="write WHERE:TAG,TAG")
    return f"{where}:{first}", tuple(dict.fromkeys(tag for tag in others if tag != first))


def bare_host(word: str | None, store: str | None) -> str | None:
    """The registry that a word without a repository names, None for any other word.

    `HOST/` always does; without the slash it must have a dot or be localhost, or no store may be named in which
    `NAME:5000` could be a snapshot.
    """
    from pathlib import Path

    from epoch_oci.oci.reference import is_registry

    host, slash, rest = (word or "").removeprefix("docker://").partition("/")
    if rest or not is_registry(host) or Path(word or "").is_dir():
        return None
    name = host.partition(":")[0]
    return host if slash or "." in name or name == "localhost" or store is None else None
