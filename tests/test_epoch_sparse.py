"""Cocoon's packed form of sparse files."""

import json

import pytest
from epoch_strategies import PROPERTY, sparse_records
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.epoch.sparse import MAP, MAP_LIMIT, SIZE, Segment, unpacking
from epoch_oci.errors import ContentError


def records(sparse_map, size="1000"):
    return {MAP: sparse_map if isinstance(sparse_map, str) else json.dumps(sparse_map), SIZE: size}


def test_an_ordinary_entry_is_the_file_itself():
    assert unpacking({"mtime": "1775000000.5"}, 12) is None
    assert unpacking({}, 0) is None


def test_segments_ascend_within_the_file():
    found = unpacking(records([{"o": 0, "l": 10}, {"o": 10, "l": 5}, {"o": 995, "l": 5}]), 20)
    assert found.segments == (Segment(0, 10), Segment(10, 5), Segment(995, 5))
    assert found.logical_size == 1000


def test_a_file_that_is_one_hole_has_no_map_and_no_bytes():
    for sparse_map in ("null", "[]"):
        found = unpacking(records(sparse_map), 0)
        assert found.segments == ()
        assert found.logical_size == 1000


def test_maps_that_cannot_be_right_are_refused(subtests):
    for pax_records, stored, code in [
        (records([{"o": 0, "l": 2**62}], str(2**62)), 10, "SIZE"),
        (records([{"o": 0, "l": 10}], str(2**53)), 10, "SIZE"),
        (records([{"o": 0, "l": 10}, {"o": 5, "l": 10}]), 20, "SIZE"),
        (records([{"o": 50, "l": 10}, {"o": 0, "l": 10}]), 20, "SIZE"),
        (records([{"o": -1, "l": 10}]), 10, "SCHEMA"),
        (records([{"o": 0, "l": -10}]), 10, "SCHEMA"),
        (records([{"o": 991, "l": 10}]), 10, "SIZE"),
        (records([{"o": 0, "l": 10}]), 11, "SIZE"),
        (records([{"o": 0, "l": 10}]), 0, "SIZE"),
        (records("null"), 1, "SIZE"),
        (records("null", "0"), 0, "SIZE"),
        (records("[]", "0"), 0, "SIZE"),
        (records([{"o": 0, "l": 10}], ""), 10, "SIZE"),
        (records([{"o": 0, "l": 10}], "1e3"), 10, "SIZE"),
        (records([{"o": 0, "l": 10}], "+1000"), 10, "SIZE"),
        (records([{"o": 0, "l": 10}], "01000"), 10, "SIZE"),
        (records([{"o": 0, "l": 10}], "-1000"), 10, "SIZE"),
        (records([{"o": 0, "l": 10}], "1000\n"), 10, "SIZE"),
        (records([{"o": 0, "l": 10}], "9" * 5000), 10, "SIZE"),
        (records([{"o": 0.0, "l": 10}]), 10, "SCHEMA"),
        (records([{"o": True, "l": 10}]), 10, "SCHEMA"),
        (records([{"o": 0}]), 0, "SCHEMA"),
        (records([{"o": 0, "l": 10, "x": 1}]), 10, "SCHEMA"),
        (records([{"O": 0, "l": 10}]), 10, "SCHEMA"),
        (records('[{"o":0,"o":5,"l":10}]'), 10, "JSON"),
        (records([[0, 10]]), 10, "SCHEMA"),
        (records({"o": 0, "l": 10}), 10, "SCHEMA"),
        (records("7"), 0, "SCHEMA"),
        (records(""), 0, "JSON"),
        (records("[{]"), 0, "JSON"),
        (records("[NaN]"), 0, "JSON"),
        (records("[" * 100_000), 0, "JSON"),
        (records("[" + " " * MAP_LIMIT + "]"), 0, "SIZE"),
        ({MAP: "null"}, 0, "SCHEMA"),
        ({SIZE: "10"}, 0, "SCHEMA"),
    ]:
        with subtests.test(pax_records=pax_records):
            with pytest.raises(ContentError) as caught:
                unpacking(pax_records, stored)
            assert caught.value.code == code


def test_everything_wrong_is_told_at_once():
    with pytest.raises(ContentError) as caught:
        unpacking({MAP: "?", SIZE: "?"}, 0)
    assert {finding.path for finding in caught.value.findings} == {f'$["{MAP}"]', f'$["{SIZE}"]'}


@PROPERTY
@given(sparse_records())
def test_what_cocoon_writes_is_read(packed):
    pax_records, stored = packed
    found = unpacking(pax_records, stored)
    assert sum(segment.length for segment in found.segments) == stored
    assert found.logical_size == int(pax_records[SIZE])
    ends = [0, *(segment.offset + segment.length for segment in found.segments)]
    assert all(segment.offset >= end for segment, end in zip(found.segments, ends, strict=False))
    assert ends[-1] <= found.logical_size


@PROPERTY
@given(sparse_records(), st.integers(1, 2**40))
def test_another_size_of_the_blob_is_always_refused(packed, more):
    pax_records, stored = packed
    with pytest.raises(ContentError):
        unpacking(pax_records, stored + more)
