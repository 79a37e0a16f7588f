"""What the table of commands and flags tells: help texts, manual pages, and what a shell completes."""

import argparse
import contextlib
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from epoch_oci import __version__
from epoch_oci.cli.config_file import load
from epoch_oci.cli.flags import COMMON, Flag, Store, Word
from epoch_oci.cli.parser import ACTIONS, PROGRAM, Row, Spec
from epoch_oci.cli.settings import environment
from epoch_oci.errors import EpochOciError

SHELLS = ("bash", "zsh", "fish")
_TEXT = "Moves Epoch snapshots of Cocoon MicroVMs through OCI registries, byte for byte."
_EPILOG = (
    "Every flag has an environment variable: EPOCH_OCI_<FLAG>, for example EPOCH_OCI_FORMAT=json. "
    "Defaults may stand in ~/.config/epoch-oci/config.toml; `epoch-oci config show` tells what holds. "
    "Secrets are read from standard input, a credentials file or the environment, never from a flag."
)
_HELP = ("--help, -h", "Show this.")
_OF_PROGRAM = (
    ("--install-completion", "Set up completion for this shell."),
    ("--show-completion", "Print the completion script of this shell."),
    ("--version", "Show the version."),
    ("--help, -h", "Show this; after a command, its own flags."),
)
_EXAMPLES = ("epoch-oci demo", "epoch-oci push bot:v3 ghcr.io/acme/bot:v3 --store /srv/epoch")
_WIDEST, _LEFT = 100, 30
_STORES = get_args(Store)[1].sources
_MOST_COMPLETED = 1000

Section = tuple[str, Sequence[tuple[str, str]]]


def help_text(of: Spec | None, rows: Mapping[str, Row]) -> str:
    """What --help prints: of a command, or of the program."""
    width = max(40, min(_WIDEST, shutil.get_terminal_size().columns))
    lines = [f"Usage: {_usage(of)}", ""]
    for paragraph in (of.text if of else _TEXT).split("\n\n"):
        lines += [*textwrap.wrap(paragraph, width - 2, initial_indent="  ", subsequent_indent="  "), ""]
    for title, items in _sections(of, rows):
        lines += [f"{title}:", *_listed(items, width), ""]
    lines += ["Examples:", *(f"  {line}" for line in _examples(of)), "", *textwrap.wrap(_EPILOG, width)]
    return "\n".join(lines) + "\n"


def man_page(of: Spec | None, rows: Mapping[str, Row]) -> str:
    """The same as a manual page of section 1, in the macros of man(7)."""
    name = f"{PROGRAM}-{of.name}" if of else PROGRAM
    text = of.text if of else _TEXT
    lines = [
        f'.TH "{name.upper()}" 1 "" "{PROGRAM} {__version__}" "User Commands"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff((of.summary if of else _TEXT).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_roff(_usage(of))}",
        ".SH DESCRIPTION",
    ]
    for paragraph in text.split("\n\n"):
        lines += [".PP", _roff(" ".join(paragraph.split()))]
    for title, items in _sections(of, rows):
        lines.append(f".SH {title.upper()}")
        for left, right in items:
            lines += [".TP", f".B {_roff(left)}", _roff(right)]
    lines.append(".SH EXAMPLES")
    for example in _examples(of):
        lines += [".PP", ".EX", _roff(example), ".EE"]
    lines += [".SH ENVIRONMENT", _roff(_EPILOG), ".SH SEE ALSO"]
    others = [PROGRAM] if of else [f"{PROGRAM}-{other}" for other in rows]
    lines.append(",\n".join(f".BR {_roff(other)} (1)" for other in others))
    return "\n".join(lines) + "\n"


def man_pages(rows: Mapping[str, Row]) -> dict[str, str]:
    """Every page by its file's name."""
    pages = {f"{PROGRAM}.1": man_page(None, rows)}
    return pages | {f"{PROGRAM}-{name}.1": man_page(Spec.of(name, row), rows) for name, row in rows.items()}


def _usage(of: Spec | None) -> str:
    return f"{of.usage} [FLAGS]" if of else f"{PROGRAM} COMMAND ARGUMENTS [FLAGS]"


def _examples(of: Spec | None) -> tuple[str, ...]:
    return of.row.examples if of else _EXAMPLES


def _sections(of: Spec | None, rows: Mapping[str, Row]) -> list[Section]:
    """Arguments, the command's own flags, then those of the common ones that matter to it; none that is empty."""
    if of is None:
        commands = [(name, Spec.of(name, row).summary) for name, row in rows.items()]
        return [("Commands", commands), ("Common flags", [*map(_flag_row, COMMON), *_OF_PROGRAM])]
    found: list[Section] = [
        ("Arguments", [word_row(word) for word in of.words.values()]),
        ("Flags", [_flag_row(flag) for flag in of.flags.values()]),
        ("Common flags", [*map(_flag_row, of.row.common), _HELP]),
    ]
    return [section for section in found if section[1]]


def word_row(word: Word) -> tuple[str, str]:
    """A word, and what it is for."""
    return word.metavar, _repeatable(word.help) if word.many else word.help


