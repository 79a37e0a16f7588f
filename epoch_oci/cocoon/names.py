"""A Cocoon snapshot has one free name, an Epoch snapshot a name and a tag."""

from epoch_oci.epoch.keys import DEFAULT_TAG, SnapshotKey
from epoch_oci.oci.reference import tag_problem


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
