"""A registry as a whole: what its repositories share, and which there are."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from epoch_oci.errors import AccessError, NetworkError, NotFoundError, UsageError
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.challenge import Challenge
from epoch_oci.registry.client import RegistryClient
from epoch_oci.registry.journal import UploadJournal
from epoch_oci.registry.listing import pages
from epoch_oci.registry.profiles import Manner, profile_for, profile_told
from epoch_oci.registry.settings import RegistrySettings

if TYPE_CHECKING:
    from epoch_oci.registry.repository import RegistryRepository

_CATALOG = Scope("catalog", "*", kind="registry")
_ABSENT = frozenset({404, 405, 501})


class RegistryHost:
    """One registry: its connections, its tokens and what is learnt of it serve every repository. Safe for threads."""

    def __init__(self, registry: str, settings: RegistrySettings) -> None:
        self.registry = registry
        self.settings = settings
        self.client = RegistryClient(registry, settings)
        self.named = profile_for(registry, settings.profile)
        self.manner = Manner(self.named)
        if settings.profile is None and self.named.name == "unknown":
            self.client.auth.on_challenge = self._recognise
        state = settings.state_directory
        self.journal = UploadJournal(state / "uploads") if state is not None else None

    def catalog(self) -> Iterator[str]:
        """The name of every repository that the registry shows to us, sorted.

        Raises NotFoundError where it keeps no catalog, or none for these credentials (GHCR, GitLab, Docker Hub).
        """
        try:
            names = sorted(
                pages(self.client, self.client.url("_catalog"), "repositories", self.registry, scope=_CATALOG)
            )
        except (AccessError, NotFoundError, UsageError, NetworkError) as error:
            if isinstance(error, NetworkError) and error.status not in _ABSENT:
                raise
            raise NotFoundError(
                f"{self.registry} shows no catalog of its repositories ({error.message})",
                object=self.registry,
                hint=f"name the repositories: epoch-oci ls {self.registry}/REPOSITORY, or sync with --repository NAME",
            ) from error
        yield from names

    def repository(self, name: str) -> "RegistryRepository":
        """A repository of it by its full name. Raises UsageError for a name that is none."""
        from epoch_oci.registry.repository import RegistryRepository  # which knows its host

        return RegistryRepository(Reference.parse(f"{self.registry}/{name}"), self.settings, self)

    def _recognise(self, challenges: Sequence[Challenge]) -> None:
        """Learn from what the registry asks for which kind it is; once known, it stays."""
        if self.manner.profile is self.named and (profile := profile_told(challenges)) is not None:
            self.manner.become(profile)
            if (say := self.settings.on_debug) is not None:
                say(f"{self.client.hostname} asks for credentials as {profile.name} does, and is taken for one")
