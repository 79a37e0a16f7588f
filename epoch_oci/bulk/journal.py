"""What earlier runs learnt of a target and need not ask again. Hints, every one of them: the target decides."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from epoch_oci.disk.draft import Draft, sweep
from epoch_oci.disk.local import private
from epoch_oci.errors import EpochOciError, LocalIOError
from epoch_oci.oci.digest import Digest

_LIMIT = 64 << 20
_MOST = 250_000


class Journal:
    """`homes`: by blob, a container of the target that has it. `told`: by artifact, the Epoch manifest it decodes to.

    Kept below `directory` (None: nowhere) for `target`, a place as people call it. A file that cannot be read is none.
    """

    def __init__(self, directory: Path | None, target: str) -> None:
        # A place may have any characters, and be longer than any name.
        name = hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._path = None if directory is None else directory / "sync" / f"{name}.json"
        kept = self._read()
        self.homes: dict[Digest, str] = _digests(kept.get("homes"))
        self.told: dict[Digest, Digest] = {}
        for digest, text in _digests(kept.get("told")).items():
            with suppress(EpochOciError):
                self.told[digest] = Digest.parse(text)

    def keep(self) -> None:
        """Write it down; what cannot be written is asked again next time."""
        if self._path is None:
            return
        value = {
            "homes": {str(digest): home for digest, home in _newest(self.homes).items()},
            "told": {str(digest): str(known) for digest, known in _newest(self.told).items()},
        }
        # Its own directory, for its owner alone: what stands in it decides what is not sent again.
        with suppress(OSError, LocalIOError), private(self._path.parent) as directory:
            sweep(directory)
            with Draft(directory, str(self._path)) as draft:
                draft.write(json.dumps(value, separators=(",", ":")).encode())
                draft.commit(self._path.name)

    def _read(self) -> Mapping[str, object]:
        with suppress(OSError, ValueError, RecursionError):
            # Written by us, and read like anybody's: a disk may have made anything of it (decision D18).
            if self._path is not None and self._path.stat().st_size <= _LIMIT:
                value = json.loads(self._path.read_bytes())
                return value if isinstance(value, dict) else {}
        return {}


def _digests(value: object) -> dict[Digest, str]:
    found: dict[Digest, str] = {}
    for text, item in value.items() if isinstance(value, dict) else ():
        with suppress(EpochOciError):
            if isinstance(item, str):
                found[Digest.parse(text)] = item
    return found


def _newest(items: dict[Digest, Any]) -> dict[Digest, Any]:
    # The last ones noted, for these are what the next run asks for.
    return dict(list(items.items())[-_MOST:])
