"""Snapshots as an fsspec file system: `epoch-oci://HOST/REPOSITORY:TAG/FILE`, for every tool that is built on it."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

from epoch_oci.errors import NotFoundError, UsageError
from epoch_oci.reading.readable_files import CACHE_SIZE, ReadableFile, chosen, files_at
from epoch_oci.reading.remote_file import RemoteFile


class EpochOciFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Read-only. A path is a registry reference, or `oci:DIR:TAG`, then `/` and the name of a file.

    Keyword arguments are those of `epoch_oci.Connection`, and `cache` and `cache_size`, as for `epoch_oci.open_file`.
    Errors are those of `epoch_oci`, and FileNotFoundError.
    """

    protocol = "epoch-oci"
    root_marker = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        from epoch_oci.locate import Connection

        cache = options.pop("cache", None)
        self._cache = None if cache is None else Path(cache)
        self._cache_size = options.pop("cache_size", CACHE_SIZE)
        known = {name: options.pop(name) for name in list(options) if name in Connection.__dataclass_fields__}
        super().__init__(*args, **options)
        self._connection = Connection(**known)
        self._snapshots: dict[str, Mapping[str, ReadableFile]] = {}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The files of a snapshot, or the one file."""
        path = self._strip_protocol(path)
        try:
            rows = [self._row(path, file) for file in self._files(path).values()]
        except (UsageError, NotFoundError):
            rows = [self.info(path)]
        return rows if detail else [row["name"] for row in rows]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Name, size in bytes and type; of a snapshot, a directory."""
        path = self._strip_protocol(path)
        reference, _, name = path.rpartition("/")
        try:
            return self._row(reference, chosen(self._files(reference), name))
        except (UsageError, NotFoundError):
            pass
        try:
            self._files(path)
        except (UsageError, NotFoundError) as error:
            raise FileNotFoundError(f"{path}: {error.message}") from error
        return {"name": path, "size": 0, "type": "directory"}

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> io.BufferedReader:
        if mode != "rb":
            raise ValueError("snapshots are only read")
        reference, _, name = self._strip_protocol(path).rpartition("/")
        try:
            return io.BufferedReader(RemoteFile(chosen(self._files(reference), name)), 256 << 10)
        except NotFoundError as error:
            raise FileNotFoundError(f"{path}: {error.message}") from error

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Bytes `start` to `end` of a file; negative ones count from its end."""
        with self._open(path) as file:
            size = file.raw.size  # type: ignore[attr-defined]
            first, last, _ = slice(start, end).indices(size)
            file.seek(first)
            return file.read(max(0, last - first))

    def _files(self, reference: str) -> Mapping[str, ReadableFile]:
        from epoch_oci.locate import ArtifactPlace, locate_artifact

        if reference not in self._snapshots:
            place = locate_artifact(reference, connection=self._connection)
            assert isinstance(place, ArtifactPlace)
            self._snapshots[reference] = files_at(place, place.name or "latest", self._cache, self._cache_size)
        return self._snapshots[reference]

    def _row(self, reference: str, file: ReadableFile) -> dict[str, Any]:
        return {"name": f"{reference}/{file.name}", "size": file.size, "type": "file"}
