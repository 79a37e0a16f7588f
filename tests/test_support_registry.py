"""The fake registry conforms; CNCF distribution says the same wherever it does not deviate on purpose."""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import nullcontext

import pytest
from support import conformance
from support.client import Client, with_digest
from support.conformance import CHECKS, DATA, DIGEST
from support.content import MANIFEST, OCTETS, digest_of, manifest, noise
from support.registry_auth import OMIT, PASSWORD, USER, BasicAuth, BearerAuth
from support.tls import BAD


def test_the_list_covers_at_least_thirty_behaviours():
    assert len(CHECKS) >= 30


def test_fake_conforms(fake_registry, subtests):
    for number, check in enumerate(CHECKS):
        with subtests.test(check=str(check)), Client(fake_registry().url) as client:
            check.run(client, f"t/n{number}")


def test_distribution_agrees(live_registry, repo_name, subtests):
    for number, check in enumerate(CHECKS):
        deviates = live_registry.kind in check.deviates
        wrong = pytest.raises((AssertionError, KeyError, http.client.HTTPException)) if deviates else nullcontext()
        with subtests.test(check=str(check)), live_registry.client() as client, wrong:
            check.run(client, f"{repo_name}/n{number}")


def test_urllib_reads_the_fake_too(fake_registry):
    registry = fake_registry()
    digest = registry.put_blob("a/b", DATA)
    with urllib.request.urlopen(f"{registry.url}/v2/a/b/blobs/{digest}") as response:
        assert response.read() == DATA
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(f"{registry.url}/v2/a/b/blobs/{conformance.ABSENT}")
    with missing.value as error:
        assert error.code == 404


def test_seeded_content_is_served_and_sent_content_is_seen(fake_registry):
    registry = fake_registry()
    digest = registry.put_image("a/b", "v1", [b"one", b"two"], b"{}")
    with Client(registry.url) as client:
        assert client.manifest("a/b", "v1").header("Docker-Content-Digest") == digest
        sent = client.push_blob("a/b", DATA)
    assert registry.blob("a/b", sent) == DATA
    assert registry.blobs("a/b")[sent] == len(DATA)
    assert registry.tags("a/b") == {"v1": digest}
    assert registry.manifests("a/b")[digest] == registry.manifest("a/b", "v1")
    assert registry.uploads("a/b") == {}


def test_everything_is_recorded(fake_registry):
    registry = fake_registry()
    with Client(registry.url, headers={"X-Secret": "hunter2-hunter2"}) as client:
        client.push_blob("a/b", noise(100_000))
    put = registry.recording.find("PUT", r"/blobs/uploads/.*digest=")[0]
    assert (put.method, put.status, put.body_size, len(put.body)) == ("PUT", 201, 100_000, 65536)
    assert put.body == noise(100_000)[:65536]
    assert registry.recording.count("POST", "/uploads/$") == 1
    assert registry.recording.body_bytes() == 100_000
    assert len(registry.traces("hunter2-hunter2")) == 2
    assert registry.traces("another-secret") == []


@pytest.mark.parametrize("encode", [str.encode, lambda s: s.encode().hex().encode(), lambda s: b64encode(s.encode())])
@pytest.mark.parametrize("before", ["", "x", "xy"])
def test_encoded_secrets_are_found(fake_registry, encode, before):
    registry = fake_registry()
    with Client(registry.url) as client:
        client.request("POST", "/v2/", encode(before + "hunter2-hunter2" + "tail"))
    assert len(registry.traces("hunter2-hunter2")) == 1


def test_spooled_blobs_stay_out_of_memory(fake_registry, tmp_path):
    registry = fake_registry(spool=tmp_path)
    data = noise(3_000_000)
    with Client(registry.url) as client:
        digest = client.push_blob("a/b", data)
        assert client.request("GET", f"/v2/a/b/blobs/{digest}").body == data
        part = client.request("GET", f"/v2/a/b/blobs/{digest}", Range="bytes=1000000-1999999")
    assert part.body == data[1_000_000:2_000_000]
    assert registry.repository("a/b").blobs[digest]._data == b""


def test_relative_locations_and_minimum_chunk(fake_registry):
    registry = fake_registry(location="relative", chunk_min_length=1024)
    with Client(registry.url) as client:
        reply = client.request("POST", "/v2/a/b/blobs/uploads/")
        assert reply.location.startswith("/v2/a/b/blobs/uploads/")
        assert reply.header("OCI-Chunk-Min-Length") == "1024"
        assert client.request("PUT", with_digest(reply.location, DIGEST), DATA).status == 201


