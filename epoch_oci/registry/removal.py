"""Taking a tag or a manifest away (distribution-spec, "Deleting tags", "Deleting Manifests")."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from epoch_oci.errors import AccessError, EpochOciError, NetworkError, NotFoundError
from epoch_oci.oci.digest import Digest
from epoch_oci.registry.answers import body_text, dismiss
from epoch_oci.registry.auth import Scope
from epoch_oci.registry.client import RegistryClient
from epoch_oci.registry.refusals import codes_of
from epoch_oci.registry.retry import Attempts

_DELETE = "delete,pull,push"
_DONE = (200, 202, 204)
_ASKED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Removal:
    """Removes from one repository; `digest_of` and `tags` are the repository's own."""

    client: RegistryClient
    repository: str
    where: str
    digest_of: Callable[[str], Digest | None]
    tags: Callable[[], Iterator[str]]

    def of(self, name: str) -> None:
        """Remove a tag, or a manifest by its digest with every tag it has. Raises NotFoundError, AccessError."""
        if self._delete(name):
            return
        if ":" in name:
            raise self._unsupported()
        digest = self.digest_of(name)
        if digest is None:
            raise NotFoundError(f"{self.where}:{name} is not there", object=f"{self.where}:{name}")
        others = self._others(name, digest)
        if others:
            raise AccessError(
                f"{self.where}: the registry deletes manifests, not tags, and {', '.join(others)} would go with {name}",
                object=f"{self.where}:{name}",
                hint=f"remove them together: epoch-oci rm {self.where}@{digest}",
            )
        if not self._delete(str(digest)):
            raise self._unsupported()

    def _others(self, name: str, digest: Digest) -> list[str]:
        tags = [tag for tag in self.tags() if tag != name]
        with ThreadPoolExecutor(max_workers=_ASKED_AT_ONCE, thread_name_prefix="tags") as pool:
            found = pool.map(self.digest_of, tags)
            return [tag for tag, held in zip(tags, found, strict=True) if held == digest]

    def _delete(self, name: str) -> bool:
        """False when the registry does not do this kind of thing: distribution 2 has no deletion of tags."""
        url, what = self.client.url(f"{self.repository}/manifests/{name}"), f"removing {self.where}:{name}"
        attempts = Attempts(self.client.settings, what)
        sent = False
        while True:
            try:
                response = self.client.do_request(url, "DELETE", scope=Scope(self.repository, _DELETE))
                if response.status_code in _DONE:
                    dismiss(response)
                    return True
                if response.status_code in (400, 405, 501):
                    codes = codes_of(body_text(response))
                    if response.status_code != 400 or {"UNSUPPORTED", "DIGEST_INVALID"} & set(codes):
                        return False
                raise self.client.refusal(response, what)
            except NotFoundError:
                if sent:  # the answer to the first attempt was lost
                    return True
                raise
            except NetworkError as error:
                sent = True
                attempts.again(error)

    def _unsupported(self) -> EpochOciError:
        return AccessError(
            f"{self.where}: the registry does not delete",
            object=self.where,
            hint="its administrator can allow it (distribution: storage.delete.enabled); or it has its own way",
        )
