"""`sync`: many snapshots between stores, registries and layouts, as people type it."""

import json
import signal
import subprocess
from collections import Counter

import pytest
from cli_runner import Here, command, environment, run_cli, start_cli
from hypothesis import given
from hypothesis import strategies as st
from registry_room import PASSWORD, USER
from snapshots import Made, make_snapshot, noise, put_snapshot, tree
from support.content import INDEX, MANIFEST, descriptor, index, manifest
from support.faults import Respond, Throttle
from support.nursery import Child
from support.registry_auth import BasicAuth, BearerAuth
from support.waiting import until

from epoch_oci.bulk.run import Meter
from epoch_oci.bulk.select import Selection
from epoch_oci.epoch import gojson
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import media_type_for_file
from epoch_oci.events import Event
from epoch_oci.oci.digest import Digest

BASE = noise("the base that all share", 400_000)


def small(
    name: str, tag: str, *, unique: int = 5_000, base: bytes = BASE, created: str = "2026-04-02T10:00:00Z"
) -> Made:
    """A snapshot with a base image that others have as well, and little of its own."""
    made = Made(SnapshotKey(name, tag), b"")

    def layer(filename: str, raw: bytes) -> dict:
        made.blobs[Digest.of(raw).hex] = raw
        kind = media_type_for_file(filename)
        return {"digest": Digest.of(raw).hex, "size": len(raw), "filename": filename, "mediaType": kind}

    layers = [layer("cow.raw", noise(f"{name}/{tag}", unique)), layer("config.json", b'{"boot_vcpus":2}')]
    value = {"schemaVersion": 1, "name": name, "tag": tag, "snapshotId": "9f3c", "image": "", "layers": layers}
    value["baseImages"] = [layer("base.qcow2", base)]
    value |= {"totalSize": unique + 16 + len(base), "createdAt": created, "pushedAt": created}
    made.raw = gojson.dumps(value)
    return made


NAMES = [(f"team/bot{number}", tag) for number in range(4) for tag in ("v1", "v2")]


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def store(tmp_path):
    for name, tag in NAMES:
        put_snapshot(tmp_path / "store", small(name, tag))
    return tree(tmp_path / "store")


def without_catalog(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: raw for name, raw in files.items() if name != "catalog.json"}


def uploads(registry, raw: bytes) -> int:
    """How often the registry was sent these bytes."""
    digest = str(Digest.of(raw)).replace(":", "%3A")
    return sum(
        item.method == "PUT" and (digest in item.target or str(Digest.of(raw)) in item.target)
        for item in registry.recording
        if "/blobs/uploads/" in item.target
    )


def test_a_store_goes_through_a_registry_and_a_layout_and_comes_back_equal(cli, tmp_path, store, fake_registry):
    registry, other = fake_registry(), fake_registry()
    for source, target in (
        ("store", f"{registry.address}/mirror"),
        (f"{registry.address}/mirror", f"{other.address}/a/b"),
        (f"{other.address}/a/b", "oci:layout"),
        ("oci:layout", f"{registry.address}/again"),
        (f"{registry.address}/again", "second"),
        ("second", "third"),
    ):
        done = cli("sync", source, target, "--format", "json")
        assert done.code == 0, done.err
        assert done.json["counts"]["synced"] == len(NAMES)
    assert without_catalog(tree(tmp_path / "third")) == store
    assert registry.tags("mirror/team/bot0") == other.tags("a/b/team/bot0") == registry.tags("again/team/bot0")
    assert sorted(json.loads(tree(tmp_path / "third")["catalog.json"])["repositories"]) == sorted({n for n, _ in NAMES})
    assert cli("verify", "third").code == 0


def test_what_snapshots_share_moves_once_and_is_mounted_elsewhere(cli, store, fake_registry):
    registry = fake_registry()
    done = cli("sync", "store", f"{registry.address}/mirror", "--format", "json").json
    assert uploads(registry, BASE) == 1
    mounts = [item for item in registry.recording if "mount=" in item.target and str(Digest.of(BASE)) in item.target]
    assert len(mounts) == 3  # four repositories
    unique = sum(5_000 for _ in NAMES) + len(BASE) + 16
    assert done["bytes"]["union"] == unique
    # Beside the files of the union the artifacts' configs move.
    assert unique < done["bytesTransferred"] < unique + len(NAMES) * 1_200


@pytest.mark.parametrize("declined", [False, True])
def test_within_one_registry_everything_is_mounted(cli, store, fake_registry, declined):
    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/staging").code == 0
    if declined:
        registry.behaviour.mount = False
    registry.recording.clear()
    words = ("sync", f"{registry.address}/staging", f"{registry.address}/released", "--format", "json")
    assert cli(*words, "--dry-run").json["bytesTransferred"] == 0
    done = cli(*words).json
    assert done["counts"]["synced"] == len(NAMES)
    sent = registry.recording.body_bytes("PUT|PATCH", r"/blobs/uploads/")
    assert sent == done["bytesTransferred"] and (sent > 0) == declined and uploads(registry, BASE) in (0, 4)
    assert registry.tags("released/team/bot3") == registry.tags("staging/team/bot3")


