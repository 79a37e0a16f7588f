"""Manifests, tags and referrers of a ``FakeRegistry``."""

import json
from urllib.parse import quote

from support.content import DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST, digest_of
from support.registry_call import DIGEST, TAG, Behaviour, Call, created, not_found
from support.registry_state import Manifest, Repository, State
from support.wire import Answer, Request

MEDIA_TYPES = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST)


class Manifests:
    """Answers the manifest, tag and referrer routes."""

    def __init__(self, state: State, behaviour: Behaviour) -> None:
        self.state, self.behaviour = state, behaviour

    def get_manifest(self, call: Call) -> Answer:
        repository = self.state.known(call.name)
        found = repository.manifest(call.reference) if repository else None
        if found is None:
            return Answer.error(404, "MANIFEST_UNKNOWN", "manifest unknown", detail=f"unknown {call.reference}")
        digest, manifest = found
        accepted = ",".join(call.request.headers.get_all("Accept", []))
        if self.behaviour.strict_accept and manifest.media_type not in _media_ranges(accepted):
            return Answer.error(404, "MANIFEST_UNKNOWN", "manifest found, but the accept header does not list its type")
        headers = [("Docker-Content-Digest", digest), ("ETag", f'"{digest}"')]
        if call.request.headers.get("If-None-Match") == f'"{digest}"':
            return Answer(304, headers)
        return Answer.of(200, manifest.body, ("Content-Type", manifest.media_type), *headers)

    def put_manifest(self, call: Call) -> Answer:
        if not TAG.fullmatch(call.reference) and not DIGEST.fullmatch(call.reference):
            return not_found()
        body = call.request.body.read_all(self.behaviour.max_manifest)
        media_type = call.request.headers.get("Content-Type", "")
        if len(body) > self.behaviour.max_manifest:
            return Answer.error(413, "MANIFEST_INVALID", "request body too large")
        document = _manifest_document(body, media_type)
        if document is None:
            return Answer.error(400, "MANIFEST_INVALID", "manifest invalid")
        algorithm = call.reference.partition(":")[0] if ":" in call.reference else "sha256"
        digest = digest_of(body, algorithm)
        if ":" in call.reference and digest != call.reference:
            return Answer.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        missing = self._first_missing(call.name, document) if self.behaviour.check_references else None
        if missing is not None:
            return Answer.error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", detail=missing)
        tag = None if ":" in call.reference else call.reference
        self.state.put_manifest(call.name, digest, Manifest(body, media_type), tag)
        answer = created(call, self.behaviour, "manifests", digest)
        subject = document.get("subject")
        if isinstance(subject, dict) and self.behaviour.referrers:
            answer.headers.append(("OCI-Subject", str(subject.get("digest"))))
        return answer

    def _first_missing(self, name: str, document: dict[str, object]) -> object | None:
        repository = self.state.repository(name)
        blobs = [document.get("config"), *_entries(document, "layers")]
        for entry in blobs:
            if isinstance(entry, dict) and entry.get("digest") not in repository.blobs:
                return entry.get("digest")
        for entry in _entries(document, "manifests"):
            if isinstance(entry, dict) and entry.get("digest") not in repository.manifests:
                return entry.get("digest")
        return None

    def delete_manifest(self, call: Call) -> Answer:
        if not self.behaviour.deletes:
            return Answer.error(405, "UNSUPPORTED", "the operation is unsupported")
        with self.state.guard:
            repository = self.state.known(call.name)
            if repository is None or repository.manifest(call.reference) is None:
                return Answer.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            if ":" not in call.reference:
                if not self.behaviour.deletes_tags:  # as distribution 2
                    return Answer.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
                del repository.tags[call.reference]
                return Answer.of(202)
            del repository.manifests[call.reference]
            repository.tags = {t: d for t, d in repository.tags.items() if d != call.reference}
        return Answer.of(202)

    def list_tags(self, call: Call) -> Answer:
        repository = self.state.known(call.name)
        if repository is None:
            return Answer.error(
                404, "NAME_UNKNOWN", "repository name not known to registry", detail={"name": call.name}
            )
        return self._page(
            call.request, f"/v2/{call.name}/tags/list", list(repository.tags), "tags", {"name": call.name}
        )

    def catalog(self, request: Request) -> Answer:
        """Every repository by name."""
        if not self.behaviour.catalog:
            return not_found()
        with self.state.guard:
            names = list(self.state.repositories)
        return self._page(request, "/v2/_catalog", names, "repositories", {})

    def _page(self, request: Request, path: str, items: list[str], member: str, others: dict[str, object]) -> Answer:
        asked, last = request.param("n"), request.param("last")
        if asked is not None and not asked.isdigit():
            return Answer.error(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
        items = sorted(item for item in items if last is None or item > last)
        limits = [int(asked)] if asked is not None else []
        if self.behaviour.page_size is not None:
            limits.append(self.behaviour.page_size)
        page = items[: min(limits)] if limits else items
        answer = Answer.json(200, {**others, member: page})
        if page and len(page) < len(items):
            target = f"{path}?last={quote(page[-1])}&n={len(page)}"
            answer.headers.append(("Link", f'<{target}>; rel="next"'))
        return answer

    def referrers(self, call: Call) -> Answer:
        if not self.behaviour.referrers:
            return not_found()
        if not DIGEST.fullmatch(call.reference):
            return Answer.error(400, "DIGEST_INVALID")
        repository = self.state.known(call.name) or Repository()
        entries = [_referrer(d, m) for d, m in sorted(repository.manifests.items()) if _subject(m) == call.reference]
        wanted = call.request.param("artifactType")
        filters = [("OCI-Filters-Applied", "artifactType")] if wanted else []
        if wanted:
            entries = [entry for entry in entries if entry.get("artifactType") == wanted]
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        return Answer.of(200, json.dumps(document).encode(), ("Content-Type", INDEX), *filters)


def _media_ranges(accept: str) -> set[str]:
    return {part.partition(";")[0].strip().lower() for part in accept.split(",")}


def _manifest_document(body: bytes, media_type: str) -> dict[str, object] | None:
    """The parsed manifest, or None when it is none of a type that registries take."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    if not isinstance(document, dict) or media_type not in MEDIA_TYPES:
        return None
    return document if document.get("mediaType", media_type) == media_type else None


def _entries(document: dict[str, object], member: str) -> list[object]:
    entries = document.get(member)
    return entries if isinstance(entries, list) else []


def _subject(manifest: Manifest) -> object:
    subject = json.loads(manifest.body).get("subject")
    return subject.get("digest") if isinstance(subject, dict) else None


def _referrer(digest: str, manifest: Manifest) -> dict[str, object]:
    document = json.loads(manifest.body)
    config = document.get("config") or {}
    entry = {"mediaType": manifest.media_type, "digest": digest, "size": len(manifest.body)}
    artifact_type = document.get("artifactType") or config.get("mediaType")
    if artifact_type:
        entry["artifactType"] = artifact_type
    if document.get("annotations"):
        entry["annotations"] = document["annotations"]
    return entry
