"""The files that the layers of a snapshot carry: whole, compressed or in chunks (epoch-formats 4.6 and 4.10)."""

from collections.abc import Iterable, Iterator, Sequence

from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import EncodedFile, Encoding
from epoch_oci.dialects.cocoonstack import vocabulary
from epoch_oci.dialects.cocoonstack.config import FileEntry, SnapshotConfig
from epoch_oci.dialects.layers import is_placeholder
from epoch_oci.epoch import sparse
from epoch_oci.epoch.manifest import media_type_for_file
from epoch_oci.errors import Finding
from epoch_oci.oci import filename, media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.strict_json import member_path
from epoch_oci.oci.verifying import empty_problem


@dataclass(frozen=True, slots=True)
class TitledLayers:
    """All layers of one title, in order; `path` is the JSON path of the first."""

    path: str
    title: str
    layers: tuple[Descriptor, ...]

    @property
    def zstd(self) -> bool:
        """Whether they are compressed."""
        return vocabulary.is_zstd(self.layers[0].media_type)


def titled_layers(manifest: ImageManifest, found: list[Finding]) -> list[TitledLayers]:
    """The layers by title, in the order in which the titles first occur."""
    # A snapshot of no files, as tools write one for registries that refuse an empty array (oci-registries 1.2).
    if len(manifest.layers) == 1 and is_placeholder(manifest.layers[0]):
        return []
    rows: dict[str, list[tuple[str, Descriptor]]] = {}
    for index, layer in enumerate(manifest.layers):
        path = f"$.layers[{index}]"
        if (why := filename.problem(layer.title)) is not None or layer.title is None:
            found.append(Finding(_title_path(path), "NAME", why or "a file name is missing"))
            continue
        if layer.digest.algorithm != "sha256":
            problem = f"{layer.digest} is not sha256, all that Epoch knows"
            found.append(Finding(f"{path}.digest", "DIGEST", problem))
        elif (why := empty_problem(layer.digest, layer.size)) is not None:
            found.append(Finding(f"{path}.digest", "DIGEST", why))
        # Chunks of one file share its title and need not be neighbours (epoch-formats 4.10).
        rows.setdefault(layer.title, []).append((path, layer))
    found.extend(filename.clash_findings((_title_path(items[0][0]), title) for title, items in rows.items()))
    return [TitledLayers(items[0][0], title, tuple(layer for _, layer in items)) for title, items in rows.items()]


def read_files(
    rows: Iterable[TitledLayers], config: SnapshotConfig, manifest: ImageManifest, found: list[Finding]
) -> tuple[EncodedFile, ...]:
    """The files of a snapshot. Whatever does not agree with the config is added to `found`."""
    # Reversed, so that the first of equal ones stays.
    by_digest = {layer.digest: layer for layer in reversed(manifest.layers)}
    files = []
    for row in rows:
        entry = config.files.get(row.title, FileEntry())
        file = _whole(row, entry, found) if _is_whole(row, entry) else _encoded(row, entry, config, by_digest, found)
        files.append(file)
        found.extend(_sparse_findings(file, row.path, entry))
        if row.title not in config.files:
            found.extend(_unmapped_findings(file, row.path, config))
    return tuple(files)


def unproven(files: Iterable[EncodedFile], config: SnapshotConfig) -> list[Finding]:
    """One warning naming the files that Epoch 0.1.6 or 0.1.7 may have packed without anything telling so (trap 8)."""
    doubtful = [
        file.name
        for file in files
        if file.name not in config.files and (not file.size or file.size != _logical(file, config))
    ]
    if not doubtful:
        return []
    listed = ", ".join(map(shown, doubtful[:5])) + (f" and {len(doubtful) - 5} more" if len(doubtful) > 5 else "")
    problem = (
        f"the config has no entry for {listed}: if Epoch 0.1.6 or 0.1.7 pushed them and they had holes, they are "
        "damaged and nothing shows it"
    )
    return [Finding("$.config", "MISMATCH", problem, "warning")]


def type_warnings(rows: Iterable[TitledLayers]) -> Iterator[Finding]:
    """One for each file that cocoon-common will not pull, because it does not know the layer's type."""
    for row in rows:
        media_type = row.layers[0].media_type
        if media_type.removesuffix(vocabulary.ZSTD) not in vocabulary.SNAPSHOT_LAYERS:
            # A warning alone: Epoch reads it, and so do we.
            problem = f"{shown(row.title)} is of type {shown(media_type)}, which the cocoon tools refuse to pull"
            yield Finding(f"{row.path}.mediaType", "TYPE", problem, "warning")


def lost_of(rows: Iterable[TitledLayers]) -> Iterator[str]:
    """What the layers say that an Epoch manifest has no place for."""
    for row in rows:
        media_type = row.layers[0].media_type.removesuffix(vocabulary.ZSTD)
        if media_type != vocabulary.layer_type_for_file(row.title):
            yield f"media type {shown(media_type)} of {shown(row.title)}"
        # A dict for its order, each key once for the file.
        keys = {key: None for layer in row.layers for key in layer.annotations}
        yield from (f"annotation {shown(key)} of {shown(row.title)}" for key in keys if key not in _USED)


_USED = frozenset({media_types.TITLE, vocabulary.CHUNK_INDEX, vocabulary.CHUNK_COUNT})


def _is_whole(row: TitledLayers, entry: FileEntry) -> bool:
    return not row.zstd and not entry.chunks


