"""Where the program begins: nothing is loaded, and nothing tidied, that a short command will not need.

A signal that comes while modules are being loaded is held until there is somebody to tell of it in a line. For this the
module itself loads next to nothing, and neither do the packages around it.
"""

import gc
import importlib
import sys
from types import ModuleType

from epoch_oci.cli import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPARING = 150_000
"""New objects between two searches for garbage. Start-up makes many, all of which stay: searching them is in vain."""
_LATER: "dict[str, dict[str, Any]]" = {
    "jsonschema": {},  # oras, for checks that are never asked for here
    "idna": {},  # requests, for hosts that are not ASCII
    "charset_normalizer": {"__version__": "3.0.0", "__path__": []},  # requests, to guess encodings; it pins the version
}
"""Modules that others import for what a run hardly ever comes to, with what those look at as soon as they have them."""


def main() -> None:
    """Run this process's command line and end the process."""
    signals.hold()
    quicken()
    from epoch_oci.cli.main import main as run

    run()


def quicken() -> None:
    """Spare the start what it can do without."""
    gc.set_threshold(_SPARING)
    for name, known in _LATER.items():
        if name not in sys.modules:
            sys.modules[name] = _Later(name)
            vars(sys.modules[name]).update(known)


class _Later(ModuleType):
    """Stands in for a module until something of it is used."""

    def __getattr__(self, name: str) -> "Any":
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


if __name__ == "__main__":
    main()
