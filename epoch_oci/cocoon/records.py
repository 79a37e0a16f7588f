"""`snapshots.json`, Cocoon's index of snapshots, and the records in it (epoch-formats 5.2 and 5.7).

Read strictly, changed without losing a key; a new record is as Cocoon's import makes it.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.cocoon.envelope import DIVIDED, PLAIN, RECORD_KEYS, Envelope, key_of, record_name
from epoch_oci.cocoon.epoch_manifest import envelope_of
from epoch_oci.dataclass import dataclass
from epoch_oci.epoch import gojson
from epoch_oci.epoch.gojson import Members
from epoch_oci.epoch.keys import DEFAULT_TAG, SnapshotKey, hostile_problem
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError, Finding, NotFoundError, UsageError
from epoch_oci.oci import filename, strict_json
from epoch_oci.oci.digest import shown

# Some fifty thousand snapshots.
INDEX_LIMIT = 64 << 20
# Of Cocoon versions after 0.3.8 (epoch-formats 5.8).
COUNTS = ("size_bytes", "last_accessed_at")
# As Cocoon (epoch-formats 5.3).
_SHORTEST_PREFIX = 3
_RESOURCES = frozenset(
    {"cpu", "memory", "storage", "queue_size", "disk_queue_size", "image", "image_digest", "image_type", "network"}
    | {"no_direct_io", "windows"}
)
# Up to 0.3.5; later ones are base32 (epoch-formats 5.3).
_OLD_ID = re.compile(r"[0-9a-f]{16}\Z")
_DATA_DIR = "/snapshot/localfile/"

Encoder = Callable[[Any], bytes]


def _compact(value: Any) -> bytes:
    return gojson.dumps(value, indent=None)


def _plain(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _plain_indented(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8")


_ENCODERS: tuple[Encoder, ...] = (_compact, gojson.dumps, _plain, _plain_indented)
"""The forms in which Cocoon and Epoch have written the index: compact or indented, HTML's characters escaped or not."""


@dataclass(frozen=True, slots=True)
class Record:
    """A snapshot in the index. `members` is the record as found; `created_at` is text, "" when absent."""

    id: str
    name: str
    pending: bool
    created_at: str
    members: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> SnapshotKey:
        """How the snapshot is asked for: by its name, by its ID when it has none that could be one."""
        if not self.name or hostile_problem(self.name) is not None:
            return SnapshotKey(self.id, DEFAULT_TAG)
        return key_of(self.name)

    def envelope(self) -> Envelope:
        """The envelope that Cocoon would write. Raises ContentError for a record that it could not mean."""
        config = {key: value for key, value in self.members.items() if key not in RECORD_KEYS}
        if "id" not in config:
            # First, as Cocoon of the time wrote it; a record may leave it to the key that it stands under.
            config = {"id": self.id, **config}
        return Envelope.mint(config, config_first=self._is_late(config))

    def _is_late(self, config: Mapping[str, Any]) -> bool:
        """Whether Cocoon 0.3.6 or a later one wrote the record.

        It moved the ID behind the resources, and the envelope's version behind its config. Where there are no resources
        the form of the ID tells, which changed as well.
        """
        if next(iter(config)) != "id":
            return True
        return _OLD_ID.match(self.id) is None and _RESOURCES.isdisjoint(config)