def _whole(row: TitledLayers, entry: FileEntry, found: list[Finding]) -> EncodedFile:
    layer = row.layers[0]
    if len(row.layers) > 1:
        found.append(Finding(_title_path(row.path), "NAME", f"{shown(row.title)} is the title of several layers"))
    # Version 1 has no size, and 0 stands for none (trap 34).
    if entry.size not in (0, layer.size):
        problem = f"{shown(row.title)} has {layer.size} bytes, the config says {entry.size}"
        found.append(Finding(f"{row.path}.size", "MISMATCH", problem))
    return EncodedFile(
        name=row.title,
        media_type=media_type_for_file(row.title),
        size=layer.size,
        digest=layer.digest,
        carriers=(layer,),
    )


def _encoded(
    row: TitledLayers,
    entry: FileEntry,
    config: SnapshotConfig,
    by_digest: dict[Digest, Descriptor],
    found: list[Finding],
) -> EncodedFile:
    # cocoon-common aborts there; whoever read on would write compressed bytes as a disk (epoch-formats 4.10).
    if config.version != "v2":
        problem = f"{shown(row.title)} is compressed or cut into chunks, which version 1 does not know"
        found.append(Finding(f"{row.path}.mediaType", "TYPE", problem))
    if {vocabulary.is_zstd(layer.media_type) for layer in row.layers} != {row.zstd}:
        problem = f"some layers of {shown(row.title)} are compressed and some are not"
        found.append(Finding(f"{row.path}.mediaType", "MISMATCH", problem))
    # Nothing else bounds what it decodes to (reliability Z2).
    if not entry.size:
        found.append(Finding(f"{row.path}.size", "SIZE", f"the config does not say how large {shown(row.title)} is"))
    carriers = _chunks(row, entry.chunks, by_digest, found) if entry.chunks else _single(row, found)
    encoding: Encoding = "zstd" if row.zstd else ""
    total = sum(layer.size for layer in carriers)
    if not encoding and entry.size and total != entry.size:
        problem = f"the chunks of {shown(row.title)} have {total} of its {entry.size} bytes"
        found.append(Finding(f"{row.path}.size", "SIZE", problem))
    if any(layer.size == 0 for layer in carriers):
        found.append(Finding(f"{row.path}.size", "SIZE", f"a chunk of {shown(row.title)} is empty"))
    return EncodedFile(
        name=row.title,
        media_type=media_type_for_file(row.title),
        size=entry.size,
        # A digest of Epoch's is that of the decoded file, which only decoding tells.
        digest=carriers[0].digest if len(carriers) == 1 and not encoding else None,
        carriers=tuple(carriers),
        encoding=encoding,
    )


def _single(row: TitledLayers, found: list[Finding]) -> Sequence[Descriptor]:
    if len(row.layers) > 1:
        problem = f"{shown(row.title)} has several layers, and the config does not say in which order"
        found.append(Finding(_title_path(row.path), "MISMATCH", problem))
    return row.layers[:1]


def _chunks(
    row: TitledLayers, chunks: tuple[Digest, ...], by_digest: dict[Digest, Descriptor], found: list[Finding]
) -> Sequence[Descriptor]:
    """The layers in the config's order, which alone counts.

    Equal chunks of two files may be one layer, which then has the title of either.
    """
    own = {layer.digest: layer for layer in row.layers}
    carriers = []
    for index, digest in enumerate(chunks):
        # The writer looks descriptors up by digest and keeps one of each, whatever its title.
        layer = own.get(digest) or by_digest.get(digest)
        if layer is None:
            problem = f"no layer is chunk {index} of {shown(row.title)}, {digest}"
            found.append(Finding("$.layers", "MISMATCH", problem))
        else:
            carriers.append(layer)
    listed = set(chunks)
    for digest in own:
        if digest not in listed:
            problem = f"the config does not list {digest} among the chunks of {shown(row.title)}"
            found.append(Finding(_title_path(row.path), "MISMATCH", problem))
    return carriers


def _sparse_findings(file: EncodedFile, path: str, entry: FileEntry) -> list[Finding]:
    if not entry.pax_records:
        return []
    found: list[Finding] = []
    sparse.read_unpacking(entry.pax_records, file.size, "$", found)
    return [Finding(path, problem.code, f"{shown(file.name)}: {problem.problem}") for problem in found]


def _unmapped_findings(file: EncodedFile, path: str, config: SnapshotConfig) -> list[Finding]:
    """Epoch 0.1.6 and 0.1.7 packed sparse files and kept no map; where the file's length is known it proves it."""
    logical = _logical(file, config)
    # A file of the right length is whole, with or without a map.
    if logical in (0, file.size):
        return []
    problem = (
        f"{shown(file.name)} has {file.size} bytes, the file it stands for {logical}: Epoch 0.1.6 and 0.1.7 packed "
        "files with holes and kept no map of them, so it cannot be unfolded; push the snapshot anew with Epoch 0.1.8 "
        "or later"
    )
    return [Finding(f"{path}.size", "SIZE", problem)]


def _logical(file: EncodedFile, config: SnapshotConfig) -> int:
    """Length in bytes that a file must have by the config, 0 where it does not tell."""
    return {"cow.raw": config.storage, "memory-ranges": config.memory}.get(file.name, 0)


def _title_path(path: str) -> str:
    return member_path(f"{path}.annotations", media_types.TITLE)
