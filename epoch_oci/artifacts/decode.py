"""Snapshots whose layers are compressed or cut: what Epoch calls their files is learnt by decoding them.

A store takes a blob under its digest, and an Epoch manifest names its blobs by theirs, so the digests come first: one
pass over the layers that keeps nothing but them, and a second one that moves the bytes. To decode once, a store would
have to keep bytes without a name, or the disk a copy of them. What a file's layers decode to never changes, so the
first pass is remembered, and a repeated pull does without it.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci import dialects
from epoch_oci.dialects.base import EncodedFile, EncodedSnapshot, Snapshot, SnapshotFile
from epoch_oci.disk.facts import Facts
from epoch_oci.epoch.manifest import Layer
from epoch_oci.errors import ContentError
from epoch_oci.events import Event, OnEvent, ignore, phase
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.stores.base import BytesContent, Content, Source
from epoch_oci.transfer.content import CheckedContent, JoinedContent
from epoch_oci.transfer.throttle import Throttle

if TYPE_CHECKING:
    from epoch_oci.transfer.plan import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How digests are learnt: `jobs` files at a time, and remembered in the directory `cache` (None: nowhere).

    `throttle` paces the reading, by what is decoded rather than by what is fetched.
    """

    cache: Path | None = None
    jobs: int | None = None
    throttle: Throttle | None = None
    on_event: OnEvent = field(default=ignore, repr=False)


def told(image: ImageManifest, config: Document | None) -> Snapshot | EncodedSnapshot:
    """What two documents tell: a snapshot, or as much of one as can be known before its layers are decoded.

    Raises ContentError with every finding.
    """
    dialect = dialects.detect(image)
    encoded = dialect.read_encoded(image, config)
    if encoded is None:
        return dialect.decode(image, config)
    # Files that are only cut have their digests in the documents: nothing needs to be read first.
    return encoded if encoded.undigested else encoded.finish({})


Choose = Callable[[Sequence[str]], Collection[str]]
"""The names of the files that are wanted, out of all. May raise."""


def decoded(
    source: Source, encoded: EncodedSnapshot, how: Decoding | None = None, choose: Choose | None = None
) -> Snapshot:
    """The snapshot, after its layers were read, verified and decoded, unless `how` remembers what they decode to.

    With `choose` no others are, and the snapshot has those files alone, see `EncodedSnapshot.finish_part`.
    Raises ContentError (DIGEST, SIZE, TYPE) for layers that are wrong, UsageError where no decoder is installed, and
    what reading raises.
    """
    if choose is None:
        return encoded.finish(digests_of(source, encoded.undigested, how or Decoding()))
    names = choose([file.name for file in encoded.files])
    wanted = [file for file in encoded.undigested if file.name in names]
    return encoded.finish_part(digests_of(source, wanted, how or Decoding()), names)


def digests_of(source: Source, files: Sequence[EncodedFile], how: Decoding) -> dict[str, Digest]:
    """By name the digests of the decoded `files`. Memory stays at a few blocks and a window a job. As `decoded`."""
    from epoch_oci.transfer.execute import execute
    from epoch_oci.transfer.plan import Plan
    from epoch_oci.transfer.zstd import digest_of

    memory = _Memory(how.cache) if how.cache is not None else None
    # What is remembered may be wrong: the second pass hashes all of it, and a wrong one is forgotten then (decision
    # D18).
    found = {file.name: known for file in files if memory and (known := memory.recall(file)) is not None}

    def learn(file: EncodedFile, content: Content) -> None:
        digest = digest_of(content)
        found[file.name] = digest
        if memory is not None:
            memory.keep(file, digest)

    # As items of a transfer, so that jobs, rate, progress and Ctrl-C are as in any other.
    items = tuple(_item(source, file, learn) for file in files if file.name not in found)
    if items:
        phase(how.on_event, "decoding, to find the digests of what was encoded")
        # A bar that said `done` here would stand still for the pass that moves the bytes.
        heard = _first_pass(how.on_event)
        execute(Plan(items), moved="received", jobs=how.jobs, on_event=heard, throttle=how.throttle)
    return found


def carried_content(source: Source, file: SnapshotFile | EncodedFile) -> Content:
    """The stored bytes of a file, however they are carried; layers are verified, except a plain and only one.

    Opening it in the middle costs what lies before, where the layers are compressed. Of files in chunks, `source` is
    one that hands them out as blobs (`chunked.ChunkedSource`).
    """
    if file.encoding == "chunks" and isinstance(file, SnapshotFile):
        return source.content(replace(file.blob, annotations={media_types.TITLE: file.name}))
    if file.encoding == "zstd":
        from epoch_oci.transfer.zstd import UnpackedContent

        # Together, for only of all of them is it declared what they decode to.
        layers = [(carrier, source.content(carrier)) for carrier in file.carriers]
        return UnpackedContent(layers, file.size, True, file.name)
    return joined(source, file.carriers) if file.carriers else BytesContent(b"")


def layer_contents(source: Source, snapshot: Snapshot) -> Callable[[Layer], Content | None]:
    """Where the stored bytes of a snapshot's own files can be had; None for one that the artifact does not carry."""
    files = {file.name: file for file in snapshot.files if file.role == "layer"}

    def content(layer: Layer) -> Content | None:
        file = files.get(layer.filename)
        return None if file is None else carried_content(source, file)

    return content


def joined(source: Source, carriers: tuple[Descriptor, ...]) -> Content:
    """The content that `carriers` have together; each part is verified as well."""
    if len(carriers) == 1:
        return source.content(carriers[0])
    return JoinedContent([CheckedContent(source.content(carrier), carrier) for carrier in carriers])


def _item(source: Source, file: EncodedFile, learn: Callable[[EncodedFile, Content], None]) -> "Item":
    """A step that reads a file to its end. It goes by the digest of its first layer, for it has none of its own yet."""
    from epoch_oci.transfer.plan import Item

    return Item(
        target=Descriptor(media_type=file.media_type, digest=file.carriers[0].digest, size=file.size),
        content=carried_content(source, file),
        title=file.name,
        step="move",
        put=lambda content: learn(file, content),
        # There is no sink that could have it: what it would be stored as is what is being found out.
        present=lambda: False,
    )


def _first_pass(on_event: OnEvent) -> OnEvent:
    """Listens to a pass after which more is to come."""

    def told_of(event: Event) -> None:
        # The second pass says it.
        if event.event != "done":
            on_event(event)

    return told_of


class _Memory:
    """Digests of decoded files, by all that they follow from, among what is remembered in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._facts = Facts(directory)

    def recall(self, file: EncodedFile) -> Digest | None:
        try:
            return Digest.from_hex(self._facts.recall("decoded", _facts_of(file)) or "")
        except ContentError:
            return None

    def keep(self, file: EncodedFile, digest: Digest) -> None:
        self._facts.keep("decoded", _facts_of(file), digest.hex)

    def forget(self, file: EncodedFile) -> None:
        self._facts.forget("decoded", _facts_of(file))


def _facts_of(file: EncodedFile) -> str:
    return json.dumps([file.encoding, file.size, [str(carrier.digest) for carrier in file.carriers]])


def forgot(undigested: Sequence[EncodedFile], cache: Path | None) -> bool:
    """Forget what the files were remembered to decode to, for something is wrong. False when nothing was remembered."""
    memory = _Memory(cache) if cache is not None else None
    known = [file for file in undigested if memory is not None and memory.recall(file) is not None]
    for file in known:
        assert memory is not None
        memory.forget(file)
    return bool(known)
