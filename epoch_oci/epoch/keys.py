"""The keys of an Epoch store, below its prefix (epoch-formats 2.1), and how people write them."""

import re
from typing import Self

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.digest import Digest, shown

CATALOG_KEY = "catalog.json"
MANIFESTS = "manifests/"
DEFAULT_TAG = "latest"

# The tag is what follows the last slash: names may have slashes since 6793481, tags never (epoch-formats 2.1).
_MANIFEST_KEY = re.compile(r"manifests/(?P<name>.+)/(?P<tag>[^/]+)\.json\Z", re.DOTALL)
_DIGEST_COPY = re.compile(r"manifests/(?:.+/)?_digests/sha(?:256|512)-[^/]*\.json\Z", re.DOTALL)
_BY_DIGEST = re.compile(r"(?P<name>[^@]+)@(?P<digest>sha256:[0-9a-f]{64})\Z", re.DOTALL)
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

        A colon that belongs to the name is written `%3A`, and a `%` before `3A` or `25` as `%25`. Behind an `@` a
        digest takes the place of the tag. Raises UsageError for an empty part, ContentError (NAME) for a path-hostile
        one.
        """
        by_digest = _BY_DIGEST.match(text)
        name, colon, tag = (by_digest["name"] if by_digest else text).partition(":")
        name = _ESCAPE.sub(lambda found: ":" if found[0] == "%3A" else "%", name)
        key = cls(name, by_digest["digest"] if by_digest else tag if colon else DEFAULT_TAG)
        if not key.name or not key.tag:
            raise UsageError(f"{shown(text)} does not name a snapshot", hint="write NAME or NAME:TAG")
        _refuse_hostile(key)
        return key

    @classmethod
    def readings(cls, text: str) -> list[Self]:
        """The snapshots that `text` could name, that of `parse` first: real names have colons in them as well.

        Raises as `parse`.
        """
        found = [cls.parse(text)]
        if _ESCAPE.search(text) or _BY_DIGEST.match(text):  # said as clearly as can be
            return found
        colons = [at for at, char in enumerate(text) if char == ":"]
        divided = [cls(text[:at], text[at + 1 :]) for at in colons[1:]] + ([cls(text, DEFAULT_TAG)] if colons else [])
        return found + [key for key in divided if key.tag and _hostility(key) is None]

    @property
    def digest(self) -> Digest | None:
        """The digest that stands in the place of the tag, None where a tag does."""
        try:
            return Digest.parse(self.tag)
        except ContentError:
            return None

    def __str__(self) -> str:
        name = _ESCAPE.sub(lambda found: "%25" + found[0][1:], self.name).replace(":", "%3A")
        return f"{name}:{self.tag}"


def hostile_problem(text: str) -> str | None:
    """Why a name or a tag must not become part of a path, None when it may: Epoch itself allows anything."""
    # Epoch joins names into keys unlooked at, and so did whoever wrote the bucket (trap 35).
    if any(part in ("", ".", "..") for part in text.split("/")):
        return "has an empty, . or .. component"
    if _CONTROL.search(text):
        return "has a control character"
    return None


def manifest_key(key: SnapshotKey) -> str:
    """`manifests/NAME/TAG.json`. Raises ContentError (NAME) where the name or the tag is path-hostile."""
    _refuse_hostile(key)
    return f"{MANIFESTS}{key.name}/{key.tag}.json"


def digest_copy_key(name: str, digest: Digest) -> str:
    """Where Epoch since 88a1ade keeps a copy of a manifest by its digest. Raises ContentError as `manifest_key`."""
    _refuse_hostile(SnapshotKey(name, DEFAULT_TAG))
    return f"{MANIFESTS}{name}/_digests/{digest.algorithm}-{digest.hex}.json"


def is_digest_copy(text: str) -> bool:
    """Whether a store's key is that of such a copy."""
    return _DIGEST_COPY.match(text) is not None


def blob_key(digest: Digest) -> str:
    """`blobs/sha256/HEX`. Raises ContentError (DIGEST) for an algorithm that Epoch does not know."""
    # Its keys have the algorithm in them, and no Epoch ever wrote or looked for another one.
    if digest.algorithm != "sha256":
        raise ContentError(f"{digest} cannot be kept by Epoch, which knows only sha256", code="DIGEST")
    return f"blobs/sha256/{digest.hex}"


def parse_manifest_key(text: str) -> SnapshotKey | None:
    """The snapshot that a store's key belongs to; None for a copy under `_digests/` and for everything else.

    Pseudo-tags (`sha256:HEX`) and names that OCI would refuse are kept, hostile ones too: they are refused with a
    reason as soon as something is done with them.
    """
    match = _MANIFEST_KEY.match(text)
    if match is None or is_digest_copy(text):
        return None
    return SnapshotKey(match["name"], match["tag"])


def _refuse_hostile(key: SnapshotKey) -> None:
    if (why := _hostility(key)) is not None:
        word, text, problem = why
        raise ContentError(
            f"the {word} {shown(text)} of a snapshot {problem}", code="NAME", object=shown(text).strip('"')
        )


def _hostility(key: SnapshotKey) -> tuple[str, str, str] | None:
    """Which part of a key must not be part of a path, the part itself, and why."""
    for word, text in (("name", key.name), ("tag", key.tag)):
        why = hostile_problem(text)
        if why is None and word == "tag" and "/" in text:
            why = "has a slash"
        if why is not None:
            return word, text, why
    return None
