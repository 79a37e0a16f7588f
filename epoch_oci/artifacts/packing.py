"""Files on their way into packs: read once, cut, compressed, and sent while the next pack is being laid."""

import os
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import field, replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from epoch_oci.artifacts.bases import Base, Bases
from epoch_oci.artifacts.chunked import kept_indexes, pack_layer
from epoch_oci.artifacts.pack_tables import PackTables
from epoch_oci.chunks.chunk import CHUNK_SIZE, chunk_digest
from epoch_oci.chunks.encode import Encoder, LaidPack, Packer, index_of
from epoch_oci.chunks.fold import Fold, Unfolding
from epoch_oci.chunks.index import CutFile, StoredBlob, annotations
from epoch_oci.chunks.known import ZERO_ROW, Known
from epoch_oci.chunks.pack import PACKS_LIMIT
from epoch_oci.chunks.pack import closing as closing_frame
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.base import ChunkLayers
from epoch_oci.dialects.profile import CHUNK_INDEX, CHUNK_PACK
from epoch_oci.disk.facts import Facts
from epoch_oci.disk.journals import PackJournal
from epoch_oci.errors import ContentError
from epoch_oci.events import Event, Kind, OnEvent
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.verifying import ByteReader, VerifyingReader
from epoch_oci.options import Checked
from epoch_oci.stores.base import BytesContent, Content, Remote, Sink
from epoch_oci.transfer.content import PiecesContent
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, in_parallel, plan_blobs
from epoch_oci.transfer.pool import GrowingPool
from epoch_oci.transfer.report import BlobReport, done
from epoch_oci.transfer.throttle import Throttle

