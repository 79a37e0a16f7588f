"""Where a bucket is, and who asks: Epoch's variables and file (chapter 2.2), the clouds' own, and what is refused."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from object_stores import Bucket
from support import s3
from support.recorder import Recorder
from support.wire import Answer

from epoch_oci.errors import AccessError, EpochOciError, LocalIOError, NetworkError, PolicyError, UsageError
from epoch_oci.locate import Connection, open_store
from epoch_oci.stores.buckets import BucketName, BucketOptions, client_options, open_bucket, static_keys
from epoch_oci.stores.cloud_settings import (
    DEFAULT_PREFIX,
    EpochSettings,
    amazon_s3,
    azure,
    endpoint_of,
    epoch_s3,
    google,
)

WHOLE = {
    "EPOCH_S3_ENDPOINT": "minio.example.com:9000",
    "EPOCH_S3_ACCESS_KEY": "access",
    "EPOCH_S3_SECRET_KEY": "secret",
    "EPOCH_S3_BUCKET": "bucket",
}
MISSING = Answer.of(404, b"<Error><Code>NoSuchKey</Code></Error>")


def epoch(environ: Mapping[str, str]) -> EpochSettings:
    return EpochSettings.from_mapping(environ)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Write the file; the variables that lead to it."""

    def make(text: str) -> dict[str, str]:
        path = tmp_path / "s3.env"
        path.write_text(text)
        return {"EPOCH_S3_ENV_FILE": str(path)}

    return make


class TestEndpoint:
    @pytest.mark.parametrize(
        ("text", "secure", "url"),
        [
            ("minio.example.com", "", "https://minio.example.com"),
            ("minio.example.com:9000", "", "https://minio.example.com:9000"),
            ("  minio.example.com:9000 ", "", "https://minio.example.com:9000"),
            ("http://minio.example.com:9000", "", "http://minio.example.com:9000"),
            ("https://minio.example.com", "", "https://minio.example.com"),
            ("HTTPS://minio.example.com", "", "https://minio.example.com"),
            ("https://minio.example.com/some/path?x=1", "", "https://minio.example.com"),
            ("https://user:pass@minio.example.com", "", "https://minio.example.com"),
            ("ftp://minio.example.com", "", "http://minio.example.com"),
            ("https://minio.example.com", "false", "http://minio.example.com"),
            ("http://minio.example.com", "1", "https://minio.example.com"),
            ("127.0.0.1:9000", "F", "http://127.0.0.1:9000"),
            ("http://[::1]:9000", "", "http://[::1]:9000"),
        ],
    )
    def test_as_epoch_reads_it(self, text: str, secure: str, url: str) -> None:
        assert epoch({**WHOLE, "EPOCH_S3_ENDPOINT": text, "EPOCH_S3_SECURE": secure}).endpoint == url

    @pytest.mark.parametrize("text", ["http://", "host/path", "ho st", "a b:1", "host:port", "://x", "/"])
    def test_that_is_none(self, text: str) -> None:
        with pytest.raises(UsageError, match="EPOCH_S3_ENDPOINT"):
            epoch({**WHOLE, "EPOCH_S3_ENDPOINT": text})

    @pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
    def test_yes(self, text: str) -> None:
        assert epoch({**WHOLE, "EPOCH_S3_SECURE": text}).endpoint.startswith("https:")

    @pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
    def test_no(self, text: str) -> None:
        assert epoch({**WHOLE, "EPOCH_S3_SECURE": text}).endpoint.startswith("http:")

    @pytest.mark.parametrize("text", ["yes", "on", "tRUE", "2", " true"])
    def test_neither(self, text: str) -> None:
        with pytest.raises(UsageError, match="EPOCH_S3_SECURE"):
            epoch({**WHOLE, "EPOCH_S3_SECURE": text})


