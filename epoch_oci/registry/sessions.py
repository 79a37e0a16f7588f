"""One upload session: where it is, what may be sent to it, and what its answers mean (oci-registries 5.3, 5.4)."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import requests

from epoch_oci.errors import EpochOciError, NetworkError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.verify import check
from epoch_oci.registry.answers import body_text, codes_of, dismiss, refusal
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.bodies import NOTHING, Body
from epoch_oci.registry.client import PUSH, REDIRECTS, RegistryClient, header_digest
from epoch_oci.registry.profiles import Manner
from epoch_oci.registry.retry import Attempts

_NOT_TAKEN = frozenset({404, 405, 411, 413, 415, 416, 501})
_OCTETS = {"Content-Type": "application/octet-stream"}


class ShapeRefusedError(Exception):
    """The registry, or something before it, does not take this shape of upload."""


class StaleTokenError(Exception):
    """A body was answered with 401; the token is renewed once."""


class SessionLostError(NetworkError):
    """The registry does not know the session any more, or says of it what cannot be."""


class DigestRefusedError(NetworkError):
    """What arrived is not what the digest says: the source changed, or the bytes suffered on the way."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A blob in a repository, whether or not it is there."""

    client: RegistryClient
    repository: str
    manner: Manner
    target: Descriptor

    @property
    def title(self) -> str:
        """What the blob is called in events."""
        return self.target.title or str(self.target.digest)

    @property
    def scope(self) -> Scope:
        """What sending there needs."""
        return Scope(self.repository, PUSH)

    def is_there(self, attempts: Attempts | None = None) -> bool:
        """Whether the registry has the blob, with this size."""
        url = self.client.url(f"{self.repository}/blobs/{self.target.digest}")
        response = self.client.call("HEAD", url, (200, 404, *REDIRECTS), what="looking", attempts=attempts)
        length = response.headers.get("Content-Length")
        dismiss(response)
        if response.status_code in REDIRECTS:
            return True  # to where the bytes are
        return response.status_code == 200 and length == str(self.target.size)

    def open(self, attempts: Attempts | None = None) -> "Session":
        """Open an upload session. A lost answer leaves a session behind, and no harm."""
        url = self.client.url(f"{self.repository}/blobs/uploads/")
        what = f"pushing to {self.repository}"
        response = self.client.call("POST", url, (202,), what=what, scope=self.scope, data=b"", attempts=attempts)
        smallest = response.headers.get("OCI-Chunk-Min-Length", "")
        if smallest.isdigit() and len(smallest) < 12:
            self.manner.at_least(int(smallest))
        return Session.opened(self, response)


class Session:
    """An upload session. `location` is where to send to next; `untouched` says that nothing was sent to it yet."""

    def __init__(self, destination: Destination, location: str, *, untouched: bool = False) -> None:
        self.destination = destination
        self.location = location
        self.untouched = untouched
        self._client = destination.client
        self._what = f"pushing {destination.target.digest}"

    @classmethod
    def opened(cls, destination: Destination, response: requests.Response) -> Self:
        """The session that an answer names. Raises NetworkError, PolicyError for a place that may not be sent to."""
        dismiss(response)
        return cls(destination, destination.client.upload_location(response), untouched=True)

    @property
    def closing(self) -> str:
        """The closing URL: the digest is appended as text, for the rest may be signed."""
        return f"{self.location}{'&' if '?' in self.location else '?'}digest={self.destination.target.digest}"

    def send(self, method: str, url: str, body: Body, headers: Mapping[str, str] | None = None) -> requests.Response:
        """Send a body, once. Raises StaleTokenError for a 401 that a new token may mend."""
        client, scope = self._client, self.destination.scope
        response = client.do_request(
            url,
            method,
            data=body if len(body) else b"",
            headers={**_OCTETS, **(headers or {})},
            scope=scope,
            timeout=client.settings.timeouts.commit,
        )
        if response.status_code == 401 and client.is_home(url):
            client.auth.answer_body(response, scope, self._what)
            raise StaleTokenError
        if body.left and response.status_code < 300:
            response.close()
            raise NetworkError(f"{self._what}: {response.status_code} came before all was sent", object=self._what)
        return response

    def status(self) -> requests.Response:
        """How far the registry got, as it says. Raises NetworkError, AccessError, PolicyError."""
        return self._client.do_request(self.location, "GET", scope=self.destination.scope)

    def move(self, response: requests.Response) -> None:
        """Go on where the answer says; some say nothing (Quay), and then it is where it was."""
        dismiss(response)
        self.untouched = False
        if response.headers.get("Location"):
            self.location = self._client.upload_location(response)

    def close(self) -> None:
        """End a session that has had all bytes."""
        self.finish(self.send("PUT", self.closing, NOTHING))

    def finish(self, response: requests.Response) -> None:
        """Take the last answer. Raises ContentError when something else was stored than was sent."""
        self.expect(response, (201, 200, 204))
        stated = header_digest(response)
        dismiss(response)
        if stated is not None:
            check(self.destination.target.digest, stated, f"what {self._client.hostname} stored")

    def cancel(self) -> None:
        """Give the session up, as far as the registry lets us.

        After a broken body the location in hand is stale to some (distribution answers 404); a status has a fresh one.
        """
        with suppress(EpochOciError):
            self.move(self.status())
            dismiss(self._client.do_request(self.location, "DELETE", scope=self.destination.scope))

    def refused(self, response: requests.Response) -> EpochOciError:
        """The error that an answer is."""
        return refusal(response, self._what, self._client.auth.secrets())

    def expect(self, response: requests.Response, allowed: tuple[int, ...]) -> None:
        """Raise what an answer of another status means."""
        status = response.status_code
        if status in allowed:
            return
        if status in _NOT_TAKEN:
            raise self._not_taken(status, codes_of(body_text(response)))
        error = self.refused(response)
        if status == 400 and "DIGEST_INVALID" in error.message:
            raise DigestRefusedError(error.message, object=error.object, status=status)
        raise error

    def _not_taken(self, status: int, codes: tuple[str, ...]) -> Exception:
        """A 404 without a word may be a proxy's that lets no upload through, or a session that was lost."""
        where = self.destination
        if status == 404 and "NAME_UNKNOWN" in codes:
            name = self._client.hostname
            return NotFoundError(f"{name} has no repository {where.repository}", object=where.repository)
        known = where.manner.proven or not self.untouched
        if status == 404 and ("BLOB_UPLOAD_UNKNOWN" in codes or known):
            return SessionLostError("the upload session is gone", object=str(where.target.digest))
        return ShapeRefusedError()
