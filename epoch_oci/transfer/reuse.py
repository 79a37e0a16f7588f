"""Taking a blob from a copy that is at hand, verified as if it came from a stranger."""

from epoch_oci.disk.assembly import Assembly
from epoch_oci.disk.local import FileReader
from epoch_oci.oci.verify import VerifyingReader
from epoch_oci.stores.base import FileContent
from epoch_oci.transfer.content import WatchedContent
from epoch_oci.transfer.plan import Item


def reuse(item: Item, content: WatchedContent, assembly: Assembly | None) -> None:
    """Make `content` the blob: a clone or a link of its file where both sides can, else a copy.

    Raises ContentError when its bytes are not the blob, and what reading and the sink raise; nothing is left then but
    what an earlier run had fetched.
    """
    if assembly is None or not _adopted(item, content, assembly):
        item.put(content)
        if assembly is not None:
            assembly.discard()


def _adopted(item: Item, content: WatchedContent, assembly: Assembly) -> bool:
    """Whether the blob is there now without having been copied. What was fetched of it before is not put at risk."""
    held = content.content
    if assembly.resumed or not isinstance(held, FileContent):
        return False
    opened = held.file()
    if opened is None:
        return False
    with opened as file:
        what = item.title or str(item.target.digest)
        reader = content.watched(FileReader(file, what))
        check = VerifyingReader(reader, item.target, what).exhaust
        return assembly.adopt(file, check) and assembly.finish()
