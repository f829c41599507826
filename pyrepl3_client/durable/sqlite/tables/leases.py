"""Who owns a session: one at a time, under a token that grows, so that a former owner is fenced off."""

from collections.abc import Callable
from typing import Final

from msgspec import Struct
from resonate.timing import Clock

from pyrepl3_client.durable.sqlite.tables.database import Database
from pyrepl3_client.errors import LeaseLost, SessionBusy


class Lease(Struct, frozen=True):
    """The right to write for a session. `token` grows with each new owner; times are in milliseconds."""

    session_id: str
    owner: str
    token: int
    acquired_at: int
    expires_at: int


class LeaseTable:
    """The leases on all sessions in a store; errors as in `SessionRecords`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Work on `database`; `clock` returns milliseconds since the epoch."""
        self._database: Final = database
        self._execute: Final = database.execute
        self._clock: Final = clock

    def acquire(
        self, session_id: str, owner: str, ttl: float, is_dead: Callable[[str], bool] | None = None
    ) -> Lease:
        """Become the owner of a session for `ttl` seconds: a new one, or one whose lease has lapsed.

        The same owner gets a new lease at once; its old one no longer counts.

        Args:
            session_id: the session.
            owner: who wants it.
            ttl: seconds, from now.
            is_dead: returns of the present owner whether it is known to be gone, so that its lease need
                not lapse first. By default that is never known.

        Raises:
            SessionBusy: the session has another owner.
        """
        now = self._clock()
        with self._database.write():
            row = self._execute(
                "SELECT owner, token, expires_at FROM sessions WHERE id = ?", (session_id,)
            ).fetchone()
            token = 1
            if row is not None:
                other, last, expires_at = row
                lives = now < expires_at and not (is_dead is not None and is_dead(other))
                if other not in ("", owner) and lives:
                    raise SessionBusy(session_id, other, expires_at, (expires_at - now) / 1000)
                token = last + 1
            lease = Lease(session_id, owner, token, now, now + int(ttl * 1000))
            self._execute(
                "INSERT INTO sessions (id, owner, token, acquired_at, expires_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, token = excluded.token,"
                " acquired_at = excluded.acquired_at, expires_at = excluded.expires_at",
                (session_id, owner, token, now, lease.expires_at),
            )
        return lease

    def renew(self, lease: Lease, ttl: float) -> Lease:
        """Own the session for `ttl` seconds from now. A lapsed lease without a new owner is renewed."""
        expires_at = self._clock() + int(ttl * 1000)
        with self._database.write():
            self.require(lease)
            self._execute("UPDATE sessions SET expires_at = ? WHERE id = ?", (expires_at, lease.session_id))
        return Lease(lease.session_id, lease.owner, lease.token, lease.acquired_at, expires_at)

    def release(self, lease: Lease) -> None:
        """Release the session, so that the next owner need not wait. A lost lease is no error."""
        with self._database.write():
            # The row stays: it keeps the token from starting over.
            self._execute(
                "UPDATE sessions SET owner = '', expires_at = 0 WHERE id = ? AND token = ?",
                (lease.session_id, lease.token),
            )

    def level(self, session_id: str) -> str | None:
        """Return the confinement level of a session's code; None if none is on record."""
        with self._database.read():
            row = self._execute("SELECT confinement FROM sessions WHERE id = ?", (session_id,)).fetchone()
        return None if row is None else row[0]

    def set_level(self, lease: Lease, level: str) -> None:
        """Record the confinement level of the session's code."""
        with self._database.write():
            self.require(lease)
            self._execute("UPDATE sessions SET confinement = ? WHERE id = ?", (level, lease.session_id))

    def check(self, lease: Lease) -> None:
        """Raise `LeaseLost` unless the lease still counts."""
        with self._database.read():
            self.require(lease)

    def require(self, lease: Lease) -> None:
        """Raise `LeaseLost` unless the lease counts, which then holds for the rest of the transaction."""
        row = self._execute(
            "SELECT token, owner, acquired_at FROM sessions WHERE id = ?", (lease.session_id,)
        ).fetchone()
        token, owner, since = (0, "", 0) if row is None else row
        if token != lease.token or not owner:
            raise LeaseLost(lease.session_id, owner or None, since if owner else None)
