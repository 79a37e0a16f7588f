"""The `cocoon` profile: the Epoch manifest is the config, its blobs are the layers (docs/format.md)."""

from collections.abc import Iterable, Mapping
from typing import Any

from epoch_oci.dialects import profile
from epoch_oci.dialects.base import Artifact, ChunkLayers, EncodeOptions, Role, Snapshot, SnapshotFile
from epoch_oci.dialects.layers import (
    BASE_IMAGE,
    CarriedFile,
    carried_files,
    chunk_layers,
    in_chunks,
    is_chunked,
    is_placeholder,
    part_layers,
    part_type,
    to_snapshot_file,
    url_warnings,
    whole_layer,
)
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, PREFIX, Manifest
from epoch_oci.errors import ContentError, Finding, UsageError
from epoch_oci.oci import filename
from epoch_oci.oci.descriptor import EMPTY, Descriptor
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import LAYER_LIMIT, ImageManifest
from epoch_oci.oci.parts import PART_LIMIT, PartTable
from epoch_oci.oci.strict_json import member_path


class CocoonDialect:
    """Translates between an Epoch manifest and an artifact of Cocoon's media types. Pure: no clock, no environment."""

    name = "cocoon"

    def cuts(self, *, cloud_image: bool) -> bool:
        """As `Dialect.cuts`."""
        return True

    def accepts(self, manifest: ImageManifest) -> bool:
        """Artifacts of the profile, and those that others made with Cocoon's media types."""
        if (
            manifest.artifact_type in {*profile.ARTIFACT_TYPES.values(), *profile.CHUNKED_TYPES.values()}
            or manifest.config.media_type in profile.ARTIFACT_TYPES
        ):
            return True
        # Layers with Cocoon's types in an artifact of modern Epoch are what the other dialect reads, or refuses by
        # name.
        foreign_type = (manifest.artifact_type or "").startswith(profile.COCOONSTACK)
        return not foreign_type and any(layer.media_type.startswith(PREFIX) for layer in manifest.layers)

    def encode(self, epoch: Document, options: EncodeOptions) -> Artifact:
        """As `Dialect.encode`. UsageError for annotations of the profile, and for part tables that do not fit."""
        manifest = Manifest.parse(epoch)
        config = Document(_config_type(manifest), epoch.raw)
        files = _files(manifest, options.parts or {}, options.chunks)
        plain = [carrier for file in files if file.encoding != "chunks" for carrier in file.carriers]
        layers = [*(options.chunks.layers if options.chunks else ()), *plain]
        types = profile.ARTIFACT_TYPES if options.chunks is None else profile.CHUNKED_TYPES
        _refuse_clashes(layers, plain, parts=bool(options.parts))
        annotations = profile.annotations(manifest, options.annotations)
        # image-spec 1.1 advises the empty descriptor over an empty array, which some registries refuse (oci-registries
        # 1.2).
        listed = layers or [EMPTY]
        return Artifact(profile.image_manifest(types[config.media_type], config, listed, annotations), config, files)

    def decode(self, manifest: ImageManifest, config: Document | None) -> Snapshot:
        """As `Dialect.decode`. What others made is derived from its layers (`foreign.from_layers`)."""
        # By the config and not by the artifact's type: generic tools drop or change the one and carry the other.
        if manifest.config.media_type not in profile.ARTIFACT_TYPES:
            from epoch_oci.dialects.foreign import from_layers

            return from_layers(manifest)
        config = profile.checked_config(manifest, config, manifest.config.media_type)
        epoch = Manifest.parse(config.called(EPOCH_MANIFEST), "the config")
        found = [*_type_findings(manifest, epoch), *_placeholder_findings(manifest)]
        chunks = chunk_layers(manifest, found) if is_chunked(manifest) else ()
        carried = carried_files(manifest.layers[len(chunks) :], found, first=len(chunks))
        files = _matched(_files(epoch, {}), carried, found, chunks)
        if found:
            raise ContentError.of("the artifact", found)
        return Snapshot(
            dialect=self.name,
            manifest=epoch,
            files=files,
            warnings=(*epoch.warnings, *_disagreements(manifest, epoch), *url_warnings(manifest)),
            lost=tuple(f"annotation {shown(key)}" for key in manifest.annotations if key not in profile.MANIFEST_KEYS),
        )

    def read_encoded(self, manifest: ImageManifest, config: Document | None) -> None:
        """As `Dialect.read_encoded`: the config has the digest of each file, in whatever form they travel."""


