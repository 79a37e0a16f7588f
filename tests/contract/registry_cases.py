"""A registry repository as a store of the contract suite: the fake one, in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.registry import FakeRegistry

from epoch_oci.oci.digest import Digest
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.repository import RegistryRepository
from epoch_oci.registry.settings import RegistrySettings

_REPOSITORY = "acme/bot"


@contextmanager
def fake_registry_case(root: Path) -> Iterator[tuple]:
    """The registry and an opener of one of its repositories; waits take no time."""
    with FakeRegistry(spool=root) as registry:
        reference = Reference.parse(f"{registry.address}/{_REPOSITORY}")
        settings = RegistrySettings(plain_http=True, sleep=lambda seconds: None)

        def opened() -> RegistryRepository:
            return RegistryRepository(reference, settings)

        def listing() -> object:
            return dict(registry.blobs(_REPOSITORY)), dict(registry.manifests(_REPOSITORY)), registry.tags(_REPOSITORY)

        def plant(digest: Digest, content: bytes) -> None:
            registry.put_blob(_REPOSITORY, content, digest=str(digest))

        yield opened, listing, plant
