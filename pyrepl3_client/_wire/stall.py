"""A timer for a worker that begins a frame and does not go on with it.

A frame is written in one call, so the rest of one that has begun is under way, however busy the worker is: it
only stops between two pieces when the process stops, or breaks the protocol. Between frames a worker may be
silent for as long as it likes.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from pyrepl3_client.errors import ProtocolError
from pyrepl3_schemas.framing import FrameDecoder

_LEAST_PROGRESS: Final = 64 * 1024
"""Bytes of a frame that have to come within the time; less is as good as nothing."""


class StallError(ProtocolError):
    """A frame has not gone on: the worker is stuck, or was stopped from outside."""


class StallDetector:
    """Checks, every so many seconds, whether a frame that has begun goes on.

    It costs a timer where a chunk ends inside a frame and none is set, and nothing elsewhere: it is not
    stopped when the frame has ended, but checked when the time is up.
    """

    __slots__ = ("_frames", "_loop", "_mark", "_on_stall", "_seconds", "_timer", "drained", "running")

    def __init__(
        self, frames: FrameDecoder, seconds: float | None, on_stall: Callable[[ProtocolError], None]
    ) -> None:
        """Watch `frames`; tell `on_stall` when one stops for `seconds` (None: never)."""
        self._loop = asyncio.get_running_loop()
        self._frames = frames
        self._seconds = seconds
        self._on_stall = on_stall
        self._mark = (0, 0)
        self._timer: asyncio.TimerHandle | None = None
        self.running = seconds is None
        """Whether `start` need not be called."""
        self.drained = True
        """Whether the last read has taken all that was there; else the client is the slow side."""

    def start(self) -> None:
        """Start the timer, if a frame has begun."""
        if self._frames.buffered and self._seconds is not None:
            self.running = True
            self._mark = (self._frames.offset, self._frames.buffered)
            self._timer = self._loop.call_later(self._seconds, self._check)

    def stop(self) -> None:
        """Stop the timer: reading has stopped, and what does not come is no fault of the worker's."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.running = False

    def _check(self) -> None:
        # A loop that was held up reads first and looks at timers then, so what was there has been read.
        self._timer = None
        self.running = False
        offset, before = self._mark
        held = self._frames.buffered
        if held and self._frames.offset == offset and self.drained and held - before < _LEAST_PROGRESS:
            text = f"it stopped inside a frame, after {held:,} bytes of it, for {self._seconds:g} seconds"
            self._on_stall(StallError(f"{text} (stall_timeout)", offset))
        else:
            self.start()
