"""Secrets are found in whatever spelling a server, a URL or an encoder gives them."""

import base64
import html
import json
import re
import urllib.parse

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epoch_oci.oci.digest import shown
from epoch_oci.redaction import fit_to_show, octets, user_info, without

SPELLINGS = [
    lambda text: text,
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(json.dumps(text))[3:-3],
    lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    lambda text: repr(text)[1:-1],
    lambda text: ascii(text)[1:-1],
    lambda text: html.escape(text),
    lambda text: urllib.parse.quote(octets(text)),
    lambda text: urllib.parse.quote(octets(text), safe=""),
    lambda text: urllib.parse.quote_plus(octets(text)),
    lambda text: "".join(part.lower() if part[:1] == "%" else part for part in _percents(text)),
    lambda text: base64.b64encode(octets(text)).decode(),
    lambda text: base64.urlsafe_b64encode(octets(text)).decode(),
    lambda text: urllib.parse.quote(base64.b64encode(octets(text)), safe=""),
]


def _percents(text: str) -> list[str]:
    return re.split("(%[0-9A-F]{2})", urllib.parse.quote(octets(text), safe=""))


@pytest.mark.parametrize("spelled", SPELLINGS)
@settings(max_examples=20)
@given(secret=st.text(min_size=4, max_size=20))
@example(secret="correct-horse-battery")
@example(secret='"quo\'ted" \\ <&> /+%')
@example(secret="bytes \udcff\udc80")
def test_every_spelling_is_found(spelled, secret):
    assert without([secret], f"before {spelled(secret)} after", "") == "before  after"


@pytest.mark.parametrize("shift", range(3))
def test_what_is_inside_base64_is_found_at_every_offset(shift):
    text = base64.b64encode(b"u" * shift + b"correct-horse" + b"tail").decode()
    assert "Y29ycmVjdC1ob3J" not in without(["correct-horse"], text)
    assert len(without(["correct-horse"], text)) < len(text) - 14


def test_the_longest_secret_goes_first():
    assert without(["horse", "correct-horse"], "a correct-horse, a horse") == "a …, a …"


@pytest.mark.parametrize("length", [4, 12, 39])
def test_the_start_of_a_secret_before_a_cut_is_found(length):
    secret = "correct-horse" * 3
    text = shown(f"user:{secret}@host", 5 + length + 1)
    assert text.endswith('…"') and secret[:length] in text
    assert without([secret], text, "***") in ('"user:***…"', '"user:***"')
    assert without([secret], "a co… b corr… c", "*") == "a co… b *… c"


@pytest.mark.parametrize("secret", ["", "1", "ab", "abc"])
def test_what_is_too_short_is_left_alone(secret):
    assert without([secret], "1 abc 2") == "1 abc 2"


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("u:p@ghcr.io/a/b", "u:p"),
        ("u:p@localhost:5000/a", "u:p"),
        ("u:p/w@x@ghcr.io/a", "u:p/w@x"),
        ("u:p@[::1]:5000/a", "u:p"),
        ("u:p@ghcr.io/a@sha256:" + "0" * 64, "u:p"),
        ("token@ghcr.io/a/b", "token"),
        ("https://token@host", "token"),
        ("s3://key:secret@bucket/prefix", "key:secret"),
        ("docker://u:p@ghcr.io/a", "u:p"),
        ("ghcr.io/a/b:v1", ""),
        ("ghcr.io/a/b:v1@sha256:" + "0" * 64, ""),
        ("bot:v1@sha512:" + "0" * 128, ""),
        ("localhost:5000/a/b@v1", ""),
        ("oci:/media/me@home/x.y", ""),
        ("cocoon:/srv/a@b/c", ""),
        ("file:///srv/a@b/c", ""),
        ("s3://bucket/a@b/c", ""),
        ("./a@b/c.d", ""),
        ("me@example.com", ""),
        ("", ""),
        ("@", ""),
    ],
)
def test_where_a_password_may_stand(word, found):
    assert user_info(word) == found
    assert fit_to_show(word) == (word.replace(f"{found}@", "…@") if found else word)