def test_behaviour_can_be_switched_off(fake_registry):
    registry = fake_registry(check_references=False, strict_accept=False, referrers=False, mount=False, deletes=False)
    registry.put_blob("src", DATA)
    with Client(registry.url) as client:
        assert client.push_manifest("a/b", "v1", manifest([b"absent"])).status == 201
        assert client.request("GET", "/v2/a/b/manifests/v1").status == 200
        assert client.request("GET", f"/v2/a/b/referrers/{DIGEST}").status == 404
        assert client.request("POST", f"/v2/a/b/blobs/uploads/?mount={DIGEST}&from=src").status == 202
        assert client.request("DELETE", "/v2/a/b/manifests/v1").status == 405


def test_page_size_bounds_the_pages_of_a_client_that_asks_for_all(fake_registry):
    registry = fake_registry(page_size=2)
    for tag in "abc":
        registry.put_image("a/b", tag)
    with Client(registry.url) as client:
        reply = client.request("GET", "/v2/a/b/tags/list")
    assert b'["a", "b"]' in reply.body
    assert reply.header("Link") == '</v2/a/b/tags/list?last=b&n=2>; rel="next"'


@pytest.mark.parametrize("discard", [False, True])
def test_a_broken_upload_keeps_or_loses_its_session(fake_registry, discard):
    registry = fake_registry(discard_broken_uploads=discard)
    with Client(registry.url) as client:
        location = client.open_upload("a/b")
    with Client(registry.url) as client:
        client._connection.putrequest("PATCH", location.removeprefix(registry.url))
        client._connection.putheader("Content-Length", "10")
        client._connection.endheaders(b"12345")
    with Client(registry.url) as client:
        registry.recording.settle(1, "PATCH")
        reply = client.request("GET", location)
    assert (reply.status, reply.headers.get("Range")) == ((404, None) if discard else (204, "0-4"))


def test_restart_keeps_content_and_port_but_no_session(fake_registry):
    registry = fake_registry()
    digest = registry.put_image("a/b", "v1")
    address = registry.address
    with Client(registry.url) as client:
        location = client.open_upload("a/b")
        registry.restart()
        assert registry.address == address
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            client.request("GET", "/v2/")
        assert client.request("GET", location).status == 404
        assert client.manifest("a/b", "v1").header("Docker-Content-Digest") == digest


def test_early_answer_to_a_long_body_closes_the_connection(fake_registry):
    registry = fake_registry(auth=BasicAuth())
    with Client(registry.url) as client:
        with pytest.raises(OSError):
            client.request("PUT", "/v2/a/b/manifests/v1", noise(64 * 1024 * 1024))
        assert client.request("PUT", "/v2/a/b/manifests/v1", b"short").status == 401
        assert client.request("GET", "/v2/").status == 401
    assert registry.connections == 2


def test_expect_100_continue_is_answered_only_when_the_body_is_wanted(fake_registry):
    registry = fake_registry()
    with Client(registry.url) as client:
        location = client.open_upload("a/b").removeprefix(registry.url)
        sock = client._connection.sock
        head = "PATCH {} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        sock.sendall(head.format(location).encode())
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc" + head.format("/v2/a/b/blobs/uploads/unknown").encode())
        answers = b""
        while block := sock.recv(10_000):
            answers += block
    assert answers.startswith(b"HTTP/1.1 202")
    assert b"100 Continue" not in answers
    assert b"HTTP/1.1 404" in answers


# Authentication


def test_basic(fake_registry):
    registry = fake_registry(auth=BasicAuth())
    with Client(registry.url) as client:
        refused = client.request("GET", "/v2/")
        assert (refused.status, refused.header("WWW-Authenticate")) == (401, 'Basic realm="fake"')
        assert client.request("GET", "/v2/", Authorization=_basic(USER, "wrong-password")).status == 401
        assert client.request("GET", "/v2/", Authorization=_basic()).status == 200


def _basic(user=USER, password=PASSWORD):
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _token(client, scope="repository:a/b:pull", **headers):
    reply = client.request("GET", f"/token?service=fake-registry&scope={scope}", **headers)
    assert reply.status == 200, reply
    return json.loads(reply.body)


def test_bearer_challenge_names_realm_service_and_scope(fake_registry):
    registry = fake_registry(auth=BearerAuth())
    with Client(registry.url) as client:
        ping = client.request("GET", "/v2/").header("WWW-Authenticate")
        assert ping == f'Bearer realm="{registry.url}/token",service="fake-registry"'
        pull = client.manifest("a/b", "v1").header("WWW-Authenticate")
        assert pull == ping + ',scope="repository:a/b:pull"'
        mount = client.request("POST", f"/v2/a/b/blobs/uploads/?mount={DIGEST}&from=c").header("WWW-Authenticate")
        assert mount == ping + ',scope="repository:a/b:pull,push repository:c:pull"'


