"""Times as Go writes them: text and never a datetime, for nanoseconds and offsets must survive (epoch-formats 1.1)."""

import re

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


def is_set(text: str) -> bool:
    """Whether `text` is a time that somebody meant: neither absent nor Go's zero time."""
    return text not in ("", ZERO_TIME)
