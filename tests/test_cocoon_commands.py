"""Cocoon from the command line: archives on pipes, and root directories as stores."""

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import command, environment, run_cli, start_cli
from cocoon_world import (
    BLOB_ID,
    DATA,
    ID,
    Item,
    archive,
    base_image,
    bodies,
    config,
    ends_cleanly,
    entries,
    envelope,
    fill_snapshot,
    make_root,
    noise,
    packed,
    record,
)
from support.registry_auth import PASSWORD, USER, BearerAuth

from epoch_oci.cocoon.root_file import RootFile, _form
from epoch_oci.cocoon.tree import IMAGE_BLOBS, Tree
from epoch_oci.disk.facts import Facts, Marks
from epoch_oci.oci.digest import Digest

EXPORT = DATA / "export-0.3.8.tar"


def run(tmp_path: Path, *words: object, raw: bytes = b"", **env: str):
    return run_cli(*words, input=raw, cwd=tmp_path, env={"TMPDIR": str(tmp_path), **env})


def piped(tmp_path: Path, *words: object) -> tuple[int, bytes, str]:
    """Standard output as bytes."""
    child = start_cli(*words, cwd=tmp_path)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err.decode()


@pytest.fixture
def node(tmp_path: Path):
    made = make_root(tmp_path / "node")
    fill_snapshot(made)
    base_image(made)
    made.write_index({ID: record(name="bot:v2", image_blob_ids={BLOB_ID: {}}, description="<d>", queue_size=7)})
    return made


def misremember(node, folder: str, *names: str, what: bytes = b"") -> None:
    """As if these files had been read once, and had another content then, or all `what`; on the disk, nothing tells."""
    marks = Marks(Facts(Path.home() / ".cache/epoch-oci"))
    for name in names:
        file = RootFile.find(Tree(node.path), folder, name, packed=folder != IMAGE_BLOBS)
        marks.was_written(file.found, Digest.of(what or name.encode()), _form(file))


@pytest.mark.parametrize("what", [b"", b"the same"])
@pytest.mark.parametrize(
    "words",
    [
        ("push", "bot:v2", "oci:layout"),
        ("push", "bot:v2", "oci:layout", "--chunked"),
        ("push", "bot:v2", "oci:layout", "--dialect", "cocoonstack", "--allow-loss", "--zstd", "3"),
        ("verify", "bot:v2"),
        ("sync", "cocoon:node", "store"),
    ],
    ids=["push", "chunked", "zstd", "verify", "sync"],
)
def test_a_digest_that_was_remembered_wrongly_is_found_out_anew_within_the_run(words, what, tmp_path, node):
    misremember(node, f"snapshot/localfile/{ID}", "state.json", "memory-ranges", what=what)
    misremember(node, IMAGE_BLOBS, f"{BLOB_ID}.qcow2", what=what)
    ran = run(tmp_path, *words, *(() if words[0] == "sync" else ("--store", "cocoon:node")))
    assert ran.code == 0, ran.err
    assert run(tmp_path, "verify", "bot:v2", "--store", "cocoon:node").code == 0


def test_a_digest_that_was_remembered_wrongly_is_no_reason_to_refuse_a_snapshot(tmp_path, node):
    assert run(tmp_path, "push", "bot:v2", "oci:layout", "--store", "cocoon:node").code == 0
    misremember(node, f"snapshot/localfile/{ID}", "state.json")
    misremember(node, IMAGE_BLOBS, f"{BLOB_ID}.qcow2")
    before = node.index_path.read_bytes()
    ran = run(tmp_path, "pull", "oci:layout:v2", "--store", "cocoon:node")
    assert ran.code == 0, ran.err
    assert node.index_path.read_bytes() == before


