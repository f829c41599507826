"""Carries out the wish to stop an execution, wherever its code is at the moment. See `cancellation`."""

import asyncio
import sys
import threading
from asyncio import CancelledError, Task, current_task  # by name: the code may replace asyncio's own
from collections import deque
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from pyrepl3_schemas.messages import CancelReason
from pyrepl3_worker.execution.blocking_thread import BlockingThread
from pyrepl3_worker.execution.execution import WorkerExecution, current_path
from pyrepl3_worker.execution.host import Host
from pyrepl3_worker.interrupts.child_processes import kill_children, living_children
from pyrepl3_worker.interrupts.signals import (
    Interrupt,
    LineInterrupter,
    WakeupSignal,
    loop_is_idle,
    make_cancel_error,
    wait_readable,
)
from pyrepl3_worker.interrupts.timers import Timer, TimerThread

_ESCALATE_AFTER: Final = 1.0
"""Seconds that code has to clean up after a timeout before it is unwound."""
_WAIT_READABLE: Final = wait_readable.__code__  # pyright: ignore[reportFunctionMemberAccess] - a plain function


def _nothing() -> None:
    """Nothing takes too long."""


class Canceller:
    """Knows what runs and where, and stops it: once gently, from the second wish on relentlessly."""

    def __init__(self, host: Host, timers: TimerThread, blocking: BlockingThread) -> None:
        """Nothing runs yet."""
        self._host = host
        self._timers = timers
        self._blocking = blocking
        self._line_interrupter = LineInterrupter()
        self.wakeup = WakeupSignal(timers, self._on_wakeup)
        self.task: Task[Any] | None = None
        """The running execution's own task, when it has one."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: WorkerExecution | None = None
        self._timer: Timer | None = None
        self._undelivered = False
        self._older: frozenset[int] | None = None
        self._over: asyncio.Future[None] | None = None
        self._due: deque[WorkerExecution] = deque()
        self._answering = False
        self._holder_must_go = False
        self._raised: BaseException | None = None
        self._hook: Final = self._on_unraisable
        self._their_hook: Callable[[Any], object] = sys.unraisablehook
        self.overdue: Callable[[], BaseException | None] = _nothing
        """Gives what to raise in objects' code that takes too long to be saved or restored."""

    def begin(self, execution: WorkerExecution, loop: asyncio.AbstractEventLoop) -> None:
        """An execution starts."""
        self._running, self._loop = execution, loop
        self._undelivered = False

    def before_spawning(self) -> None:
        """Remember the children that are there before the running execution's first one."""
        if self._older is None and self._running is not None:
            self._older = living_children()

    def start_timeout(self, timeout: float) -> None:
        """Stop the running execution in `timeout` seconds."""
        execution = self._running
        if execution is not None:
            execution.timeout = timeout
            self.wakeup.install_if_main()
            self._set_timer(execution, timeout)

    def end(self) -> None:
        """The running execution is over; its child processes go too if it was stopped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line_interrupter.active:
            self._line_interrupter.stop()
        execution, self._running, self.task = self._running, None, None
        if execution is not None and execution.cancels:
            kill_children(execution.started_boot, self._older)
            self._unhook()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        if self._older is not None:
            self._older = None

    async def over(self) -> None:
        """Wait until the running execution, which is to be stopped, has come to its end; none may run."""
        if self._running is not None and self._loop is not None:
            self._over = self._loop.create_future()
            await self._over

    def request(self, execution: WorkerExecution, reason: CancelReason) -> None:
        """Note the wish to stop the running execution; `deliver` carries it out."""
        execution.cancels += 1
        execution.reason = reason
        self._undelivered = True

    def raise_here(self) -> None:
        """Stop the calling code, which waits on the loop's thread, if that is wished.

        Raises:
            BaseException: what the reason asks for.
        """
        error = self._handle_expired(_WAIT_READABLE)
        if error is not None:
            raise error

    def cancel_loop_holder(self) -> None:
        """Something that waits for its turn is cancelled; so is, then, what holds the loop from it.

        That is a task of an execution that is over, for one that is running is what is to be cancelled.
        """
        if self._running is None and self._answering and current_path.get() is not None:
            self._holder_must_go = True

    def _set_timer(self, execution: WorkerExecution, delay: float) -> None:
        self._timer = self._timers.set(delay, lambda: self._on_deadline(execution))

    def _on_deadline(self, execution: WorkerExecution) -> None:
        """On the alarm's thread: the time is up."""
        self._due.append(execution)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._handle_expired, None)
        self.wakeup.send()

    def _handle_expired(self, found: CodeType | None) -> BaseException | None:
        while self._due:
            execution = self._due.popleft()
            if execution is self._running:
                self.request(execution, "timeout")
                # Code that swallows the first one is met again, without the parent's doing.
                self._set_timer(execution, _ESCALATE_AFTER)
        return self.deliver(found)

    def _on_wakeup(self, found: CodeType, frame: FrameType | None) -> None:
        """With code at work in `found` on the loop's thread: listen, and raise if that is wished."""
        if loop_is_idle(found, frame):
            return
        if found is not _WAIT_READABLE:
            # There, the session reads by itself as soon as this handler is done.
            self._answering = True
            try:
                self._host.read_messages()
            finally:
                self._answering = False
        error = self._handle_expired(found)
        if error is not None:
            self._raised = error
            if sys.unraisablehook is not self._hook:
                self._their_hook, sys.unraisablehook = sys.unraisablehook, self._hook
        if error is None and self._holder_must_go:
            self._holder_must_go = False
            error = CancelledError("cancelled: it held the loop")
        if error is None:
            error = self.overdue()
        if error is not None:
            raise error

    def _on_unraisable(self, unraisable: Any) -> None:
        """Something was raised where nothing is caught: in a finalizer, or a callback of a weak reference.

        If that was the stop, it is lost, and the code beneath goes on. So it is raised once more.
        """
        lost = unraisable.exc_value
        if self._raised is None or lost is not self._raised:
            try:
                self._their_hook(unraisable)
            except BaseException as error:
                if error is not self._raised:
                    raise
                # It struck in what this one calls.
                lost = error
        if lost is self._raised and self._running is not None:
            self._raised = None
            self._undelivered = True
            # Answered when we are out of here.
            self.wakeup.send()

    def _unhook(self) -> None:
        self._raised = None
        if sys.unraisablehook is self._hook:
            sys.unraisablehook = self._their_hook

    def deliver(self, found: CodeType | None = None) -> BaseException | None:
        """Carry out a wish to stop; give the exception that the doorbell is to raise.

        `found` is the gate in which code is at work on the loop's thread, or None when this is called
        from the loop.
        """
        execution = self._running
        if not self._undelivered or execution is None:
            return None
        error = make_cancel_error(execution.reason or "cancelled", execution.execution_id, execution.timeout)
        match execution.where:
            case "main":
                if found is None:
                    # Read by a loop inside the cell's `asyncio.run`: only the doorbell can raise.
                    self.wakeup.send()
                    return None
                self._undelivered = False
                self._escalate(execution, threading.get_ident())
                return error
            case "task":
                self._undelivered = False
                self._escalate(execution, threading.get_ident())
                return self._stop_task(execution, error, found)
            case "thread":
                self._undelivered = False
                self._stop_thread(execution, error)
                return None
            case _:
                return None

    def _stop_task(
        self, execution: WorkerExecution, error: BaseException, found: CodeType | None
    ) -> BaseException | None:
        if self.task is None or self._loop is None:
            return None
        if found is not None and current_task(self._loop) is self.task:
            return error
        self.task.cancel()
        path = current_path.get()
        at_fault = path is not None and path.execution is execution
        if found is not None and (at_fault or execution.cancels > 1):
            # Another task holds the loop.
            return CancelledError(*error.args)
        return None

    def _stop_thread(self, execution: WorkerExecution, error: BaseException) -> None:
        thread = self._blocking.ident
        if thread is None:
            return
        interrupt = Interrupt(error)
        waited = self._host.interrupt_blocking(interrupt)
        if not self._escalate(execution, thread) and not waited:
            # Not for one that waited: to be told of lines slows all the process's code down for a while.
            self._line_interrupter.raise_once(thread, interrupt.take)
        # What it waits for may be a child of its own.
        kill_children(execution.started_boot, self._older)

    def _escalate(self, execution: WorkerExecution, thread: int) -> bool:
        """From the second wish on, raise at every line until the execution is over."""
        if execution.cancels < 2:
            return False
        reason, execution_id, timeout = execution.reason, execution.execution_id, execution.timeout
        self._line_interrupter.raise_at_every_line(
            thread, lambda: make_cancel_error(reason or "cancelled", execution_id, timeout)
        )
        return True
