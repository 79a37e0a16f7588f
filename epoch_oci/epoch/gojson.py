"""JSON as Go's encoding/json writes it (Go 1.22 and later; epoch-formats 1.1).

Struct members keep their order, so a dict is written in its own; a Go map is sorted, so sort it or ask for
`sort_keys`. No line feed follows the last byte, `<`, `>`, `&`, U+2028 and U+2029 are escaped, an empty map is `{}`.
"""

import math
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring
from typing import Any

# Go escapes these by default, so that JSON can stand in a page (SetEscapeHTML).
_HTML_SAFE = (
    ("<", r"\u003c"),
    (">", r"\u003e"),
    ("&", r"\u0026"),
    ("\u2028", r"\u2028"),
    ("\u2029", r"\u2029"),
)


def dumps(value: Any, *, indent: int | None = 2, sort_keys: bool = False) -> bytes:
    """The bytes of `json.MarshalIndent` with `indent` spaces, of `json.Marshal` where it is None.

    Raises ValueError for NaN, an infinity or a lone surrogate, TypeError for what JSON does not know.
    """
    pieces: list[str] = []
    _Writer(pieces.append, indent, sort_keys).write(value, "\n")
    text = "".join(pieces)
    # None of these five occurs outside a string, so the whole text can be replaced at once.
    for char, escape in _HTML_SAFE:
        text = text.replace(char, escape)
    return text.encode("utf-8")


def sorted_map(members: Mapping[str, Any]) -> dict[str, Any]:
    """`members` in the order that Go gives the keys of a map: bytewise, which for UTF-8 is by code point."""
    return dict(sorted(members.items()))


class _Writer:
    def __init__(self, emit: Any, indent: int | None, sort_keys: bool) -> None:
        self._emit = emit
        self._step = " " * (indent or 0)
        self._pretty = indent is not None
        self._colon = ": " if self._pretty else ":"
        self._sort_keys = sort_keys

    def write(self, value: Any, line: str) -> None:
        """`line` is the line feed and the indentation of the line that `value` ends on."""
        if isinstance(value, str):
            self._emit(encode_basestring(value))
        elif isinstance(value, Mapping):
            self._items("{", "}", self._members(value), line)
        elif isinstance(value, list | tuple):
            self._items("[", "]", (("", item) for item in value), line)
        else:
            self._emit(_scalar(value))

    def _members(self, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, item in sorted(value.items()) if self._sort_keys else value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key must be a string, not {type(key).__name__}")
            yield encode_basestring(key) + self._colon, item

    def _items(self, opening: str, closing: str, items: Iterator[tuple[str, Any]], line: str) -> None:
        inner = line + self._step if self._pretty else ""
        before = opening
        for label, item in items:
            self._emit(before + inner + label)
            self.write(item, inner)
            before = ","
        if before == opening:
            self._emit(opening + closing)
        else:
            self._emit((line if self._pretty else "") + closing)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _float(value: float) -> str:
    """The shortest digits that read back the same; an exponent below 1e-6 and from 1e21 on."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    text = repr(value).removesuffix(".0")
    if "e" not in text:
        return text
    # Where Go writes an exponent, Python does too, with one zero more: 1e-07.
    if not 1e-6 <= abs(value) < 1e21:
        return text.replace("e-0", "e-")
    mantissa, _, exponent = text.partition("e")
    sign, mantissa = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    whole, _, fraction = mantissa.partition(".")
    digits, point = whole + fraction, len(whole) + int(exponent)
    return sign + (digits.ljust(point, "0") if point > 0 else "0." + "0" * -point + digits)
