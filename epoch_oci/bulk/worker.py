"""What runs on the workers of a cluster: a piece, asked for by words and digests, and what it tells meanwhile.

Each worker opens both ends itself, with the credentials that its own environment has.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields, replace
from typing import Any

from epoch_oci import __version__
from epoch_oci.bulk.ration import Rationed, queue_size
from epoch_oci.bulk.run import Task, perform
from epoch_oci.bulk.sides import Entry, RegistrySide, Side, StoreSide, open_side, store_of
from epoch_oci.bulk.union import Wanted
from epoch_oci.bulk.work import Done, Local, Manner
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import ContentError, EpochOciError, UsageError
from epoch_oci.events import Event
from epoch_oci.flows.copy import pointed
from epoch_oci.locate import Connection
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.epoch_store import EpochStore

CONNECT_SECONDS = 15
_LONGEST_PAUSE = 900.0
"""Seconds, as no registry is obeyed for longer; the clocks of two workers may be further apart than that."""


Options = tuple[tuple[str, Any], ...]
"""Options by name, as values that can be hashed and pickled. None of them is a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a worker needs to open both ends; `connect` is called there, with `options`.

    `run` names this run among those that the scheduler knows of, `leases` is how many pieces may be at one registry,
    `rate` how many bytes a second the whole cluster may move. `hide` takes out of a text what is secret on the worker
    that it is called on: nobody else knows that.
    """

    source: str
    target: str
    repositories: tuple[str, ...]
    connect: Callable[[Options], Connection]
    options: Options
    rate: int | None = None
    run: str = ""
    leases: int = 8
    hide: Callable[[str], str] = str


@dataclass(slots=True)
class _Relay:
    """What pieces and registries say on a worker, for the process that plans. Safe for threads.

    `client` and `worker` are Dask's; without them, as in a preflight, nobody is told.
    """

    words: Words
    client: Any = None
    worker: Any = None

    def hear(self, event: Event) -> None:
        """Take an event; a registry that asks to wait is left alone by all workers."""
        if self.worker is None:
            return
        if event.event == "wait" and event.seconds and event.registry:
            # That the scheduler is away is found out elsewhere; it must not be what a transfer fails of.
            with contextlib.suppress(Exception):
                _pause(self.client, self.words, event.registry, event.seconds)
        if event.message:
            event = replace(event, message=self.words.hide(event.message))
        self.worker.log_event(self.words.run, told_of(event))


@dataclass(frozen=True, slots=True)
class _Ends:
    source: Side
    target: Side
    local: Local
    relay: _Relay


_opened: dict[Words, _Ends] = {}
_fit: set[Words] = set()
"""For whom this process has shown that it can do its part."""
_opening = threading.Lock()


def ends_of(words: Words) -> _Ends:
    """Both ends, opened once in each process."""
    with _opening:
        # Pieces come by the thousand, and opening means certificates, tokens and a look at the disk.
        if words not in _opened:
            relay = _Relay(words)
            connection = replace(words.connect(words.options), on_event=relay.hear)
            state = connection.state_directory
            target = open_side(words.target, connection=connection, create=True)
            if isinstance(target, StoreSide) and isinstance(target.store, EpochStore):
                # Workers that each wrote the catalog would take turns at one object; this process writes it for all.
                target.store.leave_unlisted()
            _opened[words] = _Ends(
                open_side(words.source, connection=connection, repositories=words.repositories),
                target,
                Local(
                    connection.cache_directory,
                    state / "packs" if state else None,
                    Rationed(words.rate) if words.rate else None,
                ),
                relay,
            )
        return _opened[words]


def work(words: Words, manner: Manner, task: Task) -> Done:
    """Do a piece on the worker that this is called on."""
    ends, client = ends_of(words), dask().get_client()
    ends.relay.client, ends.relay.worker = client, dask().get_worker()
    if isinstance(ends.local.throttle, Rationed):
        ends.local.throttle.queue = portions(client, words)
    hosts = sorted({side.registry for side in (ends.source, ends.target) if isinstance(side, RegistrySide)})
    with ExitStack() as leases:
        for host in hosts:
            leases.enter_context(_lease(client, words, host))
            _wait_for(client, words, host)
        return perform(task, ends.source, ends.target, manner, ends.local, ends.relay.hear)


@contextlib.contextmanager
def _lease(client: Any, words: Words, host: str) -> Iterator[None]:
    """The right to have a piece under way at a registry: so many across the whole cluster."""
    # By registry and not by worker: it is the registry that answers 429, and it does not know our machines.
    with dask().Semaphore(max_leases=words.leases, name=f"{words.run}-{host}"):
        yield


def portions(client: Any, words: Words) -> Any:
    """What the rate of the whole cluster is handed out by."""
    return dask().Queue(f"{words.run}-rate", client=client, maxsize=queue_size(words.rate or 1))


def _pause(client: Any, words: Words, host: str, seconds: float) -> None:
    """A registry has asked one of us to wait: nobody begins anything there before that."""
    asked = time.time() + seconds
    if asked > _until(client, words, host):  # who was asked for longer is not overruled
        dask().Variable(f"{words.run}-{host}", client=client).set(asked)


def _wait_for(client: Any, words: Words, host: str) -> None:
    time.sleep(min(_LONGEST_PAUSE, max(0.0, _until(client, words, host) - time.time())))


def _until(client: Any, words: Words, host: str) -> float:
    """Until when nothing is to begin at a registry. A scheduler that was started anew knows of nothing."""
    try:
        return float(dask().Variable(f"{words.run}-{host}", client=client).get(timeout=CONNECT_SECONDS))
    except TimeoutError:
        return 0.0


def preflight(words: Words, source: Entry, target: Entry, pinned: str) -> dict[str, Any]:
    """What a worker lacks: its version, and what goes wrong when it looks at one snapshot at both ends."""
    problems = []
    if words.source and words not in _fit:
        try:
            ends = ends_of(words)
            store = store_of(ends.source, source)
            store.resolve(source.ref if ends.source.kind == "store" else pinned)
            pointed(store_of(ends.target, target), target.ref)
            _fit.add(words)
        except EpochOciError as error:
            problems.append(words.hide(f"{error.code}: {error.message}"))
        except Exception as error:
            # A worker that lacks a module fails in its own way; whatever it is, it is told before the first piece.
            problems.append(words.hide(f"{type(error).__name__}: {error}"))
    return {"version": __version__, "host": socket.gethostname(), "problems": problems}


def piece_for(version: str, letter: bytes) -> Any:
    """What travels for each piece: asks the worker first, for it may have come after the preflight.

    It travels as a whole, and what it opens as bytes: with another version either would fail in its own way.
    """

    def piece() -> Any:
        import pickle

        try:
            import epoch_oci

            has = epoch_oci.__version__
        except ImportError:
            has = ""
        if has != version:
            from distributed import get_worker

            return get_worker().address, f"has epoch-oci {has}" if has else "has no epoch-oci"
        from epoch_oci.bulk.worker import begin

        return begin(*pickle.loads(letter))  # noqa: S301 (it is from whoever gives this worker code to run)

    return piece


def begin(words: Words, manner: Manner, sample: Wanted, task: Task) -> "Done | tuple[str, str]":
    """Do a piece, or say where and why not, if this worker came after the preflight and cannot do its part."""
    problems = preflight(words, sample.source, sample.target, str(sample.pinned))["problems"]
    if problems:
        return dask().get_worker().address, f"cannot do its part: {', '.join(problems)}"
    try:
        return work(words, manner, task)
    except EpochOciError as error:
        _hide(error, words.hide)
        raise error from None


def _hide(error: EpochOciError, hide: Callable[[str], str]) -> None:
    """Take what is secret here out of an error: the scheduler keeps what is raised, and shows it."""
    error.message = hide(error.message)
    error.args = (error.message,)
    error.hint, error.object = (hide(text) if text else text for text in (error.hint, error.object))
    if isinstance(error, ContentError):
        error.findings = tuple(replace(item, problem=hide(item.problem)) for item in error.findings)


def told_of(event: Event) -> dict[str, Any]:
    """An event as the scheduler passes it on: plain values."""
    told = {field.name: getattr(event, field.name) for field in fields(Event)}
    return {**told, "digest": str(event.digest) if event.digest else None}


def heard_of(value: dict[str, Any]) -> Event:
    """The event that was told of."""
    # By our own members: the scheduler, and another version of Dask, add some of theirs.
    told = {field.name: value[field.name] for field in fields(Event)}
    return Event(**{**told, "digest": Digest.parse(told["digest"]) if told["digest"] else None})


def dask() -> Any:
    """The engine, loaded when it is needed. Raises UsageError where it is not installed."""
    try:
        import distributed
    except ImportError:
        raise UsageError("a cluster needs Dask", hint="install epoch-oci with its extra: epoch-oci[dask]") from None
    return distributed
