"""`copy`, `tag`, `rm`, a push with several tags, and `ls` of registries, as people type them."""

import json
import signal
import subprocess

import pytest
from cli_runner import Here, command, environment, run_cli, start_cli
from registry_room import PASSWORD, USER
from snapshots import make_snapshot, put_snapshot, tree
from support.content import INDEX, MANIFEST, descriptor, index, manifest
from support.faults import Respond, Stall
from support.peers import requires_peer, run_peer
from support.registry_auth import BasicAuth, BearerAuth
from support.waiting import until

SBOM = "application/vnd.example.sbom"
SIGNATURE = "application/vnd.example.signature"


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def bot(tmp_path):
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    return made


def family(registry, name: str = "acme/multi") -> dict[str, str]:
    """An index of two images, one of them with a referrer that has a referrer itself, all in one repository."""
    found = {}
    for child in ("amd64", "arm64"):
        for raw in (b"{}", child.encode()):
            registry.put_blob(name, raw)
        body = manifest([child.encode()])
        found[child] = registry.put_manifest(name, None, body)
        found[child + " body"] = body
    rows = [descriptor(found[f"{child} body"], MANIFEST) for child in ("amd64", "arm64")]
    found["index"] = registry.put_manifest(name, "v1", index(rows), INDEX)
    registry.put_blob(name, b"sbom")
    sbom = manifest([b"sbom"], subject=rows[0], artifactType=SBOM)
    found["sbom"] = registry.put_manifest(name, None, sbom)
    signature = manifest(
        [b"sbom"], subject=descriptor(sbom, MANIFEST), artifactType="application/vnd.example.signature"
    )
    found["signature"] = registry.put_manifest(name, None, signature)
    return found


def digests(registry, name: str) -> set[str]:
    return set(registry.manifests(name))


@pytest.mark.parametrize("way", ["registry", "registry without referrers", "layout between", "archive between"])
def test_an_index_is_copied_whole_with_all_that_refers_to_it(cli, fake_registry, way):
    source, target = fake_registry(), fake_registry(referrers=way != "registry without referrers")
    found = family(source)
    at = f"{source.address}/acme/multi:v1"
    if way.endswith("between"):
        between = "oci:between" if way.startswith("layout") else "oci-archive:between.tar"
        assert cli("copy", at, between).code == 0
        at = f"{between}:v1"
    done = cli("copy", at, f"{target.address}/other/place", "--format", "json")
    assert done.code == 0, done.err
    assert done.json["digest"] == found["index"] == target.tags("other/place")["v1"]
    for name in ("amd64", "arm64", "index", "sbom", "signature"):
        assert target.manifests("other/place")[found[name]] == source.manifests("acme/multi")[found[name]]
    assert source.blobs("acme/multi") == target.blobs("other/place")
    roles = {row["digest"]: row["role"] for row in done.json["documents"]}
    assert [roles[found[name]] for name in ("index", "amd64", "sbom", "signature")] == [
        "document",
        "document",
        "referrer",
        "referrer",
    ]
    again = cli("copy", at, f"{target.address}/other/place", "--format", "json")
    assert again.json["bytesTransferred"] == 0


def test_without_referrers_they_stay_behind(cli, fake_registry):
    source, target = fake_registry(), fake_registry()
    found = family(source)
    assert cli("copy", f"{source.address}/acme/multi:v1", f"{target.address}/x", "--no-referrers").code == 0
    assert digests(target, "x") == {found[name] for name in ("index", "amd64", "arm64")}


def test_signatures_under_tags_come_along_and_others_are_not_lost(cli, fake_registry):
    """cosign's, which know what they sign by their tag alone: of the index and of a manifest in it."""
    source, target = fake_registry(), fake_registry()
    family(source)
    root = source.tags("acme/multi")["v1"]
    child = json.loads(source.manifest("acme/multi", "v1"))["manifests"][0]["digest"]
    tags = [f"{root.replace(':', '-')}.sig", f"{root.replace(':', '-')}.att", f"{child.replace(':', '-')}.sig"]
    for number, tag in enumerate(tags):
        source.put_image("acme/multi", tag, [b"signature %d" % number])
    words = ("copy", f"{source.address}/acme/multi:v1", f"{target.address}/acme/multi:v1")
    dry = cli(*words, "--dry-run", "--format", "json").json
    assert {source.tags("acme/multi")[tag] for tag in tags} <= {row["digest"] for row in dry["documents"]}
    assert cli(*words).code == 0
    assert [target.tags("acme/multi")[tag] for tag in tags] == [source.tags("acme/multi")[tag] for tag in tags]
    target.put_image("acme/multi", tags[0], [b"of somebody else"])
    held = dict(target.tags("acme/multi"))
    refused = cli(*words)
    assert refused.code == 9 and "--no-referrers" in refused.error and target.tags("acme/multi") == held
    assert cli(*words, "--no-referrers").code == 0 and target.tags("acme/multi") == held
    assert cli(*words, "--force").code == 0
    assert target.tags("acme/multi")[tags[0]] == source.tags("acme/multi")[tags[0]]


