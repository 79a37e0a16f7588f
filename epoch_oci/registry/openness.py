"""What somebody without credentials sees of a repository."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from epoch_oci.errors import EpochOciError, NetworkError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.auth_token import Challenge
from epoch_oci.registry.client import PULL, REDIRECTS, RegistryClient
from epoch_oci.stores.base import Openness

# A redirect to the storage is as good as the bytes; 416 comes of an empty blob.
_READ = frozenset({200, 206, 416}) | REDIRECTS
_EPOCH = "epoch"
"""The service that Epoch 0.1.6 and later names in its challenge: it lets everybody read, and asks only writers."""


class Onlooker:
    """Somebody who has no credentials and looks at the `repository` of `client`, which may have some."""

    def __init__(self, client: RegistryClient, repository: str) -> None:
        self._client = client
        self._repository = repository
        self._challenges: list[Challenge] = []
        self._nobody: RegistryClient | None = None
        self._pinged = False

    def openness(self, blob: Descriptor | None) -> Openness | None:
        """As `Remote.openness`; an open registry of this very machine is not open in that sense.

        It is one when nobody was asked for credentials, reading or writing, and none are kept or given for it either:
        behind a loopback address there may well be a tunnel to a registry that people have accounts at.
        """
        if not (self._reads(blob) if blob is not None else self._lists()):
            return None
        if self._client.auth.is_local and not self._asked() and not self._has_credentials():
            return None
        if self._is_epoch():
            return "epoch"
        return "repository" if self._stranger().auth.is_known() else "registry"

    def _lists(self) -> bool:
        """Whether the tags can be listed. Where there is no repository yet: whether that is told to anybody."""
        try:
            self._get("tags/list?n=1", (200,))
        except EpochOciError as error:
            if self._saw_nothing(error):
                raise
            if error.status in (None, 401, 403):
                return False
        else:
            return True
        # Some registries hide behind 404 what may not be read; they ask for credentials at their front door.
        return self._stranger().auth.is_known() or self._is_epoch() or not self._asked()

    def _reads(self, blob: Descriptor) -> bool:
        try:
            # A byte is proof: whoever gets one gets them all.
            self._get(f"blobs/{blob.digest}", _READ, {"Range": "bytes=0-0"})
        except EpochOciError as error:
            if self._saw_nothing(error):
                raise
            return False
        return True

    def _saw_nothing(self, error: EpochOciError) -> bool:
        """Whether an error leaves open what a stranger sees; a guard that did not see does not let pass.

        Whoever has no certificate where one is wanted may be told so, or may just find the connection closed.
        """
        if not isinstance(error, NetworkError):
            return False
        if error.status is None:
            return self._client.settings.cert_file is None
        return error.retryable

    def _get(self, path: str, expect: Sequence[int] | frozenset[int], headers: dict[str, str] | None = None) -> None:
        client = self._stranger()
        url = client.url(f"{self._repository}/{path}")
        scope = Scope(self._repository, PULL)
        client.call(
            "GET", url, expect, what=f"looking at {self._client.hostname}", scope=scope, headers=headers
        ).close()

    def _stranger(self) -> RegistryClient:
        if self._nobody is None:
            settings = self._client.settings
            # A stranger has no certificate. Where one is wanted the connection is closed again and again, and that is
            # no registry that is away: it is not waited for.
            if settings.cert_file is not None:
                settings = replace(settings, cert_file=None, key_file=None, retry_for=0.0, attempts=2)
            # A client of its own: what it learns must not touch ours, nor our tokens it.
            self._nobody = RegistryClient(str(self._client.hostname), settings)
            self._nobody.auth.anonymous = True
            self._nobody.auth.on_challenge = self._challenges.extend
        return self._nobody

    def _asked(self) -> bool:
        """Whether anybody was asked for credentials, if only at the registry's front door."""
        if not self._pinged and not self._challenges:
            self._pinged = True
            client = self._stranger()
            try:
                client.call("GET", client.url(""), (200,), what=f"looking at {client.hostname}").close()
            except EpochOciError as error:
                if self._saw_nothing(error):
                    raise
        return bool(self._challenges) or self._client.auth.is_known()

    def _is_epoch(self) -> bool:
        return self._asked() and any(item.parameters.get("service") == _EPOCH for item in self._challenges)

    def _has_credentials(self) -> bool:
        if self._client.settings.cert_file is not None:
            return True
        with suppress(EpochOciError):  # what cannot be looked up was not used either
            return self._client.auth.credential(self._repository) is not None
        return False
