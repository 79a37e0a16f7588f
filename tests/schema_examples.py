"""The example documents of the schemas.

`tests/data/schemas/KIND/valid` and `.../invalid` hold them; `.../expected.json` says for each invalid one at which
paths a finding is due, once per finding. The golden Epoch documents count as valid examples too.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"
_GOLDEN = {
    "epoch-manifest.v1": "epoch/*.json",
    "cocoonstack-snapshot-manifest.v1": "cocoonstack/snapshot-manifest.json",
    "cocoonstack-snapshot-config.v1": "cocoonstack/snapshot-config.json",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One document of `kind`; `paths` are those of its findings, sorted, none when it is valid."""

    kind: str
    path: Path
    paths: tuple[str, ...] = ()

    @property
    def raw(self) -> bytes:
        return self.path.read_bytes()

    def __str__(self) -> str:
        return f"{self.kind}/{self.path.stem}"


def kinds() -> tuple[str, ...]:
    """The kinds that have examples, sorted."""
    return tuple(sorted(folder.name for folder in (DATA / "schemas").iterdir()))


def valid() -> list[Example]:
    return [Example(kind, path) for kind in kinds() for path in _valid_files(kind)]


def invalid() -> list[Example]:
    """Every invalid document. KeyError when one has no row in expected.json; a row without a file fails on `raw`."""
    found = []
    for kind in kinds():
        folder = DATA / "schemas" / kind
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        names = sorted({path.name for path in (folder / "invalid").glob("*.json")} | expected.keys())
        found += [Example(kind, folder / "invalid" / name, tuple(expected[name])) for name in names]
    return found


def _valid_files(kind: str) -> Iterator[Path]:
    yield from sorted((DATA / "schemas" / kind / "valid").glob("*.json"))
    if kind in _GOLDEN:
        yield from sorted(DATA.glob(_GOLDEN[kind]))
