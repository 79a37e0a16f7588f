"""How a registry is spoken to: time limits, when to try again and after how long, how many bodies at once."""

import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import NetworkError
from epoch_oci.events import Event, ignore
from epoch_oci.network import Authorities, Proxies
from epoch_oci.registry.credentials import CredentialStore
from epoch_oci.registry.trust import Trust

# Pace

_SETTLES = 1.0
"""Seconds. What was already under way is refused too when a registry begins to throttle: that is one warning."""


class Pace:
    """The room for bodies of one registry, shared by all threads that move them.

    Nothing is held back until the registry throttles. Then there is room for half as many as were under way, and after
    each round that went well for one more, until there is again room for as many as there ever were (AIMD, as TCP).
    A thread that has a body under way is never made to wait for another, so nested transfers cannot lock each other.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._mine = threading.local()
        self._under_way = self._most = self._went_well = 0
        self._room: int | None = None
        self._slowed = float("-inf")

    @property
    def room(self) -> int | None:
        """How many bodies may be under way at once; None is as many as the caller likes."""
        return self._room

    @contextmanager
    def body(self) -> Iterator[None]:
        """While a body is under way. Waits until there is room for it; ending without an error is going well."""
        self.enter()
        try:
            yield
        except BaseException:
            self.leave(well=False)
            raise
        self.leave(well=True)

    def enter(self) -> None:
        """A body begins. To be ended with `leave` by the same thread."""
        held = getattr(self._mine, "held", 0)
        with self._changed:
            # Not a thread that holds one already: it may be what the others wait for.
            while held <= 0 and self._room is not None and self._under_way >= self._room:
                self._changed.wait()
            self._under_way += 1
            self._most = max(self._most, self._under_way)
        self._mine.held = held + 1

    def leave(self, *, well: bool) -> None:
        """A body ended."""
        self._mine.held = getattr(self._mine, "held", 0) - 1
        with self._changed:
            self._under_way -= 1
            if well and self._room is not None:
                self._climb(self._room)
            self._changed.notify_all()

    def throttled(self) -> None:
        """The registry has said that this is too much."""
        with self._changed:
            now = self._clock()
            # Eight bodies under way are refused at once; halving for each of them would leave one.
            if now - self._slowed < _SETTLES:
                return
            self._slowed, self._went_well = now, 0
            at_once = self._most if self._room is None else min(self._room, self._most)
            self._room = max(1, at_once // 2)

    def _climb(self, room: int) -> None:
        # One more for each round, not for each body: as slowly as TCP does.
        self._went_well += 1
        if self._went_well >= room:
            self._went_well = 0
            self._room = room + 1 if room + 1 < self._most else None


# Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. `commit` is the wait for the answer to a closing PUT: a registry may copy the blob before it answers."""

    connect: float = 15.0
    # Of silence, never of a whole transfer (oci-registries 5.5).
    answer: float = 60.0
    commit: float = 900.0
    # A peer that gives one byte now and then is never silent, and never done either (reliability Z5).
    floor_window: float = 120.0
    floor_rate: int = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """What holds for every exchange with one registry.

    `trusted` are further hosts (`HOST[:PORT]`) that may be sent credentials and content on the registry's word.
    `ca_file` adds to `authorities`; `cert_file` with `key_file` is our own certificate. Unfinished uploads are
    remembered below `state_directory`, if there is one.
    `pace` holds back bodies while the registry throttles. `retry_for` is how many seconds an object may be without
    progress while the registry is away; with 0 that is a failure like any other, tried `attempts` times. `until` is
    when, by `clock`, nothing is asked or waited for any more.
    `sleep`, `clock` (monotonic seconds) and `jitter` (0 to 1) are for tests.
    """

    plain_http: bool = False
    insecure: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    authorities: Authorities = field(default_factory=Authorities)
    credentials: CredentialStore = field(default_factory=CredentialStore)
    profile: str | None = None
    trusted: frozenset[str] = frozenset()
    proxies: Proxies = field(default_factory=Proxies, repr=False)
    state_directory: Path | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    pace: Pace = field(default_factory=Pace)
    attempts: int = 6
    retry_for: float = 600.0
    until: float = float("inf")
    user_agent: str = "epoch-oci"
    on_event: Callable[[Event], None] = ignore
    on_debug: Callable[[str], None] | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    @property
    def trust(self) -> Trust:
        """What TLS is set up with."""
        return Trust(self.authorities, self.ca_file, self.insecure, self.cert_file, self.key_file)

    @property
    def left(self) -> float:
        """Seconds in which something may still be asked."""
        return self.until - self.clock()

    def warn(self, text: str) -> None:
        """Report something odd about the configuration."""
        self.on_event(Event(event="warning", message=text))


