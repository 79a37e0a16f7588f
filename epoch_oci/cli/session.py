"""One run of one command: its settings, its streams, and the way to registries, here and on a cluster's workers."""

import json
import logging
import os.path
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from epoch_oci.cli.config_file import load
from epoch_oci.cli.flags import COMMON, Flag
from epoch_oci.cli.settings import PASSWORD_VARIABLE, Settings, environment, secrets_of, settings, without_password
from epoch_oci.cli.streams import Secrets, bounded, flush_result, is_terminal, result_line, write_error, write_result
from epoch_oci.errors import UsageError

if TYPE_CHECKING:
    from epoch_oci.bulk.worker import Options
    from epoch_oci.cli.progress import Progress
    from epoch_oci.events import Event
    from epoch_oci.locate import Connection, HostReach

# Bytes: an archive that is piped in by mistake is not read to its end.
_PASSWORD_LIMIT = 64 << 10
# They are about registries and yet not told to workers: whose progress is shown, and who is logged in.
_OF_THIS_PROCESS = frozenset({"progress", "username", "password_stdin"})
_LOGGER = logging.getLogger("epoch_oci")


class Run:
    """What a verb is given. Standard output gets the result and nothing else; all else goes to standard error."""

    def __init__(self, settings: Settings, secrets: Secrets, origins: Mapping[str, str | None]) -> None:
        self.settings = settings
        self.secrets = secrets
        self._origins = origins
        # Both are made when they are asked for: a short command needs neither, nor the modules that they load.
        self._progress: Progress | None = None
        self._connection: Connection | None = None
        self._handler = _LogHandler(self)
        self._level_before = logging.NOTSET

    def __enter__(self) -> Self:
        self._handler.setLevel(_log_level(self.settings))
        self._level_before = _LOGGER.level
        _LOGGER.addHandler(self._handler)
        _LOGGER.setLevel(self._handler.level)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The logger is the library's, and outlives this run where a process has several.
        _LOGGER.removeHandler(self._handler)
        _LOGGER.setLevel(self._level_before)
        if self._progress is not None:
            self._progress.close()

    @property
    def progress(self) -> "Progress":
        """The listener for transfers of this run."""
        if self._progress is None:
            self._progress = _progress_for(self.settings, self._write)
        return self._progress

    @property
    def connection(self) -> "Connection":
        """As `connect`, for a verb that asks nobody for a password."""
        return self.connect()

    def connect(self, *, asks: bool = False) -> "Connection":
        """How registries are reached; a password on standard input is read now, once.

        Raises UsageError, also for a user without a password unless the verb `asks` for it.
        """
        if self._connection is None:
            self._connection = replace(
                _connection(self.settings, self._password(asks=asks)),
                on_event=self.listen,
                on_debug=self.debug if self.settings.debug else None,
            )
        return self._connection

    def listen(self, event: "Event") -> None:
        """Take an event of a transfer or a registry. Safe for threads."""
        if event.event == "warning":
            self.warn(event.message or "")
            return
        # Before it is encoded, as in `_say`: JSON escapes would tear a secret apart, or be torn by taking one out.
        if event.message:
            event = replace(event, message=self.secrets.hidden(event.message))
        self.progress(event)

    def origin(self, name: str) -> str | None:
        """Where a flag of the command was set: its own word or an environment variable; None for nowhere."""
        return self._origins.get(name)

    def typed(self, name: str) -> bool:
        """Whether a flag of the command stands on the command line: that outweighs what else says so."""
        return (self.origin(name) or "").startswith("--")

    def result(self, value: Mapping[str, Any], text: Callable[[], list[str]], *, aside: bool = False) -> None:
        """Print the result: `value` as one JSON object, or the lines of `text`; under --quiet its digest if it has one.

        `aside` is to standard error, for a command whose result is not about its standard output but on it.
        """
        if self.settings.json:
            shown = [json.dumps(value, indent=2)]
        elif self.settings.quiet and value.get("digest"):
            shown = [value["digest"]]
        else:
            shown = [result_line(line) for line in text()]
        if not aside:
            write_result("".join(line + "\n" for line in shown))
            return
        for line in shown:
            write_error(line)

    def line(self, value: Mapping[str, Any], text: str) -> None:
        """One of many results, each on a line of its own and seen at once."""
        write_result((json.dumps(value) if self.settings.json else result_line(text)) + "\n")
        flush_result()

    def warn(self, text: str) -> None:
        """Say that something is odd, on standard error."""
        if not self.settings.quiet:
            self._say(f"warning: {text}", "warning", text)

    def note(self, text: str) -> None:
        """A line for people on standard error."""
        self._say(text, "log", text)

    def debug(self, text: str) -> None:
        """What --debug shows."""
        for line in text.splitlines():
            self.note(f"debug: {line}")

    def _say(self, text: str, event: str, message: str) -> None:
        if self.settings.json_progress:
            message = bounded(self.secrets.hidden(message))
            text = json.dumps({"event": event, "digest": None, "bytes": 0, "total": 0, "message": message})
        # By the progress, if there is any: bars would be drawn over what is written past them.
        if self._progress is not None:
            self._progress.say(text)
        else:
            self._write(text)

    def _write(self, line: str) -> None:
        """To standard error: JSON as it is, else for people."""
        write_error(line if self.settings.json_progress else f"epoch-oci: {self.secrets.shown(line)}")

    def _password(self, *, asks: bool) -> str | None:
        settings = self.settings
        if settings.password_stdin:
            if settings.username is None:
                raise UsageError("--password-stdin needs --username", hint="say who logs in with --username U")
            password: str | None = read_password()
        else:
            password = (settings.environ.get(PASSWORD_VARIABLE) or None) if settings.username else None
            if password is None and settings.username is not None and not asks:
                raise UsageError(
                    "--username is given, and no password to go with it",
                    object="--username",
                    hint=f"pipe it in with --password-stdin, set {PASSWORD_VARIABLE}, or use `epoch-oci login` once",
                )
        self.secrets.add(password or "")
        return password


