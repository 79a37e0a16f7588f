"""Blobs and manifests through a registry that fails: what is retried, asked, final (reliability F6 to F17)."""

import email.utils
import time

import pytest
from registry_room import RAW, blob, room
from support.content import manifest
from support.faults import (
    DropResponse,
    ExpireTokens,
    Flip,
    ForgetUploads,
    Gzip,
    IgnoreRange,
    LimitBody,
    LyingRange,
    ResetRequest,
    Respond,
    SetHeader,
    ShiftRange,
    StallBody,
    Throttle,
    Trailing,
    Truncate,
    Unauthorized,
    WrongDigest,
)
from support.registry_auth import PASSWORD, USER, BearerAuth
from support.waiting import PATIENCE, at_once

from epoch_oci.errors import (
    AccessError,
    ConflictError,
    ContentError,
    EpochOciError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import MANIFEST
from epoch_oci.registry.policy import Timeouts
from epoch_oci.registry.profiles import Profile
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS, MANIFESTS = r"/blobs/sha256:", r"/blobs/uploads/", r"/manifests/"
REPO = "acme/bot"
RANGED = Profile(name="ranged", hosts="x", shapes=("ranged",), chunk=1 << 20)


def read(repository, raw: bytes = RAW, **span) -> bytes:
    with repository.content(blob(raw)).open(**span) as reader:
        return b"".join(iter(reader.read, b""))


def put(repository, raw: bytes = RAW) -> None:
    repository.put(blob(raw), BytesContent(raw))


def stored(registry, raw: bytes = RAW) -> bool:
    return str(blob(raw).digest) in registry.blobs(REPO)


def document(*layers: bytes) -> Document:
    return Document(MANIFEST, manifest(layers))


# Sending


@pytest.mark.parametrize("shapes", [("put",), ("stream",), ("ranged",)])
@pytest.mark.parametrize("raw", [RAW, b"", b"x", RAW[: 1 << 20], RAW[: 2 << 20]], ids=["3M", "0", "1", "1M", "2M"])
def test_every_shape_sends_every_size(fake_registry, shapes, raw):
    registry = fake_registry()
    repository, _ = room(registry, profile=Profile(name="one", hosts="x", shapes=shapes, chunk=1 << 20))
    put(repository, raw)
    assert stored(registry, raw) and not registry.uploads(REPO)
    assert repository.has(blob(raw))


@pytest.mark.parametrize("shapes", [("put",), ("stream",), ("ranged",)])
@pytest.mark.parametrize("wrong", [RAW[:-1] + b"!", RAW[:-1], RAW + b"!"], ids=["altered", "short", "long"])
def test_content_that_is_not_the_blob_never_arrives(fake_registry, shapes, wrong):
    registry = fake_registry()
    repository, _ = room(registry, profile=Profile(name="one", hosts="x", shapes=shapes, chunk=1 << 20))
    with pytest.raises(ContentError):
        repository.put(blob(RAW), BytesContent(wrong))
    assert registry.blobs(REPO) == {}


BROKEN = {"put": ("PUT", ("put", "ranged")), "stream": ("PATCH", ("stream", "ranged"))}


@pytest.mark.parametrize("after", [2, 100_000, 2_999_999])
@pytest.mark.parametrize("shape", list(BROKEN))
def test_a_body_that_broke_off_goes_on_in_ranges_where_the_registry_is(fake_registry, shape, after):
    method, shapes = BROKEN[shape]
    registry = fake_registry()
    registry.fault(method, UPLOADS, ResetRequest(after=after), first=1)
    repository, heard = room(registry, profile=Profile(name="two", hosts="x", shapes=shapes))
    put(repository)
    assert stored(registry) and len(heard.waits) == 1 and not registry.uploads(REPO)
    assert registry.recording.body_bytes("PUT|PATCH", UPLOADS) == len(RAW)  # nothing twice
    assert registry.recording.count("POST", UPLOADS) == 1


UNHELPFUL = {
    "distribution 2": lambda: Respond(404, code="BLOB_UPLOAD_INVALID"),
    "no status": lambda: Respond(405),
    "no range": lambda: SetHeader("Range"),
    "nothing": lambda: SetHeader("Range", "0-0"),
    "too much": lambda: SetHeader("Range", "0-99999999"),
}


@pytest.mark.parametrize("kind", list(UNHELPFUL))
@pytest.mark.parametrize("shape", list(BROKEN))
def test_where_it_does_not_say_a_new_session_is_opened(fake_registry, shape, kind):
    method, shapes = BROKEN[shape]
    registry = fake_registry()
    registry.fault(method, UPLOADS, ResetRequest(after=1_500_000), first=1)
    registry.fault("GET", UPLOADS, UNHELPFUL[kind]())
    repository, _ = room(registry, profile=Profile(name="two", hosts="x", shapes=shapes))
    put(repository)
    assert stored(registry) and registry.recording.count("POST", UPLOADS) == 2


@pytest.mark.parametrize("after", [0, 1, 100_000, 2_999_999])
@pytest.mark.parametrize("discards", [True, False])
def test_a_session_that_cannot_be_gone_on_with_gets_no_second_body(fake_registry, after, discards):
    """As with zot, which forgets it, or where nothing but one PUT is taken."""
    registry = fake_registry(discard_broken_uploads=discards)
    registry.fault("PUT", UPLOADS, ResetRequest(after=after), first=1)
    shapes = ("put", "ranged") if discards else ("put",)
    repository, heard = room(registry, profile=Profile(name="one", hosts="x", shapes=shapes))
    put(repository)
    assert stored(registry) and len(heard.waits) == 1
    targets = [request.path for request in registry.recording.find("PUT", UPLOADS)]
    assert len(targets) == len(set(targets)) == 2


def test_a_session_is_not_left_behind_when_all_tries_are_used_up(fake_registry):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, ResetRequest(after=1_000_000))
    registry.fault("PATCH", UPLOADS, ResetRequest(after=1), optional=True)
    repository, _ = room(registry, attempts=2)
    with pytest.raises(NetworkError):
        put(repository)
    assert not registry.uploads(REPO)


