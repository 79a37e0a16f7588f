"""Stores for the read half of the contract: those that are written by others, and all that write themselves."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from support.legacy_epoch import LegacyEpoch

from contract.cases import CASES, EPOCH, Kind, Store, StoreCase, descriptor
from contract.contents import Raw
from epoch_oci.locate import Connection, open_store
from epoch_oci.oci.document import Document

TOKEN = "4f7d1c0e" * 8


@dataclass(frozen=True)
class Reading:
    """A store to read from, and how content gets into it. ``name`` is a repository's, where the kind has them."""

    kind: Kind
    store: Store
    put: Callable[[bytes], None]
    publish: Callable[[str, Document], None]


@dataclass(frozen=True)
class SourceCase:
    name: str
    factory: Callable[[Path], AbstractContextManager[Reading]]


@contextmanager
def _writable(case: StoreCase, root: Path) -> Iterator[Reading]:
    with case.factory(root) as subject:
        yield Reading(
            kind=subject.kind,
            store=subject.store,
            put=lambda raw: subject.store.put(descriptor(raw), Raw(raw)),
            publish=lambda tag, document: subject.store.publish(subject.kind.name(tag), document),
        )


@contextmanager
def _server(version: str, name: str, root: Path) -> Iterator[Reading]:
    with LegacyEpoch(token=TOKEN, version=version) as server:
        connection = Connection(environ={"EPOCH_REGISTRY_TOKEN": TOKEN})
        yield Reading(
            kind=replace(EPOCH, name=(name + ":{}").format),
            store=open_store(f"epoch+{server.url}", connection=connection),
            put=server.put_blob,
            publish=lambda tag, document: server.put_manifest(name, tag, document.raw),
        )


SOURCE_CASES = [
    *(SourceCase(case.name, partial(_writable, case)) for case in CASES),
    SourceCase("server-0.1.4", partial(_server, "0.1.4", "bot")),
    SourceCase("server-0.1.4-nested", partial(_server, "0.1.4", "acme/bot")),
    SourceCase("server-0.1.5", partial(_server, "0.1.5", "acme/bot")),
    SourceCase("server-6793481", partial(_server, "6793481", "acme/bot")),
]