def _flag_row(flag: Flag) -> tuple[str, str]:
    values = "|".join(flag.choices) or flag.metavar
    variables = "".join(f" [{name}]" for name in flag.variables)
    return f"{', '.join(flag.words)} {values}".strip(), flag_text(flag) + variables


def flag_text(flag: Flag) -> str:
    """What a flag is for, and whether it may be given more than once."""
    return _repeatable(flag.help) if flag.kind in ("many", "count") else flag.help


def _repeatable(text: str) -> str:
    return f"{text.removesuffix('.')}; may be repeated."


def _listed(items: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Two columns; what is too long for the left one has a line of its own."""
    items = list(items)
    left = min(_LEFT, 4 + max(len(name) for name, _ in items))
    lines = []
    for name, text in items:
        # A flag in a text is not broken at its hyphens: it is copied from here.
        wrapped = textwrap.wrap(text, max(20, width - left), break_on_hyphens=False) or [""]
        head = f"  {name}"
        if len(head) > left - 2:
            lines.append(head)
            head = ""
        lines += [f"{head if number == 0 else '':<{left}}{line}".rstrip() for number, line in enumerate(wrapped)]
    return lines


def _roff(text: str) -> str:
    """`text` as man(7) shows it: no character of it is an instruction, and a dash can be copied into a shell."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("’", "'")
    return "\\&" + text if text.startswith((".", "'")) else text


def complete(rows: Mapping[str, Row]) -> None:
    """Answer a shell that asks by argcomplete's protocol, and end the process."""
    import argcomplete

    nothing = argcomplete.completers.SuppressCompleter()  # files are what the shell itself goes on with
    argcomplete.autocomplete(_tree(rows), always_complete_options=False, default_completer=nothing)


def completion_script(shell: str) -> str:
    """What makes `shell` ask."""
    from argcomplete.shell_integration import shellcode

    return shellcode([PROGRAM], shell=shell)


def _tree(rows: Mapping[str, Row]) -> argparse.ArgumentParser:
    """The whole command line as argparse knows it."""
    root = argparse.ArgumentParser(prog=PROGRAM, add_help=False)
    commands = root.add_subparsers(metavar="COMMAND")
    _add_flags(root, {flag.name: flag for flag in COMMON})
    for name, row in rows.items():
        of = Spec.of(name, row)
        # argparse fills in what stands behind a `%`.
        command = commands.add_parser(name, help=of.summary.replace("%", "%%"), add_help=False)
        for key, word in of.words.items():
            count = "+" if word.many else "?" if word.optional else None
            action = command.add_argument(key, nargs=count)
            _complete(action, word.metavar)
        _add_flags(command, dict(of.flags) | {flag.name: flag for flag in row.common})
    return root


def _add_flags(parser: argparse.ArgumentParser, flags: Mapping[str, Flag]) -> None:
    for key, flag in flags.items():
        action = parser.add_argument(*flag.words, dest=key, **ACTIONS[flag.kind])
        if flag.choices:
            action.choices = flag.choices
        _complete(action, flag.word)
    parser.add_argument("--help", "-h", action="store_true")


def _complete(action: argparse.Action, name: str) -> None:
    if name in _COMPLETERS:
        action.completer = _COMPLETERS[name]  # type: ignore[attr-defined]


def snapshots(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The snapshots of the store that the line, the environment or the configuration names; none where that fails.

    A shell asks at every tab key, so nothing is looked at but local directories.
    """
    environ = environment()
    given = getattr(parsed_args, "store", None)
    store = given or next((environ[name] for name in _STORES if environ.get(name)), None)
    if store is None:
        with contextlib.suppress(EpochOciError):
            store = load(environ).defaults.get("store")
    if not isinstance(store, str) or ("://" in store and not store.startswith("file://")):
        return []
    from epoch_oci.cli.streams import safe
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.locate import open_store

    found: list[str] = []
    with contextlib.suppress(EpochOciError, OSError):
        for entry in open_store(store).snapshots():
            text = str(SnapshotKey(entry.name, entry.tag))
            # A shell would show it, and a terminal obey it.
            if text.startswith(prefix) and text == safe(text) and len(found) < _MOST_COMPLETED:
                found.append(text)
    return found


def schema_names(prefix: str, **_: Any) -> list[str]:
    """The schemas there are: of documents, and of what commands print."""
    from epoch_oci import schemas

    return [kind for kind in (*schemas.kinds(), *schemas.interfaces()) if kind.startswith(prefix)]


def command_names(prefix: str, **_: Any) -> list[str]:
    """The commands that there is a manual page for."""
    from epoch_oci.cli.app import VERBS

    return [name for name in VERBS if name.startswith(prefix)]


def shells(prefix: str, **_: Any) -> list[str]:
    """The shells there is a script for."""
    return [shell for shell in SHELLS if shell.startswith(prefix)]


_COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "SNAPSHOT": snapshots,
    "LOCATION": snapshots,
    "SHELL": shells,
    "ACTION": lambda prefix, **_: [word for word in ("show",) if word.startswith(prefix)],
    "--schema": schema_names,
    "NAME": schema_names,
    "COMMAND": command_names,
}
"""By the word's name, or by the flag."""