@dataclass(frozen=True, slots=True)
class SnapshotIndex:
    """A view of the index; `raw` is None when there is no file yet, which is an empty index."""

    raw: bytes | None = field(repr=False)
    value: Mapping[str, Any] = field(repr=False)
    records: Mapping[str, Record]
    names: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes | None, what: str) -> Self:
        """Read the index of any Cocoon version. Raises ContentError with every finding."""
        # Without a bound on members: ids and names of a large node are as many as it has snapshots, and the size bounds
        # them.
        value = {} if raw is None else strict_json.loads(raw, what, limit=INDEX_LIMIT, members=None)
        found: list[Finding] = []
        index = Members(value, "$", found, ("snapshots", "names"))
        records = {}
        for snapshot_id, item in index.map("snapshots").items():
            if item is not None:
                path = strict_json.member_path("$.snapshots", snapshot_id)
                records[snapshot_id] = _record(snapshot_id, Members(item, path, found))
        names = index.text_map("names")
        if found:
            raise ContentError.of(what, found)
        return cls(raw, MappingProxyType(index.value), MappingProxyType(records), MappingProxyType(names))

    def findings(self) -> Iterator[Finding]:
        """What the index contradicts itself in."""
        for name, snapshot_id in sorted(self.names.items()):
            if snapshot_id not in self.records:
                path = strict_json.member_path("$.names", name)
                yield Finding(path, "MISMATCH", f"the name {shown(name)} belongs to no snapshot")

    def finished(self) -> Iterator[Record]:
        """The snapshots that Cocoon lists, by key."""
        found = (record for record in self.records.values() if not record.pending)
        yield from sorted(found, key=lambda record: record.key)

    def find(self, key: SnapshotKey, where: str) -> Record:
        """The snapshot that Cocoon would find: by ID, by name, by the beginning of an ID (three characters or more).

        Raises NotFoundError, UsageError when more than one ID begins so.
        """
        wanted = record_name(key)
        # Cocoon's own order, or one word would mean two snapshots.
        record = self.records.get(wanted) or self.named(wanted)
        # A word with a tag in it is no beginning of an ID.
        if record is None and key.tag == DEFAULT_TAG and len(key.name) >= _SHORTEST_PREFIX:
            record = self._by_prefix(key.name)
        if record is None:
            hint = f"see what it holds with `epoch-oci ls cocoon:{where}`"
            raise NotFoundError(f"{where} holds no snapshot {shown(wanted)}", object=wanted, hint=hint)
        if record.pending:
            raise NotFoundError(f"the snapshot {shown(wanted)} is still being made", object=wanted)
        return record

    def named(self, name: str) -> Record | None:
        """The snapshot of this very name, finished or not."""
        # `names` is where Cocoon looks; a record that it lacks has its name all the same, and two of one name would be
        # one too many.
        known = self.records.get(self.names.get(name, ""))
        return known or next((record for record in self.records.values() if name and record.name == name), None)

    def with_record(self, members: Mapping[str, Any], *, unnamed: str | None = None) -> bytes:
        """The index with a new record, in its own form; every other key of it stays, whoever wrote it.

        `unnamed` is the ID of a snapshot that loses its name to the new one.
        """
        value = dict(self.value)
        snapshots = dict(value.get("snapshots") or {})
        if unnamed is not None:
            # It is not removed: a VM may be running on it, and its owner may still want it by its ID.
            snapshots[unnamed] = {**snapshots[unnamed], "name": ""}
        snapshots[members["id"]] = dict(members)
        names = {**self.names, members["name"]: members["id"]}
        rest = {key: item for key, item in value.items() if key not in ("snapshots", "names")}
        changed = {"snapshots": gojson.sorted_map(snapshots), "names": gojson.sorted_map(names), **rest}
        encode, end = self._form()
        return encode(changed) + end

    @property
    def is_counted(self) -> bool:
        """Whether its Cocoon, a later one, notes how large a snapshot is, and when it was used last."""
        return any(key in record.members for record in self.records.values() for key in COUNTS)

    def naming(self) -> str | None:
        """The rule, a pattern, by which its Cocoon's own import takes names; None where it takes them all.

        Versions that count look at names, not all of them alike; a name that is there shows which. Where there is no
        record, nothing tells what will read it.
        """
        if not self.is_counted:
            return None if self.records else DIVIDED
        names = [record.name for record in self.records.values() if record.name]
        return PLAIN if all(re.fullmatch(PLAIN, name) for name in names) else DIVIDED

    def new_id(self, random: Callable[[int], bytes]) -> str:
        """An ID as this Cocoon makes them: 16 hex digits up to 0.3.5, 26 characters of base32 from 0.3.6 on."""
        old = bool(self.records) and all(_OLD_ID.match(known) for known in self.records)
        while True:
            # 17 bytes are 28 characters of base32; 26 of them are 130 bits.
            fresh = random(8).hex() if old else base64.b32encode(random(17)).decode("ascii")[:26]
            if fresh not in self.records:
                return fresh

    def data_dir(self, snapshot_id: str, root: str) -> str:
        """Where Cocoon says that the snapshot's files are: where it says so of the others, else below `root`."""
        tails = {known: f"{_DATA_DIR}{known}" for known in self.records}
        dirs = {known: str(record.members.get("data_dir", "")) for known, record in self.records.items()}
        # A root may be reached by another path here than there, through a link or a mount; what Cocoon was told stands
        # in its records.
        roots = {dirs[known].removesuffix(tail) for known, tail in tails.items() if dirs[known].endswith(tail)}
        return f"{roots.pop() if len(roots) == 1 else root}{_DATA_DIR}{snapshot_id}"

    def _by_prefix(self, prefix: str) -> Record | None:
        found = [known for known in self.records if known.startswith(prefix)]
        if len(found) > 1:
            listed = ", ".join(sorted(found)[:5])
            raise UsageError(f"{shown(prefix)} begins more than one ID: {listed}", hint="write more of it")
        return self.records[found[0]] if found else None

    def _form(self) -> tuple[Encoder, bytes]:
        """How the file was written: whatever gives its very bytes again."""
        # Epoch's old pull leaves out the line feed that Cocoon writes (epoch-formats 5.2).
        end = b"\n" if self.raw is None or self.raw.endswith(b"\n") else b""
        for encode in _ENCODERS:
            if self.raw is not None and encode(dict(self.value)) + end == self.raw:
                return encode, end
        return (gojson.dumps, end) if self.raw and self.raw.count(b"\n") > 1 else (_compact, end)


