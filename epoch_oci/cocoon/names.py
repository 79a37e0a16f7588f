"""A Cocoon snapshot has one free name, an Epoch snapshot a name and a tag."""

import re

from epoch_oci.epoch.keys import DEFAULT_TAG, SnapshotKey
from epoch_oci.oci.reference import tag_problem

PLAIN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""Names that every Cocoon takes; up to 0.3.8 it takes any text (epoch-formats 5.2)."""
DIVIDED = r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,62}"
"""What one of the two Cocoons that came after it takes; the other one takes PLAIN names alone (epoch-formats 5.7)."""


def key_of(name: str) -> SnapshotKey:
    """The key of the Cocoon snapshot `name`: what follows its only colon is the tag when it can be one, else `latest`.

    Two names never have the same key, and `record_name` is the way back.
    """
    head, colon, tail = name.rpartition(":")
    if colon and head and ":" not in head and tail != DEFAULT_TAG and tag_problem(tail) is None:
        return SnapshotKey(head, tail)
    return SnapshotKey(name, DEFAULT_TAG)


def record_name(key: SnapshotKey) -> str:
    """What Cocoon is to call the snapshot `key`."""
    return key.name if key.tag == DEFAULT_TAG else f"{key.name}:{key.tag}"


def spelled(name: str, rule: str) -> str:
    """A name close to `name` that `rule` allows, PLAIN or DIVIDED."""
    kept = "a-zA-Z0-9._/:-" if rule == DIVIDED else "a-zA-Z0-9._-"
    return re.sub(f"[^{kept}]+", "-", name).lstrip("._/:-")[:63].rstrip("/:") or "snapshot"