def test_one_manifest_of_an_index_is_copied_by_its_digest(cli, fake_registry):
    source, target = fake_registry(), fake_registry()
    found = family(source)
    done = cli("copy", f"{source.address}/acme/multi@{found['arm64']}", f"{target.address}/x")
    assert done.code == 0, done.err
    assert digests(target, "x") == {found["arm64"]} and target.tags("x") == {}


def test_within_a_registry_nothing_is_sent(cli, fake_registry):
    registry = fake_registry()
    family(registry)
    done = cli("copy", f"{registry.address}/acme/multi:v1", f"{registry.address}/acme/other", "--format", "json")
    assert done.code == 0, done.err
    assert {row["action"] for row in done.json["blobs"]} == {"mounted"}
    assert done.json["bytesTransferred"] == 0
    assert registry.recording.count("PUT", "/blobs/uploads/") == registry.recording.count("PATCH", "/blobs/") == 0


def test_what_a_target_tag_holds_is_not_replaced_unasked(cli, fake_registry):
    registry = fake_registry()
    family(registry)
    held = registry.put_image("other", "v1", [b"precious"])
    words = ("copy", f"{registry.address}/acme/multi:v1", f"{registry.address}/other:v1")
    refused = cli(*words)
    assert refused.code == 9 and f"holds {held}" in refused.error
    assert len(registry.blobs("other")) == 2  # nothing was sent before the refusal
    assert cli(*words, "--force").code == 0


def test_a_dry_run_of_a_copy_asks_and_changes_nothing(cli, fake_registry):
    source, target = fake_registry(), fake_registry()
    family(source)
    done = cli("copy", f"{source.address}/acme/multi:v1", f"{target.address}/x", "--dry-run", "--format", "json")
    assert done.code == 0 and {row["action"] for row in done.json["blobs"]} == {"send"}
    assert {item.method for item in target.recording} <= {"GET", "HEAD"}


def test_a_copy_that_broke_goes_on(cli, fake_registry):
    source, target = fake_registry(), fake_registry()
    found = family(source)
    gone = source.blob("acme/multi", sorted(source.blobs("acme/multi"))[0])
    digest = sorted(source.blobs("acme/multi"))[0]
    source.delete_blob("acme/multi", digest)
    words = ("copy", f"{source.address}/acme/multi:v1", f"{target.address}/x")
    broken = cli(*words)
    assert broken.code == 5 and target.tags("x") == {}
    source.put_blob("acme/multi", gone)
    assert cli(*words).code == 0
    assert target.tags("x") == {"v1": found["index"]}


def test_a_blob_that_is_not_what_it_is_called_stops_the_copy(cli, fake_registry):
    source, target = fake_registry(), fake_registry()
    source.put_image("a", "v1", [b"layer"])
    digest = next(iter({*source.blobs("a")} - {descriptor(b"{}")["digest"]}))
    source.put_blob("a", b"liars", digest)
    done = cli("copy", f"{source.address}/a:v1", f"{target.address}/a")
    assert done.code == 3 and target.tags("a") == {}


