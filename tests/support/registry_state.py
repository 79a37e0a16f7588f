"""What a ``FakeRegistry`` keeps: repositories with blobs, manifests, tags and open uploads.

Bytes live in memory, or in files of a spool directory when one is given (for blobs of many gigabytes).
"""

import hashlib
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.wire import BLOCK


class Content:
    """Bytes that grow at the end and are read anywhere. The base keeps them in memory."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._sha256 = hashlib.sha256()
        self.size = 0

    def append(self, data: bytes) -> None:
        self._sha256.update(data)
        self._store(data)
        self.size += len(data)

    def _store(self, data: bytes) -> None:
        self._data += data

    def _load(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    def slices(self, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = self.size if length is None else min(self.size, start + length)
        for offset in range(start, end, BLOCK):
            yield self._load(offset, min(BLOCK, end - offset))

    def read(self) -> bytes:
        return b"".join(self.slices())

    def digest(self, algorithm: str) -> str:
        """The digest by ``algorithm``; raises ValueError when it is none of OCI's."""
        if algorithm == "sha256":
            return f"sha256:{self._sha256.hexdigest()}"
        if algorithm != "sha512":
            raise ValueError(algorithm)
        hasher = hashlib.sha512()
        for block in self.slices():
            hasher.update(block)
        return f"sha512:{hasher.hexdigest()}"

    def close(self) -> None:
        """Release what the content holds."""


class SpooledContent(Content):
    """The same in an unnamed file below ``directory``."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._fd = os.open(directory, os.O_RDWR | os.O_TMPFILE, 0o600)

    def _store(self, data: bytes) -> None:
        view = memoryview(data)
        offset = self.size
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def _load(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(slots=True)
class Upload:
    """An open session. ``guard`` is held while bytes are appended."""

    id: str
    content: Content
    guard: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class Manifest:
    body: bytes
    media_type: str


@dataclass(slots=True)
class Repository:
    blobs: dict[str, Content] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def manifest(self, reference: str) -> tuple[str, Manifest] | None:
        """Digest and manifest under a tag or a digest."""
        digest = reference if ":" in reference else self.tags.get(reference, "")
        found = self.manifests.get(digest)
        return (digest, found) if found else None


class State:
    """All repositories. Every method may be called from any thread."""

    def __init__(self, spool: Path | None = None) -> None:
        self.guard = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self._spool = spool
        self._contents: list[Content] = []

    def new_content(self) -> Content:
        content = Content() if self._spool is None else SpooledContent(self._spool)
        with self.guard:
            self._contents.append(content)
        return content

    def repository(self, name: str) -> Repository:
        """The repository, made when absent."""
        with self.guard:
            return self.repositories.setdefault(name, Repository())

    def known(self, name: str) -> Repository | None:
        with self.guard:
            return self.repositories.get(name)

    def open_upload(self, name: str) -> Upload:
        upload = Upload(str(uuid.uuid4()), self.new_content())
        with self.guard:
            self.repository(name).uploads[upload.id] = upload
        return upload

    def close_upload(self, name: str, upload: Upload) -> None:
        with self.guard:
            self.repository(name).uploads.pop(upload.id, None)

    def forget_uploads(self) -> int:
        """Lose every session, as a restart of many registries does; returns how many there were."""
        with self.guard:
            lost = sum(len(repository.uploads) for repository in self.repositories.values())
            for repository in self.repositories.values():
                repository.uploads.clear()
        return lost

    def put_blob(self, name: str, data: bytes | Iterable[bytes], digest: str | None = None) -> str:
        """Keep ``data`` under its sha256, or under ``digest`` without a look at the bytes."""
        content = self.new_content()
        for block in (data,) if isinstance(data, bytes) else data:
            content.append(block)
        digest = digest or content.digest("sha256")
        with self.guard:
            self.repository(name).blobs[digest] = content
        return digest

    def put_manifest(self, name: str, digest: str, manifest: Manifest, tag: str | None) -> None:
        with self.guard:
            repository = self.repository(name)
            repository.manifests[digest] = manifest
            if tag is not None:
                repository.tags[tag] = digest

    def close(self) -> None:
        with self.guard:
            for content in self._contents:
                content.close()
            self._contents.clear()
