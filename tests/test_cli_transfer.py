"""`push` and `pull` from the command line, through directories and OCI image layouts."""

import json
import os
import re

import pytest
from cli_runner import Here, run_cli
from snapshots import WRITERS, make_snapshot, put_snapshot, tree

REPORT_KEYS = {
    "command",
    "reference",
    "digest",
    "mediaType",
    "artifactType",
    "name",
    "tag",
    "size",
    "blobs",
    "bytesTransferred",
    "bytesReused",
    "retries",
    "seconds",
    "warnings",
}
BLOB_KEYS = {"digest", "size", "title", "mediaType", "action", "bytes"}


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def bot(tmp_path):
    """team/bot:v1 in ./store."""
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    return made


def test_push_and_pull_as_processes(tmp_path):
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    pushed = run_cli("push", "team/bot:v1", "oci:layout", "--store", "store", cwd=tmp_path)
    assert (pushed.code, pushed.err) == (0, "")
    assert pushed.out.startswith("Pushed team/bot:v1 to oci:layout:v1\n")
    assert re.fullmatch(r"Digest: sha256:[0-9a-f]{64}", pushed.out.splitlines()[-1])
    pulled = run_cli("pull", "oci:layout", cwd=tmp_path, env={"EPOCH_STORE": "second"})
    assert pulled.code == 0
    assert pulled.err == (
        "epoch-oci: warning: a Cloud Hypervisor snapshot without cocoon.json: Cocoon 0.3.8 and later cannot clone it\n"
    )
    assert pulled.out.splitlines()[-1] == pushed.out.splitlines()[-1]
    before, after = tree(tmp_path / "store"), tree(tmp_path / "second")
    after.pop("catalog.json")
    assert after == before


@pytest.mark.parametrize("kind", WRITERS)
def test_every_writer_there_and_back(cli, tmp_path, kind):
    made = make_snapshot(kind)
    put_snapshot(tmp_path / "store", made)
    pushed = cli("push", "team/bot:v1", "oci:layout:x", "--store", "store", "--format", "json")
    pulled = cli("pull", "oci:layout:x", "--store", "second", "--as", "team/bot:v1", "--format", "json")
    assert pushed.code == pulled.code == 0
    assert pulled.json["digest"] == pushed.json["digest"]
    after = tree(tmp_path / "second")
    after.pop("catalog.json")
    assert after == tree(tmp_path / "store")


