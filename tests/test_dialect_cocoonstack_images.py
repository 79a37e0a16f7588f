"""Cloud images of modern Epoch: joined in the byte order of titles, whatever the order of the array."""

import json

import pytest
from cocoon_artifacts import findings
from cocoonstack_artifacts import (
    DATA,
    EMPTY_HEX,
    OS_IMAGE,
    TITLE,
    altered,
    decode,
    documents,
    encode,
    epoch,
    file,
    hex_of,
    layer,
    manifest,
    part_digests,
    returned,
)
from epoch_strategies import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.epoch.manifest import EPOCH_MANIFEST
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.descriptor import EMPTY
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PartTable

OWN = "application/vnd.cocoonstack."
QCOW2_PART = OWN + "disk.qcow2.part"
WINDOWS_IMAGE = OWN + "windows-image.v1+json"


def image_of(*names, **members):
    """An Epoch cloud image of parts of these names."""
    return epoch(*(file(name, 10 + index) for index, name in enumerate(names)), snapshotId="", **members)


def published(layers, artifact_type=OS_IMAGE, annotations=None, config=None):
    return manifest(layers, config or EMPTY.to_json(), artifact_type, annotations)


def joined(image):
    """The digests in the order in which Epoch and cocoon-common join them."""
    disks = [item for item in image.layers if item.media_type.startswith(OWN) and "disk." in item.media_type]
    return [item.digest for item in sorted(disks, key=lambda item: (item.title or "").encode())]


def names(snapshot):
    return [item.filename for item in snapshot.manifest.layers]


# Writing


def test_the_artifact_of_a_cloud_image_trap_24():
    raw = image_of("win.qcow2.part.001", "win.qcow2.part.002", createdAt="2026-04-03T09:15:00Z")
    artifact = encode(raw, allow_loss=False)
    value = json.loads(artifact.manifest.raw)
    assert value["artifactType"] == OS_IMAGE
    assert [item["mediaType"] for item in value["layers"]] == [QCOW2_PART] * 2
    assert [item["annotations"][TITLE] for item in value["layers"]] == ["win.qcow2.part.001", "win.qcow2.part.002"]
    assert value["config"]["mediaType"] == EPOCH_MANIFEST
    assert artifact.config.raw == raw
    assert value["annotations"] == {
        "org.opencontainers.image.created": "2026-04-03T09:15:00Z",
        "org.opencontainers.image.title": "bot",
        "org.opencontainers.image.version": "v1",
    }
    assert artifact.lost == ()


@pytest.mark.parametrize(
    ("parts", "media_type"),
    [
        (["ubuntu.qcow2"], "disk.qcow2"),
        (["ubuntu.raw"], "disk.raw"),
        (["ubuntu.raw.part.001", "ubuntu.raw.part.002"], "disk.raw.part"),
        (["a", "b.raw"], "disk.raw.part"),
        (["ubuntu.qcow2.part.001"], "disk.qcow2"),
    ],
)
def test_the_type_of_a_disk(parts, media_type):
    assert {item.media_type for item in encode(image_of(*parts)).image.layers} == {OWN + media_type}


@pytest.mark.parametrize(
    ("parts", "titles"),
    [
        (["d.qcow2.part.1", "d.qcow2.part.2"], ["d.qcow2.part.1", "d.qcow2.part.2"]),
        (["d.qcow2.part.9", "d.qcow2.part.10"], ["d.qcow2.part.0000", "d.qcow2.part.0001"]),
        (["d.qcow2.part.2", "d.qcow2.part.1"], ["d.qcow2.part.0000", "d.qcow2.part.0001"]),
        (["b.raw", "a.raw"], ["b.raw.part.0000", "b.raw.part.0001"]),
        (["x.qcow2.01.qcow2.part", "x.qcow2"], ["x.qcow2.part.0000", "x.qcow2.part.0001"]),
        (["con.qcow2.part.2", "con1.qcow2.part.1", "a.raw"], None),
    ],
)
def test_parts_in_another_order_get_titles_of_fixed_width_trap_22(parts, titles):
    if titles is None:
        with pytest.raises(ContentError):
            encode(image_of(*parts))
        return
    raw = image_of(*parts)
    artifact = encode(raw)
    assert [item.title for item in artifact.image.layers] == titles
    assert joined(artifact.image) == [item.digest for item in artifact.files]
    snapshot = returned(artifact)
    assert snapshot.epoch.raw == raw
    assert [item.name for item in snapshot.files] == parts


def test_many_parts_keep_their_order():
    raw = image_of(*(f"d.qcow2.part.{index}" for index in range(1500)))
    artifact = encode(raw)
    assert joined(artifact.image) == [item.digest for item in artifact.files]
    assert returned(artifact).epoch.raw == raw


def test_a_disk_can_be_cut_into_parts():
    raw = image_of("ubuntu.raw", "more.raw")
    first = Digest.from_hex(file("ubuntu.raw", 10)["digest"])
    artifact = encode(raw, parts={first: PartTable(size=4, digests=part_digests(3))})
    assert [(item.title, item.size) for item in artifact.image.layers] == [
        ("ubuntu.raw.part.0000", 4),
        ("ubuntu.raw.part.0001", 4),
        ("ubuntu.raw.part.0002", 2),
        ("ubuntu.raw.part.0003", 11),
    ]
    snapshot = returned(artifact)
    assert snapshot.epoch.raw == raw
    assert [len(item.carriers) for item in snapshot.files] == [3, 1]
    assert snapshot.files[0].digest == first


