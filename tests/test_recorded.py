"""Documents, stores and archives that real Epoch, vk-cocoon, cocoon-common and Cocoon wrote, taken as a user would."""

import gzip
import hashlib
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Here, start_cli
from cocoon_world import bodies, entries
from recorded import (
    DATA,
    EXPORTS,
    LAYOUTS,
    LEGACY,
    MODERN,
    Recorded,
    config_of,
    documents,
    export,
    files,
    make_bucket,
    make_layout,
    make_root,
    snapshots,
)

from epoch_oci import dialects
from epoch_oci.artifacts.decode import told
from epoch_oci.dialects.base import EncodedSnapshot, EncodeOptions, Snapshot
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Manifest
from epoch_oci.flows.validate import validate
from epoch_oci.oci import media_types
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document
from epoch_oci.oci.manifest import ImageManifest

UNMAPPED = {"epoch-0.1.7/manifests/bot/v1.json", "epoch-0.1.7/manifests/direct/v1.json"}
"""Packed files whose map nobody kept, and whose length proves it (trap 8)."""
SOUND = {
    "epoch-0.2.1/bucket": ["bot:v1", "bot:based", "bot:latest", "fc:v1", "Edge_Case.1:v1", "team/direct:v7:v1", "win"],
    "legacy-bucket": ["bot:w3b", "direct:w3b", "edge:w3b"],
}
"""Snapshots of which every byte was kept."""
GUESTS = {"Edge_Case.1": "edge", "team/direct:v7": "direct"}


