"""Every citation of the project's own documents leads to a heading or a row that is there, and so does every link.

A citation is `PAGE ID`, or several IDs: `epoch-formats 4.3 to 4.6 and 4.10`, `oci-registries 5.4`, `reliability C3`,
`decision D5`, `trap 8`. An ID stands where a heading begins with it, or where it is the first cell of a table's row.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {
    "epoch-formats": "docs/reference/epoch-formats.md",
    "oci-registries": "docs/reference/oci-registries.md",
    "reliability": "docs/reference/reliability.md",
    "decision": "docs/reference/decisions.md",
    "trap": "docs/traps.md",
}
ID = r"[A-Z]?[0-9]+(?:\.[0-9]+)*[a-z]?(?![\w-])"
CITATION = re.compile(
    rf"(?<![\w/])({'|'.join(PAGES)})s?\s+({ID}(?:(?:,\s+|;\s+|\s+and\s+|\s+to\s+|,\s+and\s+){ID})*)", re.IGNORECASE
)
NOT_CITED_SO = re.compile(
    rf"(?<![\w/-])(?:epoch-formats|oci-registries)(?:,?\s+chapters?|,|\s+§)\s*{ID}"
    r"|§\s*[0-9]|\((?:[CDEFJLMNTZ][0-9]{1,2}(?:-|, | and | to )?)+\)"
)
MADE_UP = {"CONTRIBUTING.md: stores/backends/webdav.py", "CONTRIBUTING.md: flows/usage.py"}
"""What is not there yet, in the worked examples."""
CODE = sorted(path for name in ("epoch_oci", "tests", "benchmarks", ".ci") for path in (ROOT / name).rglob("*.py"))
PROSE = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")})
SCHEMAS = sorted((ROOT / "schemas").glob("*.json"))


@cache
def standing(page: str) -> frozenset[str]:
    """The IDs that a page has."""
    text = (ROOT / PAGES[page]).read_text(encoding="utf-8")
    headings = re.findall(rf"^#+\s+({ID})", text, re.MULTILINE)
    rows = re.findall(rf"^\|\s*({ID})\s*\|", text, re.MULTILINE)
    return frozenset([*headings, *rows])


def problems(text: str) -> Iterator[str]:
    """What is wrong with the citations in a text; each with its line."""
    for found in CITATION.finditer(text):
        page = found[1].lower()
        for wanted in re.findall(ID, found[2]):
            if wanted not in standing(page):
                yield f"line {text.count(chr(10), 0, found.start()) + 1}: {page} {wanted} is not in {PAGES[page]}"
    for found in NOT_CITED_SO.finditer(text):
        yield f"line {text.count(chr(10), 0, found.start()) + 1}: {found[0]!r} names no page, or not in the one form"


@pytest.mark.parametrize("files", [CODE, PROSE, SCHEMAS], ids=["code", "prose", "schemas"])
def test_every_citation_leads_somewhere(files):
    this = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)} {problem}"
        for path in files
        if path != this
        for problem in problems(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "made_up",
    [
        "epoch-formats 9.9",
        "epoch-formats 1.1 and 4.99",
        "(oci-registries 5.2 to 5.44)",
        "Reliability C99",
        "decision D99",
        "traps 8 and 46",
        "epoch-formats, 1.1",
        "epoch-formats, chapter 1",
        "as §4.2 says",
        "held back (C3, D7)",
    ],
)
def test_a_citation_that_leads_nowhere_is_found(made_up):
    assert list(problems(f"# {made_up}"))


@pytest.mark.parametrize(
    "sound",
    [
        "epoch-formats 1.1",
        "epoch-formats 4.3 to 4.6 and 4.10",
        "Reliability C1 to C9, T1 to T3.",
        "decision D5",
        "trap 8",
    ],
)
def test_a_citation_that_leads_somewhere_is_not(sound):
    assert list(problems(f"({sound})")) == []


def test_the_chapters_of_a_reference_page_are_cited_on_it_by_number():
    """`(4.2)` on such a page is one of its own."""
    for page in ("epoch-formats", "oci-registries"):
        text = (ROOT / PAGES[page]).read_text(encoding="utf-8")
        assert set(re.findall(r"\(([0-9]\.[0-9]{1,2})\)", text)) <= standing(page)


def test_files_that_prose_names_are_there():
    """`flows/push.py` is a file of the package, `docs/format.md` one of the project."""
    lost = []
    for page in (path for path in PROSE if path.name not in ("epoch-formats.md", "oci-registries.md")):
        for named in re.findall(r"`([\w./-]+/[\w-]+\.(?:py|md|yml))`", page.read_text(encoding="utf-8")):
            if not any((root / named).exists() for root in (ROOT, ROOT / "epoch_oci", page.parent)):
                lost.append(f"{page.relative_to(ROOT)}: {named}")
    assert sorted(set(lost) - MADE_UP) == []


def test_the_map_has_every_room():
    rooms = [path for path in (ROOT / "epoch_oci").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = [path.name if path.suffix else f"{path.name}/" for path in rooms if not path.name.startswith("_")]
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert [name for name in names if f"| `{name}`" not in text and f", `{name}`" not in text] == []


def slug(heading: str) -> str:
    """The anchor that a heading gets from renderers of GitHub's Markdown."""
    words = re.sub(r"[^\w\s-]", "", heading.strip().lower())
    return re.sub(r"\s", "-", words)


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+\s+(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)}


def test_every_link_leads_to_a_file_and_a_heading_that_are_there():
    lost = []
    for page in PROSE:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                lost.append(f"{page.relative_to(ROOT)}: {target}")
    assert lost == []
