"""Where the program begins: nothing is loaded, and nothing tidied, that a short command will not need.

A signal that comes while modules are being loaded is held until there is somebody to tell of it in a line. For this the
module itself loads next to nothing, and neither do the packages around it.
"""

import gc
import importlib
import os
import signal
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPARING = 50_000
"""New objects between two searches for garbage. Start-up makes many, all of which stay: searching them is in vain."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_held: list[int] = []


def main() -> None:
    """Run this process's command line and end the process."""
    hold_signals()
    quicken()
    from epoch_oci.cli.main import main as run

    run()


def hold_signals() -> None:
    """Keep what would end the process until `let_go`; a second signal ends it at once."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hold)


def let_go() -> None:
    """Send the process the signal that was held, if one was; by now there has to be another handler."""
    if _held:
        signal.raise_signal(_held.pop())


def quicken() -> None:
    """Spare the start what it can do without."""
    gc.set_threshold(_SPARING)
    if "jsonschema" not in sys.modules:
        sys.modules["jsonschema"] = _Later("jsonschema")  # oras imports it for checks that are never asked for here


def _hold(number: int, frame: object) -> None:
    if _held:
        os._exit(128 + number)
    _held.append(number)


class _Later(ModuleType):
    """Stands in for a module until something of it is used."""

    def __getattr__(self, name: str) -> "Any":
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
