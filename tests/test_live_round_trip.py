"""The main job on real registries, through the command line: push, pull, compare; and foreign clients reading it."""

import hashlib
import json
from pathlib import Path

import pytest
from cli_runner import Ran, run_cli
from snapshots import WRITERS, Made, make_snapshot, noise, put_snapshot, tree
from support.peers import requires_peer, run_peer


def run(*words: object, code: int = 0, stdin: bytes = b"", **env: str) -> Ran:
    """The tool as a user runs it."""
    done = run_cli(*words, input=stdin, env=env)
    assert done.code == code, f"{words}: exit {done.code}\n{done.out}\n{done.err}"
    return done


def report(*words: object, **options) -> dict:
    return run(*words, "--format", "json", **options).json


@pytest.fixture
def first(tmp_path) -> Path:
    return tmp_path / "first"


def push(first: Path, made: Made, target: str, *words: object, **options) -> dict:
    put_snapshot(first, made)
    return report("push", made.key, target, "--store", first, *words, **options)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_writer_comes_back_byte_for_byte(live_registry, repo_name, first, tmp_path, kind):
    target = f"{live_registry.address}/{repo_name}:v1"
    made = make_snapshot(kind)
    pushed = push(first, made, target)
    assert pushed["bytesTransferred"] == pushed["size"]
    again = report("push", made.key, target, "--store", first)
    assert (again["bytesTransferred"], again["digest"]) == (0, pushed["digest"])
    pulled = report("pull", target, "--store", tmp_path / "second")
    assert pulled["digest"] == pushed["digest"]
    before, after = tree(first), tree(tmp_path / "second")
    catalog = json.loads(after.pop("catalog.json"))
    assert after == before
    assert catalog["repositories"]["team/bot"]["tags"] == {"v1": "manifests/team/bot/v1.json"}
    assert report("pull", target, "--store", tmp_path / "second")["bytesTransferred"] == 0
    assert report("verify", target, "--round-trip")["ok"]


def test_the_digest_is_the_same_wherever_it_is_pushed(live_registry, repo_name, first, tmp_path):
    made = make_snapshot()
    remote = push(first, made, f"{live_registry.address}/{repo_name}")
    local = push(first, made, f"oci:{tmp_path / 'layout'}")
    assert remote["digest"] == local["digest"]
    assert remote["reference"].endswith(":v1")


def test_basic_authentication(live_htpasswd, repo_name, first, tmp_path):
    target = f"{live_htpasswd.address}/{repo_name}:v1"
    put_snapshot(first, make_snapshot())
    run("push", "team/bot:v1", target, "--store", first, code=4)
    login = ("login", live_htpasswd.address, "--username", live_htpasswd.user, "--password-stdin")
    run(*login, stdin=b"wrong", code=4)
    run(*login, stdin=live_htpasswd.password.encode())
    push(first, make_snapshot(), target)
    report("pull", target, "--store", tmp_path / "second")
    run("logout", live_htpasswd.address)
    run("pull", target, "--store", tmp_path / "third", code=4)


def test_bearer_tokens(live_token, repo_name, first, tmp_path):
    target = f"{live_token.address}/{repo_name}:v1"
    put_snapshot(first, make_snapshot())
    run("push", "team/bot:v1", target, "--store", first, code=4)
    secret = live_token.password.encode()
    words = ("push", "team/bot:v1", target, "--store", first, "--username", live_token.user, "--password-stdin")
    guarded = run(*words, stdin=secret, code=8)  # anonymous tokens can read: the RAM guard
    assert "--allow-public" in guarded.err
    run(*words, "--allow-public", stdin=secret)
    report("pull", target, "--store", tmp_path / "second")
    assert (tmp_path / "second/manifests/team/bot/v1.json").read_bytes() == make_snapshot().raw


def test_tls_with_an_own_ca(live_tls, repo_name, first, tmp_path):
    target = f"{live_tls.address}/{repo_name}:v1"
    put_snapshot(first, make_snapshot())
    secret = live_tls.password.encode()
    words = ("--username", live_tls.user, "--password-stdin")
    run("push", "team/bot:v1", target, "--store", first, *words, stdin=secret, code=6)
    push(first, make_snapshot(), target, *words, "--ca-file", live_tls.ca_file, stdin=secret)
    run("pull", target, "--store", tmp_path / "second", *words, "--insecure", stdin=secret)
    assert (tmp_path / "second/manifests/team/bot/v1.json").read_bytes() == make_snapshot().raw