# Retry

LONGEST_WAIT = 900.0
"""The longest `Retry-After` that is obeyed, in seconds; a registry that asks for more is given up."""
# Longer waits win nothing that Retry-After would not have asked for.
_LONGEST_BACKOFF = 60.0
_LONGEST_PAUSE = 30.0
"""Between two looks at a registry that is away: who waits longer goes on long after it came back."""
# GHCR's own limit has no header and clears in minutes; coming back sooner makes it last (oci-registries 3.4).
_SECONDARY_WAITS = (60.0, 120.0, 300.0)
_THROTTLED = frozenset({403, 429, 503})
"""A retryable 403 is GHCR's secondary limit; 503 is how S3 and what stands before it say "slow down"."""
_AWAY = frozenset({429, 502, 503, 504})
"""What a registry that is upgraded, or what stands before it, answers until it is back."""
_SOON = 0.05
"""Seconds, more with each try: who asks for no wait at all is not to be stormed all the same."""
# Whoever misspelt a host waits for nothing, and is to be told soon.
_STRANGER_TRIES = 3
_STRANGER_SECONDS = 10.0
_HICCUPS = 3
"""Failures in a row from which on people are told of waiting rather than of trying again."""
# GHCR writes it into the body and leaves the header out (oci-registries 3.4).
_BODY_HINT = r"retry-after:\s*([0-9.]+)\s*(ms|s)?"
_SECONDARY = r"secondary rate limit|abuse detection|rate limit exceeded"


class UnreachableError(NetworkError):
    """Nobody answered at all. `met` says whether this host has answered before, in this run."""

    met = False


class HeldError(NetworkError):
    """The registry cannot take the object for now: it is just being collected as garbage (Harbor)."""


def is_secondary_limit(status: int, text: str) -> bool:
    """Whether a 403 is GHCR's way to say "slow down" rather than a denial (oci-registries 3.4)."""
    return status == 403 and re.search(_SECONDARY, text, re.IGNORECASE) is not None


def asked_wait(retry_after: str | None, text: str = "", date: str | None = None) -> float | None:
    """The wait a server asked for, in seconds: `Retry-After` in seconds or as a date, else a hint in the body.

    A date is measured against the answer's own `date`: the server's clock and ours need not agree.
    """
    if retry_after is not None:
        value = retry_after.strip()
        if value.isascii() and value.isdigit():
            # Thirty years are enough for a server to ask for.
            return float(value[:9])
        if (then := _seconds(value)) is not None:
            return max(0.0, then - (_seconds(date) or time.time()))
    hint = re.search(_BODY_HINT, text, re.IGNORECASE)
    if hint is None:
        return None
    try:
        # It says `1.8ms` there, and means it for one request; a second is the least that helps.
        return max(1.0, float(hint[1]) / (1000 if hint[2] == "ms" else 1))
    except ValueError:
        return None


