"""How long the code of objects may take that are saved or restored: it may hang, swallow all, or fork.

The loop's thread is held meanwhile, so what waits there is everything. An alarm rings the doorbell, and
its handler asks here whether whatever is at work has had its time (see `cancellation`).
"""

import threading
from collections.abc import Callable
from os import getpid  # by name, as all here: the objects' code may replace them
from time import monotonic
from typing import Any, Final

from pyrepl3_worker.execution.run_cell import call_user_code, leave_forked_child
from pyrepl3_worker.interrupts.signals import LineInterrupter, WakeupSignal
from pyrepl3_worker.interrupts.timers import Timer, TimerThread
from pyrepl3_worker.isolation.builtins_guard import remove_user_hooks_in_passing

LIMIT: Final = 10.0
"""Seconds that one checkpoint may take in all, and one restore, when the parent names no other limit."""
_LEAST: Final = 0.001
_AGAIN: Final = 0.2
"""Seconds that code has to clean up before it is unwound line by line."""


class BudgetInterrupt(BaseException):
    """Raised in code that has had its time. No `Exception`, which it might take for one of its own."""


class BudgetExceeded(Exception):  # noqa: N818 - it is a finding, and reported as one
    """Something took too long; the text says what is to be said about it."""


class TimeBudget:
    """Gives every object a share of one time limit: half of what is left, so that all have a turn."""

    def __init__(self, timers: TimerThread | None = None, wakeup: WakeupSignal | None = None) -> None:
        """Without a clock and a doorbell, wait for ever."""
        self._timers = timers
        self._wakeup = wakeup
        self._line_interrupter = LineInterrupter()
        self._timer: Timer | None = None
        self._open = False
        self._end = 0.0
        self._due: float | None = None
        """When whatever is at work has had its time."""
        self._share = 0.0
        self._strikes = 0

    def begin(self, seconds: float | None) -> None:
        """All that is run from now on shares so many seconds."""
        self._end = monotonic() + (LIMIT if seconds is None else seconds)
        self._open = True
        if self._wakeup is not None:
            self._wakeup.install_if_main()
        self._set_timer((self._end - monotonic()) / 4)

    def close(self) -> None:
        """It is done."""
        self._open = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what runs objects' own code, for its share of the time.

        Raises:
            Impatience: it took longer, and was stopped.
            BaseException: whatever the code raises; `SystemExit` and its like are findings as well.
        """
        if self._due is not None or self._timers is None:
            return function(*arguments)  # inside of another one
        pid, now = getpid(), monotonic()
        share = self._share = max((self._end - now) / 2, _LEAST)
        self._strikes = 0
        self._due = now + share
        try:
            result = call_user_code(function, *arguments)
        except BaseException as error:
            self._due = None
            if getpid() != pid:
                leave_forked_child(error)
            if self._strikes:
                raise BudgetExceeded(f"it took longer than {_seconds(share)}") from None
            raise
        finally:
            self._due = None
            remove_user_hooks_in_passing()
            if self._line_interrupter.active:
                self._line_interrupter.stop()
        if getpid() != pid:
            leave_forked_child(None)
        return result

    def overdue(self) -> BaseException | None:
        """In the doorbell's handler: give what to raise in the code at work, if it has had its time."""
        due = self._due
        if due is None or monotonic() < due:
            return None
        self._strikes += 1
        self._due = monotonic() + _AGAIN
        if self._strikes > 1:
            self._line_interrupter.raise_at_every_line(threading.get_ident(), BudgetInterrupt)
        return BudgetInterrupt()

    def _set_timer(self, delay: float) -> None:
        if self._timers is not None and self._open:
            self._timer = self._timers.set(min(max(delay, _LEAST), _AGAIN), self._look)

    def _look(self) -> None:
        """On the clock's thread: ring if something has had its time."""
        if not self._open or self._wakeup is None:
            return
        now, due = monotonic(), self._due
        if due is not None and now >= due:
            self._wakeup.send()
        self._set_timer(due - now if due is not None and due > now else self._share)


def _seconds(share: float) -> str:
    return f"{share:.3g} s"
