"""What Epoch would have made: a config of an Epoch manifest (epoch-formats 4.4), a manifest of an artifact without one.

And, where a manifest is embedded in an artifact, holding the one against the other.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from epoch_oci.dialects.base import SnapshotFile, WrittenFile
from epoch_oci.dialects.cocoonstack.config import MINTED, ORDER, FileEntry, SnapshotConfig
from epoch_oci.dialects.cocoonstack.extra import Extra
from epoch_oci.dialects.cocoonstack.words import SNAPSHOT_CONFIG
from epoch_oci.epoch import gojson, sparse, times
from epoch_oci.epoch.extra_members import EPOCH, MODERN
from epoch_oci.epoch.manifest import LayerHeader, Manifest
from epoch_oci.epoch.mint import Facts, MintedFile
from epoch_oci.epoch.mint import mint as mint_epoch
from epoch_oci.errors import ContentError, Finding, counted
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document


def file_entries(epoch: Manifest) -> dict[str, FileEntry]:
    """One entry for each layer; without one a reader must suspect a packed file whose map was lost (trap 8)."""
    return {layer.filename: entry_of(epoch.layer_headers.get(layer.filename)) for layer in epoch.layers}


def entry_of(header: LayerHeader | None) -> FileEntry:
    """The entry of a file; an empty one when nothing is known of its mode and the blob is the file itself."""
    if header is None:
        return FileEntry()
    if not sparse.is_packed(header.pax_records):
        return FileEntry(mode=header.mode)
    size = int(header.pax_records[sparse.SIZE])
    return FileEntry(mode=header.mode, sparse_map=header.pax_records[sparse.MAP], sparse_size=size)


def mint(
    epoch: Manifest,
    extra: Extra,
    embedded: Mapping[str, Any] | None,
    written: Mapping[str, WrittenFile] | None = None,
) -> Document:
    """The config of `epoch`, in compact form as Go writes it; `extra` has what `epoch` has no member for.

    `written` has the files that are cut or compressed, and makes it one of version 2.
    """
    entries = {name: _members(entry) for name, entry in file_entries(epoch).items()}
    for layer in epoch.layers if written is not None else ():
        entries[layer.filename] |= _encoded(layer.size, (written or {}).get(layer.filename))
    members = {
        **{key: value for key, value in extra.config.items() if key not in MINTED},
        "schemaVersion": "v1" if written is None else "v2",
        "snapshotId": epoch.snapshot_id,
        "image": epoch.image,
        "imageBlobIds": {blob: {} for blob in epoch.pinned_blobs},
        "cpu": epoch.cpu,
        "memory": epoch.memory,
        "storage": epoch.storage,
        "nics": epoch.nics,
        "files": gojson.sorted_map(entries),
        "createdAt": created_at(epoch) or times.ZERO_TIME,
        EPOCH: dict(embedded or {}),
    }
    filled = {key: value for key, value in members.items() if value or key not in MINTED or key == "snapshotId"}
    return Document(SNAPSHOT_CONFIG, gojson.dumps(_ordered(filled), indent=None))


def derived(
    facts: Facts,
    files: Iterable[SnapshotFile],
    extra: Extra,
    entries: Mapping[str, FileEntry] = MappingProxyType({}),
) -> Manifest:
    """The Epoch manifest that is made of an artifact that has none; modes and maps of `entries` become `layerHeaders`.

    Raises ContentError.
    """
    rows = [
        MintedFile(
            name=file.name,
            digest=file.digest,
            size=file.size,
            media_type=file.media_type,
            header=_header(entries.get(file.name)),
        )
        for file in files
    ]
    members = {MODERN: extra.to_json()}
    return mint_epoch(facts, rows, extra=members, what="the Epoch manifest derived from the artifact")


def _header(entry: FileEntry | None) -> LayerHeader | None:
    if entry is None or not (entry.mode or entry.pax_records):
        return None
    return LayerHeader(entry.mode, entry.pax_records)


def check(config: Document) -> None:
    """Raise ContentError when Epoch's decoder would not take a minted config.

    What rode in the manifest may be anybody's invention, and Go refuses a config with a member of a wrong type.
    """
    try:
        SnapshotConfig.parse(config)
    except ContentError as error:
        found = [
            Finding(f"$.{MODERN}.config{item.path.removeprefix('$')}", item.code, item.problem)
            for item in error.findings
        ]
        raise ContentError.of("the Epoch manifest", found) from None


def created_at(epoch: Manifest) -> str:
    """When the snapshot was made, else when it was pushed, as the text Epoch wrote; "" when it does not say."""
    return next((text for text in (epoch.created_at, epoch.pushed_at) if times.is_set(text)), "")


def _encoded(size: int, written: WrittenFile | None) -> dict[str, Any]:
    """The size of every file, and the order of the layers of one that is cut (epoch-formats 4.10)."""
    chunks = [str(piece.digest) for piece in written.layers] if written is not None else []
    return {"size": size, **({"chunks": chunks} if len(chunks) > 1 else {})}


def _members(entry: FileEntry) -> dict[str, Any]:
    members = {"mode": entry.mode, "sparseMap": entry.sparse_map, "sparseSize": entry.sparse_size}
    return {key: value for key, value in members.items() if value}


def _ordered(members: dict[str, Any]) -> dict[str, Any]:
    """Epoch's members in Epoch's order, then the unknown ones in theirs, the manifest that rides at the end."""
    known = {key: members[key] for key in ORDER if key in members}
    rest = {key: value for key, value in members.items() if key not in known and key != EPOCH}
    return {**known, **rest, **({EPOCH: members[EPOCH]} if EPOCH in members else {})}


def disagreements(epoch: Manifest, config: SnapshotConfig, files: Sequence[SnapshotFile]) -> list[Finding]:
    """Where the manifest and what Epoch would make of the artifact differ; base images are not looked at."""
    return [*_fact_findings(epoch, config), *file_findings(epoch, files), *_entry_findings(epoch, config)]


def file_findings(epoch: Manifest, files: Sequence[SnapshotFile]) -> Iterator[Finding]:
    """The same files in the same order, with the same digests and sizes."""
    for index, (layer, file) in enumerate(zip(epoch.layers, files, strict=False)):
        rows = (
            ("filename", layer.filename, file.name),
            ("digest", str(layer.digest), str(file.digest)),
            ("size", layer.size, file.size),
        )
        for key, should, is_ in rows:
            if is_ != should:
                yield Finding(
                    f"$.layers[{index}].{key}", "MISMATCH", f"is {shown(should)}, the layer says {shown(is_)}"
                )
    if len(epoch.layers) != len(files):
        yield Finding("$.layers", "MISMATCH", f"has {counted(len(epoch.layers), 'file')}, the artifact {len(files)}")


def absent_words(epoch: Manifest) -> tuple[str, ...]:
    """The base images, which no layer of this dialect can carry."""
    return tuple(
        f"base image {shown(layer.filename)} ({layer.digest}, {counted(layer.size, 'byte')})"
        for layer in epoch.base_images
    )


def _fact_findings(epoch: Manifest, config: SnapshotConfig) -> Iterator[Finding]:
    rows = (
        ("snapshotId", epoch.snapshot_id, config.snapshot_id),
        ("image", epoch.image, config.image),
        ("cpu", epoch.cpu, config.cpu),
        ("memory", epoch.memory, config.memory),
        ("storage", epoch.storage, config.storage),
        ("nics", epoch.nics, config.nics),
    )
    for key, should, is_ in rows:
        if is_ != should:
            yield Finding(f"$.{key}", "MISMATCH", f"is {shown(should)}, the config says {shown(is_)}")
    if not epoch.image_blob_ids.keys() <= set(config.image_blob_ids) <= set(epoch.pinned_blobs):
        yield Finding("$.imageBlobIDs", "MISMATCH", "are not the blobs that the config pins")


def _entry_findings(epoch: Manifest, config: SnapshotConfig) -> Iterator[Finding]:
    for layer in epoch.layers:
        should = entry_of(epoch.layer_headers.get(layer.filename))
        entry = config.files.get(layer.filename, FileEntry())
        is_ = FileEntry(mode=entry.mode, sparse_map=entry.sparse_map, sparse_size=entry.sparse_size)
        if is_ != should:
            problem = f"mode and sparse map of {shown(layer.filename)} are not those in the config"
            yield Finding("$.layerHeaders", "MISMATCH", problem)
