"""Cutting a blob into layers of bounded size (docs/format.md, "Parts")."""

from collections.abc import Iterator

from epoch_oci.dataclass import dataclass
from epoch_oci.oci.digest import Digest

PART_LIMIT = 100
"""Most parts of one file; some registries allow little more than a hundred layers in a manifest."""
SMALLEST_PART = 1 << 10
CUT_ABOVE, CUT_INTO = 1 << 30, 512 << 20
"""Files above the one size travel in parts of the other, in bytes, in every registry alike where nobody says otherwise:
an artifact must not depend on the host that it is pushed to, and a far line carries parts side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTable:
    """How one blob is cut: `size` bytes a part, the last one shorter; `digests` in order."""

    size: int
    digests: tuple[Digest, ...]


def fitting_size(total: int, wanted: int) -> int:
    """The part size for a blob of `total` bytes: `wanted`, doubled until no more than PART_LIMIT parts are needed."""
    size = wanted
    while -(-total // size) > PART_LIMIT:
        # Doubled and not fitted: two versions of a file that differ a little are cut alike, and share the parts that
        # are the same.
        size *= 2
    return size


def spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    """The (offset, length) of each part, in order, in bytes."""
    for offset in range(0, total, size):
        yield offset, min(size, total - offset)