def test_a_lost_answer_is_asked_about_and_not_sent_again(fake_registry):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, DropResponse(), first=1)
    repository, _ = room(registry)
    put(repository)
    assert stored(registry) and len(registry.recording.find("PUT", UPLOADS)) == 1


def test_a_lost_answer_to_a_manifest_is_no_failure(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, b"layer")
    registry.put_blob(REPO, b"{}")
    registry.fault("PUT", MANIFESTS, DropResponse(), first=1)
    repository, _ = room(registry)
    repository.publish("v1", document(b"layer"))
    assert repository.resolve("v1").raw == document(b"layer").raw


def test_a_lost_answer_when_opening_a_session_costs_a_session(fake_registry):
    registry = fake_registry()
    registry.fault("POST", UPLOADS, DropResponse(), first=1)
    repository, _ = room(registry)
    put(repository)
    assert stored(registry)


def test_a_ranged_upload_goes_on_where_the_registry_says(fake_registry):
    registry = fake_registry()
    registry.fault("PATCH", UPLOADS, DropResponse(), nth=2)
    repository, _ = room(registry, profile=RANGED)
    put(repository)
    assert stored(registry)
    assert registry.recording.body_bytes("PATCH", UPLOADS) == len(RAW)  # nothing twice


def test_a_ranged_upload_whose_session_is_gone_starts_anew(fake_registry):
    registry = fake_registry()
    registry.fault("PATCH", UPLOADS, ForgetUploads(), nth=2)
    repository, _ = room(registry, profile=RANGED)
    put(repository)
    assert stored(registry)


def test_a_chunk_that_is_too_large_is_halved(fake_registry):
    registry = fake_registry()
    registry.fault("PATCH", UPLOADS, LimitBody(1 << 20, status=413))
    repository, _ = room(registry, profile=Profile(name="ranged", hosts="x", shapes=("ranged",), chunk=2 << 20))
    put(repository)
    assert stored(registry)


