"""What refers to a manifest, and taking one away.

Referrers come from the registry's list, or from a tag where it has none (distribution-spec). Removal is that of
distribution-spec, "Deleting tags" and "Deleting Manifests".
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from epoch_oci.errors import AccessError, ConflictError, ContentError, EpochOciError, NetworkError, NotFoundError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import MANIFEST_LIMIT, Document
from epoch_oci.oci.manifest import ImageIndex
from epoch_oci.oci.reference import fallback_tag
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import RegistryClient, read_bounded
from epoch_oci.registry.http_errors import body_text, codes_of, dismiss
from epoch_oci.registry.policy import Attempts

_WRITING = threading.Lock()
"""Held while a fallback tag is rewritten by a thread of this process: such a registry has no conditional writes."""
_WRITES = 8
"""How often an entry is written again that another writer has overwritten, before that is an error."""
_UNSUPPORTED = (400, 404, 405, 501)


@dataclass(frozen=True, slots=True)
class Referrers:
    """The referrers in one repository; `resolve` and `put` read and write a document under a tag."""

    client: RegistryClient
    repository: str
    where: str
    resolve: Callable[[str], Document]
    put: Callable[[str, Document], None]

    def of(self, digest: Digest) -> tuple[Descriptor, ...]:
        """What the registry lists, and what the fallback tag does: some registries have only learnt of the list."""
        found = {item.digest: item for item in (*self._listed(digest), *self._tagged(digest))}
        return tuple(found.values())

    def enlist(self, document: Document, subject: Digest, value: dict[str, Any]) -> None:
        """Enter `document`, parsed as `value`, at the fallback tag of `subject`; nothing when it is there.

        Two writers may read one index and write two: whoever finds his entry gone writes it again. Who is overwritten
        after he has looked is not told; copying the artifact again finds out.
        """
        with _WRITING:
            self._enlist(_entry(document, value), subject)

    def _enlist(self, entry: Descriptor, subject: Digest) -> None:
        tag = fallback_tag(subject)
        for attempt in range(_WRITES):
            entries = self._tagged(subject)
            if any(item.digest == entry.digest for item in entries):
                return
            if attempt:
                time.sleep(random.random() * 0.05 * 2**attempt)  # noqa: S311 (a wait, no secret)
            self.put(tag, _index([*entries, entry]))
        if not any(item.digest == entry.digest for item in self._tagged(subject)):
            raise ConflictError(
                f"{self.where}:{tag} is written by others all the time", object=f"{self.where}:{tag}", hint="try again"
            )

    def _listed(self, digest: Digest) -> tuple[Descriptor, ...]:
        url: str | None = self.client.url(f"{self.repository}/referrers/{digest}")
        what = f"the referrers of {self.where}@{digest}"
        found: list[Descriptor] = []
        asked: set[str] = set()
        while url is not None and url not in asked:
            asked.add(url)
            response = self.client.call("GET", url, (200, *_UNSUPPORTED), what=what)
            if response.status_code != 200:
                dismiss(response)
                break
            raw = read_bounded(response, MANIFEST_LIMIT, what)
            found += ImageIndex.parse(Document(media_types.INDEX, raw), what).manifests
            url = self.client.next_page(response)
        return tuple(found)

    def _tagged(self, digest: Digest) -> tuple[Descriptor, ...]:
        tag = fallback_tag(digest)
        try:
            document = self.resolve(tag)
        except NotFoundError:
            return ()
        if document.media_type not in media_types.INDEXES:
            raise ContentError(f"{self.where}:{tag} is no index of referrers", code="TYPE", object=tag)
        return ImageIndex.parse(document, f"{self.where}:{tag}").manifests


def _entry(document: Document, value: dict[str, Any]) -> Descriptor:
    """What a list of referrers says of a document (image-spec, manifest.md and image-index.md, `subject`)."""
    config = value.get("config")
    kind = value.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    return Descriptor(
        media_type=document.media_type,
        digest=document.digest,
        size=document.size,
        annotations=value.get("annotations") or {},
        artifact_type=kind,
    )


def _index(entries: list[Descriptor]) -> Document:
    rows = [entry.to_json() for entry in entries]
    return Document.encode(media_types.INDEX, {"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": rows})


_DELETE = "delete,pull,push"
_DONE = (200, 202, 204)
_ASKED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Removal:
    """Removes from one repository; `digest_of` and `tags` are the repository's own."""

    client: RegistryClient
    repository: str
    where: str
    digest_of: Callable[[str], Digest | None]
    tags: Callable[[], Iterator[str]]

    def of(self, name: str) -> None:
        """Remove a tag, or a manifest by its digest with every tag it has. Raises NotFoundError, AccessError."""
        if self._delete(name):
            return
        if ":" in name:
            raise self._unsupported()
        digest = self.digest_of(name)
        if digest is None:
            raise NotFoundError(f"{self.where}:{name} is not there", object=f"{self.where}:{name}")
        others = self._others(name, digest)
        if others:
            raise AccessError(
                f"{self.where}: the registry deletes manifests, not tags, and {', '.join(others)} would go with {name}",
                object=f"{self.where}:{name}",
                hint=f"remove them together: epoch-oci rm {self.where}@{digest}",
            )
        if not self._delete(str(digest)):
            raise self._unsupported()

    def _others(self, name: str, digest: Digest) -> list[str]:
        tags = [tag for tag in self.tags() if tag != name]
        with ThreadPoolExecutor(max_workers=_ASKED_AT_ONCE, thread_name_prefix="tags") as pool:
            found = pool.map(self.digest_of, tags)
            return [tag for tag, held in zip(tags, found, strict=True) if held == digest]

    def _delete(self, name: str) -> bool:
        """False when the registry does not do this kind of thing: distribution 2 has no deletion of tags."""
        url, what = self.client.url(f"{self.repository}/manifests/{name}"), f"removing {self.where}:{name}"
        attempts = Attempts(self.client.settings, what)
        sent = False
        while True:
            try:
                response = self.client.do_request(url, "DELETE", scope=Scope(self.repository, _DELETE))
                if response.status_code in _DONE:
                    dismiss(response)
                    return True
                if response.status_code in (400, 405, 501):
                    codes = codes_of(body_text(response))
                    if response.status_code != 400 or {"UNSUPPORTED", "DIGEST_INVALID"} & set(codes):
                        return False
                raise self.client.refusal(response, what)
            except NotFoundError:
                if sent:  # the answer to the first attempt was lost
                    return True
                raise
            except NetworkError as error:
                sent = True
                attempts.again(error)

    def _unsupported(self) -> EpochOciError:
        return AccessError(
            f"{self.where}: the registry does not delete",
            object=self.where,
            hint="its administrator can allow it (distribution: storage.delete.enabled); or it has its own way",
        )
