"""The program: every command by its name, and what a command line asks for."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from epoch_oci.cli.commands import about, account, artifacts, bulk, documents, look, read, transfer
from epoch_oci.cli.parser import (
    EPILOG,
    PROGRAM,
    Call,
    Command,
    Group,
    Invocation,
    Spec,
    Verb,
    group_signature,
    usage_error,
)

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer does not name it in public

VERBS: Mapping[str, Verb] = {
    "push": transfer.push,
    "pull": transfer.pull,
    "sync": bulk.sync,
    "copy": artifacts.copy,
    "tag": artifacts.tag,
    "rm": artifacts.rm,
    "prune": bulk.prune,
    "convert": documents.convert,
    "validate": documents.validate,
    "inspect": look.inspect,
    "verify": look.verify,
    "ls": look.ls,
    "cat": read.cat,
    "mount": read.mount,
    "diff": read.diff,
    "login": account.login,
    "logout": account.logout,
    "demo": about.demo,
    "completion": about.completion,
    "version": about.version,
}


def parse(words: Sequence[str], environ: Mapping[str, str]) -> Call | int:
    """What `words` ask for; an exit code where the parser itself has answered (help, completion).

    Raises UsageError, and NotFoundError for a file that a flag names.
    """
    if words[:1] == ["help"]:  # as the users of oras, skopeo and crane type it
        words = [*words[1:], "--help"]
    try:
        result = program().main(
            list(words), prog_name=PROGRAM, standalone_mode=False, obj=Invocation(environ), windows_expand_args=False
        )
    except _UsageError as error:
        raise usage_error(error, PROGRAM) from None
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return result if isinstance(result, Call) else int(result or 0)


@functools.cache
def program() -> Group:
    """The parser of the whole command line, built once: what a call brings with it is in its Invocation."""
    app = typer.Typer(
        name=PROGRAM,
        cls=Group,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings={"help_option_names": ["--help", "-h"]},
        epilog=EPILOG,
        help="Moves Epoch snapshots of Cocoon MicroVMs through OCI registries, byte for byte.",
    )
    app.callback()(_group())
    for name, verb in VERBS.items():
        spec = Spec.of(name, verb)
        kind = type("Command", (Command,), {"spec": spec})
        app.command(name, cls=kind, help=verb.__doc__, epilog=EPILOG)(_callback(spec))
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    return group


def _callback(spec: Spec) -> Callable[..., Call]:
    def callback(**given: Any) -> Call:
        context = given.pop("ctx")
        return spec.call(given, context.obj)

    callback.__signature__ = spec.signature()  # type: ignore[attr-defined]
    return callback


def _group() -> Callable[..., Call | None]:
    def callback(**given: Any) -> Call | None:
        context, version = given.pop("ctx"), given.pop("version")
        context.obj.common = given
        if version:
            return Spec.of("version", about.version).call(given, context.obj)
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())
        return None

    callback.__signature__ = group_signature()  # type: ignore[attr-defined]
    return callback
