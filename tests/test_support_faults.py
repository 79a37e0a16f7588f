"""Every fault of the fake registry does what it says, and says so only when it did."""

import gzip
import http.client
import json
import time

import pytest
from support.client import Client, with_digest
from support.content import OCTETS, digest_of, noise
from support.faults import (
    ContentLength,
    DropResponse,
    ExpireTokens,
    Fault,
    Flip,
    ForeignLink,
    ForeignLocation,
    ForeignRealm,
    ForgetUploads,
    Gzip,
    IgnoreRange,
    LimitBody,
    LyingRange,
    MoveTag,
    Raw,
    Redirect,
    ReplaceBody,
    ResetRequest,
    Respond,
    SetHeader,
    SetStatus,
    ShiftRange,
    Stall,
    StallBody,
    Throttle,
    Trailing,
    Trickle,
    Truncate,
    Unauthorized,
    WrongDigest,
)
from support.registry_auth import BearerAuth
from support.waiting import PATIENCE, at_once, until

DATA = noise(10_000)
DIGEST = digest_of(DATA)
BLOB = f"/v2/a/b/blobs/{DIGEST}"
GONE = (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)


@pytest.fixture
def registry(fake_registry):
    registry = fake_registry()
    registry.put_blob("a/b", DATA)
    return registry


@pytest.fixture
def client(registry):
    with Client(registry.url) as client:
        yield client


# Rules


def test_a_rule_that_never_fired_is_an_error(registry, client):
    rule = registry.fault("GET", "/blobs/", Truncate(10**9))
    client.request("GET", BLOB)
    assert (rule.matched, rule.fired) == (1, 0)
    with pytest.raises(AssertionError, match="Truncate on GET '/blobs/': matched 1, fired 0"):
        registry.assert_fired()
    registry.clear_faults()


def test_an_optional_rule_may_stay_silent(registry):
    registry.fault("GET", "/never", Fault(), optional=True)
    registry.assert_fired()


@pytest.mark.parametrize(
    ("window", "statuses"),
    [
        ({}, [500, 500, 500, 500]),
        ({"nth": 2}, [200, 500, 200, 200]),
        ({"nth": (1, 3)}, [500, 200, 500, 200]),
        ({"first": 2}, [500, 500, 200, 200]),
    ],
)
def test_when_a_rule_applies(registry, client, window, statuses):
    rule = registry.fault("GET|HEAD", "/blobs/", Respond(500), **window)
    assert [client.request("GET", BLOB).status for _ in statuses] == statuses
    assert client.request("GET", "/v2/").status == 200
    assert rule.fired == statuses.count(500)


def test_a_predicate_narrows_a_rule(registry, client):
    rule = registry.fault("GET", "", Respond(500), when=lambda request: "Range" in request.headers, nth=1)
    assert client.request("GET", BLOB).status == 200
    assert client.request("GET", BLOB, Range="bytes=0-1").status == 500
    assert (rule.matched, rule.fired) == (1, 1)


def test_several_rules_meet_on_one_request(registry, client):
    registry.fault("GET", "/blobs/", Respond(503, b"0123456789", ("Retry-After", "1")))
    registry.fault("GET", "/blobs/", Truncate(4))
    with pytest.raises(http.client.IncompleteRead) as cut:
        client.request("GET", BLOB)
    assert cut.value.partial == b"0123"


# Before the registry acts


def test_respond_does_nothing_but_answer(registry, client):
    registry.fault("POST", "/uploads/", Respond(403, code="DENIED", message="secondary rate limit"))
    reply = client.request("POST", "/v2/a/b/blobs/uploads/")
    assert (reply.status, json.loads(reply.body)["errors"][0]["code"]) == (403, "DENIED")
    assert registry.uploads("a/b") == {}