def test_a_base_image_goes_first(cli, store, fake_registry):
    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/mirror", "--jobs", "1").code == 0
    sent = [item.target for item in registry.recording if item.method == "PUT" and "/blobs/uploads/" in item.target]
    assert str(Digest.of(BASE)) in sent[0].replace("%3A", ":")


def test_what_is_there_costs_one_head_a_tag(cli, store, fake_registry):
    registry = fake_registry()
    target = f"{registry.address}/mirror"
    assert cli("sync", "store", target).code == 0
    registry.recording.clear()
    again = cli("sync", "store", target, "--format", "json")
    assert again.json["counts"] == {**again.json["counts"], "there": len(NAMES), "synced": 0}
    asked = Counter((item.method, "/manifests/" in item.path) for item in registry.recording)
    assert asked == {("HEAD", True): len(NAMES)}


def test_a_repeated_pull_of_everything_costs_one_head_a_tag(cli, store, fake_registry):
    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/mirror").code == 0
    assert cli("sync", f"{registry.address}/mirror", "second").code == 0
    registry.recording.clear()
    assert cli("sync", f"{registry.address}/mirror", "second").code == 0
    asked = Counter(item.method for item in registry.recording if "/manifests/" in item.path or "/blobs/" in item.path)
    assert asked == {"HEAD": len(NAMES)}


def test_one_failure_is_its_own(cli, tmp_path, store, fake_registry):
    """A blob that is wrong, one that is missing, and a tag that holds something else: three fail, the rest goes on."""
    registry = fake_registry()
    wrong, missing, taken = small("x", "wrong"), small("x", "missing"), small("x", "taken")
    for made in (wrong, missing, taken):
        put_snapshot(tmp_path / "store", made)
    path = tmp_path / "store" / "blobs" / "sha256"
    (path / Digest.of(noise("x/wrong", 5_000)).hex).write_bytes(noise("liar", 5_000))
    (path / Digest.of(noise("x/missing", 5_000)).hex).unlink()
    registry.put_image("mirror/x", "taken", [b"precious"])
    done = cli("sync", "store", f"{registry.address}/mirror", "--format", "json")
    assert done.code == 10
    rows = {row["source"]: row for row in done.json["snapshots"]}
    assert {name: row["error"]["exit"] for name, row in rows.items() if row["error"]} == {
        "x:wrong": 3,
        "x:missing": 5,
        "x:taken": 9,
    }
    assert done.json["counts"]["synced"] == len(NAMES)
    through = sum(row["size"] for row in rows.values() if row["action"] == "synced")
    assert done.json["bytes"]["saved"] <= through < done.json["bytes"]["total"]  # what failed has saved nothing
    assert set(registry.tags("mirror/x")) == {"taken"}
    text = cli("sync", "store", f"{registry.address}/mirror")
    assert text.code == 10 and "failed: x:wrong: DIGEST (exit 3)" in text.out


def test_a_shared_blob_that_is_wrong_fails_all_that_need_it_and_is_read_once(cli, tmp_path, fake_registry):
    registry = fake_registry()
    for number in range(4):
        put_snapshot(tmp_path / "store", small("bad", f"v{number}", base=noise("other base", 300_000)))
    put_snapshot(tmp_path / "store", small("good", "v1"))
    name = Digest.of(noise("other base", 300_000)).hex
    (tmp_path / "store" / "blobs" / "sha256" / name).write_bytes(noise("liar", 300_000))
    done = cli("sync", "store", f"{registry.address}/m", "--format", "json")
    assert done.code == 10
    assert {row["source"]: row["error"]["exit"] for row in done.json["snapshots"] if row["error"]} == {
        f"bad:v{number}": 3 for number in range(4)
    }
    assert set(registry.tags("m/good")) == {"v1"} and registry.tags("m/bad") == {}


def test_a_manifest_that_cannot_be_read_is_one_failure(cli, tmp_path, store, fake_registry):
    (tmp_path / "store" / "manifests" / "team" / "bot0" / "v3.json").write_text('{"layers": 7}')
    done = cli("sync", "store", f"{fake_registry().address}/m", "--format", "json")
    assert done.code == 10
    assert [row["source"] for row in done.json["snapshots"] if row["error"]] == ["team/bot0:v3"]


