"""File names: flat and portable, or refused (reliability N1 to N5); every name Cocoon gives is accepted (R25)."""

import pytest
from epoch_strategies import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from epoch_oci.oci import filename

GOOD = [
    "config.json",
    "state.json",
    "memory-ranges",
    "memory-range-0",
    "overlay.qcow2",
    "cow.raw",
    "cidata.img",
    "cocoon.json",
    "vmstate",
    "mem",
    "data-x.raw",
    "data-a_b-c.raw",
    "f1f23e746aa5635221fb5422d331102a786e0c6b35653b78f1582c035c160da0.qcow2",
    "80e97c6868455f1cce2dc34488e31564ff68eba5d9c7b0c1fe4b5aa281782746",
    "disk.qcow2.part.001",
    "disk.qcow2.00.qcow2.part",
    "win1125h2-latest.qcow2.part.0001",
    "SHA256SUMS",
    "_x",
    "a",
    "0",
    "a+b",
    "a..b",
    "x" * 255,
    "console",
    "com",
    "com10",
    "nulls",
    "snapshot.json.bak",
    "mysnapshot.json",
]

BAD = [
    "",
    ".",
    "..",
    "...",
    "../x",
    "x/..",
    "a/../../x",
    "a/b",
    "/",
    "/etc/passwd",
    "//host/share",
    "./x",
    "x/",
    "~/x",
    "~",
    "\\",
    "..\\x",
    "a\\b",
    "\\\\host\\share",
    "C:",
    "C:\\x",
    "C:x",
    "f:stream",
    "x::$DATA",
    ".hidden",
    ".ssh",
    "-rf",
    "--help",
    "+x",
    " x",
    "x ",
    "a b",
    "x.",
    "x..",
    "a\tb",
    "a\nb",
    "x\n",
    "x\r",
    "a\0b",
    "\0",
    "\x1b[31m",
    "\x7f",
    "a\x80",
    "\u202egpj.exe",
    "a\u200bb",
    "a\u2028b",
    "\ufeffx",
    "\ud800",
    "é",
    "e\u0301",
    "ﬁle",
    "ｆｕｌｌ",
    "x\u2024json",
    "a∕b",
    "a%2fb".replace("%", "%"),
    "$HOME",
    "`id`",
    "$(id)",
    "a;b",
    "a|b",
    "a&b",
    "a>b",
    "a<b",
    "a*b",
    "a?b",
    "a'b",
    'a"b',
    "a!b",
    "a#b",
    "a=b",
    "a@b",
    "a,b",
    "a(b)",
    "[a]",
    "{a}",
    "a^b",
    "CON",
    "con",
    "Con.txt",
    "PRN",
    "aux.json",
    "NUL",
    "nul.txt",
    "nul.tar.gz",
    "COM1",
    "com9.log",
    "COM0",
    "LPT1",
    "lpt9.x",
    "snapshot.json",
    "Snapshot.JSON",
    "x" * 256,
    "x" * 10**6,
]

NOT_TEXT = [None, True, 0, 7, 1.5, [], {}, ["a"], b"a"]


def test_names_that_are_portable(subtests):
    for name in GOOD:
        with subtests.test(name=name):
            assert filename.problem(name) is None


def test_names_that_are_not(subtests):
    for name in BAD + NOT_TEXT:
        with subtests.test(name=name):
            why = filename.problem(name)
            assert why is not None
            assert len(why) < 250
            assert all(" " <= char <= "~" or char == "…" for char in why)


@PROPERTY
@given(st.text(max_size=12))
def test_what_is_accepted_is_flat_and_plain(name):
    if filename.problem(name) is None:
        assert name.isascii()
        assert "/" not in name
        assert name[0] not in ".-+ "
        assert name[-1] != "."


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "a"),
        ("a", "A"),
        ("Config.json", "config.JSON"),
        ("ﬁ", "fi"),
        ("ｘ", "x"),
        ("é", "e\u0301"),
        ("straße", "STRASSE"),
        ("\u212a", "k"),
        ("\u017f", "S"),
    ],
)
def test_names_that_are_one_on_some_file_system(one, other):
    (finding,) = filename.clash_findings([("$.a", one), ("$.b", "between"), ("$.c", other)])
    assert (finding.path, finding.code) == ("$.c", "NAME")
    assert "$.a" in finding.problem


def test_different_names_do_not_clash():
    assert filename.clash_findings([("$.a", "a.b"), ("$.b", "a-b"), ("$.c", "a_b"), ("$.d", "ab")]) == []


def test_each_further_name_is_a_finding():
    found = filename.clash_findings([("$.a", "x"), ("$.b", "X"), ("$.c", "x")])
    assert [finding.path for finding in found] == ["$.b", "$.c"]
