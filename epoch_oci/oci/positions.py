"""Where in a text the member or element is that a JSON path names, for people who look at the text."""

import bisect
import json
import re
from collections.abc import Iterable
from dataclasses import field

from epoch_oci.dataclass import dataclass
from epoch_oci.oci.strict_json import member_path

_LINE_END = re.compile("\n")
_SPACE = re.compile(r"[ \t\n\r]*")
_SEPARATOR = re.compile(r"[ \t\n\r]*[:,]?[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_PARENT = re.compile(r'(?:\.\w+|\[(?:\d+|"(?:[^"\\]|\\.)*")\])\Z')


Position = tuple[int, int]
"""A place in a text: line and column from 1, in characters."""


def positions(text: str, paths: Iterable[str]) -> dict[str, Position]:
    """The place of each path as `strict_json.member_path` spells it: of a member its name, of an element its value.

    What is not there, as a member that is missing, is where the object is that should have it. A text that is no JSON
    has one place for all: where it ceases to be.
    """
    wanted = set(paths)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        found = dict.fromkeys(wanted, error.pos)
    except (ValueError, RecursionError):  # a number of too many digits, or too deep
        found = dict.fromkeys(wanted, _skipped(text, 0))
    else:
        search = _Search(text, wanted | {above for path in wanted for above in _above(path)})
        search.value(_skipped(text, 0), "$")
        found = {path: search.nearest(path) for path in wanted}
    ends = [end.start() for end in _LINE_END.finditer(text)]
    return {path: _position(index, ends) for path, index in found.items()}


@dataclass(slots=True)
class _Search:
    """Walks down a text that is JSON, only where something is wanted; the standard library's reader skips the rest."""

    text: str
    wanted: set[str]
    found: dict[str, int] = field(default_factory=dict)

    def value(self, index: int, path: str) -> int:
        """Note what is wanted in the value that begins at `index`; where it ends."""
        self.found.setdefault(path, index)
        opening = self.text[index]
        if path not in self.wanted or opening not in "{[":
            return int(_DECODER.raw_decode(self.text, index)[1])
        return self._members(index, path) if opening == "{" else self._elements(index, path)

    def nearest(self, path: str) -> int:
        """Where `path` is, or what is nearest above it."""
        return next(self.found[each] for each in (path, *_above(path), "$") if each in self.found)

    def _members(self, index: int, path: str) -> int:
        index = _skipped(self.text, index + 1)
        while self.text[index] != "}":
            key, end = _DECODER.raw_decode(self.text, index)
            below = member_path(path, str(key))
            self.found.setdefault(below, index)
            index = _past(self.text, self.value(_past(self.text, end), below))
        return index + 1

    def _elements(self, index: int, path: str) -> int:
        index, number = _skipped(self.text, index + 1), 0
        while self.text[index] != "]":
            index = _past(self.text, self.value(index, f"{path}[{number}]"))
            number += 1
        return index + 1


def _past(text: str, index: int) -> int:
    """Past a colon or a comma and the space around it."""
    found = _SEPARATOR.match(text, index)
    assert found is not None  # it matches nothing as well
    return found.end()


def _skipped(text: str, index: int) -> int:
    found = _SPACE.match(text, index)
    assert found is not None  # it matches nothing as well
    return found.end()


def _above(path: str) -> list[str]:
    """What a path leads through, the nearest first."""
    found = []
    while (cut := _PARENT.search(path)) is not None:
        path = path[: cut.start()]
        found.append(path)
    return found


def _position(index: int, ends: list[int]) -> Position:
    line = bisect.bisect_left(ends, index)
    return line + 1, index - (ends[line - 1] if line else -1)
