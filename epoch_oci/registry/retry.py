"""When to try again, and how long to wait before."""

import email.utils
import re
import time
from dataclasses import dataclass

from epoch_oci.errors import NetworkError
from epoch_oci.events import Event
from epoch_oci.registry.settings import RegistrySettings

LONGEST_WAIT = 900.0
"""The longest `Retry-After` that is obeyed, in seconds; a registry that asks for more is given up."""
_LONGEST_BACKOFF = 60.0
_SECONDARY_WAITS = (60.0, 120.0, 300.0)
_THROTTLED = frozenset({403, 429, 503})
"""A retryable 403 is GHCR's secondary limit; 503 is how S3 and what stands before it say "slow down"."""
_BODY_HINT = re.compile(r"retry-after:\s*([0-9.]+)\s*(ms|s)?", re.IGNORECASE)
_SECONDARY = re.compile(r"secondary rate limit|abuse detection|rate limit exceeded", re.IGNORECASE)


def is_secondary_limit(status: int, text: str) -> bool:
    """Whether a 403 is GHCR's way to say "slow down" rather than a denial (oci-registries 3.4)."""
    return status == 403 and _SECONDARY.search(text) is not None


def asked_wait(retry_after: str | None, text: str = "") -> float | None:
    """The wait a server asked for, in seconds: `Retry-After` in seconds or as a date, else a hint in the body."""
    if retry_after is not None:
        value = retry_after.strip()
        if value.isdigit():
            return float(value[:9])
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError, OverflowError):
            pass
    hint = _BODY_HINT.search(text)
    if hint is None:
        return None
    try:
        return max(1.0, float(hint[1]) / (1000 if hint[2] == "ms" else 1))
    except ValueError:
        return None


@dataclass(slots=True)
class Attempts:
    """Counts tries without progress. `again` waits before the next one, or raises the error when there is none."""

    settings: RegistrySettings
    what: str
    failed: int = 0
    throttled: int = 0
    furthest: int = 0

    def reached(self, offset: int) -> None:
        """An upload has `offset` bytes there; only what no try before it had is progress."""
        if offset > self.furthest:
            self.furthest = offset
            self.progress()

    def progress(self) -> None:
        """Something was won: the count starts anew."""
        self.failed = 0

    def again(self, error: NetworkError) -> None:
        """Wait as long as is due. Raises `error` when it is final, the tries are used up, or the wait is too long."""
        self.failed += 1
        if error.status in _THROTTLED and error.retryable:
            self.settings.pace.throttled()
        if not error.retryable or self.failed >= self.settings.attempts:
            raise error
        wait = self._wait(error)
        if wait > LONGEST_WAIT:
            raise NetworkError(
                f"{error.message}: the registry asks to wait {wait:.0f} seconds",
                object=error.object,
                hint="run the same command again after that",
                retryable=False,
                status=error.status,
            ) from error
        kind = "wait" if error.retry_after is not None else "retry"
        self.settings.on_event(
            Event(event=kind, title=self.what, message=error.message, seconds=wait)  # type: ignore[arg-type]
        )
        self.settings.sleep(wait)

    def _wait(self, error: NetworkError) -> float:
        if error.retry_after is not None:
            return error.retry_after
        if error.status == 403:
            self.throttled += 1
            return _SECONDARY_WAITS[min(self.throttled, len(_SECONDARY_WAITS)) - 1]
        return min(_LONGEST_BACKOFF, 0.5 * float(2**self.failed)) * self.settings.jitter()
