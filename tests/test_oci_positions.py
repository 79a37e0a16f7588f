"""Where in a text a JSON path leads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.oci.positions import positions
from epoch_oci.oci.strict_json import member_path

TEXT = """{
  "a": 1, "odd key": [
    true,
    {"z": [null, "é", {"deep": 0}]}
  ],
  "empty": {}
}
"""


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        ("$", 1, 1),
        ("$.a", 2, 3),
        ('$["odd key"]', 2, 11),
        ('$["odd key"][0]', 3, 5),
        ('$["odd key"][1].z', 4, 6),
        ('$["odd key"][1].z[2].deep', 4, 24),
        ("$.empty", 6, 3),
    ],
)
def test_what_is_there_is_where_it_is(path, line, column):
    """Columns are characters, as people count them."""
    assert positions(TEXT, [path]) == {path: (line, column)}


@pytest.mark.parametrize(
    ("path", "above"), [("$.name", "$"), ("$.empty.size", "$.empty"), ('$["odd key"][7].x', '$["odd key"]')]
)
def test_what_is_missing_is_where_it_should_be(path, above):
    assert positions(TEXT, [path])[path] == positions(TEXT, [above])[above]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 1, 1),
        ('{"a": 1,,}', 1, 9),
        ('{"a":\n [1 2]}', 2, 5),
        ('{"a": 1} x', 1, 10),
        ("\n{", 2, 2),
        ("[" * 9999, 1, 1),
    ],
)
def test_a_text_that_is_no_json_has_the_place_where_it_ceases_to_be(text, line, column):
    assert positions(text, ["$", "$.a"]) == dict.fromkeys(("$", "$.a"), (line, column))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def within(value, path="$"):
    """Every path of a value, with what is there."""
    yield path, value
    if isinstance(value, dict):
        for key, member in value.items():
            yield from within(member, member_path(path, key))
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from within(element, f"{path}[{index}]")


@given(VALUES, st.sampled_from([None, 1, 3]))
def test_every_path_of_a_document_leads_to_what_it_names(value, indent):
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    lines = text.split("\n")
    found = dict(within(value))
    for path, (line, column) in positions(text, found).items():
        rest = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
        first, end = json.JSONDecoder().raw_decode(rest)
        if (path.endswith("]") and not path.endswith('"]')) or path == "$":
            assert first == found[path]
        else:
            assert path == member_path(path[: path.rindex(member_path("", first))], first) and rest[end] == ":"
