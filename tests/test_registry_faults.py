"""Faults that strike where a transfer is least prepared: answers of gateways, bodies cut in the tail, slow lines."""

import gc
import re
from contextlib import suppress

import pytest
from registry_room import RAW, blob, room
from support.content import manifest, noise
from support.faults import (
    ContentLength,
    DropResponse,
    LimitBody,
    Raw,
    ReplaceBody,
    ResetRequest,
    Respond,
    SetHeader,
    SetStatus,
    ShiftRange,
    Trickle,
    Truncate,
    Unauthorized,
)
from support.proxy import Bandwidth, Cut
from support.registry_auth import PASSWORD, USER, BearerAuth
from support.waiting import at_once

from epoch_oci.errors import ConflictError, ContentError, NetworkError
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import MANIFEST
from epoch_oci.oci.reference import Reference
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.registry.policy import RegistrySettings, Timeouts
from epoch_oci.registry.profiles import Manner, Profile
from epoch_oci.registry.repository import RegistryRepository
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS, MANIFESTS, TAGS = r"/blobs/sha256:", r"/blobs/uploads/", r"/manifests/", r"/tags/list"
REPO = "acme/bot"
RANGED = Profile(name="ranged", hosts="x", shapes=("ranged",), chunk=1 << 20)


def read(repository, raw: bytes = RAW) -> bytes:
    """The blob, verified."""
    with repository.content(blob(raw)).open() as reader:
        return b"".join(VerifyingReader(reader, blob(raw)).blocks())


def put(repository, raw: bytes = RAW) -> None:
    repository.put(blob(raw), BytesContent(raw))


def stored(registry, raw: bytes = RAW) -> bool:
    return str(blob(raw).digest) in registry.blobs(REPO)


def document(note: str) -> Document:
    return Document(MANIFEST, manifest([b"layer"], annotations={"note": note}))


def with_layer(registry) -> None:
    for raw in (b"layer", b"{}"):
        registry.put_blob(REPO, raw)


def through(proxy, **changes) -> RegistryRepository:
    settings = RegistrySettings(plain_http=True, sleep=lambda seconds: None, **changes)
    return RegistryRepository(Reference.parse(f"{proxy.address}/{REPO}"), settings)


# Sending


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_gateway_that_lost_the_answer_to_a_blob_is_not_sent_it_again(fake_registry, status):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, SetStatus(status), first=1)
    repository, _ = room(registry)
    put(repository)
    assert stored(registry) and registry.recording.count("PUT", UPLOADS) == 1


@pytest.mark.parametrize("fault", [DropResponse(), SetStatus(502)], ids=["dropped", "gateway"])
def test_a_manifest_whose_answer_was_lost_is_looked_for_and_not_sent_again(fake_registry, fault):
    registry = fake_registry()
    with_layer(registry)
    registry.fault("PUT", MANIFESTS, fault, first=1)
    repository, heard = room(registry)
    repository.publish("v1", document("one"))
    assert registry.recording.count("PUT", MANIFESTS) == 1 and len(heard.waits) == 1


def test_a_manifest_that_did_not_arrive_is_sent_again(fake_registry):
    registry = fake_registry()
    with_layer(registry)
    registry.fault("PUT", MANIFESTS, ResetRequest(), first=2)
    repository, _ = room(registry)
    repository.publish("v1", document("one"))
    assert repository.resolve("v1").raw == document("one").raw
    assert registry.recording.count("PUT", MANIFESTS) == 3


def test_a_tag_that_somebody_took_meanwhile_is_a_conflict(fake_registry):
    registry = fake_registry()
    with_layer(registry)
    other = document("two")

    def take(request) -> bool:
        registry.put_manifest(REPO, "v1", other.raw)
        return True

    registry.fault("PUT", MANIFESTS, ResetRequest(), first=1, when=take)
    repository, _ = room(registry)
    with pytest.raises(ConflictError):
        repository.publish("v1", document("one"))
    assert repository.resolve("v1").raw == other.raw


def test_a_manifest_never_taken_is_given_up(fake_registry):
    registry = fake_registry()
    with_layer(registry)
    registry.fault("PUT", MANIFESTS, Respond(503))
    repository, heard = room(registry)
    with pytest.raises(NetworkError):
        repository.publish("v1", document("one"))
    assert len(heard.waits) == 5


