"""Docker's credential helpers: programs called `docker-credential-SUFFIX` that keep secrets elsewhere."""

import contextlib
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from epoch_oci.errors import AccessError, ContentError, UsageError
from epoch_oci.oci.digest import shown

_SUFFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\Z")
_SECONDS = 30.0
_LIMIT = 64 << 10
_ABSENT = ("credentials not found", "no credentials", "not found in")


def get(suffix: str, server: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """User and secret that the helper has for `server`, None for none. Raises ContentError, AccessError naming it."""
    status, said = _run(suffix, "get", server.encode(), environ)
    if status != 0:
        if any(word in said.lower() for word in _ABSENT):
            return None
        raise AccessError(
            f"docker-credential-{suffix} failed with status {status}",
            object=suffix,
            hint=_look_at(suffix),
        )
    try:
        answer = {name.lower(): value for name, value in json.loads(said.removeprefix("\ufeff")).items()}
        username, secret = answer["username"], answer["secret"]  # in any letter case, as Go's readers take them
    except (ValueError, KeyError, AttributeError, RecursionError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise ContentError(
            f"docker-credential-{suffix} gave no credentials", code="JSON", object=suffix, hint=_look_at(suffix)
        )
    return username, secret


def store(suffix: str, server: str, username: str, secret: str, environ: Mapping[str, str]) -> None:
    """Have the helper keep a credential. Raises AccessError, and UsageError for what its language has no words for."""
    try:
        f"{username}{secret}".encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"docker-credential-{suffix} takes text, and the user or password is not UTF-8",
            object=suffix,
            hint="name a file that uses no helper with --registry-config",
        ) from None
    document = json.dumps({"ServerURL": server, "Username": username, "Secret": secret}).encode()
    status, _ = _run(suffix, "store", document, environ)
    if status != 0:
        raise AccessError(f"docker-credential-{suffix} did not keep the credentials", object=suffix)


def erase(suffix: str, server: str, environ: Mapping[str, str]) -> None:
    """Have the helper forget a credential. Raises AccessError when it does not."""
    status, _ = _run(suffix, "erase", server.encode(), environ)
    if status != 0:
        raise AccessError(f"docker-credential-{suffix} did not forget the credentials", object=suffix)


def _look_at(suffix: str) -> str:
    return f"see what `docker-credential-{suffix} list` says, or give --username and --password-stdin"


def _run(suffix: str, verb: str, text: bytes, environ: Mapping[str, str]) -> tuple[int, str]:
    """Run a helper; secrets go through its standard input only."""
    program = _find(suffix, environ.get("PATH", os.defpath))
    try:
        process = subprocess.Popen(  # noqa: S603 (an absolute path, found by a checked name)
            [program, verb],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
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
            raise ContentError(
                f"docker-credential-{suffix} says too much", code="SIZE", object=suffix, hint=_look_at(suffix)
            ) from None
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
        raise ContentError(
            f"{shown(suffix)} cannot name a credential helper",
            code="NAME",
            object=suffix,
            hint="mend the file of accounts, or name another one with --registry-config",
        )
    name = f"docker-credential-{suffix}"
    for folder in search_path.split(":"):
        program = Path(folder) / name
        if Path(folder).is_absolute() and program.is_file() and os.access(program, os.X_OK):
            return str(program)
    raise AccessError(
        f"{name}, which the file of accounts names, is not on the search path",
        object=suffix,
        hint="install it, or name another file with --registry-config",
    )
