"""Flags and environment become settings. Nobody else of the command line reads the environment."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from epoch_oci.cli.config_file import NO_FILE, ConfigFile, Defaults, load
from epoch_oci.cli.flags import COMMON, PREFIX, Flag
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import EpochOciError, NotFoundError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD_VARIABLE = PREFIX + "PASSWORD"
"""Where a password may stand instead of on standard input; there is no flag that takes one."""

NO_DEFAULTS: Defaults = {}
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
_SECRET_WORDS = ("PASSWORD", "PASSWD", "TOKEN", "SECRET", "CREDENTIAL", "APIKEY", "API_KEY", "ACCESS_KEY")
_TIME = r"([0-9]{1,6}(?:\.[0-9]{1,3})?)"
_DURATION = rf"(?:{_TIME}h)?(?:{_TIME}m)?(?:{_TIME}s?)?\Z"
# Characters. That others' variables hold secrets is guessed from their names: a short value may be a switch, and would
# be taken out of every message.
_SHORTEST_SECRET = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for a whole run, whatever the command. `environ` is never changed, and never shown.

    `origins` tells where each of them was set: the flag's own word, a variable, or FILE:LINE; None for nowhere.
    """

    format: str = "text"
    progress: str = "auto"
    quiet: bool = False
    verbose: int = 0
    debug: bool = False
    plain_http: bool = False
    insecure: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    registry_config: str | None = None
    trust_host: tuple[str, ...] = ()
    profile: str | None = None
    retry_for: float = 600.0
    username: str | None = None
    password_stdin: bool = False
    file: ConfigFile = NO_FILE
    origins: Mapping[str, str | None] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def cache_directory(self) -> "Path | None":
        """Where what is costly to find out is remembered; None when the user has no home."""
        return self._directory("XDG_CACHE_HOME", ".cache")

    @property
    def state_directory(self) -> "Path | None":
        """Where what another run can go on with is remembered; None when the user has no home."""
        return self._directory("XDG_STATE_HOME", ".local/state")

    def _directory(self, variable: str, below_home: str) -> "Path | None":
        from pathlib import Path

        base = self.environ.get(variable)
        if not base and (home := self.environ.get("HOME")):
            base = f"{home}/{below_home}"
        return Path(base) / "epoch-oci" if base else None

    @property
    def spool_directory(self) -> "Path":
        """Where gigabytes that come from a pipe wait to be sent: not /tmp, which may be memory."""
        from pathlib import Path

        return Path(self.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 (files there have no name)

    @property
    def said(self) -> frozenset[str]:
        """The names of what was typed or stands in a variable: it outweighs what any configuration file says."""
        file = self.file.path
        names = {name for name, at in self.origins.items() if at and (file is None or not at.startswith(file))}
        # They are a pair: a certificate that was typed does not go with a file's key.
        return frozenset(names | {"key_file"} if "cert_file" in names else names)

    @property
    def json(self) -> bool:
        """Whether results are printed as JSON."""
        return self.format == "json"

    @property
    def json_progress(self) -> bool:
        """Whether standard error holds JSON lines."""
        return self.progress == "json" and not self.quiet


DEFAULTS = Settings()


def environment() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)


def settings(
    given: Mapping[str, object],
    environ: Mapping[str, str],
    file: ConfigFile = NO_FILE,
    *,
    makes_config: bool = False,
    flags: Sequence[Flag] = COMMON,
) -> Settings:
    """The common flags as given, else from the environment, the file, or their defaults.

    Raises UsageError, NotFoundError.

    `makes_config` is for the one command that makes the file of --registry-config where it is not there; `flags` are
    the common ones with the values that the command takes.
    """
    filed = file.for_words(())
    values: dict[str, Any] = {
        flag.name: value(flag, given.get(flag.name), environ, getattr(DEFAULTS, flag.name), filed) for flag in flags
    }
    origins = {flag.name: is_given(flag, given.get(flag.name), environ, filed) for flag in COMMON}
    for flag in _PEM_FILES:
        path = values[flag.name]
        if path is not None and not os.path.isfile(path):  # noqa: PTH113 (pathlib costs start-up time here)
            where = origins[flag.name] if flag.key in filed else flag.word
            raise NotFoundError(f"{where}: there is no file {path}", object=path, hint="name a PEM file")
    if values["key_file"] is not None and values["cert_file"] is None:
        raise UsageError("--key-file needs --cert-file", object="--key-file", hint="name the certificate it belongs to")
    config = values["registry_config"]
    # No other file is read beside it (docs/cli.md, Credentials, certificates, proxies): with one that is not there all
    # would be asked for without an account.
    if config is not None and not makes_config and (os.path.isdir(config) or not os.path.exists(config)):  # noqa: PTH110, PTH112
        raise UsageError(
            f"{origins[_REGISTRY_CONFIG.name]}: there is no file {config}",
            object=config,
            hint="`epoch-oci login` makes one there, or leave it out",
        )
    return Settings(**values, file=file, origins=origins, environ=environ)


_PEM_FILES = tuple(flag for flag in COMMON if flag.metavar == "PEM")
_REGISTRY_CONFIG = next(flag for flag in COMMON if flag.name == "registry_config")


