"""TransferLimit: stops the own code of values that are sent (a mapping's, say) when it takes too long."""

import threading
from collections.abc import Callable
from typing import Final

from pyrepl3_worker.checkpoint.time_budget import BudgetExceeded, BudgetInterrupt, TimeBudget
from pyrepl3_worker.execution.execution import current_path
from pyrepl3_worker.executor import AsyncExecutor
from pyrepl3_worker.interrupts.line_interrupter import LineInterrupter
from pyrepl3_worker.interrupts.signals import call_user_code
from pyrepl3_worker.interrupts.timers import TimerThread

_CLEANUP_SECONDS: Final = 0.2
"""After which code that has swallowed the first interrupt is interrupted at every line."""


class TransferLimit:
    """Runs what encodes a value on the loop's thread, and ends it when the client waits no longer."""

    def __init__(self, executor: AsyncExecutor, timers: TimerThread) -> None:
        """`timers` run the clock."""
        self._executor = executor
        self._timers = timers
        self._budget = TimeBudget(timers, executor.canceller.wakeup)
        self._interrupter = LineInterrupter()

    def run[R](self, seconds: float | None, function: Callable[[], R]) -> R:
        """Return what a function returns.

        Args:
            seconds: that it may take; None for as long as it takes.
            function: runs code of the session's.

        Raises:
            BudgetExceeded: it took longer.
            BaseException: the function raised it.
        """
        if seconds is None:
            return function()
        canceller = self._executor.canceller
        if self._executor.running is not None or canceller.reads_messages or current_path.get() is not None:
            # The wake-up signal would bring a cancel of the code that runs, which is not to end this.
            return self._run_by_lines(seconds, function)
        before, canceller.overdue_error = canceller.overdue_error, self._budget.overdue_error
        self._budget.start(2 * seconds)  # of which one call may take half
        try:
            return self._budget.run(function)
        finally:
            self._budget.stop()
            canceller.overdue_error = before

    def _run_by_lines[R](self, seconds: float, function: Callable[[], R]) -> R:
        """Run it, and interrupt it between two lines. A system call that it waits in is not interrupted."""
        lock, thread, interrupter = threading.Lock(), threading.get_ident(), self._interrupter
        ended = False
        raised = 0

        def make_error() -> BaseException | None:
            nonlocal raised
            raised += 1
            return None if ended else BudgetInterrupt()

        def interrupt() -> None:
            with lock:
                if not ended:
                    start = interrupter.raise_at_every_line if raised else interrupter.raise_once
                    start(thread, make_error)
                    self._timers.call_later(_CLEANUP_SECONDS, interrupt)

        timer = self._timers.call_later(seconds, interrupt)
        try:
            return call_user_code(function)
        except BudgetInterrupt:
            raise BudgetExceeded(f"it took longer than {seconds:.3g} s") from None
        finally:
            with lock:
                ended = True
                interrupter.stop()
            timer.cancel()