@pytest.mark.parametrize("status", [405, 413, 415, 501])
def test_a_shape_that_is_not_taken_is_not_tried_again(fake_registry, status):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, Respond(status), when=lambda request: request.headers.get("Content-Length") != "0")
    profile = Profile(name="two", hosts="x", shapes=("put", "stream"))
    repository, _ = room(registry, profile=profile)
    put(repository)
    put(repository, RAW[::-1])
    assert stored(registry) and stored(registry, RAW[::-1])
    refused = [request for request in registry.recording.find("PUT", UPLOADS) if request.status == status]
    assert len(refused) == 1


def test_when_no_shape_is_taken_the_advice_is_smaller_parts(fake_registry):
    registry = fake_registry()
    registry.fault("PUT|PATCH", UPLOADS, Respond(413))
    repository, _ = room(registry, profile=Profile(name="two", hosts="x", shapes=("put", "stream")))
    with pytest.raises(UsageError, match="--part-size"):
        put(repository)


def test_a_wrong_digest_header_after_an_upload_is_an_error(fake_registry):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, WrongDigest())
    repository, _ = room(registry)
    with pytest.raises(ContentError):
        put(repository)


# Waiting


@pytest.mark.parametrize(("asked", "least", "most"), [("7", 7, 7), ("0", 0, 1), ("junk", 0, 60), (None, 0, 60)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_throttled_request_waits_as_told(fake_registry, status, asked, least, most):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Throttle(asked, status), first=2)
    repository, heard = room(registry)
    assert not repository.has(blob(RAW))
    assert len(heard.waits) == 2 and all(least <= wait <= most for wait in heard.waits)
    assert all(event.event in ("wait", "retry") and event.message for event in heard.events)


def test_a_date_is_a_wait_too(fake_registry):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Throttle(email.utils.formatdate(time.time() + 90, usegmt=True)), first=1)
    repository, heard = room(registry)
    repository.has(blob(RAW))
    assert 80 < heard.waits[0] < 91


def test_a_wait_that_is_too_long_is_given_up_and_named(fake_registry):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Throttle(10**7))
    repository, heard = room(registry)
    with pytest.raises(NetworkError, match="10000000 seconds"):
        repository.has(blob(RAW))
    assert not heard.waits


def test_a_secondary_rate_limit_is_no_denial(fake_registry):
    registry = fake_registry()
    text = b'{"errors":[{"code":"DENIED","message":"You have exceeded a secondary rate limit."}]}'
    registry.fault("GET", MANIFESTS, Respond(403, text), first=2)
    repository, heard = room(registry)
    with pytest.raises(NotFoundError):
        repository.resolve("v1")
    assert heard.waits == [60.0, 120.0]


@pytest.mark.parametrize(("status", "kind"), [(400, UsageError), (403, AccessError), (404, NotFoundError)])
def test_what_is_final_is_asked_once(fake_registry, status, kind):
    registry = fake_registry()
    registry.fault("GET", MANIFESTS, Respond(status))
    repository, heard = room(registry)
    with pytest.raises(kind):
        repository.resolve("v1")
    assert not heard.waits and len(registry.recording.find("GET", MANIFESTS)) == 1


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_burst_of_server_errors_is_outlived_and_an_endless_one_is_not(fake_registry, status):
    registry = fake_registry()
    rule = registry.fault("HEAD", BLOB, Respond(status, b"<html>oops"), first=4)
    repository, heard = room(registry)
    assert not repository.has(blob(RAW)) and rule.fired == 4
    registry.fault("HEAD", BLOB, Respond(status))
    heard.waits.clear()
    with pytest.raises(NetworkError):
        repository.has(blob(RAW))
    assert len(heard.waits) == 5


# Reading


