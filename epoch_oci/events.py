"""What a running transfer reports. A library never prints: it calls `on_event`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
Action = Literal["sent", "mounted", "skipped", "received", "reused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened; `bytes` and `total` are bytes of the blob (of everything, where `digest` is None).

    `bytes` of a blob may fall: a failed attempt that starts again gives back what it had counted.
    `seconds` is the length of a wait. `message` says why, and never holds a secret; of a `phase` it is the word for
    what is done from here on.
    Where many snapshots move, `snapshot` is the one it is about, and `snapshots` counts them: all of a plan, those that
    are through of the others.
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


OnEvent = Callable[[Event], None]


def phase(on_event: OnEvent, word: str) -> None:
    """Say what is done from here on."""
    on_event(Event(event="phase", message=word))


def ignore(event: Event) -> None:
    """The listener that does nothing."""
