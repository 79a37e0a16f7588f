"""The pieces of a sync on a Dask cluster: an existing one, or one of processes on this machine.

The engine is Dask's. A piece is words and digests: each worker opens both ends itself, with the credentials that its
own environment has, and nothing that is secret is in a task, a log or the scheduler's state.
"""

import contextlib
import logging
import pickle
import socket
import threading
import time
from asyncio import CancelledError
from concurrent.futures import Future
from dataclasses import field
from typing import Any
from urllib.parse import urlsplit

from epoch_oci import __version__
from epoch_oci.bulk.ration import Rations
from epoch_oci.bulk.run import Task
from epoch_oci.bulk.sides import RegistrySide
from epoch_oci.bulk.union import Wanted
from epoch_oci.bulk.work import Done, Manner
from epoch_oci.bulk.worker import CONNECT_SECONDS, Words, dask, ends_of, heard_of, piece_for, portions, preflight
from epoch_oci.dataclass import dataclass
from epoch_oci.errors import AccessError, EpochOciError, NetworkError, UsageError
from epoch_oci.events import Event, OnEvent

_PORT = 8786
_AWAY_SECONDS = 60
"""How long a scheduler may be away while pieces are under way; what is lost in that time is lost in one outage."""
_RECONNECT_SECONDS = 5
"""How long Dask has to connect anew before it is done here."""
_LOOK_SECONDS = 0.2
_OUTAGES = 3
"""In how many outages a piece is begun again because the scheduler lost it."""


@dataclass(slots=True)
class Cluster:
    """A connection to a scheduler; `close` ends it, and the processes that were started for it."""

    client: Any
    address: str
    _local: Any = field(default=None)
    _closed: bool = field(default=False, init=False)
    _away_since: float | None = field(default=None, init=False)

    @classmethod
    def at(cls, address: str) -> "Cluster":
        """The scheduler at `tcp://HOST:PORT`. Raises NetworkError, UsageError where Dask is not installed."""
        dask()
        try:
            parts = urlsplit(address)
            if parts.scheme not in ("tcp", "tls", "ws", "wss") or not parts.hostname:
                raise ValueError
            port = parts.port or _PORT
        except ValueError:
            raise UsageError(f"--scheduler cannot be {address}", object=address, hint="write tcp://HOST:8786") from None
        try:
            socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
            return cls(_connected(address), address)
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
        local = dask().LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, -(-pieces // workers)),
            processes=True,
            dashboard_address="127.0.0.1:0",  # None is port 8787 on every interface
            # Dask logs every worker that ends, which is what workers do.
            silence_logs=50,
        )
        return cls(dask().Client(local, set_as_default=False), local.scheduler_address, local)

    def close(self) -> None:
        """Let go; pieces that are under way elsewhere are called off."""
        self._closed = True  # first: what is called off looks as if it were lost
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
        """Those who do the pieces of one run. Raises as `check`, and NetworkError where the scheduler is lost."""
        try:
            self.check(words, sample)
            rations = Rations(lambda: portions(self.client, words), words.rate).start() if words.rate else None
            crew = DaskCrew(self, words, manner, heard, sample, rations, slots=max(1, sum(self.threads.values())))
            crew.announce()
        except EpochOciError:
            raise
        except (Exception, CancelledError) as error:
            raise _ours(error) from error
        return crew

    def comes_back(self) -> bool:
        """Whether the scheduler is there, or there again within a minute of when it was first missed."""
        while not self._closed:
            if self._is_connected():
                self._away_since = None
                return True
            self._away_since = self._away_since or time.monotonic()
            # The first piece that asks waits; for the others the time is over.
            if time.monotonic() > self._away_since + _AWAY_SECONDS:
                _drop(self.client)
                break
            self._connect_anew()
        return False

    def _is_connected(self) -> bool:
        """Whether Dask has a connection, for which it is left some time when it is about to make one."""
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while self.client.status == "connecting" and time.monotonic() < deadline and not self._closed:
            time.sleep(_LOOK_SECONDS)
        return bool(self.client.status == "running")

    def _connect_anew(self) -> None:
        """Dask tries again by itself, but gives up for good, without a word, when an attempt is cut in its middle."""
        time.sleep(_LOOK_SECONDS)
        try:
            fresh = Cluster.at(self.address).client
        except NetworkError:
            return
        # In this order: whoever submits meanwhile must not meet the one that is closed.
        last, self.client = (fresh, self.client) if self._closed else (self.client, fresh)
        _drop(last)


def _drop(client: Any) -> None:
    """End a connection, so that what waits in it for the scheduler is lost now instead of never."""
    with contextlib.suppress(Exception):
        client.close(timeout=_LOOK_SECONDS)


