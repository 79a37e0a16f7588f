"""Location → store. The wiring: the only file that knows every store. What words mean is `location`'s to say."""

import os
import os.path
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci import __version__, location
from epoch_oci.dataclass import dataclass
from epoch_oci.directories import names_in, refuse_file, refuse_no_layout, refuse_no_store
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import NotFoundError, UsageError
from epoch_oci.events import Event, OnEvent, ignore
from epoch_oci.location import (
    ArchiveLocation,
    LayoutLocation,
    Location,
    NameLocation,
    RepositoryLocation,
    StoreKind,
    StoreLocation,
)
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.reference import Reference
from epoch_oci.options import Checked
from epoch_oci.stores.base import (
    ArtifactStore,
    FileSink,
    Layout,
    SnapshotStore,
    Source,
)

if TYPE_CHECKING:
    from epoch_oci.disk.facts import Marks
    from epoch_oci.registry.credentials import CredentialStore
    from epoch_oci.registry.policy import RegistrySettings
    from epoch_oci.registry.repository import RegistryHost

_DEFAULT_TAG = "latest"
_USER_AGENT = f"epoch-oci/{__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReach(Checked):
    """How one registry is reached, where that differs from all others; None and empty leave it as it is.

    `mirrors` have the same content, as HOST[:PORT][/PREFIX]; a pull tries them first.
    """

    profile: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    plain_http: bool | None = None
    trusted_hosts: frozenset[str] = frozenset()
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(Checked):
    """How registries, buckets and servers are reached. Secrets never show in `repr`.

    `environ` serves credentials, proxies and the settings of object stores, and nothing else. `retry_for` is
    in seconds: how long an object may be without progress while its registry is away. `hosts` has what holds for single
    registries, by HOST[:PORT].
    """

    plain_http: bool = False
    insecure: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    registry_config: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    profile: str | None = None
    cache_directory: Path | None = None
    state_directory: Path | None = None
    trusted_hosts: frozenset[str] = frozenset()
    retry_for: float = 600.0
    hosts: Mapping[str, HostReach] = field(default_factory=dict)
    on_event: OnEvent = ignore
    on_debug: Callable[[str], None] | None = None

    def at(self, registry: str) -> "Connection":
        """How `registry` is reached, as `hosts` says."""
        row = self.hosts.get(registry.lower())
        if row is None:
            return self
        own = replace(self, cert_file=row.cert_file, key_file=row.key_file) if row.cert_file else self
        return replace(
            own,
            profile=row.profile or own.profile,
            ca_file=row.ca_file or own.ca_file,
            plain_http=own.plain_http if row.plain_http is None else row.plain_http,
            trusted_hosts=own.trusted_hosts | row.trusted_hosts,
        )

    def warn(self, text: str) -> None:
        """Report something odd about the configuration."""
        self.on_event(Event(event="warning", message=text))


@dataclass(frozen=True, slots=True)
class SnapshotPlace:
    """A snapshot in an Epoch store, or with `key` None the whole store."""

    store: SnapshotStore
    key: SnapshotKey | None

    @property
    def where(self) -> str:
        """What people call the store."""
        return self.store.where


@dataclass(frozen=True, slots=True)
class ArtifactPlace:
    """An artifact in a repository or layout; with neither tag nor digest, all of it."""

    store: ArtifactStore
    tag: str | None
    digest: Digest | None

    @property
    def where(self) -> str:
        """What people call the repository or layout."""
        return self.store.where

    @property
    def name(self) -> str | None:
        """What a document is asked for by: the digest, else the tag."""
        return str(self.digest) if self.digest else self.tag

    def named(self) -> str:
        """The digest or tag to ask for: as written, else a layout's only entry, else `latest`. Raises NotFoundError."""
        if self.name is not None:
            return self.name
        return self.store.sole_entry() if isinstance(self.store, Layout) else _DEFAULT_TAG


