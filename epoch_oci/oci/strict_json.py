"""A JSON reader that refuses what two parsers could read differently.

RFC 7493 (I-JSON) and more: UTF-8 without a byte-order mark, no duplicate names, no NaN or Infinity, no lone surrogate
or NUL in a string, bounded size, depth and number of members. Go's decoder folds the case of keys and lets the last
duplicate win, so `alias_findings` refuses keys that differ from a known one in case only.
"""

import json
import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci.digest import shown

DEPTH_LIMIT = 64
MEMBER_LIMIT = 100_000
INTEGER_LIMIT = 2**53 - 1

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:[dD][89abAB]|0000)")


def loads(raw: bytes, what: str, *, limit: int, members: int | None = MEMBER_LIMIT) -> Any:
    """Parse `raw`; `limit` is the largest size in bytes, `members` the most object members (None: no limit).

    Raises ContentError: SIZE when too large, JSON for everything else. `what` names the document in messages.
    """
    if len(raw) > limit:
        raise ContentError(f"{what} is {len(raw)} bytes, more than the {limit} allowed", code="SIZE", object=what)
    refuse = partial(ContentError, code="JSON", object=what)
    if raw.startswith(b"\xef\xbb\xbf"):
        raise refuse(f"{what} starts with a byte-order mark")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(f"{what} is not UTF-8 (byte {error.start})") from None
    if _too_deep(raw):
        raise refuse(f"{what} nests deeper than {DEPTH_LIMIT} levels")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_Pairs(what, members),
            parse_constant=partial(_refuse_constant, what),
            parse_int=partial(_integer, what),
        )
    except (ValueError, RecursionError) as error:
        raise refuse(f"{what} is not JSON: {error}") from None
    if _SUSPECT_ESCAPE.search(raw):
        _check_strings(value, what)
    return value


def alias_findings(members: Mapping[str, Any], known: Collection[str], path: str = "$") -> list[Finding]:
    """Findings for the keys that a case-folding reader would take for one of `known`."""
    folded = {fold(name): name for name in known}
    return [
        Finding(f"{path}.{key}", "JSON", f'key {shown(key)} differs from "{folded[fold(key)]}" in case only')
        for key in members
        if key not in known and fold(key) in folded
    ]


def fold(key: str) -> str:
    """`key` as a case-insensitive reader sees it; also folds the long s and the Kelvin sign, as Go does."""
    return key.lower() if key.isascii() else key.casefold()


class _Pairs:
    """An object hook that counts members and refuses a name twice."""

    def __init__(self, what: str, members: int | None) -> None:
        self.what = what
        self.left = members

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if self.left is not None:
            self.left -= len(pairs)
            if self.left < 0:
                raise ContentError(f"{self.what} has too many members", code="JSON", object=self.what)
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ContentError(f"{self.what} has the key {shown(twice)} twice", code="JSON", object=self.what)
        return found


def _integer(what: str, text: str) -> int | float:
    """Digits as an int; `-0` stays a float, for no size or count may be written so."""
    if len(text) > 400:
        raise ContentError(f"{what} has a number of {len(text)} digits", code="JSON", object=what)
    return -0.0 if text == "-0" else int(text)


def _refuse_constant(what: str, name: str) -> Any:
    raise ContentError(f"{what} has the value {name}, which is not JSON", code="JSON", object=what)


def _too_deep(raw: bytes) -> bool:
    if raw.count(b"[") + raw.count(b"{") <= DEPTH_LIMIT:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEPTH_LIMIT:
            return True
    return False


def _check_strings(value: Any, what: str) -> None:
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise ContentError(f"{what} has a NUL or a lone surrogate in a string", code="JSON", object=what)
    elif isinstance(value, dict):
        for key, member in value.items():
            _check_strings(key, what)
            _check_strings(member, what)
    elif isinstance(value, list):
        for member in value:
            _check_strings(member, what)
