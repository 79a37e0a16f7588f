"""All that belongs to an artifact: the manifests of an index, and what refers to any of them."""

from collections.abc import Iterable, Iterator
from dataclasses import field, replace

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, NotFoundError
from epoch_oci.oci import media_types, verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest, is_index, successors
from epoch_oci.oci.reference import attached_tags
from epoch_oci.stores.base import ArtifactStore, Source

_DOCUMENTS = media_types.MANIFESTS | media_types.INDEXES
_MOST = 20_000
"""Documents of one artifact. Whoever publishes referrers decides how many there are, and they may form rings."""
# An index of indexes is rare, a third level was never seen; a ring has no end.
_DEEPEST = 8


@dataclass(slots=True)
class Graph:
    """The documents of an artifact, in an order in which they can be published: what a document names stands before it.

    `referrers` are those that came along for their subject's sake, each after it, and so are those in `attached`, by
    the tags that make them findable. `blobs` is the union.
    """

    root: Document
    documents: dict[Digest, Document] = field(default_factory=dict)
    referrers: dict[Digest, Document] = field(default_factory=dict)
    attached: dict[str, Document] = field(default_factory=dict)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)

    @property
    def images(self) -> Iterator[ImageManifest]:
        """Every manifest that names content."""
        for document in (*self.documents.values(), *self.referrers.values()):
            if not is_index(document):
                yield ImageManifest.parse(document)


def read_graph(source: Source, root: Document, what: str, *, referrers: bool) -> Graph:
    """Follow `root` to all it names, and with `referrers` to all that refers to it. No blob is read.

    Raises ContentError for a wrong document, NotFoundError for one that is named and not there.
    """
    graph = Graph(root)
    _follow(source, root, what, graph, graph.documents, _DEEPEST)
    if referrers:
        _attach(source, list(graph.documents), what, graph)
    if referrers and isinstance(source, ArtifactStore):
        _refer(source, list(graph.documents), what, graph)
    return graph


def _attach(source: Source, subjects: Iterable[Digest], what: str, graph: Graph) -> None:
    """Signatures in the older way, which know their subject by their tag alone (`oci.reference.attached_tags`)."""
    for subject in subjects:
        for tag in attached_tags(subject):
            try:
                document = source.resolve(tag)
            except NotFoundError:
                continue
            _follow(source, document, f"{what}, {tag}", graph, graph.referrers, _DEEPEST)
            graph.attached[tag] = document


def _follow(
    source: Source, document: Document, what: str, graph: Graph, into: dict[Digest, Document], depth: int
) -> None:
    # What was followed once is not followed again: that ends rings, and asks for a shared child once.
    if document.digest in graph.documents or document.digest in graph.referrers:
        return
    if depth == 0 or len(graph.documents) + len(graph.referrers) >= _MOST:
        raise ContentError(f"{what} names more documents than anybody needs", code="SIZE", object=what)
    for part in successors(document, what):
        # Only an index names documents; what a manifest calls one is a blob of that type, and no registry would find it
        # elsewhere.
        if is_index(document) and part.media_type in _DOCUMENTS:
            child = _read(source, part, f"{what}, child {part.digest}")
            _follow(source, child, what, graph, into, depth - 1)
        else:
            # The first descriptor counts, for it is the one whose title is shown.
            graph.blobs.setdefault(part.digest, part)
    # Behind its children, for that is the order in which they can be published (oci-registries 2.2).
    into[document.digest] = document


def _refer(source: ArtifactStore, subjects: Iterable[Digest], what: str, graph: Graph) -> None:
    waiting = list(subjects)
    while waiting:
        subject = waiting.pop()
        for entry in source.referrers(subject):
            if entry.digest in graph.documents or entry.digest in graph.referrers:
                continue
            name = f"{what}, referrer {entry.digest}"
            try:
                document = _read(source, entry, name)
            except NotFoundError:  # a list that was not tidied up after its entries
                continue
            # A referrer may be an index with manifests of its own, and each may be referred to in turn (a signature of
            # an attestation).
            before = set(graph.referrers)
            _follow(source, document, name, graph, graph.referrers, _DEEPEST)
            waiting += [digest for digest in graph.referrers if digest not in before]


def _read(source: Source, entry: Descriptor, what: str) -> Document:
    document = source.resolve(str(entry.digest))
    # A list of referrers may come without sizes; then the digest alone has to do, which is what counts.
    verifying.check_bytes(document.raw, replace(entry, size=document.size) if entry.size == 0 else entry, what)
    return document