def _config_type(manifest: Manifest) -> str:
    return profile.OS_IMAGE_CONFIG if manifest.is_cloud_image else profile.SNAPSHOT_CONFIG


def _files(
    manifest: Manifest, parts: Mapping[Digest, PartTable], chunks: ChunkLayers | None = None
) -> tuple[SnapshotFile, ...]:
    rows: list[tuple[Role, Any]] = [
        *(("layer", layer) for layer in manifest.layers),
        *((BASE_IMAGE, layer) for layer in manifest.base_images),
    ]
    files = tuple(_file(layer.filename, role, layer.descriptor, parts.get(layer.digest)) for role, layer in rows)
    if chunks is None:
        return files
    return tuple(in_chunks(file, chunks.layers) if file.digest in chunks.files else file for file in files)


def _file(name: str, role: Role, blob: Descriptor, table: PartTable | None) -> SnapshotFile:
    carriers: tuple[Descriptor, ...] = ()
    # Registries disagree about empty blobs; the config restores such a file (decision D4).
    if blob.size:
        whole = whole_layer(name, role, blob)
        # A file of one part is whole: an artifact has one form, however large the parts were.
        carriers = (whole,) if table is None or blob.size <= table.size else _parts(whole, table)
    return SnapshotFile(
        name=name, role=role, media_type=blob.media_type, digest=blob.digest, size=blob.size, carriers=carriers
    )


