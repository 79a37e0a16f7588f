"""How a registry asks who we are, in every way that is found in the wild, and what it is answered."""

import base64
import gzip
import json
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from registry_room import RAW, blob, room
from support import canary
from support.faults import Redirect, Respond, SetHeader
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth, basic_credentials
from support.waiting import PATIENCE
from support.wire import Answer

from epoch_oci.errors import AccessError, ContentError, EpochOciError, NotFoundError, PolicyError
from epoch_oci.registry.auth_token import Challenge, parse_challenges
from epoch_oci.registry.credentials import Credential, CredentialStore
from epoch_oci.registry.policy import RegistrySettings
from epoch_oci.registry.profiles import Profile
from epoch_oci.registry.repository import RegistryHost, verify_login
from epoch_oci.stores.base import BytesContent

BLOB, UPLOADS, TOKEN = r"/blobs/sha256:", "/uploads/", "/token"
REPO = "acme/bot"
RANGED = Profile(name="ranged", hosts="x", shapes=("ranged",), chunk=1 << 20)


def bearer(**options) -> BearerAuth:
    return BearerAuth({USER: PASSWORD}, **{"anonymous": None} | options)


def put(repository, raw: bytes = RAW) -> None:
    repository.put(blob(raw), BytesContent(raw))


def schemes(registry, method: str = "*", pattern: str = "/v2/") -> list[str]:
    """How requests were authorised: "Basic", "Bearer", or "" for not at all."""
    found = registry.recording.find(method, pattern)
    return [(request.header("authorization") or "").partition(" ")[0] for request in found]


