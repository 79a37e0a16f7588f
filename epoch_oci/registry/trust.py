"""Whom to trust: where requests and credentials may go, and by which certificates TLS is believed.

Origins are what credentials are bound to (reliability C1 to C5).
"""

import contextlib
import ipaddress
import os
import re
import socket
import ssl
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import LocalIOError, PolicyError
from epoch_oci.network import Authorities, address_of, divided, is_loopback

# Origins

_PORTS = {"http": 80, "https": 443}
_SHOWN_QUERY = frozenset({"service", "scope", "n", "last", "from", "mount", "digest", "account", "client_id"})


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The origin of an absolute URL. Raises PolicyError for one that is not http or https, or carries a user."""
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
        except ValueError:  # a port that is no number, a bracket that is not closed
            scheme, host, port = "", None, None
        if scheme not in _PORTS or not host or "@" in parts.netloc:
            raise PolicyError(f"{redacted(url)} is no URL that a registry may name", object=redacted(url))
        return cls(scheme, host.lower(), port or _PORTS[scheme])

    @property
    def address(self) -> str:
        """`HOST:PORT`, the port left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


def is_private(host: str) -> bool:
    """Whether a host is an address that only this machine or its neighbours can mean, however it is written."""
    # As it is connected to: by IDNA full-width digits are digits, and a name is complete with its last dot or without.
    name = unicodedata.normalize("NFKC", host).lower().rstrip(".")
    if is_loopback(name) or name.endswith(".localhost"):  # all of them are this machine (RFC 6761 6.3)
        return True
    address = address_of(name) or _short_form(name)
    return address is not None and not all(each.is_global for each in (address, *_carried(address)))


def _short_form(name: str) -> ipaddress.IPv4Address | None:
    """The address of `127.1`, `2130706433` or `0x7f.0.0.1`, as whoever connects reads them."""
    # Spaces: inet_aton reads no further than to the first.
    if " " in name:
        return None
    with contextlib.suppress(OSError, UnicodeError):
        return ipaddress.IPv4Address(socket.inet_aton(name))
    return None


