"""The strict reader: two parsers can read what it lets through in one way only (reliability J1 to J4)."""

import json
import time
import tracemalloc

import pytest
from epoch_strategies import PROPERTY, json_value
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.errors import ContentError
from epoch_oci.oci import strict_json

MIB = 1 << 20


def loads(raw, **options):
    return strict_json.loads(raw, "it", **{"limit": 16 * MIB, **options})


def refused(raw, **options):
    with pytest.raises(ContentError) as caught:
        loads(raw, **options)
    assert caught.value.object == "it"
    return caught.value.code


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b" \r\n\t[1, -2, 0.5, 1e3, true, false, null] ", [1, -2, 0.5, 1000.0, True, False, None]),
        ('{"größe": "😀"}'.encode(), {"größe": "😀"}),
        (rb'"\ud83d\ude00 \u00e9 \\u0000 \\ud800"', "😀 é \\u0000 \\ud800"),
        (b"9007199254740993", 9007199254740993),
        (b'{"a":{"b":1},"c":{"b":2}}', {"a": {"b": 1}, "c": {"b": 2}}),
        (b'"' + b"[" * 200 + b'"', "[" * 200),
        (b'["\\"",' * 20 + b'"[{"' + b"]" * 20, None),
    ],
)
def test_what_is_json(raw, value):
    assert value is None or loads(raw) == value
    assert value is not None or loads(raw) == json.loads(raw)


def test_what_is_not(subtests):
    for raw in [
        b"",
        b" ",
        b"{",
        b"{}x",
        b"{} {}",
        b"'a'",
        b"{a:1}",
        b"[1,]",
        b'{"a":1,}',
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x1",
        b"True",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"[-1e999]",
        b"9" * 401,
        b"9" * 5000,
        b"-" + b"9" * 5000,
        b'"\x00"',
        b'"\x01"',
        b'"a\nb"',
        b'"\\x41"',
        b'"\\u12"',
        b"// c\n1",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-16-le"),
        "{}".encode("utf-32"),
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        rb'"\u0000"',
        rb'{"\u0000":1}',
        rb'{"a":["\u0000"]}',
        rb'"\ud800"',
        rb'"\uDC00"',
        rb'"\udfff\ud800"',
        rb'{"\ud83d":1}',
        b'{"a":1,"a":1}',
        b'{"a":1,"b":{"c":1,"c":2}}',
        rb'{"a":1,"\u0061":2}',
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 100_000,
        b'[{"a":' * 50_000,
        b'"' + b"a" * 1000,
    ]:
        with subtests.test(raw=raw):
            assert refused(raw) == "JSON"


def test_the_limits_hold_exactly():
    assert loads(b"[" * 64 + b"]" * 64)
    assert loads(b"[]", limit=2) == []
    assert refused(b"[] ", limit=2) == "SIZE"
    many = {f"k{index}": 0 for index in range(strict_json.MEMBER_LIMIT)}
    assert loads(json.dumps(many).encode()) == many
    assert refused(json.dumps({**many, "one more": 0}).encode()) == "JSON"
    assert refused(json.dumps([{"a": 0}] * (strict_json.MEMBER_LIMIT + 1)).encode()) == "JSON"
    assert refused(b"[" + b"0," * strict_json.ELEMENT_LIMIT + b"0]") == "JSON"
    assert len(loads(b"[" + b"0," * (strict_json.ELEMENT_LIMIT - 2) + b"0]")) == strict_json.ELEMENT_LIMIT - 1
    assert len(loads(b"[" + b"0," * strict_json.ELEMENT_LIMIT + b"0]", members=None)) > strict_json.ELEMENT_LIMIT


def test_punctuation_inside_strings_is_not_counted():
    text = json.dumps('[{,\\"' * 300_000)
    assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * (16 * MIB),
        b"[]," * (5 * MIB),
        b'"' + b"\\\\" * (8 * MIB - 1) + b'"' + b"[" * 0,
        b"[" + b'"' + b"[" * (15 * MIB) + b'"',
        b"{" + b'"a":{' * (2 * MIB),
        b"-" * (16 * MIB),
        b"[" + b"1," * (7 * MIB) + b"1]",
        b"1" * (16 * MIB),
        b'["' + b"\\" * (16 * MIB - 8) + b'",[',
        b"[" + b'"",' * (5 * MIB) + b"0]",
        b"[" * 65 + b'"\\\\",' * (2 * MIB),
        b"[" * 60 + b'"a"' * (5 * MIB),
        b"]" * (16 * MIB),
    ],
    ids=range(13),
)
def test_bombs_are_refused_quickly_and_cheaply(raw):
    started = time.process_time()
    _refuse_or_read(raw)
    assert time.process_time() - started < 3.0
    tracemalloc.start()
    try:
        _refuse_or_read(raw)
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    finally:
        tracemalloc.stop()


def _refuse_or_read(raw):
    try:
        loads(raw)
    except ContentError as error:
        assert error.code == "JSON"
        assert len(str(error)) < 500


def test_minus_zero_is_no_integer():
    assert type(loads(b"-0")) is float
    assert type(loads(b"0")) is int


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("Layers", "layers"),
        ("LAYERS", "layers"),
        ("\u017fize", "size"),
        ("si\u017fe", "sise"),
        ("\u212aey", "key"),
        ("mediatype", "mediaType"),
    ],
)
def test_keys_that_fold_to_a_known_one(key, known):
    (finding,) = strict_json.alias_findings({key: 1, known: 2, "other": 3}, {known}, "$.a[0]")
    assert finding.code == "JSON"
    assert finding.path.startswith("$.a[0]")
    assert finding.path.isascii()


def test_known_and_foreign_keys_are_no_aliases():
    assert strict_json.alias_findings({"layers": 1, "layer": 2, "x": 3}, {"layers"}) == []
    assert strict_json.alias_findings({"snapshotID": 1}, {"snapshotId", "snapshotID"}) == []


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("size", "$.size"),
        ("_x1", "$._x1"),
        ("memory-ranges", '$["memory-ranges"]'),
        ("1a", '$["1a"]'),
        ("", '$[""]'),
        ('a"b\\', '$["a\\"b\\\\"]'),
        ("\x1b", '$["\\x1b"]'),
        ("a\n", '$["a\\n"]'),
    ],
)
def test_paths_of_members(key, path):
    assert strict_json.member_path("$", key) == path


@PROPERTY
@given(json_value)
def test_every_value_is_read_as_any_parser_reads_it(value):
    for ascii_only in (True, False):
        raw = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert loads(raw) == json.loads(raw)


@PROPERTY
@given(st.binary(max_size=30) | st.text('[]{}",:0123.eE+-\\u truefalsn', max_size=30).map(str.encode))
def test_any_bytes_are_read_like_everyone_reads_them_or_refused(raw):
    try:
        value = loads(raw)
    except ContentError as error:
        assert error.code == "JSON"
        return
    assert value == json.loads(raw)
