"""A registry that is away: how long it is waited for, what counts as progress, and who is not waited for at all."""

import time
from email.utils import formatdate

import pytest
from cli_runner import Here, run_cli
from registry_room import RAW, blob, room
from snapshots import make_snapshot, put_snapshot
from support.content import noise
from support.faults import DropResponse, Raw, ResetRequest, Respond, Throttle, Truncate
from support.net import hold
from support.waiting import at_once

from epoch_oci.errors import AccessError, EpochOciError, NetworkError
from epoch_oci.oci.reference import Reference
from epoch_oci.registry.policy import RegistrySettings
from epoch_oci.registry.profiles import Profile
from epoch_oci.registry.repository import RegistryRepository
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS, MANIFESTS = r"/blobs/sha256:", r"/blobs/uploads/", r"/manifests/"
REPO = "acme/bot"
GC = "the asking blob is in GC, mark it as non existing, request id: 7"


@pytest.fixture
def cli(capsys) -> Here:
    return Here(capsys)


def put(repository, raw: bytes = RAW) -> None:
    repository.put(blob(raw), BytesContent(raw))


def stored(registry, raw: bytes = RAW) -> bool:
    return str(blob(raw).digest) in registry.blobs(REPO)


# How long


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_registry_that_is_away_is_waited_for_as_long_as_is_said(fake_registry, status):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Respond(status))
    repository, heard = room(registry, retry_for=600)
    with pytest.raises(NetworkError, match="--retry-for"):
        repository.holds(blob(RAW))
    assert 570 <= sum(heard.waits) <= 630 and max(heard.waits) <= 30
    kinds = [event.event for event in heard.events]
    assert kinds[:2] == ["retry", "retry"] and kinds[-1] == "wait" and str(status) in heard.events[-1].message


def test_with_0_it_is_a_failure_like_any_other(fake_registry):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Respond(503))
    repository, heard = room(registry, retry_for=0)
    with pytest.raises(NetworkError):
        repository.holds(blob(RAW))
    assert len(heard.waits) == 5


@pytest.mark.parametrize("status", [500, 408, 520])
def test_what_is_no_absence_is_tried_a_few_times(fake_registry, status):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Respond(status))
    repository, heard = room(registry, retry_for=600)
    with pytest.raises(NetworkError):
        repository.holds(blob(RAW))
    assert len(heard.waits) == 5


@pytest.mark.parametrize(
    ("method", "path"), [("POST", UPLOADS), ("PUT", UPLOADS), ("PUT", MANIFESTS), ("GET", MANIFESTS)]
)
def test_an_upgrade_is_outlived_at_every_step(cli, waits, fake_registry, tmp_path, method, path):
    """Ten failures in a row are more than the few tries that a hiccup gets."""
    registry = fake_registry(check_references=False)
    registry.fault(method, path, Throttle(0, 503), first=10)
    put_snapshot(tmp_path / "store", make_snapshot())
    target = f"{registry.address}/{REPO}:v1"
    ran = cli("push", "team/bot:v1", target, "--store", tmp_path / "store", "--allow-public", "--jobs", 1)
    assert ran.code == 0, ran.err
    assert len(waits) == 10 and "waiting" in ran.err


def test_progress_starts_the_count_anew(fake_registry):
    """Each answer wins a little and then it is away again, for far longer in all than it would be waited for."""
    registry = fake_registry()
    raw = noise(4 << 20)
    registry.put_blob(REPO, raw)
    registry.fault("GET", BLOB, Throttle(50, 503), nth=[number for number in range(60) if number % 3])
    registry.fault("GET", BLOB, Truncate(300_000), optional=True)
    repository, heard = room(registry, retry_for=110)
    with repository.content(blob(raw)).open() as reader:
        assert b"".join(iter(reader.read, b"")) == raw
    assert sum(wait for wait in heard.waits if wait == 50) > 1000


def test_a_ranged_upload_that_gets_on_is_not_given_up(fake_registry):
    registry = fake_registry()
    raw = noise(8 << 20)
    registry.fault("PATCH", UPLOADS, Throttle(50, 503), nth=[number for number in range(60) if number % 3])
    profile = Profile(name="ranged", hosts="x", shapes=("ranged",), chunk=1 << 20)
    repository, heard = room(registry, retry_for=110, profile=profile)
    put(repository, raw)
    assert stored(registry, raw) and sum(heard.waits) >= 700


