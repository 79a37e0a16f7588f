"""What is known before a push in chunks: earlier versions, by their indexes alone, and what a killed push has sent."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import field

from epoch_oci.artifacts.chunked import index_of_image
from epoch_oci.chunks.index import StoredBlob
from epoch_oci.chunks.known import Known
from epoch_oci.chunks.pack import read_closing
from epoch_oci.dataclass import dataclass
from epoch_oci.dialects.layers import is_chunked
from epoch_oci.disk.facts import Facts
from epoch_oci.disk.journals import PackJournal
from epoch_oci.disk.kept import KeptBlobs
from epoch_oci.errors import AccessError, ContentError, EpochOciError, LocalIOError, NetworkError, NotFoundError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.media_types import CREATED, MANIFESTS
from epoch_oci.stores.base import ArtifactStore, Sink, Source, full_name

_QUESTIONS = 8
# A repository may have thousands of tags, and each question is a manifest of its own.
_TAGS_ASKED = 32
# Each index that is learned takes memory for every chunk of it, and the fifth version back shares little that the
# others do not.
_TAGS_TAKEN = 4
_PROVEN = "chunk-index"
_Problem = (ContentError, NotFoundError, NetworkError, AccessError, LocalIOError)


@dataclass(frozen=True, slots=True)
class Base:
    """An artifact that may share chunks: `name` in `source`.

    `repository` is None where the packs are in the target; else the one to mount them from, "" where that cannot be.
    """

    source: Source
    name: str
    repository: str | None = None

    @property
    def where(self) -> str:
        """What people call it."""
        return full_name(self.source, self.name)


@dataclass(slots=True)
class Bases:
    """Reads bases into `known`; what is wrong with one is told by `warn`, and costs bytes only.

    `facts` remember which indexes are proven: what they say of packs was found right, or written, on this machine.
    """

    known: Known
    warn: Callable[[str], None]
    kept: KeptBlobs | None = None
    facts: Facts | None = None
    mounts: dict[Digest, str] = field(default_factory=dict)
    """The repository that a pack can be mounted from."""

    def learn(self, base: Base, image: ImageManifest | None = None) -> bool:
        """Take over the chunks of a base; `image` is its manifest where that was read already."""
        if base.repository == "":
            # Its packs could not be referred to from here without being fetched and sent, which is what a base is to
            # save.
            self.warn(f"{base.where} is in another registry or layout than the target, and is no base")
            return False
        try:
            image = image or ImageManifest.parse(base.source.resolve(base.name))
            if not is_chunked(image):
                self.warn(f"{base.where} is not in chunks, and is no base")
                return False
            index = index_of_image(base.source, image, self.kept)
            if index is not None:
                self.known.learn(index, proven=self._is_proven(image.layers[0].digest))
                if base.repository is not None:
                    # Mounted only if they turn out to be of use, and not all that the base has.
                    self.mounts |= {pack.digest: base.repository for pack in index.header.packs}
        except _Problem as error:
            # A push without a base is a larger push, and no failure.
            self.warn(f"{base.where} is of no use as a base: {error.message}")
            return False
        return True

    def learn_all(
        self, bases: Sequence[Base], sink: Sink, there: tuple[str, ImageManifest | None], alike: str = ""
    ) -> None:
        """Those that were named; else what the target's tag holds, and its newest tags that begin with `alike`."""
        for base in bases:
            self.learn(base)
        source = as_source(sink)
        # Who names bases has chosen, and is not asked for the time that looking for others takes.
        if bases or source is None:
            return
        tag, image = there
        if image is not None and is_chunked(image):
            self.learn(Base(source, tag), image)
        for name, found in newest(source, tag, alike):
            self.learn(Base(source, name), found)

    def prove(self, index: Digest) -> None:
        """Remember that packs are as an index says."""
        if self.facts is not None:
            self.facts.keep(_PROVEN, index.hex, "1")

    def _is_proven(self, index: Digest) -> bool:
        return self.facts is not None and self.facts.recall(_PROVEN, index.hex) is not None

    def learn_journal(self, journal: PackJournal) -> None:
        """Take over what an earlier push sent before it was killed."""
        for digest, size, closing in journal.records():
            with suppress(ContentError):
                # A record that is torn or was tampered with costs bytes: the packs it tells of are asked for before
                # they are used.
                table = read_closing(closing, size, "the journal")
                pack = self.known.add_pack(StoredBlob(Digest("sha256", digest), size))
                for row, start in zip(table.rows, table.starts, strict=False):
                    if not self.known.find(row.digest):
                        self.known.add(row.digest, pack, *row.stored(start), row.encoding)


def as_source(sink: Sink) -> Source | None:
    """A target as what it can be read from; None where it cannot."""
    return sink if isinstance(sink, Source) else None


def newest(source: Source, skip: str, alike: str = "") -> Iterator[tuple[str, ImageManifest]]:
    """The newest artifacts in chunks of a repository or layout, by their annotation of creation, but for tag `skip`.

    Only tags that begin with `alike` are looked at, and only so many: the last ones by name, as versions are counted.
    """
    if not isinstance(source, ArtifactStore):
        return
    with suppress(*_Problem):
        # Lists of referrers look like tags in registries that keep them so (oci-registries 2.2).
        tags = [tag for tag in source.tags() if tag != skip and tag.startswith(alike) and not tag.startswith("sha256-")]
        chosen = sorted(tags, key=natural_order)[-_TAGS_ASKED:]
        found = _manifests(source, chosen)
        # By what the snapshot says of itself; the tag breaks ties, so that every run takes the same.
        for _, tag, image in sorted(found, key=lambda item: item[:2], reverse=True)[:_TAGS_TAKEN]:
            yield tag, image


def _manifests(source: Source, tags: Sequence[str]) -> list[tuple[str, str, ImageManifest]]:
    images: dict[str, ImageManifest] = {}

    def ask(tag: str) -> None:
        with suppress(EpochOciError):
            document = source.resolve(tag)
            if document.media_type in MANIFESTS and is_chunked(image := ImageManifest.parse(document)):
                images[tag] = image

    with ThreadPoolExecutor(_QUESTIONS, thread_name_prefix="tags") as pool:
        list(pool.map(ask, tags))
    return [(image.annotations.get(CREATED, ""), tag, image) for tag, image in images.items()]


def natural_order(tag: str) -> list[tuple[int, str]]:
    """What tags are sorted by so that v10 comes after v9."""
    parts: list[tuple[int, str]] = []
    word = ""
    for char in tag + "\0":
        if word and char.isdigit() != word[-1].isdigit():
            parts.append((int(word), "") if word.isdigit() and word.isascii() else (-1, word))
            word = ""
        word += char
    return parts
