"""The parts of docs/cli.md that repeat the program, made of it; with --check, whether they are as it is.

Each stands between `<!-- made: NAME -->` and `<!-- end -->`; what is around them is written by hand.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from epoch_oci import schemas
from epoch_oci.cli import help
from epoch_oci.cli.app import VERBS, spec
from epoch_oci.cli.exit_codes import EXIT_CODES
from epoch_oci.cli.flags import COMMON, Flag
from epoch_oci.cli.parser import Spec
from epoch_oci.errors import EpochOciError

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
_PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(words: Sequence[str]) -> int:
    """Write the page anew; with --check change nothing, and 1 where it is not current."""
    before = PAGE.read_text("utf-8")
    after = _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[3]}", before)
    if words == ["--check"]:
        if before != after:
            sys.stderr.write("docs/cli.md is not as the program is; `make docs-cli` writes it anew\n")
        return int(before != after)
    PAGE.write_text(after, "utf-8")
    return 0


def commands() -> str:
    """A section for each command: how it is written, what it does, its words and flags."""
    return "\n".join(_command(spec(name)) for name in VERBS)


def _command(of: Spec) -> str:
    lines = [f"### {of.name}\n", f"```\n{of.usage}{' [FLAGS]' if of.flags else ''}\n```\n"]
    lines += [f"{_escaped(' '.join(of.text.split()))}\n", "```\n" + "\n".join(of.row.examples) + "\n```\n"]
    rows = [(f"`{word.usage}`", _escaped(help.word_row(word)[1])) for word in of.words.values()]
    rows += [_row(flag) for flag in of.flags.values()]
    return "\n".join([*lines, *_table(rows), ""]) if rows else "\n".join(lines)


def common() -> str:
    """The flags that every command takes."""
    return "\n".join(_table(map(_row, COMMON))) + "\n"


def _row(flag: Flag) -> tuple[str, str]:
    values = "\\|".join(flag.choices) or flag.metavar
    named = ", ".join(f"`{word}`" for word in flag.words) + (f" {values}" if values else "")
    variables = "".join(f" Also `{name}`." for name in flag.variables)
    return named, f"{_escaped(help.flag_text(flag))}{variables}"


def codes() -> str:
    """Exit codes with the words that go with them, as the tables of the program have them."""
    rows = [("0", "", "done; an independent check of the result would agree"), ("1", "`INTERNAL`", "a bug of ours")]
    rows += [(str(code), f"`{kind.default_code}`", _first_line(kind)) for kind, code in EXIT_CODES.items()]
    rows += [("130, 143", "`INTERRUPTED`", "SIGINT or SIGTERM ended it; the same command goes on from there")]
    rows += [("141", "", "who read standard output has gone")]
    return "\n".join(_table(rows, ("Exit", "Code", "When"))) + "\n"


def _first_line(kind: type[EpochOciError]) -> str:
    text = (kind.__doc__ or "").partition("\n")[0].partition(";")[0].rstrip(".")
    return _escaped(text[:1].lower() + text[1:])


def results() -> str:
    """The schemas of what is printed and read."""
    rows = []
    for kind in schemas.interfaces():
        description = " ".join(schemas.schema(kind)["description"].split())
        rows.append((f"[`{kind}`](../schemas/{kind}.schema.json)", _escaped(description)))
    return "\n".join(_table(rows, ("Schema", "What it describes"))) + "\n"


def _table(rows: Iterable[Sequence[str]], head: Sequence[str] = ("", "")) -> list[str]:
    return [_line(head), "|" + "---|" * len(head), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _escaped(text: str) -> str:
    """As Markdown that shows it as it is: no cell ends early, and nothing is taken for a tag or emphasis."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_<>|\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(part.replace("|", "\\|") if at % 2 else part for at, part in enumerate(parts))


PARTS: dict[str, Callable[[], str]] = {"commands": commands, "common": common, "codes": codes, "results": results}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
