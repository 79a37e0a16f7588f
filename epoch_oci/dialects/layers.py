"""The files that an artifact's layers carry: whole, in parts, in chunks (docs/format.md, "Layers", "Parts" and 7.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import Role, SnapshotFile
from epoch_oci.dialects.profile import (
    CHUNK_INDEX,
    CHUNK_PACK,
    CHUNKED_TYPES,
    PART_COUNT,
    PART_DIGEST,
    PART_FILE,
    PART_INDEX,
    PART_KEYS,
    PART_OFFSET,
    PART_SIZE,
    PART_SUFFIX,
    ROLE,
)
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import EMPTY, Descriptor, size_of
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.parts import PartTable, spans
from epoch_oci.oci.strict_json import member_path

BASE_IMAGE: Role = "base-image"


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """A file as the layers from `path` on tell it; `digest` and `size` are those of the whole file.

    `name` is None where a layer has no title.
    """

    path: str
    name: str | None
    role: Role
    media_type: str
    digest: Digest
    size: int
    carriers: tuple[Descriptor, ...]

    @property
    def in_parts(self) -> bool:
        """Whether the layers are parts; a single layer may be one, too."""
        return is_part(self.carriers[0])

    @property
    def name_path(self) -> str:
        """The JSON path of what names the file."""
        return member_path(f"{self.path}.annotations", PART_FILE if self.in_parts else media_types.TITLE)


def whole_layer(name: str, role: Role, blob: Descriptor) -> Descriptor:
    """The layer that carries a file of this name in one piece."""
    annotations = {media_types.TITLE: name}
    if role == BASE_IMAGE:
        # Only where it says something: a layer without a role is a file (docs/format.md, 2.1).
        annotations[ROLE] = role
    return replace(blob, annotations=annotations)


def part_layers(whole: Descriptor, table: PartTable) -> tuple[Descriptor, ...]:
    """The layers that carry what `whole` would, cut as `table` says, which has one digest for each part."""
    # Everything about the whole file stands in each part: whoever finds one of them knows what it is of.
    title = whole.annotations[media_types.TITLE]
    common = {
        **whole.annotations,
        PART_FILE: title,
        PART_COUNT: str(len(table.digests)),
        PART_SIZE: str(whole.size),
        PART_DIGEST: str(whole.digest),
    }
    cuts = zip(spans(whole.size, table.size), table.digests, strict=True)
    return tuple(
        Descriptor(
            media_type=part_type(whole.media_type),
            digest=digest,
            size=length,
            annotations={
                **common,
                media_types.TITLE: part_title(title, index),
                PART_INDEX: str(index),
                PART_OFFSET: str(offset),
            },
        )
        for index, ((offset, length), digest) in enumerate(cuts)
    )


def cuts_of(image: ImageManifest) -> dict[str, int]:
    """How an artifact carries each of its files, by digest: the size of its parts in bytes, 0 for one that is whole."""
    found: dict[str, int] = {}
    for layer in image.layers:
        if not is_part(layer):
            found[str(layer.digest)] = 0
        elif layer.annotations.get(PART_OFFSET) == "0":
            found[layer.annotations.get(PART_DIGEST, "")] = layer.size
    return found


def part_title(name: str, index: int) -> str:
    """The title of a part: of fixed width, so that the order of names is the order of bytes."""
    # Four digits: at most 100 parts are written, and readers that sort by name have been seen to sort .10 before .9
    # (trap 22).
    return f"{name}{PART_SUFFIX}.{index:04d}"


def part_type(media_type: str) -> str:
    """The media type of a part of a file of `media_type`."""
    # Octets are octets in part as well; a type of its own tells a reader of disks that this is none yet.
    return media_type if media_type == media_types.OCTET_STREAM else media_type + PART_SUFFIX


def is_part(layer: Descriptor) -> bool:
    """Whether a layer says that it is a part."""
    return any(key in layer.annotations for key in PART_KEYS)


def is_placeholder(layer: Descriptor) -> bool:
    """Whether a layer is the empty descriptor that stands where there is nothing to list."""
    return layer.media_type == media_types.EMPTY and layer.digest == EMPTY.digest and layer.title is None


def carried_files(layers: Sequence[Descriptor], found: list[Finding], *, first: int = 0) -> list[CarriedFile]:
    """Every file that the layers carry, in order; placeholders are left out. What is wrong is added to `found`.

    `first` is the place of the first of them in the manifest.
    """
    return [
        _joined(first + index, run, found) if is_part(run[0]) else _whole(first + index, run[0], found)
        for index, run in _runs(layers)
    ]


def to_snapshot_file(file: CarriedFile) -> SnapshotFile:
    """`file` as the rest of the program knows it. It must have a name."""
    assert file.name is not None
    return SnapshotFile(
        name=file.name,
        role=file.role,
        media_type=file.media_type,
        digest=file.digest,
        size=file.size,
        carriers=file.carriers if file.size else (),
    )


def is_chunked(manifest: ImageManifest) -> bool:
    """Whether an artifact says that its files are in chunks."""
    return manifest.artifact_type in CHUNKED_TYPES.values()


def packs_of(manifest: ImageManifest) -> tuple[Descriptor, ...]:
    """The packs among the layers, in order."""
    return tuple(layer for layer in manifest.layers if layer.media_type == CHUNK_PACK)


def in_chunks(file: SnapshotFile, layers: tuple[Descriptor, ...]) -> SnapshotFile:
    """A file that the index among `layers` describes."""
    return replace(file, encoding="chunks", carriers=layers)


def chunk_layers(manifest: ImageManifest, found: list[Finding]) -> tuple[Descriptor, ...]:
    """The index and the packs, none where there is no index. What stands where it may not is added to `found`."""
    layers = manifest.layers
    if not layers or layers[0].media_type != CHUNK_INDEX:
        end = 0
    else:
        end = next((at for at, layer in enumerate(layers) if at and layer.media_type != CHUNK_PACK), len(layers))
    # Told, and not passed over: a pack that no index lists would hide bytes that nobody looks at.
    found += [
        Finding(f"$.layers[{at}].mediaType", "MISMATCH", f"{shown(layer.media_type)} may not stand here")
        for at, layer in enumerate(layers[end:], end)
        if layer.media_type in (CHUNK_INDEX, CHUNK_PACK)
    ]
    return layers[:end]


def url_warnings(manifest: ImageManifest) -> list[Finding]:
    """One warning when descriptors offer other places to download from; they are never asked."""
    for index, layer in enumerate(manifest.layers):
        if layer.extra.get("urls"):
            return [Finding(f"$.layers[{index}].urls", "SCHEMA", "urls of descriptors are not used", "warning")]
    return []


def _runs(layers: Sequence[Descriptor]) -> Iterator[tuple[int, tuple[Descriptor, ...]]]:
    """The index and the layers of each file: neighbours that claim to be parts of one, everything else alone."""
    index = 0
    while index < len(layers):
        end = index + 1
        # Neighbours only: parts that lie apart are no artifact of ours, and `cat` would not join them.
        if is_part(layers[index]):
            while end < len(layers) and is_part(layers[end]) and _part_of(layers[end]) == _part_of(layers[index]):
                end += 1
        if not is_placeholder(layers[index]):
            yield index, tuple(layers[index:end])
        index = end


def _part_of(layer: Descriptor) -> tuple[str | None, str | None]:
    return layer.annotations.get(PART_FILE), layer.annotations.get(PART_DIGEST)


def _whole(index: int, layer: Descriptor, found: list[Finding]) -> CarriedFile:
    path = f"$.layers[{index}]"
    role = _role(layer, path, found)
    return CarriedFile(path, layer.title, role, layer.media_type, layer.digest, layer.size, (layer,))


def _role(layer: Descriptor, path: str, found: list[Finding]) -> Role:
    text = layer.annotations.get(ROLE, "layer")
    if text == "layer":
        return "layer"
    # Told, and taken for a base image: what is no file of the snapshot must never become one (trap 14).
    if text != BASE_IMAGE:
        where = member_path(f"{path}.annotations", ROLE)
        found.append(Finding(where, "SCHEMA", f"{shown(text)} is no role of a layer that is known here"))
    return BASE_IMAGE


def _joined(index: int, run: tuple[Descriptor, ...], found: list[Finding]) -> CarriedFile:
    path, first = f"$.layers[{index}]", run[0]
    size = _whole_size(first, path, found)
    digest = _whole_digest(first, path, found)
    # By the first part; every other one is held against it.
    name = first.annotations.get(PART_FILE)
    if name is None:
        found.append(Finding(f"{path}.annotations", "SCHEMA", f"{PART_FILE} is missing"))
    offset = 0
    for position, part in enumerate(run):
        _check_part(part, position, offset, run, f"$.layers[{index + position}]", found)
        offset += part.size
    if size is not None and offset != size:
        found.append(Finding(path, "MISMATCH", f"the parts of {shown(name)} have {offset} of its {size} bytes"))
    role = _role(first, path, found)
    return CarriedFile(path, name, role, _whole_type(first, path, found), digest, size or 0, run)


def _check_part(
    part: Descriptor, position: int, offset: int, run: tuple[Descriptor, ...], path: str, found: list[Finding]
) -> None:
    """A part must be where it says it is, and agree with the first one in everything that is about the whole file."""
    first = run[0]
    expected = {
        media_types.TITLE: part_title(first.annotations.get(PART_FILE, ""), position),
        PART_INDEX: str(position),
        PART_COUNT: str(len(run)),
        PART_OFFSET: str(offset),
        PART_SIZE: first.annotations.get(PART_SIZE),
        PART_DIGEST: first.annotations.get(PART_DIGEST),
        ROLE: first.annotations.get(ROLE),
    }
    for key, value in expected.items():
        actual = part.annotations.get(key)
        if actual != value:
            where = member_path(f"{path}.annotations", key)
            found.append(Finding(where, "MISMATCH", f"is {shown(actual)}, expected {shown(value)}"))
    if part.media_type != first.media_type:
        problem = f"is {shown(part.media_type)}, the part before has {shown(first.media_type)}"
        found.append(Finding(f"{path}.mediaType", "MISMATCH", problem))
    # Registries disagree about empty blobs, and an index over parts would not be of bytes.
    if part.size == 0:
        found.append(Finding(f"{path}.size", "SIZE", "a part cannot be empty"))


def _whole_size(layer: Descriptor, path: str, found: list[Finding]) -> int | None:
    text = layer.annotations.get(PART_SIZE)
    if (size := size_of(text)) is None:
        where = member_path(f"{path}.annotations", PART_SIZE)
        found.append(Finding(where, "SIZE", f"{shown(text)} is not a size in bytes"))
    return size


def _whole_digest(layer: Descriptor, path: str, found: list[Finding]) -> Digest:
    try:
        return Digest.parse(layer.annotations.get(PART_DIGEST))
    except ContentError as error:
        found.append(Finding(member_path(f"{path}.annotations", PART_DIGEST), "DIGEST", error.message))
        return layer.digest


def _whole_type(layer: Descriptor, path: str, found: list[Finding]) -> str:
    if layer.media_type == media_types.OCTET_STREAM:
        return layer.media_type
    if not layer.media_type.endswith(PART_SUFFIX):
        found.append(Finding(f"{path}.mediaType", "TYPE", f"{shown(layer.media_type)} is no media type of a part"))
    return layer.media_type.removesuffix(PART_SUFFIX)