def test_bearer_token_holds_exactly_its_scope(fake_registry):
    registry = fake_registry(auth=BearerAuth())
    registry.put_image("a/b", "v1")
    with Client(registry.url) as client:
        bearer = "Bearer " + _token(client, Authorization=_basic())["token"]
        assert client.request("HEAD", f"/v2/a/b/blobs/{DIGEST}", Authorization=bearer).status == 404
        for method, path in (("POST", "/v2/a/b/blobs/uploads/"), ("GET", "/v2/other/tags/list")):
            refused = client.request(method, path, Authorization=bearer)
            assert refused.status == 401
            assert refused.header("WWW-Authenticate").endswith('error="insufficient_scope"')
        bearer = "Bearer " + _token(client, "repository:a/b:pull,push", Authorization=_basic())["token"]
        assert client.request("POST", "/v2/a/b/blobs/uploads/", Authorization=bearer).status == 202
    assert registry.auth.grants[0].access == {("a/b", "pull")}


def test_bearer_anonymous_tokens(fake_registry):
    with Client(fake_registry(auth=BearerAuth(anonymous=("pull",))).url) as client:
        bearer = "Bearer " + _token(client, "repository:a/b:pull,push")["token"]
        assert client.request("GET", "/v2/a/b/tags/list", Authorization=bearer).status == 404
        assert client.request("POST", "/v2/a/b/blobs/uploads/", Authorization=bearer).status == 401
    with Client(fake_registry(auth=BearerAuth(anonymous=None)).url) as client:
        assert client.request("GET", "/token?service=fake-registry").status == 401


def test_bearer_tokens_expire(fake_registry):
    registry = fake_registry(auth=BearerAuth(uses=2, expires_in=OMIT))
    with Client(registry.url) as client:
        answer = _token(client, Authorization=_basic())
        assert "expires_in" not in answer
        bearer = {"Authorization": "Bearer " + answer["token"]}
        assert [client.request("GET", "/v2/", **bearer).status for _ in range(3)] == [200, 200, 401]
        bearer = {"Authorization": "Bearer " + _token(client, Authorization=_basic())["token"]}
        registry.auth.expire_all()
        refused = client.request("GET", "/v2/", **bearer)
        assert refused.header("WWW-Authenticate").endswith('error="invalid_token"')


def test_bearer_wrong_password_and_identity_token(fake_registry):
    registry = fake_registry(auth=BearerAuth(identity_tokens=["identity-token"], offers_refresh=True, lifetime=7))
    form = "grant_type=refresh_token&service=fake-registry&scope=repository:a/b:pull&refresh_token="
    with Client(registry.url) as client:
        wrong = _basic(password="wrong")
        assert client.request("GET", "/token?service=fake-registry", Authorization=wrong).status == 401
        granted = client.request("POST", "/token", (form + "identity-token").encode())
        assert granted.status == 200
        assert json.loads(granted.body)["expires_in"] == 7
        assert client.request("POST", "/token", (form + "no-token").encode()).status == 401
        offline = client.request("GET", "/token?service=s&offline_token=true", Authorization=_basic())
        refresh = json.loads(offline.body)["refresh_token"]
        assert client.request("POST", "/token", (form + refresh).encode()).status == 200


# TLS


def test_tls_is_served(fake_registry, tls_kit):
    registry = fake_registry(tls="good", auth=BearerAuth())
    registry.put_image("a/b", "v1")
    with Client(registry.url, tls=tls_kit.client_context()) as client:
        realm = client.request("GET", "/v2/").header("WWW-Authenticate")
        assert f'realm="https://{registry.address}/token"' in realm
        bearer = "Bearer " + _token(client, Authorization=_basic())["token"]
        accept = {"Accept": MANIFEST}
        reply = client.request("GET", "/v2/a/b/manifests/v1", Authorization=bearer, **accept)
        assert digest_of(reply.body) == reply.header("Docker-Content-Digest")
        location = client.request("PUT", "/v2/a/b/manifests/v1", Content_Type=OCTETS)
        assert location.status == 401


@pytest.mark.parametrize("variant", BAD)
def test_bad_certificates_are_refused_by_a_strict_client(fake_registry, tls_kit, variant):
    registry = fake_registry(tls=variant)
    with Client(registry.url, tls=tls_kit.client_context()) as client, pytest.raises(ssl.SSLError):
        client.request("GET", "/v2/")
    assert len(registry.recording) == 0


def test_an_insecure_client_reaches_servers_with_bad_certificates(fake_registry):
    trusting = ssl._create_unverified_context()
    for variant in ("expired", "wrong-host", "foreign-ca"):
        with Client(fake_registry(tls=variant).url, tls=trusting) as client:
            assert client.request("GET", "/v2/").status == 200
