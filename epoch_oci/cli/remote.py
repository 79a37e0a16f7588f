"""Where a piece of a sync is done on another machine: how that machine reaches registries and buckets."""

from typing import TYPE_CHECKING

from epoch_oci.cli.settings import PASSWORD_VARIABLE, environment, settings, without_password

if TYPE_CHECKING:
    from epoch_oci.bulk.cluster import Reach
    from epoch_oci.locate import Connection


def connection_here(reach: "Reach") -> "Connection":
    """As `reach` says, with the credentials that this process's own environment has, EPOCH_OCI_PASSWORD among them."""
    from epoch_oci.locate import Connection

    environ = environment()
    own = settings({}, environ)
    return Connection(
        plain_http=reach.plain_http or own.plain_http,
        insecure=reach.insecure or own.insecure,
        ca_file=reach.ca_file or own.ca_file,
        cert_file=reach.cert_file or own.cert_file,
        key_file=reach.key_file if reach.cert_file else own.key_file,
        registry_config=reach.registry_config or own.registry_config,
        username=own.username,
        password=environ.get(PASSWORD_VARIABLE) if own.username else None,
        environ=without_password(environ),
        profile=reach.profile or own.profile,
        cache_directory=own.cache_directory,
        state_directory=own.state_directory,
        trusted_hosts=reach.trusted_hosts | frozenset(own.trust_host),
    )
