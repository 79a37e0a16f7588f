"""Content digests (image-spec, descriptor.md, "Digests")."""

import hashlib
import re
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError

_LENGTHS = {"sha256": 64, "sha512": 128}
# Only what registries and Epoch both know. Lower case alone: two spellings of one digest would be two keys of one blob
# (image-spec, descriptor.md).
_PATTERN = re.compile(r"(sha256|sha512):([0-9a-f]{64,128})\Z")
_BARE = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A checked digest; text becomes one before it comes near a URL or a path.

    `hex` is lower case and of the length its algorithm has.
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `ALGORITHM:HEX`. Raises ContentError (DIGEST) for anything else."""
        match = _PATTERN.match(text) if isinstance(text, str) else None
        if match is None or len(match[2]) != _LENGTHS[match[1]]:
            raise ContentError(f"{shown(text)} is not a digest (sha256: and 64 lower-case hex digits)", code="DIGEST")
        return cls(match[1], match[2])

    @classmethod
    def from_hex(cls, text: object) -> Self:
        """Read Epoch's bare form, 64 hex digits of SHA-256. Raises ContentError (DIGEST)."""
        if not isinstance(text, str) or _BARE.match(text) is None:
            raise ContentError(f"{shown(text)} is not a digest (64 lower-case hex digits)", code="DIGEST")
        return cls("sha256", text)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The SHA-256 of `content`."""
        return cls("sha256", hashlib.sha256(content).hexdigest())

    def hasher(self) -> Any:
        """A fresh hashlib object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


# Printable ASCII without the quotation mark and the backslash: text that needs no look at each character.
_PLAIN = re.compile(r"[ !#-\[\]-~]*\Z")
_JSON_WORDS = {type(None): "null", dict: "an object", list: "an array"}


def shown(value: object, limit: int = 80) -> str:
    """`value` in JSON's words, safe on a terminal: control and bidirectional characters escaped, cut at `limit`."""
    if isinstance(value, str):
        # Cut before escaping as well: the value may be megabytes of a hostile document.
        text = value[: limit + 1]
        return f'"{_cut(text if _PLAIN.match(text) else "".join(map(_visible, text)), limit)}"'
    # Before the numbers: to Python true is 1.
    if isinstance(value, bool):
        return "true" if value else "false"
    # Objects and lists by what they are and never by what they hold, which may be anything and megabytes of it.
    return _JSON_WORDS.get(type(value)) or _cut(ascii(value), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _visible(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    # Even letters of other scripts: some of them look like others, and some turn the text around (reliability N2).
    return char if " " <= char <= "~" else char.encode("unicode_escape").decode("ascii")
