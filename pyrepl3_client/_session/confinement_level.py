"""The confinement level on record: a session that ran strictly confined is not opened weaker by oversight.

What its code has saved is loaded before any cell runs, and runs code of its own then. So the level is
compared before a worker is started, and once more, with what is in force, before the worker loads anything.
"""

from typing import Final

from pyrepl3_client._journal.protocol import Journal
from pyrepl3_client.config import WorkerConfig
from pyrepl3_client.errors import WeakerConfinement
from pyrepl3_schemas.confinement import Level
from pyrepl3_schemas.messages import Ready

_STRENGTH: Final[dict[str, int]] = {"none": 0, "limits": 1, "strict": 2}
_OWN_PROCESSES: Final = "processes"
"""What a strict worker has in force only where the machine can keep all of the level."""


class RecordedLevel:
    """The confinement level that a session has on record. Make it with `read`."""

    def __init__(self, journal: Journal, session_id: str, level: Level | None, *, may_weaken: bool) -> None:
        """Have `level` on record; None if nothing is."""
        self._journal = journal
        self._session_id = session_id
        self._level = level
        self._may_weaken = may_weaken

    @classmethod
    async def read(
        cls, journal: Journal, session_id: str, config: WorkerConfig, *, may_weaken: bool
    ) -> "RecordedLevel":
        """Read the level on record, and compare it with the one that is asked for.

        Args:
            journal: the session's record.
            session_id: the session.
            config: has the level that is asked for.
            may_weaken: whether a weaker one will do.

        Raises:
            WeakerConfinement: a weaker one is asked for.
            StoreError: the record cannot be read.
        """
        recorded = cls(journal, session_id, await journal.level(), may_weaken=may_weaken)
        recorded._check(config.confinement, f"it is opened with confinement={config.confinement!r}")
        return recorded

    async def put_in_force(self, config: WorkerConfig, ready: Ready | None) -> None:
        """Record the level at which the session runs from now on, in a worker that has loaded nothing yet.

        Args:
            config: what the worker was started with.
            ready: what the worker says of itself, as far as that was verified.

        Raises:
            WeakerConfinement: this machine keeps less than what is on record.
            StoreError: it cannot be recorded.
        """
        level = config.confinement
        features = () if ready is None else ready.confinement
        if level == "strict" and not config.confinement_required and _OWN_PROCESSES not in features:
            level = "limits"
        self._check(
            level, "this machine cannot keep that, and confinement_required=False lets it run with less"
        )
        if level != self._level:
            await self._journal.record_level(level)
            self._level = level

    def _check(self, level: Level, what: str) -> None:
        if self._level is not None and not self._may_weaken and _STRENGTH[level] < _STRENGTH[self._level]:
            raise WeakerConfinement(self._session_id, self._level, level, what)
