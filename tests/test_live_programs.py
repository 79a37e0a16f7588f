"""Epoch, Cocoon, zot and Gitea themselves, where they are on PATH: we read what they write, and they what we write."""

import hashlib
import json
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Ran, run_cli, start_cli
from cocoon_world import bodies, entries
from recorded import BLOBS, DATA, files, make_root
from snapshots import make_snapshot, put_snapshot, tree
from support.peers import find_peer, requires_peer, run_peer
from support.programs import Epoch, Gitea, Zot
from support.s3 import VersityS3, find_versity

NAMES = ["Edge_Case.1", "bot", "fc"]
GUESTS = {"Edge_Case.1": "edge"}
needs_epoch = requires_peer("epoch", "mariadbd", "mariadb-install-db", "versitygw")


@pytest.fixture(scope="module")
def recorded_root(tmp_path_factory) -> Path:
    return make_root(tmp_path_factory.mktemp("recorded") / "root")


@pytest.fixture(scope="module")
def epoch(tmp_path_factory) -> Iterator[Epoch]:
    directory = tmp_path_factory.mktemp("epoch")
    (directory / "s3").mkdir()
    with VersityS3(find_versity() or "", directory / "s3") as s3, Epoch(directory, s3) as server:
        yield server


@pytest.fixture(scope="module")
def zot(tmp_path_factory) -> Iterator[Zot]:
    with Zot(tmp_path_factory.mktemp("zot")) as server:
        yield server


@pytest.fixture(scope="module")
def gitea(tmp_path_factory) -> Iterator[Gitea]:
    with Gitea(tmp_path_factory.mktemp("gitea")) as server:
        yield server


@pytest.fixture
def cocoon(tmp_path) -> Callable[..., bytes]:
    """Cocoon's own command line, in a root directory."""

    def run(root: Path, *words: object, stdin: bytes | None = None) -> bytes:
        folders = ["--root-dir", root, "--run-dir", tmp_path / "run", "--log-dir", tmp_path / "log"]
        return run_peer("cocoon", *folders, "--log-level", "error", *words, home=tmp_path, stdin=stdin).stdout

    return run


@pytest.fixture
def epoch_cli(epoch, tmp_path) -> Callable[..., None]:
    """Epoch's own command line, which calls Cocoon's in a root directory."""

    def run(root: Path, *words: object) -> None:
        script = tmp_path / "cocoon"
        folders = f"--root-dir {root} --run-dir {tmp_path}/run --log-dir {tmp_path}/log"
        script.write_text(f'#!/bin/sh\nexec {find_peer("cocoon")} {folders} "$@"\n')
        script.chmod(0o700)
        run_peer("epoch", *words, home=tmp_path, env={**epoch.environ, "EPOCH_COCOON_BINARY": str(script)})

    return run


def run(*words: object, code: int = 0, raw: bytes = b"", **env: str) -> Ran:
    ran = run_cli(*words, input=raw, env=env)
    assert ran.code == code, f"{words}: {ran.out}{ran.err}"
    return ran


def piped(*words: object) -> bytes:
    child = start_cli(*words)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err.decode()
    return out


def fresh_root(path: Path) -> Path:
    (path / "snapshot").mkdir(parents=True)
    return path


def index_of(root: Path) -> dict[str, Any]:
    value = json.loads((root / "snapshot/db/snapshots.json").read_bytes())
    return {record["name"]: record for record in value["snapshots"].values()}


