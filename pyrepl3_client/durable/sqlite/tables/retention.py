"""Deletes settled promises and unnamed blobs, a batch at a time."""

from typing import Final

from msgspec import Struct

from pyrepl3_client.durable.sqlite.tables.database import Database

# Promises looked at in one transaction: some 10 ms, for which other requests wait.
_BATCH: Final = 500


class Pruned(Struct, frozen=True):
    """How much was deleted."""

    promises: int = 0
    blobs: int = 0


class PruneStep(Struct, frozen=True):
    """Where pruning stands: everything up to `(settled_at, n)` has been looked at."""

    cutoff: int
    settled_at: int = 0
    n: int = 0
    pruned: Pruned = Pruned()
    done: bool = False


class Pruner:
    """Walks the settled promises from the oldest on, then the blobs."""

    def __init__(self, database: Database) -> None:
        """Prune `database`."""
        self._database: Final = database
        self._execute: Final = database.execute

    def begin(self, cutoff: int) -> PruneStep:
        """Start with what settled at or before `cutoff`, in milliseconds since the epoch."""
        return PruneStep(cutoff)

    def run_batch(self, step: PruneStep) -> PruneStep:
        """Do one batch, in a transaction, and return where the next one begins."""
        with self._database.transaction():
            rows: list[tuple[int, str, int]] = self._execute(
                "SELECT n, id, settled_at FROM promises"
                " WHERE settled_at <= ? AND (settled_at, n) > (?, ?) ORDER BY settled_at, n LIMIT ?",
                (step.cutoff, step.settled_at, step.n, _BATCH),
            ).fetchall()
            if not rows:
                blobs = self._sweep_blobs(step.cutoff)
                return PruneStep(step.cutoff, pruned=Pruned(step.pruned.promises, blobs), done=True)
            live: dict[str, bool] = {}
            deleted = 0
            for n, promise_id, _settled_at in rows:
                root = promise_id.partition(":")[0]
                if root not in live:
                    live[root] = self._is_pending(root)
                if not live[root]:
                    self._execute("DELETE FROM promises WHERE n = ?", (n,))
                    self._execute("DELETE FROM tasks WHERE id = ?", (promise_id,))
                    deleted += 1
        n, _id, settled_at = rows[-1]
        pruned = Pruned(step.pruned.promises + deleted, step.pruned.blobs)
        return PruneStep(step.cutoff, settled_at, n, pruned)

    def _is_pending(self, root: str) -> bool:
        """Return whether a promise of this lineage is pending."""
        # ";" follows ":" in ASCII, so this is the range of the ids that begin with "{root}:".
        (found,) = self._execute(
            "SELECT EXISTS (SELECT 1 FROM promises WHERE id = ? AND state = 'pending')"
            " OR EXISTS (SELECT 1 FROM promises WHERE id > ? AND id < ? AND state = 'pending')",
            (root, f"{root}:", f"{root};"),
        ).fetchone()
        return bool(found)

    def _sweep_blobs(self, cutoff: int) -> int:
        # A blob is touched when it is put, and named by a checkpoint after that: the age spares those
        # whose checkpoint is still being written.
        return self._execute(
            "DELETE FROM blobs WHERE touched_at <= ? AND NOT EXISTS"
            " (SELECT 1 FROM checkpoint_blobs c WHERE c.digest = blobs.digest)",
            (cutoff,),
        ).rowcount