Place = SnapshotPlace | ArtifactPlace


def locate(word: str | Location, *, store: str | None, connection: Connection, create: bool = False) -> Place:
    """What `word` means. `store` is where plain names are looked up; `create` lets a layout be made.

    Raises UsageError for what cannot be a location.
    """
    found = location.parse(word) if isinstance(word, str) else word
    match found:
        case RepositoryLocation():
            return _repository(found, connection)
        case LayoutLocation():
            return _layout(found, connection, create=create)
        case ArchiveLocation():
            return _archive(found, connection, create=create)
        case StoreLocation():
            return SnapshotPlace(open_store(found, connection=connection), None)
        case NameLocation():
            return _named(found.word, store, connection)


def locate_artifact(word: str, *, connection: Connection, create: bool = False) -> ArtifactPlace:
    """As `locate`, for a word that has to be a repository or a layout."""
    place = locate(location.parse_artifact(word, target=create), store=None, connection=connection, create=create)
    assert isinstance(place, ArtifactPlace)
    return place


def open_store(
    word: str | StoreLocation, *, connection: Connection | None = None, create: bool = False
) -> SnapshotStore:
    """The Epoch store that `word` names. With `create` it may be a directory that is about to become one.

    A directory that is not there yet is opened in any case: reading it raises NotFoundError, writing makes it. Raises
    NotFoundError for a directory that is something else, UsageError where it cannot become a store either, PolicyError.
    """
    found = location.parse_store(word) if isinstance(word, str) else word
    if found.path is not None:
        refuse_file(found.path, "name a directory")
    # Buckets and servers show what they are when they are asked; a directory of any kind would be read as an empty
    # store.
    if found.kind == "directory" and found.path is not None:
        refuse_no_store(found.path, found.word, create=create)
    return _OPENERS[found.kind](found, connection or Connection())


def open_seed(word: str, *, connection: Connection) -> Source:
    """A store, or `oci:DIR`, to take blobs from. Raises NotFoundError when it is not there, NetworkError, AccessError.

    A legacy Epoch server is not asked before it is needed.
    """
    found = location.parse(word)
    if isinstance(found, LayoutLocation):
        return _layout(found, connection, create=False).store
    if isinstance(found, ArchiveLocation):
        return _archive(found, connection, create=False).store
    if isinstance(found, RepositoryLocation):
        raise UsageError(f"{shown(word)} is a repository", object=word, hint="a seed is a store, or oci:DIR")
    store = open_store(word, connection=connection)
    if not (isinstance(found, StoreLocation) and found.kind == "server"):
        # One question now: a seed that is not there is a wrong word, and shall not turn out one after the first
        # gigabyte.
        next(store.snapshots(), None)
    return store


def crosses_network(*words: str | None) -> bool:
    """Whether bytes between these places leave this machine; None is a directory of files."""
    return any(not location.parse(word).is_here for word in words if word is not None)


def open_files(directory: Path, *, connection: Connection | None = None) -> FileSink:
    """A directory that receives a snapshot's files; `connection` is told what is at risk there."""
    from epoch_oci.stores.files import FilesDirectory

    refuse_file(directory, "name a directory, which is made when it is not there")
    return FilesDirectory(directory, warn=(connection or Connection()).warn)


def _named(word: str, store: str | None, connection: Connection) -> SnapshotPlace:
    if store is not None:
        opened = open_store(store, connection=connection)
        return SnapshotPlace(opened, opened.find(word))
    # A registry without a repository is written more often than a snapshot called like a host.
    if (registry := location.bare_registry(word)) is not None:
        raise location.lacks_repository(word, registry)
    raise UsageError(
        f"{shown(word)} is a snapshot's name, and no store is named to look it up in",
        hint="name the store with --store DIR (or EPOCH_STORE), or write HOST/REPOSITORY:TAG or oci:DIR:TAG",
    )


