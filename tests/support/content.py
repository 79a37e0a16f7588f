"""Small OCI content for tests: digests, media types, manifests as exact bytes."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCTETS = "application/octet-stream"
CONFIG = "application/vnd.example.test.config.v1+json"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def noise(size: int, seed: int = 0) -> bytes:
    """``size`` incompressible bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def descriptor(data: bytes, media_type: str = OCTETS, **members: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **members}


def manifest(layers: Sequence[bytes] = (), *, config: bytes = b"{}", **members: object) -> bytes:
    """An image manifest over ``layers``; ``members`` are added or replaced at the top level."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer) for layer in layers],
    }
    return json.dumps(document | members).encode()


def index(manifests: Sequence[Mapping[str, object]], **members: object) -> bytes:
    """An image index over descriptors."""
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
    return json.dumps(document | members).encode()
