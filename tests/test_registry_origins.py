"""Credentials and content go to the origin they were given for, and to nobody else (reliability C1 to C9, T1 to T3)."""

import pytest
from registry_room import RAW, blob, room
from support import canary
from support.content import manifest
from support.faults import ForeignLink, ForeignLocation, ForeignRealm, Redirect, Respond, SetHeader
from support.registry_auth import PASSWORD, USER, BasicAuth, BearerAuth
from support.tls import BAD
from support.wire import Answer

from epoch_oci.errors import AccessError, EpochOciError, NetworkError, NotFoundError, PolicyError
from epoch_oci.oci.document import Document
from epoch_oci.registry.trust import Origin, check_hop, realm_fits
from epoch_oci.stores.base import BytesContent

BLOB = r"/blobs/sha256:"


def bearer() -> BearerAuth:
    return BearerAuth({USER: PASSWORD}, anonymous=None)


def read(repository, raw: bytes = RAW) -> bytes:
    with repository.content(blob(raw)).open() as reader:
        return b"".join(iter(reader.read, b""))


def no_secret(recorder, registry) -> None:
    assert not recorder.shows(PASSWORD)
    for request in recorder.requests:
        assert request.header("authorization") is None and request.header("cookie") is None


@pytest.mark.parametrize("auth", [bearer, BasicAuth], ids=["bearer", "basic"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirected_blob_is_fetched_without_credentials(fake_registry, make_recorder, auth, status):
    registry, other = fake_registry(auth=auth()), make_recorder(Answer.of(200, RAW))
    registry.put_blob("acme/bot", RAW)
    registry.fault("GET", BLOB, Redirect(f"{other.url}/signed?sig=abc", status))
    repository, _ = room(registry, login=True)
    assert read(repository) == RAW
    no_secret(other, registry)


def test_a_redirect_target_that_asks_for_credentials_gets_none(fake_registry, make_recorder):
    challenge = Answer.of(401, b"", ("WWW-Authenticate", 'Basic realm="give"'))
    registry, other = fake_registry(auth=bearer()), make_recorder(challenge)
    registry.put_blob("acme/bot", RAW)
    registry.fault("GET", BLOB, Redirect(other.url))
    repository, _ = room(registry, login=True, attempts=2)
    with pytest.raises(EpochOciError):
        read(repository)
    no_secret(other, registry)


def test_a_redirect_down_from_https_is_refused(fake_registry, make_recorder, tls_kit):
    registry, other = fake_registry(tls="good"), make_recorder()
    registry.put_blob("acme/bot", RAW)
    registry.fault("GET", BLOB, Redirect(other.url))
    repository, _ = room(registry, ca_file=str(tls_kit.ca_file))
    with pytest.raises(PolicyError, match="not encrypted"):
        read(repository)
    other.assert_untouched()


@pytest.mark.parametrize("auth", [bearer, BasicAuth], ids=["bearer", "basic"])
def test_no_byte_goes_to_a_foreign_upload_location(fake_registry, recorder, auth):
    registry = fake_registry(auth=auth())
    registry.fault("POST", "/uploads/", ForeignLocation(recorder.url))
    repository, _ = room(registry, login=True)
    with pytest.raises(PolicyError, match="--trust-host"):
        repository.put(blob(RAW), BytesContent(RAW))
    recorder.assert_untouched()


def test_a_trusted_upload_location_gets_the_bytes_and_no_credentials(fake_registry, make_recorder):
    registry, other = fake_registry(auth=bearer()), make_recorder(Answer.of(201))
    registry.fault("POST", "/uploads/", ForeignLocation(other.url))
    repository, _ = room(registry, login=True, trusted=frozenset({other.address}))
    repository.put(blob(RAW), BytesContent(RAW))
    assert other.body_bytes() == len(RAW)
    no_secret(other, registry)


@pytest.mark.parametrize("login", [True, False])
def test_credentials_do_not_go_to_a_foreign_realm(fake_registry, login):
    registry = fake_registry(auth=bearer())
    registry.fault("*", "/v2/", ForeignRealm("http://tokens.invalid/token"))
    repository, heard = room(registry, login=login)
    if login:
        with pytest.raises(PolicyError, match=r"credentials.* --trust-host tokens.invalid"):
            repository.has(blob(RAW))
        assert not heard.waits
    for changes in ({"trusted": frozenset({"tokens.invalid"})}, {"login": False}):
        with pytest.raises(NetworkError, match=r"tokens.invalid.*name"):
            room(registry, **{"login": login, "attempts": 1} | changes)[0].has(blob(RAW))


def test_tokens_of_another_port_of_the_same_host_are_asked_for(fake_registry):
    auth = bearer()
    service, registry = fake_registry(auth=auth), fake_registry(auth=auth)
    auth.realm = f"{service.url}/token"
    registry.put_blob("acme/bot", RAW)
    assert room(registry, login=True)[0].has(blob(RAW))
    assert service.recording.count("GET", "/token") == 1


def test_https_never_leads_to_a_token_service_without(fake_registry, make_recorder, tls_kit):
    other = make_recorder()
    registry = fake_registry(tls="good", auth=bearer())
    registry.fault("*", "/v2/", ForeignRealm(f"{other.url}/token"))
    for changes in ({"login": True}, {"login": True, "trusted": frozenset({other.address})}, {"login": False}):
        with pytest.raises(PolicyError, match=r"not encrypted.*EPOCH_PUBLIC_URL"):
            room(registry, ca_file=str(tls_kit.ca_file), **changes)[0].has(blob(RAW))
    other.assert_untouched()


def test_a_foreign_page_of_a_list_is_refused(fake_registry, recorder):
    registry = fake_registry(auth=bearer(), page_size=2)
    for index in range(5):
        registry.put_image("acme/bot", f"v{index}", [b"x"])
    registry.fault("GET", "/tags/list", ForeignLink(recorder.url))
    repository, _ = room(registry, login=True)
    with pytest.raises(PolicyError):
        list(repository.tags())
    recorder.assert_untouched()


def test_secrets_are_in_no_message_and_no_debug_line(fake_registry):
    registry = fake_registry(auth=bearer())
    registry.put_blob("acme/bot", RAW)

    repository, heard = room(registry, login=True)
    assert read(repository) == RAW
    registry.fault("GET", "/manifests/", Respond(403, f"no, {PASSWORD}".encode()))
    with pytest.raises(AccessError) as caught:
        repository.resolve("v1")
    said = "\n".join([*heard.debug, str(caught.value), repr(repository._client.settings)])
    sent = [request.header("authorization") for request in registry.recording.find("GET", BLOB)]
    tokens = [header.split(" ")[1] for header in sent if header]
    assert tokens
    assert heard.debug
    for secret in (PASSWORD, *tokens):
        assert not canary.shows(secret, said)


def test_cookies_are_not_sent_back(fake_registry):
    registry = fake_registry()
    registry.put_blob("acme/bot", RAW)
    registry.fault("HEAD", BLOB, SetHeader("Set-Cookie", "sid=harbor; Path=/"))
    repository, _ = room(registry)
    assert repository.has(blob(RAW)) and repository.has(blob(RAW))
    assert all(request.header("cookie") is None for request in registry.recording.find("*", "/v2/"))


def test_netrc_and_proxies_of_the_environment_are_ignored(fake_registry, monkeypatch, isolated_home, recorder):
    registry = fake_registry()
    registry.put_blob("acme/bot", RAW)
    (isolated_home / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    (isolated_home / ".netrc").chmod(0o600)
    monkeypatch.setenv("http_proxy", recorder.url)
    monkeypatch.setenv("all_proxy", recorder.url)
    repository, _ = room(registry)
    assert repository.has(blob(RAW))
    recorder.assert_untouched()
    assert all(request.header("authorization") is None for request in registry.recording.find("*", "/v2/"))


def test_two_registries_do_not_share_credentials(fake_registry):
    first, second = fake_registry(auth=BasicAuth()), fake_registry(auth=BasicAuth())
    mine, _ = room(first, login=True)
    theirs, _ = room(second)
    assert not mine.has(blob(RAW))
    with pytest.raises(AccessError):
        theirs.has(blob(RAW))
    assert all(request.header("authorization") is None for request in second.recording.find("*", "/v2/"))


@pytest.mark.parametrize("variant", BAD)
def test_a_bad_certificate_is_final_and_nothing_is_sent(fake_registry, tls_kit, variant):
    registry = fake_registry(tls=variant)
    repository, heard = room(registry, ca_file=str(tls_kit.ca_file))
    with pytest.raises(NetworkError) as caught:
        repository.has(blob(RAW))
    assert not caught.value.retryable and not heard.waits
    assert not registry.recording.find("*", ".")


def test_insecure_skips_the_check_for_that_registry_alone(fake_registry, tls_kit):
    registry = fake_registry(tls=next(iter(BAD)))
    assert not room(registry, insecure=True)[0].has(blob(RAW))
    with pytest.raises(NetworkError):
        room(registry, ca_file=str(tls_kit.ca_file))[0].has(blob(RAW))


def test_a_wrong_password_is_said_at_once(fake_registry):
    for auth in (bearer(), BasicAuth(password="another")):
        registry = fake_registry(auth=auth)
        repository, heard = room(registry, login=True)
        if isinstance(auth, BasicAuth):
            with pytest.raises(AccessError):
                repository.resolve("v1")
            assert not heard.waits
        else:
            with pytest.raises(NotFoundError):
                repository.resolve("v1")


def test_a_manifest_is_put_only_where_it_belongs(fake_registry, recorder):
    registry = fake_registry()
    registry.fault("PUT", "/manifests/", Redirect(recorder.url, 307))
    repository, _ = room(registry)
    document = Document("application/vnd.oci.image.manifest.v1+json", manifest([b"x"]))
    with pytest.raises(EpochOciError):
        repository.publish("v1", document, replace=True)
    recorder.assert_untouched()


def test_which_realms_may_see_credentials(subtests):
    for registry, realm, fits in [
        ("https://ghcr.io", "https://ghcr.io/token", True),
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("https://one.azurecr.io", "https://login.example/token", True),
        ("https://registry.example", "https://10.0.0.7:8443/token", True),
        ("https://ghcr.io", "http://ghcr.io/token", False),
        ("https://127.0.0.1:5000", "http://127.0.0.1:5001/token", False),
        ("http://registry.example.com", "https://registry.example.com:8443/token", True),
        ("http://registry.example.com:5000", "http://registry.example.com:5001/token", True),
        ("http://registry.git.acme.test", "http://git.acme.test/jwt/auth", True),
        ("http://registry.git.acme.test", "http://acme.test/jwt/auth", True),
        ("http://registry.acme.test", "http://auth.acme.test:8080/token", True),
        ("http://registry.acme.test", "http://127.0.0.1:5001/token", True),
        ("http://10.0.0.5:5000", "http://10.0.0.5:5001/token", True),
        ("http://127.0.0.1:5000", "http://localhost:5001/token", True),
        ("http://registry.acme.test", "http://evil.test/token", False),
        ("http://registry.acme.test", "https://evil.test/token", False),
        ("http://registry.acme.test", "http://acme.test.evil.test/token", False),
        ("http://registry.acme.test", "http://test/token", False),
        ("http://acme.co.uk", "http://co.uk/token", False),
        ("http://acme.co.uk", "http://evil.co.uk/token", False),
        ("http://one.azurecr.io", "http://two.azurecr.io/token", False),
        ("http://a.github.io", "http://github.io/", False),
        ("http://10.0.0.5:5000", "http://0.0.5/token", False),
        ("http://example.com", "http://auth.example.com/token", True),
        ("http://auth.example.com", "http://example.com/token", True),
        ("http://example.com", "http://other.com/token", False),
        ("http://a.acme.io", "http://b.acme.io/token", True),
        ("http://a.corp.example", "http://b.corp.example/token", True),
        ("http://a.co.uk", "http://b.co.uk/token", False),
        ("http://a.com.au", "http://b.com.au/token", False),
        ("http://a.hub.de", "http://b.hub.de/token", False),
        ("http://10.0.0.5:5000", "http://10.0.0.6:5000/token", False),
        ("http://registry:5000", "http://auth:5001/token", False),
    ]:
        with subtests.test(registry=registry):
            assert realm_fits(Origin.of(registry), Origin.of(realm)) is fits


@pytest.mark.parametrize("url", ["ftp://a/b", "file:///etc", "http://user:secret@host/", "//host", "http://", ""])
def test_urls_that_no_registry_may_name(url):
    with pytest.raises(PolicyError) as caught:
        Origin.of(url)
    assert "secret" not in str(caught.value)


def test_redirects_without_end_are_given_up(fake_registry):
    """Twenty and then the blob: whoever has no cap gets there."""
    registry = fake_registry()
    registry.put_blob("acme/bot", RAW)
    url = f"{registry.url}/v2/acme/bot/blobs/{blob(RAW).digest}"
    rule = registry.fault("GET", BLOB, Redirect(url), first=20)
    repository, heard = room(registry)
    with pytest.raises(NetworkError, match="more than 5 redirects") as caught:
        read(repository)
    assert (caught.value.retryable, heard.waits, rule.fired) == (False, [], 6)


@pytest.mark.parametrize(
    ("here", "there", "why"),
    [
        ("https://a.example", "https://cdn.example", None),
        ("https://a.example", "http://cdn.example", "not encrypted"),
        ("http://a.example", "https://cdn.example", None),
        ("http://a.example", "http://cdn.example", None),
        ("https://a.example", "https://10.0.0.5", "inside this network"),
        ("https://a.example", "https://[fe80::1]", "inside this network"),
        ("https://a.example", "https://127.0.0.1", "inside this network"),
        ("https://a.example", "https://localhost", "inside this network"),
        ("http://a.example", "http://169.254.169.254", "inside this network"),
        ("https://8.8.8.8", "https://10.0.0.5", "inside this network"),
        ("http://a.example", "http://127.1", "inside this network"),
        ("http://a.example", "http://2130706433", "inside this network"),
        ("http://a.example", "http://0x7f.0.0.1", "inside this network"),
        ("http://a.example", "http://0xa9fea9fe", "inside this network"),
        ("http://a.example", "http://169.254.169.254.", "inside this network"),
        ("http://a.example", "http://１２７.0.0.1", "inside this network"),
        ("http://a.example", "http://[64:ff9b::a9fe:a9fe]", "inside this network"),
        ("http://a.example", "http://[2002:a00:5::1]", "inside this network"),
        ("http://a.example", "http://[::ffff:10.0.0.5]", "inside this network"),
        ("http://a.example", "http://localhost.", "inside this network"),
        ("http://a.example", "http://x.localhost", "inside this network"),
        ("http://a.example", "http://8.8.8.8.", None),
        ("http://a.example", "http://134744072", None),
        ("http://a.example", "http://[64:ff9b::808:808]", None),
        ("http://127.1:5000", "http://10.0.0.6:9000", None),
        ("http://a.example", "http://localhost.example", None),
        ("https://a.example", "https://8.8.8.8", None),
        ("http://10.0.0.5:5000", "http://10.0.0.6:9000", None),
        ("http://10.0.0.5:5000", "http://10.0.0.5:9000", None),
        ("http://10.0.0.5:5000", "https://cdn.example", None),
        ("http://localhost:5000", "http://10.0.0.6:9000", None),
    ],
)
def test_where_a_registry_may_lead(here, there, why):
    if why is None:
        return check_hop(Origin.of(here), Origin.of(there))
    with pytest.raises(PolicyError, match=why) as caught:
        check_hop(Origin.of(here), Origin.of(there))
    assert caught.value.object == there and here in str(caught.value) and there in str(caught.value)
    return None