def test_the_report_of_a_push(cli, bot):
    report = cli("push", "team/bot:v1", "oci:layout:v7", "--store", "store", "--format", "json").json
    assert report.keys() - {"derived", "dryRun"} == REPORT_KEYS
    assert report["command"] == "push" and report["reference"] == "oci:layout:v7"
    assert (report["name"], report["tag"]) == ("team/bot", "v1")
    assert report["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert report["artifactType"] == "application/vnd.cocoon.snapshot.v1+json"
    assert all(blob.keys() == BLOB_KEYS for blob in report["blobs"])
    assert {blob["action"] for blob in report["blobs"]} == {"sent"}
    assert [blob["title"] for blob in report["blobs"]].count(None) == 1
    total = sum(map(len, bot.blobs.values())) + len(bot.raw)
    assert report["size"] == report["bytesTransferred"] == total
    again = cli("push", "team/bot:v1", "oci:layout:v7", "--store", "store", "--format", "json").json
    assert again["bytesTransferred"] == 0 and again["bytesReused"] == total
    assert {blob["action"] for blob in again["blobs"]} == {"skipped"}


def test_the_report_of_a_pull(cli, bot):
    cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    report = cli("pull", "oci:layout:v1", "--store", "second", "--format", "json").json
    assert report.keys() - {"derived", "dryRun"} == REPORT_KEYS
    assert report["command"] == "pull" and report["reference"] == "oci:layout:v1"
    assert {blob["action"] for blob in report["blobs"]} == {"received"}
    by_digest = cli("pull", f"oci:layout@{report['digest']}", "--store", "second", "--format", "json").json
    assert by_digest["reference"] == f"oci:layout@{report['digest']}" and by_digest["bytesTransferred"] == 0


def test_a_dry_run_says_what_would_move_and_changes_nothing(cli, bot, tmp_path):
    before = tree(tmp_path)
    plan = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--dry-run", "--format", "json")
    assert plan.code == 0 and tree(tmp_path) == before
    assert plan.json["dryRun"] is True and {blob["action"] for blob in plan.json["blobs"]} == {"send"}
    text = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--dry-run")
    assert text.out.startswith("Would push team/bot:v1 to oci:layout:v1:\n") and "memory-ranges" in text.out
    done = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--format", "json")
    assert done.json["bytesTransferred"] == plan.json["bytesTransferred"]
    assert done.json["digest"] == plan.json["digest"]
    before = tree(tmp_path)
    plan = cli("pull", "oci:layout", "--store", "second", "--dry-run", "--format", "json")
    assert {blob["action"] for blob in plan.json["blobs"]} == {"fetch"} and tree(tmp_path) == before
    plan = cli("pull", "oci:layout", "-o", "files", "--dry-run", "--format", "json")
    assert {blob["action"] for blob in plan.json["blobs"]} == {"fetch"} and tree(tmp_path) == before


def test_files_under_their_own_names(cli, bot, tmp_path):
    cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    ran = cli("pull", "oci:layout", "-o", "files")
    assert ran.code == 0
    names = {layer["filename"] for layer in json.loads(bot.raw)["layers"] + json.loads(bot.raw)["baseImages"]}
    assert {path.name for path in (tmp_path / "files").iterdir()} == names
    assert (tmp_path / "files/memory-ranges").stat().st_size == 1 << 23


def test_only_some_files(cli, bot, tmp_path):
    cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    ran = cli("pull", "oci:layout", "-o", "files", "--only", "*.json", "--only", "cidata*", "--format", "json")
    assert {blob["title"] for blob in ran.json["blobs"]} == {None, "config.json", "state.json", "cidata.img"}
    assert {path.name for path in (tmp_path / "files").iterdir()} == {"config.json", "state.json", "cidata.img"}
    ran = cli("pull", "oci:layout", "-o", "files", "--only", "nothing*")
    assert ran.code == 2 and "memory-ranges" in ran.error


def test_a_typed_directory_outweighs_a_store_in_the_environment(cli, bot, tmp_path):
    cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    assert cli("pull", "oci:layout", "-o", "files", env={"EPOCH_STORE": "second"}).code == 0
    assert (tmp_path / "files").is_dir() and not (tmp_path / "second").exists()
    assert cli("pull", "oci:layout", "--store", "second", env={"EPOCH_OCI_OUTPUT": "other"}).code == 0
    assert (tmp_path / "second").is_dir() and not (tmp_path / "other").exists()
    ran = cli("pull", "oci:layout", env={"EPOCH_OCI_OUTPUT": "other", "EPOCH_STORE": "second"})
    assert ran.code == 2 and "exclude each other" in ran.error


def test_tags_of_a_layout(cli, bot, tmp_path):
    ran = cli("pull", "oci:layout", "--store", "second")
    assert ran.code == 5 and "no OCI layout at layout" in ran.error
    cli("push", "team/bot:v1", "oci:layout:one", "--store", "store")
    assert cli("pull", "oci:layout", "--store", "s1", "--format", "json").json["reference"] == "oci:layout:one"
    cli("push", "team/bot:v1", "oci:layout:two", "--store", "store", "--annotation", "x=y")
    ran = cli("pull", "oci:layout", "--store", "second")
    assert ran.code == 5 and "one, two" in ran.error
    cli("push", "team/bot:v1", "oci:layout:latest", "--store", "store")
    assert cli("pull", "oci:layout", "--store", "s2", "--format", "json").json["reference"] == "oci:layout:latest"
    ran = cli("pull", "oci:layout:three", "--store", "s2")
    assert ran.code == 5 and "three" in ran.error


def test_where_a_pull_puts_the_snapshot(cli, bot, tmp_path):
    cli("push", "team/bot:v1", "oci:layout:v9", "--store", "store")
    digest = cli("pull", "oci:layout:v9", "--store", "second", "--format", "json").json["digest"]
    assert (tmp_path / "second/manifests/team/bot/v9.json").is_file()
    cli("pull", f"oci:layout@{digest}", "--store", "second")
    assert (tmp_path / "second/manifests/team/bot/v1.json").is_file()
    cli("pull", "oci:layout:v9", "--store", "second", "--as", "mine")
    assert (tmp_path / "second/manifests/mine/latest.json").read_bytes() == bot.raw


def test_a_push_target_has_no_digest(cli, bot):
    ran = cli("push", "team/bot:v1", f"oci:layout:v1@sha256:{'0' * 64}", "--store", "store")
    assert ran.code == 2 and "a push target has no digest" in ran.error


def test_the_part_size_decides_what_is_cut(cli, bot, tmp_path):
    push = ("push", "team/bot:v1", "--store", "store", "--format", "json")

    def titles(*words, **env):
        layout = f"oci:layout-{len(list(tmp_path.glob('layout-*')))}"
        return [blob["title"] or "" for blob in cli(*push, layout, *words, env=env).json["blobs"]]

    whole = titles("--part-size", "none")
    assert titles() == whole and not any(".part." in title for title in whole)
    cut = titles("--part-size", "512K")
    assert [title for title in cut if "memory-ranges" in title] == [f"memory-ranges.part.000{n}" for n in range(3)]
    assert titles(EPOCH_OCI_PART_SIZE="524288") == cut
    for size in ("1023", "0", "-1", "1.5M", "10X"):
        assert cli(*push, "oci:other", "--part-size", size).code == 2


def test_an_unknown_dialect_lists_those_there_are(cli, bot):
    ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--dialect", "cocon")
    assert ran.code == 2 and "cocoon" in ran.error


def test_annotations(cli, bot, tmp_path):
    words = ("--annotation", "org.example.owner=sre team", "-a", "org.example.none=")
    digest = cli("push", "team/bot:v1", "oci:layout", "--store", "store", *words, "--format", "json").json["digest"]
    manifest = json.loads((tmp_path / "layout/blobs/sha256" / digest.removeprefix("sha256:")).read_bytes())
    assert manifest["annotations"]["org.example.owner"] == "sre team"
    assert "org.example.none" not in manifest["annotations"]
    ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "-a", "cocoonstack.snapshot.id=forged")
    assert ran.code == 2


