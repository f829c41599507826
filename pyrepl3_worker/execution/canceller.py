"""Canceller: carries out cancels and timeouts, wherever the code runs. See `interrupts.signals`."""

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
from pyrepl3_worker.interrupts.line_interrupter import LineInterrupter
from pyrepl3_worker.interrupts.signals import (
    Interrupt,
    WakeupSignal,
    loop_is_idle,
    make_cancel_error,
    wait_readable,
)
from pyrepl3_worker.interrupts.swallowers import is_dropped
from pyrepl3_worker.interrupts.timers import Timer, TimerThread

_ESCALATE_AFTER_SECONDS: Final = 1.0
"""Seconds that code has to clean up after a timeout before it is unwound."""
_FIRST_SEND_AGAIN: Final = 0.02
"""Seconds after which the wake-up signal is sent again, for the first time; then after twice as long.

One that strikes just before a system call begins interrupts nothing, and Python's handler waits then."""
_WAIT_READABLE_CODE: Final = wait_readable.__code__  # pyright: ignore[reportFunctionMemberAccess] - a plain function


def _never_overdue() -> None:
    """Return None: nothing has taken too long."""


class Canceller:
    """Knows which execution runs and where. The first cancel raises once, the second at every line."""

    def __init__(self, host: Host, timers: TimerThread, blocking: BlockingThread) -> None:
        """Begin with nothing running."""
        self._host = host
        self._timers = timers
        self._blocking = blocking
        self._line_interrupter = LineInterrupter()
        self.wakeup = WakeupSignal(timers, self._on_wakeup)
        self.task: Task[Any] | None = None
        """The running execution's own task, when it has one."""
        self.held_task: Task[Any] | None = None
        """The task that runs a loop of the code's at the moment, so that it is not the current one."""
        self.raise_elsewhere: Callable[[BaseException, FrameType | None], bool] | None = None
        """While a loop runs that swallows errors: takes one over, if the frame is that loop's own."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: WorkerExecution | None = None
        self._timer: Timer | None = None
        self._cancel_pending = False
        self._older_children: frozenset[int] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._expired: deque[WorkerExecution] = deque()
        self._reading_messages = False
        self._cancel_holder = False
        self._raised_error: BaseException | None = None
        self._is_dropped = False
        """Whether Python drops what was raised, so that it is raised again in the cell's own lines."""
        self._our_hook: Final = self._on_unraisable
        self._user_hook: Callable[[Any], object] = sys.unraisablehook
        self.overdue_error: Callable[[], BaseException | None] = _never_overdue
        """Returns what to raise in objects' code that takes too long to be saved or restored, or None."""

    @property
    def reads_messages(self) -> bool:
        """Whether messages are read in the middle of the code, by the signal's handler."""
        return self._reading_messages

    def execution_started(self, execution: WorkerExecution, loop: asyncio.AbstractEventLoop) -> None:
        """Note that an execution starts."""
        self._running, self._loop = execution, loop
        self._cancel_pending = self._is_dropped = False

    def remember_children(self) -> None:
        """Remember which child processes exist before the running execution starts its first one."""
        if self._older_children is None and self._running is not None:
            self._older_children = living_children()

    def start_timeout(self, timeout: float) -> None:
        """Cancel the running execution in `timeout` seconds."""
        execution = self._running
        if execution is not None:
            execution.timeout = timeout
            self.wakeup.install_if_main()
            self._set_timer(execution, timeout)

    def execution_ended(self) -> None:
        """Note that the running execution has ended. If it was cancelled, kill its child processes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line_interrupter.active:
            self._line_interrupter.stop()
        execution, self._running, self.task = self._running, None, None
        if execution is not None and execution.cancel_count:
            kill_children(execution.started_boottime, self._older_children)
            self._restore_hook()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if self._older_children is not None:
            self._older_children = None

    def dropped_error(self) -> BaseException | None:
        """Return what was raised in the running execution, and dropped by Python; None if nothing was."""
        execution = self._running
        return None if execution is None or not self._is_dropped else self._make_error(execution)

    async def wait_ended(self) -> None:
        """Wait until the running execution, if there is one, has ended."""
        if self._running is not None and self._loop is not None:
            self._ended = self._loop.create_future()
            await self._ended

    def request_cancel(self, execution: WorkerExecution, reason: CancelReason) -> None:
        """Record a cancel of the running execution, which `deliver_cancel` carries out."""
        execution.cancel_count += 1
        execution.cancel_reason = reason
        self._cancel_pending = True

    def raise_if_cancelled(self) -> None:
        """Raise in the calling code, which waits on the loop's thread, if it is to be cancelled.

        Raises:
            BaseException: what the reason asks for.
        """
        error = self._handle_expired(_WAIT_READABLE_CODE)
        if error is not None:
            raise error

    def raise_in_held_turn(self) -> None:
        """Raise in the calling code, which runs the session's loop itself, if it is to be cancelled.

        Raises:
            BaseException: what the reason asks for.
        """
        if not (self._cancel_pending or self._expired) or self._running is None:
            return
        if self._running.where == "main" or self._holds_loop():
            self.raise_if_cancelled()

    def _holds_loop(self) -> bool:
        """Return whether the running execution's own task runs a loop at the moment."""
        return self.held_task is not None and self.held_task is self.task

    def cancel_loop_holder(self) -> None:
        """Cancel the task that holds the loop, since an execution that waits for its turn is cancelled.

        That task belongs to an execution that has ended; a running one gets cancels of its own.
        """
        if self._running is None and self._reading_messages and current_path.get() is not None:
            self._cancel_holder = True

    def _set_timer(self, execution: WorkerExecution, delay: float) -> None:
        self._timer = self._timers.call_later(delay, lambda: self._on_deadline(execution))

    def _on_deadline(self, execution: WorkerExecution) -> None:
        """Handle an expired timeout; runs on the timer thread."""
        self._expired.append(execution)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._handle_expired, None)
        self._send_until_handled(execution, _FIRST_SEND_AGAIN)

    def _send_until_handled(self, execution: WorkerExecution, delay: float) -> None:
        def send_again() -> None:
            if execution in self._expired:
                self._send_until_handled(execution, 2 * delay)

        self.wakeup.send()
        self._timers.call_later(delay, send_again)

    def _handle_expired(self, runner_code: CodeType | None) -> BaseException | None:
        while self._expired:
            execution = self._expired.popleft()
            if execution is self._running:
                self.request_cancel(execution, "timeout")
                # Code that swallows the first one is interrupted again, without a request of the client.
                self._set_timer(execution, _ESCALATE_AFTER_SECONDS)
        return self.deliver_cancel(runner_code)

    def _on_wakeup(self, runner_code: CodeType, frame: FrameType | None) -> None:
        """Read messages while code runs in `runner_code` on the loop's thread; raise if it is cancelled."""
        if loop_is_idle(runner_code, frame):
            return
        if runner_code is not _WAIT_READABLE_CODE:
            # There, the session reads by itself as soon as this handler is done.
            self._reading_messages = True
            try:
                self._host.read_messages()
            finally:
                self._reading_messages = False
        error = self._handle_expired(runner_code)
        if error is not None and self.raise_elsewhere is not None and self.raise_elsewhere(error, frame):
            return
        if error is not None:
            self._note_raised(error, frame, threading.get_ident())
        if error is None and self._cancel_holder:
            self._cancel_holder = False
            error = CancelledError("cancelled: it held the loop")
        if error is None:
            error = self.overdue_error()
        if error is not None:
            raise error

    def _on_unraisable(self, unraisable: Any) -> None:
        """Handle an exception in a finalizer or a callback of a weak reference, where Python drops it.

        If that was a cancel, the code that was running goes on. So it is raised once more.
        """
        lost = unraisable.exc_value
        if self._raised_error is None or lost is not self._raised_error:
            try:
                self._user_hook(unraisable)
            except BaseException as error:
                if error is not self._raised_error:
                    raise
                # The cancel was raised inside the user's hook.
                lost = error
        if lost is self._raised_error and self._running is not None:
            self._raised_error = None
            self._raise_again(threading.get_ident())

    def _note_raised(self, error: BaseException, frame: FrameType | None, thread: int) -> None:
        """Have what is about to be raised in a frame raised again in the cell's lines, if Python drops it."""
        execution = self._running
        self._is_dropped = False
        if execution is not None and execution.cancel_count == 1 and is_dropped(frame, error):
            self._raise_again(thread)
        self._raised_error = error
        if sys.unraisablehook is not self._our_hook:
            self._user_hook, sys.unraisablehook = sys.unraisablehook, self._our_hook

    def _raise_again(self, thread: int) -> None:
        execution = self._running
        if execution is None or execution.cancel_count > 1:  # it is raised at every line already
            return
        self._is_dropped = True

        def make_error() -> BaseException | None:
            if execution.where == "task" and current_task(self._loop) is not self.task:
                return None
            error = self._make_error(execution)
            if not is_dropped(sys._getframe(2), error):  # pyright: ignore[reportPrivateUsage] - the code's frame
                self._is_dropped = False
                self._line_interrupter.stop()
            return error

        self._line_interrupter.raise_at_every_line(thread, make_error)

    @staticmethod
    def _make_error(execution: WorkerExecution) -> BaseException:
        return make_cancel_error(
            execution.cancel_reason or "cancelled", execution.execution_id, execution.timeout
        )

    def _restore_hook(self) -> None:
        self._raised_error = None
        if sys.unraisablehook is self._our_hook:
            sys.unraisablehook = self._user_hook

    def deliver_cancel(self, runner_code: CodeType | None = None) -> BaseException | None:
        """Carry out a recorded cancel.

        Args:
            runner_code: the function, marked by `runs_user_code`, in which code runs on the loop's thread;
                None when the loop calls this.

        Returns:
            The exception that the wake-up signal's handler is to raise, or None.
        """
        execution = self._running
        if not self._cancel_pending or execution is None:
            return None
        error = self._make_error(execution)
        match execution.where:
            case "main":
                if runner_code is None:
                    # Read by a loop inside the cell's `asyncio.run`: only the signal's handler can raise.
                    self.wakeup.send()
                    return None
                self._cancel_pending = False
                self._escalate(execution, threading.get_ident())
                return error
            case "task" if runner_code is None and self._holds_loop():
                # As above. It is not suspended, so that its own `cancel` would not reach it.
                self.wakeup.send()
                return None
            case "task":
                self._cancel_pending = False
                self._escalate(execution, threading.get_ident())
                return self._cancel_task(execution, error, runner_code)
            case "thread":
                self._cancel_pending = False
                self._interrupt_thread(execution, error)
                return None
            case _:
                return None

    def unwind(self) -> BaseException | None:
        """Raise at every line from now on: the code, once interrupted, goes on as before.

        Returns:
            What to raise at once, in the code that calls; None if the running execution is not being stopped.
        """
        execution = self._running
        if execution is None or not execution.cancel_count:
            return None
        execution.cancel_count = max(execution.cancel_count, 2)
        self._escalate(execution, threading.get_ident())
        return self._make_error(execution)

    def _cancel_task(
        self, execution: WorkerExecution, error: BaseException, runner_code: CodeType | None
    ) -> BaseException | None:
        if self.task is None or self._loop is None:
            return None
        if runner_code is not None and (current_task(self._loop) is self.task or self._holds_loop()):
            return error
        self.task.cancel()
        path = current_path.get()
        at_fault = path is not None and path.execution is execution
        if runner_code is not None and (at_fault or execution.cancel_count > 1):
            # Another task holds the loop.
            return CancelledError(*error.args)
        return None

    def _interrupt_thread(self, execution: WorkerExecution, error: BaseException) -> None:
        thread = self._blocking.ident
        if thread is None:
            return
        interrupt = Interrupt(error)
        waited = self._host.interrupt_blocking(interrupt)
        if not self._escalate(execution, thread) and not waited:
            # Not for one that waited: line events slow the whole process down for a while.
            self._line_interrupter.raise_once(thread, lambda: self._claim(interrupt, thread))
        # The code may be waiting for a child process of its own.
        kill_children(execution.started_boottime, self._older_children)

    def _claim(self, interrupt: Interrupt, thread: int) -> BaseException | None:
        """Return what is raised on the blocking thread's next line."""
        error = interrupt.claim()
        if error is not None:
            self._note_raised(error, sys._getframe(2), thread)  # pyright: ignore[reportPrivateUsage] - the code's frame
        return error

    def _escalate(self, execution: WorkerExecution, thread: int) -> bool:
        """Raise at every line until the execution ends, from the second cancel on; return whether it does."""
        if execution.cancel_count < 2:
            return False
        reason, execution_id, timeout = execution.cancel_reason, execution.execution_id, execution.timeout
        self._line_interrupter.raise_at_every_line(
            thread, lambda: make_cancel_error(reason or "cancelled", execution_id, timeout)
        )
        return True
