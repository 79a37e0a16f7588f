"""`inspect`, `verify` and `ls`."""

import json
import os
import pty
import subprocess

import pytest
from cli_runner import Here, command, environment, run_cli
from cocoon_world import ID, fill_snapshot, make_root, record
from layouts import Layout, write_tar
from recorded import make_bucket
from snapshots import WRITERS, make_snapshot, put_snapshot, tree

from epoch_oci.errors import NotFoundError, UsageError
from epoch_oci.locate import open_store

INSPECTION = {
    "location",
    "kind",
    "dialect",
    "writer",
    "name",
    "tag",
    "digest",
    "snapshotId",
    "image",
    "cpu",
    "memory",
    "storage",
    "nics",
    "createdAt",
    "pushedAt",
    "files",
    "missing",
    "warnings",
}
FILE = {"name", "role", "mediaType", "digest", "size"}


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def bot(cli, tmp_path):
    """team/bot:v1 in ./store and as oci:layout:v1."""
    made = make_snapshot("W3b")
    put_snapshot(tmp_path / "store", made)
    assert cli("push", "team/bot:v1", "oci:layout", "--store", "store").code == 0
    return made


def on_a_terminal(*words: str, cwd: object, env: dict[str, str] | None = None) -> bytes:
    """Standard output of a command that writes to a terminal 100 columns wide."""
    ours, theirs = pty.openpty()
    settings = environment({"TERM": "xterm-256color", "COLUMNS": "100", **(env or {})})
    process = subprocess.Popen(command(*words), stdout=theirs, stderr=theirs, stdin=theirs, cwd=cwd, env=settings)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # Linux: the other side is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0, shown
    return shown


@pytest.mark.parametrize("kind", WRITERS)
def test_inspect_as_json(cli, tmp_path, kind):
    made = make_snapshot(kind)
    put_snapshot(tmp_path / "store", made)
    found = cli("inspect", "team/bot:v1", "--store", "store", "--format", "json").json
    assert found.keys() >= INSPECTION and all(file.keys() >= FILE for file in found["files"])
    assert found["dialect"] == "epoch"
    assert found["kind"] == ("cloud-image" if kind == "cloud-image" else "snapshot")
    assert (found["name"], found["tag"]) == ("team/bot", "v1")
    assert found["digest"] == str(made.document.digest)
    if kind.startswith("W"):
        assert found["writer"] == kind
    cli("push", "team/bot:v1", "oci:layout", "--store", "store")
    carried = cli("inspect", "oci:layout", "--format", "json").json
    same = INSPECTION - {"location", "dialect", "digest", "files", "missing"}
    assert {key: carried[key] for key in same} == {key: found[key] for key in same}
    assert carried["location"] == "oci:layout:v1" and carried["dialect"] == "cocoon"
    names = [(file["name"], file["role"], file["digest"], file["size"]) for file in found["files"]]
    assert [(file["name"], file["role"], file["digest"], file["size"]) for file in carried["files"]] == names


def test_inspect_in_words(cli, bot):
    ran = cli("inspect", "oci:layout")
    assert ran.code == 0 and ran.err == ""
    for text in (
        "team/bot:v1",
        "W3b: vk-cocoon 0.1.8 and later",
        "9f3c1a7be20d4c55",
        "2 CPU, 1.0 GiB memory, 10.0 GiB storage, 1 NIC",
        "memory-ranges",
        "application/vnd.cocoon.memory",
        "base-image",
        "1.4 MiB",
    ):
        assert text in ran.out
    assert "\x1b" not in ran.out


def test_a_writer_is_named_only_of_a_document_that_was_found(cli, tmp_path):
    """A manifest that was derived has none, and one that was derived and stored since is of none that Epoch knows."""
    layout = Layout()
    layout.artifact(tag="v1")
    layout.write(tmp_path / "layout")
    derived = cli("inspect", "oci:layout")
    assert "derived from the layers" in derived.out and "Written by" not in derived.out
    shown = cli("inspect", "oci:layout", "--format", "json").json
    assert shown["writer"] is None and shown["derived"] is True
    assert cli("pull", "oci:layout", "--store", "copy", "--as", "bot:v1").code == 0
    stored = cli("inspect", "bot:v1", "--store", "copy", "--format", "json").json
    assert stored["writer"] == "unknown" and stored["derived"] is False


