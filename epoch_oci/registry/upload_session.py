"""One upload session: where it is, what may be sent to it, and what its answers mean (oci-registries 5.3, 5.4)."""

import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Self

import requests

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import EpochOciError, NetworkError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.verifying import check
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import KEEPS_METHOD, PUSH, REDIRECTS, RegistryClient, header_digest
from epoch_oci.registry.download import Presence
from epoch_oci.registry.http_errors import Refusal, dismiss
from epoch_oci.registry.policy import Attempts, HeldError
from epoch_oci.registry.profiles import Manner
from epoch_oci.registry.transport import Body

# Said of a body that a registry, or a proxy before it, takes in no such shape (oci-registries 2.3).
_NOT_TAKEN = frozenset({404, 405, 411, 413, 415, 416, 501})
# Codes of a session that is over. Any other beside a 404 is about the blob: Harbor is just collecting it.
_GONE = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})
_HOPS = 3
"""Requests that one body may take when it is led on."""
_OCTETS = {"Content-Type": "application/octet-stream"}
_NOTHING = Body(io.BytesIO(), 0)

Bodies = Callable[[], AbstractContextManager[Body]]
"""Makes one and the same body again and again, from its first byte."""


class ShapeRefusedError(Exception):
    """The registry, or something before it, does not take this shape of upload; `refusal` is what it said."""

    def __init__(self, refusal: EpochOciError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class StaleTokenError(Exception):
    """A body was answered with 401, and there is another token to send it with."""


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
    def place(self) -> str:
        """Where that is, for messages."""
        return f"{self.client.hostname}/{self.repository}"

    @property
    def scope(self) -> Scope:
        """What sending there needs."""
        return Scope(self.repository, PUSH)

    def is_there(self, attempts: Attempts | None = None) -> bool:
        """As `Presence.certain`."""
        return Presence(self.client, self.repository, self.target, attempts).certain()

    def open(self, attempts: Attempts | None = None) -> "Session":
        """Open an upload session. A lost answer leaves a session behind, and no harm."""
        url = self.client.url(f"{self.repository}/blobs/uploads/")
        what = f"pushing to {self.place}"
        response = self.client.call("POST", url, (202,), what=what, scope=self.scope, data=b"", attempts=attempts)
        smallest = response.headers.get("OCI-Chunk-Min-Length", "")
        # A floor of a terabyte is not one.
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
        self._what = f"pushing {destination.target.digest} to {destination.place}"

    @classmethod
    def opened(cls, destination: Destination, response: requests.Response) -> Self:
        """The session that an answer names. Raises NetworkError, PolicyError for a place that may not be sent to."""
        dismiss(response)
        return cls(destination, destination.client.upload_location(response), untouched=True)

    @property
    def closing(self) -> str:
        """The closing URL: the digest is appended as text, for the rest may be signed."""
        return f"{self.location}{'&' if '?' in self.location else '?'}digest={self.destination.target.digest}"

    def send(self, method: str, url: str, body: Bodies, headers: Mapping[str, str] | None = None) -> requests.Response:
        """Send a body, made anew for each place within the registry that it is led to.

        Raises StaleTokenError for a 401 that a new token did not mend.
        """
        try:
            return self._send_on(method, url, body, headers)
        except StaleTokenError:
            # A body that is answered so was not looked at: the session is as it was.
            return self._send_on(method, url, body, headers)

    def _send_on(self, method: str, url: str, body: Bodies, headers: Mapping[str, str] | None) -> requests.Response:
        for hop in range(_HOPS):
            with body() as made:
                response = self._send_once(method, url, made, headers)
            if response.status_code not in KEEPS_METHOD or hop == _HOPS - 1:
                break
            dismiss(response)
            url = self._client.upload_location(response)
        return response

    def _send_once(
        self, method: str, url: str, body: Body, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
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
        # Said before the end, success cannot be about all of it.
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
        # A new one after each body: to some the offset is part of what they sign (oci-registries 2.2).
        if response.headers.get("Location"):
            self.location = self._client.upload_location(response)

    def close(self, attempts: Attempts) -> None:
        """End a session that has had all bytes; nothing of them is lost while the registry holds the blob back."""
        while True:
            try:
                return self.finish(self._send_once("PUT", self.closing, _NOTHING))
            except HeldError as error:
                attempts.again(error)

    def finish(self, response: requests.Response) -> None:
        """Take the last answer. Raises ContentError when something else was stored than was sent."""
        self.expect(response, (201, 200, 204), closing=True)
        stated = header_digest(response)
        dismiss(response)
        if stated is not None:
            check(self.destination.target.digest, stated, f"what {self._client.hostname} stored")

    def cancel(self) -> None:
        """Give the session up, as far as the registry lets us.

        After a broken body the location in hand is stale to some (distribution answers 404); a status has a fresh one.
        """
        with suppress(EpochOciError):
            # A cancelled session frees gigabytes at a registry that keeps what it got for a week (oci-registries 3.5).
            self.move(self.status())
            dismiss(self._client.do_request(self.location, "DELETE", scope=self.destination.scope))

    def refused(self, response: requests.Response) -> EpochOciError:
        """The error that an answer is."""
        return self._client.refusal(response, self._what, of_blob=True)

    def expect(self, response: requests.Response, allowed: tuple[int, ...], *, closing: bool = False) -> None:
        """Raise what an answer of another status means; `closing`, to the request that ends the session."""
        if response.status_code in allowed:
            return
        if response.status_code in REDIRECTS:
            raise self.refused(response)
        refused = self.read(response)
        # No shape fits into a quota that is used up, so that is none of the shape's faults.
        if refused.status in _NOT_TAKEN and not refused.is_full:
            raise self._not_taken(refused, closing=closing)
        if refused.status == 400 and "DIGEST_INVALID" in refused.codes:
            raise DigestRefusedError(refused.message, object=str(self.destination.target.digest), status=400)
        raise refused.error()

    def read(self, response: requests.Response) -> Refusal:
        """An answer that was not wanted, read."""
        return Refusal(response, self._what, self._client.auth.secrets(), of_blob=True)

    def _not_taken(self, refused: Refusal, *, closing: bool) -> Exception:
        """A 404 without a word may be a proxy's that lets no upload through, or a session that was lost."""
        codes = set(refused.codes)
        if refused.status != 404:
            return ShapeRefusedError(refused.error())
        if "NAME_UNKNOWN" in codes:
            return refused.error()
        if codes and closing and not codes & _GONE:
            held = HeldError(refused.message, object=str(self.destination.target.digest), status=404)
            held.request_id = refused.error().request_id
            return held
        if codes & _GONE or self.destination.manner.proven or not self.untouched:
            return SessionLostError("the upload session is gone", object=str(self.destination.target.digest))
        return ShapeRefusedError(refused.error())
