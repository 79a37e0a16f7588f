"""What the words of a command line mean: sizes, rates, pairs, documents, and the places where snapshots are."""

import os
import re
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from epoch_oci.errors import ConflictError, ContentError, EpochOciError, LocalIOError, NotFoundError, UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.locate import ArtifactPlace, Place
    from epoch_oci.stores.base import SnapshotStore

STANDARD_INPUT = "-"

_SIZE = r"([0-9]{1,15})(?:([KMG])(?:iB)?)?\Z"
_DESCRIPTOR = r"/dev/(?:std(?:in|out|err)\Z|fd/)|/proc/"
_KINDS = ("oci:", "oci-archive:", "cocoon:")
_KEPT = frozenset({"blobs", "manifests", "catalog.json", "index.json", "oci-layout", "snapshot", "cloudimg"})
"""What stands at the top of stores, layouts and Cocoon's roots."""
# A throttle moves no less at a time (`transfer/throttle.py`).
_SMALLEST_RATE = 1 << 10
_SMALLEST_CHUNK = 1 << 20
_SMALLEST_CACHE = 64 << 20
_FACTORS = {None: 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def part_size(text: str) -> int | None:
    """The SIZE of `--part-size` in bytes, 0 for `none`, None for `auto`. Raises UsageError."""
    from epoch_oci.oci.parts import SMALLEST_PART

    if text in ("auto", "none"):
        return None if text == "auto" else 0
    return _size("--part-size", text, SMALLEST_PART, "write none, auto, or a size of at least 1KiB")


def rate(text: str) -> int:
    """The SIZE of `--limit-rate`, bytes a second. Raises UsageError."""
    return _size("--limit-rate", text, _SMALLEST_RATE, "write at least 1KiB a second", ", such as 50M")


def chunk_size(text: str) -> int:
    """The SIZE of `--chunk-size` in bytes. Raises UsageError."""
    return _size("--chunk-size", text, _SMALLEST_CHUNK, "write at least 1MiB")


def cache_size(text: str) -> int:
    """The SIZE of `--cache-size` in bytes. Raises UsageError."""
    return _size("--cache-size", text, _SMALLEST_CACHE, "write at least 64MiB")


def _size(flag: str, text: str, least: int, hint: str, example: str = "") -> int:
    match = re.match(_SIZE, text)
    size = int(match[1]) * _FACTORS[match[2]] if match else 0
    if size < least:
        from epoch_oci.oci.digest import shown

        forms = f"{hint}: bytes, or with K, M, G, KiB, MiB, GiB{example}"
        raise UsageError(f"{flag} cannot be {shown(text)}", object=flag, hint=forms)
    return size


def annotations_of(pairs: Sequence[str], file: str | None = None) -> dict[str, str]:
    """Keys and values, those of `file` first; the last of two with one key counts.

    Raises UsageError for what is not K=V, ContentError for a file of something else, and what reading raises.
    """
    found = _annotations_in(file) if file is not None else {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"--annotation {pair} has no key and value", object="--annotation", hint="write K=V")
        found[key] = text
    return found


def _annotations_in(file: str) -> dict[str, str]:
    """An object of texts, or one of objects in which `$manifest` has them, as the users of oras write it."""
    from epoch_oci.oci import strict_json
    from epoch_oci.oci.digest import shown
    from epoch_oci.oci.document import MANIFEST_LIMIT

    value = strict_json.loads(read_document(file, MANIFEST_LIMIT), file, limit=MANIFEST_LIMIT)
    if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
        if others := [key for key in value if key != "$manifest"]:
            raise UsageError(
                f"--annotation-file {file} annotates {shown(others[0])}, and only the manifest takes any",
                object=file,
                hint="leave $manifest alone in it; what config and layers are annotated with follows from the snapshot",
            )
        value = value["$manifest"]
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ContentError(
            f"--annotation-file {file} is no object of texts",
            object=file,
            hint='write {"KEY": "VALUE", …}, or that as "$manifest" of an object',
        )
    return value


def output_file(flag: str, word: str, *places: str | None) -> str:
    """The path that `flag` names, links followed. Raises what would keep it from being written at the end of the work.

    That is UsageError for a directory, NotFoundError where there is none for it, ConflictError for what is no file, and
    for a file that belongs to one of the `places` that the command is about.
    """
    path = os.path.realpath(word)
    for place in places:
        if any(_belongs(path, base) for base in _paths_of(place or "")):
            raise ConflictError(f"{flag} {word} is a file of {place}", object=word, hint="name another file")
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (as `realpath`)
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise LocalIOError(f"{flag} {word}: {(error.strerror or str(error)).lower()}", object=word) from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{flag} {word} is a directory", object=word, hint="name a file")
    # Standard output may lead into a file, and that would be replaced under it.
    if not stat.S_ISREG(mode) or re.match(_DESCRIPTOR, word):
        raise ConflictError(f"{flag} {word} is no regular file", object=word, hint="name a file, or a new one")
    if not os.path.isdir(os.path.dirname(path)):  # noqa: PTH112, PTH120 (as `realpath`)
        raise NotFoundError(f"{flag}: there is no directory for {word}", object=word)
    return path


def _paths_of(place: str) -> list[str]:
    """What a place is on this machine, if it is there at all: its word with and without a tag."""
    rest = place.removeprefix("file://")
    for kind in _KINDS:
        rest = rest.removeprefix(kind)
    return [os.path.realpath(text) for text in (rest, rest.rpartition(":")[0]) if text]


def _belongs(path: str, base: str) -> bool:
    """Whether a file is an archive itself, or stands where stores and layouts keep what is theirs."""
    # Other names in such a directory are the user's own: a digest file beside `blobs` is one.
    first = path.removeprefix(f"{base}/").partition("/")[0]
    return path == base or (path.startswith(f"{base}/") and first in _KEPT)


def write_file(path: str, raw: bytes, *, replace: bool = True, mode: int = 0o600) -> None:
    """Write a file that is there whole or not at all. Raises ConflictError, NotFoundError, LocalIOError."""
    from pathlib import Path

    from epoch_oci.disk.draft import new_file

    with new_file(Path(path), replace=replace, mode=mode) as draft:
        draft.write(raw)


def read_document(word: str, limit: int) -> bytes:
    """The bytes of a file or, for `-`, of standard input; one more than `limit` where there are more.

    Raises NotFoundError, LocalIOError, UsageError for a directory or a location with a password in it.
    """
    if word == STANDARD_INPUT:
        return sys.stdin.buffer.read(limit + 1)
    try:
        with open(word, "rb") as file:  # noqa: PTH123 (the word is shown as it was typed)
            return file.read(limit + 1)
    except FileNotFoundError:
        from epoch_oci.oci.reference import refuse_user_info

        # The message repeats the word, which may be a location with a password in it.
        refuse_user_info(word)
        hint = "name a file, or pipe it in as `-`" if "://" in word else "name a file, or `-`"
        raise NotFoundError(f"there is no file {word}", object=word, hint=hint) from None
    except IsADirectoryError:
        hint = "name a file in it, or look at all of it with `epoch-oci verify`"
        raise UsageError(f"{word} is a directory", object=word, hint=hint) from None
    except OSError as error:
        raise LocalIOError(f"{word}: {(error.strerror or str(error)).lower()}", object=word) from error


def named_store(store: str | None) -> str:
    """The store that was named. Raises UsageError when none was."""
    if store:
        return store
    raise UsageError("no store is named", object="--store", hint="name it with --store DIR, or set EPOCH_STORE")


def snapshot_in(run: "Run", word: str, store: str | None) -> "tuple[SnapshotStore, SnapshotKey]":
    """The store and the snapshot `NAME[:TAG]` in it. Raises UsageError, ContentError (NAME)."""
    from epoch_oci.locate import open_store

    # A path that is there was meant as one; any other word with such components is a hostile name, and said to be one.
    is_path = word.startswith(("./", "~")) or (word.startswith((".", "/")) and os.path.exists(word))  # noqa: PTH110
    if is_path or "://" in word:
        raise UsageError(
            f"{word} is no snapshot's name", object=word, hint="name a snapshot, NAME[:TAG], and its store with --store"
        )
    opened = open_store(named_store(store), connection=run.connection)
    return opened, opened.find(word)


def place_of(run: "Run", word: str, store: str | None) -> "Place":
    """Whatever `word` names. Raises UsageError, NotFoundError."""
    from epoch_oci.locate import ArtifactPlace, locate

    place = locate(word, store=store, connection=run.connection)
    if isinstance(place, ArtifactPlace):
        _hold_tag_against_digest(run, place)
    return place


def artifact_of(run: "Run", word: str) -> "ArtifactPlace":
    """The repository or layout that `word` names, to be read. Raises UsageError, NotFoundError."""
    from epoch_oci.locate import locate_artifact

    place = locate_artifact(word, connection=run.connection)
    _hold_tag_against_digest(run, place)
    return place


def _hold_tag_against_digest(run: "Run", place: "ArtifactPlace") -> None:
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


def refuse_swapped(verb: str, first: str, second: str, order: str) -> None:
    """Raise UsageError where the second word names an artifact, which the first one should, and that does not.

    `order` says what belongs where.
    """
    from epoch_oci import location

    if location.is_artifact(second) and not location.is_artifact(first):
        raise UsageError(order, object=second, hint=f"write `epoch-oci {verb} {second} {first}`")


def several_tags(word: str) -> tuple[str, tuple[str, ...]]:
    """`WHERE:a,b` as `WHERE:a` and the other tags. Raises UsageError for one that is none."""
    from epoch_oci.oci.reference import tag_problem

    where, colon, tags = word.rpartition(":")
    # With a slash behind the last colon that is a port's, and there is no tag.
    if not colon or "," not in tags or "/" in tags:
        return word, ()
    # A tag has no comma, so that none is torn apart.
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
    # A word that names a directory which is there is a store (docs/cli.md, Words for places).
    if rest or not is_registry(host) or Path(word or "").is_dir():
        return None
    name = host.partition(":")[0]
    return host if slash or "." in name or name == "localhost" or store is None else None
