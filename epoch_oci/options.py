"""What options have in common: every value is held against its type and its bounds as soon as it is given.

A wrong one is a UsageError that names it; nothing has been opened by then. Paths and lists are taken in any form. What
public functions are called with is held against their annotations in the same way.
"""

import functools
import inspect
import os
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from epoch_oci.errors import UsageError

_SEVERAL = (tuple, frozenset)
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Checked:
    """A frozen dataclass of options. `bounds` has the smallest and the largest value that a number may have."""

    __slots__ = ()
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __post_init__(self) -> None:
        for field in fields(cast(Any, self)):
            value = _taken(getattr(self, field.name), field.type)
            object.__setattr__(self, field.name, value)
            if (problem := _problem(value, field.type, *self.bounds.get(field.name, (0, float("inf"))))) is not None:
                raise UsageError(f"{type(self).__name__}: {field.name} {problem}", object=field.name)


def held(function: _Function, names: Callable[[str], object]) -> _Function:
    """`function`, which raises UsageError for an argument of another type than its annotation says.

    `names` finds the types that its module imports for a type checker alone. Too many and too few arguments are the
    TypeError that they always are.
    """
    signature, hints = inspect.signature(function), get_type_hints(function, localns=_Named(names))

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, given in signature.bind(*args, **kwargs).arguments.items():
            several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            for value in given if several else (given,):
                if not fits(value, hints[name]):
                    message = (
                        f"{function.__name__}: {name} cannot be {_shown(value)}: it has to be {_named(hints[name])}"
                    )
                    raise UsageError(message, object=name)
        return function(*args, **kwargs)

    return cast(_Function, checked)


class _Named(dict[str, Any]):
    """What is not in the globals of a function, when its annotations are read."""

    def __init__(self, names: Callable[[str], object]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, name: str) -> object:
        try:
            return self._names(name)
        except AttributeError:
            raise KeyError(name) from None


def _taken(value: Any, kind: object) -> Any:
    """A path as a Path, several of something as the type that the field has."""
    if isinstance(value, str | os.PathLike) and kind in (Path, Path | None):
        return Path(value)
    if isinstance(value, os.PathLike) and kind in (str, str | None):
        return os.fspath(value)
    if isinstance(value, list | set | tuple | frozenset) and (several := get_origin(kind)) in _SEVERAL:
        return several(value)
    return value


def _problem(value: object, kind: object, least: float, most: float) -> str | None:
    if not fits(value, kind):
        return f"cannot be {_shown(value)}: it has to be {_named(kind)}"
    if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
        return f"cannot be {value}: it has to be {least} " + ("or more" if most == float("inf") else f"to {most}")
    return None


def fits(value: object, kind: object) -> bool:
    """Whether a value is of an annotated type. True where it cannot be told, as of a protocol."""
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, str):  # a class that is imported when it is needed
        names = set(re.findall(r"\w+", kind))
        return (value is None and "None" in names) or any(each.__name__ in names for each in type(value).__mro__)
    if isinstance(kind, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin in _SEVERAL:
        return isinstance(value, origin) and _all_fit(cast(Any, value), inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(key, inner[0]) and fits(value[key], inner[1]) for key in value)
    if origin is Callable:
        return callable(value)
    if kind in (int, float):
        return isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
    if kind is None or kind is types.NoneType:
        return value is None
    if isinstance(origin, type):  # a text is a sequence as well, of its letters, and never meant as one
        return isinstance(value, origin) and not isinstance(value, str)
    if getattr(kind, "_is_protocol", False):
        return not getattr(kind, "_is_runtime_protocol", False) or isinstance(value, cast(type, kind))
    return not isinstance(kind, type) or isinstance(value, kind)


def _all_fit(value: tuple[object, ...] | frozenset[object], inner: tuple[object, ...]) -> bool:
    if len(inner) == 1 or inner[-1] is Ellipsis:
        return all(fits(each, inner[0]) for each in value)
    return len(value) == len(inner) and all(fits(*pair) for pair in zip(value, inner, strict=True))


def _shown(value: object) -> str:
    """A value that was given in place of another one. Of texts only the type, for one may be a secret."""
    return repr(value) if isinstance(value, bool | int | float | None) else f"of the type {type(value).__name__}"


def _named(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else re.sub(r"\b\w+\.", "", str(kind))