def test_what_has_no_name_is_called_by_the_reference_that_leads_to_it(cli, tmp_path, fake_registry):
    """A layout has no name to give; a repository has one, and a digest is no tag."""
    layout, registry = Layout(), fake_registry()
    digest = layout.artifact(tag="v1")["digest"]
    layout.write(tmp_path / "layout")
    assert cli("inspect", "oci:layout").out.split("\n")[0].split() == ["Snapshot:", "oci:layout:v1"]
    repository = f"{registry.address}/acme/bot"
    assert cli("copy", "oci:layout:v1", f"{repository}:v1").code == 0
    assert cli("inspect", f"{repository}:v1").out.split("\n")[0].split() == ["Snapshot:", "acme/bot:v1"]
    assert cli("inspect", f"{repository}@{digest}").out.split("\n")[0].split() == ["Snapshot:", "acme/bot"]


def test_a_snapshot_of_a_cocoon_root_has_no_writer(cli, tmp_path):
    root = make_root(tmp_path / "node")
    fill_snapshot(root)
    root.write_index({ID: record(name="bot")})
    ran = cli("inspect", "bot", "--store", "cocoon:node")
    assert ran.code == 0 and "Written by" not in ran.out and "derived from Cocoon's record" in ran.out
    assert cli("push", "bot", "oci:layout", "--store", "cocoon:node").code == 0
    assert "Written by:   epoch-oci: this program" in cli("inspect", "oci:layout").out


def test_inspect_says_what_is_missing(cli, bot, tmp_path):
    gone = json.loads(bot.raw)["layers"][2]
    (tmp_path / "store/blobs/sha256" / gone["digest"]).unlink()
    ran = cli("inspect", "team/bot:v1", "--store", "store")
    assert ran.code == 0 and f"missing: {gone['filename']} (sha256:{gone['digest']})" in ran.out
    found = cli("inspect", "team/bot:v1", "--store", "store", "--format", "json").json
    assert len(found["missing"]) == 1
    (tmp_path / "store/blobs/sha256" / gone["digest"]).write_bytes(b"short")
    for words in (("inspect",), ("verify", "--fast")):
        assert "has fewer than the" in cli(*words, "team/bot:v1", "--store", "store").out
    ran = cli("push", "team/bot:v1", "oci:other", "--store", "store")
    assert ran.code == 3 and f"SIZE: {gone['filename']} is there, and has fewer" in ran.error
    put_snapshot(tmp_path / "store", make_snapshot("W2b", tag="w2b"))
    ran = cli("inspect", "team/bot:w2b", "--store", "store")
    assert "missing: image blob" in ran.out and "warning: " in ran.out


def test_inspect_on_a_terminal_has_the_same_content(bot, tmp_path):
    plain = run_cli("inspect", "oci:layout", cwd=tmp_path).out
    shown = on_a_terminal("inspect", "oci:layout", cwd=tmp_path)
    assert b"\x1b[1m" in shown
    for word in ("team/bot:v1", "9f3c1a7be20d4c55", "memory-ranges", "application/vnd.cocoon.memory", "base-image"):
        assert word in plain and word.encode() in shown
    assert "…" not in shown.decode()


def test_no_color(bot, tmp_path):
    shown = on_a_terminal("inspect", "oci:layout", cwd=tmp_path, env={"NO_COLOR": "1"})
    assert b"memory-ranges" in shown and b"\x1b[3" not in shown


