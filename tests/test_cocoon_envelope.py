"""The envelope of Cocoon's archives: every version's, kept to the byte."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cocoon_world import BLOB_ID, DATA, OTHER_BLOB_ID, bodies, config, envelope
from snapshots import WRITERS, make_snapshot

from epoch_oci import schemas
from epoch_oci.cocoon.envelope import CONFIG_KEYS, ENVELOPE_LIMIT, Envelope, key_of, record_name
from epoch_oci.cocoon.epoch_manifest import envelope_of, manifest_of
from epoch_oci.epoch import gojson
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError, UsageError

EXAMPLES = Path(__file__).parent / "data/schemas/cocoon-export-envelope.v1"


@pytest.mark.parametrize("path", sorted((EXAMPLES / "valid").iterdir()), ids=lambda path: path.stem)
def test_every_version_is_read(path: Path) -> None:
    raw = path.read_bytes()
    value = json.loads(raw)
    found = Envelope.parse(raw)
    assert found.raw == raw
    assert found.config == value["config"]
    assert found.name == value["config"]["name"]
    assert found.files == (tuple(value["files"]) if "files" in value else None)
    for key in {item.name for item in fields(Envelope)} & set(CONFIG_KEYS):
        default: Any = () if key == "image_blob_ids" else type(getattr(found, key))()
        expected = value["config"].get(key, default)
        assert getattr(found, key) == (tuple(expected) if key == "image_blob_ids" else expected)


def test_the_schema_and_the_reader_agree_on_what_is_wrong(subtests):
    for path in sorted((EXAMPLES / "invalid").iterdir()):
        with subtests.test(path=path), pytest.raises(ContentError):
            Envelope.parse(path.read_bytes())


def test_all_findings_at_once() -> None:
    raw = envelope(config(cpu=-1, memory="1", windows="no", image_blob_ids={"../x": 1}), version=2)
    with pytest.raises(ContentError) as caught:
        Envelope.parse(raw)
    paths = {finding.path for finding in caught.value.findings}
    assert paths >= {"$.version", "$.config.cpu", "$.config.memory", "$.config.windows", "$.config.image_blob_ids"}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "JSON"),
        (b"\xef\xbb\xbf" + envelope(), "JSON"),
        (b'{"version":1,"version":1,"config":{"name":"a"}}', "JSON"),
        (b'{"version":1,"config":{"name":"a","Name":"b"}}', "JSON"),
        (b'{"version":1,"Config":{"name":"a"},"config":{"name":"b"}}', "JSON"),
        (envelope() + b"{}", "JSON"),
        (b" " * (ENVELOPE_LIMIT + 1), "SIZE"),
        (envelope(config(name="../../etc")), "NAME"),
        (envelope(config(name="a\nb")), "NAME"),
        (b"[]", "SCHEMA"),
    ],
)
def test_what_two_readers_could_take_differently(raw: bytes, code: str) -> None:
    with pytest.raises(ContentError) as caught:
        Envelope.parse(raw)
    assert caught.value.code == code


def test_minted_as_cocoon_writes_it() -> None:
    members = config(description="<a & b>", image_blob_ids={BLOB_ID: {}})
    older, newer = Envelope.mint(members), Envelope.mint(members, config_first=True)
    assert older.raw == gojson.dumps({"version": 1, "config": members}) + b"\n"
    assert newer.raw.startswith(b'{\n  "config": {\n    "id"') and newer.raw.endswith(b'  },\n  "version": 1\n}\n')
    assert b"\\u003ca \\u0026 b\\u003e" in older.raw


@pytest.mark.parametrize("name", ["export-0.3.8.tar", "export-0.3.8-bare.tar"])
def test_a_recorded_envelope_is_written_again(name: str) -> None:
    raw = bodies((DATA / name).read_bytes())["snapshot.json"]
    found = Envelope.parse(raw)
    assert Envelope.mint(found.config, config_first=True).raw == raw
    assert found.renamed().raw is raw
    assert found.renamed("warm").raw is raw


def test_renamed_keeps_the_rest_where_it_was() -> None:
    raw = b'{"config": {"x-new": [1, 2], "name": "a", "cpu": 2}, "later": {"k": null}, "version": 1}\n'
    found = Envelope.parse(raw).renamed("b", "said")
    value = json.loads(found.raw)
    assert list(value) == ["config", "later", "version"]
    assert value["config"] == {"x-new": [1, 2], "name": "b", "cpu": 2, "description": "said"}
    with pytest.raises(ContentError):
        found.renamed("../x")


@pytest.mark.parametrize("writer", [kind for kind in WRITERS if kind != "cloud-image"])
def test_made_for_every_writer(writer: str) -> None:
    """Traps 29 to 31: what the manifest does not say is absent, and never a guess."""
    manifest = Manifest.parse(make_snapshot(writer).document)
    found = envelope_of(manifest)
    value = json.loads(found.raw)
    assert list(value) == ["version", "config"]
    assert list(value["config"]) == [key for key in CONFIG_KEYS if key in value["config"]]
    assert (found.name, found.id, found.cpu) == (manifest.name, manifest.snapshot_id, manifest.cpu)
    assert not {"windows", "network", "hypervisor", "description"} & set(value["config"])
    assert schemas.findings(value, "cocoon-export-envelope.v1") == []


def test_base_images_and_blob_ids_are_united() -> None:
    """Trap 16: writer W1 has base images and no IDs, W2b the reverse."""
    for writer in ("W1", "W2b", "W3a", "W3b"):
        manifest = Manifest.parse(make_snapshot(writer).document)
        assert manifest.pinned_blobs == [BLOB_ID]
        assert envelope_of(manifest).image_blob_ids == (BLOB_ID,)


def test_firecracker_is_told_from_its_files() -> None:
    """Trap 20: such a snapshot looks like a cloud image to Epoch's rule."""
    value = json.loads(make_snapshot("W1").raw)
    for layer, name in zip(value["layers"], ("cow.raw", "mem", "vmstate", "cocoon.json", "d.raw"), strict=True):
        layer["filename"] = name
    value.pop("baseImages")
    manifest = Manifest.parse(gojson.dumps(value))
    assert not manifest.is_cloud_image
    assert envelope_of(manifest).config["hypervisor"] == "firecracker"


