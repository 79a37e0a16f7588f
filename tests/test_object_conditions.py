"""Small objects that several writers change: conditional writes, stores that pass over them, and foreign writers."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from contract.cases import EPOCH, descriptor
from contract.contents import Raw
from object_stores import Bucket, in_threads
from snapshots import with_tag
from support import s3

from epoch_oci.epoch.catalog import Catalog
from epoch_oci.epoch.keys import CATALOG_KEY
from epoch_oci.errors import AccessError, ConflictError, ContentError, NetworkError, NotFoundError
from epoch_oci.stores.backends.object_streams import Patience
from epoch_oci.stores.epoch_store import EpochStore

BLOB = b"a blob that all of them share"
CATALOG = f"epoch/{CATALOG_KEY}"
NOW = "2026-04-04T13:07:33Z"


@pytest.fixture(params=list(s3.shared_servers()), ids=lambda server: server[0])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    return Bucket(request.param[1]())


@pytest.fixture
def moto() -> Iterator[Callable[..., Bucket]]:
    with ExitStack() as stack:
        servers: list[s3.MotoS3] = []

        def make(*faults: s3.Fault, conditions: str = "heeded") -> Bucket:
            server = stack.enter_context(s3.MotoS3(conditions=conditions))
            servers.append(server)
            bucket = Bucket(server)
            server.clear()
            server.add(*faults)
            return bucket

        yield make
        for server in servers:
            server.assert_fired()


def on(method: str, key: str) -> Callable[[s3.Request], bool]:
    return lambda request: request.method == method and request.path.endswith(key)


def publish(store: EpochStore, tag: str, note: str = "", *, name: str = "bot", replace: bool = False):
    store.put(descriptor(BLOB), Raw(BLOB))
    document = EPOCH.document([BLOB], note or tag)
    store.publish(f"{name}:{tag}", document, replace=replace)
    return document


def listed(bucket: Bucket) -> dict[str, set[str]]:
    catalog = Catalog.parse(bucket.get(CATALOG))
    return {name: set(repository.tags) for name, repository in catalog.repositories.items()}


class TestUpdate:
    def test_a_new_object(self, bucket: Bucket) -> None:
        seen: list[bytes | None] = []
        backend = bucket.backend()
        assert backend.update("x", lambda old: seen.append(old) or b"1", limit=9) is True
        assert (seen, bucket.get("epoch/x")) == ([None], b"1")
        assert set(bucket.listing()) == {"epoch/x"}

    def test_a_changed_one(self, bucket: Bucket) -> None:
        backend = bucket.backend()
        for turn in range(5):
            assert backend.update("x", lambda old, turn=turn: (old or b"") + b"%d" % turn, limit=9)
        assert bucket.get("epoch/x") == b"01234"

    @pytest.mark.parametrize("new", [None, b"same"])
    def test_nothing_to_change(self, moto, new: bytes | None) -> None:
        bucket = moto()
        bucket.put("epoch/x", b"same")
        bucket.server.clear()
        assert bucket.backend().update("x", lambda old: new, limit=9) is False
        assert [request.method for request in bucket.server.requests] == ["GET"]

    def test_what_the_change_raises_passes(self, bucket: Bucket) -> None:
        with pytest.raises(ZeroDivisionError):
            bucket.backend().update("x", lambda old: 1 // 0, limit=9)
        assert bucket.listing() == {}

    def test_more_than_allowed(self, bucket: Bucket) -> None:
        bucket.put("epoch/x", bytes(10))
        with pytest.raises(ContentError) as caught:
            bucket.backend().update("x", lambda old: b"", limit=9)
        assert caught.value.code == "SIZE"

    def test_to_and_from_nothing(self, bucket: Bucket) -> None:
        backend = bucket.backend()
        assert backend.update("x", lambda old: b"", limit=9)
        assert backend.update("x", lambda old: b"1" if old == b"" else None, limit=9)
        assert bucket.get("epoch/x") == b"1"

    @pytest.mark.parametrize("before", [None, b"old"])
    def test_somebody_else_was_quicker(self, moto, before: bytes | None) -> None:
        bucket = moto()
        if before is not None:
            bucket.put("epoch/x", before)
        bucket.server.add(s3.before(on("PUT", "/x"), lambda: bucket.put("epoch/x", b"theirs"), times=1))
        seen: list[bytes | None] = []
        assert bucket.backend().update("x", lambda old: seen.append(old) or (old or b"") + b"+ours", limit=99)
        assert seen == [before, b"theirs"]
        assert bucket.get("epoch/x") == b"theirs+ours"

    def test_somebody_took_it_away(self, moto) -> None:
        bucket = moto()
        bucket.put("epoch/x", b"old")
        gone = lambda: bucket.client.delete_object(Bucket=bucket.name, Key="epoch/x")  # noqa: E731
        bucket.server.add(s3.before(on("PUT", "/x"), gone, times=1))
        assert bucket.backend().update("x", lambda old: (old or b"none") + b"+ours", limit=99)
        assert bucket.get("epoch/x") == b"none+ours"

    def test_somebody_is_always_quicker(self, moto) -> None:
        bucket = moto()
        turn, other = iter(range(1000)), s3.shared_moto().client()  # the same buckets, past our faults

        def put() -> None:
            other.put_object(Bucket=bucket.name, Key="epoch/x", Body=b"%d" % next(turn))

        bucket.server.add(s3.before(on("PUT", "/x"), put, times=None))
        backend = bucket.backend(patience=Patience(attempts=2, sleep=lambda _: None))
        with pytest.raises(ConflictError):
            backend.update("x", lambda old: (old or b"") + b"+", limit=99)

    def test_the_answer_to_our_own_write_is_lost(self, moto) -> None:
        """The retry finds the object changed, and it was us who changed it."""
        bucket = moto()
        bucket.put("epoch/x", b"old")

        def act(request: s3.Request, handle: s3.Handler) -> s3.Answer:
            handle(request)
            return s3.Answer(500, {}, s3.error_body("InternalError"))

        bucket.server.add(s3.Fault(on("PUT", "/x"), act, times=1))
        calls: list[bytes | None] = []
        assert bucket.backend().update("x", lambda old: calls.append(old) or (old or b"") + b"+", limit=99)
        assert (calls, bucket.get("epoch/x")) == ([b"old"], b"old+")

    @pytest.mark.parametrize("before", [None, b"old"])
    def test_a_conflict_is_tried_again(self, moto, before: bytes | None) -> None:
        """Reliability F23: 409 is a conditional request that met another one."""
        bucket = moto()
        if before is not None:
            bucket.put("epoch/x", before)
        bucket.server.add(s3.answers("PUT", 409, "ConditionalRequestConflict", path="/x$", times=1))
        assert bucket.backend().update("x", lambda old: (old or b"") + b"+", limit=99)
        assert bucket.get("epoch/x") == (before or b"") + b"+"

    def test_a_store_that_fails(self, moto) -> None:
        bucket = moto(s3.answers("PUT", 503, "SlowDown", path="/x$"))
        with pytest.raises(NetworkError):
            bucket.backend().update("x", lambda old: b"1", limit=9)
        assert bucket.listing() == {}


class TestProbe:
    def test_is_made_once_and_leaves_nothing(self, moto) -> None:
        bucket = moto()
        backend = bucket.backend()
        for turn in range(3):
            backend.update("x", lambda old, turn=turn: b"%d" % turn, limit=9)
        probes = [request for request in bucket.server.requests if "/.epoch-oci/probe-" in request.path]
        assert len({request.path for request in probes}) == 1
        assert probes[-1].method == "DELETE"
        assert set(bucket.listing()) == {"epoch/x"}
        assert bucket.warnings == []

    def test_nothing_is_probed_before_something_is_written(self, moto) -> None:
        bucket = moto()
        backend = bucket.backend()
        backend.update("x", lambda old: None, limit=9)
        backend.write("y", lambda: Raw(b"1").open(), 1)
        assert not any(".epoch-oci" in request.path for request in bucket.server.requests)

    @pytest.mark.parametrize("conditions", ["ignored", "refused"])
    def test_a_store_without_is_found_out_and_named(self, moto, conditions: str) -> None:
        """Reliability F23: detected every time."""
        bucket = moto(conditions=conditions)
        backend = bucket.backend()
        for turn in range(3):
            assert backend.update("x", lambda old, turn=turn: b"%d" % turn, limit=9)
        assert bucket.get("epoch/x") == b"2"
        assert set(bucket.listing()) == {"epoch/x"}
        (warning,) = bucket.warnings
        assert "does not write on condition" in warning
        assert f"s3://{bucket.name}/epoch/" in warning

    def test_a_store_that_heeds_only_one_of_the_two(self, moto) -> None:
        bucket = moto()

        def forget(request: s3.Request, handle: s3.Handler) -> s3.Answer:
            kept = {name: text for name, text in request.headers.items() if name != "if-match"}
            plain = s3.Request(request.method, request.path, request.query, kept, request.body)
            bucket.client.put_object(Bucket=bucket.name, Key=plain.path.split("/", 2)[2], Body=plain.body)
            return s3.Answer(200, {"ETag": '"0"'}, b"")

        bucket.server.add(s3.Fault(lambda request: "if-match" in request.headers, forget))
        bucket.backend().update("x", lambda old: b"1", limit=9)
        assert len(bucket.warnings) == 1

    def test_where_no_object_of_ours_may_be_written(self, moto) -> None:
        bucket = moto(s3.answers("PUT", 403, "AccessDenied", path="probe-"))
        assert bucket.backend().update("x", lambda old: b"1", limit=9)
        assert bucket.get("epoch/x") == b"1"
        assert len(bucket.warnings) == 1

    def test_where_nothing_may_be_removed(self, moto) -> None:
        bucket = moto(s3.answers("DELETE", 403, "AccessDenied"))
        bucket.backend().update("x", lambda old: b"1", limit=9)
        (warning,) = bucket.warnings
        assert "left behind" in warning
        assert ".epoch-oci/probe-" in warning

    def test_where_nothing_may_be_written(self, moto) -> None:
        bucket = moto(s3.answers("PUT", 403, "AccessDenied"))
        with pytest.raises(AccessError):
            bucket.backend().update("x", lambda old: b"1", limit=9)

    def test_a_store_that_fails_is_not_taken_for_one_without(self, moto) -> None:
        bucket = moto(s3.answers("PUT", 503, "SlowDown", path="probe-"))
        with pytest.raises(NetworkError):
            bucket.backend().update("x", lambda old: b"1", limit=9)
        assert bucket.warnings == []


class TestWithoutConditions:
    """The write is looked at again; who is lost then is found and entered anew."""

    @pytest.mark.parametrize("conditions", ["ignored", "refused"])
    def test_ours_is_lost_and_entered_again(self, moto, conditions: str) -> None:
        bucket = moto(conditions=conditions)
        publish(bucket.store(), "v1")
        stale = bucket.get(CATALOG)
        theirs = with_tag(stale, "other", "v9", NOW)
        reads = iter(range(10**6))

        def third_read(request: s3.Request) -> bool:
            return on("GET", f"/{CATALOG}")(request) and next(reads) == 2

        # publish reads the catalog to see that it can be read, to change it, and to look at it again.
        bucket.server.add(s3.before(third_read, lambda: bucket.put(CATALOG, theirs)))
        publish(bucket.store(), "v2")
        assert listed(bucket) == {"bot": {"v1", "v2"}, "other": {"v9"}}

    def test_a_tag_of_another_document_in_between_is_a_conflict(self, moto) -> None:
        bucket = moto(conditions="ignored")
        key = "epoch/manifests/bot/v1.json"
        reads = iter(range(10**6))

        def second_read(request: s3.Request) -> bool:
            return on("GET", key)(request) and next(reads) == 1

        bucket.server.add(s3.before(second_read, lambda: bucket.put(key, b"{}")))
        with pytest.raises(ConflictError):
            publish(bucket.store(), "v1")
        assert bucket.get(key) == b"{}"

    def test_writers_do_not_chase_each_other(self, moto) -> None:
        """Both are entered, so neither has to write again because the other's time differs."""
        bucket = moto(conditions="ignored")
        publish(bucket.store(), "first")
        bucket.server.clear()
        in_threads(4, lambda number: publish(bucket.store(), f"v{number}"))
        writes = [request for request in bucket.server.requests if on("PUT", f"/{CATALOG}")(request)]
        assert len(writes) <= 12
        assert listed(bucket) == {"bot": {"first", "v0", "v1", "v2", "v3"}}


