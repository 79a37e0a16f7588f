r"""What rides along, in a member that no other reader knows (epoch/extra_members.py has the names).

What an artifact says and an Epoch manifest has no member for rides in a derived manifest:

    "cocoonstack": {"config": {"windows": true, …}, "annotations": {…}, "titles": ["win.qcow2.00.qcow2.part", …]}

Whoever writes such a manifest back to this dialect restores what is in it. A snapshot that came from a Cocoon has
another such member instead, the text of Cocoon's own envelope; out of it come the members that Epoch 0.1.8 and later
would have taken from it (epoch-formats 4.4 and 5.5).

An Epoch manifest rides in a snapshot's config (trap 32):

    "epochManifest": {"digest": "sha256:…", "pieces": ["{\n  \"schemaVersion\": 1, …", {"sparseMap": "cow.raw"}, "…"]}

The pieces joined are the manifest's exact bytes. A sparse map that stands in the config anyway is not repeated: maps
reach hundreds of kilobytes, and Epoch reads no config beyond one mebibyte (trap 12).
"""

from collections.abc import Iterator, Mapping
from dataclasses import field
from json.encoder import encode_basestring
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.cocoonstack.config import FileEntry
from epoch_oci.epoch.extra_members import ENVELOPE, EPOCH, FLAGS, MODERN, TEXTS
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT, Manifest
from epoch_oci.errors import ContentError
from epoch_oci.oci import strict_json, verifying
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document

# As `cocoon.envelope` has it; stores and dialects do not know each other.
_ENVELOPE_LIMIT = 1 << 20
_DIGEST, _PIECES, _MAP = "digest", "pieces", "sparseMap"
_SHORTEST = 64
"""Maps of fewer characters are repeated: to refer to one is no shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """`config` are members of the snapshot's config, `titles` those of a cloud image's layers, in their order."""

    config: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    titles: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What rides in `manifest`; nothing when its member of that name has another shape, being somebody else's."""
        members = manifest.document.json(limit=MANIFEST_LIMIT)
        if MODERN not in members:
            return cls(config=_of_envelope(members.get(ENVELOPE)))
        value = members[MODERN]
        # The name is no promise: somebody else's member is left where it is, and nothing of it is written elsewhere.
        if not isinstance(value, dict) or not value.keys() <= {"config", "annotations", "titles"}:
            return cls()
        config, annotations, titles = value.get("config", {}), value.get("annotations", {}), value.get("titles", [])
        if not isinstance(config, dict) or not _are_texts(annotations, dict) or not _are_texts(titles, list):
            return cls()
        return cls(config=config, annotations=annotations, titles=tuple(titles))

    def to_json(self) -> dict[str, Any]:
        """The member's value, empty when nothing rides."""
        members = {"config": dict(self.config), "annotations": dict(self.annotations), "titles": list(self.titles)}
        return {key: value for key, value in members.items() if value}

    def words(self) -> tuple[str, ...]:
        """What rides, for people."""
        return (
            *(f"config member {shown(key)}" for key in self.config),
            *(f"annotation {shown(key)}" for key in self.annotations),
            *(f"title {shown(title)}" for title in self.titles),
        )


def _of_envelope(text: Any) -> dict[str, Any]:
    """What `text`, an envelope of Cocoon's, says and an Epoch manifest has no member for; nothing when it is none."""
    if not isinstance(text, str):
        return {}
    try:
        value = strict_json.loads(text.encode("utf-8"), "the envelope", limit=_ENVELOPE_LIMIT)
    # What is no envelope is not Cocoon's, and stays in the manifest as it is.
    except ContentError:
        return {}
    said = value.get("config") if isinstance(value, dict) else None
    if not isinstance(said, dict):
        return {}
    found: dict[str, Any] = {
        key: item for key, name in TEXTS.items() if isinstance(item := said.get(name), str) and item
    }
    # One wrong text would make Go refuse the whole config.
    if not _is_digest(found.get("imageDigest")):
        found.pop("imageDigest", None)
    # Only what is true: Go leaves the other out.
    return found | {key: True for key, name in FLAGS.items() if said.get(name) is True}


def _is_digest(text: object) -> bool:
    """Whether it is one; Cocoon takes any text, a reader of the config might not."""
    try:
        Digest.parse(text)
    except ContentError:
        return False
    return True


def _are_texts(value: Any, kind: type) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, kind) and all(isinstance(item, str) for item in items)


def embed(epoch: Document, files: Mapping[str, FileEntry]) -> dict[str, Any]:
    """The value of EPOCH for `epoch`, beside a config that has `files`."""
    # Found as it stands in the manifest: escaped, where the map has its quotes.
    names = {_quoted(entry.sparse_map): name for name, entry in files.items() if len(entry.sparse_map) >= _SHORTEST}
    pieces: list[Any] = [epoch.raw.decode("utf-8")]
    # The longest first: a shorter map may be a piece of it.
    for quoted in sorted(names, key=len, reverse=True):
        pieces = [part for piece in pieces for part in _cut(piece, quoted, {_MAP: names[quoted]})]
    return {_DIGEST: str(epoch.digest), _PIECES: pieces}


def extract(value: Any, files: Mapping[str, FileEntry]) -> Document:
    """The manifest that rides as `value`. Raises ContentError when it is not what its digest says."""
    if not isinstance(value, dict) or not isinstance(value.get(_PIECES), list):
        raise _broken(f"{shown(value)} is no object with {_PIECES}")
    expected = Digest.parse(value.get(_DIGEST))
    texts, size = [], 0
    for piece in value[_PIECES]:
        texts.append(_text(piece, files))
        size += len(texts[-1])
        # While it grows: a thousand references to one long map are a few bytes each.
        if size > MANIFEST_LIMIT:
            raise _broken(f"the pieces are more than the {MANIFEST_LIMIT} bytes allowed", "SIZE")
    document = Document(EPOCH_MANIFEST, "".join(texts).encode("utf-8"))
    verifying.check(expected, document.digest, "the Epoch manifest in the config")
    return document


def _text(piece: Any, files: Mapping[str, FileEntry]) -> str:
    if isinstance(piece, str):
        return piece
    name = piece.get(_MAP) if isinstance(piece, dict) else None
    if not isinstance(name, str) or name not in files:
        raise _broken(f"{shown(piece)} is neither text nor the name of a file with a sparse map")
    return _quoted(files[name].sparse_map)


def _quoted(sparse_map: str) -> str:
    """How a map stands in a manifest, as a JSON string without its quotes."""
    return encode_basestring(sparse_map)[1:-1]


def _cut(piece: Any, quoted: str, reference: dict[str, str]) -> Iterator[Any]:
    """`piece` with `reference` wherever `quoted` stood."""
    for index, text in enumerate(piece.split(quoted) if isinstance(piece, str) else [piece]):
        if index:
            yield reference
        if text:
            yield text


def _broken(problem: str, code: str = "SCHEMA") -> ContentError:
    return ContentError(f"the config: $.{EPOCH}: {problem}", code=code, object="the config")
