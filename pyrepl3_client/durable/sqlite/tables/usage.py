"""How many bytes a session has on record."""

from collections.abc import Collection
from typing import Final

import msgspec

from pyrepl3_client.durable.sqlite.tables.database import Database

EXECUTION_BYTES: Final = 2048
"""What an execution takes beside its code and outcome: its rows, promises and their indexes."""
CALL_BYTES: Final = 512
"""The same of a call."""


class Usage:
    """Measures sessions; errors as in `SessionRecords`."""

    def __init__(self, database: Database) -> None:
        """Work on `database`."""
        self._database: Final = database
        self._execute: Final = database.execute

    def executions(self, session_id: str) -> int:
        """Return the bytes of all executions, with their calls and texts."""
        with self._database.read():
            (total,) = self._execute(
                "SELECT (SELECT coalesce(sum(:execution + length(CAST(code AS BLOB)) + length(options)"
                " + coalesce(length(outcome), 0)), 0) FROM executions WHERE session = :session)"
                " + (SELECT coalesce(sum(:call + coalesce(length(outcome), 0)), 0) FROM calls"
                " WHERE session = :session)"
                " + (SELECT coalesce(sum(size), 0) FROM texts WHERE session = :session)",
                {"session": session_id, "execution": EXECUTION_BYTES, "call": CALL_BYTES},
            ).fetchone()
        return int(total)

    def texts(self, session_id: str) -> int:
        """Return the bytes of all texts."""
        with self._database.read():
            (total,) = self._execute(
                "SELECT coalesce(sum(size), 0) FROM texts WHERE session = ?", (session_id,)
            ).fetchone()
        return int(total)

    def checkpoints(self, session_id: str, but: str | None = None, digests: Collection[str] = ()) -> int:
        """Return the bytes of checkpoints, each blob once.

        Args:
            session_id: the session.
            but: the id of one that does not count.
            digests: of blobs that count too, where they are in the store.
        """
        with self._database.read():
            (total,) = self._execute(
                "WITH mine AS (SELECT n, length(manifest) + length(unsaved) AS size FROM checkpoints"
                " WHERE session = :session AND id IS NOT :but)"
                " SELECT (SELECT coalesce(sum(size), 0) FROM mine)"
                " + (SELECT coalesce(sum(size), 0) FROM blobs WHERE digest IN"
                " (SELECT digest FROM checkpoint_blobs WHERE checkpoint IN (SELECT n FROM mine)"
                " UNION SELECT value FROM json_each(:digests)))",
                {"session": session_id, "but": but, "digests": msgspec.json.encode(digests).decode()},
            ).fetchone()
        return int(total)

    def absent(self, digests: Collection[str]) -> set[str]:
        """Return those of the digests of which the store has no blob."""
        with self._database.read():
            rows: list[tuple[str]] = self._execute(
                "SELECT value FROM json_each(?)"
                " WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = value)",
                (msgspec.json.encode(digests).decode(),),
            ).fetchall()
        return {digest for (digest,) in rows}
