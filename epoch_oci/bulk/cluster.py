"""The pieces of a sync on a Dask cluster: an existing one, or one of processes on this machine.

The engine is Dask's. A piece is words and digests: each worker opens both ends itself, with the credentials that its
own environment has, and nothing that is secret is in a task, a log or the scheduler's state.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import field
from typing import Any
from urllib.parse import urlsplit

from epoch_oci import __version__
from epoch_oci.bulk.ration import Rationed, Rations, queue_size
from epoch_oci.bulk.run import Task, perform
from epoch_oci.bulk.sides import Entry, RegistrySide, Side, StoreSide, open_side, store_of
from epoch_oci.bulk.union import Wanted
from epoch_oci.bulk.work import Done, Local, Manner
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, EpochOciError, NetworkError, UsageError
from epoch_oci.events import Event, OnEvent
from epoch_oci.flows.copy import pointed
from epoch_oci.locate import Connection
from epoch_oci.oci.digest import Digest
from epoch_oci.stores.epoch_store import EpochStore

_PORT = 8786
_CONNECT_SECONDS = 15
_AWAY_SECONDS = 60
"""How long a scheduler may be away while pieces are under way."""
_LOOK_SECONDS = 0.2
_TRIES = 3
"""How often a piece is begun again because the scheduler lost it."""


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
    """What a worker needs to open both ends; `connect` is called there.

    `run` names this run among those that the scheduler knows of, `leases` is how many pieces may be at one registry,
    `rate` how many bytes a second the whole cluster may move.
    """

    source: str
    target: str
    repositories: tuple[str, ...]
    connect: Callable[[Reach], Connection]
    reach: Reach
    rate: int | None = None
    run: str = ""
    leases: int = 8


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
        # Pieces come by the thousand, and opening means certificates, tokens and a look at the disk.
        if words not in _opened:
            connection = words.connect(words.reach)
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
            )
        return _opened[words]


def work(words: Words, manner: Manner, task: Task) -> Done:
    """Do a piece on the worker that this is called on."""
    dask = _dask()
    ends, worker, client = _ends(words), dask.get_worker(), dask.get_client()
    if isinstance(ends.local.throttle, Rationed):
        ends.local.throttle.queue = _portions(client, words)
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
    # By registry and not by worker: it is the registry that answers 429, and it does not know our machines.
    with _dask().Semaphore(max_leases=words.leases, name=f"{words.run}-{host}"):
        yield


def _portions(client: Any, words: Words) -> Any:
    """What the rate of the whole cluster is handed out by."""
    return _dask().Queue(f"{words.run}-rate", client=client, maxsize=queue_size(words.rate or 1))


def _pause(client: Any, words: Words, host: str, seconds: float) -> None:
    """A registry has asked one of us to wait: nobody begins anything there before that."""
    asked = time.time() + seconds
    if asked > _until(client, words, host):  # who was asked for longer is not overruled
        _dask().Variable(f"{words.run}-{host}", client=client).set(asked)


def _wait_for(client: Any, words: Words, host: str) -> None:
    time.sleep(max(0.0, _until(client, words, host) - time.time()))


def _until(client: Any, words: Words, host: str) -> float:
    """Until when nothing is to begin at a registry. A scheduler that was started anew knows of nothing."""
    try:
        return float(_dask().Variable(f"{words.run}-{host}", client=client).get(timeout=_CONNECT_SECONDS))
    except TimeoutError:
        return 0.0


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
            # A worker that lacks a module fails in its own way; whatever it is, it is told before the first piece.
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
    # By our own members, so that what another version of Dask adds does no harm.
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
        _dask()
        try:
            parts = urlsplit(address)
            if parts.scheme not in ("tcp", "tls", "ws", "wss") or not parts.hostname:
                raise ValueError
            port = parts.port or _PORT
        except ValueError:
            raise UsageError(f"--scheduler cannot be {address}", object=address, hint="write tcp://HOST:8786") from None
        try:
            socket.create_connection((parts.hostname, port), _CONNECT_SECONDS).close()
            return cls(_connected(address))
        except (OSError, ValueError) as error:
            raise NetworkError(
                f"there is no Dask scheduler at {address}",
                object=address,
                hint="look at its host and port, and whether it runs: dask scheduler",
                retryable=False,
            ) from error

    @classmethod
    def of(cls, workers: int, pieces: int) -> "Cluster":
        """So many worker processes on this machine, with `pieces` under way in all, and in each at least one."""
        dask = _dask()
        local = dask.LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, -(-pieces // workers)),
            processes=True,
            dashboard_address="127.0.0.1:0",  # None is port 8787 on every interface
            # Dask logs every worker that ends, which is what workers do.
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
    def scheduler(self) -> str:
        """What tells this scheduler from one that was started anew."""
        return str(self.client.scheduler_info().get("id", ""))

    @property
    def threads(self) -> dict[str, int]:
        """By worker, how many pieces it does at a time."""
        return dict(self.client.nthreads())

    def check(self, words: Words, sample: Wanted) -> None:
        """A preflight on every worker. Raises UsageError for other versions, AccessError for what some of them lack."""
        if not self.threads:
            raise NetworkError("the Dask cluster has no workers", hint="start some: dask worker tcp://HOST:8786")
        self._check_versions()
        found = self.client.run(preflight, words, sample.source, sample.target, str(sample.pinned), on_error="return")
        lacking = {worker: problems for worker, seen in found.items() if (problems := _problems(seen))}
        if lacking:
            named = "; ".join(f"{worker}: {problems}" for worker, problems in sorted(lacking.items()))
            raise AccessError(
                f"{len(lacking)} of {len(found)} workers cannot do their part: {named}",
                hint="each worker needs credentials, paths and EPOCH_S3_* settings in its own environment",
            )

    def _check_versions(self) -> None:
        """Asked by what travels as a whole: what another version calls its modules and members is anybody's guess."""

        def look() -> str:
            try:
                import epoch_oci
            except ImportError:
                return ""
            return epoch_oci.__version__

        found = self.client.run(look, on_error="return")
        others = {worker: _version(seen) for worker, seen in found.items() if seen != __version__}
        if others:
            named = ", ".join(f"{worker} {has}" for worker, has in sorted(others.items()))
            raise UsageError(f"this is epoch-oci {__version__}, and {named}", hint=_INSTALL)

    def crew(self, words: Words, manner: Manner, heard: OnEvent, sample: Wanted) -> "DaskCrew":
        """Those who do the pieces of one run. Raises as `check`, with which it begins."""
        self.check(words, sample)
        rations = Rations(lambda: _portions(self.client, words), words.rate).start() if words.rate else None
        crew = DaskCrew(self, words, manner, heard, sample, rations, slots=max(1, sum(self.threads.values())))
        crew.announce()
        return crew

    def comes_back(self) -> bool:
        """Whether the scheduler is there, or there again within the time that this connection waits for it."""
        while self.client.status == "connecting":
            time.sleep(_LOOK_SECONDS)
        if self.client.status != "running":
            return False
        with contextlib.suppress(TimeoutError):
            self.client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        return True