class TestManyWriters:
    """Reliability F20: no tag is lost, and of many who want one tag a single one gets it."""

    WRITERS, TAGS = 8, 5

    def test_every_tag_is_entered(self, bucket: Bucket) -> None:
        def write(number: int) -> None:
            store = bucket.store()
            for tag in range(self.TAGS):
                publish(store, f"t{tag}", name=f"writer-{number}")

        in_threads(self.WRITERS, write)
        assert listed(bucket) == {f"writer-{number}": {f"t{tag}" for tag in range(self.TAGS)} for number in range(8)}
        assert list(bucket.store().audit()) == []
        assert bucket.warnings == []

    def test_one_client_in_many_threads(self, bucket: Bucket) -> None:
        store = bucket.store()
        in_threads(8, lambda number: publish(store, f"v{number}"))
        assert listed(bucket) == {"bot": {f"v{number}" for number in range(8)}}

    def test_one_tag_has_one_winner(self, bucket: Bucket) -> None:
        won: list[bytes] = []
        lost: list[int] = []

        def write(number: int) -> None:
            try:
                won.append(publish(bucket.store(), "v1", f"writer {number}").raw)
            except ConflictError:
                lost.append(number)

        in_threads(self.WRITERS, write)
        assert (len(won), len(lost)) == (1, self.WRITERS - 1)
        assert bucket.store().resolve("bot:v1").raw == won[0]


