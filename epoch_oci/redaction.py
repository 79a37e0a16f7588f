"""Taking secrets out of texts before these are shown or encoded.

A secret comes back in many spellings: a server's JSON escapes it, a URL percent-encodes it, a page has it in entities,
a header in base64. All of them are found. What is no secret to us (a server's own) is not.
"""

import base64
import re
from collections.abc import Iterable
from functools import lru_cache

SHORTEST = 4
"""Characters: taking out a shorter text would take out half of every message, and tell that it did."""
_SHORTEST_BYTES = 6
"""Of a shorter one too little is seen inside base64 or in hexadecimal to be told from other text."""
_CUT = "…"
"""How a text ends that was too long to be shown."""
_RUN = re.compile(r"[A-Za-z0-9]+")
_ENTITIES = {'"': "quot", "'": "apos", "&": "amp", "<": "lt", ">": "gt"}
_CONTROLS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_DIGEST = ("sha256:", "sha512:")
_PATHS = ("oci:", "oci-archive:", "cocoon:")
"""What a location begins with that is a path from there on."""


def without(secrets: Iterable[str], text: str, mark: str = "…") -> str:
    """`text` with `mark` in place of every spelling of every one of `secrets` that is not too short to be hidden."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        for anchor, form in _forms(secret):
            if anchor in text:
                text = _compiled(form).sub(lambda _: mark, text)
        if len(secret) >= SHORTEST and _CUT in text:
            text = _without_start(secret, text, mark)
    return text


def _without_start(secret: str, text: str, mark: str) -> str:
    """`text` without the start of a secret where a text was cut that held the whole."""
    parts = text.split(_CUT)
    for index, part in enumerate(parts[:-1]):
        longest = min(len(secret), len(part))
        length = next((size for size in range(longest, SHORTEST - 1, -1) if part.endswith(secret[:size])), 0)
        if length:
            parts[index] = part[:-length] + mark
    return _CUT.join(parts)


def user_info(word: str) -> str:
    """What stands before the `@` of a typed location or URL, where no secret belongs and one may stand; else ""."""
    scheme, divider, rest = word.partition("://")
    named = bool(divider) and _SCHEME.match(scheme) is not None
    if not named and word.startswith(_PATHS):
        return ""
    before, at, after = (rest if named else word).rpartition("@")
    while at and after.startswith(_DIGEST):
        before, at, after = before.rpartition("@")
    user, colon, _ = before.partition(":")
    host, slash, _ = after.partition("/")
    if not before or "/" in user or not (colon or slash or named):
        return ""
    is_host = named and "/" not in before
    return before if is_host or slash or "." in host or ":" in host or host == "localhost" else ""


def fit_to_show(word: str) -> str:
    """A typed word without what `user_info` finds in it."""
    found = user_info(word)
    return word.replace(f"{found}@", "…@") if found else word


@lru_cache(maxsize=1024)
def _forms(secret: str) -> tuple[tuple[str, str], ...]:
    """Patterns of what a secret may look like, each with a text that is in whatever it matches."""
    if len(secret) < SHORTEST:
        return ()
    raw = octets(secret)
    found = [secret, *(encode(raw).decode("ascii") for encode in _BASE64)]
    if len(raw) >= _SHORTEST_BYTES:
        found += [_inner(encode(b"\0" * shift + raw), shift, len(raw)) for shift in range(3) for encode in _BASE64]
    patterns = {text: "".join(map(_spelled, text)) for text in sorted(found, key=len, reverse=True)}
    if len(raw) >= _SHORTEST_BYTES:
        patterns |= {raw.hex(): raw.hex(), raw.hex().upper(): raw.hex().upper()}
    return tuple((max(_RUN.findall(text), key=len, default=""), form) for text, form in patterns.items())


_BASE64 = (base64.b64encode, base64.urlsafe_b64encode)


@lru_cache(maxsize=1024)
def _compiled(form: str) -> re.Pattern[str]:
    return re.compile(form)


def octets(text: str) -> bytes:
    """The bytes that a typed or decoded text stands for; those that were never UTF-8 come out as they went in."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate out of JSON; what Go's readers make of it
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _inner(encoded: bytes, shift: int, length: int) -> str:
    """The characters of base64 that depend on the secret alone, not on what stands beside it."""
    return encoded[(shift * 8 + 5) // 6 : (shift + length) * 8 // 6].decode("ascii")


def _spelled(char: str) -> str:
    """A pattern for one character as it is and as encoders write it; all leave RFC 3986's unreserved ones alone."""
    if _UNRESERVED.match(char):
        return re.escape(char)
    point = ord(char)
    forms = [re.escape(char), "".join(f"%{byte:02x}" for byte in octets(char)), *_escapes(char)]
    forms += [rf"\\+{form}" for form in (re.escape(char) if char in "\"'/" else "", _CONTROLS.get(char, "")) if form]
    forms += [rf"&(?:{_ENTITIES.get(char, '#')}|#0*{point}|#x0*{point:x});"]
    if char == "\\":
        forms.append(r"\\{2,4}")
    if char == " ":
        forms.append(r"\+")
    return f"(?i:{'|'.join(sorted(forms, key=len, reverse=True))})"


def _escapes(char: str) -> list[str]:
    r"""`\xHH` for each byte or the character, `\uHHHH` for each unit of UTF-16, and `\UHHHHHHHH`."""
    units = char.encode("utf-16-be", "surrogatepass")
    pairs = "".join(rf"\\+u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    found = [pairs, rf"\\+U{ord(char):08x}", "".join(rf"\\+x{byte:02x}" for byte in octets(char))]
    return found + ([rf"\\+x{ord(char):02x}"] if ord(char) < 256 else [])