@pytest.mark.parametrize("value", [7, "Wed, 21 Oct 2015 07:28:00 GMT", "junk", -1, None])
def test_throttle(registry, client, value):
    registry.fault("GET", "/blobs/", Throttle(value))
    reply = client.request("GET", BLOB)
    assert (reply.status, reply.headers.get("Retry-After")) == (429, None if value is None else str(value))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(registry, client, recorder, status):
    registry.fault("GET", "/blobs/", Redirect(recorder.url, status), nth=1)
    registry.fault("GET", "/blobs/", Redirect("http://elsewhere/x?sig=1", status), nth=2)
    registry.fault("GET", "/blobs/", Redirect(lambda request: f"//h{request.path}", status), nth=3)
    replies = [client.request("GET", BLOB) for _ in range(3)]
    assert [reply.status for reply in replies] == [status] * 3
    assert [r.location for r in replies] == [f"{recorder.url}{BLOB}", "http://elsewhere/x?sig=1", f"//h{BLOB}"]


def test_unauthorized_carries_the_registrys_challenge(fake_registry):
    registry = fake_registry(auth=BearerAuth())
    registry.fault("PATCH", "/uploads/", Unauthorized(), nth=1)
    with Client(registry.url) as client:
        reply = client.request("PATCH", "/v2/a/b/blobs/uploads/1")
    assert (
        reply.header("WWW-Authenticate") == f'Bearer realm="{registry.url}/token",service="fake-registry",'
        'scope="repository:a/b:pull,push",error="invalid_token"'
    )


def test_stall(registry, client):
    registry.fault("GET", "/blobs/", Stall(0.2))
    start = time.monotonic()
    assert client.request("GET", BLOB).body == DATA
    assert time.monotonic() - start >= 0.2


def test_a_stall_ends_with_the_registry(fake_registry):
    registry = fake_registry()
    registry.fault("GET", "/v2/", Stall(PATIENCE))
    with Client(registry.url) as client:
        client._connection.request("GET", "/v2/")
        until(lambda: registry.rules[0].fired)
        with at_once():
            registry.restart()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("rst", [False, True])
def test_reset_request_keeps_what_had_arrived(registry, client, rst, chunked):
    registry.fault("PATCH", "/uploads/", ResetRequest(4_000, rst=rst))
    location = client.open_upload("a/b")
    with pytest.raises(GONE):
        client.request("PATCH", location, iter([DATA]) if chunked else DATA, Content_Type=OCTETS)
    assert client.request("GET", location).header("Range") == "0-3999"
    patch = registry.recording.find("PATCH")[0]
    assert (patch.cut, patch.status, patch.body_size) == (True, None, 4_000)


def test_reset_request_before_the_body(registry, client):
    registry.fault("GET", "/blobs/", ResetRequest(), nth=1)
    with pytest.raises(GONE):
        client.request("GET", BLOB)
    assert client.request("GET", BLOB).status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_limit_body(registry, client, chunked):
    rule = registry.fault("PATCH", "/uploads/", LimitBody(5_000, 416))
    location = client.open_upload("a/b")
    reply = client.request("PATCH", location, iter([DATA]) if chunked else DATA, Content_Type=OCTETS)
    assert (reply.status, rule.fired) == (416, 1)
    short = client.request("PATCH", client.open_upload("a/b"), DATA[:5_000], Content_Type=OCTETS)
    assert (short.status, rule.fired) == (202, 1)


def test_ignore_range(registry, client):
    rule = registry.fault("GET", "/blobs/", IgnoreRange())
    assert client.request("GET", BLOB).status == 200
    assert rule.fired == 0
    reply = client.request("GET", BLOB, Range="bytes=5-")
    assert (reply.status, reply.body) == (200, DATA)


def test_forget_uploads(registry, client):
    registry.fault("PATCH", "/uploads/", ForgetUploads(), nth=2)
    location = client.request("PATCH", client.open_upload("a/b"), DATA, Content_Type=OCTETS).location
    assert client.request("PATCH", location, DATA, Content_Type=OCTETS).status == 404


