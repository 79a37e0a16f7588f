"""How a registry is reached: encrypted or not, through a proxy or not."""

import ipaddress
import socket
import ssl
from collections.abc import Mapping

from epoch_oci.registry.origin import is_loopback

_PROBE_SECONDS = 3.0


def speaks_tls(registry: str) -> bool:
    """Whether to use https without having been told: always, but on a literal loopback host only if it answers so."""
    host, port = _divided(registry)
    if not is_loopback(host):
        return True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; the real connection verifies
    try:
        with socket.create_connection((host, port or 443), _PROBE_SECONDS) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    except OSError:
        return port is None
    return True


def proxies(registry: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The proxies of the environment for requests to `registry`; none for this machine and the hosts of `NO_PROXY`."""
    host, _ = _divided(registry)
    if is_loopback(host) or _is_excepted(host, _either(environ, "no_proxy") or ""):
        return {}
    found = {"http": _either(environ, "http_proxy"), "https": _either(environ, "https_proxy")}
    everything = _either(environ, "all_proxy")
    return {scheme: url for scheme, url in ((name, value or everything) for name, value in found.items()) if url}


def _either(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name) or environ.get(name.upper()) or None


def _is_excepted(host: str, exceptions: str) -> bool:
    for item in exceptions.split(","):
        name = item.strip().lower().lstrip(".")
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
        try:
            if name and ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False):
                return True
        except ValueError:
            continue
    return False


def _divided(registry: str) -> tuple[str, int | None]:
    host, colon, port = registry.rpartition(":")
    if not colon or not port.isdigit():
        return registry.strip("[]").lower(), None
    return host.strip("[]").lower(), int(port)
