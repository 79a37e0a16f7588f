"""`convert` and `validate`."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from cli_runner import Here, run_cli
from jsonschema import Draft202012Validator
from snapshots import WRITERS, make_snapshot, put_snapshot
from support.peers import NODE_MODULES, require_node_package

from epoch_oci.cli.app import parse

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


def sarif_of(ran) -> dict:
    """The one run of a log, its head as SARIF 2.1.0 wants it."""
    assert ran.json["version"] == "2.1.0" and ran.json["$schema"].endswith("sarif-schema-2.1.0.json")
    [run] = ran.json["runs"]
    assert run["tool"]["driver"]["name"] == "epoch-oci" and run["columnKind"] == "unicodeCodePoints"
    return run


def test_validate_for_code_scanning(cli, tmp_path):
    """Each finding at its line, from the top of the file down, with its rule; its fingerprint survives new lines."""
    text = BAD.read_text()
    Path("in a folder%").mkdir()
    Path("in a folder%/v1.json").write_text(text)
    ran = cli("validate", "./in a folder%/v1.json", DATA / "epoch/w1.json", "--format", "sarif")
    assert ran.code == 3
    run = sarif_of(ran)
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert {place["artifactLocation"]["uri"] for place in places} == {"in%20a%20folder%25/v1.json"}
    assert [place["region"]["startLine"] for place in places] == sorted(
        place["region"]["startLine"] for place in places
    )
    for result, place in zip(run["results"], places, strict=True):
        name = result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]
        assert name.rpartition(".")[2] in text.splitlines()[place["region"]["startLine"] - 1]
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] == "error" and result["message"]["text"].startswith(name)
    Path("in a folder%/v1.json").write_text("\n\n" + text)
    again = sarif_of(cli("validate", "in a folder%/v1.json", "--format", "sarif"))
    assert [item["partialFingerprints"] for item in again["results"]] == [
        item["partialFingerprints"] for item in run["results"]
    ]
    assert again["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] == (
        places[0]["region"]["startLine"] + 2
    )


def test_code_scanning_of_what_is_right_and_of_what_is_not_there(cli, tmp_path):
    good = sarif_of(cli("validate", DATA / "epoch/w1.json", "--format", "sarif"))
    assert good["results"] == [] and good["invocations"][0]["executionSuccessful"] is True
    ran = cli("validate", DATA / "epoch/w1.json", "gone.json", "--format", "sarif")
    assert ran.code == 5
    [note] = sarif_of(ran)["invocations"][0]["toolExecutionNotifications"]
    assert note["descriptor"]["id"] == "NOT_FOUND" and "gone.json" in note["message"]["text"]


def test_code_scanning_is_given_no_more_than_it_takes_and_the_errors_before_the_warnings(cli):
    document = json.loads((DATA / "epoch/w1.json").read_bytes())
    Path("warned.json").write_text(json.dumps(document | {"totalSize": 1}))
    row = {"digest": "no digest", "size": -1, "filename": "../up", "mediaType": 5}
    Path("bad.json").write_text(json.dumps(document | {"layers": [row] * 1_900}))
    ran = cli("validate", "warned.json", "bad.json", "--format", "sarif")
    every = [item for one in cli("validate", "warned.json", "bad.json", "--format", "json").json["documents"]
             for item in one["findings"]]  # fmt: skip
    run = sarif_of(ran)
    assert ran.code == 3 and len(every) > len(run["results"]) == 5_000
    assert any(item["severity"] == "warning" for item in every)
    assert {item["level"] for item in run["results"]} == {"error"}
    [note] = run["invocations"][0]["toolExecutionNotifications"]
    assert note["level"] == "warning" and f"{len(every) - 5_000} of {len(every)} findings" in note["message"]["text"]


@pytest.mark.peer
def test_what_code_scanning_is_given_fits_the_schema_of_sarif_itself(cli):
    require_node_package("@microsoft/sarif-multitool-linux")
    official = json.loads((NODE_MODULES / "@microsoft/sarif-multitool-linux/sarif-2.1.0.json").read_bytes())
    validator = Draft202012Validator(official, format_checker=Draft202012Validator.FORMAT_CHECKER)
    Path("[a](b) %.json").write_text(BAD.read_text())
    Path("broken.json").write_text("{")
    for words in ([DATA / "epoch/w1.json"], ["[a](b) %.json", "broken.json", BAD.resolve(), "gone.json"]):
        log = cli("validate", *words, "--format", "sarif").json
        assert [error.message for error in validator.iter_errors(log)] == []


def test_a_message_for_code_scanning_holds_no_link(cli):
    Path("bad.json").write_text(json.dumps({"schemaVersion": 1, "layers": "[click](http://evil.example)", "name": 7}))
    texts = [item["message"]["text"] for item in sarif_of(cli("validate", "bad.json", "--format", "sarif"))["results"]]
    assert texts and not any("](" in text and "\\](" not in text for text in texts)


def undone(text: str) -> str:
    """As a runner of GitHub undoes its escapes."""
    for escape, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(escape, char)
    return text


@pytest.mark.parametrize(
    "name", ["v1.json", "a,b:c%0A.json", "::error::x.json", "new\nline\r::error::.json", "%3A.json"]
)
def test_validate_for_workflows_names_the_file_and_the_line_whatever_they_are(tmp_path, name):
    (tmp_path / name).write_text(BAD.read_text())
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok" / name).write_bytes((DATA / "epoch/w1.json").read_bytes())
    ran = run_cli("validate", f"ok/{name}", name, "--format", "github", cwd=tmp_path)
    assert ran.code == 3
    first, *commands = ran.out.splitlines()
    assert first.startswith("ok: ok/") and len(commands) > 5
    for command in commands:
        head, _, message = command.removeprefix("::error ").partition("::")
        found = dict(item.split("=", 1) for item in head.split(","))
        assert set(found) == {"file", "line", "col", "title"} and undone(found["file"]) == name
        assert int(found["line"]) > 1 and found["title"] in ("SIZE", "DIGEST") and message.startswith("$.layers[")


@pytest.mark.parametrize("name", ["::error::x.json", " ::add-mask::x.json", "##[error]x.json", "a\x1b[31m\x9b.json"])
def test_no_name_is_a_command_to_a_terminal_or_a_runner(tmp_path, name):
    (tmp_path / name).write_text(BAD.read_text())
    for form in ("text", "github", "sarif", "json"):
        ran = run_cli("validate", name, "--format", form, cwd=tmp_path)
        assert ran.code == 3 and ran.out
        for line in (*ran.out.splitlines(), *ran.err.splitlines()):
            assert line.isprintable() and (form in ("sarif", "json") or "##[" not in line)
            assert not line.lstrip().startswith("::") or (form == "github" and line.startswith("::error file="))


def test_a_warning_is_one_in_every_form(cli):
    document = json.loads((DATA / "epoch/w1.json").read_bytes())
    document["totalSize"] += 1
    Path("odd.json").write_text(json.dumps(document, indent=1))
    ran = cli("validate", "odd.json", "--format", "github")
    assert ran.code == 0 and ran.out.startswith("::warning file=odd.json,line=") and "ok: odd.json" in ran.out
    assert sarif_of(cli("validate", "odd.json", "--format", "sarif"))["results"][0]["level"] == "warning"


def test_a_broken_document_is_pointed_at_where_it_breaks(cli):
    Path("broken.json").write_text('{\n "layers": [1,,]\n}')
    Path("latin.json").write_bytes(b'{\n "a": "\xff"\n}')
    Path("stray.json").write_text("{}")
    ran = cli("validate", "broken.json", "latin.json", "stray.json", "--format", "github")
    assert [line.partition(",title")[0] for line in ran.out.splitlines()] == [
        "::error file=broken.json,line=2,col=15",
        "::error file=latin.json,line=2,col=7",
        "::error file=stray.json,line=1,col=1",
    ]


def test_formats_for_review_are_for_documents_alone(cli):
    assert cli("ls", "--format", "sarif").code == 2
    assert cli("validate", DATA / "epoch/w1.json", env={"EPOCH_OCI_FORMAT": "github"}).out.startswith("ok: ")
    assert cli("--format", "github", "validate", DATA / "epoch/w1.json").out.startswith("ok: ")


def test_schemas_are_listed_and_printed_as_they_are(cli, tmp_path):
    folder = Path(__file__).parent.parent / "schemas"
    names = {str(path.relative_to(folder)).removesuffix(".schema.json") for path in folder.rglob("*.json")}
    listed = cli("schemas", "--format", "json").json["schemas"]
    assert {row["name"] for row in listed} == names and len(listed) == len(names)
    assert len(cli("schemas").out.splitlines()) == len(names) + 1
    for name in ("epoch-manifest.v1", "cli/push.v1", "oci-layout.v1.schema.json"):
        raw = (folder / f"{name.removesuffix('.schema.json')}.schema.json").read_bytes()
        assert run_cli("schemas", name).out.encode() == raw
    assert cli("schemas", "nonsense").code == 5


def test_schemas_are_exported_and_nothing_else_is_replaced(cli, tmp_path):
    folder = Path(__file__).parent.parent / "schemas"
    assert cli("schemas", "--dir", "out/schemas").code == 0
    # Editors of all users read them.
    assert {path.stat().st_mode & 0o777 for path in Path("out/schemas").rglob("*.json")} == {0o644}
    assert {path.relative_to("out/schemas"): path.read_bytes() for path in Path("out/schemas").rglob("*.json")} == {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json")
    }
    older = Path("out/schemas/epoch-manifest.v1.schema.json")
    older.write_text('{"$id": "urn:epoch-oci:schema:epoch-manifest.v1"}')
    assert cli("schemas", "epoch-manifest.v1", "--dir", "out/schemas").code == 0
    assert older.read_bytes() == (folder / older.name).read_bytes()
    older.write_text("{}")
    assert cli("schemas", "--dir", "out/schemas").code == 9 and older.read_text() == "{}"
    Path("file").write_text("")
    assert cli("schemas", "--dir", "file").code == 7


def test_the_hook_for_pre_commit_is_a_command_line():
    """And chooses what an Epoch store calls its manifests; what it passes on are names of files."""
    [hook] = yaml.safe_load((Path(__file__).parent.parent / ".pre-commit-hooks.yaml").read_text())
    assert parse([*hook["entry"].split()[1:], "a.json", "b.json"], {}).command == "validate"
    assert re.search(hook["files"], "store/manifests/team/bot/v1.json") and not re.search(hook["files"], "package.json")
