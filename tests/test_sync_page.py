"""The page of `sync --report`: complete in itself, safe whatever names say, and readable where it is opened."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.peers import requires_peer, run_peer

from epoch_oci.bulk.page import page
from epoch_oci.bulk.results import Row, SyncReport
from epoch_oci.errors import ContentError, NotFoundError

HOSTILE = '<script>document.title="owned"</script>"><img src=x onerror=alert(1)>'


def report(count: int = 40) -> dict:
    rows = [
        Row(
            source=f"team/bot{number}:v1",
            target=f"registry.example/mirror/team/bot{number}:v1",
            repository=f"team/bot{number}",
            action="synced" if number % 3 else "there",
            size=(number + 1) << 20,
            moved=(number << 19) if number % 3 else 0,
            reused=1 << 20,
            seconds=float(number),
        )
        for number in range(count)
    ]
    rows.append(Row(source=HOSTILE, target="", action="failed", error=ContentError(HOSTILE), exit_code=3))
    rows.append(Row(source="gone:v1", target="", action="failed", error=NotFoundError("not there"), exit_code=5))
    told = SyncReport(source="s3://bucket", target="registry.example/mirror", rows=rows, seconds=61.5)
    told.total, told.union, told.bytes_moved = 1 << 30, 1 << 28, 1 << 27
    return told.to_json()


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_asks_nobody_for_anything():
    elements = Elements(page(report())).found
    assert not [attrs for _, attrs in elements if {"src", "href", "srcset", "action"} & attrs.keys()]
    assert not re.search(r"https?://|@import|url\(", page(report()))


def test_names_are_text_whatever_they_say():
    elements = Elements(page(report())).found
    assert [tag for tag, _ in elements].count("script") == 1
    assert not [tag for tag, attrs in elements if tag == "img" or any(name.startswith("on") for name in attrs)]


def test_it_has_totals_bars_the_slowest_the_failed_and_a_search_box():
    text = page(report())
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == ["Failed", "Repositories", "Slowest", "All snapshots"]
    assert "1.0 GiB" not in text.partition("Failed")[0] or "896.0 MiB" in text
    assert text.count("class=bar role=img") >= 40 and "id=search" in text
    assert text.index("team/bot38:v1", text.index("Slowest")) < text.index("team/bot5:v1", text.index("Slowest"))


def test_what_failed_is_told_by_its_reason():
    told = SyncReport(source="a", target="b", seconds=4213.5)
    wrong = ContentError("the base is wrong", code="DIGEST")
    told.rows = [Row(source=f"bot{n}:v1", target="", action="failed", error=wrong, exit_code=3) for n in range(25)]
    told.rows.append(Row(source="gone:v1", target="", action="failed", error=NotFoundError("not there"), exit_code=5))
    text = page(told.to_json())
    assert text.count("DIGEST: the base is wrong") == 1 and "exit 3 · 25 snapshots: bot0:v1, " in text
    assert "bot19:v1 and 5 more" in text and "exit 5 · gone:v1" in text
    assert "1 h 10 min" in text and text.count("<span class=bad>failed</span>") == 26


def test_a_plan_and_nothing_at_all_have_pages_too():
    empty = SyncReport(source="a", target="b", dry_run=True).to_json()
    assert "Plan: a to b" in page(empty) and "Failed" not in page(empty)


PROBE = """<script>
box.value='bot1 there';look();
const style=getComputedStyle(document.body),bar=document.querySelector('.bar i').getBoundingClientRect();
document.body.dataset.probe=JSON.stringify({found:said.textContent,width:document.documentElement.scrollWidth,
inner:innerWidth,background:style.backgroundColor,colour:style.color,bar:bar.width,
word:Math.max(...[...document.querySelectorAll('td.o')].filter(c=>c.getClientRects().length).map(c=>c.offsetHeight)),
cut:[...document.querySelectorAll('.wide')].some(e=>e.scrollWidth>e.clientWidth),
shown:[...document.querySelectorAll('#all tbody tr')].filter(r=>r.getClientRects().length).length,
title:document.title})</script>"""


@requires_peer("chromium")
@pytest.mark.parametrize(("scheme", "dark"), [("0", True), ("1", False)])
@pytest.mark.parametrize("size", ["390,844", "1280,900"])
def test_a_browser_shows_it_at_every_width_in_light_and_in_dark(tmp_path, scheme, dark, size):
    path = tmp_path / "report.html"
    path.write_text(page(report()).replace("</body>", PROBE + "</body>"))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={size}"]
    words += [f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", path.as_uri()]
    with TemporaryDirectory(prefix="b") as home:  # its sockets need a short path
        done = run_peer("chromium", *words, home=Path(home), timeout=100)
    probe = re.search(r'data-probe="(.*?)"', done.stdout.decode())
    assert probe, done.stdout[-500:]
    seen = json.loads(html.unescape(probe[1]))
    assert seen["width"] <= seen["inner"]  # nothing to be scrolled sideways
    assert not seen["cut"] and seen["word"] < 60  # nor in a table, whose words stay in one piece
    assert seen["bar"] > 0 and seen["found"] == f"{seen['shown']} of 42" and seen["shown"] == 3
    assert seen["title"].startswith("Sync: ")
    light = sum(map(int, re.findall(r"\d+", seen["background"])[:3])) > 3 * 128
    assert light is not dark
