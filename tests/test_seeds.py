"""--seed: blobs that are at hand are taken from there, and believed no more than any others."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cli_runner import Here, Ran, run_cli
from cocoon_world import BLOB_ID, ID, base_image, fill_snapshot, make_root, record
from object_stores import Bucket
from snapshots import Made, make_snapshot, noise, open_store, put_snapshot, tree
from support import s3

from epoch_oci.disk.draft import clone
from epoch_oci.epoch.keys import blob_key
from epoch_oci.errors import NetworkError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.verifying import BLOCK
from epoch_oci.stores.backends.directory import DirectoryBackend
from epoch_oci.stores.base import BytesContent, FileTarget
from epoch_oci.stores.epoch_store import EpochStore
from epoch_oci.stores.files import FilesDirectory
from epoch_oci.transfer.execute import execute
from epoch_oci.transfer.plan import Plan, Seed, Want, plan_blobs, plan_files
from epoch_oci.transfer.seeds import with_seeds

SEVERAL = noise("seed", 5 * BLOCK + 77)


class Rooms:
    """team/bot:v1 in ./seed and as an artifact in ./layout."""

    def __init__(self, root: Path, cli: Here) -> None:
        self.root, self.cli, self.made = root, cli, make_snapshot("W3b")
        put_snapshot(root / "seed", self.made)
        assert cli("push", "team/bot:v1", "oci:layout", "--store", "seed").code == 0

    def blob(self, place: str, size: int = 1_500_000) -> Path:
        """The file of the blob that is so long."""
        (digits,) = (digits for digits, raw in self.made.blobs.items() if len(raw) == size)
        return self.root / place / "blobs/sha256" / digits

    def empty_layout(self) -> None:
        """Nothing but documents is left to fetch, so what arrives came from a seed."""
        for digits in self.made.blobs:
            (self.root / "layout/blobs/sha256" / digits).unlink()

    def pull(self, *words: object, **options: object) -> Ran:
        return self.cli("pull", "oci:layout", *words, "--format", "json", **options)

    def whole(self, place: str = "second") -> None:
        after = tree(self.root / place)
        after.pop("catalog.json")
        assert after == tree(self.root / "seed")


@pytest.fixture
def rooms(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Rooms(tmp_path, Here(capsys))


def actions(ran: Ran) -> set[str]:
    """What became of the files; the config, a document, is read in any case."""
    assert ran.code == 0, ran.err
    return {blob["action"] for blob in ran.json["blobs"] if blob["title"] is not None}


def moved(ran: Ran) -> list[int]:
    """The sizes of the files that were fetched."""
    return [blob["bytes"] for blob in ran.json["blobs"] if blob["bytes"] and blob["title"] is not None]


@pytest.mark.parametrize("word", ["seed", "file://{root}/seed", "oci:full"])
def test_what_a_seed_has_is_not_fetched(rooms: Rooms, word: str):
    if word == "oci:full":
        rooms.cli("push", "team/bot:v1", "oci:full", "--store", "seed")
    rooms.empty_layout()
    assert rooms.pull("--store", "second").code == 5
    ran = rooms.pull("--store", "second", "--seed", word.format(root=rooms.root))
    assert actions(ran) == {"reused"}
    assert moved(ran) == []
    assert ran.json["bytesReused"] == sum(map(len, rooms.made.blobs.values()))
    assert ran.json["bytesTransferred"] == ran.json["size"] - ran.json["bytesReused"] == len(rooms.made.raw)
    assert "seed" not in ran.err and "no good copy" not in ran.err
    rooms.whole()
    assert {path.stat().st_mode & 0o777 for path in (rooms.root / "second").rglob("*") if path.is_file()} == {0o600}


def test_two_stores_of_one_owner_share_files_and_no_others_do(rooms: Rooms):
    for path in (rooms.root / "seed/blobs").rglob("*"):
        path.chmod(0o600 if path.is_file() and path != rooms.blob("seed", 200_000) else path.stat().st_mode)
    rooms.empty_layout()
    assert actions(rooms.pull("--store", "second", "--seed", "seed")) == {"reused"}
    same = clones(rooms.root)
    assert os.path.samefile(rooms.blob("seed"), rooms.blob("second")) is not same
    assert not os.path.samefile(rooms.blob("seed", 200_000), rooms.blob("second", 200_000))  # others may read it
    assert actions(rooms.pull("-o", "files", "--seed", "seed", "--force")) == {"reused"}
    held = {path.stat().st_ino for path in (rooms.root / "seed").rglob("*")}
    assert not any(path.stat().st_ino in held for path in (rooms.root / "files").iterdir())
    rooms.whole()


def clones(root: Path) -> bool:
    """Whether the disk the tests run on can clone files."""
    (root / "a").write_bytes(b"a" * 4096)
    with (root / "a").open("rb") as file, (root / "b").open("wb") as copy:
        return clone(file.fileno(), copy.fileno())


def test_files_come_from_a_seed_as_they_come_from_a_registry(rooms: Rooms):
    fetched = rooms.pull("-o", "fetched")
    rooms.empty_layout()
    ran = rooms.pull("-o", "files", "--seed", "seed")
    assert actions(fetched) == {"received"} and actions(ran) == {"reused"}
    assert tree(rooms.root / "files") == tree(rooms.root / "fetched")
    for path in (rooms.root / "files").iterdir():
        other = rooms.root / "fetched" / path.name
        assert (path.stat().st_mode, path.stat().st_nlink) == (other.stat().st_mode, 1)
        assert abs(path.stat().st_blocks - other.stat().st_blocks) <= 16
    assert (rooms.root / "files/memory-ranges").stat().st_size == 1 << 23  # unfolded


def seeded(plan: Plan, seed: EpochStore) -> Plan:
    return Plan(tuple(replace(item, seeds=(Seed(seed),)) for item in plan.items))


def test_zeros_of_a_seed_become_holes(tmp_path):
    raw = noise("head", BLOCK) + bytes(20 * BLOCK) + noise("tail", BLOCK)
    target = Descriptor(media_type="a/b", digest=Digest.of(raw), size=len(raw))
    seed = open_store(tmp_path / "seed")
    seed.put(target, BytesContent(raw))
    plan = plan_files(
        FilesDirectory(tmp_path / "files"),
        [(FileTarget(name="disk.raw", blob=target), BytesContent(b""))],
        replace=False,
    )
    plan = Plan(tuple(replace(item, seeds=(Seed(seed),)) for item in plan.items))
    (outcome,) = execute(plan, moved="received")
    assert (outcome.action, outcome.bytes) == ("reused", 0)
    assert (tmp_path / "files/disk.raw").read_bytes() == raw
    assert (tmp_path / "files/disk.raw").stat().st_blocks * 512 < 4 * BLOCK


@pytest.mark.parametrize("mode", [0o600, 0o644], ids=["linked", "copied"])
@pytest.mark.parametrize("where", ["store", "files"])
def test_a_wrong_seed_is_passed_over_with_a_warning(rooms: Rooms, mode: int, where: str):
    wrong = rooms.blob("seed")
    right = wrong.read_bytes()
    wrong.write_bytes(right[:-1] + b"!")
    wrong.chmod(mode)
    ran = rooms.pull(*(("--store", "second") if where == "store" else ("-o", "files")), "--seed", "seed")
    assert actions(ran) == {"received", "reused"}
    assert moved(ran) == [1_500_000]
    assert "no good copy of memory-ranges" in ran.err
    if where == "store":
        assert rooms.blob("second").read_bytes() == right and rooms.cli("verify", "second").code == 0
    assert not list(rooms.root.glob("*/**/.epoch-oci*"))


def test_a_seed_of_another_length_counts_as_none(rooms: Rooms):
    rooms.blob("seed").write_bytes(b"short")
    ran = rooms.pull("--store", "second", "--seed", "seed")
    assert actions(ran) == {"received", "reused"} and moved(ran) == [1_500_000]


def test_a_link_in_a_seed_is_not_followed(rooms: Rooms):
    blob = rooms.blob("seed")
    blob.rename(rooms.root / "elsewhere")
    blob.symlink_to(rooms.root / "elsewhere")
    ran = rooms.pull("--store", "second", "--seed", "seed")
    assert actions(ran) == {"received", "reused"} and "symbolic link" in ran.err


def test_several_seeds_add_up_and_a_dry_run_says_so(rooms: Rooms):
    (rooms.root / "other/blobs/sha256").mkdir(parents=True)
    os.rename(rooms.blob("seed"), rooms.blob("other"))
    env = {"EPOCH_OCI_SEED": "seed\nother"}
    before = tree(rooms.root)
    planned = rooms.pull("--store", "second", "--dry-run", env=env)
    assert actions(planned) == {"skip"} and moved(planned) == []
    assert tree(rooms.root) == before
    assert actions(rooms.pull("--store", "second", "--dry-run", "--seed", "seed")) == {"skip", "fetch"}
    rooms.empty_layout()
    assert actions(rooms.pull("--store", "second", env=env)) == {"reused"}


@pytest.mark.parametrize("word", ["nowhere", "oci:nowhere", "file:///nowhere/at/all", "cocoon:nowhere"])
def test_a_seed_that_is_not_there_is_an_error(rooms: Rooms, word: str):
    ran = rooms.pull("--store", "second", "--seed", word)
    assert ran.code == 5 and "nowhere" in ran.error
    assert not (rooms.root / "second").exists()


def test_an_archive_takes_no_seed(rooms: Rooms):
    assert rooms.pull("-o", "-", "--dry-run", "--seed", "seed").code == 2
    env = {"EPOCH_OCI_SEED": "seed"}
    assert run_cli("pull", "oci:layout", "-o", "-", "--dry-run", env=env, cwd=rooms.root).code == 0


def test_a_seed_that_cannot_be_reached_is_passed_over(rooms: Rooms):
    ran = rooms.pull("--store", "second", "--seed", "epoch+http://127.0.0.1:1")
    assert actions(ran) == {"received"}
    assert ran.err.count("is of no use as a seed") == 1
    rooms.whole()


@pytest.fixture(params=list(s3.shared_servers()), ids=lambda server: server[0])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    return Bucket(request.param[1]())


def upload(bucket: Bucket, made: Made) -> None:
    for digits, raw in made.blobs.items():
        bucket.put("epoch/" + blob_key(Digest("sha256", digits)), raw)


def test_a_bucket_is_a_seed(rooms: Rooms, bucket: Bucket):
    upload(bucket, rooms.made)
    rooms.empty_layout()
    env = bucket.server.environ(bucket.name)
    ran = rooms.pull("--store", "second", "--seed", f"s3://{bucket.name}/epoch", env=env)
    assert actions(ran) == {"reused"} and moved(ran) == []
    rooms.whole()
    assert rooms.pull("--store", "third", "--seed", f"s3://{bucket.name}-not", env=env).code == 5


def blob_store(path: Path) -> EpochStore:
    return EpochStore(DirectoryBackend(path, immutable=True), str(path))


@pytest.mark.parametrize("good", [True, False])
def test_what_an_earlier_run_fetched_is_not_put_at_risk(tmp_path, good):
    target = Descriptor(media_type="a/b", digest=Digest.of(SEVERAL), size=len(SEVERAL))
    store, seed = blob_store(tmp_path / "store"), open_store(tmp_path / "seed")
    held = tmp_path / "seed" / blob_key(target.digest)
    seed.put(target, BytesContent(SEVERAL))
    if not good:
        held.write_bytes(b"?" + SEVERAL[1:])
    with store.assemble(target) as assembly:
        assembly.write(0, SEVERAL[: 4 * BLOCK], 0)
        assembly.settle(0, 4 * BLOCK)
    plan = seeded(plan_blobs(store, [Want(target=target, content=BytesContent(SEVERAL))]), seed)
    warnings = []
    (outcome,) = execute(plan, moved="received", on_event=warnings.append)
    expected = ("reused", 0) if good else ("received", len(SEVERAL) - 4 * BLOCK)
    assert (outcome.action, outcome.bytes) == expected
    assert any(event.event == "warning" for event in warnings) is not good
    (found,) = (tmp_path / "store/blobs/sha256").iterdir()
    assert found.read_bytes() == SEVERAL


def test_force_reads_again_what_is_marked_as_right(rooms: Rooms):
    assert rooms.pull("--store", "second").code == 0
    damaged = rooms.blob("second")
    right = damaged.read_bytes()
    damaged.write_bytes(b"?" + right[1:])
    assert rooms.cli("verify", "second").code == 3
    planned = rooms.pull("--store", "second", "--force", "--dry-run")
    assert actions(planned) == {"skip", "fetch"} and moved(planned) == [1_500_000]
    ran = rooms.pull("--store", "second", "--force")
    assert actions(ran) == {"skipped", "received"} and moved(ran) == [1_500_000]
    assert damaged.read_bytes() == right and rooms.cli("verify", "second").code == 0


def test_force_mends_a_large_damaged_blob(tmp_path):
    """One that is put together in spans: what is there under its name must not pass for another process's work."""
    target = Descriptor(media_type="a/b", digest=Digest.of(SEVERAL), size=len(SEVERAL))
    store = blob_store(tmp_path)
    path = tmp_path / blob_key(target.digest)
    store.put(target, BytesContent(SEVERAL))
    path.write_bytes(b"?" + SEVERAL[1:])
    plan = plan_blobs(
        store, [Want(target=target, content=BytesContent(SEVERAL))], present=partial(store.holds, anew=True)
    )
    (outcome,) = execute(plan, moved="received")
    assert (outcome.action, outcome.bytes) == ("received", len(SEVERAL))
    assert path.read_bytes() == SEVERAL


