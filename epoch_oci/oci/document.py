"""Exact bytes with a media type, and the one encoder for documents minted here."""

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.oci import strict_json
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest

MANIFEST_LIMIT = 4 << 20
"""Largest OCI manifest or index, in bytes (distribution-spec, "Pushing Manifests": 4 MB as the common ceiling)."""


_UNREAD = object()


@dataclass(frozen=True, slots=True)
class Document:
    """A document as found: `raw` is authoritative, parsing is a view and never a rewrite."""

    media_type: str
    raw: bytes = field(repr=False)
    digest: Digest = field(init=False)
    _value: Any = field(init=False, repr=False, compare=False, default=_UNREAD)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", Digest.of(self.raw))

    @property
    def size(self) -> int:
        """Length of the raw bytes."""
        return len(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """What refers to this document."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.raw))

    def json(self, what: str = "the document", *, limit: int = MANIFEST_LIMIT) -> Any:
        """The strictly read value, which nobody may change: it is read once, and every view is of the same one.

        `limit` is the largest document in bytes. Raises ContentError (JSON, SIZE).
        """
        # Whoever allows less than the reader before him has to hear of it.
        if self._value is _UNREAD or len(self.raw) > limit:
            object.__setattr__(self, "_value", strict_json.loads(self.raw, what, limit=limit))
        return self._value

    def called(self, media_type: str) -> "Document":
        """The same bytes under another media type."""
        document = Document(media_type, self.raw)
        object.__setattr__(document, "_value", self._value)
        return document

    @classmethod
    def encode(cls, media_type: str, value: Mapping[str, Any]) -> Self:
        """Mint a document: UTF-8, keys sorted by code point, no insignificant white space. Same value, same bytes."""
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return cls(media_type, text.encode("utf-8"))


EMPTY_CONTENT = b"{}"
"""The content of the OCI empty descriptor (image-spec, manifest.md, "Guidance for an Empty Descriptor")."""
