"""Artifacts that others made with Cocoon's media types: an Epoch manifest is derived from the layers.

`oras push HOST/REPO overlay.qcow2:application/vnd.cocoon.disk.qcow2 …` makes one. No Epoch manifest travels with it, so
one is written as Epoch would, out of nothing but the artifact: the same artifact gives the same bytes.
"""

from dataclasses import replace

from epoch_oci.dialects import profile
from epoch_oci.dialects.base import Snapshot
from epoch_oci.dialects.carried import BASE_IMAGE, CarriedFile, carried_files, to_snapshot_file
from epoch_oci.epoch import times
from epoch_oci.epoch.keys import hostile_problem
from epoch_oci.epoch.manifest import Manifest, media_type_for_file
from epoch_oci.epoch.mint import Facts, MintedFile, mint
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import filename, media_types
from epoch_oci.oci.digest import shown
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.strict_json import member_path

_ANY_LAYER = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_UNPACK = "io.deis.oras.content.unpack"
_USED_BY_LAYERS = frozenset({media_types.TITLE, profile.ROLE, *profile.PART_KEYS})


def derive(manifest: ImageManifest, name: str | None = None, tag: str | None = None) -> Snapshot:
    """The snapshot that an artifact's layers amount to; `name` and `tag` override what its annotations say.

    Dates are the artifact's or Go's zero time, never the clock's. Raises ContentError with every finding.
    """
    found: list[Finding] = []
    files = [_typed(file) for file in carried_files(manifest.layers, found)]
    found.extend(_type_findings(manifest))
    for file in files:
        found.extend(_file_findings(file))
    found.extend(filename.clash_findings((file.name_path, file.name) for file in files if file.name))
    found.extend(_identity_findings(manifest, name, tag))
    if not files:
        found.append(Finding("$.layers", "SCHEMA", "no layer carries a file"))
    if found:
        raise ContentError.of("the artifact", found)
    epoch = mint(
        _facts(manifest, name, tag),
        [_minted(file) for file in files if file.role == "layer"],
        base_images=[_minted(file) for file in files if file.role == BASE_IMAGE],
        what="the Epoch manifest derived from the artifact",
    )
    return Snapshot(
        dialect="cocoon",
        epoch=epoch.document,
        manifest=epoch,
        files=tuple(to_snapshot_file(file) for role in ("layer", BASE_IMAGE) for file in files if file.role == role),
        derived=True,
        warnings=tuple(_warnings(manifest, epoch)),
        lost=tuple(_lost(manifest)),
    )


def url_warnings(manifest: ImageManifest) -> list[Finding]:
    """One warning when descriptors offer other places to download from; they are never asked."""
    for index, layer in enumerate(manifest.layers):
        if layer.extra.get("urls"):
            return [Finding(f"$.layers[{index}].urls", "SCHEMA", "urls of descriptors are not used", "warning")]
    return []


def _typed(file: CarriedFile) -> CarriedFile:
    """`file` with the type that Epoch gives its name, where the type of its layer only says that it is one.

    That is what `oras push` and its like write for a file whose type nobody stated, whatever the file is.
    """
    if file.in_parts or not file.name or not file.media_type.startswith(_ANY_LAYER):
        return file
    return replace(file, media_type=media_type_for_file(file.name))


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


def _identity_findings(manifest: ImageManifest, name: str | None, tag: str | None) -> list[Finding]:
    found = []
    for key, given in ((media_types.TITLE, name), (media_types.VERSION, tag)):
        text = _text(manifest, key, given)
        if text and (why := hostile_problem(text)) is not None:
            found.append(Finding(member_path("$.annotations", key), "NAME", f"{shown(text)} {why}"))
    return found


def _facts(manifest: ImageManifest, name: str | None, tag: str | None) -> Facts:
    created = manifest.annotations.get(media_types.CREATED, "")
    return Facts(
        name=_text(manifest, media_types.TITLE, name),
        tag=_text(manifest, media_types.VERSION, tag),
        snapshot_id=manifest.annotations.get(profile.SNAPSHOT_ID, ""),
        image=manifest.annotations.get(profile.IMAGE, ""),
        # Never the clock: the same artifact has to give the same bytes (decision D1).
        created_at=created if times.is_time(created) else "",
    )


def _minted(file: CarriedFile) -> MintedFile:
    assert file.name is not None
    return MintedFile(name=file.name, digest=file.digest, size=file.size, media_type=file.media_type)


def _text(manifest: ImageManifest, key: str, given: str | None) -> str:
    return manifest.annotations.get(key, "") if given is None else given


def _warnings(manifest: ImageManifest, epoch: Manifest) -> list[Finding]:
    found = url_warnings(manifest)
    text = manifest.annotations.get(media_types.CREATED, "")
    if text and not times.is_time(text):
        path = member_path("$.annotations", media_types.CREATED)
        found.append(Finding(path, "SCHEMA", f"{shown(text)} is not a time (RFC 3339) and is left out", "warning"))
    kind = profile.OS_IMAGE if epoch.is_cloud_image else profile.SNAPSHOT
    if manifest.artifact_type in profile.ARTIFACT_TYPES.values() and manifest.artifact_type != kind:
        problem = f"is {shown(manifest.artifact_type)}, from its files Epoch will take it for {shown(kind)}"
        found.append(Finding("$.artifactType", "TYPE", problem, "warning"))
    return found


def _lost(manifest: ImageManifest) -> list[str]:
    """What the artifact says and an Epoch manifest has no place for."""
    lost = [f"annotation {shown(key)}" for key in manifest.annotations if key not in profile.MANIFEST_KEYS]
    if manifest.config.media_type != media_types.EMPTY:
        lost.append(f"config of type {shown(manifest.config.media_type)}")
    for layer in manifest.layers:
        keys = [key for key in layer.annotations if key not in _USED_BY_LAYERS]
        lost += [f"annotation {shown(key)} of {shown(layer.title)}" for key in keys]
    return lost
