"""What executions wrote, where their outcomes do not hold all of it: in parts, the oldest of which may go."""

from typing import Final

from pyrepl3_client._journal.protocol import TextPart
from pyrepl3_client.durable.sqlite.tables.checksums import checksum, require_intact
from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.durable.sqlite.tables.leases import Lease, LeaseTable


class TextTable:
    """The texts of all sessions in a store; errors as in `SessionRecords`."""

    def __init__(self, database: Database, leases: LeaseTable) -> None:
        """Work on `database`."""
        self._database: Final = database
        self._execute: Final = database.execute
        self._leases: Final = leases

    def put(
        self, lease: Lease, execution_id: str, stream: str, n: int, part: TextPart, max_bytes: int
    ) -> bool:
        """Store a part of a text, in place of one that is there. See `Journal.put_text`."""
        with self._database.write():
            self._leases.require(lease)
            if part.data and not self._make_room(lease.session_id, execution_id, len(part.data), max_bytes):
                return False
            self._database.note_bytes(len(part.data))
            self._execute(
                "INSERT OR REPLACE INTO texts (session, execution, stream, n, size, ending, data, crc)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    lease.session_id,
                    execution_id,
                    stream,
                    n,
                    len(part.data),
                    part.end,
                    part.data,
                    checksum(part.data),
                ),
            )
        return True

    def _make_room(self, session_id: str, execution_id: str, size: int, max_bytes: int) -> bool:
        (used,) = self._execute(
            "SELECT coalesce(sum(size), 0) FROM texts WHERE session = ?", (session_id,)
        ).fetchone()
        while used + size > max_bytes:
            oldest = self._execute(
                "SELECT execution FROM texts WHERE session = ? AND execution <> ? ORDER BY rowid LIMIT 1",
                (session_id, execution_id),
            ).fetchone()
            if oldest is None:
                return False
            (gone,) = self._execute(
                "SELECT sum(size) FROM texts WHERE session = ? AND execution = ?", (session_id, *oldest)
            ).fetchone()
            self._execute("DELETE FROM texts WHERE session = ? AND execution = ?", (session_id, *oldest))
            used -= gone
        return True

    def keys(self, session_id: str, prefix: str) -> list[str]:
        """Return of which executions there are texts, of those whose ids begin with a prefix."""
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        with self._database.read():
            rows = self._execute(
                "SELECT DISTINCT execution FROM texts WHERE session = ? AND execution >= ? AND execution < ?",
                (session_id, prefix, after),
            ).fetchall()
        return [execution for (execution,) in rows]

    def drop(self, lease: Lease, execution_id: str) -> None:
        """Drop a text."""
        with self._database.write():
            self._leases.require(lease)
            self._execute(
                "DELETE FROM texts WHERE session = ? AND execution = ?", (lease.session_id, execution_id)
            )

    def count(self, session_id: str, execution_id: str, stream: str) -> int:
        """Return how many parts a text has."""
        with self._database.read():
            (count,) = self._execute(
                "SELECT coalesce(max(n), 0) FROM texts WHERE session = ? AND execution = ? AND stream = ?",
                (session_id, execution_id, stream),
            ).fetchone()
        return int(count)

    def get(self, session_id: str, execution_id: str, stream: str, n: int) -> TextPart | None:
        """Return a part of a text."""
        with self._database.read():
            row = self._execute(
                "SELECT crc, data, ending FROM texts"
                " WHERE session = ? AND execution = ? AND stream = ? AND n = ?",
                (session_id, execution_id, stream, n),
            ).fetchone()
        if row is None:
            return None
        what = f"what execution {execution_id!r} of session {session_id!r} wrote to {stream}"
        require_intact(what, self._database.path, row[0], row[1])
        return TextPart(*row[1:])
