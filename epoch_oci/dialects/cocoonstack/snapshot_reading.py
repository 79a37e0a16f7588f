"""A snapshot of modern Epoch, version 1 or 2, as an Epoch manifest (epoch-formats 4.3 to 4.6 and 4.10)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from epoch_oci.dialects import foreign, profile
from epoch_oci.dialects.base import EncodedSnapshot, Snapshot, SnapshotFile
from epoch_oci.dialects.cocoonstack import layers, riding, words
from epoch_oci.dialects.cocoonstack.agreement import absent_words, disagreements
from epoch_oci.dialects.cocoonstack.artifact import checked_config
from epoch_oci.dialects.cocoonstack.carried import Carried
from epoch_oci.dialects.cocoonstack.config import SnapshotConfig
from epoch_oci.dialects.cocoonstack.labels import Labels
from epoch_oci.dialects.cocoonstack.minted import derived
from epoch_oci.epoch import sparse
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.epoch.mint import Facts
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest

_VERSIONS = {words.SNAPSHOT: "v1", words.SNAPSHOT_V2: "v2"}


def read(manifest: ImageManifest, document: Document | None, dialect: str) -> EncodedSnapshot:
    """What an artifact of type snapshot.v1 or .v2 and its config tell. Raises ContentError with every finding."""
    config = SnapshotConfig.parse(checked_config(manifest, document, words.SNAPSHOT_CONFIG))
    found = _version_findings(manifest, config)
    rows = layers.titled_layers(manifest, found)
    files = layers.read_files(rows, config, manifest, found)
    labels = Labels.read(manifest, found)
    if found:
        raise ContentError.of("the artifact", found)
    warnings = (
        *labels.warnings,
        *layers.type_warnings(rows),
        *layers.unproven(files, config),
        *foreign.url_warnings(manifest),
    )
    reader = _Reader(dialect, manifest, config, labels, warnings, tuple(layers.lost_of(rows)))
    return EncodedSnapshot(
        dialect=dialect,
        files=files,
        complete=reader.complete,
        complete_part=reader.complete_part,
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
        return self.config.image or self.labels.image

    def complete(self, files: tuple[SnapshotFile, ...]) -> Snapshot:
        """The snapshot with the manifest that rides in the config, else with one derived."""
        return self._derived(files) if self.config.riding is None else self._original(files)

    def complete_part(self, files: tuple[SnapshotFile, ...]) -> Snapshot:
        """Some files alone, to be written under their names; what is derived for them is no whole manifest."""
        if self.config.riding is None:
            return self._derived(files)
        document = riding.unseated(self.config.riding, self.config.files)
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
            epoch=epoch.document,
            manifest=epoch,
            files=_typed(files, epoch),
            warnings=(*epoch.warnings, *self.warnings),
            lost=self.lost,
        )

    def _derived(self, files: tuple[SnapshotFile, ...]) -> Snapshot:
        config = self.config
        kept = self.labels.unlike(snapshot_id=config.snapshot_id, image=self.image)
        carried = Carried(config=config.others, annotations=kept)
        facts = Facts(
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
        epoch = derived(facts, files, carried, config.files)
        return Snapshot(
            dialect=self.dialect,
            epoch=epoch.document,
            manifest=epoch,
            files=files,
            derived=True,
            warnings=(*self.warnings, *self._stray_entries(), *_epoch_warnings(epoch)),
            lost=(*self.lost, *_subject(self.manifest)),
            carried=carried.words(),
        )

    def _original(self, files: tuple[SnapshotFile, ...]) -> Snapshot:
        document = riding.unseated(self.config.riding, self.config.files)
        epoch = Manifest.parse(document, "the Epoch manifest in the config")
        if found := disagreements(epoch, self.config, files):
            raise ContentError.of("the Epoch manifest in the config", found)
        carried = Carried.of(epoch)
        notes = _unlike(self.labels.rest, carried.annotations)
        members = _unlike(self.config.others, carried.config)
        return Snapshot(
            dialect=self.dialect,
            epoch=epoch.document,
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
            carried=carried.words(),
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
