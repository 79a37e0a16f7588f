"""What a shell may complete of a word. It is asked at every tab key, so it looks at nothing but local directories."""

import contextlib
from collections.abc import Callable
from typing import get_args

import typer

from epoch_oci.cli.flags import Store
from epoch_oci.cli.settings import environment
from epoch_oci.errors import EpochOciError

SHELLS = ("bash", "zsh", "fish")
_STORES = get_args(Store)[1].sources
_MOST = 1000


def snapshots(ctx: typer.Context, incomplete: str) -> list[str]:
    """The snapshots of the store that the line or the environment names; none where that fails."""
    environ = environment()
    store = ctx.params.get("store") or next((environ[name] for name in _STORES if environ.get(name)), None)
    if not isinstance(store, str) or ("://" in store and not store.startswith("file://")):
        return []
    from epoch_oci.cli.streams import safe
    from epoch_oci.epoch.keys import SnapshotKey
    from epoch_oci.locate import open_store

    found: list[str] = []
    with contextlib.suppress(EpochOciError, OSError):
        for entry in open_store(store).snapshots():
            text = str(SnapshotKey(entry.name, entry.tag))
            if text.startswith(incomplete) and text == safe(text) and len(found) < _MOST:
                found.append(text)
    return found


def shells(incomplete: str) -> list[str]:
    """The shells there is a script for."""
    return [shell for shell in SHELLS if shell.startswith(incomplete)]


COMPLETERS: dict[str, Callable[..., list[str]]] = {"SNAPSHOT": snapshots, "LOCATION": snapshots, "SHELL": shells}
"""By the word's name."""
