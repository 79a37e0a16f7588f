"""`s3://`, `gs://` and `az://`: an Epoch store in a bucket.

    s3://BUCKET            under Epoch's own prefix: EPOCH_S3_PREFIX, else `epoch/`
    s3://BUCKET/PREFIX     under `PREFIX/`
    s3://BUCKET/.          at the root of the bucket
    s3://                  in the bucket that EPOCH_S3_BUCKET names

What stands behind the bucket's name is taken as it is written, nothing is percent-decoded.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import LocalIOError, PolicyError, UsageError
from epoch_oci.network import Authorities, Proxies, is_loopback, proxy_name
from epoch_oci.oci.digest import shown
from epoch_oci.stores.backends.object_errors import foreign_errors
from epoch_oci.stores.backends.object_store import ObjectStoreBackend
from epoch_oci.stores.backends.object_streams import Patience
from epoch_oci.stores.cloud_settings import Config, EpochSettings, amazon_s3, azure, endpoint_of, epoch_s3, google

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Credential

Opened = tuple["ObjectStore", "ObjectStore | None"]
"""A store, and the one that its lists are looked at by (see `Listing`)."""
# For a single request; what is longer than that is gone on with by the reader.
_RETRY_TIMEOUT = timedelta(minutes=2)
# As wide as any of the clouds has them; the store itself says which of its rules one breaks.
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,221}\Z")
_ROOT = "."
_LONGEST_BUNDLE = 64 << 20
_NEVER_PROXIED = "localhost,127.0.0.0/8,::1,169.254.0.0/16"
"""This machine, and the services that hand out its credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketOptions:
    """How object stores are reached. `environ` serves settings, credentials and proxies, and never shows in `repr`.

    `plain_http` and `insecure` hold for an endpoint that the settings name, never for the clouds' own.
    """

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    plain_http: bool = False
    insecure: bool = False
    ca_file: str | None = None
    user_agent: str = "epoch-oci"
    patience: Patience = field(default_factory=Patience)
    warn: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, slots=True)
class BucketName:
    """A bucket and the prefix of an Epoch store in it."""

    scheme: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, word: str, epoch: EpochSettings) -> "BucketName":
        """Read `SCHEME://[BUCKET[/PREFIX]]`. Raises UsageError."""
        scheme, _, rest = word.partition("://")
        bucket, _, prefix = rest.partition("/")
        bucket = bucket or (epoch.bucket if scheme == "s3" else "")
        if _BUCKET.match(bucket) is None:
            said = f"{scheme}://…" if "@" in rest else word  # what stands before an @ may be a secret
            raise UsageError(
                f"{shown(said)} names no bucket",
                object=said,
                hint=f"write {scheme}://BUCKET or {scheme}://BUCKET/PREFIX",
            )
        # `s3://BUCKET/` is the bucket and no prefix of one empty component.
        prefix = prefix.rstrip("/")
        if not prefix:
            return cls(scheme, bucket, _checked(epoch.prefix, "EPOCH_S3_PREFIX"))
        return cls(scheme, bucket, "" if prefix == _ROOT else _checked(prefix + "/", word))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}"


def open_bucket(word: str, options: BucketOptions) -> tuple[ObjectStoreBackend, str]:
    """The key space that `word` names, and how it is called. Nothing is asked yet.

    Raises UsageError for settings that cannot be, PolicyError for an endpoint without encryption, LocalIOError.
    """
    epoch = EpochSettings.from_mapping(options.environ)
    name = BucketName.parse(word, epoch)
    with foreign_errors(str(name)):
        store, first_page = _OPENERS[name.scheme](name, epoch, options)
    backend = ObjectStoreBackend(
        store, str(name), name.prefix, patience=options.patience, warn=options.warn, first_page=first_page
    )
    return backend, str(name)


def _checked(prefix: str, what: str) -> str:
    """A prefix that object names can begin with. Raises UsageError."""
    parts = prefix.removesuffix("/").split("/")
    # `obstore` reads object names as paths, and would ask for another one.
    if any(part in ("", ".", "..") for part in parts) or not prefix.isprintable():
        raise UsageError(
            f"the prefix {shown(prefix)} has an empty, . or .. component or a control character", object=what
        )
    return prefix


def _open_s3(name: BucketName, epoch: EpochSettings, options: BucketOptions) -> Opened:
    from obstore.store import S3Store

    # Epoch's settings all or none: half of one and half of the other would send a key to a stranger's endpoint.
    config = epoch_s3(epoch) if epoch.complete else amazon_s3(options.environ)
    more = _common(config, options)
    if epoch.complete:
        # As a provider: keys that are given as settings would be joined by an AWS_SESSION_TOKEN of the environment.
        more["credential_provider"] = lambda: static_keys(epoch)
    store = S3Store(name.bucket, config=_any(config), **more)
    listing = list_config(config, name.bucket, name.prefix)
    return store, None if listing is None else S3Store(name.bucket, config=_any(listing), **more)


def list_config(config: Config, bucket: str, prefix: str) -> Config | None:
    """Settings under which every object is the first page of a list, of one entry; None for Amazon's own endpoint.

    The name of the object ends up in a parameter that begins with `x-`, which S3 passes over by its own rules.
    """
    endpoint = endpoint_of(config).rstrip("/")
    if not endpoint:
        return None
    # The bucket is in the host's name already where requests are in that style.
    place = endpoint if config["virtual_hosted_style_request"] else f"{endpoint}/{bucket}"
    address = f"{place}?list-type=2&max-keys=1&prefix={quote(prefix, safe='')}&x-epoch-oci="
    named: Config = {"aws_endpoint_url": address, "aws_endpoint_url_s3": address}
    return {**config, **named, "virtual_hosted_style_request": True}


