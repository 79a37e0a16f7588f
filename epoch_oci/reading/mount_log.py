"""Where a mount in the background says what it could not read: nobody hears its standard error."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from epoch_oci.disk.local import private

NAME = "mount.log"
_OLD = "mount.log.1"
_LIMIT = 1 << 20
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_AGAIN_SECONDS = 60.0


class MountLog:
    """Lines in the file `mount.log` of `directory`, its owner's alone; None: nowhere.

    Each has the time, and which `mount` it is of. The same one comes once a minute, and of two mebibytes the older half
    goes. That it cannot be written is no reason to fail.
    """

    def __init__(self, directory: Path | None, mount: Path) -> None:
        self._path, self._mount = directory, mount
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """What went wrong, as one line that may be shown."""
        now = time.monotonic()
        with self._lock:
            if self._path is None or now - self._told.get(text, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
                return
            self._told = {known: at for known, at in self._told.items() if now - at < _AGAIN_SECONDS} | {text: now}
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = f"{stamp} {self._mount}: {text}"
            with suppress(OSError), private(self._path) as directory:
                _append(line.encode(errors="replace") + b"\n", directory)


def _append(line: bytes, directory: int) -> None:
    log = os.open(NAME, _FLAGS, 0o600, dir_fd=directory)
    try:
        os.write(log, line)
        if os.fstat(log).st_size >= _LIMIT:
            os.rename(NAME, _OLD, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(log)
