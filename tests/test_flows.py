"""Push and pull through real stores: a directory, an image layout, and back."""

import json

import pytest
from snapshots import WRITERS, Made, make_snapshot, open_store, put_snapshot, tree

from epoch_oci import dialects
from epoch_oci.cocoon.epoch_manifest import envelope_of
from epoch_oci.dialects.base import EncodeOptions
from epoch_oci.dialects.foreign import identified
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ConflictError, ContentError, NotFoundError, UsageError
from epoch_oci.flows.inspect import inspect_artifact, inspect_snapshot
from epoch_oci.flows.pull import PullOptions, pull_to_files, pull_to_store
from epoch_oci.flows.push import PushOptions, push
from epoch_oci.flows.verify import VerifyOptions, verify_artifacts, verify_snapshots
from epoch_oci.oci import strict_json
from epoch_oci.oci.manifest import ImageManifest
from epoch_oci.stores.files import FilesDirectory
from epoch_oci.stores.oci_layout import OciLayout


@pytest.fixture
def rooms(tmp_path):
    """Source store, layout, and an empty store."""

    class Rooms:
        first, layout, second, files = (tmp_path / name for name in ("first", "layout", "second", "files"))
        source = open_store(first)
        sink = OciLayout(layout)
        target = open_store(second)

        def push(self, made: Made, tag=None, **options):
            put_snapshot(self.first, made)
            return push(self.source, made.key, self.sink, tag, options=PushOptions(**options))

        def pull(self, name: str, **options):
            return pull_to_store(self.sink, name, self.target, options=PullOptions(**options))

    return Rooms()


@pytest.mark.parametrize("kind", WRITERS)
def test_every_writer_comes_back_byte_for_byte(rooms, kind):
    made = make_snapshot(kind)
    pushed = rooms.push(made)
    pulled = rooms.pull("v1")
    assert pulled.document.digest == pushed.document.digest
    before, after = tree(rooms.first), tree(rooms.second)
    catalog = json.loads(after.pop("catalog.json"))
    assert after == before
    assert catalog["repositories"]["team/bot"]["tags"] == {"v1": "manifests/team/bot/v1.json"}


@pytest.mark.parametrize("kind", WRITERS)
def test_views_of_a_document_share_what_was_read_and_none_changes_it(kind):
    epoch = make_snapshot(kind).document
    for dialect in dialects.known():
        artifact = dialect.encode(epoch, EncodeOptions(allow_loss=True))
        snapshot = dialect.decode(ImageManifest.parse(artifact.manifest), artifact.config)
        envelope_of(identified(snapshot, "other", "v2").manifest)
        for document in (epoch, artifact.manifest, artifact.config, snapshot.epoch):
            assert document.json() == json.loads(document.raw)


def test_a_manifest_is_read_once_in_a_run(rooms, monkeypatch):
    """Decision D14: the check of its schema, its view and the dialect share what was read."""
    read: list[bytes] = []
    loads = strict_json.loads

    def counted(raw: bytes, *given, **options):
        read.append(raw)
        return loads(raw, *given, **options)

    monkeypatch.setattr(strict_json, "loads", counted)
    made = make_snapshot("W3b")
    pushed = rooms.push(made)
    assert read.count(made.raw) == 1
    read.clear()
    rooms.pull("v1")
    assert (read.count(made.raw), read.count(pushed.document.raw)) == (1, 1)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_second_run_moves_nothing(rooms, kind):
    made = make_snapshot(kind)
    rooms.push(made)
    rooms.pull("v1")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in rooms.layout.rglob("*") if path.is_file()}
    again = rooms.push(made)
    assert again.transferred == 0 and {blob.action for blob in again.blobs} == {"skipped"}
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in before} == before
    assert rooms.pull("v1").transferred == 0