def guest(root: Path, name: str) -> dict[str, tuple[int, str]]:
    """The files of a snapshot: mode and hash."""
    folder = root / "snapshot/localfile" / index_of(root)[name]["id"]
    return {
        path.name: (stat.S_IMODE(path.stat().st_mode), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
    }


def hashes(files_of: dict[str, tuple[int, str]]) -> dict[str, str]:
    return {name: digest for name, (_, digest) in files_of.items()}


def expected(name: str) -> dict[str, str]:
    return {file: row["sha256"] for file, row in files()[GUESTS.get(name, name)].items()}


@requires_peer("cocoon")
@pytest.mark.parametrize("name", NAMES)
def test_cocoon_exports_what_we_put_into_its_root(name, recorded_root, tmp_path, cocoon):
    run("push", name, f"oci:{tmp_path}/layout:t", "--store", f"cocoon:{recorded_root}")
    node = fresh_root(tmp_path / "node")
    run("pull", f"oci:{tmp_path}/layout:t", "--store", f"cocoon:{node}", "--as", name)
    assert guest(node, name) == guest(recorded_root, name)
    told = json.loads(cocoon(node, "snapshot", "inspect", name))
    assert (told["name"], told["id"]) == (name, index_of(node)[name]["id"])
    raw = cocoon(node, "snapshot", "export", name, "-o", "-")
    shape = {part: (entry.mode, entry.pax_headers) for part, entry in entries(raw).items()}
    run("push", "-", f"oci:{tmp_path}/back:t", raw=raw)
    back = piped("pull", f"oci:{tmp_path}/back:t", "-o", "-")
    assert bodies(back) == bodies(raw)
    assert {part: (entry.mode, entry.pax_headers) for part, entry in entries(back).items()} == shape


@requires_peer("cocoon")
@pytest.mark.parametrize("name", NAMES)
def test_cocoon_imports_what_we_write_and_we_read_its_root(name, recorded_root, tmp_path, cocoon):
    run("push", name, f"oci:{tmp_path}/layout:t", "--store", f"cocoon:{recorded_root}")
    node = fresh_root(tmp_path / "node")
    cocoon(node, "snapshot", "import", stdin=piped("pull", f"oci:{tmp_path}/layout:t", "-o", "-"))
    assert guest(node, name) == guest(recorded_root, name)
    run("verify", name, "--store", f"cocoon:{node}")
    assert hashes(guest(node, name)) == expected(name)


@requires_peer("cocoon", "qemu-img")
def test_cocoon_imports_the_disk_of_a_cloud_image(tmp_path, cocoon):
    shutil.copytree(DATA / "epoch-0.2.1/bucket/manifests/win", tmp_path / "bucket/manifests/win")
    (tmp_path / "bucket/blobs").mkdir()
    shutil.copytree(BLOBS, tmp_path / "bucket/blobs/sha256")
    run("push", "win", f"oci:{tmp_path}/layout:t", "--store", tmp_path / "bucket")
    disk = piped("pull", f"oci:{tmp_path}/layout:t", "-o", "-")
    cocoon(fresh_root(tmp_path / "node"), "image", "import", "win", stdin=disk)
    (image,) = (tmp_path / "node/cloudimg/blobs").iterdir()
    assert "win" in cocoon(tmp_path / "node", "image", "list").decode() and image.stat().st_size


@needs_epoch
def test_the_readme_example_works_as_typed(epoch, recorded_root, tmp_path):
    run("push", "fc", f"oci:{tmp_path}/layout:t", "--store", f"cocoon:{recorded_root}")
    run("pull", f"oci:{tmp_path}/layout:t", "--store", tmp_path / "store", "--as", "fc:v3")
    before = tree(tmp_path / "store")
    target = f"{epoch.address}/fc"
    run("login", epoch.address, "--username", "me", "--password-stdin", "--plain-http", raw=epoch.token.encode())
    words = ["push", "fc:v3", target, "--store", tmp_path / "store", "--dialect", "cocoonstack"]
    refused = run(*words, code=8)
    assert "--allow-public" in refused.err and "private" not in refused.err
    run(*words, "--allow-public")
    run("pull", f"{target}:v3", "--store", tmp_path / "store")
    assert tree(tmp_path / "store") == before
    run("verify", f"{target}:v3")


@needs_epoch
@requires_peer("cocoon")
@pytest.mark.parametrize("name", NAMES)
def test_epoch_pulls_what_we_push_and_we_pull_what_it_pushes(name, epoch, epoch_cli, recorded_root, tmp_path, cocoon):
    repository = name.lower()
    words = ["--store", f"cocoon:{recorded_root}", "--dialect", "cocoonstack", "--allow-public", "--allow-loss"]
    login = ["--username", "me", "--password-stdin"]
    run("push", name, f"{epoch.address}/{repository}:ours", *words, *login, raw=epoch.token.encode())
    node = fresh_root(tmp_path / "node")
    epoch_cli(node, "pull", f"{repository}:ours")
    assert guest(node, repository) == guest(recorded_root, name)
    epoch_cli(node, "push", repository, "-t", "theirs")
    target = f"{epoch.address}/{repository}:theirs"
    run("verify", target)
    told = run("inspect", target, "--format", "json").json
    assert (told["name"], told["tag"], told["dialect"]) == (repository, "theirs", "cocoonstack")
    other = fresh_root(tmp_path / "other")
    cocoon(other, "snapshot", "import", stdin=piped("pull", target, "-o", "-"))
    run("pull", target, "--store", f"cocoon:{other}", "--as", "again")
    assert guest(other, repository) == guest(other, "again") == guest(recorded_root, name)


@needs_epoch
@requires_peer("cocoon")
def test_the_bucket_of_a_live_epoch_is_read_and_kept_from_old_manifests(epoch, epoch_cli, recorded_root, tmp_path):
    node = fresh_root(tmp_path / "node")
    run("push", "Edge_Case.1", f"oci:{tmp_path}/layout:t", "--store", f"cocoon:{recorded_root}")
    run("pull", f"oci:{tmp_path}/layout:t", "--store", f"cocoon:{node}", "--as", "Edge_Case.1")
    epoch_cli(node, "push", "Edge_Case.1", "-t", "v1")
    env, bucket = epoch.s3.environ(epoch.bucket), f"s3://{epoch.bucket}/epoch"
    listed = run("ls", bucket, "--format", "json", **env).json["snapshots"]
    assert ("Edge_Case.1", "v1") in {(row["name"], row["tag"]) for row in listed}
    run("verify", bucket, **env)
    run("push", "Edge_Case.1:v1", f"oci:{tmp_path}/out:t", "--store", bucket, **env)
    run("pull", f"oci:{tmp_path}/out:t", "-o", tmp_path / "files")
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "files").iterdir()} == (
        expected("Edge_Case.1")
    )
    refused = run("pull", f"oci:{tmp_path}/layout:t", "--store", bucket, code=9, **env)
    assert "0.1.6" in refused.err


