"""Location text → store. The wiring: the only file that knows every store.

HOST[:PORT]/REPO[:TAG][@DIGEST]     a registry repository (also with docker:// or oci:// before it)
oci:DIR[:TAG][@DIGEST]              an OCI image layout
DIR, file:///DIR                    an Epoch store in a directory
s3://BUCKET[/PREFIX]                an Epoch store in an object store (also gs:// and az://)
cocoon:DIR                          a Cocoon root directory
epoch+http://HOST:PORT              a legacy Epoch server, which is only read (also epoch+https://)
NAME[:TAG]                          a snapshot in the store that was named beside it
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from epoch_oci import __version__
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError, NotFoundError, UsageError
from epoch_oci.events import Event, OnEvent, ignore
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.reference import Reference, is_registry, refuse_user_info, tag_problem
from epoch_oci.stores.base import FileSink, Keeper, Sink, SnapshotEntry, Source

if TYPE_CHECKING:
    from epoch_oci.registry.host import RegistryHost
    from epoch_oci.registry.settings import RegistrySettings

_REGISTRY_SCHEMES = ("docker://", "oci://")
_LAYOUT = "oci:"
_ROOT = "cocoon:"
_PATH = (".", "/", "~")
"""What a word begins with that is a path whether or not it is there."""
_USER_AGENT = f"epoch-oci/{__version__}"


class SnapshotStore(Source, Sink, Protocol):
    """An Epoch store: a source and sink of snapshots that can enumerate itself."""

    def snapshots(self) -> Iterator[SnapshotEntry]:
        """As `stores.base.SnapshotLister`."""


class ArtifactStore(Source, Sink, Keeper, Protocol):
    """A repository or layout: a source and sink of artifacts that knows its tags."""

    def tags(self) -> Iterator[str]:
        """As `stores.base.TagLister`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How registries, buckets and servers are reached. Secrets never show in `repr`.

    `environ` serves credentials, proxies and the settings of object stores, and nothing else.
    """

    plain_http: bool = False
    insecure: bool = False
    ca_file: str | None = None
    registry_config: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    profile: str | None = None
    cache_directory: Path | None = None
    state_directory: Path | None = None
    trusted_hosts: frozenset[str] = frozenset()
    on_event: OnEvent = ignore
    on_debug: Callable[[str], None] | None = None

    def warn(self, text: str) -> None:
        """Report something odd about the configuration."""
        self.on_event(Event(event="warning", message=text))


@dataclass(frozen=True, slots=True)
class SnapshotPlace:
    """A snapshot in an Epoch store, or with `key` None the whole store."""

    store: SnapshotStore
    key: SnapshotKey | None
    where: str


@dataclass(frozen=True, slots=True)
class ArtifactPlace:
    """An artifact in a repository or layout; with neither tag nor digest, all of it. `where` has neither."""

    store: ArtifactStore
    tag: str | None
    digest: Digest | None
    where: str

    @property
    def name(self) -> str | None:
        """What a document is asked for by: the digest, else the tag."""
        return str(self.digest) if self.digest else self.tag


Place = SnapshotPlace | ArtifactPlace


def locate(word: str, *, store: str | None, connection: Connection, create: bool = False) -> Place:
    """What `word` means. `store` is where plain names are looked up; `create` lets a layout be made.

    Raises UsageError for what cannot be a location.
    """
    refuse_user_info(word)
    if word.startswith(_REGISTRY_SCHEMES) or _is_reference(word):
        return _repository(word, connection)
    if word.startswith(_LAYOUT):
        return _layout(word, connection, create=create)
    if _is_store(word):
        return SnapshotPlace(open_store(word, connection=connection), None, word)
    if store is None:
        raise UsageError(
            f"{shown(word)} is a snapshot's name, and no store is named to look it up in",
            hint="name the store with --store DIR (or EPOCH_STORE), or write HOST/REPOSITORY:TAG or oci:DIR:TAG",
        )
    return SnapshotPlace(open_store(store, connection=connection), SnapshotKey.parse(word), store)


def locate_artifact(word: str, *, connection: Connection, create: bool = False) -> ArtifactPlace:
    """As `locate`, for a word that has to be a repository or a layout."""
    place = locate(word, store="", connection=connection, create=create) if _may_be_artifact(word) else None
    if not isinstance(place, ArtifactPlace):
        raise UsageError(
            f"{shown(word)} is neither a registry reference nor an OCI layout",
            hint="write HOST[:PORT]/REPOSITORY[:TAG] or oci:DIR[:TAG]",
        )
    return place


def open_store(word: str, *, connection: Connection | None = None) -> SnapshotStore:
    """The Epoch store that `word` names. Raises UsageError for a scheme that is not known, PolicyError."""
    if not word:
        raise UsageError("the store's name is empty", hint="name a directory with --store DIR")
    refuse_user_info(word)
    if word.startswith(_ROOT):
        return _cocoon_root(word, connection or Connection())
    scheme, divider, _ = word.partition("://")
    opener = _STORES.get(scheme if divider else "")
    if opener is None:
        raise UsageError(
            f"{shown(scheme)}:// names no kind of store", object=scheme, hint=f"name a directory, or {_KINDS_OF_STORE}"
        )
    return opener(word, connection or Connection())


def open_seed(word: str, *, connection: Connection) -> Source:
    """A store, or `oci:DIR`, to take blobs from. Raises NotFoundError when it is not there, NetworkError, AccessError.

    A legacy Epoch server is not asked before it is needed.
    """
    if word.startswith(_LAYOUT) and not word.startswith(_REGISTRY_SCHEMES):
        return _layout(word, connection, create=False).store
    store = open_store(word, connection=connection)
    if not word.startswith("epoch+"):
        next(store.snapshots(), None)
    return store


def crosses_network(artifact: str, store: str | None) -> bool:
    """Whether bytes between a repository or layout and a store leave this machine; None is a directory of files."""
    at_home = store is None or "://" not in store or store.startswith("file://")
    return not at_home or not artifact.startswith(_LAYOUT) or artifact.startswith(_REGISTRY_SCHEMES)


def open_files(directory: Path, *, connection: Connection | None = None) -> FileSink:
    """A directory that receives a snapshot's files; `connection` is told what is at risk there."""
    from epoch_oci.stores.files import FilesDirectory

    return FilesDirectory(directory, warn=(connection or Connection()).warn)


