"""`cat`, `mount` and `diff`: reading snapshots where they are."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.cli import flags
from epoch_oci.cli.arguments import cache_size as cache_size_of
from epoch_oci.cli.arguments import place_of, refuse_swapped, write_file
from epoch_oci.cli.streams import ReaderGoneError
from epoch_oci.errors import UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run
    from epoch_oci.reading.readable_files import ReadableFile

_RANGE = re.compile(r"([0-9]{1,16})?-([0-9]{1,16})?")


def cat(
    run: "Run",
    location: flags.Location,
    name: flags.FileName,
    range_: flags.Range = None,
    store: flags.Store = None,
    cache: flags.ReadCache = None,
    cache_size: flags.CacheSize = "10GiB",
) -> None:
    """Write one file of a snapshot, or a part of it, to standard output.

    Only what is needed is fetched. A whole file is verified before its last byte is written, a part of one in chunks
    chunk by chunk; a part of any other file cannot be.
    """
    from epoch_oci.cocoon.import_archive import to_descriptor
    from epoch_oci.oci.verifying import BLOCK, VerifyingReader
    from epoch_oci.reading.readable_files import chosen

    refuse_swapped("cat", location, name, "the snapshot comes first, and then the file of it")
    file = chosen(_files(run, location, store, cache, cache_size), name)
    # `cat … | head` is an end as any other.
    write = to_descriptor(sys.stdout.fileno(), gone=ReaderGoneError)
    start, end = _range(range_, file.size)
    with file.content.open(start, end - start) as opened:
        whole = file.whole is not None and (start, end) == (0, file.size)
        reader = VerifyingReader(opened, file.whole, name) if whole and file.whole else opened
        while block := reader.read(BLOCK):
            write(block)


def mount(
    run: "Run",
    location: flags.Location,
    directory: flags.Directory,
    store: flags.Store = None,
    foreground: flags.Foreground = False,
    cache: flags.ReadCache = None,
    cache_size: flags.CacheSize = "10GiB",
) -> int | None:
    """Show the files of a snapshot in a directory, and fetch of them what is read.

    Read-only. It goes on in the background until `umount DIR`, or until a signal comes. A hypervisor can start from it
    before the bytes have come. What cannot be read is EIO for whoever reads it; in the background it is told of in
    ~/.local/state/epoch-oci/mount.log.
    """
    from epoch_oci.reading.mount import fall_silent, go_to_background
    from epoch_oci.reading.mount import mount as serve
    from epoch_oci.reading.mount_log import MountLog

    refuse_swapped("mount", location, directory, "the snapshot comes first, and then the directory")
    path = Path(directory)
    # Before anything is opened, for it forks: connections and threads do not live on in a child.
    if not foreground and (code := go_to_background(path)) is not None:
        if code == 0:
            run.note(f"{location} is mounted at {directory}; unmount it with `umount {directory}`")
        return code
    files = _files(run, location, store, cache, cache_size)
    if foreground:
        serve(files, path, run.warn)
    else:
        log = MountLog(run.settings.state_directory, path.absolute())
        serve(files, path, lambda text: log.say(run.secrets.shown(text)), fall_silent)
    return None


def diff(
    run: "Run",
    a: flags.SideA,
    b: flags.SideB,
    store: flags.Store = None,
    deep: flags.Deep = False,
    svg: flags.Svg = None,
    force: flags.Force = False,
) -> None:
    """Show what differs between two snapshots, wherever each of them is.

    File by file by their digests; chunk by chunk where both are in chunks, or with --deep by reading both.
    """
    from epoch_oci.api.look import version_at
    from epoch_oci.cli.strips import diff_lines, diff_picture
    from epoch_oci.events import phase
    from epoch_oci.flows.diff import diff as compare

    phase(run.listen, "comparing")
    sides = (version_at(word, place_of(run, word, store), deep=deep, on_event=run.listen) for word in (a, b))
    found = compare(*sides)
    run.progress.close()
    if svg is not None:
        write_file(svg, diff_picture(found).encode(), replace=force)
    run.result(found.to_json(), lambda: diff_lines(found))


def _files(
    run: "Run", location: str, store: str | None, cache: str | None, cache_size: str
) -> "Mapping[str, ReadableFile]":
    from epoch_oci.locate import ArtifactPlace
    from epoch_oci.reading.readable_files import files_at

    most = cache_size_of(cache_size)
    place = place_of(run, location, store)
    name = place.named() if isinstance(place, ArtifactPlace) else ""
    files = files_at(place, name, Path(cache).absolute() if cache else None, most)
    if cache and not any(file.checked for file in files.values()):
        run.warn(f"{location} is not in chunks: nothing of it is kept in {cache}")
    return files


def _range(text: str | None, size: int) -> tuple[int, int]:
    """First byte, and the one after the last: `A-B` as in HTTP, `A-` to the end, `-N` the last N."""
    if text is None:
        return 0, size
    found = _RANGE.fullmatch(text)
    if found is None or text == "-":
        raise UsageError(f"--range cannot be {text}", object="--range", hint="write A-B (both included), A-, or -N")
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last or 0))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise UsageError(f"--range {text} has no byte of the {size} there are", object="--range")
    return start, end
