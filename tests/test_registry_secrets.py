"""What an attacker beside or behind the registry may try: addresses, echoes, challenges, words for the terminal."""

from contextlib import nullcontext

import pytest
from registry_room import RAW, blob, room
from support import canary
from support.content import manifest
from support.faults import ForeignLocation, ForeignRealm, Gzip, Raw, Redirect, ReplaceBody, Respond, SetHeader
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth
from support.wire import Answer

from epoch_oci.errors import AccessError, ContentError, EpochOciError, NetworkError, PolicyError
from epoch_oci.oci.document import Document
from epoch_oci.oci.media_types import MANIFEST
from epoch_oci.registry.credentials import Credential, CredentialStore
from epoch_oci.registry.profiles import Profile
from epoch_oci.registry.trust import Origin, check_hop, redacted
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS, MANIFESTS = r"/blobs/sha256:", "/uploads/", "/manifests/"
REPO = "acme/bot"
DOCUMENT = Document(MANIFEST, manifest([b"layer"]))
UNREADABLE = ["http://[::1", "http://h:99999/", "http://h:x/", "http://user:secret@h/", "file:///etc/passwd"]


def bearer() -> BearerAuth:
    return BearerAuth({USER: PASSWORD}, anonymous=None)


def read(repository, raw: bytes = RAW) -> bytes:
    with repository.content(blob(raw)).open() as reader:
        return b"".join(iter(reader.read, b""))


def no_credentials(recorder) -> None:
    assert not recorder.shows(PASSWORD)
    for request in recorder.requests:
        names = {name.lower() for name, _ in request.headers}
        assert not names & {"authorization", "cookie", "proxy-authorization"}


# Redirects


