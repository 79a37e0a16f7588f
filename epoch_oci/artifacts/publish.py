"""Publishing a manifest: the one way by which any verb makes one visible, and all that has to be right before.

Guard, write check, limits and the look at the tag belong to this act and not to the bytes that move for it: a blob that
is mounted, or that was there already, can be found by everybody who reads the manifest that names it.
"""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import field

from epoch_oci import dialects
from epoch_oci.artifacts.read import FoundDocuments, read_config
from epoch_oci.dataclass import dataclass
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import (
    AccessError,
    ConflictError,
    ContentError,
    EpochOciError,
    NotFoundError,
    PolicyError,
    UsageError,
)
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.oci.media_types import INDEXES
from epoch_oci.oci.reference import legal_tag, tag_problem
from epoch_oci.stores.base import ArtifactStore, Openness, Remote, Sink, Source
from epoch_oci.transfer.pool import beside

Named = tuple[str, str]
"""The name and the media type of a file that a manifest names."""

_MEMORY_TYPE = re.compile(r"\.(?:memory|state(?:\+json)?)(?:\.part)?(?:\+zstd)?\Z")
# Cloud Hypervisor's, Firecracker's and their parts (epoch-formats 5.4): a memory image under the type of octets is one
# all the same.
_MEMORY_FILE = re.compile(r"(?:memory-range.*|mem|vmstate|state\.json)(?:\.part(?:\..*)?)?\Z", re.DOTALL)
_NAMES_SHOWN = 4

_WAYS_OUT: dict[Openness, str] = {
    "repository": "make the repository private",
    "registry": "it asks nobody for credentials to read, so use a registry that does",
    "epoch": "an Epoch server lets everybody read who reaches it, so see that only those do whom you trust",
}


@dataclass(slots=True)
class Publication:
    """One manifest on its way to a name in `sink`.

    `admit` is called before the first byte moves and `commit` after the last one. Without `allow_public` a manifest
    that names a guest's memory or state does not get where anybody can read it.
    """

    sink: Sink
    allow_public: bool
    replace: bool
    _admitted: bool = False
    _peeked: dict[str, Document | EpochOciError] = field(default_factory=dict)
    _ahead: "Future[Openness | None] | None" = None

    def check_limits(self, name: str, carriers: Iterable[Descriptor]) -> None:
        """Refuse a file that the sink is known not to take, before it has taken gigabytes of it. Raises UsageError."""
        largest = self.sink.limits().largest if isinstance(self.sink, Remote) else None
        for carrier in carriers:
            if largest is not None and carrier.size > largest:
                raise UsageError(
                    f"{name} needs a layer of {carrier.size} bytes, and {self.sink.where} takes {largest} at most",
                    object=name,
                    # Far below every limit that is known (oci-registries 3.1).
                    hint="cut it with --part-size 1GiB",
                )

    def peek(self, tag: str) -> Document | None:
        """What the tag holds, None for nothing that can be read. Who looks at the tag next is told the same."""
        try:
            there = self._peeked[tag] = self.sink.resolve(tag)
        except (NotFoundError, AccessError, ContentError) as error:
            self._peeked[tag] = error
            return None
        return there

    def _held(self, tag: str) -> Document:
        """What the tag holds: as `peek` saw it, once, for hours later it may be something else. Raises as `resolve`."""
        there = self._peeked.pop(tag, None)
        if isinstance(there, EpochOciError):
            raise there
        return self.sink.resolve(tag) if there is None else there

    def is_tagged(self, tag: str, document: Document) -> bool:
        """Whether the tag holds this very document. Raises ConflictError when it holds another; `commit` looks too.

        What is to be replaced need not be fit to be read: a policy may forbid it, or it may be damaged.
        """
        try:
            there = self._held(tag)
        except NotFoundError:
            return False
        except (AccessError, ContentError):
            if not self.replace:
                raise
            return False
        # The very same is no conflict: a second run has to be as good as the first (reliability F2).
        if there.digest == document.digest:
            return True
        if self.replace:
            return False
        raise self.conflict(tag, there)

    def refuse_other(self, tag: str, image: ImageManifest) -> None:
        """Raise ConflictError when the tag holds what `image` cannot become, whatever the digests of its parts."""
        if self.replace:
            return
        try:
            there = self._held(tag)
        except NotFoundError:
            return
        # Known before gigabytes are sent: the snapshot, for the config is the Epoch manifest itself (decision D3), what
        # the artifact says of itself, and how its files are cut.
        if there.media_type in INDEXES or _but_for_parts(ImageManifest.parse(there)) != _but_for_parts(image):
            raise self.conflict(tag, there)

    def conflict(self, tag: str, there: Document) -> ConflictError:
        """The tag holds something else."""
        return ConflictError(
            f"{self.sink.where}:{tag} holds {there.digest}, which is another artifact",
            object=f"{self.sink.where}:{tag}",
            hint="push to another tag, or replace it with --force",
        )

    def check_write(self) -> None:
        """May we write? Raises AccessError, NotFoundError."""
        if isinstance(self.sink, Remote):
            self.sink.check_write()

    def ask_ahead(self, files: Iterable[Named]) -> None:
        """Have what `admit` asks asked beside the questions about blobs: it waits for the answer, and judges."""
        if not self.allow_public and isinstance(self.sink, Remote) and secret_names(files):
            self._ahead = beside(self.sink.openness)

    def admit(self, files: Iterable[Named]) -> None:
        """May everybody read what the manifest will name? Asked once, for the first secret. Raises PolicyError."""
        # Asked of the registry only when there is something to hide: the question itself costs requests and may need a
        # token.
        secrets = [] if self._admitted else secret_names(files)
        if secrets:
            self._refuse_open(None, secrets)
            # Once a run: an answer costs requests, and hundreds of manifests may go to one repository.
            self._admitted = True

    def foretold(self, files: Iterable[Named]) -> tuple[str, ...]:
        """What `admit` would raise, as warnings of a dry run."""
        try:
            self.admit(files)
        except PolicyError as error:
            # Told and not raised: a dry run is there to show all that would happen.
            return (f"this would be refused: {error}",)
        return ()

    def commit(
        self,
        name: str,
        document: Document,
        files: Iterable[Named] | None = None,
        *,
        blobs: Iterable[Descriptor] = (),
        known: bool = False,
    ) -> None:
        """Make `document` visible under `name`. `files` are those it stands for; None has it find that out.

        `blobs` are those of the manifests that an index names, which may have been there before it, and seen by nobody.
        `known`: it is there already, with all it refers to. Raises PolicyError, and what `Sink.publish` raises.
        """
        # Before the tag and not after it: once it is published, whoever watches the registry may have fetched it.
        self._look_again(document, files, blobs)
        if not known:
            self.sink.publish(name, document, replace=self.replace)

    def keep(self, store: ArtifactStore, document: Document) -> None:
        """Store `document` in the sink, which is `store`, by its digest alone. Raises as `commit`."""
        self._look_again(document, None, ())
        store.keep(document)

    def _look_again(self, document: Document, files: Iterable[Named] | None, blobs: Iterable[Descriptor]) -> None:
        """A repository that was not there before can turn out to be public, and now there is a blob to ask for."""
        if self.allow_public or not isinstance(self.sink, Remote):
            return
        if document.media_type not in INDEXES:
            image = ImageManifest.parse(document)
            blobs, files = image.successors, named_by(image, self.sink) if files is None else files
        known, secrets = list(blobs), secret_names(files or ())
        if secrets and known:
            # A registry that hides what it has from strangers shows it by answering for a blob; the smallest costs
            # least.
            self._refuse_open(min(known, key=lambda blob: blob.size), secrets)

    def _refuse_open(self, blob: Descriptor | None, secrets: Sequence[str]) -> None:
        if self.allow_public or not isinstance(self.sink, Remote):
            return
        ahead, self._ahead = self._ahead, None
        openness = ahead.result() if ahead is not None and blob is None else self.sink.openness(blob)
        if openness is not None:
            more = f" and {len(secrets) - _NAMES_SHOWN} more" if len(secrets) > _NAMES_SHOWN else ""
            raise PolicyError(
                f"anybody can read {self.sink.where}, and what was in the guest's memory is in "
                f"{', '.join(secrets[:_NAMES_SHOWN])}{more}",
                object=self.sink.where,
                hint=f"{_WAYS_OUT[openness]}, or push it all the same with --allow-public",
            )


