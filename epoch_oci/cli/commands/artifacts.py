"""`copy`, `tag` and `rm`."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from epoch_oci.cli import flags
from epoch_oci.cli.arguments import artifact_of, output_file, place_of, refuse_swapped, several_tags
from epoch_oci.cli.streams import is_terminal
from epoch_oci.errors import BatchError, EpochOciError, UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run
    from epoch_oci.flows.copy_form import Form
    from epoch_oci.locate import ArtifactPlace


def copy(
    run: "Run",
    source: flags.CopySource,
    target: flags.CopyTarget,
    referrers: flags.Referrers = True,
    no_referrers: flags.NoReferrers = False,
    chunked: flags.Chunked = False,
    base: flags.Bases = (),
    level: flags.Level = 1,
    verify_bases: flags.VerifyBases = False,
    plain: flags.Plain = False,
    mount_from: flags.MountFrom = (),
    allow_public: flags.AllowPublic = False,
    force: flags.Force = False,
    dry_run: flags.DryRun = False,
    jobs: flags.Jobs = None,
    limit_rate: flags.LimitRate = None,
    digest_file: flags.DigestFile = None,
    verify_with: flags.VerifyWith = None,
) -> None:
    """Copy one artifact from a registry or layout into another, bytes and digests unchanged.

    An index comes with its manifests, and whatever refers to them comes along. Within one registry blobs are mounted.
    With --chunked or --plain the snapshot is written anew in that form: another digest, and the same Epoch manifest.
    """
    from epoch_oci.api.move import own_registry, target_tags
    from epoch_oci.cli.commands.transfer import show, siblings, throttle_for
    from epoch_oci.cli.verifier import refuse_unless_verified
    from epoch_oci.flows.copy import CopyOptions
    from epoch_oci.flows.copy import copy as copy_artifact
    from epoch_oci.flows.copy_form import copy_in_form
    from epoch_oci.locate import locate_artifact
    from epoch_oci.stores.base import full_name

    digest_path = output_file("--digest-file", digest_file, source, target) if digest_file else None
    run.progress.begin("opening")
    word, also = several_tags(target)
    here = artifact_of(run, source)
    there = locate_artifact(word, connection=run.connection, create=True)
    name = here.named()
    options = CopyOptions(
        referrers=referrers and not no_referrers,
        mount_from=(*own_registry(here, there), *siblings(there, mount_from)),
        allow_public=allow_public,
        force=force,
        dry_run=dry_run,
        jobs=jobs,
        throttle=throttle_for(limit_rate, target, source),
    )
    tags = target_tags(here, there, also)
    form = _form(run, there, chunked, base, level, plain, verify_bases)
    if verify_with:
        # By digest from here on: a tag may move between the verdict and the copy (reliability M5).
        name = str(here.store.resolve(name).digest)
        refuse_unless_verified(run, verify_with, full_name(here.store, name))
    write = partial(copy_in_form, form=form) if form is not None else copy_artifact
    report = write(here.store, name, there.store, tags, options=options, on_event=run.listen)
    show(run, report, there.where, digest_path=digest_path)


def tag(
    run: "Run",
    reference: flags.Reference,
    new: flags.NewTags,
    allow_public: flags.AllowPublic = False,
    force: flags.Force = False,
    dry_run: flags.DryRun = False,
) -> None:
    """Give an artifact further tags.

    They are set in its own repository or layout; no blob moves.
    """
    from epoch_oci.flows.copy import add_tags
    from epoch_oci.oci.reference import tag_problem

    refuse_swapped("tag", reference, new[0], "the artifact comes first, and then its new tags")
    for text in new:
        if (why := tag_problem(text)) is not None:
            raise UsageError(f'the tag "{text}" {why}', object=text, hint="write the tag alone, without the repository")
    place = artifact_of(run, reference)
    told = add_tags(
        place.store,
        place.named(),
        tuple(dict.fromkeys(new)),
        force=force,
        allow_public=allow_public,
        dry_run=dry_run,
    )
    done = "Would tag" if dry_run else "Tagged"
    lines = [f"{done} {told['reference']} as {', '.join(new)}", f"Digest: {told['digest']}"]
    run.result(told, lambda: lines)


def rm(
    run: "Run",
    reference: flags.References,
    store: flags.Store = None,
    yes: flags.Yes = False,
    dry_run: flags.DryRun = False,
) -> None:
    """Remove tags, artifacts or snapshots.

    Asks on a terminal. Blobs stay: see `prune` for stores and layouts, and the registry's own clean-up for it.
    """
    from epoch_oci.api.manage import removable
    from epoch_oci.flows.remove import removed

    words = tuple(dict.fromkeys(reference))
    # All are understood before one goes: a word that is wrong removes nothing.
    targets = [removable(word, place_of(run, word, store)) for word in words]
    names = [item.label for item in targets]
    if not dry_run:
        confirm(run, [f"remove {name}" for name in names], yes=yes)
    failures: list[EpochOciError] = []
    rows = []
    for name, (item, error) in zip(names, removed(targets, dry_run=dry_run), strict=True):
        failures += [error] if error else []
        rows.append(
            {
                "reference": name,
                "digest": str(item.digest) if item.digest else None,
                "action": "failed" if error else "remove" if dry_run else "removed",
                "error": {"code": error.code, "message": str(error)} if error else None,
            }
        )
    # Of one it is the error itself that counts; 10 is for several (docs/cli.md, Exit codes).
    if len(targets) == 1 and failures:
        raise failures[0]
    lines = [f"{'Would remove' if dry_run else 'Removed'} {row['reference']}" for row in rows if not row["error"]]
    run.result({"command": "rm", "removed": rows, "dryRun": dry_run}, lambda: lines)
    warn_of(run, failures)
    if failures:
        raise BatchError(f"{len(failures)} of {len(targets)} could not be removed", failures)


def warn_of(run: "Run", failures: Iterable[EpochOciError]) -> None:
    """Say what kept several things from being done, each reason once."""
    for text, count in Counter(str(error) for error in failures).items():
        run.warn(text if count == 1 else f"{text} ({count} times)")


def confirm(run: "Run", acts: Sequence[str], *, yes: bool, shown: Sequence[str] = ()) -> None:
    """Go on only with consent: of `--yes`, or of whoever sits at the terminal. Raises UsageError.

    `acts` are what would be done, each as a clause that a sentence goes on with; `shown` has more to it.
    """
    if yes:
        return
    # Whoever asks for JSON is a program, on a terminal as well.
    if not is_terminal(sys.stdin) or run.settings.json:
        raise UsageError(
            f"this would {acts[0]}" + (f" and {len(acts) - 1} more" if len(acts) > 1 else ""),
            hint="say --yes where nobody can be asked, or look first with --dry-run",
        )
    for line in shown or acts:
        run.note(line)
    run.note("Go on? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was removed", hint="answer y to go on")


def _form(
    run: "Run",
    there: "ArtifactPlace",
    chunked: bool,
    base: Sequence[str],
    level: int,
    plain: bool,
    verify_bases: bool,
) -> "Form | None":
    """The form that was asked for, and typed: what the environment says is about pushing. None: as it is."""
    from epoch_oci.cli.commands.transfer import chunking_for
    from epoch_oci.flows.copy_form import Form

    typed = {name for name in ("chunked", "plain") if run.typed(name)}
    chunked = chunked and "chunked" in typed
    chunking = chunking_for(run, there, chunked, base, level, verify_bases=verify_bases)
    if len(typed) == 2:
        raise UsageError("--chunked and --plain exclude each other", object="--plain")
    if run.typed("referrers") and typed:
        raise UsageError(
            "what refers to the artifact speaks of its digest, which --chunked and --plain change",
            object="--referrers",
            hint="leave --referrers out, and sign the new artifact",
        )
    if chunking is not None:  # in one repository all files are there already, and the form is what was asked for
        chunking = replace(chunking, keep_plain=False)
    return Form(chunking=chunking, cache=run.settings.cache_directory) if typed else None
