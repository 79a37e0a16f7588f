"""What makes a short command short: nothing is loaded, and nothing tidied, that it will not need."""

import gc
import importlib
import sys
from types import ModuleType
from typing import Any

_SPARING = 50_000
"""New objects between two searches for garbage. Start-up makes many, all of which stay: searching them is in vain."""


def quicken() -> None:
    """To be called before anything else is imported."""
    gc.set_threshold(_SPARING)
    if "jsonschema" not in sys.modules:
        sys.modules["jsonschema"] = _Later("jsonschema")  # oras imports it for checks that are never asked for here


class _Later(ModuleType):
    """Stands in for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