def _but_for_parts(image: ImageManifest) -> tuple[object, ...]:
    layers = [(layer.media_type, layer.size, dict(layer.annotations)) for layer in image.layers]
    return image.kind, image.config.digest, dict(image.annotations), layers


def secret_names(files: Iterable[Named]) -> list[str]:
    """Those that hold guest memory or device state, by media type or by the names of hypervisors' files."""
    # Either is enough: names are free, and so are types, but a writer that hides both has to want to.
    secret = (name for name, media_type in files if _MEMORY_TYPE.search(media_type) or _MEMORY_FILE.match(name))
    return list(dict.fromkeys(secret))


def files_of(manifest: Manifest) -> list[Named]:
    """The files that an Epoch manifest names."""
    return [(layer.filename, layer.media_type) for layer in (*manifest.layers, *manifest.base_images)]


def named_by(image: ImageManifest, store: object) -> list[Named]:
    """The files that an artifact names: in its layers, and, where it is a snapshot, in the config that `store` has."""
    named = [(layer.title or "", layer.media_type) for layer in image.layers]
    if dialects.accepting(image) is not None and isinstance(store, Source):
        # The config names files that no layer has, of length zero or given up; their names are secrets as well.
        told = FoundDocuments(image, read_config(store, image)).told()
        named += [(file.name, file.media_type) for file in told.files]
    return named


def legal_target(tag: str, key: SnapshotKey) -> str:
    """`tag` as the target of `key`. Raises UsageError with a spelling that works where OCI does not allow it."""
    if (why := tag_problem(tag)) is None:
        return tag
    legal = legal_tag(tag) or "latest"
    raise UsageError(
        f'the tag "{tag}" of {key} {why}', object=str(key), hint=f'name a target tag, for example ":{legal}"'
    )