def static_keys(epoch: EpochSettings) -> "S3Credential":
    """Epoch's keys, and no session token."""
    return {
        "access_key_id": epoch.access_key,
        "secret_access_key": epoch.secret_key,
        "token": None,
        "expires_at": None,
    }


def _open_google(name: BucketName, epoch: EpochSettings, options: BucketOptions) -> Opened:
    from obstore.store import GCSStore

    config = google(options.environ)
    return GCSStore(name.bucket, config=_any(config), **_common(config, options)), None


def _open_azure(name: BucketName, epoch: EpochSettings, options: BucketOptions) -> Opened:
    from obstore.store import AzureStore

    config = azure(options.environ)
    return AzureStore(name.bucket, config=_any(config), **_common(config, options)), None


_OPENERS = {"s3": _open_s3, "gs": _open_google, "az": _open_azure}
SCHEMES = frozenset(_OPENERS)


def _any(config: Config) -> Any:
    """`obstore` types its settings by their short names, and takes the variables' names as well."""
    return config


def _common(config: Config, options: BucketOptions) -> dict[str, Any]:
    patience = options.patience
    retries: RetryConfig = {
        # The library counts what comes after the first attempt.
        "max_retries": patience.attempts - 1,
        "backoff": {
            "init_backoff": timedelta(seconds=patience.first),
            "max_backoff": timedelta(seconds=patience.longest),
            "base": 2,
        },
        "retry_timeout": _RETRY_TIMEOUT,
    }
    return {"client_options": client_options(endpoint_of(config), options), "retry_config": retries}


def client_options(endpoint: str, options: BucketOptions) -> "ClientConfig":
    """How connections are made. There is no limit on a whole request, for a blob takes what it takes; a stall has one.

    Raises PolicyError for plain http to another machine, LocalIOError for the authorities' file, UsageError for a proxy
    that cannot be.
    """
    found: ClientConfig = {
        "allow_http": _may_be_plain(endpoint, options.plain_http),
        # A limit on silence, and none on a whole request: the library's own of 30 s would end every large blob.
        "connect_timeout": "15s",
        "read_timeout": "5m",  # completing a large upload may take minutes
        "timeout": "30d",
        "default_content_type": "application/octet-stream",  # what Epoch stores everything as
        "user_agent": options.user_agent,
    }
    # Never for the clouds' own hosts, whose certificates are good or somebody is in between (reliability T3).
    if options.insecure and endpoint:
        found["allow_invalid_certificates"] = True
    if authorities := _authorities(options):
        found["root_certificate"] = authorities
    return {**found, **_proxy(endpoint, options.environ)}


def _may_be_plain(endpoint: str, plain_http: bool) -> bool:
    """Whether http may be spoken at all. Raises PolicyError where the endpoint needs it and it may not."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http":
        return False
    if plain_http or is_loopback(parts.hostname or ""):
        return True
    raise PolicyError(
        f"the object store's endpoint {parts.hostname} is not encrypted",
        object=parts.netloc.rpartition("@")[2],
        hint="use https (EPOCH_S3_SECURE=true), or allow it with --plain-http",
    )


def _authorities(options: BucketOptions) -> bytes:
    """The authorities that are added to the system's and to those of `SSL_CERT_FILE`, which `obstore` finds itself."""
    found = []
    for path in Authorities.of(options.environ).bundles:
        try:
            found.append(_certificates(path))
        except LocalIOError as error:
            options.warn(error.message)
    if options.ca_file is not None:
        found.append(_certificates(options.ca_file))
    return b"\n".join(found)


def _certificates(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_LONGEST_BUNDLE)
    except OSError as error:
        raise LocalIOError(f"{path}: {(error.strerror or 'cannot be read').lower()}", object=path) from error
    if b"-----BEGIN CERTIFICATE-----" not in raw:
        raise LocalIOError(f"{path}: no certificates can be read from it", object=path)
    return raw


def _proxy(endpoint: str, environ: Mapping[str, str]) -> "ClientConfig":
    """How requests are led through a proxy. Raises UsageError for one that `obstore` cannot speak to."""
    proxies = Proxies.of(environ)
    proxy = proxies.choose(_ELSEWHERE[endpoint.startswith("http://")])
    excepted = bool(endpoint) and proxies.excepts(endpoint)
    # An endpoint that is excepted never meets the proxy, so that its kind does not matter.
    if proxy is None or (excepted and proxy.startswith("socks")):
        return {}
    if proxy.startswith("socks"):
        raise UsageError(
            f"buckets are not reached through {proxy_name(proxy)}: only registries are, through SOCKS",
            object=proxy_name(proxy),
            hint="name an http proxy, or take the bucket's host out with no_proxy",
        )
    host = urlsplit(endpoint).hostname
    ours = (host,) if host and excepted else ()
    return {"proxy_url": proxy, "proxy_excludes": ",".join((_NEVER_PROXIED, *ours, *proxies.plainly_excepted))}


_ELSEWHERE = ("https://bucket.invalid", "http://bucket.invalid")
"""For what is not known by name yet; what is excepted `obstore` looks at host by host."""
