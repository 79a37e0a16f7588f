"""Files in parts: cut, joined, and refused when the parts are not the file."""

import hashlib
import json

import pytest
from cocoon_artifacts import altered, decode, encode, findings, pair
from epoch_strategies import PROPERTY, raw_documents
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.dialects.base import EncodeOptions
from epoch_oci.epoch.manifest import Manifest
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.parts import PART_LIMIT, PartTable, spans

TITLE = "org.opencontainers.image.title"
PART = "vnd.cocoon.part."
HEX = hashlib.sha256(b"whole").hexdigest()
OTHER = "sha256:" + hashlib.sha256(b"other").hexdigest()


def snapshot(name="disk.raw", size=1000, media_type="application/vnd.cocoon.disk.raw", **more):
    layer = {"digest": HEX, "size": size, "filename": name, "mediaType": media_type}
    return json.dumps({"schemaVersion": 1, "name": "bot", "tag": "v1", "layers": [layer], **more}).encode()


def table(count, size=100):
    digests = tuple(Digest.of(b"part %d" % index) for index in range(count))
    return EncodeOptions(parts={Digest.from_hex(HEX): PartTable(size=size, digests=digests)})


def test_the_layers_of_a_file_in_parts():
    artifact = encode(snapshot(size=250), table(3))
    (file,) = artifact.files
    assert (file.name, file.size, file.media_type) == ("disk.raw", 250, "application/vnd.cocoon.disk.raw")
    assert artifact.image.layers == file.carriers
    assert [(item.title, item.size, item.media_type) for item in file.carriers] == [
        ("disk.raw.part.0000", 100, "application/vnd.cocoon.disk.raw.part"),
        ("disk.raw.part.0001", 100, "application/vnd.cocoon.disk.raw.part"),
        ("disk.raw.part.0002", 50, "application/vnd.cocoon.disk.raw.part"),
    ]
    assert dict(file.carriers[2].annotations) == {
        TITLE: "disk.raw.part.0002",
        PART + "file": "disk.raw",
        PART + "index": "2",
        PART + "count": "3",
        PART + "offset": "200",
        PART + "size": "250",
        PART + "digest": f"sha256:{HEX}",
    }


def test_octets_stay_octets_and_parts_of_a_base_image_carry_its_role():
    octets = encode(snapshot(media_type="application/octet-stream"), table(10)).image.layers
    assert {layer.media_type for layer in octets} == {"application/octet-stream"}
    bases = [layer for layer in pair("parts").artifact().image.layers if "vnd.cocoon.layer.role" in layer.annotations]
    assert [layer.title[-9:] for layer in bases] == ["part.0000", "part.0001"]


@pytest.mark.parametrize("size", [1, 99, 100])
def test_a_file_no_larger_than_a_part_is_carried_whole(size):
    (layer,) = encode(snapshot(size=size), table(1)).image.layers
    assert (layer.title, layer.size) == ("disk.raw", size)


def test_one_digest_of_two_files_is_cut_twice():
    layer = {"digest": HEX, "size": 150, "mediaType": "application/octet-stream"}
    raw = snapshot(layers=[{**layer, "filename": "a"}, {**layer, "filename": "b"}])
    artifact = encode(raw, table(2))
    titles = [item.title for item in artifact.image.layers]
    assert titles == ["a.part.0000", "a.part.0001", "b.part.0000", "b.part.0001"]
    assert decode(artifact.manifest.raw, artifact.config).files == artifact.files


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (1000, table(9)),
        (1000, table(11)),
        (1000, table(0)),
        (1000, table(10, 0)),
        (1000, table(10, -100)),
        (PART_LIMIT * 100 + 1, table(PART_LIMIT + 1)),
    ],
)
def test_a_table_that_does_not_fit_is_wrong_usage(size, options):
    with pytest.raises(UsageError):
        encode(snapshot(size=size), options)


def test_names_of_parts_that_meet_a_file_are_refused():
    whole = {"digest": HEX, "size": 1000, "filename": "disk.raw"}
    other = {"digest": OTHER[7:], "size": 5, "filename": "disk.raw.part.0003"}
    with pytest.raises(ContentError) as caught:
        encode(snapshot(layers=[whole, other]), table(10))
    assert caught.value.code == "NAME"


def test_a_name_that_leaves_no_room_for_the_part_number_is_refused():
    with pytest.raises(ContentError) as caught:
        encode(snapshot(name="x" * 250), table(10))
    assert caught.value.code == "NAME"


def test_more_layers_than_a_manifest_may_have_are_wrong_usage():
    digests = [hashlib.sha256(b"%d" % index).hexdigest() for index in range(30)]
    layers = [{"digest": item, "size": 10_000, "filename": f"f{index}"} for index, item in enumerate(digests)]
    cut = PartTable(size=100, digests=tuple(Digest.of(b"%d" % index) for index in range(100)))
    options = EncodeOptions(parts={Digest.from_hex(item): cut for item in digests})
    with pytest.raises(UsageError, match="3000 layers"):
        encode(snapshot(layers=layers), options)


def notes(index, /, **changes):
    """Change the part annotations of a layer; None takes one away."""

    def apply(value):
        annotations = value["layers"][index]["annotations"]
        for key, item in changes.items():
            if item is None:
                del annotations[PART + key]
            else:
                annotations[PART + key] = item

    return apply


def at(index, key):
    return f'$.layers[{index}].annotations["{PART}{key}"]'


def drop(value):
    del value["layers"][1]


def swap(value):
    value["layers"][0], value["layers"][1] = value["layers"][1], value["layers"][0]


def repeat(value):
    value["layers"].insert(1, value["layers"][0])


