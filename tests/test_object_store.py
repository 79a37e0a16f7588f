"""The backend over object stores: streams both ways, failures on either side, and what a bucket may hold."""

import io
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from contract.cases import descriptor
from contract.contents import Failing, Raw, Unopenable
from object_stores import Bucket
from support import s3
from support.content import noise
from support.proxy import Cut, FaultProxy
from support.recorder import Recorder
from support.wire import Answer

from epoch_oci.errors import (
    AccessError,
    ContentError,
    EpochOciError,
    NetworkError,
    NotFoundError,
    PolicyError,
    UsageError,
)
from epoch_oci.oci.verifying import ByteReader
from epoch_oci.stores.backends import object_streams
from epoch_oci.stores.backends.base import verified
from epoch_oci.stores.backends.object_streams import Patience
from epoch_oci.stores.buckets import list_config, open_bucket
from epoch_oci.stores.cloud_settings import amazon_s3

MIB = 1 << 20
BIG = noise(19 * MIB + 7, seed=3)
KEY = "blobs/sha256/" + descriptor(BIG).digest.hex


NO_LISTS = {
    "a web page": b"<!DOCTYPE html><html><head><meta charset=utf-8></head><body><br>Console</body></html>",
    "a page that is XML": b"<html><body><h1>It works!</h1></body></html>",
    "an error with 200": b'<?xml version="1.0"?><Error><Code>InternalError</Code></Error>',
    "nothing": b"",
    "text": b"hello",
    "JSON": b'{"Contents": []}',
    "entities": b'<!DOCTYPE a [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>',
    "depth": b"<a>" * 100_000 + b"</a>" * 100_000,
    "much of it": b"<ListBucketResult>" + b"<Owner>x</Owner>" * 500_000 + b"</ListBucketResult>",
    "half a list": b"<ListBucketResult><Contents><Key>epoch/manifests/a/v1.json</Key>",
}


@contextmanager
def within_memory(limit: int) -> Iterator[None]:
    """No more than so many bytes more than before, at the peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < limit >> 10


@pytest.fixture(params=list(s3.shared_servers()), ids=lambda server: server[0])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    return Bucket(request.param[1]())


@pytest.fixture
def moto() -> Iterator[Callable[..., Bucket]]:
    """A bucket of a server with faults, every one of which has to strike."""
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


@contextmanager
def of(raw: bytes) -> Iterator[ByteReader]:
    yield io.BytesIO(raw)


def read(backend, key: str = KEY, *span: int) -> bytes:
    with backend.open(key, *span) as reader:
        return b"".join(iter(lambda: reader.read(MIB), b""))


class TestLargeObjects:
    @pytest.mark.parametrize("size", [0, 1, MIB, 8 * MIB, 8 * MIB + 1, 16 * MIB, len(BIG)])
    def test_come_back_whole(self, bucket: Bucket, size: int) -> None:
        bucket.backend().write("x", lambda: of(BIG[:size]), size)
        assert read(bucket.backend(), "x") == BIG[:size]
        assert bucket.backend().head("x") == size
        assert set(bucket.listing()) == {"epoch/x"}

    def test_go_in_parts_of_one_size(self, moto) -> None:
        bucket = moto()
        bucket.backend().write(KEY, lambda: of(BIG), len(BIG))
        parts = [request for request in bucket.server.requests if "partNumber=" in request.query]
        assert sorted(len(part.body) for part in parts) == [len(BIG) - 16 * MIB, 8 * MIB, 8 * MIB]

    @pytest.mark.parametrize(
        ("size", "part"), [(0, 8), (8 << 30, 8), (72_000 * MIB, 8), (72_001 * MIB, 9), (5 << 40, 583)]
    )
    def test_parts_grow_with_the_object(self, size: int, part: int) -> None:
        assert object_streams.part_size(size) == part * MIB
        assert -(-size // object_streams.part_size(size)) <= 10_000

    def test_are_typed_as_epoch_types_them(self, bucket: Bucket) -> None:
        for key, raw in (("small", b"x"), ("large", BIG)):
            bucket.backend().write(key, lambda raw=raw: of(raw), len(raw))
            found = bucket.client.head_object(Bucket=bucket.name, Key=f"epoch/{key}")
            assert (found["ContentType"], found["Metadata"]) == ("application/octet-stream", {})

    def test_stream_from_one_bucket_into_another(self, bucket: Bucket) -> None:
        """The body is pulled inside of obstore's runtime, where nothing else of obstore may run."""
        source = bucket.backend()
        source.write(KEY, lambda: of(BIG), len(BIG))
        target = bucket.backend("s3:///copy")
        target.write(KEY, lambda: source.open(KEY), len(BIG))
        assert read(target) == BIG

    def test_more_or_less_than_was_announced(self, bucket: Bucket) -> None:
        for announced in (0, 1, len(BIG) * 3):
            bucket.backend().write(KEY, lambda: of(BIG), announced)
            assert read(bucket.backend()) == BIG