@pytest.mark.parametrize("after", [0, 1, 1_000_000, 2_999_999])
@pytest.mark.parametrize("rst", [True, False])
def test_a_body_that_breaks_off_is_gone_on_with(fake_registry, after, rst):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Truncate(after, rst=rst), first=1)
    repository, heard = room(registry)
    assert read(repository) == RAW
    assert len(heard.waits) == 1
    last = registry.recording.find("GET", BLOB)[-1]
    assert rst or after < 1_000_000 or last.header("range") not in (None, "bytes=0-")


@pytest.mark.parametrize("fault", [IgnoreRange(), ShiftRange(3), LyingRange(3)], ids=["ignored", "shifted", "lying"])
def test_a_range_that_is_not_what_was_asked_for_is_not_believed(fake_registry, fault):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Truncate(1_500_000), first=1)
    registry.fault("GET", BLOB, fault, when=lambda request: "Range" in request.headers)
    repository, _ = room(registry)
    got = read(repository)
    assert got == RAW or isinstance(fault, LyingRange)  # a lie is found by the hash, which the sink computes
    assert len(got) == len(RAW)


def test_a_middle_part_is_read_at_its_own_price(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    repository, _ = room(registry)
    assert repository.content(blob(RAW)).ranged()
    assert read(repository, start=1000, length=500) == RAW[1000:1500]
    assert registry.recording.find("GET", BLOB)[-1].header("range") == "bytes=1000-1499"


def test_a_stalled_body_is_dropped_and_taken_up_again(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, StallBody(PATIENCE, after=1_000_000), first=1)
    repository, _ = room(registry, timeouts=Timeouts(connect=5, answer=0.5))
    with at_once():
        assert read(repository) == RAW


@pytest.mark.parametrize("fault", [Flip(1_000_000), Trailing(b"!", declared=True)], ids=["flipped", "trailing"])
def test_wrong_bytes_are_found_by_whoever_verifies(fake_registry, fault):
    from epoch_oci.oci.verifying import VerifyingReader

    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    # A length that is stated wrong is refused before the body is read, so the fault need not take effect.
    registry.fault("GET", BLOB, fault, optional=isinstance(fault, Trailing))
    repository, _ = room(registry)
    with repository.content(blob(RAW)).open() as reader, pytest.raises(ContentError):
        for _ in VerifyingReader(reader, blob(RAW)).blocks():
            pass


@pytest.mark.parametrize("path", [BLOB, MANIFESTS])
def test_an_encoded_body_is_refused(fake_registry, path):
    registry = fake_registry()
    registry.put_image(REPO, "v1", [RAW])
    registry.fault("GET", path, Gzip())
    repository, _ = room(registry)
    with pytest.raises(ContentError):
        read(repository) if path == BLOB else repository.resolve("v1")
    assert {request.header("accept-encoding") for request in registry.recording.find("GET", path)} == {"identity"}


# Manifests


def test_a_manifest_comes_back_byte_for_byte_by_tag_and_digest(fake_registry):
    registry = fake_registry()
    raw = manifest([b"layer"], annotations={"ünïcode": "é\u2028"}).replace(b"{", b"{ ", 1)
    registry.put_blob(REPO, b"layer"), registry.put_blob(REPO, b"{}")
    repository, _ = room(registry)
    repository.publish("v1", Document(MANIFEST, raw))
    assert registry.manifest(REPO, "v1")[0] == raw if isinstance(registry.manifest(REPO, "v1"), tuple) else True
    assert repository.resolve("v1").raw == raw
    assert repository.resolve(str(Document(MANIFEST, raw).digest)).raw == raw


def test_another_digest_than_asked_for_is_refused(fake_registry):
    registry = fake_registry()
    digest = str(document(b"other").digest)
    registry.put_image(REPO, "v1", [b"layer"])
    body = registry.put_blob(REPO, b"x") and manifest([b"layer"])
    registry.fault("GET", MANIFESTS, Respond(200, body, ("Content-Type", MANIFEST)))
    repository, _ = room(registry)
    with pytest.raises(ContentError) as caught:
        repository.resolve(digest)
    assert caught.value.code == "DIGEST"


@pytest.mark.parametrize("kind", ["text/html", "application/json", "", "application/vnd.oci.empty.v1+json"])
def test_what_is_no_manifest_is_refused(fake_registry, kind):
    registry = fake_registry()
    registry.fault("GET", MANIFESTS, Respond(200, b"<html>", ("Content-Type", kind)))
    repository, _ = room(registry)
    with pytest.raises(ContentError) as caught:
        repository.resolve("v1")
    assert caught.value.code == "TYPE"


def test_a_manifest_is_bounded(fake_registry):
    registry = fake_registry()
    registry.fault("GET", MANIFESTS, Respond(200, b" " * ((4 << 20) + 1), ("Content-Type", MANIFEST)))
    repository, _ = room(registry)
    with pytest.raises(ContentError) as caught:
        repository.resolve("v1")
    assert caught.value.code == "SIZE"


def test_a_tag_is_not_replaced_unasked(fake_registry):
    registry = fake_registry()
    for raw in (b"one", b"two", b"{}"):
        registry.put_blob(REPO, raw)
    repository, _ = room(registry)
    repository.publish("v1", document(b"one"))
    repository.publish("v1", document(b"one"))
    with pytest.raises(ConflictError):
        repository.publish("v1", document(b"two"))
    assert repository.resolve("v1").raw == document(b"one").raw
    repository.publish("v1", document(b"two"), replace=True)
    assert repository.resolve("v1").raw == document(b"two").raw


def test_a_manifest_before_its_blobs_is_refused(fake_registry):
    repository, _ = room(fake_registry())
    with pytest.raises(NotFoundError):
        repository.publish("v1", document(b"never sent"))
    with pytest.raises(NotFoundError):
        repository.resolve("v1")


def test_all_pages_of_tags_are_read(fake_registry):
    registry = fake_registry(page_size=3)
    for index in range(10):
        registry.put_image(REPO, f"v{index}", [b"x"])
    repository, _ = room(registry)
    assert sorted(repository.tags()) == [f"v{index}" for index in range(10)]
    with pytest.raises(NotFoundError):
        list(room(fake_registry())[0].tags())


# Who we are


def test_tokens_that_run_out_are_renewed(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None, uses=3))
    repository, _ = room(registry, login=True)
    for index in range(6):
        put(repository, RAW[: 1000 + index])
    assert all(stored(registry, RAW[: 1000 + index]) for index in range(6))


