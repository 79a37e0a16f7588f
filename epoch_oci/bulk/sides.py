"""The two ends of a sync: places that hold many snapshots under names and tags, whatever they are."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from epoch_oci import location
from epoch_oci.dataclass import dataclass
from epoch_oci.epoch.keys import SnapshotKey, hostile_problem
from epoch_oci.errors import ContentError, EpochOciError, NotFoundError, UsageError
from epoch_oci.locate import Connection, locate_artifact, open_registry, open_store
from epoch_oci.oci import media_types
from epoch_oci.oci.digest import shown
from epoch_oci.oci.manifest import ImageManifest, is_index
from epoch_oci.oci.reference import (
    Reference,
    is_fallback_tag,
    is_registry,
    legal_repository,
    legal_tag,
    repository_problem,
    tag_problem,
)
from epoch_oci.stores.base import ArtifactStore, SnapshotStore
from epoch_oci.stores.epoch_store import EpochStore
from epoch_oci.stores.oci_layout import OciLayout

Kind = Literal["store", "registry", "layout"]


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A snapshot at one end: what it is called, and the store and the name in it by which it is had.

    `container` is a repository below the prefix, "" where there is but one store. `name` is "" where nothing tells it.
    """

    name: str
    tag: str
    container: str
    ref: str

    @property
    def label(self) -> str:
        """As people write it, and what patterns are held against."""
        return f"{self.name}:{self.tag}" if self.name else self.tag


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A part of a side that could not be listed, and why; `name` is a repository's, None where it is no whole one."""

    error: EpochOciError
    name: str | None = None


@dataclass(slots=True)
class StoreSide:
    """An Epoch store. Safe for threads, as every side."""

    store: SnapshotStore
    kind: Kind = "store"

    @property
    def where(self) -> str:
        """What people call it."""
        return self.store.where

    def entries(self) -> Iterator[Entry | Unlisted]:
        """Every snapshot in order; in the place of a part that cannot be listed, what is wrong with it."""
        for item in self.store.snapshots():
            try:
                # Its own row in the report and no end of the sync: a stranger's key must not keep the others from being
                # brought.
                if (why := hostile_problem(item.name) or hostile_problem(item.tag)) is not None:
                    raise ContentError(f"{shown(item.name)}:{shown(item.tag)} {why}", code="NAME", object=item.name)
                yield Entry(item.name, item.tag, "", str(SnapshotKey(item.name, item.tag)))
            except ContentError as error:
                yield Unlisted(error)

    def landing(self, name: str, tag: str) -> Entry:
        """Where a snapshot of this name and tag goes here. Raises UsageError naming the rule that it breaks.

        Epoch takes any name that is no danger to a path.
        """
        for text in (name, tag):
            if not text:
                raise UsageError(f"nothing tells its name ({name}:{tag})", hint="give it one with --rename '^:=NAME:'")
            if (why := hostile_problem(text)) is not None:
                raise UsageError(f"{shown(text)} {why}", object=text)
        if "/" in tag:
            raise UsageError(f"the tag {shown(tag)} has a slash", object=tag)
        return Entry(name, tag, "", str(SnapshotKey(name, tag)))

    def reference(self, entry: Entry) -> str:
        """How people write where an entry is."""
        return entry.label


@dataclass(slots=True)
class RegistrySide:
    """What lies below `HOST/PREFIX`: the repository of that name, called "", and all whose names go on from there.

    `named` are the repositories that the user has listed, relative to the prefix; with none the `catalog` is asked,
    which raises NotFoundError where there is none. `open` takes a repository's full name, and asks nothing of it.
    """

    catalog: Callable[[], Iterator[str]]
    open: Callable[[str], ArtifactStore]
    registry: str
    prefix: str
    named: tuple[str, ...] = ()
    kind: Kind = "registry"
    _stores: dict[str, ArtifactStore] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def where(self) -> str:
        """As `StoreSide.where`."""
        return f"{self.registry}/{self.prefix}".rstrip("/")

    def repository(self, container: str) -> str:
        """The full name of a repository, without the registry."""
        return "/".join(part for part in (self.prefix, container) if part)

    def store(self, container: str) -> ArtifactStore:
        """A repository, opened once."""
        with self._lock:
            if container not in self._stores:
                self._stores[container] = self.open(self.repository(container))
            return self._stores[container]

    def containers(self) -> list[str]:
        """The repositories. Raises NotFoundError where neither a catalog nor the user tells of any."""
        if self.named:
            return list(self.named)
        try:
            names = list(self.catalog())
        except NotFoundError as error:
            # Most hosted registries have no catalog (oci-registries 3.2); then the prefix may be a repository itself.
            if self.prefix and self._is_repository():
                return [""]
            raise error
        # With its slash: `acme` is no prefix of `acme-old`.
        below = self.prefix + "/" if self.prefix else ""
        found = [name.removeprefix(below) for name in names if name.startswith(below)]
        return sorted([*found, *([""] if self.prefix in names else [])])

    def _is_repository(self) -> bool:
        try:
            next(self.store("").tags(), None)
        except NotFoundError:
            return False
        return True

    def entries(self) -> Iterator[Entry | Unlisted]:
        """As `StoreSide.entries`."""
        yield from self.below(self.containers())

    def below(self, containers: Iterable[str]) -> Iterator[Entry | Unlisted]:
        """Every tag of these repositories, as `entries`."""
        for container in containers:
            try:
                for tag in self.store(container).tags():
                    yield Entry(container, tag, container, tag)
            except EpochOciError as error:
                yield Unlisted(error, container)

    def landing(self, name: str, tag: str) -> Entry:
        """As `StoreSide.landing`: the repository PREFIX/NAME."""
        _require_legal(name, self.repository(name), repository_problem, legal_repository)
        _require_legal(tag, tag, tag_problem, legal_tag)
        return Entry(name, tag, name, tag)

    def reference(self, entry: Entry) -> str:
        """As `StoreSide.reference`."""
        return f"{self.registry}/{self.repository(entry.container)}:{entry.ref}"


