"""What a chunk index tells at a glance: how much is zeros, repeated, compressed, and how alive the packs are."""

from dataclasses import dataclass

from epoch_oci.chunks.index import Index, Stored
from epoch_oci.chunks.known import Known
from epoch_oci.chunks.layout import Encoding


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

    pack: Stored
    live: int = 0


@dataclass(slots=True)
class Figures:
    """Of all files and packs of an index, in its order."""

    files: list[FileFigures]
    packs: list[PackFigures]


def figures_of(index: Index) -> Figures:
    """Read all of `index`. What two files share counts for the first of them. Raises ContentError."""
    header = index.header
    found = Figures([FileFigures(file.span) for file in header.files], [PackFigures(pack) for pack in header.packs])
    seen = Known()
    number = seen.add_pack()
    for file, figures in enumerate(found.files):
        for _, chunk in index.chunks(file, 0, header.chunks_of(file)):
            if chunk.encoding == Encoding.ZERO:
                figures.zeros += chunk.length
            elif seen.find(chunk.digest):
                figures.repeated += chunk.length
            else:
                seen.add(chunk.digest, number, 0, 0, chunk.encoding)
                figures.stored += chunk.stored
                found.packs[chunk.pack].live += chunk.stored
    return found
