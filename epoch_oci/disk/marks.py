"""What a file of this machine was found to hold, for as long as it is the file that was read.

Device, inode, size and both times say whether it is. A file that was changed a moment before it was looked at may be
changed again without a new time; what was read of it then is remembered in this process alone.
"""

import os
import time

from epoch_oci.disk.facts import Facts
from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import Digest

_SETTLED_NS = 2_000_000_000
"""The coarsest clock of a file system is FAT's, which counts two seconds."""
_SECOND_NS = 1_000_000_000


class Marks:
    """Digests of files. `form` names in which of several forms a file's bytes were hashed. Safe for threads."""

    def __init__(self, facts: Facts | None = None) -> None:
        self._facts = facts or Facts(None)

    def digest(self, found: os.stat_result, form: str = "") -> Digest | None:
        """What the file was found to hold; None when that is not known, or it is no longer the same file."""
        text = self._facts.recall("mark", _key(found, form)) or ""
        digest, _, state = text.partition(" ")
        try:
            return Digest.parse(digest) if state == _state(found) else None
        except ContentError:
            return None

    def was_read(self, found: os.stat_result, digest: Digest, form: str = "") -> None:
        """The file was as `found` before all of it was read, and after that."""
        age = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns)
        self._keep(found, digest, form, briefly=age < _SETTLED_NS)

    def was_written(self, found: os.stat_result, digest: Digest, form: str = "") -> None:
        """This process wrote the file, gave it its name, and then it was as `found`."""
        self._keep(found, digest, form, briefly=found.st_ctime_ns % _SECOND_NS == 0)

    def forget(self, found: os.stat_result, form: str = "") -> None:
        """What is remembered of the file turned out wrong."""
        self._facts.forget("mark", _key(found, form))

    def _keep(self, found: os.stat_result, digest: Digest, form: str, *, briefly: bool) -> None:
        self._facts.keep("mark", _key(found, form), f"{digest} {_state(found)}", briefly=briefly)


def is_same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file is what it was, as far as anybody can tell without reading it."""
    return _key(before, "") == _key(after, "") and _state(before) == _state(after)


def _key(found: os.stat_result, form: str) -> str:
    return f"{found.st_dev} {found.st_ino} {form}"


def _state(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
