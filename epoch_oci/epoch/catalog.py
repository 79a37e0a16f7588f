"""`catalog.json`, Epoch's index of tags (epoch-formats 1.4 and 2.3). The keys under `manifests/` are the truth."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.epoch import gojson
from epoch_oci.epoch.gojson import Members
from epoch_oci.epoch.keys import SnapshotKey, manifest_key
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import strict_json
from epoch_oci.oci.digest import shown

# It lists every tag of a bucket; 256 MiB are some two million of them.
CATALOG_LIMIT = 256 << 20
_KEYS = frozenset({"repositories", "updatedAt"})
_REPOSITORY_KEYS = frozenset({"tags", "updatedAt"})


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository's tags, each with the key of its manifest; `updated_at` is text, "" when absent."""

    tags: Mapping[str, str]
    updated_at: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """A view of a catalog."""

    repositories: Mapping[str, Repository]
    updated_at: str

    @classmethod
    def parse(cls, raw: bytes, what: str = "catalog.json") -> Self:
        """Read a catalog; null stands for no repositories and no tags. Raises ContentError with every finding."""
        return cls._of(_load(raw, what), what)

    @classmethod
    def _of(cls, value: dict[str, Any], what: str) -> Self:
        found: list[Finding] = []
        members = Members(value, "$", found, _KEYS)
        repositories = {
            name: _repository(value, strict_json.member_path("$.repositories", name), found)
            for name, value in members.map("repositories").items()
        }
        updated_at = members.time("updatedAt")
        if found:
            raise ContentError.of(what, found)
        return cls(MappingProxyType(repositories), updated_at)

    def lists(self, key: SnapshotKey) -> bool:
        """Whether the catalog has the tag, pointing where Epoch would put it."""
        repository = self.repositories.get(key.name)
        return repository is not None and repository.tags.get(key.tag) == manifest_key(key)


def with_tags(raw: bytes | None, keys: Iterable[SnapshotKey], now: str) -> bytes:
    """The catalog `raw` (None: there is none yet) with tags added, as Epoch writes it, updated at `now`.

    Members that Epoch does not know and every other repository stay as they are; null maps become empty ones, because
    an Epoch server cannot add to the others. `now` is RFC 3339 text. Raises ContentError for a damaged catalog and for
    a hostile name or tag.
    """
    added: dict[str, dict[str, str]] = {}
    for key in keys:
        added.setdefault(key.name, {})[key.tag] = manifest_key(key)
    value = _editable(raw)
    repositories = value["repositories"]
    for name, targets in added.items():
        known = repositories.get(name, {})
        tags = gojson.sorted_map({**known.get("tags", {}), **targets})
        # Epoch sets both times on an entry, and on the catalog alone when one goes (epoch-formats 1.4).
        repositories[name] = _ordered(known, {"tags": tags, "updatedAt": now})
    return _dumps(value, now)


def without_tags(raw: bytes, keys: Iterable[SnapshotKey], now: str) -> bytes:
    """The catalog without some tags; a repository goes with its last one. Unchanged when none of them is listed.

    Only the catalog's own `updatedAt` moves, as in Epoch. Raises ContentError for a catalog that is damaged.
    """
    value = _editable(raw)
    repositories, listed = value["repositories"], False
    for key in keys:
        tags = repositories.get(key.name, {}).get("tags", {})
        if key.tag not in tags:
            continue
        listed = True
        del tags[key.tag]
        # As Epoch does: a repository without tags is none.
        if not tags:
            del repositories[key.name]
    return _dumps(value, now) if listed else raw


def _editable(raw: bytes | None) -> dict[str, Any]:
    """The parsed catalog, checked, with empty maps where it has null or nothing."""
    if raw is None:
        return {"repositories": {}}
    value = _load(raw, "catalog.json")
    Catalog._of(value, "catalog.json")
    value["repositories"] = value.get("repositories") or {}
    for name, repository in value["repositories"].items():
        if (repository or {}).get("tags") is None:
            value["repositories"][name] = {"tags": {}, **{k: v for k, v in (repository or {}).items() if k != "tags"}}
    return value


def _dumps(value: dict[str, Any], now: str) -> bytes:
    return gojson.dumps(_ordered(value, {"repositories": gojson.sorted_map(value["repositories"]), "updatedAt": now}))


def _ordered(value: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Epoch's members in Epoch's order, then the others in theirs."""
    return {**known, **{name: item for name, item in value.items() if name not in known}}


def _load(raw: bytes, what: str) -> dict[str, Any]:
    # A store of years has more tags than any document has members; the size bounds them.
    value: Any = strict_json.loads(raw, what, limit=CATALOG_LIMIT, members=None)
    if not isinstance(value, dict):
        raise ContentError(f"{what}: {shown(value)} is not a catalog", code="SCHEMA", object=what)
    return value


def _repository(value: Any, path: str, found: list[Finding]) -> Repository:
    members = Members(value, path, found, _REPOSITORY_KEYS)
    return Repository(MappingProxyType(members.text_map("tags")), members.time("updatedAt"))
