"""Stopping executions: a ladder of three rungs for each, and deadlines that nobody can miss.

Rung 1 asks the worker once, rung 2 asks again (it raises at every line then), rung 3 kills the worker.
Asking again climbs at once; otherwise time does. An execution that is still queued is not worth a
worker's death: it is only given up on our side, and the ladder goes on when its turn comes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pyrepl3_client._execution.record import ExecutionRecord
from pyrepl3_schemas.lifecycle import ExecutionState
from pyrepl3_schemas.messages import CancelReason, Error, Result


@dataclass(slots=True)
class _Entry:
    """An execution that has a deadline, or is being stopped."""

    execution: ExecutionRecord
    deadline: float | None
    """Seconds from its beginning after which it is stopped."""
    reason: CancelReason = "timeout"
    step: int = 0
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class CancelActions:
    """What stopping does to the world."""

    ask: Callable[[ExecutionRecord, CancelReason], None]
    """Send the cancel frame and ring."""
    give_up: Callable[[ExecutionRecord, CancelReason], None]
    """Settle a queued execution as cancelled, whatever the worker says later."""
    kill: Callable[[str], None]
    """Kill the worker, for a reason."""
    first: Callable[[], ExecutionRecord | None]
    """The execution that runs: the oldest that is not over."""


class CancellationLadder:
    """All ladders and deadlines of one session."""

    def __init__(self, actions: CancelActions, cancel_grace: float, kill_grace: float) -> None:
        """Wait `cancel_grace` seconds between rungs 1 and 2, `kill_grace` between 2 and 3."""
        self._loop = asyncio.get_running_loop()
        self._act = actions
        self._cancel_grace = cancel_grace
        self._kill_grace = kill_grace
        self._watches: dict[str, _Entry] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is watched; `advance` and `over` need not be called then."""
        return not self._watches

    def reason(self, execution: ExecutionRecord) -> CancelReason | None:
        """Say why it was asked to stop, None when it was not."""
        watch = self._watches.get(execution.execution_id)
        return None if watch is None or watch.step == 0 else watch.reason

    def watch(self, execution: ExecutionRecord, seconds: float) -> None:
        """Stop an execution when it has run for `seconds`.

        The worker keeps the time itself; this is for one that does not get round to it.
        """
        self._watches[execution.execution_id] = _Entry(execution, seconds + self._cancel_grace)
        self.advance()

    def stop(self, execution: ExecutionRecord, reason: CancelReason) -> None:
        """Begin to stop an execution, or climb to the next rung."""
        watch = self._watches.get(execution.execution_id)
        if watch is None:
            watch = self._watches[execution.execution_id] = _Entry(execution, None)
        if watch.step == 0:
            watch.reason = reason
        if watch.step < 2:
            self._next_step(watch)

    def advance(self) -> None:
        """The execution that runs may be another one now: its clock starts."""
        first = self._act.first()
        watch = None if first is None else self._watches.get(first.execution_id)
        if watch is None or watch.timer is not None:
            return
        if watch.step > 0:
            self._set_timer(watch)
        elif watch.deadline is not None:
            watch.timer = self._loop.call_later(watch.deadline, self._next_step, watch)

    def over(self, execution: ExecutionRecord) -> None:
        """Forget an execution that is over."""
        watch = self._watches.pop(execution.execution_id, None)
        if watch is not None and watch.timer is not None:
            watch.timer.cancel()

    def _next_step(self, watch: _Entry) -> None:
        if watch.timer is not None:
            watch.timer.cancel()
            watch.timer = None
        runs = self._act.first() is watch.execution
        if watch.step >= 1 and not runs:
            self._act.give_up(watch.execution, watch.reason)
            return
        watch.step += 1
        if watch.step == 1:
            watch.execution.move(ExecutionState.CANCELLING)
        if watch.step <= 2:
            self._set_timer(watch)
            self._act.ask(watch.execution, watch.reason)
        else:
            self._act.kill(
                f"execution {watch.execution.execution_id!r} did not stop ({watch.reason}) "
                f"within {self._cancel_grace:g} + {self._kill_grace:g} seconds"
            )

    def _set_timer(self, watch: _Entry) -> None:
        grace = self._cancel_grace if watch.step == 1 else self._kill_grace
        watch.timer = self._loop.call_later(grace, self._next_step, watch)


def must_not_rerun(message: Result | Error, seconds: float | None) -> bool:
    """Say whether an execution is not to be run again for its effect.

    It was stopped, and nobody knows how far it came; or it took longer than its deadline of `seconds`, so
    that it was told to stop, whatever it made of that.
    """
    if seconds is not None and message.duration >= seconds:
        return True
    return isinstance(message, Error) and message.kind in ("cancelled", "timeout")


def cancelled_error(execution_id: str, reason: CancelReason, what: str) -> Error:
    """Give the outcome of an execution that was stopped without its worker's word for it."""
    text = f"execution {execution_id!r} {what}"
    return Error(
        kind="timeout" if reason == "timeout" else "cancelled",
        exception="CancellationError",
        message=text,
        traceback=f"CancellationError: {text}",
        execution_id=execution_id,
    )


def cancelled_before_start(execution: ExecutionRecord, reason: CancelReason) -> Error:
    """Give the outcome of an execution that was cancelled before it began."""
    again = "" if execution.attempts == 1 else " again: its worker had died"
    return cancelled_error(execution.execution_id, reason, f"was cancelled before it began{again}")