def _parts(whole: Descriptor, table: PartTable) -> tuple[Descriptor, ...]:
    count = -(-whole.size // table.size) if table.size > 0 else 0
    if count != len(table.digests) or not 0 < count <= PART_LIMIT:
        raise UsageError(
            f"{shown(whole.title)} of {whole.size} bytes cannot be cut into {len(table.digests)} parts "
            f"of {table.size} bytes",
            hint=f"a file may have {PART_LIMIT} parts; choose a larger part size",
        )
    return part_layers(whole, table)


def _refuse_clashes(layers: list[Descriptor], plain: list[Descriptor], *, parts: bool) -> None:
    """Parts bring names of their own; a client that writes layers by title must not write two to one file."""
    if len(layers) > LAYER_LIMIT:
        raise UsageError(
            f"{len(layers)} layers are more than the {LAYER_LIMIT} allowed", hint="choose a larger part size"
        )
    if not parts:
        return
    first = len(layers) - len(plain)
    titles = [(f"$.layers[{index}]", layer.title or "") for index, layer in enumerate(plain, first)]
    found = [Finding(path, "NAME", why) for path, title in titles if (why := filename.problem(title))]
    found += filename.clash_findings(titles)
    if found:
        raise ContentError("the names of parts do not fit; carry the files whole", code="NAME", findings=found)


def _type_findings(manifest: ImageManifest, epoch: Manifest) -> list[Finding]:
    found = []
    own, stated = manifest.config.media_type, manifest.artifact_type
    if stated is not None and stated not in (profile.ARTIFACT_TYPES[own], profile.CHUNKED_TYPES[own]):
        found.append(Finding("$.artifactType", "TYPE", f"{shown(stated)} contradicts the config type {shown(own)}"))
    # Harbor and readers of Cocoon go by the type, this program by what the document says: they must agree (reliability
    # M2).
    if own != _config_type(epoch):
        problem = f"{shown(own)} is not the type of what the config describes, {shown(_config_type(epoch))}"
        found.append(Finding("$.config.mediaType", "TYPE", problem))
    return found


def _placeholder_findings(manifest: ImageManifest) -> list[Finding]:
    """The empty descriptor stands for no layers, so it stands alone."""
    return [
        Finding(f"$.layers[{index}]", "MISMATCH", "the empty descriptor stands beside other layers")
        for index, layer in enumerate(manifest.layers)
        if len(manifest.layers) > 1 and is_placeholder(layer)
    ]


def _matched(
    expected: Iterable[SnapshotFile],
    carried: list[CarriedFile],
    found: list[Finding],
    chunks: tuple[Descriptor, ...] = (),
) -> tuple[SnapshotFile, ...]:
    """The files that the config lists, with the layers that carry them; every disagreement is added to `found`.

    Where there are `chunks`, their index must describe every file that is no layer; it was not read yet.
    """
    files = {file.name: file for file in expected}
    taken: dict[str, CarriedFile] = {}
    for item in carried:
        file = files.get(item.name) if item.name is not None else None
        if file is None or not file.size or file.name in taken:
            found.append(_unexpected(item, file))
        else:
            taken[file.name] = item
            found.extend(_differences(item, file))
    listed = [name for name, file in files.items() if file.size]
    found.extend(_order_findings([name for name in listed if name in taken], taken))
    found.extend(
        Finding("$.layers", "MISMATCH", f"{shown(name)} is in the config, and no layer carries it")
        for name in listed
        if name not in taken and not chunks
    )
    return tuple(
        to_snapshot_file(taken[name]) if name in taken else in_chunks(file, chunks) if file.size and chunks else file
        for name, file in files.items()
    )


def _unexpected(item: CarriedFile, file: SnapshotFile | None) -> Finding:
    if item.name is None:
        return Finding(item.path, "NAME", "the layer has no title")
    if file is None:
        why = filename.problem(item.name)
        return Finding(item.name_path, "NAME" if why else "MISMATCH", why or f"{shown(item.name)} is not in the config")
    problem = "is carried twice" if file.size else "is empty and must not be listed"
    return Finding(item.name_path, "MISMATCH", f"{shown(item.name)} {problem}")


def _differences(item: CarriedFile, file: SnapshotFile) -> list[Finding]:
    media_type = part_type(file.media_type) if item.in_parts else file.media_type
    rows = (
        ("digest", str(item.digest), str(file.digest)),
        ("size", item.size, file.size),
        ("mediaType", item.carriers[0].media_type, media_type),
        (f'annotations["{profile.ROLE}"]', item.role, file.role),
    )
    return [
        Finding(
            f"{item.path}.{what}", "MISMATCH", f"{shown(file.name)} is {shown(is_)}, the config says {shown(should)}"
        )
        for what, is_, should in rows
        if is_ != should
    ]


def _order_findings(names: list[str], taken: Mapping[str, CarriedFile]) -> list[Finding]:
    for name, item in zip(names, taken.values(), strict=True):
        if item.name != name:
            problem = f"{shown(item.name)} stands where the config has {shown(name)}"
            return [Finding(item.path, "MISMATCH", problem)]
    return []


def _disagreements(manifest: ImageManifest, epoch: Manifest) -> list[Finding]:
    expected, actual = profile.annotations_of(epoch), manifest.annotations
    return [
        Finding(member_path("$.annotations", key), "MISMATCH", _contrast(actual.get(key), expected.get(key)), "warning")
        for key in sorted(profile.MANIFEST_KEYS)
        if actual.get(key) != expected.get(key)
    ]


def _contrast(actual: str | None, expected: str | None) -> str:
    is_ = "is missing" if actual is None else f"is {shown(actual)}"
    return f"{is_}, the config says {'nothing' if expected is None else shown(expected)}"