SMALL = 1 << 20
"""Files up to this many bytes stay plain."""
_IN_FLIGHT = 128 << 20
"""Bytes of packs that wait or are being sent, beside the one that is being laid: most of what a push holds."""
# Packs have 16 to 64 MiB (docs/format.md, 7.3): with eight under way no line waits for the next one.
_SENDERS = 8
# Beyond that the one thread that reads and lays is what all others wait for.
_MOST_WORKERS = 8
_READ_ANEW = 32
"""Neighbouring chunks that are read at one go when they are laid anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking(Checked):
    """How files are put into chunks: `level` is zstd's, 1 to 19.

    `bases` are earlier versions; where none is named, what the tag holds and the newest tags are. `journals` is a
    directory that remembers what a killed push has sent, `cache` one that keeps indexes. Of the tags only those count
    that begin with `alike`, where a layout has versions of several snapshots. Unless `keep_plain`,
    also files of which the target has a plain layer are cut. With `verify_bases` packs of others are read before they
    are reused, each once on this machine, and every chunk is held against its digest.
    """

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"level": (1, 19)}
    level: int = 1
    bases: tuple[Base, ...] = ()
    journals: Path | None = None
    cache: Path | None = None
    keep_plain: bool = True
    verify_bases: bool = False
    alike: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How packs are sent; in a `dry_run` they are only counted."""

    sink: Sink
    on_event: OnEvent
    jobs: int | None = None
    throttle: Throttle | None = None
    dry_run: bool = False
    journal: PackJournal | None = None
    mounts: dict[Digest, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """A file that was cut: its rows, and where its bytes can be read again."""

    file: CutFile
    rows: "array[int]"
    content: Content
    fold: Fold | None

    def chunk(self, number: int) -> tuple[int, int]:
        """Offset and length of a chunk."""
        start = number * CHUNK_SIZE
        return start, min(CHUNK_SIZE, self.file.span - start)


class Packing:
    """The files of one snapshot, whose large ones have `size` bytes together, into packs beside those in `known`.

    A context: leaving it stops what is still being done. Raises what reading and sending raise.
    """

    def __init__(
        self,
        known: Known,
        size: int,
        level: int,
        sending: Sending,
        tables: PackTables,
        prove: Callable[[Digest], None] = lambda _: None,
    ) -> None:
        self._known, self._sending, self._tables, self._prove = known, sending, tables, prove
        self._sender = _Sender(known, sending)
        self._workers = max(1, min(os.cpu_count() or 1, _MOST_WORKERS))
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="chunks")
        self._packer = Packer(known, size, self._sender.take)
        self._encoder = Encoder(known, self._packer, level, self._pool, self._workers)
        self._cuts: dict[Digest, Cut] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._sender.stop()

    def add(self, blob: Descriptor, content: Content, fold: Fold | None = None) -> None:
        """Cut a file, which must be `blob`; it may be packed. Raises ContentError when it is not."""
        # Two files with the same bytes have the same chunks, and one row in the index (docs/format.md, 7.4).
        if blob.digest in self._cuts:
            return
        with content.open() as opened:
            reader: ByteReader = _Told(VerifyingReader(opened, blob), blob, self._sending.on_event)
            # Verified as it is read and cut unfolded: in the packed form all that follows moves when a run of data
            # grows (docs/format.md, 7.4).
            rows = self._encoder.encode(reader if fold is None else Unfolding(reader, fold))
        file = CutFile(blob.digest, blob.size, fold.span if fold else blob.size)
        self._cuts[blob.digest] = Cut(file, rows, content, fold)

    def settle(self) -> None:
        """Lay anew what lies in packs that are not worth keeping, or not there. The files are read again for that.

        May be called for each file by itself, where it can be read no more later: a pack that was kept stays worth it.
        """
        doomed = self._doomed()
        if doomed:
            # One byte a chunk: a set of them would be fifty times that, and there are millions.
            moved = bytearray(len(self._known) + 1)
            for cut in self._cuts.values():
                self._lay_anew(cut, doomed, moved)

    def finish(self) -> tuple[ChunkLayers, list[BlobReport]]:
        """Send the rest and the index; the layers that carry the files now, and what was done for each."""
        self._packer.flush()
        self._sender.wait()
        if not self._cuts:
            return ChunkLayers(index=None, packs=(), files=frozenset()), []
        files = [(cut.file, cut.rows) for cut in self._cuts.values()]
        blob, header, packs = index_of(self._known, files)
        index = Descriptor(
            media_type=CHUNK_INDEX, digest=Digest.of(blob), size=len(blob), annotations=annotations(blob, header)
        )
        # After all packs: it names them, and a kill before it leaves packs that the journal knows and no index that
        # lies.
        rows = [self._sender.send(index, BytesContent(blob), None)]
        if not self._sending.dry_run:
            for digest in self._sender.rows:
                self._tables.trust(digest)
            if not self._tables.believed:
                self._prove(index.digest)
        rows += [self._sender.rows.get(pack.digest) or self._kept(pack) for pack in packs]
        layers = ChunkLayers(
            index=index, packs=tuple(map(pack_layer, packs)), files=frozenset(file.digest for file, _ in files)
        )
        return layers, rows

    def _kept(self, pack: StoredBlob) -> BlobReport:
        word = "skip" if self._sending.dry_run else "skipped"
        return BlobReport(str(pack.digest), pack.size, None, CHUNK_PACK, word, 0)

    def _doomed(self) -> set[int]:
        """Earlier packs less than half of which is alive, those beyond the limit, that are not there or are others."""
        packs = self._known.packs
        self._known.count_live(cut.rows for cut in self._cuts.values())
        used = [number for number, pack in enumerate(packs) if pack.earlier and pack.live]
        # Less than half alive, it would keep more dead bytes in the registry than live ones, version after version.
        worth = [number for number in used if 2 * packs[number].live >= _size(packs[number].stored)]
        # By what each is worth, so that the limit takes the least; then by age, for the choice must be the same in
        # every run.
        worth.sort(key=lambda number: (-packs[number].live, number))
        del worth[max(0, PACKS_LIMIT - self._packer.laid - 1) :]
        # A registry may have collected what only an untagged version referred to: asked before anything refers to it
        # again.
        present = in_parallel(self._is_there, [pack_layer(_stored(packs[number].stored)) for number in worth], 8)
        there = [number for number, found in zip(worth, present, strict=True) if found]
        return set(used) - set(there) | self._tables.lying([number for number in there if self._can_be_read(number)])

    def _can_be_read(self, number: int) -> bool:
        """Whether a pack is in the target by now: a dry run mounts none."""
        return not self._sending.dry_run or _stored(self._known.packs[number].stored).digest not in self._sending.mounts

    def _is_there(self, pack: Descriptor) -> bool:
        sink, place = self._sending.sink, self._sending.mounts.get(pack.digest)
        if sink.holds(pack):
            return True
        if place is None or not isinstance(sink, Remote):
            return False
        # A dry run takes the other repository at its word: mounting is a change.
        return self._sending.dry_run or sink.mount(pack, place)

    def _lay_anew(self, cut: Cut, doomed: set[int], moved: bytearray) -> None:
        known = self._known
        numbers = [
            number
            for number, row in enumerate(cut.rows)
            # Zeros lie in no pack; and a chunk that repeats is laid anew once.
            if row != ZERO_ROW and not moved[row] and known.place(row)[0] in doomed
        ]
        for run in _neighbours(numbers):
            start, _ = cut.chunk(run[0])
            end = sum(cut.chunk(run[-1]))
            raw = _read(cut, start, end)
            for number in run:
                row, (offset, length) = cut.rows[number], cut.chunk(number)
                chunk = raw[offset - start : offset - start + length]
                # The second reading is of another moment: a file that is written to meanwhile shows here (reliability
                # L6).
                if chunk_digest(chunk) != known.digest(row):
                    raise ContentError(
                        f"{cut.file.digest} changed while it was read", code="DIGEST", object=str(cut.file.digest)
                    )
                # A run may hold one chunk twice: looked at once more, for the list was made before it.
                if not moved[row]:
                    moved[row] = 1
                    self._encoder.lay_anew(row, chunk)