BAD = {
    "short": Raw(BIG[:-1]),
    "long": Raw(BIG + b"x"),
    "last-byte": Raw(BIG[:-1] + bytes([BIG[-1] ^ 1])),
    "first-byte": Raw(bytes([BIG[0] ^ 1]) + BIG[1:]),
}
FAILURES = {
    "network": Failing(BIG[:-5], NetworkError("the line went dead")),
    "early": Failing(b"", NotFoundError("gone")),
    "not-there": Unopenable(len(BIG), NotFoundError("gone")),
    "interrupt": Failing(BIG[: 9 * MIB], KeyboardInterrupt()),
    "exit": Failing(BIG[: 17 * MIB], SystemExit(3)),
    "bug": Failing(BIG[: 10 * MIB], ZeroDivisionError()),
    "disk": Failing(BIG[: 10 * MIB], OSError(5, "disk")),
    "missing-file": Failing(BIG[: 10 * MIB], FileNotFoundError("a file of the source")),
    "value": Failing(BIG[: 10 * MIB], ValueError("a bug of the source")),
}


class TestContentThatFails:
    """Reliability F20, and the promise of `Sink.put`: an upload is aborted and never completed."""

    @pytest.mark.parametrize("name", BAD)
    def test_wrong_content_leaves_nothing(self, bucket: Bucket, name: str) -> None:
        target = descriptor(BIG)
        with pytest.raises(ContentError):
            bucket.backend().write(KEY, lambda: verified(BAD[name], target), target.size)
        assert bucket.listing() == {}

    @pytest.mark.parametrize("name", FAILURES)
    def test_failures_pass_unchanged_and_leave_nothing(self, bucket: Bucket, name: str) -> None:
        content = FAILURES[name]
        with pytest.raises(type(content.error)) as caught:
            bucket.backend().write(KEY, content.open, len(BIG))
        assert caught.value is content.error
        assert bucket.listing() == {}

    def test_the_good_object_stays(self, bucket: Bucket) -> None:
        bucket.backend().write(KEY, lambda: of(BIG), len(BIG))
        before = bucket.listing()
        with pytest.raises(ContentError):
            bucket.backend().write(KEY, lambda: verified(BAD["last-byte"], descriptor(BIG)), len(BIG))
        assert bucket.listing() == before
        assert read(bucket.backend()) == BIG


