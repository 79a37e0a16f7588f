"""How a registry is reached: through which proxy, whom we believe, and what we show of ourselves."""

import shutil
import ssl
import subprocess
import time
from types import SimpleNamespace

import pytest
import trustme
from cli_runner import run_cli
from cryptography.hazmat.primitives import serialization
from registry_room import RAW, blob, room
from support.faults import Redirect
from support.forward_proxy import ForwardProxy
from support.registry import FakeRegistry
from support.registry_auth import PASSWORD, USER, BearerAuth

from epoch_oci import network
from epoch_oci.errors import AccessError, LocalIOError, NetworkError, UsageError
from epoch_oci.network import Authorities, Proxies
from epoch_oci.registry import trust
from epoch_oci.stores.buckets import BucketOptions, client_options

BLOB = r"/blobs/sha256:"
PROXY = "http://proxy.test:3128"


# Which proxy


@pytest.mark.parametrize(
    ("url", "excepted", "used"),
    [
        ("http://localhost:5000/v2/", "", False),
        ("https://127.0.0.2/v2/", "", False),
        ("https://[::1]:5000/v2/", "", False),
        ("https://r.example:5000/v2/", "", True),
        ("https://r.example/v2/", "example", False),
        ("https://r.example/v2/", "other, .r.example", False),
        ("https://a.r.example/v2/", ".r.example", False),
        ("https://xr.example/v2/", "r.example", True),
        ("https://R.Example/v2/", "r.EXAMPLE", False),
        ("https://r.example./v2/", "r.example", False),
        ("https://r.example/v2/", "r.example.", False),
        ("https://r.example/v2/", "*", False),
        ("https://r.example/v2/", "*.example", False),
        ("https://r.example/v2/", "*.r.example", False),
        ("https://r7.example/v2/", "r?.other r*.example", False),
        ("https://r.example/v2/", "a b,,r.example", False),
        ("https://r.example/v2/", "https://r.example", False),
        ("https://r.example/v2/", "r.example:443", False),
        ("https://r.example/v2/", "r.example:5000", True),
        ("http://r.example/v2/", "r.example:80", False),
        ("https://r.example:5000/v2/", "*.example:5000", False),
        ("https://r.example:5000/v2/", "r.example", False),
        ("https://10.1.2.3:5000/v2/", "10.0.0.0/8", False),
        ("https://10.1.2.3:5000/v2/", "10.1.2.3:5000", False),
        ("https://10.1.2.3/v2/", "10.1.2", True),
        ("https://11.1.2.3/v2/", "10.0.0.0/8", True),
        ("https://[fd00::7]:5000/v2/", "fd00::/8", False),
        ("https://[fd00::7]:5000/v2/", "[fd00::7]:5000", False),
        ("https://[fd00::7]/v2/", "fd00:0::7", False),
        ("https://r.example/v2/", "10.0.0.0/99, /, :, [, *x", True),
    ],
)
def test_who_is_reached_through_a_proxy(url, excepted, used):
    for name in ("http_proxy" if url.startswith("http:") else "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        assert Proxies.of({name: PROXY, "NO_PROXY": excepted}).choose(url) == (PROXY if used else None)


def test_small_letters_go_first_and_each_scheme_has_its_own():
    environ = {"http_proxy": "http://one", "HTTP_PROXY": "http://two", "https_proxy": " three:3128 ", "no_proxy": "x"}
    proxies = Proxies.of(environ | {"NO_PROXY": "r.example"})
    assert proxies.choose("http://r.example/") == "http://one"
    assert proxies.choose("https://r.example/") == "http://three:3128"
    assert Proxies.of({"all_proxy": "socks://h:1"}).choose("https://r.example/") == "socks5h://h:1"


@pytest.mark.parametrize("proxy", ["ftp://h:1", "quic://h", "http://", "http://h:x", "://", "http://u:hunter2@h:99999"])
def test_a_proxy_that_cannot_be_is_named_without_its_password(proxy):
    with pytest.raises(UsageError) as caught:
        Proxies.of({"all_proxy": proxy}).choose("https://r.example/")
    assert "hunter2" not in str(caught.value)


def test_socks_without_its_library_is_a_plain_sentence(monkeypatch):
    monkeypatch.setattr(network, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"socks5://h:1 speaks SOCKS.*epoch-oci\[socks\]"):
        Proxies.of({"all_proxy": "socks5://u:hunter2@h:1"}).choose("https://r.example/")


# Through it


@pytest.fixture
def make_proxy():
    made: list[ForwardProxy] = []

    def make(hosts, **options) -> ForwardProxy:
        made.append(ForwardProxy(hosts, **options).start())
        return made[-1]

    yield make
    for proxy in made:
        proxy.stop()


def named(registry: FakeRegistry, host: str = "registry.test") -> SimpleNamespace:
    """The registry as others know it."""
    scheme = "https" if registry.tls else "http"
    return SimpleNamespace(url=f"{scheme}://{host}", address=f"{host}:{443 if registry.tls else 80}")


@pytest.mark.parametrize("kind", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("tls", [None, "good"])
@pytest.mark.parametrize("login", [None, ("me", "p@ss/word")])
def test_registries_behind_proxies_of_every_kind(fake_registry, make_proxy, tls_kit, kind, tls, login):
    registry = fake_registry(tls=tls)
    registry.put_blob("acme/bot", RAW)
    name = "10.9.8.7" if kind == "socks5" else "registry.test"  # SOCKS 5 without h looks names up here
    proxy = make_proxy({name: registry.address}, login=login)
    user = "me:p%40ss%2Fword@" if login else ""
    proxies = Proxies.of({"all_proxy": f"{kind}://{user}{proxy.address}"})
    repository, heard = room(
        named(registry, name), proxies=proxies, ca_file=str(tls_kit.ca_file), insecure=name != "registry.test"
    )
    with repository.content(blob(RAW)).open() as reader:
        assert b"".join(iter(reader.read, b"")) == RAW
    assert proxy.asked and "p@ss" not in "".join(heard.debug) + repr(repository._client.settings)


def test_a_proxy_that_is_itself_encrypted(fake_registry, make_proxy, tls_kit):
    registry = fake_registry(tls="good")
    proxy = make_proxy({"registry.test": registry.address}, tls=tls_kit.context("good"))
    proxies = Proxies.of({"https_proxy": f"https://{proxy.address}"})
    repository, _ = room(named(registry), proxies=proxies, ca_file=str(tls_kit.ca_file))
    assert not repository.has(blob(RAW)) and proxy.asked == ["registry.test:443"]


def test_the_proxy_is_chosen_for_each_host(fake_registry, make_proxy, make_recorder):
    """The registry is at hand; its tokens and what it keeps elsewhere are behind the proxy."""
    auth = BearerAuth({USER: PASSWORD}, anonymous=None, realm="http://tokens.test/token")
    registry, tokens, storage = fake_registry(auth=auth), fake_registry(auth=auth), fake_registry()
    registry.put_blob("acme/bot", RAW)
    storage.put_blob("acme/bot", RAW)
    registry.fault("GET", BLOB, Redirect(lambda request: f"http://storage.test{request.target}"))
    proxy = make_proxy({"tokens.test": tokens.address, "storage.test": storage.address})
    proxies = Proxies.of({"http_proxy": proxy.url})
    repository, _ = room(registry, login=True, proxies=proxies, trusted=frozenset({"tokens.test"}))
    assert repository.has(blob(RAW))
    with repository.content(blob(RAW)).open() as reader:
        assert b"".join(iter(reader.read, b"")) == RAW
    assert set(proxy.asked) == {"tokens.test", "storage.test"} and registry.recording.count("GET", BLOB)


@pytest.mark.parametrize("tls", [None, "good"])
def test_what_fails_on_the_way_names_the_proxy(fake_registry, make_proxy, tls, unused_port):
    registry = fake_registry(tls=tls)
    for proxy in (f"http://me:hunter2@127.0.0.1:{unused_port}", f"socks5h://127.0.0.1:{unused_port}"):
        with pytest.raises(
            NetworkError, match=rf"through the proxy \w+://127.0.0.1:{unused_port}\).*refused"
        ) as caught:
            room(named(registry), proxies=Proxies.of({"all_proxy": proxy}), attempts=1)[0].has(blob(RAW))
        assert "hunter2" not in str(caught.value)


@pytest.fixture
def unused_port(fake_registry) -> int:
    registry = fake_registry()
    registry.stop()
    return registry.port


@pytest.mark.parametrize("tls", [None, "good"])
def test_a_proxy_that_wants_to_know_who_asks_is_no_failure_of_the_network(fake_registry, make_proxy, tls):
    proxy = make_proxy({}, login=("me", "secret-of-the-proxy"))
    repository, heard = room(named(fake_registry(tls=tls)), proxies=Proxies.of({"all_proxy": proxy.url}))
    with pytest.raises(AccessError, match=rf"{proxy.url}.* wants to know who asks .*USER:PASSWORD"):
        repository.has(blob(RAW))
    assert not heard.waits


@pytest.mark.parametrize(("status", "kind"), [(403, AccessError), (503, NetworkError)])
def test_a_proxy_that_does_not_lead_there(fake_registry, make_proxy, status, kind):
    proxy = make_proxy({}, refuses=status)
    proxies = Proxies.of({"all_proxy": proxy.url})
    repository, _ = room(named(fake_registry(tls="good")), proxies=proxies, attempts=1, retry_for=0)
    with pytest.raises(kind, match=proxy.url):
        repository.has(blob(RAW))


def test_buckets_hear_what_they_can(tmp_path, tls_kit):
    def options(endpoint: str = "https://minio.example:9000", **environ: str):
        return client_options(endpoint, BucketOptions(environ=environ, warn=told.append))

    told: list[str] = []
    found = options(https_proxy="proxy.test:3128", no_proxy="*.corp.example minio.example:9000,a:1,10.0.0.0/8")
    assert found["proxy_url"] == "http://proxy.test:3128"
    assert found["proxy_excludes"].endswith(",minio.example,.corp.example,10.0.0.0/8")
    assert not options(https_proxy=PROXY, no_proxy="minio.example:1")["proxy_excludes"].endswith("minio.example")
    assert "proxy_url" not in options("http://127.0.0.1:9000", all_proxy="socks5://h:1")
    with pytest.raises(UsageError, match="socks5://h:1"):
        options(all_proxy="socks5://u:p@h:1")
    bundle = tls_kit.ca_file.read_bytes()
    assert bundle in options(REQUESTS_CA_BUNDLE=str(tls_kit.ca_file))["root_certificate"]
    (tmp_path / "none.pem").write_text("none")
    assert "root_certificate" not in options(CURL_CA_BUNDLE=str(tmp_path / "none.pem")) and len(told) == 1


# Whom we believe


@pytest.fixture
def authority(tmp_path):
    """A CA of the test's own, with what it has signed: (a server's context, the CA's file)."""
    ca = trustme.CA()
    path = tmp_path / "own-ca.pem"
    ca.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context, path


@pytest.fixture
def registry(authority):
    with FakeRegistry(tls=authority[0]) as registry:
        registry.put_blob("acme/bot", RAW)
        yield registry


def believes(registry, environ=None, **changes) -> bool:
    authorities = Authorities.of(environ or {})
    repository, _ = room(registry, authorities=authorities, **changes)
    try:
        return repository.has(blob(RAW))
    except NetworkError as error:
        assert "not trusted" in str(error) and not error.retryable
        return False


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authorities_that_the_environment_names(registry, authority, name):
    assert not believes(registry)
    assert believes(registry, {name: str(authority[1])})


@pytest.mark.parametrize("name", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_directories_of_authorities_whatever_their_files_are_called(registry, authority, tmp_path, name):
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "README").write_text("no certificate")
    shutil.copy(authority[1], folder / "company.crt")
    more = f"/nonexistent:{folder}" if name == "SSL_CERT_DIR" else str(folder)
    assert believes(registry, {name: more})


def test_directories_by_hash_as_openssl_makes_them(registry, authority, tmp_path):
    folder = tmp_path / "hashed"
    folder.mkdir()
    shown = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", authority[1]], capture_output=True, text=True)
    if shown.returncode:
        pytest.skip("no openssl")
    shutil.copy(authority[1], folder / f"{shown.stdout.strip()}.0")
    assert believes(registry, {"SSL_CERT_DIR": str(folder)})


def test_a_file_of_authorities_adds_to_all_the_others(registry, authority, fake_registry, tls_kit):
    other = fake_registry(tls="good")
    other.put_blob("acme/bot", RAW)
    environ = {"SSL_CERT_FILE": str(authority[1])}
    both = {"ca_file": str(tls_kit.ca_file)}
    assert believes(registry, environ, **both) and believes(other, environ, **both)
    assert not believes(other, environ) and not believes(registry, **both)


def test_both_variables_together_replace_what_the_system_trusts(registry, authority, tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "_BUNDLES", (str(authority[1]),))
    monkeypatch.setattr(trust, "_DIRECTORIES", ())
    here = trust.ssl.get_default_verify_paths()._replace(openssl_cafile="/none", openssl_capath="/none")
    monkeypatch.setattr(trust.ssl, "get_default_verify_paths", lambda: here)
    monkeypatch.setattr(trust, "_contexts", {})
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    (tmp_path / "dir").mkdir()
    assert believes(registry) and believes(registry, {"SSL_CERT_FILE": str(other)})
    assert believes(registry, {"SSL_CERT_DIR": str(tmp_path / "dir")})
    assert not believes(registry, {"SSL_CERT_FILE": str(other), "SSL_CERT_DIR": str(tmp_path / "dir")})


def test_one_broken_certificate_costs_no_other(registry, authority, tmp_path):
    bundle = tmp_path / "bundle.pem"
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    bundle.write_text(f"# Company\n{broken}{authority[1].read_text()}{broken}")
    assert believes(registry, {"SSL_CERT_FILE": str(bundle)}) and believes(registry, ca_file=str(bundle))


def test_what_cannot_be_read_is_said_and_passed_over(registry, authority, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    environ = {
        "SSL_CERT_FILE": "/nonexistent.pem",
        "REQUESTS_CA_BUNDLE": str(empty),
        "CURL_CA_BUNDLE": str(authority[1]),
    }
    repository, heard = room(registry, authorities=Authorities.of(environ))
    assert repository.has(blob(RAW))
    said = [event.message for event in heard.events if event.event == "warning"]
    assert len(said) == 2 and "SSL_CERT_FILE" in said[0] and str(empty) in said[1]
    with pytest.raises(LocalIOError, match="--ca-file"):
        room(registry, ca_file=str(empty))


def test_a_server_s_own_certificate_is_authority_enough(tmp_path):
    leaf = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    path = tmp_path / "server.pem"
    leaf.cert_chain_pems[0].write_to_path(path)
    with FakeRegistry(tls=context) as registry:
        registry.put_blob("acme/bot", RAW)
        assert believes(registry, ca_file=str(path))


def test_an_own_authority_serves_for_tokens_and_for_what_is_kept_elsewhere(fake_registry, tls_kit):
    auth = BearerAuth({USER: PASSWORD}, anonymous=None)
    registry, tokens = (fake_registry(tls="good", auth=auth) for _ in range(2))
    storage = fake_registry(tls="good")
    auth.realm = f"{tokens.url}/token"
    registry.put_blob("acme/bot", RAW)
    storage.put_blob("acme/bot", RAW)
    registry.fault("GET", BLOB, Redirect(lambda request: f"{storage.url}{request.target}"))
    repository, _ = room(registry, login=True, ca_file=str(tls_kit.ca_file))
    with repository.content(blob(RAW)).open() as reader:
        assert b"".join(iter(reader.read, b"")) == RAW


def test_the_variables_are_heard_on_the_command_line(registry, authority):
    registry.put_image("acme/bot", "v1")
    words = ("ls", f"{registry.address}/acme/bot")
    assert run_cli(*words).code == 6
    assert run_cli(*words, env={"SSL_CERT_FILE": str(authority[1])}).out == "v1\n"
    assert run_cli(*words, "--ca-file", authority[1]).out == "v1\n"


# What we show


@pytest.fixture
def identity(tmp_path):
    """A CA for clients, and a client's certificate and key: (CA, certificate, key)."""
    ca = trustme.CA()
    leaf = ca.issue_cert("robot@example.com")
    certificate, key = tmp_path / "robot.crt", tmp_path / "robot.key"
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    return ca, certificate, key


def demanding(tls_kit, ca) -> ssl.SSLContext:
    """A server that lets only those in whom `ca` has signed for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls_kit.leaf().configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_certificate_of_ours_opens_a_registry_that_wants_one(tls_kit, identity):
    ca, certificate, key = identity
    with FakeRegistry(tls=demanding(tls_kit, ca)) as registry:
        registry.put_blob("acme/bot", RAW)
        shown = {"cert_file": str(certificate), "key_file": str(key), "ca_file": str(tls_kit.ca_file)}
        assert room(registry, **shown)[0].has(blob(RAW))
        joined = certificate.with_suffix(".pem")
        joined.write_bytes(key.read_bytes() + certificate.read_bytes())
        assert room(registry, cert_file=str(joined), ca_file=str(tls_kit.ca_file))[0].has(blob(RAW))


def test_it_is_shown_to_the_registry_and_its_tokens_and_to_nobody_else(tls_kit, identity, fake_registry):
    ca, certificate, key = identity
    auth = BearerAuth({USER: PASSWORD}, anonymous=None)
    asking = demanding(tls_kit, ca)
    curious = demanding(tls_kit, ca)
    curious.verify_mode = ssl.CERT_OPTIONAL
    seen: list[object] = []

    class Curious(FakeRegistry):
        def serve(self, sock):
            seen.append(sock.getpeercert())
            super().serve(sock)

    shown = {"cert_file": str(certificate), "key_file": str(key), "ca_file": str(tls_kit.ca_file)}
    with (
        FakeRegistry(tls=asking, auth=auth) as registry,
        FakeRegistry(tls=asking, auth=auth) as tokens,
        Curious(tls=curious) as storage,
    ):
        auth.realm = f"{tokens.url}/token"
        for each in (registry, storage):
            each.put_blob("acme/bot", RAW)
        registry.fault("GET", BLOB, Redirect(lambda request: f"{storage.url}{request.target}"))
        repository, _ = room(registry, login=True, **shown)
        with repository.content(blob(RAW)).open() as reader:
            assert b"".join(iter(reader.read, b"")) == RAW
    assert seen and not any(seen)


def test_it_is_not_lent_to_the_stranger_that_the_guard_sends(tls_kit, identity):
    """What only those with a certificate can read is not open, and where one is shown it is no playground."""
    ca, certificate, key = identity
    shown = {"cert_file": str(certificate), "key_file": str(key), "ca_file": str(tls_kit.ca_file)}
    with FakeRegistry(tls=demanding(tls_kit, ca)) as registry:
        registry.put_image("acme/bot", "v1")
        assert room(registry, **shown)[0].openness() is None
    curious = demanding(tls_kit, ca)
    curious.verify_mode = ssl.CERT_OPTIONAL
    with FakeRegistry(tls=curious) as registry:
        registry.put_image("acme/bot", "v1")
        assert room(registry, **shown)[0].openness() == "registry"
        assert room(registry, ca_file=str(tls_kit.ca_file))[0].openness() is None


def test_keys_that_are_of_no_use_are_said_at_once(registry, identity, tmp_path):
    _, certificate, key = identity
    with pytest.raises(LocalIOError, match="goes with the certificate"):
        room(registry, cert_file=str(certificate))
    other = tmp_path / "other.key"
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(other)
    with pytest.raises(LocalIOError, match=r"other.key: .*goes with the certificate"):
        room(registry, cert_file=str(certificate), key_file=str(other))
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    other.write_bytes(locked)
    with pytest.raises(LocalIOError, match="is encrypted"):
        room(registry, cert_file=str(certificate), key_file=str(other))


def test_who_wants_a_certificate_is_heard_although_the_connection_is_gone_before_we_ask(identity, tls_kit, monkeypatch):
    """In TLS 1.3 a client is done before the server has seen that it shows nothing: asking then fails at the socket."""
    shake = ssl.SSLSocket.do_handshake

    def slowly(self, *args, **options):
        shake(self, *args, **options)
        if not self.server_side:
            time.sleep(0.1)

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", slowly)
    with FakeRegistry(tls=demanding(tls_kit, identity[0])) as registry:
        repository, heard = room(registry, ca_file=str(tls_kit.ca_file))
        with pytest.raises(AccessError, match="wants a certificate"):
            repository.has(blob(RAW))
        assert not heard.waits


def test_certificate_flags(identity, tls_kit):
    ca, certificate, key = identity
    with FakeRegistry(tls=demanding(tls_kit, ca)) as registry:
        registry.put_image("acme/bot", "v1")
        words = ("ls", f"{registry.address}/acme/bot", "--ca-file", tls_kit.ca_file)
        assert run_cli(*words, "--cert-file", certificate, "--key-file", key).out == "v1\n"
        env = {"EPOCH_OCI_CERT_FILE": str(certificate), "EPOCH_OCI_KEY_FILE": str(key)}
        assert run_cli(*words, env=env).out == "v1\n"
        assert run_cli(*words, "--key-file", key).code == 2
        assert run_cli(*words, "--cert-file", "/nonexistent.pem").code == 5
        ran = run_cli(*words)
        assert ran.code == 4 and "--cert-file" in ran.error
