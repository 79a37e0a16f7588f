"""A legacy Epoch server, older than 0.1.6, as a source of snapshots (epoch-formats 3).

It looks like a registry and is none: a bearer token without a token service, manifests of Epoch's own, no ranges, and
an answer of 200 to every path that it does not know. So a name's slash is percent-encoded, nothing is taken for present
without the digest that real answers carry, and blobs, which it never hashed, are hashed by whoever takes them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlsplit

import requests

from epoch_oci.dataclass import dataclass
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT
from epoch_oci.errors import AccessError, ContentError, NetworkError, NotFoundError, PolicyError, UsageError
from epoch_oci.events import Event
from epoch_oci.network import is_loopback
from epoch_oci.oci import verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import media_type_of
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import RegistryClient, read_bounded
from epoch_oci.registry.download import BlobContent
from epoch_oci.registry.http_errors import dismiss, was_kept_waiting
from epoch_oci.registry.policy import RegistrySettings
from epoch_oci.registry.transport import Body
from epoch_oci.registry.trust import Origin, redacted
from epoch_oci.stores.base import Content, SnapshotEntry

SCHEMES = frozenset({"epoch+http", "epoch+https"})
TOKEN_VARIABLE = "EPOCH_REGISTRY_TOKEN"  # noqa: S105 (a name, not a token)
_REPOSITORY = "snapshots"
"""Blobs are one name space for all repositories; a name of one component always gets through."""
# It lists everything at once, without pages and in no order (epoch-formats 3.2).
_LIST_LIMIT = 64 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_DIGEST_COPY = re.compile(r"sha256-[0-9a-f]{64}\Z")
_STUCK = "an Epoch 0.1.5 server hangs here from its first push until it is restarted; its bucket can be read meanwhile"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server listens: `host` is HOST[:PORT]."""

    host: str
    plain: bool

    @classmethod
    def parse(cls, word: str, *, plain_http: bool = False) -> Self:
        """Read `epoch+http://HOST:PORT` or `epoch+https://…`.

        Raises UsageError, and PolicyError for plain http to another machine unless `plain_http` allows it.
        """
        scheme, _, rest = word.partition("://")
        parts = urlsplit(f"//{rest}")
        if scheme not in SCHEMES or parts.path not in ("", "/") or parts.query or _HOST.match(parts.netloc) is None:
            raise UsageError(
                f"{shown(scheme)}:// must be followed by HOST[:PORT] and nothing else",
                object=scheme,
                hint="write epoch+http://localhost:4300, or 8080 for a server in a container",
            )
        plain = scheme == "epoch+http"
        if plain and not plain_http and not is_loopback(parts.hostname or ""):
            raise PolicyError(
                f"{parts.netloc} would be spoken to without encryption",
                object=parts.netloc,
                hint="use epoch+https://, or allow it with --plain-http",
            )
        return cls(parts.netloc, plain)


