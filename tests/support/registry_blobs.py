"""Blobs and upload sessions of a ``FakeRegistry`` (distribution-spec, "Pulling blobs" and "Pushing blobs")."""

import base64
import hmac
import re
import secrets
from urllib.parse import quote

from support.registry_call import DIGEST, Behaviour, Call, created
from support.registry_state import Repository, State, Upload
from support.wire import Answer, Request


class Blobs:
    """Answers the blob and upload routes."""

    def __init__(self, state: State, behaviour: Behaviour) -> None:
        self.state, self.behaviour = state, behaviour
        self._secret = secrets.token_bytes(16)

    def _blob(self, call: Call) -> tuple[Repository, str] | Answer:
        if not DIGEST.fullmatch(call.reference):
            return Answer.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        repository = self.state.known(call.name)
        if repository is None or call.reference not in repository.blobs:
            return Answer.error(404, "BLOB_UNKNOWN", "blob unknown to registry", detail=call.reference)
        return repository, call.reference

    def get_blob(self, call: Call) -> Answer:
        found = self._blob(call)
        if isinstance(found, Answer):
            return found
        repository, digest = found
        content = repository.blobs[digest]
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", digest),
            ("Accept-Ranges", "bytes"),
            ("ETag", f'"{digest}"'),
        ]
        wanted = requested_range(call.request, content.size, f'"{digest}"')
        if wanted is None:
            return Answer(200, headers, content.slices, content.size)
        start, length = wanted
        if length <= 0:
            headers.append(("Content-Range", f"bytes */{content.size}"))
            return Answer(416, headers)
        headers.append(("Content-Range", f"bytes {start}-{start + length - 1}/{content.size}"))
        return Answer(206, headers, lambda: content.slices(start, length), length)

    def delete_blob(self, call: Call) -> Answer:
        if not self.behaviour.deletes:
            return Answer.error(405, "UNSUPPORTED", "the operation is unsupported")
        found = self._blob(call)
        if isinstance(found, Answer):
            return found
        found[0].blobs.pop(found[1], None)
        return Answer.of(202)

    # Uploads

    def start_upload(self, call: Call) -> Answer:
        mount, source = call.request.param("mount"), call.request.param("from")
        if mount and source and self.behaviour.mount:
            origin = self.state.known(source)
            if origin is not None and mount in origin.blobs:
                with self.state.guard:
                    self.state.repository(call.name).blobs[mount] = origin.blobs[mount]
                return created(call, self.behaviour, "blobs", mount)
        upload = self.state.open_upload(call.name)
        digest = call.request.param("digest")
        if digest is None or not self.behaviour.monolithic_post:
            return self._upload_answer(call, upload, 202)
        return self._receive(call, upload) or self._finish(call, upload, digest)

    def _upload_answer(self, call: Call, upload: Upload, status: int) -> Answer:
        state = self._pack(upload.id, upload.content.size)
        location = f"/v2/{call.name}/blobs/uploads/{upload.id}?_state={quote(state, safe='')}"
        if self.behaviour.location == "absolute":
            location = call.request.origin + location
        headers = [
            ("Location", location),
            ("Range", f"0-{max(0, upload.content.size - 1)}"),
            ("Docker-Upload-UUID", upload.id),
        ]
        if self.behaviour.chunk_min_length is not None:
            headers.append(("OCI-Chunk-Min-Length", str(self.behaviour.chunk_min_length)))
        return Answer(status, headers)

    def _pack(self, upload_id: str, offset: int) -> str:
        """Signed session state with characters that need quoting: a Location is opaque, so nobody may rebuild it."""
        text = f"{upload_id}+{offset}"
        return base64.b64encode(hmac.digest(self._secret, text.encode(), "sha256")).decode() + f"+{offset}=="

    def _session(self, call: Call) -> Upload | Answer:
        """The session of a PATCH or PUT, whose Location must be the newest one."""
        upload = self._known_upload(call)
        if isinstance(upload, Answer):
            return upload
        state = call.request.param("_state") or ""
        offset = state.rpartition("+")[2].rstrip("=")
        if not offset.isdigit() or not hmac.compare_digest(state, self._pack(upload.id, int(offset))):
            return Answer.error(404, "BLOB_UPLOAD_INVALID", "blob upload invalid", detail="invalid secret")
        if int(offset) != upload.content.size:
            return Answer.error(416, "RANGE_INVALID", "invalid content range")
        return upload

    def _known_upload(self, call: Call) -> Upload | Answer:
        repository = self.state.known(call.name)
        upload = repository.uploads.get(call.reference) if repository else None
        return upload or Answer.error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")

    def patch_upload(self, call: Call) -> Answer:
        if call.request.headers.get("Content-Type", "application/octet-stream") != "application/octet-stream":
            return Answer.error(415, "UNSUPPORTED", "bad Content-Type")
        upload = self._session(call)
        if isinstance(upload, Answer):
            return upload
        return self._receive(call, upload) or self._upload_answer(call, upload, 202)

    def _receive(self, call: Call, upload: Upload) -> Answer | None:
        """Append the body; the answer is a refusal of its Content-Range."""
        declared = call.request.headers.get("Content-Range")
        if declared is not None and (refusal := _refuse_range(call.request, declared, upload.content.size)):
            return refusal
        try:
            with upload.guard:
                for block in call.request.body:
                    upload.content.append(block)
        except BaseException:
            if self.behaviour.discard_broken_uploads:
                self.state.close_upload(call.name, upload)
            raise
        return None

    def close_upload(self, call: Call) -> Answer:
        upload = self._session(call)
        if isinstance(upload, Answer):
            return upload
        return self._receive(call, upload) or self._finish(call, upload, call.request.param("digest"))

    def _finish(self, call: Call, upload: Upload, digest: str | None) -> Answer:
        if digest is None or not DIGEST.fullmatch(digest):
            return Answer.error(
                400, "DIGEST_INVALID", detail="digest missing" if digest is None else "digest malformed"
            )
        if upload.content.digest(digest.partition(":")[0]) != digest:
            return Answer.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content", detail=digest)
        with self.state.guard:
            self.state.repository(call.name).blobs[digest] = upload.content
            self.state.close_upload(call.name, upload)
        return created(call, self.behaviour, "blobs", digest)

    def upload_status(self, call: Call) -> Answer:
        upload = self._known_upload(call)
        return upload if isinstance(upload, Answer) else self._upload_answer(call, upload, 204)

    def cancel_upload(self, call: Call) -> Answer:
        upload = self._known_upload(call)
        if isinstance(upload, Answer):
            return upload
        self.state.close_upload(call.name, upload)
        return Answer(204)


def requested_range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """Start and length of a single Range; None for the whole; length 0 when it cannot be satisfied."""
    text = request.headers.get("Range")
    if text is None or request.headers.get("If-Range", etag) != etag or "," in text:
        return None
    hit = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if hit is None or hit.groups() == ("", ""):
        return 0, 0
    first, last = hit.groups()
    if not first:
        length = min(int(last), size)
        return size - length, length
    start, end = int(first), min(int(last) if last else size, size - 1)
    return start, end - start + 1


def _refuse_range(request: Request, declared: str, offset: int) -> Answer | None:
    """Content-Range of a chunk: ``FIRST-LAST``, at the offset, as long as the body (distribution-spec)."""
    hit = re.fullmatch(r"(\d+)-(\d+)", declared)
    if hit is None or int(hit[1]) != offset or int(hit[2]) < int(hit[1]) - 1:
        return Answer.error(416, "RANGE_INVALID", "invalid content range")
    if request.body.declared not in (None, int(hit[2]) - int(hit[1]) + 1):
        return Answer.error(400, "SIZE_INVALID", "provided length did not match content length")
    return None
