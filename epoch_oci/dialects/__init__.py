"""Pure functions between Epoch's words and OCI's. A new dialect is one module and one row."""

from collections.abc import Iterator
from functools import cache
from importlib import import_module

from epoch_oci.dialects.base import Dialect
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.digest import shown
from epoch_oci.oci.manifest import ImageManifest

__all__ = ["NAMES", "accepting", "detect", "known", "named", "register_dialect"]

_CLASSES = {"cocoon": "CocoonDialect", "cocoonstack": "CocoonstackDialect"}
"""By the word that `--dialect` takes, in the order in which they are asked whether they can read. Each module is loaded
when it is needed: most artifacts are of the first one, and a short command would wait for the others."""
NAMES = tuple(_CLASSES)
_REGISTERED: dict[str, Dialect] = {}


@cache
def _loaded(name: str) -> Dialect:
    dialect: Dialect = getattr(import_module(f"epoch_oci.dialects.{name}"), _CLASSES[name])()
    return dialect


def known() -> Iterator[Dialect]:
    """Every dialect, those of one's own first, and of ours each loaded when it is reached."""
    yield from _REGISTERED.values()
    yield from map(_loaded, NAMES)


def named(name: str) -> Dialect:
    """The dialect of this name. Raises UsageError for an unknown one."""
    if name in _CLASSES:
        return _loaded(name)
    if name not in _REGISTERED:
        raise UsageError(f"there is no dialect {shown(name)}", hint=f"one of: {', '.join([*_REGISTERED, *NAMES])}")
    return _REGISTERED[name]


def register_dialect(dialect: Dialect) -> None:
    """Let a dialect of one's own be written by its name, and read: it is asked before those that are here.

    Raises UsageError for a name that is taken.
    """
    if dialect.name in _CLASSES:
        raise UsageError(f"there is a dialect {shown(dialect.name)} already", object=dialect.name)
    _REGISTERED[dialect.name] = dialect


def accepting(manifest: ImageManifest) -> Dialect | None:
    """The dialect that can read the artifact, None when there is none."""
    return next((dialect for dialect in known() if dialect.accepts(manifest)), None)


def detect(manifest: ImageManifest) -> Dialect:
    """The dialect that can read the artifact. Raises ContentError (TYPE) when there is none."""
    dialect = accepting(manifest)
    if dialect is not None:
        return dialect
    raise ContentError(
        f"the artifact is of type {shown(manifest.kind)} (config {shown(manifest.config.media_type)}), "
        "which is no snapshot that is known here",
        code="TYPE",
        object=str(manifest.document.digest),
    )
