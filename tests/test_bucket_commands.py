"""Buckets from the command line: push from one, pull into one, look at one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Here, completed, run_cli
from object_stores import Bucket
from snapshots import WRITERS, Made, make_snapshot, put_snapshot, tree
from support import s3
from support.registry import FakeRegistry

from epoch_oci.epoch.keys import blob_key, manifest_key
from epoch_oci.oci.digest import Digest


@pytest.fixture(params=list(s3.shared_servers()), ids=lambda server: server[0])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    return Bucket(request.param[1]())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


def upload(bucket: Bucket, made: Made, prefix: str = "epoch/") -> None:
    """Put it there as Epoch's server would have."""
    for digits, raw in made.blobs.items():
        bucket.put(prefix + blob_key(Digest("sha256", digits)), raw)
    bucket.put(prefix + manifest_key(made.key), made.raw)


def objects(bucket: Bucket, prefix: str = "epoch/") -> dict[str, bytes]:
    return {key.removeprefix(prefix): bucket.get(key) for key in bucket.listing()}


@pytest.mark.parametrize("kind", WRITERS)
def test_there_and_back_byte_for_byte(bucket: Bucket, tmp_path: Path, kind: str, run: Here) -> None:
    made = make_snapshot(kind)
    upload(bucket, made)
    before = objects(bucket)
    env, layout = bucket.server.environ(bucket.name), f"oci:{tmp_path}/layout"
    pushed = run("push", made.key, layout, "--store", "s3://", "--format", "json", env=env)
    assert pushed.code == 0, pushed.err
    assert objects(bucket) == before
    pulled = run("pull", layout, "--store", f"s3://{bucket.name}/copy", "--format", "json", env=env)
    assert pulled.code == 0, pulled.err
    copied = {key.removeprefix("copy/"): raw for key, raw in objects(bucket, "").items() if key.startswith("copy/")}
    catalog = json.loads(copied.pop("catalog.json"))
    assert copied == before
    assert catalog["repositories"]["team/bot"]["tags"] == {"v1": "manifests/team/bot/v1.json"}
    again = run("pull", layout, "--store", f"s3://{bucket.name}/copy", "--format", "json", env=env)
    assert again.json["bytesTransferred"] == 0


