"""What a word means, by one grammar. A `Location` is a value: nothing is opened and nobody is asked.

HOST[:PORT]/REPO[:TAG][@DIGEST]     a registry repository (also with docker:// or oci:// before it)
oci:DIR[:TAG][@DIGEST]              an OCI image layout in a directory
oci-archive:FILE[:TAG][@DIGEST]     an OCI image layout in a tar archive
DIR, file:///DIR                    an Epoch store in a directory
s3://BUCKET[/PREFIX]                an Epoch store in an object store (also gs:// and az://)
cocoon:DIR                          a Cocoon root directory
epoch+http://HOST:PORT              a legacy Epoch server, which is only read (also epoch+https://)
NAME[:TAG]                          a snapshot in the store that was named beside it

Some words could mean two things; then a directory that is there decides, and after it the order above.
"""

import os.path
import re
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.reference import Reference, is_registry, refuse_user_info, tag_problem

BUCKETS = ("s3", "gs", "az")
SERVERS = ("epoch+http", "epoch+https")
KINDS_OF_STORE = ", ".join((*(f"{scheme}://…" for scheme in ("file", *BUCKETS, *SERVERS)), "cocoon:DIR"))

_REGISTRY = ("docker://", "oci://")
_WEB = ("https://", "http://")
_LAYOUT = "oci:"
_ARCHIVE = "oci-archive:"
_ROOT = "cocoon:"
_PATH = (".", "/", "~")
"""What a word begins with that is a path whether or not it is there."""
_DIGEST = re.compile(r"@(?=sha(?:256|512):)")
StoreKind = Literal["directory", "bucket", "server", "cocoon"]


class _Place:
    """What all locations have in common."""

    __slots__ = ()

    @property
    def is_here(self) -> bool:
        """Whether its bytes are on this machine, as far as the word tells: a snapshot's name leaves it to the store."""
        return True


@dataclass(frozen=True, slots=True)
class RepositoryLocation(_Place):
    """A registry repository, or with a tag or digest one artifact of it."""

    word: str
    reference: Reference

    @property
    def is_here(self) -> bool:
        """As every location's: never."""
        return False


@dataclass(frozen=True, slots=True)
class LayoutLocation(_Place):
    """An OCI image layout, or with `tag` or `digest` one artifact of it."""

    word: str
    path: Path
    tag: str | None = None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class ArchiveLocation(_Place):
    """An OCI image layout in a tar archive, or with `tag` or `digest` one artifact of it."""

    word: str
    path: Path
    tag: str | None = None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class StoreLocation(_Place):
    """An Epoch store or Cocoon root. `path` is where it is on this machine, None where it is not."""

    word: str
    kind: StoreKind
    path: Path | None = None

    @property
    def is_here(self) -> bool:
        """As every location's."""
        return self.path is not None


@dataclass(frozen=True, slots=True)
class NameLocation(_Place):
    """A snapshot in a store that is named elsewhere; the word is `epoch.keys.SnapshotKey`'s to read."""

    word: str


ArtifactLocation = RepositoryLocation | LayoutLocation | ArchiveLocation
Location = ArtifactLocation | StoreLocation | NameLocation


def parse(word: str, *, target: bool = False) -> Location:
    """What `word` means. Raises UsageError for what can mean nothing, with a spelling that may have been meant.

    What is yet to be made at a `target` could have another name; what is read has the one it has.
    """
    if not word:
        raise UsageError("a location is empty", hint="is a variable of the shell not set?")
    refuse_user_info(word)
    refuse_url(word)
    # A scheme leaves no doubt, so that no look at the disk can change what it means.
    if word.startswith(_REGISTRY):
        return RepositoryLocation(word, Reference.parse(word, wanted=target))
    if word.startswith(_LAYOUT):
        return LayoutLocation(word, *_divided(word, _LAYOUT, "oci:DIR[:TAG]"))
    if word.startswith(_ARCHIVE):
        return ArchiveLocation(word, *_divided(word, _ARCHIVE, "oci-archive:FILE[:TAG]"))
    # What is there decides before what a word looks like: a directory may be called like a host.
    if _is_directory(word) or _is_root(word) or word == _ROOT or "://" in word or word.startswith(_PATH):
        return parse_store(word)
    if _is_reference(word):
        return RepositoryLocation(word, Reference.parse(word, wanted=target))
    return NameLocation(word)


