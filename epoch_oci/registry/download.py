"""Blobs of a repository: whether one is there, and its bytes as content.

Whether it is there is asked by a HEAD, and where that does not tell, by a GET of one byte (oci-registries 2.1). A HEAD
may come without a length (RFC 9110 allows it) or with one of something else, be led to a storage that has not got the
blob, or be answered 404 by a cache that would fetch it.

Content is streamed, taken up again where it broke off, and never believed (oci-registries 5.8).
"""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager

import requests
import urllib3

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, EpochOciError, NetworkError, NotFoundError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.verifying import BLOCK, ByteReader
from epoch_oci.registry.client import REDIRECTS, RegistryClient
from epoch_oci.registry.http_errors import dismiss, foreign_errors, request_id
from epoch_oci.registry.policy import Attempts
from epoch_oci.registry.transport import unwatched
from epoch_oci.registry.trust import Origin, redacted

_CONTENT_RANGE = r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16}|\*)\Z"
_PROGRESS = 256 << 10
"""Bytes that make an attempt a success as far as the count of failures goes."""
_STALE = frozenset({400, 401, 403, 404, 410})
"""What a storage host answers when a signed URL has run out; the registry gives a new one."""
_ANSWERS = (200, 404, 405, 501, *REDIRECTS)
_COUNTED = 64 << 10
"""Bytes of a body without a length that are read to learn it: a page of a login or a proxy is shorter."""
# The least that is an answer of the storage, where a HEAD may be one of the registry alone.
_ONE_BYTE = {"Range": "bytes=0-0"}
# 416 has the total of an empty blob behind an asterisk (RFC 9110, 14.4).
_TOTAL = r"bytes (?:0-0|\*)/([0-9]{1,16})\Z"


@dataclass(frozen=True, slots=True)
class BlobContent:
    """A blob of a repository as content."""

    client: RegistryClient
    repository: str
    target: Descriptor

    @property
    def size(self) -> int:
        """Length in bytes, as declared."""
        return self.target.size

    @contextmanager
    def open(self, start: int = 0, length: int | None = None) -> Iterator[ByteReader]:
        """As `Content.open`. A body that breaks off is gone on with; what was read before stays read."""
        end = self.size if length is None else min(self.size, start + length)
        reader = _BlobReader(self, start, end)
        try:
            yield reader
        finally:
            reader.close()

    def ranged(self) -> bool:
        """As `stores.base.Ranged`: whether the registry, or its storage, answers a range with that range."""
        if self.size < 2:  # a range of it would be all of it, which teaches nothing
            return False
        attempts = Attempts(self.client.settings, self.target.title or str(self.target.digest))
        # Asked with two bytes of a real blob: `Accept-Ranges` is not sent by all who serve ranges, nor kept by all who
        # send it.
        while self.client.ranges is None:
            try:
                response = self.request(0, 1)
            except _WrongRangeError:
                break
            except NetworkError as error:
                attempts.again(error)
            else:
                response.close()
                self.client.ranges = response.status_code == 206
        return bool(self.client.ranges)

    def request(self, start: int, end: int) -> requests.Response:
        """An answer whose body begins at `start` (206), or holds the whole blob (200)."""
        url = self.client.url(f"{self.repository}/blobs/{self.target.digest}")
        partial = (start, end) != (0, self.size)
        headers = {"Range": f"bytes={start}-{end - 1}"} if partial else {}
        response = self.client.follow(self.client.do_request(url, headers=headers), headers)
        # What a storage says of a signed address is about the address, and not about the blob.
        foreign = Origin.of(response.url) != self.client.origin
        if response.status_code == 206 and partial:
            self._check_range(response, start)
        elif response.status_code == 404 and not foreign:
            response.close()
            absent = NotFoundError(
                f"{self.client.hostname}/{self.repository} has no blob {self.target.digest}",
                object=str(self.target.digest),
            )
            absent.request_id = request_id(response.headers)
            raise absent
        elif response.status_code == 416 and partial:  # some storages say so of what they cannot serve just now
            response.close()
            self.client.ranges = False
            raise _WrongRangeError(f"{self.target.digest}: there are no bytes from {start}")
        elif response.status_code != 200:
            what = f"{self.target.digest} of {self.client.hostname}/{self.repository}"
            error = self.client.refusal(response, what, of_blob=True)
            # Without a status it is tried again, which asks the registry for a fresh one; the offset stays.
            if foreign and response.status_code in _STALE:
                raise NetworkError(error.message, object=redacted(response.url), status=None) from error
            raise error
        # Found out before gigabytes of something else have come.
        stated = response.headers.get("Content-Length", "")
        if response.status_code == 200 and stated.isdigit() and stated != str(self.size):
            response.close()
            raise self._wrong_size(stated, response.headers.get("Content-Encoding"))
        return response

    def _wrong_size(self, found: str, encoding: str | None) -> ContentError:
        """Some storages keep an encoding that changes nothing (`aws-chunked`), so it is only told of where one did."""
        how = f" as {self.client.quoted(encoding)}" if encoding else ""
        return ContentError(
            f"{self.target.digest} has {found[:20]} bytes{how} at {self.client.hostname}, expected {self.size}",
            code="SIZE",
            object=str(self.target.digest),
        )

    def _check_range(self, response: requests.Response, start: int) -> None:
        found = re.match(_CONTENT_RANGE, response.headers.get("Content-Range", ""))
        total = found[3] if found else ""
        if found is None or int(found[1]) != start or total not in ("*", str(self.size)):
            response.close()
            self.client.ranges = False
            got = f"bytes {found[1]}-{found[2]}/{found[3]}" if found else "no range"
            raise _WrongRangeError(f"{self.target.digest}: asked for bytes from {start}, got {got}")


