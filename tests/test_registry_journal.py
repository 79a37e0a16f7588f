"""Uploads in chunks that go on in another run: what is remembered, what is asked, and what is not believed."""

import json
import os
import signal
import stat
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_runner import command, environment
from registry_room import RAW, blob, room
from snapshots import Made, open_store, put_snapshot
from support.content import noise
from support.faults import ForgetUploads, ResetRequest, Respond, SetHeader
from support.proxy import Stall
from support.registry_auth import PASSWORD, USER, BearerAuth
from support.waiting import until

from epoch_oci.cli.settings import Settings
from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError, NetworkError
from epoch_oci.oci.digest import Digest
from epoch_oci.registry.profiles import Profile
from epoch_oci.registry.upload_journal import LIFE, UploadJournal, UploadKey
from epoch_oci.stores.base import BytesContent
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Want, plan_blobs
from epoch_oci.transfer.throttle import Throttle

UPLOADS = r"/blobs/uploads/"
REPO = "acme/bot"
CHUNK = 1 << 20
RANGED = Profile(name="ranged", hosts="x", shapes=("ranged",), chunk=CHUNK)


class StoppedError(Exception):
    """As when another transfer failed, or the user gave up."""


class Stopping(BytesContent):
    """Content that is stopped in the middle of a reading."""

    @contextmanager
    def open(self, start: int = 0, length: int | None = None):
        with super().open(start, length) as reader:
            yield _Stopping(reader, start)


class _Stopping:
    def __init__(self, reader, offset: int) -> None:
        self._reader, self._offset = reader, offset

    def read(self, size: int = -1, /) -> bytes:
        if self._offset >= 2_500_000:
            raise StoppedError
        block = self._reader.read(min(size, 100_000) if size > 0 else 100_000)
        self._offset += len(block)
        return block


def here(registry, tmp_path, **changes) -> tuple:
    return room(registry, profile=RANGED, state_directory=tmp_path, **changes)


def stop(registry, tmp_path, **changes) -> Path:
    """Send the most of a blob, and stop; the journal's file."""
    repository, _ = here(registry, tmp_path, **changes)
    with pytest.raises(StoppedError):
        repository.put(blob(RAW), Stopping(RAW))
    registry.recording.settle()
    assert len(registry.uploads(REPO)) == 1
    [path] = (tmp_path / "uploads").glob("*.json")
    return path


def go_on(registry, tmp_path, raw: bytes = RAW, **changes):
    """Another run: the blob arrives, and nothing is left of it anywhere else."""
    repository, heard = here(registry, tmp_path, **changes)
    repository.put(blob(RAW), BytesContent(raw))
    assert str(blob(RAW).digest) in registry.blobs(REPO)
    assert not list((tmp_path / "uploads").iterdir())
    return heard


def patched(registry) -> int:
    return registry.recording.body_bytes("PATCH", UPLOADS)


def sessions(registry) -> int:
    return registry.recording.count("POST", UPLOADS)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


# Going on


def test_another_run_goes_on_where_the_registry_is(fake_registry, tmp_path):
    registry = fake_registry()
    stop(registry, tmp_path)
    assert patched(registry) >= 2 * CHUNK
    go_on(registry, tmp_path)
    assert patched(registry) == len(RAW) and sessions(registry) == 1 and not registry.uploads(REPO)


@pytest.mark.parametrize("shape", ["put", "stream"])
def test_a_body_in_one_request_goes_on_in_another_run_too(fake_registry, tmp_path, shape):
    registry = fake_registry()
    profile = Profile(name="two", hosts="x", shapes=(shape, "ranged"), chunk=CHUNK)
    repository, _ = room(registry, profile=profile, state_directory=tmp_path)
    with pytest.raises(StoppedError):
        repository.put(blob(RAW), Stopping(RAW))
    registry.recording.settle(1, "PUT" if shape == "put" else "PATCH")
    arrived = sum(registry.uploads(REPO).values())
    assert arrived > CHUNK and len(list((tmp_path / "uploads").glob("*.json"))) == 1
    repository, heard = room(registry, profile=profile, state_directory=tmp_path)
    repository.put(blob(RAW), BytesContent(RAW))
    assert str(blob(RAW).digest) in registry.blobs(REPO) and not heard.waits
    assert sessions(registry) == 1 and not registry.uploads(REPO)
    assert registry.recording.body_bytes("PUT|PATCH", UPLOADS) == len(RAW)
    assert not list((tmp_path / "uploads").iterdir())