def test_a_blob_is_mounted_from_a_sibling(live_registry, repo_name, first):
    made = make_snapshot()
    push(first, made, f"{live_registry.address}/{repo_name}/one:v1")
    there = push(first, made, f"{live_registry.address}/{repo_name}/two:v1", "--mount-from", f"{repo_name}/one")
    assert {blob["action"] for blob in there["blobs"]} == {"mounted"}
    assert there["bytesTransferred"] == 0


def test_many_tags_are_listed(live_registry, repo_name, first):
    tags = [f"v{index}" for index in range(10)]
    for tag in tags:
        put_snapshot(first, make_snapshot("cloud-image", tag=tag))
        run("push", f"team/bot:{tag}", f"{live_registry.address}/{repo_name}", "--store", first, "-q")
    assert sorted(report("ls", f"{live_registry.address}/{repo_name}")["tags"]) == sorted(tags)
    run("ls", f"{live_registry.address}/{repo_name}-not", code=5)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@requires_peer("oras")
def test_oras_pull_restores_every_file(live_registry, repo_name, first, tmp_path):
    target = f"{live_registry.address}/{repo_name}:v1"
    made = make_snapshot("W3a")
    push(first, made, target)
    run_peer("oras", "pull", "--plain-http", target, "-o", tmp_path / "out", home=tmp_path)
    manifest = json.loads(made.raw)
    rows = manifest["layers"] + manifest["baseImages"]
    assert {row["filename"]: row["digest"] for row in rows} == {
        path.name: sha(path) for path in (tmp_path / "out").iterdir()
    }


@requires_peer("skopeo")
def test_skopeo_copies_it_on_with_the_digest_unchanged(live_registry, repo_name, first, tmp_path):
    target = f"{live_registry.address}/{repo_name}"
    made = make_snapshot()
    pushed = push(first, made, f"{target}:v1")
    flags = ("--src-tls-verify=false", "--preserve-digests", "--insecure-policy")
    run_peer("skopeo", "copy", *flags, f"docker://{target}:v1", f"oci:{tmp_path / 'layout'}:v1", home=tmp_path)
    both = (*flags, "--dest-tls-verify=false")
    run_peer("skopeo", "copy", *both, f"docker://{target}:v1", f"docker://{target}/copy:v1", home=tmp_path)
    for place in (f"oci:{tmp_path / 'layout'}:v1", f"{target}/copy:v1"):
        assert report("pull", place, "--store", tmp_path / "second", "--force")["digest"] == pushed["digest"]
    assert (tmp_path / "second/manifests/team/bot/v1.json").read_bytes() == made.raw


@requires_peer("crane")
def test_crane_copies_it_on_with_the_digest_unchanged(live_registry, repo_name, first, tmp_path):
    target = f"{live_registry.address}/{repo_name}"
    made = make_snapshot()
    pushed = push(first, made, f"{target}:v1")
    run_peer("crane", "copy", "--insecure", f"{target}:v1", f"{target}/copy:v1", home=tmp_path)
    copied = run_peer("crane", "digest", "--insecure", f"{target}/copy:v1", home=tmp_path).stdout
    assert copied.decode().strip() == pushed["digest"]
    run_peer("crane", "pull", "--insecure", "--format", "oci", f"{target}:v1", tmp_path / "layout", home=tmp_path)
    pulled = report("pull", f"oci:{tmp_path / 'layout'}@{pushed['digest']}", "--store", tmp_path / "second")
    assert pulled["digest"] == pushed["digest"]
    assert (tmp_path / "second/manifests/team/bot/v1.json").read_bytes() == made.raw


