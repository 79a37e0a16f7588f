"""Digests are checked before they come near a URL or a path (reliability D1); values are shown without harm."""

import hashlib

import pytest
from epoch_strategies import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.errors import ContentError
from epoch_oci.oci.digest import Digest, shown

HEX = hashlib.sha256(b"").hexdigest()
LONG = hashlib.sha512(b"").hexdigest()

BAD = [
    "",
    ":",
    "sha256",
    "sha256:",
    HEX,
    f":{HEX}",
    f"sha256:{HEX[:-1]}",
    f"sha256:{HEX}0",
    f"sha256:{HEX[:-1]}g",
    f"sha256:{HEX.upper()}",
    f"SHA256:{HEX}",
    f"Sha256:{HEX}",
    f"sha256:sha256:{HEX}",
    f"sha256:{HEX}\n",
    f"\nsha256:{HEX}",
    f" sha256:{HEX}",
    f"sha256:{HEX} ",
    f"sha256: {HEX}",
    f"sha256-{HEX}",
    f"sha256:{HEX[:-3]}../",
    f"sha256:../{HEX[3:]}",
    f"sha256:..%2f{HEX[5:]}",
    f"sha256:{HEX[:-1]}\0",
    f"sha256:{HEX[:-1]}٣",
    f"sha256:{HEX[:-1]}\uff11",
    f"sha256:0x{HEX[2:]}",
    f"sha256:{LONG}",
    f"sha512:{HEX}",
    f"sha512:{LONG[:-1]}",
    f"sha512:{LONG.upper()}",
    f"sha1:{HEX[:40]}",
    f"md5:{HEX[:32]}",
    f"sha384:{HEX}{HEX[:32]}",
    f"blake3:{HEX}",
    f"sha256+b64:{HEX}",
    f"sha3-256:{HEX}",
    "sha256:" + "a" * 127,
    "sha256:" + "a" * 10**6,
    None,
    True,
    0,
    7.0,
    [],
    {},
    [f"sha256:{HEX}"],
    {"sha256": HEX},
    f"sha256:{HEX}".encode(),
]


def test_what_is_no_digest(subtests):
    for text in BAD:
        with subtests.test(text=text):
            with pytest.raises(ContentError) as caught:
                Digest.parse(text)
            assert caught.value.code == "DIGEST"
            assert len(str(caught.value)) < 300
            assert not any(ord(char) < 32 for char in str(caught.value))


def test_what_is_no_bare_digest(subtests):
    for text in [item for item in BAD if item != HEX] + [f"sha256:{HEX}", LONG]:
        with subtests.test(text=text):
            with pytest.raises(ContentError) as caught:
                Digest.from_hex(text)
            assert caught.value.code == "DIGEST"


def test_both_spellings():
    digest = Digest.parse(f"sha256:{HEX}")
    assert digest == Digest.from_hex(HEX) == Digest.of(b"")
    assert str(digest) == f"sha256:{HEX}"
    assert digest.short() == HEX[:12]
    assert str(Digest.parse(f"sha512:{LONG}")) == f"sha512:{LONG}"


def test_the_hasher_is_of_its_algorithm():
    for text, algorithm in ((f"sha256:{HEX}", "sha256"), (f"sha512:{LONG}", "sha512")):
        hasher = Digest.parse(text).hasher()
        hasher.update(b"x")
        assert hasher.hexdigest() == hashlib.new(algorithm, b"x").hexdigest()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", '"plain"'),
        ('quo"te\\', '"quo\\"te\\\\"'),
        ("\x1b[31m\r\n\x00\x7f", '"\\x1b[31m\\r\\n\\x00\\x7f"'),
        ("\u202eabc\u200b\ud800é", '"\\u202eabc\\u200b\\ud800\\xe9"'),
        ("x" * 81, '"' + "x" * 79 + '…"'),
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.5, "1.5"),
        ({"a": 1}, "an object"),
        (["x"], "an array"),
    ],
)
def test_values_are_shown_in_words_of_json(value, text):
    assert shown(value) == text


@PROPERTY
@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.text()))
def test_whatever_is_shown_is_short_and_harmless(value):
    text = shown(value)
    assert len(text) <= 90
    assert all(" " <= char <= "~" or char == "…" for char in text)
