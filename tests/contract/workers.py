"""What other processes do to a store; importable by name, as ``multiprocessing`` wants it."""

from collections.abc import Callable

from contract.cases import Kind, Store, descriptor
from contract.contents import Raw


def publish_tags(opener: Callable[[], Store], kind: Kind, worker: int, tags: int, blob: bytes) -> list[str]:
    """Store a blob that all workers share and publish ``tags`` documents over it; the names."""
    store, names = opener(), []
    for part in kind.parts([blob]):
        store.put(descriptor(part), Raw(part))
    for number in range(tags):
        name = kind.name(f"w{worker}-{number}")
        store.publish(name, kind.document([blob], name))
        names.append(name)
    return names


def publish_one(opener: Callable[[], Store], kind: Kind, worker: int, blob: bytes) -> str:
    """Try to be the one that publishes; the name of what happened."""
    try:
        opener().publish(kind.name("race"), kind.document([blob], f"worker {worker}"))
    except Exception as error:  # the test looks at which one
        return type(error).__name__
    return f"worker {worker}"
