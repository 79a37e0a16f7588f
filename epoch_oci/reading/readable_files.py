"""A snapshot opened for reading: its files by name, as a hypervisor sees them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.artifacts.at_hand import with_reading_kept
from epoch_oci.artifacts.chunked import ChunkedContent, UnfoldedContent, folds_of
from epoch_oci.artifacts.decode import Decoding, carried_content
from epoch_oci.artifacts.read import StoredSnapshot, as_snapshot, read_artifact, read_stored
from epoch_oci.chunks.fold import Fold
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import NotFoundError, UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.stores.base import BytesContent, Content, Source

if TYPE_CHECKING:
    from epoch_oci.locate import Place


@dataclass(frozen=True, slots=True)
class ReadableFile:
    """One file; `whole` names all of its bytes where its content is the blob itself, to be checked at the end.

    `checked` says that whatever is read of the content was verified chunk by chunk.
    """

    name: str
    content: Content
    whole: Descriptor | None
    checked: bool

    @property
    def size(self) -> int:
        """Length in bytes, unfolded."""
        return self.content.size


CACHE_SIZE = 10 << 30
"""Most that a cache keeps, in bytes, where nobody says otherwise."""


def files_at(
    place: "Place", name: str, cache: Path | None = None, cache_size: int | None = CACHE_SIZE
) -> Mapping[str, ReadableFile]:
    """The files of a snapshot in a store, repository or layout; `name` is what it is called there.

    Packed ones are unfolded. What is read of files in chunks is kept in the directory `cache`, where later reading and
    pulling find it: at most about `cache_size` bytes, what was used longest ago goes first. No file is read. Raises
    ContentError, NotFoundError, and what reading raises.
    """
    from epoch_oci.locate import SnapshotPlace

    if isinstance(place, SnapshotPlace):
        if place.key is None:
            raise UsageError(f"{place.where} is a whole store", object=place.where, hint="name a snapshot in it")
        stored = read_stored(place.store, place.key)
        return files_of_snapshot(as_snapshot(place.store, place.key, stored, Decoding()))
    return files_of_artifact(place.store, name, cache, cache_size)


def files_of_artifact(
    source: Source, name: str, cache: Path | None = None, cache_size: int | None = CACHE_SIZE
) -> Mapping[str, ReadableFile]:
    """As `files_at`, of an artifact."""
    found = read_artifact(source, name, Decoding(cache=cache))
    source = with_reading_kept(found.source, cache, cache_size) if cache is not None else found.source
    folds = folds_of(found.snapshot.manifest)
    files = {}
    for file in found.snapshot.files:
        content = carried_content(source, file) if file.size else BytesContent(b"")
        files[file.name] = _readable(file.name, content, file.blob, folds.get(file.digest))
    return files


def files_of_snapshot(stored: StoredSnapshot) -> Mapping[str, ReadableFile]:
    """As `files_at`, of a snapshot in an Epoch store."""
    manifest, source = stored.manifest, stored.source
    folds = folds_of(manifest)
    return {
        layer.filename: _readable(
            layer.filename, source.content(layer.descriptor), layer.descriptor, folds.get(layer.digest)
        )
        for layer in (*manifest.layers, *manifest.base_images)
    }


def chosen(files: Mapping[str, ReadableFile], name: str) -> ReadableFile:
    """The file called `name`. Raises NotFoundError, which lists those there are."""
    if name not in files:
        raise NotFoundError(f"there is no file {shown(name)}", object=name, hint=f"the files are: {', '.join(files)}")
    return files[name]


def _readable(name: str, content: Content, blob: Descriptor, fold: Fold | None) -> ReadableFile:
    checked = isinstance(content, ChunkedContent)
    if fold is None:
        return ReadableFile(name, content, blob, checked)
    if isinstance(content, ChunkedContent):
        # The chunks are those of the unfolded file.
        return ReadableFile(name, ChunkedContent(content.chunks, content.chunks.size), None, checked)
    return ReadableFile(name, UnfoldedContent(content, fold), None, checked)
