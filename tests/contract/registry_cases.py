"""Registry repositories as stores of the contract suite: the fake one, in this process, and real ones."""

import atexit
import functools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from support import live
from support.live import LiveRegistry
from support.registry import FakeRegistry

from epoch_oci.oci.digest import Digest
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.policy import RegistrySettings
from epoch_oci.registry.repository import RegistryRepository

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


@functools.cache
def _running(kind: str) -> LiveRegistry:
    """One registry of a kind for all cases of this process."""
    directory = tempfile.TemporaryDirectory(prefix=f"{kind}-")
    registry = LiveRegistry(live.registries()[kind], Path(directory.name)).start()
    atexit.register(directory.cleanup)
    atexit.register(registry.kill)
    return registry


def _open(address: str, repository: str) -> RegistryRepository:
    settings = RegistrySettings(plain_http=True, sleep=_short_wait)
    return RegistryRepository(Reference.parse(f"{address}/{repository}"), settings)


def _short_wait(seconds: float) -> None:
    """Some wait there must be: distribution 2 answers 500 while a tag is replaced."""
    time.sleep(min(seconds, 0.05))


def _links(repository: Path) -> dict[str, bytes]:
    """What a repository of distribution refers to.

    Sessions are left out: distribution 2 takes no cancellation of a body that broke off, for it wants the offset to be
    the one its Location was signed with, and 3 keeps a hash state. It purges both after a week.
    """
    names = (path for path in repository.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in names if "_uploads" not in path.parts}


@contextmanager
def live_registry_case(kind: str, root: Path) -> Iterator[tuple]:
    """A repository of its own on a real registry, whose storage is looked at for the listing."""
    registry, repository = _running(kind), f"contract/{root.name.lower().replace('_', '-')}-{uuid4().hex[:8]}"
    folder = registry.storage / "docker/registry/v2/repositories" / repository
    yield functools.partial(_open, registry.address, repository), functools.partial(_links, folder)


def live_kinds() -> list[str]:
    """The real registries that were found."""
    return list(live.registries())
