"""The messages of one execution, kept for its iterations: bounded, in order, each once."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from pyrepl3_client._execution.backpressure import (
    HIGH_BYTES,
    LOW_BYTES,
    MESSAGE_BYTES,
    FlowControl,
    WaterMark,
)
from pyrepl3_schemas.messages import Call, Display, Error, Input, Output, Result

type Event = Output | Display | Input | Call | Result | Error
"""What an iteration over an execution yields; a `Result` or `Error` is the last."""

_HARD_FACTOR: Final = 8
"""How far the bound may be passed while reading cannot stop, since a cancel waits for its answer."""


class EventLog:
    """Events that no iteration has taken yet.

    While an iteration is open, a full log stops the reading of further messages. While none is, the
    oldest leave a full log (output is in the result all the same), and a line in their place says so.
    """

    __slots__ = ("_binds", "_dropped", "_events", "_flow_control", "_mark", "_size", "_waiters", "readers")

    def __init__(self, flow_control: Callable[[], FlowControl]) -> None:
        """Stop and restart reading by `flow_control()`, which is the present worker's."""
        self._flow_control = flow_control
        self._events: deque[Event] = deque()
        self._size = 0
        self._dropped = 0
        self._mark: WaterMark | None = None
        """Made when the log is full for the first time: most never are."""
        self._binds = True
        self._waiters: list[asyncio.Future[None]] = []
        self.readers = 0

    def add(self, event: Event) -> None:
        """Take an event."""
        self._events.append(event)
        self._size += size_of(event)
        if self._size > HIGH_BYTES:
            if self.readers and self._binds:
                if self._mark is None:
                    self._mark = WaterMark(HIGH_BYTES, LOW_BYTES, self._flow_control)
                self._mark.rise(self._size)
            limit = HIGH_BYTES * (_HARD_FACTOR if self.readers else 1)
            while self._size > limit and len(self._events) > 1:
                size = size_of(self._events.popleft())
                self._size -= size
                self._dropped += size
        self.wake()

    def take(self) -> Event | None:
        """Return the next event, None when there is none yet."""
        if self._dropped:
            text = f"\n… {self._dropped:,} bytes of earlier output are in the result only …\n"
            self._dropped = 0
            return Output(stream="stderr", data=text)
        if not self._events:
            return None
        event = self._events.popleft()
        self._size -= size_of(event)
        if self._mark is not None:
            self._mark.fall(self._size)
        return event

    def unbind(self) -> None:
        """Never stop reading from now on: the last event has come, and what is read belongs to others."""
        self._binds = False
        self.release()

    def release(self) -> None:
        """Let reading go on."""
        if self._mark is not None:
            self._mark.resume()

    async def wait(self) -> None:
        """Wait until there may be something to take."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def wake(self) -> None:
        """End all waits."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def size_of(event: Event) -> int:
    """Return how many bytes of memory a message takes, about."""
    match event:
        case Output():
            # A character takes one byte in memory if all are Latin, up to four otherwise.
            size = len(event.data) if event.data.isascii() else 4 * len(event.data)
        case Display():
            parts = (event.data, event.metadata)
            size = sum(len(mime) + 4 * len(text) for part in parts for mime, text in part.items())
        case Input():
            size = 4 * len(event.prompt)
        case Call():
            size = len(memoryview(event.args)) + len(memoryview(event.kwargs))
        case Result() | Error():
            size = 0
    return size + MESSAGE_BYTES
