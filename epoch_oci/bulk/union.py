"""What must move for many snapshots to be there: the union of their blobs, each once (pure; asks nobody).

A blob that several snapshots share is carried ahead of them, base images first and then by size, into the container of
the first snapshot that wants it; everywhere else in the same registry it is mounted. What belongs to one snapshot alone
goes with it, the largest snapshots first, so that a run that is cut short leaves whole snapshots.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import field, replace
from datetime import UTC, datetime

from epoch_oci.artifacts.bases import natural_order
from epoch_oci.bulk.select import moment_of
from epoch_oci.bulk.sides import Entry
from epoch_oci.dataclass import dataclass
from epoch_oci.oci.digest import Digest

_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
Place = tuple[str, Digest]
"""A blob in a container of the target."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored content: `size` in bytes; `base` when some snapshot calls it its base image.

    `secret` is the name and media type of the file that it is, where that holds a guest's memory or state.
    """

    digest: Digest
    size: int
    base: bool = False
    secret: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A snapshot that is not there yet: where it comes from, where it goes, and what it is made of.

    `pinned` is the digest of its document at the source, by which it is had from there whatever its tag says meanwhile.
    What is `in_chunks`, or will be, is cheaper where an earlier version is.
    """

    source: Entry
    target: Entry
    pinned: Digest
    blobs: tuple[Blob, ...]
    created: str = ""
    in_chunks: bool = False

    @property
    def size(self) -> int:
        """Bytes of all its blobs."""
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class Carry:
    """One blob to be brought to `container` ahead of the snapshots that share it; `sources` has those, by index."""

    blob: Blob
    container: str
    users: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """What to do, in order. `wanted` are the snapshots, the largest first; `carries` go ahead.

    Sizes are bytes: `moved` must come from the source, `mounted` are had within the target, `there` are found in place,
    `union` is every distinct blob once and `total` what a client would move that treats each snapshot alone.
    """

    wanted: tuple[Wanted, ...]
    carries: tuple[Carry, ...]
    moved: int
    mounted: int
    there: int
    union: int
    total: int
    own: tuple[int, ...] = field(repr=False)
    """By snapshot, the bytes that move for its sake alone."""
    placed: AbstractSet[Place] = field(repr=False)
    """What containers of the target are known to hold."""
    turns: tuple[str | None, ...] = field(default=(), repr=False)
    """By snapshot, the name of which it is a version that waits for the one before; None for what never waits."""

    @property
    def saved(self) -> int:
        """Bytes that need not move, for they are there, shared or mounted."""
        return self.total - self.moved

    @property
    def at_once(self) -> int:
        """How many snapshots can be under way at a time."""
        waiting = [turn for turn in self.turns if turn is not None]
        return len(self.wanted) - len(waiting) + len(set(waiting))


def plan(
    wanted: Sequence[Wanted],
    there: AbstractSet[Place],
    homes: Mapping[Digest, str],
    *,
    mounts: bool,
    one_registry: bool = False,
) -> SyncPlan:
    """Plan for `wanted`. `there` is what containers of the target are known to hold, `homes` hints of other containers.

    With `mounts` what one container holds any other one gets without moving it; in `one_registry` the source's are such
    containers.
    """
    users = _users(wanted)
    known = dict(homes) if mounts else {}
    # What was seen today outweighs what an earlier run noted.
    for container, digest in there:
        known.setdefault(digest, container)
    # By what is its own: what is shared goes ahead in any case. The target breaks ties, so that every run has one
    # order.
    order = sorted(range(len(wanted)), key=lambda index: (-_own_size(wanted[index], users), wanted[index].target))
    rank = {old: new for new, old in enumerate(order)}
    carries = []
    sums = {"moved": 0, "mounted": 0, "there": 0}
    own = [0] * len(wanted)
    for blob, indexes in _ordered(users):
        # In the order in which the snapshots go, so that the blob lands where it is needed first.
        containers = dict.fromkeys(wanted[index].target.container for index in sorted(indexes, key=rank.__getitem__))
        absent = [container for container in containers if (container, blob.digest) not in there]
        sums["there"] += blob.size * (len(containers) - len(absent))
        if not absent:
            continue
        # Where nothing can be mounted each container gets its own copy; else one crosses the line, and the others have
        # it from there.
        at_hand = mounts and (one_registry or blob.digest in known)
        moves = 0 if at_hand else 1 if mounts else len(absent)
        sums["moved"] += blob.size * moves
        sums["mounted"] += blob.size * (len(absent) - moves)
        if len(indexes) > 1 and moves:
            carries.append(Carry(blob, absent[0], tuple(sorted(rank[index] for index in indexes))))
        else:
            own[rank[min(indexes, key=rank.__getitem__)]] += blob.size * moves
    return SyncPlan(
        wanted=tuple(wanted[index] for index in order),
        carries=tuple(carries),
        moved=sums["moved"],
        mounted=sums["mounted"],
        there=sums["there"],
        union=sum(blob.size for blob, _ in users.values()),
        total=sum(item.size for item in wanted),
        own=tuple(own),
        placed=there,
    )


def version_by_version(planned: SyncPlan, *, pushed: bool) -> SyncPlan:
    """The same, but of what is in chunks the oldest first, and of one name each after the one before.

    So it finds there what it shares with the other. Where chunks are what is `pushed`, files are not shared whole, but
    for base images, which stay plain.
    """
    items = planned.wanted
    order = sorted(range(len(items)), key=lambda index: _turn(items[index], index))
    rank = {old: new for new, old in enumerate(order)}
    return replace(
        planned,
        wanted=tuple(items[index] for index in order),
        own=tuple(planned.own[index] for index in order),
        carries=tuple(
            replace(carry, users=tuple(sorted(rank[index] for index in carry.users)))
            for carry in planned.carries
            if carry.blob.base or not pushed
        ),
        turns=tuple(items[index].target.name if items[index].in_chunks else None for index in order),
    )


def _turn(item: Wanted, place: int) -> tuple[bool, object]:
    if not item.in_chunks:
        return False, place
    # What has no date comes first: it may be as old as it likes. Tags break ties, for versions are counted.
    return True, (moment_of(item.created) or _EARLIEST, natural_order(item.target.tag), item.target)


def _users(wanted: Sequence[Wanted]) -> dict[Digest, tuple[Blob, list[int]]]:
    """Every distinct blob with the snapshots that want it; a base image for one is a base image."""
    found: dict[Digest, tuple[Blob, list[int]]] = {}
    for index, item in enumerate(wanted):
        for blob in item.blobs:
            known = found.get(blob.digest)
            if known is None:
                found[blob.digest] = (blob, [index])
                continue
            # One snapshot may call it a layer and another one a base image: if it is a secret for one, it is one.
            if (blob.base and not known[0].base) or (blob.secret and not known[0].secret):
                merged = replace(blob, base=blob.base or known[0].base, secret=blob.secret or known[0].secret)
                found[blob.digest] = known = (merged, known[1])
            # Twice in one snapshot is one use: alone with it, the blob is not shared.
            if known[1][-1] != index:
                known[1].append(index)
    return found


def _own_size(item: Wanted, users: Mapping[Digest, tuple[Blob, list[int]]]) -> int:
    return sum(blob.size for blob in item.blobs if len(users[blob.digest][1]) == 1)


def _ordered(users: Mapping[Digest, tuple[Blob, list[int]]]) -> Iterable[tuple[Blob, list[int]]]:
    """Base images first, then by size; digests make it the same order everywhere."""
    return sorted(users.values(), key=lambda row: (not row[0].base, -row[0].size, row[0].digest.hex))
