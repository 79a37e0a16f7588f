"""Sizes, rates and times: as people read them, and as they write them."""

import re

from epoch_oci.errors import UsageError
from epoch_oci.oci.digest import shown
from epoch_oci.oci.parts import SMALLEST_PART

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"([0-9]{1,15})(?:([KMG])(?:iB)?)?\Z")
_SMALLEST_RATE = 1 << 10
_SMALLEST_CHUNK = 1 << 20
_FACTORS = {None: 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size_text(count: float) -> str:
    """1717666771 → `1.6 GiB`; powers of 1024."""
    unit = 0
    while count >= 1023.95 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """3.21 → `3.2 s`, 75 → `1:15`, 3700 → `1:01:40`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def part_size(text: str) -> int | None:
    """The SIZE of `--part-size` in bytes, 0 for `none`, None for `auto`. Raises UsageError."""
    if text in ("auto", "none"):
        return None if text == "auto" else 0
    size = _bytes(text)
    if size < SMALLEST_PART:
        raise UsageError(
            f"--part-size cannot be {shown(text)}",
            object="--part-size",
            hint="write none, auto, or a size of at least 1KiB: bytes, or with K, M, G, KiB, MiB, GiB",
        )
    return size


def rate(text: str) -> int:
    """The SIZE of `--limit-rate`, bytes a second. Raises UsageError."""
    count = _bytes(text)
    if count < _SMALLEST_RATE:
        raise UsageError(
            f"--limit-rate cannot be {shown(text)}",
            object="--limit-rate",
            hint="write at least 1KiB a second: bytes, or with K, M, G, KiB, MiB, GiB, such as 50M",
        )
    return count


def chunk_size(text: str) -> int:
    """The SIZE of `--chunk-size` in bytes. Raises UsageError."""
    size = _bytes(text)
    if size < _SMALLEST_CHUNK:
        raise UsageError(
            f"--chunk-size cannot be {shown(text)}",
            object="--chunk-size",
            hint="write at least 1MiB: bytes, or with K, M, G, KiB, MiB, GiB",
        )
    return size


def _bytes(text: str) -> int:
    """A SIZE in bytes, 0 for what is none."""
    match = _SIZE.match(text)
    return int(match[1]) * _FACTORS[match[2]] if match else 0