@pytest.mark.parametrize("table", [PartTable(size=4, digests=part_digests(2)), PartTable(size=0, digests=())])
def test_part_tables_that_do_not_fit(table):
    first = Digest.from_hex(file("ubuntu.raw", 10)["digest"])
    with pytest.raises(UsageError):
        encode(image_of("ubuntu.raw"), parts={first: table})


def test_too_many_parts():
    raw = epoch(file("ubuntu.raw", 2001), snapshotId="")
    table = PartTable(size=1, digests=part_digests(2001))
    with pytest.raises(UsageError):
        encode(raw, parts={Digest.from_hex(file("ubuntu.raw", 2001)["digest"]): table})


def test_annotations_of_the_user():
    artifact = encode(image_of("a.raw"), annotations={"com.example.team": "sre"})
    assert returned(artifact).lost == ('annotation "com.example.team"',)


# Reading


def test_an_image_as_its_builder_publishes_it_traps_22_23_and_25():
    snapshot = decode(*documents(DATA / "read" / "os-image-builder"))
    assert names(snapshot) == [f"win11.qcow2.part.00{number}" for number in (1, 2, 3)]
    assert [item.size for item in snapshot.manifest.layers] == [1992294400, 1992294400, 700]
    assert [item.carriers[0].title for item in snapshot.files] == [
        f"win11.qcow2.0{number}.qcow2.part" for number in range(3)
    ]
    assert snapshot.lost == ('layer "SHA256SUMS" ("text/plain", 500 bytes)',)
    assert snapshot.manifest.is_cloud_image
    assert snapshot.manifest.looks_like_cloud_image


def test_a_derived_image_has_neither_blobs_nor_base_images_trap_21():
    value = json.loads(decode(*documents(DATA / "read" / "os-image-builder")).epoch.raw)
    assert value.keys() == {
        *("schemaVersion", "name", "tag", "snapshotId", "layers", "totalSize", "createdAt", "pushedAt", "cocoonstack")
    }
    assert value["snapshotId"] == ""


def test_what_rides_in_a_derived_image_is_restored():
    found, _ = documents(DATA / "read" / "os-image-builder")
    snapshot = decode(found, None)
    artifact = encode(snapshot.epoch.raw, allow_loss=False)
    assert [item.title for item in artifact.image.layers] == [
        f"win11.qcow2.0{number}.qcow2.part" for number in range(3)
    ]
    assert joined(artifact.image) == joined(found)
    assert artifact.image.annotations == found.annotations
    back = returned(artifact)
    assert (back.epoch.raw, back.lost, back.derived) == (snapshot.epoch.raw, (), False)


def test_the_older_names_of_windows_images():
    found, _ = documents(DATA / "read" / "windows-image-alias")
    snapshot = decode(found, None)
    assert names(snapshot) == ["win.qcow2.part.001", "win.qcow2.part.002"]
    assert [item.digest for item in snapshot.files] == joined(found)


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        (["d.qcow2"], ["d.qcow2"]),
        (["d.qcow2.part.2", "d.qcow2.part.1"], ["d.qcow2.part.1", "d.qcow2.part.2"]),
        (["d.qcow2.part.9", "d.qcow2.part.10"], ["d.qcow2.part.10", "d.qcow2.part.9"]),
        ([None, "d.qcow2"], ["disk.qcow2.part.001", "disk.qcow2.part.002"]),
        ([None], ["disk.qcow2"]),
        (["d.part.a", "d.part.b"], ["d.qcow2.part.001", "d.qcow2.part.002"]),
        (["d.qcow2", "D.qcow2"], ["D.qcow2.part.001", "D.qcow2.part.002"]),
        (["d.qcow2.part.1", "d.qcow2.part.1"], ["d.qcow2.part.001", "d.qcow2.part.002"]),
        (["config.json", "d.qcow2"], ["config.json.qcow2.part.001", "config.json.qcow2.part.002"]),
        (["con.x"], ["disk.qcow2"]),
    ],
)
def test_names_by_which_epoch_knows_a_cloud_image_trap_23(titles, expected):
    layers = [layer(title, 5 + index, QCOW2_PART) for index, title in enumerate(titles)]
    if titles == ["con.x"]:
        with pytest.raises(ContentError):
            decode(published(layers), None)
        return
    snapshot = decode(published(layers), None)
    assert names(snapshot) == expected
    assert snapshot.manifest.is_cloud_image
    ordered = sorted(range(len(titles)), key=lambda index: titles[index] or "")
    assert [item.size for item in snapshot.manifest.layers] == [5 + index for index in ordered]