def _connected(address: str) -> Any:
    """A client of the scheduler there. Raises OSError, also where something else answers: Dask would wait for ever."""
    came: Future[Any] = Future()

    def connect() -> None:
        try:
            came.set_result(dask().Client(address, timeout=_AWAY_SECONDS, set_as_default=False))
        except Exception as error:
            came.set_exception(error)

    threading.Thread(target=connect, name="connect", daemon=True).start()
    return came.result(CONNECT_SECONDS)


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
    ends = ends_of(words)
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
    _refused: dict[str, str] = field(default_factory=dict, init=False)
    _said: set[str] = field(default_factory=set, init=False)
    _outage: int = field(default=0, init=False)
    _outage_since: float = field(default=float("-inf"), init=False)

    def announce(self) -> None:
        """Tell a scheduler of this run, where nothing pauses yet; by each new connection, what is to be heard."""

        def listen(event: tuple[float, dict[str, Any]]) -> None:
            told = heard_of(event[1])
            # What is odd about a registry is so for every worker, and each of them says it.
            if told.event == "warning":
                if told.message in self._said:
                    return
                self._said.add(told.message or "")
            self.heard(told)

        client, scheduler = self.cluster.client, self.cluster.scheduler
        if scheduler != self._announced_to:
            for host in _hosts(self.words):
                dask().Variable(f"{self.words.run}-{host}", client=client).set(0.0)
        client.subscribe_topic(self.words.run, listen)
        self._announced_to = scheduler

    def submit(self, task: Task) -> "Future[Done]":
        """As `Crew.submit`. A piece whose worker died is done again by another one, as Dask has it.

        So is one of which a scheduler that was started anew knows nothing, when that was soon.
        """
        outer: Future[Done] = Future()
        try:
            self._submit(task, outer, frozenset())
        except Exception as error:
            if not _is_lost(error):
                raise
            outer.set_exception(_ours(error))  # of a scheduler that did not come back
        return outer

    def close(self) -> None:
        """Hand out nothing more."""
        if self.rations is not None:
            self.rations.close()

    def _submit(self, task: Task, outer: "Future[Done]", lost_in: frozenset[int]) -> None:
        letter = pickle.dumps((self.words, self.manner, self.sample, task))
        # `pure=False`: two pieces of the same words are two pieces, and Dask would answer the second from the first.
        inner = self.cluster.client.submit(piece_for(__version__, letter), pure=False, **self._only_fit())

        def ended(future: Any) -> None:
            try:
                refusal = _pass_on(future, outer)
                if refusal is not None:
                    self._refuse(*refusal)
                    self._submit(task, outer, lost_in)
            except BaseException as error:  # asyncio's cancellation, of which Dask makes use, is no Exception
                if not (_is_lost(error) and self._begins_again(task, outer, lost_in)):
                    outer.set_exception(_ours(error))

        inner.add_done_callback(ended)

    def _refuse(self, worker: str, why: str) -> None:
        """Give a worker nothing more, and say so once. Raises UsageError when there is no other one."""
        told = worker in self._refused
        self._refused[worker] = why
        if self.cluster.threads.keys() <= self._refused.keys():
            raise UsageError(f"no worker of the cluster can do its part: {worker} {why}", hint=_INSTALL)
        if not told:
            self.heard(Event(event="warning", message=f"the worker {worker} is given nothing more: it {why}"))

    def _only_fit(self) -> dict[str, Any]:
        """Where a piece may go, as far as that is not everywhere."""
        if not self._refused:
            return {}
        with contextlib.suppress(Exception):  # a scheduler that is away is heard of by the piece itself
            fit = sorted(self.cluster.threads.keys() - self._refused.keys())
            # Loosely: when all of these are gone another one is asked, which may have come since, or refuses.
            return {"workers": fit, "allow_other_workers": True} if fit else {}
        return {}

    def _begins_again(self, task: Task, outer: "Future[Done]", lost_in: frozenset[int]) -> bool:
        """Whether there is a scheduler to give it to; the first piece that was lost waits for one, and for a worker."""
        outage = self._lost()
        if outage in lost_in:
            time.sleep(_LOOK_SECONDS)
        lost_in |= {outage}
        deadline = time.monotonic() + _AWAY_SECONDS
        while len(lost_in) <= _OUTAGES:
            try:
                if not self.cluster.comes_back():
                    return False
                if self._announced_to != self.cluster.scheduler:
                    self.cluster.client.wait_for_workers(1, timeout=CONNECT_SECONDS)
                    self.cluster.check(self.words, self.sample)
                self.announce()
                self._submit(task, outer, lost_in)
            except BaseException as error:
                # That a connection ended with the scheduler is found out by using it, so the first attempts may fail of
                # that; and a scheduler is there some time before its workers are.
                if _is_lost(error) and time.monotonic() < deadline:
                    time.sleep(_LOOK_SECONDS)
                    continue
                outer.set_exception(_ours(error))  # whoever waits for the piece has to hear of it
            return True
        return False

    def _lost(self) -> int:
        """Something was lost: in which outage."""
        if time.monotonic() > self._outage_since + _AWAY_SECONDS:
            self._outage, self._outage_since = self._outage + 1, time.monotonic()
        return self._outage


def _pass_on(inner: Any, outer: "Future[Done]") -> tuple[str, str] | None:
    """Pass the outcome of a Dask future on, or return which worker refused the piece and why.

    Raises the exception that it has, or Dask's own where it was lost.
    """
    if inner.status == "error":
        raise inner.exception(timeout=CONNECT_SECONDS)
    found: Done | tuple[str, str] = inner.result(timeout=CONNECT_SECONDS)
    if isinstance(found, tuple):
        return found
    outer.set_result(found)
    return None


def _is_lost(error: BaseException) -> bool:
    """Whether the piece is unknown to the cluster, or what came of it; a worker that it killed is another matter."""
    named = type(error).__name__
    return isinstance(error, OSError) or named.endswith("CancelledError") or named == "ClosedClientError"


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
    dask()
    # Its configuration gives some of its loggers a level of their own; what its event loop was doing when a connection
    # ended is told by asyncio and tornado.
    for name in ("distributed", "asyncio", "tornado", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "asyncio", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
