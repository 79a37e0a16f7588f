"""The titles of a cloud image's parts, whose byte order is that of the parts (epoch-formats 4.7; traps 22 and 23)."""

import re
from collections.abc import Sequence
from itertools import pairwise

from epoch_oci.dialects.cocoonstack.words import FORMATS
from epoch_oci.oci import filename

_STEM = re.compile(r"(?P<stem>.*?)(?:\.(?:qcow2|raw))?(?:\.part.*|\.[0-9]+\.(?:qcow2|raw)\.part)?\Z", re.DOTALL)
_FORMAT = re.compile(r"\.(qcow2|raw)(?:\.|\Z)")
_LONGEST_STEM = 200


def disk_format(names: Sequence[str]) -> str:
    """What the first name says that says any."""
    return next((match[1] for name in names if (match := _FORMAT.search(name))), FORMATS[0])


def oci_titles(names: Sequence[str], count: int, known: Sequence[str]) -> Sequence[str]:
    """Titles for `count` layers: the `known` ones or the `names` where their byte order is right, else new ones."""
    for titles in (known, names):
        if len(titles) == count and are_names(titles) and all(one < other for one, other in pairwise(titles)):
            return titles
    disk, width = f"{_stem(names[0])}.{disk_format(names)}", max(4, len(str(count)))
    return [f"{disk}.part.{index:0{width}d}" for index in range(count)]


def epoch_names(titles: Sequence[str], image_format: str) -> list[str]:
    """Names by which Epoch takes a manifest for a cloud image, counted from one as its publishers do."""
    disk = f"{_stem(titles[0])}.{image_format}"
    if len(titles) == 1:
        return [disk]
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
