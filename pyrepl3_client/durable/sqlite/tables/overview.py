"""The sessions of a store as a whole: which there are, and how one is deleted."""

from typing import Final

from msgspec import Struct

from pyrepl3_client.durable.sqlite.tables.checkpoints import CheckpointTable
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.leases import Lease, LeaseTable


class SessionRow(Struct, frozen=True):
    """A session; times are in milliseconds since the epoch."""

    session_id: str
    owner: str
    acquired_at: int
    expires_at: int
    confinement: str | None
    executions: int
    last_at: int | None


class Overview:
    """Reads of all sessions, and deletes one; errors as in `SessionRecords`."""

    def __init__(self, database: Database, leases: LeaseTable, checkpoints: CheckpointTable) -> None:
        """Work on `database`."""
        self._database: Final = database
        self._execute: Final = database.execute
        self._leases: Final = leases
        self._checkpoints: Final = checkpoints

    def sessions(self) -> list[SessionRow]:
        """Return all sessions, by their ids."""
        with self._database.read():
            rows = self._execute(
                "SELECT id, owner, acquired_at, expires_at, confinement,"
                " (SELECT count(*) FROM executions e WHERE e.session = s.id),"
                " (SELECT max(coalesce(finished_at, started_at)) FROM executions e WHERE e.session = s.id)"
                # One that was deleted keeps its row: a former owner has to find its token.
                " FROM sessions s WHERE acquired_at > 0 ORDER BY id"
            ).fetchall()
        return [SessionRow(*row) for row in rows]

    def delete(self, lease: Lease, prefix: str) -> None:
        """Delete a session with all that it has recorded; the lease counts no more.

        Args:
            lease: the session's.
            prefix: with which the ids of all its promises begin.
        """
        session = (lease.session_id,)
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        with self._database.write():
            self._leases.require(lease)
            rows: list[tuple[str]] = self._execute(
                "SELECT DISTINCT digest FROM checkpoint_blobs WHERE checkpoint IN"
                " (SELECT n FROM checkpoints WHERE session = ?)",
                session,
            ).fetchall()
            self._execute(
                "DELETE FROM checkpoint_blobs WHERE checkpoint IN"
                " (SELECT n FROM checkpoints WHERE session = ?)",
                session,
            )
            for table in ("checkpoints", "texts", "calls", "executions"):
                self._execute(f"DELETE FROM {table} WHERE session = ?", session)  # noqa: S608 - names of ours
            self._checkpoints.drop(digest for (digest,) in rows)
            for table, key in (
                ("promises", "id"),
                ("tasks", "id"),
                ("callbacks", "promise"),
                ("listeners", "promise"),
            ):
                self._execute(f"DELETE FROM {table} WHERE {key} >= ? AND {key} < ?", (prefix, after))  # noqa: S608 - as above
            self._execute(
                "UPDATE sessions SET owner = '', acquired_at = 0, expires_at = 0, confinement = NULL"
                " WHERE id = ?",
                session,
            )
