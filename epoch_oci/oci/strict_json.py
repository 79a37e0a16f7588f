"""A JSON reader that refuses what two parsers could read differently.

RFC 7493 (I-JSON) and more: UTF-8 without a byte-order mark, no duplicate names, no NaN or Infinity, no lone surrogate
or NUL in a string, bounded size, depth and number of members and elements. Go's decoder folds the case of keys and lets
the last duplicate win, so `alias_findings` refuses keys that differ from a known one in case only.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci.digest import shown

# Documents of Epoch and OCI nest less than ten levels. Python's reader gives up at some thousand with a RecursionError,
# and other readers elsewhere (reliability J3).
DEPTH_LIMIT = 64
MEMBER_LIMIT = 100_000
ELEMENT_LIMIT = 250_000
# Beyond it a reader that keeps numbers as doubles, as JavaScript's does, reads another one (RFC 7493, 2.2).
INTEGER_LIMIT = 2**53 - 1
# Turning digits into a number takes quadratic time; 400 are more than any double has.
_DIGIT_LIMIT = 400

# Up to the next bracket or comma outside strings, or to the end, or to a quote that nothing closes: one match begins
# where the one before it ended. Possessive, so that it never backtracks over megabytes of string.
_PUNCTUATION = re.compile(rb'(?:[^"\[\]{},]|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+([\[\]{},"]|\Z)', re.DOTALL)
# What each of them does to the depth.
_STEPS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1, b",": 0}
# Only an escape can put these into a text: raw ones are no UTF-8, or no JSON.
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
_SUSPECT_CHARACTER = re.compile("[\x00\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def loads(raw: bytes, what: str, *, limit: int, members: int | None = MEMBER_LIMIT) -> Any:
    """Parse `raw`; `limit` is the largest size in bytes, `members` the most object members (None: any number of them).

    Raises ContentError: SIZE when too large, JSON for everything else. `what` names the document in messages.
    """
    if len(raw) > limit:
        raise ContentError(f"{what} is {len(raw)} bytes, more than the {limit} allowed", code="SIZE", object=what)
    refuse = partial(ContentError, code="JSON", object=what)
    # RFC 8259 lets a reader refuse or ignore it, so two readers may differ.
    if raw.startswith(b"\xef\xbb\xbf"):
        raise refuse(f"{what} starts with a byte-order mark")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(f"{what} is not UTF-8 (byte {error.start})") from None
    # Before anything is built: a megabyte of brackets would become a hundred of lists.
    if (why := _shape_problem(raw, None if members is None else ELEMENT_LIMIT)) is not None:
        raise refuse(f"{what} {why}")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_Pairs(what, members),
            parse_constant=partial(_refuse_constant, what),
            parse_int=partial(_integer, what),
            parse_float=partial(_float, what),
        )
    except (ValueError, RecursionError) as error:
        raise refuse(f"{what} is not JSON: {error}") from None
    if _SUSPECT_ESCAPE.search(raw):
        _check_strings(value, what)
    return value


def alias_findings(members: Mapping[str, Any], known: Collection[str], path: str = "$") -> list[Finding]:
    """Findings for the keys that a case-folding reader would take for one of `known`."""
    unknown = [key for key in members if key not in known]
    if not unknown:
        return []
    folded = {fold(name): name for name in known}
    return [
        Finding(member_path(path, key), "JSON", f'key {shown(key)} differs from "{folded[fold(key)]}" in case only')
        for key in unknown
        if fold(key) in folded
    ]


def fold(key: str) -> str:
    """`key` as a case-insensitive reader sees it; also folds the long s and the Kelvin sign, as Go does."""
    return key.lower() if key.isascii() else key.casefold()


def member_path(path: str, key: str) -> str:
    """The JSON path of member `key` of the object at `path`: `$.name`, and `$["odd key"]` for what is no plain word."""
    return f"{path}.{key}" if _PLAIN_KEY.match(key) else f"{path}[{shown(key)}]"


class _Pairs:
    """An object hook that counts members and refuses a name twice."""

    __slots__ = ("left", "what")

    def __init__(self, what: str, members: int | None) -> None:
        self.what = what
        self.left = members

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if self.left is not None:
            self.left -= len(pairs)
            if self.left < 0:
                raise ContentError(f"{self.what} has too many members", code="JSON", object=self.what)
        found = dict(pairs)
        # The dict is made first: that there is none twice is what happens.
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ContentError(f"{self.what} has the key {shown(twice)} twice", code="JSON", object=self.what)
        return found


def _integer(what: str, text: str) -> int | float:
    """Digits as an int; `-0` stays a float, for no size or count may be written so."""
    if len(text) > _DIGIT_LIMIT:
        raise ContentError(f"{what} has a number of {len(text)} digits", code="JSON", object=what)
    # A float is refused wherever a size or a count is meant.
    return -0.0 if text == "-0" else int(text)


def _float(what: str, text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ContentError(f"{what} has the number {shown(text)}, which is too large", code="JSON", object=what)
    return value


def _refuse_constant(what: str, name: str) -> Any:
    raise ContentError(f"{what} has the value {name}, which is not JSON", code="JSON", object=what)


def _shape_problem(raw: bytes, elements: int | None) -> str | None:
    """Too deep or too many elements, told from the punctuation before anything is built from it."""
    # Brackets in strings count as well here, so this can only err on the side of looking closer.
    openings = raw.count(b"[") + raw.count(b"{")
    if openings <= DEPTH_LIMIT and (elements is None or openings + raw.count(b",") <= elements):
        return None
    depth = count = 0
    for found in _PUNCTUATION.finditer(raw):
        step = _STEPS.get(found[1])
        if step is None:
            break
        depth += step
        count += step >= 0
        if depth > DEPTH_LIMIT:
            return f"nests deeper than {DEPTH_LIMIT} levels"
        if elements is not None and count > elements:
            return f"has more than {elements} elements"
        if depth < 0:
            break
    return None  # where it broke off the text is no JSON, and the parser says so better


def _check_strings(value: Any, what: str) -> None:
    if isinstance(value, str):
        if _SUSPECT_CHARACTER.search(value):
            raise ContentError(f"{what} has a NUL or a lone surrogate in a string", code="JSON", object=what)
    elif isinstance(value, dict):
        for key, member in value.items():
            _check_strings(key, what)
            _check_strings(member, what)
    elif isinstance(value, list):
        for member in value:
            _check_strings(member, what)