class TestStoresThatFail:
    """Reliability F23."""

    def test_an_error_in_a_200_is_not_success(self, moto) -> None:
        bucket = moto(s3.answers("POST", 200, "InternalError", query="uploadId="))
        with pytest.raises(NetworkError) as caught:
            bucket.backend().write(KEY, lambda: of(BIG), len(BIG))
        assert "InternalError" in str(caught.value)
        assert bucket.listing() == {}

    def test_an_error_in_a_200_is_tried_again(self, moto) -> None:
        bucket = moto(s3.answers("POST", 200, "InternalError", query="uploadId=", times=1))
        bucket.backend().write(KEY, lambda: of(BIG), len(BIG))
        assert read(bucket.backend()) == BIG

    @pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")])
    def test_pressure_is_given_way_to(self, moto, status: int, code: str) -> None:
        bucket = moto(
            *(s3.answers(method, status, code, times=1) for method in ("PUT", "POST", "GET", "HEAD")),
            s3.answers("PUT", status, code, query="partNumber=2", times=1),
        )
        backend = bucket.backend()
        backend.write("small", lambda: of(b"x"), 1)
        backend.write(KEY, lambda: of(BIG), len(BIG))
        assert backend.head(KEY) == len(BIG)
        assert read(backend) == BIG

    def test_and_not_for_ever(self, moto) -> None:
        bucket = moto(s3.answers("PUT", 503, "SlowDown", query="partNumber="))
        with pytest.raises(NetworkError) as caught:
            bucket.backend().write(KEY, lambda: of(BIG), len(BIG))
        assert (caught.value.status, caught.value.retryable) == (503, True)
        assert "SlowDown" in str(caught.value)
        assert bucket.listing() == {}

    def test_content_is_not_read_on_when_the_store_has_given_up(self, moto) -> None:
        bucket = moto(s3.answers("PUT", 400, "EntityTooLarge", query="partNumber="))
        handed = 0

        def blocks() -> Iterator[bytes]:
            nonlocal handed
            while handed < 400:
                handed += 1
                yield bytes(MIB)

        @contextmanager
        def endless() -> Iterator[ByteReader]:
            source = blocks()

            class Reader:
                def read(self, size: int = -1, /) -> bytes:
                    return next(source, b"")

            yield Reader()

        with pytest.raises(UsageError, match="no object of that size"):
            bucket.backend().write(KEY, endless, 400 * MIB)
        assert handed < 200
        assert bucket.listing() == {}

    def test_redirects_with_content_are_not_followed(self, moto, recorder: Recorder) -> None:
        """Reliability C3, C5."""
        bucket = moto(s3.redirects("PUT", recorder.url))
        for raw in (b"x", BIG):
            with pytest.raises(PolicyError):
                bucket.backend().write(KEY, lambda raw=raw: of(raw), len(raw))
        recorder.assert_untouched()

    def test_redirected_reading_takes_no_credentials_along(self, moto, make_recorder) -> None:
        other = make_recorder(Answer.of(200, b"x", ("ETag", '"1"'), ("Last-Modified", "Wed, 25 Nov 2026 03:43:10 GMT")))
        bucket = moto(s3.redirects("GET", other.url))
        assert read(bucket.backend()) == b"x"
        assert not other.shows(s3.SECRET_KEY)
        assert not other.shows(s3.ACCESS_KEY)

    @pytest.mark.parametrize("code", ["AuthorizationHeaderMalformed", "PermanentRedirect"])
    def test_another_region(self, moto, code: str) -> None:
        bucket = moto(s3.answers("GET", 400, code, extra="<Region>eu-north-1</Region>"))
        with pytest.raises(UsageError) as caught:
            read(bucket.backend())
        assert "eu-north-1" in str(caught.value)
        assert "EPOCH_S3_REGION" in str(caught.value)

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
    def test_denied(self, moto, method: str) -> None:
        echoed = f"<AWSAccessKeyId>{s3.ACCESS_KEY}</AWSAccessKeyId><SignatureProvided>s1gn4tur3</SignatureProvided>"
        bucket = moto(s3.answers(method, 403, "SignatureDoesNotMatch", extra=echoed))
        backend = bucket.backend()
        act = {"GET": lambda: read(backend), "HEAD": lambda: backend.head(KEY)}
        with pytest.raises(AccessError) as caught:
            act.get(method, lambda: backend.write(KEY, lambda: of(b"x"), 1))()
        shown = "".join(_everything(caught.value))
        assert "s1gn4tur3" not in shown
        assert s3.ACCESS_KEY not in shown

    def test_a_server_that_is_not_there(self, moto) -> None:
        bucket = moto()
        bucket.server.stop()
        with pytest.raises(NetworkError, match="refused"):
            bucket.backend().head(KEY)
        bucket.server.start()

    def test_a_server_that_does_not_speak_tls(self, moto) -> None:
        bucket = moto()
        environ = {**bucket.server.environ(bucket.name), "EPOCH_S3_SECURE": "true"}
        with pytest.raises(NetworkError, match="TLS"):
            bucket.backend(environ=environ).head(KEY)

    def test_a_certificate_that_is_not_trusted(self, make_recorder, tls_kit) -> None:
        server = make_recorder(Answer.of(404), tls="good")
        environ = {"EPOCH_S3_ENDPOINT": server.url, "EPOCH_S3_ACCESS_KEY": "a", "EPOCH_S3_SECRET_KEY": "b"}
        bucket = Bucket(s3.shared_moto(), environ={**environ, "EPOCH_S3_BUCKET": "bucket"})
        with pytest.raises(NetworkError, match="not trusted") as caught:
            bucket.backend().head(KEY)
        assert not caught.value.retryable
        assert bucket.backend(ca_file=str(tls_kit.ca_file)).head(KEY) is None
        assert bucket.backend(insecure=True).head(KEY) is None