def test_memory_is_not_copied_where_everybody_can_read(cli, fake_registry, bot):
    """A copy publishes a manifest as a push does, also when every blob is there or mounted."""
    registry = fake_registry(auth=BearerAuth(anonymous=("pull",)))
    env = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}
    assert cli("push", "team/bot:v1", "oci:made", "--store", "store").code == 0
    words = ("copy", "oci:made:v1", f"{registry.address}/open")
    refused = cli(*words, env=env)
    assert refused.code == 8 and "memory-ranges" in refused.error and registry.tags("open") == {}
    assert cli(*words, "--allow-public", env=env).code == 0
    retag = ("tag", f"{registry.address}/open:v1", "v2")
    assert cli(*retag, env=env).code == 8
    assert cli(*retag, "--allow-public", env=env).code == 0
    assert set(registry.tags("open")) == {"v1", "v2"}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("copy", "oci:made:v1", "oci:other:v1@sha256:" + "0" * 64), "a target has no digest"),
        (("copy", "oci:made:v1", "oci:other:a,b!"), "may hold only"),
        (("copy", "oci:made:v1", "nowhere"), "neither a registry reference nor an OCI layout"),
        (("tag", "oci:made:v1", "other/repo:v2"), "may hold only"),
        (("rm", "oci:made"), "is all of it"),
        (("rm", "oci:made:v1"), "--yes"),
        (("rm", "team/bot", "--store", "store"), "does not say which snapshot"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, bot, words, problem):
    assert cli("push", "team/bot:v1", "oci:made", "--store", "store").code == 0
    done = cli(*words)
    assert done.code == 2 and problem in done.error


def test_a_push_sets_several_tags(cli, bot, fake_registry):
    registry = fake_registry()
    target = f"{registry.address}/acme/bot:v1,v1.2,latest"
    assert cli("push", "team/bot:v1", target, "--store", "store").code == 0
    assert set(registry.tags("acme/bot")) == {"v1", "v1.2", "latest"}
    assert len(set(registry.tags("acme/bot").values())) == 1
    before = len([item for item in registry.recording if item.method == "PUT"])
    assert cli("push", "team/bot:v1", target, "--store", "store").code == 0
    assert len([item for item in registry.recording if item.method == "PUT"]) == before


def test_one_tag_of_several_that_is_taken_stops_the_push_before_it_begins(cli, bot, fake_registry):
    registry = fake_registry()
    registry.put_image("acme/bot", "latest", [b"precious"])
    done = cli("push", "team/bot:v1", f"{registry.address}/acme/bot:v1,latest", "--store", "store")
    assert done.code == 9 and set(registry.tags("acme/bot")) == {"latest"}
    assert len(registry.blobs("acme/bot")) == 2


def test_tags_are_added_and_a_taken_one_moves_none(cli, fake_registry):
    registry = fake_registry()
    digest = registry.put_image("a", "v1")
    registry.put_image("a", "taken", [b"other"])
    at = f"{registry.address}/a:v1"
    assert cli("tag", at, "new", "taken").code == 9
    assert "new" not in registry.tags("a")
    done = cli("tag", at, "new", "newer", "v1", "--format", "json")
    assert done.code == 0
    assert [row["action"] for row in done.json["tags"]] == ["set", "set", "held"]
    assert registry.tags("a")["newer"] == digest
    dry = cli("tag", at, "newest", "--dry-run")
    assert dry.code == 0 and "newest" not in registry.tags("a")


def test_an_index_is_tagged(cli, fake_registry):
    registry = fake_registry()
    found = family(registry)
    assert cli("tag", f"{registry.address}/acme/multi:v1", "stable").code == 0
    assert registry.tags("acme/multi")["stable"] == found["index"]


def test_several_are_removed_and_what_could_not_be_is_listed(cli, fake_registry):
    registry = fake_registry()
    registry.put_image("a", "v1")
    registry.put_image("a", "v2", [b"other"])
    base = f"{registry.address}/a"
    assert cli("rm", f"{base}:v1", "--dry-run").code == 0 and set(registry.tags("a")) == {"v1", "v2"}
    done = cli("rm", f"{base}:v1", f"{base}:gone", "--yes", "--format", "json")
    assert done.code == 10
    rows = {row["reference"].rpartition(":")[2]: row["action"] for row in json.loads(done.out)["removed"]}
    assert rows == {"v1": "removed", "gone": "failed"}
    assert set(registry.tags("a")) == {"v2"}
    assert cli("rm", f"{base}:gone", "--yes").code == 5


def test_all_tags_of_a_manifest_go_together_where_only_manifests_can_be_deleted(cli, fake_registry):
    registry = fake_registry(deletes_tags=False)
    registry.tag("a", "v2", registry.put_image("a", "v1"))
    base = f"{registry.address}/a"
    refused = cli("rm", f"{base}:v1", "--yes")
    assert refused.code == 4 and "v2 would go with v1" in refused.error
    assert cli("rm", f"{base}:v1", f"{base}:v2", "--yes").code == 0
    assert registry.tags("a") == {}


