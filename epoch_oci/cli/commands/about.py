"""`demo`, `version` and `completion`."""

import sys
from pathlib import Path

from epoch_oci import __version__
from epoch_oci.cli import flags
from epoch_oci.cli.parser import SHELLS
from epoch_oci.cli.session import Run
from epoch_oci.cli.streams import flush_result, safe, write_result
from epoch_oci.errors import UsageError


def demo(run: Run, keep: flags.Keep = None) -> None:
    """Push, pull and compare a made-up snapshot.

    Needs no server: it goes through an OCI image layout in a temporary directory.
    """
    from epoch_oci.cli.demo import Demo, root_directory
    from epoch_oci.events import ignore
    from epoch_oci.locate import refuse_file

    def tell(line: str) -> None:
        if not run.settings.json:
            write_result(safe(line) + "\n")
            flush_result()

    if keep is not None:
        refuse_file(Path(keep), "name a directory")
    with root_directory(keep) as root:
        shown = Demo(root, tell, run.listen if run.settings.json_progress else ignore)
        digest = shown.run()
    run.progress.close()
    where = f" Everything is left in {root}." if keep else ""
    run.result(
        {"ok": True, "digest": str(digest), "steps": shown.steps},
        lambda: [f"All is equal: nothing was lost on the way.{where}", f"Digest: {digest}"],
    )


def version(run: Run) -> None:
    """Show the versions of this program and of ORAS."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        oras = installed("oras")
    except PackageNotFoundError:
        oras = None
    python = ".".join(map(str, sys.version_info[:3]))
    run.result(
        {"version": __version__, "python": python, "oras": oras},
        lambda: [f"epoch-oci {__version__} (Python {python}, oras {oras or 'not installed'})"],
    )


def completion(run: Run, shell: flags.Shell) -> None:
    """Print the completion script of a shell.

    `eval "$(epoch-oci completion bash)"` turns it on.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in SHELLS:
        raise UsageError(f"there is no completion for the shell {shell}", hint=f"one of: {', '.join(SHELLS)}")
    script = get_completion_script(prog_name="epoch-oci", complete_var="_EPOCH_OCI_COMPLETE", shell=shell)
    write_result(script + "\n")
