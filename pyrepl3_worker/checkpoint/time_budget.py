"""Stops the own code of objects that are saved or restored when it takes too long.

Their `__reduce__` or `__setstate__` may hang, catch every exception, or fork. They run on the event
loop's thread, so everything else waits for them. A timer sends the wake-up signal, and the signal's
handler asks here whether the running code has used up its time (see `execution.canceller`).
"""

import threading
from collections.abc import Callable
from os import getpid  # by name, as all imports here: the objects' code may replace the module's attributes
from time import monotonic
from typing import Any, Final

from pyrepl3_worker.execution.execution import exit_forked_child
from pyrepl3_worker.interrupts.line_interrupter import LineInterrupter
from pyrepl3_worker.interrupts.signals import WakeupSignal, call_user_code
from pyrepl3_worker.interrupts.timers import Timer, TimerThread
from pyrepl3_worker.isolation.builtins_guard import discard_user_hooks

DEFAULT_SECONDS: Final = 10.0
"""Seconds that one checkpoint or one restore may take in all, when the client sets no other limit."""
_MIN_SECONDS: Final = 0.001
_CLEANUP_SECONDS: Final = 0.2
"""Seconds that interrupted code has to clean up before it is interrupted at every line."""


class BudgetInterrupt(BaseException):
    """Raised in code that has used up its time. It is no `Exception`, which that code might catch."""


class BudgetExceeded(Exception):  # noqa: N818 - it is an outcome, and reported as one
    """An object's own code took too long and was stopped; the text is the reason for the user."""


class TimeBudget:
    """Shares one time limit among all objects: each may take half of what is left, so that all are tried."""

    def __init__(self, timers: TimerThread | None = None, wakeup: WakeupSignal | None = None) -> None:
        """Use these timers and this signal; without them, wait for objects' code without limit."""
        self._timers = timers
        self._wakeup = wakeup
        self._line_interrupter = LineInterrupter()
        self._timer: Timer | None = None
        self._started = False
        self._budget_end = 0.0
        self._deadline: float | None = None
        """When the running code has used up its time (`time.monotonic`); None while none runs."""
        self._share = 0.0
        self._interrupts_raised = 0

    def start(self, seconds: float | None) -> None:
        """Start a time limit in seconds that all calls of `run` share; None for `DEFAULT_SECONDS`."""
        self._budget_end = monotonic() + (DEFAULT_SECONDS if seconds is None else seconds)
        self._started = True
        if self._wakeup is not None:
            self._wakeup.install_if_main()
        self._set_timer((self._budget_end - monotonic()) / 4)

    def stop(self) -> None:
        """Stop the timer: the checkpoint or restore is done."""
        self._started = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that runs objects' own code, and stop it when its share of the time is over.

        Raises:
            BudgetExceeded: it took longer, and was stopped.
            BaseException: the code raised it; `SystemExit` and the like are the caller's to report too.
        """
        if self._deadline is not None or self._timers is None:
            return function(*arguments)  # inside another call of `run`
        pid, now = getpid(), monotonic()
        share = self._share = max((self._budget_end - now) / 2, _MIN_SECONDS)
        self._interrupts_raised = 0
        self._deadline = now + share
        try:
            result = call_user_code(function, *arguments)
        except BaseException as error:
            self._deadline = None
            if getpid() != pid:
                exit_forked_child(error)
            if self._interrupts_raised:
                raise BudgetExceeded(f"it took longer than {_format_seconds(share)}") from None
            raise
        finally:
            self._deadline = None
            discard_user_hooks()
            if self._line_interrupter.active:
                self._line_interrupter.stop()
        if getpid() != pid:
            exit_forked_child(None)
        return result

    def run_untimed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that may take as long as it takes: an import, which must never be cut in two.

        Raises:
            BaseException: the function raised it.
        """
        before, self._deadline = self._deadline, None
        started = monotonic()
        try:
            return call_user_code(function, *arguments)
        finally:
            taken = monotonic() - started
            self._budget_end += taken
            self._deadline = None if before is None else before + taken

    def overdue_error(self) -> BaseException | None:
        """Return the exception to raise in the running code, if its time is over; for the signal's handler.

        From the second time on, the code is interrupted at every line.
        """
        due = self._deadline
        if due is None or monotonic() < due:
            return None
        self._interrupts_raised += 1
        self._deadline = monotonic() + _CLEANUP_SECONDS
        if self._interrupts_raised > 1:
            self._line_interrupter.raise_at_every_line(threading.get_ident(), BudgetInterrupt)
        return BudgetInterrupt()

    def _set_timer(self, delay: float) -> None:
        if self._timers is not None and self._started:
            self._timer = self._timers.call_later(
                min(max(delay, _MIN_SECONDS), _CLEANUP_SECONDS), self._check_deadline
            )

    def _check_deadline(self) -> None:
        """Send the wake-up signal if the running code's time is over; runs on the timer thread."""
        if not self._started or self._wakeup is None:
            return
        now, due = monotonic(), self._deadline
        if due is not None and now >= due:
            self._wakeup.send()
        self._set_timer(due - now if due is not None and due > now else self._share)


def _format_seconds(share: float) -> str:
    return f"{share:.3g} s"
