"""Blobs that are at hand already, in stores the user named: taken from there, and verified like those of strangers."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from epoch_oci.disk.assembly import Assembly
from epoch_oci.disk.local import FileReader
from epoch_oci.errors import AccessError, ContentError, LocalIOError, NetworkError, NotFoundError
from epoch_oci.events import Event, OnEvent
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.stores.base import FileContent
from epoch_oci.transfer.content import WatchedContent
from epoch_oci.transfer.plan import Item, Plan, Seed, in_parallel


def with_seeds(plan: Plan, seeds: Sequence[Seed], on_event: OnEvent, *, jobs: int | None = None) -> Plan:
    """The plan, with the seeds of each blob that is to be moved; only a blob's own digest and size count.

    A seed that cannot be asked is passed over with a warning.
    """
    # What is there or can be mounted needs no seed, and an empty blob is quicker made than asked for.
    wanted = [item.target for item in plan.items if item.step == "move" and item.target.size]
    holders: dict[Digest, tuple[Seed, ...]] = {target.digest: () for target in wanted}
    for seed in seeds:
        ask = _asking(seed, on_event)
        # One question goes ahead, so that a place out of reach is waited for once.
        present = [*map(ask, wanted[:1]), *in_parallel(ask, wanted[1:], jobs)]
        for target, there in zip(wanted, present, strict=True):
            if there:
                holders[target.digest] += (seed,)
    items = tuple(replace(item, seeds=holders.get(item.target.digest, ())) for item in plan.items)
    return replace(plan, items=items)


def foreseen(plan: Plan) -> Plan:
    """The plan as a dry run shows it: what a seed has is not fetched."""
    return Plan(tuple(_skipped(item) if item.seeds else item for item in plan.items))


def _skipped(item: Item) -> Item:
    return replace(item, step="skip")


def _asking(seed: Seed, on_event: OnEvent) -> Callable[[Descriptor], bool]:
    """Whether `seed` has a blob; what goes wrong is told, and taken for a no."""

    def has(target: Descriptor) -> bool:
        if seed.failed:
            return False
        try:
            return seed.source.has(target)
        except (NetworkError, AccessError) as error:
            # Out of reach it will be for the next blob too, and each question would wait its full time.
            seed.failed = True
            problem = f"{seed.source.where} is of no use as a seed: {error.message}"
        except (ContentError, NotFoundError, LocalIOError) as error:
            problem = f"{seed.source.where} cannot say whether it has {target.digest}: {error.message}"
        on_event(Event(event="warning", message=problem))
        return False

    return has


def reuse(item: Item, content: WatchedContent, assembly: Assembly | None) -> None:
    """Make `content` the blob: a clone or a link of its file where both sides can, else a copy.

    Raises ContentError when its bytes are not the blob, and what reading and the sink raise; nothing is left then but
    what an earlier run had fetched.
    """
    # A file system that can clone moves nothing; whatever it cannot do is copied.
    if assembly is None or not _adopted(item, content, assembly):
        item.put(content)
        if assembly is not None:
            assembly.discard()


def _adopted(item: Item, content: WatchedContent, assembly: Assembly) -> bool:
    """Whether the blob is there now without having been copied. What was fetched of it before is not put at risk."""
    held = content.content
    # A download that is half done is worth more than a clone that may turn out wrong at its end.
    if assembly.resumed or not isinstance(held, FileContent):
        return False
    opened = held.file()
    if opened is None:
        return False
    with opened as file:
        what = item.title or str(item.target.digest)
        # The bytes are hashed through the very descriptor that is cloned: what the name leads to may change meanwhile
        # (reliability L6).
        reader = content.watched(FileReader(file, what))
        check = VerifyingReader(reader, item.target, what).exhaust
        return assembly.adopt(file, check) and assembly.finish()
