"""Which tags a policy keeps. Nothing here asks anybody."""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from epoch_oci.bulk.select import moment_of
from epoch_oci.options import Checked


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tag. `name` is the snapshot's or repository's, `created` text, "" when nobody knows."""

    name: str
    tag: str
    created: str = ""

    @property
    def label(self) -> str:
        """What patterns are held against."""
        return f"{self.name}:{self.tag}" if self.name else self.tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Checked):
    """What is kept: of each name the newest `last`, what is not older than `within`, what a pattern of `keep` takes.

    With neither `last` nor `within` everything is.
    """

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"last": (1, 1_000_000)}
    last: int | None = None
    within: timedelta | None = None
    keep: tuple[str, ...] = ()

    def removed(self, candidates: Iterable[Candidate], now: datetime) -> list[Candidate]:
        """Those that nothing keeps. What has no date is never old."""
        if self.last is None and self.within is None:
            return []
        by_name: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            by_name.setdefault(candidate.name, []).append(candidate)
        return [item for items in by_name.values() for item in self._of_name(items, now)]

    def _of_name(self, items: list[Candidate], now: datetime) -> list[Candidate]:
        dated = [(moment, item) for item in items if (moment := moment_of(item.created)) is not None]
        dated.sort(key=lambda pair: (pair[0], pair[1].tag), reverse=True)
        old = dated[self.last :] if self.last is not None else dated
        if self.within is not None:
            old = [pair for pair in old if now - pair[0] > self.within]
        return [item for _, item in old if not self._is_kept(item)]

    def _is_kept(self, item: Candidate) -> bool:
        return any(fnmatch.fnmatchcase(text, pattern) for pattern in self.keep for text in (item.label, item.tag))
