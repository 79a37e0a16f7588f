"""``TlsKit``: a throw-away CA and the server certificates a client must accept or refuse.

``kit.ca_file`` is what a client trusts. ``kit.context("good")`` is for our own servers, ``kit.files("good")`` gives
certificate and key as PEM files for foreign ones. Variants: good, expired, not-yet-valid, wrong-host, foreign-ca,
old-tls (TLS 1.1 at most). ``kit.client_context()`` is a client that trusts the CA.
"""

import datetime
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path

import trustme

NAMES = ("localhost", "127.0.0.1", "::1", "registry.test", "storage.test", "proxy.test")
VARIANTS = ("good", "expired", "not-yet-valid", "wrong-host", "foreign-ca", "old-tls")
BAD = VARIANTS[1:]
DAY = datetime.timedelta(days=1)


@dataclass(slots=True, frozen=True)
class CertificateFiles:
    certificate: Path
    key: Path


class TlsKit:
    """Certificates below ``directory``, made when first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self._leaves: dict[str, trustme.LeafCert] = {}

    def leaf(self, variant: str = "good") -> trustme.LeafCert:
        if variant not in self._leaves:
            self._leaves[variant] = self._issue(variant)
        return self._leaves[variant]

    def _issue(self, variant: str) -> trustme.LeafCert:
        now = datetime.datetime.now(datetime.UTC)
        match variant:
            case "good" | "old-tls":
                return self.ca.issue_cert(*NAMES)
            case "expired":
                return self.ca.issue_cert(*NAMES, not_before=now - 30 * DAY, not_after=now - DAY)
            case "not-yet-valid":
                return self.ca.issue_cert(*NAMES, not_before=now + DAY, not_after=now + 30 * DAY)
            case "wrong-host":
                return self.ca.issue_cert("registry.invalid")
            case "foreign-ca":
                return trustme.CA().issue_cert(*NAMES)
        raise ValueError(variant)

    def context(self, variant: str = "good") -> ssl.SSLContext:
        """A server's context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.leaf(variant).configure_cert(context)
        if variant == "old-tls":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
        return context

    def files(self, variant: str = "good") -> CertificateFiles:
        """The chain and the key of a server, as PEM files."""
        files = CertificateFiles(self.directory / f"{variant}.crt", self.directory / f"{variant}.key")
        leaf = self.leaf(variant)
        files.key.touch(0o600)
        leaf.private_key_pem.write_to_path(files.key)
        files.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        return files

    def client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context