class TestFile:
    TEXT = """
# a comment
EPOCH_S3_ENDPOINT = file.example.com
EPOCH_S3_ACCESS_KEY=file-access
EPOCH_S3_SECRET_KEY="quotes stay"
EPOCH_S3_BUCKET=file-bucket
EPOCH_S3_REGION=file-region
EPOCH_S3_PREFIX=file-prefix/
export EPOCH_S3_SECURE=false
not a line
EPOCH_S3_BUCKET=last=counts
"""

    def test_fills_in_what_is_missing(self, write) -> None:
        found = epoch(write(self.TEXT))
        assert found.endpoint == "https://file.example.com"
        assert (found.access_key, found.secret_key) == ("file-access", '"quotes stay"')
        assert (found.bucket, found.region) == ("last=counts", "file-region")

    def test_its_prefix_counts_for_nothing(self, write) -> None:
        assert epoch(write(self.TEXT)).prefix == "epoch/"
        assert epoch({**write(self.TEXT), "EPOCH_S3_PREFIX": "mine"}).prefix == "mine"

    def test_the_environment_comes_first(self, write) -> None:
        found = epoch({**write(self.TEXT), "EPOCH_S3_ENDPOINT": "env.example.com", "EPOCH_S3_REGION": "env-region"})
        assert (found.endpoint, found.region, found.bucket) == ("https://env.example.com", "env-region", "last=counts")

    @pytest.mark.parametrize("lacking", ["EPOCH_S3_ENDPOINT", "EPOCH_S3_ACCESS_KEY", "EPOCH_S3_BUCKET"])
    def test_is_read_when_one_of_three_is_missing(self, write, lacking: str) -> None:
        environ = {**WHOLE, **write(self.TEXT), lacking: ""}
        assert epoch(environ).region == "file-region"

    def test_is_not_read_when_nothing_is_missing(self, write) -> None:
        found = epoch({**WHOLE, **write(self.TEXT)})
        assert (found.region, found.secret_key) == ("", "secret")
        environ = {**WHOLE, "EPOCH_S3_ENV_FILE": "/proc/self/mem", "EPOCH_S3_SECRET_KEY": ""}
        assert epoch(environ).secret_key == ""

    def test_its_own_place(self, tmp_path: Path) -> None:
        place = tmp_path / ".config" / "epoch"
        place.mkdir(parents=True)
        (place / "s3.env").write_text("EPOCH_S3_BUCKET=home\n")
        assert epoch({"HOME": str(tmp_path)}).bucket == "home"
        assert epoch({"HOME": str(tmp_path / "other")}).bucket == ""

    @pytest.mark.parametrize("path", ["/nonexistent/s3.env", "/dev/null", "/dev/null/x"])
    def test_that_is_not_there(self, path: str) -> None:
        assert epoch({"EPOCH_S3_ENV_FILE": path}) == EpochSettings()

    def test_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(LocalIOError):
            epoch({"EPOCH_S3_ENV_FILE": str(tmp_path)})

    @pytest.mark.parametrize("raw", [b"\xff\xfe=x\n", b"EPOCH_S3_BUCKET=a\r\n", b"=\n==\n", b"\x00" * 100])
    def test_of_any_bytes(self, tmp_path: Path, raw: bytes) -> None:
        (tmp_path / "s3.env").write_bytes(raw)
        assert epoch({"EPOCH_S3_ENV_FILE": str(tmp_path / "s3.env")}).bucket in ("", "a")


class TestEpochSettings:
    def test_the_secret_is_not_shown(self) -> None:
        assert "secret" not in repr(epoch(WHOLE))

    def test_an_empty_prefix_is_the_default(self) -> None:
        assert epoch({**WHOLE, "EPOCH_S3_PREFIX": ""}).prefix == DEFAULT_PREFIX

    def test_whole_and_not_there(self) -> None:
        assert epoch(WHOLE).complete is True
        assert epoch({"EPOCH_S3_BUCKET": "b", "EPOCH_S3_REGION": "r"}).complete is False

    @pytest.mark.parametrize("name", ["EPOCH_S3_ENDPOINT", "EPOCH_S3_ACCESS_KEY"])
    def test_half_is_an_error(self, name: str) -> None:
        with pytest.raises(UsageError, match="EPOCH_S3_"):
            open_bucket("s3://bucket", BucketOptions(environ={name: "x"}))


