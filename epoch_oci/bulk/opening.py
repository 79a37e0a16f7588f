"""What the words of a sync mean: from a location's text to an end that holds many snapshots."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from epoch_oci.bulk.sides import LayoutSide, RegistrySide, Side, StoreSide
from epoch_oci.errors import UsageError
from epoch_oci.locate import Connection, locate_artifact, open_registry, open_store
from epoch_oci.oci.digest import shown
from epoch_oci.oci.reference import Reference, is_registry, repository_problem

_SCHEMES = ("docker://", "oci://")


def open_side(word: str, *, connection: Connection, repositories: Sequence[str] = (), create: bool = False) -> Side:
    """The end that `word` names; `create` lets a layout or a store be made.

    `repositories` are those below a registry's prefix. Raises UsageError for what names one artifact or nothing that
    can hold many, NotFoundError, PolicyError.
    """
    plain = next((word.removeprefix(scheme) for scheme in _SCHEMES if word.startswith(scheme)), word)
    if plain != word or is_prefix(word):
        return _registry(plain, connection, repositories, create)
    if repositories:
        raise UsageError("--repository names repositories of a registry, and the source is none", object=word)
    if word.startswith("oci-archive:") and create:
        raise UsageError(
            f"{shown(word)} would be written anew for every snapshot",
            object=word,
            hint="sync to a layout in a directory, oci:DIR, and put that into a tar",
        )
    if word.startswith(("oci:", "oci-archive:")):
        place = locate_artifact(word, connection=connection, create=create)
        if place.name is not None:
            raise UsageError(f"{shown(word)} names one artifact", object=word, hint="use `copy`, or leave the tag out")
        return LayoutSide(place.store)
    return StoreSide(open_store(word, connection=connection, create=create))


def open_single(word: str, *, connection: Connection) -> Side:
    """As `open_side`, but of a registry the one repository that `word` names. Raises UsageError, NotFoundError."""
    if word.startswith("oci-archive:"):
        raise UsageError(
            f"{shown(word)} is an archive, of which nothing is taken away",
            object=word,
            hint="copy what is wanted into a new one: epoch-oci copy",
        )
    side = open_side(word, connection=connection)
    if not isinstance(side, RegistrySide):
        return side
    if not side.prefix:
        raise UsageError(f"{shown(word)} names a registry and no repository", object=word, hint="write HOST/REPOSITORY")
    return replace(side, named=("",))


def absolute(word: str) -> str:
    """The same place, for whoever has another current directory."""
    if is_prefix(word) or "://" in word:
        return word
    scheme = next((scheme for scheme in ("oci:", "oci-archive:", "cocoon:") if word.startswith(scheme)), "")
    return f"{scheme}{Path(word.removeprefix(scheme)).expanduser().absolute()}"


def is_prefix(word: str) -> bool:
    """Whether it is written as a registry, alone or with a prefix: a first component that is a host and no path."""
    first = word.partition("/")[0]
    return is_registry(first) and "://" not in word and not word.startswith((".", "/", "~")) and not Path(word).is_dir()


def _registry(word: str, connection: Connection, repositories: Sequence[str], create: bool) -> RegistrySide:
    host, _, prefix = word.rstrip("/").partition("/")
    if not is_registry(host):
        raise UsageError(f"{shown(word)} does not start with a registry host", object=word)
    if prefix:
        reference = Reference.parse(f"{host}/{prefix}", wanted=create)
        if reference.selector is not None:
            raise UsageError(f"{shown(word)} names one artifact", object=word, hint="use `copy`, or leave the tag out")
    registry = open_registry(host, connection=connection)
    side = RegistrySide(registry.catalog, registry.repository, host, prefix, tuple(dict.fromkeys(repositories)))
    for name in side.named:
        if (why := repository_problem(side.repository(name))) is not None:
            raise UsageError(f"--repository {shown(name)} {why}", object=name)
    return side
