"""`config` and `doctor`: what holds on this machine, who said so, and whether a registry can be used from here."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from epoch_oci.cli import flags
from epoch_oci.cli.flags import COMMON, Flag
from epoch_oci.cli.settings import Settings, is_given, value
from epoch_oci.errors import UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run

_OF_COMMANDS: tuple[Flag, ...] = tuple(
    get_args(row)[1]
    for row in (
        flags.Store,
        flags.Dialect,
        flags.PartSize,
        flags.Chunked,
        flags.Level,
        flags.Zstd,
        flags.ChunkSize,
        flags.Jobs,
        flags.LimitRate,
        flags.ReadCache,
    )
)
"""Flags that not every command has, and that may stand in the configuration file."""


def config(run: "Run", action: flags.ConfigAction = None) -> None:
    """Show what holds on this machine, and where each value comes from.

    A flag outweighs a variable, and that the configuration file: ~/.config/epoch-oci/config.toml, or the one that
    EPOCH_OCI_CONFIG names.
    """
    from epoch_oci.cli.render import config_lines

    if action not in (None, "show"):
        raise UsageError(f"there is no `config {action}`", object=action, hint="write `epoch-oci config show`")
    settings = run.settings
    rows = [*_common(settings), *_of_commands(settings)]
    shown = {
        "command": "config",
        "file": settings.file.path,
        "settings": [row | {"value": _hidden(run, row["value"])} for row in rows],
        "hosts": list(_hosts(settings)),
    }
    run.result(shown, lambda: config_lines(shown))


def doctor(run: "Run", host: flags.Examined, write: flags.Write = False) -> None:
    """Look whether a registry can be used from here, and what it can.

    Whether it is reached, certificates, credentials, the clock; who can read the repository; ranges, referrers, speed.
    Nothing is changed, and with --write nothing is left behind. Exit 0 when it can be used.
    """
    from epoch_oci.cli.render import examination_lines
    from epoch_oci.events import phase
    from epoch_oci.locate import registry_settings
    from epoch_oci.registry.doctor import examine
    from epoch_oci.registry.probes import PROBES

    registry, repository, name = _examined(host)
    if write and repository is None:
        raise UsageError("--write tries a repository, and none is named", hint=f"write {registry}/REPOSITORY")
    found = examine(
        registry,
        repository,
        name,
        registry_settings(registry, run.connection),
        PROBES if write else (),
        lambda what: phase(run.listen, f"looking: {what}"),
    )
    run.progress.close()
    # Shown first: the examination is the result, also of a registry that cannot be used.
    run.result(found.to_json(), lambda: examination_lines(found))
    if found.error is not None:
        raise found.error


def _examined(word: str) -> tuple[str, str | None, str | None]:
    """Registry, repository, and tag or digest. Raises UsageError."""
    from epoch_oci.oci.reference import Reference, is_registry, refuse_user_info

    refuse_user_info(word)
    plain = word.removeprefix("https://").removeprefix("docker://").rstrip("/")
    if is_registry(plain):
        return plain, None, None
    if "/" not in plain or not is_registry(plain.partition("/")[0]):
        raise UsageError(f"{word} is no registry", object=word, hint="write HOST[:PORT], or HOST[:PORT]/REPOSITORY")
    reference = Reference.parse(plain)
    return reference.registry, reference.repository, reference.selector


def _common(settings: Settings) -> Iterator[dict[str, Any]]:
    for flag in COMMON:
        yield _row(flag, getattr(settings, flag.name), settings.origins.get(flag.name))


def _of_commands(settings: Settings) -> Iterator[dict[str, Any]]:
    from epoch_oci.cli.app import spec

    filed, defaults = settings.file.for_words(()), spec("push").defaults
    for flag in _OF_COMMANDS:
        found = value(flag, None, settings.environ, defaults.get(flag.name), filed)
        yield _row(flag, found, is_given(flag, None, settings.environ, filed))


def _row(flag: Flag, found: object, origin: str | None) -> dict[str, Any]:
    if origin is None:
        kind = "default"
    elif origin == flag.word:
        kind = "flag"
    else:
        kind = "variable" if origin in flag.sources else "file"
    plain = list(found) if isinstance(found, tuple) else found
    return {"name": flag.key, "value": plain, "from": {"kind": kind, "where": origin}}


def _hidden(run: "Run", found: Any) -> Any:
    """A value without what may be a secret in it: a location in a variable may have a password, or be signed."""
    if isinstance(found, list):
        return [_hidden(run, item) for item in found]
    return run.secrets.hidden(found) if isinstance(found, str) else found


def _hosts(settings: Settings) -> Iterator[dict[str, Any]]:
    for host, row in settings.file.hosts.items():
        for key, item in row.items():
            where = settings.file.place("hosts", host, key)
            yield {"host": host, "name": key, "value": item, "from": {"kind": "file", "where": where}}
