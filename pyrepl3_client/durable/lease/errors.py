"""What a store raises when a session has another owner."""

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
            f"session {self.session_id!r} is owned by {self.owner!r}, whose lease lapses in "
            f"{self.remaining:.1f} s unless renewed; close it there, wait, or use another session id"
        )


class LeaseLost(StoreError):  # noqa: N818 - names what happened, like SessionClosed
    """The session has another owner by now (or none): this lease no longer counts.

    Args:
        session_id: the session.
        owner: who owns it now, or None.
    """

    def __init__(self, session_id: str, owner: str | None) -> None:
        """Keep every argument in order, so that the error pickles."""
        super().__init__(session_id, owner)
        self.session_id = session_id
        self.owner = owner

    def __str__(self) -> str:
        """Return a text that names the present owner."""
        now = "no process" if self.owner is None else repr(self.owner)
        return (
            f"the lease on session {self.session_id!r} has lapsed and was taken over: it is owned by {now} "
            "now; nothing more can be recorded from here, open the session again"
        )