def test_a_dry_run_says_what_would_move_and_changes_nothing(rooms):
    made = make_snapshot()
    report = rooms.push(made, dry_run=True)
    assert report.dry_run and {blob.action for blob in report.blobs} == {"send"}
    assert not rooms.layout.exists() or tree(rooms.layout) == {}
    real = rooms.push(made)
    assert real.transferred == report.transferred and real.document.digest == report.document.digest
    report = rooms.pull("v1", dry_run=True)
    assert {blob.action for blob in report.blobs} == {"fetch"}
    assert not rooms.second.exists() or tree(rooms.second) == {}
    assert report.transferred == len(made.raw) + sum(map(len, made.blobs.values()))


def test_files_land_under_their_own_names_unfolded(rooms):
    made = make_snapshot("W3b")
    rooms.push(made)
    report = pull_to_files(rooms.sink, "v1", FilesDirectory(rooms.files))
    files = tree(rooms.files)
    config, *blobs = report.blobs
    assert (config.title, config.size) == (None, len(made.raw))
    assert sorted(files) == sorted(blob.title for blob in blobs)
    memory = files["memory-ranges"]
    stored = next(raw for raw in made.blobs.values() if len(raw) == 1_500_000)
    assert len(memory) == 1 << 23
    assert memory[:655_360] == stored[:655_360]
    assert memory[1_048_576 : 1_048_576 + len(stored) - 655_360] == stored[655_360:]
    assert not any(memory[655_360:1_048_576]) and not any(memory[1_048_576 + len(stored) - 655_360 :])
    assert {(rooms.files / name).stat().st_mode & 0o777 for name in files} == {0o600}


def test_only_chooses_files(rooms):
    rooms.push(make_snapshot())
    sink = FilesDirectory(rooms.files)
    pull_to_files(rooms.sink, "v1", sink, options=PullOptions(only=("*.json",)))
    assert sorted(tree(rooms.files)) == ["config.json", "state.json"]
    with pytest.raises(UsageError, match="matches no file"):
        pull_to_files(rooms.sink, "v1", sink, options=PullOptions(only=("*.txt",)))


def test_a_tag_that_holds_something_else_is_a_conflict_without_force(rooms):
    rooms.push(make_snapshot("W3b"))
    other = make_snapshot("W1")
    before = tree(rooms.layout)
    with pytest.raises(ConflictError):
        rooms.push(other)
    assert tree(rooms.layout) == before
    forced = rooms.push(other, force=True)
    assert rooms.sink.resolve("v1").digest == forced.document.digest


def test_a_pull_does_not_replace_another_snapshot_without_force(rooms):
    rooms.push(make_snapshot("W3b"))
    other = make_snapshot("W1")
    put_snapshot(rooms.second, other)
    with pytest.raises(ConflictError):
        rooms.pull("v1")
    assert rooms.target.resolve("team/bot:v1").raw == other.raw
    rooms.pull("v1", key=SnapshotKey("elsewhere", "x"))
    assert rooms.target.resolve("elsewhere:x").raw == make_snapshot("W3b").raw
    rooms.pull("v1", force=True)
    assert rooms.target.resolve("team/bot:v1").raw == make_snapshot("W3b").raw


def test_an_altered_blob_never_gets_a_tag(rooms):
    made = make_snapshot()
    put_snapshot(rooms.first, made)
    victim = rooms.first / "blobs/sha256" / next(iter(made.blobs))
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.write_bytes(raw)
    with pytest.raises(ContentError) as caught:
        push(rooms.source, made.key, rooms.sink, None)
    assert caught.value.code == "DIGEST"
    with pytest.raises(NotFoundError):
        rooms.sink.resolve("v1")
    assert not (rooms.layout / "blobs/sha256" / victim.name).exists()


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_missing_blob_is_said_before_anything_moves(rooms, damage):
    made = make_snapshot()
    put_snapshot(rooms.first, made)
    victim = rooms.first / "blobs/sha256" / next(iter(made.blobs))
    victim.unlink() if damage == "missing" else victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(NotFoundError if damage == "missing" else ContentError, match=r"cidata\.img"):
        push(rooms.source, made.key, rooms.sink, None)
    assert not (rooms.layout / "blobs").exists() or not any((rooms.layout / "blobs/sha256").iterdir())


