"""What a test server was asked: ``Recording`` of ``Recorded`` requests, with counts and a search for secrets.

``server.recording.count("PUT", r"/blobs/")``, ``.find(...)``, ``.body_bytes(...)``, ``.traces(secret)``.
Bodies are kept up to 64 KiB; their length is counted in full.
"""

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from support import canary
from support.wire import Request


@dataclass(slots=True)
class Recorded:
    """One request as received. ``status`` is None when no response was sent; ``cut`` when a fault ended it."""

    request: Request = field(repr=False)
    connection: int
    method: str
    target: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    at: float = field(default_factory=time.monotonic)
    status: int | None = None
    cut: bool = False
    done: bool = False

    @property
    def body_size(self) -> int:
        """Body bytes that arrived."""
        return self.request.body.received

    @property
    def body(self) -> bytes:
        """The first 64 KiB of the body."""
        return bytes(self.request.body.head)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def bytes_seen(self) -> bytes:
        """Request line, headers and kept body, as one text to search."""
        head = "\r\n".join([f"{self.method} {self.target}", *(f"{k}: {v}" for k, v in self.headers)])
        return head.encode("latin-1", "replace") + b"\r\n\r\n" + self.body


class Recording:
    """All requests of a server, oldest first; safe to read while it runs."""

    def __init__(self) -> None:
        self._entries: list[Recorded] = []
        self._guard = threading.Lock()
        self._active = 0
        self.peak = 0
        """The most requests that were in progress at one time."""

    def add(self, request: Request, connection: int) -> Recorded:
        pairs = [(name, str(value)) for name, value in request.headers.items()]
        entry = Recorded(request, connection, request.method, request.target, request.path, request.query, pairs)
        with self._guard:
            self._entries.append(entry)
            self._active += 1
            self.peak = max(self.peak, self._active)
        return entry

    def finish(self, entry: Recorded) -> None:
        with self._guard:
            entry.done = True
            self._active -= 1

    def settle(self, at_least: int = 0, method: str = "*", pattern: str = "", seconds: float = 60) -> None:
        """Wait until so many matching requests came and none is in progress: after a client that broke off."""
        deadline = time.monotonic() + seconds
        while self._active or self.count(method, pattern) < at_least:
            assert time.monotonic() < deadline, f"still busy:\n{self.summary()}"
            time.sleep(0.002)

    def clear(self) -> None:
        """Forget the past; counts start again."""
        with self._guard:
            self._entries.clear()
            self.peak = self._active

    def __iter__(self) -> Iterator[Recorded]:
        with self._guard:
            return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Recorded:
        return self._entries[index]

    def find(self, method: str = "*", pattern: str = "") -> list[Recorded]:
        """Those whose method is in ``method`` (``"GET|HEAD"``, ``"*"``) and whose target matches ``pattern``."""
        return [e for e in self if matches(e.method, e.target, method, pattern)]

    def count(self, method: str = "*", pattern: str = "") -> int:
        return len(self.find(method, pattern))

    def body_bytes(self, method: str = "*", pattern: str = "") -> int:
        """Body bytes received over all such requests."""
        return sum(entry.body_size for entry in self.find(method, pattern))

    def traces(self, secret: str) -> list[Recorded]:
        """Requests in which ``secret`` shows, raw or encoded (see ``canary.forms``)."""
        return [entry for entry in self if canary.shows(secret, entry.bytes_seen())]

    def summary(self) -> str:
        """One line a request, for assertion messages."""
        return "\n".join(f"{e.method} {e.target} {e.body_size}B -> {e.status}{' cut' if e.cut else ''}" for e in self)


def matches(method: str, target: str, methods: str, pattern: str) -> bool:
    return (methods == "*" or method in methods.split("|")) and re.search(pattern, target) is not None