def test_names_that_oci_forbids_are_left_out_or_renamed(cli, tmp_path, store, fake_registry):
    put_snapshot(tmp_path / "store", small("Win/Desktop", "v1"))
    put_snapshot(tmp_path / "store", small("ok", "v 1"))
    registry = fake_registry()
    words = ("sync", "store", f"{registry.address}/m", "--format", "json")
    done = cli(*words)
    assert done.code == 10
    left = {row["source"]: row["error"] for row in done.json["snapshots"] if row["action"] == "left-out"}
    assert left.keys() == {"Win/Desktop:v1", "ok:v 1"}
    assert "--rename 'Win/Desktop=win/desktop'" in left["Win/Desktop:v1"]["message"]
    done = cli(*words, "--rename", "^Win/Desktop=win/desktop", "--rename", r"v (\d)$=v\1")
    assert done.code == 0, done.out
    assert set(registry.tags("m/win/desktop")) == set(registry.tags("m/ok")) == {"v1"}


GLOBS = st.text("ab:*?[]!/", max_size=5)


@given(st.lists(GLOBS, max_size=3), st.lists(GLOBS, max_size=3), st.text("ab/", min_size=1, max_size=3))
def test_of_a_name_that_no_pattern_may_take_no_tag_is_meant(include, exclude, name):
    selection = Selection(include=tuple(include), exclude=tuple(exclude))
    if not selection.may_take(name):
        assert not any(selection.takes(f"{name}:{tag}") for tag in ("a", "b", "ab", "ba", "v1", "latest"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 10),
        (("--include", "plain:*"), 0),
        (("--exclude", "Edge_Case.1:*"), 0),
        (("--include", "Edge*:v1"), 10),
        (("--include", "plain:*", "--rename", "^Edge_Case.1:=edge:"), 10),
    ],
)
def test_a_repository_that_cannot_be_listed_fails_only_where_it_may_be_meant(cli, fake_registry, words, code):
    """Epoch's catalog tells names that no OCI client can ask for."""
    registry = fake_registry()
    for name in ("Edge_Case.1", "plain"):
        registry.put_image(name, "v1")
    ran = cli("sync", registry.address, "oci:layout", *words, "--format", "json")
    assert ran.code == code, ran.err
    assert ("Edge_Case.1" in ran.out) == (code == 10)
    assert (ran.json["counts"]["synced"] == 1) == ("Edge*:v1" not in words)


