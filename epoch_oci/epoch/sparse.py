"""Cocoon's packed form of a sparse file (Cocoon utils/tar.go; epoch-formats 1.6 and 5.6)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import strict_json
from epoch_oci.oci.descriptor import size_of, size_problem
from epoch_oci.oci.digest import shown

MAP = "COCOON.sparse.map"
SIZE = "COCOON.sparse.size"
MAP_LIMIT = 1 << 20
"""Longest map in bytes; Go's tar writer and reader refuse an entry with more PAX records than this."""

_MEMBERS = frozenset({"o", "l"})


class Segment(NamedTuple):
    """A run of data inside a sparse file, both in bytes: the pair that `disk` and `chunks` know without its name."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Unpacking:
    """How a packed blob unfolds: its bytes are `segments` one after another, zeros lie between and behind them.

    The segments ascend, do not overlap, and end within `logical_size`, the length of the file in bytes.
    """

    segments: tuple[Segment, ...]
    logical_size: int


def is_packed(pax_records: Mapping[str, str]) -> bool:
    """Whether an archive entry with these PAX records has its data runs packed, rather than the file as it is."""
    return MAP in pax_records or SIZE in pax_records


def unpacking(pax_records: Mapping[str, str], stored_size: int) -> Unpacking | None:
    """How a blob of `stored_size` bytes unfolds, None when it is the file itself. Raises ContentError."""
    if not is_packed(pax_records):
        return None
    found: list[Finding] = []
    result = read_unpacking(pax_records, stored_size, "$", found)
    if result is None:
        raise ContentError.of("the sparse map", found)
    return result


def read_unpacking(
    pax_records: Mapping[str, str], stored_size: int, path: str, found: list[Finding]
) -> Unpacking | None:
    """As `unpacking`, for records that have the map or the size; what is wrong at or below `path` goes to `found`."""
    before = len(found)
    logical_size = _logical_size(pax_records, strict_json.member_path(path, SIZE), found)
    segments = _segments(pax_records, strict_json.member_path(path, MAP), found)
    if len(found) == before:
        found.extend(_misfits(segments, logical_size, stored_size, strict_json.member_path(path, MAP)))
    return Unpacking(segments, logical_size) if len(found) == before else None


def _logical_size(pax_records: Mapping[str, str], path: str, found: list[Finding]) -> int:
    text = pax_records.get(SIZE)
    size = size_of(text)
    if text is None:
        found.append(Finding(path, "SCHEMA", f"{MAP} is there and {SIZE} is not"))
    elif size is None:
        found.append(Finding(path, "SIZE", f"{shown(text)} is not a size in bytes"))
    # Cocoon packs files that are not empty, and its readers want a size (epoch-formats 4.6).
    elif size == 0:
        found.append(Finding(path, "SIZE", "a packed file cannot be empty"))
    return size or 0


def _segments(pax_records: Mapping[str, str], path: str, found: list[Finding]) -> tuple[Segment, ...]:
    text = pax_records.get(MAP)
    if text is None:
        found.append(Finding(path, "SCHEMA", f"{SIZE} is there and {MAP} is not"))
        return ()
    try:
        value = strict_json.loads(text.encode("utf-8"), "the sparse map", limit=MAP_LIMIT)
    except ContentError as error:
        found.append(Finding(path, error.code, error.message))
        return ()
    if value is None:  # a nil slice in Go: the file is one hole
        return ()
    if not isinstance(value, list):
        found.append(Finding(path, "SCHEMA", "the sparse map is neither an array nor null"))
        return ()
    problem = next((why for item in value if (why := _segment_problem(item))), None)
    if problem is not None:
        found.append(Finding(path, "SCHEMA", problem))
        return ()
    return tuple(Segment(item["o"], item["l"]) for item in value)


def _segment_problem(item: Any) -> str | None:
    # No member may be missing or added: Cocoon's reader would take 0, or pass over it, and place the bytes elsewhere.
    if not isinstance(item, dict) or item.keys() != _MEMBERS:
        return f'{shown(item)} in the sparse map is not {{"o": offset, "l": length}}'
    return size_problem(item["o"]) or size_problem(item["l"])


def _misfits(segments: tuple[Segment, ...], logical_size: int, stored_size: int, path: str) -> list[Finding]:
    end = 0
    for index, (offset, length) in enumerate(segments):
        # Cocoon does not look at bounds: a map that runs backwards would overwrite what was written (reliability Z3).
        if offset < end:
            return [Finding(path, "SIZE", f"segment {index} of the sparse map starts before the one before it ends")]
        end = offset + length
    if end > logical_size:
        return [Finding(path, "SIZE", f"the sparse map ends at {end}, behind the file's {logical_size} bytes")]
    packed = sum(length for _, length in segments)
    # Surplus bytes are skipped silently by Cocoon, and missing ones break it off in the middle of a file (epoch-formats
    # 5.6).
    if packed != stored_size:
        return [Finding(path, "SIZE", f"the sparse map covers {packed} bytes and the layer has {stored_size}")]
    return []
