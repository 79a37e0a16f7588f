"""JSON as Go writes it: the bytes of its own output, and what must hold for any value."""

import hashlib
import json
from pathlib import Path

import pytest
from epoch_strategies import PROPERTY, number
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.epoch import gojson

GOLDEN = sorted((Path(__file__).parent / "data" / "epoch").glob("*.json"))

text = st.text(st.characters(blacklist_categories=["Cs"]))
value = st.recursive(
    st.none() | st.booleans() | st.integers() | number | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_documents_of_go_are_reproduced(path):
    raw = path.read_bytes()
    assert gojson.dumps(json.loads(raw)) == raw


@pytest.mark.parametrize(
    ("name", "size", "digest"),
    [
        ("w3b", 2323, "72f392a07ba8d51f2444cabf65d166daa9d32ca673da0a2798f36545e70796af"),
        ("cloud-image", 686, "d30a2d9f3e1bd9a2fd70df807d4393cf665874a369e4416c3af0e0238c3ba5fe"),
    ],
)
def test_examples_of_the_format_reference(name, size, digest):
    raw = (GOLDEN[0].parent / f"{name}.json").read_bytes()
    written = gojson.dumps(json.loads(raw))
    assert len(written) == size
    assert hashlib.sha256(written).hexdigest() == digest


def test_config_blob_of_a_newer_epoch_is_reproduced_in_compact_form():
    raw = (GOLDEN[0].parent.parent / "cocoonstack" / "snapshot-config.json").read_bytes()
    assert gojson.dumps(json.loads(raw), indent=None) == raw
    assert hashlib.sha256(raw).hexdigest() == "3f0198c90ebc0eefd6bd0a36de773452b2af3df530e6bc399dd8ef4298fc7609"


def test_manifest_of_a_newer_epoch_is_reproduced():
    raw = (GOLDEN[0].parent.parent / "cocoonstack" / "snapshot-manifest.json").read_bytes()
    assert gojson.dumps(json.loads(raw)) == raw
    assert hashlib.sha256(raw).hexdigest() == "e659475fece831887ccbf9cc4c253f8ffd8c568994c29f894e95c16a3db6f8d9"


# Each right-hand side is the output of encoding/json for the same value.
@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('<a href="x">&\u2028\u2029', rb'"\u003ca href=\"x\"\u003e\u0026\u2028\u2029"'),
        ("\x00\x01\x1f\b\f\n\r\t\x7f", b'"\\u0000\\u0001\\u001f\\b\\f\\n\\r\\t\x7f"'),
        ("größe 日本 😀 back\\slash", '"größe 日本 😀 back\\\\slash"'.encode()),
        ({}, b"{}"),
        ([], b"[]"),
        (None, b"null"),
        ([True, False], b"[true,false]"),
        (2**63 - 1, b"9223372036854775807"),
        (-(2**63), b"-9223372036854775808"),
        (1.0, b"1"),
        (-0.0, b"-0"),
        (0.25, b"0.25"),
        (1e-6, b"0.000001"),
        (9.99e-7, b"9.99e-7"),
        (1e20, b"100000000000000000000"),
        (1.2345678901234568e20, b"123456789012345680000"),
        (1e21, b"1e+21"),
        (-1.5e-10, b"-1.5e-10"),
        (5e-324, b"5e-324"),
    ],
)
def test_scalars_and_empty_forms(value, written):
    assert gojson.dumps(value, indent=None) == written


def test_indentation():
    nested = {"a": {"b": [1, {"c": {}, "d": []}]}, "e": [[]]}
    assert gojson.dumps(nested).decode() == (
        '{\n  "a": {\n    "b": [\n      1,\n      {\n        "c": {},\n        "d": []\n      }\n    ]\n  },\n'
        '  "e": [\n    []\n  ]\n}'
    )


def test_members_of_a_struct_keep_their_order_and_keys_of_a_map_are_sorted_by_bytes():
    members = {"b": 1, "a": 2, "\U0001f600": 3, "\uffff": 4, "Z": 5}
    assert list(json.loads(gojson.dumps(members))) == list(members)
    by_bytes = sorted(members, key=lambda key: key.encode("utf-8"))
    assert list(gojson.sorted_map(members)) == by_bytes
    assert list(json.loads(gojson.dumps(members, sort_keys=True))) == by_bytes


@PROPERTY
@given(value)
def test_whatever_is_written_reads_back_the_same(value):
    for indent in (None, 2):
        assert json.loads(gojson.dumps(value, indent=indent)) == value


@PROPERTY
@given(value)
def test_both_forms_differ_in_white_space_only(value):
    pretty, compact = gojson.dumps(value), gojson.dumps(value, indent=None)
    assert json.dumps(json.loads(pretty)) == json.dumps(json.loads(compact))
    assert b"\n" not in compact
    assert not pretty.endswith(b"\n")
    assert not any(char in pretty for char in (b"<", b">", b"&", "\u2028".encode(), "\u2029".encode()))


@PROPERTY
@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="<>&\u2028\u2029")))
def test_strings_are_as_json_without_ascii_escapes_writes_them(value):
    assert gojson.dumps(value) == json.dumps(value, ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], "\ud800"])
def test_what_json_cannot_hold_is_a_value_error(value):
    with pytest.raises(ValueError):
        gojson.dumps(value)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": b"bytes"}, {3}])
def test_what_json_does_not_know_is_a_type_error(value):
    with pytest.raises(TypeError):
        gojson.dumps(value)
