"""Artifacts that bring no Epoch manifest, or none with a name.

`oras push HOST/REPO overlay.qcow2:application/vnd.cocoon.disk.qcow2 …` makes one. No Epoch manifest travels with it, so
one is written as Epoch would, out of nothing but the artifact: the same artifact gives the same bytes. What such an
artifact does not say, as modern Epoch's do not, its repository and its tag do.
"""

from collections.abc import Iterator
from dataclasses import replace

from epoch_oci.dialects import profile
from epoch_oci.dialects.base import Snapshot
from epoch_oci.dialects.layers import BASE_IMAGE, CarriedFile, carried_files, to_snapshot_file, url_warnings
from epoch_oci.dialects.profile import Labels
from epoch_oci.epoch.manifest import Manifest, media_type_for_file
from epoch_oci.epoch.mint import SnapshotFacts, StoredFile, mint, renamed
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import filename, media_types
from epoch_oci.oci.digest import shown
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.strict_json import member_path

# What `oras push` and builders of images write when nobody states a type.
_ANY_LAYER = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
# ORAS marks a directory that it packed so.
_UNPACK = "io.deis.oras.content.unpack"
_USED_BY_LAYERS = frozenset({media_types.TITLE, profile.ROLE, *profile.PART_KEYS})


def from_layers(manifest: ImageManifest) -> Snapshot:
    """The snapshot that an artifact's layers amount to.

    Dates are the artifact's or Go's zero time, never the clock's. Raises ContentError with every finding.
    """
    found: list[Finding] = []
    files = [_typed(file) for file in carried_files(manifest.layers, found)]
    found.extend(_type_findings(manifest))
    for file in files:
        found.extend(_file_findings(file))
    found.extend(filename.clash_findings((file.name_path, file.name) for file in files if file.name))
    labels = Labels.read(manifest, found)
    # An artifact of an empty snapshot and one of something else look alike.
    if not files:
        found.append(Finding("$.layers", "SCHEMA", "no layer carries a file"))
    if found:
        raise ContentError.of("the artifact", found)
    facts = SnapshotFacts(
        name=labels.name,
        tag=labels.tag,
        snapshot_id=labels.snapshot_id,
        image=labels.image,
        # Never the clock: the same artifact has to give the same bytes (decision D1).
        created_at=labels.created,
    )
    epoch = mint(
        facts,
        [_stored(file) for file in files if file.role == "layer"],
        base_images=[_stored(file) for file in files if file.role == BASE_IMAGE],
        what="the Epoch manifest derived from the artifact",
    )
    return Snapshot(
        dialect="cocoon",
        manifest=epoch,
        # In the order of the manifest that was derived: layers, then base images.
        files=tuple(to_snapshot_file(file) for role in ("layer", BASE_IMAGE) for file in files if file.role == role),
        derived=True,
        warnings=(*url_warnings(manifest), *labels.warnings, *_kind_warnings(manifest, epoch)),
        lost=tuple(_lost(manifest, labels)),
    )


def identified(snapshot: Snapshot, name: str, tag: str) -> Snapshot:
    """`snapshot` with `name` and `tag` where its derived manifest has none; any other stays as it is.

    A manifest without them is nothing that a store could hold: Epoch's own always have both. Raises ContentError for a
    hostile name.
    """
    manifest = snapshot.manifest
    # A manifest that travelled keeps its bytes, whatever it is called now (trap 3).
    if not snapshot.derived or (manifest.name and manifest.tag):
        return snapshot
    called = renamed(manifest, manifest.name or name, manifest.tag or tag, "the derived Epoch manifest")
    return replace(snapshot, manifest=called)


def _typed(file: CarriedFile) -> CarriedFile:
    """`file` with the type that Epoch gives its name, where the type of its layer only says that it is one.

    That is what `oras push` and its like write for a file whose type nobody stated, whatever the file is.
    """
    if file.in_parts or not file.name or not file.media_type.startswith(_ANY_LAYER):
        return file
    return replace(file, media_type=media_type_for_file(file.name))


def _stored(file: CarriedFile) -> StoredFile:
    assert file.name is not None
    return StoredFile(name=file.name, digest=file.digest, size=file.size, media_type=file.media_type)


def _type_findings(manifest: ImageManifest) -> list[Finding]:
    config = manifest.config.media_type
    # The same file names mean other types there; half of one dialect and half of the other is none.
    if config.startswith(profile.COCOONSTACK):
        problem = f"{shown(config)} contradicts layers and artifact type of Cocoon"
        return [Finding("$.config.mediaType", "TYPE", problem)]
    return []


def _file_findings(file: CarriedFile) -> list[Finding]:
    found = []
    if (why := filename.problem(file.name)) is not None:
        found.append(Finding(file.name_path, "NAME", why))
    if file.digest.algorithm != "sha256":
        found.append(Finding(f"{file.path}.digest", "DIGEST", f"{file.digest} is not sha256, all that Epoch knows"))
    # Without the annotations neither place nor whole is known; joined in the wrong order it would be a broken disk that
    # looks like one.
    if not file.in_parts and file.media_type.endswith(profile.PART_SUFFIX):
        problem = (
            "the layer is a part, and no vnd.cocoon.part annotations say of what; join the parts before pushing them"
        )
        found.append(Finding(f"{file.path}.mediaType", "TYPE", problem))
    # What `oras push` makes of a directory: a tar, which would be restored as a file of that name.
    if file.carriers[0].annotations.get(_UNPACK) == "true":
        problem = "the layer is a packed directory; a snapshot has files only"
        found.append(Finding(member_path(f"{file.path}.annotations", _UNPACK), "TYPE", problem))
    return found


def _kind_warnings(manifest: ImageManifest, epoch: Manifest) -> Iterator[Finding]:
    kind = profile.OS_IMAGE if epoch.is_cloud_image else profile.SNAPSHOT
    if manifest.artifact_type in profile.ARTIFACT_TYPES.values() and manifest.artifact_type != kind:
        problem = f"is {shown(manifest.artifact_type)}, from its files Epoch will take it for {shown(kind)}"
        yield Finding("$.artifactType", "TYPE", problem, "warning")


def _lost(manifest: ImageManifest, labels: Labels) -> Iterator[str]:
    """What the artifact says and an Epoch manifest has no place for."""
    yield from (f"annotation {shown(key)}" for key in labels.rest)
    if manifest.config.media_type != media_types.EMPTY:
        yield f"config of type {shown(manifest.config.media_type)}"
    for layer in manifest.layers:
        keys = [key for key in layer.annotations if key not in _USED_BY_LAYERS]
        yield from (f"annotation {shown(key)} of {shown(layer.title)}" for key in keys)
