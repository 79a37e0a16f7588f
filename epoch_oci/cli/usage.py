"""What the parser complains about, as one UsageError with a way on."""

from difflib import get_close_matches
from typing import Any

from epoch_oci.errors import UsageError
from epoch_oci.redaction import fit_to_show

_SECRET_FLAGS = frozenset(
    {"--password", "--passwd", "--pass", "--token", "--identity-token", "--secret", "--creds", "-p"}
)
_PRIVATE = frozenset({"login"})
"""Commands whose stray arguments may be a password, which is not repeated."""


def usage_error(error: Any, program: str) -> UsageError:
    """Translate one of the parser's exceptions; they are told apart by name, for typer brings classes of its own."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else program
    make = _BY_NAME.get(type(error).__name__, _other)
    message, hint = make(error, context, path)
    return UsageError(message, object=path, hint=hint or f"see `{path} --help`")


def _no_such_option(error: Any, context: Any, path: str) -> tuple[str, str | None]:
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