class TestName:
    @pytest.mark.parametrize(
        ("word", "bucket", "prefix"),
        [
            ("s3://my-bucket", "my-bucket", "epoch/"),
            ("s3://my-bucket/", "my-bucket", "epoch/"),
            ("s3://my-bucket/a", "my-bucket", "a/"),
            ("s3://my-bucket/a/", "my-bucket", "a/"),
            ("s3://my-bucket/a/b//", "my-bucket", "a/b/"),
            ("s3://my-bucket/.", "my-bucket", ""),
            ("s3://my-bucket/./", "my-bucket", ""),
            ("s3://my-bucket/a%20b?c#d", "my-bucket", "a%20b?c#d/"),
            ("s3://", "the-bucket", "epoch/"),
            ("s3:///x", "the-bucket", "x/"),
            ("gs://my.bucket_1", "my.bucket_1", "epoch/"),
            ("az://container/x", "container", "x/"),
            ("az://$web", "$web", "epoch/"),
        ],
    )
    def test_words(self, word: str, bucket: str, prefix: str) -> None:
        name = BucketName.parse(word, EpochSettings(bucket="the-bucket"))
        assert (name.bucket, name.prefix) == (bucket, prefix)

    def test_what_it_is_called(self) -> None:
        assert str(BucketName.parse("s3://", epoch(WHOLE))) == "s3://bucket/epoch/"

    def test_the_prefix_of_the_environment(self) -> None:
        name = BucketName.parse("s3://b-1", epoch({**WHOLE, "EPOCH_S3_PREFIX": "no-slash"}))
        assert name.prefix == "no-slash"

    @pytest.mark.parametrize(
        "word", ["s3://a", "s3://-ab", "s3://a b", "gs://", "az:///x", "s3://a_b?c", "s3://ab:80", "s3://"]
    )
    def test_no_bucket(self, word: str) -> None:
        with pytest.raises(UsageError):
            BucketName.parse(word, EpochSettings())

    @pytest.mark.parametrize(
        "word", ["s3://bucket//a", "s3://bucket/a//b", "s3://bucket/../x", "s3://bucket/a/./b", "s3://bucket/a\nb"]
    )
    def test_no_prefix(self, word: str) -> None:
        with pytest.raises(UsageError):
            BucketName.parse(word, EpochSettings())

    @pytest.mark.parametrize("prefix", ["/epoch/", "a//b/", "../", "./"])
    def test_prefixes_that_no_object_can_be_asked_for(self, prefix: str) -> None:
        with pytest.raises(UsageError) as caught:
            BucketName.parse("s3://bucket", epoch({**WHOLE, "EPOCH_S3_PREFIX": prefix}))
        assert caught.value.object == "EPOCH_S3_PREFIX"

    def test_secrets_in_the_place_of_a_bucket_are_not_repeated(self) -> None:
        with pytest.raises(UsageError) as caught:
            BucketName.parse("s3://AKIA:hunter2@bucket/x", EpochSettings())
        assert "hunter2" not in f"{caught.value} {caught.value.object}"