def _may_be_artifact(word: str) -> bool:
    return word.startswith((*_REGISTRY_SCHEMES, _LAYOUT)) or _is_reference(word)


def _is_reference(word: str) -> bool:
    first, slash, _ = word.partition("/")
    if "://" in word or word.startswith(_LAYOUT) or not slash or Path(word).is_dir() or _is_root(word):
        return False
    return is_registry(first) or (":" in first and first[:1] not in ("", ".")) or first.startswith("[")


def _is_store(word: str) -> bool:
    return "://" in word or word.startswith(_PATH) or Path(word).is_dir() or _is_root(word)


def _is_root(word: str) -> bool:
    """Whether it is `cocoon:DIR` and not the tag of a snapshot that is called cocoon."""
    rest = word.removeprefix(_ROOT)
    return rest != word and (rest.startswith(_PATH) or Path(rest).is_dir())


def _cocoon_root(word: str, connection: Connection) -> SnapshotStore:
    from epoch_oci.cocoon.root import CocoonRoot

    directory = word.removeprefix(_ROOT)
    if not directory:
        raise UsageError(f"{word} names no directory", object=word, hint="write cocoon:DIR")
    return CocoonRoot(Path(directory).expanduser(), cache_dir=connection.cache_directory, warn=connection.warn)


def _directory_store(word: str, connection: Connection) -> SnapshotStore:
    from epoch_oci.disk.local import Warnings
    from epoch_oci.stores.backends.directory import DirectoryBackend
    from epoch_oci.stores.epoch_store import EpochStore

    warnings = Warnings(word, connection.warn)
    return EpochStore(DirectoryBackend(_directory(word), immutable=True, warnings=warnings), word)


def _directory(word: str) -> Path:
    if "://" not in word:
        return Path(word).expanduser()
    parts = urlsplit(word)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise UsageError(f"{shown(word)} is not a store", hint="name a directory: DIR or file:///DIR")
    return Path(unquote(parts.path))


