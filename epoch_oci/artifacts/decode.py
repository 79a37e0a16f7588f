"""Snapshots whose layers are compressed or cut: what Epoch calls their files is learnt by decoding them.

A store takes a blob under its digest, and an Epoch manifest names its blobs by theirs, so the digests come first, by
one pass over the layers. A target on this machine takes the bytes meanwhile (`drafts.Drafts`), in files that nobody
sees and that become the blobs once their digests are known. A pipe takes them in order, and nobody asks there what
they are called (`Undecoded`). For any other the pass keeps nothing but digests, and a second one moves the bytes. What
a file's layers decode to never changes, so it is remembered, and a repeated pull does without the pass; where an Epoch
manifest rides along that says so, there is none at all.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci import dialects
from epoch_oci.dataclass import dataclass
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
from epoch_oci.oci.verifying import ByteReader, LearningReader, VerifyingReader
from epoch_oci.stores.base import BytesContent, Content, Source
from epoch_oci.transfer.content import CheckedContent, JoinedContent, WatchedContent
from epoch_oci.transfer.throttle import Throttle

if TYPE_CHECKING:
    from epoch_oci.artifacts.drafts import Drafts
    from epoch_oci.disk.assembly import Assembly
    from epoch_oci.transfer.plan import Item
    from epoch_oci.transfer.zstd import UnpackedContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How digests are learnt: `jobs` files at a time, and remembered in the directory `cache` (None: nowhere).

    `throttle` paces the reading, by what is decoded rather than by what is fetched. `drafts` take what is decoded.
    """

    cache: Path | None = None
    jobs: int | None = None
    throttle: Throttle | None = None
    drafts: "Drafts | None" = None
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
    how = how or Decoding()
    every = [file.name for file in encoded.files]
    names = set(every if choose is None else choose(every))
    wanted = [file for file in encoded.undigested if file.name in names]
    told = {file.name: encoded.claimed[file.name] for file in wanted if file.name in encoded.claimed}
    untold = [file for file in wanted if file.name not in told]
    digests = told | digests_of(source, encoded, untold, how)
    return encoded.finish(digests) if choose is None else encoded.finish_part(digests, names)


