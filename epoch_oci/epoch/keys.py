"""The keys of an Epoch store, below its prefix (epoch-formats 2.1), and how people write them."""

import re
from dataclasses import dataclass
from typing import Self

from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.digest import Digest, shown

CATALOG_KEY = "catalog.json"
MANIFESTS = "manifests/"
DEFAULT_TAG = "latest"

_MANIFEST_KEY = re.compile(r"manifests/(?P<name>.+)/(?P<tag>[^/]+)\.json\Z", re.DOTALL)
_DIGEST_COPY = re.compile(r"manifests/(?:.+/)?_digests/sha(?:256|512)-[^/]*\.json\Z", re.DOTALL)
_ESCAPE = re.compile("%3A|%25")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, order=True)
class SnapshotKey:
    """Where a snapshot lives in a store. The document under it may call itself something else (writer W4)."""

    name: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME[:TAG]`, divided at the first colon as Epoch does; no tag means `latest`.

        A colon that belongs to the name is written `%3A`, and a `%` before `3A` or `25` as `%25`. Raises UsageError
        for an empty part, ContentError (NAME) for a path-hostile one.
        """
        name, colon, tag = text.partition(":")
        name = _ESCAPE.sub(lambda found: ":" if found[0] == "%3A" else "%", name)
        key = cls(name, tag if colon else DEFAULT_TAG)
        if not key.name or not key.tag:
            raise UsageError(f"{shown(text)} does not name a snapshot", hint="write NAME or NAME:TAG")
        _refuse_hostile(key)
        return key

    def __str__(self) -> str:
        name = _ESCAPE.sub(lambda found: "%25" + found[0][1:], self.name).replace(":", "%3A")
        return f"{name}:{self.tag}"


def hostile_problem(text: str) -> str | None:
    """Why a name or a tag must not become part of a path, None when it may: Epoch itself allows anything."""
    if any(part in ("", ".", "..") for part in text.split("/")):
        return "has an empty, . or .. component"
    if _CONTROL.search(text):
        return "has a control character"
    return None


def manifest_key(key: SnapshotKey) -> str:
    """`manifests/NAME/TAG.json`. Raises ContentError (NAME) where the name or the tag is path-hostile."""
    _refuse_hostile(key)
    return f"{MANIFESTS}{key.name}/{key.tag}.json"


def blob_key(digest: Digest) -> str:
    """`blobs/sha256/HEX`. Raises ContentError (DIGEST) for an algorithm that Epoch does not know."""
    if digest.algorithm != "sha256":
        raise ContentError(f"{digest} cannot be kept by Epoch, which knows only sha256", code="DIGEST")
    return f"blobs/sha256/{digest.hex}"


def parse_manifest_key(text: str) -> SnapshotKey | None:
    """The snapshot that a store's key belongs to; None for a copy under `_digests/` and for everything else.

    Pseudo-tags (`sha256:HEX`) and names that OCI would refuse are kept, hostile ones too: they are refused with a
    reason as soon as something is done with them.
    """
    match = _MANIFEST_KEY.match(text)
    if match is None or _DIGEST_COPY.match(text):
        return None
    return SnapshotKey(match["name"], match["tag"])


def _refuse_hostile(key: SnapshotKey) -> None:
    for word, text in (("name", key.name), ("tag", key.tag)):
        why = hostile_problem(text)
        if why is None and word == "tag" and "/" in text:
            why = "has a slash"
        if why is not None:
            raise ContentError(
                f"the {word} {shown(text)} of a snapshot {why}", code="NAME", object=shown(text).strip('"')
            )
