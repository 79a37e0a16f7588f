"""What scripts rely on: whatever a command prints as JSON has a schema, and the reference page is as the program is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import interface
import pytest
from cli_runner import Here, run_cli
from snapshots import make_snapshot, put_snapshot
from support.registry_auth import PASSWORD, USER, BasicAuth

from epoch_oci import schemas
from epoch_oci.cli.app import VERBS

ROOT = Path(__file__).parent.parent
PRINTS_JSON = sorted(set(VERBS) - interface.NOT_JSON)


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capsys)


@pytest.fixture
def home(cli, tmp_path):
    """A store with two versions, and a layout that has both."""
    for tag in ("v1", "v2"):
        put_snapshot(tmp_path / "store", make_snapshot("W3b", tag=tag))
        assert cli("push", f"team/bot:{tag}", "oci:layout", "--store", "store").code == 0
    return tmp_path


LINES = {
    "push": [
        ("team/bot:v1", "oci:other", "--store", "store"),
        ("team/bot:v2", "oci:other", "--store", "store", "--dry-run"),
        ("team/bot:v2", "oci:other", "--store", "store", "--chunked"),
    ],
    "pull": [("oci:layout:v1", "--store", "to"), ("oci:layout:v1", "-o", "files", "--dry-run")],
    "sync": [("store", "oci:all", "--dry-run"), ("store", "oci:all")],
    "copy": [("oci:layout:v1", "oci:copied:v1"), ("oci:layout:v1", "oci:copied:v9", "--dry-run")],
    "tag": [("oci:layout:v1", "stable")],
    "rm": [("oci:layout:v1", "oci:layout:v2", "--dry-run"), ("oci:layout:v1", "--yes")],
    "prune": [("oci:layout", "--keep-last", "1", "--dry-run"), ("store", "--yes")],
    "convert": [("store/manifests/team/bot/v1.json", "-o", "converted")],
    "validate": [("store/manifests/team/bot/v1.json",)],
    "inspect": [("oci:layout:v1",), ("team/bot:v1", "--store", "store")],
    "verify": [("store",), ("oci:layout", "--fast")],
    "ls": [("store",), ("oci:layout",), ("oci:layout", "-l")],
    "diff": [("oci:layout:v1", "oci:layout:v2", "--deep")],
    "config": [("show",)],
    "schemas": [(), ("--dir", "schemas")],
    "demo": [()],
    "version": [()],
}


@pytest.mark.parametrize("verb", PRINTS_JSON)
def test_every_command_prints_what_its_schema_says(cli, home, verb, fake_registry, monkeypatch):
    monkeypatch.setattr(interface, "SEEN", {})
    if verb in ("login", "logout"):
        registry = fake_registry(auth=BasicAuth())
        words = ("--username", USER, "--password-stdin", "--format", "json")
        assert run_cli("login", registry.address, *words, input=PASSWORD.encode()).code == 0
        lines = [("login", registry.address, "-u", USER)] if verb == "login" else [("logout", registry.address)]
        monkeypatch.setenv("EPOCH_OCI_PASSWORD", PASSWORD)
    elif verb == "doctor":
        registry = fake_registry()
        registry.put_image("acme/bot", "v1")
        lines = [(verb, registry.address), (verb, f"{registry.address}/acme/bot", "--write")]
    else:
        lines = [(verb, *words) for words in LINES[verb]]
    for line in lines:
        ran = cli(*line, "--format", "json", "--progress", "json")
        assert ran.code == 0, ran.err
    assert interface.SEEN[f"cli/{verb}.v1"] >= len(lines)


def test_what_fails_is_said_in_the_schema_s_words(cli, home, monkeypatch):
    monkeypatch.setattr(interface, "SEEN", {})
    assert cli("inspect", "none:v1", "--store", "store", "--format", "json").code == 5
    assert cli("rm", "oci:layout:v1", "oci:layout:gone", "--yes", "--format", "json").code == 10
    assert cli("pull", "oci:layout:none", "--store", "to", "--format", "json", "--progress", "json").code == 5
    assert interface.SEEN["cli/error.v1"] == 3
    assert interface.SEEN["cli/event.v1"] >= 1 and interface.SEEN["cli/rm.v1"] == 1


def test_no_schema_is_left_over_and_none_is_missing():
    others = {"error", "event", "sync-round", "config-file"}
    assert {kind.removeprefix("cli/").removesuffix(".v1") for kind in schemas.interfaces()} == {*PRINTS_JSON, *others}


@pytest.mark.parametrize("kind", sorted({*schemas.interfaces()} - {"cli/config-file.v1"}))
def test_a_schema_names_its_members_and_lets_later_versions_add_some(kind):
    rule = schemas.schema(kind)
    for example in rule["examples"]:
        interface._hold(example, kind)
        assert schemas.findings({**example, "member of a later version": 1}, kind) == []
        with pytest.raises(AssertionError):
            interface._hold({**example, "member of a later version": 1}, kind)
        for member in rule.get("required", ()):
            assert schemas.findings({key: item for key, item in example.items() if key != member}, kind)


def test_the_harness_finds_what_no_schema_has():
    """It holds up every other test, so it had better see."""
    words = ["tag", "oci:a:v1", "v2", "--format", "json"]
    good = schemas.schema("cli/tag.v1")["examples"][0]
    interface.check(words, {}, json.dumps(good, indent=2), "")
    event = {"event": "wait", "digest": None, "bytes": 0, "total": 0}
    for out, err in (
        (json.dumps({**good, "more": 1}), ""),
        (json.dumps({**good, "tags": [{"tag": "v2"}]}), ""),
        ("{}", ""),
        (json.dumps(good), json.dumps({"error": {"code": "ODD", "message": "", "object": None}})),
        (json.dumps(good), json.dumps(event)),
    ):
        with pytest.raises(AssertionError):
            interface.check(words, {}, out, err)
    interface.check(words, {}, json.dumps(good), json.dumps({**event, "message": "it is asked to"}))


def test_the_reference_page_is_as_the_program_is():
    done = subprocess.run([sys.executable, ROOT / ".ci" / "docs_cli.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


READS = re.compile(
    r'environ(?:\.get\(|\[)"(\w+)"|_directory\("(\w+)"|_either\(environ, "(\w+)"|VARIABLE = (?:PREFIX \+ )?"(\w+)"'
)


def test_every_variable_that_is_read_is_documented():
    pages = "\n".join((ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("cli", "access", "stores"))
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "epoch_oci").rglob("*.py"))
    names = {next(filter(None, found)) for found in READS.findall(source)}
    assert {"EPOCH_OCI_CONFIG", "XDG_STATE_HOME", "no_proxy", "DOCKER_CONFIG", "PASSWORD"} <= names
    assert sorted(name for name in names if name not in pages) == []
