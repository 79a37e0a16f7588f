"""PATCHes with ranges: the shape of upload that can go on after a failure, and in another run (oci-registries 3.6)."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import requests

from epoch_oci.errors import ContentError, EpochOciError, NetworkError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK, ByteReader, check
from epoch_oci.registry.http_errors import dismiss, may_have_acted
from epoch_oci.registry.policy import Attempts
from epoch_oci.registry.transport import Body
from epoch_oci.registry.upload_journal import Claim
from epoch_oci.registry.upload_session import Session, SessionLostError
from epoch_oci.stores.base import Content, Moving

# Quay puts `bytes=` before it and counts, others give the last byte's index; no bytes at all are `0-0` or `0--1`
# (oci-registries 3.6).
_OFFSET = re.compile(r"(bytes=)?0-(-?[0-9]{1,16})\Z")
_OUT_OF_STEP = 416
_PASSING = (429, 500, 502, 503, 504)


class RangedUpload:
    """Sends a blob in chunks. The hash runs along; bytes that are sent again are not hashed again."""

    def __init__(self, session: Session, content: Content, attempts: Attempts, claim: Claim | None) -> None:
        self.session = session
        self.target = session.destination.target
        self._content = content
        self._attempts = attempts
        self._claim = claim
        self._manner = session.destination.manner
        self._offset = 0
        self._taken_up: int | None = None  # where an earlier run had left it
        self._refused_at = -1  # where the registry said that a chunk was out of step
        self._broke = False  # a chunk did: the registry may have more of it than it counts
        self._failed_at = -1  # where it answered 500 last
        self._may_have_one = False  # a chunk broke off, and "0-0" is all that is known since
        self._hasher = self.target.digest.hasher()
        self._hashed = 0

    def run(self) -> None:
        """Send everything that is left, then close. Raises SessionLostError for a session that cannot be gone on with.

        Raises ContentError when the content is not the target, and what the registry's answers mean.
        """
        while self._offset < self.target.size:
            self._catch_up()
            self.note()
            length = min(self._manner.chunk, self.target.size - self._offset)
            last = self._offset + length == self.target.size
            # ECR alone. Harbor takes the length of a closing PUT for that of the blob (oci-registries 3.5).
            if last and self._manner.profile.last_in_put:
                return self.session.finish(self._chunk("PUT", self.session.closing, length))
            self._patch(length)
        self._catch_up()
        return self.session.close(self._attempts)

    @property
    def reached(self) -> int:
        """How many bytes the registry has, as far as is known."""
        return self._offset

    @property
    def progressed(self) -> bool:
        """Whether this run got it further."""
        return self._offset > (self._taken_up or 0)

    @property
    def _is_old(self) -> bool:
        """Whether an earlier run began it: then the registry may have more than this run knows of."""
        return self._taken_up is not None

    def note(self, *, at_once: bool = False) -> None:
        """Have the journal know how far it got."""
        if self._claim is not None:
            self._claim.note(self.session.location, self._offset, at_once=at_once)

    def take_up(self, acknowledged: int) -> bool:
        """Go on with a session of before, which had `acknowledged` bytes; False, and it is given up, when it has none.

        What the registry has is read from the content all the same, for the whole must have the right hash.
        """
        response = self._status_of_old()
        if response is None:
            return False
        reached = _stated(response, empty=acknowledged == 0)
        alive = response.status_code == 204
        # Less than it acknowledged is a session that lost bytes, more than there are to send is another's.
        if not alive or not reached or not acknowledged <= reached <= self.target.size:
            dismiss(response)
            if alive:
                self.session.cancel()
            return False
        self.session.move(response)
        self._offset = self._taken_up = reached
        self._attempts.reached(reached)
        return True

    def hashed(self, offset: int, block: bytes) -> None:
        """Hash what has not been; at the end the whole must be the target."""
        fresh = block[max(0, self._hashed - offset) :]
        self._hasher.update(fresh)
        self._hashed += len(fresh)
        if fresh and self._hashed == self.target.size:
            found = Digest(self.target.digest.algorithm, self._hasher.hexdigest())
            check(self.target.digest, found, self.target.title or "the blob")

    def _catch_up(self) -> None:
        """Hash what the registry has and this run has not read."""
        if self._hashed >= self._offset:
            return
        with self._opened(self._hashed, self._offset - self._hashed, aside(self._content, self._offset)) as reader:
            source = _Hashed(self, reader, self._hashed)
            while self._hashed < self._offset:
                source.read(min(BLOCK, self._offset - self._hashed))

    def _patch(self, length: int) -> None:
        session = self.session
        try:
            response = self._chunk("PATCH", session.location, length)
        except NetworkError as error:
            self._broke = True
            return self._realign(error)
        if response.status_code == _OUT_OF_STEP and (self._is_old or self._may_have_one):
            return self._out_of_step(response)
        # GHCR says 416 of a chunk that is too large (oci-registries 3.4), others of one that is out of step.
        if response.status_code in (413, 416) and self._manner.shrink():
            refused = session.read(response)
            if refused.is_full:
                raise refused.error()
            return self._realign(NetworkError(f"a chunk of {length} bytes was refused", status=refused.status))
        if response.status_code in _PASSING:
            passing = session.refused(response)
            assert isinstance(passing, NetworkError)
            if response.status_code == 500 and self._is_stuck():
                raise _lost(passing)
            return self._realign(passing)
        session.expect(response, (201, 202, 204))
        session.move(response)
        self._offset += length
        self._attempts.reached(self._offset)
        return None

    def _is_stuck(self) -> bool:
        """Whether it fails for the second time at one place, in a session in which a chunk broke off.

        Gitea keeps what such a chunk brought, does not count it, and answers 500 to all that follows (oci-registries
        3.1).
        """
        again = self._failed_at == self._offset
        self._failed_at = self._offset
        return again and (self._is_old or self._broke)

    def _out_of_step(self, response: requests.Response) -> None:
        """Bytes of the earlier run may have come late; a registry that says it again does not know what it has."""
        dismiss(response)
        error = NetworkError("the upload session is out of step", object=str(self.target.digest), status=_OUT_OF_STEP)
        # Asked once where it stands, told the same, and refused again at the same place.
        if self._refused_at == self._offset:
            raise _lost(error)
        self._refused_at = self._offset
        self._realign(error)

    def _chunk(self, method: str, url: str, length: int) -> requests.Response:
        """Send the next bytes as one range."""
        start = self._offset

        @contextmanager
        def body() -> Iterator[Body]:
            with self._opened(start, length) as reader:
                yield Body(_Hashed(self, reader, start), length)

        return self.session.send(method, url, body, {"Content-Range": f"{start}-{start + length - 1}"})

    def _opened(self, start: int, length: int, content: Content | None = None) -> AbstractContextManager[ByteReader]:
        """Some of the bytes; the last ones are opened to the end, to learn whether there is more than declared."""
        return (content or self._content).open(start, None if start + length == self.target.size else length)

    def _realign(self, error: NetworkError) -> None:
        """After a failure: wait, ask how far the registry got, and go on there. Raises for a session that is lost."""
        response = self._status(error)
        one = self._may_have_one and error.status == _OUT_OF_STEP
        reached = _stated(response, empty=self._offset == 0 and not one)
        if response.status_code != 204 or reached is None:
            dismiss(response)
            raise _lost(error)
        self._may_have_one = reached == 0 and (self._may_have_one or may_have_acted(error))
        self.session.move(response)
        most = self.target.size if self._is_old else max(self._hashed, self._offset)
        # Less than it had acknowledged is ECR's stale answer, more than was sent another's session: neither is built
        # upon.
        if not 0 <= self._offset <= reached <= most:
            raise _lost(error)
        self._offset = reached

    def _status(self, error: NetworkError) -> requests.Response:
        """What the registry says of the session; asked for again while no answer comes."""
        while True:
            self._attempts.again(error)
            if not self._manner.profile.asks_status:
                raise _lost(error)
            try:
                return self.session.status()
            except NetworkError as failed:
                error = failed

    def _status_of_old(self) -> requests.Response | None:
        """What the registry says of a session of an earlier run; None when it may not be asked, or will not say."""
        while True:
            try:
                response = self.session.status()
                if response.status_code not in _PASSING:
                    return response
                raise self.session.refused(response)
            except NetworkError as error:
                self._attempts.again(error)
            except EpochOciError:
                return None


def aside(content: Content, count: int) -> Content:
    """The same bytes, of which the first `count` are hashed and not sent: a limit on the rate is none for them."""
    return content.aside(count) if isinstance(content, Moving) else content


class _Hashed:
    """Hands bytes on and has them hashed before."""

    def __init__(self, upload: RangedUpload, reader: ByteReader, offset: int) -> None:
        self._upload, self._reader, self._offset = upload, reader, offset

    def read(self, size: int = -1, /) -> bytes:
        block = self._reader.read(size)
        if not block:
            raise ContentError(f"the content ended after {self._offset} bytes", code="SIZE")
        self._offset += len(block)
        if self._offset == self._upload.target.size and self._reader.read(1):
            raise ContentError(f"the content has more than the {self._offset} bytes declared", code="SIZE")
        self._upload.hashed(self._offset - len(block), block)
        return block


def _stated(response: requests.Response, *, empty: bool) -> int | None:
    """How many bytes a status says there are; "0-0" is said of an empty session and of one byte."""
    stated = _OFFSET.match(response.headers.get("Range", ""))
    if stated is None:
        return None
    if empty and int(stated[2]) == 0:
        return 0
    return int(stated[2]) + (0 if stated[1] else 1)


def _lost(error: NetworkError) -> SessionLostError:
    return SessionLostError(
        error.message,
        object=error.object,
        retryable=error.retryable,
        status=error.status,
        retry_after=error.retry_after,
    )
