"""The shapes in which a secret can leak: ``forms(secret)``, and ``shows(secret, data)`` to look for them."""

import base64
import urllib.parse

MIN_SECRET = 6


def forms(secret: str) -> set[bytes]:
    """``secret`` raw, URL-quoted, in hex and inside base64 at any of the three alignments."""
    if len(secret) < MIN_SECRET:
        raise ValueError("a canary this short would be found by accident")
    raw = secret.encode()
    found = {raw, urllib.parse.quote(secret, safe="").encode(), raw.hex().encode(), raw.hex().upper().encode()}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(_stable_part(encode(b"\0" * shift + raw), shift, len(raw)))
    return found


def _stable_part(encoded: bytes, shift: int, length: int) -> bytes:
    """The characters of ``encoded`` that depend on the secret alone, not on its neighbours."""
    first = (shift * 8 + 5) // 6
    last = (shift + length) * 8 // 6
    return encoded[first:last]


def shows(secret: str, data: bytes | str) -> bool:
    """Whether any form of ``secret`` stands in ``data``."""
    haystack = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    return any(form in haystack for form in forms(secret))
