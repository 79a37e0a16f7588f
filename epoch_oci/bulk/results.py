"""What a sync tells: one row a snapshot, and sums."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

from epoch_oci.dataclass import dataclass
from epoch_oci.errors import EpochOciError

Action = Literal["synced", "there", "failed", "left-out", "sync", "deleted", "delete"]
"""`sync` and `delete` are what a dry run would do; `left-out` has no legal name at the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One snapshot. Sizes are bytes, `seconds` wall-clock time; `repository` is where at the target it belongs."""

    source: str
    target: str
    action: Action
    repository: str = ""
    digest: str | None = None
    size: int = 0
    moved: int = 0
    reused: int = 0
    seconds: float = 0.0
    error: EpochOciError | None = None
    exit_code: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        error = self.error
        told = {"code": error.code, "message": str(error), "exit": self.exit_code} if error is not None else None
        return {
            "source": self.source or None,
            "target": self.target or None,
            "repository": self.repository or None,
            "action": self.action,
            "digest": self.digest,
            "size": self.size,
            "bytesTransferred": self.moved,
            "bytesReused": self.reused,
            "seconds": round(self.seconds, 3),
            "error": told,
        }


@dataclass(slots=True, kw_only=True)
class SyncReport:
    """The result of a sync. Sizes are bytes as in `union.SyncPlan`; `bytes_moved` is what came from the source.

    `blobs` are the rows of shared blobs that were carried ahead: how many, and their bytes are part of `bytes_moved`.
    """

    source: str
    target: str
    rows: list[Row] = field(default_factory=list)
    dry_run: bool = False
    seconds: float = 0.0
    retries: int = 0
    old: int = 0
    total: int = 0
    union: int = 0
    mounted: int = 0
    bytes_moved: int = 0
    shared: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[Row]:
        """What was not brought, or not as it should have been."""
        return [row for row in self.rows if row.error is not None]

    @property
    def saved(self) -> int:
        """Bytes that would have moved as well had each snapshot that is through been treated alone."""
        through = self.total - sum(row.size for row in self.rows if row.action == "failed")
        # A blob that had to be sent twice makes it negative, and nothing was saved then.
        return max(0, through - self.bytes_moved)

    def count(self, action: Action) -> int:
        """How many rows say so."""
        return sum(row.action == action for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """As the command-line contract spells it."""
        actions: Sequence[Action] = ("synced", "there", "failed", "left-out", "sync", "deleted", "delete")
        counts: Mapping[str, int] = {action: self.count(action) for action in actions}
        return {
            "command": "sync",
            "source": self.source,
            "target": self.target,
            "dryRun": self.dry_run,
            "snapshots": [row.to_json() for row in self.rows],
            "counts": {**counts, "tooOld": self.old},
            "bytes": {
                "total": self.total,
                "union": self.union,
                "shared": self.shared,
                "mounted": self.mounted,
                "moved": self.bytes_moved,
                "saved": self.saved,
            },
            "bytesTransferred": self.bytes_moved,
            "retries": self.retries,
            "seconds": round(self.seconds, 3),
            "warnings": self.warnings,
        }
