"""What can only be known by writing: upload sessions that are cancelled, and a manifest that is deleted again.

Nothing is left behind. Where a registry cannot take something back, it is not sent it.
"""

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import requests

from epoch_oci.errors import EpochOciError, InterruptedTransferError, LocalIOError, NetworkError
from epoch_oci.oci import media_types
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import PUSH
from epoch_oci.registry.doctor import MORE_THAN_A_HOST, NOTHING_THERE, Check, Look, Patient, rate_check, skipped
from epoch_oci.registry.http_errors import dismiss
from epoch_oci.registry.transport import Body
from epoch_oci.registry.upload_session import Destination, Session
from epoch_oci.stores.base import BytesContent

_SENT = 4 << 20
_ACCEPTED = (200, 201, 202, 204)
_DELETE = "delete,pull,push"
_NO_DELETION = (400, 401, 403, 405, 501)
_ARTIFACT = "application/vnd.epoch-oci.doctor.v1+json"


def _write(patient: Patient) -> Check:
    """A session, opened and cancelled: may we write, and in which bounds."""
    if patient.repository is None:
        return skipped("write", MORE_THAN_A_HOST)
    session, smallest = _open(patient)
    patient.cancels = _cancelled(patient, session)
    bound = f", in chunks of {smallest} bytes at least" if smallest else ""
    finding = f"an upload can be begun{bound}"
    if patient.cancels:
        return Check(name="write", status="ok", finding=finding, value=smallest)
    advice = "the registry forgets it by itself; what broken uploads sent takes room until then"
    return Check(name="write", status="warn", finding=f"{finding}, and not cancelled", advice=advice, value=smallest)


def _upload(patient: Patient) -> Check:
    """How fast a body goes up: into a session that is cancelled."""
    if patient.repository is None:
        return skipped("upload", MORE_THAN_A_HOST)
    if not patient.cancels:
        return skipped("upload", "what is sent could not be taken back, for the registry cancels no upload")
    raw = os.urandom(_SENT)

    @contextmanager
    def body() -> Iterator[Body]:
        yield Body(io.BytesIO(raw), len(raw))

    session, _ = _open(patient)
    try:
        began = time.monotonic()
        response = session.send("PATCH", session.location, body)
        seconds = time.monotonic() - began
        if response.status_code not in _ACCEPTED:
            raise session.refused(response)
        session.move(response)
    finally:
        gone = _cancelled(patient, session)
    if not gone:
        raise NetworkError(
            f"an upload of {_SENT >> 20} MiB was not cancelled",
            object=patient.name,
            hint="the registry forgets it by itself, within a week as a rule",
        )
    return rate_check("upload", _SENT, seconds)


def _mount(patient: Patient) -> Check:
    """A blob of the repository, mounted where it is already: that leaves nothing."""
    blob = patient.largest
    if patient.repository is None or blob is None:
        return skipped("mount", NOTHING_THERE if patient.repository else MORE_THAN_A_HOST)
    client = patient.host.client
    query = f"mount={blob.digest}&from={quote(patient.name, safe='/')}"
    url = client.url(f"{patient.name}/blobs/uploads/?{query}")
    response = client.do_request(url, "POST", data=b"", scope=Scope(patient.name, PUSH))
    if response.status_code == 202:
        _cancelled(patient, Session.opened(_destination(patient, blob), response))
        advice = "what another repository has is sent again"
        return Check(name="mount", status="warn", finding="blobs are not mounted", advice=advice, value=False)
    if response.status_code != 201:
        raise client.refusal(response, "mounting a blob")
    dismiss(response)
    finding = "blobs can be taken over from other repositories"
    return Check(name="mount", status="ok", finding=finding, value=True)