def test_mounting_works_within_a_registry_alone(cli, bot):
    ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--mount-from", "acme/base")
    assert ran.code == 2 and "--mount-from works within one registry" in ran.error


def test_conflicts(cli, bot, tmp_path):
    cli("push", "team/bot:v1", "oci:layout:x", "--store", "store")
    put_snapshot(tmp_path / "store", make_snapshot("W1", tag="v2"))
    ran = cli("push", "team/bot:v2", "oci:layout:x", "--store", "store")
    assert ran.code == 9 and ran.error.startswith("epoch-oci: CONFLICT: ") and "--force" in ran.error
    assert cli("push", "team/bot:v2", "oci:layout:x", "--store", "store", "--force").code == 0
    cli("pull", "oci:layout:x", "--store", "second", "--as", "a:b")
    cli("push", "team/bot:v1", "oci:layout:y", "--store", "store")
    ran = cli("pull", "oci:layout:y", "--store", "second", "--as", "a:b", "--format", "json")
    assert ran.code == 9 and ran.json_error["code"] == "CONFLICT"
    assert cli("pull", "oci:layout:y", "--store", "second", "--as", "a:b", "--force").code == 0
    (tmp_path / "files").mkdir()
    (tmp_path / "files/config.json").write_text("mine")
    assert cli("pull", "oci:layout:y", "-o", "files").code == 9
    assert cli("pull", "oci:layout:y", "-o", "files", "--force").code == 0


def test_not_found(cli, bot, tmp_path):
    ran = cli("push", "team/bot:v9", "oci:layout", "--store", "store")
    assert ran.code == 5 and ran.error.startswith("epoch-oci: NOT_FOUND: ") and not (tmp_path / "layout").exists()
    assert cli("push", "team/bot:v1", "oci:layout", "--store", "nowhere").code == 5
    blob = next(iter(bot.blobs))
    (tmp_path / "store/blobs/sha256" / blob).unlink()
    ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    assert ran.code == 5 and blob in ran.error


