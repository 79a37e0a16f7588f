"""`convert` between Epoch's manifest and both dialects, from each to each, on the golden documents."""

import json
from pathlib import Path

import pytest
from cli_runner import Here
from cocoonstack_artifacts import DATA as COCOONSTACK
from cocoonstack_artifacts import folders

EPOCH = sorted((COCOONSTACK.parent / "epoch").glob("*.json"))
DIALECTS = ("cocoon", "cocoonstack")
WAYS = [(first, second) for first in DIALECTS for second in DIALECTS]


@pytest.fixture
def convert(capsys, tmp_path, monkeypatch):
    """Runs `convert WORD … -o OUT` and returns the report."""
    monkeypatch.chdir(tmp_path)
    here = Here(capsys)

    def run(word, out, *words):
        ran = here("convert", word, "-o", out, "--format", "json", *words)
        assert ran.code == 0, ran.err
        return ran.json

    run.cli = here
    return run


def base_images(path: Path) -> list[dict]:
    return json.loads(path.read_bytes()).get("baseImages") or []


@pytest.mark.parametrize("path", EPOCH, ids=lambda path: path.stem)
@pytest.mark.parametrize(("first", "second"), WAYS, ids=map("-".join, WAYS))
def test_from_epoch_by_way_of_both_and_back(convert, tmp_path, path, first, second):
    """Epoch's bytes come back whatever they went through, and a detour is no other artifact than the straight way."""
    one = convert(path, "one", "--to", "oci", "--dialect", first, "--allow-loss")
    two = convert("one/oci-manifest.json", "two", "--to", "oci", "--dialect", second, "--allow-loss")
    back = convert("two/oci-manifest.json", "back", "--to", "epoch")
    straight = convert(path, "straight", "--dialect", second, "--allow-loss")
    assert two["digest"] == straight["digest"]
    assert (tmp_path / "back/epoch-manifest.json").read_bytes() == path.read_bytes()
    assert not (one["derived"] or two["derived"] or back["derived"])
    names = [row["filename"] for row in json.loads(path.read_bytes())["layers"] or []]
    images = [row["filename"] for row in base_images(path)]
    for report, dialect, passed in ((one, first, (first,)), (two, second, (first, second)), (back, second, (second,))):
        assert report["carried"] == names + (images if dialect == "cocoon" else [])
        lost = [word for word in report["lost"] if word.startswith("base image")]
        assert len(lost) == (len(images) if "cocoonstack" in passed else 0)


@pytest.mark.parametrize("path", [path for path in EPOCH if base_images(path)], ids=lambda path: path.stem)
def test_a_loss_must_be_allowed(convert, tmp_path, path):
    ran = convert.cli("convert", path, "--dialect", "cocoonstack", "-o", "out")
    assert ran.code == 8 and "--allow-loss" in ran.error and not (tmp_path / "out").exists()
    ran = convert.cli("convert", path, "--dialect", "cocoonstack", "--allow-loss")
    assert ran.code == 0 and "not carried over: base image" in ran.err
    assert json.loads(ran.out)["artifactType"] == "application/vnd.cocoonstack.snapshot.v1+json"
    convert(path, "cocoon", "--dialect", "cocoon")
    ran = convert.cli("convert", "cocoon/oci-manifest.json", "--to", "oci", "--dialect", "cocoonstack")
    assert ran.code == 8 and ran.out == ""


def read_words(folder: Path) -> tuple:
    config = ("--config", folder / "config.json") if (folder / "config.json").exists() else ()
    return folder / "oci-manifest.json", config


@pytest.mark.parametrize("folder", folders("read"), ids=lambda folder: folder.name)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_from_an_artifact_of_others_to_each_and_back(convert, tmp_path, folder, dialect):
    source, config = read_words(folder)
    first = convert(source, "first", *config, "--to", "epoch")
    assert first["derived"]
    derived = (tmp_path / "first/epoch-manifest.json").read_bytes()
    assert derived == (folder / "epoch-manifest.json").read_bytes()
    convert(source, "named", *config, "--to", "epoch", "--as", "bot:v9")
    named = (tmp_path / "named/epoch-manifest.json").read_bytes()
    over = convert(source, "over", *config, "--to", "oci", "--dialect", dialect, "--allow-loss", "--as", "bot:v9")
    assert over["derived"] and set(first["lost"]) <= set(over["lost"])
    assert over["carried"] == first["carried"]
    back = convert("over/oci-manifest.json", "back", "--to", "epoch")
    assert not back["derived"]
    assert (tmp_path / "back/epoch-manifest.json").read_bytes() == named
    value = json.loads(derived)
    assert json.loads(named) == {**value, "name": value["name"] or "bot", "tag": value["tag"] or "v9"}


def test_an_artifact_without_a_name_needs_one(convert, tmp_path):
    source, config = read_words(COCOONSTACK / "read/epoch-0.2.1")
    ran = convert.cli("convert", source, *config, "--to", "oci")
    assert ran.code == 2 and "--as NAME:TAG" in ran.error and ran.out == ""


def test_what_rides_is_told_of(convert):
    report = convert(
        COCOONSTACK / "read/epoch-0.2.1/oci-manifest.json",
        "out",
        "--config",
        COCOONSTACK / "read/epoch-0.2.1/config.json",
    )
    assert 'config member "hypervisor"' in report["carried"] and "cow.raw" in report["carried"]


def test_the_config_is_written_where_it_is_another_document(convert, tmp_path):
    path = COCOONSTACK.parent / "epoch/w1.json"
    convert(path, "cocoon")
    assert sorted(item.name for item in (tmp_path / "cocoon").iterdir()) == ["epoch-manifest.json", "oci-manifest.json"]
    report = convert(path, "other", "--dialect", "cocoonstack", "--allow-loss")
    manifest = json.loads((tmp_path / "other/oci-manifest.json").read_bytes())
    config = tmp_path / "other/oci-config.json"
    assert config.stat().st_size == manifest["config"]["size"] and report["artifactType"] == manifest["artifactType"]
    text = convert.cli("convert", path, "-o", "other", "--dialect", "cocoonstack", "--allow-loss").out
    assert "oci-config.json" in text.splitlines()[1] and text.splitlines()[-1].startswith("Digest: ")


def test_a_config_of_an_earlier_run_is_not_taken_for_this_one(convert, tmp_path):
    convert(COCOONSTACK.parent / "epoch/w1.json", "out", "--dialect", "cocoonstack", "--allow-loss")
    convert(COCOONSTACK.parent / "epoch/w3b.json", "out", "--force")
    convert("out/oci-manifest.json", "back", "--to", "epoch")
    assert (tmp_path / "back/epoch-manifest.json").read_bytes() == (COCOONSTACK.parent / "epoch/w3b.json").read_bytes()
    (tmp_path / "out/epoch-manifest.json").unlink()
    assert convert.cli("convert", "out/oci-manifest.json").code == 3


def test_compressed_layers_cannot_be_translated_by_documents_alone(convert):
    ran = convert.cli("convert", COCOONSTACK / "v2/oci-manifest.json", "--config", COCOONSTACK / "v2/config.json")
    assert ran.code == 3 and "only after their layers were decoded" in ran.error and "pull the snapshot" in ran.error
