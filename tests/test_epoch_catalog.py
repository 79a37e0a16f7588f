"""`catalog.json`: read strictly, written as Epoch writes it, nothing lost."""

import json

import pytest
from epoch_strategies import PROPERTY, identity, spellings, time, unknown
from hypothesis import given
from hypothesis import strategies as st
from snapshots import with_tag

from epoch_oci.epoch.catalog import Catalog, without_tags
from epoch_oci.epoch.keys import SnapshotKey
from epoch_oci.errors import ContentError

NOW = "2026-04-05T10:00:00.123456789+08:00"
THEN = "2026-04-03T09:41:12.9Z"

# The bytes of Go's json.MarshalIndent for Epoch's Catalog of two repositories.
WRITTEN = b"""{
  "repositories": {
    "a\\u0026b": {
      "tags": {
        "latest": "manifests/a\\u0026b/latest.json",
        "v1": "manifests/a\\u0026b/v1.json"
      },
      "updatedAt": "2026-04-05T10:00:00.123456789+08:00"
    },
    "win11": {
      "tags": {
        "latest": "manifests/win11/latest.json"
      },
      "updatedAt": "2026-04-03T09:41:12.9Z"
    }
  },
  "updatedAt": "2026-04-05T10:00:00.123456789+08:00"
}"""


def without_tag(raw: bytes, name: str, tag: str, now: str) -> bytes:
    return without_tags(raw, [SnapshotKey(name, tag)], now)


def test_the_first_tag_makes_a_catalog_as_epoch_writes_it():
    assert with_tag(None, "bot", "v1", NOW).decode() == (
        '{\n  "repositories": {\n    "bot": {\n      "tags": {\n        "v1": "manifests/bot/v1.json"\n      },\n'
        f'      "updatedAt": "{NOW}"\n    }}\n  }},\n  "updatedAt": "{NOW}"\n}}'
    )


def test_repositories_and_tags_are_sorted_whatever_the_order_of_adding():
    raw = with_tag(None, "win11", "latest", THEN)
    raw = with_tag(raw, "a&b", "v1", NOW)
    assert with_tag(raw, "a&b", "latest", NOW) == WRITTEN


def test_a_catalog_of_epoch_comes_back_with_its_bytes():
    assert with_tag(WRITTEN, "a&b", "v1", NOW) == WRITTEN
    assert without_tag(with_tag(WRITTEN, "other", "v1", NOW), "other", "v1", NOW) == WRITTEN


def test_null_maps_become_empty_ones():
    assert json.loads(with_tag(b'{"repositories":null}', "bot", "v1", NOW))["repositories"].keys() == {"bot"}
    raw = b'{"repositories":{"a":{"tags":null,"updatedAt":"%s"},"b":null,"c":{}}}' % THEN.encode()
    repositories = json.loads(with_tag(raw, "a", "v1", NOW))["repositories"]
    assert repositories["a"] == {"tags": {"v1": "manifests/a/v1.json"}, "updatedAt": NOW}
    assert repositories["b"] == {"tags": {}}
    assert repositories["c"] == {"tags": {}}


def test_unknown_members_are_kept_at_every_level():
    raw = b"""{"format": 1.5, "repositories": {"a": {"owner": {"z": 1, "a": [null]}, "tags": {"x": "odd"}, "n": -0.0}},
        "labels": {"z": "<&>", "a": ""}}"""
    value = json.loads(with_tag(raw, "a", "v1", NOW))
    assert value["format"] == 1.5
    assert list(value["labels"]) == ["z", "a"]
    assert value["repositories"]["a"]["owner"] == {"z": 1, "a": [None]}
    assert value["repositories"]["a"]["tags"] == {"v1": "manifests/a/v1.json", "x": "odd"}


def test_the_last_tag_takes_its_repository_along():
    raw = with_tag(with_tag(None, "bot", "v1", THEN), "bot", "v2", THEN)
    one = Catalog.parse(without_tag(raw, "bot", "v1", NOW))
    assert one.repositories["bot"].tags == {"v2": "manifests/bot/v2.json"}
    assert one.repositories["bot"].updated_at == THEN
    assert one.updated_at == NOW
    none = Catalog.parse(without_tag(without_tag(raw, "bot", "v1", NOW), "bot", "v2", NOW))
    assert none.repositories == {}


