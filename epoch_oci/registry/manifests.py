"""The manifests of a repository: read, published, taken away, and what refers to them.

A manifest is believed when its digest is right, and published when it was looked at afterwards: there are registries
that write it anew, and others that show it late. Referrers come from the registry's list, or from a tag where it has
none (distribution-spec, "Listing Referrers"); removal is that of "Deleting tags" and "Deleting Manifests".
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from epoch_oci.errors import (
    AccessError,
    ConflictError,
    ContentError,
    EpochOciError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from epoch_oci.oci import media_types, verifying
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import MANIFEST_LIMIT, Document
from epoch_oci.oci.manifest import ImageIndex, as_stated, is_index, subject_of, successors
from epoch_oci.oci.reference import fallback_tag
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import REDIRECTS, RegistryClient, header_digest, read_bounded
from epoch_oci.registry.download import Presence
from epoch_oci.registry.http_errors import Refusal, body_text, codes_of, dismiss, may_have_acted
from epoch_oci.registry.policy import Attempts
from epoch_oci.stores.base import VanishedError

# All kinds at once: some registries translate what is not accepted, and what is translated has another digest.
_ACCEPT = ", ".join((media_types.MANIFEST, media_types.INDEX, media_types.DOCKER_MANIFEST, media_types.DOCKER_INDEX))
_MISSING = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})
# 404 by the specification (oci-registries 2.1); registries that know no referrers say it in all of these ways.
_NO_LIST = (400, 404, 405, 501)
_WRITES = 8
"""How often an entry is written again that another writer has overwritten, before that is an error."""
_WRITING = threading.Lock()
"""Held while a fallback tag is rewritten by a thread of this process: such a registry has no conditional writes."""
_DELETE = "delete,pull,push"
_DELETED = (200, 202, 204)
_ASKED_AT_ONCE = 8
_HELD_SECONDS = 10.0
_NOWHERE = Digest.of(b"no manifest is these bytes")


class Manifests:
    """Those of one repository, which people call `where`. Names are tags or digests. Safe for threads."""

    def __init__(self, client: RegistryClient, repository: str, where: str) -> None:
        self._client, self._repository, self._where = client, repository, where
        self._held: dict[str, Digest | None] = {}
        self._held_since = float("-inf")
        self._parts: dict[Digest, frozenset[Digest]] = {}

    # Reading

    def resolve(self, name: str) -> Document:
        """As `Source.resolve`."""
        what = self._named(name)
        found = self._client.read(self._url(name), what=what, limit=MANIFEST_LIMIT, headers={"Accept": _ACCEPT})
        if found is None:
            raise NotFoundError(f"{what} is not there", object=what, hint=f"see `epoch-oci ls {self._where}`")
        response, raw = found
        document = Document(response.headers.get("Content-Type", "").partition(";")[0].strip(), raw)
        self._check(document, name, response)
        return as_stated(document, what, self._client.quoted)

    def digest_of(self, name: str) -> Digest | None:
        """What `name` points to, None when it is not there: by one HEAD, or where that does not tell, by one GET."""
        try:
            response = self._client.call(
                "HEAD", self._url(name), (200, 404), what=self._named(name), headers={"Accept": _ACCEPT}
            )
        except NetworkError:
            raise
        except EpochOciError:  # a HEAD is refused without a word, and some registries know none
            pass
        else:
            dismiss(response)
            stated = header_digest(response)
            if response.status_code == 404 or stated is not None:
                return stated if response.status_code == 200 else None
        try:
            return self.resolve(name).digest
        except NotFoundError:
            return None

    def _check(self, document: Document, name: str, response: requests.Response) -> None:
        """Whether these bytes are what was asked for. An encoding is judged by what it did to them."""
        what, stated = self._named(name), header_digest(response)
        if ":" in name:
            wanted = Digest.parse(name)
            hasher = wanted.hasher()
            hasher.update(document.raw)
            verifying.check(wanted, Digest(wanted.algorithm, hasher.hexdigest()), what)
        # Other algorithms than ours are not looked at: what is pinned from here on is the digest of the bytes.
        elif stated is not None and stated.algorithm == "sha256" and stated != document.digest:
            message = f"{what}: the registry states digest {stated}, the bytes have {document.digest}"
            if encoding := response.headers.get("Content-Encoding"):
                how = f"they came as {self._client.quoted(encoding)}"
                raise ContentError(
                    f"{message}; {how}", code="TYPE", object=what, hint="a proxy may do that; go round it"
                )
            self._client.settings.warn(message)

    # Publishing

    def publish(self, name: str, document: Document, *, replace: bool) -> None:
        """As `Sink.publish`: the manifest's exact bytes under a tag."""
        successors(document, f"the manifest for {self._named(name)}")
        if not replace and self._holds_another(name, document):
            raise self._conflict(name)
        confirmed = self._store(name, document, replace=replace)
        # The tag is looked at even so: two writers may have been told that theirs was stored.
        self._look_again(name, document, confirmed=confirmed)

    def keep(self, document: Document) -> None:
        """As `ArtifactStore.keep`: the manifest's exact bytes under its digest alone."""
        name = str(document.digest)
        successors(document, f"the manifest {name} for {self._where}")
        if not self._store(name, document, replace=True):
            self._look_again(name, document, confirmed=False)

    def _store(self, name: str, document: Document, *, replace: bool) -> bool:
        """Send a manifest, and list it with what it refers to where the registry does not do so itself.

        Returns whether the registry said that it stored these very bytes.
        """
        response = self._put(name, document, replace=replace)
        # None is said where the answer was lost and the manifest is found to be there.
        stated = header_digest(response) if response is not None else None
        listed = response is not None and "OCI-Subject" in response.headers
        confirmed = stated is not None and stated.algorithm == document.digest.algorithm
        if response is not None:
            dismiss(response)
        if stated is not None and confirmed:
            verifying.check(document.digest, stated, f"the manifest that {self._client.hostname} stored")
        subject = subject_of(document)
        if subject is not None and not listed:
            with _WRITING:
                self._enlist(_entry(document), subject.digest)
        return confirmed

    def _put(self, name: str, document: Document, *, replace: bool) -> requests.Response | None:
        """Send a manifest; None when it is there although no answer said so. It is not sent again unlooked."""
        what = f"publishing {self._named(name)}"
        attempts = Attempts(self._client.settings, what)
        while True:
            try:
                response = self._client.do_request(
                    self._url(name), "PUT", data=document.raw, headers={"Content-Type": document.media_type}
                )
                if response.status_code in (200, 201, 202):
                    return response
                if response.status_code in REDIRECTS:
                    raise self._client.refusal(response, what)
                raise self._refused(Refusal(response, what, self._client.auth.secrets()), document)
            except NetworkError as error:
                attempts.again(error)
                if may_have_acted(error) and self._is_published(name, document, replace=replace):
                    return None

    def _refused(self, refused: Refusal, document: Document) -> Exception:
        if refused.status not in (400, 404) or not _MISSING & set(refused.codes):
            return refused.error()
        # Who is told that something is missing wants to know what: the codes name it in no way that can be relied on.
        missing = [str(part.digest) for part in successors(document) if not self._holds(part)]
        if not missing:  # its parts do not agree; that passes, or does not
            message = f"{refused.message}, and says that it has all of it"
            return NetworkError(message, object=self._where, status=refused.status)
        return VanishedError(
            f"{self._where} lacks a blob that the manifest names ({', '.join(missing[:3])})",
            object=missing[0],
            hint="run the same command again: what is missing is sent then",
        )

    def _is_published(self, name: str, document: Document, *, replace: bool) -> bool:
        """After an answer that was lost: whether the registry acted on the request.

        Raises ConflictError when the tag holds something else now and may not be replaced.
        """
        try:
            found = self.resolve(name)
        except NotFoundError:
            return False
        except (AccessError, ContentError):  # what is there may be unfit to be read, and is to be replaced
            if not replace:
                raise
            return False
        if found.digest != document.digest and not replace:
            raise self._conflict(name)
        return found.digest == document.digest

    def _look_again(self, name: str, document: Document, *, confirmed: bool) -> None:
        """See what is there under `name` after the registry took `document`; `confirmed`: it named its digest.

        Raises ContentError (DIGEST) for a manifest stored in another form, ConflictError for somebody else's.
        """
        found = self._shown(name, confirmed=confirmed)
        if found is None or found.digest == document.digest:
            return
        if _same_value(found, document) and not self._is_kept(document):
            raise ContentError(
                f"{self._named(name)} was stored in another form: as {found.digest}, sent was {document.digest}",
                code="DIGEST",
                object=self._named(name),
                hint="a registry that writes manifests anew holds nothing that can be verified; use another one",
            )
        raise ConflictError(
            f"{self._named(name)} holds {found.digest} now, which somebody else has pushed meanwhile",
            object=self._named(name),
            hint="push to another tag, or replace it with --force",
        )

    def _shown(self, name: str, *, confirmed: bool) -> Document | None:
        """What is there under `name`, once the registry shows it; None where it may not be read."""
        what = self._named(name)
        attempts = Attempts(self._client.settings, what)
        while True:
            try:
                return self.resolve(name)
            except (AccessError, UsageError, NotFoundError) as error:
                if error.status is None:  # absent, and no refusal: a cache or replica that lags behind
                    attempts.again(NetworkError(f"{what} was taken, and is not shown yet", object=what))
                else:
                    if not confirmed:
                        self._client.settings.warn(
                            f"{what} was taken and may not be read, so nobody looked at it: {error.message}"
                        )
                    return None

    def _is_kept(self, document: Document) -> bool:
        """Whether the registry has these very bytes, under whatever tag."""
        try:
            return self.resolve(str(document.digest)).digest == document.digest
        except (NotFoundError, ContentError):
            return False

    def _holds_another(self, name: str, document: Document) -> bool:
        try:
            return self.resolve(name).digest != document.digest
        except NotFoundError:
            return False

    def _holds(self, part: Descriptor) -> bool:
        if part.media_type in media_types.MANIFESTS | media_types.INDEXES:
            return self.digest_of(str(part.digest)) is not None
        return Presence(self._client, self._repository, part).known()

    def _conflict(self, name: str) -> ConflictError:
        return ConflictError(
            f"{self._named(name)} holds another artifact",
            object=self._named(name),
            hint="push to another tag, or replace it with --force",
        )

    # Referrers

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """What the registry lists, and what the fallback tag does: some registries have only learnt of the list."""
        found = {item.digest: item for item in (*self._listed(digest), *self._tagged(digest))}
        return tuple(found.values())

    def _enlist(self, entry: Descriptor, subject: Digest) -> None:
        """Enter `entry` at the fallback tag of `subject`; nothing when it is there.

        Two writers may read one index and write two: whoever finds his entry gone writes it again. Who is overwritten
        after he has looked is not told; copying the artifact again finds out.
        """
        tag = fallback_tag(subject)
        for attempt in range(_WRITES):
            entries = self._tagged(subject)
            if any(item.digest == entry.digest for item in entries):
                return
            if attempt:
                time.sleep(random.random() * 0.05 * 2**attempt)  # noqa: S311 (a wait, no secret)
            self._store(tag, _index([*entries, entry]), replace=True)
        if not any(item.digest == entry.digest for item in self._tagged(subject)):
            where = self._named(tag)
            raise ConflictError(f"{where} is written by others all the time", object=where, hint="try again")

    def _listed(self, digest: Digest) -> tuple[Descriptor, ...]:
        url: str | None = self._client.url(f"{self._repository}/referrers/{digest}")
        what = f"the referrers of {self._where}@{digest}"
        found: list[Descriptor] = []
        asked: set[str] = set()
        while url is not None and url not in asked:  # a registry may lead in a circle
            asked.add(url)
            response = self._client.call("GET", url, (200, *_NO_LIST), what=what)
            if response.status_code != 200:
                dismiss(response)
                break
            raw = read_bounded(response, MANIFEST_LIMIT, what)
            found += ImageIndex.parse(Document(media_types.INDEX, raw), what).manifests
            url = self._client.next_page(response)
        return tuple(found)

    def _tagged(self, digest: Digest) -> tuple[Descriptor, ...]:
        tag = fallback_tag(digest)
        try:
            document = self.resolve(tag)
        except NotFoundError:
            return ()
        if document.media_type not in media_types.INDEXES:
            raise ContentError(f"{self._named(tag)} is no index of referrers", code="TYPE", object=tag)
        return ImageIndex.parse(document, self._named(tag)).manifests

    # Removing

    def remove(self, name: str, tags: Callable[[], Iterable[str]]) -> None:
        """Remove a tag, or a manifest by its digest with every tag it has; `tags` lists those of the repository.

        A registry that deletes manifests only is asked to when no other tag has this one, and no tagged index names it.
        Raises NotFoundError, and AccessError where the registry does not delete, or more would go than was asked for.
        """
        if ":" not in name and self._delete(name):
            return
        digest = Digest.parse(name) if ":" in name else self.digest_of(name)
        if digest is None:
            raise NotFoundError(f"{self._named(name)} is not there", object=self._named(name))
        try:
            others = [tag for tag in tags() if tag != name]
        except NotFoundError:  # what has no tag is no repository to some registries
            others = []
        self._refuse_more(name, digest, others)
        if not self._delete(str(digest)):
            raise self._undeletable()
        self._held = {tag: held for tag, held in self._held.items() if held != digest}

    def _refuse_more(self, name: str, digest: Digest, tags: list[str]) -> None:
        """Raises AccessError where deleting a manifest takes tags along, or a part of what is tagged."""
        held = self._digests_of(tags)
        others = [tag for tag in tags if held.get(tag) == digest] if ":" not in name else []
        indexes = [tag for tag, one in held.items() if one not in (None, digest) and digest in self._parts_of(one)]
        if not (others or indexes):
            return
        if not self._deletes():
            raise self._undeletable()
        why = f"{self._where}: the registry deletes whole manifests"
        if indexes:
            raise AccessError(
                f"{why}, and the index {', '.join(indexes)} would lose {name}",
                object=self._named(name),
                hint="remove the index first",
            )
        raise AccessError(
            f"{why}, and {', '.join(others)} would go with {name}",
            object=self._named(name),
            hint=f"remove them together: epoch-oci rm {self._where}@{digest}",
        )

    def _digests_of(self, tags: list[str]) -> dict[str, Digest | None]:
        """What tags point to: each is asked about, for no registry lists them by digest.

        Who removes many does not ask for all of them each time; what somebody tags within these moments is not seen.
        """
        if time.monotonic() - self._held_since > _HELD_SECONDS:
            self._held, self._held_since = {}, time.monotonic()
        new = [tag for tag in tags if tag not in self._held]
        with ThreadPoolExecutor(max_workers=_ASKED_AT_ONCE, thread_name_prefix="tags") as pool:
            self._held |= dict(zip(new, pool.map(self.digest_of, new), strict=True))
        return {tag: self._held[tag] for tag in tags}

    def _parts_of(self, digest: Digest | None) -> frozenset[Digest]:
        """The manifests that an index names, and those that indexes among them name; none of anything else."""
        if digest is None:
            return frozenset()
        if digest not in self._parts:
            self._parts[digest] = frozenset()  # a ring ends here
            found: set[Digest] = set()
            with contextlib.suppress(NotFoundError):
                document = self.resolve(str(digest))
                named = ImageIndex.parse(document).manifests if is_index(document) else ()
                for item in named:
                    found |= {item.digest, *self._parts_of(item.digest)}
            self._parts[digest] = frozenset(found)
        return self._parts[digest]

    def _deletes(self) -> bool:
        """Whether the registry deletes manifests at all: found out by one that cannot be there."""
        try:
            return self._delete(str(_NOWHERE))
        except NotFoundError:
            return True

    def _delete(self, name: str) -> bool:
        """False when the registry does not do this kind of thing: distribution 2 has no deletion of tags."""
        what = f"removing {self._named(name)}"
        attempts = Attempts(self._client.settings, what)
        sent = False
        while True:
            try:
                response = self._client.do_request(self._url(name), "DELETE", scope=Scope(self._repository, _DELETE))
                if response.status_code in _DELETED:
                    dismiss(response)
                    return True
                if response.status_code in (400, 405, 501):
                    codes = codes_of(body_text(response))
                    # Distribution 2 takes the tag for a digest, which it is not.
                    if response.status_code != 400 or {"UNSUPPORTED", "DIGEST_INVALID"} & set(codes):
                        return False
                raise self._client.refusal(response, what)
            except NotFoundError:
                if sent:  # the answer to the first attempt was lost
                    return True
                raise
            except NetworkError as error:
                sent = True
                attempts.again(error)

    def _undeletable(self) -> AccessError:
        return AccessError(
            f"{self._where}: the registry does not delete",
            object=self._where,
            hint="its administrator can allow it (distribution: storage.delete.enabled); or it has its own way",
        )

    # Words

    def _url(self, name: str) -> str:
        return self._client.url(f"{self._repository}/manifests/{name}")

    def _named(self, name: str) -> str:
        return f"{self._where}{'@' if ':' in name else ':'}{name}"


def _same_value(one: Document, other: Document) -> bool:
    try:
        return bool(one.json() == other.json())
    except ContentError:
        return False


def _entry(document: Document) -> Descriptor:
    """What a list of referrers says of a document (image-spec, manifest.md and image-index.md, `subject`)."""
    value: dict[str, Any] = document.json()
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