def test_where_tag_and_digest_are_written_the_digest_decides(cli, tmp_path, fake_registry):
    for tag in ("v1", "v2"):
        put_snapshot(tmp_path / "store", make_snapshot("W3b", tag=tag))
        assert cli("push", f"team/bot:{tag}", "oci:layout", "--store", "store", "-q").code == 0
    registry = fake_registry()
    for tag in ("v1", "v2"):
        assert cli("copy", f"oci:layout:{tag}", f"{registry.address}/team/bot:{tag}", "--allow-public", "-q").code == 0
    first, second = (cli("inspect", f"oci:layout:{tag}", "-q").out.strip() for tag in ("v1", "v2"))
    for where in ("oci:layout", f"{registry.address}/team/bot"):
        agreed = cli("inspect", f"{where}:v1@{first}", "-q")
        assert (agreed.out.strip(), agreed.err) == (first, "")
        for words in (("inspect",), ("verify",), ("convert",), ("pull", "--store", "copy", "--as", "bot:x", "--force")):
            ran = cli(words[0], f"{where}:v1@{second}", *words[1:])
            assert ran.code == 0 and f"{where}:v1 holds {first}; {second} is what counts" in ran.err, ran.err
        assert cli("inspect", "bot:x", "--store", "copy", "--format", "json").json["tag"] == "v2"
        gone = cli("inspect", f"{where}:v9@{second}", "--format", "json")
        assert gone.json["digest"] == second and "has no tag v9" in gone.err


def test_inspect_of_what_is_no_snapshot(cli, bot):
    assert cli("inspect", "store").code == 2
    assert cli("inspect", "./nowhere").code == 2
    assert cli("inspect", "team/bot:v9", "--store", "store").code == 5
    assert cli("inspect", "oci:layout:v9").code == 5
    assert cli("inspect", "oci:nowhere").code == 5
    assert cli("inspect", "bot").code == 2


def test_verify_finds_nothing_wrong(cli, bot, tmp_path):
    for words in (("store",), ("oci:layout",), ("oci:layout:v1", "--round-trip"), ("team/bot:v1", "--store", "store")):
        ran = cli("verify", *words, "--format", "json")
        assert ran.code == 0 and ran.err == ""
        assert ran.json.keys() == {"location", "ok", "checked", "findings", "notes"}
        assert ran.json["checked"].keys() == {"documents", "blobs", "bytes"}
        assert ran.json["ok"] is True and ran.json["checked"]["bytes"] == sum(map(len, bot.blobs.values()))
    fast = cli("verify", "store", "--fast", "--format", "json").json
    assert fast["ok"] is True and fast["checked"]["bytes"] == 0 and fast["checked"]["blobs"] == len(bot.blobs)
    assert "store: ok (1 document, 6 blobs, " in cli("verify", "store").out


def test_verify_finds_every_wrong_blob(cli, bot, tmp_path):
    first, second, *_ = bot.blobs
    (tmp_path / "store/blobs/sha256" / first).unlink()
    path = tmp_path / "store/blobs/sha256" / second
    path.write_bytes(b"?" + path.read_bytes()[1:])
    ran = cli("verify", "store", "--format", "json")
    assert ran.code == 3 and ran.json["ok"] is False
    found = {item["code"] for item in ran.json["findings"]}
    assert found == {"NOT_FOUND", "DIGEST"}
    assert all(item.keys() == {"object", "code", "problem"} for item in ran.json["findings"])
    assert ran.json_error["code"] in found
    ran = cli("verify", "store", "--fast")
    assert ran.code == 3 and len([line for line in ran.out.splitlines() if "NOT_FOUND" in line]) == 1
    assert "1 finding" in ran.out


def test_verify_reads_a_store_s_books(cli, bot, tmp_path):
    catalog = {
        "repositories": {"gone": {"tags": {"v1": "manifests/gone/v1.json"}, "updatedAt": "2026-04-04T00:00:00Z"}}
    }
    (tmp_path / "store/catalog.json").write_text(json.dumps({**catalog, "updatedAt": "2026-04-04T00:00:00Z"}))
    ran = cli("verify", "store", "--format", "json")
    assert ran.code == 3 and [item["code"] for item in ran.json["findings"]] == ["MISMATCH"]
    assert any("team/bot:v1" in note for note in ran.json["notes"])
    (tmp_path / "store/catalog.json").write_text("{")
    assert cli("verify", "store").code == 3


