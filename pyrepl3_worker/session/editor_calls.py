"""EditorCalls: what the code's own classes answer an editor (`__dir__`), within a bound in time."""

from collections.abc import Callable, Iterable
from itertools import islice

from pyrepl3_worker.checkpoint.time_budget import TimeBudget
from pyrepl3_worker.execution.execution import current_path
from pyrepl3_worker.executor import AsyncExecutor
from pyrepl3_worker.interrupts.signals import runs_user_code
from pyrepl3_worker.interrupts.timers import TimerThread

_SECONDS = 0.5
"""Of which one call may take half."""
_MAX_ITEMS = 10_000


class EditorCalls:
    """Calls functions of the code between two executions, and never in the middle of its other code."""

    def __init__(self, executor: AsyncExecutor, timers: TimerThread) -> None:
        """`timers` run the clock of what is called."""
        self._executor = executor
        self._budget = TimeBudget(timers, executor.canceller.wakeup)

    def call(self, function: Callable[..., Iterable[object]], *arguments: object) -> list[object] | None:
        """Return what is in what a function returns; None if it fails, takes too long, or may not run now."""
        canceller = self._executor.canceller
        if self._executor.running is not None or canceller.reads_messages or current_path.get() is not None:
            # It could wait for a lock that the code holds, and a cancel of that code would be raised in it.
            return None
        before, canceller.overdue_error = canceller.overdue_error, self._budget.overdue_error
        self._budget.start(_SECONDS)
        try:
            return self._budget.run(_listed, function, *arguments)
        except BaseException:  # SystemExit, for example: an editor's question ends nothing
            return None
        finally:
            self._budget.stop()
            canceller.overdue_error = before


@runs_user_code
def _listed(function: Callable[..., Iterable[object]], *arguments: object) -> list[object]:
    return list(islice(function(*arguments), _MAX_ITEMS))
