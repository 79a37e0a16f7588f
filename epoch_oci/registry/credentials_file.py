"""One file of accounts, as Docker's `config.json` and containers' `auth.json` are: what it says, and how it is changed.

Members are found whatever the case of their letters, as Go's readers find them. What else is in a file stays as it is.
"""

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from epoch_oci.disk.draft import Draft, sweep
from epoch_oci.disk.local import local_errors, make_directories
from epoch_oci.disk.lock import locked
from epoch_oci.errors import ContentError, LocalIOError

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_LEGACY = ".dockercfg"
"""What a file is called that is nothing but its `auths`."""
_LIMIT = 4 << 20
"""Bytes. Files of accounts have hundreds; a variable may well name a disk image by mistake."""
_OTHERS = stat.S_IRWXO
_IN_PLACE = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY, errno.EXDEV, errno.EROFS})
"""A directory of somebody else, or a file that is mounted by itself, as containers have them: the file can be written,
and another one cannot take its place."""
_UNLOCKED = "{} is on a file system without locks: another login at this very moment may be lost"

Document = dict[str, Any]
Warn = Callable[[str], None]


def key_of(registry: str) -> str:
    """What the accounts of a registry are kept under."""
    return HUB if registry in _HUB_NAMES else registry


def parsed(raw: bytes, where: str) -> Document:
    """The members of a file; of an empty one, none. Raises ContentError naming `where`."""
    if not raw.strip():
        return {}
    try:
        # Bytes that are no UTF-8 survive a change of something else in the file.
        value = json.loads(raw.decode(json.detect_encoding(raw), "surrogateescape"))
    except (ValueError, RecursionError):
        raise _unreadable(where, "is not JSON") from None
    if not isinstance(value, dict | None):
        raise _unreadable(where, "is not a JSON object")
    return value or {}


def read(path: Path, warn: Warn) -> Document:
    """What a file holds; nothing when it is not there. Raises ContentError, LocalIOError.

    `warn` is told of a file of ours that others can read.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            raw = file.read(_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise LocalIOError(
            f"{path}: {reason}, so the credentials in it are not known",
            object=str(path),
            hint="look at its owner and mode, or name another file with --registry-config",
        ) from None
    document = parsed(raw, str(path))
    if path.name == _LEGACY:
        document = {"auths": document}
    # Of somebody else's file nobody here can change the mode, and a pipe has none that counts.
    exposed = stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IRGRP | stat.S_IROTH)
    if exposed and found.st_uid == os.geteuid() and any(_section(document, "auths").values()):
        warn(f"{path} holds credentials and can be read by others; make it private with chmod 600")
    return document


def member(document: Document, name: str) -> Any:
    """The value of a member: of its exact name, else of one that differs in case only; None when there is none."""
    return document.get(_spelling(document, name))


def entries(document: Document, registry: str, repository: str, *, namespaces_first: bool) -> Iterator[Document]:
    """The accounts for a repository, the best first: the exact key, then those that mean the same host.

    A key of `HOST/NAMESPACE` holds for what is below it, the longest first; in Docker's own file only after the host's.
    """
    auths = _section(document, "auths")
    hosts = sorted(
        (key for key in auths if _rank(key, registry) is not None), key=lambda key: _rank(key, registry) or 0
    )
    parts = repository.split("/") if repository else []
    names = ["/".join([registry, *parts[:count]]) for count in range(len(parts), 0, -1)]
    spaces = [key for key in names if key in auths]
    # Docker itself writes no namespaces (oci-registries 6.1), so in its file they are what somebody added by hand.
    for key in spaces + hosts if namespaces_first else hosts + spaces:
        if isinstance(auths[key], dict):
            yield auths[key]


def helpers_of(document: Document, registry: str) -> list[str]:
    """The helpers that hold a registry's credentials: its own, then that of all registries.

    An empty name of its own says that the file itself holds them.
    """
    named = _section(document, "credHelpers")
    keys = sorted((key for key in named if _rank(key, registry) is not None), key=lambda key: _rank(key, registry) or 0)
    found = [named[key] for key in keys[:1]]
    # As Docker takes it: so one registry is left out of the store of all.
    if found == [""]:
        return []
    found.append(member(document, "credsStore"))
    return [suffix for suffix in found if isinstance(suffix, str) and suffix]


def mentions(document: Document, registry: str) -> bool:
    """Whether there is an account of a registry, or a helper that may have one."""
    return bool(helpers_of(document, registry)) or any(_is_of(key, registry) for key in _section(document, "auths"))


def put_entry(document: Document, registry: str, entry: Document) -> bool:
    """Keep an account under the registry's key. Always True."""
    name = _spelling(document, "auths")
    document[name] = {**_section(document, "auths"), key_of(registry): entry}
    return True


def drop_entries(document: Document, registry: str) -> bool:
    """Take out every account of a registry, those of its namespaces too; whether there were any."""
    auths = _section(document, "auths")
    left = {key: entry for key, entry in auths.items() if not _is_of(key, registry)}
    if len(left) < len(auths):
        document[_spelling(document, "auths")] = left
    return len(left) < len(auths)