def test_a_body_far_larger_than_is_taken_ends_in_another_shape(fake_registry):
    raw = noise(24 << 20)
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, LimitBody(4 << 20))
    profile = Profile(name="two", hosts="x", shapes=("put", "ranged"), chunk=4 << 20)
    repository, _ = room(registry, profile=profile)
    put(repository, raw)
    assert stored(registry, raw)


@pytest.mark.long  # buffers of the kernel leave no room for slack, so a busy machine fails it
def test_a_slow_line_is_not_taken_for_a_dead_one(fake_registry, proxy):
    """The limit is on silence and not on how long a block of a megabyte takes."""
    raw = noise(12_000_000)
    registry = fake_registry()
    slow = proxy(registry, Bandwidth("up", 4_000_000))
    repository = through(slow, attempts=1, timeouts=Timeouts(connect=0.15, answer=5, commit=5))
    put(repository, raw)
    assert stored(registry, raw)


def test_a_token_that_dies_between_chunks_costs_one_chunk(fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None))
    registry.fault("PATCH", UPLOADS, Unauthorized(), nth=(2, 4))
    repository, _ = room(registry, login=True, profile=RANGED)
    put(repository)
    assert stored(registry)
    assert registry.recording.count("POST", UPLOADS + r"\Z") <= 2  # one of them to learn of the challenge
    assert registry.recording.count("PATCH", UPLOADS) == 5


def test_tokens_of_a_few_requests_last_a_ranged_upload(fake_registry):
    raw = noise(6 << 20)
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None, uses=2))
    repository, _ = room(registry, login=True, profile=RANGED)
    put(repository, raw)
    assert stored(registry, raw)


def test_a_status_that_is_lost_is_asked_for_again(fake_registry):
    registry = fake_registry()
    registry.fault("PATCH", UPLOADS, ResetRequest(after=300_000), nth=2)
    registry.fault("GET", UPLOADS, DropResponse(), first=1)
    repository, _ = room(registry, profile=RANGED)
    put(repository)
    assert stored(registry) and registry.recording.count("POST", UPLOADS) == 1


def test_ranges_that_disagree_end_in_the_right_bytes(fake_registry):
    """What a registry says of its progress may be stale (ECR); the closing digest decides."""
    registry = fake_registry()
    registry.fault("PATCH", UPLOADS, SetHeader("Range", "0-5"))
    repository, _ = room(registry, profile=RANGED)
    put(repository)
    assert stored(registry) and registry.recording.body_bytes("PATCH", UPLOADS) == len(RAW)


@pytest.mark.parametrize("stated", ["0--1", "0-99999999", "bytes=5-7", "x", ""])
def test_a_status_that_cannot_be_is_a_new_session(fake_registry, stated):
    registry = fake_registry()
    registry.fault("PATCH", UPLOADS, DropResponse(), nth=3)
    registry.fault("GET", UPLOADS, SetHeader("Range", stated))
    repository, _ = room(registry, profile=RANGED)
    put(repository)
    assert stored(registry) and registry.recording.count("POST", UPLOADS) == 2


@pytest.mark.parametrize("after", [1, 700_000, 2_500_000])
def test_a_line_cut_on_the_way_up(fake_registry, proxy, after):
    registry = fake_registry()
    cut = proxy(registry, Cut("up", after, times=1))
    put(through(cut))
    assert stored(registry)


# Reading


def test_a_manifest_cut_off_is_read_again(fake_registry):
    registry = fake_registry()
    with_layer(registry)
    repository, heard = room(registry)
    repository.publish("v1", document("one"))
    registry.fault("GET", MANIFESTS, Truncate(10), first=2)
    assert repository.resolve("v1").raw == document("one").raw
    assert len(heard.waits) == 2


def test_a_list_cut_off_is_read_again(fake_registry):
    registry = fake_registry(page_size=2)
    for number in range(5):
        registry.put_image(REPO, f"v{number}", [b"x"])
    registry.fault("GET", TAGS, Truncate(10), nth=(1, 3))
    repository, _ = room(registry)
    assert list(repository.tags()) == [f"v{number}" for number in range(5)]


def test_every_connection_cut_after_a_little_still_gets_there(fake_registry):
    """Each one wins less than a block; what arrived is kept, and counts as progress."""
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Truncate(300_000, rst=False), first=9)
    repository, _ = room(registry)
    assert read(repository) == RAW


