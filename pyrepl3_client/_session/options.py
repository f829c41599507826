"""How a session is to survive, and how patiently it is given new workers."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pyrepl3_client._journal.protocol import Journal
from pyrepl3_client._session.recovery_report import Recovery, RecoveryPolicy
from pyrepl3_client.errors import StoreError

type OpenJournal = Callable[[str, Callable[[StoreError], None]], Awaitable[Journal]]
"""Opens a session's journal; calls back when the session is lost to another owner."""
type RecoveryHandler = Callable[[Recovery], Awaitable[None] | None]
"""Takes the report of a recovery when the session is back."""

_QUICK: Final = 10.0
"""Deaths within so many seconds are a series."""
_SERIES: Final = 3
"""So many deaths in a series cost nothing but their time."""
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """How a session survives."""

    open_journal: OpenJournal | None = None
    """Opens the journal in a store; None records in this process's memory."""
    recovery: RecoveryPolicy = "auto"
    max_attempts: int = 3
    """How many workers an execution may cost before it is given up."""
    on_recovery: RecoveryHandler | None = None


class Backoff:
    """Decides how long to wait before the next worker: not at all, unless they die one after the other."""

    def __init__(self) -> None:
        """No worker has died yet."""
        self._deaths: deque[float] = deque(maxlen=16)

    def next(self, now: float) -> float:
        """Count a death at `now` (seconds of any steady clock); give the seconds to wait."""
        self._deaths.append(now)
        series = sum(1 for death in self._deaths if now - death < _QUICK)
        return 0.0 if series <= _SERIES else min(_FIRST_WAIT * 2 ** (series - _SERIES - 1), _LONGEST_WAIT)