def test_a_wrong_blob_is_exit_3_and_nothing_is_tagged(cli, bot, tmp_path):
    digest = max(bot.blobs, key=lambda name: len(bot.blobs[name]))
    path = tmp_path / "store/blobs/sha256" / digest
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    assert ran.code == 3 and ran.error.startswith("epoch-oci: DIGEST: ") and digest in ran.error
    assert cli("ls", "oci:layout").out == ""


def test_a_wrong_manifest_is_exit_3(cli, bot, tmp_path):
    path = tmp_path / "store/manifests/team/bot/v1.json"
    path.write_bytes(bot.raw.replace(b'"size": 4096', b'"size": -1'))
    ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--format", "json")
    assert ran.code == 3 and ran.json_error["code"] == "SIZE" and ran.out == ""


@pytest.mark.parametrize("name", ["../x:v1", "a/../b:v1", "bot:..", "/abs:v1", "a//b:v1", "a\x1b[31mb:v1"])
def test_hostile_names_are_exit_3_and_shown_escaped(cli, bot, tmp_path, name):
    before = tree(tmp_path)
    for words in (("push", name, "oci:layout", "--store", "store"), ("inspect", "--store", "store", "--", name)):
        if name.startswith(("/", ".")) and words[0] == "inspect":
            continue  # written like this it is a store
        ran = cli(*words)
        assert ran.code == 3 and ran.error.startswith("epoch-oci: NAME: ")
        assert "\x1b" not in ran.err and tree(tmp_path) == before


def test_a_tag_that_oci_does_not_allow(cli, tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot("W1", name="Bot", tag="-v 1"))
    ran = cli("push", "Bot:-v 1", "oci:layout", "--store", "store")
    assert ran.code == 2 and '":v-1"' in ran.error
    assert cli("push", "Bot:-v 1", "oci:layout:v-1", "--store", "store").code == 0


def test_quiet_keeps_the_result_and_drops_warnings(cli, tmp_path):
    made = make_snapshot("W1")
    made.raw = made.raw.replace(b'"totalSize": ', b'"totalSize": 9')
    put_snapshot(tmp_path / "store", made)
    push = ("push", "team/bot:v1", "oci:layout", "--store", "store")
    loud, quiet = cli(*push), cli(*push, "-q")
    assert loud.err.startswith("epoch-oci: warning: ") and "totalSize" in loud.err
    assert quiet.err == "" and "Digest: " + quiet.out == loud.out.splitlines()[-1] + "\n"
    assert "totalSize" in cli(*push, "-q", "--format", "json").json["warnings"][0]
    event = json.loads(cli(*push, "--progress", "json").err.splitlines()[-1])
    assert event["event"] == "warning" and "totalSize" in event["message"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_exit_7(cli, bot, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    assert cli("push", "team/bot:v1", "oci:shut/layout", "--store", "store").code == 7


def test_a_store_that_cannot_be_written_is_exit_7(cli, bot, tmp_path):
    cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    ran = cli("pull", "oci:layout", "--store", "/proc/epoch-oci-nowhere")
    assert ran.code == 7 and ran.error.startswith("epoch-oci: IO: ")


@pytest.mark.parametrize("wrapped", [False, True])
def test_annotations_of_a_file_come_before_those_of_flags(cli, bot, tmp_path, wrapped):
    found = {"org.example.owner": "file", "org.example.team": "sre: ü"}
    (tmp_path / "a.json").write_text(json.dumps({"$manifest": found} if wrapped else found))
    words = ("--annotation-file", "a.json", "-a", "org.example.owner=flag")
    digest = cli("push", "team/bot:v1", "oci:layout", "--store", "store", *words, "-q").out.strip()
    raw = (tmp_path / "layout/blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()
    annotations = json.loads(raw)["annotations"]
    assert annotations["org.example.owner"] == "flag" and annotations["org.example.team"] == "sre: ü"
    assert cli("convert", "store/manifests/team/bot/v1.json", *words).out == raw.decode()


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("[]", 3, "no object of texts"),
        ('{"a": 1}', 3, "no object of texts"),
        ('{"$manifest": []}', 3, "no object of texts"),
        ('{"a": "b", "a": "c"}', 3, "a.json"),
        ("{", 3, "a.json"),
        ('{"$manifest": {"a": "b"}, "disk.raw": {"c": "d"}}', 2, "disk.raw"),
        ('{"a": "b", "c": {"d": "e"}}', 2, "annotates"),
        ('{"org.opencontainers.image.title": "mine"}', 2, "org.opencontainers.image.title"),
        (None, 5, "a.json"),
    ],
)
def test_a_file_of_annotations_that_is_none(cli, bot, tmp_path, text, code, says):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    ran = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--annotation-file", "a.json")
    assert ran.code == code and says in ran.error
    assert not (tmp_path / "layout").exists()


def test_the_digest_is_written_into_a_file_when_all_is_done(cli, bot, tmp_path):
    words = ("--digest-file", "d")
    (tmp_path / "d").write_text("before")
    assert cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--dry-run", *words).code == 0
    assert cli("push", "team/none:v1", "oci:layout", "--store", "store", *words).code == 5
    assert (tmp_path / "d").read_text() == "before"
    digest = cli("push", "team/bot:v1", "oci:layout", "--store", "store", "-q", *words).out.strip()
    assert (tmp_path / "d").read_text() == digest  # no line's end, as podman and skopeo write it
    for line in (
        ("pull", "oci:layout", "--store", "to"),
        ("pull", "oci:layout", "-o", "f"),
        ("copy", "oci:layout", "oci:o"),
    ):
        (tmp_path / "d").unlink()
        assert cli(*line, "--digest-file", "d").code == 0
        assert (tmp_path / "d").read_text() == digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "f", "layout", "o", "store", "to"]


