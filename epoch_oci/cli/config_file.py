"""The configuration file: found, judged, and read once for a command. What is typed, and variables, outweigh it.

It holds no secret, and nobody but its owner may write to it: it says whom to trust, and where content comes from.
"""

import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import LocalIOError, NotFoundError, PolicyError, UsageError
from epoch_oci.redaction import user_info

VARIABLE = "EPOCH_OCI_CONFIG"
SCHEMA = "cli/config-file.v1"
DEFAULT_KEYS = (
    "format",
    "progress",
    "verbose",
    "ca-file",
    "registry-config",
    "retry-for",
    "store",
    "dialect",
    "part-size",
    "chunked",
    "level",
    "zstd",
    "chunk-size",
    "jobs",
    "limit-rate",
    "cache",
)
"""Flags that may have another default. Not those that allow something, or change what is there: these are typed."""
HOST_KEYS = (
    "profile",
    "ca-file",
    "cert-file",
    "key-file",
    "plain-http",
    "trust-host",
    "mirrors",
    "jobs",
    "limit-rate",
)
_TYPED_ONLY = frozenset({"force", "allow-public", "allow-loss", "insecure", "yes", "delete", "dry-run"})
PATHS = frozenset({"ca-file", "cert-file", "key-file", "registry-config", "cache"})
# A command has one number of transfers and one rate, however many registries it names.
_SHARED = ("jobs", "limit-rate")
_TABLES = ("defaults", "hosts")
_SECRET = ("password", "passwd", "secret", "token", "credential", "apikey", "api-key", "access-key", "auth")
_LIMIT = 256 << 10
_MOST_DOTS = 128
"""On a line. Every part of a dotted key costs the parser as much as all those before it."""
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""What is no file is found out after it was opened; a FIFO would wait for a writer."""

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """What the file says; all of it is empty where there is none. `lines` tells where each key stands, from 1."""

    path: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lines: Mapping[Keys, int] = field(default_factory=dict, repr=False)

    def place(self, *keys: str) -> str:
        """FILE:LINE of a key; without the line where it cannot be told."""
        line = next((self.lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in self.lines), None)
        if line is None:  # a table that only has tables
            line = min((at for found, at in self.lines.items() if found[: len(keys)] == keys), default=None)
        return f"{self.path}:{line}" if line is not None else str(self.path)

    def for_words(self, words: Sequence[object]) -> "Defaults":
        """The defaults of a command that names `words`; of several registries the least of what each may be asked."""
        named = dict.fromkeys(_host_of(word) for word in words if isinstance(word, str))
        rows = [host for host in named if host in self.hosts]
        found = {key: (item, self.place("defaults", key)) for key, item in self.defaults.items()}
        for key in _SHARED:
            bids = [(self.hosts[host][key], self.place("hosts", host, key)) for host in rows if key in self.hosts[host]]
            if bids:
                found[key] = min(bids, key=lambda bid: _magnitude(key, bid[0]))
        return found


Defaults = Mapping[str, tuple[Any, str]]
"""By key: what the file says, and where."""
NO_FILE = ConfigFile()


def _host_of(word: str) -> str:
    for scheme in ("docker://", "oci://", "https://", "http://"):
        word = word.removeprefix(scheme)
    return word.partition("/")[0].lower()


def _magnitude(key: str, value: Any) -> int:
    if key == "limit-rate":
        from epoch_oci.cli.arguments import rate

        return rate(str(value))
    return int(value)


def path_in(environ: Mapping[str, str]) -> str | None:
    """Where the file is, if there is one: as the variable says, else in the user's configuration."""
    if named := environ.get(VARIABLE):
        return named
    base = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else None)
    return f"{base}/epoch-oci/config.toml" if base else None


def load(environ: Mapping[str, str]) -> ConfigFile:
    """Read it. Raises UsageError for what is wrong in it, PolicyError where others may write it, NotFoundError."""
    path = path_in(environ)
    # How one says that there shall be none: an empty variable is as good as none, and leads to the user's own file.
    if path is None or path == os.devnull:
        return NO_FILE
    raw = _read(path, is_named=bool(environ.get(VARIABLE)))
    return _parsed(path, raw, environ.get("HOME", "")) if raw is not None else NO_FILE


