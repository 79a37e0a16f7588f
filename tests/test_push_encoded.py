"""Version 2 of the `cocoonstack` dialect, written: what cocoon-common's puller asks of it, and back byte for byte."""

import json
from pathlib import Path

import pytest
from cli_runner import Here, Ran
from snapshots import Made, make_snapshot, noise, put_snapshot
from test_chunked import comes_back, snapshot

from epoch_oci import schemas
from epoch_oci.chunks.chunk import zstd
from epoch_oci.oci.digest import Digest

MIB = 1 << 20
MEMORY = b"some text " * (3 * MIB // 10) + bytes(MIB) + noise("m", MIB // 2)
DISK = noise("d", 2 * MIB) * 2
TITLE = "org.opencontainers.image.title"


@pytest.fixture
def cli(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


def push(cli, made: Made, *words: object, target: str = "oci:layout:v1") -> Ran:
    put_snapshot(Path("store"), made)
    words = ("push", made.key, target, "--store", "store", "--dialect", "cocoonstack", *words)
    return cli(*words, "--format", "json")


def blob(digest: str) -> bytes:
    return Path("layout", "blobs", "sha256", digest.removeprefix("sha256:")).read_bytes()


def documents(done: Ran) -> tuple[dict, dict]:
    assert done.code == 0, done.err
    manifest = json.loads(blob(done.json["digest"]))
    return manifest, json.loads(blob(manifest["config"]["digest"]))


def test_the_artifact_has_the_form_that_cocoon_common_reads(cli):
    manifest, config = documents(push(cli, snapshot("v1", MEMORY, DISK), "--zstd", 3, "--chunk-size", "1MiB"))
    assert manifest["artifactType"] == "application/vnd.cocoonstack.snapshot.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cocoonstack.snapshot.config.v1+json"
    assert config["schemaVersion"] == "v2"
    for raw, kind in ((json.dumps(manifest), "manifest"), (json.dumps(config), "config")):
        assert schemas.findings(json.loads(raw), f"cocoonstack-snapshot-{kind}.v2") == []
    rows: dict[str, list[dict]] = {}
    for layer in manifest["layers"]:
        rows.setdefault(layer["annotations"][TITLE], []).append(layer)
    for name, raw in {"memory-ranges": MEMORY, "overlay.qcow2": DISK}.items():
        layers, entry = rows[name], config["files"][name]
        assert entry["size"] == len(raw) and entry["chunks"] == [layer["digest"] for layer in layers]
        assert all(layer["mediaType"].endswith("+zstd") for layer in layers)
        places = [
            (layer["annotations"]["cocoonstack.chunk.index"], layer["annotations"]["cocoonstack.chunk.count"])
            for layer in layers
        ]
        assert places == [(str(index), str(len(layers))) for index in range(len(layers))]
        pieces = [zstd().decompress(blob(layer["digest"])) for layer in layers]
        assert pieces == [raw[at : at + MIB] for at in range(0, len(raw), MIB)]
    (small,) = rows["config.json"]
    assert small["mediaType"] == "application/vnd.cocoonstack.vm.config+json" and len(small["annotations"]) == 1
    assert "chunks" not in config["files"]["config.json"] and config["files"]["config.json"]["size"] == small["size"]


def test_without_a_chunk_size_each_file_is_one_layer(cli):
    manifest, config = documents(push(cli, snapshot("v1", MEMORY, DISK), "--zstd", 1))
    assert len(manifest["layers"]) == 3
    assert not any("chunks" in entry for entry in config["files"].values())
    assert not any("cocoonstack.chunk.index" in layer["annotations"] for layer in manifest["layers"])


@pytest.mark.parametrize("flags", [("--zstd", "1"), ("--zstd", "3", "--chunk-size", "1MiB")])
@pytest.mark.parametrize("kind", ["W2b", "W3a", "W3b", "empty-file"])
def test_it_comes_back_byte_for_byte(cli, kind, flags):
    made = make_snapshot(kind)
    done = push(cli, made, *flags, "--allow-loss")
    assert done.code == 0, done.err
    pulled = cli("pull", "oci:layout:v1", "-o", "files")
    assert pulled.code == 0, pulled.err
    again = cli("verify", "oci:layout:v1")
    assert again.code == 0, again.err
    if kind not in ("W3a", "W3b"):  # those have base images, which the dialect has no place for
        assert cli("pull", "oci:layout:v1", "--store", "back").code == 0
        assert comes_back(Path("back"), made)


def test_the_same_snapshot_gives_the_same_artifact_and_a_second_push_sends_nothing(cli):
    made = snapshot("v1", MEMORY, DISK)
    first = push(cli, made, "--zstd", 3, "--chunk-size", "1MiB")
    second = push(cli, made, "--zstd", 3, "--chunk-size", "1MiB")
    assert first.json["digest"] == second.json["digest"]
    assert second.json["bytesTransferred"] == 0
    told = push(cli, made, "--zstd", 3, "--chunk-size", "1MiB", "--dry-run", target="oci:other:v1")
    assert told.json["digest"] == first.json["digest"] and not Path("other").exists()


def test_a_blob_that_is_not_what_the_manifest_says_is_not_tagged(cli):
    made = snapshot("v1", MEMORY, DISK)
    put_snapshot(Path("store"), made)
    Path("store", "blobs", "sha256", Digest.of(DISK).hex).write_bytes(DISK[:-1] + b"X")
    words = ("push", "bot:v1", "oci:layout:v1", "--store", "store", "--dialect", "cocoonstack", "--zstd", "1")
    assert cli(*words).code == 3
    assert cli("inspect", "oci:layout:v1").code == 5


@pytest.mark.parametrize(
    "words",
    [
        ("--zstd", "20"),
        ("--zstd", "0"),
        ("--chunk-size", "1MiB"),
        ("--zstd", "1", "--chunk-size", "1KiB"),
        ("--zstd", "1", "--chunked"),
    ],
)
def test_what_does_not_go_together_is_said(cli, words):
    done = push(cli, snapshot("v1", MEMORY, DISK), *words)
    assert (done.code, "has no flag" in done.err) == (2, False)


def test_only_the_cocoonstack_dialect_has_it(cli):
    put_snapshot(Path("store"), snapshot("v1", MEMORY, DISK))
    done = cli("push", "bot:v1", "oci:layout", "--store", "store", "--zstd", "1")
    assert (done.code, "cocoonstack" in done.error) == (2, True)
    put_snapshot(Path("store"), make_snapshot("cloud-image", "win11", "v1"))
    done = cli("push", "win11:v1", "oci:layout", "--store", "store", "--zstd", "1", "--dialect", "cocoonstack")
    assert done.code == 2