def guessed(words: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """What can be told of the settings from a command line that cannot be parsed: how its error is to be shown."""
    # Behind `--` a word that looks like a flag is none.
    typed = list(words[: words.index("--")] if "--" in words else words)
    try:
        filed = load(environ).defaults
    except EpochOciError:  # it may be what the error is about
        filed = {}
    return Settings(
        format=_guess("--format", typed, environ, filed, ("text", "json")),
        progress=_guess("--progress", typed, environ, filed, ("auto", "bar", "plain", "json", "none")),
        quiet="--quiet" in typed or "-q" in typed,
        verbose=sum(word in ("-v", "-vv", "--verbose") for word in typed),
        debug="--debug" in typed or environ.get(PREFIX + "DEBUG", "").lower() in _YES,
        environ=environ,
    )


def value(
    flag: Flag, given: object, environ: Mapping[str, str], default: object, filed: Defaults = NO_DEFAULTS
) -> object:
    """What `flag` says: as given, else in the environment, else `filed`, else `default`. Raises UsageError."""
    # What is typed empty goes on to be refused; an empty variable is none (docs/cli.md, Variables).
    if given or given == "":
        return _typed(flag, given)
    for name in flag.sources:
        if text := environ.get(name, ""):
            return _from_text(flag, text, name)
    if flag.key in filed:
        found, where = filed[flag.key]
        # The schema has seen to it that a switch is true or false; the rest goes the way of texts, for the bounds held
        # there.
        return found if flag.kind == "switch" else _from_text(flag, str(found), where)
    return default


def is_given(flag: Flag, given: object, environ: Mapping[str, str], filed: Defaults = NO_DEFAULTS) -> str | None:
    """Where `flag` was set: the flag's own word, the variable's name, FILE:LINE, or None for nowhere."""
    if given:
        return flag.word
    variable = next((name for name in flag.sources if environ.get(name)), None)
    return variable if variable is not None or flag.key not in filed else filed[flag.key][1]


def secrets_of(environ: Mapping[str, str]) -> frozenset[str]:
    """The values in the environment that, by their names, must never be printed; ours also when they are short."""
    return frozenset(
        text
        for name, text in environ.items()
        if any(word in name.upper() for word in _SECRET_WORDS)
        and (len(text) >= _SHORTEST_SECRET or name.startswith("EPOCH_"))
    )


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program of somebody else: without what was meant for this one alone."""
    # Variables of others stay: what that program logs in with may be among them.
    return {
        name: text
        for name, text in environ.items()
        if not (name.startswith("EPOCH_") and any(word in name for word in _SECRET_WORDS))
    }


def without_password(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for those who need no more than where credentials lie."""
    return {name: text for name, text in environ.items() if name != PASSWORD_VARIABLE}


def _typed(flag: Flag, given: object) -> object:
    if given == "" or (isinstance(given, list | tuple) and "" in given):
        raise UsageError(
            f"{flag.word} was given an empty value", object=flag.word, hint="leave it out, or say what it shall be"
        )
    match flag.kind:
        case "many":
            assert isinstance(given, list | tuple)
            return tuple(str(item) for item in given)
        case "switch" | "count":
            return given
        case _:
            return _from_text(flag, str(given), flag.word)


def _from_text(flag: Flag, text: str, where: str) -> object:
    match flag.kind:
        case "many":
            return tuple(line for line in text.splitlines() if line)
        case "switch":
            return _switch(text, where)
        case "count" | "number":
            return _number(text, where, flag)
        case "duration":
            return _duration(text, where)
        case "text":
            if flag.choices and text not in flag.choices:
                raise _refused(text, where, f"one of: {', '.join(flag.choices)}")
            return text


def _switch(text: str, where: str) -> bool:
    # A slip is refused: taken for yes it could allow something, and taken for no it would pass unseen.
    if text.lower() not in _YES | _NO:
        raise _refused(text, where, "one of: 1, true, yes, on, 0, false, no, off")
    return text.lower() in _YES


def _number(text: str, where: str, flag: Flag) -> int:
    least = 0 if flag.kind == "count" else 1
    # `isdigit` is also true of `²`, and of thousands of digits: `int` refuses both with an error of its own.
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= flag.most):
        raise _refused(text, where, f"a number from {least} to {flag.most}")
    return int(text)


def _duration(text: str, where: str) -> float:
    found = re.match(_DURATION, text)
    if found is None or not text:
        raise _refused(text, where, "a time such as 90s, 10m or 1h30m, or 0")
    return sum(float(part) * unit for part, unit in zip(found.groups(default="0"), (3600, 60, 1), strict=True))


def _refused(text: str, where: str, allowed: str) -> UsageError:
    from epoch_oci.oci.digest import shown

    return UsageError(f"{where} cannot be {shown(text)}", object=where, hint=f"it takes {allowed}")


def _guess(
    word: str, typed: Sequence[str], environ: Mapping[str, str], filed: Mapping[str, Any], choices: tuple[str, ...]
) -> str:
    given = [
        after if text == word else text.removeprefix(f"{word}=")
        for text, after in zip_longest(typed, typed[1:], fillvalue="")
        if text == word or text.startswith(f"{word}=")
    ]
    found = given[::-1]  # as in what is parsed, the last one counts
    found += [environ.get(PREFIX + word[2:].upper(), ""), filed.get(word[2:], "")]
    return next((text for text in found if text in choices), choices[0])