def test_layers_beside_the_disk_are_kept_out_of_it_trap_25():
    layers = [layer("zz.txt", 5, "text/plain"), layer("d.raw", 6, OWN + "disk.raw"), layer("x", 7)]
    snapshot = decode(published(layers), None)
    assert names(snapshot) == ["d.raw"]
    assert [item.name for item in snapshot.files] == ["d.raw"]
    assert len(snapshot.lost) == 2


def test_parts_as_octets_are_no_disk_trap_24():
    assert findings(lambda: decode(published([layer("d.qcow2.part.001")]), None)) == [("$.layers", "SCHEMA")]


@pytest.mark.parametrize(
    ("layers", "path", "code"),
    [
        ([layer("../d", media_type=QCOW2_PART)], f'$.layers[0].annotations["{TITLE}"]', "NAME"),
        ([layer("snapshot.json", media_type=QCOW2_PART)], f'$.layers[0].annotations["{TITLE}"]', "NAME"),
        ([{**layer("d", media_type=QCOW2_PART), "digest": "sha512:" + "0" * 128}], "$.layers[0].digest", "DIGEST"),
        ([{**layer("d", media_type=QCOW2_PART), "digest": f"sha256:{EMPTY_HEX}"}], "$.layers[0].digest", "DIGEST"),
        ([], "$.layers", "SCHEMA"),
    ],
)
def test_images_that_are_refused(layers, path, code):
    assert (path, code) in findings(lambda: decode(published(layers), None))


def test_a_config_of_another_kind_is_lost():
    stranger = {**EMPTY.to_json(), "mediaType": "application/vnd.example.config+json"}
    snapshot = decode(published([layer("d.raw", media_type=OWN + "disk.raw")], config=stranger), None)
    assert snapshot.lost == ('config of type "application/vnd.example.config+json"',)


def test_facts_come_from_annotations():
    notes = {
        "org.opencontainers.image.title": "images/win",
        "org.opencontainers.image.version": "11",
        "org.opencontainers.image.created": "2026-04-03T09:15:00Z",
        "cocoonstack.snapshot.baseimage": "win.iso",
    }
    snapshot = decode(published([layer("d.raw", media_type=OWN + "disk.raw")], WINDOWS_IMAGE, notes), None)
    found = snapshot.manifest
    assert (found.name, found.tag, found.image) == ("images/win", "11", "win.iso")
    assert found.created_at == "2026-04-03T09:15:00Z"
    assert (snapshot.carried, snapshot.lost) == ((), ())


# What does not agree with the Epoch manifest that is the config


@pytest.mark.parametrize(
    "change",
    [
        lambda value, config: value["layers"].pop(),
        lambda value, config: value["layers"].pop(0),
        lambda value, config: value["layers"].append(layer("z.qcow2.part.009", 3, QCOW2_PART)),
        lambda value, config: value["layers"].append(layer("a", 0, QCOW2_PART)),
        lambda value, config: value["layers"][0]["annotations"].update({TITLE: "zz"}),
        lambda value, config: value["layers"][1]["annotations"].update({TITLE: "a"}),
        lambda value, config: value["layers"][0].update(size=11),
        lambda value, config: value["layers"][0].update(digest="sha256:" + hex_of("other")),
        lambda value, config: value["layers"][0].update(mediaType="application/octet-stream"),
        lambda value, config: config["layers"][0].update(digest=hex_of("other")),
        lambda value, config: config["layers"].reverse(),
        lambda value, config: config.update(snapshotId="9f3c1a7be20d4c55"),
        lambda value, config: config["layers"][0].update(filename="../x"),
        lambda value, config: config.pop("layers"),
    ],
)
def test_layers_that_do_not_agree_with_the_config(change):
    artifact = encode(image_of("d.qcow2.part.001", "d.qcow2.part.002", "d.qcow2.part.003"))
    with pytest.raises(ContentError):
        decode(*altered(artifact, change))


def test_the_order_of_the_array_does_not_count():
    artifact = encode(image_of("d.qcow2.part.001", "d.qcow2.part.002", "d.qcow2.part.003"))
    found, config = altered(artifact, lambda value, _: value["layers"].reverse())
    assert decode(found, config).epoch.raw == config.raw


def test_a_config_that_was_not_read():
    artifact = encode(image_of("d.raw"))
    with pytest.raises(ContentError):
        decode(artifact.image, None)


@PROPERTY
@given(
    st.lists(st.sampled_from(["d.qcow2.part.", "a.raw.part.", "x.raw", "q.qcow2"]), min_size=1, max_size=12).flatmap(
        lambda stems: st.permutations([f"{index}-{stem}{index}" for index, stem in enumerate(stems)])
    ),
    st.integers(0, 5),
)
def test_any_image_is_joined_as_it_was_and_comes_back_exactly(parts, seed):
    raw = image_of(*parts[:-1], parts[-1] + ".raw", **{"x-seed": seed})
    artifact = encode(raw, allow_loss=False)
    assert joined(artifact.image) == [item.digest for item in artifact.files]
    snapshot = returned(artifact)
    assert snapshot.epoch.raw == raw
    assert snapshot.lost == ()
    stranger = decode(published([item.to_json() for item in artifact.image.layers]), None)
    assert [item.digest for item in stranger.files] == joined(artifact.image)
    assert stranger.manifest.is_cloud_image