def test_force_refuses_a_linked_manifest_folder_before_the_first_byte(rooms: Rooms):
    (rooms.root / "elsewhere").mkdir()
    (rooms.root / "second").mkdir()
    (rooms.root / "second/manifests").symlink_to(rooms.root / "elsewhere")
    ran = rooms.pull("--store", "second", "--force")
    assert ran.code == 3 and "symbolic link" in ran.error
    assert [path.name for path in (rooms.root / "second").iterdir()] == ["manifests"]
    assert not list((rooms.root / "elsewhere").iterdir())


def test_a_cocoon_root_is_a_seed_and_shares_no_file(tmp_path, capsys, monkeypatch):
    """The artifact carries a file in parts; the root holds it whole, and a VM may write into what it holds."""
    monkeypatch.chdir(tmp_path)
    cli, root = Here(capsys), make_root(tmp_path / "root")
    fill_snapshot(root)
    base_image(root)
    root.write_index({ID: record(name="bot:v2", image_blob_ids={BLOB_ID: {}})})
    words = ("--store", "cocoon:root", "--part-size", "4K")
    assert cli("push", "bot:v2", "oci:layout", *words).code == 0
    assert actions(cli("pull", "oci:layout", "--store", "fetched", "--format", "json")) == {"received"}
    for path in (tmp_path / "layout/blobs/sha256").iterdir():
        if path.stat().st_size > 100 and not path.read_bytes().startswith(b"{"):
            path.unlink()
    seeded = cli("pull", "oci:layout", "--store", "store", "--seed", "cocoon:root", "--format", "json")
    assert moved(seeded) == [], seeded.err
    fetched, found = tree(tmp_path / "fetched"), tree(tmp_path / "store")
    assert {**found, "catalog.json": b""} == {**fetched, "catalog.json": b""}
    back = make_root(tmp_path / "back")
    ran = cli("pull", "oci:layout", "--store", "cocoon:back", "--seed", "store", "--format", "json")
    assert ran.code == 0 and moved(ran) == [], ran.err
    assert sorted(path.name for path in back.blobs.iterdir()) == [f"{BLOB_ID}.qcow2"]
    files = [path for place in ("root", "back", "store") for path in (tmp_path / place).rglob("*") if path.is_file()]
    assert {path.stat().st_nlink for path in files} == {1}


class Unreachable:
    """A seed that says it has everything, and cannot be reached."""

    where = "the other one"

    def __init__(self) -> None:
        self.asked = 0

    def has(self, target) -> bool:
        return True

    def content(self, target):
        self.asked += 1
        raise NetworkError("gone")


def test_what_a_seed_has_is_not_counted_as_bytes_to_move_and_a_failed_one_is_not_asked_again(tmp_path):
    store, contents = open_store(tmp_path), [noise("a", 3_000), noise("b", 2_000), noise("c", 1_000)]
    wants = [
        Want(target=Descriptor(media_type="a/b", digest=Digest.of(raw), size=len(raw)), content=BytesContent(raw))
        for raw in contents
    ]
    source, events = Unreachable(), []
    plan = with_seeds(plan_blobs(store, wants), [Seed(source)], events.append, jobs=1)
    assert (plan.to_move, plan.size) == (0, 6_000)
    outcomes = execute(plan, moved="received", jobs=1, on_event=events.append)
    assert [outcome.action for outcome in outcomes] == ["received"] * 3
    assert source.asked == 1
    assert [event.message for event in events if event.event == "warning"] == [
        "the other one is of no use as a seed: gone"
    ]
