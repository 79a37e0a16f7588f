"""What a chunk index tells at a glance: how much is zeros, repeated, compressed, and how alive the packs are."""

from collections.abc import Iterator

from epoch_oci.chunks.chunk import ChunkEncoding
from epoch_oci.chunks.index import Chunk, Index, StoredBlob
from epoch_oci.chunks.known import KNOWN_LIMIT, Known
from epoch_oci.dataclass import dataclass


@dataclass(slots=True)
class FileFigures:
    """A file in bytes: `zeros` are never stored, `repeated` are there once already, `stored` is what the rest takes."""

    size: int
    zeros: int = 0
    repeated: int = 0
    stored: int = 0


@dataclass(slots=True)
class PackFigures:
    """A pack and how many of its bytes the files use."""

    pack: StoredBlob
    live: int = 0


@dataclass(slots=True)
class Figures:
    """Of all files and packs of an index, in its order."""

    files: list[FileFigures]
    packs: list[PackFigures]


def figures_of(index: Index, limit: int = KNOWN_LIMIT) -> Figures:
    """Read all of `index`. What two files share counts for the first of them. Raises ContentError.

    Only so many chunks are remembered as `limit` says: what repeats others than these counts as stored, and more than
    a pack has is not live in it.
    """
    header = index.header
    found = Figures([FileFigures(file.span) for file in header.files], [PackFigures(pack) for pack in header.packs])
    seen = Known()
    number = seen.add_pack()
    for file, figures in enumerate(found.files):
        for chunk in _stored_chunks(index, file, figures):
            if seen.find(chunk.digest):
                figures.repeated += chunk.length
                continue
            # So many rows are what memory is for; counting on without them errs towards "stored".
            if len(seen) < limit:
                seen.add(chunk.digest, number, 0, 0, chunk.encoding)
            figures.stored += chunk.stored
            found.packs[chunk.pack].live += chunk.stored
    for item in found.packs:
        # Beyond the limit a chunk may be counted twice.
        item.live = min(item.live, item.pack.size)
    return found


def _stored_chunks(index: Index, file: int, figures: FileFigures) -> Iterator[Chunk]:
    """The chunks of a file that are stored; the others are added to its zeros."""
    header = index.header
    wide, total = header.piece_chunks, header.chunks_of(file)
    for piece in range(header.pieces_of(file)):
        first, last = piece * wide, min(total, (piece + 1) * wide)
        if index.is_zeros(file, piece):
            figures.zeros += min(last * header.chunk_size, header.files[file].span) - first * header.chunk_size
            continue
        for _, chunk in index.chunks(file, first, last):
            if chunk.encoding == ChunkEncoding.ZERO:
                figures.zeros += chunk.length
            else:
                yield chunk
