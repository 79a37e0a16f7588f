"""What a directory is, by what is in it, for words that name one: a store, a layout, a Cocoon root, or none of them."""

import errno
import os
import os.path
from pathlib import Path

from epoch_oci.disk.local import local_errors
from epoch_oci.errors import NotFoundError, UsageError

_SIGNS = ("blobs", "catalog.json", "manifests")
"""What a directory has at least one of that is an Epoch store."""


def refuse_file(path: Path, hint: str) -> None:
    """Raise UsageError where something stands that is no directory."""
    # pathlib raises for what is too long to be a name
    if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112
        raise UsageError(f"{path} is a file, and a directory is wanted here", object=str(path), hint=hint)


def refuse_no_store(path: Path, word: str, *, create: bool) -> None:
    """Raise NotFoundError for a directory that is no Epoch store, UsageError for one that cannot become one either."""
    names = names_in(path)
    # Either is a sure sign; `blobs` alone may be an image layout's.
    if names is None or names & {"manifests", "catalog.json"}:
        return
    what, hint = f"has none of {', '.join(_SIGNS)} in it", "name the directory that has them"
    if "oci-layout" in names or {"index.json", "blobs"} <= names:
        what, hint = "is an OCI image layout", f"name it oci:{path}"
    elif not names.isdisjoint(_SIGNS):
        return
    elif _is_root(path):
        what, hint = "is a Cocoon root directory", f"name it cocoon:{path}"
    elif create:
        return
    elif (path / "epoch/manifests").is_dir():  # a copy of a bucket, with Epoch's own prefix
        hint = f"name {path}/epoch"
    elif not names:
        what, hint = "is an empty directory", "name another one, or make it a store with `pull --store`"
    raise (UsageError if create else NotFoundError)(f"{word} is no Epoch store: it {what}", object=word, hint=hint)


def names_in(path: Path) -> set[str] | None:
    """What is in a directory; None when it is not there."""
    with local_errors(str(path)):
        try:
            return set(os.listdir(path))  # noqa: PTH208
        except OSError as error:
            # No name is longer than a file system takes, so that nothing of that name is there.
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise


def refuse_no_layout(path: Path, names: set[str], *, create: bool) -> None:
    """Raise for a directory that is something else than a layout: NotFoundError, UsageError where one is to be made."""
    if "oci-layout" in names:
        return
    what, prefix = "", ""
    if names & {"manifests", "catalog.json"}:
        what = "an Epoch store"
    elif _is_root(path):
        what, prefix = "a Cocoon root directory", "cocoon:"
    if what and create:
        raise UsageError(
            f"{path} is {what}, and an OCI image layout is not made in it", object=str(path), hint="name another one"
        )
    if what:
        raise NotFoundError(
            f"{path} is no OCI image layout: it is {what}", object=str(path), hint=f"name it {prefix}{path}"
        )


def _is_root(path: Path) -> bool:
    """Whether it is surely a Cocoon root: a folder that is called `snapshot` may be anybody's."""
    from epoch_oci.cocoon.tree import DATABASE

    return (path / DATABASE).is_dir()
