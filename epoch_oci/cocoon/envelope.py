"""What Cocoon says of a snapshot beside its files: its name, and `snapshot.json`, the envelope of its archives.

Cocoon up to 0.3.5 writes `{"version": 1, "config": {…}}`, later ones `config` first, and the keys within `config` moved
as well (epoch-formats 5.2 and 5.5). The bytes as found are authoritative. A Cocoon snapshot has one free name, an Epoch
snapshot a name and a tag: `key_of` and `record_name` lead from one to the other.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, Self

from epoch_oci.dataclass import dataclass
from epoch_oci.epoch import gojson
from epoch_oci.epoch.gojson import Members
from epoch_oci.epoch.keys import DEFAULT_TAG, SnapshotKey, hostile_problem
from epoch_oci.errors import ContentError, Finding
from epoch_oci.oci import filename, strict_json
from epoch_oci.oci.digest import shown
from epoch_oci.oci.manifest import LAYER_LIMIT
from epoch_oci.oci.reference import tag_problem

ENVELOPE = "snapshot.json"
# Real ones are a kilobyte or two; one that names two thousand files fits as well.
ENVELOPE_LIMIT = 1 << 20
VERSION = 1
CONFIG_KEYS = (
    *("id", "name", "description", "image", "image_digest", "image_type", "image_blob_ids", "hypervisor"),
    *("cpu", "memory", "storage", "nics", "queue_size", "disk_queue_size", "network", "no_direct_io", "windows"),
)
"""The keys of `config` that are understood here, in the order in which Epoch writes them."""
RECORD_KEYS = frozenset({"created_at", "data_dir", "pending", "size_bytes", "last_accessed_at"})
"""What Cocoon's record says beside the config, of this copy on this node alone; an archive has none of it."""
_LATER_KEYS = frozenset(
    {"shared_memory", "no_watchdog", "hugepages", "mergeable", "cpuset_cpus"}
    | {"cpu_weight", "cpu_quota_us", "cpu_period_us", "cpu_burst_us"}
)
"""Settings of Cocoon 0.3.9 and later. They travel like any other key; Go takes them in any letter case."""
_KEYS = frozenset({"version", "config", "files"})
_KNOWN = frozenset(CONFIG_KEYS) | _LATER_KEYS | RECORD_KEYS
PLAIN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""Names that every Cocoon takes; up to 0.3.8 it takes any text (epoch-formats 5.2)."""
DIVIDED = r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,62}"
"""What one of the two Cocoons that came after it takes; the other one takes PLAIN names alone (epoch-formats 5.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A view of an envelope; `raw` has the bytes that count, `config` the parsed object, unknown keys included.

    `memory` and `storage` are bytes; 0, "" and False mean absent. `files` names the other entries of the archive, None
    when the envelope does not say (only later Cocoon versions do).
    """

    raw: bytes = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    id: str
    name: str
    image: str
    image_blob_ids: tuple[str, ...]
    cpu: int
    memory: int
    storage: int
    nics: int
    windows: bool
    files: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, raw: bytes, what: str = ENVELOPE) -> Self:
        """Read the envelope of any Cocoon version. Raises ContentError with every finding."""
        value = strict_json.loads(raw, what, limit=ENVELOPE_LIMIT)
        found: list[Finding] = []
        members = Members(value, "$", found, _KEYS)
        _check_version(members)
        # What nobody here knows is no reason to refuse; a known key in another letter case is (reliability J1).
        config = Members(members.value.get("config"), "$.config", found, _KNOWN)
        if members.value.get("config") is None:
            members.refuse("config", "SCHEMA", "is missing")
        result = cls(
            raw=raw,
            config=MappingProxyType(config.value),
            id=config.text("id"),
            name=_name(config),
            image=config.text("image"),
            image_blob_ids=_blob_ids(config),
            cpu=config.number("cpu"),
            memory=config.number("memory", "SIZE"),
            storage=config.number("storage", "SIZE"),
            nics=config.number("nics"),
            windows=config.flag("windows"),
            files=_files(members),
        )
        _check_rest(config)
        if found:
            raise ContentError.of(what, found)
        return result

    @classmethod
    def mint(cls, config: Mapping[str, Any], *, config_first: bool = False) -> Self:
        """An envelope around `config`, in Cocoon's form. Raises ContentError when Cocoon would not read it."""
        members: dict[str, Any] = {"version": VERSION, "config": config}
        if config_first:
            # The order is Cocoon's, and with it the bytes: an envelope of 0.3.6 and later begins so (epoch-formats
            # 5.5).
            members = {"config": config, "version": VERSION}
        return cls.parse(gojson.dumps(members) + b"\n", "the envelope")

    def renamed(self, name: str | None = None, description: str | None = None) -> Self:
        """The same with another name or description; unchanged bytes when neither is given. Raises ContentError."""
        changes = {"name": name, "description": description}
        changes = {key: text for key, text in changes.items() if text is not None and text != self.config.get(key)}
        if not changes:
            return self
        value = strict_json.loads(self.raw, ENVELOPE, limit=ENVELOPE_LIMIT)
        # In place: the keys keep their order, and what nobody here knows stays.
        value["config"].update(changes)
        return type(self).parse(gojson.dumps(value) + b"\n", "the envelope")


def _check_version(members: Members) -> None:
    version = members.value.get("version")
    if type(version) is not int or version != VERSION:
        members.refuse("version", "TYPE", f"the version is {shown(version)}, only {VERSION} is understood")


def _name(config: Members) -> str:
    name = config.text("name")
    if config.value.get("name") is None:
        config.refuse("name", "SCHEMA", "is missing")
    # An empty name is Cocoon's own for a snapshot without one (epoch-formats 5.3).
    if name and (why := hostile_problem(name)) is not None:
        config.refuse("name", "NAME", f"{shown(name)} {why}")
    return name


def _check_rest(config: Members) -> None:
    """What nothing here goes by: Go refuses the whole envelope all the same when one of them has a wrong type."""
    for key in ("description", "image_type", "hypervisor", "network"):
        config.text(key)
    for key in ("queue_size", "disk_queue_size"):
        config.number(key)
    config.flag("no_direct_io")
    config.check_digest("image_digest")


def _blob_ids(config: Members) -> tuple[str, ...]:
    """Blob IDs are names of files in Cocoon's blob directory."""
    blobs = config.map("image_blob_ids")
    for blob, value in blobs.items():
        if (why := filename.problem(blob)) is not None:
            config.refuse("image_blob_ids", "NAME", why)
        if value is not None and not isinstance(value, dict):
            config.refuse("image_blob_ids", "SCHEMA", f"{shown(value)} is not an object")
    return tuple(blobs)


def _files(members: Members) -> tuple[str, ...] | None:
    if members.value.get("files") is None:
        return None
    names = members.array("files", LAYER_LIMIT)
    for index, name in enumerate(names):
        if (why := filename.problem(name)) is not None:
            members.found.append(Finding(f"$.files[{index}]", "NAME", why))
    return tuple(name for name in names if isinstance(name, str))


def key_of(name: str) -> SnapshotKey:
    """The key of the Cocoon snapshot `name`: what follows its only colon is the tag when it can be one, else `latest`.

    Two names never have the same key, and `record_name` is the way back.
    """
    head, colon, tail = name.rpartition(":")
    # `a:latest` would be the key of `a` as well, and with a second colon two names could meet in one key.
    if colon and head and ":" not in head and tail != DEFAULT_TAG and tag_problem(tail) is None:
        return SnapshotKey(head, tail)
    return SnapshotKey(name, DEFAULT_TAG)


def record_name(key: SnapshotKey) -> str:
    """What Cocoon is to call the snapshot `key`."""
    return key.name if key.tag == DEFAULT_TAG else f"{key.name}:{key.tag}"


def spelled(name: str, rule: str) -> str:
    """A name close to `name` that `rule` allows, PLAIN or DIVIDED."""
    # A run of what is not allowed becomes one dash: the name is for people, who will look at it before they use it.
    kept = "a-zA-Z0-9._/:-" if rule == DIVIDED else "a-zA-Z0-9._-"
    return re.sub(f"[^{kept}]+", "-", name).lstrip("._/:-")[:63].rstrip("/:") or "snapshot"
