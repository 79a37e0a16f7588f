"""The parser: typer, fed from the table of flags; what it completes, and its complaints in our words.

Parsing runs nothing: it returns what shall be run.
"""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from epoch_oci.cli.flags import COMMON, Flag, Kind, Store, Word
from epoch_oci.cli.settings import Settings, environment, is_given, settings, value
from epoch_oci.errors import EpochOciError, UsageError
from epoch_oci.redaction import fit_to_show

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
SHELLS = ("bash", "zsh", "fish")
_STORES = get_args(Store)[1].sources
_MOST_COMPLETED = 1000
_SECRET_FLAGS = frozenset(
    {"--password", "--passwd", "--pass", "--token", "--identity-token", "--secret", "--creds", "-p"}
)
_PRIVATE = frozenset({"login"})
"""Commands whose stray arguments may be a password, which is not repeated."""
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
        metavar=word.metavar, help=word.help, show_default=False, autocompletion=_COMPLETERS.get(word.metavar)
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


def snapshots(ctx: typer.Context, incomplete: str) -> list[str]:
    """The snapshots of the store that the line or the environment names; none where that fails.

    A shell asks at every tab key, so nothing is looked at but local directories.
    """
    environ = environment()
    store = ctx.params.get("store") or next((environ[name] for name in _STORES if environ.get(name)), None)
    if not isinstance(store, str) or ("://" in store and not store.startswith("file://")):
        return []
    from epoch_oci.cli.streams import safe
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.locate import open_store

    found: list[str] = []
    with contextlib.suppress(EpochOciError, OSError):
        for entry in open_store(store).snapshots():
            text = str(SnapshotKey(entry.name, entry.tag))
            if text.startswith(incomplete) and text == safe(text) and len(found) < _MOST_COMPLETED:
                found.append(text)
    return found


def shells(incomplete: str) -> list[str]:
    """The shells there is a script for."""
    return [shell for shell in SHELLS if shell.startswith(incomplete)]


_COMPLETERS: dict[str, Callable[..., list[str]]] = {"SNAPSHOT": snapshots, "LOCATION": snapshots, "SHELL": shells}
"""By the word's name."""


def usage_error(error: Any, program: str) -> UsageError:
    """Translate one of the parser's exceptions; they are told apart by name, for typer brings classes of its own."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else program
    make = _BY_NAME.get(type(error).__name__, _other)
    message, hint = make(error, context, path)
    return UsageError(message, object=path, hint=hint or f"see `{path} --help`")


def _no_such_option(error: Any, context: Any, path: str) -> tuple[str, str | None]:
    from difflib import get_close_matches

    word = error.option_name
    if word in _SECRET_FLAGS:
        return f"{path} takes no {word}: a secret is never a flag's value", "pipe it in with --password-stdin"
    known = [opt for param in context.command.get_params(context) for opt in param.opts] if context else []
    close = get_close_matches(word, [opt for opt in known if len(opt) > 2], n=1)
    message = f"{path} has no flag {_quoted(word)}"
    if (home := _command_with(word, context)) is not None:
        return message, f"write it after the command: `{path} {home} … {word}`"
    return message, _meant(close, path)


def _command_with(word: str, context: Any) -> str | None:
    """The first command that has the flag, where it was written before any."""
    commands = getattr(context.command, "commands", {}) if context is not None else {}
    specs = {name: command.spec for name, command in commands.items()}
    return next((name for name, spec in specs.items() if any(word in f.words for f in spec.flags.values())), None)


def _missing(error: Any, context: Any, path: str) -> tuple[str, str | None]:
    name = error.param.metavar or error.param.name if error.param is not None else "an argument"
    return f"{path} needs {name}", f"write {_usage(context, path)}"


def _bad_option(error: Any, context: Any, path: str) -> tuple[str, str | None]:
    why = "takes no value" if "not take" in error.message else "needs a value"
    return f"{error.option_name} {why}", None


def _other(error: Any, context: Any, path: str) -> tuple[str, str | None]:
    message = error.format_message().rstrip(".")
    if message.startswith("No such command"):
        return _no_such_command(message, context, path)
    if message.startswith("Missing command"):
        return "a command is missing", f"one of: {', '.join(context.command.list_commands(context))}"
    if "unexpected extra" in message:
        private = context is not None and context.info_name in _PRIVATE
        extra = message.rpartition("(")[2].removesuffix(")").split()
        stray = "" if private else f": {' '.join(map(fit_to_show, extra))}"
        return f"{path} was given too many arguments{stray}", f"write {_usage(context, path)}"
    return message[:1].lower() + message[1:], None


def _no_such_command(message: str, context: Any, path: str) -> tuple[str, str | None]:
    from difflib import get_close_matches

    word = message.split("'")[1] if message.count("'") > 1 else message.rpartition(" ")[2]
    known = context.command.list_commands(context)
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"there is no command {_quoted(word)}", _meant(close, path) or f"one of: {', '.join(known)}"


def _meant(close: list[str], path: str) -> str | None:
    return f"did you mean {close[0]}? See `{path} --help`" if close else None


def _usage(context: Any, path: str) -> str:
    if context is None:
        return f"`{path} --help`"
    words = [word.usage for word in context.command.spec.words.values()]
    return f"`{' '.join([path, *words])}`"


def _quoted(word: str) -> str:
    from epoch_oci.oci.digest import shown

    return shown(fit_to_show(word))


_BY_NAME = {
    "NoSuchOption": _no_such_option,
    "MissingParameter": _missing,
    "BadOptionUsage": _bad_option,
}