class Taking(Throttle):
    """A limit that only counts what asks to pass."""

    taken = 0

    def take(self, count: int, cancelled: threading.Event) -> bool:
        self.taken += count
        return True


@pytest.mark.parametrize("shape", ["put", "ranged"])
@pytest.mark.parametrize("lost", [False, True])
def test_what_an_earlier_run_sent_is_neither_counted_nor_paced(fake_registry, tmp_path, shape, lost):
    registry, raw = fake_registry(), noise(6 * CHUNK)
    profile = Profile(name="two", hosts="x", shapes=(shape, "ranged"), chunk=CHUNK)
    put_snapshot(tmp_path / "store", Made(SnapshotKey("big", "v1"), b"{}", {Digest.of(raw).hex: raw}))
    source = open_store(tmp_path / "store")
    repository, _ = room(registry, profile=profile, state_directory=tmp_path)
    with pytest.raises(StoppedError):
        repository.put(blob(raw), Stopping(raw))
    registry.recording.settle(*([1, "PUT"] if shape == "put" else []))
    before = sum(registry.uploads(REPO).values())
    if lost:
        before = 0
        registry.fault("PATCH", UPLOADS, ForgetUploads(), first=1)
    repository, _ = room(registry, profile=profile, state_directory=tmp_path)
    limit, events = Taking(1 << 20), []
    plan = plan_blobs(repository, [Want(target=blob(raw), content=source.content(blob(raw)))])
    (outcome,) = execute(plan, moved="sent", on_event=events.append, throttle=limit)
    assert str(blob(raw).digest) in registry.blobs(REPO) and outcome.action == "sent"
    assert outcome.bytes == len(raw) - before and [event.bytes for event in events if event.event == "plan"][-1] == (
        outcome.bytes
    )
    assert lost or (before > CHUNK and limit.taken == outcome.bytes)
    # It is told of as hashed, to its end.
    hashed = [(event.bytes, event.total) for event in events if event.phase == "hashing"]
    assert lost or hashed[-1] == (before, before)


def test_a_body_that_changed_meanwhile_is_found_out(fake_registry, tmp_path):
    registry = fake_registry()
    profile = Profile(name="two", hosts="x", shapes=("put", "ranged"), chunk=CHUNK)
    repository, _ = room(registry, profile=profile, state_directory=tmp_path)
    with pytest.raises(StoppedError):
        repository.put(blob(RAW), Stopping(RAW))
    registry.recording.settle(1, "PUT")
    repository, _ = room(registry, profile=profile, state_directory=tmp_path)
    with pytest.raises(ContentError):
        repository.put(blob(RAW), BytesContent(b"!" + RAW[1:]))
    assert not registry.blobs(REPO)


def test_what_is_kept_is_private_and_small(fake_registry, tmp_path):
    path = stop(fake_registry(), tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.suffix for entry in path.parent.iterdir()] == [".json"]
    value = json.loads(path.read_bytes())
    assert value["digest"] == str(blob(RAW).digest) and value["size"] == len(RAW) and value["offset"] == 2 * CHUNK
    assert "/blobs/uploads/" in value["location"] and abs(value["at"] - time.time()) < 60


def test_the_signed_state_is_never_shown(fake_registry, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    state = json.loads(path.read_bytes())["location"].partition("_state=")[2]
    heard = go_on(registry, tmp_path)
    assert state and not any(state in line for line in heard.debug)


def test_a_registry_that_redirects_uploads_gets_no_credentials_elsewhere(fake_registry, tmp_path):
    """The journal is only a hint: who may be asked is decided anew."""
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None))
    stop(registry, tmp_path, login=True)
    go_on(registry, tmp_path, login=True)
    assert patched(registry) == len(RAW)


