"""A cloud image of modern Epoch and its publishers, written and read (epoch-formats 4.7; traps 22 and 23).

No reader looks at the config of an image, so the Epoch manifest is the config, byte for byte, under Epoch's own media
type. The byte order of the titles is that of the parts: names in another order give way to titles in the right one, and
the config keeps them.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from epoch_oci.dataclass import dataclass
from epoch_oci.dialects import profile
from epoch_oci.dialects.base import Artifact, EncodeOptions, Snapshot, SnapshotFile
from epoch_oci.dialects.cocoonstack import vocabulary
from epoch_oci.dialects.cocoonstack.derived import derived, file_findings
from epoch_oci.dialects.cocoonstack.extra import Extra
from epoch_oci.dialects.layers import url_warnings
from epoch_oci.dialects.profile import Labels
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Layer, Manifest, media_type_for_file
from epoch_oci.epoch.mint import SnapshotFacts
from epoch_oci.errors import ContentError, Finding, UsageError
from epoch_oci.oci import filename, media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import shown
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import LAYER_LIMIT, ImageManifest
from epoch_oci.oci.parts import PartTable, spans
from epoch_oci.oci.strict_json import member_path
from epoch_oci.oci.verifying import empty_problem

# `win.qcow2.part.003`, `disk.raw`, and `win.qcow2.00.qcow2.part`, which a publisher's script gives (epoch-formats 1.9).
_STEM = re.compile(r"(?P<stem>.*?)(?:\.(?:qcow2|raw))?(?:\.part.*|\.[0-9]+\.(?:qcow2|raw)\.part)?\Z", re.DOTALL)
_FORMAT = re.compile(r"\.(qcow2|raw)(?:\.|\Z)")
# With what is put behind it a name stays below 255 bytes.
_LONGEST_STEM = 200


def write(epoch: Manifest, options: EncodeOptions) -> Artifact:
    """The artifact of a cloud image. Raises ContentError, and UsageError for annotations and parts that do not fit."""
    extra = Extra.of(epoch)
    files = _files(epoch, options, extra.titles)
    layers = [carrier for file in files for carrier in file.carriers]
    # Under Epoch's media type: readers of images look at no config, and whoever looks sees at once what it is.
    config = Document(EPOCH_MANIFEST, epoch.document.raw)
    document = profile.image_manifest(
        vocabulary.OS_IMAGE, config, layers, profile.annotations(epoch, options.annotations, extra.annotations)
    )
    return Artifact(document, config, files)


def _files(epoch: Manifest, options: EncodeOptions, known: Sequence[str]) -> tuple[SnapshotFile, ...]:
    names = [layer.filename for layer in epoch.layers]
    pieces = [_pieces(layer, (options.parts or {}).get(layer.digest)) for layer in epoch.layers]
    count = sum(map(len, pieces))
    # Our own readers would refuse the manifest.
    if count > LAYER_LIMIT:
        raise UsageError(f"{count} layers are more than the {LAYER_LIMIT} allowed", hint="choose a larger part size")
    # One run of titles over all files: readers join by name, whatever file a part is of (trap 22).
    titles = iter(oci_titles(names, count, known))
    # Readers find the disk by this type, and skip octets, which is what Epoch calls parts (trap 24).
    media_type = vocabulary.DISK + disk_format(names) + (vocabulary.PART if count > 1 else "")
    return tuple(
        SnapshotFile(
            name=layer.filename,
            role="layer",
            media_type=layer.descriptor.media_type,
            digest=layer.digest,
            size=layer.size,
            carriers=tuple(_carrier(media_type, piece, next(titles)) for piece in row),
        )
        for layer, row in zip(epoch.layers, pieces, strict=True)
    )


def _pieces(layer: Layer, table: PartTable | None) -> list[Descriptor]:
    """What carries a file: its blob, or the parts that `table` cuts it into."""
    # Also a file of just the part size: a single part is the file.
    if table is None or layer.size <= table.size:
        return [layer.descriptor]
    cuts = list(spans(layer.size, table.size)) if table.size > 0 else []
    if not cuts or len(cuts) != len(table.digests):
        raise UsageError(
            f"{shown(layer.filename)} of {layer.size} bytes cannot be cut into {len(table.digests)} parts of "
            f"{table.size} bytes"
        )
    return [
        Descriptor(media_type=vocabulary.GENERIC, digest=digest, size=length)
        for (_, length), digest in zip(cuts, table.digests, strict=True)
    ]


def _carrier(media_type: str, piece: Descriptor, title: str) -> Descriptor:
    return Descriptor(
        media_type=media_type, digest=piece.digest, size=piece.size, annotations={media_types.TITLE: title}
    )


def read(manifest: ImageManifest, document: Document | None, dialect: str) -> Snapshot:
    """A cloud image. Raises ContentError with every finding."""
    found: list[Finding] = []
    disks = _disks(manifest, found)
    labels = Labels.read(manifest, found)
    if not disks:
        found.append(Finding("$.layers", "SCHEMA", "no layer is a disk or a part of one"))
    if found:
        raise ContentError.of("the artifact", found)
    image = _Image(dialect, manifest, labels, disks)
    return image.original(document) if manifest.config.media_type == EPOCH_MANIFEST else image.derived()


@dataclass(frozen=True, slots=True)
class _Image:
    dialect: str
    manifest: ImageManifest
    labels: Labels
    disks: tuple[Descriptor, ...]

    def original(self, document: Document | None) -> Snapshot:
        """With the Epoch manifest that is the config."""
        config = profile.checked_config(self.manifest, document, EPOCH_MANIFEST)
        epoch = Manifest.parse(config.called(EPOCH_MANIFEST), "the config")
        files = tuple(_grouped(epoch, self.disks))
        # What is joined by a reader of titles must be what the manifest lists.
        found = [*file_findings(epoch, files), *_empty_parts(files)]
        if not epoch.is_cloud_image:
            found.append(Finding("$", "TYPE", "the config describes a snapshot, the artifact is a cloud image"))
        if found:
            raise ContentError.of("the config", found)
        known = Extra.of(epoch).annotations
        notes = [key for key, text in self.labels.rest.items() if known.get(key) != text]
        return Snapshot(
            dialect=self.dialect,
            manifest=epoch,
            files=files,
            warnings=(*epoch.warnings, *self.labels.warnings, *url_warnings(self.manifest)),
            lost=(*(f"annotation {shown(key)}" for key in notes), *self._lost()),
            carried=Extra.of(epoch).words(),
        )

    def derived(self) -> Snapshot:
        """With an Epoch manifest made of the layers, under names by which Epoch knows a cloud image."""
        titles = [layer.title or "" for layer in self.disks]
        # Tried before renamed: names that Epoch knows a disk by are kept as they are (trap 23).
        if are_names(titles) and (snapshot := self._named(titles, ())).manifest.is_cloud_image:
            return snapshot
        return self._named(epoch_names(titles, _layer_format(self.disks)), tuple(titles))

    def _named(self, names: Sequence[str], titles: tuple[str, ...]) -> Snapshot:
        files = tuple(_file(name, layer) for name, layer in zip(names, self.disks, strict=True))
        # No snapshot ID: it would make a snapshot of the image (trap 21).
        extra = Extra(annotations=self.labels.unlike(snapshot_id="", image=self.labels.image), titles=titles)
        labels = self.labels
        facts = SnapshotFacts(name=labels.name, tag=labels.tag, image=labels.image, created_at=labels.created)
        epoch = derived(facts, files, extra)
        return Snapshot(
            dialect=self.dialect,
            manifest=epoch,
            files=files,
            derived=True,
            warnings=(*self.labels.warnings, *_renamed(titles, names), *url_warnings(self.manifest)),
            lost=tuple(self._lost()),
            carried=extra.words(),
        )

    def _lost(self) -> Iterator[str]:
        """The layers beside the disk, whose bytes would be joined to it by a reader of Epoch's manifest (trap 25)."""
        for layer in self.manifest.layers:
            if layer.media_type not in vocabulary.DISKS:
                yield f"layer {shown(layer.title or '')} ({shown(layer.media_type)}, {layer.size} bytes)"
            else:
                keys = [key for key in layer.annotations if key != media_types.TITLE]
                yield from (f"annotation {shown(key)} of {shown(layer.title or '')}" for key in keys)
        if self.manifest.config.media_type not in (media_types.EMPTY, EPOCH_MANIFEST):
            yield f"config of type {shown(self.manifest.config.media_type)}"
        if self.manifest.subject is not None:
            yield f"subject {self.manifest.subject.digest}"