@pytest.mark.parametrize("auth", [bearer, BasicAuth], ids=["bearer", "basic"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirected_manifest_is_fetched_without_credentials(fake_registry, make_recorder, auth, status):
    answer = Answer.of(200, DOCUMENT.raw, ("Content-Type", MANIFEST))
    registry, other = fake_registry(auth=auth()), make_recorder(answer)
    registry.fault("GET", MANIFESTS, Redirect(other.url, status))
    repository, _ = room(registry, login=True)
    assert repository.resolve(str(DOCUMENT.digest)).raw == DOCUMENT.raw
    assert len(other.requests) == 1
    no_credentials(other)


def test_a_redirected_manifest_is_not_believed(fake_registry, make_recorder):
    registry = fake_registry()
    other = make_recorder(Answer.of(200, DOCUMENT.raw + b" ", ("Content-Type", MANIFEST)))
    registry.fault("GET", MANIFESTS, Redirect(other.url))
    with pytest.raises(ContentError) as caught:
        room(registry)[0].resolve(str(DOCUMENT.digest))
    assert caught.value.code == "DIGEST"


def test_a_redirect_that_comes_back_is_authenticated_and_a_loop_ends(fake_registry, make_recorder):
    registry = fake_registry(auth=bearer())
    registry.put_blob(REPO, RAW)
    back = make_recorder(lambda request: Answer.of(307, b"", ("Location", registry.url + request.target)))
    registry.fault("GET", BLOB, Redirect(back.url), first=2)
    repository, _ = room(registry, login=True)
    assert read(repository) == RAW
    registry.fault("GET", BLOB, Redirect(back.url))
    with pytest.raises(NetworkError, match="redirects") as caught:
        read(repository)
    assert not caught.value.retryable
    no_credentials(back)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_only_a_read_is_led_elsewhere(fake_registry, recorder, method):
    registry = fake_registry(auth=bearer())
    registry.fault(method, r"/blobs/", Redirect(recorder.url), optional=True)
    shapes = ("stream",) if method == "PATCH" else ("put",)
    repository, _ = room(registry, login=True, profile=Profile(name="one", hosts="x", shapes=shapes))
    with pytest.raises(EpochOciError):
        repository.put(blob(RAW), BytesContent(RAW))
    recorder.assert_untouched()


@pytest.mark.parametrize("target", UNREADABLE)
@pytest.mark.parametrize("path", [BLOB, MANIFESTS])
def test_addresses_that_cannot_be_read_are_refused(fake_registry, target, path):
    registry = fake_registry(auth=bearer())
    registry.put_blob(REPO, RAW)
    registry.fault("GET", path, Respond(307, b"", ("Location", target)))
    repository, heard = room(registry, login=True)
    with pytest.raises(PolicyError) as caught:
        read(repository) if path == BLOB else repository.resolve("v1")
    assert "secret" not in str(caught.value) and not heard.waits


@pytest.mark.parametrize("target", UNREADABLE)
def test_upload_addresses_that_cannot_be_read_are_refused(fake_registry, target):
    registry = fake_registry()
    registry.fault("POST", UPLOADS, SetHeader("Location", target))
    repository, _ = room(registry)
    with pytest.raises(PolicyError):
        repository.put(blob(RAW), BytesContent(RAW))
    assert registry.recording.body_bytes("PUT|PATCH") == 0


@pytest.mark.parametrize("link", [f"<{target}>; rel=next" for target in UNREADABLE])
def test_list_addresses_that_cannot_be_read_are_refused(fake_registry, link):
    registry = fake_registry()
    registry.put_image(REPO, "v1", [b"x"])
    registry.fault("GET", "/tags/list", SetHeader("Link", link))
    with pytest.raises(PolicyError):
        list(room(registry)[0].tags())


@pytest.mark.parametrize("realm", [*UNREADABLE, "", "http://", "token", "//h/token"])
def test_realms_that_cannot_be_read_are_refused(fake_registry, realm):
    registry = fake_registry(auth=bearer())
    registry.fault("*", "/v2/", ForeignRealm(realm))
    with pytest.raises(PolicyError):
        room(registry, login=True)[0].has(blob(RAW))
    assert not registry.recording.traces(PASSWORD)


@pytest.mark.parametrize(
    ("here", "there", "allowed"),
    [
        ("https://r.example", "https://cdn.example", True),
        ("https://r.example", "http://cdn.example", False),
        ("https://r.example", "https://169.254.169.254", False),
        ("https://r.example", "https://127.0.0.1", False),
        ("https://r.example", "https://10.0.0.1", False),
        ("https://r.example", "https://[::1]", False),
        ("https://r.example", "https://[::ffff:10.0.0.1]", False),
        ("https://r.example", "https://[fe80::1%25eth0]", False),
        ("https://r.example", "https://localhost", False),
        ("https://r.example", "https://0.0.0.0", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:9000", True),
        ("http://10.0.0.1", "http://10.0.0.2", True),
    ],
)
def test_where_a_read_may_be_led(here, there, allowed):
    with nullcontext() if allowed else pytest.raises(PolicyError):
        check_hop(Origin.of(here), Origin.of(there))


def endless():
    yield b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\n\r\n"
    while True:
        yield b"x" * 65_536


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_body_of_a_redirect_is_not_read(fake_registry, method):
    registry = fake_registry()
    registry.fault(method, "/blobs/", Raw(endless), first=1)
    repository, _ = room(registry)
    acts = {
        "GET": lambda: read(repository),
        "HEAD": lambda: repository.has(blob(RAW)),
        "POST": lambda: repository.put(blob(RAW), BytesContent(RAW)),
    }
    with nullcontext() if method == "HEAD" else pytest.raises(EpochOciError):
        acts[method]()


# Uploads


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("shapes", [("stream",), ("ranged",)])
def test_a_session_that_moves_away_gets_no_further_byte(fake_registry, recorder, method, shapes):
    registry = fake_registry(auth=bearer())
    registry.fault(method, UPLOADS, ForeignLocation(recorder.url))
    profile = Profile(name="one", hosts="x", shapes=shapes, chunk=1 << 20)
    repository, _ = room(registry, login=True, profile=profile)
    with pytest.raises(PolicyError, match="--trust-host"):
        repository.put(blob(RAW), BytesContent(RAW))
    recorder.assert_untouched()
    assert not registry.blobs(REPO)


def test_a_trusted_upload_host_that_asks_for_credentials_gets_none(fake_registry, make_recorder):
    challenge = Answer.of(401, b"", ("WWW-Authenticate", 'Basic realm="give"'))
    registry, other = fake_registry(auth=BasicAuth()), make_recorder(challenge)
    registry.fault("POST", UPLOADS, ForeignLocation(other.url))
    repository, _ = room(registry, login=True, trusted=frozenset({other.address}))
    with pytest.raises(AccessError):
        repository.put(blob(RAW), BytesContent(RAW))
    no_credentials(other)


# Echoes


def tokens_of(registry) -> list[str]:
    sent = {request.header("authorization") for request in registry.recording.find("*", "/v2/")}
    return [header.split(" ")[1] for header in sent if header]


class Echo(Respond):
    """Gives the credentials it was sent back: in the body, an error's code and message, the reason, a header."""

    def before(self, exchange):
        exchange.fire()
        said = exchange.request.headers.get("Authorization", "").partition(" ")[2]
        if not said:
            return None
        body = f'{{"errors":[{{"code":"{said}","message":"no {said} here"}}]}}'
        headers = [("Content-Type", f"x/{said}"), ("Server", said), ("Location", f"/{said}?a={said}")]
        return Answer.of(self.status, body.encode(), *headers)


@pytest.mark.parametrize("auth", [bearer, BasicAuth], ids=["bearer", "basic"])
@pytest.mark.parametrize("status", [200, 307, 400, 403, 404, 422, 500])
@pytest.mark.parametrize("act", ["read", "resolve", "put", "publish", "has", "tags"])
def test_what_we_sent_is_not_shown_when_it_is_sent_back(fake_registry, auth, status, act):
    registry = fake_registry(auth=auth())
    registry.fault("*", "/v2/", Echo(status))
    repository, heard = room(registry, login=True, attempts=2)
    acts = {
        "read": lambda: read(repository),
        "resolve": lambda: repository.resolve("v1"),
        "put": lambda: repository.put(blob(RAW), BytesContent(RAW)),
        "publish": lambda: repository.publish("v1", DOCUMENT, replace=True),
        "has": lambda: repository.has(blob(RAW)),
        "tags": lambda: list(repository.tags()),
    }
    said = []
    try:
        acts[act]()
    except EpochOciError as error:
        said = [str(error), repr(error), str(error.object), str(error.hint)]
    said += [*heard.debug, *(f"{event}" for event in heard.events)]
    secrets = [PASSWORD, *tokens_of(registry)]
    assert heard.debug and len(secrets) > 1
    for secret in secrets:
        assert not canary.shows(secret, "\n".join(said))


def test_a_token_service_that_echoes_is_not_quoted(fake_registry):
    registry = fake_registry(auth=bearer())
    registry.fault("GET", "/token", Respond(500, f"you sent {PASSWORD}".encode()))
    repository, _ = room(registry, login=True, attempts=2)
    with pytest.raises(NetworkError) as caught:
        repository.has(blob(RAW))
    assert "you sent" in str(caught.value) and not canary.shows(PASSWORD, str(caught.value))


@pytest.mark.parametrize("body", [b"{}", b'{"token":7}', b'{"token":"a\\nb"}', b"[]", b"", b"x", b"[" * 70_000])
def test_an_answer_without_a_token_is_said_to_be_one(fake_registry, body):
    registry = fake_registry(auth=bearer())
    registry.fault("GET", "/token", ReplaceBody(body))
    with pytest.raises(ContentError, match="no token"):
        room(registry, login=True)[0].has(blob(RAW))


def test_an_encoded_token_is_none(fake_registry):
    registry = fake_registry(auth=bearer())
    registry.fault("GET", "/token", Gzip(b" " * (10 << 20)))
    with pytest.raises(ContentError):
        room(registry, login=True)[0].has(blob(RAW))


def test_a_token_service_that_leads_elsewhere_is_not_followed(fake_registry, recorder):
    registry = fake_registry(auth=bearer())
    registry.fault("GET", "/token", Redirect(recorder.url))
    with pytest.raises(EpochOciError):
        room(registry, login=True)[0].has(blob(RAW))
    recorder.assert_untouched()


@pytest.mark.parametrize("act", ["resolve", "read", "publish"])
def test_nothing_a_server_says_reaches_the_terminal_raw(fake_registry, act):
    evil = "\x1b[2J\u202e"
    registry = fake_registry()
    body = f'{{"errors":[{{"code":"{chr(92)}u001b[2J","message":"{chr(92)}u001b]0;x"}}]}}'.encode()
    registry.fault("*", "/v2/", Respond(400, body, ("Content-Encoding", "\x1b[2J"), ("Content-Type", "\x1b[2J")))
    repository, heard = room(registry)
    with pytest.raises(EpochOciError) as caught:
        {
            "resolve": lambda: repository.resolve("v1"),
            "read": lambda: read(repository),
            "publish": lambda: repository.publish("v1", DOCUMENT, replace=True),
        }[act]()
    said = "".join([str(caught.value), *heard.debug, redacted(f"https://h/{evil}")])
    assert not set(evil[:1] + evil[-1:]) & set(said)


# Elsewhere


def test_a_secret_that_breaks_a_header_is_final_and_not_shown(fake_registry):
    registry = fake_registry(auth=bearer())
    ready = Credential(registry_token=f"{PASSWORD}\r\nX-Injected: 1")
    repository, heard = room(registry, credentials=CredentialStore(explicit=ready))
    with pytest.raises(NetworkError) as caught:
        repository.has(blob(RAW))
    assert not heard.waits and PASSWORD not in str(caught.value)
    assert not registry.recording.traces(PASSWORD)


def test_a_mount_works_with_tokens_and_asks_for_both_repositories(fake_registry):
    for source in ("acme/a-sibling", "acme/zz-sibling", "aa/sibling"):
        registry = fake_registry(auth=bearer())
        registry.put_blob(source, RAW)
        repository, _ = room(registry, login=True)
        assert repository.mount(blob(RAW), source)
        assert str(blob(RAW).digest) in registry.blobs(REPO)


@pytest.mark.parametrize(("life", "margin"), [(300, 60), (40, 20)])
def test_a_token_is_renewed_before_its_end(fake_registry, life, margin):
    """The answer to a body that was sent with a token which ran out is lost (oci-registries 5.7)."""
    auth = BearerAuth({USER: PASSWORD}, anonymous=None, expires_in=life)
    registry, now = fake_registry(auth=auth), [0.0]
    repository, _ = room(registry, login=True, clock=lambda: now[0])
    assert not repository.has(blob(b"x"))
    now[0] = life - margin - 1.0
    assert not repository.has(blob(b"x"))
    assert len(auth.grants) == 1
    now[0] = life - margin + 1.0
    assert not repository.has(blob(b"x"))
    assert len(auth.grants) == 2