def _connected(address: str) -> Any:
    """A client of the scheduler there. Raises OSError, also where something else answers: Dask would wait for ever."""
    came: Future[Any] = Future()

    def connect() -> None:
        try:
            came.set_result(_dask().Client(address, timeout=_AWAY_SECONDS, set_as_default=False))
        except Exception as error:
            came.set_exception(error)

    threading.Thread(target=connect, name="connect", daemon=True).start()
    return came.result(_CONNECT_SECONDS)


def _version(seen: object) -> str:
    if isinstance(seen, str):
        return f"has {seen}" if seen else "has none"
    return f"cannot tell ({seen})"


def _problems(seen: object) -> str:
    if not isinstance(seen, dict):
        return str(seen)
    return f"({seen['host']}) {', '.join(seen['problems'])}" if seen["problems"] else ""


_INSTALL = "install the same version of epoch-oci on every worker"


def _hosts(words: Words) -> set[str]:
    ends = _ends(words)
    return {side.registry for side in (ends.source, ends.target) if isinstance(side, RegistrySide)}


@dataclass(slots=True)
class DaskCrew:
    """A crew on a cluster. `slots` is one piece for each of its threads; registries have leases of their own."""

    cluster: Cluster
    words: Words
    manner: Manner
    heard: OnEvent
    sample: Wanted
    rations: Rations | None
    slots: int
    _announced_to: str = field(default="", init=False)

    def announce(self) -> None:
        """Tell the scheduler of this run: nothing pauses, and its events are wanted here."""

        def listen(event: tuple[float, dict[str, Any]]) -> None:
            self.heard(_heard(event[1]))

        client = self.cluster.client
        for host in _hosts(self.words):
            _dask().Variable(f"{self.words.run}-{host}", client=client).set(0.0)
        client.subscribe_topic(self.words.run, listen)
        self._announced_to = self.cluster.scheduler

    def submit(self, task: Task) -> "Future[Done]":
        """As `Crew.submit`. A piece whose worker died is done again by another one, as Dask has it.

        So is one of which a scheduler that was started anew knows nothing, when that was soon.
        """
        outer: Future[Done] = Future()
        self._submit(task, outer, _TRIES)
        return outer

    def close(self) -> None:
        """Hand out nothing more."""
        if self.rations is not None:
            self.rations.close()

    def _submit(self, task: Task, outer: "Future[Done]", tries: int) -> None:
        # `pure=False`: two pieces of the same words are two pieces, and Dask would answer the second from the first.
        inner = self.cluster.client.submit(work, self.words, self.manner, task, pure=False)

        def ended(future: Any) -> None:
            try:
                _pass_on(future, outer)
            except Exception as error:
                if not (tries and _is_lost(error) and self._begins_again(task, outer, tries - 1)):
                    outer.set_exception(_ours(error))

        inner.add_done_callback(ended)

    def _begins_again(self, task: Task, outer: "Future[Done]", tries: int) -> bool:
        """Whether there is a scheduler to give it to; the first piece that was lost waits for one."""
        try:
            if not self.cluster.comes_back():
                return False
            if self._announced_to != self.cluster.scheduler:
                self.cluster.check(self.words, self.sample)
                self.announce()
            self._submit(task, outer, tries)
        except Exception as error:  # whoever waits for the piece has to hear of it
            outer.set_exception(_ours(error))
        return True


