"""`demo`, `version`, `completion`, `man` and `schemas`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from epoch_oci import __version__
from epoch_oci.cli import flags
from epoch_oci.cli.arguments import output_file, write_file
from epoch_oci.cli.streams import flush_result, result_line, write_result
from epoch_oci.errors import ConflictError, LocalIOError, NotFoundError, UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run

# All else that is written is for its owner alone (reliability L2).
_FOR_ALL = 0o644
_SCHEMA_ID = b'"urn:epoch-oci:schema:'
_LONGEST_SCHEMA = 1 << 20


def demo(run: "Run", keep: flags.Keep = None) -> None:
    """Push, pull and compare a made-up snapshot.

    Needs no server: it goes through an OCI image layout in a temporary directory.
    """
    from epoch_oci.cli.demo import Demo, root_directory
    from epoch_oci.directories import refuse_file
    from epoch_oci.events import ignore

    def tell(line: str) -> None:
        if not (run.settings.json or run.settings.quiet):
            write_result(result_line(line) + "\n")
            flush_result()

    if keep is not None:
        refuse_file(Path(keep), "name a directory")
    with root_directory(keep) as root:
        # Its lines say how far it is; bars would stand between them.
        shown = Demo(root, tell, run.listen if run.settings.json_progress else ignore)
        digest = shown.run()
    run.progress.close()
    where = f" Everything is left in {root}." if keep else ""
    run.result(
        {"ok": True, "digest": str(digest), "steps": shown.steps},
        lambda: [f"All is equal: nothing was lost on the way.{where}", f"Digest: {digest}"],
    )


def version(run: "Run") -> None:
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


def completion(run: "Run", shell: flags.Shell = None, install: flags.Install = False) -> None:
    """Print the completion script of a shell.

    `eval "$(epoch-oci completion bash)"` turns it on; --install puts it where bash and fish look for it, and zsh once
    the directory is in its `fpath`.
    """
    from epoch_oci.cli.help import SHELLS, completion_script

    shell = shell or Path(run.settings.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for the shell {shell}", hint=f"one of: {', '.join(SHELLS)}")
    if not install:
        write_result(completion_script(shell))
        return
    path = _completion_path(shell, run.settings.environ)
    _install("--install", path.parent, {path.name: completion_script(shell)})
    more = f"; add it to the fpath in ~/.zshrc: fpath=({path.parent} $fpath)" if shell == "zsh" else ""
    run.note(f"wrote {path}{more}")


def _completion_path(shell: str, environ: Mapping[str, str]) -> Path:
    """Where each shell's own documentation has a user's completions."""
    home = environ.get("HOME")
    data, config = (environ.get(f"XDG_{kind}_HOME") for kind in ("DATA", "CONFIG"))
    if home is None and data is None:
        raise UsageError("there is no home directory to install it in", hint="print it, without --install")
    share = Path(data or f"{home}/.local/share")
    if shell == "fish":
        return Path(config or f"{home}/.config") / "fish" / "completions" / "epoch-oci.fish"
    if shell == "zsh":
        return share / "zsh" / "site-functions" / "_epoch-oci"
    return share / "bash-completion" / "completions" / "epoch-oci"


def man(run: "Run", command: flags.Topic = None, output: flags.PagesOutput = None) -> None:
    """Print a manual page, or write all of them into a directory.

    `epoch-oci man push | man -l -` shows one. A package has them in share/man.
    """
    from epoch_oci.cli.app import VERBS, spec
    from epoch_oci.cli.help import man_page, man_pages
    from epoch_oci.cli.parser import no_such_command

    if command is not None and command not in VERBS:
        raise no_such_command(command, VERBS)
    if output is None:
        write_result(man_page(spec(command) if command else None, VERBS))
        return
    pages = man_pages(VERBS)
    _install("-o", Path(output), pages)
    run.note(f"wrote {len(pages)} pages to {output}")


def _install(flag: str, folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts that everybody may read, each as a whole. Raises UsageError, ConflictError, LocalIOError."""
    from epoch_oci.directories import refuse_file

    refuse_file(folder, "name a directory")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalIOError(f"{folder}: {(error.strerror or str(error)).lower()}", object=str(folder)) from error
    for name, text in texts.items():
        write_file(output_file(flag, str(folder / name)), text.encode(), mode=_FOR_ALL)


def schemas(run: "Run", name: flags.SchemaName = None, directory: flags.SchemasDirectory = None) -> None:
    """List the JSON Schemas that come with the program, print one, or write them to files.

    They are those of the documents that are read and written, and of what commands print with --format json. What is
    printed or written is the schema byte for byte.
    """
    from epoch_oci import schemas as shipped
    from epoch_oci.cli.render import aligned
    from epoch_oci.errors import counted
    from epoch_oci.oci.digest import shown

    known = (*shipped.kinds(), *shipped.interfaces())
    names = known if name is None else (name.removesuffix(".schema.json"),)
    if name is not None and names[0] not in known:
        raise NotFoundError(f"there is no schema {shown(name)}", object=name, hint="`epoch-oci schemas` lists them")
    if directory is None and name is not None:
        write_result(shipped.text(names[0]))
        return
    if directory is not None:
        for each in names:
            _export(Path(directory) / f"{each}.schema.json", shipped.text(each))
    rows = [{"name": each, "title": shipped.schema(each)["title"], "id": shipped.schema(each)["$id"]} for each in names]
    written = f"Wrote {counted(len(names), 'schema')} to {directory}"
    table = aligned([("NAME", "TITLE", "ID"), *((row["name"], row["title"], row["id"]) for row in rows)])
    run.result({"schemas": rows}, lambda: [written] if directory is not None else table)


def _export(path: Path, raw: bytes) -> None:
    """Write a schema where there is none, or an older one. Raises ConflictError, LocalIOError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        older = path.exists()
        if older and not _is_schema_of_ours(path):
            hint = "choose another directory, or move it away"
            raise ConflictError(f"{path} is no schema of this program", object=str(path), hint=hint)
    except OSError as error:
        raise LocalIOError(f"{path}: {(error.strerror or str(error)).lower()}", object=str(path)) from error
    write_file(str(path), raw, replace=older, mode=_FOR_ALL)


def _is_schema_of_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return _SCHEMA_ID in file.read(_LONGEST_SCHEMA)
