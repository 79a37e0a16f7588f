"""Whether a registry has a blob: a HEAD, and where that does not tell, a GET of one byte (oci-registries 2.1).

A HEAD may come without a length (RFC 9110 allows it) or with one of something else, be led to a storage that has not
got the blob, or be answered 404 by a cache that would fetch it.
"""

import re
from contextlib import closing
from dataclasses import dataclass

import requests

from epoch_oci.errors import EpochOciError, NetworkError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.registry.answers import dismiss, foreign_errors
from epoch_oci.registry.client import REDIRECTS, RegistryClient
from epoch_oci.registry.origin import Origin
from epoch_oci.registry.retry import Attempts

_ANSWERS = (200, 404, 405, 501, *REDIRECTS)
_COUNTED = 64 << 10
_ONE_BYTE = {"Range": "bytes=0-0"}
_TOTAL = re.compile(r"bytes (?:0-0|\*)/([0-9]{1,16})\Z")


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
        total = _TOTAL.match(response.headers.get("Content-Range", ""))
        if total is not None:
            return int(total[1]) == size
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