def test_two_that_would_be_one_are_both_left_out(cli, store, fake_registry):
    registry = fake_registry()
    done = cli("sync", "store", f"{registry.address}/m", "--rename", "bot[01]=bot", "--format", "json")
    assert done.code == 10
    failed = [row for row in done.json["snapshots"] if row["error"]]
    assert len(failed) == 4 and all(row["error"]["exit"] == 9 for row in failed)
    assert registry.tags("m/team/bot") == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--include", "team/bot0:*"), {"team/bot0:v1", "team/bot0:v2"}),
        (("--include", "team*:v1", "--exclude", "*bot3*"), {f"team/bot{number}:v1" for number in range(3)}),
        (("--newer-than", "2026-06-01"), {"new:v1", "timeless:v1"}),
        (("--no-all-tags",), {"new:latest"}),
        (("--all-tags", "--include", "new:*"), {"new:v1", "new:latest"}),
    ],
)
def test_some_are_chosen(cli, tmp_path, store, words, expected):
    put_snapshot(tmp_path / "store", small("new", "latest", created="2026-05-01T00:00:00Z"))
    put_snapshot(tmp_path / "store", small("new", "v1", created="2026-07-01T00:00:00.123456789Z"))
    put_snapshot(tmp_path / "store", small("timeless", "v1", created="0001-01-01T00:00:00Z"))
    done = cli("sync", "store", "second", *words, "--format", "json")
    assert done.code == 0, done.err
    assert {row["source"] for row in done.json["snapshots"]} == expected


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_target_that_cannot_be_read_is_told_of_once(cli, tmp_path, store, dry):
    (tmp_path / "no.tar").write_bytes(b"no tar at all")
    for name, version, listed in (("later", "9", "{}"), ("broken", "1.0.0", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "oci-layout").write_text(json.dumps({"imageLayoutVersion": version}))
        (tmp_path / name / "index.json").write_text(listed)
    (tmp_path / "second" / "manifests").mkdir(parents=True)
    (tmp_path / "second" / "catalog.json").write_text("{")
    before = tree(tmp_path)
    for target in ("oci-archive:no.tar", "oci:later", "oci:broken", "second"):
        ran = cli("sync", "store", target, *dry)
        assert ran.code == 3 and ran.out == "" and len(ran.err.splitlines()) == 1, ran.err
    assert tree(tmp_path) == before


def test_of_two_opposite_flags_the_nearer_one_holds_and_delete_keeps_to_it(cli, tmp_path, store):
    put_snapshot(tmp_path / "store", small("new", "latest"))
    put_snapshot(tmp_path / "second", small("old", "v1"))
    put_snapshot(tmp_path / "second", small("old", "latest"))
    words = ("sync", "store", "second", "--delete", "--dry-run", "--format", "json")
    off, on = {"EPOCH_OCI_NO_ALL_TAGS": "1"}, {"EPOCH_OCI_ALL_TAGS": "1"}

    def planned(*more, env):
        return {
            (row["action"], row["source"] or row["target"]) for row in cli(*words, *more, env=env).json["snapshots"]
        }

    latest = {("sync", "new:latest"), ("delete", "old:latest")}
    every = latest | {("delete", "old:v1")} | {("sync", f"{name}:{tag}") for name, tag in NAMES}
    assert planned(env=off) == planned("--no-all-tags", env=on) == planned(env={"EPOCH_OCI_ALL_TAGS": "0"}) == latest
    assert planned("--all-tags", env=off) == planned(env=on) == every


def test_a_dry_run_tells_what_would_move_and_changes_nothing(cli, tmp_path, store, fake_registry):
    registry = fake_registry()
    words = ("sync", "store", f"{registry.address}/m", "--format", "json")
    planned = cli(*words, "--dry-run")
    assert planned.code == 0 and {item.method for item in registry.recording} <= {"GET", "HEAD"}
    assert planned.json["bytes"]["moved"] == planned.json["bytes"]["union"] == 8 * 5_000 + len(BASE) + 16
    assert planned.json["bytes"]["mounted"] == 3 * (len(BASE) + 16)
    assert cli("sync", "store", f"{registry.address}/m", "--include", "*bot0*").code == 0
    planned = cli(*words, "--dry-run").json
    assert planned["bytes"]["moved"] == 6 * 5_000  # the base is there to be mounted
    assert planned["counts"]["there"] == 2 and planned["counts"]["sync"] == 6


def test_what_the_source_no_longer_has_is_deleted_on_demand(cli, tmp_path, store, fake_registry):
    registry = fake_registry()
    target = f"{registry.address}/m"
    assert cli("sync", "store", target).code == 0
    registry.put_image("elsewhere", "v1")
    registry.put_image("m/foreign", "v1")
    (tmp_path / "store" / "manifests" / "team" / "bot0" / "v1.json").unlink()
    assert cli("sync", "store", target).code == 0
    assert set(registry.tags("m/team/bot0")) == {"v1", "v2"}
    dry = cli("sync", "store", target, "--delete", "--dry-run", "--format", "json").json
    gone = {f"{target}/foreign:v1", f"{target}/team/bot0:v1"}
    assert {row["target"] for row in dry["snapshots"] if row["action"] == "delete"} == gone
    assert set(registry.tags("m/team/bot0")) == {"v1", "v2"}
    done = cli("sync", "store", target, "--delete", "--exclude", "foreign:*", "--format", "json").json
    assert {row["target"] for row in done["snapshots"] if row["action"] == "deleted"} == {f"{target}/team/bot0:v1"}
    assert set(registry.tags("m/team/bot0")) == {"v2"} and registry.tags("m/foreign") and registry.tags("elsewhere")


def test_an_empty_source_never_empties_the_target(cli, tmp_path, store, fake_registry):
    registry = fake_registry()
    (tmp_path / "empty" / "manifests").mkdir(parents=True)
    assert cli("sync", "store", f"{registry.address}/m").code == 0
    done = cli("sync", "empty", f"{registry.address}/m", "--delete")
    assert done.code == 8 and "take everything away" in done.error
    assert registry.tags("m/team/bot0")


def test_deleting_in_a_store_keeps_its_catalog_right(cli, tmp_path, store):
    assert cli("sync", "store", "second").code == 0
    (tmp_path / "store" / "manifests" / "team" / "bot0" / "v1.json").unlink()
    assert cli("sync", "store", "second", "--delete").code == 0
    assert list(json.loads(tree(tmp_path / "second")["catalog.json"])["repositories"]["team/bot0"]["tags"]) == ["v2"]
    assert cli("verify", "second").code == 0


def test_chunked_versions_come_back_equal_and_are_known_again(cli, tmp_path, store, fake_registry):
    registry = fake_registry()
    words = ("sync", "store", f"{registry.address}/m", "--chunked", "--format", "json")
    assert cli(*words).code == 0
    assert cli(*words).json["counts"]["there"] == len(NAMES)
    assert cli("sync", f"{registry.address}/m", "second").code == 0
    assert without_catalog(tree(tmp_path / "second")) == store


@pytest.mark.parametrize("place", ["registry", "layout"])
def test_chunked_versions_follow_one_another_and_share_what_has_not_changed(cli, tmp_path, fake_registry, place):
    """Out of the store and back into one, as many at a time as may be; several names in one layout."""
    chunk, names, versions = 64 << 10, ("one", "two"), 4
    for name in names:
        raw = bytearray(noise(name, 32 * chunk))
        for number in range(1, versions + 1):
            raw[number * chunk : (number + 1) * chunk] = noise(f"{name}{number}", chunk)
            made = Made(SnapshotKey(name, f"v{number}"), b"", {Digest.of(bytes(raw)).hex: bytes(raw)})
            row = {"digest": next(iter(made.blobs)), "size": len(raw), "filename": "memory-ranges"}
            value = {"schemaVersion": 1, "name": name, "tag": f"v{number}", "snapshotId": "9f", "layers": [row]}
            made.raw = gojson.dumps({**value, "totalSize": len(raw), "createdAt": f"2026-04-0{9 - number}T10:00:00Z"})
            put_snapshot(tmp_path / "store", made)
    before = tree(tmp_path / "store")
    target = f"{fake_registry().address}/m" if place == "registry" else "oci:layout"
    for words in (("store", target, "--chunked"), (target, "second")):
        done = cli("sync", *words, "--format", "json")
        assert done.code == 0, done.err
        least = len(names) * (32 + versions - 1) * chunk
        assert least <= done.json["bytesTransferred"] < least + len(names) * versions * 8_000
    assert without_catalog(tree(tmp_path / "second")) == without_catalog(before)


@pytest.mark.parametrize(
    "flag", [("--chunked",), ("--dialect", "cocoonstack"), ("--part-size", "1G"), ("--allow-loss",)]
)
def test_how_artifacts_are_made_is_not_said_where_none_is_made(cli, tmp_path, store, fake_registry, flag):
    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/m").code == 0
    asked = len(registry.recording)
    for words in ((f"{registry.address}/m", "oci:layout"), (f"{registry.address}/m", "second"), ("store", "second")):
        done = cli("sync", *words, *flag)
        assert done.code == 2 and f"{flag[0]} says how an artifact is made" in done.error
    assert len(registry.recording) == asked and not {"layout", "second"} & {path.name for path in tmp_path.iterdir()}
    env = {"EPOCH_OCI_CHUNKED": "1", "EPOCH_OCI_PART_SIZE": "1G"}  # which is about pushing
    assert cli("sync", f"{registry.address}/m", "second", env=env).code == 0


def test_files_in_parts_move_once_and_are_known_again(cli, tmp_path, store, fake_registry):
    registry = fake_registry()
    words = ("sync", "store", f"{registry.address}/m", "--part-size", "128KiB", "--format", "json")
    first = cli(*words)
    assert first.code == 0, first.err
    assert first.json["bytesTransferred"] < 8 * 5_000 + len(BASE) + 16 + len(NAMES) * 4_000
    assert cli(*words).json["counts"]["there"] == len(NAMES)
    env = {"XDG_CACHE_HOME": str(tmp_path / "another"), "XDG_STATE_HOME": str(tmp_path / "another")}
    assert cli(*words, env=env).json["counts"]["there"] == len(NAMES)
    assert cli("sync", f"{registry.address}/m", "second").code == 0
    assert without_catalog(tree(tmp_path / "second")) == store


def test_indexes_and_what_refers_come_along_and_later_signatures_follow(cli, fake_registry):
    source, target = fake_registry(), fake_registry(referrers=False)
    for name in ("a/one", "a/two"):
        for raw in (b"{}", b"layer"):
            source.put_blob(name, raw)
        image = manifest([b"layer"], annotations={"of": name})
        source.put_manifest(name, None, image)
        source.put_manifest(name, "v1", index([descriptor(image, MANIFEST)]), INDEX)
    words = ("sync", f"{source.address}/a", f"{target.address}/b", "--format", "json")
    assert cli(*words).code == 0
    assert source.tags("a/one")["v1"] == target.tags("b/one")["v1"]
    subject = source.manifest("a/one", "v1")
    signature = manifest([b"layer"], subject=descriptor(subject, INDEX), artifactType="application/vnd.signature")
    digest = source.put_manifest("a/one", None, signature)
    done = cli(*words)
    assert done.code == 0 and done.json["counts"]["synced"] == 1
    assert target.manifests("b/one")[digest] == signature
    assert cli(*words).json["counts"]["there"] == 2


def test_a_registry_that_lists_referrers_by_tag_is_mirrored_to_one_that_does_not(cli, fake_registry):
    source, target = fake_registry(referrers=False), fake_registry()
    image = source.put_image("a/one", "v1")
    subject = source.manifest("a/one", "v1")
    signature = manifest([b"layer"], subject=descriptor(subject, MANIFEST), artifactType="application/vnd.signature")
    digest = source.put_manifest("a/one", None, signature)
    rows = [descriptor(signature, MANIFEST, artifactType="application/vnd.signature")]
    source.put_manifest("a/one", image.replace(":", "-"), index(rows), INDEX)
    words = ("sync", f"{source.address}/a", f"{target.address}/b", "--format", "json")
    assert cli(*words).code == 0
    assert target.manifests("b/one")[digest] == signature
    assert set(target.tags("b/one")) == {"v1"}
    again = cli(*words)
    assert again.code == 0 and again.json["bytesTransferred"] == 0 and again.json["counts"]["synced"] == 0


def sign(registry, name: str, digest: str, text: bytes = b"signed") -> str:
    """A signature as cosign keeps it: under a tag made of what it signs."""
    tag = digest.replace(":", "-") + ".sig"
    return registry.put_image(name, tag, [text]) and tag


@pytest.mark.parametrize(
    ("words", "name", "tag"),
    [((), "b/one", "v1"), (("--include", "*:v1"), "b/one", "v1"), (("--rename", "one:v1=two:first"), "b/two", "first")],
)
def test_what_cosign_attached_follows_whatever_is_chosen_and_renamed(cli, fake_registry, words, name, tag):
    source, target = fake_registry(), fake_registry()
    image = source.put_image("a/one", "v1")
    command = ("sync", f"{source.address}/a", f"{target.address}/b", "--format", "json", *words)
    assert cli(*command).code == 0
    signature = sign(source, "a/one", image)
    done = cli(*command)
    assert done.code == 0 and done.json["counts"]["synced"] == 1
    assert target.tags(name) == {tag: image, signature: source.tags("a/one")[signature]}
    assert cli(*command).json["counts"] == {**done.json["counts"], "synced": 0, "there": 1}
    assert cli(*command, "--no-referrers").json["counts"]["there"] == 1


def test_what_cosign_attached_survives_a_layout(cli, fake_registry):
    """Also where the layout was written by who spelled such tags with the name before them."""
    source, target, other = fake_registry(), fake_registry(), fake_registry()
    tag = sign(source, "a/one", source.put_image("a/one", "v1"))
    assert cli("sync", f"{source.address}/a", "oci:way").code == 0
    assert cli("sync", "oci:way", f"{target.address}/b").code == 0
    assert target.tags("b/one") == source.tags("a/one")
    assert cli("copy", f"{source.address}/a/one:v1", "oci:old:one--v1", "--no-referrers").code == 0
    assert cli("copy", f"{source.address}/a/one:{tag}", f"oci:old:one--{tag}").code == 0
    assert cli("sync", "oci:old", f"{other.address}/b").code == 0
    assert other.tags("b/one") == source.tags("a/one")


def test_repositories_are_named_where_there_is_no_catalog(cli, tmp_path, store, fake_registry):
    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/m").code == 0
    registry.behaviour.catalog = False
    source = f"{registry.address}/m"
    refused = cli("sync", source, "second")
    assert refused.code == 5 and "--repository" in refused.error
    (tmp_path / "names").write_text("# those that matter\nteam/bot1\n")
    done = cli(
        "sync", source, "second", "--repository", "team/bot0", "--repositories-from", "names", "--format", "json"
    )
    assert done.code == 0 and {row["source"] for row in done.json["snapshots"]} == {
        f"team/bot{number}:v{tag}" for number in (0, 1) for tag in (1, 2)
    }
    endless = cli("sync", source, "second", "--repositories-from", "/dev/zero")
    assert endless.code == 2 and "longer than" in endless.error
    single = cli("sync", f"{source}/team/bot2", "third", "--format", "json")
    assert single.code == 0 and single.json["counts"]["synced"] == 2
    assert "manifests/bot2/v1.json" in tree(tmp_path / "third")


def test_guard_and_write_check_are_asked_once_a_repository(cli, tmp_path, fake_registry):
    registry = fake_registry(auth=BasicAuth())
    for tag in ("v1", "v2", "v3"):
        put_snapshot(tmp_path / "store", make_snapshot("W3b", tag=tag))
    env = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}
    assert cli("sync", "store", f"{registry.address}/m", env=env).code == 0
    probes = [item for item in registry.recording if item.method == "DELETE" and "/uploads/" in item.path]
    assert len(probes) == 1
    assert registry.recording.count("GET", "tags/list") <= 1


