"""Recorder, fault proxy, live registries, peers and isolation."""

import http.client
import json
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from support import live, peers
from support.client import Client, with_digest
from support.content import OCTETS, digest_of, noise
from support.live import ensure_registry, find_registries
from support.net import Server
from support.peers import find_peer, requires_peer, run_peer
from support.proxy import DOWN, UP, Bandwidth, Cut, DropResponse, Latency, Slice, Stall
from support.registry_auth import PASSWORD, USER, BearerAuth
from support.wire import Answer

DATA = noise(100_000)
DIGEST = digest_of(DATA)
BLOB = f"/v2/a/b/blobs/{DIGEST}"
GONE = (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)


# Recorder


def test_recorder_keeps_every_byte(recorder):
    recorder.assert_untouched()
    with Client(recorder.url, headers={"Authorization": "Bearer hunter2-hunter2"}) as client:
        assert client.request("PUT", "/x?y=1", b"payload").status == 404
        assert client.request("GET", "/").status == 404
    assert recorder.connections == 1
    assert [(r.method, r.target, r.body) for r in recorder.requests] == [
        ("PUT", "/x?y=1", b"payload"),
        ("GET", "/", b""),
    ]
    assert recorder.received.startswith(b"PUT /x?y=1 HTTP/1.1\r\n")
    assert recorder.bytes_received == len(recorder.received)
    assert recorder.shows("hunter2-hunter2")
    assert not recorder.shows("hunter3-hunter3")
    with pytest.raises(AssertionError, match="1 connections"):
        recorder.assert_untouched()
    with pytest.raises(AssertionError, match="PUT /x"):
        recorder.assert_no_body()


def test_recorder_answers_as_told(make_recorder):
    fixed = make_recorder(Answer.of(200, b"hello"))
    echo = make_recorder(lambda request: Answer.of(200, request.method.encode()))
    silent = make_recorder()
    silent.answer = None
    for server, expected in ((fixed, b"hello"), (echo, b"GET")):
        with Client(server.url) as client:
            assert client.request("GET", "/").body == expected
    with Client(silent.url) as client, pytest.raises(GONE):
        client.request("GET", "/")


def test_recorder_with_a_bad_certificate_gets_no_application_byte(make_recorder, tls_kit):
    attacker = make_recorder(tls="foreign-ca")
    with Client(attacker.url, tls=tls_kit.client_context()) as client, pytest.raises(ssl.SSLError):
        client.request("GET", "/")
    assert (attacker.connections, attacker.bytes_received) == (1, 0)


def test_a_servers_own_error_is_raised_when_it_stops():
    class Broken(Server):
        def serve(self, sock: socket.socket) -> None:
            raise ValueError("bug")

    server = Broken().start()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        assert sock.recv(1) == b""
    with pytest.raises(ValueError, match="bug"):
        server.stop()


def test_no_thread_is_left_behind(fake_registry, recorder):
    registry = fake_registry()
    with socket.create_connection(("127.0.0.1", registry.port)), Client(registry.url) as client:
        client.request("GET", "/v2/")
        registry.stop()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("FakeRegistry")]


# Proxy


@pytest.fixture
def registry(fake_registry):
    registry = fake_registry()
    registry.put_blob("a/b", DATA)
    return registry


