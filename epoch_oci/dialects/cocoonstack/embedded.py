r"""An Epoch manifest that is embedded in a snapshot's config, in a member that no other reader knows (trap 32).

    "epochManifest": {"digest": "sha256:…", "pieces": ["{\n  \"schemaVersion\": 1, …", {"sparseMap": "cow.raw"}, "…"]}

The pieces joined are the manifest's exact bytes. A sparse map that stands in the config anyway is not repeated: maps
reach hundreds of kilobytes, and Epoch reads no config beyond one mebibyte (trap 12).
"""

from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring
from typing import Any

from epoch_oci.dialects.cocoonstack.config import FileEntry
from epoch_oci.epoch.extra_members import EPOCH
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, MANIFEST_LIMIT
from epoch_oci.errors import ContentError
from epoch_oci.oci import verify
from epoch_oci.oci.digest import Digest, shown
from epoch_oci.oci.document import Document

_DIGEST, _PIECES, _MAP = "digest", "pieces", "sparseMap"
_SHORTEST = 64
"""Maps of fewer characters are repeated: to refer to one is no shorter."""


def embed(epoch: Document, files: Mapping[str, FileEntry]) -> dict[str, Any]:
    """The value of EPOCH for `epoch`, beside a config that has `files`."""
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
    verify.check(expected, document.digest, "the Epoch manifest in the config")
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
