"""What must move. A plan is data: it is the dry run, the total of the progress bar, and the test."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, NotFoundError, counted
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable
from epoch_oci.stores.base import (
    Assembler,
    Content,
    FileSink,
    FileTarget,
    Remote,
    Scattered,
    Sink,
    Source,
)
from epoch_oci.transfer.content import SliceContent, WatchedContent
from epoch_oci.transfer.pool import MOST, GrowingPool

if TYPE_CHECKING:
    from epoch_oci.disk.assembly import Assembly

_QUESTIONS = 8
"""Asked at a time where nobody said how many: small answers, each a round trip."""

Step = Literal["move", "mount", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A blob that should be in a sink, and where its bytes can be had; `title` is the file it is, if it is one."""

    target: Descriptor
    content: Content
    title: str | None = None


@dataclass(slots=True)
class Seed:
    """A place that may hold blobs already; once `failed` it is asked no more."""

    source: Source
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One blob of a plan and what to do about it.

    `put` moves it, or `assemble` where the sink can take a blob out of order; `present` asks again whether it is there.
    `mount` is tried first when the step is `mount`; where it returns False the blob is moved after all. `seeds` say
    that they have it: it is taken from the first of them whose bytes are right. `unasked`: whether it is there is found
    out when its turn comes. `fill` fills the assembly in place of the content and does not finish it; `begun`: there is
    something in the assembly, however small the blob is.
    """

    target: Descriptor
    content: Content
    title: str | None
    step: Step
    put: Callable[[Content], None]
    present: Callable[[], bool]
    assemble: "Callable[[], AbstractContextManager[Assembly] | None] | None" = None
    mount: Callable[[], bool] | None = None
    seeds: tuple[Seed, ...] = ()
    unasked: bool = False
    fill: "Callable[[WatchedContent, Assembly], None] | None" = None
    begun: bool = False

    @property
    def cost(self) -> int:
        """Bytes that have to be fetched to move it."""
        return self.content.cost() if isinstance(self.content, Scattered) else self.target.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """A blob to be moved in parts whose digests nobody knows yet: reading it tells them, one after another.

    `item` makes the item of a part out of its number, its digest and its seal. `learned` is told the table when all are
    known.
    """

    blob: Descriptor
    content: Content
    part_size: int
    item: Callable[[int, Digest, bytes], Item]
    learned: Callable[[PartTable], None]
    title: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Every blob that is wanted, each digest once, in the order of the artifact; then what is cut on the way.

    `most` is how many transfers at a time the other side is known to bear.
    """

    items: tuple[Item, ...]
    most: int = MOST
    late: tuple[Late, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(item.target.size for item in self.items) + self.unknown

    @property
    def unknown(self) -> int:
        """Bytes of which it is not known yet whether they are there."""
        return sum(late.blob.size for late in self.late)

    @property
    def to_move(self) -> int:
        """Bytes that are not there yet, or are not known to be, and cannot be mounted or had from a seed."""
        known = sum(item.target.size for item in self.items if item.step == "move" and not item.seeds)
        return known + self.unknown

    def doing(self, moving: str) -> str:
        """The word for carrying it out: `moving`, or "mounting" where no byte has to move for it."""
        mounts = any(item.step == "mount" for item in self.items)
        return "mounting" if mounts and not self.to_move else moving

    @property
    def all_there(self) -> bool:
        """Whether nothing has to be done."""
        return not self.late and all(item.step == "skip" for item in self.items)


def plan_blobs(
    sink: Sink,
    wants: Iterable[Want],
    *,
    mount_from: Sequence[str] = (),
    homes: Mapping[Digest, str] | None = None,
    jobs: int | None = None,
    present: Callable[[Descriptor], bool] | None = None,
) -> Plan:
    """Ask `sink` about every blob, `jobs` at a time. A blob wanted twice is asked for once.

    `mount_from` are repositories of the sink's own registry that may hold the blobs already, `homes` says of some blobs
    which one does. `present` is asked in place of `sink.holds`, by whoever does not take the sink's word for it.
    """
    present = present or sink.holds
    unique: dict[Digest, Want] = {}
    for want in wants:
        unique.setdefault(want.target.digest, want)
    ordered = list(unique.values())
    found = in_parallel(present, [want.target for want in ordered], jobs)
    return Plan(
        tuple(
            _item(sink, want, there, _places(want.target, mount_from, homes), present)
            for want, there in zip(ordered, found, strict=True)
        ),
        most_of(sink),
    )


def _places(target: Descriptor, mount_from: Sequence[str], homes: Mapping[Digest, str] | None) -> Sequence[str]:
    home = homes.get(target.digest) if homes else None
    # Where it is known to be goes first: each place that lacks it costs a round trip.
    return mount_from if home is None else (home, *mount_from)


def most_of(place: object) -> int:
    """How many transfers at a time `place` is known to bear, and no more than are of use."""
    # Some registries answer 429 to more (oci-registries 3.3), whatever the line would bear.
    known = place.limits().jobs if isinstance(place, Remote) else None
    return min(MOST, known or MOST)


def cut_late(
    sink: Sink,
    content: Content,
    blob: Descriptor,
    carriers: Sequence[Descriptor],
    learned: Callable[[PartTable], None],
    *,
    title: str,
    mount_from: Sequence[str] = (),
) -> Late:
    """`blob` in the parts that `carriers` describe but for their digests."""
    starts = list(accumulate((carrier.size for carrier in carriers), initial=0))

    def item(index: int, digest: Digest, seal: bytes) -> Item:
        target = replace(carriers[index], digest=digest)
        part = SliceContent(content, starts[index], target.size, seal)
        want = Want(target=target, content=part, title=target.title)
        # Asked when its turn comes: hundreds of parts asked for in advance would be asked before one byte had moved,
        # and of a part that a broken run has sent nobody knows yet.
        return replace(_item(sink, want, False, mount_from, sink.holds), unasked=True)

    return Late(blob=blob, content=content, part_size=carriers[0].size, item=item, learned=learned, title=title)


def _item(
    sink: Sink, want: Want, there: bool, mount_from: Sequence[str], present: Callable[[Descriptor], bool]
) -> Item:
    assembler = sink if isinstance(sink, Assembler) else None
    mounter = sink if mount_from and isinstance(sink, Remote) else None
    return Item(
        target=want.target,
        content=want.content,
        title=want.title,
        step="skip" if there else "mount" if mounter else "move",
        put=lambda content: sink.put(want.target, content),
        present=lambda: present(want.target),
        assemble=(lambda: assembler.assemble(want.target)) if assembler else None,
        # The first that has it ends the asking; a refusal of one place says nothing about the next.
        mount=(lambda: any(mounter.mount(want.target, place) for place in mount_from)) if mounter else None,
    )


def plan_files(sink: FileSink, wants: Sequence[tuple[FileTarget, Content]], *, replace: bool) -> Plan:
    """Ask `sink` about every file. Raises ConflictError for what is in the way, LocalIOError when space is short."""
    # One after another: each is read and hashed, and a disk is read in order.
    held = [sink.holds(target) for target, _ in wants]
    sink.check([target for (target, _), there in zip(wants, held, strict=True) if not there], replace=replace)
    return Plan(
        tuple(
            _file_item(sink, target, content, there, replace)
            for (target, content), there in zip(wants, held, strict=True)
        )
    )


def _file_item(sink: FileSink, target: FileTarget, content: Content, there: bool, replace: bool) -> Item:
    return Item(
        target=target.blob,
        content=content,
        title=target.name,
        step="skip" if there else "move",
        put=lambda content: sink.write(target, content, replace=replace),
        present=lambda: sink.holds(target),
        assemble=lambda: sink.assemble(target, replace=replace),
    )


def require(
    source: Source, targets: Sequence[Descriptor], names: Mapping[Digest, str], *, jobs: int | None = None
) -> None:
    """Raise what is wrong where `source` does not have all `targets`; `names` says which file a digest is.

    NotFoundError names those that are absent, ContentError (SIZE) the first that is there and has another size.
    """
    there = in_parallel(source.has, targets, jobs)
    missing = [target for target, found in zip(targets, there, strict=True) if not found]
    for target in missing:
        refuse_other_size(source, target, names.get(target.digest, str(target.digest)))
    if missing:
        listed = ", ".join(f"{names.get(target.digest, 'document')} ({target.digest})" for target in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise NotFoundError(
            f"the source does not hold {listed}{more}",
            object=str(missing[0].digest),
            hint="nothing was sent; restore the missing content, or run `epoch-oci verify` on the source",
        )


def refuse_other_size(source: Source, target: Descriptor, name: str) -> None:
    """Of a blob that `has` denies: raise ContentError (SIZE) when one of its digest is there and has another size."""
    # Two bytes at the end tell all three cases: none is shorter, one is right, two are longer.
    start, wanted = max(target.size - 1, 0), min(target.size, 1)
    try:
        with source.content(target).open(start, 2) as reader:
            found = len(reader.read(2))
    except NotFoundError:
        return
    if found != wanted:
        how = "fewer" if found < wanted else "more"
        raise ContentError(
            f"{name} is there, and has {how} than the {counted(target.size, 'byte')} it should",
            code="SIZE",
            object=str(target.digest),
            hint="restore it; `epoch-oci verify` on the place it is in lists all that is wrong there",
        )


def in_parallel(present: Callable[[Descriptor], bool], targets: Sequence[Descriptor], jobs: int | None) -> list[bool]:
    """What `present` says of each target, `jobs` asked at a time.

    An error is raised without waiting for the others.
    """
    if len(targets) < 2:
        return [present(target) for target in targets]
    # Not a context: leaving it would wait for the questions under way, also after an error.
    pool = GrowingPool(min(jobs or _QUESTIONS, len(targets)), "plan")
    try:
        return list(pool.map(present, targets))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