def parse_store(word: str) -> StoreLocation:
    """The Epoch store that `word` names where nothing else is expected. Raises UsageError."""
    if not word:
        raise UsageError("the store's name is empty", hint="name a directory with --store DIR")
    refuse_user_info(word)
    if _is_url(word):
        raise UsageError(
            f"{shown(word)} is a URL, and no kind of store",
            object=word,
            hint=f"a legacy Epoch server is epoch+{_plainly(word)}, and a store is a directory, or {KINDS_OF_STORE}",
        )
    if word.startswith(_ROOT):
        directory = word.removeprefix(_ROOT)
        if not directory:
            raise UsageError(f"{word} names no directory", object=word, hint="write cocoon:DIR")
        return StoreLocation(word, "cocoon", _path(directory))
    if word.startswith((_LAYOUT, _ARCHIVE)):
        raise UsageError(
            f"{shown(word)} is an OCI image layout, and an Epoch store is wanted here",
            hint="push to a layout, and pull from it",
        )
    scheme, divider, _ = word.partition("://")
    # `localhost:5000/bot` after --store is a slip, and would make a directory of that name.
    if not divider and _has_port(word) and not _is_directory(word):
        raise UsageError(
            f"{shown(word)} is a registry reference, and an Epoch store is wanted here",
            object=word,
            hint=f"name a directory or a bucket; a directory that is called so is ./{_plainly(word)}",
        )
    if not divider:
        return StoreLocation(word, "directory", _path(word))
    if scheme == "file":
        return StoreLocation(word, "directory", _file_path(word))
    if scheme in BUCKETS or scheme in SERVERS:
        return StoreLocation(word, "bucket" if scheme in BUCKETS else "server")
    raise UsageError(
        f"{shown(scheme)}:// names no kind of store", object=scheme, hint=f"name a directory, or {KINDS_OF_STORE}"
    )


def parse_artifact(word: str, *, target: bool = False) -> ArtifactLocation:
    """As `parse`, where a repository or layout is expected."""
    found = parse(word, target=target)
    if isinstance(found, ArtifactLocation):
        return found
    if (registry := bare_registry(word)) is not None:
        raise lacks_repository(word, registry)
    hint = "write HOST[:PORT]/REPOSITORY[:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG]"
    if isinstance(found, StoreLocation) and found.kind == "directory":
        hint += f"; a layout in that directory is oci:{_plainly(word)}"
    if isinstance(found, StoreLocation):
        hint += "; out of a store `push` takes one snapshot, and `sync` all of them"
    raise UsageError(f"{shown(word)} is neither a registry reference nor an OCI layout", hint=hint)


def repository_in(place: str) -> str:
    """The repository of a place that holds artifacts, by what people call it; "" for a layout, which has none."""
    # A layout's path says nothing of what is in it, and must become no part of a snapshot's name.
    return "" if place.startswith((_LAYOUT, _ARCHIVE)) else place.partition("/")[2]


def is_artifact(word: str) -> bool:
    """Whether `word` names a repository or layout, or an artifact in one."""
    try:
        return isinstance(parse(word), ArtifactLocation)
    except UsageError:
        return False


def bare_registry(word: str) -> str | None:
    """The registry that a word names which has no repository, None for any other word."""
    # `ghcr.io/` is how many write a registry as a whole.
    host = word.removesuffix("/")
    return host if is_registry(host) and not _is_directory(word) else None


def lacks_repository(word: str, registry: str) -> UsageError:
    """What to say of `bare_registry`."""
    return UsageError(f"{shown(word)} names a registry and no repository", hint=f"write {registry}/REPOSITORY[:TAG]")


def refuse_url(word: str) -> None:
    """Raise UsageError for a registry that is written as in a browser: it is named without the scheme."""
    if _is_url(word):
        raise _url(word)


