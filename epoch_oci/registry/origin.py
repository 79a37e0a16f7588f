"""Origins: what credentials are bound to, and where requests may be led (reliability C1 to C5)."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from epoch_oci.errors import PolicyError
from epoch_oci.network import address_of, is_loopback

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
    """Whether a host is an address that only this machine or its neighbours can mean."""
    address = address_of(host)
    return is_loopback(host) or (address is not None and not address.is_global)


def check_hop(here: Origin, there: Origin) -> None:
    """Raise PolicyError for a hop that gives up encryption, or leads from a public host to a private one."""
    if here.scheme == "https" and there.scheme == "http":
        raise PolicyError(f"{here} leads to {there}, which is not encrypted", object=str(there))
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
    if len(labels) < 2 or (len(labels) == 2 and (len(labels[1]) == 2 and len(labels[0]) <= 3)):
        return False
    return ".".join(labels) not in _SHARED_SUFFIXES


_SHARED_SUFFIXES = frozenset(
    {"amazonaws.com", "azurecr.io", "azurewebsites.net", "cloudfront.net", "fly.dev", "github.io", "gitlab.io"}
    | {"herokuapp.com", "netlify.app", "onrender.com", "pages.dev", "run.app", "vercel.app", "web.app", "workers.dev"}
)
