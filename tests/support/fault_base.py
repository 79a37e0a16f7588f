"""``Fault``, the base of everything in ``support.faults``, and the ``Exchange`` it is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.wire import Answer, CutConnection, Request

if TYPE_CHECKING:
    from support.registry import FakeRegistry


@dataclass(slots=True, frozen=True)
class Exchange:
    """One request under one rule."""

    registry: "FakeRegistry"
    request: Request
    fire: Callable[[], None]

    def sleep(self, seconds: float) -> None:
        """Wait; cut the connection when the registry stops meanwhile."""
        if self.registry.stopping.wait(seconds):
            raise CutConnection(rst=True)


class Fault:
    """The base: does nothing. ``before`` may answer in the registry's place."""

    def before(self, exchange: Exchange) -> Answer | None:
        return None

    def after(self, exchange: Exchange, answer: Answer) -> None:
        return None
