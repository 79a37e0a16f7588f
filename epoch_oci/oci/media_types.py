"""Media types and annotation keys that the OCI specifications define."""

import re

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
OCTET_STREAM = "application/octet-stream"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

INDEXES = frozenset({INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})

TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
VERSION = "org.opencontainers.image.version"
REF_NAME = "org.opencontainers.image.ref.name"

_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}\Z")


def is_media_type(text: object) -> bool:
    """Whether `text` is `type/subtype` as RFC 6838, section 4.2, has it; OCI allows no parameters."""
    return isinstance(text, str) and _MEDIA_TYPE.match(text) is not None
