"""What an execution asked of the outside: the intent is recorded before, the outcome after it."""

from collections.abc import Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from pyrepl3_client.durable.sqlite.tables.checksums import checksum, require_intact
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.leases import Lease, LeaseTable
from pyrepl3_client.errors import StoreError

type CallState = Literal["intent", "done"]


class CallRow(Struct, frozen=True):
    """An input or capability call: the intent, then also the outcome."""

    session_id: str
    execution_id: str
    call_id: str
    name: str
    args_digest: str
    state: CallState
    attempt: int
    outcome: bytes | None


_CALL: Final = (
    "SELECT outcome_crc, session, execution, id, name, args_digest, state, attempt, outcome FROM calls "
)


class CallTable:
    """The input and capability calls of all sessions in a store; errors as in `SessionRecords`."""

    def __init__(self, database: Database, leases: LeaseTable) -> None:
        """Work on `database`."""
        self._database: Final = database
        self._execute: Final = database.execute
        self._leases: Final = leases

    def begin_call(
        self, lease: Lease, execution_id: str, call_id: str, name: str, args_digest: str
    ) -> tuple[CallRow, bool]:
        """Record that a call is about to be made, before it is.

        Returns:
            The call and True when it is new; the recorded one, as it stands, and False when it is not.
        """
        with self._database.write():
            self._leases.require(lease)
            existing = self._get(lease.session_id, execution_id, call_id)
            if existing is not None:
                return existing, False
            self._execute(
                "INSERT INTO calls (session, execution, id, name, args_digest, state, attempt)"
                " VALUES (?, ?, ?, ?, ?, 'intent', 1)",
                (lease.session_id, execution_id, call_id, name, args_digest),
            )
        return CallRow(lease.session_id, execution_id, call_id, name, args_digest, "intent", 1, None), True

    def retry_call(self, lease: Lease, execution_id: str, call_id: str) -> int:
        """Record that a call without outcome is about to be made again; return the number of the attempt.

        Raises:
            StoreError: there is no such call, or its outcome is known.
        """
        with self._database.write():
            self._leases.require(lease)
            row = self._execute(
                "UPDATE calls SET attempt = attempt + 1"
                " WHERE session = ? AND execution = ? AND id = ? AND state = 'intent' RETURNING attempt",
                (lease.session_id, execution_id, call_id),
            ).fetchone()
            if row is None:
                raise StoreError(f"there is no open call {call_id!r} in session {lease.session_id!r}")
        return int(row[0])

    def finish_call(self, lease: Lease, execution_id: str, call_id: str, outcome: bytes) -> None:
        """Record the outcome of a call, before the worker sees it. The first one stays.

        Raises:
            StoreError: its intent was never recorded.
        """
        with self._database.write():
            self._leases.require(lease)
            changed = self._execute(
                "UPDATE calls SET state = 'done', outcome = ?, outcome_crc = ?"
                " WHERE session = ? AND execution = ? AND id = ? AND state = 'intent'",
                (outcome, checksum(outcome), lease.session_id, execution_id, call_id),
            ).rowcount
            if not changed and self._get(lease.session_id, execution_id, call_id) is None:
                raise StoreError(f"there is no call {call_id!r} in session {lease.session_id!r}")

    def get(self, session_id: str, execution_id: str, call_id: str) -> CallRow | None:
        """Look up a call."""
        with self._database.read():
            return self._get(session_id, execution_id, call_id)

    def _get(self, session_id: str, execution_id: str, call_id: str) -> CallRow | None:
        row = self._execute(
            _CALL + "WHERE session = ? AND execution = ? AND id = ?", (session_id, execution_id, call_id)
        ).fetchone()
        return None if row is None else self._checked(row)

    def of(self, session_id: str, execution_id: str) -> list[CallRow]:
        """Return all calls of an execution, in the order of their intents."""
        with self._database.read():
            rows = self._execute(
                _CALL + "WHERE session = ? AND execution = ? ORDER BY rowid", (session_id, execution_id)
            ).fetchall()
        return [self._checked(row) for row in rows]

    def _checked(self, row: Sequence[Any]) -> CallRow:
        crc, *values = row
        call = CallRow(*values)
        if call.outcome is not None:
            what = f"the outcome of call {call.call_id!r} of session {call.session_id!r}"
            require_intact(what, self._database.path, crc, call.outcome)
        return call