def _everything(error: BaseException | None) -> Iterator[str]:
    """What a traceback would show of an error and its causes."""
    while error is not None:
        yield f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


class TestReading:
    @pytest.fixture
    def filled(self, moto) -> Callable[..., Bucket]:
        def make(*faults: s3.Fault) -> Bucket:
            bucket = moto()
            bucket.put(f"epoch/{KEY}", BIG)
            bucket.server.clear()
            bucket.server.add(*faults)
            return bucket

        return make

    @pytest.mark.parametrize("start", [0, 5, MIB * 4])
    def test_goes_on_where_a_body_broke_off(self, filled, start: int) -> None:
        bucket = filled(s3.cuts(3_000_000, path=KEY, times=2))
        assert read(bucket.backend(), KEY, start) == BIG[start:]
        asked = [request.headers.get("range") for request in bucket.server.requests]
        assert asked[0] == (f"bytes={start}-" if start else None)
        assert len(asked) == 3

    def test_goes_on_however_often_if_only_something_came(self, filled) -> None:
        bucket = filled(s3.cuts(2_000_000, path=KEY, times=8))
        assert read(bucket.backend()) == BIG

    def test_gives_up_when_nothing_comes(self, filled) -> None:
        bucket = filled(s3.cuts(0, path=KEY))
        with pytest.raises(NetworkError) as caught:
            read(bucket.backend())
        assert caught.value.retryable
        assert len(bucket.server.requests) < 20

    def test_a_connection_that_breaks_below_http(self, filled) -> None:
        bucket = filled()
        with FaultProxy(bucket.server.address, Cut("down", 5_000_000, how="fin", times=2)) as proxy:
            environ = {**bucket.server.environ(bucket.name), "EPOCH_S3_ENDPOINT": f"http://{proxy.address}"}
            assert read(bucket.backend(environ=environ)) == BIG
            proxy.assert_fired()

    def test_past_the_end(self, bucket: Bucket) -> None:
        backend = bucket.backend()
        backend.write("x", lambda: of(b"0123456789"), 10)
        backend.write("empty", lambda: of(b""), 0)
        for span in ((10,), (11,), (10, 5), (99, 1), (3, 0), (0, 0)):
            assert read(backend, "x", *span) == b""
        for span in ((), (0,), (1,), (0, 5), (0, 0)):
            assert read(backend, "empty", *span) == b""
        assert read(backend, "x", 8, 99) == b"89"

    def test_little_at_a_time(self, bucket: Bucket) -> None:
        backend = bucket.backend()
        backend.write("x", lambda: of(BIG[: 2 * MIB]), 2 * MIB)
        with backend.open("x") as reader:
            pieces = list(iter(lambda: reader.read(77_777), b""))
        assert b"".join(pieces) == BIG[: 2 * MIB]
        assert max(map(len, pieces)) <= 77_777
        with backend.open("x") as reader:
            assert len(reader.read()) <= MIB
            assert reader.read(0) == b""

    def test_a_reader_that_is_left_early_frees_its_connection(self, filled) -> None:
        bucket = filled()
        for _ in range(40):
            with bucket.backend().open(KEY) as reader:
                assert reader.read(10) == BIG[:10]