def test_memory_does_not_go_where_everybody_can_read_not_even_as_a_shared_blob(cli, tmp_path, fake_registry):
    registry = fake_registry(auth=BearerAuth(anonymous=("pull",)))
    for tag in ("v1", "v2"):
        put_snapshot(tmp_path / "store", make_snapshot("W3b", tag=tag))
    put_snapshot(tmp_path / "store", small("disks", "v1"))
    env = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}
    done = cli("sync", "store", f"{registry.address}/m", "--format", "json", env=env)
    assert done.code == 10
    exits = {row["source"]: row["error"]["exit"] for row in done.json["snapshots"] if row["error"]}
    assert exits == {"team/bot:v1": 8, "team/bot:v2": 8}
    assert str(Digest.of(noise("memory", 1_500_000))) not in registry.blobs("m/team/bot")
    assert set(registry.tags("m/disks")) == {"v1"}


def test_a_registry_that_is_gone_is_not_waited_for_a_thousand_times(cli, waits, tmp_path, fake_registry):
    registry = fake_registry()
    for number in range(30):
        put_snapshot(tmp_path / "store", small(f"bot{number}", "v1"))
    registry.fault("*", "/uploads/", Respond(503))
    done = cli("sync", "store", f"{registry.address}/m", "--format", "json", "--jobs", "2", "--retry-for", "1s")
    assert done.code == 10
    rows = [row["error"]["message"] for row in done.json["snapshots"]]
    assert len(rows) == 30 and sum("not tried" in text for text in rows) > 15