@pytest.fixture
def cli(capsys) -> Here:
    return Here(capsys)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Every bucket and layout, and the root; only to be read."""
    path = tmp_path_factory.mktemp("recorded")
    for name in (*LEGACY, *MODERN):
        make_bucket(name, path / name)
    for name in LAYOUTS:
        (path / f"layouts/{Path(name).name}").mkdir(parents=True)
        make_layout(name, path / f"layouts/{Path(name).name}/layout")
    make_root(path / "root")
    return path


def layout(world: Path, name: str) -> str:
    return f"oci:{world}/layouts/{Path(name).name}/layout:{LAYOUTS[name]}"


def keys_of(name: str) -> list[str]:
    """What a bucket holds, as its keys are written."""
    paths = [path.relative_to(DATA / name / "manifests") for path in (DATA / name).rglob("manifests/**/*.json")]
    return sorted(str(SnapshotKey(str(path.parent).replace("%3A", ":"), path.stem)) for path in paths)


def snapshot_of(manifest: Recorded) -> Snapshot:
    """What a manifest tells. The digests of compressed files are those of the same guest, uncompressed."""
    if manifest.kind == "epoch-manifest.v1":
        epoch = Document(EPOCH_MANIFEST, manifest.raw)
        encoded = dialects.named("cocoon").encode(epoch, EncodeOptions())
        return dialects.named("cocoon").decode(encoded.image, encoded.config)
    image, config = ImageManifest.parse(Document(media_types.MANIFEST, manifest.raw)), config_of(manifest)
    found = told(image, Document(image.config.media_type, config) if config is not None else None)
    return found.finish(uncompressed(manifest)) if isinstance(found, EncodedSnapshot) else found


def uncompressed(manifest: Recorded) -> dict[str, Digest]:
    guest = Path(manifest.name).name.partition(".")[0]
    value = json.loads((DATA / f"cocoon-common-0.3.0/{guest}.v1.manifest.json").read_bytes())
    return {layer["annotations"][media_types.TITLE]: Digest.parse(layer["digest"]) for layer in value["layers"]}


def written(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
    }


def test_every_document_is_valid_and_known_by_its_kind(subtests):
    for document in documents():
        with subtests.test(document=document):
            report = validate(document.raw, document.name)
            assert (report.kind, report.findings) == (document.kind, ())


@pytest.mark.parametrize("name", [name for name in EXPORTS if name.endswith(".tar")])
def test_every_envelope_is_valid(name):
    report = validate(bodies(export(name))["snapshot.json"], name)
    assert (report.kind, report.findings) == ("cocoon-export-envelope.v1", ())


def test_there_is_something_of_every_kind():
    assert {document.kind for document in documents()} >= {
        "epoch-manifest.v1",
        "epoch-catalog.v1",
        "cocoonstack-snapshot-manifest.v1",
        "cocoonstack-snapshot-manifest.v2",
        "cocoonstack-os-image-manifest.v1",
        "cocoonstack-snapshot-config.v1",
        "cocoonstack-snapshot-config.v2",
        "cocoon-snapshots.v1",
        "cocoon-images.v1",
        "oci-image-index.v1",
    }


def test_every_manifest_goes_into_our_form_and_back_byte_for_byte(subtests):
    for document in snapshots():
        with subtests.test(document=document):
            if document.name in UNMAPPED:
                continue
            snapshot = snapshot_of(document)
            if document.kind == "epoch-manifest.v1":
                assert snapshot.epoch.raw == document.raw
            artifact = dialects.named("cocoon").encode(snapshot.epoch, EncodeOptions())
            back = dialects.named("cocoon").decode(artifact.image, artifact.config)
            assert back.epoch.raw == snapshot.epoch.raw and not artifact.lost
            assert [file.name for file in back.files] == [file.name for file in snapshot.files]


def test_every_manifest_goes_into_the_form_of_cocoons_tools_with_every_file_it_has_room_for(subtests):
    for document in snapshots():
        with subtests.test(document=document):
            if document.name in UNMAPPED:
                continue
            snapshot = snapshot_of(document)
            artifact = dialects.named("cocoonstack").encode(snapshot.epoch, EncodeOptions(allow_loss=True))
            back = dialects.named("cocoonstack").decode(artifact.image, artifact.config)
            found = {file.name: (file.digest, file.size) for file in back.files}
            bases = snapshot.manifest.base_images
            assert found == {
                file.name: (file.digest, file.size)
                for file in snapshot.files
                if file.name not in {layer.filename for layer in bases}
            }
            assert len(artifact.lost) == len(bases)


@pytest.mark.parametrize("name", [*LEGACY, *MODERN])
def test_a_bucket_is_listed_whichever_epoch_wrote_it(name, world, cli):
    listed = cli("ls", world / name, "--format", "json").json
    assert sorted(f"{row['name'].replace(':', '%3A')}:{row['tag']}" for row in listed["snapshots"]) == keys_of(name)


def test_every_snapshot_of_every_bucket_is_shown_with_its_files(subtests, world, cli):
    for name in (*LEGACY, *MODERN):
        for key in keys_of(name):
            with subtests.test(name=name, key=key):
                path = f"{name}/manifests/{key.rpartition(':')[0]}/{key.rpartition(':')[2]}.json"
                value = json.loads((DATA / path).read_bytes())
                ran = cli("inspect", key, "--store", world / name, "--format", "json")
                if path in UNMAPPED:
                    assert ran.code == 3 and "Epoch 0.1.6 and 0.1.7" in ran.error
                    continue
                assert (ran.code, ran.json["digest"]) == (0, str(Digest.of((DATA / path).read_bytes())))
                rows = {
                    (row["digest"].removeprefix("sha256:"), row["size"])
                    for row in value["layers"] + (value.get("baseImages") or [])
                }
                shown = {(row["digest"].removeprefix("sha256:"), row["size"]) for row in ran.json["files"]}
                sums = {row for row in rows if row[1] == 77}  # SHA256SUMS of a cloud image, which is no file of it
                assert shown == rows - sums


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("epoch-0.2.1/bucket", set()),
        ("epoch-0.1.7", {"SIZE"}),
        ("legacy-bucket", {"NOT_FOUND", "MISMATCH"}),
        ("epoch-0.1.5", {"NOT_FOUND"}),
        ("untagged/88a1ade", {"NOT_FOUND"}),
    ],
)
def test_a_bucket_is_verified_whichever_epoch_wrote_it(name, wrong, world, cli):
    """The large blobs of the old ones were not kept, and a catalog lists what is gone."""
    ran = cli("verify", world / name, "--format", "json")
    assert ran.code == (3 if wrong else 0)
    assert {item["code"] for item in ran.json["findings"]} == wrong
    assert ran.json["checked"]["documents"] == len(keys_of(name))
    assert any("_digests/" in note for note in ran.json["notes"]) == (name in ("untagged/88a1ade", *MODERN))


def test_both_generations_in_one_bucket(world, tmp_path, cli):
    mixed = tmp_path / "mixed"
    shutil.copytree(world / "legacy-bucket", mixed)
    shutil.copytree(world / "epoch-0.2.1/bucket", mixed, dirs_exist_ok=True)
    rows = cli("ls", mixed, "--format", "json").json["snapshots"]
    assert {row["tag"] for row in rows if row["name"] == "bot"} >= {"w1", "w3b", "v1", "again"}
    assert {cli("verify", key, "--store", mixed).code for key in ("bot:w3b", "bot:v1", "win", "Edge_Case.1:v1")} == {0}
    assert cli("verify", mixed).code == 3


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in SOUND.items() for key in keys])
def test_what_a_bucket_has_goes_out_and_is_what_the_hypervisor_left(name, key, world, tmp_path, cli):
    """Under its exact words, whatever the name; as files, packed ones unfolded."""
    pushed = cli("push", key, f"oci:{tmp_path}/layout:t", "--store", world / name, "--format", "json")
    assert pushed.code == 0, pushed.err
    assert cli("verify", f"oci:{tmp_path}/layout:t").code == 0
    assert cli("pull", f"oci:{tmp_path}/layout:t", "-o", tmp_path / "files").code == 0
    guest = key.rpartition(":")[0] or key
    found = written(tmp_path / "files")
    if guest == "win":
        image = b"".join((tmp_path / "files" / part).read_bytes() for part in sorted(found))
        assert hashlib.sha256(image).hexdigest() == next(iter(base_images(world)))
        return
    bases = {part: found.pop(part) for part in list(found) if part.endswith(".qcow2") and part != "overlay.qcow2"}
    assert found == files()[GUESTS.get(guest, guest)]
    assert {base["sha256"] for base in bases.values()} <= base_images(world)


def base_images(world: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in (world / "root/cloudimg/blobs").iterdir()}


@pytest.mark.parametrize("dialect", ["cocoon", "cocoonstack"])
def test_an_artifact_of_a_bucket_goes_out_as_it_is_in_its_own_dialect_and_else_as_what_it_says(
    dialect, world, tmp_path, cli
):
    source = world / "epoch-0.2.1/bucket"
    target = f"oci:{tmp_path}/layout:v1"
    pushed = cli("push", "bot:v1", target, "--dialect", dialect, "--store", source, "--format", "json").json
    there = str(Digest.of((DATA / "epoch-0.2.1/bucket/manifests/bot/v1.json").read_bytes()))
    assert (pushed["digest"] == there) == (dialect == "cocoonstack")
    again = cli("push", "bot:v1", target, "--dialect", dialect, "--store", source, "--format", "json").json
    assert (again["digest"], again["bytesTransferred"]) == (pushed["digest"], 0)


def test_an_artifact_is_read_by_its_digest_too(world, cli):
    digest = str(Digest.of((DATA / "epoch-0.2.1/bucket/manifests/bot/v1.json").read_bytes()))
    shown = cli("inspect", f"bot@{digest}", "--store", world / "epoch-0.2.1/bucket", "--format", "json")
    assert (shown.code, shown.json["digest"], shown.json["name"]) == (0, digest, "bot")
    wrong = cli("inspect", f"bot@sha256:{'0' * 64}", "--store", world / "epoch-0.2.1/bucket")
    assert wrong.code == 5


def test_what_an_image_has_beside_its_disk_is_said_to_be_lost(world, tmp_path, cli):
    ran = cli("push", "win", f"oci:{tmp_path}/layout", "--store", world / "epoch-0.2.1/bucket")
    assert ran.code == 0 and "SHA256SUMS" in ran.err


@pytest.mark.parametrize("name", MODERN)
def test_an_old_manifest_is_not_put_into_a_bucket_of_artifacts_but_by_force(name, world, tmp_path, cli):
    bucket = tmp_path / "bucket"
    shutil.copytree(world / name, bucket)
    cli("push", "bot:w3b", f"oci:{tmp_path}/layout", "--store", world / "legacy-bucket")
    before = sorted(bucket.rglob("*"))
    refused = cli("pull", f"oci:{tmp_path}/layout:w3b", "--store", bucket)
    assert refused.code == 9 and "0.1.6" in refused.error and "--force" in refused.error
    assert sorted(bucket.rglob("*")) == before
    assert cli("pull", f"oci:{tmp_path}/layout:w3b", "--store", bucket, "--force").code == 0
    assert cli("verify", "bot:w3b", "--store", bucket).code == 0


def test_files_differences_and_tags_of_a_modern_bucket(world, tmp_path, cli):
    bucket = tmp_path / "bucket"
    shutil.copytree(world / "epoch-0.2.1/bucket", bucket)
    state = piped("cat", "bot:v1", "memory-ranges", "--store", bucket)
    assert hashlib.sha256(state).hexdigest() == files()["bot"]["memory-ranges"]["sha256"]
    assert cli("diff", "bot:v1", "bot:based", "--store", bucket, "--format", "json").json["same"]
    before = set((bucket / "blobs/sha256").iterdir())
    assert cli("rm", "bot:again", "team/direct:v7:v1", "--store", bucket, "--yes").code == 0
    assert cli("prune", bucket, "--keep-last", "1", "--grace", "0s", "--yes").code == 0
    # Every copy by digest is a document that somebody may ask for.
    assert set((bucket / "blobs/sha256").iterdir()) == before
    assert cli("verify", bucket).code == 0


def test_a_modern_bucket_is_synced_like_any_other(world, tmp_path, cli):
    source = world / "epoch-0.2.1/bucket"
    ran = cli("sync", source, f"oci:{tmp_path}/layout", "--exclude", "Edge_Case.1:*", "--exclude", "team/*")
    assert ran.code == 0, ran.out + ran.err
    assert cli("verify", f"oci:{tmp_path}/layout").code == 0
    again = cli("sync", source, f"oci:{tmp_path}/layout", "--exclude", "Edge_Case.1:*", "--exclude", "team/*")
    assert again.code == 0 and "already" in again.out


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_shown_verified_and_pulled(name, world, tmp_path, cli):
    word = layout(world, name)
    shown = cli("inspect", word, "--format", "json")
    assert (shown.code, shown.json["dialect"]) == (0, "cocoonstack")
    assert cli("verify", word).code == 0
    assert cli("pull", word, "-o", tmp_path / "files").code == 0
    if "win" in name:
        parts = sorted(path for path in (tmp_path / "files").iterdir())
        image = b"".join(path.read_bytes() for path in parts)
        assert hashlib.sha256(image).hexdigest() in base_images(world)
    else:
        assert written(tmp_path / "files") == files()[Path(name).name.split("-")[1]]


def test_what_is_compressed_or_cut_has_the_digests_of_what_is_neither(world, tmp_path, cli):
    for name in ("z", "zc", "c"):
        word = layout(world, f"cocoon-common-0.3.0/layout-small-{name}")
        ran = cli("pull", word, "--as", f"small:{name}", "--store", tmp_path / "store")
        assert ran.code == 0, ran.err
        manifest = Manifest.parse(
            Document(EPOCH_MANIFEST, (tmp_path / f"store/manifests/small/{name}.json").read_bytes())
        )
        plain = json.loads((DATA / "cocoon-common-0.3.0/small.v1.manifest.json").read_bytes())
        assert [str(layer.digest) for layer in manifest.layers] == [layer["digest"] for layer in plain["layers"]]


def test_a_root_is_listed_shown_verified_and_goes_from_node_to_node(world, tmp_path, cli):
    source = f"cocoon:{world}/root"
    names = [row["name"] for row in cli("ls", source, "--format", "json").json["snapshots"]]
    assert names == ["Edge_Case.1", "bot", "fc"]
    assert cli("verify", source).code == 0
    (tmp_path / "other/snapshot").mkdir(parents=True)
    for name in names:
        assert cli("inspect", name, "--store", source).code == 0
        word = f"oci:{tmp_path}/layout-{name}"
        assert cli("push", name, word, "--store", source).code == 0
        assert cli("pull", word, "--store", f"cocoon:{tmp_path}/other").code == 0
    before, after = index_of(world / "root"), index_of(tmp_path / "other")
    assert {name: essence(record) for name, record in before.items()} == {
        name: essence(record) for name, record in after.items()
    }
    for name, record in after.items():
        there = tmp_path / "other/snapshot/localfile" / record["id"]
        here = world / "root/snapshot/localfile" / before[name]["id"]
        assert written(there) == written(here) == files()[GUESTS.get(name, name)]
        assert modes(there) == modes(here)


def index_of(root: Path) -> dict[str, Any]:
    value = json.loads((root / "snapshot/db/snapshots.json").read_bytes())
    return {record["name"]: record for record in value["snapshots"].values()}


def essence(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("id", "data_dir")}


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def piped(*words: object, raw: bytes = b"") -> bytes:
    """What a command writes to a pipe."""
    child = start_cli(*words)
    out, err = child.communicate(raw, timeout=60)
    assert child.returncode == 0, err.decode()
    return out


@pytest.mark.parametrize("name", ["Edge_Case.1", "bot", "fc"])
def test_a_root_and_cocoons_own_export_of_it_have_the_same_files(name, world, tmp_path, cli):
    """But for the base image, which no export has."""
    shown = cli("inspect", name, "--store", f"cocoon:{world}/root", "--format", "json").json
    archive = next(item for item in EXPORTS if item.startswith(f"cocoon-0.3.8-{name}.tar"))
    piped("push", "-", f"oci:{tmp_path}/layout:t", raw=export(archive))
    there = cli("inspect", f"oci:{tmp_path}/layout:t", "--format", "json").json
    own = [row for row in shown["files"] if row["role"] == "layer"]
    assert [(row["name"], row["digest"]) for row in there["files"]] == [(row["name"], row["digest"]) for row in own]


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_comes_back_entry_for_entry(name, tmp_path):
    named = ["--as", "plain"] if "unnamed" in name else []
    piped("push", "-", f"oci:{tmp_path}/layout:t", *named, raw=export(name))
    back = piped("pull", f"oci:{tmp_path}/layout:t", "-o", "-")
    raw = export(name) if name.endswith(".tar") else gzip.decompress(export(name))
    assert bodies(back) == bodies(raw)
    for entry in entries(raw).values():
        there = entries(back)[entry.name]
        assert (there.mode, there.pax_headers) == (entry.mode, entry.pax_headers)


def test_an_artifact_on_a_pipe_is_called_what_epoch_itself_would_call_it(world, tmp_path, fake_registry, cli):
    """Its documents have no name; the reference to it has."""
    registry = fake_registry()
    source, target = world / "epoch-0.2.1/bucket", f"{registry.address}/bot:latest"
    pushed = cli("push", "bot:latest", target, "--dialect", "cocoonstack", "--store", source)
    assert pushed.code == 0, pushed.err
    assert cli("inspect", target, "--format", "json").json["name"] == "bot"
    own = (DATA / "epoch-get/epoch-0.2.1-dl-bot.tar").read_bytes()
    raw = piped("pull", target, "-o", "-")
    assert bodies(raw) == bodies(own)
    report = cli("pull", target, "-o", tmp_path / "files", "--format", "json").json
    assert (report["name"], report["tag"]) == ("bot", "latest")
    envelope = json.loads(bodies(piped("pull", target, "-o", "-", "--as", "other"))["snapshot.json"])
    assert envelope["config"]["name"] == "other"


def test_what_epoch_get_wrote_is_pushed_like_an_export(tmp_path, cli):
    raw = (DATA / "epoch-get/epoch-0.1.4-get-bot.tar.gz").read_bytes()
    piped("push", "-", f"oci:{tmp_path}/layout:v1", raw=raw)
    assert cli("pull", f"oci:{tmp_path}/layout:v1", "-o", tmp_path / "files").code == 0
    assert written(tmp_path / "files") == files()["bot"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_root_of_a_cocoon_that_looks_at_names_gets_only_names_it_takes(taken, tmp_path, cli):
    root = tmp_path / "root"
    (root / "snapshot/db").mkdir(parents=True)
    shutil.copyfile(DATA / "cocoon/snapshots-7d9b3dc.json", root / "snapshot/db/snapshots.json")
    piped("push", "-", f"oci:{tmp_path}/layout:t", raw=export("cocoon-0.3.8-team_direct_v7.tar"))
    words = ["pull", f"oci:{tmp_path}/layout:t", "--store", f"cocoon:{root}"]
    if not taken:
        refused = cli(*words)
        assert refused.code == 2 and "--as team-direct" in refused.error
        return
    assert cli(*words, "--as", "team-direct-v7").code == 0
    record = index_of(root)["team-direct-v7"]
    assert {"size_bytes", "last_accessed_at"} <= set(record)