def test_a_line_that_is_dead_for_a_run_is_no_loss(fake_registry, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    registry.stop()
    repository, _ = here(registry, tmp_path, attempts=2)
    with pytest.raises(NetworkError):
        repository.put(blob(RAW), BytesContent(RAW))
    assert path.exists()


def test_a_session_that_only_fails_is_given_up(fake_registry, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    # An answer that comes while a busy machine still sends may be met as a broken line, which is tried more often.
    rule = registry.fault("PATCH", UPLOADS, Respond(500))
    repository, _ = here(registry, tmp_path, attempts=3)
    with pytest.raises(NetworkError):
        repository.put(blob(RAW), BytesContent(RAW))
    assert rule.fired >= 3 and not path.exists() and not registry.uploads(REPO)
    registry.clear_faults()
    go_on(registry, tmp_path)


# What is odd


def test_a_session_that_the_registry_lost(fake_registry, tmp_path):
    registry = fake_registry()
    stop(registry, tmp_path)
    assert registry.forget_uploads() == 1
    go_on(registry, tmp_path)
    assert sessions(registry) == 2


def test_a_session_that_is_lost_after_it_was_taken_up(fake_registry, tmp_path):
    registry = fake_registry()
    stop(registry, tmp_path)
    registry.fault("PATCH", UPLOADS, ForgetUploads(), first=1, when=lambda request: registry.recording.count("GET"))
    go_on(registry, tmp_path)
    assert sessions(registry) == 2


@pytest.mark.parametrize("old", [True, False], ids=["an earlier run's", "this run's"])
def test_a_session_that_a_broken_chunk_has_spoilt_is_given_up(fake_registry, tmp_path, old):
    """Gitea keeps a part of a chunk, does not count it, and answers 500 to all that follows."""
    registry = fake_registry()

    def in_the_first(request) -> bool:
        return sessions(registry) == 1 and not request.headers["Content-Range"].startswith("0-")

    if old:
        stop(registry, tmp_path)
    else:
        second = lambda request: request.headers["Content-Range"].startswith(f"{CHUNK}-")  # noqa: E731
        registry.fault("PATCH", UPLOADS, ResetRequest(1000), first=1, when=second)
    spoilt = lambda request: in_the_first(request) and (old or registry.recording.count("GET", UPLOADS))  # noqa: E731
    registry.fault("PATCH", UPLOADS, Respond(500), when=spoilt)
    heard = go_on(registry, tmp_path)
    assert sessions(registry) == 2 and not registry.uploads(REPO) and len(heard.waits) <= 3


def test_a_sound_session_is_kept_through_many_failures(fake_registry, tmp_path):
    registry = fake_registry()
    third = lambda request: request.headers["Content-Range"].startswith(f"{2 * CHUNK}-")  # noqa: E731
    registry.fault("PATCH", UPLOADS, Respond(500), first=4, when=third)
    go_on(registry, tmp_path)
    assert sessions(registry) == 1


@pytest.mark.parametrize("stated", ["0-0", "0-5", f"0-{2 * CHUNK - 2}", "0-99999999", "0--1", "5-9", "x", ""])
def test_an_offset_that_cannot_be(fake_registry, tmp_path, stated):
    registry = fake_registry()
    stop(registry, tmp_path)
    registry.fault("GET", UPLOADS, SetHeader("Range", stated))
    go_on(registry, tmp_path)
    assert sessions(registry) == 2


@pytest.mark.parametrize("stated", [f"0-{2 * CHUNK - 1}", "0-2799999", f"0-{len(RAW) - 1}"])
def test_an_offset_that_could_be_and_is_not(fake_registry, tmp_path, stated):
    """The registry has more, or less, than it says: it refuses the chunk or the digest, and all is sent anew."""
    registry = fake_registry()
    stop(registry, tmp_path)
    registry.fault("GET", UPLOADS, SetHeader("Range", stated), first=3)
    go_on(registry, tmp_path)
    assert sessions(registry) == 2


@pytest.mark.parametrize("status", [200, 202, 400, 403, 404, 405])
def test_a_status_that_is_refused(fake_registry, tmp_path, status):
    registry = fake_registry()
    stop(registry, tmp_path)
    registry.fault("GET", UPLOADS, Respond(status), first=1)
    go_on(registry, tmp_path)
    assert sessions(registry) == 2


def test_a_location_elsewhere_is_not_asked(fake_registry, recorder, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    edit(path, location=f"{recorder.url}/v2/{REPO}/blobs/uploads/1?_state=x")
    go_on(registry, tmp_path)
    recorder.assert_untouched()
    assert sessions(registry) == 2


def test_a_location_at_a_trusted_host_gets_no_credentials(fake_registry, recorder, tmp_path):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=None))
    path = stop(registry, tmp_path, login=True)
    edit(path, location=f"{recorder.url}/v2/{REPO}/blobs/uploads/1?_state=x")
    go_on(registry, tmp_path, login=True, trusted=frozenset({recorder.address}))
    assert [request.method for request in recorder.requests] == ["GET"]
    assert recorder.requests[0].header("authorization") is None and not recorder.shows(PASSWORD)


def garble(**changes):
    return lambda path: edit(path, **changes)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\x00{"),
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b"[" * 20_000),
        lambda path: path.write_bytes(path.read_bytes() + b" " * (64 << 10)),
        lambda path: path.write_text("[]"),
        lambda path: path.chmod(0o640),
        garble(version=2),
        garble(digest="sha256:" + "0" * 64),
        garble(size=7),
        garble(repository="acme/other"),
        garble(registry="https://ghcr.io"),
        garble(offset=-1),
        garble(offset=True),
        garble(offset=len(RAW) + 1),
        garble(offset="5"),
        garble(location=7),
        garble(location="ftp://h/x"),
        garble(location="http://[::1"),
        garble(location="http://h/\n"),
        garble(at=0),
        garble(at=time.time() + 86400),
        garble(at=float("nan")),
        garble(at=None),
    ],
)
def test_an_entry_that_is_not_right(fake_registry, tmp_path, spoil):
    registry = fake_registry()
    spoil(stop(registry, tmp_path))
    go_on(registry, tmp_path)
    assert sessions(registry) == 2