def test_a_target_that_is_away_is_not_asked_for_each_of_many(tmp_path):
    for number in range(200):
        put_snapshot(tmp_path / "store", small(f"bot{number}", "v1", unique=10, base=b"base"))
    done = run_cli("sync", "store", "127.0.0.1:1/m", cwd=tmp_path)
    assert done.code == 6 and "refused" in done.error
    assert done.err.count("trying again") < 150


def test_a_registry_that_says_slow_down_to_everybody_is_obeyed(cli, waits, store, fake_registry):
    registry = fake_registry()
    registry.fault("POST", "/uploads/", Throttle(1), first=6)
    done = cli("sync", "store", f"{registry.address}/m", "--format", "json")
    assert done.code == 0 and done.json["counts"]["synced"] == len(NAMES)
    assert waits == [1.0] * 6 and "waiting 1.0 s" in done.err


def test_it_is_run_again_for_what_may_pass_and_not_for_what_stays(cli, waits, tmp_path, fake_registry):
    """The guard, a wrong blob and a taken tag end the same way each time; a registry that is away does not."""
    registry = fake_registry(auth=BearerAuth(anonymous=("pull",)))
    put_snapshot(tmp_path / "store", make_snapshot("W3b", tag="v1"))
    env = {"EPOCH_OCI_USERNAME": USER, "EPOCH_OCI_PASSWORD": PASSWORD}
    done = cli("sync", "store", f"{registry.address}/m", env=env)
    assert done.code == 10 and done.error.startswith("epoch-oci: BATCH: 1 of 1 snapshot failed; the same command would")
    assert "POLICY (exit 8)" in done.out and "again" not in done.err
    away = fake_registry()
    away.fault("*", "/uploads/", Respond(503))
    put_snapshot(tmp_path / "store", small("x", "taken"))
    away.put_image("m/x", "taken", [b"precious"])
    done = cli("sync", "store", f"{away.address}/m", "--retry-for", "1s")
    assert done.code == 10 and "2 of 2 snapshots failed; run the same command again for 1 of them; the 1" in done.error


