"""How a bucket is reached: Epoch's own settings, the clouds' variables, and what `obstore` is told from them.

Epoch reads `EPOCH_S3_*` and a file beside them (epoch-formats 2.2). Nothing here reads the environment: it is handed
in. `obstore` looks into the environment of the process by itself for what it is not told, so for Epoch's own store
everything that decides where requests go and who they are from is set.
"""

import configparser
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import LocalIOError, UsageError
from epoch_oci.oci.digest import shown

DEFAULT_PREFIX = "epoch/"
_EPOCH_HOME = "/root"
"""Where Epoch looks for the file when it finds no home directory."""
# What is named by a variable may be anything, a device too.
_FILE_LIMIT = 1 << 20
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_EPOCH_NAMES = ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "BUCKET", "REGION", "SECURE")
_AWS_SOURCES = frozenset(
    {"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"}
    | {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}
)
"""Each says where credentials come from; AWS's files are not looked into then."""
_AWS = frozenset(
    {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    | {"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_METADATA_ENDPOINT"}
    | {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}
    | {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_IMDSV1_FALLBACK", "AWS_REQUEST_PAYER", "AWS_S3_EXPRESS"}
    | {"AWS_SERVER_SIDE_ENCRYPTION", "AWS_SSE_KMS_KEY_ID", "AWS_SSE_BUCKET_KEY_ENABLED"}
)
_GOOGLE = frozenset(
    {"GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY"}
    | {"GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_BEARER_TOKEN", "GOOGLE_SKIP_SIGNATURE"}
)
_GOOGLE_FILE = Path(".config", "gcloud", "application_default_credentials.json")
_AZURE = frozenset(
    {"AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"}
    | {"AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN", "AZURE_CREDENTIAL_TYPE"}
    | {"AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"}
    | {"AZURE_STORAGE_TENANT_ID", "AZURE_TENANT_ID", "AZURE_STORAGE_AUTHORITY_ID", "AZURE_AUTHORITY_ID"}
    | {"AZURE_STORAGE_AUTHORITY_HOST", "AZURE_AUTHORITY_HOST", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_OBJECT_ID"}
    | {"AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT", "AZURE_USE_AZURE_CLI", "AZURE_SKIP_SIGNATURE"}
    | {"AZURE_STORAGE_USE_EMULATOR"}
)
_AMAZON_HOST = re.compile(r"https?://s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-[0-9])\.amazonaws\.com(?:\.cn)?\Z")
_DEFAULT_REGION = "us-east-1"

Config = dict[str, str | bool]


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
        values = {name: environ.get(f"EPOCH_S3_{name}", "") for name in _EPOCH_NAMES}
        # These three are what Epoch itself asks for before it opens the file (epoch-formats 2.2).
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


def epoch_s3(settings: EpochSettings) -> Config:
    """Epoch's store: path-style requests, signed with static keys, never with what AWS's variables say.

    The keys themselves go through a provider (`static_keys`), for a stray AWS_SESSION_TOKEN must not join them.
    """
    # Signed for another region than its own Amazon refuses it, and the host says which one that is.
    found = _AMAZON_HOST.match(settings.endpoint)
    region = settings.region or (found[1] if found else _DEFAULT_REGION)
    return {**_s3_place(settings.endpoint, region), "skip_signature": False, "virtual_hosted_style_request": False}


def amazon_s3(environ: Mapping[str, str]) -> Config:
    """S3 with AWS's variables, else the keys in AWS's files. Raises UsageError, LocalIOError for a damaged file."""
    config: Config = _picked(environ, _AWS)
    # Keys of the file beside a role of the environment would be neither's, and signed by both.
    kept = {} if any(environ.get(name) for name in _AWS_SOURCES) else _profile(environ)
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or kept.pop("region", "")
    config |= kept
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
    switches = {
        "skip_signature": _is_on(environ, "AWS_SKIP_SIGNATURE"),
        "virtual_hosted_style_request": _is_on(environ, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
    }
    return {**config, **_s3_place(endpoint, region or _DEFAULT_REGION), **switches}


def google(environ: Mapping[str, str]) -> Config:
    """Google Cloud Storage with Google's variables, else the credentials `gcloud` left in the home directory."""
    config: Config = _picked(environ, _GOOGLE)
    if endpoint := environ.get("GOOGLE_BASE_URL"):
        config["google_base_url"] = endpoint
    home = environ.get("HOME")
    if not config and home and (file := Path(home) / _GOOGLE_FILE).is_file():
        config["google_application_credentials"] = str(file)
    return config


def azure(environ: Mapping[str, str]) -> Config:
    """Azure with Azure's variables. Raises UsageError when they name no storage account."""
    config: Config = _picked(environ, _AZURE)
    if "azure_storage_account_name" not in config and not _is_on(environ, "AZURE_STORAGE_USE_EMULATOR"):
        raise UsageError(
            "no storage account is named",
            object="AZURE_STORAGE_ACCOUNT_NAME",
            hint="set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or another credential",
        )
    if endpoint := environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT"):
        config["azure_storage_endpoint"] = endpoint
    return config


def endpoint_of(config: Config) -> str:
    """The endpoint that a configuration names, "" for the cloud's own."""
    names = ("aws_endpoint_url_s3", "google_base_url", "azure_storage_endpoint")
    return next((str(config[name]) for name in names if config.get(name)), "")


def _s3_place(endpoint: str, region: str) -> Config:
    # Both spellings: the second would otherwise be read from the environment, and it wins.
    named: Config = {"aws_endpoint_url": endpoint, "aws_endpoint_url_s3": endpoint} if endpoint else {}
    return {**named, "aws_region": region, "aws_disable_bulk_delete": True}


def _picked(environ: Mapping[str, str], names: frozenset[str]) -> Config:
    return {name.lower(): environ[name] for name in sorted(names) if environ.get(name)}


def _is_on(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() in ("1", "true", "yes", "on", "y")


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """Static keys and the region of a profile in AWS's files. Raises UsageError for a named one without keys."""
    home = Path(environ.get("HOME") or "/", ".aws")
    named = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or ""
    section = f"profile {named}" if named and named != "default" else "default"
    found = _section(environ.get("AWS_CONFIG_FILE") or home / "config", section)
    found |= _section(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials", named or "default")
    if named and not found.get("aws_access_key_id"):
        raise UsageError(
            f"the profile {shown(named)} holds no access key",
            object="AWS_PROFILE",
            hint="roles and single sign-on are not read here; `aws configure export-credentials --format env` helps",
        )
    wanted = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region")
    return {name: found[name] for name in wanted if found.get(name)}


def _section(path: str | Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, default_section="")
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            parser.read_file(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise LocalIOError(f"{path} cannot be read ({type(error).__name__})", object=str(path)) from None
    return dict(parser.items(name)) if parser.has_section(name) else {}


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
    return Path(named) if named else Path(environ.get("HOME", "") or _EPOCH_HOME, ".config", "epoch", "s3.env")


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