@contextmanager
def packing_into(
    sending: Sending, chunking: Chunking, size: int, there: tuple[str, ImageManifest | None]
) -> Iterator[Packing]:
    """Packing for a sink, beside all that is known there of earlier versions.

    `there` is the tag that is pushed to, and what it holds. When the context is left without an error the snapshot was
    published, and what a killed push would have left is forgotten.
    """
    known = Known()
    bases = Bases(known, _warning(sending.on_event))
    if chunking.cache is not None:
        bases.kept, bases.facts = kept_indexes(chunking.cache), Facts(chunking.cache)
    journal = PackJournal(chunking.journals, sending.sink.where) if chunking.journals else None
    with closing(journal) if journal else nullcontext():
        if journal is not None:
            # First, so that what a killed push has sent counts before what older versions have: it lies in fresh, full
            # packs.
            bases.learn_journal(journal)
        bases.learn_all(chunking.bases, sending.sink, there, chunking.alike)
        sending = replace(sending, journal=journal, mounts=bases.mounts)
        tables = PackTables(known, sending.sink, bases.warn, bases.facts or Facts(None), chunking.verify_bases)
        with Packing(known, size, chunking.level, sending, tables, bases.prove) as packing:
            yield packing
        if journal is not None and not sending.dry_run:
            # Published: from here on the manifest keeps the packs alive, and the tag is a base by itself.
            journal.forget()


def _warning(on_event: OnEvent) -> Callable[[str], None]:
    return lambda text: on_event(Event(event="warning", message=text))


