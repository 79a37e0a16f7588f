"""The examples run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import run_cli

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """The demo's snapshot, as the README of the examples says."""
    folder = tmp_path_factory.mktemp("demo")
    assert run_cli("demo", "--keep", folder / "kept").code == 0
    return folder / "kept/store-a"


def run(*words: object, cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, *map(str, words)] if str(words[0]).endswith(".py") else [*map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_translate(store, tmp_path):
    lines = run(EXAMPLES / "translate.py", store / "manifests/demo-bot/v1.json", cwd=tmp_path).splitlines()
    assert lines[0].startswith("sha256:") and "memory-ranges" in "\n".join(lines[1:])


def test_push_and_watch(store, tmp_path):
    said = run(EXAMPLES / "push_and_watch.py", store, "demo-bot:v1", "oci:layout", cwd=tmp_path)
    translated = run(EXAMPLES / "translate.py", store / "manifests/demo-bot/v1.json", cwd=tmp_path)
    assert said.count("    sent ") == 8
    assert said.split()[-1] == translated.split()[0]


def test_sizes(store, tmp_path):
    assert "demo-bot:v1" in run(EXAMPLES / "sizes.py", store, cwd=tmp_path)


def test_offline(store, tmp_path):
    assert run(EXAMPLES / "offline.sh", store, "demo-bot:v1", tmp_path, cwd=tmp_path).endswith("the same\n")


def test_own_store(store, tmp_path):
    lines = run(EXAMPLES / "own_store.py", "all.sqlite", store, "demo-bot:v1", cwd=tmp_path).splitlines()
    translated = run(EXAMPLES / "translate.py", store / "manifests/demo-bot/v1.json", cwd=tmp_path)
    assert lines[0].endswith(" demo-bot:v1") and lines[1].split()[-1] == translated.split()[0]


def test_own_dialect(store, tmp_path):
    said = run(EXAMPLES / "own_dialect.py", store, "demo-bot:v1", "acme", cwd=tmp_path)
    assert said.startswith("application/vnd.acme.machine.v1+json acme sha256:")
    back = tmp_path / "acme.back/manifests/demo-bot/v1.json"
    assert back.read_bytes() == (store / "manifests/demo-bot/v1.json").read_bytes()


def test_examples_are_typed():
    """What a user writes against the public names passes a strict type checker."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", EXAMPLES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout


def test_every_example_is_listed_and_tried():
    there = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__", "deploy"}  # tests/test_deploy.py
    listed, tried = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    assert all(f"]({name})" in listed and f'"{name}"' in tried for name in there)