def kept(tmp_path, registry, **entry) -> CredentialStore:
    """Credentials in a file, as a login leaves them."""
    path = tmp_path / "auth.json"
    entry = entry or {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    path.write_text(json.dumps({"auths": {registry.address: entry}}))
    path.chmod(0o600)
    return CredentialStore(config=str(path))


# Registries that hide


class Hiding:
    """Mixed into who may do what: strangers are told nothing anywhere but at the front door."""

    status = 404

    def challenge(self, request, needs, error=""):
        if request.path == "/v2/" or "Authorization" in request.headers:
            return super().challenge(request, needs, error)
        if self.status == 401:
            return Answer.of(401)
        return Answer.error(self.status, "NAME_UNKNOWN" if self.status == 404 else "DENIED", "no such thing")


class HidingBasic(Hiding, BasicAuth):
    pass


class HidingBearer(Hiding, BearerAuth):
    pass


@pytest.fixture(params=[HidingBasic, lambda: HidingBearer(anonymous=None)], ids=["basic", "bearer"])
def hidden(request, fake_registry):
    registry = fake_registry(auth=request.param())
    registry.put_image(REPO, "v1", [RAW])
    return registry


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("act", ["resolve", "has", "tags", "put", "read"])
def test_what_a_registry_hides_is_found_with_credentials(hidden, status, act):
    hidden.auth.status = status
    repository, _ = room(hidden, login=True)
    match act:
        case "resolve":
            assert repository.resolve("v1").raw == hidden.manifest(REPO, "v1")
        case "has":
            assert repository.has(blob(RAW))
        case "tags":
            assert list(repository.tags()) == ["v1"]
        case "put":
            put(repository, RAW[:1000])
        case "read":
            with repository.content(blob(RAW)).open() as reader:
                assert b"".join(iter(reader.read, b"")) == RAW
    assert hidden.recording.count("GET", r"/v2/\Z") == 1


def test_the_front_door_is_asked_once_and_by_nobody_without_credentials(hidden, fake_registry):
    repository, _ = room(hidden)
    for _ in range(3):
        with pytest.raises(NotFoundError):
            repository.resolve("v1")
    assert hidden.recording.count("GET", r"/v2/\Z") == 0
    open_to_all = fake_registry()
    repository, _ = room(open_to_all, login=True)
    for _ in range(3):
        assert not repository.has(blob(RAW))
    assert open_to_all.recording.count("GET", r"/v2/\Z") == 1
    assert set(schemes(open_to_all)) == {""}


# Who is asked, and when


@pytest.mark.parametrize(
    "config",
    [{"credsStore": "gone"}, {"credHelpers": {}, "credsStore": "../x"}, "{", "[]"],
    ids=["helper", "name", "json", "array"],
)
def test_what_is_wrong_with_credentials_matters_to_those_who_need_them(fake_registry, tmp_path, config):
    """Not where nobody asks, nor where anybody gets a token; a refusal says what was wrong."""
    path = tmp_path / "auth.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    store = CredentialStore({"PATH": "/nonexistent"}, str(path))
    for auth in (None, BearerAuth(anonymous=("pull",))):
        registry = fake_registry(auth=auth)
        registry.put_blob(REPO, RAW)
        repository, heard = room(registry, credentials=store)
        assert repository.has(blob(RAW)) and not repository.has(blob(RAW[1:]))
        assert len([event for event in heard.events if event.event == "warning"]) == (0 if auth is None else 1)
    for auth in (BasicAuth(), bearer(), BearerAuth(anonymous=("pull",))):
        repository, _ = room(fake_registry(auth=auth), credentials=store)
        with pytest.raises((AccessError, ContentError), match=rf"docker-credential-gone|credential helper|{path}"):
            put(repository)


def test_a_token_of_a_file_is_not_sent_before_it_is_asked_for(fake_registry, tmp_path):
    ready = "ready-made-token"

    class Ready(BearerAuth):
        def refuse(self, request, needs):
            known = request.headers.get("Authorization") == f"Bearer {ready}"
            return None if known else self.challenge(request, needs)

    registry = fake_registry(auth=Ready())
    registry.put_blob(REPO, RAW)
    repository, _ = room(registry, credentials=kept(tmp_path, registry, registrytoken=ready))
    assert repository.has(blob(RAW)) and repository.has(blob(RAW))
    assert schemes(registry) == ["", "Bearer", "Bearer"] and registry.recording.count("*", TOKEN) == 0
    open_to_all = fake_registry()
    room(open_to_all, credentials=kept(tmp_path, open_to_all, registrytoken=ready))[0].has(blob(RAW))
    assert not open_to_all.recording.traces(ready)


def test_credentials_that_change_on_the_way_are_looked_up_again(fake_registry, tmp_path):
    """Those of cloud registries live for hours, and a transfer may live longer."""
    registry = fake_registry(auth=BasicAuth())
    repository, _ = room(registry, credentials=kept(tmp_path, registry))
    put(repository)
    registry.auth.password = "another-password"
    with pytest.raises(AccessError):
        put(repository, RAW[:1000])
    entry = {"username": USER, "password": "another-password"}
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {registry.address: entry}}))
    put(repository, RAW[:1000])
    assert set(schemes(registry)) == {"", "Basic"}


class Slow(BasicAuth):
    """Keeps back the refusal of the first who says nothing of himself, or of the first with the `late` password."""

    def __init__(self, late: str | None) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()
        self._late = late

    def challenge(self, request, needs, error=""):
        if not self.asked.is_set() and (basic_credentials(request) or (None, None))[1] == self._late:
            self.asked.set()
            assert self.go_on.wait(PATIENCE)
        return super().challenge(request, needs, error)


@pytest.mark.parametrize("late", [None, PASSWORD], ids=["the scheme", "a password that changed"])
def test_a_refusal_that_comes_after_another_thread_was_let_in(fake_registry, tmp_path, late):
    auth = Slow(late)
    registry = fake_registry(auth=auth)
    repository, _ = room(registry, credentials=kept(tmp_path, registry))
    registry.put_blob(REPO, RAW)
    with ThreadPoolExecutor(1) as pool:
        if late:
            repository.has(blob(RAW))
            auth.password = "another-password"
            entry = {"username": USER, "password": "another-password"}
            (tmp_path / "auth.json").write_text(json.dumps({"auths": {registry.address: entry}}))
        slow = pool.submit(lambda: list(repository.tags()))
        assert auth.asked.wait(PATIENCE)
        try:
            assert repository.has(blob(RAW))
        finally:
            auth.go_on.set()
        assert slow.result() == []


# One scheme for a run