def _read_through(proxied):
    """What arrives of the blob, headers included, and how the connection ends."""
    with socket.create_connection(("127.0.0.1", proxied.port)) as sock:
        sock.settimeout(10)
        sock.sendall(f"GET {BLOB} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        arrived = b""
        try:
            while block := sock.recv(65536):
                arrived += block
        except ConnectionResetError:
            return arrived, "rst"
        return arrived, "fin"


def test_proxy_without_toxics_is_transparent(registry, proxy):
    proxied = proxy(registry)
    arrived, end = _read_through(proxied)
    assert (arrived.endswith(DATA), end) == (True, "fin")
    assert proxied.bytes_down == len(arrived)
    with Client(proxied.url) as client:
        assert digest_of(client.request("GET", BLOB).body) == client.push_blob("a/b", DATA)


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("after", [1, 100, 50_000])
def test_proxy_cuts_what_comes_down(registry, proxy, how, after):
    proxied = proxy(registry, Cut(DOWN, after, how=how))
    arrived, end = _read_through(proxied)
    assert (len(arrived), end, proxied.bytes_down) == (after, how, after)


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_proxy_cuts_what_goes_up(registry, proxy, how):
    cut = Cut(UP, 20_000, how=how, times=1)
    proxied = proxy(registry, cut)
    with Client(proxied.url) as client:
        location = client.open_upload("a/b")
    with Client(proxied.url) as client, pytest.raises(GONE):
        client.request("PATCH", location, DATA, Content_Type=OCTETS)
    with Client(proxied.url) as client:
        registry.recording.settle(1, "PATCH")
        status = client.request("GET", location)
        kept = int(status.header("Range").removeprefix("0-")) + 1
        assert 19_000 < kept < 20_000
        rest = client.request("PATCH", status.location, DATA[kept:], Content_Type=OCTETS)
        assert client.request("PUT", with_digest(rest.location, DIGEST)).status == 201
    assert cut.fired == 1


def test_proxy_cuts_by_total(registry, proxy):
    cut = Cut(DOWN, 150_000, total=True)
    proxied = proxy(registry, cut)
    ends = [_read_through(proxied)[1] for _ in range(3)]
    assert (ends, cut.fired) == (["fin", "rst", "fin"], 1)


def test_proxy_stalls(registry, proxy):
    proxied = proxy(registry, Stall(DOWN, 50_000, seconds=0.3))
    start = time.monotonic()
    assert _read_through(proxied)[0].endswith(DATA)
    assert time.monotonic() - start >= 0.3


def test_an_endless_stall_ends_with_the_client(registry, proxy):
    proxied = proxy(registry, Stall(DOWN, 50_000))
    with Client(proxied.url, timeout=0.3) as client, pytest.raises(TimeoutError):
        client.request("GET", BLOB)
    assert proxied.bytes_down == 50_000


def test_proxy_slows_down(registry, proxy):
    for toxic in (Latency(DOWN, 0.2), Bandwidth(DOWN, 400_000)):
        start = time.monotonic()
        assert _read_through(proxy(registry, toxic))[0].endswith(DATA)
        assert time.monotonic() - start >= 0.2


def test_proxy_slices(registry, proxy):
    slicer = Slice(DOWN, 10_000, delay=0.01)
    arrived, _ = _read_through(proxy(registry, slicer))
    assert arrived.endswith(DATA)
    assert slicer.fired >= 10


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_proxy_drops_the_response_to_a_request_that_was_carried_out(registry, proxy, how):
    drop = DropResponse(b"PUT /v2/", how=how)
    proxied = proxy(registry, drop)
    new = noise(5_000, 1)
    with Client(proxied.url) as client:
        location = client.open_upload("a/b")
        with pytest.raises(GONE):
            client.request("PUT", with_digest(location, digest_of(new)), new)
        assert registry.blob("a/b", digest_of(new)) == new
        assert client.request("HEAD", f"/v2/a/b/blobs/{digest_of(new)}").status == 200


def test_a_toxic_that_never_fired_is_an_error(registry, proxy):
    proxied = proxy(registry, Cut(DOWN, 10**9))
    _read_through(proxied)
    with pytest.raises(AssertionError, match="never fired"):
        proxied.assert_fired()
    proxied.clear()


def test_proxy_passes_tls_through(fake_registry, proxy, tls_kit):
    proxied = proxy(fake_registry(tls="good"))
    with Client(f"https://{proxied.address}", tls=tls_kit.client_context()) as client:
        assert client.request("GET", "/v2/").status == 200


# Live registries


def test_live_htpasswd(live_htpasswd, repo_name):
    with live_htpasswd.client(headers={}) as stranger:
        refused = stranger.request("GET", "/v2/")
        assert (refused.status, refused.header("WWW-Authenticate")) == (401, 'Basic realm="live"')
    with live_htpasswd.client() as client:
        assert client.push_blob(repo_name, DATA) == DIGEST


def test_live_tls(live_tls, repo_name):
    assert live_tls.url.startswith("https://127.0.0.1:")
    with live_tls.client() as client:
        assert client.push_blob(repo_name, DATA) == DIGEST
        assert client.open_upload(repo_name).startswith(live_tls.url)
    with Client(live_tls.url, tls=ssl.create_default_context()) as stranger, pytest.raises(ssl.SSLError):
        stranger.request("GET", "/v2/")


def _bearer(registry, scope, **headers):
    with Client(registry.token.url) as service:
        reply = service.request("GET", f"/token?service=s&scope={scope}", **headers)
    return json.loads(reply.body)["token"]


def test_live_token(live_token, repo_name):
    scope = f"repository:{repo_name}:pull,push"
    with live_token.client() as client:
        challenge = client.request("POST", f"/v2/{repo_name}/blobs/uploads/").header("WWW-Authenticate")
        assert f'realm="{live_token.token.realm}"' in challenge
        # distribution writes the actions in random order.
        assert f'scope="{scope}"' in challenge or f'scope="repository:{repo_name}:push,pull"' in challenge
        ours = {"Authorization": "Bearer " + _bearer(live_token, scope, **live_token.basic_header())}
        anonymous = {"Authorization": "Bearer " + _bearer(live_token, scope)}
        pull_only = {"Authorization": "Bearer " + _bearer(live_token, scope.removesuffix(",push"))}
        put = [client.request("POST", f"/v2/{repo_name}/blobs/uploads/", **who) for who in (anonymous, pull_only, ours)]
        assert [reply.status for reply in put] == [401, 401, 202]
        assert client.request("GET", f"/v2/{repo_name}/tags/list", **pull_only).status == 404
        assert client.request("GET", "/v2/other/tags/list", **ours).status == 401
    with Client(live_token.token.url) as service:
        wrong = {"Authorization": "Basic cm9ib3Q6d3Jvbmc="}
        assert service.request("GET", "/token?service=s", **wrong).status == 401


def test_live_restart_keeps_storage_port_and_sessions(live_factory, repo_name):
    registry = live_factory()
    address = registry.address
    with registry.client() as client:
        client.push_blob(repo_name, DATA)
        location = client.request("PATCH", client.open_upload(repo_name), DATA[:10], Content_Type=OCTETS).location
    registry.restart()
    with registry.client() as client:
        assert registry.address == address
        assert client.request("HEAD", f"/v2/{repo_name}/blobs/{DIGEST}").status == 200
        assert client.request("GET", location).header("Range") == "0-9"
    registry.restart(lose_sessions=True)
    with registry.client() as client:
        lost = client.request("PATCH", location, DATA[10:], Content_Type=OCTETS)
        assert lost.status == 404
    assert "listening on" in registry.log_tail()


def test_live_start_failure_shows_the_log(live_binary, tmp_path, recorder):
    registry = live.LiveRegistry(live_binary, tmp_path)
    registry.port = recorder.port
    with pytest.raises(RuntimeError, match="address already in use"):
        registry.start()


def test_no_registry_is_found_in_an_empty_directory(tmp_path):
    assert find_registries(str(tmp_path)) == {}
    impostor = tmp_path / "registry"
    impostor.write_text("#!/bin/sh\necho something else\n")
    impostor.chmod(0o700)
    assert find_registries(str(tmp_path)) == {}


def test_ensure_registry_takes_what_is_there(live_binary):
    found = ensure_registry(str(live_binary.path.parent))
    assert live_binary.path in [binary.path for binary in found.values()]


# Peers and isolation


@requires_peer("oras")
def test_oras_and_the_fake_understand_each_other(fake_registry, tmp_path):
    registry = fake_registry(auth=BearerAuth())
    (tmp_path / "f.bin").write_bytes(DATA)
    reference = f"{registry.address}/a/b:v1"
    login = ("--plain-http", "-u", USER, "-p", PASSWORD)
    run_peer("oras", "push", *login, reference, "f.bin:application/x", home=tmp_path, cwd=tmp_path)
    assert registry.blob("a/b", DIGEST) == DATA
    run_peer("oras", "pull", *login, reference, "-o", "out", home=tmp_path, cwd=tmp_path)
    assert (tmp_path / "out" / "f.bin").read_bytes() == DATA


@requires_peer("crane")
def test_crane_and_the_fake_understand_each_other(fake_registry, tmp_path):
    registry, other = fake_registry(), fake_registry()
    digest = registry.put_image("a/b", "v1", [DATA])
    run_peer("crane", "copy", "--insecure", f"{registry.address}/a/b:v1", f"{other.address}/c/d:v2", home=tmp_path)
    assert other.tags("c/d") == {"v2": digest}
    assert other.blob("c/d", DIGEST) == DATA


@requires_peer("regctl")
def test_regctl_and_the_fake_understand_each_other(fake_registry, tmp_path):
    registry = fake_registry()
    digest = registry.put_image("a/b", "v1", [DATA])
    run_peer("regctl", "registry", "set", "--tls", "disabled", registry.address, home=tmp_path)
    run_peer("regctl", "image", "copy", f"{registry.address}/a/b:v1", f"{registry.address}/c/d:v2", home=tmp_path)
    assert registry.tags("c/d") == {"v2": digest}


@requires_peer("skopeo")
def test_skopeo_and_the_fake_understand_each_other(fake_registry, tls_kit, tmp_path):
    registry = fake_registry(tls="good")
    digest = registry.put_image("a/b", "v1", [DATA])
    certificates = tmp_path / "certs"
    certificates.mkdir()
    (certificates / "ca.crt").write_bytes(tls_kit.ca_file.read_bytes())
    run_peer(
        "skopeo",
        "copy",
        "--insecure-policy",
        "--src-cert-dir",
        certificates,
        "--dest-cert-dir",
        certificates,
        "--preserve-digests",
        f"docker://{registry.address}/a/b:v1",
        f"docker://{registry.address}/c/d:v2",
        home=tmp_path,
    )
    assert registry.tags("c/d") == {"v2": digest}


def test_a_failing_peer_shows_its_words(tmp_path):
    if find_peer("skopeo") is None:
        pytest.skip("skopeo is not here")
    with pytest.raises(peers.PeerFailed, match="skopeo inspect nonsense exited with"):
        run_peer("skopeo", "inspect", "nonsense", home=tmp_path)


@pytest.mark.parametrize("required", [False, True])
def test_a_missing_peer_skips_or_fails(request, monkeypatch, required):
    monkeypatch.setattr(peers, "REQUIRE_PEERS", required)
    request.node.add_marker(requires_peer("no-such-client"))
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match="no-such-client"):
        peers.check_peers(request.node)


def test_nothing_of_the_user_is_visible(isolated_home):
    assert Path.home() == isolated_home
    assert list(isolated_home.iterdir()) == [isolated_home / "run"]
    assert os.environ["DOCKER_CONFIG"].startswith(str(isolated_home))
    assert not [name for name in os.environ if name.lower().endswith("_proxy")]
    assert "REGISTRY_AUTH_FILE" not in os.environ
    assert not str(peers.PEERS_DIRECTORY).startswith(str(isolated_home))
