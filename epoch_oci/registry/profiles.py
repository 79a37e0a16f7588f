"""What is known of each registry: how it takes uploads, and its limits. Data, with its source beside it."""

import re
import threading
from collections.abc import Iterable
from dataclasses import field
from typing import Literal

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import UsageError
from epoch_oci.oci.digest import shown
from epoch_oci.registry.auth_token import Challenge

Shape = Literal["put", "stream", "ranged"]
_GIB = 1 << 30
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`shapes` in order of preference: one PUT, one PATCH without a range, PATCHes with ranges.

    `chunk` is the size of a ranged PATCH, `largest` that of a layer, both in bytes. `last_in_put`: the last range has
    to ride in the closing PUT. `asks_status`: an upload's offset can be asked for. `jobs` is the most transfers at
    a time.
    `challenge` tells a registry by what it asks for when its host's name tells nothing: a pattern for the scheme, realm
    and service of a challenge with spaces between them, lacking where others say the same.
    """

    name: str
    hosts: str
    challenge: str | None = None
    shapes: tuple[Shape, ...] = ("put", "ranged", "stream")
    chunk: int = 32 * _MIB
    largest: int | None = None
    last_in_put: bool = False
    asks_status: bool = True
    jobs: int = 16
    source: str = ""


PROFILES = (
    Profile(
        name="ghcr",
        hosts=r"(?:.+\.)?ghcr\.io",
        shapes=("put", "stream"),
        # Ranges above 4 MiB are refused, and whoever went to the limit met it (oci-registries 3.4).
        chunk=3 * _MIB,
        largest=10 * 10**9,
        asks_status=False,
        jobs=4,
        source="docs.github.com, Working with the Container registry: 10 GB a layer, 10 minutes an upload; "
        "ranged PATCH above 4 MiB is refused (oras-project/rust-oci-client#35)",
    ),
    Profile(
        name="dockerhub",
        hosts=r"docker\.io|registry-1\.docker\.io|index\.docker\.io",
        shapes=("stream", "put", "ranged"),
        jobs=4,
        source="large single PUTs answered 400 (kitops-ml/kitops#329); docker and crane stream one PATCH",
    ),
    Profile(
        name="ecr",
        hosts=r".+\.dkr\.ecr(?:-fips)?\..+\.amazonaws\.com(?:\.cn)?|public\.ecr\.aws",
        shapes=("put", "stream", "ranged"),
        chunk=16 * _MIB,
        largest=52_000 * _MIB,
        # ECR counts the closing PUT as the last part, and takes no empty one.
        last_in_put=True,
        asks_status=False,
        source="docs.aws.amazon.com, ECR quotas; Range is stale after the first PATCH (aws/containers-roadmap#2831)",
    ),
    Profile(
        name="acr",
        hosts=r".+\.azurecr\.(?:io|cn|us)",
        challenge=r"bearer https://([^/ ]+\.azurecr\.(?:io|cn|us))/oauth2/token \1",
        shapes=("stream", "ranged", "put"),
        chunk=4 * _MIB,
        largest=200 * _GIB,
        source="learn.microsoft.com, ACR limits; single PUTs above 20 MB are reset (goharbor/harbor#23015)",
    ),
    Profile(
        name="gar",
        hosts=r".+-docker\.pkg\.dev|(?:.+\.)?gcr\.io",
        shapes=("put",),
        largest=9_900_000_000,
        asks_status=False,
        source="cloud.google.com, Artifact Registry: no chunked uploads; 9.9 GB a read request",
    ),
    Profile(
        name="quay",
        hosts=r"quay\.io|.+\.quay\.io",
        challenge=r"bearer https?://([^/ ]+)/v2/auth \1",
        largest=20 * _GIB,
        asks_status=False,
        source="quay/quay: MAXIMUM_LAYER_SIZE 20G; the upload status is off by one and has no Location",
    ),
    Profile(
        name="gitlab",
        hosts=r"registry\.gitlab\.com",
        challenge=r"bearer https?://[^/ ]+/jwt/auth container_registry",
        jobs=4,
        source="docs.gitlab.com, container registry: tokens of 5 to 15 minutes",
    ),
    Profile(
        name="harbor",
        hosts=r"harbor\..+|.+\.harbor\..+",
        challenge=r"bearer https?://[^ ]+/service/token harbor-registry|basic harbor ",
        source="goharbor/harbor: bundled nginx, 900 s, no cap; src/server/middleware/v2auth for what it asks",
    ),
    Profile(name="zot", hosts=r"zot\..+", source="project-zot/zot: a broken PATCH ends the session", asks_status=False),
    # A pattern that fits no host: by name only.
    Profile(name="distribution", hosts=r"\Z(?<!\Z)", source="distribution/distribution 2 and 3"),
    Profile(name="unknown", hosts=r".*", source="what distribution-spec 1.1 says"),
)
"""The first whose `hosts` fits a registry's host name is taken; `distribution` is chosen by name only."""


def profile_for(host: str, name: str | None = None) -> Profile:
    """The profile called `name`, else the one for a host (`HOST[:PORT]`). Raises UsageError for an unknown name."""
    if name is not None:
        for profile in PROFILES:
            if profile.name == name:
                return profile
        raise UsageError(
            f"there is no profile {shown(name)}", hint=f"one of: {', '.join(item.name for item in PROFILES)}"
        )
    bare = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return next(profile for profile in PROFILES if re.fullmatch(profile.hosts, bare, re.IGNORECASE))


def profile_told(challenges: Iterable[Challenge]) -> Profile | None:
    """The profile of a registry that asks for this, None when others ask for the same."""
    for challenge in challenges:
        realm, service = (challenge.parameters.get(name, "") for name in ("realm", "service"))
        text = f"{challenge.scheme} {realm} {service}"
        for profile in PROFILES:
            if profile.challenge is not None and re.fullmatch(profile.challenge, text):
                return profile
    return None


@dataclass(slots=True)
class Manner:
    """How uploads go at one registry now: the profile's shapes less those that were refused, and the chunk size."""

    profile: Profile
    refused: set[Shape] = field(default_factory=set)
    proven: bool = False
    chunk: int = 0
    smallest_chunk: int = _MIB
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.chunk = self.profile.chunk

    def become(self, profile: Profile) -> None:
        """The registry turned out to be of another kind; what was learnt of it stays."""
        with self.lock:
            self.profile = profile
            self.chunk = max(profile.chunk, self.smallest_chunk)

    def takes(self, shape: Shape) -> bool:
        """Whether the shape is one of the profile's, and was not refused."""
        with self.lock:
            return shape in self.profile.shapes and shape not in self.refused

    @property
    def shape(self) -> Shape | None:
        """The next shape to try, None when all were refused."""
        with self.lock:
            return next((shape for shape in self.profile.shapes if shape not in self.refused), None)

    def succeeded(self) -> None:
        """A blob arrived: from now on an upload that is not known is a lost one, and not a shape that is refused."""
        self.proven = True

    def demote(self, shape: Shape) -> None:
        """This registry does not take that shape; another thread may have said so already."""
        with self.lock:
            self.refused.add(shape)

    def shrink(self) -> bool:
        """Use chunks half as large; False when they are as small as they may be."""
        with self.lock:
            if self.chunk // 2 < self.smallest_chunk:
                return False
            self.chunk //= 2
            return True

    def at_least(self, smallest: int) -> None:
        """The registry named a smallest chunk (`OCI-Chunk-Min-Length`)."""
        with self.lock:
            self.smallest_chunk = max(self.smallest_chunk, smallest)
            self.chunk = max(self.chunk, smallest)
