"""Reading JSON objects as Go's decoder reads structs: a missing or null member is the zero value."""

from collections.abc import Collection
from typing import Any

from epoch_oci.epoch import times
from epoch_oci.errors import Finding
from epoch_oci.oci import strict_json
from epoch_oci.oci.descriptor import size_problem
from epoch_oci.oci.digest import shown


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

    def time(self, key: str) -> str:
        """A time as the text it was written in, "" by default; an empty string is no time."""
        value = self.text(key)
        # Go's decoder takes null for no time and refuses an empty text (epoch-formats 1.1).
        if isinstance(self.value.get(key), str) and not times.is_time(value):
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
