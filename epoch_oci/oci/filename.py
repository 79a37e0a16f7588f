"""The names of files inside a snapshot: flat, portable, the same on every system."""

import re
import unicodedata
from collections.abc import Iterable

from epoch_oci.errors import Finding
from epoch_oci.oci.digest import shown

# Flat and ASCII, so that a name means one file on every system and in every shell; it begins neither with a dot nor
# with a dash (reliability N1 to N5). 255 bytes is what file systems take.
_ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}\Z")
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in range(10)]
)
RESERVED = frozenset({"snapshot.json"})
"""The envelope of a Cocoon archive; a file of this name would replace it (Cocoon utils/tar.go)."""


def problem(name: object) -> str | None:
    """Why `name` cannot be a file of a snapshot, None when it can."""
    if not isinstance(name, str) or not name:
        return "a file name is missing" if name in (None, "") else f"{shown(name)} is not a file name"
    if _ALLOWED.match(name) is None:
        return f"{shown(name)} is not a flat, portable file name (letters, digits, . _ + -, at most 255)"
    # Windows opens the device for NUL.txt as well, and drops a dot at the end. Artifacts shall be the same everywhere
    # (reliability N3).
    if name.split(".")[0].lower() in _DEVICES or name.endswith("."):
        return f"{shown(name)} is reserved on some systems"
    if name.lower() in RESERVED:
        return f'"{name}" is reserved for the archive envelope'
    return None


def clash_findings(names: Iterable[tuple[str, str]]) -> list[Finding]:
    """Findings for the (path, name) pairs whose names are equal on a file system that folds case."""
    seen: dict[str, str] = {}
    found = []
    for path, name in names:
        # As file systems do that fold case and form: what is one name there must not be two files here (reliability
        # N4).
        key = unicodedata.normalize("NFKC", name).casefold()
        if key in seen:
            found.append(Finding(path, "NAME", f"{shown(name)} is also the name at {seen[key]}"))
        seen.setdefault(key, path)
    return found
