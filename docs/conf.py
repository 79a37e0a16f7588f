"""The documentation as a site: `make docs`. Its source is the repository: a link that works there works here."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import epoch_oci  # noqa: E402

project = "epoch-oci"
author = "the epoch-oci authors"
copyright = author
version = release = epoch_oci.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "*.md", "examples/**.md", "benchmarks/*.md"]
exclude_patterns = ["README.md", "benchmarks/notes.md"]

nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!epoch_oci).*"), ("py:obj", ".*")]  # other people's names, and words in backticks
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}

myst_heading_anchors = 4
pygments_style = "friendly"
pygments_dark_style = "github-dark"
highlight_language = "text"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"epoch-oci {release}"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["site/static"]
html_extra_path = ["site/root"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}


def setup(app: Sphinx) -> None:
    """The page of schemas has a row for each of them, and defaults that Python shows as no code are code again."""
    app.connect("source-read", add_schemas)
    app.connect("autodoc-process-signature", as_code)


def as_code(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, *rest: str
) -> Any:
    """A signature whose every part can be read, so that its types become links."""
    if not signature:
        return None
    return re.sub(r"<function (\w+)>", r"\1", signature).replace("<factory>", "..."), *rest


def add_schemas(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the table where the page ends."""
    if page == "docs/schemas":
        rows = "".join(schema_row(path) for path in sorted(ROOT.glob("schemas/**/*.json")))
        source[0] += f"\n| Schema | Describes |\n|---|---|\n{rows}"


def schema_row(path: Path) -> str:
    """Its name, which is the file to download, and its title."""
    title = json.loads(path.read_text(encoding="utf-8"))["title"]
    name = path.relative_to(ROOT / "schemas").as_posix()
    return f"| [`{name.removesuffix('.schema.json')}`](../schemas/{name}) | {title} |\n"