@pytest.mark.parametrize("wrap", [lambda raw: raw, gzip.compress], ids=["raw", "gzip"])
def test_an_export_on_a_pipe_becomes_a_snapshot_and_an_import_on_a_pipe(tmp_path, wrap):
    raw = EXPORT.read_bytes()
    pushed = run(tmp_path, "push", "-", "oci:layout", "--format", "json", raw=wrap(raw))
    assert pushed.code == 0, pushed.err
    report = pushed.json
    assert (report["name"], report["tag"], report["reference"]) == ("warm", "latest", "oci:layout:latest")
    assert report["blobs"][0]["title"] is None and {blob["action"] for blob in report["blobs"]} == {"sent"}
    assert not list(tmp_path.glob(".epoch-oci*"))
    code, back, said = piped(tmp_path, "pull", "oci:layout", "-o", "-")
    assert code == 0, said
    assert "Digest: " + report["digest"] in said
    assert bodies(back) == bodies(raw)
    for name, entry in entries(raw).items():
        there = entries(back)[name]
        assert (there.mode, there.pax_headers) == (entry.mode, entry.pax_headers)
    again = run(tmp_path, "push", "-", "oci:layout", "--format", "json", raw=back)
    assert again.json["digest"] == report["digest"] and again.json["bytesTransferred"] == 0


def test_an_archive_goes_to_a_registry_in_parts(tmp_path, live_registry, repo_name):
    target = f"{live_registry.address}/{repo_name}"
    body = noise("disk", 3 << 20)
    raw = archive(Item("config.json", b"{}"), Item("memory-ranges", body), Item("empty", b""))
    pushed = run(tmp_path, "push", "-", f"{target}:v1", "--part-size", "1MiB", "--format", "json", raw=raw)
    assert pushed.code == 0, pushed.err
    assert [blob["title"] for blob in pushed.json["blobs"] if blob["title"]] == [
        "config.json",
        *(f"memory-ranges.part.{index:04d}" for index in range(3)),
    ]
    assert bodies(piped(tmp_path, "pull", f"{target}:v1", "-o", "-", "-q")[1])["memory-ranges"] == body
    assert run(tmp_path, "verify", f"{target}:v1").code == 0


@pytest.mark.parametrize("keep", [0, 700, 5000, -100, -1024, None])
def test_an_archive_that_breaks_off_tags_nothing(tmp_path, keep):
    raw = archive(Item("a", noise("a", 5000)), Item("b", noise("b", 700)), end=False)
    done = run(tmp_path, "push", "-", "oci:layout:v1", raw=raw[:keep])
    assert done.code == 3, done.err
    assert "SIZE" in done.error
    assert run(tmp_path, "inspect", "oci:layout:v1").code == 5


def test_a_dry_run_writes_nothing(tmp_path):
    done = run(tmp_path, "push", "-", "oci:layout:v1", "--dry-run", "--format", "json", raw=EXPORT.read_bytes())
    assert done.code == 0, done.err
    assert {blob["action"] for blob in done.json["blobs"]} == {"send"}
    assert not (tmp_path / "layout/index.json").exists()
    run(tmp_path, "push", "-", "oci:layout:v1", raw=EXPORT.read_bytes())
    planned = run(tmp_path, "pull", "oci:layout:v1", "-o", "-", "--dry-run", "--format", "json")
    assert {blob["action"] for blob in planned.json["blobs"]} == {"fetch"}


def test_a_tag_that_holds_another_snapshot_is_refused_before_a_file_is_sent(tmp_path):
    first = archive(Item("a", b"first"), head=envelope(config(id="0123456789abcdef")))
    other = archive(Item("a", b"other"), head=envelope(config(id="fedcba9876543210")))
    assert run(tmp_path, "push", "-", "oci:layout:v1", raw=first).code == 0
    blobs = sorted((tmp_path / "layout/blobs/sha256").iterdir())
    refused = run(tmp_path, "push", "-", "oci:layout:v1", raw=other)
    assert refused.code == 9 and "CONFLICT" in refused.error
    assert sorted((tmp_path / "layout/blobs/sha256").iterdir()) == blobs
    assert run(tmp_path, "push", "-", "oci:layout:v1", "--force", raw=other).code == 0


def test_the_same_snapshot_with_other_files_is_a_conflict_at_the_end(tmp_path):
    assert run(tmp_path, "push", "-", "oci:layout:v1", raw=archive(Item("a", b"first"))).code == 0
    digest = run(tmp_path, "inspect", "oci:layout:v1", "--format", "json").json["digest"]
    assert run(tmp_path, "push", "-", "oci:layout:v1", raw=archive(Item("a", b"other"))).code == 9
    assert run(tmp_path, "inspect", "oci:layout:v1", "--format", "json").json["digest"] == digest


