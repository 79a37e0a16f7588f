"""`convert` and `validate`."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from cli_runner import Here, run_cli
from snapshots import WRITERS, make_snapshot, put_snapshot

DATA = Path(__file__).parent / "data"
EPOCH = sorted((DATA / "epoch").glob("*.json"))
BAD = DATA / "schemas/epoch-manifest.v1/invalid/sizes-wrong.json"


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.mark.parametrize("path", EPOCH, ids=lambda path: path.stem)
def test_there_and_back_is_the_same_bytes(cli, path, tmp_path):
    there = cli("convert", path, "-o", "both", "--format", "json")
    assert there.code == 0
    assert there.json.keys() >= {"digest", "artifactType", "derived", "carried", "lost"}
    manifest = tmp_path / "both/oci-manifest.json"
    assert there.json["digest"] == "sha256:" + hashlib.sha256(manifest.read_bytes()).hexdigest()
    back = run_cli("convert", manifest)
    assert back.code == 0 and back.out.encode() == path.read_bytes()
    assert (tmp_path / "both/epoch-manifest.json").read_bytes() == path.read_bytes()


def test_standard_output_is_the_document_alone(cli, tmp_path):
    path = DATA / "epoch/w1.json"
    plain, asked = run_cli("convert", path), run_cli("convert", path, "--format", "json")
    assert plain.err == "" and not plain.out.endswith("\n") and asked.out == plain.out
    cli("convert", path, "-o", "both")
    assert plain.out.encode() == (tmp_path / "both/oci-manifest.json").read_bytes()


def test_a_file_on_standard_input():
    raw = (DATA / "epoch/w1.json").read_bytes()
    assert run_cli("convert", "-", input=raw).out == run_cli("convert", DATA / "epoch/w1.json").out


def test_text_of_a_conversion_into_files_ends_with_the_digest(cli):
    ran = cli("convert", DATA / "epoch/w1.json", "-o", "both")
    assert ran.out.startswith("Wrote oci-manifest.json and epoch-manifest.json to both\n")
    assert ran.out.splitlines()[-1].startswith("Digest: sha256:")


def test_files_are_private_and_not_overwritten(cli, tmp_path):
    cli("convert", DATA / "epoch/w1.json", "-o", "both")
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "both").iterdir()} == {"0o600"}
    before = (tmp_path / "both/oci-manifest.json").stat().st_mtime_ns
    assert cli("convert", DATA / "epoch/w1.json", "-o", "both").code == 0
    assert (tmp_path / "both/oci-manifest.json").stat().st_mtime_ns == before
    ran = cli("convert", DATA / "epoch/w3b.json", "-o", "both")
    assert ran.code == 9 and "oci-manifest.json has other content" in ran.error
    assert cli("convert", DATA / "epoch/w3b.json", "-o", "both", "--force").code == 0
    assert (tmp_path / "both/epoch-manifest.json").read_bytes() == (DATA / "epoch/w3b.json").read_bytes()


@pytest.mark.parametrize("kind", WRITERS)
def test_from_a_layout(tmp_path, kind):
    made = make_snapshot(kind)
    put_snapshot(tmp_path / "store", made)
    run_cli("push", "team/bot:v1", "oci:layout", "--store", "store", cwd=tmp_path)
    for word in ("oci:layout", "oci:layout:v1"):
        assert run_cli("convert", word, cwd=tmp_path).out.encode() == made.raw
    again = run_cli("convert", "oci:layout", "--to", "oci", cwd=tmp_path)
    listed = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"][0]["digest"]
    assert "sha256:" + hashlib.sha256(again.out.encode()).hexdigest() == listed


def test_the_config_of_a_manifest_in_a_file(cli, tmp_path):
    cli("convert", DATA / "epoch/w1.json", "-o", "both")
    (tmp_path / "both/oci-manifest.json").rename(tmp_path / "alone.json")
    ran = cli("convert", "alone.json")
    assert ran.code == 5 and "--config FILE" in ran.error
    assert (
        cli("convert", "alone.json", "--config", DATA / "epoch/w1.json").out.encode()
        == (DATA / "epoch/w1.json").read_bytes()
    )
    ran = cli("convert", "alone.json", "--config", DATA / "epoch/w3b.json")
    assert ran.code == 3 and ran.out == ""
    assert cli("convert", "alone.json", "--config", "nowhere").code == 5
    ran = cli("convert", DATA / "epoch/w1.json", "--config", DATA / "epoch/w1.json")
    assert ran.code == 2 and "--config goes with" in ran.error


def test_annotations_are_minted(cli):
    value = json.loads(cli("convert", DATA / "epoch/w1.json", "-a", "a.b=c").out)
    assert value["annotations"]["a.b"] == "c"


@pytest.mark.parametrize(
    ("words", "code", "word"),
    [
        (("nowhere.json",), 5, "NOT_FOUND"),
        (("oci:nowhere",), 5, "NOT_FOUND"),
        ((DATA,), 2, "USAGE"),
        ((DATA / "epoch/w1.json", "--to", "epoch"), 2, "USAGE"),
        ((DATA / "epoch/w1.json", "--dialect", "nope"), 2, "USAGE"),
        ((DATA / "schemas/epoch-catalog.v1/valid/empty.json",), 3, "TYPE"),
        ((BAD,), 3, "SIZE"),
        (("/dev/null",), 3, "JSON"),
    ],
)
def test_what_cannot_be_converted(cli, words, code, word):
    ran = cli("convert", *words)
    assert ran.code == code and ran.error.startswith(f"epoch-oci: {word}: ") and ran.out == ""


def test_validate_says_what_a_document_is(cli):
    ran = cli("validate", *EPOCH)
    assert ran.code == 0 and ran.err == ""
    assert ran.out.splitlines() == [f"{path}: ok (epoch-manifest.v1)" for path in EPOCH]


def test_validate_has_every_finding_at_once(cli):
    ran = cli("validate", BAD, EPOCH[0])
    assert ran.code == 3
    lines = ran.out.splitlines()
    assert lines[-1] == f"{EPOCH[0]}: ok (epoch-manifest.v1)"
    assert all(line.startswith(f"{BAD}: $.layers[") for line in lines[:-1]) and len(lines) > 10
    assert ran.error.startswith("epoch-oci: SIZE: ")


def test_validate_as_json(cli):
    ran = cli("validate", BAD, EPOCH[0], "--format", "json")
    assert ran.code == 3 and ran.json.keys() == {"valid", "documents"} and ran.json["valid"] is False
    bad, good = ran.json["documents"]
    assert bad.keys() == good.keys() == {"file", "kind", "findings"}
    assert good == {"file": str(EPOCH[0]), "kind": "epoch-manifest.v1", "findings": []}
    assert all(item.keys() == {"path", "code", "problem", "severity"} for item in bad["findings"])
    assert cli("validate", EPOCH[0], "--format", "json").json["valid"] is True


def test_a_warning_is_no_failure(cli, tmp_path):
    raw = (DATA / "epoch/w1.json").read_bytes()
    (tmp_path / "odd.json").write_bytes(raw.replace(b'"totalSize": ', b'"totalSize": 9'))
    ran = cli("validate", "odd.json")
    assert ran.code == 0 and "odd.json: $.totalSize: SIZE: warning: " in ran.out and "odd.json: ok" in ran.out


def test_validate_as_a_kind_that_is_asked_for(cli):
    ran = cli("validate", "--schema", "epoch-catalog.v1", EPOCH[0])
    assert ran.code == 3 and "$.repositories" in ran.out
    ran = cli("validate", "--schema", "epoch-manifest.v2", EPOCH[0])
    assert ran.code == 2 and "epoch-manifest.v1" in ran.error


def test_validate_reads_standard_input():
    ran = run_cli("validate", "-", input=EPOCH[0].read_bytes())
    assert (ran.code, ran.out) == (0, "-: ok (epoch-manifest.v1)\n")
    assert run_cli("validate", "-", input=b"{}").code == 3


def test_validate_of_what_is_not_there(cli, tmp_path):
    assert cli("validate", "nowhere.json").code == 5
    assert cli("validate", EPOCH[0], "nowhere.json").code == 5
    assert cli("validate", tmp_path).code == 2


def test_a_hostile_document_shows_no_control_byte(tmp_path):
    hostile = {
        "schemaVersion": 1,
        "name": "a\u001b]0;x\u0007\u202e\u009b31m",
        "tag": "\u0000",
        "layers": [{"filename": "\u001b[2J"}],
    }
    (tmp_path / "h.json").write_text(json.dumps(hostile))
    for words in (("validate", "h.json"), ("validate", "h.json", "--format", "json"), ("convert", "h.json")):
        ran = run_cli(*words, cwd=tmp_path)
        assert ran.code == 3
        for line in (ran.out + ran.err).splitlines():
            assert line.isprintable() and "\u202e" not in line


def test_a_hostile_file_name_is_shown_escaped(tmp_path):
    name = b"bad\xff\x1b[31m.json"
    Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"{}")
    ran = run_cli("validate", os.fsdecode(name), cwd=tmp_path)
    assert ran.code == 3 and "\x1b" not in ran.out + ran.err and "bad\\xff\\x1b[31m.json" in ran.out


def test_one_document_that_is_not_there_hides_nothing_of_the_others(cli):
    good = DATA / "epoch/w1.json"
    done = cli("validate", "nowhere.json", good, "gone.json", "--format", "json")
    assert done.code == 5 and "nowhere.json" in done.err and "gone.json" in done.err
    assert not done.json["valid"] and [row["file"] for row in done.json["documents"]] == [str(good)]
    wrong = cli("validate", "nowhere.json", BAD)
    assert wrong.code == 3 and "nowhere.json" in wrong.err and str(BAD) in wrong.out