# TLS hands out a record at a time, 16 KiB: written and hashed one by one, threads take turns 65,536 times a GiB, which
# costs more than the decryption. A line so slow that it does not fill this in the time given hands out what it has.
_RECORD, _GATHERED, _GATHER_SECONDS = 16 << 10, 256 << 10, 0.05


class _WrongRangeError(NetworkError):
    """A 206 that is not what was asked for: ranges are of no use here."""


class _StallError(NetworkError):
    """Something comes, but too little of it."""


class _BlobReader:
    """Reads from `start` to `end`; a broken connection is replaced, the offset reached is kept."""

    def __init__(self, content: BlobContent, start: int, end: int) -> None:
        self._content = content
        self._offset, self._end = start, end
        self._response: requests.Response | None = None
        self._pace, self._paced = content.client.settings.pace, False
        self._skip = 0
        self._attempts = Attempts(content.client.settings, content.target.title or str(content.target.digest))
        self._clock = content.client.settings.clock
        self._waited, self._received = 0.0, 0  # seconds spent on reading, and what they brought
        self._failure: Exception | None = None
        self._reached = start  # where the last failure left us
        self._ranges = True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; b"" at the end of what was asked for. At the blob's end one more is looked for."""
        wanted = BLOCK if size < 0 else min(size, BLOCK)
        if self._offset >= self._end and not self._overrun():
            return b""
        while True:
            try:
                return self._block(wanted)
            except NetworkError as error:
                self.close(well=False)
                if self._offset >= self._end:  # all bytes are here; it was only about whether more would come
                    return b""
                # A connection that trickles brings progress for ever, so that is none (oci-registries 5.5).
                if self._offset - self._reached >= _PROGRESS and not isinstance(error, _StallError):
                    self._attempts.progress()
                self._reached = self._offset
                self._attempts.again(error)

    def close(self, *, well: bool = True) -> None:
        """Give the connection up."""
        if self._response is not None:
            self._response.close()
            self._response = None
        if self._paced:
            self._paced = False
            self._pace.leave(well=well)

    def _overrun(self) -> bool:
        """At the end of the whole blob the body must end too, so that trailing bytes are found."""
        return self._response is not None and self._end == self._content.size and self._offset == self._end

    def _block(self, wanted: int) -> bytes:
        if self._response is None:
            self._connect()
        while self._skip and (dropped := self._receive(min(BLOCK, self._skip))):
            self._skip -= len(dropped)
        # A whole body in answer to a range goes on after the range's end.
        # What follows the span's end is somebody else's to read; one more byte behind the blob's end is looked for
        # (reliability D3).
        block = self._receive(min(wanted, self._end - self._offset) if self._offset < self._end else 1)
        if not block and self._offset < self._end:
            raise NetworkError(f"{self._content.target.digest}: the body ended early", object=self._content.repository)
        if self._offset < self._end:
            self._offset += len(block)
        return block

    def _connect(self) -> None:
        self._pace.enter()
        self._paced = True
        start = self._offset if self._ranges else 0
        end = self._end if self._ranges else self._content.size
        # At least one byte: a range of none cannot be asked for, and at the blob's end one more is looked for.
        try:
            self._response = self._content.request(start, max(end, start + 1) if end else 0)
        except _WrongRangeError:
            self._ranges = False
            self._response = self._content.request(0, self._content.size)
        unwatched(self._response)
        # A whole body in answer to a range: what is known already is read once more, and dropped.
        self._skip = self._offset if self._response.status_code == 200 else 0
        if self._skip:
            self._content.client.ranges = False
        self._waited, self._received, self._failure = 0.0, 0, None

    def _receive(self, size: int) -> bytes:
        """What there is, up to `size`: waiting for all of it would lose what came when the connection breaks."""
        assert self._response is not None
        self._check_floor()
        began = self._clock()
        with foreign_errors(str(self._content.target.digest)):
            block = self._gathered(size, began)
        self._waited += self._clock() - began
        self._received += len(block)
        return block

    def _gathered(self, size: int, began: float) -> bytes:
        """What one look at the connection brings, and some more where that is no more than a record of TLS."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        block = self._look(size)
        if not 0 < len(block) <= _RECORD:
            return block
        parts, have = [block], len(block)
        while have < min(size, _GATHERED) and self._clock() - began < _GATHER_SECONDS:
            try:
                block = self._look(min(size, _GATHERED) - have)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                self._failure = error  # what came before it is kept, and it is told at the next look
                break
            if not block:
                break
            parts.append(block)
            have += len(block)
        return b"".join(parts)

    def _look(self, size: int) -> bytes:
        assert self._response is not None
        return bytes(self._response.raw.read1(size, decode_content=False) or b"")

    def _check_floor(self) -> None:
        """A trickle is a stall: below the floor over a window of waiting, the connection is given up."""
        limits = self._content.client.settings.timeouts
        if self._waited < limits.floor_window:
            return
        if self._received / self._waited < limits.floor_rate:
            raise _StallError(f"{self._content.target.digest}: fewer than {limits.floor_rate} bytes a second came")
        self._waited, self._received = 0.0, 0


@dataclass(frozen=True, slots=True)
class Presence:
    """A blob in a repository, there or not. `attempts` are those of the whole of which the question is a part."""

    client: RegistryClient
    repository: str
    target: Descriptor
    attempts: Attempts | None = None

    def known(self) -> bool:
        """Whether it is there, with its size; False means known to be absent. Raises NetworkError, AccessError."""
        attempts = self.attempts or Attempts(self.client.settings, self._what)
        while True:
            try:
                response = self._ask(attempts)
                return (response is not None and self._told(response)) or self._get() is not False
            except NetworkError as error:
                attempts.again(error)

    def certain(self) -> bool:
        """Whether it need not be sent. False also where that cannot be told, for sending it is never wrong.

        Raises NetworkError, AccessError when the registry itself refuses to say.
        """
        response = self._ask(self.attempts)
        if response is None:
            return bool(self._get())
        try:
            if response.status_code in REDIRECTS:
                dismiss(response)
                if self.client.is_lost(self.client.location(response)):
                    return False
            told = self._told(response)
            return bool(self._get() if told is None else told)
        except EpochOciError:  # where it led to is of no use, for us
            return False

    @property
    def _what(self) -> str:
        return f"{self.target.digest} in {self.client.hostname}/{self.repository}"

    @property
    def _url(self) -> str:
        return self.client.url(f"{self.repository}/blobs/{self.target.digest}")

    def _ask(self, attempts: Attempts | None) -> requests.Response | None:
        """The answer to a HEAD; None for a refusal, which has no words: those of a GET may say why."""
        try:
            return self.client.call("HEAD", self._url, _ANSWERS, what=self._what, attempts=attempts)
        except NetworkError:
            raise
        except EpochOciError:
            return None

    def _told(self, response: requests.Response) -> bool | None:
        """What a HEAD says, None for nothing. A storage's signed address may be good for a GET alone."""
        response = self.client.follow(response, {}, "HEAD")
        length = response.headers.get("Content-Length")
        dismiss(response)
        if response.status_code == 200:
            return True if length == str(self.target.size) else None
        return False if response.status_code == 404 and Origin.of(response.url) == self.client.origin else None

    def _get(self) -> bool | None:
        """What a GET of one byte says; None for a body of which nobody says how long it is, and that is a long one."""
        response = self.client.follow(self.client.do_request(self._url, headers=_ONE_BYTE), _ONE_BYTE)
        status, size = response.status_code, self.target.size
        if status not in (200, 206, 404, 410, 416):
            raise self.client.refusal(response, self._what, of_blob=True)
        if status == 200 and "Content-Length" not in response.headers:
            return self._counted(response)
        response.close()
        if status == 200:
            return response.headers["Content-Length"] == str(size)
        total = re.match(_TOTAL, response.headers.get("Content-Range", ""))
        if total is not None:
            return int(total[1]) == size
        # No total is stated: one byte is there at least, or none where the blob has none.
        return status == 206 or (status == 416 and size == 0)

    def _counted(self, response: requests.Response) -> bool | None:
        """Whether a body without a length is as long as the blob: the page of a login or a proxy is short."""
        size = 0
        with closing(response), foreign_errors(self._what):
            for block in response.raw.stream(_COUNTED, decode_content=False):
                size += len(block)
                if size > _COUNTED:
                    return None
        return size == self.target.size