def test_a_token_that_dies_under_a_body_is_renewed_once(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None))
    registry.fault("PUT", UPLOADS, ExpireTokens(), first=1)
    repository, _ = room(registry, login=True)
    put(repository)
    assert stored(registry)
    registry.fault("PUT", UPLOADS, Unauthorized())
    with pytest.raises(AccessError):
        put(repository, RAW[::-1])


def test_anonymous_readers_are_found_out(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=("pull",)))
    assert room(registry, login=True)[0].openness() == "repository"
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None))
    assert room(registry, login=True)[0].openness() is None


def test_whether_we_may_write_is_known_before_anything_is_sent(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, allow=lambda user, repo, action: action == "pull"))
    repository, _ = room(registry, login=True)
    with pytest.raises(EpochOciError):
        repository.check_write()
    assert registry.recording.body_bytes("PUT|PATCH", "") == 0
    allowed = fake_registry()
    room(allowed)[0].check_write()
    assert not allowed.uploads(REPO)


def test_a_declined_mount_is_no_failure(fake_registry):
    registry = fake_registry()
    registry.put_blob("acme/other", RAW)
    repository, _ = room(registry)
    assert repository.mount(blob(RAW), "acme/other") and stored(registry)
    declining = fake_registry(mount=False)
    declining.put_blob("acme/other", RAW)
    repository, _ = room(declining)
    assert not repository.mount(blob(RAW), "acme/other")
    assert not declining.uploads(REPO)