class TestPolicy:
    @pytest.mark.parametrize(
        "endpoint", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9:1"]
    )
    def test_this_machine_may_be_plain(self, endpoint: str) -> None:
        assert client_options(endpoint, BucketOptions())["allow_http"] is True

    @pytest.mark.parametrize(
        "endpoint", ["http://minio.example.com", "http://10.0.0.1:9000", "http://localhost.example.com"]
    )
    def test_another_may_not(self, endpoint: str) -> None:
        with pytest.raises(PolicyError) as caught:
            client_options(endpoint, BucketOptions())
        assert "--plain-http" in str(caught.value)
        assert client_options(endpoint, BucketOptions(plain_http=True))["allow_http"] is True

    @pytest.mark.parametrize("endpoint", ["", "https://minio.example.com"])
    def test_no_way_down_from_https(self, endpoint: str) -> None:
        assert client_options(endpoint, BucketOptions(plain_http=True))["allow_http"] is False

    @pytest.mark.parametrize(
        "environ",
        [
            {**WHOLE, "EPOCH_S3_SECURE": "false"},
            {"AWS_ENDPOINT_URL": "http://s3.example.com"},
            {"AWS_ENDPOINT_URL_S3": "http://s3.example.com"},
        ],
    )
    def test_wherever_the_endpoint_comes_from(self, environ: dict[str, str]) -> None:
        with pytest.raises(PolicyError):
            open_store("s3://bucket", connection=Connection(environ=environ))

    def test_of_other_clouds_too(self) -> None:
        with pytest.raises(PolicyError):
            open_bucket("gs://bucket", BucketOptions(environ={"GOOGLE_BASE_URL": "http://gcs.example.com"}))
        azure = {"AZURE_STORAGE_ACCOUNT_NAME": "x", "AZURE_STORAGE_ENDPOINT": "http://az.example.com"}
        with pytest.raises(PolicyError):
            open_bucket("az://bucket", BucketOptions(environ=azure))

    def test_unverified_is_never_for_the_clouds_own_hosts(self) -> None:
        assert "allow_invalid_certificates" not in client_options("", BucketOptions(insecure=True))
        assert client_options("https://minio.example.com", BucketOptions(insecure=True))["allow_invalid_certificates"]

    @pytest.mark.parametrize("text", [None, "", "no certificate"])
    def test_a_file_of_authorities_that_is_none(self, tmp_path: Path, text: str | None) -> None:
        path = tmp_path / "ca.pem"
        if text is not None:
            path.write_text(text)
        with pytest.raises(LocalIOError):
            client_options("", BucketOptions(ca_file=str(path)))

    def test_proxies(self) -> None:
        environ = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": ".example.com", "http_proxy": "http://plain:1"}
        found = client_options("", BucketOptions(environ=environ))
        assert found["proxy_url"] == "http://proxy:3128"
        assert found["proxy_excludes"].endswith(",.example.com")
        assert "127.0.0.0/8" in found["proxy_excludes"]
        assert client_options("http://127.0.0.1:1", BucketOptions(environ=environ))["proxy_url"] == "http://plain:1"
        assert "proxy_url" not in client_options("", BucketOptions())


