"""Dataclasses as the standard library makes them, in a small part of the time.

The standard library compiles up to six methods for a class, and classes are made when a program starts: a command that
only asks a registry whether all is there spent a quarter of its time on them. Here `__init__` alone is compiled, for it
is called often, and not before it is asked for; the other methods are closures. What comes out is a dataclass to
everybody else: `fields`, `replace`, `asdict`, `match`, `pickle`, signatures and type checkers see no difference. (But a
frozen one of the standard library cannot be derived from it, nor it from one.)
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, FrozenInstanceError, fields
from dataclasses import dataclass as _standard  # noqa: TID251
from reprlib import recursive_repr
from types import FunctionType
from typing import TYPE_CHECKING, Any

_ORDER = {"__lt__": operator.lt, "__le__": operator.le, "__gt__": operator.gt, "__ge__": operator.ge}


class _Factory:
    """Stands for a value that a field's factory will make."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: TID251
else:

    def dataclass(*, slots: bool, frozen: bool = False, kw_only: bool = False, order: bool = False):
        """As `dataclasses.dataclass`, with those of its options that are in use here."""

        def make(body: type) -> type:
            # Else the standard library would write one, and look for a signature that is not there yet.
            body.__doc__ = body.__doc__ or body.__name__
            made = _standard(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(body)
            own = vars(body)
            for name, method in _methods(made, frozen, order).items():
                # Python itself gives a class that compares in its own way a hash of None.
                if name not in own or (name == "__hash__" and own[name] is None):
                    setattr(made, name, method)
            return made

        return make


def _methods(made: type, frozen: bool, order: bool) -> dict[str, Any]:
    known = fields(made)
    values = _values(each.name for each in known if each.compare)
    hashed = _values(each.name for each in known if (each.compare if each.hash is None else each.hash))
    methods = {
        "__init__": _Initializer(made, frozen),
        "__repr__": _represented,
        "__eq__": _equality(values),
        "__hash__": (lambda self: hash(hashed(self))) if frozen else None,
    }
    if order:
        methods |= {name: _comparison(compare, values) for name, compare in _ORDER.items()}
    return methods | _freezing(made, known) if frozen else methods


class _Initializer:
    """Stands in for a class's `__init__` until somebody asks for that: most classes of a run have no instance."""

    def __init__(self, made: Any, frozen: bool) -> None:
        self._made, self._frozen = made, frozen

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        self._made.__init__ = function = _initializer(self._made, self._frozen)
        return function.__get__(instance, owner)


def _initializer(made: type, frozen: bool) -> FunctionType:
    known = fields(made)
    names: dict[str, Any] = {"_set": object.__setattr__, "_factory": _FACTORY}
    lines = []
    for field in known:
        if (value := _expression(field, names)) is not None:
            lines.append(f" _set(self, {field.name!r}, {value})" if frozen else f" self.{field.name} = {value}")
    if hasattr(made, "__post_init__"):
        lines.append(" self.__post_init__()")
    plain = [each for each in known if each.init and not each.kw_only]
    named = [each for each in known if each.init and each.kw_only]
    words = ["self", *map(_parameter, plain), *(["*"] if named else []), *map(_parameter, named)]
    # Names of fields, which are names in Python already, and nothing else.
    exec(f"def __init__({', '.join(words)}):\n" + "\n".join(lines or [" pass"]), names)  # noqa: S102
    function: FunctionType = names["__init__"]
    function.__defaults__ = tuple(_default(each) for each in plain if _is_optional(each))
    function.__kwdefaults__ = {each.name: _default(each) for each in named if _is_optional(each)}
    function.__annotations__ = {each.name: each.type for each in [*plain, *named]} | {"return": None}
    function.__qualname__, function.__module__ = f"{made.__qualname__}.__init__", made.__module__
    return function


def _expression(field: "Field[Any]", names: dict[str, Any]) -> str | None:
    """What a field is set to, over `names`. None: nothing sets it."""
    if field.default_factory is not MISSING:
        names[f"_make_{field.name}"] = field.default_factory
        making = f"_make_{field.name}()"
        return f"{making} if {field.name} is _factory else {field.name}" if field.init else making
    if field.init:
        return field.name
    names[f"_default_{field.name}"] = field.default
    return None if field.default is MISSING else f"_default_{field.name}"


def _parameter(field: "Field[Any]") -> str:
    # The defaults themselves are handed to the function once it is there.
    return f"{field.name}=None" if _is_optional(field) else field.name


def _is_optional(field: "Field[Any]") -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _default(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else _FACTORY


def _values(names: Iterable[str]) -> Callable[[Any], Any]:
    """What instances are compared by."""
    wanted = tuple(names)
    return operator.attrgetter(*wanted) if wanted else lambda _: ()


def _equality(values: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return method


def _comparison(compare: Callable[[Any, Any], Any], values: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        return compare(values(self), values(other)) if other.__class__ is self.__class__ else NotImplemented

    return method


@recursive_repr()
def _represented(self: Any) -> str:
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _freezing(made: type, known: Iterable["Field[Any]"]) -> dict[str, Any]:
    """What refuses, and with what copies and pickles are made all the same."""
    names = tuple(each.name for each in known)

    # A class derived from it that is no dataclass may have attributes of its own.
    def assign(self: Any, name: str, value: object) -> None:
        if type(self) is made or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def delete(self: Any, name: str) -> None:
        if type(self) is made or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        object.__delattr__(self, name)

    return {"__setattr__": assign, "__delattr__": delete, "__getstate__": _state, "__setstate__": _restore}


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _restore(self: Any, state: Iterable[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
