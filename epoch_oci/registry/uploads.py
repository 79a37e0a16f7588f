"""Sending a blob: the push state machine (oci-registries 5.2-5.4).

A session that has had part of a body is never sent a body again from its start: after a failure the registry is asked
whether the blob is there after all, and if not a new session is opened, or a ranged upload goes on at the offset the
registry states.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import requests

from epoch_oci.errors import AccessError, ContentError, EpochOciError, NetworkError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verify import BLOCK, ByteReader, VerifyingReader, check
from epoch_oci.registry.answers import body_text, codes_of, dismiss, may_have_acted, refusal
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import PUSH, REDIRECTS, RegistryClient, header_digest
from epoch_oci.registry.profiles import Manner, Shape
from epoch_oci.registry.retry import Attempts
from epoch_oci.stores.base import Content

_OFFSET = re.compile(r"(bytes=)?0-(-?[0-9]{1,16})\Z")
_NOT_TAKEN = frozenset({404, 405, 411, 413, 415, 501})
_SENT = 128 << 10
"""Bytes handed to a socket at a time: its time limit is for all of them, and a slow line is not a dead one."""
_OCTETS = {"Content-Type": "application/octet-stream"}


class _ShapeRefusedError(Exception):
    """The registry, or something before it, does not take this shape of upload."""


class _StaleTokenError(Exception):
    """A body was answered with 401; the token is renewed once."""


class _Body:
    """Bytes of one request, `length` of them, block by block as requests sends what has a length."""

    def __init__(self, reader: ByteReader, length: int) -> None:
        self._reader, self._length = reader, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        left = self._length
        while left:
            block = self._reader.read(min(BLOCK, left))
            if not block:
                return
            left -= len(block)
            view = memoryview(block)
            for start in range(0, len(view), _SENT):
                yield view[start : start + _SENT]


@dataclass(slots=True)
class Upload:
    """One blob on its way into a repository."""

    client: RegistryClient
    repository: str
    manner: Manner
    target: Descriptor
    content: Content

    def run(self) -> None:
        """Send it. Raises ContentError when the content is not the target, AccessError, NetworkError."""
        attempts = Attempts(self.client.settings, self.target.title or str(self.target.digest))
        renewed = False
        while (shape := self.manner.shape) is not None:
            try:
                return self._attempt(shape)
            except _ShapeRefusedError:
                self.manner.demote(shape)
            except _StaleTokenError:
                if renewed:
                    raise self._denied() from None
                renewed = True
            except NetworkError as error:
                attempts.again(error)
                if may_have_acted(error) and self.is_there():
                    return None
        raise NetworkError(
            f"{self.client.hostname} takes {self.target.digest} ({self.target.size} bytes) in no shape",
            object=str(self.target.digest),
            hint="something between here and the registry limits the size of a request; try --part-size",
            retryable=False,
        )

    def is_there(self) -> bool:
        """Whether the registry has the blob, with this size."""
        response = self.client.call(
            "HEAD",
            self.client.url(f"{self.repository}/blobs/{self.target.digest}"),
            (200, 404, *REDIRECTS),
            what="looking",
        )
        length = response.headers.get("Content-Length")
        dismiss(response)
        if response.status_code in REDIRECTS:
            return True  # to where the bytes are
        return response.status_code == 200 and length == str(self.target.size)

    @property
    def _scope(self) -> Scope:
        return Scope(self.repository, PUSH)

    def _denied(self) -> AccessError:
        return AccessError(f"{self.client.hostname}: the upload is not authorised", object=self.repository)

    def _attempt(self, shape: Shape) -> None:
        location = self.open_session()
        try:
            if shape == "put":
                self._finish(self._send("PUT", self._closing(location)))
            elif shape == "stream":
                response = self._send("PATCH", location)
                self._expect(response, (201, 202, 204))
                self._close(self._next(response, location))
            else:
                _Ranged(self, location).run()
        except BaseException:
            self.cancel(location)
            raise

    def open_session(self) -> str:
        """Open an upload session; returns where to send to. A lost answer leaves a session behind, and no harm."""
        url = self.client.url(f"{self.repository}/blobs/uploads/")
        response = self.client.call(
            "POST", url, (202,), what=f"pushing to {self.repository}", scope=self._scope, data=b""
        )
        smallest = response.headers.get("OCI-Chunk-Min-Length", "")
        if smallest.isdigit() and len(smallest) < 12:
            self.manner.at_least(int(smallest))
        dismiss(response)
        return self.client.upload_location(response)

    def cancel(self, location: str) -> None:
        """Give a session up, as far as the registry lets us.

        After a broken body the Location in hand is stale to some (distribution answers 404); a status has a fresh one.
        """
        with suppress(EpochOciError):
            status = self.client.do_request(location, "GET", scope=self._scope)
            location = self._next(status, location)
            dismiss(self.client.do_request(location, "DELETE", scope=self._scope))

    def _send(self, method: str, url: str) -> requests.Response:
        """The whole content in one request. The last block is held back until the hash is right."""
        with self.content.open() as reader:
            checked = VerifyingReader(reader, self.target)
            return self._request(method, url, _Body(checked, self.target.size), {})

    def _request(self, method: str, url: str, body: _Body, headers: dict[str, str]) -> requests.Response:
        data: _Body | bytes = body if len(body) else b""
        response = self.client.do_request(
            url,
            method,
            data=data,
            headers={**_OCTETS, **headers},
            scope=self._scope,
            timeout=self.client.settings.timeouts.commit,
        )
        if response.status_code == 401 and self.client.is_home(url):
            dismiss(response)
            self.client.auth.answer(response, self._scope, response.request.headers.get("Authorization"))
            raise _StaleTokenError
        return response

    def _next(self, response: requests.Response, location: str) -> str:
        """Where to go on: the answer's Location, else the one before (Quay names none)."""
        dismiss(response)
        return self.client.upload_location(response) if response.headers.get("Location") else location

    def _closing(self, location: str) -> str:
        """The closing URL: the digest is appended as text, for the rest may be signed."""
        return f"{location}{'&' if '?' in location else '?'}digest={self.target.digest}"

    def _close(self, location: str) -> None:
        self._finish(self._request("PUT", self._closing(location), _Body(_NOTHING, 0), {}))

    def _finish(self, response: requests.Response) -> None:
        self._expect(response, (201, 200, 204))
        stated = header_digest(response)
        dismiss(response)
        if stated is not None:
            check(self.target.digest, stated, f"what {self.client.hostname} stored")

    def _expect(self, response: requests.Response, allowed: tuple[int, ...]) -> None:
        status = response.status_code
        if status in allowed:
            return
        if status in _NOT_TAKEN or status == 416:
            text = body_text(response)
            if status == 404 and "BLOB_UPLOAD_UNKNOWN" in codes_of(text):
                raise NetworkError("the upload session is gone", object=str(self.target.digest), status=None)
            if status == 404 and "NAME_UNKNOWN" in codes_of(text):
                raise NotFoundError(
                    f"{self.client.hostname} has no repository {self.repository}", object=self.repository
                )
            raise _ShapeRefusedError
        if status == 400:
            raise self._bad_request(response)
        raise refusal(response, f"pushing {self.target.digest}", self.client.auth.secrets())

    def _bad_request(self, response: requests.Response) -> Exception:
        """A wrong digest means that the source changed or that the bytes suffered on the way: look which."""
        error = refusal(response, f"pushing {self.target.digest}", self.client.auth.secrets())
        if "DIGEST_INVALID" not in error.message:
            return error
        with self.content.open() as reader:
            for _ in VerifyingReader(reader, self.target).blocks():
                pass
        return NetworkError(error.message, object=error.object, status=400)


