"""Snapshots of version 2: compressed layers and chunks (epoch-formats 4.10), as far as two documents tell.

`data/cocoonstack/v2` was made by a Go program with the structs of cocoon-common and the zstd encoder that it uses, in
chunks of one mebibyte: a repeated chunk, a sparse file, one compressed layer, and files too small for either.
"""

import json

import pytest
from cocoon_artifacts import findings
from cocoonstack_artifacts import (
    CONFIG,
    DATA,
    DIALECT,
    SNAPSHOT,
    SNAPSHOT_V2,
    TITLE,
    decode,
    documents,
    encode,
    hex_of,
    image,
    layer,
    snapshot,
)

from epoch_oci.epoch import sparse
from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.document import Document

V2 = DATA / "v2"
ZSTD = "application/octet-stream+zstd"
DIGESTS = {
    name: Digest.from_hex(line)
    for line, name in (row.split("  ") for row in (V2 / "decoded.sha256").read_text().splitlines())
}


def chunk(title, number, size=5, media_type=ZSTD):
    return {**layer(title, size, media_type), "digest": f"sha256:{hex_of(f'{title}/{number}/{size}')}"}


def encoded(layers, files):
    return DIALECT.read_encoded(*snapshot(layers, SNAPSHOT_V2, schemaVersion="v2", files=files))


def listed(*layers):
    return [item["digest"] for item in layers]


ONE, TWO = chunk("a.raw", 1), chunk("a.raw", 2)


def test_what_two_documents_tell():
    found = DIALECT.read_encoded(*documents(V2))
    assert [(item.name, item.size, len(item.carriers), item.encoding) for item in found.files] == [
        ("config.json", 25, 1, ""),
        ("cow.raw", 3670016, 4, "zstd"),
        ("memory-ranges", 1048583, 2, "zstd"),
        ("single.bin", 1048576, 1, "zstd"),
        ("empty.bin", 0, 1, ""),
    ]
    assert [item.name for item in found.undigested] == ["cow.raw", "memory-ranges", "single.bin"]
    assert found.files[1].media_type == "application/vnd.cocoon.disk.raw"
    assert found.files[1].carriers[0].digest == found.files[1].carriers[2].digest
    assert (found.dialect, found.snapshot_id, found.cpu, found.storage) == (
        *("cocoonstack", "K7QZ4WJ2M5TB3XHLN6PVRDAYEC", 2, 16 << 20),
    )
    assert (found.created_at, found.pushed_at) == ("2026-07-20T08:30:00.000005Z", "2026-07-20T08:30:00Z")


def test_two_documents_cannot_be_translated():
    with pytest.raises(ContentError) as caught:
        decode(*documents(V2))
    assert caught.value.code == "TYPE"
    assert '"cow.raw"' in caught.value.message
    assert "pull" in caught.value.hint


def test_with_the_digests_it_is_a_snapshot_like_any_other():
    found = DIALECT.read_encoded(*documents(V2)).finish(DIGESTS)
    assert found.derived
    assert [(item.name, item.digest) for item in found.files[1:4]] == list(DIGESTS.items())
    assert [item.encoding for item in found.files] == ["", "zstd", "zstd", "zstd", ""]
    assert found.files[4].carriers == ()
    assert [item.digest for item in found.manifest.layers] == [item.digest for item in found.files]
    header = found.manifest.layer_headers["cow.raw"]
    assert header.pax_records[sparse.SIZE] == "16777216"
    assert found.carried == ('config member "description"', 'config member "hypervisor"')
    written = encode(found.epoch.raw, allow_loss=False)
    assert json.loads(written.config.raw)["schemaVersion"] == "v1"
    assert [item.digest for item in written.files] == [item.digest for item in found.files]


def test_a_digest_that_is_missing_is_the_callers_mistake():
    with pytest.raises(KeyError):
        DIALECT.read_encoded(*documents(V2)).finish({})


def test_only_version_2_is_encoded():
    assert DIALECT.read_encoded(*snapshot([layer("a")], files={"a": {}})) is None


def test_a_version_2_with_whole_files_only_needs_no_decoding():
    members = {"schemaVersion": "v2", "files": {"a": {"size": 7}}}
    assert decode(*snapshot([layer("a")], SNAPSHOT_V2, **members)).manifest.layers[0].size == 7


def test_a_version_1_with_sizes_is_what_newer_writers_make():
    assert decode(*snapshot([layer("a")], files={"a": {"size": 7}})).lost == ()
    assert findings(lambda: decode(*snapshot([layer("a")], files={"a": {"size": 8}}))) == [
        ("$.layers[0].size", "MISMATCH")
    ]


