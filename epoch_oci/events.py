"""What a running transfer reports. A library never prints: it calls `on_event`."""

import time
from collections.abc import Callable
from typing import Literal

from epoch_oci.dataclass import dataclass
from epoch_oci.oci.digest import Digest

Kind = Literal[
    "phase",
    "plan",
    "blob-start",
    "blob-progress",
    "blob-done",
    "snapshot-done",
    "retry",
    "wait",
    "warning",
    "done",
    "error",
]
_TOLD_SECONDS = 0.5
Action = Literal["sent", "mounted", "skipped", "received", "reused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened; `bytes` and `total` are bytes of the blob (of everything, where `digest` is None).

    `bytes` of a blob may fall: a failed attempt that starts again gives back what it had counted.
    `seconds` is the length of a wait. `message` says why, and never holds a secret; of a `phase` it is the word for
    what is done from here on. A `plan` says how many bytes are to move, as far as is known: another one follows when
    some turn out to be there already, or when more have to move.
    `phase` is what is done to a blob's bytes where that is not what the run does as a whole: "hashing" before sending.
    A `blob-start` whose `bytes` are not 0 goes on from there: those were moved by an earlier run.
    Where many snapshots move, `snapshot` is the one it is about, and `snapshots` counts them: all of a plan, those that
    are through of the others. A phase that goes through many things has gone through `count` of them, out of `of` (0
    as long as nobody knows). `registry` (HOST[:PORT]) is the one that is waited for, or that said something.
    """

    event: Kind
    digest: Digest | None = None
    title: str | None = None
    bytes: int = 0
    total: int = 0
    action: Action | None = None
    message: str | None = None
    seconds: float | None = None
    snapshot: str | None = None
    snapshots: int = 0
    count: int = 0
    of: int = 0
    phase: str | None = None
    registry: str | None = None


OnEvent = Callable[[Event], None]


def phase(on_event: OnEvent, word: str) -> None:
    """Say what is done from here on."""
    on_event(Event(event="phase", message=word))


class Phase:
    """A phase that goes through many things: told of as it begins, now and then, and as it ends if `of` is known."""

    def __init__(self, on_event: OnEvent, word: str, of: int = 0) -> None:
        self._on_event, self._word, self._of = on_event, word, of
        self._count = 0
        self._told = float("-inf")
        self._tell()

    def one_more(self) -> None:
        """One more is through."""
        self._count += 1
        if self._count == self._of or time.monotonic() - self._told >= _TOLD_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._on_event(Event(event="phase", message=self._word, count=self._count, of=self._of))


def ignore(event: Event) -> None:
    """The listener that does nothing."""
