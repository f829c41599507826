"""Hands messages on in order, and waits between two when the one who takes them is not done yet."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

from pyrepl3_client._concurrency.task_owner import TaskOwner

HIGH_BYTES: Final = 8 * 1024 * 1024
"""With more than this waiting, reading stops."""
LOW_BYTES: Final = 4 * 1024 * 1024
"""At this, reading goes on."""
MESSAGE_BYTES: Final = 256
"""What a message without text counts for."""


class FlowControl(Protocol):
    """Stops and restarts the reading of a worker's messages."""

    def pause_reading(self, who: object) -> None:
        """Stop reading."""
        ...

    def resume_reading(self, who: object) -> None:
        """Take `who`'s hold back, if there is one."""
        ...


type Step = Callable[[], Awaitable[None] | None]


class OrderedDelivery:
    """A queue of steps that is empty, and costs nothing, unless a step has to be awaited."""

    def __init__(self, task_owner: TaskOwner, flow_control: Callable[[], FlowControl]) -> None:
        """Await in a task of `nursery`; stop and start reading by `valve()`."""
        self._task_owner = task_owner
        self._flow_control = flow_control
        self._steps: deque[tuple[Step, int]] = deque()
        self._bytes = 0
        self._full = False
        self._task: asyncio.Task[None] | None = None
        self.busy = False
        """Whether steps have to queue up: ask before calling one directly."""

    def add(self, step: Step, size: int = MESSAGE_BYTES) -> None:
        """Take a step when its turn comes; `size` is what it holds in memory."""
        if not self.busy:
            awaitable = step()
            if awaitable is not None:
                self.wait_for(awaitable)
            return
        self._steps.append((step, size))
        self._bytes += size
        if self._bytes > HIGH_BYTES and not self._full:
            self._full = True
            self._flow_control().pause_reading(self)

    def wait_for(self, awaitable: Awaitable[None]) -> None:
        """Let everything after this wait until `awaitable` is done. Not to be called while busy."""
        self.busy = True
        task = self._task_owner.start(self._run(awaitable), "output")
        self._task = task if self.busy else None

    async def close(self, grace: float) -> None:
        """Wait for what is queued, at most `grace` seconds; then drop the rest."""
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task], timeout=grace)
            self._task.cancel()
        while self._steps:
            step, _ = self._steps.popleft()
            # Terminal steps wake those who wait; a handler is not waited for any more.
            awaitable = step()
            if awaitable is not None:
                _drop(awaitable)

    async def _run(self, awaitable: Awaitable[None]) -> None:
        current: Awaitable[None] | None = awaitable
        try:
            while True:
                if current is not None:
                    await current
                if not self._steps:
                    return
                step, size = self._steps.popleft()
                self._bytes -= size
                if self._full and self._bytes <= LOW_BYTES:
                    self._full = False
                    self._flow_control().resume_reading(self)
                current = step()
        finally:
            self.busy = False


def _drop(awaitable: Any) -> None:
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
    elif asyncio.isfuture(awaitable):
        awaitable.cancel()


_MOST_OPEN: Final = 4096
_MOST_BYTES: Final = 64 * 1024 * 1024


class PendingCallLimit:
    """Counts the questions that are being answered, and the bytes that they hold."""

    def __init__(self, flow_control: Callable[[], FlowControl]) -> None:
        """Stop and start the reading of messages by `valve()`, which is the present worker's."""
        self._flow_control = flow_control
        self._held: FlowControl | None = None
        self._open = 0
        self._bytes = 0

    def add(self, task: asyncio.Task[None], size: int) -> None:
        """Count a question until its task is done."""
        self._open += 1
        self._bytes += size
        task.add_done_callback(partial(self._done, size))
        if self._open > _MOST_OPEN or self._bytes > _MOST_BYTES:
            flow_control = self._flow_control()
            if self._held is not flow_control:
                self._held = flow_control
                flow_control.pause_reading(self)

    def _done(self, size: int, _: asyncio.Task[None]) -> None:
        self._open -= 1
        self._bytes -= size
        if self._held is not None and self._open <= _MOST_OPEN // 2 and self._bytes <= _MOST_BYTES // 2:
            self._held.resume_reading(self)
            self._held = None
