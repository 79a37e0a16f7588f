"""A snapshot between a store and a registry that misbehaves, through whole pushes and pulls; waits take no time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from long_support import in_store
from snapshots import Made, open_store, put_snapshot, tree
from support.registry import FakeRegistry
from support.registry_auth import PASSWORD, USER

from epoch_oci.flows.pull import PullOptions, pull_to_store
from epoch_oci.flows.push import PushOptions, push
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.credentials import Credential, CredentialStore
from epoch_oci.registry.policy import RegistrySettings, Timeouts
from epoch_oci.registry.profiles import Manner, Profile
from epoch_oci.registry.repository import RegistryRepository

BLOB, UPLOADS, MANIFESTS, TOKEN = r"/blobs/sha256:", "/uploads/", "/manifests/", "/token"
SHAPES = {
    shape: Profile(name=shape, hosts="x", shapes=(shape,), chunk=256 << 10)  # type: ignore[arg-type]
    for shape in ("put", "stream", "ranged")
}


@dataclass
class Wire:
    """A registry, a snapshot and a place to pull it to; every run has a repository of its own."""

    path: Path
    registry: FakeRegistry
    made: Made
    login: bool = False
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        put_snapshot(self.path / "store", self.made)

    def repository(self, address: str, name: str, shape: str = "put", **changes: object) -> RegistryRepository:
        settings = {
            "plain_http": True,
            "credentials": CredentialStore(explicit=Credential(USER, PASSWORD)) if self.login else CredentialStore(),
            "timeouts": Timeouts(connect=5, answer=5, commit=5),
            "sleep": lambda seconds: None,
        }
        found = RegistryRepository(Reference.parse(f"{address}/{name}"), RegistrySettings(**{**settings, **changes}))
        found._manner = Manner(SHAPES[shape])
        return found

    def fresh(self) -> str:
        return f"t/n{next(self.numbers)}"

    def push(self, address: str = "", name: str = "", **changes: object) -> str:
        """Push it to a repository, a new one unless named; returns its name."""
        name = name or self.fresh()
        sink = self.repository(address or self.registry.address, name, **changes)
        push(
            open_store(self.path / "store"),
            self.made.key,
            sink,
            "v1",
            options=PushOptions(jobs=1, allow_public=True),
        )
        return name

    def pull(self, name: str, address: str = "", **changes: object) -> Path:
        """Pull it from a repository into a new store."""
        copy = self.path / f"copy-{next(self.numbers)}"
        source = self.repository(address or self.registry.address, name, **changes)
        try:
            pull_to_store(source, "v1", open_store(copy), options=PullOptions(jobs=1))
        finally:
            there = in_store(copy, self.made)
        assert there and set(tree(copy)) == {*tree(self.path / "store"), "catalog.json"}
        return copy

    def arrived(self, name: str) -> None:
        """What was pushed is all there and right, as the registry itself has it."""
        document = json.loads(self.registry.manifest(name, "v1"))
        assert self.registry.blob(name, document["config"]["digest"]) == self.made.raw
        for layer in document["layers"]:
            assert self.registry.blob(name, layer["digest"]) == self.made.blobs[layer["digest"].removeprefix("sha256:")]

    def untagged_or_whole(self, name: str) -> None:
        """A push that failed left no tag; and what blobs there are, are right."""
        for digest in self.registry.blobs(name):
            raw = self.registry.blob(name, digest)
            assert raw == self.made.raw or raw in self.made.blobs.values()
        if self.registry.tags(name):
            self.arrived(name)

    def sent(self, name: str) -> int:
        """Body bytes of blobs that reached the registry for a repository."""
        return self.registry.recording.body_bytes("PUT|PATCH|POST", f"/v2/{name}/blobs/uploads/")
