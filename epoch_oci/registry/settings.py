"""How a registry is spoken to."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from epoch_oci.events import Event, ignore
from epoch_oci.network import Authorities, Proxies
from epoch_oci.registry.connect import Trust
from epoch_oci.registry.credentials import CredentialStore
from epoch_oci.registry.pace import Pace

_VERSION_HEADER = "epoch-oci"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. `commit` is the wait for the answer to a closing PUT: a registry may copy the blob before it answers."""

    connect: float = 15.0
    answer: float = 60.0
    commit: float = 900.0
    floor_window: float = 120.0
    floor_rate: int = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """What holds for every exchange with one registry.

    `trusted` are further hosts (`HOST[:PORT]`) that may be sent credentials and content on the registry's word.
    `ca_file` adds to `authorities`; `cert_file` with `key_file` is our own certificate. Unfinished uploads are
    remembered below `state_directory`, if there is one.
    `pace` holds back bodies while the registry throttles. `retry_for` is how many seconds an object may be without
    progress while the registry is away; with 0 that is a failure like any other, tried `attempts` times.
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
    user_agent: str = _VERSION_HEADER
    on_event: Callable[[Event], None] = ignore
    on_debug: Callable[[str], None] | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    @property
    def trust(self) -> Trust:
        """What TLS is set up with."""
        return Trust(self.authorities, self.ca_file, self.insecure, self.cert_file, self.key_file)

    def warn(self, text: str) -> None:
        """Report something odd about the configuration."""
        self.on_event(Event(event="warning", message=text))