def read_password() -> str:
    """The first line of standard input. Raises UsageError when there is none."""
    raw = sys.stdin.buffer.read(_PASSWORD_LIMIT + 1)
    # The line's end alone goes, also as Windows writes it: blanks may belong to the password.
    text = raw.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not text or len(raw) > _PASSWORD_LIMIT or "\n" in text:
        raise UsageError(
            "standard input holds no password", object="--password-stdin", hint="pipe in the password, on one line"
        )
    return text


class _LogHandler(logging.Handler):
    """Log records of the library as lines on standard error."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._run.warn(text)
        else:
            self._run.note(text)


def _log_level(settings: Settings) -> int:
    if settings.debug:
        return logging.DEBUG
    return logging.INFO if settings.verbose else logging.WARNING


def reaches(settings: Settings) -> "dict[str, HostReach]":
    """What the configuration file says of single registries, but for what was typed or is in a variable."""
    from epoch_oci.locate import HostReach

    names = {"trust-host": "trusted_hosts"}
    found = {}
    for host, row in settings.file.hosts.items():
        members = {names.get(key, key.replace("-", "_")): item for key, item in row.items()}
        known = {field.name for field in fields(HostReach)} - settings.said
        found[host] = HostReach(**{name: item for name, item in members.items() if name in known})
    return found


def options_for_workers(settings: Settings) -> "Options":
    """What workers elsewhere are told of how places are reached: what was typed or stands in a variable here.

    What the configuration file says stays here: every machine has its own. Paths are absolute.
    """
    return tuple(
        (flag.name, _absolute(flag, getattr(settings, flag.name)))
        for flag in COMMON
        if flag.registry and flag.name in settings.said and flag.name not in _OF_THIS_PROCESS
    )


def _absolute(flag: Flag, found: object) -> object:
    return os.path.abspath(found) if flag.metavar in ("PEM", "FILE") and isinstance(found, str) else found  # noqa: PTH100


def connection_here(options: "Options") -> "Connection":
    """How a worker elsewhere reaches registries and buckets: as it was told, else as its own environment and file say.

    The credentials are those of this process's own environment, EPOCH_OCI_PASSWORD among them.
    """
    environ = environment()
    own = settings({}, environ, load(environ))
    told = dict(options)
    here = replace(own, **told, origins={**own.origins, **dict.fromkeys(told, "the run that this is part of")})
    return _connection(here, environ.get(PASSWORD_VARIABLE) if own.username else None)


def _connection(settings: Settings, password: str | None) -> "Connection":
    from epoch_oci.locate import Connection

    return Connection(
        plain_http=settings.plain_http,
        insecure=settings.insecure,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        registry_config=settings.registry_config,
        username=settings.username,
        password=password,
        environ=without_password(settings.environ),
        trusted_hosts=frozenset(settings.trust_host),
        profile=settings.profile,
        retry_for=settings.retry_for,
        hosts=reaches(settings),
        cache_directory=settings.cache_directory,
        state_directory=settings.state_directory,
    )


def hidden_here(text: str) -> str:
    """`text` without what is secret in this process's own environment, before it goes elsewhere."""
    return _secrets_here().hidden(text)


@cache
def _secrets_here() -> Secrets:
    environ = environment()
    secrets = Secrets(secrets_of(environ))
    secrets.add_typed(environ.values())
    return secrets


def _progress_for(settings: Settings, say: Callable[[str], None]) -> "Progress":
    """The listener that the settings ask for."""
    from epoch_oci.cli import progress

    mode = "none" if settings.quiet else settings.progress
    verbose = settings.verbose > 0
    if mode == "auto":
        # A dumb terminal cannot move its cursor, without which bars are a flood of lines.
        mode = "bar" if is_terminal(sys.stderr) and settings.environ.get("TERM") != "dumb" else "plain"
    if mode == "bar":
        from epoch_oci.cli.bars import BarProgress

        return BarProgress(say, verbose=verbose)
    kinds = {"plain": progress.PlainProgress, "json": progress.JsonProgress}
    return kinds.get(mode, progress.Progress)(say, verbose=verbose)