def _carried(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The addresses of IPv4 that a gateway makes of one of IPv6: NAT64 (RFC 6052 2.1), 6to4 (RFC 3056 2)."""
    if not isinstance(address, ipaddress.IPv6Address):
        return ()
    found = [address.sixtofour] if address.sixtofour else []
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(found)


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def check_hop(here: Origin, there: Origin) -> None:
    """Raise PolicyError for a hop that gives up encryption, or leads from a public host to a private one."""
    if here.scheme == "https" and there.scheme == "http":
        raise PolicyError(f"{here} leads to {there}, which is not encrypted", object=str(there))
    # A registry outside may not have us ask services inside, as those of clouds that hand out credentials.
    if is_private(there.host) and not is_private(here.host) and there.host != here.host:
        raise PolicyError(f"{here} leads to {there}, an address inside this network", object=str(there))


def realm_fits(registry: Origin, realm: Origin) -> bool:
    """Whether a token service may see the registry's credentials.

    A registry that is reached by https, and so is who it says, may name any by https: it could ask for the password
    itself. One that is not: its own host, a domain that it is below of, a sibling there, or this machine.
    """
    if registry.scheme == "https":
        return realm.scheme == "https"
    if realm.host == registry.host or is_loopback(realm.host):
        return True
    return _is_below(registry.host, realm.host) or _siblings(registry.host, realm.host)


def joined(base: str, reference: str) -> str:
    """The absolute URL that a header of `base` means, letter by letter where it is one already. Raises PolicyError."""
    sent = reference.partition("#")[0]
    try:
        return sent if urlsplit(sent).scheme else urljoin(base, sent)
    except ValueError:
        raise PolicyError(f"{redacted(base)} names an address that cannot be read", object=redacted(base)) from None


def redacted(url: str) -> str:
    """A URL fit to be shown: no user, and only those query values that are known to hold no secret."""
    try:
        parts = urlsplit("".join(char if char.isprintable() else "?" for char in url))
    except ValueError:
        return "what is no URL"
    netloc = parts.netloc.rpartition("@")[2]
    query = [
        (key, value if key in _SHOWN_QUERY else "…") for key, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe=":/,…"), ""))


def _is_below(host: str, domain: str) -> bool:
    return host.endswith(f".{domain}") and address_of(host) is None and _is_own_domain(domain.split("."))


def _siblings(one: str, other: str) -> bool:
    if address_of(one) is not None or address_of(other) is not None:
        return False
    parents = [host.split(".")[1:] if host.count(".") > 1 else host.split(".") for host in (one, other)]
    return parents[0] == parents[1] and _is_own_domain(parents[0])


def _is_own_domain(labels: list[str]) -> bool:
    """Whether labels make a domain somebody owns, rather than a suffix under which anybody can have a name."""
    # `co.uk`, `com.au`: without a list of suffixes, three letters at most before two are taken for one.
    if len(labels) < 2 or (len(labels) == 2 and (len(labels[1]) == 2 and len(labels[0]) <= 3)):
        return False
    return ".".join(labels) not in _SHARED_SUFFIXES


_SHARED_SUFFIXES = frozenset(
    {"amazonaws.com", "azurecr.io", "azurewebsites.net", "cloudfront.net", "fly.dev", "github.io", "gitlab.io"}
    | {"herokuapp.com", "netlify.app", "onrender.com", "pages.dev", "run.app", "vercel.app", "web.app", "workers.dev"}
)


# TLS

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",  # Alpine, BSD, macOS
)
_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")
_HASHED = r"[0-9a-f]{8}\.[0-9]+\Z"
_CERTIFICATE = "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
_LONGEST_BUNDLE = 64 << 20
_MOST_FILES = 4096
_KEPT = 8
"""Contexts: to make one takes 20 ms, and a run needs one or two."""

# On this very machine: whoever does not answer by then does not speak TLS.
_PROBE_SECONDS = 3.0

Warn = Callable[[str], None]


def speaks_tls(registry: str) -> bool:
    """Whether to use https without having been told: always, but on a literal loopback host only if it answers so."""
    host, port = divided(registry)
    if not is_loopback(host):
        return True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; the real connection verifies
    try:
        with socket.create_connection((host, port or 443), _PROBE_SECONDS) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLError as error:
        return port is None or "ALERT" in (error.reason or "")  # it refuses us in terms of TLS
    except OSError:
        return port is None
    return True


@dataclass(frozen=True, slots=True)
class Trust:
    """What TLS is set up with. `ca_file` adds to the authorities; `insecure` asks for none.

    `cert_file` with `key_file` (None: in the same file) is our own certificate.
    """

    authorities: Authorities
    ca_file: str | None = None
    insecure: bool = False
    cert_file: str | None = None
    key_file: str | None = None

    def check(self) -> None:
        """Raise LocalIOError for files that the user named and that are of no use."""
        if self.ca_file is not None:
            _load_named(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.ca_file)
        if self.cert_file is not None:
            _identify(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.cert_file, self.key_file)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file and directory that is named."""
        own = (self.ca_file, self.cert_file, self.key_file)
        return (*(path for _, path in self.authorities.named), *(path for path in own if path is not None))


def context_of(trust: Trust, warn: Warn, *, identified: bool) -> ssl.SSLContext:
    """The context for connections; with our own certificate when `identified`. Kept while its files are as they were.

    `warn` is told of what the environment names and cannot be read. Raises LocalIOError as `Trust.check`.
    """
    # By time and size of the files: a sync that runs for months is to see a certificate that was renewed.
    key = (trust, identified, *map(_stamp, trust.files))
    with _guard:
        if key not in _contexts:
            while len(_contexts) >= _KEPT:
                _contexts.pop(next(iter(_contexts)))
            _contexts[key] = _made(trust, warn, identified=identified)
        return _contexts[key]


_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
_guard = threading.Lock()


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 (as it is named)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _made(trust: Trust, warn: Warn, *, identified: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # whatever the system's policy still allows
    # As in Go, whatever is named is an authority, be it the server's own certificate or one in the middle of a chain.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _believe(context, trust, warn)
    if identified and trust.cert_file is not None:
        _identify(context, trust.cert_file, trust.key_file)
    return context


def _believe(context: ssl.SSLContext, trust: Trust, warn: Warn) -> None:
    for name, path in trust.authorities.named:
        found = _load_directory(context, path) if Path(path).is_dir() else _load_file(context, path)
        if not found and name != "SSL_CERT_DIR":  # a list, of which distributions name more than there are
            warn(f"{name}: no certificates can be read from {path}")
    if trust.authorities.system and not _load_system(context):
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        _load_file(context, DEFAULT_CA_BUNDLE_PATH)
    if trust.ca_file is not None:
        _load_named(context, trust.ca_file)


def _load_system(context: ssl.SSLContext) -> bool:
    built_in = ssl.get_default_verify_paths()
    files = (path for path in (built_in.openssl_cafile, *_BUNDLES) if Path(path).is_file())
    found = any(_load_file(context, path) for path in files)
    for path in {built_in.openssl_capath, *_DIRECTORIES}:
        if Path(path).is_dir():
            context.load_verify_locations(capath=path)  # looked up by name when needed
            found = found or any(re.match(_HASHED, file.name) for file in Path(path).iterdir())
    return found


def _load_directory(context: ssl.SSLContext, path: str) -> bool:
    """Every certificate in a directory, as Go reads it; OpenSSL knows those whose files are named by hash."""
    try:
        files = sorted(Path(path).iterdir())[:_MOST_FILES]
        context.load_verify_locations(capath=path)
    except OSError:
        return False
    plain = [_load_file(context, str(file)) for file in files if not re.match(_HASHED, file.name)]
    return any(plain) or len(plain) < len(files)


def _load_file(context: ssl.SSLContext, path: str) -> bool:
    """The certificates of a file; where one of them is broken, the others. Whether there was any."""
    try:
        context.load_verify_locations(cafile=path)
    except OSError:
        return _load_each(context, path)
    return True


def _load_each(context: ssl.SSLContext, path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LONGEST_BUNDLE).decode("ascii", "replace")
    except OSError:
        return False
    found = False
    for certificate in re.findall(_CERTIFICATE, text, re.DOTALL):
        with contextlib.suppress(ssl.SSLError, ValueError):
            context.load_verify_locations(cadata=certificate)
            found = True
    return found


def _load_named(context: ssl.SSLContext, path: str) -> None:
    if not (_load_directory(context, path) if Path(path).is_dir() else _load_file(context, path)):
        raise LocalIOError(f"{path}: no certificates can be read from it", object=path, hint="--ca-file takes PEM")


def _identify(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    asked: list[bool] = []

    # OpenSSL would ask at the terminal.
    def ask() -> str:
        asked.append(True)
        return ""

    try:
        context.load_cert_chain(cert_file, key_file, ask)
    except OSError as error:
        where = key_file or cert_file
        why = "the key is encrypted" if asked else "it is no key that goes with the certificate"
        if not isinstance(error, ssl.SSLError):
            why = (error.strerror or "it cannot be read").lower()
        raise LocalIOError(
            f"{where}: {why}",
            object=where,
            hint="name a certificate with --cert-file and its key, not encrypted, with --key-file, both PEM",
        ) from None
