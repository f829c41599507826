"""Keeps a worker from asking faster than it can be answered: while too much is open, nobody reads."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from pyrepl3_client._delivery import Valve

_MOST_OPEN: Final = 4096
_MOST_BYTES: Final = 64 * 1024 * 1024


class Throttle:
    """Counts the questions that are being answered, and the bytes that they hold."""

    def __init__(self, valve: Callable[[], Valve]) -> None:
        """Stop and start the reading of messages by `valve()`, which is the present worker's."""
        self._valve = valve
        self._held: Valve | None = None
        self._open = 0
        self._bytes = 0

    def add(self, task: asyncio.Task[None], size: int) -> None:
        """Count a question until its task is done."""
        self._open += 1
        self._bytes += size
        task.add_done_callback(partial(self._done, size))
        if self._open > _MOST_OPEN or self._bytes > _MOST_BYTES:
            valve = self._valve()
            if self._held is not valve:
                self._held = valve
                valve.hold(self)

    def _done(self, size: int, _: asyncio.Task[None]) -> None:
        self._open -= 1
        self._bytes -= size
        if self._held is not None and self._open <= _MOST_OPEN // 2 and self._bytes <= _MOST_BYTES // 2:
            self._held.release(self)
            self._held = None
