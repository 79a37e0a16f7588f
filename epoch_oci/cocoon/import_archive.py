"""What `cocoon snapshot import` reads: a raw tar archive of an envelope and the snapshot's files.

Cocoon has no hashes, and takes an archive that ends between two entries for a whole one. So the stream never ends there
unless all of it was right: the end of an entry is held back until the next one begins, and crosses the pipe in one
write with it, small enough to be atomic.
"""

import os
from collections.abc import Callable, Iterator, Mapping

from epoch_oci.cocoon import tar
from epoch_oci.cocoon.envelope import ENVELOPE
from epoch_oci.cocoon.epoch_manifest import envelope_of
from epoch_oci.dataclass import dataclass
from epoch_oci.disk.local import local_errors
from epoch_oci.epoch import sparse
from epoch_oci.epoch.manifest import DEFAULT_MODE, Layer, Manifest, is_disk
from epoch_oci.errors import ContentError, LocalIOError, UsageError
from epoch_oci.oci.descriptor import Descriptor
from epoch_oci.oci.verifying import BLOCK, ByteReader, VerifyingReader
from epoch_oci.stores.base import Content

# As Cocoon writes it (epoch-formats 5.5); its import throws it away.
_ENVELOPE_MODE = 0o644
# What else an archive's entry said (times, owners, another tool's sparse map) is not for a reader of this one.
_OURS = "COCOON."
# Together with the next header and its padding well below PIPE_BUF, up to which a write to a pipe is atomic (POSIX,
# 4096 on Linux).
_HELD_BACK = 256
_CROSSING = 1024
_ZEROS = bytes(BLOCK)

Write = Callable[[bytes], object]
"""Takes a block and passes all of it on; one of up to 2 KiB in a single system call, if it can."""
Contents = Callable[[Layer], Content]
"""Where the stored bytes of a file can be had; they are verified here."""
Verify = Callable[[ByteReader, Descriptor, str], VerifyingReader]
"""Makes of (content, what it has to be, its name) a reader that raises before the last byte of what is wrong."""


def write_import_archive(
    manifest: Manifest,
    contents: Contents,
    write: Write,
    *,
    name: str | None = None,
    description: str | None = None,
    verify: Verify = VerifyingReader,
) -> int:
    """Write the archive of a snapshot of any writer; returns its length in bytes.

    The envelope that came with the snapshot is restored byte for byte, unless `name` or `description` change it. Files
    keep their order, mode and sparse map; base images have no place here. Raises ContentError when a file is not what
    the manifest says, and what `contents` and `write` raise: then what was written does not pass for an archive.
    """
    # Everything that can be refused is refused before the first byte is written: what follows cannot be taken back.
    envelope = envelope_of(manifest).renamed(name, description)
    _refuse_cloud_image(manifest)
    archive = _Archive(write)
    # First, as Cocoon writes it; its import would find it anywhere.
    archive.header(ENVELOPE, len(envelope.raw), _ENVELOPE_MODE, {})
    archive.body([envelope.raw], len(envelope.raw))
    for layer in manifest.layers:
        entry = _entry(manifest, layer)
        with contents(layer).open() as reader:
            verified = verify(reader, layer.descriptor, layer.filename)
            archive.header(layer.filename, entry.size, entry.mode, entry.records)
            archive.body(entry.blocks(verified), entry.size)
    archive.finish()
    return archive.written


def write_cloud_image(manifest: Manifest, contents: Contents, write: Write, *, verify: Verify = VerifyingReader) -> int:
    """Write the disk of a cloud image, its parts joined in the order of the manifest; returns its length in bytes.

    The last byte of a part is not written before all of the part is verified. Raises as `write_import_archive`.
    """
    written = 0
    for layer in disk_layers(manifest):
        with contents(layer).open() as reader:
            for block in verify(reader, layer.descriptor, layer.filename).blocks():
                write(block)
                written += len(block)
    return written


def disk_layers(manifest: Manifest) -> tuple[Layer, ...]:
    """The layers of a cloud image that are its disk: one file, or the parts of one. Raises ContentError (TYPE).

    What merely accompanies the disk (checksums, a note) is left out: joined to it, it would damage it (trap 25).
    """
    layers = tuple(layer for layer in manifest.layers if is_disk(layer.filename))
    disks = {layer.filename.partition(".part.")[0] for layer in layers}
    # `cocoon image import` joins whatever comes: two disks would become one that boots neither.
    if len(disks) != 1 or (len(layers) > 1 and any(".part." not in layer.filename for layer in layers)):
        named = ", ".join(layer.filename for layer in layers) or "none"
        raise ContentError(f"a cloud image is one disk or the parts of one; this has {named}", code="TYPE")
    return layers


