"""The parser: typer, fed from the table of flags; its complaints in our words.

Parsing runs nothing: it returns what shall be run.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from epoch_oci.cli.completion import COMPLETERS
from epoch_oci.cli.flags import COMMON, Flag, Kind, Word
from epoch_oci.cli.settings import Settings, is_given, settings, value
from epoch_oci.errors import UsageError

PROGRAM = "epoch-oci"
Verb = Callable[..., "int | None"]

# None everywhere stands for "not given": then the environment is looked at, and after it the default.
_TYPES: dict[Kind, Any] = {
    "text": str | None,
    "switch": bool | None,
    "count": int,
    "number": str | None,
    "duration": str | None,
    "many": list[str] | None,
}
EPILOG = (
    "Every flag has an environment variable: EPOCH_OCI_<FLAG>, for example EPOCH_OCI_FORMAT=json. "
    "Secrets are read from standard input, a credentials file or the environment, never from a flag."
)


@dataclass(slots=True)
class Invocation:
    """What a parse starts with, and the common flags found before the command's name."""

    environ: Mapping[str, str]
    common: dict[str, Any] = field(default_factory=dict)


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
    verb: Verb
    words: Mapping[str, Word]
    flags: Mapping[str, Flag]
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, verb: Verb) -> "Spec":
        """Read a verb's signature: after the run itself, every parameter is annotated with its Flag or Word."""
        parameters = list(inspect.signature(verb).parameters.values())[1:]
        rows = {parameter.name: get_args(parameter.annotation)[1] for parameter in parameters}
        return cls(
            name,
            verb,
            words={key: row for key, row in rows.items() if isinstance(row, Word)},
            flags={key: row for key, row in rows.items() if isinstance(row, Flag)},
            defaults={parameter.name: parameter.default for parameter in parameters},
        )

    def signature(self) -> inspect.Signature:
        """What typer reads."""
        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        parameters += [_word_parameter(name, word) for name, word in self.words.items()]
        parameters += [_flag_parameter(name, flag) for name, flag in self.flags.items()]
        return inspect.Signature(parameters + common_parameters())

    def call(self, given: Mapping[str, Any], invocation: Invocation) -> Call:
        """Fill in what was not given. Raises UsageError, NotFoundError."""
        common = {flag.name: _nearer(given[flag.name], invocation.common.get(flag.name)) for flag in COMMON}
        environ = invocation.environ
        arguments = {name: _word_value(word, given[name]) for name, word in self.words.items()}
        arguments |= {name: value(flag, given[name], environ, self.defaults[name]) for name, flag in self.flags.items()}
        return Call(
            command=self.name,
            verb=self.verb,
            arguments=arguments,
            settings=settings(common, environ, makes_config=self.name == "login"),
            origins={name: is_given(flag, given[name], environ) for name, flag in self.flags.items()},
        )


class Command(TyperCommand):
    """A command whose usage and help come from its spec."""

    spec: Spec

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """SNAPSHOT TARGET [FLAGS]."""
        words = " ".join(word.usage for word in self.spec.words.values())
        formatter.write_usage(ctx.command_path, f"{words} [FLAGS]".strip())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, the command's own flags, then those that every command has."""
        _section(formatter, "Arguments", [(word.metavar, word.help) for word in self.spec.words.values()])
        _section(formatter, "Flags", [_row(flag) for flag in self.spec.flags.values()])
        _section(formatter, "Common flags", [*map(_row, COMMON), ("--help, -h", "Show this.")])


class Group(TyperGroup):
    """The program itself."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """COMMAND ARGUMENTS [FLAGS]."""
        formatter.write_usage(ctx.command_path, "COMMAND ARGUMENTS [FLAGS]")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands, then the common flags."""
        self.format_commands(ctx, formatter)
        own = [
            ("--install-completion", "Set up completion for this shell."),
            ("--show-completion", "Print the completion script of this shell."),
            ("--version", "Show the version."),
            ("--help, -h", "Show this; after a command, its own flags."),
        ]
        _section(formatter, "Common flags", [*map(_row, COMMON), *own])


def _section(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def _row(flag: Flag) -> tuple[str, str]:
    values = "|".join(flag.choices) or flag.metavar
    variables = "".join(f" [{name}]" for name in flag.variables)
    return f"{', '.join(flag.words)} {values}".strip(), flag.help + variables


def _flag_parameter(name: str, flag: Flag) -> inspect.Parameter:
    option = typer.Option(
        *flag.words,
        help=flag.help,
        metavar=flag.metavar or None,
        count=flag.kind == "count",
        show_default=False,
        autocompletion=(lambda: list(flag.choices)) if flag.choices else None,
    )
    default = 0 if flag.kind == "count" else None
    plain: Any = _TYPES[flag.kind]
    annotation = Annotated[plain, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _word_parameter(name: str, word: Word) -> inspect.Parameter:
    default = None if word.optional else inspect.Parameter.empty
    plain: Any = list[str] if word.many else str | None if word.optional else str
    argument = typer.Argument(
        metavar=word.metavar, help=word.help, show_default=False, autocompletion=COMPLETERS.get(word.metavar)
    )
    annotation = Annotated[plain, argument]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _nearer(after: Any, before: Any) -> Any:
    """What was given after the command's name, an empty value too, else what was given before it."""
    return after if after or after == "" else before


def _word_value(word: Word, given: Any) -> Any:
    if given == "" or (word.many and "" in given):
        raise UsageError(f"{word.metavar} is empty", object=word.metavar, hint="is a variable of the shell not set?")
    return tuple(given) if word.many else given


def common_parameters() -> list[inspect.Parameter]:
    """The common flags as typer takes them."""
    return [_flag_parameter(flag.name, flag) for flag in COMMON]


def group_signature() -> inspect.Signature:
    """What typer reads of the program itself: the common flags and --version."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    version = Annotated[bool, typer.Option("--version", help="Show the version.")]
    return inspect.Signature(
        [
            inspect.Parameter("ctx", keyword, annotation=typer.Context),
            inspect.Parameter("version", keyword, default=False, annotation=version),
            *common_parameters(),
        ]
    )