def test_memory_is_not_sent_where_everybody_reads(tmp_path, fake_registry):
    registry = fake_registry(auth=BearerAuth({USER: PASSWORD}, anonymous=("pull",)))
    raw = archive(Item("config.json", b"{}"), Item("memory-ranges", noise("m", 4096)))
    words = ("push", "-", f"{registry.address}/team/bot:v1", "--username", USER)
    refused = run(tmp_path, *words, raw=raw, EPOCH_OCI_PASSWORD=PASSWORD)
    assert refused.code == 8 and "memory-ranges" in refused.error
    assert not registry.recording.count("PUT", "/manifests/")
    assert run(tmp_path, *words, "--allow-public", raw=raw, EPOCH_OCI_PASSWORD=PASSWORD).code == 0


def test_an_archive_without_a_name_is_given_one(tmp_path):
    raw = archive(Item("config.json", b"{}"), head=envelope(config(name="")))
    refused = run(tmp_path, "push", "-", "oci:layout", raw=raw)
    assert refused.code == 2 and "name it with --as NAME[:TAG]" in refused.error
    pushed = run(tmp_path, "push", "-", "oci:layout", "--as", "team/bot:v7", "--format", "json", raw=raw)
    assert pushed.code == 0, pushed.err
    assert [pushed.json[key] for key in ("name", "tag", "reference")] == ["team/bot", "v7", "oci:layout:v7"]


def test_an_archive_is_pushed_under_another_name(tmp_path):
    raw = archive(Item("config.json", b"{}"))
    pushed = run(tmp_path, "push", "-", "oci:layout:x", "--as", "other", "--format", "json", raw=raw)
    assert [pushed.json[key] for key in ("name", "tag", "reference")] == ["other", "latest", "oci:layout:x"]


def test_parts_that_the_dialect_has_no_place_for_are_refused_before_the_file(tmp_path):
    raw = archive(Item("memory-ranges", noise("m", 1 << 20)))
    words = ("push", "-", "oci:layout:v1", "--dialect", "cocoonstack", "--part-size", "64KiB")
    refused = run(tmp_path, *words, raw=raw)
    assert refused.code == 2, refused.err
    assert not list((tmp_path / "layout").glob("blobs/sha256/*"))


def test_an_archive_in_the_cocoonstack_dialect_comes_back_whole(tmp_path):
    raw = EXPORT.read_bytes()
    done = run(tmp_path, "push", "-", "oci:layout:v1", "--dialect", "cocoonstack", raw=raw)
    assert done.code == 0, done.err
    back = piped(tmp_path, "pull", "oci:layout:v1", "-o", "-")[1]
    assert bodies(back) == bodies(raw)


def test_what_is_called_and_what_is_named(tmp_path):
    run(tmp_path, "push", "-", "oci:layout:v1", raw=EXPORT.read_bytes())
    back = piped(tmp_path, "pull", "oci:layout:v1", "-o", "-", "--as", "other:x")[1]
    assert json.loads(bodies(back)["snapshot.json"])["config"]["name"] == "other:x"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("pull", "oci:layout:v1", "-o", "-", "--only", "*.json"), 2),
        (("pull", "oci:nowhere:v1", "-o", "-"), 5),
        (("push", "-", "registry.example/x@sha256:" + "0" * 64), 2),
        (("push", "-", "oci:layout:v1", "--username", "u", "--password-stdin"), 2),
    ],
)
def test_what_makes_no_sense(tmp_path, words, code):
    run(tmp_path, "push", "-", "oci:layout:v1", raw=EXPORT.read_bytes())
    assert run(tmp_path, *words, raw=EXPORT.read_bytes()).code == code


def test_a_terminal_gets_no_archive(tmp_path):
    run(tmp_path, "push", "-", "oci:layout:v1", raw=EXPORT.read_bytes())
    main, other = os.openpty()
    done = subprocess.run(
        command("pull", "oci:layout:v1", "-o", "-"), cwd=tmp_path, stdout=other, stderr=subprocess.PIPE, timeout=60
    )
    asked = subprocess.run(
        command("push", "-", "oci:layout:v1"), cwd=tmp_path, stdin=other, capture_output=True, timeout=60
    )
    os.close(main)
    os.close(other)
    assert done.returncode == asked.returncode == 2
    assert b"terminal" in done.stderr and b"terminal" in asked.stderr


