"""A sync that goes on for ever: a round, a wait, a round, and how it fares for whoever watches."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epoch_oci.bulk.results import SyncReport
from epoch_oci.dataclass import dataclass
from epoch_oci.disk.draft import new_file
from epoch_oci.errors import EpochOciError, InterruptedTransferError, LocalIOError, NotFoundError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEnd:
    """How a round went: its report, or what kept it from beginning. `seconds` of wall-clock time; times are UTC."""

    number: int
    began: datetime
    seconds: float
    report: SyncReport | None
    error: EpochOciError | None

    @property
    def ok(self) -> bool:
        """Whether everything is at the target now."""
        return self.report is not None and not self.report.failures

    def to_json(self) -> dict[str, Any]:
        """The content of the health file."""
        report = self.report
        return {
            "round": self.number,
            "ok": self.ok,
            "began": self.began.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "counts": report.to_json()["counts"] if report else None,
            "bytesTransferred": report.bytes_moved if report else 0,
            "error": None if self.error is None else {"code": self.error.code, "message": str(self.error)},
        }


def rounds(
    once: Callable[[], SyncReport], span: float, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[RoundEnd]:
    """Do `once` again and again, with `span` seconds from the beginning of one round to that of the next.

    A round that takes longer is followed by the next one at once. What a round raises is its own failure.
    """
    number = 0
    while True:
        number += 1
        began, clock = datetime.now(UTC), time.monotonic()
        report, error = None, None
        try:
            report = once()
        except EpochOciError as raised:
            # No later round will do any better, or there is to be none.
            if isinstance(raised, UsageError | InterruptedTransferError):
                raise
            error = raised
        yield RoundEnd(number=number, began=began, seconds=time.monotonic() - clock, report=report, error=error)
        sleep(max(0.0, span - (time.monotonic() - clock)))


@dataclass(frozen=True, slots=True)
class HealthFile:
    """A file that always holds how the last round went, whole."""

    path: Path

    def __call__(self, ended: RoundEnd) -> None:
        """Write it. Raises LocalIOError."""
        try:
            # For whoever watches, who need not be the one that syncs.
            with new_file(self.path, replace=True, mode=0o644) as draft:
                draft.write(json.dumps(ended.to_json(), indent=2).encode() + b"\n")
        except NotFoundError as error:  # somebody took the directory away between two rounds
            raise LocalIOError(f"{self.path}: {error.message}", object=str(self.path)) from error


class Metrics:
    """Prometheus metrics, served at `address` (`HOST:PORT`; without a host on loopback) by the official client."""

    def __init__(self, address: str) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
        except ImportError:
            raise UsageError(
                "--metrics needs the Prometheus client", hint="install epoch-oci with its extra: epoch-oci[metrics]"
            ) from None
        host, port = _address(address)
        self.registry: CollectorRegistry = CollectorRegistry()
        self._rounds = Counter("epoch_oci_sync_rounds", "Rounds that ended.", ["outcome"], registry=self.registry)
        self._snapshots = Counter(
            "epoch_oci_sync_snapshots", "Snapshots by what came of them.", ["outcome"], registry=self.registry
        )
        self._bytes = Counter("epoch_oci_sync_moved_bytes", "Bytes moved.", registry=self.registry)
        self._last = Gauge("epoch_oci_sync_last_success_timestamp_seconds", "End of it.", registry=self.registry)
        self._failed = Gauge("epoch_oci_sync_failed", "Snapshots that failed last.", registry=self.registry)
        self._seconds = Gauge("epoch_oci_sync_round_seconds", "Length of the last round.", registry=self.registry)
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise LocalIOError(
                f"--metrics {address}: {(error.strerror or 'failed').lower()}", object=address
            ) from error

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self._server.server_port)

    def __call__(self, ended: RoundEnd) -> None:
        """Count a round in."""
        self._rounds.labels("ok" if ended.ok else "failed").inc()
        self._seconds.set(ended.seconds)
        if ended.ok:
            self._last.set_to_current_time()
        if ended.report is not None:
            self._failed.set(len(ended.report.failures))
            self._bytes.inc(ended.report.bytes_moved)
            for row in ended.report.rows:
                self._snapshots.labels(row.action).inc()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(
            f"--metrics cannot be {text}", object=text, hint="write HOST:PORT; :PORT is this machine alone"
        )
    return host.strip("[]") or "127.0.0.1", int(port)
