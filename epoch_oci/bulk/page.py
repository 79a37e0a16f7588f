"""The result of a sync as one HTML page: no network, no library, readable without a script and in the dark."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epoch_oci.dataclass import dataclass

_SLOWEST = 10
_BARS = 200
_NAMES = 20
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59636e;--line:#d8dee4;--card:#f6f8fa;--unique:#0969da;
--shared:#8250df;--saved:#2da44e;--bad:#b42318}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9198a1;--line:#30363d;--card:#161b22;
--unique:#4493f8;--shared:#ab7df8;--saved:#3fb950;--bad:#ff7b72}}
*{box-sizing:border-box}body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif}h1{font-size:1.4rem;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2rem 0 .6rem}p{margin:.2rem 0}.dim{color:var(--dim)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.6rem;margin-top:1rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.card b{display:block;font-size:1.25rem}.bad{color:var(--bad)}
.row{display:grid;grid-template-columns:minmax(8rem,26rem) 1fr;gap:.2rem .8rem;align-items:center;margin:.35rem 0}
.name{overflow-wrap:anywhere;font-size:.92rem}.bar{display:flex;height:1.1rem;border-radius:.3rem;overflow:hidden;
background:var(--card)}.why{border-left:.25rem solid var(--bad);padding-left:.7rem;margin:.7rem 0;
overflow-wrap:anywhere}.why .dim{font-size:.92rem}
.bar i{display:block;height:100%}.unique{background:var(--unique)}.shared{background:var(--shared)}
.saved{background:var(--saved)}.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:.2rem;
margin:0 .35rem 0 .9rem}.key i:first-child{margin-left:0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}th{color:var(--dim);font-weight:600}td.n,th.n{text-align:right}.n,.o{white-space:nowrap}
input{width:100%;padding:.5rem .7rem;font:inherit;color:inherit;background:var(--card);border:1px solid var(--line);
border-radius:.4rem;margin-bottom:.6rem}
td:first-child{min-width:7.5rem}
@media (max-width:40rem){.row{grid-template-columns:1fr}th.w,td.w{display:none}body{padding:.7rem}}
"""
_SCRIPT = """
const box=document.getElementById('search'),rows=[...document.querySelectorAll('#all tbody tr')],
said=document.getElementById('found');
function look(){const words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);let n=0;
for(const row of rows){const text=row.textContent.toLowerCase(),on=words.every(w=>text.includes(w));
row.hidden=!on;n+=on}said.textContent=n+' of '+rows.length}
box.addEventListener('input',look);look();
"""


@dataclass(slots=True)
class _Repository:
    unique: int = 0
    shared: int = 0
    saved: int = 0

    @property
    def total(self) -> int:
        return self.unique + self.shared + self.saved