def test_a_corrupt_blob_never_ends_an_archive_cleanly(tmp_path):
    run(tmp_path, "push", "-", "oci:layout:v1", raw=archive(Item("a", noise("a", 5000)), Item("b", noise("b", 5000))))
    inspected = run(tmp_path, "inspect", "oci:layout:v1", "--format", "json").json
    for file in inspected["files"]:
        path = tmp_path / "layout/blobs/sha256" / file["digest"].partition(":")[2]
        good = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(good[:-1] + b"?")
        code, out, said = piped(tmp_path, "pull", "oci:layout:v1", "-o", "-")
        assert code == 3, said
        assert not ends_cleanly(out)
        path.write_bytes(good)


def test_a_reader_that_goes_away_is_an_error(tmp_path):
    run(tmp_path, "push", "-", "oci:layout:v1", raw=archive(Item("a", noise("a", 4 << 20))))
    writer = subprocess.Popen(
        command("pull", "oci:layout:v1", "-o", "-"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.read(100)
    writer.stdout.close()
    assert b"closed by its reader" in writer.stderr.read()
    writer.stderr.close()
    assert writer.wait(timeout=60) == 7


def test_a_cloud_image_is_joined(tmp_path):
    """What `cocoon image import` reads: the disk alone."""
    from snapshots import Made, put_snapshot

    from epoch_oci.epoch import gojson
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.oci.digest import Digest

    disk = noise("disk", 100_000)
    made = Made(SnapshotKey("win", "v1"), b"")
    rows = []
    for name, raw in (
        ("win.qcow2.part.aa", disk[:60_000]),
        ("win.qcow2.part.ab", disk[60_000:]),
        ("SHA256SUMS", b"sums\n"),
    ):
        made.blobs[Digest.of(raw).hex] = raw
        rows.append({"digest": Digest.of(raw).hex, "size": len(raw), "filename": name})
    zero = "0001-01-01T00:00:00Z"
    value = {"schemaVersion": 1, "name": "win", "tag": "v1", "snapshotId": "", "layers": rows}
    made.raw = gojson.dumps({**value, "totalSize": 100_005, "createdAt": zero, "pushedAt": zero})
    put_snapshot(tmp_path / "store", made)
    pushed = run(tmp_path, "push", "win:v1", "oci:layout", "--store", "store")
    assert pushed.code == 0, pushed.err
    assert piped(tmp_path, "pull", "oci:layout:v1", "-o", "-")[:2] == (0, disk)


def test_a_node_to_a_registry_and_to_another_node(tmp_path, node, live_registry, repo_name):
    target = f"{live_registry.address}/{repo_name}:v2"
    listed = run(tmp_path, "ls", "cocoon:node", "--format", "json").json
    assert [(row["name"], row["tag"], row["digest"]) for row in listed["snapshots"]] == [("bot", "v2", None)]
    before = node.tree()
    pushed = run(tmp_path, "push", "bot:v2", target, "--store", "cocoon:node", "--format", "json")
    assert pushed.code == 0, pushed.err
    assert node.tree() == before
    other = make_root(tmp_path / "other")
    pulled = run(tmp_path, "pull", target, "--store", "cocoon:other", "--format", "json")
    assert pulled.code == 0, pulled.err
    (known,) = other.index["snapshots"].values()
    assert (known["name"], known["description"], known["queue_size"]) == ("bot:v2", "<d>", 7)
    for path in node.data(ID).iterdir():
        assert (other.data(known["id"]) / path.name).read_bytes() == path.read_bytes()
    (image,) = other.blobs.iterdir()
    assert image.stat().st_mode & 0o777 == 0o444 and image.read_bytes() == noise("base", 70_000)
    again = run(tmp_path, "pull", target, "--store", "cocoon:other", "--format", "json")
    assert again.code == 0 and again.json["bytesTransferred"] == 0
    assert len(other.index["snapshots"]) == 1
    verified = run(tmp_path, "verify", "bot:v2", "--store", "cocoon:other")
    assert verified.code == 0, verified.err


def test_an_id_or_its_beginning_names_a_snapshot(tmp_path, node):
    for name in (ID, ID[:6], ID.lower()[:6] if ID[:6].islower() else ID[:4]):
        done = run(tmp_path, "inspect", name, "--store", "cocoon:node", "--format", "json")
        assert done.code == 0, done.err
        assert done.json["snapshotId"] == ID
    assert run(tmp_path, "inspect", "nothing", "--store", "cocoon:node").code == 5


def test_what_a_root_holds_under_the_name_is_not_replaced(tmp_path, node):
    run(tmp_path, "push", "-", "oci:layout:v2", raw=archive(Item("a", b"x"), head=envelope(config(name="bot:v2"))))
    refused = run(tmp_path, "pull", "oci:layout:v2", "--store", "cocoon:node")
    assert refused.code == 9, refused.err
    taken = run(tmp_path, "pull", "oci:layout:v2", "--store", "cocoon:node", "--as", "fresh:x")
    assert taken.code == 0, taken.err
    assert sorted(row["name"] for row in node.index["snapshots"].values()) == ["bot:v2", "fresh:x"]


def test_what_keeps_a_vm_from_being_cloned_is_said(tmp_path):
    paths = json.dumps({"disks": [{"path": "/srv/elsewhere/disk.raw"}]}).encode()
    raw = archive(
        Item("config.json", paths),
        Item("overlay.qcow2", b"QFI"),
        Item("state.json", b"{}"),
        head=envelope(config(image_blob_ids={BLOB_ID: {}})),
    )
    run(tmp_path, "push", "-", "oci:layout:v1", raw=raw)
    for words in (("inspect", "oci:layout:v1"), ("pull", "oci:layout:v1", "-o", "files")):
        done = run(tmp_path, *words)
        said = done.out + done.err
        assert done.code == 0, said
        assert "without cocoon.json" in said and "/srv/elsewhere/disk.raw" in said and BLOB_ID in said


def test_a_word_that_could_be_a_tag_is_one(tmp_path):
    """A snapshot called `cocoon` is not taken for a root, nor a root for it."""
    from snapshots import Made, make_snapshot, put_snapshot

    made: Made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    missing = run(tmp_path, "inspect", "cocoon:v1", "--store", "store")
    assert missing.code == 5 and "cocoon" in missing.error
    assert run(tmp_path, "ls", "cocoon:./nowhere").code == 5
    assert run(tmp_path, "ls", "--store", "cocoon:").code == 2


def test_no_more_than_one_file_waits_on_the_disk(tmp_path):
    """Packed files stay packed, and each leaves before the next one comes: nothing remains of them."""
    raw = archive(*(Item(f"f{index}", noise(str(index), 200_000), pax={}) for index in range(5)))
    process = subprocess.Popen(
        [sys.executable, "-m", "epoch_oci", "push", "-", "oci:layout:v1", "-q"],
        cwd=tmp_path,
        env=environment({"TMPDIR": str(tmp_path)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    out, _ = process.communicate(raw, timeout=60)
    assert process.returncode == 0 and out.startswith(b"sha256:")
    assert {path.name for path in tmp_path.iterdir()} == {"layout"}


def test_a_packed_disk_stays_packed_and_unfolds_into_files(tmp_path):
    runs = [(0, 4096), (1 << 20, 4096)]
    body = noise("cow", 8192)
    head = envelope(config(storage=2 << 20))
    raw = archive(Item("cow.raw", body, pax=packed(runs, 2 << 20)), head=head)
    assert run(tmp_path, "push", "-", "oci:layout:v1", raw=raw).code == 0
    assert run(tmp_path, "pull", "oci:layout:v1", "-o", "files").code == 0
    content = (tmp_path / "files/cow.raw").read_bytes()
    expected = io.BytesIO(bytes(2 << 20))
    for (offset, length), at in zip(runs, (0, 4096), strict=True):
        expected.seek(offset)
        expected.write(body[at : at + length])
    assert content == expected.getvalue()
    assert entries(piped(tmp_path, "pull", "oci:layout:v1", "-o", "-")[1])["cow.raw"].pax_headers