@pytest.mark.parametrize(
    ("layers", "entry", "carriers"),
    [
        ([ONE, TWO], {"size": 100, "chunks": listed(ONE, TWO)}, [ONE, TWO]),
        ([TWO, ONE], {"size": 100, "chunks": listed(ONE, TWO)}, [ONE, TWO]),
        ([ONE, TWO], {"size": 100, "chunks": listed(ONE, TWO, ONE, ONE)}, [ONE, TWO, ONE, ONE]),
        ([ONE, TWO, ONE], {"size": 100, "chunks": listed(ONE, TWO, ONE)}, [ONE, TWO, ONE]),
        ([ONE], {"size": 100}, [ONE]),
        ([ONE], {"size": 100, "chunks": listed(ONE)}, [ONE]),
    ],
)
def test_the_config_says_which_chunks_in_which_order(layers, entry, carriers):
    (file,) = encoded(layers, {"a.raw": entry}).files
    assert [str(item.digest) for item in file.carriers] == [item["digest"] for item in carriers]
    assert (file.size, file.encoding, file.digest) == (100, "zstd", None)


def test_equal_chunks_of_two_files_may_be_one_layer():
    other = chunk("b.raw", 3)
    files = {"a.raw": {"size": 9, "chunks": listed(ONE, TWO)}, "b.raw": {"size": 9, "chunks": listed(other, TWO)}}
    found = encoded([ONE, TWO, other], files).files
    assert [str(item.digest) for item in found[1].carriers] == listed(other, TWO)


def test_chunks_need_not_be_compressed():
    parts = [chunk("a.raw", number, 5, "application/vnd.cocoonstack.disk.raw") for number in (1, 2)]
    (file,) = encoded(parts, {"a.raw": {"size": 10, "chunks": listed(*parts)}}).files
    assert (file.encoding, file.digest, file.size) == ("", None, 10)


@pytest.mark.parametrize(
    ("layers", "entry", "code"),
    [
        ([ONE, TWO], {"chunks": listed(ONE, TWO)}, "SIZE"),
        ([ONE], {}, "SIZE"),
        ([ONE, TWO], {"size": 100}, "MISMATCH"),
        ([ONE], {"size": 100, "chunks": listed(ONE, TWO)}, "MISMATCH"),
        ([ONE, TWO], {"size": 100, "chunks": listed(ONE)}, "MISMATCH"),
        (
            [ONE, {**TWO, "mediaType": "application/octet-stream"}],
            {"size": 100, "chunks": listed(ONE, TWO)},
            "MISMATCH",
        ),
        ([chunk("a.raw", 1, 0)], {"size": 100}, "DIGEST"),
        ([chunk("a.raw", 1, 5, "text/plain"), chunk("a.raw", 2, 5, "text/plain")], {"size": 11, "chunks": ...}, "SIZE"),
        ([ONE], {"size": 100, "sparseMap": '[{"o":0,"l":99}]', "sparseSize": 1000}, "SIZE"),
        ([ONE], {"size": -1}, "SIZE"),
        ([ONE], {"size": 2**60}, "SIZE"),
        ([ONE], {"size": 100, "chunks": ["sha256:12"]}, "DIGEST"),
        ([ONE], {"size": 100, "chunks": listed(ONE)[0]}, "SCHEMA"),
        ([ONE], {"size": 100, "chunks": listed(ONE) * 2001}, "SCHEMA"),
    ],
)
def test_chunks_that_are_refused(layers, entry, code):
    if entry.get("chunks") is ...:
        entry = {**entry, "chunks": listed(*layers)}
    assert code in [found for _, found in findings(lambda: encoded(layers, {"a.raw": entry}))]


def test_an_empty_chunk_is_refused():
    empty = {**layer("a.raw", 0, ZSTD)}
    assert ("$.layers[0].size", "SIZE") in findings(lambda: encoded([empty], {"a.raw": {"size": 100}}))


@pytest.mark.parametrize(
    ("layers", "entry"),
    [
        ([ONE], {"size": 100}),
        ([layer("a.raw")], {"size": 7, "chunks": listed(layer("a.raw"))}),
    ],
)
def test_version_1_knows_neither(layers, entry):
    found = findings(lambda: decode(*snapshot(layers, SNAPSHOT, files={"a.raw": entry})))
    assert ("$.layers[0].mediaType", "TYPE") in found


@pytest.mark.parametrize("title", ["snapshot.json", "../a", "a/b"])
def test_names_are_as_strict_as_ever_trap_27(title):
    bad = {**ONE, "annotations": {TITLE: title}}
    assert [code for _, code in findings(lambda: encoded([bad], {title: {"size": 9}}))] == ["NAME"]


def test_names_that_are_one_file_trap_26():
    upper = {**TWO, "annotations": {TITLE: "A.raw"}}
    files = {"a.raw": {"size": 9}, "A.raw": {"size": 9}}
    assert "NAME" in [code for _, code in findings(lambda: encoded([ONE, upper], files))]


def test_a_config_of_other_bytes_is_noticed():
    found, config = documents(V2)
    with pytest.raises(ContentError):
        DIALECT.read_encoded(found, Document(CONFIG, config.raw[:-1] + b" }"))


def test_a_chunk_that_no_layer_carries_is_noticed():
    found, config = documents(V2)
    value = json.loads(found.document.raw)
    del value["layers"][2]
    assert findings(lambda: DIALECT.read_encoded(image(json.dumps(value).encode()), config)) == [
        ("$.layers", "MISMATCH")
    ]
