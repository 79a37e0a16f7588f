"""Which of many snapshots are meant, and what they are called at the other end. Nothing here asks anybody."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import UsageError
from epoch_oci.options import Checked

_SPAN = re.compile(r"([0-9]{1,6})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DIGITS = re.compile(r"(\.[0-9]{6})[0-9]+")
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(Checked):
    """`include` and `exclude` are glob patterns on `NAME:TAG`, where `*` takes in slashes; exclude outweighs.

    Without `all_tags` only the tag `latest` of each name is meant, as where a name is written without a tag.
    `renames` are regular expressions and their replacements, applied in order to `NAME:TAG`. `newer_than` is a moment.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    all_tags: bool = True
    renames: tuple[tuple[re.Pattern[str], str], ...] = ()
    newer_than: datetime | None = None

    def takes(self, label: str) -> bool:
        """Whether a snapshot of this name is meant."""
        if not self.all_tags and label.rpartition(":")[2] != "latest":
            return False
        # `fnmatchcase`, for `fnmatch` follows the system's idea of upper and lower case.
        wanted = not self.include or any(fnmatch.fnmatchcase(label, pattern) for pattern in self.include)
        return wanted and not any(fnmatch.fnmatchcase(label, pattern) for pattern in self.exclude)

    def may_take(self, name: str) -> bool:
        """Whether any snapshot of this name may be meant. False is certain, whatever tags it has."""
        # Where a pattern has no colon, or one within brackets, nobody can say where it leaves the name.
        divided = [p.rpartition(":")[0] if ":" in p and "[" not in p else "*" for p in self.include]
        if self.include and not any(fnmatch.fnmatchcase(name, pattern) for pattern in divided):
            return False
        # One that ends in a star, and takes the name with no tag at all, takes it with every tag.
        every = [pattern for pattern in self.exclude if pattern.endswith("*")]
        return not any(fnmatch.fnmatchcase(f"{name}:", pattern) for pattern in every)

    def is_new(self, created: str) -> bool:
        """Whether it is new enough. What does not say when it was made counts as new: it is not lost in silence."""
        moment = moment_of(created)
        return self.newer_than is None or moment is None or moment >= self.newer_than

    def renamed(self, name: str, tag: str) -> tuple[str, str]:
        """Name and tag at the other end. Raises UsageError where a replacement leaves no name or tag."""
        text = before = f"{name}:{tag}"
        for pattern, replacement in self.renames:
            text = pattern.sub(replacement, text)
        if text == before:
            return name, tag
        # From the right: a name may have a colon, a tag has none.
        new, colon, rest = text.rpartition(":")
        if not colon or not rest or (name and not new):
            raise UsageError(f'--rename makes "{text}" of {before}, which is no NAME:TAG', object=before)
        return new, rest


def rename_of(text: str) -> tuple[re.Pattern[str], str]:
    r"""PATTERN=REPLACEMENT, divided at the first `=` (write `\x3d` for one that is meant). Raises UsageError."""
    pattern, equals, replacement = text.partition("=")
    if not equals or not pattern:
        raise UsageError(f"--rename {text} has no pattern and replacement", hint="write PATTERN=REPLACEMENT")
    try:
        compiled = re.compile(pattern)
        compiled.sub(replacement, "")  # finds most of what can be wrong with a replacement
    except (re.error, IndexError) as error:
        raise UsageError(f"--rename {text}: {error}", hint="PATTERN is a regular expression of Python") from None
    return compiled, replacement


def span_of(text: str, flag: str) -> timedelta:
    """`90s`, `10m`, `24h`, `7d`, `2w`. Raises UsageError."""
    match = _SPAN.match(text)
    if match is None:
        raise UsageError(f"{flag} cannot be {text}", object=flag, hint="write a number with s, m, h, d or w: 7d")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def moment_from(text: str, flag: str, now: Callable[[], datetime]) -> datetime:
    """A date, a moment (RFC 3339; UTC where it does not say), or a span before now. Raises UsageError."""
    if _SPAN.match(text):
        return now() - span_of(text, flag)
    moment = moment_of(text)
    if moment is None:
        raise UsageError(f"{flag} cannot be {text}", object=flag, hint="write 7d, 2026-04-01 or 2026-04-01T12:00:00Z")
    return moment


def moment_of(text: str) -> datetime | None:
    """The moment that a time as Go or OCI write it stands for; None for none, for Go's zero time and for nonsense."""
    try:
        # Go writes nine digits of a second, and Python reads six.
        moment = datetime.fromisoformat(_DIGITS.sub(r"\1", text))
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return moment if moment > _EARLIEST else None


def latest(times: Sequence[str]) -> str:
    """The last of several times, "" when none was meant."""
    known = [(moment, text) for text in times if (moment := moment_of(text)) is not None]
    return max(known)[1] if known else ""