class Harbor(BearerAuth):
    """Asks for tokens those who send nothing, and for a password those who were refused; takes both."""

    def __init__(self, *, password: bool, **options) -> None:
        super().__init__({USER: PASSWORD}, **options)
        self._takes_password = password

    def refuse(self, request, needs):
        if (credentials := basic_credentials(request)) is not None:
            user = credentials[0] if self._takes_password and self._known(credentials) else None
            allowed = user and all(self._allow(user, name, action) for name, actions in needs for action in actions)
            return None if allowed else self.challenge(request, needs)
        return super().refuse(request, needs)

    def challenge(self, request, needs, error=""):
        if "Authorization" in request.headers:
            header = ("WWW-Authenticate", 'Basic realm="harbor"')
            return Answer.error(401, "UNAUTHORIZED", "unauthorized to access repository", header)
        return super().challenge(request, needs, error)


@pytest.mark.parametrize("password", [True, False], ids=["takes passwords", "takes tokens alone"])
@pytest.mark.parametrize("uses", [None, 2, 5])
def test_a_refused_cancel_moves_no_run_onto_the_password(fake_registry, password, uses):
    """A robot that may push and not delete, on a registry that answers every refusal in terms of Basic."""
    auth = Harbor(password=password, uses=uses, allow=lambda user, name, action: action != "delete")
    registry = fake_registry(auth=auth)
    repository, _ = room(registry, login=True, profile=RANGED)
    repository.check_write()
    put(repository)
    assert str(blob(RAW).digest) in registry.blobs(REPO)
    assert registry.recording.count("DELETE", UPLOADS) and "Basic" not in schemes(registry)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_catalog_that_wants_the_password_gets_it_and_moves_no_run_onto_it(fake_registry, allowed):
    """Harbor lists its repositories to no token, not even one for its catalog."""
    registry = fake_registry(auth=Harbor(password=True))
    registry.put_image(REPO, "v1")
    wants = Respond(401, b"", ("WWW-Authenticate", 'Basic realm="harbor"'))
    registry.fault("GET", "_catalog", wants, when=lambda request: not allowed or basic_credentials(request) is None)
    credentials = CredentialStore(explicit=Credential(USER, PASSWORD))
    host = RegistryHost(registry.address, RegistrySettings(plain_http=True, credentials=credentials))
    host.repository(REPO).resolve("v1")
    if allowed:
        assert list(host.catalog()) == [REPO]
    else:
        with pytest.raises(NotFoundError, match="no catalog"):
            list(host.catalog())
    host.repository(REPO).resolve("v1")
    assert registry.recording.count("GET", "_catalog") == 3
    assert (
        "Basic" not in schemes(registry, pattern="/manifests/") and schemes(registry, pattern="_catalog")[-1] == "Basic"
    )


def test_a_token_that_ran_out_is_renewed_whatever_the_registry_says_it_wants(fake_registry):
    registry = fake_registry(auth=Harbor(password=False))
    repository, _ = room(registry, login=True)
    for index in range(3):
        put(repository, RAW[: 1000 + index])
        registry.auth.expire_all()
    assert "Basic" not in schemes(registry)


def test_a_refusal_in_terms_of_tokens_moves_no_run_away_from_the_password(fake_registry, recorder):
    registry = fake_registry(auth=BasicAuth())
    challenge = f'Bearer realm="{recorder.url}/token",service="s"'
    registry.fault("DELETE", UPLOADS, Respond(401, b"", ("WWW-Authenticate", challenge)))
    repository, _ = room(registry, login=True, profile=RANGED)
    repository.check_write()
    put(repository)
    assert set(schemes(registry)[1:]) == {"Basic"}
    recorder.assert_untouched()


def test_where_both_are_offered_a_password_serves_when_there_is_no_token(fake_registry):
    class Both(BasicAuth):
        def challenge(self, request, needs, error=""):
            answer = super().challenge(request, needs, error)
            answer.headers.insert(0, ("WWW-Authenticate", f'Bearer realm="{request.origin}/token"'))
            return answer

    registry = fake_registry(auth=Both())
    registry.put_blob(REPO, RAW)
    assert room(registry, login=True)[0].has(blob(RAW))


