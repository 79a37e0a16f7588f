"""`push` and `pull`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci.cli import flags
from epoch_oci.cli.arguments import annotations_of, artifact_of, output_file, several_tags, snapshot_in, write_file
from epoch_oci.cli.streams import is_terminal
from epoch_oci.errors import AccessError, ConflictError, NetworkError, UsageError

if TYPE_CHECKING:
    from epoch_oci.artifacts.bases import Base
    from epoch_oci.artifacts.packing import Chunking
    from epoch_oci.artifacts.write import Encoding, PushOptions
    from epoch_oci.cli.session import Run
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.flows.pull import PullOptions
    from epoch_oci.locate import ArtifactPlace
    from epoch_oci.stores.base import SnapshotStore
    from epoch_oci.transfer.plan import Seed
    from epoch_oci.transfer.report import TransferReport
    from epoch_oci.transfer.throttle import Throttle


def push(
    run: "Run",
    snapshot: flags.Snapshot,
    target: flags.Target,
    store: flags.Store = None,
    dialect: flags.Dialect = "cocoon",
    part_size: flags.PartSize = "auto",
    annotation: flags.Annotations = (),
    annotation_file: flags.AnnotationFile = None,
    mount_from: flags.MountFrom = (),
    allow_loss: flags.AllowLoss = False,
    allow_public: flags.AllowPublic = False,
    force: flags.Force = False,
    dry_run: flags.DryRun = False,
    jobs: flags.Jobs = None,
    limit_rate: flags.LimitRate = None,
    chunked: flags.Chunked = False,
    base: flags.Bases = (),
    level: flags.Level = 1,
    verify_bases: flags.VerifyBases = False,
    zstd: flags.Zstd = None,
    chunk_size: flags.ChunkSize = None,
    as_: flags.As = None,
    digest_file: flags.DigestFile = None,
) -> None:
    """Push a snapshot to a registry or an OCI image layout.

    It is looked up in the store of --store; `-` reads a Cocoon export archive from standard input, which --as names.
    Blobs that are there already are not sent; the tag is set last.
    """
    from epoch_oci.artifacts.write import PushOptions
    from epoch_oci.cli.arguments import part_size as size_of_parts
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.flows.push import push as push_snapshot

    # Judged before the work: nobody wants to hear after hours that it cannot be written.
    digest_path = output_file("--digest-file", digest_file, store, target) if digest_file else None
    run.progress.begin("opening")
    if dialect == "cocoon" and not run.typed("zstd"):
        zstd = None  # of a variable or a file: how the other dialect is to be written
    encoding = _encoding(run, zstd, chunk_size)
    chunked = _in_chunks(run, snapshot, dialect, chunked, encoding)
    word, also = several_tags(target)
    _refuse_swapped(snapshot, word)
    options = PushOptions(
        dialect=dialect,
        annotations=annotations_of(annotation, annotation_file),
        allow_loss=allow_loss,
        force=force,
        dry_run=dry_run,
        jobs=jobs,
        allow_public=allow_public,
        part_size=size_of_parts(part_size),
        part_cache=run.settings.cache_directory,
        throttle=throttle_for(limit_rate, target, store),
        encoding=encoding,
    )

    def at(place: "ArtifactPlace") -> PushOptions:
        chunking = chunking_for(run, place, chunked, base, level, verify_bases=verify_bases)
        return replace(options, mount_from=siblings(place, mount_from), chunking=chunking)

    if snapshot == "-":
        place = _target(run, word)
        key = SnapshotKey.parse(as_) if as_ else None
        report = _push_input(run, place, replace(at(place), key=key), also)
    else:
        source, key = _stored(run, snapshot, store)
        place = _target(run, word)
        how = replace(at(place), also=also)
        report = push_snapshot(source, key, place.store, place.tag, options=how, on_event=run.listen)
    show(run, report, place.where, digest_path=digest_path)


def _in_chunks(run: "Run", snapshot: str, dialect: str, chunked: bool, encoding: "Encoding | None") -> bool:
    """Whether the chunked form is written. Raises UsageError for flags that do not go together."""
    if chunked and not run.typed("chunked") and (dialect != "cocoon" or encoding is not None):
        chunked = False  # what is typed outweighs what the environment says
    if encoding is not None and (chunked or snapshot == "-"):
        raise UsageError("--zstd goes neither with --chunked nor with an archive on standard input", object="--zstd")
    return chunked


def _stored(run: "Run", snapshot: str, store: str | None) -> "tuple[SnapshotStore, SnapshotKey]":
    if run.typed("as_"):
        raise UsageError("--as names the snapshot of an archive on standard input", object="--as")
    return snapshot_in(run, snapshot, store)


def _refuse_swapped(snapshot: str, target: str) -> None:
    """Raise UsageError for words that make sense the other way round, or in a pull."""
    from epoch_oci import location

    there = location.parse(target, target=True)
    typed, snapshot = snapshot, snapshot.removeprefix("https://").removeprefix("http://")  # as copied out of a browser
    if not location.is_artifact(snapshot):
        return
    if isinstance(there, location.ArtifactLocation):
        if typed == snapshot and "/" not in snapshot.partition(":")[2]:
            return  # a snapshot may be called so; no tag has a slash
        raise UsageError(
            "push takes a snapshot out of a store, and copy one out of a registry or layout into another",
            hint=f"write `epoch-oci copy {snapshot} {target}`",
        )
    if isinstance(there, location.StoreLocation):
        raise UsageError(
            "push takes a snapshot out of a store, and pull brings one into it",
            hint=f"write `epoch-oci pull {snapshot} --store {target}`",
        )
    raise UsageError(
        "the snapshot comes first, and then where it goes", hint=f"write `epoch-oci push {target} {snapshot}`"
    )


def _encoding(run: "Run", zstd: int | None, chunk_size: str | None) -> "Encoding | None":
    """What --zstd and --chunk-size ask for; None where nobody did."""
    from epoch_oci.artifacts.write import Encoding
    from epoch_oci.cli.arguments import chunk_size as size_of_chunks

    if zstd is None:
        if run.typed("chunk_size"):
            raise UsageError("--chunk-size goes with --zstd", object="--chunk-size")
        return None
    size = size_of_chunks(chunk_size) if chunk_size else 0
    return Encoding(level=zstd, chunk_size=size, spool=run.settings.spool_directory)


def chunking_for(
    run: "Run", place: "ArtifactPlace", chunked: bool, bases: Sequence[str], level: int, *, verify_bases: bool
) -> "Chunking | None":
    """What --chunked asks for; None where nobody did."""
    if not chunked:
        for name in ("base", "level", "verify_bases"):
            # Only what is typed: a default for one form, in a variable or the file, is none for the other.
            if run.typed(name):
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} goes with --chunked", object=flag)
        return None
    from epoch_oci.artifacts.packing import Chunking

    settings = run.settings
    return Chunking(
        level=level,
        bases=tuple(_base(run, place, word) for word in bases),
        journals=settings.state_directory / "packs" if settings.state_directory else None,
        cache=settings.cache_directory,
        verify_bases=verify_bases,
    )


def _base(run: "Run", place: "ArtifactPlace", word: str) -> "Base":
    """A tag of the target, or an artifact in a repository of the same registry, from which packs can be mounted."""
    from epoch_oci.artifacts.bases import Base
    from epoch_oci.location import repository_in
    from epoch_oci.oci.reference import tag_problem

    if tag_problem(word) is None:
        return Base(place.store, word)
    other = artifact_of(run, word)
    name = other.named()
    host, _, repository = other.where.partition("/")
    if other.where == place.where:
        return Base(place.store, name)
    near = bool(repository_in(other.where)) and host == place.where.partition("/")[0]
    return Base(other.store, name, repository if near else "")


def _push_input(run: "Run", place: "ArtifactPlace", options: "PushOptions", also: tuple[str, ...]) -> "TransferReport":
    from epoch_oci.cocoon.export_archive import ExportArchive
    from epoch_oci.flows.copy import add_tags
    from epoch_oci.flows.push_archive import push_archive

    if run.settings.password_stdin:
        raise UsageError("standard input cannot hold both a password and an archive", hint="log in before")
    if is_terminal(sys.stdin):
        raise UsageError(
            "`-` reads an archive from standard input, which is a terminal",
            hint="cocoon snapshot export NAME -o - | epoch-oci push - TARGET",
        )
    with ExportArchive(sys.stdin.buffer, run.settings.spool_directory, "standard input") as archive:
        report = push_archive(archive, place.store, place.tag, options=options, on_event=run.listen)
    if also and not options.dry_run:  # only now is it known what the artifact is
        add_tags(
            place.store,
            report.tag if place.tag is None else place.tag,
            also,
            force=options.force,
            allow_public=options.allow_public,
            dry_run=options.dry_run,
        )
    return report


def pull(
    run: "Run",
    reference: flags.Reference,
    store: flags.Store = None,
    output: flags.Output = None,
    as_: flags.As = None,
    only: flags.Only = (),
    seed: flags.Seeds = (),
    cache: flags.PullCache = None,
    force: flags.ForceAnew = False,
    dry_run: flags.DryRun = False,
    jobs: flags.Jobs = None,
    limit_rate: flags.LimitRate = None,
    digest_file: flags.DigestFile = None,
    verify_with: flags.VerifyWith = None,
) -> None:
    """Pull a snapshot into a store, its files into a directory, or onto standard output for Cocoon.

    Every byte is verified before it is visible; a second pull moves nothing.
    """
    from epoch_oci.cli.verifier import refuse_unless_verified
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.flows.pull import PullOptions

    run.progress.begin("opening")
    store, output = _destination(run, store, output)
    if only and output in (None, "-"):
        raise UsageError("--only chooses files; stores and archives take them all", hint="write the files with -o DIR")
    if output == "-" and run.typed("seed"):
        raise UsageError("--seed works with --store and -o DIR, and not for an archive", object="--seed")
    digest_path = output_file("--digest-file", digest_file, store, reference) if digest_file else None
    options = PullOptions(
        key=SnapshotKey.parse(as_) if as_ else None,
        only=only,
        force=force,
        dry_run=dry_run,
        jobs=jobs,
        throttle=throttle_for(limit_rate, reference, store),
        decode_cache=run.settings.cache_directory,
        read_cache=Path(cache).absolute() if cache else None,
        approve=partial(refuse_unless_verified, run, verify_with) if verify_with else None,
    )
    if output == "-":
        _pull_to_output(run, reference, options, digest_path)
        return
    report = _pulled(run, reference, options, seed, store, output)
    # Not before: the names are those of the artifact.
    if output is not None and digest_path is not None:
        _refuse_pulled(report, output, digest_path)
    show(run, report, output or store or "", digest_path=digest_path)


def _pulled(
    run: "Run", reference: str, options: "PullOptions", seeds: Sequence[str], store: str | None, output: str | None
) -> "TransferReport":
    """What is wrong with the target is said before anybody is asked for the source."""
    from epoch_oci.flows.pull import pull_to_files, pull_to_store
    from epoch_oci.locate import open_files, open_store, sources_of
    from epoch_oci.location import refuse_place
    from epoch_oci.registry.mirror import by_turns

    if output is not None:
        refuse_place(output)
        write = partial(pull_to_files, sink=open_files(Path(output), connection=run.connection))
    else:
        write = partial(pull_to_store, sink=open_store(store or "", connection=run.connection, create=True))
    place = artifact_of(run, reference)
    name, how = place.named(), replace(options, seeds=_seeds(run, seeds))
    sources = sources_of(place, connection=run.connection)
    return by_turns(sources, lambda source: write(source, name, options=how, on_event=run.listen), run.warn)


def _refuse_pulled(report: "TransferReport", output: str, digest_path: str) -> None:
    """Raise ConflictError where the digest would be written over a file that was just pulled."""
    names = {blob.title for blob in report.blobs}
    folder, name = os.path.split(digest_path)
    if name in names and folder == os.path.realpath(output):
        raise ConflictError(
            f"--digest-file {digest_path} is one of the files of {report.reference}",
            object=digest_path,
            hint="name another file; all else is done",
        )


def _pull_to_output(run: "Run", reference: str, options: "PullOptions", digest_path: str | None) -> None:
    """The result is the archive, so what is said of it goes to standard error."""
    from epoch_oci.cocoon.import_archive import to_descriptor
    from epoch_oci.flows.pull_archive import pull_to_archive

    if is_terminal(sys.stdout) and not options.dry_run:
        raise UsageError(
            "`-o -` writes an archive to standard output, which is a terminal",
            hint="epoch-oci pull REFERENCE -o - | cocoon snapshot import --name NAME",
        )
    place = artifact_of(run, reference)
    # From the registry alone, and no mirror: what went out cannot be taken back when one turns out to be wrong.
    name, write = place.named(), to_descriptor(sys.stdout.fileno())
    report = pull_to_archive(place.store, name, write, options=options, on_event=run.listen)
    # A dry run writes no archive: then the plan is the result.
    show(run, report, "standard output", aside=not options.dry_run, digest_path=digest_path)


def show(
    run: "Run", report: "TransferReport", where: str, *, aside: bool = False, digest_path: str | None = None
) -> None:
    """Print what a transfer did, and its warnings; its digest also goes into the file of `digest_path`."""
    from epoch_oci.cli.render import transfer_lines

    run.progress.close()
    report = replace(report, retries=run.progress.retries)
    for warning in report.warnings:
        run.warn(warning)
    if digest_path is not None and not report.dry_run:
        write_file(digest_path, str(report.digest).encode())  # no line's end, as podman and skopeo write it
    run.result(report.to_json(), lambda: transfer_lines(report, where), aside=aside)


def _seeds(run: "Run", words: Sequence[str]) -> "tuple[Seed, ...]":
    """The places of --seed. One that is not there is an error, one that cannot be reached is passed over."""
    from epoch_oci.locate import open_seed
    from epoch_oci.transfer.plan import Seed

    found = []
    for word in words:
        try:
            found.append(Seed(open_seed(word, connection=run.connection)))
        except (AccessError, NetworkError) as error:
            run.warn(f"{word} is of no use as a seed: {error.message}")
    return tuple(found)


def throttle_for(limit: str | None, artifact: str, store: str | None) -> "Throttle | None":
    """What --limit-rate asks for. Between two places of this machine nothing is limited."""
    from epoch_oci.cli.arguments import rate
    from epoch_oci.locate import crosses_network
    from epoch_oci.transfer.throttle import Throttle

    if limit is None:
        return None
    # A wrong SIZE is refused also where nothing will be limited.
    throttle = Throttle(rate(limit))
    return throttle if crosses_network(artifact, store) else None


def _destination(run: "Run", store: str | None, output: str | None) -> tuple[str | None, str | None]:
    """Exactly one of store and directory. What is typed outweighs what the environment says."""
    if not store and not output:
        raise UsageError(
            "pull needs a place to put the snapshot",
            hint="name a store with --store DIR (or EPOCH_STORE), a directory for its files with -o DIR, or `-o -`",
        )
    typed = {name for name in ("store", "output") if run.typed(name)}
    if store and output and len(typed) != 1:
        raise UsageError("--store and -o exclude each other", hint="pull twice, or copy the files afterwards")
    if typed == {"store"}:
        return store, None
    return (None, output) if output else (store, None)


def _target(run: "Run", word: str) -> "ArtifactPlace":
    from epoch_oci.locate import locate_artifact

    place = locate_artifact(word, connection=run.connection, create=True)
    if place.digest is not None:
        raise UsageError(
            f"{word}: a push target has no digest, for the digest follows from the snapshot",
            object=word,
            hint="name a tag, or leave it out for the snapshot's own",
        )
    return place


def siblings(place: "ArtifactPlace", words: Sequence[str]) -> tuple[str, ...]:
    """Repositories of the target's own registry, written with or without its host."""
    from epoch_oci.oci.reference import is_registry, repository_problem
    from epoch_oci.stores.base import Remote

    if words and not isinstance(place.store, Remote):
        raise UsageError("--mount-from works within one registry, and the target is none", object="--mount-from")
    host = place.where.partition("/")[0] + "/"
    found = tuple(word.removeprefix("docker://").removeprefix(host) for word in words)
    for given, word in zip(words, found, strict=True):
        other = word.partition("/")[0]
        if given == word and "/" in word and is_registry(other):
            raise UsageError(
                f"--mount-from {word}: {other} is another registry, and blobs are mounted within one",
                object="--mount-from",
                hint=f"name a repository of {host.rstrip('/')}, as {host}{word} where it is called so",
            )
        if (why := repository_problem(word)) is not None:
            raise UsageError(
                f"--mount-from {word} {why}", object="--mount-from", hint=f"name a repository of {host.rstrip('/')}"
            )
    return found