@dataclass(slots=True)
class Undecoded:
    """A snapshot of which the digests are learnt as its files are handed out, for whoever needs no digest before.

    Raises UsageError where no decoder is installed, ContentError for what cannot decode to what is declared.
    """

    source: Source
    encoded: EncodedSnapshot
    cache: Path | None
    _known: dict[str, Digest] = field(default_factory=dict, init=False)
    _pending: dict[Digest, list[EncodedFile]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        memory = _Memory(self.cache) if self.cache is not None else None
        for file in self.encoded.undigested:
            digest = self.encoded.claimed.get(file.name) or (memory.recall(file) if memory is not None else None)
            if digest is not None:
                self._known[file.name] = digest
                continue
            unpacked_content(self.source, file).refuse_impossible()
            self._pending.setdefault(stand_in(file), []).append(file)

    @property
    def snapshot(self) -> Snapshot:
        """With stand-ins for what is not known yet. Raises ContentError."""
        stand_ins = {file.name: digest for digest, files in self._pending.items() for file in files}
        return self.encoded.finish(stand_ins | self._known)

    def verify(self, content: ByteReader, target: Descriptor, what: str) -> VerifyingReader:
        """As VerifyingReader; of what goes by a stand-in the layers are verified, and what it is called is learnt."""
        if target.digest not in self._pending:
            return VerifyingReader(content, target, what)
        return LearningReader(content, target, what, partial(self._learn, self._pending[target.digest]))

    def _learn(self, files: Sequence[EncodedFile], digest: Digest) -> None:
        memory = _Memory(self.cache) if self.cache is not None else None
        for file in files:
            self._known[file.name] = digest
            if memory is not None:
                memory.keep(file, digest)


def digests_of(
    source: Source, encoded: EncodedSnapshot, files: Sequence[EncodedFile], how: Decoding
) -> dict[str, Digest]:
    """By name the digests of the decoded `files` of a snapshot. Raises as `decoded`.

    Memory stays at a few blocks and a window a job.
    """
    from epoch_oci.transfer.execute import execute
    from epoch_oci.transfer.plan import Plan

    # What is remembered may be wrong, and so may be what is claimed: whoever takes the bytes hashes them, and a wrong
    # memory is forgotten then (decision D18).
    learning = _Learning(source, _Memory(how.cache) if how.cache is not None else None, how.drafts)
    files = [file for file in files if not learning.knows(file)]
    # As items of a transfer, so that jobs, rate, progress and Ctrl-C are as in any other.
    items = tuple(map(learning.item, files))
    if items:
        if how.drafts is not None:
            how.drafts.expect(encoded, files)
        phase(how.on_event, "decoding, to find the digests of what was encoded")
        # A bar that said `done` here would stand still for the pass that moves the bytes.
        heard = _first_pass(how.on_event)
        execute(Plan(items), moved="received", jobs=how.jobs, on_event=heard, throttle=how.throttle)
    return learning.found


def carried_content(source: Source, file: SnapshotFile | EncodedFile) -> Content:
    """The stored bytes of a file, however they are carried; layers are verified, except a plain and only one.

    Opening it in the middle costs what lies before, where the layers are compressed. Of files in chunks, `source` is
    one that hands them out as blobs (`chunked.ChunkedSource`).
    """
    if file.encoding == "chunks" and isinstance(file, SnapshotFile):
        return source.content(replace(file.blob, annotations={media_types.TITLE: file.name}))
    if file.encoding == "zstd":
        return unpacked_content(source, file)
    return joined(source, file.carriers) if file.carriers else BytesContent(b"")


def unpacked_content(source: Source, file: SnapshotFile | EncodedFile) -> "UnpackedContent":
    """A file of which every layer is verified, and decoded where it is compressed."""
    from epoch_oci.transfer.zstd import UnpackedContent

    # Together, for only of all of them is it declared what they decode to.
    layers = [(carrier, source.content(carrier)) for carrier in file.carriers]
    return UnpackedContent(layers, file.size, file.encoding == "zstd", file.name)


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


@dataclass(slots=True)
class _Learning:
    """Steps that read files to their ends; `found` are the digests by name."""

    source: Source
    memory: "_Memory | None"
    drafts: "Drafts | None"
    found: dict[str, Digest] = field(default_factory=dict)
    _alike: dict[Digest, Digest] = field(default_factory=dict)

    def knows(self, file: EncodedFile) -> bool:
        """Whether the digest is known by now: one that was found goes for every file of the same layers."""
        digest = self._alike.get(stand_in(file))
        if digest is None and self.memory is not None:
            digest = self.memory.recall(file)
        if digest is not None:
            self.found[file.name] = digest
            if self.drafts is not None:  # an earlier run may have left it, or another one that was waited for
                self.drafts.received.setdefault(digest, 0)
        return file.name in self.found

    def item(self, file: EncodedFile) -> "Item":
        """The step for a file. It goes by a stand-in for the digest that it is to tell."""
        from epoch_oci.transfer.plan import Item

        unpacked = unpacked_content(self.source, file)
        unpacked.refuse_impossible()
        target = Descriptor(media_type=file.media_type, digest=stand_in(file), size=file.size)
        drafts = self.drafts
        assemble = partial(drafts.assemble, file, target.digest) if drafts is not None else None
        return Item(
            target=target,
            content=unpacked,
            title=file.name,
            step="move",
            put=partial(self._read, file),
            present=partial(self.knows, file),
            assemble=assemble,
            fill=partial(self._draft, file, unpacked),
        )

    def _read(self, file: EncodedFile, content: Content) -> None:
        from epoch_oci.transfer.zstd import digest_of

        self._learn(file, digest_of(content))

    def _draft(
        self, file: EncodedFile, unpacked: "UnpackedContent", content: WatchedContent, assembly: "Assembly"
    ) -> None:
        from epoch_oci.transfer.assemble import fill

        fill(unpacked, content, assembly)
        digest = assembly.digest()
        assert self.drafts is not None
        # Before the draft loses its name: whoever waits for it must not begin another.
        self._learn(file, digest)
        # Where somebody else has it, or is at it, there is nothing left to do with these bytes.
        if self.drafts.holds(file, digest) or not assembly.rename(digest):
            assembly.discard()
        else:
            self.drafts.received[digest] = file.size - assembly.resumed

    def _learn(self, file: EncodedFile, digest: Digest) -> None:
        self.found[file.name] = self._alike[stand_in(file)] = digest
        if self.memory is not None:
            self.memory.keep(file, digest)


def stand_in(file: EncodedFile) -> Digest:
    """What a file is called as long as its digest is not known: by all that follows from."""
    return Digest.of(_facts_of(file).encode())


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