def test_verify_checks_a_layout_whole(cli, bot, tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot("W1", tag="v2"))
    cli("push", "team/bot:v2", "oci:layout", "--store", "store")
    ran = cli("verify", "oci:layout", "--format", "json")
    assert ran.code == 0 and ran.json["location"] == "oci:layout" and ran.json["checked"]["documents"] == 4
    ran = cli("verify", "oci:layout:v2", "--format", "json")
    assert ran.json["location"] == "oci:layout:v2" and ran.json["checked"]["documents"] == 2


def test_ls_of_a_store(cli, bot, tmp_path):
    put_snapshot(tmp_path / "store", make_snapshot("cloud-image", name="images/noble", tag="latest"))
    ran = cli("ls", "--store", "store", "--format", "json")
    assert ran.json.keys() == {"location", "snapshots"} and ran.json["location"] == "store"
    noble, robot = ran.json["snapshots"]
    assert noble.keys() == {"name", "tag", "digest", "size", "kind"}
    assert (noble["name"], noble["tag"], noble["kind"]) == ("images/noble", "latest", "cloud-image")
    assert (robot["size"], robot["digest"]) == (sum(map(len, bot.blobs.values())), str(bot.document.digest))
    for words in (("ls", "store"), ("ls",)):
        text = cli(*words, env={"EPOCH_STORE": "store"})
        assert [line.split()[0] for line in text.out.splitlines()] == ["SNAPSHOT", "images/noble:latest", "team/bot:v1"]
    assert len(cli("ls", "team/bot", "--store", "store").out.splitlines()) == 2
    assert len(cli("ls", "team/bot:v1", "--store", "store").out.splitlines()) == 2
    assert cli("ls", "team/bot:v9", "--store", "store").code == 5
    assert cli("ls", "team", "--store", "store").code == 5


def test_ls_of_a_modern_bucket_shows_signatures_when_asked(cli, tmp_path):
    """Epoch keeps what `cosign` and referrers are tagged with as any manifest."""
    bucket = make_bucket("epoch-0.2.1/bucket", tmp_path / "bucket")
    [path] = bucket.rglob("manifests/bot/v1.json")
    tags = [f"sha256-{'0' * 64}", f"sha256-{'0' * 64}.sig"]
    for tag in tags:
        path.with_name(f"{tag}.json").write_bytes(path.read_bytes())
    shown = [row["tag"] for row in cli("ls", path.parents[2], "--format", "json").json["snapshots"]]
    assert "v1" in shown and not set(tags) & set(shown)
    every = [row["tag"] for row in cli("ls", path.parents[2], "--all", "--format", "json").json["snapshots"]]
    assert sorted(every) == sorted([*shown, *tags])
    assert cli("ls", f"bot:{tags[1]}", "--store", path.parents[2]).code == 0


def test_ls_lists_what_it_cannot_read(cli, bot, tmp_path):
    (tmp_path / "store/manifests/team/bot/bad.json").write_text("{")
    ran = cli("ls", "store", "--format", "json")
    assert ran.code == 0 and ran.err.startswith("epoch-oci: warning: team/bot:bad: ")
    bad = ran.json["snapshots"][0]
    assert bad == {"name": "team/bot", "tag": "bad", "digest": None, "size": None, "kind": None}
    assert "unreadable" in cli("ls", "store", "-q").out and cli("ls", "store", "-q").err == ""


def test_ls_of_a_layout(cli, bot):
    assert cli("ls", "oci:layout", "--format", "json").json == {"location": "oci:layout", "tags": ["v1"]}
    assert cli("ls", "oci:layout").out == "v1\n"
    assert cli("ls", "oci:layout:v1").code == 2
    assert cli("ls", "oci:nowhere").code == 5
    assert cli("ls", "./nowhere").code == 5


