"""The parser: a command line becomes a Call, by the table of flags; its complaints in our words.

Parsing runs nothing. The standard library reads the flags; words are counted here, for argparse loses those that stand
between flags, and what it says of mistakes differs from one Python to the next.
"""

import argparse
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, NoReturn, get_args

from epoch_oci.cli.config_file import load
from epoch_oci.cli.flags import COMMON, Flag, Kind, Word
from epoch_oci.cli.settings import Settings, is_given, settings, value
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import UsageError
from epoch_oci.redaction import fit_to_show

PROGRAM = "epoch-oci"
HELP = "help"
Verb = Callable[..., "int | None"]

# None everywhere stands for "not given": then the environment is looked at, and after it the default.
ACTIONS: dict[Kind, dict[str, Any]] = {
    "text": {},
    "number": {},
    "duration": {},
    "switch": {"action": "store_const", "const": True},
    "count": {"action": "count"},
    "many": {"action": "append"},
}
_INSTEAD = {
    "--version": ("version", {}),
    "--show-completion": ("completion", {}),
    "--install-completion": ("completion", {"install": True}),
}
# As docker, skopeo and oras call theirs: who types one out of habit is told where a secret goes instead.
_SECRET_FLAGS = frozenset(
    {"--password", "--passwd", "--pass", "--token", "--identity-token", "--secret", "--creds", "-p"}
)
_ELSEWHERE = {
    "check": "verify", "cp": "copy", "delete": "rm", "download": "pull", "du": "ls",
    "fetch": "pull", "find": "ls", "gc": "prune", "get": "pull", "info": "inspect", "list": "ls",
    "manifest": "inspect", "mirror": "sync", "publish": "push", "put": "push", "read": "cat", "remove": "rm",
    "retag": "tag", "search": "ls", "show": "inspect", "tags": "ls", "test": "verify", "upload": "push",
}  # fmt: skip
"""What other tools call it, for who comes from there."""
_PRIVATE = frozenset({"login"})
"""Commands whose stray arguments may be a password, which is not repeated."""


@dataclass(frozen=True, slots=True)
class Row:
    """A command in the table: the module of its verb, two examples, and whether it ever speaks to a registry.

    `formats` are further values of --format that it takes.
    """

    module: str
    first: str
    second: str
    registry: bool = True
    formats: tuple[str, ...] = ()

    @property
    def examples(self) -> tuple[str, str]:
        """Command lines that can be typed as they are, but for the names in them."""
        return self.first, self.second

    @property
    def common(self) -> Iterable[Flag]:
        """The common flags that matter to it; it takes the others too, so that one set of them fits all commands."""
        return (flag for flag in self.taken if self.registry or not flag.registry)

    @property
    def taken(self) -> tuple[Flag, ...]:
        """All the common flags, with the values that it takes."""
        return tuple(
            replace(flag, choices=(*flag.choices, *self.formats)) if flag.name == "format" else flag for flag in COMMON
        )


