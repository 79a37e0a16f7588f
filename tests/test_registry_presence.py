"""Whether a blob is there: what a HEAD says, what it does not, and where it leads."""

import pytest
from cli_runner import Here
from registry_room import RAW, blob, room
from snapshots import make_snapshot, put_snapshot
from support.content import noise
from support.faults import ContentLength, Raw, Redirect, Respond, SetHeader, SetStatus, Throttle
from support.wire import Answer, Request

from epoch_oci.errors import AccessError, NetworkError, PolicyError
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS = r"/blobs/sha256:", r"/blobs/uploads/"
REPO = "acme/bot"
NOBODY = "http://127.0.0.1:1"
TELLS_NOTHING = {
    "no length": lambda: ContentLength(),
    "length 0": lambda: ContentLength("0"),
    "another length": lambda: ContentLength("7"),
    "junk": lambda: ContentLength("x"),
    "404": lambda: Respond(404, code="BLOB_UNKNOWN"),
    "405": lambda: Respond(405),
    "501": lambda: Respond(501),
}


@pytest.fixture
def cli(capsys) -> Here:
    return Here(capsys)


def of_range(request: Request) -> bool:
    return "Range" in request.headers


def led(request: Request) -> bool:
    return "led" not in request.target


@pytest.mark.parametrize("raw", [RAW, b"x", b""], ids=["3M", "1", "0"])
@pytest.mark.parametrize("kind", list(TELLS_NOTHING))
def test_a_head_that_does_not_tell_is_followed_by_a_get_of_one_byte(fake_registry, kind, raw):
    registry = fake_registry()
    registry.put_blob(REPO, raw)
    registry.fault("HEAD", BLOB, TELLS_NOTHING[kind]())
    repository, _ = room(registry)
    assert repository.has(blob(raw))
    for entry in registry.recording.find("GET", BLOB):
        assert entry.header("range") == "bytes=0-0"


@pytest.mark.parametrize("kind", [kind for kind in TELLS_NOTHING if kind != "404"])
def test_nor_is_it_sent_again(fake_registry, kind):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("HEAD", BLOB, TELLS_NOTHING[kind]())
    assert room(registry)[0].holds(blob(RAW))


def test_to_a_sender_404_is_an_answer(fake_registry):
    registry = fake_registry()
    repository, _ = room(registry)
    assert not repository.holds(blob(RAW)) and not repository.has(blob(RAW))
    assert [entry.method for entry in registry.recording] == ["HEAD", "HEAD", "GET"]


@pytest.mark.parametrize("range_known", [True, False], ids=["ranges", "no-ranges"])
def test_a_blob_of_another_size_is_not_there(fake_registry, range_known):
    registry = fake_registry()
    registry.put_blob(REPO, RAW[:-1], str(blob(RAW).digest))
    if not range_known:
        registry.fault("GET", BLOB, SetHeader("Range"), optional=True)
    repository, _ = room(registry)
    assert not repository.has(blob(RAW)) and not repository.holds(blob(RAW))


@pytest.mark.parametrize(("raw", "there"), [(RAW, True), (RAW[1:], False)])
def test_a_get_without_ranges_tells_by_its_length(fake_registry, raw, there):
    registry = fake_registry()
    registry.put_blob(REPO, raw, str(blob(RAW).digest))
    registry.fault("HEAD", BLOB, ContentLength())
    registry.fault("GET", BLOB, Respond(200, raw), when=of_range)
    assert room(registry)[0].has(blob(RAW)) is there