class EpochServer:
    """The snapshots of a server, named `NAME:TAG`. Safe for threads. It can be read, and nothing else.

    `settings.credentials` gives its token as a registry token.
    """

    def __init__(self, address: ServerAddress, settings: RegistrySettings) -> None:
        self._where = address.host
        self._plain = address.plain
        self._settings = settings
        self._client = _ServerClient(address.host, settings)

    @property
    def where(self) -> str:
        """As `Source.where`."""
        return f"epoch+{'http' if self._plain else 'https'}://{self._where}"

    def resolve(self, name: str) -> Document:
        """As `Source.resolve`: the manifest's exact bytes. Raises ContentError (TYPE) for one of a newer generation."""
        key = SnapshotKey.parse(name)
        what = f"{key} on {self._where}"
        response = self._get(f"{_encoded(key.name)}/manifests/{_encoded(key.tag)}", what)
        if response.status_code == 404:
            dismiss(response)
            raise NotFoundError(f"{self._where} has no snapshot {key}", object=str(key))
        raw = read_bounded(response, MANIFEST_LIMIT, what)
        self._check_generation(raw, key)
        document = Document(EPOCH_MANIFEST, raw)
        stated = _stated(response)
        # A warning and no error, for a tag was asked for and no digest: the bytes are what counts.
        if stated is not None and not _is_about(response, document.digest):
            message = f"{what}: the server states digest {stated}, the bytes have {document.digest}"
            self._settings.on_event(Event(event="warning", message=message))
        return document

    def has(self, target: Descriptor) -> bool:
        """As `Source.has`: a HEAD, its length compared; what the server holds under the name it has never hashed."""
        what = f"{target.digest} on {self._where}"
        response = self._client.call("HEAD", self._blob_url(target.digest), (200, 404), what=what)
        dismiss(response)
        if response.status_code == 404:
            return False
        # A path with a name that it does not know as one gets 200 as well (epoch-formats 3.3).
        _require_statement(response, target.digest, self._where)
        return response.headers.get("Content-Length") == str(target.size)

    def holds(self, target: Descriptor, *, anew: bool = False) -> bool:
        """As `Sink.holds`."""
        return self.has(target)

    def content(self, target: Descriptor) -> Content:
        """As `Source.content`. Taking it up again means reading it from the start: the server knows no ranges."""
        return _ServerBlob(self._client, _REPOSITORY, target)

    def find(self, word: str) -> SnapshotKey:
        """As `SnapshotStore.find`: its names divide in one way."""
        return SnapshotKey.parse(word)

    def snapshots(self) -> Iterator[SnapshotEntry]:
        """As `SnapshotStore.snapshots`, but only those in the server's catalog; it lists nothing else."""
        names = self._texts("_catalog", "repositories", f"the catalog of {self._where}")
        # All lists first: whether a tag of `a` is one of `a/b` is seen only with both in hand.
        tags = {name: self._tags(name) for name in names}
        for name in sorted(tags):
            doubtful = _foreign_tags(name, tags)
            for tag in sorted(tags[name]):
                if (tag not in doubtful and not _DIGEST_COPY.match(tag)) or self._is_there(name, tag):
                    yield SnapshotEntry(name, tag)

    def expect(self, name: str, document: Document, *, replace: bool = False) -> bool:
        """Refused, with UsageError."""
        self._refuse()

    def put(self, target: Descriptor, content: Content) -> None:
        """Refused, with UsageError."""
        self._refuse()

    def publish(self, name: str, document: Document, *, replace: bool = False) -> None:
        """Refused, with UsageError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"a legacy Epoch server is only read from, and {self._where} is one",
            object=self._where,
            hint="pull into a directory, or into the server's bucket (s3://BUCKET)",
        )

    def _tags(self, name: str) -> set[str]:
        return set(self._texts(f"{_encoded(name)}/tags/list", "tags", f"the tags of {shown(name)} on {self._where}"))

    def _is_there(self, name: str, tag: str) -> bool:
        """Whether a tag has a manifest of its own: HEAD is answered from memory that may be stale, so it is got."""
        response = self._get(f"{_encoded(name)}/manifests/{_encoded(tag)}", f"{shown(name)} on {self._where}")
        dismiss(response)
        return response.status_code == 200

    def _get(self, path: str, what: str) -> requests.Response:
        response = self._client.call("GET", self._client.url(path), (200, 404, *_REDIRECTS), what=what)
        response = self._client.follow(response, {})
        if response.status_code not in (200, 404):
            status = response.status_code
            dismiss(response)
            raise NetworkError(f"{what}: {status}", object=what, status=status, retryable=False)
        return response

    def _texts(self, path: str, key: str, what: str) -> list[str]:
        try:
            response = self._get(path, what)
            if response.status_code == 404:
                dismiss(response)
                raise NotFoundError(f"{what} is not there", object=what, hint="is this an Epoch server?")
            raw = read_bounded(response, _LIST_LIMIT, what)
        except NetworkError as error:
            if error.status is not None or not was_kept_waiting(error):
                raise
            raise NetworkError(error.message, object=error.object, hint=_STUCK, retryable=error.retryable) from error
        return _texts_of(raw, key, what)

    def _blob_url(self, digest: Digest) -> str:
        return self._client.url(f"{_REPOSITORY}/blobs/{digest}")

    def _check_generation(self, raw: bytes, key: SnapshotKey) -> None:
        """Raise ContentError for what is no legacy manifest; what else may be wrong with it others find out.

        The content type says nothing: a newer server gives its own to whatever older ones have left it.
        """
        # What every unknown path is answered with (epoch-formats 3.2).
        if _object(raw) == {}:
            raise _unknown_path(f"{key} on {self._where}")
        if media_type_of(raw) is not None:
            raise ContentError(
                f"{key} on {self._where} is an OCI manifest: this server is Epoch 0.1.6 or newer",
                code="TYPE",
                object=str(key),
                hint=f"use it as the registry it is: epoch-oci pull {self._where}/{key.name}:{key.tag}",
            )


class _ServerClient(RegistryClient):
    """Sends the token with every request to the server, for it gives no challenge that could be answered."""

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | Body | None = None,
        headers: Mapping[str, str] | None = None,
        json: None = None,
        stream: bool = False,
        *,
        scope: Scope | None = None,
        timeout: float | None = None,
    ) -> requests.Response:
        """One exchange with the server. Raises NetworkError, AccessError, and PolicyError for another origin."""
        if Origin.of(url) != self.origin:
            raise PolicyError(f"{redacted(url)} is not on {self.origin}", object=redacted(url))
        # Sent unasked, unlike to a registry: its challenge names a realm that is no URL (epoch-formats 3.5).
        token = self.auth.header_for(Scope())
        sent = {**(headers or {}), "Authorization": token} if token else dict(headers or {})
        response = self._send(method, url, headers=sent, data=data, timeout=timeout)
        if response.status_code not in (401, 403):
            return response
        dismiss(response)
        wanted = "refused the token" if token else "wants a token"
        raise AccessError(
            f"{self.hostname} {wanted} ({response.status_code})",
            object=str(self.hostname),
            hint=f"set {TOKEN_VARIABLE} to one that the server knows",
        )


class _ServerBlob(BlobContent):
    """A blob, once the answer is known to be one."""

    __slots__ = ()

    def request(self, start: int, end: int) -> requests.Response:
        """As `BlobContent.request`."""
        try:
            response = super().request(start, end)
        except NotFoundError:
            where = self.client.hostname
            digest = str(self.target.digest)
            raise NotFoundError(f"{where} has no blob {digest}", object=digest) from None
        if Origin.of(response.url) == self.client.origin:
            _require_statement(response, self.target.digest, str(self.client.hostname))
        return response


def _encoded(text: str) -> str:
    """A name or tag as one path component; the server takes `%2F` for part of a name, and `/` for another path."""
    return quote(text, safe="")


def _stated(response: requests.Response) -> Digest | None:
    """The digest of `Docker-Content-Digest`, which may come without its prefix; None where there is none."""
    try:
        return Digest.from_hex(response.headers.get("Docker-Content-Digest", "").removeprefix("sha256:"))
    except ContentError:
        return None


def _is_about(response: requests.Response, digest: Digest) -> bool:
    stated = _stated(response)
    try:
        if stated is not None:
            verifying.check(digest, stated, "the answer")
            return True
    except ContentError:
        pass
    return False


def _require_statement(response: requests.Response, digest: Digest, where: str) -> None:
    """Raise ContentError unless the answer is about this blob: every unknown path is answered with 200 as well."""
    if not _is_about(response, digest):
        response.close()
        raise _unknown_path(f"{digest} on {where}")


def _unknown_path(what: str) -> ContentError:
    return ContentError(
        f"{what}: the server answers as it does to any path it does not know",
        code="TYPE",
        object=what,
        hint="is it an Epoch server, and does a proxy before it leave %2F alone? its bucket can be read instead",
    )


def _object(raw: bytes) -> dict[str, Any] | None:
    """The JSON object that the bytes are, None when they are something else."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _texts_of(raw: bytes, key: str, what: str) -> list[str]:
    """The texts under `key`; null stands for none of them. Raises ContentError for an answer of another form."""
    value = _object(raw)
    if value is None or key not in value:
        raise _unknown_path(what)
    items = value[key] or []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ContentError(f"{what}: {shown(key)} is not a list of texts", code="SCHEMA", object=what)
    return items


def _foreign_tags(name: str, tags: Mapping[str, set[str]]) -> set[str]:
    """Tags that may be another's: the list of `a` has those of `a/b` in it, by their last component."""
    return {tag for other, found in tags.items() if other.startswith(f"{name}/") for tag in found}