def test_what_the_registry_asks_for_is_waited_and_measured_by_its_own_clock(fake_registry):
    registry = fake_registry()
    now = time.time() - 7 * 3600  # its clock is slow
    answer = Respond(
        503, b"", ("Date", formatdate(now, usegmt=True)), ("Retry-After", formatdate(now + 40, usegmt=True))
    )
    registry.fault("HEAD", BLOB, answer, first=1)
    repository, heard = room(registry, retry_for=30)
    assert not repository.holds(blob(RAW)) and heard.waits == [40.0]


@pytest.mark.parametrize("date", ["junk", "", "Thu, 99 Foo 2026 99:99:99 GMT"])
def test_a_date_that_is_none_is_not_measured_by(fake_registry, date):
    registry = fake_registry()
    wait = ("Retry-After", formatdate(time.time() + 40, usegmt=True))
    registry.fault("HEAD", BLOB, Respond(503, b"", ("Date", date), wait), first=1)
    repository, heard = room(registry, retry_for=30)
    assert not repository.holds(blob(RAW)) and 30 < heard.waits[0] <= 41


# Nobody there


@pytest.mark.parametrize("place", ["127.0.0.1:1", "registry.invalid"])
def test_who_never_answered_is_given_up_within_seconds(place):
    waits: list[float] = []
    settings = RegistrySettings(plain_http=True, sleep=waits.append)
    with at_once(), pytest.raises(NetworkError) as caught:
        RegistryRepository(Reference.parse(f"{place}/{REPO}"), settings).resolve("v1")
    assert sum(waits) <= 3
    assert place.partition(":")[0] in caught.value.message and "host's name" in (caught.value.hint or "")


def test_who_closes_every_connection_is_no_registry_either(fake_registry):
    registry = fake_registry()
    registry.fault("*", "/v2/", ResetRequest())
    repository, heard = room(registry, retry_for=600)
    with pytest.raises(NetworkError):
        repository.resolve("v1")
    assert len(heard.waits) == 2


def test_a_command_says_so_within_seconds():
    with at_once():
        ran = run_cli("ls", "127.0.0.1:1/acme/bot")
    assert ran.code == 6


CLOSED = {"rst": ResetRequest, "fin": lambda: ResetRequest(rst=False), "eof": lambda: Raw(b"")}


@pytest.mark.parametrize("kind", list(CLOSED))
def test_a_front_that_closes_connections_is_waited_for(fake_registry, kind):
    """As what forwards a port does while its container is away."""
    registry = fake_registry()
    repository, heard = room(registry, retry_for=600)
    assert not repository.holds(blob(RAW))
    registry.fault("HEAD", BLOB, CLOSED[kind](), first=12)
    assert not repository.holds(blob(RAW)) and len(heard.waits) == 12


def test_a_registry_that_restarts_is_waited_for(fake_registry):
    registry = fake_registry()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 12:
            registry.start()

    repository, heard = room(registry, retry_for=600, sleep=wait)
    put(repository, b"before")
    registry.stop()
    with hold(registry.port):
        put(repository)
    assert stored(registry)
    assert any("refused" in (event.message or "") for event in heard.events)


def test_a_body_that_is_always_broken_off_is_not_sent_for_ten_minutes(fake_registry):
    """Something on the way that lets no large body through is not a registry that is away."""
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, ResetRequest(after=100_000))
    repository, _ = room(registry, retry_for=600, profile=Profile(name="put", hosts="x", shapes=("put",)))
    with pytest.raises(NetworkError):
        put(repository)
    assert registry.recording.count("PUT", UPLOADS) == 6


def test_a_mount_is_tried_once(fake_registry):
    registry = fake_registry()
    for status in (401, 404, 429, 500, 503):
        registry.fault("POST", "mount=", Respond(status))
        before = len(registry.recording)
        repository, heard = room(registry, retry_for=600)
        assert not repository.mount(blob(RAW), "acme/other")
        assert len(registry.recording) == before + 1 and not heard.waits
        registry.clear_faults()
    registry.fault("POST", "mount=", DropResponse())
    assert not room(registry, retry_for=600)[0].mount(blob(RAW), "acme/other")


@pytest.mark.parametrize("text", ["90", "90s", "1m30s", "1.5m", "0.025h"])
def test_a_duration_is_read_as_people_write_it(text):
    from epoch_oci.cli.settings import settings

    assert settings({}, {"EPOCH_OCI_RETRY_FOR": text}).retry_for == 90
    assert settings({"retry_for": text}, {}).retry_for == 90