def _record(snapshot_id: str, members: Members) -> Record:
    if (why := filename.problem(snapshot_id)) is not None:
        members.found.append(Finding(members.path, "NAME", why))
    if members.text("id") not in ("", snapshot_id):
        members.refuse("id", "MISMATCH", f"{shown(members.value['id'])} is not the ID it is listed under")
    created_at = members.text("created_at")
    return Record(
        id=snapshot_id,
        name=members.text("name"),
        pending=members.flag("pending"),
        created_at=created_at if gojson.is_time(created_at) else "",
        members=MappingProxyType(members.value),
    )


def config_of(manifest: Manifest, name: str) -> dict[str, Any]:
    """What the snapshot is, in Cocoon's words: its envelope, with every base image pinned. Raises ContentError.

    Settings that are not known here stay, for a later Cocoon knows them. What only a record may say does not: somebody
    else's `pending` or `data_dir` would be taken for the node's own.
    """
    envelope = envelope_of(manifest)
    known = {key: value for key, value in envelope.config.items() if key not in RECORD_KEYS}
    # Both, for Cocoon's collector goes by this map alone (trap 16).
    blobs = sorted({*envelope.image_blob_ids, *manifest.pinned_blobs})
    # The ID is the node's own, and keeps the place that it had among the keys.
    config = {**({} if "id" in known else {"id": ""}), **known, "name": name}
    if blobs:
        said = known.get("image_blob_ids") or {}
        config["image_blob_ids"] = {blob: said.get(blob) or {} for blob in blobs}
    return config


def new_record(
    index: SnapshotIndex,
    snapshot_id: str,
    config: Mapping[str, Any],
    *,
    created_at: str,
    root: str,
    size: int,
    now: str,
) -> dict[str, Any]:
    """A record for `index`, that of a Cocoon in the directory `root`; `size` is that of the files in bytes.

    Later Cocoon versions evict what was not used for long, and so need to know when a snapshot was; where the others'
    records say so, this one does.
    """
    place = {"created_at": created_at, "data_dir": index.data_dir(snapshot_id, root)}
    counts = dict(zip(COUNTS, (size, now), strict=True)) if index.is_counted else {}
    return {**config, "id": snapshot_id, **place, **counts}


def is_meant(record: Record, config: Mapping[str, Any]) -> bool:
    """Whether a record says of its snapshot what `config` says, whichever ID it has."""
    return _essence(record.members) == _essence(config)


def _essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without the ID and without what Go would not write."""
    return {key: value for key, value in config.items() if key not in RECORD_KEYS and key != "id" and value}