def _read(path: str, *, is_named: bool) -> bytes | None:
    try:
        with os.fdopen(os.open(path, _OPEN), "rb") as file:
            # What was opened is judged, and not what has its name by now.
            _judge(path, os.fstat(file.fileno()))
            raw = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        if is_named:
            raise NotFoundError(f"{VARIABLE}: there is no file {path}", object=path, hint="unset it") from None
        return None
    except IsADirectoryError:
        raise UsageError(f"the configuration file {path} is a directory", object=path, hint="name a file") from None
    except OSError as error:
        raise LocalIOError(f"{path}: {(error.strerror or str(error)).lower()}", object=path) from error
    if len(raw) > _LIMIT:
        raise UsageError(f"{path} is too large for a configuration file", object=path, hint="256 KiB is the most")
    return raw


def _judge(path: str, found: os.stat_result) -> None:
    """Raise PolicyError where somebody else could have written it: it would be speaking for its owner."""
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"the configuration file {path} is no regular file", object=path, hint="name a file")
    # Root needs no file to mislead anybody (SECURITY.md, What does not), and sets up what all users share.
    if found.st_uid not in (os.geteuid(), 0):
        raise PolicyError(
            f"the configuration file {path} belongs to somebody else",
            object=path,
            hint=f"copy it and name the copy in {VARIABLE}, if you mean what it says",
        )
    if found.st_mode & 0o022:
        raise PolicyError(
            f"others may write to the configuration file {path}",
            object=path,
            hint=f"see what is in it, then chmod go-w {path}",
        )


def _parsed(path: str, raw: bytes, home: str) -> ConfigFile:
    import tomllib

    try:
        text = raw.decode("utf-8")
        _refuse_long_keys(path, text)
        value = tomllib.loads(text)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8", object=path, hint="write it in TOML") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is no TOMLDecodeError
        raise UsageError(f"{path} is no TOML: {_plain(error)}", object=path, hint="see docs/cli.md") from None
    file = ConfigFile(path=path, lines=dict(_lines(text)))
    # First of the three: the others repeat what they refuse.
    _refuse_secrets(file, value)
    _refuse_unknown(file, value)
    _hold_to_schema(file, value)
    # Names of hosts know no case, and keys of TOML do.
    hosts = {host.lower(): _at_home(row, home) for host, row in value.get("hosts", {}).items()}
    lines = {
        (keys[0], keys[1].lower(), *keys[2:]) if len(keys) > 1 else keys: line for keys, line in file.lines.items()
    }
    return replace(file, defaults=_at_home(value.get("defaults", {}), home), hosts=hosts, lines=lines)


