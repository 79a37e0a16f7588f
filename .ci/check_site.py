"""The built site by itself: every link and anchor in it leads somewhere, and nothing is fetched from elsewhere."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

RESOURCES = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
"""What a browser fetches unasked."""


class Page(HTMLParser):
    """What a page links to, what it has fetched, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what concerns us."""
        found = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := found.get(key))}
        if tag == "a" and (target := found.get("href")):
            self.links.append(target)
        if tag in RESOURCES and (target := found.get(RESOURCES[tag])) and found.get("rel") != "canonical":
            self.fetched.append(target)


def problems(site: Path) -> list[str]:
    """Everything that is wrong, each with its page."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        found += [f"{name} fetches {each}" for each in page.fetched if urlsplit(each).netloc]
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{name} leads to {link}, which is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name} leads to {link}, and the page has no such anchor")
    for style in site.rglob("*.css"):
        if any(f"{word}http" in style.read_text(encoding="utf-8") for word in ("url(", 'url("', "@import ")):
            found.append(f"{style.relative_to(site)} fetches something from elsewhere")
    return found or ([] if pages else [f"there is no page in {site}"])


def main(site: str) -> int:
    """1 when anything is wrong."""
    found = problems(Path(site))
    sys.stderr.writelines(f"{each}\n" for each in found)
    sys.stdout.write(f"{len(list(Path(site).rglob('*.html')))} pages checked\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
