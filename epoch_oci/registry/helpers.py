"""Docker's credential helpers: programs called `docker-credential-SUFFIX` that keep secrets elsewhere."""

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.errors import AccessError, ContentError
from epoch_oci.oci.digest import shown

if TYPE_CHECKING:
    from epoch_oci.registry.credentials import Credential

_SUFFIX = re.compile(r"[a-z0-9_-]+\Z")
_SECONDS = 30.0
_LIMIT = 64 << 10
_ABSENT = ("credentials not found", "no credentials", "not found in")


def get(suffix: str, server: str, search_path: str) -> "Credential | None":
    """What the helper knows of `server`, None for nothing. Raises ContentError, AccessError naming the helper."""
    from epoch_oci.registry.credentials import Credential

    status, said = _run(suffix, "get", server.encode(), search_path)
    if status != 0:
        if any(word in said.lower() for word in _ABSENT):
            return None
        raise AccessError(f"docker-credential-{suffix} failed with status {status}", object=suffix)
    try:
        answer = json.loads(said)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise ContentError(f"docker-credential-{suffix} gave no credentials", code="JSON", object=suffix) from None
    if username == "<token>":
        return Credential(identity_token=secret)
    return Credential(username, secret) if secret else None


def store(suffix: str, server: str, username: str, secret: str, search_path: str) -> None:
    """Have the helper keep a credential. Raises AccessError."""
    document = json.dumps({"ServerURL": server, "Username": username, "Secret": secret}).encode()
    status, _ = _run(suffix, "store", document, search_path)
    if status != 0:
        raise AccessError(f"docker-credential-{suffix} did not keep the credentials", object=suffix)


def erase(suffix: str, server: str, search_path: str) -> None:
    """Have the helper forget a credential; one that it does not have is no error."""
    _run(suffix, "erase", server.encode(), search_path)


def _run(suffix: str, verb: str, text: bytes, search_path: str) -> tuple[int, str]:
    """Run a helper; secrets go through its standard input only."""
    program = _find(suffix, search_path)
    with subprocess.Popen(  # noqa: S603 (an absolute path, found by a checked name)
        [program, verb], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            said, _ = process.communicate(text, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AccessError(
                f"docker-credential-{suffix} did not answer within {_SECONDS:.0f} seconds", object=suffix
            ) from None
        return process.returncode, said[:_LIMIT].decode("utf-8", "replace")


def _find(suffix: str, search_path: str) -> str:
    """The helper's program, from absolute directories of the search path only."""
    if _SUFFIX.match(suffix) is None:
        raise ContentError(f"{shown(suffix)} cannot name a credential helper", code="NAME", object=suffix)
    name = f"docker-credential-{suffix}"
    for folder in search_path.split(":"):
        program = Path(folder) / name
        if Path(folder).is_absolute() and program.is_file():
            return str(program)
    raise AccessError(f"{name} is not on the search path", object=suffix, hint="install it, or take it out of the file")