class LiveServer:
    """A running Epoch server (reliability E4): it reads the catalog now and then, and writes what it remembers."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.remembered = b""

    def look(self) -> None:
        self.remembered = self.bucket.get(CATALOG)

    def push(self, tag: str) -> None:
        self.bucket.put(f"epoch/manifests/server/{tag}.json", EPOCH.document([BLOB], tag).raw)
        self.remembered = with_tag(self.remembered, "server", tag, NOW)
        self.bucket.put(CATALOG, self.remembered)


class TestForeignWriter:
    def test_is_seen_between_our_read_and_our_write(self, moto) -> None:
        bucket = moto()
        publish(bucket.store(), "v1")
        server = LiveServer(bucket)
        server.look()
        bucket.server.add(s3.before(on("PUT", f"/{CATALOG}"), lambda: server.push("s1"), times=1))
        publish(bucket.store(), "v2")
        assert listed(bucket) == {"bot": {"v1", "v2"}, "server": {"s1"}}

    def test_that_erases_our_entry_later_is_reported_and_made_good(self, bucket: Bucket) -> None:
        """No condition of ours can keep another from writing blindly; no snapshot is lost by it."""
        store = bucket.store()
        publish(store, "v1")
        server = LiveServer(bucket)
        server.look()
        document = publish(store, "v2")
        server.push("s1")
        assert listed(bucket) == {"bot": {"v1"}, "server": {"s1"}}
        assert [(entry.name, entry.tag) for entry in store.snapshots()] == [
            ("bot", "v1"),
            ("bot", "v2"),
            ("server", "s1"),
        ]
        (finding,) = store.audit()
        assert "bot:v2" in str(finding)
        store.publish("bot:v2", document)
        assert listed(bucket) == {"bot": {"v1", "v2"}, "server": {"s1"}}
        assert list(store.audit()) == []

    def test_busy_all_the_time(self, bucket: Bucket) -> None:
        publish(bucket.store(), "v0")
        stop = threading.Event()
        written: list[str] = []

        def serve() -> None:
            server = LiveServer(bucket)
            while not stop.is_set():
                server.look()
                server.push(f"s{len(written)}")
                written.append(f"s{len(written)}")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            documents = {f"v{number}": publish(bucket.store(), f"v{number}") for number in range(1, 6)}
        finally:
            stop.set()
            thread.join()
        store = bucket.store()
        for tag, document in documents.items():
            assert store.resolve(f"bot:{tag}").raw == document.raw
            store.publish(f"bot:{tag}", document)
        assert listed(bucket)["bot"] == {"v0", *documents}

    def test_keeps_what_we_do_not_know(self, bucket: Bucket) -> None:
        catalog = {"repositories": {"x": {"tags": None, "note": "n"}}, "updatedAt": NOW, "unknown": [1]}
        bucket.put(CATALOG, json.dumps(catalog).encode())
        publish(bucket.store(), "v1")
        found = json.loads(bucket.get(CATALOG))
        assert (found["unknown"], found["repositories"]["x"]) == ([1], {"tags": {}, "note": "n"})

    def test_a_damaged_catalog_is_left_alone(self, bucket: Bucket) -> None:
        bucket.put(CATALOG, b'{"repositories":')
        with pytest.raises(ContentError):
            publish(bucket.store(), "v1")
        assert bucket.get(CATALOG) == b'{"repositories":'
        with pytest.raises(NotFoundError):
            bucket.store().resolve("bot:v1")


def test_the_listing_is_of_the_manifests(bucket: Bucket) -> None:
    """Trap 36: pseudo-tags are kept, copies by digest are not, whatever the catalog says."""
    pseudo = "sha256:" + "ab" * 32
    for key in ("a/v1", "a/b/v1", f"a/{pseudo}", "a/_digests/sha256-" + "ab" * 32):
        bucket.put(f"epoch/manifests/{key}.json", b"{}")
    bucket.put(CATALOG, with_tag(None, "ghost", "v1", NOW))
    found = [(entry.name, entry.tag) for entry in bucket.store().snapshots()]
    assert found == [("a", pseudo), ("a", "v1"), ("a/b", "v1")]
    problems = [str(finding) for finding in bucket.store().audit()]
    assert any("ghost:v1" in problem for problem in problems)
    assert any("_digests" in problem for problem in problems)
