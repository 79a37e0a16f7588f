"""How Epoch is told where its bucket is: `EPOCH_S3_*` and the file beside them (epoch-formats 2.2)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from epoch_oci.errors import LocalIOError, UsageError
from epoch_oci.oci.digest import shown

DEFAULT_PREFIX = "epoch/"
_HOME = "/root"
"""Where Epoch looks for the file when it finds no home directory."""
_FILE_LIMIT = 1 << 20
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSettings:
    """What the variables and the file say together; "" where they say nothing. The secret never shows in `repr`.

    `endpoint` is a URL of scheme, host and port.
    """

    endpoint: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    bucket: str = ""
    region: str = ""
    prefix: str = DEFAULT_PREFIX

    @classmethod
    def from_mapping(cls, environ: Mapping[str, str]) -> Self:
        """Read them as Epoch does. Raises UsageError for a wrong endpoint or switch, LocalIOError for the file.

        The file is looked into only where endpoint, access key or bucket is missing from `environ`, and what stands
        there comes second. Its prefix counts for nothing, because Epoch has settled the prefix before it reads on.
        """
        values = {name: environ.get(f"EPOCH_S3_{name}", "") for name in _NAMES}
        if not (values["ENDPOINT"] and values["ACCESS_KEY"] and values["BUCKET"]):
            kept = _read(_file(environ))
            values = {name: text or kept.get(f"EPOCH_S3_{name}", "") for name, text in values.items()}
        return cls(
            endpoint=_endpoint(values["ENDPOINT"], values["SECURE"]),
            access_key=values["ACCESS_KEY"],
            secret_key=values["SECRET_KEY"],
            bucket=values["BUCKET"],
            region=values["REGION"],
            prefix=environ.get("EPOCH_S3_PREFIX", "") or DEFAULT_PREFIX,
        )

    @property
    def complete(self) -> bool:
        """Whether Epoch's own store is named. Raises UsageError when only half of it is, as Epoch would."""
        if bool(self.endpoint) == bool(self.access_key):
            return bool(self.endpoint)
        have, lack = ("ENDPOINT", "ACCESS_KEY") if self.endpoint else ("ACCESS_KEY", "ENDPOINT")
        raise UsageError(
            f"EPOCH_S3_{have} is set and EPOCH_S3_{lack} is not",
            object=f"EPOCH_S3_{lack}",
            hint="set both to reach Epoch's store, or neither to use the cloud's own credentials",
        )


_NAMES = ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "BUCKET", "REGION", "SECURE")


def _endpoint(text: str, secure: str) -> str:
    """The endpoint as a URL, "" for "". It is `HOST[:PORT]`, with TLS, or a URL of which only scheme and host count."""
    text = text.strip()
    if not text:
        return ""
    host, encrypted = text, True
    if "://" in text:
        parts = urlsplit(text)
        host, encrypted = parts.netloc.rpartition("@")[2], parts.scheme == "https"
    if _HOST.match(host) is None:
        raise UsageError(
            "EPOCH_S3_ENDPOINT names no host",
            object="EPOCH_S3_ENDPOINT",
            hint="write HOST[:PORT] or https://HOST[:PORT]",
        )
    if secure:
        encrypted = _switch(secure)
    return f"{'https' if encrypted else 'http'}://{host}"


def _switch(text: str) -> bool:
    """A truth value as Go's `strconv.ParseBool` reads it."""
    if text not in _TRUE | _FALSE:
        raise UsageError(
            f"EPOCH_S3_SECURE cannot be {shown(text)}", object="EPOCH_S3_SECURE", hint="it takes true or false"
        )
    return text in _TRUE


def _file(environ: Mapping[str, str]) -> Path:
    named = environ.get("EPOCH_S3_ENV_FILE", "")
    return Path(named) if named else Path(environ.get("HOME", "") or _HOME, ".config", "epoch", "s3.env")


def _read(path: Path) -> dict[str, str]:
    """The file's `KEY=VALUE` lines, the last one counts; {} where there is no file. No quotes, no escapes."""
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise LocalIOError(f"{path}: {reason}", object=str(path), hint="look at its owner and mode") from error
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "surrogateescape").split("\n"):
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            found[name.strip()] = value.strip()
    return found