@pytest.mark.parametrize("lead", ["", "//"], ids=["path", "host"])
def test_a_realm_may_be_a_path_on_the_registry(fake_registry, lead):
    registry = fake_registry(auth=bearer())
    registry.auth.realm = f"//{registry.address}/token" if lead else "/token"
    registry.put_blob(REPO, RAW)
    assert room(registry, login=True)[0].has(blob(RAW))
    assert registry.recording.count("GET", TOKEN) == 1


def test_a_realm_without_a_scheme_leads_no_password_to_another_host(fake_registry, recorder):
    registry = fake_registry(auth=bearer())
    registry.auth.realm = recorder.url.partition(":")[2].replace("127.0.0.1", "192.0.2.1") + "/token"
    registry.put_blob(REPO, RAW)
    with pytest.raises(PolicyError, match=r"192\.0\.2\.1"):
        room(registry, login=True)[0].has(blob(RAW))


@pytest.mark.parametrize("uses", [2, 3, 4])
@pytest.mark.parametrize("profile", [None, RANGED], ids=["whole", "ranged"])
def test_tokens_that_die_every_few_requests_serve_a_crowd(fake_registry, uses, profile):
    registry = fake_registry(auth=bearer(uses=uses, allow=lambda user, name, action: action != "delete"))
    repository, _ = room(registry, login=True, profile=profile)
    raws = [RAW[index:] for index in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda raw: put(repository, raw), raws))
    repository.check_write()
    assert set(registry.blobs(REPO)) == {str(blob(raw).digest) for raw in raws}


def test_a_right_that_is_lacking_costs_two_tokens_and_no_more(fake_registry):
    registry = fake_registry(auth=bearer(allow=lambda user, name, action: action == "pull"))
    repository, _ = room(registry, login=True)
    for _ in range(3):
        with pytest.raises(AccessError) as caught:
            repository.check_write()
        assert "lack the right" in str(caught.value) and "log in" not in str(caught.value)
    assert registry.recording.count("GET", TOKEN) <= 6


# What a refusal advises


def advice(registry, act=lambda repository: repository.check_write(), **changes) -> str:
    with pytest.raises(AccessError) as caught:
        act(room(registry, **changes)[0])
    assert "HOST" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("auth", [bearer, BasicAuth], ids=["bearer", "basic"])
def test_strangers_are_told_to_log_in(fake_registry, auth):
    registry = fake_registry(auth=auth())
    assert f"`epoch-oci login {registry.address}`" in advice(registry)


@pytest.mark.parametrize("auth", [bearer, BasicAuth], ids=["bearer", "basic"])
def test_who_is_refused_learns_whose_credentials_from_where(fake_registry, auth, tmp_path):
    registry = fake_registry(auth=auth())
    store = kept(tmp_path, registry, username="somebody", password="something-wrong")
    said = advice(registry, credentials=store)
    assert "of somebody" in said and str(tmp_path / "auth.json") in said and "something-wrong" not in said


def test_who_is_let_in_elsewhere_is_not_told_to_log_in(fake_registry):
    registry = fake_registry(auth=BasicAuth())
    registry.put_blob(REPO, RAW)
    registry.fault("POST", UPLOADS, Respond(401, b"", ("WWW-Authenticate", 'Basic realm="x"')))
    repository, _ = room(registry, login=True)
    assert repository.has(blob(RAW))
    with pytest.raises(AccessError) as caught:
        repository.check_write()
    assert "lack the right" in str(caught.value) and "log in" not in str(caught.value)


def test_who_is_forbidden_something_without_credentials_is_told_to_log_in(fake_registry):
    registry = fake_registry()
    registry.fault("POST", UPLOADS, Respond(403, b'{"errors":[{"code":"DENIED"}]}'))
    assert f"`epoch-oci login {registry.address}`" in advice(registry)
    registry = fake_registry(auth=BasicAuth())
    registry.put_blob(REPO, RAW)
    registry.fault("POST", UPLOADS, Respond(403, b'{"errors":[{"code":"DENIED"}]}'))
    repository, _ = room(registry, login=True)
    assert repository.has(blob(RAW))
    with pytest.raises(AccessError) as caught:
        repository.check_write()
    assert "log in" not in str(caught.value)