def round_trip(target: str, tmp_path: Path, *login: str, raw: bytes = b"") -> None:
    made = make_snapshot()
    put_snapshot(tmp_path / "first", made)
    words = ["push", made.key, f"{target}:v1", "--store", tmp_path / "first", "--format", "json", "--allow-public"]
    pushed = run(*words, *login, raw=raw).json
    assert pushed["bytesTransferred"] == pushed["size"]
    assert run(*words, *login, raw=raw).json["bytesTransferred"] == 0
    pulled = run("pull", f"{target}:v1", "--store", tmp_path / "second", "--format", "json", *login, raw=raw).json
    assert pulled["digest"] == pushed["digest"]
    after = tree(tmp_path / "second")
    after.pop("catalog.json")
    assert after == tree(tmp_path / "first")
    run("tag", f"{target}:v1", "stable", "--allow-public", *login, raw=raw)
    assert run("ls", target, *login, raw=raw).out.split() == ["stable", "v1"]
    run("verify", f"{target}:stable", "--round-trip", *login, raw=raw)


@requires_peer("zot")
def test_zot_keeps_a_snapshot(zot, repo_name, tmp_path):
    round_trip(f"{zot.address}/{repo_name}", tmp_path)


@requires_peer("gitea")
def test_gitea_keeps_a_snapshot(gitea, tmp_path):
    login = ["--username", gitea.user, "--password-stdin"]
    round_trip(f"{gitea.address}/{gitea.user}/bot", tmp_path, *login, raw=gitea.password.encode())
