"""`login` and `logout`."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from epoch_oci.cli import flags
from epoch_oci.cli.streams import is_terminal
from epoch_oci.errors import UsageError

if TYPE_CHECKING:
    from epoch_oci.cli.session import Run


def login(run: "Run", host: flags.Host) -> None:
    """Keep the credentials of a registry.

    They are tried first. Asks for what is not given, on a terminal only.
    """
    from epoch_oci.locate import credential_store, registry_settings
    from epoch_oci.oci.reference import registry_named
    from epoch_oci.registry.repository import verify_login

    registry = registry_named(host)
    connection = run.connect(asks=True)
    username = connection.username or _asked_username(registry)
    if ":" in username:  # it ends at the first colon, in the header and in the file
        raise UsageError("a user's name holds no colon", object="--username", hint="give name and password apart")
    password = connection.password or _asked_password(run, username, registry)
    connection = replace(connection, username=username, password=password)
    # Before they are kept: a wrong password takes nobody's place.
    verify_login(registry, registry_settings(registry, connection))
    store = credential_store(run.connection)
    where, in_clear = store.keep(registry, username, password)
    if in_clear and not run.settings.quiet:
        run.note(f"{where} holds them in clear text; a credential helper named in it (credsStore) would not")
    # A variable is heard before the files that login writes to (docs/cli.md, Credentials, certificates, proxies).
    if (variable := store.overruled(registry)) is not None:
        run.warn(f"{variable} has credentials of {registry} too, and goes on being heard first")
    run.result(
        {"command": "login", "registry": registry, "username": username, "credentials": where},
        lambda: [f"Logged in to {registry} as {username}; the credentials are kept in {where}"],
    )


def logout(run: "Run", host: flags.Host) -> None:
    """Forget the credentials of a registry."""
    from epoch_oci.locate import credential_store
    from epoch_oci.oci.reference import registry_named

    registry = registry_named(host)
    store = credential_store(run.connection)
    forgotten, variable = store.forget(registry), store.overruled(registry)
    if variable is not None:
        run.warn(f"{variable} has credentials of {registry}, and goes on being heard until who set it takes them out")
    said = f"Logged out of {registry}" if forgotten else f"No credentials of {registry} were kept; nothing to forget"
    run.result({"command": "logout", "registry": registry, "forgotten": forgotten}, lambda: [said])


def _asked_username(registry: str) -> str:
    _need_terminal("--username U")
    # Not `input`, whose question may go to standard output: that has the result alone.
    sys.stderr.write(f"User of {registry}: ")
    sys.stderr.flush()
    username = sys.stdin.readline().strip()
    if not username:
        raise UsageError("no user was given", hint="say who logs in with --username U")
    return username


def _asked_password(run: "Run", username: str, registry: str) -> str:
    import getpass

    _need_terminal("--password-stdin")
    try:
        password = getpass.getpass(f"Password of {username} at {registry}: ", stream=sys.stderr)
    except EOFError:
        password = ""
    if not password:
        raise UsageError("no password was given", hint="type it, or pipe it in with --password-stdin")
    run.secrets.add(password)
    return password


def _need_terminal(flag: str) -> None:
    # `getpass` opens the terminal itself, whatever standard input is: a script would hang at a question nobody expects.
    if not is_terminal(sys.stdin):
        raise UsageError("there is no terminal to ask for the credentials on", hint=f"give {flag}")
