"""The log of a session's executions: what ran, in which order, and what came of it."""

from typing import Final, Literal

from msgspec import Struct
from resonate.timing import Clock

from pyrepl3_client.durable.sqlite.tables.checksums import checksum, require_intact
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.leases import Lease, LeaseTable
from pyrepl3_client.errors import StoreError

type ExecutionStatus = Literal["started", "finished", "rejected"]


class ExecutionRow(Struct, frozen=True):
    """One execution of a session's log; `seq` counts from 1. Its outcome is read by `outcome`."""

    session_id: str
    seq: int
    execution_id: str
    code_digest: str
    code: str
    options: bytes
    status: ExecutionStatus
    attempts: int
    started_at: int
    finished_at: int | None


_EXECUTION: Final = (
    "SELECT session, seq, id, code_digest, code, options, status, attempts, started_at, finished_at"
    " FROM executions "
)


class ExecutionTable:
    """The executions of all sessions in a store; errors as in `SessionRecords`."""

    def __init__(self, database: Database, clock: Clock, leases: LeaseTable) -> None:
        """Work on `database`; `clock` returns milliseconds since the epoch."""
        self._database: Final = database
        self._execute: Final = database.execute
        self._clock: Final = clock
        self._leases: Final = leases

    def start(
        self, lease: Lease, execution_id: str, code_digest: str, code: str, options: bytes = b""
    ) -> tuple[ExecutionRow, bool]:
        """Log an execution as started, or look up the one of that id, whatever its code and status.

        The caller compares the digests, and replays what is finished.

        Args:
            lease: the session's.
            execution_id: new in this session, or not.
            code_digest: of the code.
            code: what is executed.
            options: how it is executed, in the caller's encoding.

        Returns:
            The execution, and whether it is new.
        """
        now = self._clock()
        with self._database.write():
            self._leases.require(lease)
            existing = self._get(lease.session_id, execution_id)
            if existing is not None:
                return existing, False
            (seq,) = self._execute(
                "INSERT INTO executions"
                " (session, seq, id, code_digest, code, options, status, attempts, started_at)"
                " VALUES (?, (SELECT coalesce(max(seq), 0) + 1 FROM executions WHERE session = ?),"
                " ?, ?, ?, ?, 'started', 0, ?) RETURNING seq",
                (lease.session_id, lease.session_id, execution_id, code_digest, code, options, now),
            ).fetchone()
        started = ExecutionRow(
            lease.session_id, seq, execution_id, code_digest, code, options, "started", 0, now, None
        )
        return started, True

    def add_death(self, lease: Lease, execution_id: str, by: int = 1) -> int:
        """Count one more attempt at an execution, or `by` more, and return the count."""
        with self._database.write():
            self._leases.require(lease)
            row = self._execute(
                "UPDATE executions SET attempts = attempts + ? WHERE session = ? AND id = ?"
                " RETURNING attempts",
                (by, lease.session_id, execution_id),
            ).fetchone()
            if row is None:
                raise _no_execution(lease.session_id, execution_id)
        return int(row[0])

    def finish(self, lease: Lease, execution_id: str, outcome: bytes, *, rejected: bool = False) -> bool:
        """Record an outcome, and return whether it was the first one: that one stays.

        Args:
            lease: the session's.
            execution_id: of a started execution.
            outcome: in the caller's encoding.
            rejected: the execution left no mark on the namespace and is not to be run again.

        Raises:
            StoreError: there is no such execution.
        """
        status = "rejected" if rejected else "finished"
        with self._database.write():
            self._leases.require(lease)
            self._database.note_bytes(len(outcome))
            changed = self._execute(
                "UPDATE executions SET status = ?, outcome = ?, outcome_crc = ?, finished_at = ?"
                " WHERE session = ? AND id = ? AND status = 'started'",
                (status, outcome, checksum(outcome), self._clock(), lease.session_id, execution_id),
            ).rowcount
            if not changed and self._get(lease.session_id, execution_id) is None:
                raise _no_execution(lease.session_id, execution_id)
        return changed > 0

    def get(self, session_id: str, execution_id: str) -> ExecutionRow | None:
        """Look up an execution."""
        with self._database.read():
            return self._get(session_id, execution_id)

    def _get(self, session_id: str, execution_id: str) -> ExecutionRow | None:
        row = self._execute(
            _EXECUTION + "WHERE session = ? AND id = ?", (session_id, execution_id)
        ).fetchone()
        return None if row is None else ExecutionRow(*row)

    def after(self, session_id: str, seq: int = 0) -> list[ExecutionRow]:
        """Return the executions after number `seq`, in order: what a recovery has to run again."""
        with self._database.read():
            rows = self._execute(
                _EXECUTION + "WHERE session = ? AND seq > ? ORDER BY seq", (session_id, seq)
            ).fetchall()
        return [ExecutionRow(*row) for row in rows]

    def up_to(self, session_id: str, seq: int) -> list[ExecutionRow]:
        """Return the executions up to number `seq`, in order."""
        with self._database.read():
            rows = self._execute(
                _EXECUTION + "WHERE session = ? AND seq <= ? ORDER BY seq", (session_id, seq)
            ).fetchall()
        return [ExecutionRow(*row) for row in rows]

    def unfinished(self, session_id: str, seq: int) -> list[ExecutionRow]:
        """Return the executions up to number `seq` that have not ended, in order."""
        with self._database.read():
            rows = self._execute(
                _EXECUTION + "WHERE session = ? AND seq <= ? AND status = 'started' ORDER BY seq",
                (session_id, seq),
            ).fetchall()
        return [ExecutionRow(*row) for row in rows]

    def outcome(self, session_id: str, execution_id: str) -> bytes | None:
        """Return the recorded outcome of an execution, None when it has none.

        Raises:
            StoreError: it is damaged.
        """
        with self._database.read():
            row = self._execute(
                "SELECT outcome, outcome_crc FROM executions WHERE session = ? AND id = ?",
                (session_id, execution_id),
            ).fetchone()
        if row is None or row[0] is None:
            return None
        what = f"the outcome of execution {execution_id!r} of session {session_id!r}"
        require_intact(what, self._database.path, row[1], row[0])
        return row[0]


def _no_execution(session_id: str, execution_id: str) -> StoreError:
    return StoreError(f"there is no execution {execution_id!r} in session {session_id!r}")
