"""Pure functions between Epoch's words and OCI's. A new dialect is one module and one row."""

from epoch_oci.dialects.base import Dialect
from epoch_oci.dialects.cocoon import CocoonDialect
from epoch_oci.dialects.cocoonstack import CocoonstackDialect
from epoch_oci.errors import ContentError, UsageError
from epoch_oci.oci.digest import shown
from epoch_oci.oci.manifest import ImageManifest

__all__ = ["DIALECTS", "accepting", "detect", "named", "register_dialect"]

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (CocoonDialect(), CocoonstackDialect())}
"""Every dialect by the word that `--dialect` takes, in the order in which they are asked whether they can read."""
_REGISTERED: dict[str, Dialect] = {}


def named(name: str) -> Dialect:
    """The dialect of this name. Raises UsageError for an unknown one."""
    known = _REGISTERED | DIALECTS
    if name not in known:
        raise UsageError(f"there is no dialect {shown(name)}", hint=f"one of: {', '.join(known)}")
    return known[name]


def register_dialect(dialect: Dialect) -> None:
    """Let a dialect of one's own be written by its name, and read: it is asked before those that are here.

    Raises UsageError for a name that is taken.
    """
    if dialect.name in DIALECTS:
        raise UsageError(f"there is a dialect {shown(dialect.name)} already", object=dialect.name)
    _REGISTERED[dialect.name] = dialect


def accepting(manifest: ImageManifest) -> Dialect | None:
    """The dialect that can read the artifact, None when there is none."""
    known = (*_REGISTERED.values(), *DIALECTS.values())
    return next((dialect for dialect in known if dialect.accepts(manifest)), None)


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
