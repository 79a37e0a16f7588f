"""What lies in examples/deploy does what it says, as far as that can be tried without a cluster."""

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cli_runner import run_cli
from snapshots import make_snapshot, put_snapshot
from support.registry_auth import PASSWORD, USER, BasicAuth

from epoch_oci.cli.app import parse
from epoch_oci.cli.parser import Call

DEPLOY = Path(__file__).parent.parent / "examples/deploy"
ACTION = yaml.safe_load((DEPLOY / "push-snapshot/action.yml").read_text())
CRONJOB = list(yaml.safe_load_all((DEPLOY / "kubernetes/cronjob.yaml").read_text()))[1]
UNIT = (DEPLOY / "systemd/epoch-oci-sync.service").read_text()
CONTAINER = (DEPLOY / "Containerfile").read_text()
PREFETCH = DEPLOY / "node/prefetch.sh"


@pytest.fixture
def store(tmp_path) -> Path:
    put_snapshot(tmp_path / "store", make_snapshot("w3b"))
    return tmp_path / "store"


def environment(**more: object) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **{name: str(value) for name, value in more.items()}}


def unit_words() -> list[str]:
    line = re.search(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)[1]
    return shlex.split(line.replace("${SOURCE}", "s3://snapshots").replace("${TARGET}", "harbor.example.com/vms"))[1:]


def mirror_words() -> list[str]:
    """What the Containerfile's head says to run."""
    text = CONTAINER[: CONTAINER.index("ARG")].replace("\n#", " ").replace("\\", "")
    return shlex.split(text[text.rindex("epoch-oci sync") :])[1:]


def container_of(job: dict) -> dict:
    return job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("words", [unit_words(), container_of(CRONJOB)["args"], mirror_words()])
def test_every_command_is_one(words):
    assert isinstance(call := parse(words, {}), Call) and call.command == "sync"


def test_an_exit_that_repeating_cannot_mend_is_not_repeated():
    """Every exit code of the README but 0, 6 (may succeed later) and interruptions."""
    final = {1, 2, 3, 4, 5, 7, 8, 9, 10}
    assert {*map(int, re.search(r"^RestartPreventExitStatus=(.*)$", UNIT, re.MULTILINE)[1].split())} == final
    rules = CRONJOB["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert set(rules[0]["onExitCodes"]["values"]) == final


def test_a_pod_may_write_to_its_volume_alone_and_finds_secrets_as_files():
    container = container_of(CRONJOB)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert [path for path, read_only in mounts.items() if not read_only] == ["/var/lib/epoch-oci"]
    for variable in container["env"]:
        assert str(Path(variable["value"]).parent) in mounts


@pytest.mark.parametrize(
    ("minutes", "ok", "healthy"), [(1, True, True), (1, False, False), (150, True, False), (None, True, False)]
)
def test_a_container_is_healthy_while_rounds_go_well(tmp_path, minutes, ok, healthy):
    """The file as `sync --every --health-file` writes it; and before it has written one."""
    command = json.loads(re.search(r"^    CMD (\[.*\])$", CONTAINER, re.MULTILINE)[1])
    file = tmp_path / "health.json"
    if minutes is not None:
        ended = datetime.now(UTC) - timedelta(minutes=minutes)
        file.write_text(json.dumps({"ok": ok, "ended": ended.isoformat(timespec="seconds")}))
    age = re.search(r"HEALTH_MAX_AGE=(\d+)", CONTAINER)[1]
    done = subprocess.run(
        [sys.executable, *command[1:]],
        env=environment(HEALTH_FILE=file, HEALTH_MAX_AGE=age),
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode == 0) is healthy


def push_step(tmp_path: Path, **inputs: object) -> subprocess.CompletedProcess:
    """The Action's second step as a runner does it: its script, its inputs in the environment."""
    step = ACTION["runs"]["steps"][1]
    names = {name: re.search(r"inputs\.(\w+)", text)[1] for name, text in step["env"].items()}
    values = {name: str(inputs.get(given, ACTION["inputs"][given].get("default", ""))) for name, given in names.items()}
    program = tmp_path / "epoch-oci/bin/epoch-oci"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable).parent / "epoch-oci")
    (tmp_path / "script.sh").write_text(step["run"])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", tmp_path / "script.sh"],
        env=environment(RUNNER_TEMP=tmp_path, GITHUB_OUTPUT=tmp_path / "output", **values),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_action_pushes_and_says_what(fake_registry, store, tmp_path):
    registry = fake_registry(auth=BasicAuth())
    target = f"{registry.address}/acme/bot"
    given = {"snapshot": "team/bot:v1", "store": store, "username": USER, "password": PASSWORD}
    done = push_step(tmp_path, target=f"{target}:v1,stable", flags="--annotation\na=b c\n\n--allow-public\n", **given)
    assert done.returncode == 0, done.stderr
    said = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    assert said["reference"] == f"{target}@{said['digest']}" and PASSWORD not in done.stdout + done.stderr
    words = ("inspect", said["reference"], "--format", "json", "-u", USER)
    assert run_cli(*words, env={"EPOCH_OCI_PASSWORD": PASSWORD}).json["name"] == "team/bot"


def test_what_is_given_to_the_action_is_never_run(fake_registry, store, tmp_path):
    given = {"snapshot": "$(touch run)`touch run`; touch run", "target": "localhost:1/a:$(touch run)", "username": ""}
    done = push_step(tmp_path, store=store, flags="$(touch run)\n; touch run", **given)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert not any("${{" in step.get("run", "") for step in ACTION["runs"]["steps"])


COCOON = """#!/bin/bash
# Cocoon as far as the recipe needs it: snapshots are files, and an archive that is cut off passes for one.
shelf=$(dirname "$0")/shelf; mkdir -p "$shelf"
file=$shelf/$(basename "${4:-$3}")
case "$1 $2" in
"snapshot inspect") [ -e "$file" ] ;;
"snapshot import") if [ -e "$file" ]; then cat >/dev/null; exit 1; fi; cat >"$file" ;;
"snapshot rm") rm "$file" ;;
*) exit 2 ;;
esac
"""


@pytest.fixture
def node(tmp_path, fake_registry, store):
    """A node and a registry with two tags of one snapshot. Runs the recipe: exit code, lines, what is there then."""
    registry = fake_registry()
    for tag in ("v1", "latest"):
        assert run_cli("push", "team/bot:v1", f"{registry.address}/vms/bot:{tag}", "--store", store).code == 0
    cocoon = tmp_path / "node/cocoon"
    cocoon.parent.mkdir()
    cocoon.write_text(COCOON)
    cocoon.chmod(0o755)

    def run(*names: str) -> tuple[int, list[str], set[str]]:
        words = [PREFETCH, f"{registry.address}/vms/", *names]
        done = subprocess.run(
            words, env=environment(COCOON=cocoon), cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout.splitlines(), {path.name for path in (cocoon.parent / "shelf").iterdir()}

    return run


def test_a_node_has_snapshots_under_the_names_that_vk_cocoon_looks_for(node):
    assert node("bot:v1", "bot") == (0, ["bot:v1: imported", "bot: imported"], {"bot:v1", "bot"})
    assert node("bot:v1", "bot:latest") == (0, ["bot:v1: there", "bot: there"], {"bot:v1", "bot"})


def test_a_snapshot_that_cannot_be_had_keeps_no_other_and_leaves_nothing(node):
    assert node("bot:gone", "bot:v1") == (10, ["bot:v1: imported"], {"bot:v1"})