def test_what_rides_from_modern_epoch_comes_back() -> None:
    value = json.loads(make_snapshot("W3b").raw)
    kept = {"description": "d", "imageDigest": "sha256:" + "0" * 64, "imageType": "cloudimg", "network": "n"}
    value["cocoonstack"] = {"config": {**kept, "windows": True, "hypervisor": "cloud-hypervisor", "more": 1}}
    found = envelope_of(Manifest.parse(gojson.dumps(value)))
    assert found.windows
    assert found.config.items() >= {"description": "d", "image_type": "cloudimg", "network": "n"}.items()
    assert found.config.items() >= {"image_digest": kept["imageDigest"], "hypervisor": "cloud-hypervisor"}.items()
    assert "more" not in found.config


def test_an_envelope_that_rides_is_read_as_strictly() -> None:
    value = json.loads(make_snapshot("W3b").raw)
    value["cocoonEnvelope"] = envelope(config(name="a/../b")).decode()
    with pytest.raises(ContentError, match=r"\$\.cocoonEnvelope"):
        envelope_of(Manifest.parse(gojson.dumps(value)))
    value["cocoonEnvelope"] = {"somebody": "else's"}
    assert envelope_of(Manifest.parse(gojson.dumps(value))).name == "team/bot"


def test_names_and_keys() -> None:
    rows = {
        "warm": ("warm", "latest"),
        "team/bot": ("team/bot", "latest"),
        "bot:v2": ("bot", "v2"),
        "bot:latest": ("bot:latest", "latest"),
        "a:b:c": ("a:b:c", "latest"),
        ":v2": (":v2", "latest"),
        "bot:": ("bot:", "latest"),
        "bot:not a tag": ("bot:not a tag", "latest"),
    }
    for name, (base, tag) in rows.items():
        key = key_of(name)
        assert (key.name, key.tag) == (base, tag)
        assert record_name(key) == name


def test_the_manifest_is_named_by_the_user_or_the_envelope() -> None:
    found = Envelope.mint(config(name="bot:v2"))
    for given, expected in {
        (None, None): ("bot", "v2"),
        ("other", None): ("other", "latest"),
        ("bot", None): ("bot", "v2"),
        (None, "v3"): ("bot", "v3"),
        ("x", "y"): ("x", "y"),
    }.items():
        manifest = Manifest.parse(manifest_of(found, [], *given))
        assert (manifest.name, manifest.tag) == expected
    with pytest.raises(UsageError):
        manifest_of(Envelope.mint(config(name="")), [])


def test_two_blob_ids_are_sorted() -> None:
    found = Envelope.mint(config(image_blob_ids={blob: {} for blob in sorted([BLOB_ID, OTHER_BLOB_ID], reverse=True)}))
    manifest = Manifest.parse(manifest_of(found, []))
    assert list(manifest.image_blob_ids) == sorted([BLOB_ID, OTHER_BLOB_ID])
    assert envelope_of(manifest).raw == found.raw


def test_the_recorded_files_are_those_that_were_recorded() -> None:
    lines = (DATA / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == len(list(DATA.iterdir())) - 2
    for line in lines:
        hexdigits, name = line.split()
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == hexdigits
