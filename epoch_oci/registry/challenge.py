"""What a registry asks for: `WWW-Authenticate`, several challenges and all (RFC 9110, section 11.6.1)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 (RFC 9110's word for it)
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|(?=,)|\Z)")
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|\Z)')
_LIMIT = 16 << 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, in lower case, and its parameters, their names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge of a header; what cannot be read ends the list."""
    found: list[Challenge] = []
    rest = header[:_LIMIT].lstrip(" ,")
    while rest:
        scheme = _SCHEME.match(rest)
        if scheme is None:
            break
        rest = rest[scheme.end() :]
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(rest)) is not None:
            quoted, plain = parameter[2], parameter[3]
            parameters.setdefault(parameter[1].lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            rest = rest[parameter.end() :]
        found.append(Challenge(scheme[1].lower(), parameters))
        rest = rest.lstrip(" ,")
    return found
