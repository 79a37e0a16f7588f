"""Docker's credential helpers: programs called `docker-credential-SUFFIX` that keep secrets elsewhere."""

import contextlib
import json
import os
import re
import select
import subprocess
import time
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
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise ContentError(f"docker-credential-{suffix} gave no credentials", code="JSON", object=suffix)
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
    try:
        process = subprocess.Popen(  # noqa: S603 (an absolute path, found by a checked name)
            [program, verb], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        reason = (error.strerror or "failed").lower()
        raise AccessError(f"docker-credential-{suffix} cannot be run: {reason}", object=suffix) from None
    with process:
        try:
            said = _converse(process, text, time.monotonic() + _SECONDS)
            process.wait(_SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise AccessError(
                f"docker-credential-{suffix} did not answer within {_SECONDS:.0f} seconds", object=suffix
            ) from None
        except OverflowError:
            raise ContentError(f"docker-credential-{suffix} says too much", code="SIZE", object=suffix) from None
        finally:
            process.kill()
        return process.returncode, said.decode("utf-8", "replace")


def _converse(process: "subprocess.Popen[bytes]", text: bytes, deadline: float) -> bytes:
    """Tell a helper `text` and hear it out. Raises TimeoutError, and OverflowError for more than the limit."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(text)
    said = bytearray()
    while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        block = os.read(process.stdout.fileno(), _LIMIT)
        if not block:
            return bytes(said)
        said += block
        if len(said) > _LIMIT:
            raise OverflowError
    raise TimeoutError


def _find(suffix: str, search_path: str) -> str:
    """The helper's program, from absolute directories of the search path only."""
    if _SUFFIX.match(suffix) is None:
        raise ContentError(f"{shown(suffix)} cannot name a credential helper", code="NAME", object=suffix)
    name = f"docker-credential-{suffix}"
    for folder in search_path.split(":"):
        program = Path(folder) / name
        if Path(folder).is_absolute() and program.is_file() and os.access(program, os.X_OK):
            return str(program)
    raise AccessError(f"{name} is not on the search path", object=suffix, hint="install it, or take it out of the file")
