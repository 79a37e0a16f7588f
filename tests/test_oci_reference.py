"""References and the grammar of repositories and tags."""

import hashlib
import re

import pytest
from epoch_strategies import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.errors import UsageError
from epoch_oci.oci.digest import Digest
from epoch_oci.oci.reference import (
    Reference,
    is_registry,
    legal_repository,
    legal_tag,
    repository_problem,
    tag_problem,
)

HEX = hashlib.sha256(b"").hexdigest()
DIGEST = f"sha256:{HEX}"
# distribution-spec, "Pulling manifests"
SPEC_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
SPEC_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("ghcr.io/acme/bot:v1", "ghcr.io", "acme/bot", "v1", None),
        ("ghcr.io/acme/bot", "ghcr.io", "acme/bot", None, None),
        ("localhost/bot", "localhost", "bot", None, None),
        ("localhost:5000/a/b/c:1", "localhost:5000", "a/b/c", "1", None),
        ("127.0.0.1:5000/a", "127.0.0.1:5000", "a", None, None),
        ("[::1]:5000/a:v", "[::1]:5000", "a", "v", None),
        (f"r.example/a@{DIGEST}", "r.example", "a", None, DIGEST),
        (f"r.example/a:v1@{DIGEST}", "r.example", "a", "v1", DIGEST),
        ("docker://r.example/a:v1", "r.example", "a", "v1", None),
        ("oci://r.example/a", "r.example", "a", None, None),
        ("r.example/a__b.c---d/e_f:" + "t" * 128, "r.example", "a__b.c---d/e_f", "t" * 128, None),
    ],
)
def test_references(text, registry, repository, tag, digest):
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag) == (registry, repository, tag)
    assert found.digest == (Digest.parse(digest) if digest else None)
    assert Reference.parse(str(found)) == found
    assert found.name == f"{registry}/{repository}"
    assert found.selector == (digest or tag)


def test_what_is_no_reference(subtests):
    for text in [
        "",
        "bot",
        "bot:v1",
        "acme/bot",
        "/bot",
        "ghcr.io",
        "ghcr.io/",
        "ghcr.io//bot",
        "ghcr.io/bot/",
        "ghcr.io/../bot",
        "ghcr.io/./bot",
        "ghcr.io/a/../../v2/_catalog",
        "ghcr.io/Bot",
        "ghcr.io/bot:",
        "ghcr.io/bot:.v1",
        "ghcr.io/bot:-v1",
        "ghcr.io/bot:a/b",
        "ghcr.io/bot:a b",
        "ghcr.io/bot:a?b",
        "ghcr.io/bot:" + "t" * 129,
        f"ghcr.io/bot:{DIGEST}",
        "ghcr.io/bot@",
        "ghcr.io/bot@sha256:abc",
        f"ghcr.io/bot@{HEX}",
        f"ghcr.io/bot@{DIGEST}x",
        f"ghcr.io/bot@{DIGEST}@{DIGEST}",
        "ghcr.io/bot?x=1",
        "ghcr.io/bot#x",
        "ghcr.io/a%2fb",
        "ghcr.io/a b",
        "ghcr.io/a\nb",
        "ghcr.io/bot\n",
        "ghcr.io/bot:v1\n",
        "ghcr.io/\x1b[31m",
        "ghcr.io/a_-b",
        "ghcr.io/a___b",
        "ghcr.io/a..b",
        "ghcr.io/-a",
        "ghcr.io/a-",
        "ghcr.io/größe",
        "ghcr.io/" + "a" * 256,
        "https://ghcr.io/bot",
        "http://localhost/bot",
        "oci://https://ghcr.io/bot",
        "user@ghcr.io/bot",
        "user:password@ghcr.io/bot",
        "ghcr.io:0/bot",
        "ghcr.io:65536/bot",
        "ghcr.io:99999/bot",
        "ghcr.io:port/bot",
        "ghcr.io:/bot",
        "-ghcr.io/bot",
        "ghcr-.io/bot",
        "ghcr..io/bot",
        ".ghcr.io/bot",
        "ghcr.io./bot",
        "gh cr.io/bot",
        "größe.io/bot",
        "[::1/bot",
        "::1/bot",
        "[::1]x:5000/bot",
        "[fe80::1%eth0]/bot",
    ]:
        with subtests.test(text=text):
            with pytest.raises(UsageError) as caught:
                Reference.parse(text)
            assert caught.value.hint
            assert all(" " <= char <= "~" or char == "…" for char in str(caught.value))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ghcr.io/ACME/Bot", '"acme/bot" would work'),
        ("ghcr.io/a b", '"a-b" would work'),
        ("ghcr.io/bot:v1+build", '"v1-build" would work'),
        ("ghcr.io/bot:.v1", '"v1" would work'),
    ],
)
def test_the_hint_for_a_target_has_a_spelling_that_works(text, hint):
    with pytest.raises(UsageError) as caught:
        Reference.parse(text, wanted=True)
    assert caught.value.hint == hint


@pytest.mark.parametrize("text", ["epoch.acme.io/Edge_Case.1:v1", "ghcr.io/a b", "ghcr.io/bot:v1+build", "a:1/b:v7:v1"])
def test_what_is_read_has_the_name_it_has_and_no_other_is_suggested(text):
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert "bucket" in caught.value.hint and "would work" not in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io", True),
        ("localhost", True),
        ("localhost:5000", True),
        ("a:1", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("[::1]:80", True),
        ("acme", False),
        ("", False),
        ("a:b", False),
        ("a:0", False),
        ("..", False),
    ],
)
def test_what_names_a_registry(text, expected):
    assert is_registry(text) is expected


@PROPERTY
@given(st.text("aAz09._-/ é\n", max_size=12))
def test_repositories_are_those_of_the_specification(text):
    assert (repository_problem(text) is None) == (SPEC_NAME.fullmatch(text) is not None)


@PROPERTY
@given(st.text("aAz09._-/: é\n", max_size=12))
def test_tags_are_those_of_the_specification(text):
    assert (tag_problem(text) is None) == (SPEC_TAG.fullmatch(text) is not None)


@PROPERTY
@given(st.text("aA0._-/ é:İ", max_size=16) | st.text(max_size=16) | st.text("a.-_/", min_size=250, max_size=300))
def test_a_legal_spelling_is_legal_or_empty(text):
    repository, tag = legal_repository(text), legal_tag(text)
    assert repository == "" or repository_problem(repository) is None
    assert tag == "" or tag_problem(tag) is None
    if text and repository_problem(text) is None:
        assert repository == text
    if text and tag_problem(text) is None:
        assert tag == text