def test_through_a_registry(bucket: Bucket, fake_registry, tmp_path: Path, run: Here) -> None:
    """Blobs stream from the bucket into the registry and back; no local copy is made of them."""
    registry: FakeRegistry = fake_registry()
    made = make_snapshot()
    upload(bucket, made)
    env = {**bucket.server.environ(bucket.name), "TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "home")}
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
    target = f"{registry.address}/acme/bot:v1"
    pushed = run("push", made.key, target, "--store", f"s3://{bucket.name}", "--format", "json", env=env)
    assert pushed.code == 0, pushed.err
    assert pushed.json["bytesTransferred"] == pushed.json["size"]
    pulled = run("pull", target, "--store", "s3:///second", "--format", "json", env=env)
    assert pulled.code == 0, pulled.err
    for key, raw in objects(bucket, "").items():
        if key.startswith("second/") and not key.endswith("catalog.json"):
            assert raw == bucket.get("epoch/" + key.removeprefix("second/"))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 100_000


def test_from_a_directory_and_to_one(bucket: Bucket, tmp_path: Path) -> None:
    made = make_snapshot()
    put_snapshot(tmp_path / "store", made)
    env, layout = bucket.server.environ(bucket.name), f"oci:{tmp_path}/layout"
    for words in (
        ("push", made.key, layout, "--store", tmp_path / "store"),
        ("pull", layout, "--store", "s3://"),
        ("push", made.key, f"oci:{tmp_path}/other", "--store", "s3://"),
        ("pull", f"oci:{tmp_path}/other", "--store", tmp_path / "back"),
    ):
        ran = run_cli(*words, env=env)
        assert ran.code == 0, ran.err
    back, first = tree(tmp_path / "back"), tree(tmp_path / "store")
    back.pop("catalog.json")
    assert back == first


def test_the_environment_names_the_store(bucket: Bucket, run: Here) -> None:
    made = make_snapshot()
    upload(bucket, made)
    env = {**bucket.server.environ(bucket.name), "EPOCH_STORE": f"s3://{bucket.name}"}
    shown = run("inspect", made.key, "--format", "json", env=env)
    assert shown.code == 0, shown.err
    assert (shown.json["writer"], shown.json["missing"]) == ("W3b", [])


def test_looking_at_it(bucket: Bucket, run: Here) -> None:
    for tag in ("v1", "v2"):
        upload(bucket, make_snapshot(tag=tag))
    env = bucket.server.environ(bucket.name)
    listed = run("ls", "s3://", "--format", "json", env=env)
    assert listed.code == 0, listed.err
    assert [(item["name"], item["tag"]) for item in listed.json["snapshots"]] == [
        ("team/bot", "v1"),
        ("team/bot", "v2"),
    ]
    checked = run("verify", f"s3://{bucket.name}", "--format", "json", env=env)
    assert checked.code == 0, checked.out
    assert checked.json["checked"]["blobs"] > 5


def test_verify_finds_wrong_bytes(bucket: Bucket, run: Here) -> None:
    """Trap 37."""
    made = make_snapshot()
    upload(bucket, made)
    digits = max(made.blobs, key=lambda digits: len(made.blobs[digits]))
    bucket.put(f"epoch/blobs/sha256/{digits}", bytes(len(made.blobs[digits])))
    env = bucket.server.environ(bucket.name)
    checked = run("verify", "s3://", "--format", "json", env=env)
    assert checked.code == 3
    assert digits in json.dumps(checked.json["findings"])


def test_a_wrong_blob_is_not_pushed(bucket: Bucket, fake_registry, tmp_path: Path, run: Here) -> None:
    registry: FakeRegistry = fake_registry()
    made = make_snapshot()
    upload(bucket, made)
    digits = max(made.blobs, key=lambda digits: len(made.blobs[digits]))
    bucket.put(f"epoch/blobs/sha256/{digits}", bytes(len(made.blobs[digits])))
    env = bucket.server.environ(bucket.name)
    ran = run("push", made.key, f"{registry.address}/acme/bot:v1", "--store", "s3://", env=env)
    assert ran.code == 3
    assert digits in ran.error
    listed = run("ls", f"{registry.address}/acme/bot", "--format", "json")
    assert listed.code == 5 or listed.json["tags"] == []


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_dry_run_writes_nothing(bucket: Bucket, tmp_path: Path, verb: str, run: Here) -> None:
    made = make_snapshot()
    put_snapshot(tmp_path / "store", made)
    env, layout = bucket.server.environ(bucket.name), f"oci:{tmp_path}/layout"
    assert run("push", made.key, layout, "--store", tmp_path / "store").code == 0
    if verb == "push":
        upload(bucket, made)
        words = ("push", made.key, f"oci:{tmp_path}/new", "--store", "s3://")
    else:
        words = ("pull", layout, "--store", "s3://")
    before = bucket.listing()
    ran = run(*words, "--dry-run", "--format", "json", env=env)
    assert ran.code == 0, ran.err
    assert bucket.listing() == before


def test_an_entry_that_another_writer_erased_is_entered_again(bucket: Bucket, tmp_path: Path, run: Here) -> None:
    """Reliability E4: a live server writes its catalog from memory; `verify` tells, and the same pull mends."""
    made = make_snapshot()
    put_snapshot(tmp_path / "store", made)
    env, layout = bucket.server.environ(bucket.name), f"oci:{tmp_path}/layout"
    assert run("push", made.key, layout, "--store", tmp_path / "store").code == 0
    assert run("pull", layout, "--store", "s3://", env=env).code == 0
    entered = bucket.get("epoch/catalog.json")
    bucket.put("epoch/catalog.json", b'{"repositories":{}}')
    assert "team/bot:v1" in run("verify", "s3://", "--format", "json", env=env).out
    again = run("pull", layout, "--store", "s3://", "--format", "json", env=env)
    assert (again.code, again.json["bytesTransferred"]) == (0, 0)
    tags = json.loads(bucket.get("epoch/catalog.json"))["repositories"]["team/bot"]["tags"]
    assert tags == json.loads(entered)["repositories"]["team/bot"]["tags"]


class TestExitCodes:
    def test_no_such_bucket(self, bucket: Bucket, run: Here) -> None:
        env = bucket.server.environ("there-is-no-such-bucket")
        for words in (("ls", "s3://"), ("inspect", "bot:v1", "--store", "s3://"), ("verify", "s3://")):
            ran = run(*words, env=env)
            assert ran.code == 5, ran.err
            assert "no such bucket" in ran.error

    def test_no_such_snapshot_names_the_prefix(self, bucket: Bucket, run: Here) -> None:
        ran = run("inspect", "bot:v1", "--store", "s3://", env=bucket.server.environ(bucket.name))
        assert ran.code == 5
        assert f"s3://{bucket.name}/epoch/" in ran.error

    def test_half_of_the_settings(self, run: Here) -> None:
        ran = run("ls", "s3://bucket", env={"EPOCH_S3_ENDPOINT": "minio.example.com"})
        assert ran.code == 2
        assert "EPOCH_S3_ACCESS_KEY" in ran.error

    def test_plain_http(self, run: Here) -> None:
        env = {"EPOCH_S3_ENDPOINT": "http://minio.example.com", "EPOCH_S3_ACCESS_KEY": "a", "EPOCH_S3_BUCKET": "bucket"}
        assert run("ls", "s3://", env=env).code == 8

    def test_an_unreadable_catalog_is_left_alone(self, bucket: Bucket, tmp_path: Path, run: Here) -> None:
        made = make_snapshot()
        put_snapshot(tmp_path / "store", made)
        layout = f"oci:{tmp_path}/layout"
        run("push", made.key, layout, "--store", tmp_path / "store")
        bucket.put("epoch/catalog.json", b"{")
        ran = run("pull", layout, "--store", "s3://", env=bucket.server.environ(bucket.name))
        assert ran.code == 3
        assert bucket.get("epoch/catalog.json") == b"{"
        assert not any(key.startswith("epoch/manifests/") for key in bucket.listing())

    def test_a_conflict(self, bucket: Bucket, tmp_path: Path, run: Here) -> None:
        env = bucket.server.environ(bucket.name)
        upload(bucket, make_snapshot("W1"))
        made = make_snapshot("W3b")
        put_snapshot(tmp_path / "store", made)
        layout = f"oci:{tmp_path}/layout"
        run("push", made.key, layout, "--store", tmp_path / "store")
        assert run("pull", layout, "--store", "s3://", env=env).code == 9
        assert bucket.get("epoch/manifests/team/bot/v1.json") == make_snapshot("W1").raw
        assert run("pull", layout, "--store", "s3://", "--force", env=env).code == 0
        assert bucket.get("epoch/manifests/team/bot/v1.json") == made.raw


@pytest.fixture
def denying() -> Iterator[Bucket]:
    """A server that echoes what it was sent, as some do."""
    with s3.MotoS3() as server:
        bucket = Bucket(server)
        extra = f"<AWSAccessKeyId>{s3.ACCESS_KEY}</AWSAccessKeyId><StringToSign>{s3.SECRET_KEY}</StringToSign>"
        server.add(s3.answers("GET", 403, "SignatureDoesNotMatch", extra=extra))
        yield bucket


def test_secrets_are_in_nothing_that_is_shown(denying: Bucket, run: Here) -> None:
    """Reliability C6, C7."""
    env = denying.server.environ(denying.name, EPOCH_REGISTRY_TOKEN="token-canary-91af")
    for words in (("ls", "s3://"), ("inspect", "bot:v1", "--store", "s3://"), ("verify", "s3://")):
        for flags in ((), ("--debug",), ("--format", "json", "--progress", "json"), ("-v", "--debug")):
            ran = run(*words, *flags, env=env)
            assert ran.code == 4, ran.err
            assert s3.SECRET_KEY not in ran.out + ran.err
            assert "token-canary-91af" not in ran.out + ran.err


def test_a_store_without_conditions_is_named_once(tmp_path: Path, run: Here) -> None:
    made = make_snapshot("null-layers")
    put_snapshot(tmp_path / "store", made)
    layout = f"oci:{tmp_path}/layout"
    assert run("push", made.key, layout, "--store", tmp_path / "store").code == 0
    with s3.MotoS3(conditions="ignored") as server:
        bucket = Bucket(server)
        ran = run("pull", layout, "--store", "s3://", env=server.environ(bucket.name))
        assert ran.code == 0, ran.err
        assert ran.err.count("does not write on condition") == 1
        assert set(bucket.listing()) == {"epoch/catalog.json", "epoch/manifests/team/bot/v1.json"}


def test_completion_asks_no_server(bucket: Bucket) -> None:
    """A tab key must not wait for a network."""
    upload(bucket, make_snapshot())
    env = {**bucket.server.environ(bucket.name), "EPOCH_STORE": "s3://"}
    assert completed("epoch-oci inspect ", **env) == []


def test_nothing_of_it_is_loaded_for_help() -> None:
    import subprocess
    import sys

    code = "import sys, epoch_oci, epoch_oci.locate, epoch_oci.stores.buckets; print('obstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "False"