class _Empty:
    def read(self, size: int = -1, /) -> bytes:
        return b""


_NOTHING = _Empty()


class _Ranged:
    """PATCHes with ranges. The hash runs along; bytes that are sent again are not hashed again."""

    def __init__(self, upload: Upload, location: str) -> None:
        self._upload = upload
        self._location = location
        self._offset = 0
        self._hasher = upload.target.digest.hasher()
        self._hashed = 0
        self._attempts = Attempts(upload.client.settings, upload.target.title or str(upload.target.digest))

    @property
    def size(self) -> int:
        """Length of the blob in bytes."""
        return self._upload.target.size

    def run(self) -> None:
        """Send everything, then close."""
        upload, profile = self._upload, self._upload.manner.profile
        while self._offset < upload.target.size:
            length = min(upload.manner.chunk, upload.target.size - self._offset)
            last = self._offset + length == upload.target.size
            if last and profile.last_in_put:
                return upload._finish(self._chunk("PUT", upload._closing(self._location), length))
            self._patch(length)
        return upload._close(self._location)

    def _patch(self, length: int) -> None:
        upload = self._upload
        try:
            response = self._chunk("PATCH", self._location, length)
        except NetworkError as error:
            return self._realign(error)
        if response.status_code in (413, 416) and upload.manner.shrink():
            dismiss(response)
            return self._realign(NetworkError(f"a chunk of {length} bytes was refused", status=response.status_code))
        if response.status_code in (429, 500, 502, 503, 504):
            refused = refusal(response, f"pushing {upload.target.digest}", upload.client.auth.secrets())
            assert isinstance(refused, NetworkError)
            return self._realign(refused)
        upload._expect(response, (201, 202, 204))
        self._location = upload._next(response, self._location)
        self._offset += length
        self._attempts.progress()
        return None

    def _chunk(self, method: str, url: str, length: int) -> requests.Response:
        try:
            return self._once(method, url, length)
        except _StaleTokenError:  # nothing of it was taken
            return self._once(method, url, length)

    def _once(self, method: str, url: str, length: int) -> requests.Response:
        start, end = self._offset, self._offset + length - 1
        with self._opened(length) as reader:
            body = _Body(_Hashed(self, reader, start), length)
            return self._upload._request(method, url, body, {"Content-Range": f"{start}-{end}"})

    def _opened(self, length: int) -> AbstractContextManager[ByteReader]:
        """The chunk's bytes; the last one is opened to its end, to learn whether there is more than declared."""
        last = self._offset + length == self._upload.target.size
        return self._upload.content.open(self._offset, None if last else length)

    def hashed(self, offset: int, block: bytes) -> None:
        """Hash what has not been; at the end the whole must be the target."""
        fresh = block[max(0, self._hashed - offset) :]
        self._hasher.update(fresh)
        self._hashed += len(fresh)
        target = self._upload.target
        if fresh and self._hashed == target.size:
            check(target.digest, Digest(target.digest.algorithm, self._hasher.hexdigest()), target.title or "the blob")

    def _realign(self, error: NetworkError) -> None:
        """After a failure: wait, ask how far the registry got, and go on there. Raises for a session that is lost."""
        upload = self._upload
        response = self._status(error)
        stated = _OFFSET.match(response.headers.get("Range", ""))
        if response.status_code != 204 or stated is None:
            dismiss(response)
            raise error
        self._location = upload._next(response, self._location)
        reached = int(stated[2]) + (0 if stated[1] else 1)
        if int(stated[2]) == 0 and self._offset == 0:
            reached = 0  # "0-0" is said of an empty session and of one byte
        if not 0 <= self._offset <= reached <= max(self._hashed, self._offset):
            raise error
        self._offset = reached

    def _status(self, error: NetworkError) -> requests.Response:
        """What the registry says of the session; asked for again while no answer comes."""
        upload = self._upload
        while True:
            self._attempts.again(error)
            if not upload.manner.profile.asks_status:
                raise error
            try:
                return upload.client.do_request(self._location, "GET", scope=upload._scope)
            except NetworkError as lost:
                error = lost


class _Hashed:
    """Hands bytes on and has them hashed before."""

    def __init__(self, ranged: _Ranged, reader: ByteReader, offset: int) -> None:
        self._ranged, self._reader, self._offset = ranged, reader, offset

    def read(self, size: int = -1, /) -> bytes:
        block = self._reader.read(size)
        if not block:
            raise ContentError(f"the content ended after {self._offset} bytes", code="SIZE")
        self._offset += len(block)
        if self._offset == self._ranged.size and self._reader.read(1):
            raise ContentError(f"the content has more than the {self._offset} bytes declared", code="SIZE")
        self._ranged.hashed(self._offset - len(block), block)
        return block
