"""The pieces of a sync on a Dask cluster: an existing one, or one of processes on this machine.

The engine is Dask's. A piece is words and digests: each worker opens both ends itself, with the credentials that its
own environment has, and nothing that is secret is in a task, a log or the scheduler's state.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from epoch_oci import __version__
from epoch_oci.bulk.opening import open_side
from epoch_oci.bulk.plan import Wanted
from epoch_oci.bulk.run import Task, perform
from epoch_oci.bulk.sides import Entry, RegistrySide, Side, StoreSide, store_of
from epoch_oci.bulk.work import Done, Local, Manner
from epoch_oci.errors import AccessError, EpochOciError, NetworkError, UsageError
from epoch_oci.events import Event, OnEvent
from epoch_oci.flows.copy import pointed
from epoch_oci.locate import Connection
from epoch_oci.oci.digest import Digest
from epoch_oci.transfer.throttle import Throttle

_CONNECT_SECONDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How places are reached, as far as it is no secret; the rest a worker has in its own environment."""

    plain_http: bool = False
    insecure: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    registry_config: str | None = None
    profile: str | None = None
    trusted_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a worker needs to open both ends. `connect` is called there; `rate` is its share, in bytes a second.

    `run` names this run among those that the scheduler knows of, `leases` is how many pieces may be at one registry.
    """

    source: str
    target: str
    repositories: tuple[str, ...]
    connect: Callable[[Reach], Connection]
    reach: Reach
    rate: int | None = None
    run: str = ""
    leases: int = 8


@runtime_checkable
class Unlisting(Protocol):
    """A store that keeps a list of its snapshots, and can leave that to another process."""

    def leave_unlisted(self) -> None:
        """As `EpochStore.leave_unlisted`."""


@dataclass(frozen=True, slots=True)
class _Ends:
    source: Side
    target: Side
    local: Local


_opened: dict[Words, _Ends] = {}
_opening = threading.Lock()


def _ends(words: Words) -> _Ends:
    """Both ends, opened once in each process."""
    with _opening:
        if words not in _opened:
            connection = words.connect(words.reach)
            state = connection.state_directory
            target = open_side(words.target, connection=connection, create=True)
            if isinstance(target, StoreSide) and isinstance(target.store, Unlisting):
                target.store.leave_unlisted()
            _opened[words] = _Ends(
                open_side(words.source, connection=connection, repositories=words.repositories),
                target,
                Local(
                    connection.cache_directory,
                    state / "packs" if state else None,
                    Throttle(words.rate) if words.rate else None,
                ),
            )
        return _opened[words]


def work(words: Words, manner: Manner, task: Task) -> Done:
    """Do a piece on the worker that this is called on."""
    dask = _dask()
    ends, worker, client = _ends(words), dask.get_worker(), dask.get_client()
    hosts = sorted({side.registry for side in (ends.source, ends.target) if isinstance(side, RegistrySide)})

    def hear(event: Event) -> None:
        if event.event == "wait" and event.seconds:
            for host in hosts:
                _pause(client, words, host, event.seconds)
        worker.log_event(words.run, _told(event))

    with ExitStack() as leases:
        for host in hosts:
            leases.enter_context(_lease(client, words, host))
            _wait_for(client, words, host)
        return perform(task, ends.source, ends.target, manner, ends.local, hear)


@contextlib.contextmanager
def _lease(client: Any, words: Words, host: str) -> Iterator[None]:
    """The right to have a piece under way at a registry: so many across the whole cluster."""
    with _dask().Semaphore(max_leases=words.leases, name=f"{words.run}-{host}"):
        yield


def _pause(client: Any, words: Words, host: str, seconds: float) -> None:
    """A registry has asked one of us to wait: nobody begins anything there before that."""
    _dask().Variable(f"{words.run}-{host}", client=client).set(time.time() + seconds)


def _wait_for(client: Any, words: Words, host: str) -> None:
    until = float(_dask().Variable(f"{words.run}-{host}", client=client).get(timeout=_CONNECT_SECONDS))
    time.sleep(max(0.0, until - time.time()))


def preflight(words: Words, source: Entry, target: Entry, pinned: str) -> dict[str, Any]:
    """What a worker lacks: its version, and what goes wrong when it looks at one snapshot at both ends."""
    problems = []
    if words.source:
        try:
            ends = _ends(words)
            store = store_of(ends.source, source)
            store.resolve(source.ref if ends.source.kind == "store" else pinned)
            pointed(store_of(ends.target, target), target.ref)
        except EpochOciError as error:
            problems.append(f"{error.code}: {error.message}")
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
    return {"version": __version__, "host": socket.gethostname(), "problems": problems}


def _told(event: Event) -> dict[str, Any]:
    """An event as the scheduler passes it on: plain values."""
    return {
        "event": event.event,
        "digest": str(event.digest) if event.digest else None,
        "title": event.title,
        "bytes": event.bytes,
        "total": event.total,
        "action": event.action,
        "message": event.message,
        "seconds": event.seconds,
        "snapshot": event.snapshot,
    }


def _heard(value: dict[str, Any]) -> Event:
    """The scheduler adds members of its own."""
    told = {key: value[key] for key in _told(_NOTHING)}
    return Event(**{**told, "digest": Digest.parse(told["digest"]) if told["digest"] else None})


_NOTHING = Event(event="done")


@dataclass(slots=True)
class Cluster:
    """A connection to a scheduler; `close` ends it, and the processes that were started for it."""

    client: Any
    _local: Any = field(default=None)

    @classmethod
    def at(cls, address: str) -> "Cluster":
        """The scheduler at `tcp://HOST:PORT`. Raises NetworkError, UsageError where Dask is not installed."""
        client = _dask().Client
        if urlsplit(address).scheme not in ("tcp", "tls", "ws", "wss"):
            raise UsageError(f"--scheduler cannot be {address}", object=address, hint="write tcp://HOST:8786")
        try:
            return cls(client(address, timeout=_CONNECT_SECONDS, set_as_default=False))
        except (OSError, ValueError) as error:
            raise NetworkError(f"there is no Dask scheduler at {address}", object=address, retryable=False) from error

    @classmethod
    def of(cls, workers: int, pieces: int) -> "Cluster":
        """So many worker processes on this machine, with `pieces` under way in all, and in each at least one."""
        dask = _dask()
        local = dask.LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, -(-pieces // workers)),
            processes=True,
            dashboard_address="127.0.0.1:0",  # None is port 8787 on every interface
            silence_logs=50,
        )
        return cls(dask.Client(local, set_as_default=False), local)

    def close(self) -> None:
        """Let go; pieces that are under way elsewhere are called off."""
        with contextlib.suppress(Exception):
            self.client.close(timeout=5)
        if self._local is not None:
            with contextlib.suppress(Exception):
                self._local.close(timeout=5)

    @property
    def threads(self) -> dict[str, int]:
        """By worker, how many pieces it does at a time."""
        return dict(self.client.nthreads())

    def check(self, words: Words, sample: Wanted) -> None:
        """A preflight on every worker. Raises UsageError for other versions, AccessError for what some of them lack."""
        if not self.threads:
            raise NetworkError("the Dask cluster has no workers", hint="start some: dask worker tcp://HOST:8786")
        try:
            found = self.client.run(
                preflight, words, sample.source, sample.target, str(sample.pinned), on_error="return"
            )
        except ImportError as error:
            raise UsageError(f"the workers cannot import epoch-oci: {error}", hint=_INSTALL) from error
        broken = {worker: seen for worker, seen in found.items() if not isinstance(seen, dict)}
        if broken:
            worker, why = next(iter(broken.items()))
            raise UsageError(f"worker {worker} cannot run epoch-oci {__version__}: {why}", hint=_INSTALL)
        others = {worker: seen["version"] for worker, seen in found.items() if seen["version"] != __version__}
        if others:
            named = ", ".join(f"{worker} has {version}" for worker, version in sorted(others.items()))
            raise UsageError(f"this is epoch-oci {__version__}, and {named}", hint=_INSTALL)
        lacking = {worker: seen for worker, seen in found.items() if seen["problems"]}
        if lacking:
            named = "; ".join(
                f"{worker} ({seen['host']}): {', '.join(seen['problems'])}" for worker, seen in sorted(lacking.items())
            )
            raise AccessError(
                f"{len(lacking)} of {len(found)} workers cannot do their part: {named}",
                hint="each worker needs credentials, paths and EPOCH_S3_* settings in its own environment",
            )

    def crew(self, words: Words, manner: Manner, heard: OnEvent) -> "DaskCrew":
        """Those who do the pieces of one run."""

        def listen(event: tuple[float, dict[str, Any]]) -> None:
            heard(_heard(event[1]))

        for host in _hosts(words):
            _dask().Variable(f"{words.run}-{host}", client=self.client).set(0.0)
        self.client.subscribe_topic(words.run, listen)
        return DaskCrew(self.client, words, manner, slots=max(1, sum(self.threads.values())))


_INSTALL = "install the same version of epoch-oci on every worker"


def _hosts(words: Words) -> set[str]:
    ends = _ends(words)
    return {side.registry for side in (ends.source, ends.target) if isinstance(side, RegistrySide)}


@dataclass(slots=True)
class DaskCrew:
    """A crew on a cluster. `slots` is one piece for each of its threads; registries have leases of their own."""

    client: Any
    words: Words
    manner: Manner
    slots: int

    def submit(self, task: Task) -> "Future[Done]":
        """As `Crew.submit`. A piece whose worker died is done again by another one, as Dask has it."""
        inner = self.client.submit(work, self.words, self.manner, task, pure=False)
        outer: Future[Done] = Future()

        def ended(future: Any) -> None:
            with contextlib.suppress(CancelledError):
                _pass_on(future, outer)

        inner.add_done_callback(ended)
        return outer


def _pass_on(inner: Any, outer: "Future[Done]") -> None:
    """The outcome of a Dask future; that the cluster lost it is a failure of the network."""
    if inner.status == "finished":
        try:
            outer.set_result(inner.result(timeout=_CONNECT_SECONDS))
        except Exception as error:
            outer.set_exception(_ours(error))
        return
    outer.set_exception(_ours(inner.exception(timeout=_CONNECT_SECONDS) if inner.status == "error" else None))


def _ours(error: BaseException | None) -> BaseException:
    if isinstance(error, EpochOciError):
        return error
    if error is None or type(error).__name__ in ("KilledWorker", "CancelledError", "CommClosedError", "TimeoutError"):
        why = f" ({type(error).__name__})" if error is not None else ""
        return NetworkError(f"the cluster lost the worker or the scheduler{why}", hint="run the same command again")
    return error


def _dask() -> Any:
    try:
        import distributed
    except ImportError:
        raise UsageError("a cluster needs Dask", hint="install epoch-oci with its extra: epoch-oci[dask]") from None
    return distributed