@pytest.mark.parametrize("form", ["oci:layout", "oci-archive:layout.tar"])
def test_what_has_no_tag_counts_in_a_layout(cli, tmp_path, form):
    """As `skopeo copy … oci:DIR`, `crane pull --format=oci` and `oras cp --to-oci-layout` leave it."""
    layout = Layout()
    digest = layout.artifact()["digest"]
    layout.write(tmp_path / "layout")
    write_tar(tmp_path / "layout.tar", layout.members())
    assert cli("ls", form).out == f"{digest}\n"
    assert cli("ls", form, "--format", "json").json == {"location": form, "tags": [], "untagged": [digest]}
    (row,) = cli("ls", form, "--long", "--format", "json").json["artifacts"]
    assert row["digest"] == digest
    checked = cli("verify", form, "--format", "json").json
    assert checked["ok"] and checked["checked"]["documents"] == 2 and checked["checked"]["blobs"] == 3
    assert cli("pull", form, "-o", "files").code == 0


def test_an_empty_layout_is_said_to_be(cli, tmp_path):
    Layout().write(tmp_path / "layout")
    ran = cli("ls", "oci:layout")
    assert (ran.code, ran.out) == (0, "") and "lists no artifact" in ran.err
    assert cli("ls", "oci:layout", "-q").err == ""


def test_an_empty_store_lists_nothing(cli, tmp_path):
    (tmp_path / "empty/manifests").mkdir(parents=True)
    listed = cli("ls", "empty")
    assert (listed.code, listed.out) == (0, "") and "holds no snapshots" in listed.err
    assert cli("ls", "empty", "-q").err == ""
    assert cli("ls", "empty", "--format", "json").json["snapshots"] == []


def test_hostile_names_reach_no_terminal(tmp_path):
    made = make_snapshot("W1")
    made.raw = made.raw.replace(b"https://cloud", b"\\u001b]0;pwned\\u0007\\u202e[bold]https://cloud")
    put_snapshot(tmp_path / "store", made)
    odd = tmp_path / "store/manifests/a\x1b[31m\u202e"
    odd.mkdir()
    (odd / "v1.json").write_bytes(made.raw)
    for words in (("ls", "store"), ("verify", "store"), ("inspect", "team/bot:v1", "--store", "store")):
        for extra in ((), ("--format", "json")):
            ran = run_cli(*words, *extra, cwd=tmp_path)
            assert all(line.isprintable() and "\u202e" not in line for line in (ran.out + ran.err).splitlines())
    shown = on_a_terminal("inspect", "team/bot:v1", "--store", "store", cwd=tmp_path, env={"NO_COLOR": "1"})
    assert b"\x1b]0" not in shown and b"[bold]" in shown and "\u202e" not in shown.decode()