def to_descriptor(descriptor: int, what: str = "standard output", gone: type[Exception] | None = None) -> Write:
    """Writes to an open file or pipe without a buffer in between.

    Raises LocalIOError when nobody reads any more, or `gone` where that is none.
    """

    def write(block: bytes) -> None:
        view = memoryview(block)
        with local_errors(what):
            try:
                while view:
                    view = view[os.write(descriptor, view) :]
            except BrokenPipeError:
                if gone is not None:
                    raise gone from None
                hint = "look at the error of the program that read it"
                raise LocalIOError(f"{what} was closed by its reader", object=what, hint=hint) from None

    return write


@dataclass(frozen=True, slots=True)
class _Entry:
    """How a file goes into the archive; `unpacking` is set where a packed one has to be unfolded on the way."""

    size: int
    mode: int
    records: Mapping[str, str]
    unpacking: sparse.Unpacking | None = None

    def blocks(self, reader: VerifyingReader) -> Iterator[bytes]:
        return reader.blocks() if self.unpacking is None else _unfolded(reader, self.unpacking)


def _entry(manifest: Manifest, layer: Layer) -> _Entry:
    header = manifest.layer_headers.get(layer.filename)
    mode = manifest.mode_of(layer.filename) or DEFAULT_MODE
    records = {key: text for key, text in (header.pax_records if header else {}).items() if key.startswith(_OURS)}
    unpacking = sparse.unpacking(records, layer.size)
    # A map too long for Go's reader (trap 12): the file goes whole, as Cocoon itself does above 800 KiB of map.
    if unpacking is not None and not tar.fits(layer.filename, layer.size, records):
        return _Entry(unpacking.logical_size, mode, {}, unpacking)
    return _Entry(layer.size, mode, records)


def _unfolded(reader: VerifyingReader, unpacking: sparse.Unpacking) -> Iterator[bytes]:
    """The file that `reader` has the segments of. Its last zeros come after the last segment was verified."""
    at = 0
    for offset, left in unpacking.segments:
        yield from _zeros(offset - at)
        at = offset + left
        while left:
            block = reader.read(min(BLOCK, left))
            left -= len(block)
            yield block
    yield from _zeros(unpacking.logical_size - at)


def _zeros(count: int) -> Iterator[bytes]:
    while count:
        yield _ZEROS[:count]
        count -= min(count, BLOCK)


class _Archive:
    """Writes an archive so that what was written so far never looks whole.

    A reader takes a stream for ended wherever a header may begin: behind an entry, and, in Go's case, also within the
    padding of one, and between PAX records and their file. The content before such a place is held back until more than
    it can be written.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._held = b""
        self.written = 0

    def header(self, name: str, size: int, mode: int, records: Mapping[str, str]) -> None:
        records_part, header = tar.file_header(name, size, mode, records)
        # No more than a block of it is padding.
        if records_part:
            self._emit(records_part, ends=tar.BLOCK_SIZE)
        self._emit(header, ends=0 if size == 0 else None)

    def body(self, blocks: Iterator[bytes] | list[bytes], size: int) -> None:
        left = size
        for block in blocks:
            left -= len(block)
            if left:
                self._emit(block, ends=None)
            else:
                padding = tar.padding(size)
                self._emit(block + bytes(padding), ends=padding)

    def finish(self) -> None:
        self._emit(2 * tar.ZERO_BLOCK, ends=None)

    def _emit(self, data: bytes, *, ends: int | None) -> None:
        """Write `data`, behind what was held back; `ends` when the stream could be taken for ended behind it.

        It then is the length of the padding within which that is so as well.
        """
        # Content is held back and not the padding alone, for a reader does not miss padding at the end.
        cut = len(data) if ends is None else max(0, len(data) - ends - _HELD_BACK)
        ready, start = data[:cut], 0
        if self._held:
            start = min(cut, _CROSSING)
            self._out(self._held + ready[:start])
        if start < cut:
            self._out(ready[start:])
        self._held = data[cut:]

    def _out(self, block: bytes) -> None:
        self._write(block)
        self.written += len(block)


def _refuse_cloud_image(manifest: Manifest) -> None:
    if manifest.is_cloud_image:
        raise UsageError(
            "a cloud image is no snapshot, and has no archive", hint="its disk is what `cocoon image import` reads"
        )