def _cocoon_root(found: StoreLocation, connection: Connection) -> SnapshotStore:
    from epoch_oci.cocoon.root import CocoonRoot

    assert found.path is not None
    return CocoonRoot(found.path, where=found.word, cache_dir=connection.cache_directory, warn=connection.warn)


def _directory_store(found: StoreLocation, connection: Connection) -> SnapshotStore:
    from epoch_oci.disk.local import Warnings
    from epoch_oci.stores.backends.directory import DirectoryBackend
    from epoch_oci.stores.epoch_store import EpochStore

    assert found.path is not None
    warnings = Warnings(found.word, connection.warn)
    backend = DirectoryBackend(found.path, immutable=True, warnings=warnings, marks=_marks(connection))
    return EpochStore(backend, found.word)


def _bucket_store(found: StoreLocation, connection: Connection) -> SnapshotStore:
    from epoch_oci.stores.buckets import BucketOptions, open_bucket
    from epoch_oci.stores.epoch_store import EpochStore

    options = BucketOptions(
        environ=connection.environ,
        plain_http=connection.plain_http,
        insecure=connection.insecure,
        ca_file=connection.ca_file,
        user_agent=_USER_AGENT,
        warn=connection.warn,
    )
    return EpochStore(*open_bucket(found.word, options))


def _server_store(found: StoreLocation, connection: Connection) -> SnapshotStore:
    from epoch_oci.registry.credentials import Credential, CredentialStore
    from epoch_oci.registry.legacy_epoch import TOKEN_VARIABLE, EpochServer, ServerAddress
    from epoch_oci.registry.policy import Timeouts

    host = found.word.partition("://")[2].partition("/")[0]
    address = ServerAddress.parse(found.word, plain_http=connection.at(host).plain_http)
    token = connection.environ.get(TOKEN_VARIABLE, "")
    settings = replace(
        registry_settings(address.host, replace(connection, plain_http=address.plain)),
        plain_http=address.plain,
        credentials=CredentialStore(explicit=Credential(registry_token=token)),
        # A server that hangs, as 0.1.5 does once it has taken a push, is given up after two minutes.
        timeouts=Timeouts(answer=30.0),
        attempts=4,
    )
    return EpochServer(address, settings)


def _marks(connection: Connection) -> "Marks":
    """What is remembered of files of this machine."""
    from epoch_oci.disk.facts import Facts, Marks

    return Marks(Facts(connection.cache_directory))


_OPENERS: Mapping[StoreKind, Callable[[StoreLocation, Connection], SnapshotStore]] = {
    "directory": _directory_store,
    "bucket": _bucket_store,
    "server": _server_store,
    "cocoon": _cocoon_root,
}


def _repository(found: RepositoryLocation, connection: Connection) -> ArtifactPlace:
    from epoch_oci.registry.repository import RegistryRepository

    reference = found.reference
    store = RegistryRepository(reference, registry_settings(reference.registry, connection))
    return ArtifactPlace(store, reference.tag, reference.digest)


def sources_of(place: ArtifactPlace, *, connection: Connection) -> list[Source]:
    """Where an artifact can be read, in the order to be tried: mirrors of its registry, and the place itself last."""
    host, _, repository = place.where.partition("/")
    row = connection.hosts.get(host.lower()) if location.repository_in(place.where) else None
    if row is None or not row.mirrors:
        return [place.store]
    from epoch_oci.registry.mirror import Mirror
    from epoch_oci.registry.repository import RegistryRepository

    # What is typed is about the registry that is named: a mirror is a stranger, who gets none of its credentials.
    stranger = replace(
        connection,
        username=None,
        password=None,
        cert_file=None,
        key_file=None,
        plain_http=False,
        insecure=False,
        profile=None,
    )
    found: list[Source] = []
    for word in row.mirrors:
        reference = Reference.parse(f"{word.rstrip('/')}/{repository}")
        # It is given up soon, for there is somebody else to ask.
        settings = replace(registry_settings(reference.registry, stranger), retry_for=0, attempts=2)
        found.append(Mirror(place.store, RegistryRepository(reference, settings), connection.warn))
    return [*found, place.store]