class TestKeys:
    NAMES = (
        *("plain", "sha256:ab", "a b", "a~b", "a%2Fb", "a%b", "a#b", "a?b", "a+b", "a&b", "[x]", "{x}", "<x>", "a*b"),
        *(
            "böt",
            "a\\b",
            "'q'",
            "x" * 200,
            ".hidden",
            "a.b.",
            "日本",
            "a=b",
            "a|b",
            "a^b",
            "`",
            "a@b",
            "a$b",
            "a,b",
            "a;b",
        ),
    )

    def test_any_name_is_kept_as_it_is(self, bucket: Bucket) -> None:
        """Trap 35."""
        backend = bucket.backend()
        names = [name for name in self.NAMES if "\\" not in name or bucket.server is s3.shared_moto()]
        for name in names:
            backend.write(f"manifests/{name}/v1.json", lambda name=name: of(name.encode()), len(name.encode()))
        assert set(backend.keys("manifests/")) == {f"manifests/{name}/v1.json" for name in names}
        assert {key.removeprefix("epoch/") for key in bucket.listing()} == set(backend.keys(""))
        for name in names:
            assert read(backend, f"manifests/{name}/v1.json") == name.encode()

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\x00b", "a\x01b", "a\nb", "a\x7f", "a\ud800"]
    )
    def test_what_cannot_be_a_key_is_refused(self, moto, key: str) -> None:
        bucket = moto()
        backend = bucket.backend()
        for act in (
            lambda: backend.head(key),
            lambda: read(backend, key),
            lambda: backend.write(key, lambda: of(b""), 0),
            lambda: backend.update(key, lambda old: b"x", limit=9),
            lambda: backend.delete(key),
        ):
            with pytest.raises(ContentError) as caught:
                act()
            assert caught.value.code == "NAME"
        assert bucket.server.requests == []

    def test_ours_are_hidden_and_reserved(self, bucket: Bucket) -> None:
        bucket.put("epoch/.epoch-oci/probe-1")
        bucket.put("epoch/manifests/a/v1.json")
        backend = bucket.backend()
        assert list(backend.keys("")) == ["manifests/a/v1.json"]
        with pytest.raises(ContentError):
            backend.write(".epoch-oci/x", lambda: of(b""), 0)

    def test_a_prefix_divides_anywhere(self, bucket: Bucket) -> None:
        for key in ("blobs/sha256/aa", "blobs/sha256/ab", "blobs/sha512/aa", "blobsy", "manifests/a/b.json"):
            bucket.put(f"epoch/{key}")
        bucket.put("other/blobs/sha256/aa")
        backend = bucket.backend()
        for prefix in ("", "blobs", "blobs/", "blobs/sha", "blobs/sha256/a", "blobs/sha256/aa", "manifests/", "none/"):
            found = sorted(key.removeprefix("epoch/") for key in bucket.listing() if key.startswith(f"epoch/{prefix}"))
            assert sorted(backend.keys(prefix)) == found

    def test_pages(self, moto, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "20")
        bucket = moto()
        names = {f"manifests/bot/{number:04}.json" for number in range(25)}
        backend = bucket.backend()
        for name in names:
            bucket.put(f"epoch/{name}")
        bucket.server.clear()
        assert set(backend.keys("manifests/")) == names
        # a look at the first entry, two pages, and what lies behind the last name
        assert len([request for request in bucket.server.requests if "list-type=2" in request.query]) == 4
        bucket.server.add(s3.answers("GET", 403, "AccessDenied", query="continuation-token"))
        with pytest.raises(AccessError):
            list(backend.keys("manifests/"))

    @pytest.mark.parametrize("body", NO_LISTS.values(), ids=list(NO_LISTS))
    @pytest.mark.parametrize("query", ["", "list-type=2"], ids=["everywhere", "in place of lists"])
    def test_what_is_no_list_is_not_taken_for_an_empty_one(self, moto, body: bytes, query: str) -> None:
        bucket = moto(s3.says(body, query=query))
        bucket.put("epoch/manifests/bot/v1.json", b"{}")
        for ask in (bucket.backend().check, lambda: list(bucket.backend().keys("manifests/"))):
            with within_memory(256 << 20), pytest.raises(ContentError) as caught:
                ask()
            assert "endpoint" in str(caught.value)

    @pytest.mark.parametrize("body", NO_LISTS.values(), ids=list(NO_LISTS))
    @pytest.mark.parametrize("query", ["continuation-token", "start-after"])
    def test_no_page_is_passed_over(self, moto, monkeypatch: pytest.MonkeyPatch, body: bytes, query: str) -> None:
        """Only some pages are none, and only for a while: all names come, or an error."""
        monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")
        bucket = moto(s3.says(body, query=query, times=1))
        names = {f"manifests/bot/{number:04}.json" for number in range(17)}
        for name in names:
            bucket.put(f"epoch/{name}")
        try:
            found = list(bucket.backend().keys("manifests/"))
        except ContentError:
            return
        assert sorted(found) == sorted(names)

    def test_the_cloud_s_own_endpoint_and_one_that_cannot_be_looked_at_are_believed(self, moto) -> None:
        bucket = moto(s3.answers("GET", 400, "InvalidArgument", query="x-epoch-oci"))
        assert list(bucket.backend().keys("")) == []
        bucket.put("epoch/manifests/bot/v1.json", b"{}")
        assert list(bucket.backend().keys("")) == ["manifests/bot/v1.json"]
        assert list_config(amazon_s3({}), "bucket", "epoch/") is None

    def test_a_web_site_that_cannot_be_looked_at_is_found_out_all_the_same(self, moto) -> None:
        bucket = moto(s3.answers("GET", 400, "InvalidArgument", query="x-epoch-oci"), s3.says(b"<html></html>"))
        bucket.server.add(s3.Fault(lambda request: request.method == "HEAD", lambda *_: s3.Answer(200, {}, b"")))
        with pytest.raises(ContentError, match="endpoint"):
            list(bucket.backend().keys(""))

    def test_a_list_without_an_end_is_given_up(self, moto) -> None:
        page = (
            b'<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>again'
            b"</NextContinuationToken><Contents><Key>epoch/manifests/bot/v1.json</Key><Size>2</Size><LastModified>"
            b"2026-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"
        )
        bucket = moto(s3.says(page, kind="application/xml", query="list-type=2"))
        with pytest.raises(ContentError, match="again and again"):
            list(bucket.backend().keys("manifests/"))

    def test_a_name_that_is_listed_very_often_is_one_snapshot(self, moto) -> None:
        entry = (
            b"<Contents><Key>epoch/manifests/bot/v1.json</Key><Size>2</Size><LastModified>2026-01-01T00:00:00.000Z"
            b"</LastModified></Contents>"
        )
        page = b"<ListBucketResult>" + entry * 900 + b"</ListBucketResult>"
        bucket = moto(s3.says(page, kind="application/xml", query="prefix=epoch%2Fmanifests"))
        assert [(item.name, item.tag) for item in bucket.store().snapshots()] == [("bot", "v1")]

    def test_a_prefix_without_a_slash_is_put_before_the_key_as_it_is(self, bucket: Bucket) -> None:
        """Chapter 2.1: plain concatenation, nothing is repaired."""
        backend = bucket.backend(environ=bucket.server.environ(bucket.name, EPOCH_S3_PREFIX="x/epoch-"))
        backend.write("manifests/a/b.json", lambda: of(b"1"), 1)
        assert set(bucket.listing()) == {"x/epoch-manifests/a/b.json"}
        assert list(backend.keys("manifests/")) == ["manifests/a/b.json"]
        assert list(backend.keys("")) == ["manifests/a/b.json"]

    def test_the_root_of_a_bucket(self, bucket: Bucket) -> None:
        backend = bucket.backend(f"s3://{bucket.name}/.")
        backend.write("manifests/a/b.json", lambda: of(b"1"), 1)
        assert set(bucket.listing()) == {"manifests/a/b.json"}
        assert list(backend.keys("")) == ["manifests/a/b.json"]

    def test_objects_that_no_path_can_name_are_reported(self, moto) -> None:
        bucket = moto()
        bucket.put("epoch/manifests/./x.json")
        with pytest.raises(ContentError) as caught:
            list(bucket.backend().keys("manifests/"))
        assert caught.value.code == "NAME"

    def test_deleting(self, bucket: Bucket) -> None:
        bucket.put("epoch/a/b")
        backend = bucket.backend()
        backend.delete("a/b")
        backend.delete("a/b")
        assert bucket.listing() == {}


