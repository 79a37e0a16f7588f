"""The schemas as data, and their only opener."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schema_examples import Example, invalid, valid

from epoch_oci import schema_gate, schemas
from epoch_oci.cocoon.envelope import Envelope
from epoch_oci.dialects.cocoonstack.config import SnapshotConfig
from epoch_oci.epoch.catalog import Catalog
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.document import Document


def paths(example: Example) -> list[str]:
    try:
        value = schemas.read(example.raw, example.kind, example.path.name)
    except ContentError as error:
        return [finding.path for finding in error.findings]
    return [finding.path for finding in schemas.findings(value, example.kind)]


@pytest.mark.parametrize("example", valid(), ids=lambda example: f"{example.kind}/{example.path.name}")
def test_valid_documents_have_no_finding(example):
    assert paths(example) == []
    value = schemas.check(example.raw, example.kind, example.path.name)
    assert schemas.kind_of(value) == example.kind


@pytest.mark.parametrize("example", invalid(), ids=lambda example: f"{example.kind}/{example.path.name}")
def test_invalid_documents_have_findings_just_where_they_are_wrong(example):
    assert sorted(paths(example)) == sorted(example.paths)
    with pytest.raises(ContentError) as caught:
        schemas.check(example.raw, example.kind, example.path.name)
    assert all(finding.problem and finding.code for finding in caught.value.findings)


@pytest.mark.parametrize("example", valid() + invalid(), ids=lambda example: f"{example.kind}/{example.path.name}")
def test_the_fast_gate_agrees_with_the_full_validator(example):
    gate = schema_gate.compile_gate(schemas.schema(example.kind))
    full = Draft202012Validator(schemas.schema(example.kind))
    assert gate is not None
    value = json.loads(example.raw) if example.raw[:1] == b"{" and b"NaN" not in example.raw else None
    assert gate(value) == full.is_valid(value)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_fast_gate_agrees_on_mutated_documents(data):
    """Any one value of a good document replaced by any JSON value."""
    example = data.draw(st.sampled_from(valid()))
    value = json.loads(example.raw)
    spots = list(_spots(value))
    holder, key = data.draw(st.sampled_from(spots))
    holder[key] = data.draw(JSON_VALUES)
    gate = schema_gate.compile_gate(schemas.schema(example.kind))
    strict = [finding for finding in schemas.findings(value, example.kind) if "in case only" not in finding.problem]
    assert gate(value) == (not strict)


SMALL = [example for example in valid() if len(example.raw) < 4000]


@pytest.mark.parametrize("example", SMALL, ids=lambda example: f"{example.kind}/{example.path.name}")
def test_what_may_be_absent_may_be_null(example):
    """Go's readers know no difference; a media type may be an empty text as well."""
    value = json.loads(example.raw)
    for holder, key in [spot for spot in _spots(value) if isinstance(spot[0], dict)]:
        kept = dict(holder)
        del holder[key]
        optional = schemas.findings(value, example.kind) == []
        for nothing in (None, *([""] if key == "mediaType" else [])):
            holder.clear()
            holder.update({**kept, key: nothing})
            assert not optional or schemas.findings(value, example.kind) == [], (key, nothing)
        holder.clear()
        holder.update(kept)


READERS = {
    "cocoon-export-envelope.v1": lambda raw: replace(Envelope.parse(raw), raw=b"", config={}),
    "cocoonstack-snapshot-config.v1": lambda raw: replace(SnapshotConfig.parse(Document("a/b", raw)), others={}),
    "cocoonstack-snapshot-config.v2": lambda raw: replace(SnapshotConfig.parse(Document("a/b", raw)), others={}),
    "epoch-catalog.v1": Catalog.parse,
}


@pytest.mark.parametrize("example", [example for example in SMALL if example.kind in READERS], ids=str)
def test_readers_take_null_for_absence(example):
    read, value = READERS[example.kind], json.loads(example.raw)
    members = value.get("config", value)
    for key in list(members):
        kept = dict(members)
        del members[key]
        if schemas.findings(value, example.kind) == []:
            absent = read(json.dumps(value).encode())
            members[key] = None
            assert read(json.dumps(value).encode()) == absent
        members.clear()
        members.update(kept)


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def _spots(value):
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in list(pairs):
        yield value, key
        yield from _spots(member)


def test_a_keyword_the_gate_does_not_know_is_left_to_the_full_validator():
    assert schema_gate.compile_gate({"type": "object", "unevaluatedProperties": False}) is None


def test_there_are_examples_of_both_sorts_for_every_kind():
    assert {example.kind for example in valid()} == {example.kind for example in invalid()} == set(schemas.kinds())


@pytest.mark.parametrize("kind", schemas.kinds())
def test_every_schema_is_one_and_its_examples_validate(kind):
    schema = schemas.schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(kind) and schema["title"] and schema["description"] and schema["examples"]
    assert all(schemas.findings(example, kind) == [] for example in schema["examples"])


def test_every_property_is_described():
    def bare(rule, path):
        for name, member in rule.get("properties", {}).items():
            if isinstance(member, dict) and "$ref" not in member:
                if not member.get("description") and "const" not in member:
                    yield f"{path}.{name}"
                yield from bare(member, f"{path}.{name}")
        for name, member in rule.get("$defs", {}).items():
            yield from bare(member, f"{path}#{name}")

    assert [path for kind in schemas.kinds() for path in bare(schemas.schema(kind), kind)] == []


def test_an_unknown_kind_is_the_callers_mistake():
    with pytest.raises(UsageError, match="epoch-manifest"):
        schemas.schema("no-such-kind")


def test_an_alias_of_a_known_key_is_refused_and_an_alias_of_an_annotation_is_not():
    value = {"name": "a", "tag": "b", "layers": [], "Layers": []}
    assert [finding.path for finding in schemas.findings(value, "epoch-manifest.v1")] == ["$.Layers"]
    layer = {"digest": "0" * 64, "size": 1, "filename": "a", "Size": 2}
    found = schemas.findings({"name": "a", "tag": "b", "layers": [layer]}, "epoch-manifest.v1")
    assert [finding.path for finding in found] == ["$.layers[0].Size"]


def test_importing_the_opener_does_not_import_jsonschema():
    code = "import sys, epoch_oci.schemas; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
