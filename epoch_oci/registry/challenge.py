"""What a registry asks for: `WWW-Authenticate`, several challenges and all (RFC 9110, section 11.6.1).

The grammar is read as servers write it: parameters divided by blanks or semicolons as well, values without quotes
whatever they hold, in single quotes, or with a quote that never ends.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIVIDERS = " \t\r\n\f\v,;"
_SCHEME = re.compile(rf"({_WORD}):?(?=[\s,;]|\Z)")
_PARAMETER = re.compile(
    rf"""({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|\Z)|'([^']*)'|([^\s,;"]*))""",
    re.DOTALL,
)
_CREDENTIALS = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*(?=,|\Z)")
_LIMIT = 16 << 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, in lower case, and its parameters, their names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Every challenge of a header; what cannot be read is passed over."""
    found: list[tuple[str, dict[str, str]]] = []
    rest = header[:_LIMIT]
    while rest := rest.lstrip(_DIVIDERS):
        parameter, scheme = _PARAMETER.match(rest), _SCHEME.match(rest)
        if parameter is not None:
            if found:
                found[-1][1].setdefault(parameter[1].lower(), _value(parameter))
            rest = rest[parameter.end() :]
        elif scheme is not None:
            found.append((scheme[1].lower(), {}))
            rest = rest[scheme.end() :].lstrip()
            if (credentials := _CREDENTIALS.match(rest)) is not None:  # what goes on in a scheme of several rounds
                rest = rest[credentials.end() :]
        else:
            rest = rest[1:]
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _value(parameter: re.Match[str]) -> str:
    _, quoted, single, plain = parameter.groups()
    return re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else single if single is not None else plain
