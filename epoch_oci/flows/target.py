"""A look at the target before the leap: may it be written, read by everybody, does it take this, what does it hold."""

from collections.abc import Iterable

from epoch_oci.dialects.base import Artifact
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Layer
from epoch_oci.errors import ConflictError, NotFoundError, PolicyError, UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.reference import legal_tag, tag_problem
from epoch_oci.stores.base import Exposed, Limited, Preflight, Sink

_MEMORY_FILES = frozenset({"mem", "vmstate", "state.json"})


def legal_target(tag: str, key: SnapshotKey) -> str:
    """`tag` as the target of `key`. Raises UsageError with a spelling that works where OCI does not allow it."""
    if (why := tag_problem(tag)) is None:
        return tag
    legal = legal_tag(tag) or "latest"
    raise UsageError(
        f'the tag "{tag}" of {key} {why}', object=str(key), hint=f'name a target tag, for example ":{legal}"'
    )


def check_limits(name: str, carriers: Iterable[Descriptor], sink: Sink, where: str) -> None:
    """Refuse a file that the target is known not to take, before it has taken gigabytes of it. Raises UsageError."""
    largest = sink.limits().largest if isinstance(sink, Limited) else None
    for carrier in carriers:
        if largest is not None and carrier.size > largest:
            raise UsageError(
                f"{name} needs a layer of {carrier.size} bytes, and {where} takes {largest} at most",
                object=name,
                hint="cut it with --part-size 1GiB",
            )


def check_write(sink: Sink) -> None:
    """Before the first byte: may we write? Raises AccessError, NotFoundError."""
    if isinstance(sink, Preflight):
        sink.check_write()


def refuse_public(sink: Sink, layers: Iterable[Layer], where: str, *, allowed: bool) -> None:
    """Before the first byte: may everybody read? Raises PolicyError, for memory holds the guest's secrets."""
    secret = [layer.filename for layer in layers if _holds_memory(layer.filename, layer.media_type)]
    if secret and not allowed and isinstance(sink, Exposed) and sink.anonymous_can_read():
        raise PolicyError(
            f"anybody can read {where}, and {', '.join(secret)} hold what was in the guest's memory",
            object=where,
            hint="make the repository private, or push it all the same with --allow-public",
        )


def _holds_memory(name: str, media_type: str) -> bool:
    """Guest memory or device state, by Epoch's media types and by the names that Firecracker's files have."""
    return media_type.endswith((".memory", ".state+json")) or name.startswith("memory-range") or name in _MEMORY_FILES


def is_tagged(sink: Sink, tag: str, artifact: Artifact, where: str, *, force: bool) -> bool:
    """Whether the tag holds this very artifact. Raises ConflictError when it holds another; `publish` looks again."""
    try:
        there = sink.resolve(tag)
    except NotFoundError:
        return False
    if there.digest == artifact.manifest.digest:
        return True
    if force:
        return False
    raise ConflictError(
        f"{where}:{tag} holds {there.digest}, which is another artifact",
        object=f"{where}:{tag}",
        hint="push to another tag, or replace it with --force",
    )