def _seconds(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() if date else None
    except (TypeError, ValueError, OverflowError):
        return None


class Attempts:
    """Tries of one object without progress. `again` waits before the next one, or raises the error when there is none.

    A registry that is away is waited for as long as `settings.retry_for` says; anything else is tried
    `settings.attempts` times. A host that has never answered is more likely misspelt than away: it gets some seconds.
    """

    def __init__(self, settings: RegistrySettings, what: str) -> None:
        self.settings = settings
        self.what = what
        self._failed = self._away = self._throttled = self._furthest = 0
        self._began = settings.clock()
        self._since: float | None = None  # the first failure since the last progress
        self._waited = 0.0

    def reached(self, offset: int) -> None:
        """An upload has `offset` bytes there; only what no try before it had is progress."""
        if offset > self._furthest:
            self._furthest = offset
            self.progress()

    def progress(self) -> None:
        """Something was won: the count starts anew."""
        self._failed = self._away = 0
        self._since, self._waited = None, 0.0

    def again(self, error: NetworkError) -> None:
        """Wait as long as is due. Raises `error` when it is final, the tries are used up, or the wait is too long."""
        # Before anything is raised: the other transfers of this registry are to slow down even if this one gives up.
        if error.status in _THROTTLED and error.retryable:
            self.settings.pace.throttled()
        if not error.retryable:
            raise error
        away = self._is_away(error)
        if self._since is None:
            self._since = self.settings.clock()
        self._away, self._failed = self._away + away, self._failed + (not away)
        self._give_up(error, away=away)
        wait = self._wait(error, away=away)
        if wait >= self.settings.left:
            raise error
        told = error.retry_after is not None or isinstance(error, HeldError)
        kind = "wait" if told or self._away > _HICCUPS else "retry"
        self.settings.on_event(
            Event(event=kind, title=self.what, message=error.message, seconds=wait)  # type: ignore[arg-type]
        )
        self._waited += wait
        self.settings.sleep(wait)

    def _is_away(self, error: NetworkError) -> bool:
        passes = isinstance(error, UnreachableError | HeldError) or error.status in _AWAY
        return passes and self.settings.retry_for > 0

    def _give_up(self, error: NetworkError, *, away: bool) -> None:
        """Raise the error when there is no further try."""
        if isinstance(error, UnreachableError) and not error.met:
            since = self.settings.clock() - self._began
            if self._away + self._failed >= _STRANGER_TRIES or since >= _STRANGER_SECONDS:
                error.hint = error.hint or "look at the host's name and port, and whether the network is there"
                raise error
        elif away:
            if self._left() <= 0:
                error.hint = (
                    f"it was so for {self.settings.retry_for:.0f} seconds; run the same command again: it goes on from "
                    "what was verified, or wait longer with --retry-for"
                )
                raise error
        elif self._failed >= self.settings.attempts:
            raise error

    def _left(self) -> float:
        """Seconds for which it is still waited for. What was slept counts, whatever the clock says."""
        assert self._since is not None
        return self.settings.retry_for - max(self._waited, self.settings.clock() - self._since)

    def _wait(self, error: NetworkError, *, away: bool) -> float:
        if error.retry_after:
            if error.retry_after > LONGEST_WAIT:
                raise NetworkError(
                    f"{error.message}: the registry asks to wait {error.retry_after:.0f} seconds",
                    object=error.object,
                    hint="run the same command again after that",
                    retryable=False,
                    status=error.status,
                ) from error
            return error.retry_after
        if error.status == 403:  # retryable, so it is GHCR's secondary limit; that count outlives progress
            self._throttled += 1
            return _SECONDARY_WAITS[min(self._throttled, len(_SECONDARY_WAITS)) - 1]
        # The last wait ends with the patience, so that the end of it is one more try.
        longest = min(_LONGEST_PAUSE, max(0.0, self._left())) if away else _LONGEST_BACKOFF
        if error.retry_after is not None:
            return min(longest, _SOON * (self._away + self._failed))
        # At random from nothing to all of it: many who failed at once are not to come back at once.
        return min(longest, 0.5 * float(2 ** min(self._away + self._failed, 16))) * self.settings.jitter()
