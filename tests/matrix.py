"""Which place leads to which: one list that the tests go through and the page is made of.

`python tests/matrix.py > docs/matrix.md` writes the page again.
"""

import sys
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["exact", "whole", "no base", "disk", "refused", "none"]

WORDS: dict[Outcome, str] = {
    "exact": "●",
    "whole": "○",
    "no base": "◐",
    "disk": "▣",
    "refused": "–",
    "none": "",
}
"""How a cell is drawn."""

SOURCES = {
    "directory": "Epoch directory",
    "bucket": "Epoch bucket",
    "server": "legacy Epoch server",
    "cocoon": "Cocoon root (`cocoon:DIR`)",
    "archive": "`cocoon snapshot export` (`push -`)",
    "artifact": "artifact, `cocoon` dialect",
    "parts": "artifact, `cocoon` dialect, in parts",
    "chunks": "artifact, `cocoon` dialect, in chunks",
    "modern": "artifact of modern Epoch, version 1",
    "encoded": "artifact of modern Epoch, version 2",
    "foreign": "artifact that `oras push` made",
    "image": "cloud image in an Epoch directory",
}
TARGETS = {
    "registry": "registry",
    "layout": "OCI layout",
    "modern-registry": "registry, `cocoonstack`",
    "modern-layout": "OCI layout, `cocoonstack`",
    "directory": "Epoch directory",
    "bucket": "Epoch bucket",
    "cocoon": "Cocoon root",
    "files": "files (`-o DIR`)",
    "pipe": "archive (`-o -`)",
    "sync-directory": "`sync` to an Epoch directory",
    "sync-registry": "`sync` to a registry",
    "copy": "`copy` to a registry",
}


@dataclass(frozen=True)
class Row:
    """What becomes of a snapshot from `source` in each of `TARGETS`, in their order."""

    source: str
    outcomes: tuple[Outcome, ...]

    def __post_init__(self) -> None:
        assert len(self.outcomes) == len(TARGETS) and self.source in SOURCES


E, W, N, D, R, X = WORDS
ROWS = (
    Row("directory", (E, E, N, N, E, E, W, W, N, E, E, X)),
    Row("bucket", (E, E, N, N, E, E, W, W, N, E, E, X)),
    Row("server", (E, E, N, N, E, E, W, W, N, E, E, X)),
    Row("cocoon", (W, W, N, N, W, W, W, W, N, W, W, X)),
    Row("archive", (W, W, W, W, W, W, W, W, W, X, X, X)),
    Row("artifact", (E, E, N, N, E, E, W, W, N, E, E, E)),
    Row("parts", (E, E, N, N, E, E, W, W, N, E, E, E)),
    Row("chunks", (E, E, N, N, E, E, W, W, N, E, E, E)),
    Row("modern", (W, W, W, W, W, W, W, W, W, W, W, W)),
    Row("encoded", (W, W, W, W, W, W, W, W, W, W, W, W)),
    Row("foreign", (W, W, W, W, W, W, W, W, W, W, W, W)),
    Row("image", (E, E, E, E, E, E, R, W, D, E, E, X)),
)

PAGE = """\
# Which place leads to which

Every cell is a test (`tests/test_matrix.py`): a snapshot is taken from the place on the left to the place on top with
the commands a user has, and what is there afterwards is compared. Where both are stores or both are artifacts, the way
is two commands, with an OCI layout or a directory between them. Written by `python tests/matrix.py`.

| from \\ to | {targets} |
|---|{rule}
{rows}

- ● the files are the same, and the Epoch manifest comes back byte for byte from there.
- ○ the files are the same; the place, or the source, has no Epoch manifest of its own, and one is derived.
- ◐ the files are the same, without base images: Cocoon's archives only name them, for its import wants them to be
  there, and the `cocoonstack` dialect has no home for them (`--allow-loss`).
- ▣ the disk image alone, its pieces joined: what `cocoon image import` reads.
- – refused with the reason: a cloud image is no snapshot, and Cocoon keeps it in another form.
- Nothing where there is no such way: `copy` takes artifacts, and `sync` no archive from a pipe.

A legacy Epoch server is only read from: there is no column for it.
"""


def page() -> str:
    """docs/matrix.md."""
    rows = [
        f"| {SOURCES[row.source]} | " + " | ".join(WORDS[outcome] for outcome in row.outcomes) + " |" for row in ROWS
    ]
    return PAGE.format(targets=" | ".join(TARGETS.values()), rule=":-:|" * len(TARGETS), rows="\n".join(rows))


if __name__ == "__main__":
    sys.stdout.write(page())