def _pass_on(inner: Any, outer: "Future[Done]") -> None:
    """Pass the outcome of a Dask future on. Raises the exception that it has, or Dask's own where it was lost."""
    if inner.status == "error":
        raise inner.exception(timeout=_CONNECT_SECONDS)
    outer.set_result(inner.result(timeout=_CONNECT_SECONDS))


def _is_lost(error: BaseException) -> bool:
    """Whether the piece is unknown to the cluster, or what came of it; a worker that it killed is another matter."""
    return isinstance(error, OSError | TimeoutError) or type(error).__name__.endswith("CancelledError")


def _ours(error: BaseException) -> BaseException:
    if isinstance(error, EpochOciError):
        return error
    if _is_lost(error) or type(error).__name__ == "KilledWorker":
        why = f" ({type(error).__name__})"
        return NetworkError(f"the cluster lost the worker or the scheduler{why}", hint="run the same command again")
    return error


def hush() -> None:
    """Keep Dask's log of this process to itself: what goes wrong is an error here, and shown as one.

    Raises UsageError where Dask is not installed, which has to be loaded for that.
    """
    _dask()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def _dask() -> Any:
    try:
        import distributed
    except ImportError:
        raise UsageError("a cluster needs Dask", hint="install epoch-oci with its extra: epoch-oci[dask]") from None
    return distributed
