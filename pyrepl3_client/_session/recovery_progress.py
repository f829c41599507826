"""Tells what a recovery is at, while it takes long."""

import asyncio
from collections.abc import Callable
from typing import Final

from pyrepl3_client._session.recovery_report import RecoveryProgress
from pyrepl3_schemas.messages import Progress

_FIRST_SECONDS: Final = 1.0
"""How long a recovery may take without a word."""
_NEXT_SECONDS: Final = 0.5


class ProgressTeller:
    """Tells the newest state of a recovery after a second, then twice a second where it has changed."""

    def __init__(self, tell: Callable[[RecoveryProgress], None], began: float) -> None:
        """Call `tell` for a recovery that began at `began`, in seconds of the loop's clock."""
        self._tell = tell
        self._now = self._told = RecoveryProgress("starting a worker")
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = loop.call_at(began + _FIRST_SECONDS, self._on_time, True)

    def at(self, stage: str, name: str = "", done: int = 0, total: int = 0) -> None:
        """Note what the recovery is at."""
        self._now = RecoveryProgress(stage, name, done, total)

    def worker_is_at(self, progress: Progress) -> None:
        """Note what the worker tells of a restore."""
        self.at(progress.stage, progress.name, progress.done, progress.total)

    def _on_time(self, first: bool) -> None:  # noqa: FBT001 - a timer's argument
        if first or self._now != self._told:
            self._told = self._now
            self._tell(self._now)
        self._timer = asyncio.get_running_loop().call_later(_NEXT_SECONDS, self._on_time, False)

    def stop(self) -> None:
        """Tell no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