@dataclass(slots=True)
class LayoutSide:
    """An OCI image layout, in which `NAME:TAG` has the tag `NAME--TAG`, each slash of the name as `--`."""

    layout: ArtifactStore
    kind: Kind = "layout"

    @property
    def where(self) -> str:
        """As `StoreSide.where`."""
        return self.layout.where

    def entries(self) -> Iterator[Entry | Unlisted]:
        """As `StoreSide.entries`; a name that the tag does not tell is the title that the artifact has."""
        for tag in self.layout.tags():
            try:
                yield self._entry(tag)
            except EpochOciError as error:
                yield Unlisted(error)

    def _entry(self, tag: str) -> Entry:
        name, divider, rest = tag.rpartition("--")
        # A listing of referrers is no name and tag, however it is spelt.
        if divider and name and rest and not is_fallback_tag(tag):
            return Entry(name.replace("--", "/"), rest, "", tag)
        document = self.layout.resolve(tag)
        title = "" if is_index(document) else ImageManifest.parse(document).annotations.get(media_types.TITLE, "")
        # A title is whatever somebody wrote, and would become part of a reference.
        return Entry(title if repository_problem(title) is None else "", tag, "", tag)

    def landing(self, name: str, tag: str) -> Entry:
        """As `StoreSide.landing`."""
        # A layout has tags and no repositories; two hyphens, for one is common in names.
        spelled = f"{name.replace('/', '--')}--{tag}" if name else tag
        _require_legal(f"{name}:{tag}" if name else tag, spelled, tag_problem, _legal_name_and_tag)
        return Entry(name, tag, "", spelled)

    def reference(self, entry: Entry) -> str:
        """As `StoreSide.reference`."""
        return f"{self.where}:{entry.ref}"


Side = StoreSide | RegistrySide | LayoutSide
"""One end of a sync."""


def store_of(side: Side, entry: Entry) -> SnapshotStore | ArtifactStore:
    """The store that an entry is in."""
    match side:
        case StoreSide():
            return side.store
        case RegistrySide():
            return side.store(entry.container)
        case LayoutSide():
            return side.layout


def removing(side: Side, entries: Iterable[Entry]) -> AbstractContextManager[object]:
    """Inside, these are to be removed from the side; what lists them there is not written again for each."""
    store = None if isinstance(side, RegistrySide) else store_of(side, Entry("", "", "", ""))
    if isinstance(store, EpochStore):
        return store.removing([entry.ref for entry in entries])
    return store.batch() if isinstance(store, OciLayout) else nullcontext()


def mounts_within(side: Side) -> bool:
    """Whether a blob of one container can be had in another one without moving it."""
    return isinstance(side, RegistrySide)


def of_one_registry(source: Side, target: Side) -> bool:
    """Whether the target can mount from the source's own repositories whatever it wants."""
    return isinstance(source, RegistrySide) and isinstance(target, RegistrySide) and source.registry == target.registry


def _require_legal(text: str, whole: str, problem: Callable[[str], str | None], legal: Callable[[str], str]) -> None:
    """Raise UsageError for a rule that `whole` breaks by `problem`; `legal` spells the `text` so that it does not."""
    if (why := problem(whole)) is None:
        return
    spelling = legal(text)
    advice = f"--rename '{text}={spelling}'" if spelling and spelling != text else "--rename PATTERN=REPLACEMENT"
    raise UsageError(f"{shown(text)} {why}", object=text, hint=f"give it a legal name with {advice}")


def _legal_name_and_tag(text: str) -> str:
    name, colon, tag = text.rpartition(":")
    return f"{legal_repository(name)}{colon}{legal_tag(tag)}"


_SCHEMES = ("docker://", "oci://")


def open_side(word: str, *, connection: Connection, repositories: Sequence[str] = (), create: bool = False) -> Side:
    """The end that `word` names; `create` lets a layout or a store be made.

    `repositories` are those below a registry's prefix. Raises UsageError for what names one artifact or nothing that
    can hold many, NotFoundError, PolicyError.
    """
    location.refuse_url(word)
    if word == "-":
        raise UsageError("- is an archive of one snapshot", object=word, hint="use `push -` or `pull -o -`")
    if create and word.startswith(("epoch+http:", "epoch+https:")):
        raise UsageError(f"{shown(word)} is a legacy Epoch server, which is only read from", object=word)
    plain = next((word.removeprefix(scheme) for scheme in _SCHEMES if word.startswith(scheme)), word)
    if plain != word or is_prefix(word):
        return _registry(plain, connection, repositories, create)
    if repositories:
        raise UsageError("--repository names repositories of a registry, and the source is none", object=word)
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
