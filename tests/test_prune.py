"""`prune`: tags by a policy, and content that nothing refers to, in stores, layouts, buckets and registries."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from cli_runner import Here
from hypothesis import given
from hypothesis import strategies as st
from object_stores import Bucket
from snapshots import noise, put_snapshot, tree
from support import s3
from support.content import INDEX, MANIFEST, descriptor, index, manifest
from support.faults import Fault
from test_sync import BASE, small

from epoch_oci.bulk.prune import Candidate, Policy
from epoch_oci.oci.digest import Digest

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


def made_on(day: int) -> str:
    return f"2026-05-{day:02}T00:00:00Z"


def aged(path, hours: float = 48) -> None:
    """As if all of it had been written then."""
    for file in path.rglob("*"):
        if file.is_file():
            os.utime(file, (time.time() - hours * 3600,) * 2)


@pytest.fixture
def store(tmp_path):
    for name in ("bot", "web"):
        for day in (1, 2, 3):
            put_snapshot(tmp_path / "store", small(name, f"v{day}", created=made_on(day)))
    aged(tmp_path / "store")
    return tmp_path / "store"


def blobs(path) -> set[str]:
    return {item.name for item in (path / "blobs" / "sha256").iterdir() if not item.name.startswith(".")}


def removed(result, action: str = "removed") -> list[str]:
    return [row["reference"] for row in result["removed"] if row["action"] == action]


def own(name: str, tag: str) -> str:
    return Digest.of(noise(f"{name}/{tag}", 5_000)).hex


def test_the_newest_are_kept_and_what_only_the_others_had_goes(cli, store):
    dry = cli("prune", "store", "--keep-last", "2", "--dry-run", "--format", "json")
    assert dry.code == 0 and removed(dry.json, "remove") == ["bot:v1", "web:v1"]
    assert dry.json["bytesFreed"] == 10_000 and dry.json["bytesShared"] == len(BASE) + 16
    before = tree(store)
    assert cli("prune", "store", "--keep-last", "2", "--dry-run").code == 0 and tree(store) == before
    done = cli("prune", "store", "--keep-last", "2", "--yes", "--format", "json")
    assert done.code == 0 and done.json["bytesFreed"] == 10_000
    assert blobs(store).isdisjoint({own("bot", "v1"), own("web", "v1")}) and len(blobs(store)) == 6
    assert cli("verify", "store").code == 0
    assert cli("prune", "store", "--keep-last", "2", "--yes", "--format", "json").json["bytesFreed"] == 0


def test_a_script_has_to_say_yes(cli, store):
    before = tree(store)
    done = cli("prune", "store", "--keep-last", "1")
    assert done.code == 2 and "--yes" in done.error and tree(store) == before
    planned = [
        line for line in cli("prune", "store", "--keep-last", "1", "--dry-run").out.splitlines() if "would" in line
    ]
    assert f"this {planned[0]} and {len(planned) - 1} more; say" in done.error


def test_without_a_policy_no_tag_goes(cli, store):
    stray = noise("stray", 9_000)
    (store / "blobs" / "sha256" / Digest.of(stray).hex).write_bytes(stray)
    young = cli("prune", "store", "--yes", "--format", "json").json
    assert young["removed"] == [] and young["blobs"] == {} and young["young"] == 1
    aged(store)
    done = cli("prune", "store", "--yes", "--format", "json").json
    assert done["removed"] == [] and done["bytesFreed"] == 9_000
    assert Digest.of(stray).hex not in blobs(store) and len(blobs(store)) == 8


def test_leftovers_of_broken_runs_go_and_those_of_running_ones_stay(cli, store):
    import fcntl

    folder = store / "blobs" / "sha256"
    dead, alive, fresh = (folder / f".epoch-oci-{char * 16}.tmp" for char in "abc")
    part = folder / f".epoch-oci-{'d' * 32}.part"
    for path in (dead, alive, fresh, part):
        path.write_bytes(b"x" * 5_000)
    aged(store)
    fresh.write_bytes(b"y")
    with alive.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cli("prune", "store", "--yes").code == 0
    assert not dead.exists() and not part.exists() and alive.exists()


def test_a_manifest_that_cannot_be_read_keeps_everything(cli, store):
    (store / "manifests" / "bot" / "v9.json").write_text("{")
    before = tree(store)
    done = cli("prune", "store", "--keep-last", "1", "--yes")
    assert done.code == 3 and tree(store) == before


def test_copies_under_digests_and_documents_of_other_formats_keep_what_they_name(cli, store):
    stray = noise("stray", 9_000)
    (store / "blobs" / "sha256" / Digest.of(stray).hex).write_bytes(stray)
    folder = store / "manifests" / "bot" / "_digests"
    folder.mkdir()
    (folder / f"sha256-{'0' * 64}.json").write_text(json.dumps({"layers": [{"digest": str(Digest.of(stray))}]}))
    aged(store)
    assert cli("prune", "store", "--yes", "--format", "json").json["blobs"] == {}
    assert Digest.of(stray).hex in blobs(store)


def test_patterns_and_ages_spare(cli, store):
    done = cli("prune", "store", "--keep-last", "1", "--keep", "bot:v1", "--keep", "v2", "--yes", "--format", "json")
    assert removed(done.json) == ["web:v1"]
    done = cli("prune", "store", "--keep-within", "99999d", "--yes", "--format", "json")
    assert done.json["removed"] == []


def test_a_layout_loses_tags_their_referrers_and_what_nobody_reaches(cli, tmp_path, store, fake_registry):
    registry = fake_registry()
    for raw in (b"{}", b"layer", b"sbom"):
        registry.put_blob("a", raw)
    old = manifest([b"layer"], annotations={"org.opencontainers.image.created": made_on(1)})
    registry.put_manifest("a", "v1", old)
    sbom = manifest([b"sbom"], subject=descriptor(old, MANIFEST), artifactType="application/vnd.sbom")
    registry.put_manifest("a", None, sbom)
    new = manifest([b"layer"], annotations={"org.opencontainers.image.created": made_on(2)})
    registry.put_manifest("a", None, new)
    registry.put_manifest(
        "a",
        "v2",
        index([descriptor(new, MANIFEST)], annotations={"org.opencontainers.image.created": made_on(2)}),
        INDEX,
    )
    for tag in ("v1", "v2"):
        assert cli("copy", f"{registry.address}/a:{tag}", "oci:layout").code == 0
    aged(tmp_path / "layout")
    assert cli("prune", "oci:layout", "--yes", "--format", "json").json["blobs"] == {}
    done = cli("prune", "oci:layout", "--keep-last", "1", "--yes", "--format", "json")
    assert done.code == 0, done.err
    left = blobs(tmp_path / "layout")
    assert Digest.of(b"sbom").hex not in left and Digest.of(old).hex not in left and Digest.of(sbom).hex not in left
    assert {Digest.of(new).hex, Digest.of(b"layer").hex, Digest.of(b"{}").hex} <= left
    assert cli("ls", "oci:layout").out == "v2\n"
    assert cli("copy", "oci:layout:v2", f"{registry.address}/back").code == 0


def test_a_repository_loses_tags_and_says_who_frees_the_bytes(cli, store, fake_registry):
    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/m").code == 0
    target = f"{registry.address}/m/bot"
    dry = cli("prune", target, "--keep-last", "1", "--dry-run", "--format", "json").json
    assert removed(dry, "remove") == [f"{target}:v1", f"{target}:v2"] and dry["freedByRegistry"] is True
    assert dry["bytesShared"] == len(BASE) + 16 and 10_000 < dry["bytesFreed"] < 13_000
    done = cli("prune", target, "--keep-last", "1", "--yes")
    assert done.code == 0 and "its own clean-up frees" in done.out
    assert set(registry.tags("m/bot")) == {"v3"} and set(registry.tags("m/web")) == {"v1", "v2", "v3"}


def test_lists_of_referrers_go_with_the_last_tag(cli, fake_registry):
    registry = fake_registry(referrers=False)
    for day in (1, 2):
        body = manifest([], annotations={"org.opencontainers.image.created": made_on(day)})
        registry.put_blob("a", b"{}")
        digest = registry.put_manifest("a", f"v{day}", body)
        registry.put_manifest("a", digest.replace(":", "-"), index([]) + b" " * day, INDEX)
    assert cli("prune", f"{registry.address}/a", "--keep-last", "1", "--yes").code == 0
    assert set(registry.tags("a")) == {"v2", registry.tags("a")["v2"].replace(":", "-")}


def test_a_registry_that_does_not_delete_fails_tag_by_tag(cli, store, fake_registry):
    registry = fake_registry(deletes=False)
    assert cli("sync", "store", f"{registry.address}/m").code == 0
    done = cli("prune", f"{registry.address}/m/bot", "--keep-last", "1", "--yes", "--format", "json")
    assert done.code == 10 and len(removed(done.json, "failed")) == len(done.json["removed"]) == 2
    assert done.json["bytesFreed"] == done.json["bytesShared"] == 0 and done.json["kept"] == 3


def test_what_cosign_has_attached_goes_with_the_last_tag(cli, store, fake_registry):
    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/m").code == 0
    for day in (1, 3):
        subject = registry.tags("m/bot")[f"v{day}"].replace(":", "-")
        for kind in ("sig", "att"):
            registry.put_image("m/bot", f"{subject}.{kind}", [f"{kind} {day}".encode()])
    assert cli("prune", f"{registry.address}/m/bot", "--keep-last", "1", "--yes").code == 0
    assert set(registry.tags("m/bot")) == {"v3", f"{subject}.sig", f"{subject}.att"}


def test_a_tag_that_somebody_else_removes_meanwhile_is_none(cli, store, fake_registry):
    """Between the list and the look, and between the look and the removal."""

    class Vanish(Fault):
        def before(self, exchange) -> None:
            exchange.fire()
            tag = exchange.request.target.rpartition("/")[2]
            with exchange.registry.state.guard:
                del exchange.registry.repository("m/bot").tags[tag]

    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/m").code == 0
    registry.fault("GET", "/manifests/v2", Vanish(), first=1)
    registry.fault("DELETE", "/manifests/v1", Vanish(), first=1)
    done = cli("prune", f"{registry.address}/m/bot", "--keep-last", "1", "--yes", "--format", "json")
    assert done.code == 0 and registry.tags("m/bot").keys() == {"v3"}
    assert removed(done.json) == [f"{registry.address}/m/bot:v1"] and done.json["kept"] == 1


def test_what_a_kept_index_names_is_shared_and_not_freed(cli, store, fake_registry):
    registry = fake_registry()
    assert cli("sync", "store", f"{registry.address}/m").code == 0
    part = registry.manifest("m/bot", "v1")
    made = {"org.opencontainers.image.created": made_on(9)}
    registry.put_manifest("m/bot", "multi", index([descriptor(part, MANIFEST)], annotations=made), INDEX)
    dry = cli("prune", f"{registry.address}/m/bot", "--keep-last", "2", "--dry-run", "--format", "json").json
    # Of v1 and v2, which go, only v2 has something that nothing else names.
    assert 5_000 < dry["bytesFreed"] < 6_500 and dry["bytesShared"] > len(BASE) + 5_000


@pytest.mark.parametrize("place", ["layout", "registry"])
def test_a_pack_that_a_kept_version_needs_stays(cli, tmp_path, fake_registry, place):
    """Chunked versions share packs, which belong to no version more than to another."""
    for day in (1, 2, 3):
        made = small("bot", f"v{day}", unique=300_000, created=made_on(day))
        put_snapshot(tmp_path / "store", made)
    registry = fake_registry()
    target = f"{registry.address}/m/bot"
    for day in (1, 2, 3):
        base = ("--base", f"{target}:v{day - 1}") if day > 1 else ()
        assert cli("push", f"bot:v{day}", f"{target}:v{day}", "--store", "store", "--chunked", *base).code == 0
    if place == "layout":
        for day in (1, 2, 3):
            assert cli("copy", f"{target}:v{day}", "oci:layout").code == 0
        aged(tmp_path / "layout")
        target = "oci:layout"
    done = cli("prune", target, "--keep-last", "1", "--yes", "--format", "json")
    assert done.code == 0 and len(removed(done.json)) == 2 and done.json["bytesShared"] > len(BASE) * 0.9
    assert cli("verify", f"{target}:v3", "--rebuild").code == 0
    assert cli("pull", f"{target}:v3", "--store", "second", "--as", "bot:v3").code == 0
    back = tree(tmp_path / "second")
    assert all(back[name] == raw for name, raw in tree(tmp_path / "store").items() if name in back)


def test_a_bucket_that_somebody_writes_to_is_left_alone(cli, store):
    bucket = Bucket(dict(s3.shared_servers())["moto"]())
    env = bucket.server.environ(bucket.name)
    assert cli("sync", "store", f"s3://{bucket.name}/e", env=env).code == 0
    stray = noise("stray", 9_000)
    bucket.put(f"e/blobs/sha256/{Digest.of(stray).hex}", stray)
    words = ("prune", f"s3://{bucket.name}/e", "--yes", "--format", "json")
    done = cli(*words, "--grace", "1h", env=env).json
    assert "moment ago" in done["keptBack"]
    assert cli("prune", f"s3://{bucket.name}/e", "--grace", "1h", env=env).code == 0  # there is nothing to agree to
    assert done["bytesFreed"] == 0 and bucket.get(f"e/blobs/sha256/{Digest.of(stray).hex}") == stray
    done = cli(*words, "--grace", "0", env=env).json
    assert list(done["blobs"]) == [f"blobs/sha256/{Digest.of(stray).hex}"]
    assert cli("verify", f"s3://{bucket.name}/e", env=env).code == 0


def test_many_leave_the_catalog_of_a_bucket_in_one_writing(cli, store):
    bucket = Bucket(dict(s3.shared_servers())["moto"]())
    env = bucket.server.environ(bucket.name)
    place = f"s3://{bucket.name}/e"
    assert cli("sync", "store", place, env=env).code == 0
    before = len(bucket.server.requests)
    assert cli("prune", place, "--keep-last", "1", "--yes", "--grace", "0", env=env).code == 0
    written = [item for item in bucket.server.requests[before:] if item.method == "PUT" and "catalog.json" in item.path]
    assert len(written) == 1
    listed = json.loads(bucket.get("e/catalog.json"))["repositories"]
    assert {name: list(found["tags"]) for name, found in listed.items()} == {"bot": ["v3"], "web": ["v3"]}
    assert cli("verify", place, env=env).code == 0


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("--keep", "v1"), 2, "--keep says"),
        (("--keep-within", "long"), 2, "--keep-within cannot be long"),
        (("--keep-last", "0"), 2, "--keep-last cannot be"),
        (("--grace", "x"), 2, "--grace cannot be x"),
    ],
)
def test_what_makes_no_sense_is_refused(cli, store, words, code, problem):
    done = cli("prune", "store", *words)
    assert done.code == code and problem in done.error


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.sampled_from(["a", "b"]),
        st.integers(0, 30).map(lambda number: f"v{number}"),
        st.one_of(st.just(""), st.integers(1, 28).map(made_on)),
    ),
    unique_by=lambda item: (item.name, item.tag),
)


@given(CANDIDATES, st.integers(1, 5), st.integers(0, 40))
def test_a_policy_keeps_the_newest_the_young_the_undated_and_what_matches(items, last, days):
    policy = Policy(last=last, within=timedelta(days=days), keep=("v7", "b:v8"))
    gone = policy.removed(items, NOW)
    for item in gone:
        assert item.created and item.tag != "v7" and item.label != "b:v8"
        assert NOW - datetime.fromisoformat(item.created) > timedelta(days=days)
        newer = [other for other in items if other.name == item.name and other.created >= item.created]
        assert len(newer) > last
    assert Policy().removed(items, NOW) == []
