"""The schemas as data, and their only opener."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schema_examples import Example, invalid, valid
from support.peers import NODE_MODULES, require_node_package, requires_peer, run_peer

from epoch_oci import schemas
from epoch_oci.cocoon.envelope import Envelope
from epoch_oci.dialects.cocoonstack.config import SnapshotConfig
from epoch_oci.epoch.catalog import Catalog
from epoch_oci.epoch.manifest import EPOCH_MANIFEST, Manifest
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.document import Document


def paths(example: Example) -> list[str]:
    try:
        value = schemas.read(example.raw, example.kind, example.path.name)
    except ContentError as error:
        return [finding.path for finding in error.findings]
    return [finding.path for finding in schemas.findings(value, example.kind)]


def refused(example: Example) -> bool:
    try:
        schemas.check(Document("application/json", example.raw), example.kind, example.path.name)
    except ContentError as error:
        assert all(finding.problem and finding.code for finding in error.findings)
        return True
    return False


@pytest.mark.parametrize("kind", schemas.kinds())
def test_valid_documents_have_no_finding(kind):
    for example in (item for item in valid() if item.kind == kind):
        assert paths(example) == [], example
        assert not refused(example), example
        assert schemas.kind_of(schemas.read(example.raw, kind, "it")) == kind, example


@pytest.mark.parametrize("kind", schemas.kinds())
def test_invalid_documents_have_findings_just_where_they_are_wrong(kind):
    for example in (item for item in invalid() if item.kind == kind):
        assert sorted(paths(example)) == sorted(example.paths), example
        assert refused(example), example


def agreed(value, kind):
    """What the fast gate and the full validator both say."""
    full = not list(schemas._validator(kind).iter_errors(value))
    if not schemas._has_fraction(value):
        assert schemas._gate(kind).is_valid(value) == full, (kind, value)
    return full


def test_the_fast_gate_agrees_with_the_full_validator():
    counted = {True: 0, False: 0}
    for example in [*valid(), *invalid()]:
        try:
            value = schemas.read(example.raw, example.kind, example.path.name)
        except ContentError:
            continue
        counted[agreed(value, example.kind)] += 1
    assert min(counted.values()) > 50


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_fast_gate_agrees_on_mutated_documents(data):
    """Any one value of a good document replaced by any JSON value, or left out."""
    example = data.draw(st.sampled_from(valid()))
    value = json.loads(example.raw)
    holder, key = data.draw(st.sampled_from(list(_spots(value))))
    if data.draw(st.booleans()):
        holder[key] = data.draw(JSON_VALUES)
    else:
        del holder[key]
    agreed(value, example.kind)


def test_a_fraction_is_no_integer_though_json_schema_calls_it_one():
    for size in ("1.0", "1e3", "-0"):
        layer = f'{{"digest": "{"0" * 64}", "size": {size}, "filename": "a"}}'
        raw = f'{{"name": "a", "tag": "b", "layers": [{layer}]}}'.encode()
        with pytest.raises(ContentError) as caught:
            schemas.check(Document(EPOCH_MANIFEST, raw), "epoch-manifest.v1", "it")
        assert [finding.path for finding in caught.value.findings] == ["$.layers[0].size"]


def test_without_the_fast_gate_the_verdicts_are_the_same(monkeypatch):
    """Some machines have no wheel of it."""
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    schemas._gate.cache_clear()
    try:
        assert schemas._gate("epoch-manifest.v1") is None
        for example in (item for item in [*valid(), *invalid()] if item.kind == "epoch-manifest.v1"):
            assert refused(example) == bool(example.paths)
    finally:
        schemas._gate.cache_clear()


def test_a_document_is_read_once_and_the_check_hands_on_what_was_read():
    example = next(item for item in valid() if item.kind == "epoch-manifest.v1")
    document = Document(EPOCH_MANIFEST, example.raw)
    value = schemas.check(document, example.kind, "it")
    assert Manifest.parse(document).name == value["name"]
    assert document.json() is value


SMALL = [example for example in valid() if len(example.raw) < 4000]


@pytest.mark.parametrize("kind", sorted({example.kind for example in SMALL}))
def test_what_may_be_absent_may_be_null(kind):
    """Go's readers know no difference; a media type may be an empty text as well."""
    for example in (item for item in SMALL if item.kind == kind):
        may_be_null(example)


def may_be_null(example: Example) -> None:
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


@pytest.mark.parametrize("kind", READERS)
def test_readers_take_null_for_absence(kind):
    for example in (item for item in SMALL if item.kind == kind):
        takes_null(example)


def takes_null(example: Example) -> None:
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


@requires_peer("node")
def test_every_schema_compiles_under_ajv_s_strict_mode(tmp_path):
    """And its examples validate there: other validators read the schemas as ours does."""
    require_node_package("ajv")
    root = Path(__file__).parent.parent
    files = sorted((root / "schemas").rglob("*.json"))
    assert len(files) == len(schemas.kinds()) + len(schemas.interfaces())
    run_peer("node", root / ".ci/ajv.cjs", *files, home=tmp_path, env={"NODE_PATH": str(NODE_MODULES)})


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
    code = "import sys, epoch_oci.schemas; sys.exit('jsonschema' in sys.modules or 'jsonschema_rs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