class _Sender:
    """Sends packs, several at a time, and lets whoever lays them wait when too many bytes are on their way."""

    def __init__(self, known: Known, sending: Sending) -> None:
        self._known, self._sending = known, sending
        self._pool = GrowingPool(min(sending.jobs or _SENDERS, _SENDERS), "packs")
        self._futures: list[Future[None]] = []
        self._state = threading.Condition()
        self._in_flight = 0
        self._error: BaseException | None = None
        self.rows: dict[Digest, BlobReport] = {}

    def take(self, pack: LaidPack) -> None:
        """A pack is complete. Waits until there is room for it; raises what went wrong with another."""
        with self._state:
            # Awake now and then, so that a signal is seen.
            while self._error is None and self._in_flight and self._in_flight + pack.size > _IN_FLIGHT:
                self._state.wait(0.2)
            self._check()
            self._in_flight += pack.size
        self._futures.append(self._pool.submit(self._work, pack))

    def wait(self) -> None:
        """Until every pack is there. Raises what went wrong with one."""
        with self._state:
            while self._error is None and self._in_flight:
                self._state.wait(0.2)
            self._check()

    def stop(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def send(self, target: Descriptor, content: Content, title: str | None) -> BlobReport:
        """One blob: sent unless it is there."""
        sending = self._sending
        # Asked for although it was just laid: the same chunks in the same order are a pack that an earlier push may
        # have sent.
        plan = plan_blobs(sending.sink, [Want(target=target, content=content, title=title)])
        if sending.dry_run:
            there = plan.all_there
            return BlobReport(
                str(target.digest), target.size, title, target.media_type, "skip" if there else "send",
                0 if there else target.size,
            )  # fmt: skip
        outcomes = execute(plan, moved="sent", jobs=1, on_event=self._quiet, throttle=sending.throttle)
        return done(outcomes)[0]

    def _quiet(self, event: Event) -> None:
        """What is told of a pack: the files are what people wait for, and they are told of where they are read."""
        if event.event in ("retry", "wait", "warning"):
            self._sending.on_event(event)

    def _work(self, pack: LaidPack) -> None:
        try:
            hasher = Digest.of(b"").hasher()
            for piece in pack.pieces:
                hasher.update(piece)
            stored = StoredBlob(Digest("sha256", hasher.hexdigest()), pack.size)
            target = Descriptor(media_type=CHUNK_PACK, digest=stored.digest, size=stored.size)
            row = self.send(target, PiecesContent(pack.pieces, pack.size), None)
            if self._sending.journal is not None and not self._sending.dry_run:
                # Only now, when the sink has it: a journal that is ahead of the registry would have later pushes refer
                # to nothing.
                self._sending.journal.note(stored.digest.hex, stored.size, closing_frame(pack.rows))
            with self._state:
                self._known.packs[pack.number].stored = stored
                self.rows[stored.digest] = row
        except BaseException as error:  # handed to whoever lays the next pack, or waits
            with self._state:
                # The first one is the cause; what follows is often no more than a closed connection.
                self._error = self._error or error
        finally:
            with self._state:
                # Also after an error, or whoever waits for room would wait for ever.
                self._in_flight -= pack.size
                self._state.notify_all()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


class _Told:
    """A file that is being cut, and events about how far it is."""

    def __init__(self, reader: ByteReader, blob: Descriptor, on_event: OnEvent) -> None:
        self._reader, self._blob, self._on_event = reader, blob, on_event
        self._offset = self._told = 0
        self._say("blob-start")

    def read(self, size: int = -1, /) -> bytes:
        block = self._reader.read(size)
        self._offset += len(block)
        if self._offset == self._blob.size and block:
            self._say("blob-done")
        elif self._offset - self._told >= 16 << 20:
            self._told = self._offset
            self._say("blob-progress")
        return block

    def _say(self, event: Kind) -> None:
        blob = self._blob
        self._on_event(Event(event=event, digest=blob.digest, title=blob.title, bytes=self._offset, total=blob.size))


def _read(cut: Cut, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of what the chunks of a file cover."""
    if cut.fold is None:
        return _exactly(cut.content, start, end - start)
    buffer = bytearray(end - start)
    for place, first, last in cut.fold.in_blob(start, end):
        buffer[first - start : last - start] = _exactly(cut.content, place, last - first)
    return bytes(buffer)


def _exactly(content: Content, start: int, length: int) -> bytes:
    parts: list[bytes] = []
    with content.open(start, length) as reader:
        while length and (part := reader.read(length)):
            parts.append(part)
            length -= len(part)
    return b"".join(parts)


def _neighbours(numbers: Sequence[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for number in numbers:
        if run and (number != run[-1] + 1 or len(run) >= _READ_ANEW):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _stored(stored: StoredBlob | None) -> StoredBlob:
    assert stored is not None
    return stored


def _size(stored: StoredBlob | None) -> int:
    return _stored(stored).size