def _disks(manifest: ImageManifest, found: list[Finding]) -> tuple[Descriptor, ...]:
    """The layers that are joined, in the byte order of their titles; equal ones stay in the order of the array."""
    disks = []
    for index, layer in enumerate(manifest.layers):
        if layer.media_type not in vocabulary.DISKS:
            continue
        disks.append(layer)
        path = f"$.layers[{index}]"
        # One without a title is a disk all the same, and gets a name.
        if layer.title and (why := filename.problem(layer.title)) is not None:
            found.append(Finding(member_path(f"{path}.annotations", media_types.TITLE), "NAME", why))
        if layer.digest.algorithm != "sha256":
            found.append(Finding(f"{path}.digest", "DIGEST", f"{layer.digest} is not sha256, all that Epoch knows"))
        elif (why := empty_problem(layer.digest, layer.size)) is not None:
            found.append(Finding(f"{path}.digest", "DIGEST", why))
    # The order of UTF-8 bytes is that of code points.
    return tuple(sorted(disks, key=lambda layer: layer.title or ""))


def _file(name: str, layer: Descriptor) -> SnapshotFile:
    return SnapshotFile(
        name=name,
        role="layer",
        media_type=media_type_for_file(name),
        digest=layer.digest,
        size=layer.size,
        carriers=(layer,) if layer.size else (),
    )


