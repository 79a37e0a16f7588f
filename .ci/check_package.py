"""What dist/ holds can be published: its README stands alone, and a build elsewhere gives the same bytes.

`python .ci/check_package.py DIST`; the version of the files is the one that is checked out.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

from epoch_oci.cli.app import VERBS
from epoch_oci.cli.help import man_pages

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_OWN = re.compile(r"https://(?:github\.com|raw\.githubusercontent\.com)/[^/]+/epoch-oci/(?:blob/|tree/)?[^/]+/(.+)")


def main(folder: str) -> int:
    """Check them all; 1 when anything is wrong."""
    built = sorted(Path(folder).iterdir())
    wheel, source = (next(path for path in built if path.name.endswith(end)) for end in (".whl", ".tar.gz"))
    wrong = [*_link_problems(wheel), *_content_problems(wheel), *_rebuild_problems(source, built)]
    for problem in wrong:
        sys.stderr.write(f"{problem}\n")
    for path in built:
        sys.stdout.write(f"{_sha256(path)}  {path.name}\n")
    return 1 if wrong else 0


def _link_problems(wheel: Path) -> Iterator[str]:
    """A package index shows the README without the files around it."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    urls = [row.split(", ")[1] for row in metadata.get_all("Project-URL", [])]
    links = [*_LINK.findall(str(metadata.get_payload())), *urls]
    if len(links) < 10:
        yield f"the README of {wheel.name} has lost its links"
    for link in links:
        own = _OWN.match(link)
        if not link.startswith(("https://", "#")):
            yield f"the README of {wheel.name} has a link that leads nowhere on an index: {link}"
        elif own is not None and not (ROOT / own[1].partition("#")[0]).exists():
            yield f"the README of {wheel.name} has a link to what is not there: {own[1]}"


def _content_problems(wheel: Path) -> Iterator[str]:
    """Everything that is installed, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    schemas = {
        f"epoch_oci/_schemas/{path.relative_to(ROOT / 'schemas')}" for path in (ROOT / "schemas").rglob("*.json")
    }
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "epoch_oci").rglob("*.py")} | {"epoch_oci/py.typed"}
    distribution = "-".join(wheel.name.split("-")[:2])
    pages = {f"{distribution}.data/data/share/man/man1/{name}" for name in man_pages(VERBS)}
    for name in sorted(there ^ (schemas | modules | pages)):
        yield f"{wheel.name}: {name} is {'more than' if name in there else 'missing of what'} is in the checkout"


def _rebuild_problems(source: Path, built: list[Path]) -> Iterator[str]:
    """The source archive, unpacked elsewhere under another umask, gives the same two files."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
        where = next(Path(folder).iterdir())
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", f"{folder}/again", str(where)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, umask=0o077)
        if done.returncode:
            yield f"{source.name} does not build: {done.stdout[-500:]}{done.stderr[-500:]}"
            return
        for path in built:
            again = Path(folder) / "again" / path.name
            if not again.exists() or _sha256(again) != _sha256(path):
                yield f"{path.name} comes out otherwise in another directory"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