def change(path: Path, edit: Callable[[Document], bool], warn: Warn) -> bool:
    """Have `edit` change what a file holds, and write it when it says so; whether it did. A link is followed.

    Others that do the same wait. What killed ones have left behind is removed. Raises ContentError, LocalIOError.
    """
    # A link stays one, as those who keep their dot files elsewhere want it.
    target = Path(os.path.realpath(path))
    _make_parent(target.parent)
    with local_errors(str(target.parent)):
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with locked(directory, str(target.parent), lambda: warn(_UNLOCKED.format(target.parent))):
            # Under the lock, so that what is removed is nobody's who is still at it.
            sweep(directory)
            _sweep_old(target.name, directory)
            # Read only now: what another login has written meanwhile has to stay.
            document = read(target, lambda _: None)
            if not edit(document):
                return False
            _write(target, directory, document if target.name != _LEGACY else document["auths"])
            return True
    finally:
        os.close(directory)


def _sweep_old(name: str, directory: int) -> None:
    """Remove what version 0.1 left behind when it was killed, with a password in it."""
    old = re.compile(rf"\.{re.escape(name)}\.[0-9]+\.tmp\Z")
    with contextlib.suppress(OSError):
        for left in filter(old.match, os.listdir(directory)):
            os.unlink(left, dir_fd=directory)


def _section(document: Document, name: str) -> Document:
    found = member(document, name)
    return found if isinstance(found, dict) else {}


def _spelling(document: Document, name: str) -> str:
    if name in document:
        return name
    return next((key for key in document if key.lower() == name.lower()), name)


def _rank(key: str, registry: str) -> int | None:
    """How well a key means a registry's host, 0 best; None when it does not.

    Older tools have written URLs, with and without an API's path, and match on their host alone.
    """
    if key in (key_of(registry), registry):
        return 0 if key == key_of(registry) else 1
    scheme, divider, rest = key.rpartition("://")
    host, _, path = rest.partition("/")
    names = _HUB_NAMES if registry in _HUB_NAMES else {registry.lower()}
    if scheme.lower() not in ("", "http", "https") or host.lower() not in names:
        return None
    path = path.strip("/")
    if path not in ("", "v1", "v2"):
        return 6 if divider else None
    return (4 if divider else 2) + bool(path)


def _is_of(key: str, registry: str) -> bool:
    return _rank(key, registry) is not None or key.startswith(f"{registry}/")


def _unreadable(where: str, why: str) -> ContentError:
    return ContentError(
        f"{where} {why}, so the credentials in it are not known",
        code="JSON",
        object=where,
        hint="mend it, or name another file with --registry-config",
    )


def _make_parent(folder: Path) -> None:
    """Make the directory; root gives it to the owner of the one above, whose home it is (sudo leaves HOME alone)."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    make_directories(folder)
    if missing and os.geteuid() == 0:
        owner = missing[-1].parent.stat()
        for path in missing:
            with contextlib.suppress(OSError):
                os.chown(path, owner.st_uid, owner.st_gid)


def _write(target: Path, directory: int, document: Document) -> None:
    raw = _encoded(document)
    found = os.stat(target.name, dir_fd=directory) if os.access(target.name, os.F_OK, dir_fd=directory) else None
    try:
        with Draft(directory, str(target)) as draft:
            draft.write(raw)
            draft.give_to(*_owner(found or os.fstat(directory)))
            draft.commit(target.name, mode=_mode(found))
    except LocalIOError as error:
        # In place, and not whole at once: but the alternative is no login at all.
        if found is None or getattr(error.__cause__, "errno", None) not in _IN_PLACE:
            raise
        _overwrite(target, directory, raw)


def _owner(found: os.stat_result) -> tuple[int, int]:
    """Whose a file stays, or becomes: of a directory's owner only where that is ours to decide."""
    if stat.S_ISDIR(found.st_mode) and os.geteuid() != 0:
        return -1, -1
    return found.st_uid, found.st_gid


def _mode(found: os.stat_result | None) -> int:
    """A file of ours that everybody may read was never meant to hold secrets; any other mode is somebody's decision."""
    if found is None or (found.st_uid == os.geteuid() and found.st_mode & _OTHERS):
        return 0o600
    return stat.S_IMODE(found.st_mode)


def _overwrite(target: Path, directory: int, raw: bytes) -> None:
    with local_errors(str(target)):
        file = os.open(target.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            written = 0
            while written < len(raw):
                written += os.pwrite(file, raw[written:], written)
            os.ftruncate(file, len(raw))
            os.fsync(file)
        finally:
            os.close(file)


def _encoded(document: Document) -> bytes:
    try:
        text = json.dumps(document, indent="\t", ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can write
        text = json.dumps(document, indent="\t").encode("ascii")
    return text + b"\n"