@pytest.mark.parametrize(("status", "logs_in"), [(401, True), (403, False), (400, True)])
def test_a_token_service_that_refuses_is_quoted(fake_registry, status, logs_in):
    registry = fake_registry(auth=bearer())
    registry.fault("GET", TOKEN, Respond(status, b'{"errors":[{"code":"DENIED","message":"not in this project"}]}'))
    said = advice(registry, login=True)
    assert "not in this project" in said and f"of {USER}" in said and ("epoch-oci login" in said) is logs_in


# Logging in


@pytest.mark.parametrize(
    ("auth", "password", "taken"),
    [
        (BasicAuth, PASSWORD, True),
        (BasicAuth, "wrong-password", False),
        (bearer, PASSWORD, True),
        (bearer, "wrong-password", False),
        (lambda: BearerAuth(anonymous=("pull",)), "wrong-password", False),
        (lambda: OpenDoor(), PASSWORD, True),
        (lambda: OpenDoor(), "wrong-password", False),
        (lambda: None, "whatever-it-is", True),
    ],
)
def test_a_login_is_tried_also_where_nobody_is_asked(fake_registry, auth, password, taken):
    registry = fake_registry(auth=auth())
    settings = room(registry, credentials=CredentialStore(explicit=Credential(USER, password)))[0]._client.settings
    if taken:
        return verify_login(registry.address, settings)
    with pytest.raises(AccessError) as caught:
        verify_login(registry.address, settings)
    assert not canary.shows(password, str(caught.value))
    return None


class OpenDoor(BasicAuth):
    """Lets anybody look, and looks itself at the credentials of whoever has some."""

    def refuse(self, request, needs):
        return super().refuse(request, needs) if "Authorization" in request.headers or needs else None


# Answers of token services


@pytest.mark.parametrize("member", ["token", "access_token"])
@pytest.mark.parametrize("user", [True, False])
def test_an_empty_token_means_that_nobody_is_logged_in(fake_registry, member, user):
    registry = fake_registry(auth=bearer())
    body = json.dumps({member: "", "expires_in": 3600, "issued_at": "2026-01-01T00:00:00Z"}).encode()
    registry.fault("GET", TOKEN, Respond(200, body))
    assert ("not taken" if user else "not logged in") in advice(registry, login=user)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("form", "encoding"),
    [
        (gzip.compress, "gzip"),
        (gzip.compress, ""),
        (zlib.compress, "deflate"),
        (raw_deflate, "deflate"),
        (bytes, "gzip"),
        (lambda body: b"\xef\xbb\xbf" + body, ""),
        (lambda body: b" \n" + body + b"\n", ""),
        (lambda body: json.dumps(json.loads(body)).encode("utf-16"), ""),
    ],
)
def test_tokens_in_every_wrapping(fake_registry, form, encoding):
    assert fetched(fake_registry, lambda token: form(json.dumps({"token": token}).encode()), encoding)


@pytest.mark.parametrize(
    "members",
    [
        lambda token: {"access_token": token},
        lambda token: {"token": None, "access_token": token},
        lambda token: {"token": "", "access_token": token},
        lambda token: {"token": token, "access_token": 7},
        lambda token: {"Token": token},
        lambda token: {"token": f" {token}\n"},
        *(
            (lambda token, life=life: {"token": token, "expires_in": life})
            for life in (
                0,
                -1,
                10**400,
                1e308,
                0.001,
                "300",
                "soon",
                "",
                None,
                True,
                [],
                {},
                float("nan"),
                float("inf"),
            )
        ),
    ],
)
def test_tokens_among_all_kinds_of_members(fake_registry, members):
    assert fetched(fake_registry, lambda token: json.dumps(members(token)).encode())


@pytest.mark.parametrize("status", [200, 201, 203])
def test_tokens_with_all_kinds_of_success(fake_registry, status):
    assert fetched(fake_registry, lambda token: json.dumps({"token": token}).encode(), status=status)