@pytest.mark.parametrize("after", [1, 65_536, 1_048_577, 2_999_999])
def test_a_line_cut_on_the_way_down(fake_registry, proxy, after):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    cut = proxy(registry, Cut("down", after, times=1))
    assert read(through(cut)) == RAW


def test_what_came_in_small_pieces_before_a_cut_is_kept(fake_registry, proxy):
    """As TLS hands them out: they are put together, and none is lost when the connection breaks between them."""
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Trickle(8_192, 0.001), first=1)
    assert read(through(proxy(registry, Cut("down", 200_000, times=1)))) == RAW
    again = [entry.header("Range") or "" for entry in registry.recording if entry.method == "GET"]
    starts = [int(found[1]) for text in again if (found := re.match(r"bytes=(\d+)-", text))]
    assert 200_000 - 2 * 8_192 < max(starts) < 200_000


def test_a_trickle_is_a_stall(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Trickle(100, 0.02), first=1)
    repository, _ = room(registry, timeouts=Timeouts(answer=5, floor_window=0.3, floor_rate=1 << 20))
    with at_once():
        assert read(repository) == RAW


def test_an_endless_trickle_is_given_up(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Trickle(100, 0.02))
    repository, _ = room(registry, attempts=3, timeouts=Timeouts(answer=5, floor_window=0.2, floor_rate=1 << 20))
    with at_once(), pytest.raises(NetworkError):
        read(repository)


def chunked(raw: bytes, *, ended: bool) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n" % (len(raw), raw) + (b"0\r\n\r\n" if ended else b"")


def test_a_chunked_body_whose_end_is_lost_is_whole_when_its_bytes_are(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Raw(chunked(RAW, ended=False)), first=1)
    repository, _ = room(registry)
    assert read(repository) == RAW


@pytest.mark.parametrize("body", [RAW + b"!", RAW + RAW[:5000]], ids=["one", "many"])
def test_a_chunked_body_that_goes_on_is_refused(fake_registry, body):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Raw(chunked(body, ended=True)))
    repository, _ = room(registry)
    with pytest.raises(ContentError) as caught:
        read(repository)
    assert caught.value.code == "SIZE"


def test_a_body_that_ends_with_its_connection(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Raw(b"HTTP/1.1 200 OK\r\n\r\n" + RAW[:-5]), first=1)
    repository, heard = room(registry)
    assert read(repository) == RAW
    assert len(heard.waits) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib3 drops the socket
@pytest.mark.parametrize("lengths", [(7,), (len(RAW) + 1,), (len(RAW), 7), ("x",)], ids=str)
def test_a_wrong_length_is_never_a_blob(fake_registry, lengths):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, ContentLength(*lengths))
    repository, _ = room(registry, attempts=2)
    with suppress(ContentError, NetworkError):
        assert read(repository) == RAW
    gc.collect()


def test_an_object_replaced_by_a_smaller_one_while_it_is_read(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Truncate(2_000_000), first=1)
    registry.fault("GET", BLOB, ReplaceBody(RAW[:1000]), nth=2)
    repository, _ = room(registry, attempts=3)
    with pytest.raises((ContentError, NetworkError)):
        read(repository)


def test_whether_ranges_work_is_asked_politely(fake_registry):
    registry = fake_registry()
    for raw in (RAW, b"x"):
        registry.put_blob(REPO, raw)
    registry.put_blob(REPO, b"")
    registry.fault("GET", BLOB, Respond(503), first=1)
    repository, _ = room(registry)
    for raw in (b"x", b""):
        assert not repository.content(blob(raw)).ranged()  # and nothing is learnt from it
    assert repository.content(blob(RAW)).ranged()


def test_ranges_that_are_wrong_are_none(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, ShiftRange(3))
    repository, _ = room(registry)
    assert not repository.content(blob(RAW)).ranged()


def test_a_shape_refused_once_is_remembered_for_the_registry(fake_registry):
    registry = fake_registry()
    registry.fault("PATCH", UPLOADS, Respond(405))
    repository, _ = room(registry)
    repository._manner = Manner(Profile(name="two", hosts="x", shapes=("stream", "put")))
    for number in range(3):
        put(repository, RAW[: 1000 + number])
    assert registry.recording.count("PATCH", UPLOADS) == 1
