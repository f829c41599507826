"""The options for how a session survives its workers and its process."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyrepl3_client._journal.protocol import Journal, OnTrouble
from pyrepl3_client._session.recovery_report import Recovery, RecoveryPolicy
from pyrepl3_client.errors import StoreError

type OpenJournal = Callable[[str, Callable[[StoreError], None], OnTrouble, int | None], Awaitable[Journal]]
"""Opens a session's journal, for so many bytes; calls back when it is lost to another, and for trouble."""
type RecoveryHandler = Callable[[Recovery], Awaitable[None] | None]
"""Takes the report of a recovery when the session is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """How a session survives."""

    open_journal: OpenJournal | None = None
    """Opens the journal in a store; None records in this process's memory."""
    recovery: RecoveryPolicy = "auto"
    max_attempts: int = 3
    """How many workers an execution may cost before it is given up."""
    on_recovery: RecoveryHandler | None = None
    allow_weaker_confinement: bool = False
    """Whether the session may be opened with a weaker confinement than it has run with."""

    opened_by: str = "open_session()"
    """What gives such a session, in words."""

    @property
    def how_to_go_on(self) -> str:
        """What to do when the session is closed, in words."""
        if self.open_journal is None:
            return f"{self.opened_by} opens another one"
        return f"{self.opened_by} with its id and its store opens it again"