def fetched(fake_registry, form, encoding: str = "", status: int = 200) -> bool:
    """Whether a token that the service answers with in this form opens the registry, three times."""
    auth = bearer()
    registry = fake_registry(auth=auth)
    registry.put_blob(REPO, RAW)
    headers = [("Content-Encoding", encoding)] if encoding else []

    class Packed(Respond):
        def before(self, exchange):
            exchange.fire()
            assert auth.endpoint(exchange.request) is not None
            return Answer.of(status, form(auth.grants[-1].token), *headers)

    registry.fault("GET", TOKEN, Packed(200))
    repository, _ = room(registry, login=True)
    return all(repository.has(blob(RAW)) for _ in range(3))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_service_may_lead_on_within_itself(fake_registry, status):
    registry = fake_registry(auth=bearer(path="/service/token/"))
    registry.auth.realm = f"{registry.url}/token"
    registry.put_blob(REPO, RAW)
    registry.fault(
        "GET", r"^/token", Redirect(lambda request: f"/service/token/?{request.target.partition('?')[2]}", status)
    )
    assert room(registry, login=True)[0].has(blob(RAW))


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/token", "http://localhost.evil.test/", "https://evil.test/"])
def test_a_token_service_leads_nobody_else_where(fake_registry, target):
    registry = fake_registry(auth=bearer())
    registry.fault("GET", TOKEN, Redirect(target))
    with pytest.raises(EpochOciError) as caught:
        room(registry, login=True)[0].has(blob(RAW))
    assert "307" in str(caught.value)


# Challenges


BOTH = {"realm": "https://h/token", "service": "s"}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Bearer realm="https://h/token",service="s"', [("bearer", BOTH)]),
        ('bearer Realm="https://h/token", SERVICE="s"', [("bearer", BOTH)]),
        ('Bearer realm="https://h/token" service="s"', [("bearer", BOTH)]),
        ('Bearer realm="https://h/token"; service="s";', [("bearer", BOTH)]),
        ('Bearer realm = "https://h/token" ,, service= "s"', [("bearer", BOTH)]),
        ("Bearer realm=https://h/token,service=s", [("bearer", BOTH)]),
        ("Bearer realm='https://h/token',service='s'", [("bearer", BOTH)]),
        ('Bearer,realm="https://h/token",service="s"', [("bearer", BOTH)]),
        ('Bearer: realm="https://h/token",service="s"', [("bearer", BOTH)]),
        ('Bearer service="s",realm="https://h/token', [("bearer", BOTH)]),
        ('Bearer service="s",realm="https:\\/\\/h/token"', [("bearer", BOTH)]),
        ('Basic realm="a, Bearer b"', [("basic", {"realm": "a, Bearer b"})]),
        ("Basic", [("basic", {})]),
        ('Negotiate, NTLM, Basic realm="x"', [("negotiate", {}), ("ntlm", {}), ("basic", {"realm": "x"})]),
        ('Negotiate YIIa+/==, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Basic realm="x" Bearer realm="y"', [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
        ('Bearer realm="y", Basic realm="x"', [("bearer", {"realm": "y"}), ("basic", {"realm": "x"})]),
        ('"?" Basic realm="x", realm="z"', [("basic", {"realm": "x"})]),
        ("", []),
        (" , ;", []),
        ('realm="x"', []),
    ],
)
def test_challenges_as_they_are_found(header, found):
    assert parse_challenges(header) == [Challenge(scheme, parameters) for scheme, parameters in found]


@pytest.mark.parametrize(
    "text", ['a="' + "\\" * 100_000, "=" * 100_000, "a " * 50_000, "a='" * 50_000, "\xff" * 10_000]
)
def test_a_challenge_of_any_length_is_read_in_no_time(text):
    assert isinstance(parse_challenges(text), list)


def test_challenges_on_lines_of_their_own(fake_registry):
    registry = fake_registry(auth=BasicAuth())
    registry.put_blob(REPO, RAW)
    registry.fault("HEAD", BLOB, SetHeader("WWW-Authenticate", "Negotiate", 'Basic realm="x"'), first=1)
    assert room(registry, login=True)[0].has(blob(RAW))


def test_a_realm_is_found_in_a_challenge_that_is_divided_by_blanks(fake_registry):
    registry = fake_registry(auth=bearer())
    registry.put_blob(REPO, RAW)
    spaced = f'Bearer realm="{registry.url}/token" service="fake-registry"'
    registry.fault("HEAD", BLOB, SetHeader("WWW-Authenticate", spaced), first=1)
    assert room(registry, login=True)[0].has(blob(RAW))
