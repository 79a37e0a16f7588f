"""``LegacyEpoch``: a server as Epoch 0.1.x was, quirks and all, over a dictionary that stands for its bucket.

    with LegacyEpoch(token="...") as server:
        server.put_blob(b"...")
        server.put_manifest("bot", "v1", b"{...}")          # the object and its catalog entry; either can be left out
        server.address, server.url, server.recording

``version`` is ``"0.1.4"``, ``"0.1.5"`` (HEAD of a manifest is answered from memory), ``"6793481"`` (the last build
before OCI: names of several components, reading without a token) or ``"0.1.6"`` (OCI manifests over the same paths).
"""

import hashlib
import json
from urllib.parse import unquote

from support.recorder import Recorder
from support.wire import Answer, Request

MANIFEST_TYPE = "application/vnd.epoch.manifest.v1+json"
OCI_TYPE = "application/vnd.oci.image.manifest.v1+json"
_API = ("Docker-Distribution-API-Version", "registry/2.0")


class LegacyEpoch(Recorder):
    """``objects`` is what is in the bucket by key; ``stuck`` makes reading the catalog hang, as 0.1.5 does."""

    def __init__(self, *, token: str | None = None, version: str = "0.1.4", **options: object) -> None:
        super().__init__(self._answer, **options)
        self.token = token
        self.version = version
        self.stuck = False
        self.decodes_slashes = False
        """A reverse proxy in front that turns ``%2F`` into ``/``."""
        self.objects: dict[str, bytes] = {}
        self.catalog: dict[str, dict[str, str]] = {}
        self._memory: dict[str, str] = {}

    def put_blob(self, content: bytes, digest: str | None = None) -> str:
        """Store a blob, under any digest: nobody hashes it."""
        digest = digest or hashlib.sha256(content).hexdigest()
        self.objects[f"blobs/sha256/{digest}"] = content
        return digest

    def put_manifest(self, name: str, tag: str, raw: bytes, *, listed: bool = True, stored: bool = True) -> None:
        key = f"manifests/{name}/{tag}.json"
        if stored:
            self.objects[key] = raw
        if listed:
            self.catalog.setdefault(name, {})[tag] = key

    def _answer(self, request: Request) -> Answer:
        path = request.target.partition("?")[0]
        if self.decodes_slashes:
            path = unquote(path)
        if not path.startswith("/v2/"):
            return Answer.of(404, b"404 page not found\n")
        if not self._is_let_in(request):
            return Answer.error(
                401, "UNAUTHORIZED", "authentication required", ("WWW-Authenticate", 'Bearer realm="epoch"')
            )
        parts = [unquote(part) for part in path.removeprefix("/v2/").split("/")]
        return self._route(request, parts) or self._unmatched(request)

    def _is_let_in(self, request: Request) -> bool:
        if self.token is None or (self.version in ("6793481", "0.1.6") and request.method in ("GET", "HEAD")):
            return True
        return request.headers.get("Authorization") in (f"Bearer {self.token}", self.token)

    def _unmatched(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return Answer.of(405, b"Method Not Allowed\n")
        if self.version == "0.1.6" and request.path != "/v2/":
            return Answer.error(404, "NAME_UNKNOWN")
        return Answer.json(200, {}, _API)

    def _route(self, request: Request, parts: list[str]) -> Answer | None:
        if request.method not in ("GET", "HEAD"):
            return None
        if parts == ["_catalog"] and request.method == "GET":
            return self._catalog()
        if self.version in ("6793481", "0.1.6") and len(parts) > 3:
            parts = ["/".join(parts[:-2]), *parts[-2:]]
        match parts:
            case [name, "tags", "list"] if request.method == "GET":
                return Answer.json(200, {"name": name, "tags": self._tags(name)})
            case [name, "manifests", reference]:
                return self._manifest(request.method, name, reference)
            case [_, "blobs", digest]:
                return self._blob(digest.removeprefix("sha256:"))
        return None

    def _catalog(self) -> Answer:
        if self.stuck:
            self.stopping.wait()
        return Answer.json(200, {"repositories": sorted(self.catalog, reverse=True)})

    def _tags(self, name: str) -> list[str]:
        """The last component of every key below the repository, its own or not."""
        prefix = f"manifests/{name}/"
        keys = [key for key in self.objects if key.startswith(prefix)]
        if self.version == "0.1.6":
            keys = [key for key in keys if "/" not in key.removeprefix(prefix)]
        return [key.rpartition("/")[2].removesuffix(".json") for key in keys]

    def _manifest(self, method: str, name: str, reference: str) -> Answer:
        key = f"manifests/{name}/{reference}.json"
        if method == "HEAD" and self.version == "0.1.5":
            return self._head_from_memory(key)
        raw = self.objects.get(key)
        if raw is None:
            return Answer.error(404, "MANIFEST_UNKNOWN", f"manifest {name}:{reference} not found")
        media_type = OCI_TYPE if self.version == "0.1.6" else MANIFEST_TYPE
        digest = hashlib.sha256(raw).hexdigest()
        self._memory[key] = digest
        return Answer.of(200, raw, ("Content-Type", media_type), ("Docker-Content-Digest", f"sha256:{digest}"))

    def _head_from_memory(self, key: str) -> Answer:
        """0.1.5 says what it remembers: a digest that may be stale, or none after a restart."""
        if key not in self._memory and key not in self.objects:
            return Answer.of(404)
        known = self._memory.get(key)
        return Answer.of(200, b"", *([("Docker-Content-Digest", f"sha256:{known}")] if known else []))

    def _blob(self, digest: str) -> Answer:
        content = self.objects.get(f"blobs/sha256/{digest}")
        if content is None:
            return Answer.error(404, "BLOB_UNKNOWN", "blob not found")
        headers = [("Content-Type", "application/octet-stream"), ("Docker-Content-Digest", f"sha256:{digest}")]
        return Answer.of(200, content, *headers)


def manifest_of(name: str, tag: str, files: dict[str, bytes]) -> bytes:
    """A manifest as ``epoch push`` 0.1.4 wrote it."""
    layers = [
        {"digest": hashlib.sha256(raw).hexdigest(), "size": len(raw), "filename": file, "mediaType": "a/b"}
        for file, raw in files.items()
    ]
    value = {"schemaVersion": 1, "name": name, "tag": tag, "snapshotId": "9f3c1a7be20d4c55", "layers": layers}
    value |= {"totalSize": sum(map(len, files.values()))}
    value |= {"createdAt": "2026-04-03T09:15:00Z", "pushedAt": "0001-01-01T00:00:00Z"}
    return json.dumps(value, indent=2).encode()