def test_expire_tokens(fake_registry):
    registry = fake_registry(auth=BearerAuth(anonymous=("pull",)))
    registry.fault("GET", "/v2/$", ExpireTokens(), nth=2)
    with Client(registry.url) as client:
        token = json.loads(client.request("GET", "/token").body)["token"]
        statuses = [client.request("GET", "/v2/", Authorization=f"Bearer {token}").status for _ in range(3)]
    assert statuses == [200, 401, 401]


def test_move_tag(registry, client):
    digests = [registry.put_image("a/b", "v1", [bytes([n])]) for n in range(2)]
    registry.fault("GET|HEAD", "/manifests/v1", MoveTag("a/b", "v1", digests))
    seen = [client.manifest("a/b", "v1").header("Docker-Content-Digest") for _ in range(4)]
    assert seen == digests * 2


def test_raw(registry, client):
    registry.fault("GET", "/blobs/", Raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc"), nth=1)
    registry.fault("GET", "/blobs/", Raw(lambda: iter([b"HTTP/1.1 100 Continue\r\n\r\n"] * 50 + [b"junk"])), nth=2)
    assert client.request("GET", BLOB).body == b"abc"
    with pytest.raises(http.client.HTTPException):
        client.request("GET", BLOB)


# After it acted


@pytest.mark.parametrize("rst", [False, True])
def test_drop_response(registry, client, rst):
    registry.fault("PUT", "/uploads/", DropResponse(rst=rst))
    new = noise(100, 1)
    with pytest.raises(GONE):
        client.request("PUT", with_digest(client.open_upload("a/b"), digest_of(new)), new)
    assert registry.blob("a/b", digest_of(new)) == new


def test_set_status_and_header(registry, client):
    registry.fault("PATCH", "/uploads/", SetStatus(201))
    registry.fault("PATCH", "/uploads/", SetHeader("Range", "0-1", "0-2"))
    registry.fault("PATCH", "/uploads/", SetHeader("Location"))
    reply = client.request("PATCH", client.open_upload("a/b"), DATA)
    assert (reply.status, reply.headers.get_all("Range"), reply.headers.get("Location")) == (201, ["0-1", "0-2"], None)


def test_wrong_digest_header(registry, client):
    registry.fault("HEAD", "/blobs/", WrongDigest())
    assert client.request("HEAD", BLOB).header("Docker-Content-Digest") == "sha256:" + "0" * 64


@pytest.mark.parametrize("location", ["absolute", "relative"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_foreign_location(fake_registry, recorder, location, method):
    registry = fake_registry(location=location)
    with Client(registry.url) as client:
        own = client.open_upload("a/b")
        registry.fault(method, "/uploads/", ForeignLocation(recorder.url))
        foreign = client.request(method, "/v2/a/b/blobs/uploads/" if method == "POST" else own).location
    assert foreign.startswith(f"{recorder.url}/v2/a/b/blobs/uploads/")
    assert "?_state=" in foreign
    recorder.assert_untouched()


def test_foreign_realm(fake_registry, recorder):
    registry = fake_registry(auth=BearerAuth())
    registry.fault("GET", "/v2/$", ForeignRealm(f"{recorder.url}/token"))
    with Client(registry.url) as client:
        challenge = client.request("GET", "/v2/").header("WWW-Authenticate")
    assert challenge == f'Bearer realm="{recorder.url}/token",service="fake-registry"'


def test_foreign_link(fake_registry, recorder):
    registry = fake_registry(page_size=1)
    for tag in "ab":
        registry.put_image("a/b", tag)
    registry.fault("GET", "/tags/list", ForeignLink(recorder.url))
    with Client(registry.url) as client:
        link = client.request("GET", "/v2/a/b/tags/list").header("Link")
    assert link == f'<{recorder.url}/v2/a/b/tags/list?last=a&n=1>; rel="next"'


def test_shifted_and_lying_range(registry, client):
    registry.fault("GET", "/blobs/", ShiftRange(10), nth=1)
    registry.fault("GET", "/blobs/", LyingRange(10), nth=2)
    shifted, lying = (client.request("GET", BLOB, Range="bytes=100-199") for _ in range(2))
    assert (shifted.header("Content-Range"), shifted.body) == ("bytes 110-209/10000", DATA[100:200])
    assert lying.header("Content-Range") == "bytes 100-199/10000"
    assert lying.body == DATA[110:200] + DATA[100:110]


@pytest.mark.parametrize(
    ("values", "outcome"), [((), DATA), ((9_000,), DATA[:9_000]), ((9_999, 10_000), DATA[:9_999]), ((10_001,), None)]
)
def test_content_length(registry, client, values, outcome):
    registry.fault("GET", "/blobs/", ContentLength(*values))
    if outcome is None:
        with pytest.raises(http.client.IncompleteRead):
            client.request("GET", BLOB)
        return
    reply = client.request("GET", BLOB)
    assert reply.body == outcome
    assert reply.headers.get_all("Content-Length", []) == [str(value) for value in values]


def test_gzip(registry, client):
    registry.fault("GET", "/blobs/", Gzip(), nth=1)
    registry.fault("GET", "/blobs/", Gzip(bytes(10**6)), nth=2)
    first, bomb = (client.request("GET", BLOB) for _ in range(2))
    assert first.header("Content-Encoding") == bomb.header("Content-Encoding") == "gzip"
    assert gzip.decompress(first.body) == DATA
    assert first.header("Content-Length") == str(len(first.body))
    assert len(bomb.body) < 2_000


def test_replace_body(registry, client):
    registry.fault("GET", "/blobs/", ReplaceBody(b"<html>"))
    reply = client.request("GET", BLOB)
    assert (reply.body, reply.header("Content-Length"), reply.header("Docker-Content-Digest")) == (
        b"<html>",
        "6",
        DIGEST,
    )


# While the body goes out


@pytest.mark.parametrize("after", [0, 1, 4_000, 9_999])
def test_truncate_with_fin(registry, client, after):
    registry.fault("GET", "/blobs/", Truncate(after))
    with pytest.raises(http.client.IncompleteRead) as cut:
        client.request("GET", BLOB)
    assert cut.value.partial == DATA[:after]


def test_truncate_with_reset_delivers_what_it_sent(registry, client):
    registry.fault("GET", "/blobs/", Truncate(4_000, rst=True))
    client._connection.request("GET", BLOB)
    response = client._connection.getresponse()
    assert response.read(4_000) == DATA[:4_000]
    with pytest.raises(ConnectionResetError):
        response.read()
    response.close()


@pytest.mark.parametrize("offset", [0, 5_000, 9_999])
def test_flip(registry, client, offset):
    registry.fault("GET", "/blobs/", Flip(offset, 0x80))
    body = client.request("GET", BLOB).body
    wrong = [place for place in range(len(DATA)) if body[place] != DATA[place]]
    assert (wrong, body[offset] ^ DATA[offset], len(body)) == ([offset], 0x80, len(DATA))


def test_a_flip_beyond_the_body_does_not_count(registry, client):
    rule = registry.fault("GET", "/blobs/", Flip(10_000), optional=True)
    assert client.request("GET", BLOB).body == DATA
    assert rule.fired == 0


@pytest.mark.parametrize("declared", [True, False])
def test_trailing(registry, client, declared):
    registry.fault("GET", "/blobs/", Trailing(b"more", declared=declared))
    client._connection.request("GET", BLOB)
    sock = client._connection.sock.dup()
    with sock, client._connection.getresponse() as response:
        assert response.length == len(DATA) + 4 * declared
        assert response.read() == DATA + b"more" * declared


def test_stalled_and_trickled_bodies(registry, client):
    registry.fault("GET", "/blobs/", StallBody(0.2, after=5_000), nth=1)
    trickle = registry.fault("GET", "/blobs/", Trickle(1_000, 0.02), nth=2)
    for _ in range(2):
        start = time.monotonic()
        assert client.request("GET", BLOB).body == DATA
        assert time.monotonic() - start >= 0.2
    assert trickle.fired == 10