def _bucket_store(word: str, connection: Connection) -> SnapshotStore:
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
    return EpochStore(*open_bucket(word, options))


def _server_store(word: str, connection: Connection) -> SnapshotStore:
    from epoch_oci.registry.credentials import Credential, CredentialStore
    from epoch_oci.registry.epoch_server import TOKEN_VARIABLE, EpochServer, ServerAddress
    from epoch_oci.registry.settings import Timeouts

    address = ServerAddress.parse(word, plain_http=connection.plain_http)
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


_STORES: Mapping[str, Callable[[str, Connection], SnapshotStore]] = {
    "": _directory_store,
    "file": _directory_store,
    "s3": _bucket_store,
    "gs": _bucket_store,
    "az": _bucket_store,
    "epoch+http": _server_store,
    "epoch+https": _server_store,
}
"""What the scheme of a store's name means."""
_KINDS_OF_STORE = ", ".join((*(f"{scheme}://…" for scheme in _STORES if scheme), "cocoon:DIR"))


def _repository(word: str, connection: Connection) -> ArtifactPlace:
    from epoch_oci.registry.repository import RegistryRepository

    reference = Reference.parse(word)
    store = RegistryRepository(reference, registry_settings(reference.registry, connection))
    return ArtifactPlace(store, reference.tag, reference.digest, reference.name)


def open_registry(host: str, *, connection: Connection) -> "RegistryHost":
    """A registry as a whole, `HOST[:PORT]`; nothing is asked of it yet."""
    from epoch_oci.registry.host import RegistryHost

    return RegistryHost(host, registry_settings(host, connection))


def registry_settings(registry: str, connection: Connection) -> "RegistrySettings":
    """How `registry` (HOST[:PORT]) is reached. Plain http is used unasked only on a literal loopback host."""
    from epoch_oci.registry.connect import proxies, speaks_tls
    from epoch_oci.registry.credentials import Credential, CredentialStore
    from epoch_oci.registry.settings import RegistrySettings

    encrypted = connection.insecure or connection.ca_file is not None
    explicit = None
    if connection.username is not None or connection.password is not None:
        explicit = Credential(connection.username or "", connection.password or "")
    return RegistrySettings(
        plain_http=connection.plain_http or (not encrypted and not speaks_tls(registry)),
        insecure=connection.insecure,
        ca_file=connection.ca_file,
        credentials=CredentialStore(connection.environ, connection.registry_config, explicit, connection.warn),
        profile=connection.profile,
        state_directory=connection.state_directory,
        trusted=connection.trusted_hosts,
        proxies=proxies(registry, connection.environ),
        user_agent=_USER_AGENT,
        on_event=connection.on_event,
        on_debug=connection.on_debug,
    )


def _layout(word: str, connection: Connection, *, create: bool) -> ArtifactPlace:
    from epoch_oci.stores.oci_layout import OciLayout

    directory, tag, digest = split_layout(word)
    if not create and not directory.is_dir():
        raise NotFoundError(f"there is no OCI layout at {directory}", object=str(directory))
    return ArtifactPlace(OciLayout(directory, warn=connection.warn), tag, digest, f"{_LAYOUT}{directory}")


def split_layout(word: str) -> tuple[Path, str | None, Digest | None]:
    """Directory, tag and digest of `oci:DIR[:TAG][@DIGEST]`: the last colon divides when a legal tag follows it."""
    rest = word.removeprefix(_LAYOUT)
    rest, at, digest_text = rest.rpartition("@sha256:") if "@sha256:" in rest else (rest, "", "")
    try:
        digest = Digest.parse(f"sha256:{digest_text}") if at else None
    except ContentError as error:
        raise UsageError(f"{shown(word)}: {error.message}") from None
    directory, colon, tag = rest.rpartition(":")
    if not colon or tag_problem(tag) is not None:
        directory, tag = rest, ""
    if not directory:
        raise UsageError(f"{shown(word)} names no directory", hint="write oci:DIR[:TAG]")
    return Path(directory).expanduser(), tag or None, digest