def _deletion(patient: Patient) -> Check:
    """First the deletion of what is not there, which tells; then, where that is known to work, of what is put there."""
    if patient.repository is None:
        return skipped("deletion", MORE_THAN_A_HOST)
    if not patient.exists:
        return skipped("deletion", "trying it would make the repository, which may not go away again")
    if refused := _refused_deletion(patient, "manifests"):
        finding = f"manifests are not deleted (HTTP {refused})"
        advice = "rm and prune cannot take anything away there; nothing was written to try it"
        return Check(name="deletion", status="warn", finding=finding, advice=advice, value=False)
    # An Epoch server, for one: all that rm and prune ask for is that manifests go.
    if refused := _refused_deletion(patient, "blobs"):
        finding = f"manifests are deleted by what it says; blobs are not deleted (HTTP {refused}), so none was tried"
        return Check(name="deletion", status="ok", finding=finding, value=True)
    left = _put_and_deleted(patient)
    if left:
        raise LocalIOError(
            f"{left} was not deleted, though that was said to work",
            object=patient.name,
            hint="it is a few bytes without a tag, which the registry's own clean-up takes away",
        )
    return Check(name="deletion", status="ok", finding="what was put there was deleted again", value=True)


def _refused_deletion(patient: Patient, kind: str) -> int | None:
    """The status with which the registry refuses to delete anything of that kind; None when it does not."""
    response = _delete(patient, f"{kind}/{Digest.of(os.urandom(32))}")
    dismiss(response)
    return response.status_code if response.status_code in _NO_DELETION else None


def _put_and_deleted(patient: Patient) -> str:
    """Put a blob nobody else has and a manifest without a tag, and delete both; what is left, "" for nothing."""
    assert patient.repository is not None
    raw = os.urandom(32).hex().encode()
    blob = Descriptor(media_type=media_types.OCTET_STREAM, digest=Digest.of(raw), size=len(raw))
    manifest = Document.encode(
        media_types.MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "artifactType": _ARTIFACT,
            "config": blob.to_json(),
            "layers": [],
        },
    )
    left = []
    try:
        patient.repository.put(blob, BytesContent(raw))
        patient.repository.keep(manifest)
    finally:
        for path in (f"manifests/{manifest.digest}", f"blobs/{blob.digest}"):
            if not _is_gone(patient, path):
                left.append(path)
    return " and ".join(left)


def _is_gone(patient: Patient, path: str) -> bool:
    try:
        response = _delete(patient, path)
        dismiss(response)
    except InterruptedTransferError:
        raise
    except EpochOciError:
        return False
    return response.status_code in (*_ACCEPTED, 404)


def _delete(patient: Patient, path: str) -> requests.Response:
    client = patient.host.client
    return client.do_request(client.url(f"{patient.name}/{path}"), "DELETE", scope=Scope(patient.name, _DELETE))


def _open(patient: Patient) -> tuple[Session, int | None]:
    """A session, and the smallest chunk that it takes if the registry says so."""
    client = patient.host.client
    url = client.url(f"{patient.name}/blobs/uploads/")
    scope = Scope(patient.name, PUSH)
    response = client.call("POST", url, (202,), what=f"pushing to {patient.name}", scope=scope, data=b"")
    smallest = response.headers.get("OCI-Chunk-Min-Length", "")
    session = Session.opened(_destination(patient), response)
    return session, int(smallest) if smallest.isdigit() and len(smallest) < 12 else None


def _cancelled(patient: Patient, session: Session) -> bool:
    """Give a session up; whether the registry says that it is gone."""
    client, scope = patient.host.client, Scope(patient.name, PUSH)
    try:
        response = client.do_request(session.location, "DELETE", scope=scope)
        dismiss(response)
    except InterruptedTransferError:
        raise
    except EpochOciError:
        return False
    return response.status_code in _ACCEPTED


def _destination(patient: Patient, target: Descriptor | None = None) -> Destination:
    nothing = Descriptor(media_type=media_types.OCTET_STREAM, digest=Digest.of(b""), size=0)
    return Destination(patient.host.client, patient.name, patient.host.manner, target or nothing)


PROBES: tuple[tuple[str, Look], ...] = (
    ("write", _write),
    ("upload", _upload),
    ("mount", _mount),
    ("deletion", _deletion),
)
