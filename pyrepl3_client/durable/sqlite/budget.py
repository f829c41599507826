"""How much a session may put on record: `WorkerConfig.max_store_bytes`."""

from typing import Final

from pyrepl3_client.durable.sqlite.tables.usage import EXECUTION_BYTES
from pyrepl3_client.errors import StoreFull

OUTCOME_RESERVE: Final = 1024
"""An outcome of so many bytes has been paid for when its execution began."""


class StoreBudget:
    """Counts what a session has on record. One owner writes, so what it has written is all that is new."""

    def __init__(self, session_id: str, max_bytes: int | None) -> None:
        """Have nothing on record yet; None is no bound."""
        self._session_id: Final = session_id
        self._max_bytes: Final = max_bytes
        self._executions = 0
        self._checkpoints = 0

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound."""
        return self._max_bytes is not None

    def set_used(self, executions: int, checkpoints: int) -> None:
        """Take what is on record: bytes of executions with all that belongs to them, and of checkpoints."""
        self._executions, self._checkpoints = executions, checkpoints

    def set_checkpoints(self, count: int) -> None:
        """Take the bytes of all checkpoints that are on record now."""
        self._checkpoints = count

    def add(self, count: int) -> None:
        """Count bytes of executions that are on record now."""
        self._executions += count

    @property
    def room(self) -> int:
        """How many bytes may still be recorded."""
        return 2**62 if self._max_bytes is None else self._max_bytes - self._executions - self._checkpoints

    def require(self, what: str, count: int) -> None:
        """Check that there is room.

        Args:
            what: is to be recorded, for the error.
            count: bytes of it.

        Raises:
            StoreFull: there is not; nothing was recorded.
        """
        if count > self.room:
            raise StoreFull(self.refusal(what, count))

    def refusal(self, what: str, count: int) -> str:
        """Return in words that there is no room for so many bytes of something."""
        return (
            f"{what} takes {count:,} bytes, and session {self._session_id!r} has "
            f"{self._executions + self._checkpoints:,} of its {self._max_bytes:,} on record "
            "(max_store_bytes): open it with a larger one, or start a new session"
        )


def execution_bytes(code: str, options: bytes) -> int:
    """Return what an execution counts when it begins: `OUTCOME_RESERVE` of its outcome is paid for then."""
    return EXECUTION_BYTES + len(code.encode()) + len(options)
