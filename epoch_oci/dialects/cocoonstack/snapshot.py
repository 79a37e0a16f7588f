"""A snapshot of modern Epoch and the cocoon tools, written and read (epoch-formats 4.3 to 4.6 and 4.10).

Every layer becomes a file there and nothing else does, so a file of length zero is a layer as well: left out, it would
be missing from the snapshot. There is no place for base images, and none for a file in parts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from epoch_oci.dataclass import dataclass
from epoch_oci.dialects import profile
from epoch_oci.dialects.base import Artifact, EncodedSnapshot, EncodeOptions, Snapshot, SnapshotFile, WrittenFile
from epoch_oci.dialects.cocoonstack import snapshot_files, vocabulary
from epoch_oci.dialects.cocoonstack.config import SnapshotConfig, check_config, file_entries, mint_config
from epoch_oci.dialects.cocoonstack.derived import absent_words, derived, disagreements
from epoch_oci.dialects.cocoonstack.extra import Extra, embed, extract
from epoch_oci.dialects.layers import url_warnings
from epoch_oci.dialects.profile import Labels
from epoch_oci.epoch import sparse
from epoch_oci.epoch.manifest import MANIFEST_LIMIT, Layer, Manifest
from epoch_oci.epoch.mint import SnapshotFacts
from epoch_oci.errors import ContentError, Finding, PolicyError, UsageError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest

# The config has one media type in both, so that only these two together tell (epoch-formats 4.10).
_VERSIONS = {vocabulary.SNAPSHOT: "v1", vocabulary.SNAPSHOT_V2: "v2"}


def write(epoch: Manifest, options: EncodeOptions) -> Artifact:
    """The artifact of a snapshot. Raises ContentError, UsageError, and PolicyError for a loss that is not allowed."""
    _refuse_parts(epoch, options)
    extra = Extra.of(epoch)
    written = options.written
    # Before anything else is made, for what is lost may be a reason to refuse.
    config, lost = _config(epoch, extra, written)
    files = tuple(_file(layer, (written or {}).get(layer.filename)) for layer in epoch.layers)
    _refuse_loss(lost, options)
    rows = [carrier for file in files for carrier in file.carriers]
    kind = vocabulary.SNAPSHOT if written is None else vocabulary.SNAPSHOT_V2
    document = profile.image_manifest(
        kind, config, rows, profile.annotations(epoch, options.annotations, extra.annotations)
    )
    return Artifact(document, config, files, lost)


def _refuse_loss(lost: Sequence[str], options: EncodeOptions) -> None:
    if lost and not options.allow_loss:
        raise PolicyError(
            f"the cocoonstack dialect has no place for {'; '.join(lost)}",
            hint="allow it with --allow-loss, or choose the cocoon dialect, which loses nothing",
        )


def _config(
    epoch: Manifest, extra: Extra, written: Mapping[str, WrittenFile] | None
) -> tuple[Document, tuple[str, ...]]:
    """The config, with the Epoch manifest embedded in it unless this makes it too large, and what is lost."""
    # What Epoch itself would read of it decides whether it can be written at all; what rides is extra.
    bare = mint_config(epoch, extra.config, None, written)
    if bare.size > MANIFEST_LIMIT:
        problem = f"the config would be {bare.size} bytes, more than the {MANIFEST_LIMIT} allowed"
        raise ContentError(problem, code="SIZE", object=str(epoch.document.digest))
    check_config(bare)
    full = mint_config(epoch, extra.config, embed(epoch.document, file_entries(epoch)), written)
    # Epoch itself reads no version 2, and cocoon-common takes a config of any size that we write.
    lost, limit = list(absent_words(epoch)), vocabulary.EPOCH_CONFIG_LIMIT if written is None else MANIFEST_LIMIT
    if bare.size > limit:
        lost.append(f"Epoch up to 0.2.1 as a reader: it takes {limit} bytes of config, and this one has {bare.size}")
        limit = MANIFEST_LIMIT
    if full.size <= limit:
        return full, tuple(lost)
    lost.append(f"the Epoch manifest's own bytes: with them the config would have {full.size} bytes")
    return bare, tuple(lost)


def _file(layer: Layer, written: WrittenFile | None) -> SnapshotFile:
    blob = layer.descriptor
    # By its name and not by the manifest: readers refuse types that they do not know (epoch-formats 4.10).
    media_type = vocabulary.layer_type_for_file(layer.filename)
    if written is not None and written.encoding == "zstd":
        media_type += vocabulary.ZSTD
    pieces = written.layers if written is not None else (blob,)
    carriers = tuple(
        Descriptor(
            media_type=media_type,
            digest=piece.digest,
            size=piece.size,
            annotations={**_place(index, len(pieces)), media_types.TITLE: layer.filename},
        )
        for index, piece in enumerate(pieces)
    )
    return SnapshotFile(
        name=layer.filename,
        role="layer",
        media_type=blob.media_type,
        digest=layer.digest,
        size=layer.size,
        carriers=carriers,
        encoding=written.encoding if written is not None else "",
    )


def _place(index: int, count: int) -> dict[str, str]:
    return {vocabulary.CHUNK_INDEX: str(index), vocabulary.CHUNK_COUNT: str(count)} if count > 1 else {}


def _refuse_parts(epoch: Manifest, options: EncodeOptions) -> None:
    for layer in epoch.layers:
        table = (options.parts or {}).get(layer.digest)
        if table is not None and table.size < layer.size:
            raise UsageError(
                f"{shown(layer.filename)} of {layer.size} bytes cannot be carried in parts of {table.size} bytes: a "
                "snapshot of the cocoonstack dialect has none",
                hint="choose the cocoon dialect for this registry, or carry files whole with --part-size none",
            )


def read(manifest: ImageManifest, document: Document | None, dialect: str) -> EncodedSnapshot:
    """What an artifact of type snapshot.v1 or .v2 and its config tell. Raises ContentError with every finding."""
    config = SnapshotConfig.parse(profile.checked_config(manifest, document, vocabulary.SNAPSHOT_CONFIG))
    # All that is wrong is told at once (decision D10).
    found = _version_findings(manifest, config)
    rows = snapshot_files.titled_layers(manifest, found)
    files = snapshot_files.read_files(rows, config, manifest, found)
    labels = Labels.read(manifest, found)
    if found:
        raise ContentError.of("the artifact", found)
    warnings = (
        *labels.warnings,
        *snapshot_files.type_warnings(rows),
        *snapshot_files.unproven(files, config),
        *url_warnings(manifest),
    )
    reader = _Reader(dialect, manifest, config, labels, warnings, tuple(snapshot_files.lost_of(rows)))
    return EncodedSnapshot(
        dialect=dialect,
        files=files,
        complete=reader.complete,
        complete_part=reader.complete_part,
        claimed=reader.claimed(),
        name=labels.name,
        tag=labels.tag,
        snapshot_id=config.snapshot_id,
        image=reader.image,
        cpu=config.cpu,
        memory=config.memory,
        storage=config.storage,
        nics=config.nics,
        created_at=config.created_at,
        pushed_at=labels.created,
        warnings=warnings,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    dialect: str
    manifest: ImageManifest
    config: SnapshotConfig
    labels: Labels
    warnings: tuple[Finding, ...]
    lost: tuple[str, ...]

    @property
    def image(self) -> str:
        """What the VM was made from."""
        # The annotation is the pusher's word, where Epoch's own member says nothing (epoch-formats 4.3).
        return self.config.image or self.labels.image

    def claimed(self) -> dict[str, Digest]:
        """By name the digests that the Epoch manifest in the config has, if one rides along. Raises ContentError."""
        if self.config.embedded is None:
            return {}
        document = extract(self.config.embedded, self.config.files)
        epoch = Manifest.parse(document, "the Epoch manifest in the config")
        return {layer.filename: layer.digest for layer in epoch.layers}

    def complete(self, files: tuple[SnapshotFile, ...]) -> Snapshot:
        """The snapshot with the manifest that rides in the config, else with one derived."""
        return self._derived(files) if self.config.embedded is None else self._original(files)

    def complete_part(self, files: tuple[SnapshotFile, ...]) -> Snapshot:
        """Some files alone, to be written under their names; what is derived for them is no whole manifest."""
        if self.config.embedded is None:
            return self._derived(files)
        document = extract(self.config.embedded, self.config.files)
        epoch = Manifest.parse(document, "the Epoch manifest in the config")
        told = {layer.filename: (layer.digest, layer.size) for layer in epoch.layers}
        found = [
            Finding("$.layers", "MISMATCH", f"{shown(file.name)} is not what the layers decode to")
            for file in files
            if told.get(file.name) != (file.digest, file.size)
        ]
        if found:
            raise ContentError.of("the Epoch manifest in the config", found)
        return Snapshot(
            dialect=self.dialect,
            manifest=epoch,
            files=_typed(files, epoch),
            warnings=(*epoch.warnings, *self.warnings),
            lost=self.lost,
        )

    def _derived(self, files: tuple[SnapshotFile, ...]) -> Snapshot:
        config = self.config
        kept = self.labels.unlike(snapshot_id=config.snapshot_id, image=self.image)
        extra = Extra(config=config.others, annotations=kept)
        facts = SnapshotFacts(
            name=self.labels.name,
            tag=self.labels.tag,
            snapshot_id=config.snapshot_id,
            image=self.image,
            # The values are writer W2b's, the only ones that can be told from the keys alone (epoch-formats 1.5).
            image_blob_ids={blob: blob for blob in config.image_blob_ids},
            cpu=config.cpu,
            memory=config.memory,
            storage=config.storage,
            nics=config.nics,
            created_at=config.created_at,
            pushed_at=self.labels.created,
        )
        epoch = derived(facts, files, extra, config.files)
        return Snapshot(
            dialect=self.dialect,
            manifest=epoch,
            files=files,
            derived=True,
            warnings=(*self.warnings, *self._stray_entries(), *_epoch_warnings(epoch)),
            lost=(*self.lost, *_subject(self.manifest)),
            carried=extra.words(),
        )

    def _original(self, files: tuple[SnapshotFile, ...]) -> Snapshot:
        document = extract(self.config.embedded, self.config.files)
        epoch = Manifest.parse(document, "the Epoch manifest in the config")
        # Of two that differ nobody can tell which is right: a tool rewrote one of them.
        if found := disagreements(epoch, self.config, files):
            raise ContentError.of("the Epoch manifest in the config", found)
        extra = Extra.of(epoch)
        # What somebody added to the artifact afterwards, and the embedded manifest does not know.
        notes = _unlike(self.labels.rest, extra.annotations)
        members = _unlike(self.config.others, extra.config)
        return Snapshot(
            dialect=self.dialect,
            manifest=epoch,
            files=_typed(files, epoch),
            warnings=(*epoch.warnings, *self.warnings, *_label_warnings(self.labels, epoch)),
            lost=(
                *absent_words(epoch),
                *self.lost,
                *(f"config member {shown(key)}" for key in members),
                *(f"annotation {shown(key)}" for key in notes),
                *_subject(self.manifest),
            ),
            carried=extra.words(),
        )

    def _stray_entries(self) -> Iterator[Finding]:
        for name in sorted(self.config.files.keys() - {layer.title for layer in self.manifest.layers}):
            problem = f"the config has an entry for {shown(name)}, and no layer carries it"
            yield Finding("$.config", "MISMATCH", problem, "warning")


def _version_findings(manifest: ImageManifest, config: SnapshotConfig) -> list[Finding]:
    expected = _VERSIONS[manifest.kind]
    if config.version == expected:
        return []
    problem = f"{shown(manifest.kind)} goes with a config of version {expected}, this one has {config.version}"
    return [Finding("$.artifactType", "TYPE", problem)]


def _epoch_warnings(epoch: Manifest) -> Iterator[Finding]:
    """What Epoch's own readers will get wrong of a derived manifest."""
    if epoch.looks_like_cloud_image:
        problem = "from its files Epoch 0.1.4 and later will take the snapshot for a cloud image"
        yield Finding("$.artifactType", "TYPE", problem, "warning")
    headers = epoch.layer_headers.items()
    packed = [shown(name) for name, header in headers if sparse.is_packed(header.pax_records)]
    if packed:
        problem = f"Epoch's own pull and get do not unfold packed files: {', '.join(packed)}; vk-cocoon does"
        yield Finding("$.layers", "MISMATCH", problem, "warning")


def _label_warnings(labels: Labels, epoch: Manifest) -> Iterator[Finding]:
    """The annotations are for people; where they differ from the document, the document is right."""
    rows = (
        (profile.SNAPSHOT_ID, labels.snapshot_id, epoch.snapshot_id),
        (profile.IMAGE, labels.image, epoch.image),
    )
    for key, is_, should in rows:
        if is_ and is_ != should:
            problem = f"the annotation {shown(key)} is {shown(is_)}, the Epoch manifest says {shown(should)}"
            yield Finding("$.annotations", "MISMATCH", problem, "warning")


def _typed(files: tuple[SnapshotFile, ...], epoch: Manifest) -> tuple[SnapshotFile, ...]:
    """`files` with the media types that the Epoch manifest has for them."""
    types = {layer.filename: layer.descriptor.media_type for layer in epoch.layers}
    return tuple(replace(file, media_type=types[file.name]) for file in files)


def _unlike(these: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """The keys of `these` that `others` lacks, or has another value for."""
    return [key for key, value in these.items() if key not in others or others[key] != value]


def _subject(manifest: ImageManifest) -> list[str]:
    return [f"subject {manifest.subject.digest}"] if manifest.subject else []
