"""`RetryOnBusy`: waits for other processes' locks without blocking the event loop."""

import sqlite3
from collections.abc import Callable
from typing import Final

from resonate.timing import Sleeper

from pyrepl3_client.durable.sqlite.tables.errors import is_busy
from pyrepl3_client.errors import StoreBusy

# Seconds: the first wait for another process's lock, and the longest one; a transaction takes 0.1 ms.
_FIRST_WAIT: Final = 0.001
_LONGEST_WAIT: Final = 0.05


class RetryOnBusy:
    """Runs work again for as long as the file is locked, within a time limit.

    Args:
        busy_timeout: seconds.
        sleeper: waits for seconds, between two tries.
    """

    def __init__(self, busy_timeout: float, sleeper: Sleeper) -> None:
        """Wait for up to `busy_timeout` seconds each time."""
        self._busy_timeout: Final = busy_timeout
        self._sleeper: Final = sleeper

    async def run[T](self, work: Callable[[], T]) -> T:
        """Do `work`, one transaction, and again for as long as it finds the file locked.

        Raises:
            StoreBusy: as `work` raised it last, or
            sqlite3.Error: the same from SQLite itself, and every other error of `work`'s.
        """
        waited = 0.0
        while True:
            try:
                return work()
            except StoreBusy:
                if waited >= self._busy_timeout:
                    raise
            except sqlite3.Error as error:
                if not is_busy(error) or waited >= self._busy_timeout:
                    raise
            # Twice as long each time.
            wait = min(max(waited, _FIRST_WAIT), _LONGEST_WAIT)
            waited += wait
            await self._sleeper(wait)