@pytest.mark.parametrize(
    ("alter", "paths"),
    [
        (notes(1, index="0"), {at(1, "index")}),
        (notes(1, index="01"), {at(1, "index")}),
        (notes(1, index=None), {at(1, "index")}),
        (notes(1, count="4"), {at(1, "count")}),
        (notes(1, offset="101"), {at(1, "offset")}),
        (notes(1, size="251"), {at(1, "size")}),
        (notes(0, size="251"), {at(1, "size"), at(2, "size"), "$.layers[0]", "$.layers[0].size"}),
        (notes(0, size="-1"), {at(0, "size"), at(1, "size"), at(2, "size"), "$.layers[0].size"}),
        (notes(0, size="9" * 400), {at(0, "size"), at(1, "size"), at(2, "size"), "$.layers[0].size"}),
        (lambda value: value["layers"][2].update(size=49), {"$.layers[0]"}),
        (lambda value: value["layers"][1].update(mediaType="application/octet-stream"), {"$.layers[1].mediaType"}),
        (lambda value: value["layers"][1]["annotations"].update({TITLE: "disk.raw.part.9"}),
         {'$.layers[1].annotations["org.opencontainers.image.title"]'}),
        (lambda value: value["layers"][1]["annotations"].update({"vnd.cocoon.layer.role": "base-image"}),
         {'$.layers[1].annotations["vnd.cocoon.layer.role"]'}),
    ],
)  # fmt: skip
def test_a_part_that_is_not_where_it_says_is_found(alter, paths):
    artifact = encode(snapshot(size=250), table(3))
    found = {path for path, _ in findings(lambda: decode(altered(artifact, alter), artifact.config))}
    assert found >= paths
    assert found - paths <= {'$.layers[1].annotations["vnd.cocoon.part.offset"]', at(2, "offset")}


@pytest.mark.parametrize(
    "alter",
    [
        drop,
        swap,
        repeat,
        lambda value: value["layers"].pop(),
        lambda value: value["layers"].pop(0),
        lambda value: value["layers"].reverse(),
        lambda value: value["layers"].append(value["layers"][0]),
        notes(0, file="other.raw"),
        notes(1, file="other.raw"),
        notes(1, file=None),
        notes(0, digest=OTHER),
        notes(1, digest=OTHER),
        notes(0, digest=HEX),
        notes(0, digest=None),
        lambda value: [layer["annotations"].update({PART + "digest": OTHER}) for layer in value["layers"]],
        lambda value: [layer["annotations"].update({PART + "file": "../x"}) for layer in value["layers"]],
        lambda value: [layer.update(mediaType="application/octet-stream") for layer in value["layers"]],
        lambda value: [layer.update(mediaType="application/vnd.cocoon.disk.raw") for layer in value["layers"]],
        lambda value: value["layers"][1].update(annotations={TITLE: "disk.raw.part.0001"}),
        lambda value: value.update(layers=value["layers"][:1]),
    ],
)
def test_parts_that_are_not_the_file_of_the_config_are_refused(alter):
    artifact = encode(snapshot(size=250), table(3))
    with pytest.raises(ContentError):
        decode(altered(artifact, alter), artifact.config)


def test_another_client_may_cut_in_other_places():
    artifact = encode(snapshot(size=250), table(3))

    def cut_again(value):
        for layer, offset, size in zip(value["layers"], ("0", "10", "130"), (10, 120, 120), strict=True):
            layer["size"] = size
            layer["annotations"][PART + "offset"] = offset

    (file,) = decode(altered(artifact, cut_again), artifact.config).files
    assert [item.size for item in file.carriers] == [10, 120, 120]


@st.composite
def cut_documents(draw):
    """A document, and a cut for some of its blobs."""
    raw = draw(raw_documents())
    parts = {}
    for blob in Manifest.parse(raw).descriptors:
        if blob.size > 1 and draw(st.booleans()):
            size = draw(st.integers(-(-blob.size // PART_LIMIT), blob.size))
            digests = tuple(Digest.of(b"%d of %s" % (at, blob.digest.hex.encode())) for at, _ in spans(blob.size, size))
            parts[blob.digest] = PartTable(size=size, digests=digests)
    return raw, EncodeOptions(parts=parts)


@PROPERTY
@given(cut_documents())
def test_any_cut_comes_back_as_the_file(drawn):
    raw, options = drawn
    artifact = encode(raw, options)
    back = decode(artifact.manifest.raw, artifact.config)
    assert back.epoch.raw == raw
    assert back.files == artifact.files == tuple(back.files)
    for file in artifact.files:
        assert sum(item.size for item in file.carriers) == file.size
        assert len(file.carriers) <= PART_LIMIT
    titles = [item.title for file in artifact.files for item in file.carriers]
    assert len(set(titles)) == len(titles)


@PROPERTY
@given(cut_documents(), st.data())
def test_an_altered_cut_is_always_refused(drawn, data):
    artifact = encode(*drawn)
    value = json.loads(artifact.manifest.raw)
    parts = [index for index, layer in enumerate(value["layers"]) if PART + "file" in layer.get("annotations", {})]
    if not parts:
        return
    index = data.draw(st.sampled_from(parts))
    what = data.draw(st.sampled_from(["drop", "repeat", "size", "swap", "file", "index", "offset", "count"]))
    if what == "drop":
        del value["layers"][index]
    elif what == "repeat":
        value["layers"].insert(index, value["layers"][index])
    elif what == "size":
        value["layers"][index]["size"] += 1
    elif what == "swap":
        other = data.draw(st.sampled_from(parts))
        if other == index:
            return
        value["layers"][index], value["layers"][other] = value["layers"][other], value["layers"][index]
    else:
        value["layers"][index]["annotations"][PART + what] += "0"
    with pytest.raises(ContentError):
        decode(value, artifact.config)