def _grouped(epoch: Manifest, disks: Sequence[Descriptor]) -> Iterator[SnapshotFile]:
    """The files of the manifest, each with as many layers as its size takes; what is left over is one more file."""
    left = list(disks)[::-1]
    for layer in epoch.layers:
        carriers = [left.pop()] if left else []
        # Sizes tell where a file ends; the digests of parts cannot.
        while left and sum(item.size for item in carriers) < layer.size:
            carriers.append(left.pop())
        size = sum(item.size for item in carriers)
        digest = carriers[0].digest if len(carriers) == 1 else layer.digest
        yield SnapshotFile(
            name=layer.filename,
            role="layer",
            media_type=layer.descriptor.media_type,
            digest=digest,
            size=size,
            carriers=tuple(carriers) if size else (),
        )
    yield from (_file(layer.title or "", layer) for layer in reversed(left))


def _empty_parts(files: Sequence[SnapshotFile]) -> Iterator[Finding]:
    """A part of nothing is none of ours, and in the way of telling which layers are one file."""
    for index, file in enumerate(files):
        if any(carrier.size == 0 for carrier in file.carriers):
            yield Finding(f"$.layers[{index}]", "MISMATCH", f"a part of {shown(file.name)} is empty")


def _layer_format(disks: Sequence[Descriptor]) -> str:
    return next(word for word in vocabulary.FORMATS if f"disk.{word}" in disks[0].media_type)


def _renamed(titles: Sequence[str], names: Sequence[str]) -> list[Finding]:
    if not titles:
        return []
    problem = f"the parts are called {shown(names[0])} and so on, for by their titles Epoch would not know a disk"
    return [Finding("$.layers", "NAME", problem, "warning")]


def disk_format(names: Sequence[str]) -> str:
    """What the first name says that says any."""
    return next((match[1] for name in names if (match := _FORMAT.search(name))), vocabulary.FORMATS[0])


def oci_titles(names: Sequence[str], count: int, known: Sequence[str]) -> Sequence[str]:
    """Titles for `count` layers: the `known` ones or the `names` where their byte order is right, else new ones."""
    # Titles that an artifact had before come back, so that it is the same artifact again.
    for titles in (known, names):
        if len(titles) == count and are_names(titles) and all(one < other for one, other in pairwise(titles)):
            return titles
    # Four digits: some readers sort .10 before .9 (trap 22).
    disk, width = f"{_stem(names[0])}.{disk_format(names)}", max(4, len(str(count)))
    return [f"{disk}.part.{index:0{width}d}" for index in range(count)]


def epoch_names(titles: Sequence[str], image_format: str) -> list[str]:
    """Names by which Epoch takes a manifest for a cloud image, counted from one as its publishers do."""
    disk = f"{_stem(titles[0])}.{image_format}"
    if len(titles) == 1:
        return [disk]
    # As in the names that were seen (epoch-formats 1.9).
    width = max(3, len(str(len(titles))))
    return [f"{disk}.part.{number:0{width}d}" for number in range(1, len(titles) + 1)]


def are_names(titles: Sequence[str]) -> bool:
    """Whether all are fit to be files, and no two of them one file."""
    return all(filename.problem(title) is None for title in titles) and not filename.clash_findings(
        ("", title) for title in titles
    )


def _stem(name: str) -> str:
    """The disk's name, without what tells its format or which part of it this is."""
    match = _STEM.match(name)
    stem = match["stem"][:_LONGEST_STEM] if match else ""
    return stem if filename.problem(stem) is None else "disk"
