"""The keys of an Epoch store and how a snapshot is written on a command line."""

import pytest
from epoch_strategies import PROPERTY, identity, text
from hypothesis import given

from epoch_oci.epoch.keys import SnapshotKey, blob_key, hostile_problem, manifest_key, parse_manifest_key
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.digest import Digest

HEX = "72f392a07ba8d51f2444cabf65d166daa9d32ca673da0a2798f36545e70796af"


@pytest.mark.parametrize(
    ("written", "name", "tag"),
    [
        ("bot", "bot", "latest"),
        ("bot:v1", "bot", "v1"),
        ("a/b/c:v1", "a/b/c", "v1"),
        (f"bot:sha256:{HEX}", "bot", f"sha256:{HEX}"),
        ("Bot.X Y:V 1", "Bot.X Y", "V 1"),
        ("host%3A5000/bot:v1", "host:5000/bot", "v1"),
        ("100%:v1", "100%", "v1"),
        ("100%25:v1", "100%", "v1"),
        (f"bot@sha256:{HEX}", "bot", f"sha256:{HEX}"),
        (f"a%3Ab@sha256:{HEX}", "a:b", f"sha256:{HEX}"),
        ("bot@sha256:00", "bot@sha256", "00"),
    ],
)
def test_a_key_is_divided_at_its_first_colon(written, name, tag):
    assert SnapshotKey.parse(written) == SnapshotKey(name, tag)


@pytest.mark.parametrize(
    ("written", "others"),
    [
        ("bot", []),
        ("bot:v1", [("bot:v1", "latest")]),
        ("team/direct:v7:v1", [("team/direct:v7", "v1"), ("team/direct:v7:v1", "latest")]),
        ("a:b:", [("a:b:", "latest")]),
        ("a%3Ab:c", []),
        (f"bot@sha256:{HEX}", []),
    ],
)
def test_a_word_may_be_divided_at_its_other_colons_too(written, others):
    """Names of real Epoch servers have colons in them."""
    first, *rest = SnapshotKey.readings(written)
    assert first == SnapshotKey.parse(written)
    assert [(key.name, key.tag) for key in rest] == others


def test_a_reading_that_would_be_hostile_is_none():
    assert SnapshotKey("a:b", "..") not in SnapshotKey.readings("a:b:..")


@pytest.mark.parametrize("written", ["", ":", "bot:", ":v1"])
def test_an_empty_part_is_wrong_usage(written):
    with pytest.raises(UsageError):
        SnapshotKey.parse(written)


@pytest.mark.parametrize(
    "written",
    [
        "../x",
        "a/../b",
        "/etc",
        "a//b",
        "a/",
        "./a",
        "a:..",
        "a:b/c",
        "a:.",
        "a\x1b[31m",
        "a:b\n",
        "a\x7f",
        "a\x9f",
    ],
)
def test_a_hostile_name_or_tag_is_wrong_content(written):
    with pytest.raises(ContentError) as caught:
        SnapshotKey.parse(written)
    assert caught.value.code == "NAME"
    assert not any(ord(char) < 32 for char in str(caught.value))


@pytest.mark.parametrize("key", [SnapshotKey("..", "v1"), SnapshotKey("a", "../b"), SnapshotKey("a", "b/c")])
def test_no_object_key_is_made_of_a_hostile_one(key):
    with pytest.raises(ContentError) as caught:
        manifest_key(key)
    assert caught.value.code == "NAME"


@pytest.mark.parametrize("name", ["UPPER", ".hidden", "a..b", "über", "a b", "x" * 300, "sha256:abc", "a\\b", "100%"])
def test_names_that_only_oci_refuses_are_epochs_own_business(name):
    assert hostile_problem(name) is None
    key = SnapshotKey(name, "v1")
    assert parse_manifest_key(manifest_key(key)) == key


@PROPERTY
@given(identity, identity.filter(lambda tag: "/" not in tag))
def test_every_key_survives_both_spellings(name, tag):
    key = SnapshotKey(name, tag)
    assert SnapshotKey.parse(str(key)) == key
    if not name.endswith("/_digests") and name != "_digests":
        assert parse_manifest_key(manifest_key(key)) == key


@PROPERTY
@given(text, text)
def test_no_key_leaves_its_folder(name, tag):
    try:
        made = manifest_key(SnapshotKey(name, tag))
    except ContentError as error:
        assert error.code == "NAME"
        return
    parts = made.split("/")
    assert parts[0] == "manifests"
    assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize(
    ("key", "snapshot"),
    [
        ("manifests/bot/latest.json", SnapshotKey("bot", "latest")),
        ("manifests/a/b/v1.json", SnapshotKey("a/b", "v1")),
        ("manifests/bot/v1.json.json", SnapshotKey("bot", "v1.json")),
        (f"manifests/bot/sha256:{HEX}.json", SnapshotKey("bot", f"sha256:{HEX}")),
        ("manifests/a/_digests/latest.json", SnapshotKey("a/_digests", "latest")),
        (f"manifests/bot/_digests/sha256-{HEX}.json", None),
        (f"manifests/a/b/_digests/sha256-{HEX}.json", None),
        ("manifests/latest.json", None),
        ("manifests//latest.json", None),
        ("manifests/bot/.json", None),
        ("manifests/bot/latest.json.tmp", None),
        ("manifests/bot/latest", None),
        ("other/bot/latest.json", None),
        ("catalog.json", None),
        (f"blobs/sha256/{HEX}", None),
        ("", None),
    ],
)
def test_keys_of_a_store_are_read(key, snapshot):
    assert parse_manifest_key(key) == snapshot


def test_blob_keys():
    assert blob_key(Digest.parse(f"sha256:{HEX}")) == f"blobs/sha256/{HEX}"
    with pytest.raises(ContentError) as caught:
        blob_key(Digest("sha512", "a" * 128))
    assert caught.value.code == "DIGEST"


def test_keys_sort_by_name_then_tag():
    keys = [SnapshotKey("b", "a"), SnapshotKey("a", "z"), SnapshotKey("a", "b")]
    assert sorted(keys) == [SnapshotKey("a", "b"), SnapshotKey("a", "z"), SnapshotKey("b", "a")]
