"""Cocoon's packed form of a sparse file (Cocoon utils/tar.go; epoch-formats, chapters 1.6 and 5.6)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of data inside a sparse file, both in bytes."""

    offset: int
    length: int