def test_events_say_which_snapshot_they_are_about(cli, store):
    done = cli("sync", "store", "oci:layout", "--progress", "json")
    assert done.code == 0
    events = [json.loads(line) for line in done.err.splitlines()]
    counted = {event["message"]: (event.get("count"), event.get("of")) for event in events if event["event"] == "phase"}
    assert list(counted) == ["listing", "surveying", "looking at what is there", "syncing", "writing the index"]
    assert counted["surveying"] == (len(NAMES), len(NAMES))
    assert not any(event.get("snapshot") for event in events if event["event"] == "phase")
    events = [event for event in events if event["event"] != "phase"]
    assert events[0]["event"] == "plan" and events[0]["snapshots"] == len(NAMES)
    ended = [event for event in events if event["event"] == "snapshot-done"]
    assert {event["snapshot"] for event in ended} == {f"{name}:{tag}" for name, tag in NAMES}
    assert [event["snapshots"] for event in ended] == list(range(1, len(NAMES) + 1))
    assert all(event["snapshot"] for event in events if event["event"].startswith("blob-"))
    assert sum(event["event"] == "plan" for event in events) == sum(event["event"] == "done" for event in events) == 1


def test_what_an_earlier_run_left_is_no_part_of_what_a_sync_has_to_move():
    events: list[Event] = []
    meter = Meter(events.append, 2)
    meter.begin(100)
    for count in (0, 40, 0, 30):
        meter.hear(
            Event(event="blob-start", digest=Digest.of(b"x"), title="disk", bytes=count, total=50, snapshot="a:1")
        )
    assert [event.bytes for event in events if event.event == "plan"] == [100, 60, 100, 70]