def _is_url(word: str) -> bool:
    return word.lower().startswith(_WEB)


def _url(word: str) -> UsageError:
    """A registry is written without a scheme."""
    scheme, _, rest = word.partition("://")
    plain = " and give --plain-http" if scheme.lower() == "http" else ""
    return UsageError(
        f"{shown(word)} is a URL, and a registry is named without {scheme}://",
        object=word,
        hint=f"write {_plainly(rest)}{plain}, or epoch+{scheme.lower()}://{_plainly(rest)} for a legacy Epoch server",
    )


def _plainly(text: str) -> str:
    """`text` in a hint: without the quotes of `shown`."""
    return shown(text)[1:-1]


def _divided(word: str, prefix: str, form: str) -> tuple[Path, str | None, Digest | None]:
    """Path, tag and digest: the last colon divides, unless all of it is there and what follows it can be no tag."""
    # At a digest and not at each `@`: paths may have one.
    rest, *digests = _DIGEST.split(word.removeprefix(prefix))
    if len(digests) > 1:
        raise UsageError(f"{shown(word)} has more than one digest", hint=f"write {form}[@DIGEST]")
    digest = _digest(word, digests[0]) if digests else None
    path, colon, tag = rest.rpartition(":")
    why = tag_problem(tag) if colon else None
    # A colon in a path that is there; one that is not there yet cannot be told from a wrong tag.
    if not colon or (why is not None and os.path.lexists(rest)):
        path, tag = rest, ""
    elif why is not None:
        raise UsageError(
            f"{shown(word)}: there is no {shown(rest)}, and as a tag {shown(tag)} {why}",
            object=word,
            hint=f"write {form}; a path with a colon in it needs a tag behind it",
        )
    if not path:
        raise UsageError(f"{shown(word)} names no path", object=word, hint=f"write {form}")
    return _path(path), tag or None, digest


def _digest(word: str, text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ContentError as error:
        raise UsageError(f"{shown(word)}: {error.message}", hint="write @sha256:HEX as `inspect` shows it") from None


def _path(text: str) -> Path:
    if "\0" in text:
        raise UsageError(f"{shown(text)} is no path: there is a NUL in it", object=text)
    return Path(os.path.expanduser(text))  # noqa: PTH111 (pathlib raises for a user that is none)


def _file_path(word: str) -> Path:
    parts = urlsplit(word)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise UsageError(f"{shown(word)} is not a store", hint="name a directory: DIR or file:///DIR")
    # A file URL is percent-encoded (RFC 8089), unlike everything else that is a word here.
    return Path(unquote(parts.path))


def _is_directory(word: str) -> bool:
    return os.path.isdir(word)  # noqa: PTH112 (pathlib raises for a word that is too long to be a name)


def _is_root(word: str) -> bool:
    """Whether it is `cocoon:DIR` and not the tag of a snapshot that is called cocoon."""
    rest = word.removeprefix(_ROOT)
    # A snapshot may be called cocoon, and `cocoon:v1` be its tag.
    return rest != word and (rest.startswith(_PATH) or _is_directory(rest))


def _has_port(word: str) -> bool:
    """Whether the first component is a registry's beyond doubt: a directory may well have a dot in its name."""
    first, slash, _ = word.partition("/")
    # Of hosts without a port nothing is said: `my.dir/store` is a fine path.
    return bool(slash) and is_registry(first) and (first == "localhost" or ":" in first)


def refuse_place(word: str) -> None:
    """Raise UsageError for what names a place of another kind where a directory for files is wanted."""
    places = (_LAYOUT, _ARCHIVE, _ROOT)
    if (word.startswith(places) or "://" in word) and not _is_directory(word):
        raise UsageError(
            f"{shown(word)} is no directory for files",
            object=word,
            hint="name a directory; `copy` fills a layout, and --store names a store",
        )


def _is_reference(word: str) -> bool:
    """Whether the first component is meant as a registry: it holds `.` or `:`, or is `localhost`, legal or not."""
    first, slash, _ = word.partition("/")
    return bool(slash) and (first == "localhost" or "." in first or ":" in first)