class TestPlaces:
    def test_no_such_bucket(self, bucket: Bucket) -> None:
        backend = bucket.backend("s3://no-such-bucket-anywhere")
        for act in (
            backend.check,
            lambda: read(backend),
            lambda: list(backend.keys("")),
            lambda: backend.write("x", lambda: of(b"1"), 1),
            lambda: backend.write(KEY, lambda: of(BIG), len(BIG)),
            lambda: backend.update("x", lambda old: b"1", limit=9),
        ):
            with pytest.raises(NotFoundError, match="no such bucket"):
                act()
        assert backend.head("x") is None

    def test_an_empty_prefix_is_an_empty_store(self, bucket: Bucket) -> None:
        backend = bucket.backend()
        backend.check()
        assert list(backend.keys("")) == []
        assert list(bucket.store().snapshots()) == []

    def test_wrong_keys(self, bucket: Bucket) -> None:
        if bucket.server is s3.shared_moto():
            pytest.skip("moto checks no signatures")
        environ = bucket.server.environ(bucket.name, EPOCH_S3_SECRET_KEY="wrong-secret-key-0000")
        backend = bucket.backend(environ=environ)
        for act in (backend.check, lambda: backend.head("x"), lambda: read(backend, "x")):
            with pytest.raises(AccessError) as caught:
                act()
            assert "wrong-secret-key-0000" not in "".join(_everything(caught.value))