def test_a_link_in_place_of_the_file_is_not_followed(fake_registry, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    target = tmp_path / "elsewhere"
    path.rename(target)
    path.symlink_to(target)
    before = target.read_bytes()
    go_on(registry, tmp_path)
    assert target.read_bytes() == before and sessions(registry) == 2


def test_a_pipe_in_place_of_the_file_is_not_waited_for(fake_registry, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    path.unlink()
    os.mkfifo(path, 0o600)
    go_on(registry, tmp_path)
    assert sessions(registry) == 2


@pytest.mark.parametrize("raw", [b"!" + RAW[1:], RAW[:1_000_000], RAW + b"!"], ids=["altered", "short", "long"])
def test_a_source_that_changed_between_the_runs(fake_registry, tmp_path, raw):
    """What the registry has already is read again, and the lie is found before the last chunk."""
    registry = fake_registry()
    path = stop(registry, tmp_path)
    repository, _ = here(registry, tmp_path)
    with pytest.raises(ContentError):
        repository.put(blob(RAW), BytesContent(raw))
    assert not registry.blobs(REPO) and not registry.uploads(REPO) and not path.exists()


def test_another_blob_is_another_upload(fake_registry, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    repository, _ = here(registry, tmp_path)
    other = RAW[::-1]
    repository.put(blob(other), BytesContent(other))
    assert path.exists() and sessions(registry) == 2
    go_on(registry, tmp_path)


# Two at once, and nowhere to write


def key(registry) -> UploadKey:
    return UploadKey(registry.url, REPO, blob(RAW).digest, len(RAW))


def test_two_never_share_a_session(fake_registry, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    before = path.read_bytes()
    claim = UploadJournal(tmp_path / "uploads").claim(key(registry))
    repository, _ = here(registry, tmp_path)
    repository.put(blob(RAW), BytesContent(RAW))
    assert sessions(registry) == 2 and path.read_bytes() == before
    claim.release()
    registry.delete_blob(REPO, str(blob(RAW).digest))
    go_on(registry, tmp_path)
    assert sessions(registry) == 2


def test_a_claim_is_one_at_a_time(tmp_path, fake_registry):
    registry = fake_registry()
    one, other = UploadJournal(tmp_path / "uploads"), UploadJournal(tmp_path / "uploads")
    for _ in range(3):
        claim = one.claim(key(registry))
        assert claim is not None and other.claim(key(registry)) is None and one.claim(key(registry)) is None
        claim.release()
    assert not list((tmp_path / "uploads").iterdir())


@pytest.mark.parametrize("kind", ["file", "link", "read-only", "parent"])
def test_a_journal_that_cannot_be_written_is_no_reason_to_fail(fake_registry, tmp_path, kind):
    registry = fake_registry()
    state = tmp_path / "state"
    if kind == "parent":
        state.write_bytes(b"")
    else:
        state.mkdir()
    if kind == "file":
        (state / "uploads").write_bytes(b"")
    if kind == "link":
        (tmp_path / "other").mkdir()
        (state / "uploads").symlink_to(tmp_path / "other")
    if kind == "read-only":
        (state / "uploads").mkdir(mode=0o500)
    repository, _ = here(registry, state)
    repository.put(blob(RAW), BytesContent(RAW))
    assert str(blob(RAW).digest) in registry.blobs(REPO)
    assert kind != "link" or not list((tmp_path / "other").iterdir())


def test_a_directory_open_to_others_is_closed_to_them(fake_registry, tmp_path):
    (tmp_path / "uploads").mkdir(mode=0o755)
    stop(fake_registry(), tmp_path)
    assert stat.S_IMODE((tmp_path / "uploads").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "profile",
    [
        Profile(name="whole", hosts="x", shapes=("put",), chunk=CHUNK),
        Profile(name="silent", hosts="x", shapes=("ranged",), chunk=CHUNK, asks_status=False),
        Profile(name="large", hosts="x", shapes=("ranged",), chunk=len(RAW)),
    ],
    ids=lambda profile: profile.name,
)
def test_nothing_is_kept_of_what_cannot_go_on(fake_registry, tmp_path, profile):
    registry = fake_registry()
    repository, _ = room(registry, profile=profile, state_directory=tmp_path)
    with pytest.raises(StoppedError):
        repository.put(blob(RAW), Stopping(RAW))
    assert not list(tmp_path.rglob("*.json"))


def test_what_is_old_is_taken_away(fake_registry, tmp_path):
    registry = fake_registry()
    path = stop(registry, tmp_path)
    fresh, old = path.with_name("a" * 64 + ".json"), path.with_name("b" * 64 + ".json")
    lock, half, foreign = (path.with_name(name) for name in ("c" * 64 + ".lock", "d" * 64 + ".new", "notes.txt"))
    for each in (fresh, old, lock, half, foreign):
        each.write_bytes(b"{}")
    for each in (old, lock, half, foreign):
        os.utime(each, (time.time() - LIFE - 60,) * 2)
    repository, _ = here(registry, tmp_path)
    repository.put(blob(RAW), BytesContent(RAW))
    assert {each.name for each in path.parent.iterdir()} == {fresh.name, foreign.name}


def test_notes_are_written_now_and_then(tmp_path, fake_registry):
    claim = UploadJournal(tmp_path).claim(key(fake_registry()))
    claim.note("http://h/1", 1)
    claim.note("http://h/2", 2)
    assert claim.entry().offset == 1
    claim.note("http://h/3", 3, at_once=True)
    assert claim.entry().offset == 3 and "http" not in repr(claim.entry())
    claim.release()


def test_where_the_state_is():
    assert Settings(environ={"XDG_STATE_HOME": "/x", "HOME": "/h"}).state_directory == Path("/x/epoch-oci")
    assert Settings(environ={"HOME": "/h"}).state_directory == Path("/h/.local/state/epoch-oci")
    assert Settings(environ={}).state_directory is None


# A process that is killed

BIG = 24 << 20
ACR_CHUNK = 4 << 20


def big(store: Path) -> Made:
    raw = noise(BIG)
    made = Made(SnapshotKey("big", "v1"), b"", {Digest.of(raw).hex: raw})
    zero = "0001-01-01T00:00:00Z"
    rows = [{"digest": Digest.of(raw).hex, "size": BIG, "filename": "memory-ranges"}]
    value = {"schemaVersion": 1, "name": "big", "tag": "v1", "snapshotId": "9f3c1a7be20d4c55", "layers": rows}
    made.raw = gojson.dumps({**value, "totalSize": BIG, "createdAt": zero, "pushedAt": zero})
    put_snapshot(store, made)
    return made


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_push_that_is_killed_goes_on_in_the_next(fake_registry, proxy, tmp_path, isolated_home, share):
    registry = fake_registry()
    registry.fault("PATCH", UPLOADS, Respond(405), when=lambda request: "Content-Range" not in request.headers)
    held = Stall("up", int(BIG * share), times=1, total=True)
    line = proxy(registry, held)
    big(tmp_path / "store")
    words = ("push", "big:v1", f"{line.address}/{REPO}:v1", "--store", f"{tmp_path}/store", "--profile", "acr", "-q")
    ranged = r"/blobs/uploads/"

    def arrived() -> int:
        return sum(request.body_size for request in registry.recording.find("PATCH", ranged) if request.status != 405)

    process = subprocess.Popen(command(*words), env=environment(), stderr=subprocess.PIPE)
    until(lambda: held.fired)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    line.drop_connections()
    registry.recording.settle()
    before, opened = arrived(), sessions(registry)
    assert 0 < before < BIG and not registry.tags(REPO)
    done = subprocess.run(command(*words), env=environment(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert arrived() < BIG + ACR_CHUNK
    assert sessions(registry) - opened <= 2  # one to see whether writing is allowed, one for the manifest's config
    assert registry.tags(REPO) and Digest.of(registry.blob(REPO, str(Digest.of(noise(BIG))))) == Digest.of(noise(BIG))
    assert not list((isolated_home / ".local/state/epoch-oci/uploads").iterdir())