def test_a_catalog_is_written_in_batches_and_a_kill_between_loses_no_tag(cli, tmp_path, store):
    """Manifests are the truth: what a killed run left unlisted, the next one lists."""
    assert cli("sync", "store", "second").code == 0
    catalog = json.loads((tmp_path / "second" / "catalog.json").read_text())
    del catalog["repositories"]["team/bot0"]
    (tmp_path / "second" / "catalog.json").write_text(json.dumps(catalog))
    assert cli("sync", "store", "second").code == 0
    assert set(json.loads((tmp_path / "second" / "catalog.json").read_text())["repositories"]) == {n for n, _ in NAMES}


def test_two_at_once_make_one_whole(tmp_path, store, fake_registry):
    registry = fake_registry()
    words = command("sync", "store", f"{registry.address}/m", "--format", "json")
    running = [subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) for _ in range(2)]
    reports = [json.loads(each.communicate(timeout=60)[0]) for each in running]
    assert [each.returncode for each in running] == [0, 0]
    assert all(report["counts"]["failed"] == 0 for report in reports)
    assert run_cli("sync", f"{registry.address}/m", "second", cwd=tmp_path).code == 0
    assert without_catalog(tree(tmp_path / "second")) == store


def test_killed_three_times_it_is_equal_in_the_end(tmp_path, fake_registry):
    for number in range(40):
        put_snapshot(tmp_path / "store", small(f"bot{number}", "v1", unique=60_000))
    registry = fake_registry()
    words = ("sync", "store", f"{registry.address}/m")
    for _ in range(3):
        running = subprocess.Popen(
            command(*words), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = registry.recording.count("PUT", "/manifests/")
        until(lambda: registry.recording.count("PUT", "/manifests/") >= before + 4)  # noqa: B023
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert run_cli(*words, cwd=tmp_path).code == 0
    assert run_cli("sync", f"{registry.address}/m", "second", cwd=tmp_path).code == 0
    assert without_catalog(tree(tmp_path / "second")) == tree(tmp_path / "store")
    # Three kills cost no more than what was under way then.
    assert uploads(registry, BASE) <= 4


def test_two_at_once_make_one_layout_and_a_kill_costs_its_index_entries_at_most(tmp_path):
    """What is published enters `index.json` in batches: of two writers at once neither loses the other's."""
    for number in range(24):
        put_snapshot(tmp_path / "store", small(f"bot{number}", "v1", unique=40_000))
    layout = tmp_path / "layout" / "blobs" / "sha256"

    def begin(*words: str) -> Child:
        return start_cli(
            "sync", "store", "oci:layout", *words, "--limit-rate", "500K", "--format", "json", cwd=tmp_path
        )

    killed = begin()
    until(lambda: layout.is_dir() and sum(not path.name.startswith(".") for path in layout.iterdir()) >= 20)
    killed.kill()
    assert killed.wait(60) == -signal.SIGKILL
    kept = sum(path.stat().st_size for path in layout.iterdir() if not path.name.startswith("."))
    odd, even = begin("--include", "bot*[13579]:v1"), begin("--include", "bot*[02468]:v1")
    reports = [json.loads(each.communicate(timeout=60)[0]) for each in (odd, even)]
    assert [odd.returncode, even.returncode] == [0, 0]
    assert sum(report["counts"]["failed"] for report in reports) == 0
    assert sum(report["bytesTransferred"] for report in reports) <= len(BASE) + 24 * 41_500 - kept + 16
    again = run_cli("sync", "store", "oci:layout", "--format", "json", cwd=tmp_path)
    assert again.json["counts"]["there"] == 24
    assert run_cli("sync", "oci:layout", "second", cwd=tmp_path).code == 0
    assert without_catalog(tree(tmp_path / "second")) == tree(tmp_path / "store")


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("sync", "store", "oci:layout:v1"), 2, "names one artifact"),
        (("sync", "store", "localhost:5000/x:v1"), 2, "names one artifact"),
        (("sync", "store", "second", "--rename", "x"), 2, "no pattern"),
        (("sync", "store", "second", "--rename", "(=x"), 2, "regular expression"),
        (("sync", "store", "second", "--newer-than", "yesterday"), 2, "cannot be yesterday"),
        (("sync", "store", "second", "--repository", "x"), 2, "the source is none"),
        (("sync", "store", "second", "--report", "no/such/place.html"), 5, "no directory"),
        (("sync", "nowhere", "second"), 5, "nowhere"),
        (("sync", "-", "second"), 2, "an archive of one snapshot"),
        (("sync", "store", "-"), 2, "an archive of one snapshot"),
        (("sync", "store", "epoch+http://localhost:1"), 2, "only read from"),
        (("sync", "localhost:1/a", "localhost:1/a/b"), 2, "lies within"),
        (("sync", "localhost:1", "localhost:1/mirror"), 2, "lies within"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, store, words, code, problem):
    done = cli(*words)
    assert done.code == code and problem in done.error
