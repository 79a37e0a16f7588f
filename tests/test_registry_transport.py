"""HTTP/1.1 as it is met: answers before a body has ended, informational ones, heads cut off, signed targets."""

import io
import threading
import time
from types import SimpleNamespace

import pytest
from registry_room import RAW, blob, room
from support.content import noise
from support.faults import AnswerEarly, Interim, Raw, ResetRequest, Respond, SetHeader, Trickle
from support.proxy import Bandwidth

from epoch_oci.errors import AccessError, EpochOciError, NetworkError
from epoch_oci.registry.policy import Timeouts
from epoch_oci.registry.profiles import Profile
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS, MANIFESTS = r"/blobs/sha256:", r"/blobs/uploads/", r"/manifests/"
REPO = "acme/bot"
SHAPES = {
    "put": Profile(name="put", hosts="x", shapes=("put",)),
    "stream": Profile(name="stream", hosts="x", shapes=("stream",)),
    "ranged": Profile(name="ranged", hosts="x", shapes=("ranged",), chunk=64 << 20),
}
BODY = {"put": "PUT", "stream": "PATCH", "ranged": "PATCH"}
LARGE = 48 << 20
BUFFERED = 24 << 20
"""More than any pair of sockets holds on its way."""


class Zeros:
    """A large body that takes no memory."""

    size = LARGE

    def open(self, start: int = 0, length: int | None = None) -> io.BufferedReader:
        left = self.size - start if length is None else length
        return io.BufferedReader(_Zeros(left))


class _Zeros(io.RawIOBase):
    def __init__(self, left: int) -> None:
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = min(len(buffer), self._left)
        buffer[:count] = bytes(count)
        self._left -= count
        return count


def secure(fake_registry, tls_kit, tls: bool, **options):
    registry = fake_registry(tls="good" if tls else None)
    changes = {"ca_file": str(tls_kit.ca_file)} if tls else {}
    return registry, *room(registry, **changes, **options)


def put(repository, raw: bytes = RAW) -> None:
    repository.put(blob(raw), BytesContent(raw))


def stored(registry, raw: bytes = RAW) -> bool:
    return str(blob(raw).digest) in registry.blobs(REPO)


