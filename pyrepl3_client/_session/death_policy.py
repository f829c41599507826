"""What a worker's death means for its session, decided without touching anything.

The supervisor asks here, and then acts. Times are seconds of any steady clock, given by the caller, so a
decision depends on nothing but its arguments and the deaths that were counted before.
"""

from collections import deque
from collections.abc import Collection
from enum import Enum
from typing import Final

from pyrepl3_client._session.recovery_report import RecoveryPolicy
from pyrepl3_client.errors import DeathCertificate, PyRepl3Error, SpawnError, StoreError, make_worker_died

MAX_IDLE_DEATHS: Final = 10
"""Deaths in a row, while nothing runs, that are enough: what is brought back may be what kills."""
IN_A_ROW: Final = 60.0
"""Seconds from one such death to the next; what comes later has nothing to do with it."""
MAX_SPAWN_FAILURES: Final = 3
"""Starts of a worker that may fail during one recovery until it is given up."""

_QUICK: Final = 10.0
"""Deaths within so many seconds are a series."""
_SERIES: Final = 3
"""So many deaths in a series cost nothing but their time."""
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0


class SessionFate(Enum):
    """What a worker's death leads to."""

    RECOVER = "recover"
    STAY_DEAD = "stay dead"
    """The session's policy is to wait for `restart`."""
    GIVE_UP = "give up"
    """Too many workers have died while nothing ran."""


class InterruptedFate(Enum):
    """What becomes of an execution that a worker's death has interrupted."""

    END_STOPPED = "end as stopped"
    """It was being stopped, so it ends as stopped."""
    END_UNRECORDED = "end as unrecorded"
    """A call or prompt of it could not be recorded, so it ends with that error."""
    COUNT_DEATH = "count the death"
    """It ran: the death is counted against it, and `may_run_again` decides by the count."""


class Backoff:
    """Decides how long to wait before the next worker: not at all, unless they die one after the other."""

    def __init__(self) -> None:
        """No worker has died yet."""
        self._deaths: deque[float] = deque(maxlen=16)

    def next(self, now: float) -> float:
        """Count a death at `now`; return the seconds to wait."""
        self._deaths.append(now)
        series = sum(1 for death in self._deaths if now - death < _QUICK)
        return 0.0 if series <= _SERIES else min(_FIRST_WAIT * 2 ** (series - _SERIES - 1), _LONGEST_WAIT)


class DeathPolicy:
    """Decides for one session. Its only state is the deaths that it has counted."""

    def __init__(self, recovery: RecoveryPolicy, max_attempts: int) -> None:
        """Decide by `recovery`; an execution may cost `max_attempts` workers."""
        self._recovery = recovery
        self._max_attempts = max_attempts
        self._idle_deaths = 0
        """Workers in a row that have died with nothing run since the one before."""
        self._last_seq = -1
        """The number of the last execution at the last death."""
        self._last_death = 0.0

    def session_fate(self, certificate: DeathCertificate, last_seq: int, now: float) -> SessionFate:
        """Count the death of a worker that served the session, and decide what it leads to.

        Args:
            certificate: how it ended, and what ran.
            last_seq: the number of the last execution that was sent.
            now: when it ended.
        """
        if self._recovery == "none":
            return SessionFate.STAY_DEAD
        if last_seq != self._last_seq or now - self._last_death > IN_A_ROW:
            self._idle_deaths = 0
        self._idle_deaths = 0 if certificate.running else self._idle_deaths + 1
        self._last_seq, self._last_death = last_seq, now
        if self._idle_deaths < MAX_IDLE_DEATHS:
            return SessionFate.RECOVER
        self._idle_deaths = 0
        return SessionFate.GIVE_UP

    def may_run_again(self, certificate: DeathCertificate, deaths: int) -> bool:
        """Decide whether an execution that has cost `deaths` workers, the last one included, runs again.

        One that has ended its worker itself does not, since it would do so again: only one that was ended
        from outside.
        """
        return not certificate.own_doing and deaths < self._max_attempts


def interrupted_fates(
    running: str | None, stopping: Collection[str], unrecorded: Collection[str]
) -> dict[str, InterruptedFate]:
    """Decide about the executions that a death has interrupted.

    Args:
        running: the id of the execution that ran, if one did.
        stopping: the ids of those that were being stopped.
        unrecorded: the ids of those whose call or prompt could not be recorded.
    """
    fates = dict.fromkeys(stopping, InterruptedFate.END_STOPPED)
    if running is not None and running not in fates:
        failed = running in unrecorded
        fates[running] = InterruptedFate.END_UNRECORDED if failed else InterruptedFate.COUNT_DEATH
    return fates


def idle_deaths_error(session_id: str, certificate: DeathCertificate, *, reopenable: bool) -> PyRepl3Error:
    """Return what is told of a session that is given up since its workers die while nothing runs."""
    reopened = ", opening it again one with what is on record" if reopenable else ""
    what = (
        f"{MAX_IDLE_DEATHS} workers of session {session_id!r} died one after the other while nothing ran, so "
        f"it gets no other; restart() gives it one with an empty namespace{reopened}"
    )
    return make_worker_died(what, certificate)


def recovery_failed_error(error: SpawnError | StoreError) -> SpawnError | StoreError:
    """Return the error after a failed recovery; a store's failure may end, but too late for this session."""
    if not isinstance(error, StoreError):
        return error
    return StoreError(
        f"the session could not come back from its worker's death: {error}. Then open the session again: "
        "what is on record goes on"
    )