@pytest.mark.parametrize("tag", ["sha256:" + "0" * 64, "Ünfit", "-dash", "a" * 129])
def test_a_tag_that_oci_does_not_allow_needs_another(rooms, tag):
    made = make_snapshot(tag=tag)
    with pytest.raises(UsageError, match="name a target tag"):
        rooms.push(made)
    assert rooms.push(made, "fine").reference == f"oci:{rooms.layout}:fine"
    rooms.pull("fine", key=made.key)
    assert rooms.target.resolve(str(made.key)).raw == made.raw


def test_a_retagged_snapshot_travels_under_its_key(rooms):
    """Writer W4 (epoch-formats 1.5) and trap 3: the key says where it lives, the document is not touched."""
    made = make_snapshot("W1", tag="old")
    made.key = SnapshotKey("team/bot", "new")
    report = rooms.push(made)
    assert (report.tag, report.reference) == ("new", f"oci:{rooms.layout}:new")
    rooms.pull("new")
    assert rooms.target.resolve("team/bot:new").raw == made.raw


def test_annotations_change_the_artifact_and_not_the_snapshot(rooms):
    made = make_snapshot()
    plain = rooms.push(made)
    noted = rooms.push(made, "noted", annotations={"org.example.why": "because"})
    assert plain.document.digest != noted.document.digest
    assert json.loads(noted.document.raw)["annotations"]["org.example.why"] == "because"
    assert rooms.pull("noted").tag == "noted"
    assert rooms.target.resolve("team/bot:noted").raw == made.raw


def test_verify_finds_what_is_wrong(rooms):
    made = make_snapshot()
    rooms.push(made)
    options = VerifyOptions(round_trip=True)
    good = verify_snapshots(rooms.source, [made.key], options=options)
    assert good.ok and good.blobs == len(made.blobs) and good.bytes == sum(map(len, made.blobs.values()))
    assert verify_artifacts(rooms.sink, ["v1"], options=options).ok
    victim = next(iter(made.blobs))
    for place in (rooms.first, rooms.layout):
        path = place / "blobs/sha256" / victim
        path.write_bytes(bytes(len(made.blobs[victim])))
    bad = verify_snapshots(rooms.source, [made.key], options=options)
    assert [item.code for item in bad.findings] == ["DIGEST"] and "cidata.img" in bad.findings[0].object
    bad = verify_artifacts(rooms.sink, ["v1"], options=options)
    assert [item.code for item in bad.findings] == ["DIGEST"]
    fast = VerifyOptions(fast=True)
    assert verify_snapshots(rooms.source, [made.key], options=fast).ok
    (rooms.first / "blobs/sha256" / victim).unlink()
    gone = verify_snapshots(rooms.source, [made.key], options=fast)
    assert [item.code for item in gone.findings] == ["NOT_FOUND"]


def test_inspect_says_what_is_missing(rooms):
    made = make_snapshot("W2b")
    rooms.push(made)
    seen = inspect_snapshot(rooms.source, str(made.key))
    assert (seen.manifest.writer, seen.kind, seen.dialect) == ("W2b", "snapshot", "epoch")
    assert any("image blob" in line for line in seen.missing)
    assert any("cocoon.json" in line for line in seen.warnings)
    remote = inspect_artifact(rooms.sink, "v1")
    assert (remote.dialect, remote.derived) == ("cocoon", False)
    assert [file.name for file in remote.files] == [file.name for file in seen.files]
    (rooms.first / "blobs/sha256" / next(iter(made.blobs))).unlink()
    assert any("cidata.img" in line for line in inspect_snapshot(rooms.source, str(made.key)).missing)