def test_what_a_tagged_index_names_is_not_deleted_from_under_it(cli, fake_registry):
    """A registry that deletes manifests only would take a part of the index, or of one in it."""
    registry = fake_registry(deletes_tags=False)
    registry.put_image("a", "v1")
    image = registry.manifest("a", "v1")
    inner = index([descriptor(image, MANIFEST)])
    registry.put_manifest("a", None, inner, INDEX)
    registry.put_manifest("a", "multi", index([descriptor(inner, INDEX)]), INDEX)
    base = f"{registry.address}/a"
    for name in ("a:v1", f"a@{registry.tags('a')['v1']}"):
        refused = cli("rm", f"{registry.address}/{name}", "--yes")
        assert refused.code == 4 and "the index multi would lose" in refused.error
    assert set(registry.tags("a")) == {"v1", "multi"} and len(registry.manifests("a")) == 3
    assert cli("rm", f"{base}:v1", f"{base}:multi", "--yes").code == 0 and registry.tags("a") == {}


def test_a_manifest_without_a_tag_is_removed_by_its_digest(cli, fake_registry):
    registry = fake_registry()
    registry.put_image("a", "v1")
    digest = registry.tags("a")["v1"]
    assert cli("rm", f"{registry.address}/a:v1", "--yes").code == 0 and registry.manifests("a")
    registry.fault("GET", "/tags/list", Respond(404), optional=True)
    assert cli("rm", f"{registry.address}/a@{digest}", "--yes").code == 0 and not registry.manifests("a")


def test_many_tags_are_asked_about_once(cli, fake_registry):
    registry = fake_registry(deletes_tags=False)
    for number in range(30):
        registry.put_image("a", f"v{number}", [bytes([number])])
    registry.recording.clear()
    assert cli("rm", *(f"{registry.address}/a:v{number}" for number in range(20)), "--yes").code == 0
    assert len(registry.tags("a")) == 10
    assert registry.recording.count("HEAD", "/manifests/") < 30 + 3 * 20


def test_a_registry_that_deletes_nothing_is_said_so(cli, fake_registry):
    registry = fake_registry(deletes=False)
    registry.tag("a", "v2", registry.put_image("a", "v1"))
    done = cli("rm", f"{registry.address}/a:v1", "--yes")
    assert done.code == 4 and "does not delete" in done.error
    both = cli("rm", f"{registry.address}/a:v1", f"{registry.address}/a:v2", "--yes")
    assert both.code == 10 and both.err.count("does not delete") == 1 and "(2 times)" in both.err


def test_a_snapshot_is_removed_from_a_store_and_its_catalog(cli, tmp_path, bot):
    put_snapshot(tmp_path / "store", make_snapshot("W3b", tag="v2"))
    for tag in ("v1", "v2"):
        assert cli("push", f"team/bot:{tag}", f"oci:made:{tag}", "--store", "store").code == 0
        assert cli("pull", f"oci:made:{tag}", "--store", "second").code == 0
    done = cli("rm", "team/bot:v1", "--store", "second", "--yes")
    assert (done.code, done.out) == (0, "Removed team/bot:v1\n")
    assert [row["tag"] for row in cli("ls", "second", "--format", "json").json["snapshots"]] == ["v2"]
    assert list(json.loads(tree(tmp_path / "second")["catalog.json"])["repositories"]["team/bot"]["tags"]) == ["v2"]
    assert cli("verify", "second").code == 0
    assert cli("rm", "team/bot:v1", "--store", "second", "--yes").code == 5


def test_somebody_at_a_terminal_is_asked(tmp_path, bot):
    import os
    import pty

    assert run_cli("push", "team/bot:v1", "oci:made", "--store", "store", cwd=tmp_path).code == 0
    for answer, left in ((b"n\n", ["v1"]), (b"y\n", [])):
        parent, child = pty.openpty()
        os.write(parent, answer)
        done = subprocess.run(
            command("rm", "oci:made:v1"), cwd=tmp_path, env=environment(), stdin=child, capture_output=True, timeout=60
        )
        os.close(parent), os.close(child)
        assert b"remove oci:made:v1" in done.stderr
        assert (done.returncode == 0) == (answer == b"y\n")
        assert run_cli("ls", "oci:made", "--format", "json", cwd=tmp_path).json["tags"] == left


def test_repositories_of_a_registry_are_listed(cli, fake_registry):
    registry = fake_registry()
    for name in ("acme/bot", "acme/web"):
        registry.put_image(name, "v1")
    for word in (registry.address, registry.address + "/"):
        done = cli("ls", word, "--format", "json")
        assert done.json == {"location": registry.address, "repositories": ["acme/bot", "acme/web"]}
    assert cli("ls", registry.address).out.splitlines()[0] == f"{registry.address}/acme/bot"