class TestNoStore:
    """A directory that is no Epoch store is not an empty one, and what it seems to be is said."""

    @pytest.fixture(autouse=True)
    def places(self, cli, bot, tmp_path):
        assert cli("push", "team/bot:v1", "oci:layout", "--store", "store").code == 0
        (tmp_path / "empty").mkdir()
        (tmp_path / "checkout/.git").mkdir(parents=True)
        (tmp_path / "half/blobs").mkdir(parents=True)
        (tmp_path / "half/index.json").write_text("{}")
        (tmp_path / "mirror").mkdir()
        (tmp_path / "store").rename(tmp_path / "mirror/epoch")
        make_root(tmp_path / "root")

    @pytest.mark.parametrize(
        ("place", "words"),
        [
            ("empty", "empty directory"),
            ("checkout", "has none of blobs, catalog.json, manifests"),
            ("layout", "name it oci:"),
            ("half", "name it oci:"),
            ("root", "name it cocoon:"),
            ("mirror", "name /"),
            ("nothing", "not there"),
        ],
    )
    def test_is_not_found(self, cli, tmp_path, place, words):
        path = tmp_path / place
        for line in (
            ("verify", path),
            ("ls", path),
            ("verify", f"file://{path}"),
            ("inspect", "bot:v1", "--store", path),
        ):
            ran = cli(*line)
            assert ran.code == 5 and words in ran.err, ran.err
            assert ran.out == ""
        ran = cli("push", "bot:v1", "oci:new", "--store", path)
        assert ran.code == 5 and not (tmp_path / "new").exists()

    @pytest.mark.parametrize("sign", ["manifests/", "blobs/", "catalog.json"])
    def test_an_empty_one_is_sound_with_a_note(self, cli, tmp_path, sign):
        path = tmp_path / "new" / sign
        path.mkdir(parents=True) if sign.endswith("/") else (path.parent.mkdir(), path.write_text("{}"))
        if sign.endswith(".json"):
            path.write_text('{"repositories": {}, "updatedAt": "2026-01-01T00:00:00Z"}')
        found = cli("verify", "./new", "--format", "json")
        assert found.code == 0 and found.json["ok"] and found.json["notes"], found.err

    @pytest.mark.parametrize("place", ["layout", "root"])
    def test_something_else_does_not_become_one(self, cli, tmp_path, place):
        before = tree(tmp_path / place)
        ran = cli("pull", "oci:layout", "--store", place)
        assert ran.code == 2 and "name it" in ran.error
        assert tree(tmp_path / place) == before

    @pytest.mark.parametrize("place", ["mirror/epoch", "root"])
    def test_something_else_does_not_become_a_layout(self, cli, tmp_path, place):
        before = tree(tmp_path / place)
        ran = cli("push", "team/bot:v1", f"oci:{place}:v1", "--store", "mirror/epoch")
        assert ran.code == 2 and "layout is not made in it" in ran.error
        assert tree(tmp_path / place) == before

    @pytest.mark.parametrize(
        ("place", "words"), [("mirror/epoch", "it is an Epoch store"), ("root", "name it cocoon:")]
    )
    def test_is_no_layout_either(self, cli, place, words):
        for line in (("verify", f"oci:{place}"), ("ls", f"oci:{place}"), ("pull", f"oci:{place}:v1", "--store", "new")):
            ran = cli(*line)
            assert ran.code == 5 and words in ran.error, ran.err

    def test_a_folder_called_snapshot_makes_no_cocoon_root(self, cli, tmp_path):
        (tmp_path / "work/snapshot").mkdir(parents=True)
        assert cli("push", "team/bot:v1", "oci:work", "--store", "mirror/epoch").code == 0
        (tmp_path / "other/snapshot").mkdir(parents=True)
        assert cli("pull", "oci:layout", "--store", "other").code == 0

    @pytest.mark.parametrize("place", ["empty", "checkout", "nothing"])
    def test_a_pull_makes_one(self, cli, tmp_path, place):
        assert cli("pull", "oci:layout", "--store", place).code == 0
        assert cli("verify", f"./{place}").code == 0

    def test_the_library_raises_too(self, tmp_path):
        for place in ("empty", "checkout", "layout", "root"):
            with pytest.raises(NotFoundError):
                open_store(str(tmp_path / place))
        assert list(open_store(str(tmp_path / "empty"), create=True).snapshots()) == []
        with pytest.raises(UsageError):
            open_store(str(tmp_path / "layout"), create=True)
        with pytest.raises(NotFoundError):
            list(open_store(str(tmp_path / "nothing")).snapshots())


class TestUntagged:
    """What `skopeo copy … oci:DIR` and others write counts as much as what has a tag."""

    @pytest.fixture(autouse=True)
    def layout(self, cli, bot, tmp_path):
        assert cli("push", "team/bot:v1", "oci:layout", "--store", "store").code == 0
        index = tmp_path / "layout/index.json"
        value = json.loads(index.read_bytes())
        for entry in value["manifests"]:
            del entry["annotations"]
        index.write_text(json.dumps(value))

    def test_is_verified(self, cli, tmp_path):
        found = cli("verify", "oci:layout", "--format", "json")
        assert found.code == 0 and found.json["checked"]["blobs"] == 6
        largest = max((tmp_path / "layout/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        largest.write_bytes(b"?" + largest.read_bytes()[1:])
        assert cli("verify", "oci:layout").code == 3

    def test_that_is_lost_is_a_finding(self, cli, tmp_path):
        for path in (tmp_path / "layout/blobs/sha256").iterdir():
            path.unlink()
        found = cli("verify", "oci:layout", "--format", "json")
        assert found.code == 3 and found.json["findings"]