@pytest.mark.parametrize("text", ["", " ", "ten", "-1", "1d", "5m3h", "10 m", "1e3", "m", "9999999"])
def test_what_is_no_duration_is_said_so(cli, text):
    ran = cli("ls", "127.0.0.1:1/x/y", "--retry-for", text)
    assert ran.code == 2 and "--retry-for" in ran.error


# A blob under collection


@pytest.mark.parametrize(
    "shapes", [("put",), ("stream",), ("ranged",), ("put", "ranged"), ("put", "stream")], ids="-".join
)
@pytest.mark.parametrize("code", ["NOT_FOUND", "BLOB_UNKNOWN", "UNKNOWN"])
def test_a_blob_under_collection_is_waited_for_and_sent_twice_at_most(fake_registry, shapes, code):
    registry = fake_registry()
    collected = registry.fault("PUT", UPLOADS, Respond(404, code=code, message=GC), first=4)
    profile = Profile(name="some", hosts="x", shapes=shapes)
    repository, heard = room(registry, retry_for=600, profile=profile)
    put(repository)
    assert stored(registry) and collected.fired == 4
    assert [event.event for event in heard.events] == ["wait"] * 4
    assert all(GC in event.message for event in heard.events)
    sent = registry.recording.body_bytes("PUT|PATCH", UPLOADS)
    assert sent <= (5 if shapes == ("put",) else 2) * len(RAW)
    assert shapes[0] == "put" or sent == len(RAW)


def test_a_blob_that_stays_under_collection_ends_in_the_registrys_words(fake_registry):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, Respond(404, code="NOT_FOUND", message=GC))
    repository, heard = room(registry, retry_for=600)
    with pytest.raises(NetworkError, match="is in GC"):
        put(repository)
    assert 500 <= sum(heard.waits) <= 700


@pytest.mark.parametrize("code", ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID"])
def test_a_session_that_is_gone_is_no_collection(fake_registry, code):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, Respond(404, code=code), first=1)
    repository, heard = room(registry, retry_for=600)
    put(repository)
    assert stored(registry) and [event.event for event in heard.events] == ["retry"]


def test_a_repository_that_is_gone_is_no_collection(fake_registry):
    registry = fake_registry()
    registry.fault("PUT", UPLOADS, Respond(404, code="NAME_UNKNOWN"))
    with pytest.raises(EpochOciError) as caught:
        put(room(registry, retry_for=600)[0])
    assert not isinstance(caught.value, NetworkError | AccessError)


# Ranges that are refused


@pytest.mark.parametrize("total", ["bytes */0", f"bytes */{len(RAW)}", None], ids=str)
def test_416_in_the_middle_is_one_clean_start(fake_registry, total):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("GET", BLOB, Truncate(1_000_000), nth=1)
    headers = [("Content-Range", total)] if total else []
    registry.fault("GET", BLOB, Respond(416, b"", *headers), when=lambda request: "Range" in request.headers)
    repository, _ = room(registry)
    with repository.content(blob(RAW)).open() as reader:
        assert b"".join(iter(reader.read, b"")) == RAW
    assert registry.recording.count("GET", BLOB) == 3


def test_416_to_another_run_is_one_clean_start(cli, fake_registry, tmp_path):
    registry = fake_registry()
    put_snapshot(tmp_path / "store", make_snapshot())
    target = f"{registry.address}/{REPO}:v1"
    assert cli("push", "team/bot:v1", target, "--store", tmp_path / "store", "--allow-public").code == 0
    registry.fault("GET", BLOB, Respond(416), when=lambda request: "Range" in request.headers, optional=True)
    registry.fault("GET", BLOB, Truncate(900_000), optional=True, first=3)
    assert cli("pull", target, "--store", tmp_path / "copy").code == 0


@pytest.mark.parametrize("asked", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_who_asks_for_no_wait_is_not_stormed(fake_registry, asked):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Throttle(asked, status=503))
    repository, heard = room(registry, retry_for=60)
    with pytest.raises(NetworkError, match="--retry-for"):
        repository.holds(blob(RAW))
    assert len(heard.waits) < 60 and sum(heard.waits) >= 55


def test_no_wait_is_negative_however_late_it_got(fake_registry):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Respond(502))
    ticks = iter(range(1_000_000))
    repository, heard = room(registry, retry_for=20, clock=lambda: float(next(ticks)))
    with pytest.raises(NetworkError, match="--retry-for"):
        repository.holds(blob(RAW))
    assert min(heard.waits) >= 0