class TestClouds:
    def test_epoch_goes_by_its_own_settings_alone(self) -> None:
        config = epoch_s3(epoch(WHOLE))
        assert config["aws_endpoint_url_s3"] == config["aws_endpoint_url"] == "https://minio.example.com:9000"
        assert (config["aws_region"], config["skip_signature"]) == ("us-east-1", False)
        keys = static_keys(epoch(WHOLE))
        assert (keys["access_key_id"], keys["secret_access_key"], keys["token"]) == ("access", "secret", None)

    @pytest.mark.parametrize(
        ("endpoint", "region"),
        [
            ("s3.eu-central-1.amazonaws.com", "eu-central-1"),
            ("s3-us-west-2.amazonaws.com", "us-west-2"),
            ("s3.dualstack.ap-southeast-2.amazonaws.com", "ap-southeast-2"),
            ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("s3.amazonaws.com", "us-east-1"),
            ("s3.eu-central-1.example.com", "us-east-1"),
        ],
    )
    def test_amazons_hosts_name_the_region(self, endpoint: str, region: str) -> None:
        assert epoch_s3(epoch({**WHOLE, "EPOCH_S3_ENDPOINT": endpoint}))["aws_region"] == region
        named = {**WHOLE, "EPOCH_S3_ENDPOINT": endpoint, "EPOCH_S3_REGION": "mine"}
        assert epoch_s3(epoch(named))["aws_region"] == "mine"

    def test_amazon(self) -> None:
        environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_REGION": "r"}
        config = amazon_s3(
            {**environ, "AWS_DEFAULT_REGION": "d", "AWS_ENDPOINT_URL": "https://x", "HOME": "/nonexistent"}
        )
        assert {name: config[name] for name in ("aws_access_key_id", "aws_session_token", "aws_region")} == {
            "aws_access_key_id": "a",
            "aws_session_token": "t",
            "aws_region": "r",
        }
        assert endpoint_of(config) == "https://x"
        assert endpoint_of(amazon_s3({"HOME": "/nonexistent"})) == ""
        assert amazon_s3({"AWS_DEFAULT_REGION": "d"})["aws_region"] == "d"

    def profile(self, home: Path, **files: str) -> dict[str, str]:
        (home / ".aws").mkdir(exist_ok=True)
        for name, text in files.items():
            (home / ".aws" / name).write_text(text)
        return {"HOME": str(home)}

    CREDENTIALS = "[default]\naws_access_key_id=da\naws_secret_access_key=d%s\n[ci]\naws_access_key_id = ca\n" + (
        "aws_secret_access_key = cs\naws_session_token = ct\n"
    )
    CONFIG = "[default]\nregion=eu-west-1\n[profile ci]\nregion=eu-west-3\n[profile sso]\nsso_session=x\n"

    def test_amazons_files(self, tmp_path: Path) -> None:
        environ = self.profile(tmp_path, credentials=self.CREDENTIALS, config=self.CONFIG)
        config = amazon_s3(environ)
        assert (config["aws_access_key_id"], config["aws_secret_access_key"]) == ("da", "d%s")
        assert (config["aws_region"], "aws_session_token" in config) == ("eu-west-1", False)
        config = amazon_s3({**environ, "AWS_PROFILE": "ci", "AWS_REGION": "mine"})
        assert (config["aws_access_key_id"], config["aws_session_token"]) == ("ca", "ct")
        assert config["aws_region"] == "mine"
        config = amazon_s3({**environ, "AWS_ACCESS_KEY_ID": "e", "AWS_SECRET_ACCESS_KEY": "f"})
        assert (config["aws_access_key_id"], config["aws_secret_access_key"]) == ("e", "f")

    @pytest.mark.parametrize("name", ["sso", "none"])
    def test_a_profile_without_keys(self, tmp_path: Path, name: str) -> None:
        environ = self.profile(tmp_path, credentials=self.CREDENTIALS, config=self.CONFIG)
        with pytest.raises(UsageError, match="holds no access key"):
            amazon_s3({**environ, "AWS_PROFILE": name})

    def test_files_that_are_damaged(self, tmp_path: Path) -> None:
        environ = self.profile(tmp_path, credentials="aws_secret_access_key = hunter2\n")
        with pytest.raises(LocalIOError) as caught:
            amazon_s3(environ)
        assert "hunter2" not in str(caught.value)

    def test_google(self, tmp_path: Path) -> None:
        assert google({"GOOGLE_BEARER_TOKEN": "t", "OTHER": "x"}) == {"google_bearer_token": "t"}
        assert google({"HOME": str(tmp_path)}) == {}
        place = tmp_path / ".config" / "gcloud" / "application_default_credentials.json"
        place.parent.mkdir(parents=True)
        place.write_text("{}")
        assert google({"HOME": str(tmp_path)}) == {"google_application_credentials": str(place)}

    def test_azure(self) -> None:
        environ = {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=2"}
        assert azure(environ) == {"azure_storage_account_name": "acct", "azure_storage_sas_token": "sv=1&sig=2"}
        with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT_NAME"):
            azure({"AZURE_STORAGE_ACCOUNT_KEY": "k"})

    @pytest.mark.parametrize(
        ("word", "environ"),
        [
            ("az://box", {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_ACCOUNT_KEY": "not base64 hunter2!"}),
            ("az://box", {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_SAS_TOKEN": "hunter2"}),
            ("gs://box", {"GOOGLE_SERVICE_ACCOUNT": "/nonexistent/hunter2"}),
            ("gs://box", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key":"hunter2"}'}),
            ("s3://box", {"AWS_ACCESS_KEY_ID": "hunter2"}),
        ],
    )
    def test_settings_that_cannot_be(self, word: str, environ: dict[str, str]) -> None:
        with pytest.raises(EpochOciError) as caught:
            open_bucket(word, BucketOptions(environ=environ))
        assert isinstance(caught.value, UsageError)
        assert "hunter2" not in str(caught.value)


class TestOnTheWire:
    """What the other side sees."""

    def test_a_stray_session_token_does_not_join_epochs_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """obstore reads the environment of the process by itself; what Epoch's settings say must win."""
        for name, text in {
            "AWS_SESSION_TOKEN": "stray-token",
            "AWS_ACCESS_KEY_ID": "stray-key",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REGION": "stray-region-1",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        }.items():
            monkeypatch.setenv(name, text)
        with s3.MotoS3() as server:
            bucket = Bucket(server)
            server.clear()
            bucket.backend(environ={**os.environ, **server.environ(bucket.name)}).head("x")
            (request,) = server.requests
        assert request.path == f"/{bucket.name}/epoch/x"
        assert s3.ACCESS_KEY in request.headers["authorization"]
        assert "/us-east-1/s3/" in request.headers["authorization"]
        assert "stray" not in str(request.headers)

    def test_amazons_own(self) -> None:
        with s3.MotoS3() as server:
            bucket = Bucket(server)
            server.clear()
            environ = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "aws-key", "AWS_SESSION_TOKEN": "aws-token"}
            environ |= {"AWS_SECRET_ACCESS_KEY": "aws-secret", "AWS_REGION": "eu-north-1"}
            bucket.backend(f"s3://{bucket.name}", environ=environ).head("x")
            (request,) = server.requests
        assert "Credential=aws-key/" in request.headers["authorization"]
        assert "/eu-north-1/s3/" in request.headers["authorization"]
        assert request.headers["x-amz-security-token"] == "aws-token"

    def test_google(self, make_recorder: Callable[..., Recorder]) -> None:
        server = make_recorder(MISSING)
        environ = {"GOOGLE_BASE_URL": server.url, "GOOGLE_BEARER_TOKEN": "google-token"}
        backend, where = open_bucket("gs://box/pre", BucketOptions(environ=environ))
        assert (backend.head("x"), where) == (None, "gs://box/pre/")
        (request,) = server.requests
        assert request.path == "/box/pre/x"
        assert request.header("Authorization") == "Bearer google-token"

    def test_azure(self, make_recorder: Callable[..., Recorder]) -> None:
        server = make_recorder(MISSING)
        environ = {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_SAS_TOKEN": "sv=2024&sig=azure-signature"}
        environ["AZURE_STORAGE_ENDPOINT"] = server.url
        backend, _ = open_bucket("az://box", BucketOptions(environ=environ))
        assert backend.head("x") is None
        (request,) = server.requests
        assert request.path == "/box/epoch/x"
        assert "sig=azure-signature" in request.query

    def test_a_signed_query_is_in_no_message(self, make_recorder: Callable[..., Recorder]) -> None:
        for status in (400, 403, 404, 409, 500):
            server = make_recorder(
                Answer.of(status, b"<Error><Code>Nope</Code><Message>sig=azure-signature</Message></Error>")
            )
            environ = {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_SAS_TOKEN": "sv=2024&sig=azure-signature"}
            environ["AZURE_STORAGE_ENDPOINT"] = server.url
            backend = Bucket(s3.shared_moto(), environ=environ).backend("az://box")
            with pytest.raises(EpochOciError) as caught:
                backend.check()
            shown = f"{caught.value} {vars(caught.value)} {caught.value.__cause__}"
            assert "azure-signature" not in shown
            assert caught.value.__suppress_context__

    def test_who_asks(self, make_recorder: Callable[..., Recorder]) -> None:
        server = make_recorder(MISSING)
        environ = {"EPOCH_S3_ENDPOINT": server.url, "EPOCH_S3_ACCESS_KEY": "a", "EPOCH_S3_BUCKET": "bucket"}
        store = open_store("s3://", connection=Connection(environ=environ))
        with pytest.raises(EpochOciError):
            store.resolve("bot:v1")
        assert server.requests[0].header("User-Agent").startswith("epoch-oci/")

    def test_no_credentials_anywhere(self, make_recorder: Callable[..., Recorder]) -> None:
        """The machine's own are asked for at an address that here is nobody's."""
        server = make_recorder(Answer.of(403, b"no"))
        environ = {"AWS_ENDPOINT_URL": server.url, "AWS_METADATA_ENDPOINT": server.url, "HOME": "/nonexistent"}
        with pytest.raises((AccessError, NetworkError)):
            Bucket(s3.shared_moto(), environ=environ).backend("s3://bucket").head("x")


def test_unknown_kinds_of_store_are_named() -> None:
    for word in ("http://host/x", "ftp://x", "S3://bucket", "epoch://host"):
        with pytest.raises(UsageError, match="s3://"):
            open_store(word)
    with pytest.raises(UsageError):
        open_store("")
