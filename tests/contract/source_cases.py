"""Stores for the read half of the contract: those that are written by others, and all that write themselves."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from chunked import encode
from cocoon_world import make_root
from support.legacy_epoch import LegacyEpoch

from contract.cases import ARTIFACT, CASES, EPOCH, Kind, Store, StoreCase, descriptor
from contract.contents import Raw
from epoch_oci.artifacts.chunked import ChunkedSource
from epoch_oci.cocoon.root import CocoonRoot
from epoch_oci.locate import Connection, open_store
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.document import Document
from epoch_oci.stores.base import Content, Source
from epoch_oci.stores.oci_layout import OciLayout

TOKEN = "4f7d1c0e" * 8


@dataclass(frozen=True)
class Reading:
    """A store to read from, and how content gets into it. ``name`` is a repository's, where the kind has them."""

    kind: Kind
    store: Store
    put: Callable[[bytes], None]
    publish: Callable[[str, Document], None]
    keeps_documents: bool = True
    """Whether a document is kept as it was published; else one is derived, the same each time."""
    finds_by_digest: bool = True
    """Whether a blob is looked up by its digest alone; else what has another size is not there at all."""


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


@contextmanager
def _cocoon(root: Path) -> Iterator[Reading]:
    with closing(CocoonRoot(make_root(root / "cocoon").path)) as store:
        yield Reading(
            kind=replace(EPOCH, name="bot:{}".format),
            store=store,
            put=lambda raw: store.put(descriptor(raw), Raw(raw)),
            publish=lambda tag, document: store.publish(f"bot:{tag}", document),
            keeps_documents=False,
            finds_by_digest=False,
        )


class _InChunks(OciLayout):
    """A layout of whose blobs the larger ones are read out of packs; the index is made anew with each of them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "layout")
        self._layout = OciLayout(root / "layout")
        self._larger: dict[str, bytes] = {}
        self._source: Source = self._layout

    def add(self, raw: bytes) -> None:
        self._layout.put(descriptor(raw), Raw(raw))
        if len(raw) > 65_536:
            self._larger[str(descriptor(raw).digest)] = raw
            version = encode(self._larger)
            for pack in version.laid:
                self._layout.put(descriptor(pack), Raw(pack))
            self._source = ChunkedSource(self._layout, version.index(), {})

    def has(self, target: Descriptor) -> bool:
        return self._source.has(target)

    def content(self, target: Descriptor) -> Content:
        return self._source.content(target)

    def resolve(self, name: str) -> Document:
        return self._source.resolve(name)


@contextmanager
def _chunked(root: Path) -> Iterator[Reading]:
    store = _InChunks(root)
    yield Reading(kind=ARTIFACT, store=store, put=store.add, publish=store.publish)


SOURCE_CASES = [
    *(SourceCase(case.name, partial(_writable, case)) for case in CASES),
    SourceCase("cocoon", _cocoon),
    SourceCase("chunks", _chunked),
    SourceCase("server-0.1.4", partial(_server, "0.1.4", "bot")),
    SourceCase("server-0.1.4-nested", partial(_server, "0.1.4", "acme/bot")),
    SourceCase("server-0.1.5", partial(_server, "0.1.5", "acme/bot")),
    SourceCase("server-6793481", partial(_server, "6793481", "acme/bot")),
]