def test_taking_away_what_is_not_listed_changes_nothing():
    assert without_tag(WRITTEN, "win11", "v9", NOW) is WRITTEN
    assert without_tag(WRITTEN, "other", "latest", NOW) is WRITTEN


def test_lists():
    catalog = Catalog.parse(WRITTEN)
    assert catalog.lists(SnapshotKey("a&b", "v1"))
    assert not catalog.lists(SnapshotKey("a&b", "v2"))
    assert not catalog.lists(SnapshotKey("other", "v1"))
    assert not Catalog.parse(b'{"repositories":{"a":{"tags":{"v1":"x"}}}}').lists(SnapshotKey("a", "v1"))


@pytest.mark.parametrize(
    ("raw", "path", "code"),
    [
        (b"", "$", "JSON"),
        (b"{", "$", "JSON"),
        (b"[]", "$", "SCHEMA"),
        (b"null", "$", "SCHEMA"),
        (b'{"repositories":[]}', "$.repositories", "SCHEMA"),
        (b'{"repositories":{"a":7}}', "$.repositories.a", "SCHEMA"),
        (b'{"repositories":{"a":{"tags":[]}}}', "$.repositories.a.tags", "SCHEMA"),
        (b'{"repositories":{"a":{"tags":{"v1":7}}}}', "$.repositories.a.tags.v1", "SCHEMA"),
        (b'{"repositories":{"a":{"updatedAt":""}}}', "$.repositories.a.updatedAt", "SCHEMA"),
        (b'{"updatedAt":"yesterday"}', "$.updatedAt", "SCHEMA"),
        (b'{"Repositories":{}}', "$.Repositories", "JSON"),
        (b'{"repositories":{"a":{"Tags":{}}}}', "$.repositories.a.Tags", "JSON"),
        (b'{"repositories":{},"repositories":{}}', "$", "JSON"),
        (b'{"x":1e999}', "$", "JSON"),
    ],
)
def test_a_damaged_catalog_is_not_rewritten(raw, path, code):
    for change in (lambda: with_tag(raw, "bot", "v1", NOW), lambda: without_tag(raw, "bot", "v1", NOW)):
        with pytest.raises(ContentError) as caught:
            change()
        assert [(finding.path, finding.code) for finding in caught.value.findings] == [(path, code)]


@pytest.mark.parametrize(("name", "tag"), [("../x", "v1"), ("a", "../v1"), ("a", "b/c"), ("", "v1"), ("a", "")])
def test_a_hostile_key_is_not_added(name, tag):
    with pytest.raises(ContentError) as caught:
        with_tag(None, name, tag, NOW)
    assert caught.value.code == "NAME"


tag_name = identity.filter(lambda tag: "/" not in tag)
repository = st.fixed_dictionaries(
    {"tags": st.none() | st.dictionaries(tag_name, identity, max_size=3)}, optional={"updatedAt": time}
)
catalog = st.fixed_dictionaries(
    {"repositories": st.none() | st.dictionaries(identity, st.tuples(repository, unknown), max_size=3)},
    optional={"updatedAt": time},
)


@PROPERTY
@given(st.data(), identity, tag_name)
def test_adding_and_taking_away_leaves_everything_else(data, name, tag):
    value = data.draw(catalog)
    known = {key: {**members, **more} for key, (members, more) in (value["repositories"] or {}).items()}
    raw = data.draw(spellings({**value, "repositories": known, **data.draw(unknown)}))
    added = with_tag(raw, name, tag, NOW)
    assert Catalog.parse(added).lists(SnapshotKey(name, tag))
    after = json.loads(without_tag(added, name, tag, NOW))
    for key, members in known.items():
        tags = {item: target for item, target in (members["tags"] or {}).items() if (key, item) != (name, tag)}
        if key != name:
            assert after["repositories"][key] == {**members, "tags": tags}
        elif tags:
            assert after["repositories"][key]["tags"] == tags
    before = json.loads(raw)
    assert {k: v for k, v in after.items() if k.startswith("x-")} == {
        k: v for k, v in before.items() if k.startswith("x-")
    }
