"""What a store raises when a session has another owner."""

from datetime import UTC, datetime

from pyrepl3_client.durable.lease.owner import describe
from pyrepl3_client.errors import StoreError


class SessionBusy(StoreError):  # noqa: N818 - a state of the session
    """The session has another owner.

    Args:
        session_id: the session.
        owner: who owns it.
        expires_at: when that lease lapses unless renewed, in milliseconds since the epoch.
        remaining: seconds until then.
    """

    def __init__(self, session_id: str, owner: str, expires_at: int, remaining: float) -> None:
        """Keep every argument in order, so that the error pickles."""
        super().__init__(session_id, owner, expires_at, remaining)
        self.session_id = session_id
        self.owner = owner
        self.expires_at = expires_at
        self.remaining = remaining

    def __str__(self) -> str:
        """Return who owns it, for how long, and what to do."""
        return (
            f"session {self.session_id!r} is owned by {describe(self.owner)}, whose lease lapses in "
            f"{self.remaining:.1f} s unless renewed; close it there, wait, or use another session id"
        )


class LeaseLost(StoreError):  # noqa: N818 - names what happened, like SessionClosed
    """The session has another owner by now (or none): this lease no longer counts.

    Args:
        session_id: the session.
        owner: who owns it now, or None.
        since: when that owner has taken it, in milliseconds since the epoch; None if that is not known.
    """

    def __init__(self, session_id: str, owner: str | None, since: int | None = None) -> None:
        """Keep every argument in order, so that the error pickles."""
        super().__init__(session_id, owner, since)
        self.session_id = session_id
        self.owner = owner
        self.since = since

    def __str__(self) -> str:
        """Return who has the session now, since when, why, and what to do."""
        why = "this process had not renewed its lease in time (it was stopped, or the machine slept)"
        if self.owner is None:
            return (
                f"session {self.session_id!r} was taken over by another process and given up again, as {why};"
                " nothing more can be recorded from here: open the session again"
            )
        when = "" if self.since is None else f" since {_local_time(self.since)}"
        return (
            f"session {self.session_id!r} belongs to {describe(self.owner)}{when}, as {why}; nothing more "
            "can be recorded from here: go on there, or close it there and open the session again"
        )


def _local_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().isoformat(" ", "seconds")
