"""What `import epoch_oci` offers."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from snapshots import make_snapshot, open_store, put_snapshot

import epoch_oci

HEAVY = ("requests", "urllib3", "oras", "obstore", "jsonschema", "jsonschema_rs", "typer", "rich")


def test_every_public_name_is_there():
    for name in epoch_oci.__all__:
        assert getattr(epoch_oci, name) is not None
    assert epoch_oci.__all__ == sorted(set(epoch_oci.__all__))
    assert set(epoch_oci.__all__) <= set(dir(epoch_oci))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(epoch_oci.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(seen) == epoch_oci.__all__
    for name, module in seen.items():
        found = getattr(epoch_oci, name)
        expected = importlib.import_module(f"epoch_oci.{name}") if module == "epoch_oci" else None
        assert found is (expected or getattr(importlib.import_module(module), name))


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = epoch_oci.nonsense
    with pytest.raises(ImportError):
        exec("from epoch_oci import nonsense")


def test_values_load_no_heavy_module():
    code = (
        "import sys, json, epoch_oci\n"
        "epoch_oci.Digest.of(b''), epoch_oci.Document, epoch_oci.Manifest, epoch_oci.UsageError, epoch_oci.locate\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []


def test_the_library_in_a_few_lines(tmp_path):
    from epoch_oci import Connection, SnapshotKey, locate_artifact, pull_to_store, push, to_epoch, to_oci

    made = make_snapshot("W3b")
    assert to_epoch(to_oci(made.raw)).raw == made.raw
    put_snapshot(tmp_path / "store", made)
    target = locate_artifact(f"oci:{tmp_path}/layout:v2", connection=Connection(), create=True)
    store = epoch_oci.open_store(str(tmp_path / "store"))
    report = push(store, SnapshotKey.parse("team/bot:v1"), target.store, target.tag, where=target.where)
    assert report.document.digest == to_oci(made.raw).manifest.digest
    pull_to_store(target.store, "v2", epoch_oci.open_store(str(tmp_path / "second")), where=target.where)
    assert open_store(tmp_path / "second").resolve("team/bot:v2").raw == made.raw