def test_a_digest_is_never_written_over_what_the_command_is_about(cli, bot, tmp_path):
    push = ("push", "team/bot:v1", "--store", "store")
    assert cli(*push, "oci:layout").code == 0 and cli("copy", "oci:layout", "oci-archive:a.tar:v1").code == 0
    before = tree(tmp_path)
    for words in (
        (*push, "oci:layout", "--digest-file", "layout/index.json"),
        (*push, "oci:layout:a,b", "--digest-file", "layout/blobs/d"),
        (*push, "oci:other", "--digest-file", "store/catalog.json"),
        ("pull", "oci:layout:v1", "--store", "file://" + str(tmp_path / "store"), "--digest-file", "store/manifests/d"),
        ("pull", "oci:layout:v1", "--store", "store", "--digest-file", "layout/oci-layout"),
        ("copy", "oci:layout", "oci-archive:a.tar:v2", "--digest-file", "a.tar"),
        ("sync", "store", "oci:layout", "--report", "layout/index.json"),
    ):
        ran = cli(*words)
        assert ran.code == 9 and "is a file of" in ran.error, words
        assert tree(tmp_path) == before
    assert cli("pull", "oci:layout", "-o", "f", "--digest-file", "f/../f/d").code == 5  # not there yet
    assert cli("pull", "oci:layout", "-o", "f").code == 0
    files = tree(tmp_path / "f")
    ran = cli("pull", "oci:layout", "-o", "f", "--digest-file", f"f/{min(files)}")
    assert ran.code == 9 and "one of the files" in ran.error and tree(tmp_path / "f") == files
    assert cli("pull", "oci:layout", "-o", "f", "--digest-file", "f/digest").code == 0


def test_a_digest_file_that_cannot_be_is_told_before_anything_moves(cli, bot, tmp_path):
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for word, code in (("dir", 2), ("fifo", 9), ("link", 9), ("none/d", 5), ("/dev/stdout", 9)):
        assert cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--digest-file", word).code == code
    assert not (tmp_path / "layout").exists()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("real")  # a link to a file stays one
    assert cli("push", "team/bot:v1", "oci:layout", "--store", "store", "--digest-file", "link").code == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text().startswith("sha256:")