# Answers before the end of the body


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("reads_on", [True, False], ids=["reads-on", "stops-reading"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_an_early_answer_ends_the_sending(fake_registry, tls_kit, shape, reads_on, tls):
    registry, repository, _ = secure(fake_registry, tls_kit, tls, profile=SHAPES[shape])
    quota = AnswerEarly(403, code="DENIED", message="adding 64 MiB would exceed the quota", reads_on=reads_on)
    registry.fault(BODY[shape], UPLOADS, quota)
    target = blob(bytes(LARGE))
    with pytest.raises(AccessError, match="exceed the quota"):
        repository.put(target, Zeros())
    assert registry.recording.body_bytes("PUT|PATCH", UPLOADS) < BUFFERED
    registry.clear_faults()
    put(repository)  # and the connection that was broken off is not used again
    assert stored(registry)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_an_early_success_is_looked_at_before_it_is_believed(fake_registry, shape):
    registry = fake_registry()
    raw = noise(8 << 20)
    registry.fault(BODY[shape], UPLOADS, AnswerEarly(201 if shape == "put" else 202), nth=1)
    repository, heard = room(registry, profile=SHAPES[shape])
    put(repository, raw)
    assert stored(registry, raw) and heard.waits


def test_an_answer_that_comes_with_a_reset_is_no_worse_than_none(fake_registry):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, ResetRequest(after=100_000), nth=1)
    repository, heard = room(registry, profile=SHAPES["put"])
    put(repository, noise(8 << 20))
    assert len(heard.waits) == 1


# Informational answers


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("statuses", [(100,), (102,), (103,), (199,), (100, 102, 103), (103,) * 40], ids=str)
def test_informational_answers_are_passed_over(fake_registry, tls_kit, statuses, tls):
    registry, repository, _ = secure(fake_registry, tls_kit, tls)
    registry.fault("*", "/v2/", Interim(*statuses, pause=0.001))
    put(repository, noise(4 << 20))
    put(repository)
    assert repository.has(blob(RAW))
    with repository.content(blob(RAW)).open() as reader:
        assert b"".join(iter(reader.read, b"")) == RAW


@pytest.mark.parametrize("shape", list(SHAPES))
def test_informational_answers_do_not_end_the_sending(fake_registry, proxy, shape):
    """They come while the body is on its way, and the final one after it."""
    registry = fake_registry()
    slow = proxy(registry, Bandwidth("up", 20_000_000))
    registry.fault("PUT|PATCH", UPLOADS, Interim(100, 102, 103, headers=b"", pause=0.02))
    repository, heard = room(SimpleNamespace(url=registry.url, address=slow.address), profile=SHAPES[shape])
    raw = noise(8 << 20)
    put(repository, raw)
    assert stored(registry, raw) and not heard.waits


def test_informational_answers_without_end_are_given_up(fake_registry):
    registry = fake_registry()
    stop = threading.Event()

    def endless():
        while not stop.is_set():
            yield b"HTTP/1.1 102 Processing\r\n\r\n" * 100

    registry.fault("HEAD", BLOB, Raw(endless))
    repository, _ = room(registry, attempts=2)
    with pytest.raises(NetworkError):
        repository.has(blob(RAW))
    stop.set()


# Heads


@pytest.mark.parametrize(
    "head",
    [
        b"H",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 30",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n",
        b"HTTP/1.1 404 Not Found\r\n",
        b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y",
    ],
    ids=repr,
)
@pytest.mark.parametrize(("method", "path"), [("HEAD", BLOB), ("GET", BLOB), ("GET", MANIFESTS)])
def test_a_head_cut_off_is_no_answer(fake_registry, method, path, head):
    registry = fake_registry()
    registry.put_image(REPO, "v1", [RAW])
    repository, heard = room(registry)
    registry.fault(method, path, Raw(head), nth=(1, 2))
    assert repository.has(blob(RAW))
    with repository.content(blob(RAW)).open() as reader:
        assert b"".join(iter(reader.read, b"")) == RAW
    repository.resolve("v1")
    assert len(heard.waits) == 2


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_head_cut_off_after_a_body_is_asked_about(fake_registry, shape):
    registry = fake_registry()
    registry.fault(BODY[shape], UPLOADS, Raw(b"HTTP/1.1 201 Created\r\nLoca"), nth=1)
    registry.fault("POST", UPLOADS, Raw(b"HTTP/1.1 202 Accepted\r\nLoca"), nth=1)
    repository, _ = room(registry, profile=SHAPES[shape])
    put(repository)
    assert stored(registry)


def slowly(start: bytes, byte: bytes, stop: threading.Event):
    """`start` at once, and then a byte now and then, for ever."""

    def blocks():
        yield start
        while not stop.wait(0.02):
            yield byte

    return Raw(blocks)


@pytest.mark.parametrize(
    ("start", "byte"),
    [
        (b"H", b"T"),
        (b"HTTP/1.1 200 OK\r\nX: y", b"z"),
        (b"HTTP/1.1 100 Continue\r\nX: y", b"z"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n{", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 3000\r\n\r\n{", b" "),
        (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 3000\r\n\r\n{", b" "),
    ],
    ids=["status", "header", "informational", "document", "chunk", "refusal", "challenge"],
)
def test_an_answer_that_trickles_is_given_up(fake_registry, start, byte):
    """Each byte of it comes in time, and all of it never does."""
    registry, stop = fake_registry(), threading.Event()
    registry.fault("GET", MANIFESTS, slowly(start, byte, stop))
    repository, _ = room(registry, attempts=2, timeouts=Timeouts(answer=0.3))
    with pytest.raises(EpochOciError):
        repository.resolve("v1")
    stop.set()


def test_informational_answers_put_the_final_one_off_for_so_long_only(fake_registry):
    registry, stop = fake_registry(), threading.Event()
    registry.fault("GET", MANIFESTS, slowly(b"", b"HTTP/1.1 102 Processing\r\n\r\n", stop))
    repository, _ = room(registry, attempts=1, until=time.monotonic() + 2)
    with pytest.raises(NetworkError):
        repository.resolve("v1")
    stop.set()


def test_a_large_blob_may_take_longer_than_an_answer(fake_registry):
    """It has a floor of its own, over a longer time."""
    registry = fake_registry()
    registry.put_blob(REPO, RAW[:3000])
    registry.fault("GET", BLOB, Trickle(100, 0.03))
    repository, heard = room(registry, attempts=1, timeouts=Timeouts(answer=0.5, floor_window=60))
    with repository.content(blob(RAW[:3000])).open() as reader:
        assert b"".join(iter(reader.read, b"")) == RAW[:3000]
    assert not heard.waits


# Targets


@pytest.mark.parametrize(
    "tail", ["a%7Eb", "a%7eb", "a~b", "a%2Fb", "%41", "a=b&c=&d", "a+b", "a%20b", "[x]", "a|b", "a?b", "%zz"]
)
def test_a_location_is_used_as_it_was_sent(fake_registry, tail):
    """It may be signed: whoever takes an escape for the character it stands for breaks it."""
    registry = fake_registry()
    place = f"/elsewhere/{REPO}/blobs/uploads/x?state={tail}"
    registry.fault("POST", UPLOADS, Respond(202, b"", ("Location", place)))
    registry.fault("PUT", UPLOADS, Respond(201))
    repository, _ = room(registry, profile=SHAPES["put"])
    put(repository, b"x")
    (sent,) = registry.recording.find("PUT", UPLOADS)
    assert sent.request.target == f"{place}&digest={blob(b'x').digest}"


def test_a_location_beside_the_request_is_used_as_it_was_sent(fake_registry):
    registry = fake_registry()
    registry.fault("POST", UPLOADS, SetHeader("Location", "./up%7Eload/1?_state=%7E%2B#part"))
    registry.fault("PUT", "/up%7Eload/1", Respond(201))
    repository, _ = room(registry, profile=SHAPES["put"])
    put(repository, b"x")
    (sent,) = registry.recording.find("PUT", "load/1")
    assert sent.request.target == f"/v2/{REPO}/blobs/uploads/up%7Eload/1?_state=%7E%2B&digest={blob(b'x').digest}"
