"""``Client``: a bare ``http.client`` user, for checks on servers that must not go through our own stack."""

import http.client
import ssl
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from support.content import INDEX, MANIFEST, OCTETS, digest_of

ACCEPT = {"Accept": f"{MANIFEST}, {INDEX}"}


@dataclass(slots=True)
class Response:
    """A response read to its end."""

    status: int
    headers: http.client.HTTPMessage = field(repr=False)
    body: bytes = field(repr=False)

    def header(self, name: str) -> str:
        """The header; raises KeyError when absent."""
        value = self.headers.get(name)
        if value is None:
            raise KeyError(name)
        return value

    @property
    def location(self) -> str:
        return self.header("Location")


class Client:
    """Requests to one origin over one kept connection; nothing is followed, retried or decoded."""

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 20,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self.url = url
        self.headers = dict(headers or {})
        host, port = parts.hostname or "", parts.port
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=tls)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def request(
        self, method: str, target: str, body: bytes | Iterable[bytes] | None = None, /, **headers: str
    ) -> Response:
        """One exchange. ``target`` is a path or an absolute URL of this origin; ``Content_Type=`` names a header."""
        parts = urllib.parse.urlsplit(target)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            named["Transfer-Encoding"] = "chunked"
        try:
            self._connection.request(method, path, body, self.headers | named, encode_chunked=chunked)
            response = self._connection.getresponse()
            with response:
                return Response(response.status, response.headers, response.read())
        except BaseException:
            self._connection.close()
            raise

    def open_upload(self, repository: str) -> str:
        """POST; returns the session's Location."""
        reply = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        assert reply.status == 202, reply
        return reply.location

    def push_blob(self, repository: str, data: bytes) -> str:
        """POST and one PUT; returns the digest."""
        digest = digest_of(data)
        reply = self.request("PUT", with_digest(self.open_upload(repository), digest), data, Content_Type=OCTETS)
        assert reply.status == 201, (reply.status, reply.body)
        return digest

    def push_manifest(self, repository: str, reference: str, body: bytes, media_type: str = MANIFEST) -> Response:
        return self.request("PUT", f"/v2/{repository}/manifests/{reference}", body, Content_Type=media_type)

    def manifest(self, repository: str, reference: str, method: str = "GET") -> Response:
        return self.request(method, f"/v2/{repository}/manifests/{reference}", **ACCEPT)


def with_digest(location: str, digest: str) -> str:
    """A session's Location with the digest added, the rest untouched."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"
