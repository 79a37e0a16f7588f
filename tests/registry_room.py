"""Repositories of the fake registry as our own client sees them, with time and waits in the test's hand."""

from dataclasses import dataclass, field, replace

from support.content import noise
from support.registry import FakeRegistry
from support.registry_auth import PASSWORD, USER

from epoch_oci.events import Event
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.credentials import Credential, CredentialStore
from epoch_oci.registry.policy import RegistrySettings, Timeouts
from epoch_oci.registry.profiles import Manner, Profile
from epoch_oci.registry.repository import RegistryRepository

RAW = noise(3_000_000)


def blob(raw: bytes) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=Digest.of(raw), size=len(raw))


@dataclass
class Heard:
    """What a client reported and did while it waited."""

    waits: list[float] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    debug: list[str] = field(default_factory=list)


def room(registry: FakeRegistry, *, login: bool = False, profile: Profile | None = None, **changes) -> tuple:
    """A repository `acme/bot` on the registry, and what is heard of it. Waits take no time."""
    heard = Heard()
    settings = RegistrySettings(
        plain_http=registry.url.startswith("http:"),
        credentials=CredentialStore(explicit=Credential(USER, PASSWORD)) if login else CredentialStore(),
        timeouts=Timeouts(connect=5, answer=5, commit=5),
        sleep=heard.waits.append,
        jitter=lambda: 1.0,
        retry_for=0,
        on_event=heard.events.append,
        on_debug=heard.debug.append,
    )
    repository = RegistryRepository(Reference.parse(f"{registry.address}/acme/bot"), replace(settings, **changes))
    if profile is not None:
        repository._manner = Manner(profile)
    return repository, heard
