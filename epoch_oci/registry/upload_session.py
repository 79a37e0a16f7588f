"""One upload session: where it is, what may be sent to it, and what its answers mean (oci-registries 5.3, 5.4).

A request's body is a known number of bytes of a reader, block by block.
"""

import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import requests

from epoch_oci.errors import EpochOciError, NetworkError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.verify import BLOCK, ByteReader, check
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import PUSH, REDIRECTS, RegistryClient, header_digest
from epoch_oci.registry.download import Presence
from epoch_oci.registry.http_errors import Refusal, dismiss
from epoch_oci.registry.policy import Attempts, HeldError
from epoch_oci.registry.profiles import Manner

_AHEAD = 2
"""Blocks read before the socket asks for them; each costs its size in memory, for every transfer."""
_WORTH_A_THREAD = 4 * BLOCK


class Body:
    """Bytes of one request, `length` of them, block by block as requests sends what has a length.

    `left` are those that were not handed to the socket: an answer may come first.
    """

    def __init__(self, reader: ByteReader, length: int) -> None:
        self._reader, self._length = reader, length
        self.left = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        while self.left and (block := self._reader.read(min(BLOCK, self.left))):
            yield block
            self.left -= len(block)


@contextmanager
def read_ahead(reader: ByteReader, size: int) -> Iterator[ByteReader]:
    """`reader`, read (and so hashed, where it verifies) by a thread of its own while what came before is being sent.

    What `reader` raises is raised in place of the block it was asked for, so no later block is ever handed out.
    """
    if size < _WORTH_A_THREAD:
        yield reader
        return
    ahead = _Ahead(reader)
    try:
        yield ahead
    finally:
        ahead.stop()


class _Ahead:
    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._blocks: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._stopped = self._ended = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def read(self, size: int = -1, /) -> bytes:
        """The next block, whatever its length; `size` is at least BLOCK, or bounds the last one."""
        if self._ended:
            return b""
        block = self._blocks.get()
        if isinstance(block, BaseException):
            raise block
        self._ended = not block
        return block

    def stop(self) -> None:
        """Let the thread end, and wait for it: it must not read from what its owner is about to close."""
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._blocks.get(timeout=0.05)
            except queue.Empty:
                self._thread.join(0)

    def _run(self) -> None:
        try:
            block = b"-"
            while block and not self._stopped:
                block = self._reader.read(BLOCK)
                self._blocks.put(block)
        except BaseException as error:  # raised again by whoever reads
            self._blocks.put(error)


class _Empty:
    def read(self, size: int = -1, /) -> bytes:
        return b""


NOTHING = Body(_Empty(), 0)


# Said of a body that a registry, or a proxy before it, takes in no such shape (oci-registries 2.3).
_NOT_TAKEN = frozenset({404, 405, 411, 413, 415, 416, 501})
_GONE = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"})
HOPS = 3
"""Requests that one body may take when it is led on."""
_OCTETS = {"Content-Type": "application/octet-stream"}


class ShapeRefusedError(Exception):
    """The registry, or something before it, does not take this shape of upload; `refusal` is what it said."""

    def __init__(self, refusal: EpochOciError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


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

    def leads_on(self, response: requests.Response) -> bool:
        """Whether an answer wants the same body at another place."""
        return response.status_code in (307, 308)

    def led_on(self, response: requests.Response) -> str:
        """That place. Raises as `RegistryClient.upload_location`."""
        dismiss(response)
        return self._client.upload_location(response)

    def status(self) -> requests.Response:
        """How far the registry got, as it says. Raises NetworkError, AccessError, PolicyError."""
        return self._client.do_request(self.location, "GET", scope=self.destination.scope)

    def move(self, response: requests.Response) -> None:
        """Go on where the answer says; some say nothing (Quay), and then it is where it was."""
        dismiss(response)
        self.untouched = False
        if response.headers.get("Location"):
            self.location = self._client.upload_location(response)

    def close(self, attempts: Attempts) -> None:
        """End a session that has had all bytes; nothing of them is lost while the registry holds the blob back."""
        while True:
            try:
                return self.finish(self.send("PUT", self.closing, NOTHING))
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
