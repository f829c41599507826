"""Backpressure: reading from a worker stops while what it has sent piles up.

WaterMark          stops reading above a high-water mark, and restarts it at a low one, as asyncio does
OrderedDelivery    a queue for messages whose handlers have to be awaited
PendingCallLimit   a bound on the host calls and prompts that are being answered
"""

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
        """Stop reading until `who` resumes it."""
        ...

    def resume_reading(self, who: object) -> None:
        """Take back the stop by `who`, if there is one; reading goes on when there is no other."""
        ...


class WaterMark:
    """Stops the reading of messages while a level is too high: from above `high`, down to `low`."""

    __slots__ = ("_flow_control", "_high", "_low", "_paused")

    def __init__(self, high: int, low: int, flow_control: Callable[[], FlowControl]) -> None:
        """Stop and restart reading by `flow_control()`, which is the present worker's."""
        self._high = high
        self._low = low
        self._flow_control = flow_control
        self._paused: FlowControl | None = None

    def rise(self, level: int) -> None:
        """Stop reading if the new level demands it: it has risen by what the present worker has sent."""
        if level > self._high:
            flow_control = self._flow_control()
            # Another one when another worker came meanwhile.
            if self._paused is not flow_control:
                self._paused = flow_control
                flow_control.pause_reading(self)

    def fall(self, level: int) -> None:
        """Restart reading if the new level, which has fallen, allows it.

        It never stops reading: what is still too much may come from a worker that is gone, and the one
        that takes its place could not even say that it is ready.
        """
        if level <= self._low:
            self.resume()

    def resume(self) -> None:
        """Let reading go on, whatever the level."""
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.resume_reading(self)


type Step = Callable[[], Awaitable[None] | None]


class OrderedDelivery:
    """A queue of steps that is empty, and costs nothing, unless a step has to be awaited."""

    def __init__(self, task_owner: TaskOwner, flow_control: Callable[[], FlowControl]) -> None:
        """Await in a task of `task_owner`; stop and restart reading by `flow_control()`."""
        self._task_owner = task_owner
        self._mark = WaterMark(HIGH_BYTES, LOW_BYTES, flow_control)
        self._steps: deque[tuple[Step, int]] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self.busy = False
        """Whether steps have to queue up: ask before calling one directly."""

    def add(self, step: Step, size: int = 0) -> None:
        """Run a step when its turn comes.

        `size` is how many bytes a message of the worker holds in memory; 0 is a step of the client's own,
        for which no worker is made to wait.
        """
        if not self.busy:
            awaitable = step()
            if awaitable is not None:
                self.wait_for(awaitable)
            return
        self._steps.append((step, size))
        if size:
            self._bytes += size
            self._mark.rise(self._bytes)

    def wait_for(self, awaitable: Awaitable[None]) -> None:
        """Let everything after this wait until `awaitable` is done. Not to be called while busy."""
        self.busy = True
        task = self._task_owner.start(self._run(awaitable), "output")
        self._task = task if self.busy else None

    async def close(self, grace: float) -> None:
        """Wait for what is queued, at most `grace` seconds; then drop the rest."""
        if self._task is not None and self._task is not asyncio.current_task():
            try:
                await asyncio.wait([self._task], timeout=grace)
            finally:
                self._task.cancel()
        self._run_rest()

    def _run_rest(self) -> None:
        """Run the steps that are left; last messages wake the tasks that wait, no handler is waited for."""
        failure: BaseException | None = None
        while self._steps:
            step, size = self._steps.popleft()
            self._bytes -= size
            try:
                awaitable = step()
            except BaseException as error:  # noqa: BLE001 - raised below: what comes after it is not its
                failure = failure or error
            else:
                if awaitable is not None:
                    _drop(awaitable)
        self._mark.fall(self._bytes)
        if failure is not None:
            raise failure

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
                self._mark.fall(self._bytes)
                current = step()
        finally:
            self.busy = False
            if self._steps:
                # This task is cancelled, or a step has failed: the others must not wait for ever.
                self._run_rest()


def _drop(awaitable: Any) -> None:
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
    elif asyncio.isfuture(awaitable):
        awaitable.cancel()


_MAX_OPEN_CALLS: Final = 4096
_MAX_BYTES: Final = 64 * 1024 * 1024


class PendingCallLimit:
    """Counts the questions that are being answered, and the bytes that they hold."""

    def __init__(self, flow_control: Callable[[], FlowControl]) -> None:
        """Stop and restart the reading of messages by `flow_control()`, which is the present worker's."""
        self._open = 0
        self._bytes = 0
        self._open_mark = WaterMark(_MAX_OPEN_CALLS, _MAX_OPEN_CALLS // 2, flow_control)
        self._bytes_mark = WaterMark(_MAX_BYTES, _MAX_BYTES // 2, flow_control)

    def add(self, task: asyncio.Task[None], size: int) -> None:
        """Count a question of `size` bytes until its task is done."""
        task.add_done_callback(partial(self._done, size))
        self._open += 1
        self._bytes += size
        self._open_mark.rise(self._open)
        self._bytes_mark.rise(self._bytes)

    def _done(self, size: int, _: asyncio.Task[None]) -> None:
        self._open -= 1
        self._bytes -= size
        self._open_mark.fall(self._open)
        self._bytes_mark.fall(self._bytes)
