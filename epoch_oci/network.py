"""What the environment says about the network: proxies and authorities, as the users of Go's tools and of curl set it.

The environment is handed in.
"""

import fnmatch
import ipaddress
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import UsageError

_PORTS = {"http": 80, "https": 443}
_SOCKS = frozenset({"socks4", "socks4a", "socks5", "socks5h"})
_KINDS = _SOCKS | {"http", "https"}


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host literally is, one of IPv4 also in IPv6's clothes; None for a name."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, literally: `localhost` or a loopback address; names are not looked up."""
    if host.strip("[]").lower() == "localhost":
        return True
    address = address_of(host)
    return address is not None and address.is_loopback


def divided(registry: str) -> tuple[str, int | None]:
    """Host and port; an IPv6 address may stand without brackets where there is no port."""
    host, colon, port = registry.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.endswith("]")):
        return registry.strip("[]").lower(), None
    return host.strip("[]").lower(), int(port)


def proxy_name(proxy: str) -> str:
    """A proxy's URL without its user and password."""
    scheme, divider, rest = proxy.rpartition("://")
    return f"{scheme}{divider}{rest.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of the environment, and the hosts that are reached without (`NO_PROXY`)."""

    http: str = ""
    https: str = ""
    excepted: tuple[str, ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Those that `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` name, in lower case or in upper."""
        everything = _either(environ, "all_proxy")
        excepted = re.split(r"[\s,]+", _either(environ, "no_proxy").lower())
        return cls(
            _either(environ, "http_proxy") or everything,
            _either(environ, "https_proxy") or everything,
            tuple(filter(None, excepted)),
        )

    def choose(self, url: str) -> str | None:
        """The URL of the proxy that `url` is reached through, None for none; this machine never is.

        Raises UsageError for a proxy of a kind that is not known, or not installed.
        """
        proxy = self.https if url[:6].lower() == "https:" else self.http
        return _checked(proxy) if proxy and not self.excepts(url) else None

    @property
    def plainly_excepted(self) -> tuple[str, ...]:
        """The items of `NO_PROXY` that every program takes: no ports, no patterns."""
        plain = (item.rpartition("://")[2].replace("*.", ".", 1) for item in self.excepted)
        return tuple(item for item in plain if item == "*" or ("*" not in item and divided(item)[1] is None))

    def excepts(self, url: str) -> bool:
        """Whether a URL is reached without a proxy."""
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        port = parts.port or _PORTS.get(parts.scheme, 0)
        return is_loopback(host) or any(_matches(item, host, port) for item in self.excepted)


def _either(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _checked(proxy: str) -> str:
    """A proxy as it is named in the environment, with its scheme. Raises UsageError."""
    url = proxy if "://" in proxy else f"http://{proxy}"
    scheme, _, rest = url.partition("://")
    scheme = {"socks": "socks5h"}.get(scheme.lower(), scheme.lower())
    name = proxy_name(f"{scheme}://{rest}")
    try:
        is_url = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:
        is_url = False
    if scheme not in _KINDS or not is_url:
        raise UsageError(
            f"the proxy {name} is of no kind that is known",
            object=name,
            hint=f"set http_proxy, https_proxy or all_proxy to a URL with one of: {', '.join(sorted(_KINDS))}",
        )
    if scheme in _SOCKS and find_spec("socks") is None:
        raise UsageError(
            f"the proxy {name} speaks SOCKS, for which a library is not installed",
            object=name,
            hint="install it with `pip install 'epoch-oci[socks]'`, or take the host out with no_proxy",
        )
    return f"{scheme}://{rest}"


def _matches(item: str, host: str, port: int) -> bool:
    """Whether an item of `NO_PROXY` means a host: a domain and what is below, an address, a network, or a pattern."""
    item = item.rpartition("://")[2]
    if item == "*":
        return True
    try:
        if "/" in item:
            return ipaddress.ip_address(host) in ipaddress.ip_network(
                item.replace("[", "").replace("]", ""), strict=False
            )
        name, only = divided(item)
        if only is not None and only != port:
            return False
        if (address := address_of(host)) is not None:
            return address_of(name) == address
    except ValueError:
        return False
    name = name.removeprefix("*.").strip(".")
    if "*" in name:
        return fnmatch.fnmatchcase(host, name)
    return bool(name) and (host == name or host.endswith(f".{name}"))


@dataclass(frozen=True, slots=True)
class Authorities:
    """Where certificates of authorities lie. `system`: those of this machine count as well.

    `named` are files and directories that variables of the environment name, each with the variable.
    """

    named: tuple[tuple[str, str], ...] = ()
    system: bool = True

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """As OpenSSL and Go take `SSL_CERT_FILE` and `SSL_CERT_DIR`, both of which together replace the system's.

        What Python's and curl's users name in `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE` is added.
        """
        directories = [path for path in environ.get("SSL_CERT_DIR", "").split(":") if path]
        named = [("SSL_CERT_DIR", path) for path in directories]
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        named += [(name, environ[name]) for name in names if environ.get(name)]
        return cls(tuple(named), system=not (directories and environ.get("SSL_CERT_FILE")))

    @property
    def bundles(self) -> tuple[str, ...]:
        """The files among those that only Python's and curl's users name."""
        return tuple(path for name, path in self.named if not name.startswith("SSL_") and Path(path).is_file())