def page(report: Mapping[str, Any]) -> str:
    """The page for `SyncReport.to_json`. Every text in it is somebody else's, and escaped."""
    rows: Sequence[Mapping[str, Any]] = report["snapshots"]
    # What went wrong comes first: for most who open the page it is all they look for.
    failed = [row for row in rows if row["error"]]
    slow = sorted((row for row in rows if row["seconds"]), key=lambda row: -row["seconds"])[:_SLOWEST]
    title = f"{'Plan' if report['dryRun'] else 'Sync'}: {report['source']} to {report['target']}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p class=dim>{_time(report['seconds'])}, {report['retries']} retries</p>",
        _cards(report, len(failed)),
        _section("Failed", _reasons(failed)) if failed else "",
        _section("Repositories", _LEGEND + _bars(rows)),
        _section("Slowest", _table(slow, _TIMED)) if slow else "",
        _section("All snapshots", _SEARCH + _table(rows, _ALL, "all")),
    ]
    return (
        '<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}"
        # In the page itself, as its style is: it is opened from a disk or a CI's archive, where nothing may be fetched.
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _cards(report: Mapping[str, Any], failed: int) -> str:
    counts, sizes = report["counts"], report["bytes"]
    cards = [
        ("to sync" if report["dryRun"] else "synced", f"{counts['sync'] or counts['synced']:,}", ""),
        ("there already", f"{counts['there']:,}", ""),
        ("failed", f"{failed:,}", "bad" if failed else ""),
        ("to move" if report["dryRun"] else "moved", _size(sizes["moved"]), ""),
        ("saved", _size(sizes["saved"]), ""),
        ("distinct content", _size(sizes["union"]), ""),
    ]
    if deleted := counts["deleted"] or counts["delete"]:
        cards.append(("to delete" if report["dryRun"] else "deleted", f"{deleted:,}", ""))
    inner = "".join(f'<div class=card><b class="{kind}">{value}</b>{word}</div>' for word, value, kind in cards)
    return f"<div class=cards>{inner}</div>"


def _reasons(failed: Iterable[Mapping[str, Any]]) -> str:
    """What failed by its reason: a thousand snapshots fail for few."""
    found: dict[tuple[str, int], list[str]] = {}
    for row in failed:
        error = row["error"]
        found.setdefault((f"{error['code']}: {error['message']}", error["exit"]), []).append(_named(row))
    return "".join(
        f"<div class=why><p>{_text(why)}</p><p class=dim>exit {code} · {_listed(names)}</p></div>"
        for (why, code), names in found.items()
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    count = f"{len(names):,} snapshots: " if len(names) > 1 else ""
    return _text(count + ", ".join(names[:_NAMES]) + more)


def _named(row: Mapping[str, Any]) -> str:
    return str(row["source"] or row["target"] or "")


_LEGEND = (
    "<p class=key><i class=unique></i>moved for it alone<i class=shared></i>shared or mounted"
    "<i class=saved></i>there already</p>"
)
_SEARCH = '<input id=search type=search placeholder="Search" aria-label="Search"><p class=dim id=found></p>'


def _bars(rows: Iterable[Mapping[str, Any]]) -> str:
    found: dict[str, _Repository] = {}
    for row in rows:
        item = found.setdefault(row["repository"] or row["target"] or row["source"] or "", _Repository())
        if row["action"] == "there":
            item.saved += row["size"]
        else:
            item.unique += row["bytesTransferred"]
            item.shared += row["bytesReused"]
    # No repository at all, or only empty ones: a bar of nothing is no division by it.
    most = max((item.total for item in found.values()), default=0) or 1
    # The largest first, by name where they are alike: two reports of one sync can be compared.
    ordered = sorted(found.items(), key=lambda pair: (-pair[1].total, pair[0]))
    more = f"<p class=dim>and {len(ordered) - _BARS:,} smaller ones</p>" if len(ordered) > _BARS else ""
    return "".join(_bar(name, item, most) for name, item in ordered[:_BARS]) + more


def _bar(name: str, item: _Repository, most: int) -> str:
    sizes = {"unique": item.unique, "shared": item.shared, "saved": item.saved}
    told = ", ".join(f"{_size(size)} {word}" for word, size in sizes.items())
    runs = "".join(
        f'<i class={word} style="width:{100 * size / most:.3f}%"></i>' for word, size in sizes.items() if size
    )
    return (
        f"<div class=row><span class=name>{_text(name)} <span class=dim>{_size(item.total)}</span></span>"
        f'<span class=bar role=img aria-label="{_text(told)}" title="{_text(told)}">{runs}</span></div>'
    )


_Column = tuple[str, str, str]
"""Heading, member, and how it is shown: `n` a size, `s` seconds, `o` one word, "" a text; `w` on wide screens only."""
_ALL: tuple[_Column, ...] = (
    ("snapshot", "source", ""),
    ("at the target", "target", "w"),
    ("outcome", "action", "o"),
    ("size", "size", "n"),
    ("moved", "bytesTransferred", "nw"),
    ("seconds", "seconds", "sw"),
)
_TIMED: tuple[_Column, ...] = (
    ("snapshot", "source", ""),
    ("moved", "bytesTransferred", "n"),
    ("seconds", "seconds", "s"),
)


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[_Column], name: str = "") -> str:
    head = "".join(f'<th class="{_kind(kind)}">{heading}</th>' for heading, _, kind in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{_kind(kind)}">{_cell(row, key, kind)}</td>' for _, key, kind in columns)
        + "</tr>"
        for row in rows
    )
    return f'<div class=wide><table id="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _kind(kind: str) -> str:
    return " ".join("n" if letter == "s" else letter for letter in kind)


def _cell(row: Mapping[str, Any], key: str, kind: str) -> str:
    value = row[key]
    if "n" in kind:
        return _size(value)
    if "s" in kind:
        return f"{value:.1f}" if value else ""
    if key == "action" and row["error"]:
        return f"<span class=bad>{_text(value)}</span>"
    return _text(_named(row) if key == "source" else value or "")


def _section(heading: str, content: str) -> str:
    return f"<h2>{heading}</h2>{content}"


def _size(count: float) -> str:
    unit = 0
    while count >= 1023.95 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