def test_an_answer_without_any_size_is_believed(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("HEAD", BLOB, ContentLength())
    registry.fault("GET", BLOB, SetHeader("Content-Range", "bytes 0-0/*"))
    assert room(registry)[0].has(blob(RAW))


# Led elsewhere


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("there", [True, False])
def test_a_head_that_is_led_elsewhere_is_followed_without_credentials(fake_registry, make_recorder, status, there):
    registry = fake_registry()
    digest = str(blob(RAW).digest)
    storage = make_recorder(
        lambda request: Answer(200, [], lambda: iter([RAW]), len(RAW)) if there else Answer.error(404, "NoSuchKey")
    )
    registry.fault("HEAD|GET", BLOB, Redirect(f"{storage.url}/{digest}", status))
    repository, _ = room(registry, login=True)
    assert repository.has(blob(RAW)) is there
    assert repository.holds(blob(RAW)) is there
    assert all(entry.header("authorization") is None for entry in storage.recording)


def test_a_storage_that_signs_gets_alone_is_asked_by_one(fake_registry, make_recorder):
    registry = fake_registry()
    storage = make_recorder(
        lambda request: (
            Answer.of(403, b"<Error>SignatureDoesNotMatch</Error>")
            if request.method == "HEAD"
            else Answer.of(206, RAW[:1], ("Content-Range", f"bytes 0-0/{len(RAW)}"))
        )
    )
    registry.fault("HEAD|GET", BLOB, Redirect(storage.url))
    repository, _ = room(registry)
    assert repository.has(blob(RAW)) and repository.holds(blob(RAW))


@pytest.mark.parametrize("target", [NOBODY, "http://storage.invalid", f"{NOBODY}/x?sig=secret"])
def test_where_it_leads_nowhere_a_blob_is_sent_and_a_reader_is_told(fake_registry, target):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("HEAD|GET", BLOB, Redirect(target))
    repository, heard = room(registry)
    assert not repository.holds(blob(RAW))
    with pytest.raises(NetworkError):
        repository.has(blob(RAW))
    assert len(heard.waits) <= 3 and not any("sig=secret" in line for line in heard.debug)


def test_a_storage_that_is_not_there_is_tried_once_by_a_sender(fake_registry):
    registry = fake_registry()
    registry.fault("HEAD", BLOB, Redirect(NOBODY))
    registry.fault("GET", BLOB, Redirect(NOBODY), optional=True)
    repository, heard = room(registry)
    for number in range(20):
        assert not repository.holds(blob(noise(100 + number)))
    assert not heard.waits and registry.recording.count("GET", BLOB) == 0


def test_the_way_down_from_https_is_not_taken(fake_registry, recorder, tls_kit):
    registry = fake_registry(tls="good")
    registry.fault("HEAD|GET", BLOB, Redirect(recorder.url))
    repository, _ = room(registry, ca_file=str(tls_kit.ca_file))
    assert not repository.holds(blob(RAW))
    with pytest.raises(PolicyError):
        repository.has(blob(RAW))
    recorder.assert_untouched()


def test_a_loop_of_redirects_is_no_blob(fake_registry):
    registry = fake_registry()
    registry.fault("HEAD|GET", BLOB, Redirect(lambda request: request.target))
    repository, _ = room(registry)
    assert not repository.holds(blob(RAW))
    with pytest.raises(NetworkError, match="redirects"):
        repository.has(blob(RAW))


def test_throttled_heads_are_waited_for(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("HEAD", BLOB, Throttle(3), first=2)
    repository, heard = room(registry)
    assert repository.holds(blob(RAW)) and heard.waits == [3.0, 3.0]


def test_what_may_not_be_read_is_no_absence(fake_registry):
    registry = fake_registry()
    registry.fault("HEAD|GET", BLOB, Respond(403, code="DENIED"))
    repository, _ = room(registry)
    for ask in (repository.has, repository.holds):
        with pytest.raises(AccessError):
            ask(blob(RAW))


# Whole commands


def pushed(cli, registry, tmp_path) -> str:
    put_snapshot(tmp_path / "store", make_snapshot())
    target = f"{registry.address}/{REPO}:v1"
    done = cli("push", "team/bot:v1", target, "--store", tmp_path / "store", "--allow-public")
    assert done.code == 0, done.err
    return target


@pytest.mark.parametrize("kind", ["no length", "length 0", "404", "405"])
def test_verify_and_inspect_find_what_is_there(cli, fake_registry, tmp_path, kind):
    registry = fake_registry()
    target = pushed(cli, registry, tmp_path)
    registry.fault("HEAD", BLOB, TELLS_NOTHING[kind]())
    assert cli("verify", "--fast", target).code == 0
    assert cli("inspect", target, "--format", "json").json["missing"] == []


def test_verify_finds_what_is_missing_all_the_same(cli, fake_registry, tmp_path):
    registry = fake_registry()
    target = pushed(cli, registry, tmp_path)
    digest = max(registry.blobs(REPO), key=registry.blobs(REPO).__getitem__)
    registry.delete_blob(REPO, digest)
    registry.fault("HEAD", BLOB, ContentLength(), optional=True)
    found = cli("verify", "--fast", target, "--format", "json")
    assert found.code == 3 and digest.removeprefix("sha256:")[:12] in found.out


def test_a_head_led_to_a_storage_without_the_blob_is_no_arrival(cli, fake_registry, make_recorder, tmp_path):
    registry = fake_registry()
    storage = make_recorder(Answer.error(404, "NoSuchKey"))
    registry.fault("HEAD|GET", BLOB, Redirect(storage.url))
    target = pushed(cli, registry, tmp_path)
    assert target and len(registry.blobs(REPO)) > 2


def test_a_second_push_sends_nothing(fake_registry):
    registry = fake_registry()
    repository, _ = room(registry)
    repository.put(blob(RAW), BytesContent(RAW))
    registry.fault("HEAD", BLOB, SetStatus(200))
    assert repository.holds(blob(RAW))


PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"


def test_a_page_without_a_length_is_no_blob(fake_registry):
    """As the login of a captive network, or a proxy's error page under 200."""
    registry = fake_registry()
    registry.fault("HEAD", BLOB, ContentLength())
    registry.fault("GET", BLOB, Raw(PAGE + b"<html>log in</html>"))
    registry.put_blob(REPO, RAW)
    repository, _ = room(registry)
    assert not repository.has(blob(RAW))
    assert not repository.holds(blob(RAW))


def test_a_long_body_without_a_length_is_believed_by_a_reader_and_sent_by_a_sender(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, RAW)
    registry.fault("HEAD", BLOB, ContentLength())
    registry.fault("GET", BLOB, Raw(PAGE + RAW))
    repository, _ = room(registry)
    assert repository.has(blob(RAW))
    assert not repository.holds(blob(RAW))


def test_a_short_body_without_a_length_is_counted(fake_registry):
    registry = fake_registry()
    registry.put_blob(REPO, b"small")
    registry.fault("HEAD", BLOB, ContentLength())
    registry.fault("GET", BLOB, Raw(PAGE + b"small"))
    repository, _ = room(registry)
    assert repository.has(blob(b"small")) and repository.holds(blob(b"small"))