def _refuse_long_keys(path: str, text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS and not line.lstrip().startswith("#"):
            raise UsageError(
                f"{path}:{number}: there are more than {_MOST_DOTS} dots on this line",
                object=path,
                hint="a list may be written over several lines",
            )


def _plain(error: Exception) -> str:
    """What the parser says, but for what it quotes: that may be a secret."""
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    text = str(error)
    if "(at line " in text:
        return f"it is wrong at line {text.rpartition('line ')[2].partition(',')[0]}"
    return "it ends too early, or has a number that is too long"


def _at_home(row: Mapping[str, Any], home: str) -> dict[str, Any]:
    """`~` as a shell has it, for paths; `store` is left to who reads locations."""
    return {
        key: home + item[1:] if key in PATHS and home and str(item).startswith("~/") else item
        for key, item in row.items()
    }


def _lines(text: str) -> Iterator[tuple[Keys, int]]:
    """Keys and where they stand. A line inside of a text of several lines may be taken for one; it harms no more."""
    import tomllib

    table: Keys = ()
    for number, line in enumerate(text.splitlines(), 1):
        # tomllib keeps no lines, so each line is read by itself, with a value that always parses in place of its own.
        head, _, _ = line.partition("=")
        is_table = line.lstrip().startswith("[")
        try:
            found = tomllib.loads(line if is_table else f"{head}=0")
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        keys = _only_path(found)
        if is_table:
            table = keys
        if keys:
            yield (keys if is_table else (*table, *keys)), number


def _only_path(value: Any) -> Keys:
    keys: Keys = ()
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        keys += (key,)
    return keys


def _settings(value: Mapping[str, Any]) -> Iterator[tuple[Keys, Keys]]:
    """Every key with what it may be one of. Names of hosts are none: they may be anything."""
    for table, rows in value.items():
        yield (table,), _TABLES
        if table == "defaults" and isinstance(rows, dict):
            yield from (((table, key), DEFAULT_KEYS) for key in rows)
        if table == "hosts" and isinstance(rows, dict):
            for host, row in rows.items():
                yield from (((table, host, key), HOST_KEYS) for key in (row if isinstance(row, dict) else ()))


def _refuse_secrets(file: ConfigFile, value: Mapping[str, Any]) -> None:
    for keys, known in _settings(value):
        name = keys[-1].lower().replace("_", "-")
        if keys[-1] not in known and any(word in name for word in _SECRET):
            raise UsageError(
                f"{file.place(*keys)}: {keys[-1]} looks like a secret, which has no place in this file",
                object=file.path,
                hint="keep it with `epoch-oci login`, or in EPOCH_OCI_PASSWORD",
            )
    for keys, text in _texts(value):
        if user_info(text):
            raise UsageError(
                f"{file.place(*keys)}: {keys[-1]}: there is no place for a user and a password in this file",
                object=file.path,
                hint="leave out what stands before the @, and keep it with `epoch-oci login`",
            )


def _texts(value: Mapping[str, Any]) -> Iterator[tuple[Keys, str]]:
    """Every text that may be a location, with the key under which it stands; for the name of a host its table."""
    tables: dict[Keys, Any] = {("defaults",): value.get("defaults")}
    hosts = value.get("hosts")
    for host, row in hosts.items() if isinstance(hosts, dict) else ():
        yield ("hosts",), host
        tables["hosts", host] = row
    for table, row in tables.items():
        for key, item in row.items() if isinstance(row, dict) else ():
            yield from (((*table, key), text) for text in _listed(item) if isinstance(text, str))


def _listed(item: Any) -> list[Any]:
    return item if isinstance(item, list) else [item]


def _refuse_unknown(file: ConfigFile, value: Mapping[str, Any]) -> None:
    from difflib import get_close_matches

    from epoch_oci.oci.digest import shown

    for keys, known in _settings(value):
        if keys[-1] in known:
            continue
        where = f"[{keys[0]}]" if len(keys) > 1 else "the file"
        close = get_close_matches(keys[-1].lower().replace("_", "-"), known, n=1)
        if len(keys) == 1 and keys[0] in DEFAULT_KEYS:
            hint = f"write {keys[0]} below [defaults]"
        elif keys[0] == "hosts" and isinstance(value["hosts"][keys[1]][keys[2]], dict):
            hint = f'a host stands in quotes: [hosts."{keys[1]}.{keys[2]}"]'
        elif keys[0] == "hosts" and keys[-1] in DEFAULT_KEYS:
            hint = f"{keys[-1]} holds for all hosts: write it below [defaults]"
        elif keys[0] == "defaults" and keys[-1] in HOST_KEYS:
            hint = f'{keys[-1]} belongs to one host: write it below [hosts."HOST"]'
        elif (allows := keys[-1].replace("_", "-")) in _TYPED_ONLY:
            hint = f"what allows something is typed, or in EPOCH_OCI_{allows.replace('-', '_').upper()}"
        else:
            hint = f"did you mean {close[0]}?" if close else f"one of: {', '.join(known)}"
        raise UsageError(f"{file.place(*keys)}: {where} has no key {shown(keys[-1])}", object=file.path, hint=hint)


def _hold_to_schema(file: ConfigFile, value: Mapping[str, Any]) -> None:
    from epoch_oci import schemas

    plain = _as_json(value)
    if schemas.allows(plain, SCHEMA):
        return
    finding = schemas.findings(plain, SCHEMA)[0]
    about = [keys for keys, _ in _settings(value) if finding.path.startswith(schemas.json_path([*keys]))]
    keys = max(about, key=len, default=())
    raise UsageError(
        f"{file.place(*keys)}: {keys[-1] if keys else finding.path}: {finding.problem.rstrip('.')}",
        object=file.path,
        hint="a registry is HOST[:PORT], in quotes"
        if keys == ("hosts",)
        else "mend it; `epoch-oci schemas cli/config-file.v1` has all keys and what they take",
    )


def _as_json(value: Any) -> Any:
    """The same without dates and times, and numbers that are none: JSON has no word for them, and no key takes any."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return value
    return value if isinstance(value, str | bool | int) else None
