"""JSON as Go's encoding/json writes and reads it (Go 1.22 and later; epoch-formats 1.1).

Written: struct members keep their order, so a dict is written in its own; a Go map is sorted, so sort it or ask for
`sort_keys`. No line feed follows the last byte, `<`, `>`, `&`, U+2028 and U+2029 are escaped, an empty map is `{}`.
Read: a missing or null member is the zero value. Times are text and never a datetime, for nanoseconds and offsets must
survive.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from json.encoder import encode_basestring
from typing import Any

from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import strict_json
from epoch_oci.oci.descriptor import size_problem
from epoch_oci.oci.digest import Digest, shown

# Go escapes these by default, so that JSON can stand in a page (SetEscapeHTML).
_HTML_SAFE = (
    ("<", r"\u003c"),
    (">", r"\u003e"),
    ("&", r"\u0026"),
    ("\u2028", r"\u2028"),
    ("\u2029", r"\u2029"),
)
ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time; it means that nobody set one."""
# Go reads nine fractional digits, no week dates, no 24:00 and no leap second; Python's own parser reads all of these
# and drops digits.
_TIME = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])\Z"
)
_SHORT_MONTHS = {"02": 29, "04": 30, "06": 30, "09": 30, "11": 30}


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


def is_time(text: str) -> bool:
    """Whether Go's decoder reads `text` as a time: RFC 3339, upper-case T and Z, no leap second."""
    match = _TIME.match(text)
    if match is None:
        return False
    day = int(match[2])
    if day <= 28:
        return True
    year = int(text[:4])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return day <= _SHORT_MONTHS.get(match[1], 31) - (match[1] == "02" and not leap)


def is_set_time(text: str) -> bool:
    """Whether `text` is a time that somebody meant: neither absent nor Go's zero time."""
    return text not in ("", ZERO_TIME)


class Members:
    """The members of one parsed object at `path`; what is wrong with them is added to `found`.

    After a finding a reader returns the zero value, so that the rest of the document is still looked at.
    """

    __slots__ = ("found", "path", "value")

    def __init__(self, value: Any, path: str, found: list[Finding], known: Collection[str] = ()) -> None:
        self.path = path
        self.found = found
        if isinstance(value, dict):
            self.value: dict[str, Any] = value
            found.extend(strict_json.alias_findings(value, known, path))
            return
        self.value = {}
        if value is not None:
            found.append(Finding(path, "SCHEMA", f"{shown(value)} is not an object"))

    def text(self, key: str) -> str:
        """A string, "" by default."""
        value = self.value.get(key)
        if isinstance(value, str):
            return value
        if value is not None:
            self.refuse(key, "SCHEMA", f"{shown(value)} is not a string")
        return ""

    def flag(self, key: str) -> bool:
        """A truth value, false by default."""
        value = self.value.get(key)
        if not isinstance(value, bool | None):
            self.refuse(key, "SCHEMA", f"{shown(value)} is neither true nor false")
        return value is True

    def check_digest(self, key: str) -> None:
        """A string that is a digest, or nothing."""
        if text := self.text(key):
            try:
                Digest.parse(text)
            except ContentError as error:
                self.refuse(key, "DIGEST", error.message)

    def time(self, key: str) -> str:
        """A time as the text it was written in, "" by default; an empty string is no time."""
        value = self.text(key)
        # Go's decoder takes null for no time and refuses an empty text (epoch-formats 1.1).
        if isinstance(self.value.get(key), str) and not is_time(value):
            self.refuse(key, "SCHEMA", f"{shown(value)} is not a time (RFC 3339)")
        return value

    def number(self, key: str, code: str = "SCHEMA") -> int:
        """An integer from 0 to 2^53-1, 0 by default."""
        value = self.value.get(key)
        if value is None:
            return 0
        if (why := size_problem(value)) is not None:
            self.refuse(key, code, why)
            return 0
        assert isinstance(value, int)
        return value

    def array(self, key: str, limit: int) -> list[Any]:
        """An array of at most `limit` elements, [] by default."""
        value = self.value.get(key)
        if value is None:
            return []
        if isinstance(value, list) and len(value) <= limit:
            return value
        what = f"{len(value)} elements are more than {limit}" if isinstance(value, list) else "it is not an array"
        self.refuse(key, "SCHEMA", what)
        return []

    def map(self, key: str) -> dict[str, Any]:
        """An object of any keys, {} by default."""
        return Members(self.value.get(key), self.below(key), self.found).value

    def text_map(self, key: str) -> dict[str, str]:
        """An object of strings, {} by default; a null in it is "", as in Go."""
        members = Members(self.value.get(key), self.below(key), self.found)
        return {name: members.text(name) for name in members.value}

    def below(self, key: str) -> str:
        """The path of a member."""
        return strict_json.member_path(self.path, key)

    def refuse(self, key: str, code: str, problem: str) -> None:
        """Add a finding about a member."""
        self.found.append(Finding(self.below(key), code, problem))