@requires_peer("regctl")
def test_regctl_reads_the_manifest_byte_for_byte(live_registry, repo_name, first, tmp_path):
    target = f"{live_registry.address}/{repo_name}:v1"
    pushed = push(first, make_snapshot(), target)
    run_peer("regctl", "registry", "set", "--tls", "disabled", live_registry.address, home=tmp_path)
    run_peer("regctl", "image", "copy", target, f"ocidir://{tmp_path / 'layout'}:v1", home=tmp_path)
    assert report("inspect", f"oci:{tmp_path / 'layout'}:v1")["digest"] == pushed["digest"]


@requires_peer("oras")
def test_what_oras_pushed_with_cocoon_media_types_is_pulled(live_registry, repo_name, tmp_path):
    target = f"{live_registry.address}/{repo_name}:v1"
    files = {"config.json": b'{"cpus":{}}', "memory-ranges": noise("m", 100_000), "state.json": b"{}"}
    kinds = {"config.json": "config+json", "memory-ranges": "memory", "state.json": "state+json"}
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    words = [f"{name}:application/vnd.cocoon.{kinds[name]}" for name in files]
    kind = ("--artifact-type", "application/vnd.cocoon.snapshot.v1+json")
    run_peer("oras", "push", "--plain-http", *kind, target, *words, home=tmp_path, cwd=tmp_path)
    pulled = report("pull", target, "--store", tmp_path / "store", "--as", "made/elsewhere:v1")
    assert pulled["derived"] is True
    manifest = json.loads((tmp_path / "store/manifests/made/elsewhere/v1.json").read_bytes())
    assert {row["filename"]: row["digest"] for row in manifest["layers"]} == {
        name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()
    }
    assert report("pull", target, "--store", tmp_path / "plain")["name"] == repo_name
    assert report("pull", target, "-o", tmp_path / "out")["bytesTransferred"] == sum(map(len, files.values()))
    assert tree(tmp_path / "out") == files


@requires_peer("oras", "skopeo")
def test_foreign_clients_accept_our_layout(live_registry, repo_name, first, tmp_path):
    layout = f"oci:{tmp_path / 'layout'}"
    made = make_snapshot("W1")
    pushed = push(first, made, layout)
    push(first, make_snapshot("W3b", tag="v2"), layout)
    target = f"{live_registry.address}/{repo_name}"
    source = f"{tmp_path / 'layout'}:v1"
    run_peer("oras", "cp", "--from-oci-layout", "--to-plain-http", source, f"{target}:oras", home=tmp_path)
    flags = ("--insecure-policy", "--dest-tls-verify=false", "--preserve-digests")
    run_peer("skopeo", "copy", *flags, f"{layout}:v1", f"docker://{target}:skopeo", home=tmp_path)
    for tag in ("oras", "skopeo"):
        assert report("inspect", f"{target}:{tag}")["digest"] == pushed["digest"]


def test_a_file_in_parts_comes_back_whole(live_registry, repo_name, first, tmp_path):
    target = f"{live_registry.address}/{repo_name}:v1"
    made = make_snapshot("W3b")
    pushed = push(first, made, target, "--part-size", "128KiB")
    assert sum("memory-ranges.part." in (blob["title"] or "") for blob in pushed["blobs"]) == 12
    again = report("push", made.key, target, "--store", first, "--part-size", "128KiB")
    assert (again["bytesTransferred"], again["digest"]) == (0, pushed["digest"])
    report("pull", target, "--store", tmp_path / "second")
    after = tree(tmp_path / "second")
    del after["catalog.json"]
    assert after == tree(first)
    assert report("verify", target, "--round-trip")["ok"]
    whole = push(first, made, f"{live_registry.address}/{repo_name}:whole")
    assert whole["digest"] != pushed["digest"]


@requires_peer("oras")
def test_parts_pulled_by_oras_join_with_cat(live_registry, repo_name, first, tmp_path):
    target = f"{live_registry.address}/{repo_name}:v1"
    made = make_snapshot("W3a")
    push(first, made, target, "--part-size", "100KiB")
    run_peer("oras", "pull", "--plain-http", target, "-o", tmp_path / "out", home=tmp_path)
    parts = sorted((tmp_path / "out").glob("memory-ranges.part.*"))
    joined = b"".join(path.read_bytes() for path in parts)
    assert hashlib.sha256(joined).hexdigest() in made.blobs