def test_google_speaks_the_same_way(moto) -> None:
    """Google's XML interface is S3's but for the signature and the conditions, so moto can stand for it."""
    bucket = moto()
    environ = {"GOOGLE_BASE_URL": bucket.server.url, "GOOGLE_BEARER_TOKEN": "token"}
    backend = bucket.backend(f"gs://{bucket.name}/x", environ=environ)
    backend.check()
    for key, raw in (("small", b"1"), (KEY, BIG)):
        backend.write(key, lambda raw=raw: of(raw), len(raw))
        assert read(backend, key) == raw
        assert backend.head(key) == len(raw)
    with pytest.raises(ZeroDivisionError):
        backend.write("bad", FAILURES["bug"].open, len(BIG))
    for turn in range(2):
        assert backend.update("small", lambda old, turn=turn: b"%d" % turn + (old or b""), limit=9)
    assert set(backend.keys("")) == {"small", KEY}
    backend.delete(KEY)
    assert {request.headers.get("authorization") for request in bucket.server.requests} == {"Bearer token"}
    assert set(bucket.listing()) == {"x/small"}
    assert bucket.get("x/small") == b"101"
    assert len(bucket.warnings) == 1


MEMORY = """
import os, resource, sys
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.buckets import BucketOptions, open_bucket
size = int(sys.argv[1])
backend, _ = open_bucket("s3://", BucketOptions(environ=dict(os.environ)))
class Reader:
    left = size
    def read(self, count=-1, /):
        count = min(BLOCK, self.left)
        self.left -= count
        return bytes(count)
class Content:
    def __enter__(self): return Reader()
    def __exit__(self, *_): return None
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
backend.head("warm")
before = peak()
backend.write("big", Content, size)
with backend.open("big") as reader:
    count = 0
    while block := reader.read(BLOCK):
        count += len(block)
assert count == size, count
print(peak() - before)
"""


def test_memory_is_flat(bucket: Bucket) -> None:
    """What is held does not grow with the object: parts under way, and a few blocks."""
    grown = []
    for size in (64 * MIB, 128 * MIB):
        env = {"PATH": "/usr/bin", **bucket.server.environ(bucket.name)}
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(size)], env=env, capture_output=True, text=True, timeout=100, check=True
        )
        grown.append(int(done.stdout))
    assert max(grown) < 110 * MIB
    assert grown[1] < grown[0] + 24 * MIB


def test_nothing_is_asked_when_a_store_is_named(moto) -> None:
    bucket = moto()
    open_bucket("s3://", bucket.options())
    assert bucket.server.requests == []


def test_patience_grows_and_ends() -> None:
    waits: list[float] = []
    patience = Patience(first=0.5, longest=3, sleep=waits.append, jitter=lambda: 1.0)
    for failed in (0, 1, 2, 3, 50, -3):
        patience.wait(failed)
    assert waits == [0.5, 1.0, 2.0, 3, 3, 0.0625]


def test_errors_are_always_ours(moto) -> None:
    """Whatever status comes, on every way in and out."""
    for status in (400, 402, 405, 409, 410, 411, 412, 413, 418, 451, 501, 505, 599):
        bucket = moto(*(s3.answers(method, status, "Whatever") for method in ("GET", "PUT", "HEAD", "DELETE")))
        backend = bucket.backend(patience=Patience(attempts=1, sleep=lambda _: None, settle=0))
        for act in (
            lambda backend=backend: backend.head("x"),
            lambda backend=backend: read(backend, "x"),
            lambda backend=backend: backend.write("x", lambda: of(b"1"), 1),
            lambda backend=backend: backend.delete("x"),
            lambda backend=backend: list(backend.keys("")),
        ):
            with pytest.raises(EpochOciError) as caught:
                act()
            assert caught.value.code != "INTERNAL"
            # What the same request cannot mend is not said to be worth another one.
            assert isinstance(caught.value, NetworkError) == (status in (409, 412) or status > 499)