def open_registry(host: str, *, connection: Connection) -> "RegistryHost":
    """A registry as a whole, `HOST[:PORT]`; nothing is asked of it yet."""
    from epoch_oci.registry.repository import RegistryHost

    return RegistryHost(host, registry_settings(host, connection))


def credential_store(connection: Connection) -> "CredentialStore":
    """Where credentials of registries are kept and looked for; what is odd about a file is told as a warning."""
    from epoch_oci.registry.credentials import CredentialStore

    return CredentialStore(connection.environ, connection.registry_config, None, connection.warn)


def registry_settings(registry: str, connection: Connection) -> "RegistrySettings":
    """How `registry` (HOST[:PORT]) is reached. Plain http is used unasked only on a literal loopback host."""
    from epoch_oci.network import Authorities, Proxies
    from epoch_oci.registry.credentials import Credential, CredentialStore
    from epoch_oci.registry.policy import RegistrySettings
    from epoch_oci.registry.trust import speaks_tls

    connection = connection.at(registry)

    def hear(event: Event) -> None:
        connection.on_event(replace(event, registry=registry))

    # Whoever says something of certificates means TLS, also on this machine.
    encrypted = connection.insecure or connection.ca_file is not None or connection.cert_file is not None
    explicit = None
    if connection.username is not None or connection.password is not None:
        explicit = Credential(connection.username or "", connection.password or "")
    return RegistrySettings(
        # Asked of the host, and only of a loopback one (registry/trust.py): to any other http is an attack or a flag.
        plain_http=connection.plain_http or (not encrypted and not speaks_tls(registry)),
        insecure=connection.insecure,
        ca_file=connection.ca_file,
        cert_file=connection.cert_file,
        key_file=connection.key_file,
        authorities=Authorities.of(connection.environ),
        credentials=CredentialStore(connection.environ, connection.registry_config, explicit, connection.warn),
        profile=connection.profile,
        retry_for=connection.retry_for,
        state_directory=connection.state_directory,
        trusted=frozenset(host.lower() for host in connection.trusted_hosts),
        proxies=Proxies.of(connection.environ),
        user_agent=_USER_AGENT,
        on_event=hear,
        on_debug=connection.on_debug,
    )


def _layout(found: LayoutLocation, connection: Connection, *, create: bool) -> ArtifactPlace:
    from epoch_oci.stores.oci_layout import OciLayout

    refuse_file(found.path, "name the directory of a layout; one in a tar archive is oci-archive:FILE[:TAG]")
    names = names_in(found.path)
    # Read, a layout must be there; written, it is made with the first blob.
    if names is None and not create:
        raise NotFoundError(f"there is no OCI layout at {found.path}", object=str(found.path))
    if names is not None:
        refuse_no_layout(found.path, names, create=create)
    layout = OciLayout(found.path, warn=connection.warn, marks=_marks(connection))
    return ArtifactPlace(layout, found.tag, found.digest)


def _archive(found: ArchiveLocation, connection: Connection, *, create: bool) -> ArtifactPlace:
    from epoch_oci.stores.oci_archive import OciArchive

    path = found.path
    if os.path.isdir(path):  # noqa: PTH112
        raise UsageError(f"{path} is a directory", object=str(path), hint=f"a layout in a directory is oci:{path}")
    if not create and not os.path.exists(path):  # noqa: PTH110
        raise NotFoundError(f"there is no archive {path}", object=str(path), hint="look at the spelling")
    # Not /tmp, which is memory on many systems: an archive may unpack to more than that.
    spool = Path(connection.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 (files there have no name)
    archive = OciArchive(path, spool=spool, warn=connection.warn, marks=_marks(connection))
    return ArtifactPlace(archive, found.tag, found.digest)