def test_a_registry_without_a_catalog_is_5(cli, fake_registry):
    done = cli("ls", fake_registry(catalog=False).address)
    assert done.code == 5 and "no catalog" in done.error


def test_tags_with_size_date_kind_and_digest(cli, bot, fake_registry):
    registry = fake_registry(referrers=False)
    base = f"{registry.address}/acme/bot"
    assert cli("push", "team/bot:v1", base, "--store", "store").code == 0
    registry.put_image("acme/bot", "app")
    registry.put_manifest("acme/bot", "sha256-" + "0" * 64, index([]), INDEX)
    done = cli("ls", "-l", base, "--format", "json").json
    assert done["tags"] == ["app", "v1"]
    rows = {row["tag"]: row for row in done["artifacts"]}
    assert rows["v1"]["kind"] == "snapshot" and rows["v1"]["digest"] == registry.tags("acme/bot")["v1"]
    assert rows["v1"]["size"] == sum(registry.blobs("acme/bot").values()) - len(b"layer") - len(b"{}")
    assert rows["app"]["kind"] == "application/vnd.example.test.config.v1+json"
    assert len(cli("ls", "--all", base, "--format", "json").json["tags"]) == 3
    assert cli("ls", "-l", base).out.splitlines()[0].split() == ["TAG", "KIND", "SIZE", "CREATED", "DIGEST"]


@requires_peer("oras", "skopeo")
def test_copies_between_real_registries_are_what_other_clients_see(cli, bot, live_registry, repo_name, tmp_path):
    """`oras` attaches and discovers, `skopeo` reads the layout; both agree on every digest."""
    at = f"{live_registry.address}/{repo_name}"
    assert cli("push", "team/bot:v1", at, "--store", "store").code == 0
    (tmp_path / "sbom.json").write_text("{}")
    run_peer(
        "oras", "attach", "--plain-http", "--artifact-type", SBOM, f"{at}:v1", "sbom.json", home=tmp_path, cwd=tmp_path
    )
    copied = cli("copy", f"{at}:v1", f"{at}-copy", "--format", "json")
    assert copied.code == 0, copied.err
    found = run_peer("oras", "discover", "--plain-http", "--format", "json", f"{at}-copy:v1", home=tmp_path)
    told = json.loads(found.stdout)
    assert [row["artifactType"] for row in told.get("referrers", told.get("manifests"))] == [SBOM]
    assert cli("copy", f"{at}:v1", "oci:layout").code == 0
    shown = run_peer("skopeo", "inspect", "--raw", f"oci:{tmp_path / 'layout'}:v1", home=tmp_path)
    assert shown.stdout == live_manifest(live_registry, repo_name)
    found = run_peer("oras", "discover", "--oci-layout", "--format", "json", "layout:v1", home=tmp_path, cwd=tmp_path)
    told = json.loads(found.stdout)
    assert [row["artifactType"] for row in told.get("referrers", told.get("manifests"))] == [SBOM]


def live_manifest(registry, name: str) -> bytes:
    client = registry.client()
    try:
        return client.request("GET", f"/v2/{name}/manifests/v1", Accept=MANIFEST).body
    finally:
        client.close()


def test_credentials_serve_both_registries(cli, fake_registry):
    source, target = fake_registry(auth=BasicAuth()), fake_registry(auth=BearerAuth())
    family(source)
    env = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}
    assert cli("copy", f"{source.address}/acme/multi:v1", f"{target.address}/x", env=env).code == 0


def test_an_interrupted_removal_removes_nothing_more(fake_registry):
    registry = fake_registry()
    for tag in ("v1", "v2", "v3"):
        registry.put_image("acme/bot", tag, layers=(tag.encode(),))
    registry.fault("DELETE", "/manifests/", Stall(0.5), nth=1)
    child = start_cli("rm", *(f"{registry.address}/acme/bot:{tag}" for tag in ("v1", "v2", "v3")), "--yes")
    until(lambda: registry.recording.count("DELETE"))
    child.send_signal(signal.SIGINT)
    _, err = child.communicate()
    registry.recording.settle()
    assert child.returncode == 130 and b"INTERRUPTED" in err
    assert registry.recording.count("DELETE") == 1 and {"v2", "v3"} <= set(registry.tags("acme/bot"))