@dataclass(slots=True)
class Invocation:
    """What a parse starts with, and the common flags found before the command's name."""

    environ: Mapping[str, str]
    common: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A command line, understood: `verb` with its arguments. `origins` tells where a flag was set, None for nowhere."""

    command: str
    verb: Verb
    arguments: Mapping[str, Any]
    settings: Settings
    origins: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Spec:
    """The flags and words of one command by the verb's parameter names, with the defaults of its signature."""

    name: str
    row: Row
    verb: Verb
    words: Mapping[str, Word]
    flags: Mapping[str, Flag]
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, row: Row) -> "Spec":
        """Read a verb's signature: after the run itself, every parameter is annotated with its Flag or Word."""
        verb: Verb = getattr(importlib.import_module(f"epoch_oci.cli.commands.{row.module}"), name)
        parameters = list(inspect.signature(verb).parameters.values())[1:]
        rows = {parameter.name: get_args(parameter.annotation)[1] for parameter in parameters}
        return cls(
            name,
            row,
            verb,
            words={key: row for key, row in rows.items() if isinstance(row, Word)},
            flags={key: row for key, row in rows.items() if isinstance(row, Flag)},
            defaults={parameter.name: parameter.default for parameter in parameters},
        )

    @property
    def path(self) -> str:
        """As it is typed."""
        return f"{PROGRAM} {self.name}"

    @property
    def usage(self) -> str:
        """`epoch-oci push SNAPSHOT TARGET`."""
        return " ".join([self.path, *(word.usage for word in self.words.values())])

    @property
    def summary(self) -> str:
        """The first line of what the verb says of itself."""
        return self.text.partition("\n")[0]

    @property
    def text(self) -> str:
        """All that the verb says of itself, without indentation."""
        return inspect.cleandoc(self.verb.__doc__ or "")

    def read(self, typed: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """The flags by name, None for what was not given, and the words. Raises UsageError for a flag there is not."""
        own = {**self.flags, **{flag.name: flag for flag in COMMON}}
        return _read(own, typed, self.path)

    def call(self, given: Mapping[str, Any], typed: Sequence[str], invocation: Invocation) -> Call:
        """Fill in what was not given. Raises UsageError, NotFoundError."""
        arguments = self._fitted(typed)
        common = {flag.name: _both(flag, given.get(flag.name), invocation.common.get(flag.name)) for flag in COMMON}
        environ = invocation.environ
        file = load(environ)
        filed = file.for_words([*arguments.values()])
        for name, flag in self.flags.items():
            arguments[name] = value(flag, given.get(name), environ, self.defaults[name], filed)
        self._drop_outweighed(arguments, given, environ)
        return Call(
            command=self.name,
            verb=self.verb,
            arguments=arguments,
            settings=settings(common, environ, file, makes_config=self.name == "login", flags=self.row.taken),
            origins={name: is_given(flag, given.get(name), environ, filed) for name, flag in self.flags.items()},
        )

    def _drop_outweighed(self, arguments: dict[str, Any], given: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        """Of `--X` and `--no-X` the nearer one holds: the line before the environment, and that before the file."""

        def distance(name: str) -> int:
            return 0 if given.get(name) else 1 if any(map(environ.get, self.flags[name].sources)) else 2

        for name in self.flags:
            off = f"no_{name}"
            if off in self.flags and arguments[name] and distance(name) < distance(off):
                arguments[off] = False

    def _fitted(self, typed: Sequence[str]) -> dict[str, Any]:
        """The words by the parameters that take them. Raises UsageError for too many, too few, or an empty one."""
        left, found = list(typed), dict[str, Any]()
        for name, word in self.words.items():
            if not left and not word.optional:
                raise self._wrong(f"{self.path} needs {word.metavar}", f"write `{self.usage}`")
            taken = left if word.many else left[:1]
            if "" in taken:
                hint = "is a variable of the shell not set?"
                raise UsageError(f"{word.metavar} is empty", object=word.metavar, hint=hint)
            found[name] = tuple(taken) if word.many else next(iter(taken), None)
            left = left[len(taken) :]
        if left:
            stray = "" if self.name in _PRIVATE else f": {' '.join(map(fit_to_show, left))}"
            raise self._wrong(f"{self.path} was given too many arguments{stray}", f"write `{self.usage}`")
        return found

    def _wrong(self, message: str, hint: str) -> UsageError:
        return UsageError(message, object=self.path, hint=hint)


@dataclass(frozen=True, slots=True)
class ProgramFlags:
    """What stands before the command's name; `stands_for` is a command that a flag calls, with its `arguments`."""

    given: Mapping[str, Any]
    asks_help: bool
    stands_for: str | None
    arguments: Mapping[str, Any]


def divided(words: Sequence[str]) -> tuple[Sequence[str], str | None, Sequence[str]]:
    """What stands before the command's name, the name, and what comes after it."""
    # `--format=json` is one word, and none of these.
    valued = {word for flag in COMMON if flag.takes_value for word in flag.words}
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] not in ("-", "--"):
        index += 2 if words[index] in valued else 1
    rest = words[index + 1 :] if words[index : index + 1] == ["--"] else words[index:]
    return words[:index], next(iter(rest), None), rest[1:]


def program_flags(typed: Sequence[str], rows: Mapping[str, Row]) -> ProgramFlags:
    """Read what stands before the command's name. Raises UsageError for a flag that has its place after it."""
    instead = {word: Flag((word,), "", kind="switch") for word in _INSTEAD}
    own = {flag.name: flag for flag in COMMON} | instead
    given, _ = _read(own, typed, PROGRAM, rows)
    named = next((word for word in instead if given[word]), None)
    stands_for, arguments = _INSTEAD[named] if named else (None, {})
    return ProgramFlags(given, bool(given[HELP]), stands_for, arguments)


def no_such_command(word: str, known: Iterable[str]) -> UsageError:
    """With the one that may have been meant."""
    from difflib import get_close_matches

    names = list(known)
    close = [_ELSEWHERE[word]] if word in _ELSEWHERE else get_close_matches(word, names, n=1)
    hint = _meant(close, PROGRAM) or f"one of: {', '.join(names)}"
    return UsageError(f"there is no command {_quoted(word)}", object=PROGRAM, hint=hint)


def _read(
    flags: Mapping[str, Flag], typed: Sequence[str], path: str, rows: Mapping[str, Row] | None = None
) -> tuple[dict[str, Any], list[str]]:
    # No abbreviations: one that a script relies on would change its meaning with the next flag that begins alike.
    parser = _Parser(prog=path, add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, flag in flags.items():
        parser.add_argument(*flag.words, dest=name, **ACTIONS[flag.kind])
    parser.add_argument("--help", "-h", dest=HELP, action="store_true")
    # What stands behind `--` is kept from argparse, which takes it otherwise in one Python than in the next.
    end = typed.index("--") if "--" in typed else len(typed)
    try:
        found, rest = parser.parse_known_args(list(typed[:end]))
    except argparse.ArgumentError as error:
        # argparse joins the forms of a flag: `--output/-o`.
        raise _misused((error.argument_name or "").partition("/")[0], flags, path) from None
    for word in rest:
        if word.startswith("-") and word != "-":
            raise _no_such_flag(word, flags, path, rows)
    return vars(found), [*rest, *typed[end + 1 :]]


class _Parser(argparse.ArgumentParser):
    """Reads flags, and ends no process."""

    def error(self, message: str) -> NoReturn:
        """What argparse refuses beside a flag's value."""
        raise UsageError(message, object=self.prog, hint=f"see `{self.prog} --help`")


def _misused(word: str, flags: Mapping[str, Flag], path: str) -> UsageError:
    """Of a value that lacks, or that the flag does not take."""
    takes_value = any(flag.takes_value for flag in flags.values() if word in flag.words)
    why = f"{word} needs a value" if takes_value else f"{word} takes no value"
    more = f"; a value that begins with a dash is written {word}=-…" if takes_value and word.startswith("--") else ""
    return UsageError(why, object=path, hint=f"see `{path} --help`{more}")


def _no_such_flag(typed: str, flags: Mapping[str, Flag], path: str, rows: Mapping[str, Row] | None) -> UsageError:
    from difflib import get_close_matches

    word = typed.partition("=")[0] if typed.startswith("--") else typed[:2]  # what comes after it may be a secret
    if word in _SECRET_FLAGS:
        message = f"{path} takes no {word}: a secret is never a flag's value"
        return UsageError(message, object=path, hint="pipe it in with --password-stdin")
    hint = None
    for name, row in (rows or {}).items():
        if any(word in flag.words for flag in Spec.of(name, row).flags.values()):
            hint = f"write it after the command: `{path} {name} … {word}`"
            break
    # Not the short forms, which are all close to one another.
    known = [opt for flag in flags.values() for opt in flag.words if len(opt) > 2]
    hint = hint or _meant(get_close_matches(word, [*known, "--help"], n=1), path) or f"see `{path} --help`"
    return UsageError(f"{path} has no flag {_quoted(word)}", object=path, hint=hint)


def _both(flag: Flag, after: Any, before: Any) -> Any:
    """What was given after the command's name, an empty value too, else before it; what may be repeated adds up."""
    if flag.kind in ("many", "count") and after and before:
        return before + after
    return after if after or after == "" else before


def _meant(close: list[str], path: str) -> str | None:
    return f"did you mean {close[0]}? See `{path} --help`" if close else None


def _quoted(word: str) -> str:
    from epoch_oci.oci.digest import shown

    return shown(fit_to_show(word))
