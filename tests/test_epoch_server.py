"""Legacy Epoch servers and their quirks (epoch-formats 3; traps 3, 5, 35 to 39)."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from cli_runner import Here, run_cli
from contract.cases import descriptor
from snapshots import make_snapshot, tree
from support.legacy_epoch import LegacyEpoch, manifest_of
from support.proxy import Cut, FaultProxy
from support.recorder import Recorder
from support.wire import Answer

from epoch_oci.epoch.manifest import EPOCH_MANIFEST
from epoch_oci.errors import (
    AccessError,
    ContentError,
    NetworkError,
    NotFoundError,
    PolicyError,
    UsageError,
)
from epoch_oci.events import Event
from epoch_oci.locate import Connection, open_store
from epoch_oci.oci.verifying import VerifyingReader
from epoch_oci.registry.legacy_epoch import EpochServer, ServerAddress
from epoch_oci.registry.policy import RegistrySettings, Timeouts
from epoch_oci.stores.base import ArtifactStore, Assembler, BytesContent, SnapshotStore

TOKEN = "c0ffee01" * 8
BLOB = bytes(range(256)) * 9000
RAW = manifest_of("bot", "v1", {"memory-ranges": BLOB})


@pytest.fixture
def serve() -> Iterator[Callable[..., LegacyEpoch]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(LegacyEpoch(**{"token": TOKEN, **options}))


def connect(server: LegacyEpoch, token: str | None = TOKEN, *, address: str = "", **more: object) -> SnapshotStore:
    environ = {} if token is None else {"EPOCH_REGISTRY_TOKEN": token}
    word = f"epoch+http://{address or server.address}"
    return open_store(word, connection=Connection(environ=environ, **more))


def quick(server: LegacyEpoch, **settings: object) -> EpochServer:
    """Without the waits between attempts."""
    address = ServerAddress(server.address, plain=True)
    return EpochServer(address, RegistrySettings(plain_http=True, sleep=lambda _: None, **settings))


def entries(store: SnapshotStore) -> list[tuple[str, str]]:
    return [(entry.name, entry.tag) for entry in store.snapshots()]


class TestAddress:
    @pytest.mark.parametrize(
        ("word", "host", "plain"),
        [
            ("epoch+http://localhost:4300", "localhost:4300", True),
            ("epoch+http://127.0.0.1:8080/", "127.0.0.1:8080", True),
            ("epoch+http://[::1]:4300", "[::1]:4300", True),
            ("epoch+https://epoch.example.com", "epoch.example.com", False),
            ("epoch+https://node-7:8443", "node-7:8443", False),
        ],
    )
    def test_legal(self, word: str, host: str, plain: bool) -> None:
        assert ServerAddress.parse(word) == ServerAddress(host, plain)

    @pytest.mark.parametrize(
        "word",
        [
            *(
                "epoch+http://",
                "epoch+http:///x",
                "epoch+https://host/v2",
                "epoch+https://a:b@host",
                "epoch+ftp://host",
            ),
            *("epoch+https://host:port", "epoch+https://ho st", "epoch+https://-", "epoch+https://host?x"),
        ],
    )
    def test_illegal(self, word: str) -> None:
        with pytest.raises(UsageError) as caught:
            ServerAddress.parse(word)
        assert "a:b" not in str(caught.value)

    def test_plain_http_to_another_machine_has_to_be_allowed(self) -> None:
        with pytest.raises(PolicyError) as caught:
            open_store("epoch+http://epoch.example.com:4300")
        assert "--plain-http" in str(caught.value)
        assert ServerAddress.parse("epoch+http://epoch.example.com:4300", plain_http=True).plain


class TestToken:
    def test_is_sent_with_everything(self, serve) -> None:
        server = serve()
        server.put_blob(BLOB)
        server.put_manifest("bot", "v1", RAW)
        store = connect(server)
        assert store.resolve("bot:v1").raw == RAW
        assert store.has(descriptor(BLOB))
        assert entries(store) == [("bot", "v1")]
        assert {entry.header("Authorization") for entry in server.requests} == {f"Bearer {TOKEN}"}

    @pytest.mark.parametrize("token", [None, "", "wrong-token"])
    def test_without_it_the_way_is_shown(self, serve, token: str | None) -> None:
        server = serve()
        store = connect(server, token)
        for act in (
            lambda: store.resolve("bot:v1"),
            lambda: store.has(descriptor(BLOB)),
            lambda: list(store.snapshots()),
            lambda: store.content(descriptor(BLOB)).open().__enter__().read(1),
        ):
            with pytest.raises(AccessError) as caught:
                act()
            assert "EPOCH_REGISTRY_TOKEN" in str(caught.value)
            assert "wrong-token" not in str(caught.value)

    def test_reading_may_need_none(self, serve) -> None:
        server = serve(version="6793481")
        server.put_manifest("bot", "v1", RAW)
        assert connect(server, None).resolve("bot:v1").raw == RAW

    def test_does_not_follow_a_redirect_elsewhere(self, serve, make_recorder) -> None:
        other: Recorder = make_recorder(Answer.of(200, BLOB, ("Content-Type", "application/octet-stream")))
        server = serve()
        server.answer = lambda request: Answer.of(307, b"", ("Location", other.url + request.target))
        store = connect(server)
        with store.content(descriptor(BLOB)).open() as reader:
            assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == BLOB
        assert not other.shows(TOKEN)
        assert all(entry.header("Authorization") is None for entry in other.requests)

    def test_stays_within_its_origin_on_a_redirect_to_itself(self, serve) -> None:
        server = serve()
        server.put_manifest("bot", "v1", RAW)
        plain = server.answer

        def once(request):
            if request.query:
                return plain(request)
            return Answer.of(302, b"", ("Location", request.target + "?again"))

        server.answer = once
        assert connect(server).resolve("bot:v1").raw == RAW
        assert {entry.header("Authorization") for entry in server.requests} == {f"Bearer {TOKEN}"}

    def test_is_nowhere_in_what_is_shown(self, serve) -> None:
        server = serve()
        said: list[str] = []
        store = connect(server, on_debug=said.append)
        server.answer = lambda request: Answer.error(500, "INTERNAL_ERROR", request.headers["Authorization"])
        with pytest.raises(NetworkError) as caught:
            quick_store = quick(server, attempts=1)
            quick_store.resolve("bot:v1")
        server.answer = lambda request: Answer.error(400, "X", request.headers["Authorization"] or "")
        with pytest.raises(UsageError) as caught:
            store.resolve("bot:v1")
        assert said
        assert TOKEN not in str(caught.value) + "".join(said) + repr(store) + repr(Connection(environ={"T": TOKEN}))


class TestNames:
    """Trap 38: HEAD and GET of a path with more components answer 200 for anything; trap 35: nothing is illegal."""

    @pytest.mark.parametrize("version", ["0.1.4", "0.1.5", "6793481"])
    @pytest.mark.parametrize(
        "name", ["bot", "acme/bot", "a/b/c/d", "Bot", ".bot", "bot~1", "b%2Ft", "böt", "b t", "a+b"]
    )
    def test_any_name_gets_through(self, serve, version: str, name: str) -> None:
        server = serve(version=version)
        raw = manifest_of(name, "Tag_1.0", {"x": BLOB})
        server.put_manifest(name, "Tag_1.0", raw)
        store = connect(server)
        assert store.resolve(f"{name}:Tag_1.0").raw == raw
        assert entries(store) == [(name, "Tag_1.0")]
        for absent in (f"{name}:other", f"{name}/x:Tag_1.0"):
            with pytest.raises(NotFoundError):
                store.resolve(absent)

    def test_a_blob_is_never_present_on_the_word_of_an_unknown_path(self, serve) -> None:
        server = serve()
        server.put_manifest("acme/bot", "v1", RAW)
        assert connect(server).has(descriptor(BLOB)) is False

    def test_a_proxy_that_decodes_names_is_found_out(self, serve) -> None:
        server = serve()
        server.decodes_slashes = True
        server.put_manifest("acme/bot", "v1", RAW)
        store = connect(server)
        with pytest.raises(ContentError) as caught:
            store.resolve("acme/bot:v1")
        assert caught.value.code == "TYPE"
        assert "%2F" in str(caught.value)
        with pytest.raises(ContentError):
            list(store.snapshots())

    def test_what_answers_200_to_everything_is_no_server_of_epoch(self, serve) -> None:
        server = serve()
        server.answer = lambda request: Answer.json(200, {})
        store = connect(server)
        for act in (
            lambda: store.has(descriptor(BLOB)),
            lambda: store.resolve("bot:v1"),
            lambda: list(store.snapshots()),
            lambda: store.content(descriptor(b"{}")).open().__enter__().read(1),
        ):
            with pytest.raises(ContentError) as caught:
                act()
            assert caught.value.code == "TYPE"

    def test_pseudo_tags(self, serve) -> None:
        """Trap 36: 88a1ade to 6793481 stored what was put by digest under a tag of that name."""
        server = serve(version="6793481")
        tag = "sha256:" + "ab" * 32
        server.put_manifest("bot", tag, RAW)
        store = connect(server)
        assert entries(store) == [("bot", tag)]
        assert store.resolve(f"bot:{tag}").raw == RAW

    def test_hostile_names_are_refused_before_anything_is_asked(self, serve) -> None:
        server = serve()
        store = connect(server)
        for name in ("../x:v1", "a//b:v1", "bot:..", "bot:a/b"):
            with pytest.raises(ContentError):
                store.resolve(name)
        server.assert_untouched()


class TestListing:
    def test_is_in_order(self, serve) -> None:
        server = serve()
        for name in ("bot", "acme/bot", "zoo"):
            for tag in ("v2", "v1", "latest"):
                server.put_manifest(name, tag, RAW)
        expected = [(name, tag) for name in ("acme/bot", "bot", "zoo") for tag in ("latest", "v1", "v2")]
        assert entries(connect(server)) == expected

    def test_an_empty_server(self, serve) -> None:
        assert entries(connect(serve())) == []

    @pytest.mark.parametrize("version", ["0.1.4", "0.1.5"])
    def test_tags_of_nested_repositories_are_not_the_outer_ones(self, serve, version: str) -> None:
        """Chapter 2.3: the list of `a` has the tags of `a/b` in it. HEAD may be stale on 0.1.5, so it is not asked."""
        server = serve(version=version)
        server.put_manifest("a", "v1", RAW)
        server.put_manifest("a", "both", RAW)
        server.put_manifest("a/b", "both", RAW)
        server.put_manifest("a/b", "inner", RAW)
        assert entries(connect(server)) == [("a", "both"), ("a", "v1"), ("a/b", "both"), ("a/b", "inner")]

    def test_copies_by_digest_are_no_tags(self, serve) -> None:
        server = serve(version="6793481")
        server.put_manifest("a", "v1", RAW)
        server.put_manifest("a/_digests", "sha256-" + "ab" * 32, RAW, listed=False)
        assert entries(connect(server)) == [("a", "v1")]

    def test_tags_are_those_that_are_stored(self, serve) -> None:
        """Trap 36: the catalog lists a tag whose manifest is gone, and lacks one that is there."""
        server = serve()
        server.put_manifest("bot", "gone", RAW, stored=False)
        server.put_manifest("bot", "v1", RAW)
        server.put_manifest("bot", "v2", RAW, listed=False)
        assert entries(connect(server)) == [("bot", "v1"), ("bot", "v2")]

    def test_a_repository_without_tags(self, serve) -> None:
        server = serve()
        server.put_manifest("bot", "gone", RAW, stored=False)
        assert entries(connect(server)) == []

    def test_a_server_that_hangs_is_given_up_with_the_reason(self, serve) -> None:
        server = serve(token=None, version="0.1.5")
        server.stuck = True
        store = quick(server, attempts=1, timeouts=Timeouts(answer=1))
        with pytest.raises(NetworkError) as caught:
            list(store.snapshots())
        assert "0.1.5" in str(caught.value)

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_a_server_that_answers_does_not_hang(self, serve, status) -> None:
        server = serve()
        server.answer = lambda request: Answer.of(status, b"")
        with pytest.raises(NetworkError) as caught:
            list(quick(server, attempts=2, retry_for=0).snapshots())
        assert "0.1.5" not in str(caught.value)

    @pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid:80"])
    def test_a_server_that_was_not_reached_does_not_hang(self, host) -> None:
        settings = RegistrySettings(plain_http=True, sleep=lambda _: None, attempts=2, retry_for=0)
        with pytest.raises(NetworkError) as caught:
            list(EpochServer(ServerAddress(host, plain=True), settings).snapshots())
        assert "0.1.5" not in str(caught.value)

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"repositories":1}', b'{"repositories":[1]}', b'{"tags":[]}', b"\xff"]
    )
    def test_lists_that_are_none(self, serve, body: bytes) -> None:
        server = serve()
        server.answer = lambda request: Answer.of(200, body)
        with pytest.raises(ContentError):
            entries(connect(server))


class TestManifests:
    def test_the_content_type_says_nothing(self, serve) -> None:
        """Trap 39: a newer server serves what older ones left as an OCI manifest."""
        server = serve(version="0.1.6")
        server.put_manifest("bot", "v1", RAW)
        found = connect(server).resolve("bot:v1")
        assert (found.media_type, found.raw) == (EPOCH_MANIFEST, RAW)

    @pytest.mark.parametrize(
        "value",
        [
            {"schemaVersion": 2, "config": {"mediaType": "application/vnd.oci.empty.v1+json"}, "layers": []},
            {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []},
            {"schemaVersion": 2, "manifests": []},
            {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        ],
    )
    def test_oci_manifests_are_pointed_to_where_they_belong(self, serve, value: dict) -> None:
        server = serve(version="0.1.6")
        server.put_manifest("bot", "v1", json.dumps(value).encode())
        with pytest.raises(ContentError) as caught:
            connect(server).resolve("bot:v1")
        assert caught.value.code == "TYPE"
        assert f"epoch-oci pull {server.address}/bot:v1" in str(caught.value)

    def test_bytes_are_not_touched(self, serve) -> None:
        server = serve()
        for raw in (b"not json", b'{"layers":null}', b"[]", b'{"a":1,"a":2}'):
            server.put_manifest("bot", "v1", raw)
            assert connect(server).resolve("bot:v1").raw == raw

    def test_a_digest_that_is_not_that_of_the_bytes_is_told(self, serve) -> None:
        server = serve()
        server.answer = lambda request: Answer.of(200, RAW, ("Docker-Content-Digest", "ab" * 32))
        heard: list[Event] = []
        assert connect(server, on_event=heard.append).resolve("bot:v1").raw == RAW
        assert "ab" * 32 in heard[0].message

    @pytest.mark.parametrize("prefix", ["sha256:", ""])
    def test_digests_come_with_and_without_their_prefix(self, serve, prefix: str) -> None:
        """Trap 5."""
        server = serve()
        target = descriptor(BLOB)
        heard: list[Event] = []
        stated = ("Docker-Content-Digest", prefix + target.digest.hex)
        server.answer = lambda request: Answer.of(200, BLOB, stated)
        store = connect(server, on_event=heard.append)
        assert store.has(target)
        assert store.resolve("bot:v1").raw == BLOB
        assert heard == []

    def test_one_that_is_too_large(self, serve) -> None:
        server = serve()
        server.answer = lambda request: Answer(200, chunks=lambda: (bytes(1 << 20) for _ in range(17)), size=17 << 20)
        with pytest.raises(ContentError) as caught:
            connect(server).resolve("bot:v1")
        assert caught.value.code == "SIZE"


class TestBlobs:
    def test_are_hashed_by_whoever_takes_them(self, serve) -> None:
        """Trap 37: no server before 0.2.1 has ever hashed a blob."""
        server = serve()
        target = descriptor(BLOB)
        server.put_blob(b"x" + BLOB[1:], target.digest.hex)
        store = connect(server)
        assert store.has(target)
        with pytest.raises(ContentError) as caught, store.content(target).open() as reader:
            for _ in VerifyingReader(reader, target).blocks():
                pass
        assert caught.value.code == "DIGEST"

    @pytest.mark.parametrize("how", ["rst", "fin"])
    def test_a_body_that_breaks_off_is_read_again_from_the_start(self, serve, how: str) -> None:
        """Reliability E1: there are no ranges; what was read already is read over."""
        server = serve(token=None)
        server.put_blob(BLOB)
        with FaultProxy(server.address, Cut("down", 1_000_000, how=how, times=2)) as proxy:
            store = EpochServer(
                ServerAddress(proxy.address, plain=True), RegistrySettings(plain_http=True, sleep=lambda _: None)
            )
            with store.content(descriptor(BLOB)).open() as reader:
                assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == BLOB
            proxy.assert_fired()
        assert len(server.requests) == 3

    def test_ranges_are_known_to_be_of_no_use(self, serve) -> None:
        server = serve()
        server.put_blob(BLOB)
        assert connect(server).content(descriptor(BLOB)).ranged() is False

    def test_a_server_that_gives_up(self, serve) -> None:
        server = serve(token=None)
        server.answer = lambda request: Answer.error(500, "INTERNAL_ERROR", "no such bucket")
        store = quick(server, attempts=2)
        with pytest.raises(NetworkError), store.content(descriptor(BLOB)).open() as reader:
            reader.read(1)
        with pytest.raises(NetworkError):
            store.has(descriptor(BLOB))

    def test_a_server_that_is_not_there(self, serve) -> None:
        server = serve(token=None)
        server.stop()
        with pytest.raises(NetworkError):
            quick(server, attempts=1).resolve("bot:v1")


def test_it_is_read_only(serve) -> None:
    server = serve()
    store = connect(server)
    with pytest.raises(UsageError, match="only read from"):
        store.put(descriptor(BLOB), BytesContent(BLOB))
    with pytest.raises(UsageError, match="only read from"):
        store.publish("bot:v1", make_snapshot().document)
    server.assert_untouched()


def test_it_lists_snapshots() -> None:
    store = quick(LegacyEpoch(port=1))
    assert isinstance(store, SnapshotStore)
    assert not isinstance(store, ArtifactStore | Assembler)


class TestCommands:
    @pytest.fixture
    def run(self, capsys: pytest.CaptureFixture[str]) -> Here:
        return Here(capsys)

    @pytest.fixture
    def server(self, serve) -> LegacyEpoch:
        made = make_snapshot("W2b")
        server = serve()
        for raw in made.blobs.values():
            server.put_blob(raw)
        server.put_manifest("team/bot", "v1", made.raw)
        return server

    def test_push_from_it_and_pull_into_a_directory(self, server: LegacyEpoch, tmp_path) -> None:
        env = {"EPOCH_REGISTRY_TOKEN": TOKEN}
        store, layout = f"epoch+{server.url}", f"oci:{tmp_path}/layout"
        pushed = run_cli("push", "team/bot:v1", layout, "--store", store, "--format", "json", env=env)
        assert pushed.code == 0, pushed.err
        pulled = run_cli("pull", layout, "--store", tmp_path / "back")
        assert pulled.code == 0, pulled.err
        found = tree(tmp_path / "back")
        made = make_snapshot("W2b")
        assert found["manifests/team/bot/v1.json"] == made.raw
        assert {found[f"blobs/sha256/{digest}"] for digest in made.blobs} == set(made.blobs.values())
        assert TOKEN not in pushed.out + pushed.err

    def test_looking_at_it(self, server: LegacyEpoch, run: Here) -> None:
        env = {"EPOCH_REGISTRY_TOKEN": TOKEN}
        store = f"epoch+{server.url}"
        listed = run("ls", store, "--format", "json", env=env).json
        assert [(item["name"], item["tag"]) for item in listed["snapshots"]] == [("team/bot", "v1")]
        shown = run("inspect", "team/bot:v1", "--store", store, "--format", "json", env=env).json
        assert (shown["writer"], shown["kind"]) == ("W2b", "snapshot")
        checked = run("verify", store, "--format", "json", env=env)
        assert checked.code == 0, checked.err
        assert checked.json["ok"] is True

    def test_verify_finds_what_the_server_never_hashed(self, server: LegacyEpoch, run: Here) -> None:
        digest = next(iter(make_snapshot("W2b").blobs))
        server.objects[f"blobs/sha256/{digest}"] = server.objects[f"blobs/sha256/{digest}"][:-1] + b"\0"
        env = {"EPOCH_REGISTRY_TOKEN": TOKEN}
        checked = run("verify", f"epoch+{server.url}", "--format", "json", env=env)
        assert checked.code == 3
        assert any(digest in json.dumps(item) for item in checked.json["findings"])

    def test_pulling_into_it_is_refused(self, server: LegacyEpoch, tmp_path, run: Here) -> None:
        env = {"EPOCH_REGISTRY_TOKEN": TOKEN}
        run("push", "team/bot:v1", f"oci:{tmp_path}/layout", "--store", f"epoch+{server.url}", env=env)
        server.objects.clear()
        ran = run("pull", f"oci:{tmp_path}/layout", "--store", f"epoch+{server.url}", env=env)
        assert ran.code == 2
        assert "only read from" in ran.error

    def test_without_a_token(self, server: LegacyEpoch, run: Here) -> None:
        ran = run("ls", f"epoch+{server.url}")
        assert ran.code == 4
        assert "EPOCH_REGISTRY_TOKEN" in ran.error
