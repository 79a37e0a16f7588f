"""What callers hand over, held against what it has to be: words, names, options, and how to connect."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from epoch_oci.errors import UsageError
from epoch_oci.events import OnEvent, ignore
from epoch_oci.locate import (
    ArtifactPlace,
    Connection,
    Place,
    SnapshotPlace,
    locate,
    locate_artifact,
    open_store,
)
from epoch_oci.oci.digest import shown
from epoch_oci.stores.base import SnapshotStore

Word = str | os.PathLike[str]
"""A location as the command line takes it; a path is one on this machine."""
Store = Word | SnapshotStore
"""The location of an Epoch store, or one that is open already."""
_Given = TypeVar("_Given")


def text_of(word: object) -> str:
    """A location as text. A path stays one on this machine, whatever it looks like. Raises UsageError."""
    if isinstance(word, str):
        if not word or "\0" in word:
            raise UsageError(f"a location is no {'text with a NUL in it' if word else 'empty text'}", object="location")
        return word
    if not isinstance(word, os.PathLike) or not isinstance(text := os.fspath(word), str):
        raise UsageError(f"a location is a text or a path, and not of the type {type(word).__name__}")
    return os.path.join(os.curdir, text)  # noqa: PTH118 (a Path drops the dot)


def name_of(text: object) -> str:
    """A text that is one. Raises UsageError."""
    if not isinstance(text, str):
        raise UsageError(f"a name is a text, and not of the type {type(text).__name__}")
    return text


def several(texts: object, what: str) -> tuple[str, ...]:
    """Texts that are several, and not one by mistake. Raises UsageError, which calls them `what`."""
    # A text is a sequence as well, of its letters.
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise UsageError(f"{what} are several texts, as a tuple or a list", object=what)
    return tuple(map(name_of, texts))


def tags_of(tags: object) -> tuple[str, ...]:
    """Legal tags, each once. Raises UsageError."""
    from epoch_oci.oci.reference import tag_problem

    found = tuple(dict.fromkeys(several(tags, "tags")))
    for text in found:
        if (why := tag_problem(text)) is not None:
            raise UsageError(f"the tag {shown(text)} {why}", object=text)
    return found


def check(options: object, kind: type) -> None:
    """Raise UsageError for options of another kind."""
    # Where they are first used, much may have been opened or sent.
    if not isinstance(options, kind | None):
        raise UsageError(f"options are of the type {kind.__name__}, and not {type(options).__name__}")


def changed(options: _Given, **changes: object) -> _Given:
    """The same options, but for some."""
    return cast(_Given, replace(cast(Any, options), **changes))


def store_of(store: Store, connection: Connection, *, create: bool = False) -> SnapshotStore:
    """The store that is meant, opened unless it is open already. Raises UsageError, NotFoundError, PolicyError."""
    if isinstance(store, SnapshotStore):
        return store
    return open_store(text_of(store), connection=connection, create=create)


def place_of(word: Word, store: Store | None, connection: Connection) -> Place:
    """Whatever `word` names. Raises UsageError, NotFoundError."""
    if isinstance(store, SnapshotStore):
        opened = store
        return SnapshotPlace(opened, opened.find(name_of(word)))
    return locate(text_of(word), store=None if store is None else text_of(store), connection=connection)


def push_target(to: Word, connection: Connection) -> ArtifactPlace:
    """Where an artifact is to go. Raises UsageError."""
    place = locate_artifact(text_of(to), connection=connection, create=True)
    if place.digest is not None:
        raise UsageError(f"{place.where}: a push target has no digest, for it follows from the snapshot")
    return place


def connected(connection: Connection | None, on_event: OnEvent = ignore) -> Connection:
    """What was given; else what the environment says."""
    if not callable(on_event):
        raise UsageError("on_event is something that can be called with an Event", object="on_event")
    check(connection, Connection)
    # One that is given has an `on_event` of its own, for what registries make it wait for.
    return connection or Connection(environ=dict(os.environ), on_event=on_event)
