"""TLS: whether it is spoken, whom to believe that they are who they say, and what to show them of us."""

import contextlib
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from epoch_oci.errors import LocalIOError
from epoch_oci.network import Authorities, divided, is_loopback

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",  # Alpine, BSD, macOS
)
_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+\Z")
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_LIMIT = 64 << 20
_MOST_FILES = 4096
_KEPT = 8
"""Contexts: to make one takes 20 ms, and a run needs one or two."""

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
    context.minimum_version = ssl.TLSVersion.TLSv1_2
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
            found = found or any(_HASHED.match(file.name) for file in Path(path).iterdir())
    return found


def _load_directory(context: ssl.SSLContext, path: str) -> bool:
    """Every certificate in a directory, as Go reads it; OpenSSL knows those whose files are named by hash."""
    try:
        files = sorted(Path(path).iterdir())[:_MOST_FILES]
        context.load_verify_locations(capath=path)
    except OSError:
        return False
    plain = [_load_file(context, str(file)) for file in files if not _HASHED.match(file.name)]
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
            text = file.read(_LIMIT).decode("ascii", "replace")
    except OSError:
        return False
    found = False
    for certificate in _CERTIFICATE.findall(text):
        with contextlib.suppress(ssl.SSLError, ValueError):
            context.load_verify_locations(cadata=certificate)
            found = True
    return found


def _load_named(context: ssl.SSLContext, path: str) -> None:
    if not (_load_directory(context, path) if Path(path).is_dir() else _load_file(context, path)):
        raise LocalIOError(f"{path}: no certificates can be read from it", object=path, hint="--ca-file takes PEM")


def _identify(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    asked: list[bool] = []

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
